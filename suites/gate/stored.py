"""A baseline as a file: sorted JSON, to be committed."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ..base.errors import UserError
from ..base.files import write_whole
from .baseline import DAMAGE, Baseline, Entry, Key
from .checks import is_positive

SCHEMA = 1
KEY = ("case", "component", "backend")


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write it.

    Raises ``UserError``: it holds something that no baseline may: a failure or an invalid entry."""
    bad = [f"{' '.join(key)}: {e.status}, {e.reason}" for key, e in baseline.entries.items() if e.status != "passed"]
    bad += [] if baseline.entries else ["it measured nothing"]
    if bad:
        raise UserError(f"no baseline is made of a run that did not pass: {bad[0]}")
    entries = [dict(zip(KEY, k, strict=True)) | entry._asdict() for k, entry in sorted(baseline.entries.items())]
    # six digits say all that a measurement knows
    entries = json.loads(json.dumps(entries), parse_float=lambda text: float(f"{float(text):.6g}"))
    stored = {"schema": SCHEMA, "kind": "baseline", "made": baseline.made, "facts": baseline.facts}
    stored |= {"fingerprint": baseline.fingerprint, "entries": entries}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(stored, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_baseline(path: Path) -> Baseline:
    """Read one.

    Raises ``UserError``: missing, damaged, or of a newer schema."""
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
            key = tuple(str(fields.pop(name)) for name in KEY)
            entry = Entry(**fields)
            if key in entries or entry.status != "passed" or not _sound(entry):
                raise ValueError(f"{' '.join(key)} is doubled, did not pass or holds no numbers")
            entries[key] = entry  # type: ignore[index]
        facts, print_ = dict(stored["facts"]), dict(stored["fingerprint"])
        return Baseline(str(path), facts, print_, dict(stored["made"]), entries)
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
    return numbers and all(x >= 0 for x in amounts) and all(is_positive(x) for x in entry.seconds)
