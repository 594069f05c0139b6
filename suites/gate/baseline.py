"""A run reduced to what a gate judges: per case, component and backend its times per launch, memory and parity.

Whatever in a run contradicts itself makes its entry *invalid* here, with the reason, so that no later step can
mistake it for a measurement.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from ..base import environment
from ..base.backends import BACKENDS, speed_reference
from ..base.errors import UserError
from ..base.lines import Key, Line
from ..base.records import key_of, read_lines, records
from ..base.run_folder import RunFolder
from ..base.speed import fast_logs
from ..base.statistics import paired_logs
from ..metrics.limits import FLOOR_CAP
from ..metrics.registry import recorded_metric
from .checks import MEASURED, Context, checks_of, contradiction

INVALID = "invalid"
PEAKS = ("peak_rss_load_bytes", "peak_rss_call_bytes", "peak_rss_steady_bytes")
# of a suite's configuration: what changes the work
SETTINGS: tuple[str, ...] = ("voice", "version", "speaker", "transpose", "index_rate", "protect", "rms_mix")
SETTINGS += ("threshold", "snr_db", "rest")
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, yaml.YAMLError)


class Entry(NamedTuple):
    """One component of one case on one backend.

    ``status``: passed, failed, error, not_comparable, or invalid with ``reason``. ``seconds``: per launch the fast
    time; ``slowness``: the logarithm of it over the reference's, and ``typical``, the median of that over rounds; None
    without a reference. ``memory``: peaks per launch, bytes above the start. ``parity``: judged figures as ``{error,
    floor, base, limit}``. ``others``: the share of what the workers needed that other work took. ``calls``: per sample.
    """

    status: str
    reason: str | None
    reference: str | None
    seconds: list[float]
    slowness: list[float] | None
    memory: dict[str, list[float]]
    parity: dict[str, dict[str, float]]
    rounds: int
    typical: list[float] | None = None
    workload: dict[str, Any] = {}  # noqa: RUF012  (never written to)
    others: float = 0.0
    calls: int = 1


class Baseline(NamedTuple):
    """``facts``: what two baselines must share to be compared; ``name``: where it came from."""

    name: str
    facts: dict[str, Any]
    fingerprint: dict[str, Any]
    made: dict[str, Any]
    entries: dict[Key, Entry]


# ---------------------------------------------------------------------- of a run
def baseline_of(folders: Sequence[Path]) -> Baseline:
    """Of one run, or of several like it: their launches together. A file: pytest-benchmark's JSON.

    Raises ``UserError``: not a run folder, damaged, of a newer schema, or runs that cannot be put together."""
    if len({path.resolve() for path in folders}) < len(folders):
        raise UserError("the same run is given twice")
    baselines = [_from_run(path) if path.is_dir() else from_benchmarks(path) for path in folders]
    first = baselines[0]
    for other in baselines[1:]:
        one, two = environment.completed([first.fingerprint, other.fingerprint])
        different = differences(first.facts, other.facts) + differences(one, two)
        if different or first.entries.keys() != other.entries.keys():
            why = different[0] if different else "they measured other things"
            raise UserError(f"{other.name} and {first.name} cannot be put together: {why}")
    entries = {key: _joined([baseline.entries[key] for baseline in baselines]) for key in first.entries}
    made = first.made | {"runs": [name for baseline in baselines for name in baseline.made["runs"]]}
    return first._replace(name=", ".join(baseline.name for baseline in baselines), entries=entries, made=made)


def _from_run(folder: Path) -> Baseline:
    run = RunFolder(folder)
    config = run.config()
    if not run.is_planned:
        raise UserError(f"{folder}: the run was interrupted before it measured anything (no plan.json)")
    env, plan, lines = run.environment(), run.plan(), list(read_lines(run.records_file))
    try:
        facts, print_ = facts_of(config, env), environment.fingerprint(env)
        made = {"runs": [folder.name], "commit": env.get("commit"), "commit_clean": env.get("commit_clean")}
        entries = _entries(lines, plan.keys, Context(config, env, plan.backends))
    except DAMAGE as error:
        damaged = f"{folder}: config.yaml, environment.json, plan.json or a record is damaged ({error})"
        raise UserError(damaged) from None
    return Baseline(str(folder), facts, print_, made, entries)


def _entries(lines: list[Line], planned: list[Key], context: Context) -> dict[Key, Entry]:
    written: dict[tuple[str, Key], list[Line]] = {}
    for line in lines:
        if line["kind"] in ("sample", "record"):
            written.setdefault((line["kind"], key_of(line)), []).append(line)
    closed = {key_of(line): line for line in records(lines)}
    own = {line.get("run") for line in closed.values()}
    entries: dict[Key, Entry] = {}
    for key in planned:
        if key not in closed:
            entries[key] = _unmeasured("unfinished", "planned, and has no record")
            continue
        try:
            reason = "its run's name is not that of the other records" if len(own) > 1 else None
            taken = written.get(("sample", key), [])
            reason = reason or contradiction(closed[key], taken, written["record", key], context)
            entries[key] = _unmeasured(INVALID, reason) if reason else _entry(key, closed, context.backends)
        except DAMAGE as error:
            entries[key] = _unmeasured(INVALID, f"it cannot be read: {type(error).__name__}: {error}")
    for key, line in closed.items():
        if key not in entries and line["status"] != "skipped":
            why = str(line.get("reason")) if line["status"] == "error" else "a record that was not planned"
            entries[key] = _unmeasured("error" if line["status"] == "error" else INVALID, why)
    return entries


def from_benchmarks(path: Path) -> Baseline:
    """From the JSON that pytest-benchmark wrote of ``tests/benchmarks``.

    Raises ``UserError``: missing, damaged, or of other benchmarks."""
    if not path.is_file():
        raise UserError(f"{path}: not a run folder, and no JSON of pytest-benchmark")
    try:
        stored = json.loads(path.read_text())
        own = stored["machine_info"]["rvc_parity"]
        entries = {}
        for one in stored["benchmarks"]:
            info = one["extra_info"]
            entries[info["case"], info["component"], info["backend"]] = _benchmark(one["stats"]["data"], info)
        facts = own["facts"] | {"measured_by": "pytest-benchmark"}
        return Baseline(str(path), facts, own["fingerprint"], {"runs": [path.name]} | own["made"], entries)
    except DAMAGE:
        raise UserError(
            f"{path}: not written by pytest tests/benchmarks --benchmark-enable -n 0 --benchmark-json={path}"
        ) from None


def _benchmark(data: list[float], info: Mapping[str, Any]) -> Entry:
    launches, theirs = info["launches"], info["reference_s"]
    if len(launches) != len(data) or not all(isinstance(s, int | float) and s > 0 for s in data):
        return _unmeasured(INVALID, f"{len(data)} times and {len(launches)} launches do not fit together")
    slowness = typical = None
    if info["reference"] is not None and len(theirs) == len(data):
        own, other = ({"samples_s": s, "launches": launches, "rounds": range(len(s))} for s in (data, theirs))
        slowness, typical = _relative(own, other)
    seconds = [math.exp(x) for x in fast_logs(data, launches).values()]
    return Entry("passed", None, info["reference"], seconds, slowness, {}, {}, len(data), typical)


def _relative(own: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """``slowness`` and ``typical`` of an ``Entry``, from ``samples_s``, ``launches`` and ``rounds`` of both sides."""
    ours, theirs = (fast_logs(side["samples_s"], side["launches"]) for side in (own, other))
    seconds = [dict(zip(side["rounds"], side["samples_s"], strict=True)) for side in (own, other)]
    launches = dict(zip(own["rounds"], own["launches"], strict=True))
    return [ours[n] - theirs[n] for n in ours], list(paired_logs(seconds[0], seconds[1], launches).values())


def facts_of(config: Mapping[str, Any], env: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must share to be compared."""
    backends = {
        name: {
            "device": BACKENDS[name].device,
            "gpu": facts.get("gpu_name") or facts.get("gpu"),
            "blas": _blas_family(facts.get("blas")),
        }
        for name, facts in sorted(env.get("backends", {}).items())
    }
    # synthetic ones are identified by their recipe: a file of the same tensors may have its header in another order
    weights = {
        name: w["label"] if "synthetic" in w["label"] else w["sha256"]
        for name, w in sorted(env.get("weights", {}).items())
    }
    return {
        "suite": config["suite"]["name"],
        "precision": config["precision"],
        "profile": config["profile"],
        "model": config["measure"]["model"],
        "rounds": config["measure"]["rounds"],
        "settings": {name: config["suite"][name] for name in SETTINGS if name in config["suite"]},
        "optimize": config["optimize"],
        "seed": config["seed"],
        "threads": env.get("threads"),
        "weights": weights,
        "audio": env.get("audio_sha256"),
        "machine": env.get("machine"),
        "system": str(env.get("os", "")).split(" ")[0],
        "backends": backends,
    }


