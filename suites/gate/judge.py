"""Whether a run is worse than a baseline: a verdict per figure. Pure.

Times are judged as ratios to the reference side of the same run (docs/gates.md). A slowdown is called where it is both
large enough to matter (``time.smallest``) and significant: Yuen's test over process launches, with Holm's correction
over all gates, so that the probability of any false alarm in one gate is at most ``false_alarm``. A gate that could
not have detected a slowdown that matters says so: it is underpowered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import fmean, median
from typing import Any, NamedTuple

from ..base import environment, statistics
from ..base.backends import BACKENDS
from ..base.errors import UserError, nearest
from ..base.files import read_yaml
from ..base.paths import CONF
from ..base.speed import CONFIDENCE
from ..base.statistics import Difference, difference, t_quantile, trimmed_mean
from ..metrics.registry import recorded_metric
from .baseline import Baseline, Entry, Key, differences
from .checks import MEASURED

PASSED, FAILED, UNJUDGED = 0, 1, 2
# metric: its part of the policy, and its share of the false-alarm rate; the latter two are judged by sizes that noise
# does not reach
TIMES = {"time": ("time", 0.8), "typical": ("typical", 0.1), "seconds": ("absolute", 0.1)}

# what a verdict means for the exit code; of "too noisy" the policy decides
MEANING = {
    **dict.fromkeys(("passed", "faster", "smaller", "new", "too noisy", "not confirmed"), PASSED),
    **dict.fromkeys(("slower", "implausible", "bigger", "less accurate", "failed", "missing"), FAILED),
    **dict.fromkeys(("error", "unfinished", "blind", "busy", "invalid", "too few", "not comparable"), UNJUDGED),
}

# verdicts that are displayed by another word than the one that is stored
WORDS = {"blind": "underpowered"}

# the level at which a second run confirms what a first one showed
CONFIRMED = 0.05

NOWHERE: Key = ("", "", "")
Policy = Mapping[str, Any]


class Verdict(NamedTuple):
    """One gate. ``change``: relative, above 0 worse; ``detectable``: the smallest rise found in 80 % of runs.

    ``low``, ``high``: the 95 % interval of ``change``, of this gate alone; ``limit``: the smallest change that is
    called, if it is significant as well.
    """

    key: Key
    metric: str
    kind: str
    text: str = ""
    before: float | None = None
    after: float | None = None
    change: float | None = None
    p: float | None = None
    detectable: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None

    @property
    def word(self) -> str:
        """The verdict as it is displayed; ``kind`` is what JSON files hold."""
        return WORDS.get(self.kind, self.kind)

    @property
    def where(self) -> str:
        return " ".join(part for part in self.key if part)


class Outcome(NamedTuple):
    """All gates of one comparison."""

    verdicts: list[Verdict]
    notes: list[str]
    exit_code: int

    @property
    def red(self) -> list[Verdict]:
        return [v for v in self.verdicts if MEANING[v.kind] != PASSED]

    @property
    def word(self) -> str:
        return ("passed", "failed", "could not judge")[self.exit_code]


def read_policy(name: str) -> dict[str, Any]:
    """A file of ``conf/gate`` by name.

    Raises ``UserError``: there is none, or it lacks something."""
    known = sorted(path.stem for path in (CONF / "gate").glob("*.yaml"))
    if name not in known:
        raise UserError(f"policy {name!r}: there is no such file in {CONF / 'gate'}{nearest(name, known)}")
    default, own = (read_yaml(CONF / "gate" / f"{n}.yaml") for n in ("default", name))
    wrong = [k for k in default if k not in own]
    wrong += [f"{k}.{n}" for k, v in default.items() if isinstance(v, dict) for n in v if n not in own.get(k, {})]
    wrong += [k for k in default if isinstance(default[k], dict) != isinstance(own.get(k), dict)]
    if wrong:
        raise UserError(f"policy {name!r}: {wrong[0]} is missing or of another kind")
    return dict(own)


def judge(baseline: Baseline, candidate: Baseline, policy: Policy) -> Outcome:
    """Every gate that the baseline has, and what the candidate has beyond it."""
    different = differences(baseline.facts, candidate.facts) if baseline.entries else ["the baseline holds nothing"]
    if different:
        return Outcome([Verdict(NOWHERE, "environment", "not comparable", text) for text in different], [], UNJUDGED)
    theirs_print, ours_print = environment.completed([baseline.fingerprint, candidate.fingerprint])
    same = theirs_print == ours_print
    verdicts: list[Verdict] = []
    timings: dict[str, list[_Timing]] = {metric: [] for metric in TIMES}
    for key, before in baseline.entries.items():
        after = candidate.entries.get(key)
        verdicts += _standing(key, after)
        if after is None or after.status not in MEASURED:
            continue
        verdicts += [
            Verdict(key, "workload", "not comparable", text) for text in differences(before.workload, after.workload)
        ]
        verdicts += _memory(key, before, after, policy["memory"])
        verdicts += _parity(key, before, after, policy["parity"])
        verdicts += _timings(timings, key, before, after, same)
    # the largest share of what the workers needed that other work took
    theirs, ours = (max((e.others for e in side.entries.values()), default=0.0) for side in (baseline, candidate))
    busy, whose = (ours, "this run") if ours >= theirs else (theirs, "the baseline")
    why_busy = f"other work took {100 * busy:.0f} % of the machine during {whose}"
    wide = why_busy if busy > policy["time"]["busy"] else None
    if any(theirs_print.get(name) != ours_print.get(name) for name in ("cpu", "processor")):
        wide = "another processor"
    if busy > policy["time"]["too_busy"]:
        text = f"{why_busy}: run it again when it is quieter"
        verdicts += [_untested(timing, "busy", text) for found in timings.values() for timing in found]
        timings = {}
    for metric, found in timings.items():
        verdicts += _times(metric, found, policy, wide is not None)
    for key, after in candidate.entries.items():
        if key not in baseline.entries:
            new = Verdict(key, "status", "new", "the baseline does not have it: gate --update")
            verdicts += [new] if after.status == "passed" else _standing(key, after)
    return _outcome(verdicts, _notes(theirs_print, ours_print, wide), policy)


def confirmed(first: Outcome, second: Outcome, policy: Policy) -> Outcome:
    """``first``, judged, and a second run of the same code, judged by the same baseline.

    What components drift from run to run has rare outliers that no number of launches shows. So a change of time must
    be there in another run too, which tests only what the first one found and needs no correction.
    """
    again = {(v.key, v.metric): v for v in second.verdicts}

    def weighed(verdict: Verdict) -> Verdict:
        other = again.get((verdict.key, verdict.metric))
        if verdict.kind not in ("slower", "implausible") or other is None or other.p is None or other.change is None:
            return verdict
        seen = other.p if verdict.kind == "slower" else 1.0 - other.p
        size = other.change if verdict.kind == "slower" else 1.0 / (1.0 + other.change) - 1.0
        if seen < CONFIRMED and size >= policy[TIMES[verdict.metric][0]]["smallest"]:
            return verdict._replace(text=f"{verdict.text}; confirmed by a second run ({100 * other.change:+.1f} %)")
        text = f"{verdict.text}; a second run shows {100 * other.change:+.1f} %"
        return verdict._replace(kind="not confirmed", text=text)

    kept = [weighed(verdict) for verdict in first.verdicts]
    # what the second run lacks, breaks or cannot judge counts as well; its times are only a second opinion
    more = [v for v in second.red if v.metric not in TIMES or MEANING[v.kind] == UNJUDGED]
    return _outcome([*kept, *(v for v in more if v not in kept)], first.notes, policy)


def _outcome(verdicts: list[Verdict], notes: list[str], policy: Policy) -> Outcome:
    codes = {MEANING[v.kind] for v in verdicts}
    noisy = policy["time"]["noisy"] == "fail" and any(v.kind == "too noisy" for v in verdicts)
    code = UNJUDGED if UNJUDGED in codes else FAILED if FAILED in codes or noisy else PASSED
    order = sorted(verdicts, key=lambda v: (-MEANING[v.kind], v.kind == "passed", v.key))
    return Outcome(order, notes, code)


def _notes(theirs: Mapping[str, Any], ours: Mapping[str, Any], wide: str | None) -> list[str]:
    notes = []
    if wide is not None:
        notes.append(f"{wide}: only large changes of time are called")
    if theirs != ours:
        names = differences(theirs, ours)
        notes.append(f"another environment ({'; '.join(names[:3])}): seconds are not judged, ratios are")
    return notes


# ---------------------------------------------------------------------- present and whole
def _standing(key: Key, after: Entry | None) -> Iterator[Verdict]:
    if after is None:
        yield Verdict(key, "status", "missing", "the baseline has it, this run does not")
    elif after.status == "passed":
        yield Verdict(key, "status", "passed")
    else:
        kind = "error" if after.status == "not_comparable" else after.status
        yield Verdict(key, "status", kind if kind in MEANING else "invalid", after.reason or "")


# ---------------------------------------------------------------------- time
class _Timing(NamedTuple):
    key: Key
    metric: str
    before: list[float]
    after: list[float]

    @property
    def launches(self) -> int:
        return min(len(self.before), len(self.after))


def _timings(timings: dict[str, list[_Timing]], key: Key, before: Entry, after: Entry, same: bool) -> Iterator[Verdict]:
    """What of this entry's time can be judged; of ours something must be."""
    if before.calls != after.calls:
        text = f"{before.calls} calls a sample there, {after.calls} here: measure.sample_seconds=0 makes runs alike"
        yield Verdict(key, "time", "not comparable", text)
        return
    if before.reference is not None and before.slowness is not None:
        if after.slowness is None:
            yield Verdict(key, "time", "missing", f"{before.reference} was not measured in the same run")
        else:
            timings["time"].append(_Timing(key, "time", before.slowness, after.slowness))
        if before.typical is not None and after.typical is not None:
            timings["typical"].append(_Timing(key, "typical", before.typical, after.typical))
    elif not same and BACKENDS[key[2]].package == "rvc_mlx":
        yield Verdict(key, "time", "not comparable", "no reference in the same run, and another environment")
    if same:
        logs = ([math.log(second) for second in entry.seconds] for entry in (before, after))
        timings["seconds"].append(_Timing(key, "seconds", *logs))


