"""A run reduced to what a gate judges: per case, component and backend its times per launch, memory and parity.

A baseline is such a sheet in a file. Whatever in a run contradicts itself makes its entry *invalid*
here, with the reason, so that no later step can mistake it for a measurement.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from . import environment
from .backends import BACKENDS, device_of, speed_reference
from .errors import UserError
from .estimators import ESTIMATORS
from .floors import is_count, to_error
from .record import Line, key_of, number, read_lines, records, records_file
from .statistics import fast_logs, paired_logs
from .verdict import FLOOR_CAP

SCHEMA = 1
INVALID, MEASURED = "invalid", ("passed", "failed")
# of a suite's configuration: what changes the work
SETTINGS = (
    "voice",
    "version",
    "speaker",
    "transpose",
    "index_rate",
    "protect",
    "rms_mix",
    "threshold",
    "snr_db",
    "rest",
)
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, yaml.YAMLError)

Key = tuple[str, str, str]


class Entry(NamedTuple):
    """One component of one case on one backend.

    ``status``: passed, failed, error, not_comparable, or invalid with ``reason``. ``seconds``: per
    launch the fast time; ``slowness``: per launch, the logarithm of it over the reference's, and
    ``typical``, the median of that over rounds; None without a reference. ``memory``: peaks per
    launch, bytes above the start. ``parity``: judged figures as ``{error, floor, base, limit}``.
    ``workload``: what was computed on. ``others``: the share of what the workers needed that other work
    took. ``calls``: per sample.
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


class Sheet(NamedTuple):
    """``facts``: what must agree before two sheets are compared; ``name``: where it came from."""

    name: str
    facts: dict[str, Any]
    fingerprint: dict[str, Any]
    made: dict[str, Any]
    entries: dict[Key, Entry]


# ---------------------------------------------------------------------- of a run
def from_runs(folders: Sequence[Path]) -> Sheet:
    """One sheet of one run, or of several like it: their launches together. A file: pytest-benchmark's JSON.

    Raises:
        UserError: not a run folder, damaged, of a newer schema, or runs that cannot be put together.
    """
    if len({path.resolve() for path in folders}) < len(folders):
        raise UserError("the same run is given twice")
    sheets = [_from_run(path) if path.is_dir() else from_benchmarks(path) for path in folders]
    first = sheets[0]
    for other in sheets[1:]:
        different = differences(first.facts, other.facts) + differences(first.fingerprint, other.fingerprint)
        if different or first.entries.keys() != other.entries.keys():
            why = different[0] if different else "they measured other things"
            raise UserError(f"{other.name} and {first.name} cannot be put together: {why}")
    entries = {key: _joined([sheet.entries[key] for sheet in sheets]) for key in first.entries}
    made = first.made | {"runs": [name for sheet in sheets for name in sheet.made["runs"]]}
    return first._replace(name=", ".join(sheet.name for sheet in sheets), entries=entries, made=made)


def _from_run(folder: Path) -> Sheet:
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: not a run folder (no config.yaml)")
    if not (folder / "plan.json").is_file():
        raise UserError(f"{folder}: the run was broken off before it measured anything (no plan.json)")
    lines = list(read_lines(records_file(folder)))
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        env, plan = (json.loads((folder / name).read_text()) for name in ("environment.json", "plan.json"))
        facts, print_ = facts_of(config, env), environment.fingerprint(env)
        planned: list[Key] = [(str(case), str(part), str(backend)) for case, part, backend in plan["keys"]]
        made = {"runs": [folder.name], "commit": env.get("commit"), "commit_clean": env.get("commit_clean")}
        entries = _entries(lines, planned, Context(config, env, list(plan["backends"])))
    except DAMAGE as error:
        raise UserError(
            f"{folder}: config.yaml, environment.json, plan.json or a record is damaged ({error})"
        ) from None
    return Sheet(str(folder), facts, print_, made, entries)


class Context(NamedTuple):
    """What a record must agree with."""

    config: Mapping[str, Any]
    env: Mapping[str, Any]
    backends: list[str]