def _blas_family(blas: str | None) -> str | None:
    """The library's name without its folder and version."""
    return None if blas is None else Path(str(blas)).name.split(".so")[0].split(".dylib")[0]


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every fact that differs, as a sentence's part."""
    found = []
    for name in dict.fromkeys([*one, *other]):
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{name}.")
        elif isinstance(a, list) and isinstance(b, list) and a != b:
            lacking = (" ".join(str(x) for x in one if x not in two) or "none" for one, two in ((a, b), (b, a)))
            found.append("{}: {} there, {} here".format(f"{prefix}{name}", *map(_short, lacking)))
        elif a != b:
            found.append(f"{prefix}{name}: {_short(a)} there, {_short(b)} here")
    return found


def _short(value: Any) -> str:
    text = str(value) if not isinstance(value, Mapping) else ", ".join(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _unmeasured(status: str, reason: str | None) -> Entry:
    return Entry(status, reason, None, [], None, {}, {}, 0)


def _entry(key: Key, closed: Mapping[Key, Line], backends: Iterable[str]) -> Entry:
    line = closed[key]
    if line["status"] not in MEASURED:
        return _unmeasured(line["status"], line.get("reason"))
    reference = speed_reference(key[2], list(backends))
    other = closed.get((key[0], key[1], reference)) if reference else None
    slowness = typical = None
    if other is not None and other["status"] in MEASURED and other.get("samples_s"):
        if set(other["launches"]) != set(line["launches"]):
            return _unmeasured(INVALID, f"it has other launches than {reference}")
        slowness, typical = _relative(line, other)
    return Entry(
        status=line["status"],
        reason=line.get("reason"),
        reference=reference,
        seconds=[math.exp(x) for x in fast_logs(line["samples_s"], line["launches"]).values()],
        slowness=slowness,
        memory=_memory(line),
        parity=_parity(line),
        rounds=len(line["samples_s"]),
        typical=typical,
        workload=dict(line["workload"]),
        others=max(x.get("others_share") or 0.0 for x in (line, other or line)),
        calls=line.get("calls") or 1,
    )


def _memory(line: Line) -> dict[str, list[float]]:
    """Peaks per launch above what the process held before loading; the framework's own as they are."""
    found: dict[str, list[float]] = {}
    for cold in line.get("cold") or []:
        above = dict.fromkeys(PEAKS, cold.get("base_rss_bytes") or 0) | {"peak_device_bytes": 0}
        for name, base in above.items():
            if cold.get(name):
                found.setdefault(name, []).append(float(cold[name] - base))
    return found


def _parity(line: Line) -> dict[str, dict[str, float]]:
    found = {}
    for name, check in checks_of(line):
        metric = recorded_metric(name)
        own = 0.0 if check.get("floor") is None or metric.is_count else metric.to_error(float(check["floor"]))
        error, base, limit = (metric.to_error(float(check[part])) for part in ("value", "base", "limit"))
        # a reference in doubt excuses nobody: its rounding counts as far as it does in a run
        found[name] = {"error": error, "floor": min(own, FLOOR_CAP * base), "base": base, "limit": limit}
    return found


def _joined(entries: Sequence[Entry]) -> Entry:
    """The same key of several runs: launches together, of errors the largest."""
    bad = next((entry for entry in entries if entry.status != "passed"), None)
    if bad is not None and bad.status not in MEASURED:
        return bad
    first = bad or entries[0]
    for name in ("parity", "memory", "workload", "reference", "calls"):
        shown = [list(v) if name in ("parity", "memory") else v for v in (getattr(e, name) for e in entries)]
        if any(v != shown[0] for v in shown):
            return _unmeasured(INVALID, f"the runs that were put together differ in {name}")
    # NaN is the largest of all
    parity = {n: {k: float(np.max([e.parity[n][k] for e in entries])) for k in first.parity[n]} for n in first.parity}
    return first._replace(
        seconds=[x for e in entries for x in e.seconds],
        slowness=_chained([e.slowness for e in entries]),
        typical=_chained([e.typical for e in entries]),
        memory={n: [x for e in entries for x in e.memory[n]] for n in first.memory},
        parity=parity,
        rounds=sum(e.rounds for e in entries),
        others=max(e.others for e in entries),
    )


def _chained(values: Sequence[list[float] | None]) -> list[float] | None:
    return None if any(v is None for v in values) else [x for v in values for x in v or []]
