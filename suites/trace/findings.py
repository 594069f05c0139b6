"""What a trace's rows amount to: the first stage at fault, and the field's validation table. Pure.

Rows are dicts as ``trace.Row.record`` makes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..metrics.stages import inside
from .walk import FAULT, INHERITED, OK, PIECES, WHOLE, is_clear

Row = Mapping[str, Any]
CONFIGURED, PLAIN = "as configured", "plain"
# of a stage within its limit where both sides ran the same code: its agreement proves nothing
SAME_CODE = "same code"
# of several statuses the one that is shown
ORDER = (FAULT, INHERITED, OK, SAME_CODE)
# own values this many floors apart have inherited an error, not rounding
OFF = 30.0


class Finding(NamedTuple):
    """The first stage at fault. ``sentence`` tells it to people; ``pinned``: the optimisation that it belongs to."""

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
    if "reason" in row["chained"]:
        return True
    floors = [found.get("max_abs", 0.0) for found in (row["floor"], row["floor_chained"] or {})]
    return bool(row["chained"]["max_abs"] > OFF * max(floors))


def first_fault(rows: Iterable[Row]) -> Row | None:
    """The first one that is clear; else the first one at all: see ``trace.first_fault``."""
    faults = [row for row in rows if row["status"] == FAULT]
    return next(filter(_clear, faults), faults[0] if faults else None)


def find(rows: Sequence[Row]) -> Finding | None:
    """The stage at fault, the innermost one known: the plain variant's stages are finer.

    None: every stage is within its limit. A clear fault goes before one that is not, wherever it is.
    """
    by_variant = {variant: [r for r in rows if r["variant"] == variant] for variant in (CONFIGURED, PLAIN)}
    configured, plain = (first_fault(by_variant[variant]) for variant in (CONFIGURED, PLAIN))
    if configured is None and plain is None:
        return None
    chosen = configured or plain
    assert chosen is not None
    if configured is not None and plain is not None:
        same = within(plain["path"], configured["path"])  # the same fault, seen more closely
        chosen = plain if same or (_clear(plain) and not _clear(configured)) else configured
    pinned = _pinned(rows) if configured is not None and plain is None else None
    sentence = _sentence(rows, chosen, pinned)
    return Finding(chosen["path"], chosen["probe"], chosen["variant"], told_place(chosen), pinned, sentence)


def _clear(row: Row) -> bool:
    hidden = row.get("where") is not None and row["where"].get("kind") == "hidden"
    return hidden or is_clear(row["added"], row["limit"])


def within(path: str, outer: str) -> bool:
    return path == outer or inside(path, outer)


def _pinned(rows: Sequence[Row]) -> str | None:
    """The optimisation without which nothing is at fault."""
    variants = dict.fromkeys(row["variant"] for row in rows if row["variant"].startswith("without "))
    clean = [v for v in variants if first_fault(r for r in rows if r["variant"] == v) is None]
    return clean[0].removeprefix("without ") if clean else None


def told_place(row: Row) -> str:
    """Where in the tensor and what kind of wrong, or why there is nothing to compare."""
    if row.get("where"):
        return str(row["where"]["sentence"])
    return str(row["added"].get("reason", ""))


def _sentence(rows: Sequence[Row], row: Row, pinned: str | None) -> str:
    named = f"`{row['path']}`" + (f" ({row['entry']})" if row["entry"] not in ("", "x", row["path"]) else "")
    if row["path"] in (WHOLE, PIECES):
        pieces = " once its tiles and blocks are small" if row["path"] == PIECES else ""
        start = f"Every stage is right by itself; the call as users make it is not{pieces}"
    else:
        start = f"First stage at fault: {named}"
    size = (
        f"error {row['added']['max_abs']:.2g}, limit {row['limit']['max_abs']:.2g}" if "max_abs" in row["added"] else ""
    )
    place = told_place(row)
    parts = [f"{start}: {place}" if place else start, f"({size})" if size else "", f"on probe {row['probe']!r}"]
    text = " ".join(part for part in parts if part) + "."
    if row["variant"] == PLAIN and first_fault(r for r in rows if r["variant"] == CONFIGURED) is None:
        text += " It was seen only with every optimisation off."
    if pinned:
        text += f" It belongs to the optimisation `{pinned}`: without that nothing is at fault."
    same = [r for r in rows if (r["variant"], r["probe"]) == (row["variant"], row["probe"])]
    later = with_inheritance(same)[_index(same, row) + 1 :]
    inherited = sum(r["status"] == INHERITED for r in later)
    if later and not is_off(later[-1]):
        text += " The result of this walk is not affected."
    others = list(dict.fromkeys(r["path"] for r in later if r["status"] == FAULT and r["path"] != row["path"]))
    if inherited:
        text += f" {inherited} later values are right in themselves and only inherit the error."
    if others:
        shown = ", ".join(f"`{path}`" for path in others[:3]) + (" ..." if len(others) > 3 else "")
        text += f" {len(others)} later stage{'s add' if len(others) > 1 else ' adds'} errors of their own: {shown}."
    return text


def _size(row: Row) -> str:
    if row.get("where") and row["where"].get("kind") == "hidden":
        limit = row["where"]["facts"]["chained_limit"]["max_abs"]
        return f"error on own values {row['chained']['max_abs']:.2g}, limit {limit:.2g}"
    return (
        f"error {row['added']['max_abs']:.2g}, limit {row['limit']['max_abs']:.2g}" if "max_abs" in row["added"] else ""
    )


def _index(rows: Sequence[Row], row: Row) -> int:
    return next(i for i, other in enumerate(rows) if other is row)


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
    found: dict[str, Any] = {"max_abs": None, "share": 0.0, "relative": None, "snr_db": None, "corr": None}
    for row in rows:
        figures = row[kind]
        if "reason" in figures:
            return found | {"share": float("inf"), "reason": figures["reason"]}
        for name in ("max_abs", "relative"):
            if figures.get(name) is not None:
                found[name] = max(found[name] or 0.0, figures[name])
        for name in ("snr_db", "corr"):
            if figures.get(name) is not None:
                found[name] = figures[name] if found[name] is None else min(found[name], figures[name])
        for metric, limit in row["limit"].items():
            share = figures[metric] / limit if limit > 0 else (0.0 if figures[metric] == 0 else float("inf"))
            found["share"] = max(found["share"], share)
    return found


# ---------------------------------------------------------------------- the validation table
class Validated(NamedTuple):
    """A row of the validation table: ``pattern`` picks the stages, ``models`` the traces that have them."""

    title: str
    models: tuple[str, ...]
    pattern: str

    def has(self, path: str) -> bool:
        """Whether a stage belongs here, in whichever block of a long input."""
        return re.match(self.pattern, re.sub(r"^block\.\d+\.", "", path)) is not None


VALIDATION = (
    Validated("Mel spectrogram", ("rmvpe",), r"mel$"),
    Validated("Conv2d", ("rmvpe",), r"unet\..*\.conv\.[03]$"),
    Validated("BatchNorm", ("rmvpe",), r"unet\.(encoder\.bn|.*\.conv\.[14]|.*\.conv1\.1)$"),
    Validated("AvgPool2d", ("rmvpe",), r"unet\..*\.pool$"),
    Validated("Shortcut convolution", ("rmvpe",), r"unet\..*\.shortcut$"),
    Validated("Transposed convolution", ("rmvpe",), r"unet\..*\.conv1(\.0)?$"),
    Validated("U-Net encoder", ("rmvpe",), r"unet\.encoder\."),
    Validated("U-Net intermediate", ("rmvpe",), r"unet\.intermediate\."),
    Validated("U-Net decoder", ("rmvpe",), r"unet\.decoder\."),
    Validated("CNN output", ("rmvpe",), r"cnn$"),
    Validated("BiGRU", ("rmvpe",), r"fc\.0$"),
    Validated("Linear", ("rmvpe",), r"fc\.1$"),
    Validated("Salience", ("rmvpe",), r"sigmoid$"),
    Validated("F0 decoding", ("rmvpe",), r"(cents|f0)$"),
    Validated("HuBERT feature extractor", ("hubert",), r"feature_extractor\."),
    Validated("HuBERT feature projection", ("hubert",), r"feature_projection\."),
    Validated("HuBERT position convolution", ("hubert",), r"encoder\.pos_conv_embed"),
    Validated("HuBERT layers", ("hubert",), r"encoder\.layers\."),
    Validated("HuBERT features", ("hubert",), r"features$"),
    Validated("Text encoder", ("synthesizer",), r"(enc_p\.|m_p$|logs_p$)"),
    Validated("Attention q/k/v", ("synthesizer",), r"enc_p\..*\.conv_[qkv]$"),
    Validated("Attention scores", ("synthesizer",), r"enc_p\..*:(relative_)?scores$"),
    Validated("Attention weights", ("synthesizer",), r"enc_p\..*:weights$"),
    Validated("Attention output", ("synthesizer",), r"enc_p\..*(:attended|:relative_output|conv_o)$"),
    Validated("Latent", ("synthesizer",), r"z_p$"),
    Validated("Flow", ("synthesizer",), r"flow\."),
    Validated("NSF source", ("synthesizer",), r"dec\.m_source\."),
    Validated("Generator", ("synthesizer",), r"(dec\.(?!m_source)|audio$)"),
    Validated("High-pass, cuts and padding", ("pipeline",), r"(filtered|cuts|padded)$"),
    Validated("Pitch and its codes", ("pipeline",), r"(f0|pitchf|pitch)$"),
    Validated("Content features", ("pipeline",), r"segment\.\d+\.features$"),
    Validated("Retrieval and protection", ("pipeline",), r"segment\.\d+\.(retrieved|phone)$"),
    Validated("Synthesis", ("pipeline",), r"segment\.\d+\.(audio|trimmed)$"),
    Validated("Joined and finished audio", ("pipeline",), r"(joined|audio)$"),
)


def validation(model: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The table's rows that this model's trace can fill; an empty selection is a failure, never a pass."""
    table = []
    for item in VALIDATION:
        if model not in item.models:
            continue
        chosen = [row for row in rows if row["variant"] in (CONFIGURED, PLAIN) and item.has(row["path"])]
        added, last = worst(chosen), [row for row in chosen if row["path"] == chosen[-1]["path"]] if chosen else []
        agreed = SAME_CODE if all(r.get("shared") for r in chosen) else OK
        status = FAULT if any(r["status"] == FAULT for r in chosen) else agreed
        table.append(
            {
                "title": item.title,
                "values": len(chosen),
                "added": added,
                "chained": worst(_ends(chosen), "chained") if last else {},
                "status": status if chosen else "not walked",
            }
        )
    return table


def _ends(rows: Sequence[Row]) -> list[Row]:
    """Per probe and variant the last of these stages: what the part hands on."""
    last: dict[tuple[str, str], Row] = {}
    for row in rows:
        last[row["variant"], row["probe"]] = row
    return list(last.values())