def _times(metric: str, timings: list[_Timing], policy: Policy, wide: bool) -> Iterator[Verdict]:
    """One family of gates: Holm's correction over all of them, at its share of the false-alarm rate."""
    part, share = TIMES[metric]
    rules, level = policy[part], policy["false_alarm"] * share
    smallest = max(rules["smallest"], policy["time"]["smallest_elsewhere"] if wide else 0.0)
    least = max(2, policy["least_launches"])
    testable = [t for t in timings if t.launches >= least]
    plain = [difference(t.before, t.after) for t in testable]
    drift = statistics.between_runs(plain, policy["time"]["between_runs"]) if metric == "time" else 0.0
    found = [one._replace(error=math.hypot(one.error, drift)) for one in statistics.moderated(plain)]
    slower = statistics.holm([one.p_above for one in found], level)
    faster = statistics.holm([one.p_below for one in found], level)
    for timing, one, up, down in zip(testable, found, slower, faster, strict=True):
        seen = statistics.detectable_rise(one.error, one.df, level / len(testable), smallest)
        yield _timed(timing, one, _time_kind(metric, one, (up, down), seen, smallest, policy), seen, smallest)
    for timing in timings:
        if timing not in testable:
            text = f"{timing.launches} process launches; at least {least} are needed (measure.launches.min=)"
            yield _untested(timing, "too few", text)