def _entries(lines: list[Line], planned: list[Key], context: Context) -> dict[Key, Entry]:
    taken: dict[Key, list[Line]] = {}
    written: dict[Key, list[Line]] = {}
    for line in lines:
        if line["kind"] in ("sample", "record"):
            (taken if line["kind"] == "sample" else written).setdefault(key_of(line), []).append(line)
    closed = {key_of(line): line for line in records(lines)}
    own = {line.get("run") for line in closed.values()}
    entries: dict[Key, Entry] = {}
    for key in planned:
        if key not in closed:
            entries[key] = _unmeasured("unfinished", "planned, and has no record")
            continue
        try:
            reason = "its run's name is not that of the other records" if len(own) > 1 else None
            reason = reason or _contradiction(closed[key], taken.get(key, []), written[key], context)
            entries[key] = _unmeasured(INVALID, reason) if reason else _entry(key, closed, context.backends)
        except DAMAGE as error:
            entries[key] = _unmeasured(INVALID, f"it cannot be read: {type(error).__name__}: {error}")
    for key, line in closed.items():
        if key not in entries and line["status"] != "skipped":
            told = str(line.get("reason")) if line["status"] == "error" else "a record that was not planned"
            entries[key] = _unmeasured("error" if line["status"] == "error" else INVALID, told)
    return entries


def from_benchmarks(path: Path) -> Sheet:
    """A sheet of ``tests/benchmarks``: the JSON that pytest-benchmark wrote.

    Raises:
        UserError: missing, damaged, or of other benchmarks.
    """
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
        return Sheet(str(path), facts, own["fingerprint"], {"runs": [path.name]} | own["made"], entries)
    except DAMAGE:
        raise UserError(
            f"{path}: not written by pytest tests/benchmarks --benchmark-enable -n 0 --benchmark-json={path}"
        ) from None


def _benchmark(data: list[float], info: Mapping[str, Any]) -> Entry:
    launches, theirs = info["launches"], info["reference_s"]
    if len(launches) != len(data) or not all(isinstance(s, int | float) and s > 0 for s in data):
        return _unmeasured(INVALID, f"{len(data)} times and {len(launches)} launches do not fit together")
    own = fast_logs(data, launches)
    slowness = typical = None
    if info["reference"] is not None and len(theirs) == len(data):
        beside = fast_logs(theirs, launches)
        slowness = [own[n] - beside[n] for n in own]
        rounds = [dict(enumerate(times)) for times in (data, theirs)]
        typical = list(paired_logs(rounds[0], rounds[1], dict(enumerate(launches))).values())
    seconds = [math.exp(x) for x in own.values()]
    return Entry("passed", None, info["reference"], seconds, slowness, {}, {}, len(data), typical)


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
    # synthetic ones are told by their recipe: a file of the same tensors may order its header otherwise
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
        elif a != b:
            found.append(f"{prefix}{name}: {_short(a)} there, {_short(b)} here")
    return found


def _short(value: Any) -> str:
    text = str(value) if not isinstance(value, Mapping) else ", ".join(value)
    return text if len(text) <= 40 else text[:37] + "..."


# ---------------------------------------------------------------------- one record
def _contradiction(line: Line, taken: Sequence[Line], written: Sequence[Line], context: Context) -> str | None:
    """Why a record cannot be what it says it is, if so."""
    config, env, backend = context.config, context.env, line["backend"]
    facts = env["backends"].get(backend, {})
    said = {"suite": config["suite"]["name"], "precision": config["precision"], "profile": config["profile"]}
    said["device"] = device_of(backend) if backend in BACKENDS or backend in ESTIMATORS else None
    if line["status"] in MEASURED:
        said |= {"threads": env.get("threads"), "blas": facts.get("blas")}
    for name, expected in said.items():
        if line.get(name) != expected:
            return f"its {name} is {line.get(name)}, not {expected}"
    if line["status"] not in MEASURED:
        return None
    return _wrong_samples(line, taken, written) or _wrong_parity(line) or _wrong_memory(line)


