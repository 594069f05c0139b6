"""How often a gate is wrong on this machine: alarms on unchanged code, and slowdowns of known size that it misses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from rvc_common.outputs import check_folder, named_path

from ..base.files import scratch_folder, write_whole
from ..base.lock import Lock
from ..base.outcome import Answer
from ..base.statistics import share_with_interval
from ..base.words import options as named
from ..base.words import whole_number
from ..gate.baseline import Baseline, baseline_of
from ..gate.judge import FAILED, MEANING, PASSED, UNJUDGED, Outcome, Verdict, confirmed, judge, read_policy
from ..gate.stored import read_baseline, write_baseline
from ..measure.config import compose_config
from ..measure.runner import open_run

# `selftest aa` makes many runs: shorter ones than a gate's, where false alarms are no rarer
SHORT = ("durations=[0.32]", "measure.launches={min: 6, max: 6}", "measure.rounds={min: 8, max: 8}")
AA_COUNT, AA_RED_SHARE = 100, 0.01
POWER_TRIALS, POWER_SIZES = 4, (0.05, 0.10)
POWER_SHARES = {0.05: 0.80, 0.10: 0.95}


class Options(NamedTuple):
    suite: str
    times: int
    out: Path | None
    policy: str
    full: bool
    overrides: list[str]


def options(words: Sequence[str], count: int, suite: str = "components") -> Options:
    """``count= out= suite= policy= full=`` are the selftest's own; everything else goes to the runs."""
    defaults = {"suite": suite, "count": str(count), "out": "", "policy": "default", "full": "false"}
    rest = [word for word in words if word.partition("=")[0] not in defaults]
    own = named((word for word in words if word not in rest), defaults)
    out = named_path(own["out"]) if own["out"] else None
    if out is not None:
        check_folder(out)
    times = whole_number("count", own["count"], 1)
    return Options(own["suite"], times, out, own["policy"], own["full"] == "true", rest)


def _checked(o: Options, overrides: Sequence[str]) -> Mapping[str, Any]:
    """The policy; it and the overrides are refused before the first run."""
    compose_config(o.suite, ["measure=gate", *overrides])
    return read_policy(o.policy)


def measured(suite: str, overrides: Sequence[str], slow: float = 0.0) -> Baseline:
    """A run like any other, reduced to a baseline; ``slow``: the share that every call of rvc_mlx takes longer."""
    with scratch_folder(in_memory=False) as scratch:
        config = compose_config(suite, ["measure=gate", *overrides, f"out={scratch}/run"])
        run = open_run(config)
        run.session.shows_progress = False
        run.session.slowdown = slow
        run.execute()
        found = baseline_of([run.folder])
        return found._replace(name=suite)


def kept(path: Path, make: Any) -> Baseline:
    """The baseline in this file, made first where there is none: an interrupted selftest goes on."""
    if not path.exists():
        write_baseline(make(), path)
    return read_baseline(path)


# ---------------------------------------------------------------------- false alarms
def aa(words: Sequence[str]) -> Answer:
    """``selftest aa``: the same code again and again; 0 where at most 1 % of the comparisons are red."""
    o = options(words, AA_COUNT)
    overrides = [*(() if o.full else SHORT), *o.overrides]
    policy = _checked(o, overrides)
    with folder_of(o) as folder:
        numbers = tqdm(range(o.times + 2), desc="runs", disable=None)
        baselines = [kept(folder / f"run-{i:03}.json", lambda: measured(o.suite, overrides)) for i in numbers]
        pairs, first = comparisons(baselines, policy)
        text, good = aa_summary(pairs, first, [o.suite, "measure=gate", *overrides])
        return answer(o, "aa", text, good)


def comparisons(baselines: Sequence[Baseline], policy: Mapping[str, Any]) -> tuple[list[Outcome], list[Outcome]]:
    """Each run by the one before it, and by the first one; what is slower is confirmed by the run that follows."""

    def gated(baseline: Baseline, i: int) -> Outcome:
        outcome = judge(baseline, baselines[i], policy)
        if _red_gates(outcome):
            return confirmed(outcome, judge(baseline, baselines[i + 1], policy), policy)
        return outcome

    last = len(baselines) - 1
    return [gated(baselines[i - 1], i) for i in range(1, last)], [gated(baselines[0], i) for i in range(1, last)]


def aa_summary(pairs: Sequence[Outcome], first: Sequence[Outcome], settings: Sequence[str]) -> tuple[str, bool]:
    """``pairs``: each run against the one before it; ``first``: against the first one."""
    gates, red = sorted(len(outcome.verdicts) for outcome in pairs), sum(bool(_red_gates(o)) for o in pairs)
    doubted = sum(any(v.kind == "not confirmed" for v in outcome.verdicts) for outcome in pairs)
    times = [v for outcome in pairs for v in outcome.verdicts if v.metric == "time"]
    seen = sorted(v.detectable for v in times if v.detectable is not None)
    unjudged = sum(outcome.exit_code == UNJUDGED for outcome in pairs)
    lines = [
        "# False alarms on unchanged code",
        "",
        f"Settings: {' '.join(settings)}. {gates[0]} gates a comparison, {len(times) // len(pairs)} of them on times.",
        "",
        rate("each run against the one before it: red", red, len(pairs)),
        rate("each run against the first one: red", sum(bool(_red_gates(o)) for o in first), len(first)),
        rate("single gates red, of the former", sum(len(_red_gates(o)) for o in pairs), sum(gates)),
        rate("comparisons whose slowdown a second run did not confirm", doubted, len(pairs)),
        rate("comparisons with a gate that could not judge at all", unjudged, len(pairs)),
        rate("gates on times that were too noisy to judge", sum(v.kind in NOISY for v in times), len(times)),
        f"- rises that a gate would have shown (80 % power): median {100 * seen[len(seen) // 2]:.1f} %, "
        f"largest {100 * seen[-1]:.1f} %",
    ]
    for outcome in (*pairs, *first):
        lines += [f"- red: {v.kind}, {v.where} {v.metric}: {v.text}" for v in _red_gates(outcome)]
    return "\n".join(lines) + "\n", red <= AA_RED_SHARE * len(pairs)