def _time_kind(
    metric: str, one: Difference, significant: tuple[bool, bool], seen: float, smallest: float, policy: Policy
) -> str:
    rise, (up, down) = math.exp(one.shift), significant
    if up and rise - 1 >= smallest:
        return "slower"
    if rise <= 1 / policy["time"]["implausible"]:
        return "implausible"
    if down and 1 / rise - 1 >= smallest:
        return "faster"
    if metric != "time":
        return "passed"
    if seen > policy["time"]["blind"]:
        return "blind"
    return "too noisy" if seen > max(policy["time"]["detect"], smallest) else "passed"


def _timed(timing: _Timing, one: Difference, kind: str, seen: float, smallest: float) -> Verdict:
    found = _measured(timing, kind, one)
    what = "s" if timing.metric == "seconds" else "of the reference's time"
    text = f"{found.before:.3g} to {found.after:.3g} {what}"
    if kind in ("too noisy", "blind"):
        text += f"; a rise below {100 * seen:.0f} % would not have shown"
    if kind == "implausible":
        text += "; was every output computed, on the device that was meant? If it is a gain: gate --update"
    return found._replace(text=text, p=one.p_above, detectable=seen, limit=smallest)


def _measured(timing: _Timing, kind: str, one: Difference) -> Verdict:
    before, after = (math.exp(trimmed_mean(group)) for group in (timing.before, timing.after))
    # the interval is of the relative change, without the correction for many gates
    reach = t_quantile(0.5 + CONFIDENCE / 2, one.df) * one.error if one.error else 0.0
    low, high = math.exp(one.shift - reach) - 1, math.exp(min(one.shift + reach, 50.0)) - 1
    return Verdict(timing.key, timing.metric, kind, "", before, after, math.exp(one.shift) - 1, low=low, high=high)