def _wrong_samples(line: Line, taken: Sequence[Line], written: Sequence[Line]) -> str | None:
    times, rounds, launches = (line.get(name) for name in ("samples_s", "rounds", "launches"))
    if not (isinstance(times, list) and isinstance(rounds, list) and isinstance(launches, list)):
        return "it has no samples"
    if not len(times) == len(rounds) == len(launches) or not times:
        return f"{len(times)} samples, {len(rounds)} rounds and {len(launches)} launches do not fit together"
    if not all(_positive(s) for s in times):
        return "a sample is not a number of seconds"
    if not all(type(x) is int for x in (*rounds, *launches)) or launches != sorted(launches):
        return "its rounds and launches are not numbers in order"
    own = [(x["round"], x["seconds"], x["launch"]) for x in taken]
    if sorted(own) != sorted(zip(rounds, times, launches, strict=True)):
        return "its samples are not those that were written when they were taken"
    for earlier in written[:-1]:
        if earlier["status"] in MEASURED and not set(earlier["rounds"]) < set(rounds):
            return "it was closed twice"
    return None


def _positive(value: Any) -> bool:
    number_ = isinstance(value, int | float) and not isinstance(value, bool)
    return number_ and math.isfinite(value) and value > 0


def _wrong_parity(line: Line) -> str | None:
    """Figures that are none, or a verdict that does not follow from them."""
    for name, check in _checks(line):
        error, limit = (to_error(name, number(check[part])) for part in ("value", "limit"))
        if check.get("floor") is not None and not to_error(name, number(check["floor"])) >= 0:
            return f"the floor of {name} is {check['floor']}"
        if math.isfinite(error) and (error < 0 or check["passed"] != (error <= limit)):
            return f"{name} is {check['value']} with the limit {check['limit']}, said to be passed: {check['passed']}"
    broken = [name for name, check in _checks(line) if not check["passed"]]
    return f"it passed although {broken[0]} did not" if broken and line["status"] == "passed" else None


def _checks(line: Line) -> list[tuple[str, dict[str, Any]]]:
    return list(((line.get("parity") or {}).get("limits") or {}).items())


def _wrong_memory(line: Line) -> str | None:
    for cold in line.get("cold") or []:
        for name, value in cold.items():
            if name.endswith("_bytes") and value is not None and not (_positive(value) or value == 0):
                return f"its {name} is {value}"
            above = name in ("peak_rss_load_bytes", "peak_rss_call_bytes") and value is not None
            if above and value < (cold.get("base_rss_bytes") or 0):
                return f"its {name} is below what was held before loading"
    return None


def _unmeasured(status: str, reason: str | None) -> Entry:
    return Entry(status, reason, None, [], None, {}, {}, 0)


def _entry(key: Key, closed: Mapping[Key, Line], backends: Iterable[str]) -> Entry:
    line = closed[key]
    if line["status"] not in MEASURED:
        return _unmeasured(line["status"], line.get("reason"))
    reference = speed_reference(key[2], list(backends))
    beside = closed.get((key[0], key[1], reference)) if reference else None
    own = fast_logs(line["samples_s"], line["launches"])
    slowness = typical = None
    if beside is not None and beside["status"] in MEASURED and beside.get("samples_s"):
        if set(beside["launches"]) != set(line["launches"]):
            return _unmeasured(INVALID, f"it has other launches than {reference}")
        theirs = fast_logs(beside["samples_s"], beside["launches"])
        slowness = [own[n] - theirs[n] for n in own]
        seconds = [dict(zip(x["rounds"], x["samples_s"], strict=True)) for x in (line, beside)]
        launches = dict(zip(line["rounds"], line["launches"], strict=True))
        typical = list(paired_logs(seconds[0], seconds[1], launches).values())
    return Entry(
        status=line["status"],
        reason=line.get("reason"),
        reference=reference,
        seconds=[math.exp(x) for x in own.values()],
        slowness=slowness,
        memory=_memory(line),
        parity=_parity(line),
        rounds=len(line["samples_s"]),
        typical=typical,
        workload=dict(line["workload"]),
        others=max(x.get("others_share") or 0.0 for x in (line, beside or line)),
        calls=line.get("calls") or 1,
    )


def _memory(line: Line) -> dict[str, list[float]]:
    """Peaks per launch above what the process held before loading; the framework's own as they are."""
    found: dict[str, list[float]] = {}
    for cold in line.get("cold") or []:
        base = cold.get("base_rss_bytes") or 0
        for name in ("peak_rss_load_bytes", "peak_rss_call_bytes", "peak_rss_steady_bytes"):
            if cold.get(name):
                found.setdefault(name, []).append(float(cold[name] - base))
        if cold.get("peak_device_bytes"):
            found.setdefault("peak_device_bytes", []).append(float(cold["peak_device_bytes"]))
    return found