NOISY = ("too noisy", "blind", "busy")


def _red_gates(outcome: Outcome) -> list[Verdict]:
    """What is called worse than it was."""
    return [v for v in outcome.red if MEANING[v.kind] == FAILED]


# ---------------------------------------------------------------------- slowdowns
class Trial(NamedTuple):
    """One component slowed by ``size`` in one comparison."""

    size: float
    verdict: Verdict

    @property
    def caught(self) -> bool:
        return self.verdict.kind == "slower"

    @property
    def announced(self) -> bool:
        """Missed, but the gate had said that it would not see a rise of this size."""
        return not self.caught and (self.verdict.detectable or 0.0) > self.size


def power(words: Sequence[str]) -> Answer:
    """``selftest power``: slowdowns of known size; 0 where enough of them are caught.

    A trial takes a baseline, a clean run, and for each size a run in which every call of rvc_mlx is slowed.
    Then one component at a time comes from the slowed run and all others from the clean one.
    """
    o = options(words, POWER_TRIALS)
    trials: list[Trial] = []
    policy = _checked(o, o.overrides)
    with folder_of(o) as folder, tqdm(total=o.times * (2 + len(POWER_SIZES)), desc="runs", disable=None) as bar:

        def run(name: str, slow: float = 0.0) -> Baseline:
            found = kept(folder / f"{name}.json", lambda: measured(o.suite, o.overrides, slow))
            bar.update()
            return found

        for i in range(o.times):
            baseline, clean = run(f"power-{i:02}-baseline"), run(f"power-{i:02}-clean")
            for size in POWER_SIZES:
                slowed = run(f"power-{i:02}-slowed-{100 * size:g}", size)
                trials += [Trial(size, v) for v in injected(baseline, clean, slowed, policy)]
        text, good = power_summary(trials, [o.suite, "measure=gate", *o.overrides])
        return answer(o, "power", text, good)


def injected(baseline: Baseline, clean: Baseline, slowed: Baseline, policy: Mapping[str, Any]) -> Iterator[Verdict]:
    """Per component with a reference: the verdict on it where nothing else is slow."""
    for key, entry in clean.entries.items():
        if entry.slowness is not None:
            candidate = clean._replace(entries={**clean.entries, key: slowed.entries[key]})
            yield next(v for v in judge(baseline, candidate, policy).verdicts if v.key == key and v.metric == "time")


def power_summary(trials: Sequence[Trial], settings: Sequence[str]) -> tuple[str, bool]:
    lines = ["# Slowdowns of known size", "", f"Settings: {' '.join(settings)}. One component slowed at a time.", ""]
    good = bool(trials)
    for size in POWER_SIZES:
        of_size = [t for t in trials if t.size == size]
        caught = sum(t.caught for t in of_size)
        lines.append(rate(f"of {100 * size:g} %: caught", caught, len(of_size)))
        announced = sum(t.announced for t in of_size)
        lines.append(rate(f"of {100 * size:g} %: missed, having said that it would", announced, len(of_size)))
        good = good and caught >= POWER_SHARES[size] * len(of_size)
    lines += ["", "| component | injected | seen | detectable | verdict |", "| :-- | --: | --: | --: | :-- |"]
    for size, v in trials:
        shares = " | ".join(f"{100 * (x or 0):.1f} %" for x in (size, v.change, v.detectable))
        lines.append(f"| {v.where} | {shares} | {v.kind} |")
    return "\n".join(lines) + "\n", good


# ---------------------------------------------------------------------- both
def rate(what: str, count: int, total: int) -> str:
    return f"- {what}: {share_with_interval(count, total) if total else 'none were tried'}"


@contextlib.contextmanager
def folder_of(o: Options) -> Iterator[Path]:
    """Where what was measured is kept: the user's folder, to go on later, or one for this time."""
    if o.out is None:
        with scratch_folder() as folder:
            yield folder
    else:
        o.out.mkdir(parents=True, exist_ok=True)
        with Lock(o.out):
            yield o.out


def answer(o: Options, name: str, text: str, good: bool) -> Answer:
    if o.out is not None:
        write_whole(o.out / f"{name}.md", text)
    return answer_of(text, PASSED if good else FAILED)


def answer_of(text: str, exit_code: int) -> Answer:
    """A selftest's answer: the list of its report is the result."""
    rates = [line.removeprefix("- ") for line in text.splitlines() if line.startswith("- ")]
    verdict = "passed" if exit_code == PASSED else "failed"
    return Answer(exit_code, text.rstrip(), {"findings": rates}, f"{verdict}: {'; '.join(rates[:3])}")
