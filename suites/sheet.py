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
from .backends import BACKENDS, speed_reference
from .errors import UserError
from .floors import is_count, to_error
from .record import Line, key_of, number, read_lines, records, samples
from .statistics import fast_logs

SCHEMA = 1
INVALID, MEASURED = "invalid", ("passed", "failed")

Key = tuple[str, str, str]


class Entry(NamedTuple):
    """One component of one case on one backend.

    ``status``: passed, failed, error, not_comparable, or invalid with ``reason``. ``seconds``: per
    launch the fast time; ``slowness``: per launch, the logarithm of it over the reference's; None
    without a reference. ``memory``: peaks per launch, bytes above the start. ``parity``: judged
    figures as ``{error, floor}``.
    """

    status: str
    reason: str | None
    reference: str | None
    seconds: list[float]
    slowness: list[float] | None
    memory: dict[str, list[float]]
    parity: dict[str, dict[str, float]]
    rounds: int


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
    sheets = [_from_run(path) if path.is_dir() else from_benchmarks(path) for path in folders]
    first = sheets[0]
    for other in sheets[1:]:
        different = differences(first.facts, other.facts)
        if different or first.entries.keys() != other.entries.keys():
            why = different[0] if different else "they measured other things"
            raise UserError(f"{other.name} and {first.name} cannot be put together: {why}")
    entries = {key: _joined([sheet.entries[key] for sheet in sheets]) for key in first.entries}
    return first._replace(name=", ".join(sheet.name for sheet in sheets), entries=entries)


def _from_run(folder: Path) -> Sheet:
    config = _yaml(folder / "config.yaml")
    env, plan = _json(folder / "environment.json"), _json(folder / "plan.json")
    lines = list(read_lines(folder / "records.jsonl"))
    taken, closed = samples(lines), {key_of(line): line for line in records(lines)}
    planned: list[Key] = [(case, component, backend) for case, component, backend in plan["keys"]]
    valid = {key: _contradiction(closed[key], taken.get(key, {}), config) for key in planned if key in closed}
    entries = {}
    for key in dict.fromkeys([*planned, *(key for key in closed if "workload" in closed[key])]):
        if key not in closed:
            entries[key] = _unmeasured("missing", "planned, and has no record")
        elif valid.get(key, "a record that was not planned") is not None:
            entries[key] = _unmeasured(INVALID, valid.get(key) or "a record that was not planned")
        else:
            entries[key] = _entry(key, closed, plan["backends"])
    made = {"runs": [folder.name], "commit": env.get("commit"), "commit_clean": env.get("commit_clean")}
    return Sheet(str(folder), facts_of(config, env), environment.fingerprint(env), made, entries)


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
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: not written by pytest tests/benchmarks --benchmark-enable -n 0 --benchmark-json={path}"
        ) from None


def _benchmark(data: list[float], info: Mapping[str, Any]) -> Entry:
    launches, theirs = info["launches"], info["reference_s"]
    if len(launches) != len(data) or not all(isinstance(s, int | float) and s > 0 for s in data):
        return _unmeasured(INVALID, f"{len(data)} times and {len(launches)} launches do not fit together")
    own = fast_logs(data, launches)
    slowness = None
    if info["reference"] is not None and len(theirs) == len(data):
        beside = fast_logs(theirs, launches)
        slowness = [own[n] - beside[n] for n in own]
    seconds = [math.exp(x) for x in own.values()]
    return Entry("passed", None, info["reference"], seconds, slowness, {}, {}, len(data))


