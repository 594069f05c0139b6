"""How often the intervals of speed-ups hold the long-run value on this machine, while other work comes and goes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from ..base.backends import speed_reference
from ..base.errors import UserError
from ..base.files import scratch_folder, write_whole
from ..base.lines import Record
from ..base.outcome import Answer
from ..base.run_folder import RunFolder
from ..base.speed import Estimate, paired_ratio
from ..measure.config import compose_config
from ..measure.runner import open_run
from .alarms import answer, folder_of, options, rate

COUNT, SHARE_HELD = 40, 0.9
QUICK = ("measure=quick", "measure.model=tiny", "durations=[1]", "measure.peaks=false", "measure.first_calls=0")
# of the runs that the long-run value is from, one before the others and one after
LONG = "measure.launches={min: 12, max: 12}"
PERIOD_S = 10.0
# keeps one core busy and idle in turns of random length
WORK = """
import random, sys, time
share, period = map(float, sys.argv[1:])
while True:
    until = time.monotonic() + random.expovariate(1 / (share * period))
    while time.monotonic() < until:
        pass
    time.sleep(random.expovariate(1 / ((1 - share) * period)))
"""

# by component and backend: per launch the seconds of the reference and of the backend, round by round
Pairs = dict[str, list[list[list[float]]]]


def coverage(words: Sequence[str]) -> Answer:
    """``selftest coverage``: 0 where at least nine tenths of the 95 % intervals hold the long-run value."""
    busy, rest = _busy(words)
    o = options(rest, COUNT, "rmvpe")
    overrides = ["suite.speech_clip=false"] * (o.suite in ("rmvpe", "hubert")) + [*QUICK, *o.overrides]
    compose_config(o.suite, overrides)  # what is wrong is told before the first run
    with folder_of(o) as folder:
        quiet = [_kept(folder / "long-0.json", o.suite, [*overrides, LONG])]
        with other_work(busy):
            numbers = tqdm(range(o.times), desc="runs", disable=None)
            runs = [_kept(folder / f"run-{n:03}.json", o.suite, overrides) for n in numbers]
        quiet.append(_kept(folder / "long-1.json", o.suite, [*overrides, LONG]))
        settings = [o.suite, *overrides, f"one core busy {100 * busy:g} % of the time"]
        text, good = coverage_summary(quiet, runs, settings)
        return answer(o, "coverage", text, good)


def _busy(words: Sequence[str]) -> tuple[float, list[str]]:
    """The share of the time that ``busy=`` asks for, and the other words."""
    given = [word.partition("=")[2] for word in words if word.startswith("busy=")]
    try:
        share = float(given[-1]) if given else 0.5
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UserError(f"busy={given[-1]}: a share from 0 to 1 is expected")
    return share, [word for word in words if not word.startswith("busy=")]


@contextlib.contextmanager
def other_work(share: float) -> Iterator[None]:
    """Another process that keeps one core busy for this share of the time, in turns of random length."""
    if share == 0:
        yield
        return
    inner = min(share, 1 - 1e-6)
    with subprocess.Popen([sys.executable, "-c", WORK, str(inner), str(PERIOD_S)]) as process:
        try:
            yield
        finally:
            process.kill()


def _kept(path: Path, suite: str, overrides: Sequence[str]) -> Pairs:
    """The samples in this file, measured first where there is none: an interrupted selftest goes on."""
    if not path.exists():
        write_whole(path, json.dumps(_measured(suite, overrides)))
    return dict(json.loads(path.read_text()))


def _measured(suite: str, overrides: Sequence[str]) -> Pairs:
    with scratch_folder(in_memory=False) as scratch:
        run = open_run(compose_config(suite, [*overrides, f"out={scratch}/run"]))
        run.session.shows_progress = False
        run.execute()
        return pairs_of(run.folder)


def pairs_of(folder: Path) -> Pairs:
    """A run's samples; of what is compared with nothing there are none."""
    run = RunFolder(folder)
    records = {line.key: line for line in run.results() if isinstance(line, Record)}
    found: Pairs = {}
    for (case, component, backend), own in records.items():
        reference = speed_reference(backend, run.plan().backends)
        if reference is None or (case, component, reference) not in records:
            continue
        theirs = records[case, component, reference]
        seconds = dict(zip(theirs.rounds, theirs.samples_s, strict=True))
        launches: dict[int, list[list[float]]] = {}
        for number, taken, launch in zip(own.rounds, own.samples_s, own.launches, strict=True):
            if number in seconds:
                launches.setdefault(launch, []).append([seconds[number], taken])
        found[f"{case} {component} {backend}"] = list(launches.values())
    return found


def speed_up(launches: Sequence[Sequence[Sequence[float]]]) -> Estimate:
    """Of at least one launch with a round."""
    pairs = [pair for launch in launches for pair in launch]
    numbers = [launch for launch, found in enumerate(launches) for _ in found]
    theirs, own = (dict(enumerate(pair[side] for pair in pairs)) for side in (0, 1))
    found = paired_ratio(theirs, own, dict(enumerate(numbers)))
    assert found is not None
    return found


def coverage_summary(quiet: Sequence[Pairs], runs: Sequence[Pairs], settings: Sequence[str]) -> tuple[str, bool]:
    """``quiet``: the runs that the long-run value is taken from."""
    lines = ["# Intervals that hold the long-run value", "", f"Settings: {' '.join(settings)}.", ""]
    table, held, total = [], 0, 0
    for key in quiet[0]:
        truth = speed_up([launch for run in quiet for launch in run[key]])
        found = [speed_up(run[key]) for run in runs if run.get(key)]
        holding = sum(one.low <= truth.value <= one.high for one in found)
        held, total = held + holding, total + len(found)
        widths = sorted(one.half_width for one in found)
        errors = sorted(abs(one.value / truth.value - 1) for one in found)
        shares = (f"{100 * x:.1f} %" for x in (widths[len(widths) // 2], errors[len(errors) // 2], errors[-1]))
        table.append(f"| {key} | {_interval(truth)} | {holding} of {len(found)} | {' | '.join(shares)} |")
    lines += [rate("intervals that hold the long-run value", held, total), ""]
    lines += ["| case, component, backend | long run | held | half-width, median | error, median | error, largest |"]
    lines += ["| :-- | --: | --: | --: | --: | --: |", *table]
    return "\n".join(lines) + "\n", held >= SHARE_HELD * total


def _interval(one: Estimate) -> str:
    return f"{one.value:.3f}x ({one.low:.3f} to {one.high:.3f})"