def _untested(timing: _Timing, kind: str, text: str) -> Verdict:
    """A verdict without a test, with the figures that there are."""
    if timing.launches >= 2:
        return _measured(timing, kind, difference(timing.before, timing.after))._replace(text=text)
    found = Verdict(timing.key, timing.metric, kind, text)
    if not timing.launches:
        return found
    before, after = fmean(timing.before), fmean(timing.after)
    return found._replace(before=math.exp(before), after=math.exp(after), change=math.exp(after - before) - 1)


# ---------------------------------------------------------------------- memory and parity
def _memory(key: Key, before: Entry, after: Entry, policy: Policy) -> Iterator[Verdict]:
    for name, old in before.memory.items():
        new = after.memory.get(name)
        if not new:
            yield Verdict(key, name, "missing", "the baseline has this figure, this run does not")
            continue
        a, b = median(old), median(new)
        room = max(policy["smallest"] * a, float(policy["smallest_bytes"]))
        kind = "bigger" if b - a > room else "smaller" if a - b > room else "passed"
        text = f"{a / 2**20:.0f} to {b / 2**20:.0f} MiB"
        change, limit = (b / a - 1, room / a) if a > 0 else (None, None)
        yield Verdict(key, name, kind, text, a, b, change, limit=limit)


def _parity(key: Key, before: Entry, after: Entry, policy: Policy) -> Iterator[Verdict]:
    for name, old in before.parity.items():
        new = after.parity.get(name)
        if new is None:
            yield Verdict(key, name, "missing", "the baseline has this figure, this run does not")
        elif not math.isfinite(new["error"]):
            yield Verdict(key, name, "failed", f"it is {new['error']}", old["error"], new["error"])
        else:
            yield _accuracy(key, name, old, new, policy)


def _accuracy(key: Key, name: str, old: Mapping[str, float], new: Mapping[str, float], policy: Policy) -> Verdict:
    # changes below a hundredth of the limit do not matter; of counts, the run's own limit applies
    allowed = max(policy["factor"] * max(old["error"], old["floor"], new["floor"]), 0.01 * new["base"])
    if recorded_metric(name).is_count:
        allowed = max(old["error"], new["limit"])
    kind = "less accurate" if new["error"] > allowed else "passed"
    text = f"error {old['error']:.3g} to {new['error']:.3g}" + (f", allowed {allowed:.3g}" if kind != "passed" else "")
    some = old["error"] > 0
    change, limit = (new["error"] / old["error"] - 1, allowed / old["error"] - 1) if some else (None, None)
    return Verdict(key, name, kind, text, old["error"], new["error"], change, limit=limit)