def _yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.parent}: not a run folder (no {path.name})")
    found = yaml.safe_load(path.read_text())
    if not isinstance(found, dict) or "suite" not in found:
        raise UserError(f"{path}: is damaged")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the run was broken off before it measured anything") from None
    except (ValueError, TypeError):
        raise UserError(f"{path}: is damaged") from None


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
    weights = {name: w["sha256"] for name, w in sorted(env.get("weights", {}).items())}
    return {
        "suite": config["suite"]["name"],
        "precision": config["precision"],
        "profile": config["profile"],
        "model": config["measure"]["model"],
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
def _contradiction(line: Line, taken: Mapping[int, Line], config: Mapping[str, Any]) -> str | None:
    """Why a record cannot be what it says it is, if so."""
    backend = line["backend"]
    said = {"suite": config["suite"]["name"], "precision": config["precision"], "profile": config["profile"]}
    said["device"] = BACKENDS[backend].device if backend in BACKENDS else None
    for name, expected in said.items():
        if line.get(name) != expected:
            return f"its {name} is {line.get(name)}, not {expected}"
    if line["status"] not in MEASURED:
        return None
    times, rounds, launches = line.get("samples_s"), line.get("rounds"), line.get("launches")
    if not isinstance(times, list) or not isinstance(rounds, list) or not isinstance(launches, list):
        return "it has no samples"
    if not len(times) == len(rounds) == len(launches) or not times:
        return f"{len(times)} samples, {len(rounds)} rounds and {len(launches)} launches do not fit together"
    if not all(isinstance(s, int | float) and math.isfinite(s) and s > 0 for s in times):
        return "a sample is not a number of seconds"
    own = [(taken[r]["seconds"], taken[r]["launch"]) for r in rounds if r in taken]
    if own != list(zip(times, launches, strict=True)) or len(own) != len(taken):
        return "its samples are not those that were written when they were taken"
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
    slowness = None
    if beside is not None and beside["status"] in MEASURED and beside.get("samples_s"):
        theirs = fast_logs(beside["samples_s"], beside["launches"])
        slowness = [own[n] - theirs[n] for n in own if n in theirs]
    return Entry(
        line["status"],
        line.get("reason"),
        reference,
        [math.exp(x) for x in own.values()],
        slowness,
        _memory(line),
        _parity(line),
        len(line["samples_s"]),
    )


def _memory(line: Line) -> dict[str, list[float]]:
    """Peaks per launch above what the process held before loading; the framework's own as they are."""
    found: dict[str, list[float]] = {}
    for cold in line.get("cold") or []:
        base = cold.get("base_rss_bytes") or 0
        for name in ("peak_rss_load_bytes", "peak_rss_call_bytes"):
            if cold.get(name):
                found.setdefault(name, []).append(float(cold[name] - base))
        if cold.get("peak_device_bytes"):
            found.setdefault("peak_device_bytes", []).append(float(cold["peak_device_bytes"]))
    return found


def _parity(line: Line) -> dict[str, dict[str, float]]:
    checks = ((line.get("parity") or {}).get("limits") or {}).items()
    return {
        name: {
            "error": to_error(name, number(check["value"])),
            "floor": 0.0 if check.get("floor") is None or is_count(name) else to_error(name, number(check["floor"])),
        }
        for name, check in checks
    }


def _joined(entries: Sequence[Entry]) -> Entry:
    """The same key of several runs: launches together, of errors the largest."""
    bad = next((entry for entry in entries if entry.status != "passed"), None)
    if bad is not None and bad.status not in MEASURED:
        return bad
    first = bad or entries[0]
    memory = {n: [x for e in entries for x in e.memory.get(n, [])] for n in first.memory}
    parity = {
        n: {k: max(e.parity[n][k] for e in entries if n in e.parity) for k in ("error", "floor")} for n in first.parity
    }
    slow = [e.slowness for e in entries]
    return first._replace(
        seconds=[x for e in entries for x in e.seconds],
        slowness=None if any(s is None for s in slow) else [x for s in slow for x in s or []],
        memory=memory,
        parity=parity,
        rounds=sum(e.rounds for e in entries),
    )


# ---------------------------------------------------------------------- in a file
def write(sheet: Sheet, path: Path) -> None:
    """As a baseline: JSON, sorted, to be committed.

    Raises:
        UserError: it holds something that no baseline may: a failure or an invalid entry.
    """
    bad = [f"{' '.join(key)}: {e.status}, {e.reason}" for key, e in sheet.entries.items() if e.status != "passed"]
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
        stored = json.loads(path.read_text())
        if stored["kind"] != "baseline":
            raise ValueError
        if stored["schema"] > SCHEMA:
            raise UserError(f"{path}: schema {stored['schema']} is newer than this program's {SCHEMA}; update it")
        entries = {
            (e.pop("case"), e.pop("component"), e.pop("backend")): Entry(**e) for e in map(dict, stored["entries"])
        }
        return Sheet(str(path), stored["facts"], stored["fingerprint"], stored["made"], entries)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a baseline, or damaged") from None