def _parity(line: Line) -> dict[str, dict[str, float]]:
    found = {}
    for name, check in _checks(line):
        own = 0.0 if check.get("floor") is None or is_count(name) else to_error(name, number(check["floor"]))
        base, limit = (to_error(name, number(check[part])) for part in ("base", "limit"))
        # a reference in doubt excuses nobody: its rounding counts as far as it does in a run
        floor = min(own, FLOOR_CAP * base)
        found[name] = {"error": to_error(name, number(check["value"])), "floor": floor, "base": base, "limit": limit}
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
    parity = {n: {k: _worst([e.parity[n][k] for e in entries]) for k in first.parity[n]} for n in first.parity}
    return first._replace(
        seconds=[x for e in entries for x in e.seconds],
        slowness=_chained([e.slowness for e in entries]),
        typical=_chained([e.typical for e in entries]),
        memory={n: [x for e in entries for x in e.memory[n]] for n in first.memory},
        parity=parity,
        rounds=sum(e.rounds for e in entries),
        others=max(e.others for e in entries),
    )


def _worst(values: Sequence[float]) -> float:
    return math.nan if any(math.isnan(v) for v in values) else max(values)


def _chained(values: Sequence[list[float] | None]) -> list[float] | None:
    return None if any(v is None for v in values) else [x for v in values for x in v or []]


# ---------------------------------------------------------------------- in a file
def write(sheet: Sheet, path: Path) -> None:
    """As a baseline: JSON, sorted, to be committed.

    Raises:
        UserError: it holds something that no baseline may: a failure or an invalid entry.
    """
    bad = [f"{' '.join(key)}: {e.status}, {e.reason}" for key, e in sheet.entries.items() if e.status != "passed"]
    bad += [] if sheet.entries else ["it measured nothing"]
    if bad:
        raise UserError(f"no baseline is made of a run that did not pass: {bad[0]}")
    entries = [
        {"case": case, "component": component, "backend": backend} | _rounded(sheet.entries[key]._asdict())
        for key in sorted(sheet.entries)
        for case, component, backend in [key]
    ]
    stored = {"schema": SCHEMA, "kind": "baseline", "made": sheet.made, "facts": sheet.facts}
    stored |= {"fingerprint": sheet.fingerprint, "entries": entries}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stored, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _rounded(value: Any) -> Any:
    """Six digits say all that a measurement knows."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def read(path: Path) -> Sheet:
    """A baseline.

    Raises:
        UserError: missing, damaged, or of a newer schema.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such baseline; to make it: python -m suites gate RUN --baseline {path} --update")
    try:
        stored = json.loads(path.read_text(), parse_constant=_no_number)
        if stored["kind"] != "baseline":
            raise ValueError("it is of another kind")
        if stored["schema"] > SCHEMA:
            raise UserError(f"{path}: schema {stored['schema']} is newer than this program's {SCHEMA}; update it")
        entries: dict[Key, Entry] = {}
        for fields in map(dict, stored["entries"]):
            key = tuple(str(fields.pop(name)) for name in ("case", "component", "backend"))
            entry = Entry(**fields)
            if key in entries or entry.status != "passed" or not _sound(entry):
                raise ValueError(f"{' '.join(key)} is doubled, did not pass or holds no numbers")
            entries[key] = entry  # type: ignore[index]
        facts, print_ = dict(stored["facts"]), dict(stored["fingerprint"])
        return Sheet(str(path), facts, print_, dict(stored["made"]), entries)
    except DAMAGE as error:
        raise UserError(f"{path}: not a baseline, or damaged ({error})") from None


def _no_number(text: str) -> float:
    raise ValueError(f"it holds {text}")


def _sound(entry: Entry) -> bool:
    """Whether everything that is judged is a number."""
    logs = [*(entry.slowness or []), *(entry.typical or [])]
    amounts = [x for values in entry.memory.values() for x in values]
    amounts += [x for figures in entry.parity.values() for x in figures.values()]
    numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in (*logs, *amounts))
    return numbers and all(x >= 0 for x in amounts) and all(_positive(x) for x in entry.seconds)
