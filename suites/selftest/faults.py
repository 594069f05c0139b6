"""How often the trace is right: known faults must be found and placed, clean pairs must raise no alarm."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tqdm import tqdm

from rvc_common.outputs import check_folder, named_path
from rvc_mlx.optimize import OPTIMIZATIONS

from ..base.errors import UserError
from ..base.files import scratch_folder, write_whole
from ..base.lock import Lock
from ..base.outcome import FAILED, PASSED, Answer
from ..base.run_folder import own_folder
from ..base.words import options, whole_number
from ..faults import FAULTS, Fault
from ..faults.drawn import MODULES, Mutant, mutants
from ..inputs.weights import voice_names
from ..measure.config import compose_config
from ..measure.launch import WorkerError
from ..trace.findings import Row, first_fault, place_of
from ..trace.run import TraceRun
from .alarms import answer_of, rate
from .reach import Branch

CLEAN_PAIRS = 60
SECONDS = {"rmvpe": 0.7, "hubert": 0.6, "synthesizer": 0.6, "pipeline": 1.1}
PLACED_SHARE, FALSE_SHARE = 0.95, 0.01


@dataclass
class Outcome:
    """What one trace named. ``expect`` None: a clean pair. ``drawn``: of a changed line, which may change no result."""

    name: str
    model: str
    expect: str | None
    path: str | None
    where: str
    probe: str
    seconds: float
    known: bool = False
    error: str | None = None
    drawn: bool = False

    @property
    def detected(self) -> bool:
        return self.path is not None

    @property
    def placed(self) -> bool:
        return self.path is not None and self.expect is not None and re.fullmatch(self.expect, self.path) is not None


def faults(words: Sequence[str]) -> Answer:
    """``selftest faults``: 0 where every fault is found, 95 % are placed and at most 1 % of clean pairs accused."""
    given = options(words, {"only": "", "clean": str(CLEAN_PAIRS), "drawn": "0", "seed": "0", "out": ""})
    try:
        chosen = [fault for fault in FAULTS.values() if re.search(given["only"], fault.key)]
    except re.error as error:
        raise UserError(f"only={given['only']}: not a regular expression ({error})") from None
    if not chosen and given["only"] != "^$":
        raise UserError(f"only={given['only']}: no fault of that name; all of them: {', '.join(FAULTS)}")
    clean, drawn, seed = (whole_number(name, given[name]) for name in ("clean", "drawn", "seed"))
    folder = named_path(given["out"] or f"runs/{datetime.now():%Y%m%d-%H%M%S}-selftest-faults")
    if given["out"]:
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = own_folder(folder)
    outcomes = []
    with (
        _alone(folder),
        tqdm(total=len(chosen) + drawn + clean, desc="selftest", dynamic_ncols=True, disable=None) as bar,
        (folder / "outcomes.jsonl").open("w") as file,
    ):
        for outcome in itertools.chain(_injected(chosen), _drawn(drawn, seed), _clean(clean, seed)):
            outcomes.append(outcome)
            file.write(json.dumps(vars(outcome)) + "\n")
            file.flush()
            bar.update()
    text, passed = summary(outcomes)
    write_whole(folder / "report.md", text)
    answer = answer_of(text, PASSED if passed else FAILED)
    path = str(folder / "report.md")
    return answer._replace(text=f"{text}\nreport: {path}", found={**answer.found, "report": path})


def _alone(folder: Path) -> Lock:
    lock = Lock(folder)
    with lock.kept():
        if not lock.is_alone:
            raise UserError(f"{folder} holds something already; give out= a folder of its own")
    return lock


def _injected(chosen: Sequence[Fault]) -> Iterator[Outcome]:
    """Faults of the same model and voice share a pair of workers."""
    groups: dict[tuple[Any, ...], list[Fault]] = {}
    for fault in chosen:
        groups.setdefault((fault.model, fault.voice, fault.settings), []).append(fault)
    for (model, voice, settings), members in groups.items():
        overrides = [f"suite.{name}={value}" for name, value in settings]
        overrides += [f"suite.voice={voice}"] if model in ("synthesizer", "pipeline") else []
        run = _run(model, overrides)
        with scratch_folder() as folder, run.started(folder):
            probes = run.probes(SECONDS[model])
            for fault in members:
                yield _inject(run, fault, probes)


def _drawn(count: int, seed: int) -> Iterator[Outcome]:
    """Changes of single lines, drawn from all that a trace reaches."""
    pool = [m for module in MODULES for m in mutants(module) if Branch(m.function, "", m.place).why is None]
    numbers = np.random.default_rng([seed, 78]).permutation(len(pool))[:count]
    chosen = sorted((pool[n] for n in numbers), key=lambda m: (m.model, m.voice or ""))
    for (model, voice), members in itertools.groupby(chosen, key=lambda m: (m.model, m.voice)):
        run = _run(model, [f"suite.voice={voice}"] if voice else [])
        with scratch_folder() as folder, run.started(folder):
            for one in members:
                yield _inject_drawn(run, one)


def _inject_drawn(run: TraceRun, one: Mutant) -> Outcome:
    start, worker, row, error = time.monotonic(), run.workers[run.other], None, None
    probes = run.probes(SECONDS[one.model])
    for variant in ("all", "none") if run.trace_options.plain else ("all",):
        worker.ask("inject", run.timeout_s, name=one.name)
        try:
            run.load_other(variant)
            row = row or _fault_of(run, [p for p in probes if p.plain or variant == "all"], variant)
        except WorkerError as problem:
            error = str(problem)
        worker.ask("inject", run.timeout_s, name=None)
    name = f"{one.place} {one.function}: {one.line} -> {one.changed}".replace("|", "/")
    found = _outcome(name, one.model, ".*", row, start, error=error)
    found.drawn = True
    return found


def _run(model: str, overrides: Sequence[str]) -> TraceRun:
    return TraceRun(compose_config(model, ["measure=smoke", *overrides]))


def _fault_of(run: TraceRun, probes: Sequence[Any], variant: str) -> Row | None:
    return first_fault(map(msgspec.to_builtins, run.walk(probes, variant)))


def _inject(run: TraceRun, fault: Fault, probes: Sequence[Any]) -> Outcome:
    start, worker, row, error = time.monotonic(), run.workers[run.other], None, None
    worker.ask("inject", run.timeout_s, name=fault.key)
    try:
        run.load_other(fault.optimize)
        row = _fault_of(run, probes, fault.optimize)
    except WorkerError as problem:
        error = str(problem)
    worker.ask("inject", run.timeout_s, name=None)
    return _outcome(fault.name, fault.model, fault.expect, row, start, known=fault.known, error=error)


def _outcome(name: str, model: str, expect: str | None, row: Row | None, start: float, **more: Any) -> Outcome:
    path, where, probe = (row["path"], place_of(row), row["probe"]) if row else (None, "", "")
    return Outcome(name, model, expect, path, where, probe, time.monotonic() - start, **more)


def _clean(count: int, seed: int) -> Iterator[Outcome]:
    """Pairs without a fault: other weights, inputs, lengths, voices, profiles and optimisations each time."""
    rng = np.random.default_rng([seed, 77])
    models = ["rmvpe", "hubert", "synthesizer", "synthesizer", "pipeline"]
    for i in range(count):
        model = models[i % len(models)]
        start = time.monotonic()
        kind = rng.choice(["all", "none", "some"])
        some = [name for name in OPTIMIZATIONS if rng.random() < 0.5]
        optimize = f"[{','.join(some)}]" if kind == "some" else kind
        overrides = [f"weights.seed={rng.integers(1000, 10**6)}", f"seed={rng.integers(10**6)}", f"optimize={optimize}"]
        overrides += [f"profile={rng.choice(['applio', 'webui'])}"]
        if model in ("synthesizer", "pipeline"):
            overrides += [f"suite.voice={rng.choice([name for name in voice_names() if 'v2' in name])}"]
        run = _run(model, overrides)
        with scratch_folder() as folder, run.started(folder):
            seconds = SECONDS[model] * float(rng.uniform(0.8, 2.2))
            probes = [p for p in run.probes(seconds) if p.plain or kind != "none"]
            row = _fault_of(run, probes, "clean")
        yield _outcome(" ".join(overrides), model, None, row, start)


# ---------------------------------------------------------------------- the report
def summary(outcomes: Sequence[Outcome]) -> tuple[str, bool]:
    """The report, and whether the trace is as good as it must be."""
    drawn = [o for o in outcomes if o.drawn]
    unseen = [o for o in drawn if not o.detected and o.error is None]
    injected = [o for o in outcomes if o.expect is not None and not o.drawn]
    clean, known = [o for o in outcomes if o.expect is None], [o for o in injected if o.known]
    detected, placed = sum(o.detected for o in injected), sum(o.placed for o in injected)
    accused = [o for o in clean if o.detected]
    lines = [
        "# How often the trace is right",
        "",
        rate("faults detected", detected, len(injected)),
        rate("placed at the right innermost stage, first guess", placed, len(injected)),
        rate("of them faults of published ports, placed", sum(o.placed for o in known), len(known)),
        rate("clean pairs accused", len(accused), len(clean)),
        *([rate("changed lines noticed", len(drawn) - len(unseen), len(drawn))] if drawn else []),
        "",
        "| fault | model | stage named | where | seconds |",
        "| :-- | :-- | :-- | :-- | --: |",
    ]
    for o in injected:
        verdict = "" if o.placed else " **not placed**" if o.detected else f" **not detected** {o.error or ''}"
        lines.append(_line(o.name + verdict, o))
    lines += [_line(f"clean: {o.name} **accused**", o) for o in accused]
    if unseen:
        lines += [
            "",
            "Changed lines that were not noticed. Each changes no result that can be told from rounding, or no",
        ]
        lines += ["probe shows it:", "", *(f"- {o.model}: `{o.name}`" for o in unseen)]
    good = detected == len(injected) and placed >= PLACED_SHARE * len(injected)
    return "\n".join(lines) + "\n", good and len(accused) <= FALSE_SHARE * len(clean)


def _line(name: str, o: Outcome) -> str:
    return f"| {name} | {o.model} | `{o.path}` | {o.where} | {o.seconds:.1f} |"
