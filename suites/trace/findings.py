"""The findings of a trace, of rows that are ``base.lines.Stage`` as dictionaries. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..definitions import SUITES
from ..metrics.limits import exceeds
from ..metrics.registry import CORR, HIGHER, MAX_ABS, RELATIVE, SNR_DB
from ..metrics.stages import inside
from .walk import FAULT, IN_PIECES, INHERITED, NOT_JUDGED, OK, PIECES, REFERENCE_WRONG, WHOLE

Row = Mapping[str, Any]
CONFIGURED, PLAIN = "as configured", "plain"
WITHOUT = "without "  # an optimisation
DUMPED = "dumped"  # by a port that a bundle judges
# of a stage within its limit where both sides ran the same code: its agreement proves nothing
SAME_CODE = "same code"
# of several statuses the one that is shown
ORDER = (FAULT, REFERENCE_WRONG, INHERITED, NOT_JUDGED, OK, SAME_CODE)
# figures of which the worst value is reported, and which of two values that is
WORST = {m.name: min if m.better == HIGHER else max for m in (MAX_ABS, RELATIVE, SNR_DB, CORR)}
# an error this many times its limit is clear
CLEAR = 3.0
# own values this many floors apart have inherited an error, not rounding
OFF = 30.0


class Finding(NamedTuple):
    """The first stage at fault, in a ``sentence``; ``pinned``: the optimisation that it belongs to."""

    path: str
    probe: str
    variant: str
    where: str
    pinned: str | None
    sentence: str


def with_inheritance(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """After a fault, a stage that is right in itself and off on its own values has inherited the error.

    A stage within its limit whose code both sides share is not ``ok``: its status is ``SAME_CODE``.
    """
    found, seen = [], set()
    for row in rows:
        key, status = (row["variant"], row["probe"]), row["status"]
        if status == FAULT:
            seen.add(key)
        elif key in seen and is_off(row):
            status = INHERITED
        elif row.get("shared"):
            status = SAME_CODE
        found.append({**row, "status": status})
    return found


def is_off(row: Row) -> bool:
    """Whether own values differ by clearly more than the rounding that accumulates until here."""
    if "max_abs" not in row["chained"]:
        return "reason" in row["chained"]  # a dump may lack the value
    floors = [found.get("max_abs", 0.0) for found in (row["floor"], row.get("floor_chained") or {})]
    return bool(row["chained"]["max_abs"] > OFF * max(floors))


def first_fault(rows: Iterable[Row]) -> Row | None:
    """The first clear one of a stage, at which it stops; else the first clear one of a call, else the first at all."""
    call = unclear = None
    for row in rows:
        if row["status"] == FAULT:
            if not _clear(row):
                unclear = unclear or row
            elif row["path"].startswith("("):  # a call without stages
                call = call or row
            else:
                return row
    return call or unclear


def _first_of(rows: Sequence[Row], variant: str) -> Row | None:
    return first_fault(row for row in rows if row["variant"] == variant)


def reference_faults(rows: Iterable[Row]) -> str | None:
    """Where the reference itself is wrong; None: nowhere. That is no fault of the other side."""
    wrong = [row for row in rows if row["status"] == REFERENCE_WRONG]
    if not wrong:
        return None
    paths = list(dict.fromkeys(row["path"] for row in wrong))
    more = f" {len(paths) - 1} other stages of the reference are wrong as well." if len(paths) > 1 else ""
    sentence = wrong[0]["where"]["sentence"]
    return f"{sentence[0].upper()}{sentence[1:]} (probe {wrong[0]['probe']!r}, {wrong[0]['variant']}).{more}"


def lost_at(rows: Iterable[Row]) -> str | None:
    """The first stage at which the reference is not finite, so that nothing after it was compared; None: nowhere."""
    wrong = (row for row in rows if row["status"] == REFERENCE_WRONG)
    return next((row["path"] for row in wrong if (row["where"] or {}).get("facts", {}).get("finite") is False), None)


def find(rows: Sequence[Row]) -> Finding | None:
    """The stage at fault, the innermost one known: the plain variant's stages are finer.

    None: every stage is within its limit. A clear fault goes before one that is not, wherever it is.
    """
    configured, plain = (_first_of(rows, variant) for variant in (CONFIGURED, PLAIN))
    chosen = configured or plain
    if chosen is None:
        return None
    if configured is not None and plain is not None:
        same = within(plain["path"], configured["path"])  # the same fault, seen more closely
        chosen = plain if same or (_clear(plain) and not _clear(configured)) else configured
    pinned = _pinned(rows) if configured is not None and plain is None else None
    sentence = _sentence(rows, chosen, pinned)
    return Finding(chosen["path"], chosen["probe"], chosen["variant"], place_of(chosen), pinned, sentence)


def _clear(row: Row) -> bool:
    """Whether an error is so far above its limit that no unlucky rounding can be meant."""
    hidden = (row.get("where") or {}).get("kind") == "hidden"
    return hidden or exceeds(row["added"], {metric: CLEAR * bound for metric, bound in row["limit"].items()})


def within(path: str, outer: str) -> bool:
    return path == outer or inside(path, outer)


def _pinned(rows: Sequence[Row]) -> str | None:
    """The optimisation without which nothing is at fault."""
    variants = dict.fromkeys(row["variant"] for row in rows if row["variant"].startswith(WITHOUT))
    clean = [v for v in variants if _first_of(rows, v) is None]
    return clean[0].removeprefix(WITHOUT) if clean else None


def place_of(row: Row) -> str:
    """Where in the tensor the error is and of which kind, or why there is nothing to compare."""
    if row.get("where"):
        return str(row["where"]["sentence"])
    return str(row["added"].get("reason", ""))


def _sentence(rows: Sequence[Row], row: Row, pinned: str | None) -> str:
    named = f"`{row['path']}`" + (f" ({row['entry']})" if row["entry"] not in ("", "x", row["path"]) else "")
    if row["path"] in (WHOLE, PIECES):
        pieces = f" {IN_PIECES}" if row["path"] == PIECES else ""
        start = f"Every stage is right by itself; the call as users make it is not{pieces}"
    else:
        start = f"First stage at fault: {named}"
    where, added = place_of(row), row["added"]
    text = f"{start}: {where}" if where else start
    if "max_abs" in added:
        text += f" (error {added['max_abs']:.2g}, limit {row['limit']['max_abs']:.2g})"
    text += f" on probe {row['probe']!r}."
    if row["variant"] == PLAIN and _first_of(rows, CONFIGURED) is None:
        text += " It was seen only with every optimisation off."
    if pinned:
        text += f" It belongs to the optimisation `{pinned}`: without that nothing is at fault."
    same = [r for r in rows if (r["variant"], r["probe"]) == (row["variant"], row["probe"])]
    place = next(i for i, other in enumerate(same) if other is row)
    later = with_inheritance(same)[place + 1 :]
    # a call has no stages: its row repeats what the last stage has on own values
    calls, later = ([r for r in later if (r["path"] in (WHOLE, PIECES)) is kind] for kind in (True, False))
    inherited = sum(r["status"] == INHERITED for r in later)
    wrong_calls = [r for r in calls if r["status"] == FAULT]
    if later and not is_off(later[-1]) and not wrong_calls:
        text += " The result of this walk is not affected."
    for call in wrong_calls:
        size = f"differs from its stages by up to {call['added']['max_abs']:.3g}" if "max_abs" in call["added"] else ""
        name = call["path"].strip("()")
        text += f" The {name} {size or 'is wrong as well: ' + str(call['added'].get('reason'))}."
    others = list(dict.fromkeys(r["path"] for r in later if r["status"] == FAULT and r["path"] != row["path"]))
    if inherited:
        text += f" {inherited} later values are right in themselves and only inherit the error."
    if others:
        shown = ", ".join(f"`{path}`" for path in others[:3]) + (" ..." if len(others) > 3 else "")
        text += f" {len(others)} later stage{'s add' if len(others) > 1 else ' adds'} errors of their own: {shown}."
    return text


# ---------------------------------------------------------------------- groups of stages
def group_of(path: str) -> str:
    """The part of the model that a stage belongs to: its path up to the first number, or to its last name."""
    found = re.match(r"(segment\.\d+\.)?((f0|features|audio)\.)?(block\.\d+\.)?", path)
    head = found.group(0) if found else ""
    rest = path[len(head) :]
    inner = re.match(r"[^:]*?\.\d+(?=[.:]|$)", rest) or re.match(r".+(?=[.:])", rest)
    return head + (inner.group(0) if inner else rest)


def worst(rows: Iterable[Row], kind: str = "added") -> dict[str, Any]:
    """Of several values the largest errors, and the largest share of a limit."""
    found: dict[str, Any] = {"share": 0.0, **dict.fromkeys(WORST)}
    for row in rows:
        figures = row[kind]
        if "reason" in figures:
            return found | {"share": float("inf"), "reason": figures["reason"]}
        for name, worse in WORST.items():
            if figures.get(name) is not None:
                found[name] = figures[name] if found[name] is None else worse(found[name], figures[name])
        limits = row.get("limit_chained") if kind == "chained" else None
        for metric, limit in (limits or row["limit"]).items() if figures else ():
            share = figures[metric] / limit if limit > 0 else (0.0 if figures[metric] == 0 else float("inf"))
            found["share"] = max(found["share"], share)
    return found


def judged_share(rows: Sequence[Row]) -> float:
    """The largest share of a limit: of the local errors, or, where a dump has none, of the accumulated ones."""
    return max((worst([row], "added" if row["added"] else "chained")["share"] for row in rows), default=0.0)


# ---------------------------------------------------------------------- the validation table
def validation(model: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The table's rows that this model's trace can fill; an empty selection is a failure, never a pass."""
    table = []
    absent = "not dumped" if any(row["variant"] == DUMPED for row in rows) else "not walked"
    for item in SUITES[model].validated:
        chosen = [row for row in rows if not row["variant"].startswith(WITHOUT) and item.has(row["path"])]
        agreed = SAME_CODE if all(r.get("shared") for r in chosen) else OK
        found = {row["status"] for row in chosen}
        status = next((s for s in (FAULT, REFERENCE_WRONG) if s in found), agreed if chosen else absent)
        # per probe and variant the last of these stages: the part's output
        ends = {(row["variant"], row["probe"]): row for row in chosen}.values()
        chained = worst(ends, "chained") if ends else {}
        table.append(
            {
                "title": item.title,
                "values": len(chosen),
                "added": worst(chosen),
                "chained": chained,
                "share": judged_share(chosen),
                "status": status,
            }
        )
    return table
