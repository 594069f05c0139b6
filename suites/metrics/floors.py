"""How far two correct implementations may differ at a stage: limits made from measured rounding.

The rule (docs/parity.md): limit = SAFETY x excess x floor.

* *floor*: how far the reference in the run's precision is from itself in float64, at this stage, on this very input;
  at least half a unit in the last place of the value's own level.
* *excess*: how many times the floor a backend known to be right differed from the reference when the table in
  ``data/floors.json`` was measured, the worst of its variants, weights and inputs; at least 1.
* *SAFETY*: the only constant that a person chose.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..base.errors import UserError
from ..base.paths import DATA
from .limits import SAFETY
from .registry import metric_of

SCHEMA = 1
TABLE = DATA / "floors.json"
METRICS = {"rmse": "rms", "max_abs": "peak"}  # a figure, and the level of the value that it is relative to
# no variant of a correct implementation is this much worse than the reference: the table is not made with one
LARGEST_EXCESS = 50.0
# a reference whose float32 differs from its own float64 by this many times the largest floor of the table, both over
# the value's RMS, does not round: it is wrong. Other weights and inputs move a floor by a factor of a few.
REFERENCE_FACTOR = 100.0

Entry = Mapping[str, Any]


def place(path: str) -> str:
    """A stage's path without its numbers: all layers of a kind share a row of the table.

    The last number stays where it distinguishes a convolution from a norm.
    """
    inner = re.sub(r"(^|\.)(block|segment)\.\d+\.", r"\1", path)
    return re.sub(r"(?<=\.)(?<!conv\.)(?<!conv1\.)(?<!fc\.)\d+(?=[.:]|$)|(?<=\.)\d+(?=\.)", "*", inner)


def floor(entry: Entry, metric: str, kind: str = "added") -> float:
    """What rounding does to this value: no less than its last digit. A reference that cannot be compared with its own
    float64 has no floor to grant."""
    found = entry[f"floor_{kind}"]
    least = float(entry["unit"] * entry[METRICS[metric]])
    return least if found is None or not math.isfinite(found[metric]) else max(least, found[metric])


@functools.cache
def stored() -> dict[str, Any]:
    """The table that ships.

    Raises ``UserError``: it is missing, damaged, or of another version."""
    try:
        table = json.loads(TABLE.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{TABLE}: cannot be read ({error}); python -m suites floors --update makes it anew") from None
    version = table.get("schema") if isinstance(table, dict) else None
    if version != SCHEMA:
        raise UserError(f"{TABLE}: version {version}, this program knows {SCHEMA}")
    return dict(table)


# step of the pipeline: the model that takes it; the suites' definitions declare it
INSIDE: dict[str, str] = {}


def row_of(model: str, path: str, name: str) -> tuple[str, str]:
    """The model whose table has this stage, and the row's name: the pipeline's models have tables of their own."""
    where = place(path)
    step, _, inner = where.partition(".")
    if model == "pipeline" and inner and step in INSIDE:
        model, where = INSIDE[step], inner
    return model, f"{where}#{name}"


class Tolerances:
    """The limits of one model, precision policy and kind of device (``cpu`` or ``gpu``)."""

    def __init__(self, model: str, tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        self.model, self.tables = model, tables

    @classmethod
    def of(cls, model: str, precision: str, device: str) -> Tolerances:
        """From the table; of a model or stage that was never measured on this device, the other device's row."""
        policy = stored()["policies"].get(precision, {})
        own = policy.get(device, {})
        other: Mapping[str, Any] = next((tables for name, tables in policy.items() if name != device), {})
        return cls(model, {name: other.get(name, {}) | own.get(name, {}) for name in {**other, **own}})

    def excess(self, path: str, name: str, metric: str) -> float:
        """At least 1; of a stage that the table does not know, 1; of a call without stages, whose name is in
        brackets, that of the noisiest stage."""
        model, key = row_of(self.model, path, name)
        rows = self.tables.get(model, {})
        if path.startswith("("):
            return max([1.0, *(float(row[metric]) for row in rows.values())])
        return max(1.0, float(rows.get(key, {}).get(metric, 1.0)))

    def usual_floor(self, path: str, name: str, metric: str, entry: Entry) -> float | None:
        """What rounding does to a value of this level, by the table; of a stage that it does not know, the largest
        of its model's. None: the model was never measured."""
        model, key = row_of(self.model, path, name)
        rows, column = self.tables.get(model, {}), f"floor_{metric}_relative"
        known = [rows[key]] if key in rows else rows.values()
        relative = max((float(row[column]) for row in known if column in row), default=None)
        return None if relative is None else float(max(relative, entry["unit"]) * entry[METRICS[metric]])

    def reference_error(self, path: str, name: str, entry: Entry) -> float | None:
        """How many times what rounding explains the reference is from its own float64, where that is too much.

        None: the reference is right here as far as can be said. Infinity: it is not finite, and its float64 is.
        """
        found = entry["floor_added"]
        if entry["exact"] or found is None or entry.get("decides"):  # one decision on the edge is no wrong operation
            return None
        if not math.isfinite(found["rmse"]):
            return math.inf if entry.get("only_exact_finite") else None
        usual = self.usual_floor(path, name, "rmse", entry)
        return found["rmse"] / usual if usual and found["rmse"] > REFERENCE_FACTOR * usual else None

    def chained_limits(self, path: str, entry: Entry) -> dict[str, float] | None:
        """The same on own values, where rounding accumulates: with the excess of the noisiest stage of this model.

        None: whole numbers, where one decision may change all, and values whose accumulated floor is not known.
        """
        found = entry["floor_chained"]
        if entry["exact"] or found is None or not all(math.isfinite(found[metric]) for metric in METRICS):
            return None
        model, _ = row_of(self.model, path, "")
        # a pipeline's own steps hand on what all of its models have accumulated
        models = self.tables if model == "pipeline" else {model: self.tables.get(model, {})}
        rows = [row for table in models.values() for row in table.values()]
        worst = {metric: max([1.0, *(float(row[metric]) for row in rows)]) for metric in METRICS}
        floors_of = {metric: max(floor(entry, metric, "chained"), floor(entry, metric)) for metric in METRICS}
        return {metric: SAFETY * worst[metric] * floors_of[metric] for metric in METRICS}

    def limits(self, path: str, name: str, entry: Entry) -> dict[str, float]:
        """Per figure the largest error that is rounding; whole numbers must be equal.

        Where the reference is wrong its error excuses as much, and is not multiplied: the rest is made from what
        rounding does elsewhere.
        """
        if entry["exact"]:
            return dict.fromkeys(METRICS, 0.0)
        wrong = (self.reference_error(path, name, entry) or math.inf) < math.inf
        limits = {}
        for metric in METRICS:
            usual, own = self.usual_floor(path, name, metric, entry), floor(entry, metric)
            scaled = SAFETY * self.excess(path, name, metric)
            limits[metric] = own + scaled * usual if wrong and usual is not None else scaled * own
        return limits


# ---------------------------------------------------------------------- the suites' components
def component_limits(
    suite: str, precision: str, configured: Mapping[str, float | str | None]
) -> dict[str, float | None]:
    """A run's limits by figure; ``configured``: those of the suite at this precision.

    ``derived`` in the configuration: SAFETY times the table's largest error; None, not judged, where it has none.
    """
    rows = _rows(suite, stored()["components"].get(precision, {}))

    def derived(name: str) -> float | None:
        if name not in rows:
            return None
        metric = metric_of(name)
        return metric.from_error(rows[name]["error"] * (1 if metric.is_count else SAFETY))

    return {name: derived(name) if isinstance(value, str) else value for name, value in configured.items()}


def _rows(suite: str, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A suite's rows; one that is made of other suites' parts is judged as they are."""
    if suite not in ("components", "peers"):
        return dict(tables.get(suite, {}))
    features = tables.get("hubert", {}).get("features_max_abs")
    others = {**tables.get("rmvpe", {}), **tables.get("synthesizer", {})}
    if suite == "peers":
        return others | ({"features_max_abs": features} if features else {})
    others |= {"hubert_max_abs": features} if features else {}
    own = tables.get(suite, {})
    # of figures that both have, the larger: it is the result of more runs
    return {n: max((t[n] for t in (others, own) if n in t), key=lambda row: row["error"]) for n in {**others, **own}}


def component_rows(checks: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, float]]:
    """From judged figures, by the name of their limit, the largest error: the backend's or the reference's own."""
    rows: dict[str, dict[str, float]] = {}
    for name, check in checks:
        metric = metric_of(name)
        value = metric.to_error(float(check["value"]))
        floor_of = 0.0 if check["floor"] is None else metric.to_error(float(check["floor"]))
        row = rows.setdefault(name, {"error": 0.0, "count": 0})
        row["error"] = float(f"{max(row['error'], value, floor_of):.3g}")
        row["count"] += 1
    return rows


# ---------------------------------------------------------------------- making the table
def measured(model: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Tables from the rows of traces: per model, place and entry the largest ratios of error to floor."""
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        if row["exact"] or "reason" in row["added"]:
            continue
        own, key = row_of(model, row["path"], row["entry"])
        found = tables.setdefault(own, {}).setdefault(key, {"count": 0})
        found["count"] += 1
        for metric, level in METRICS.items():
            floor_of, size = row["floor"][metric], row[level]
            ratio = row["added"][metric] / floor_of if floor_of > 0 else 0.0
            found[metric] = max(found.get(metric, 0.0), float(f"{ratio:.3g}"))
            name = f"floor_{metric}_relative"
            found[name] = max(found.get(name, 0.0), float(f"{floor_of / size if size > 0 else 0.0:.3g}"))
    return tables


def merged(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Two sets of tables as one: of every figure the larger, of counts the sum."""
    tables: dict[str, Any] = {model: dict(rows) for model, rows in a.items()}
    for model, rows in b.items():
        own = tables.setdefault(model, {})
        for key, row in rows.items():
            old = own.get(key, {})
            largest = {name: max(old.get(name, 0.0), row.get(name, 0.0)) for name in {**old, **row}}
            own[key] = largest | {"count": old.get("count", 0) + row["count"]}
    return tables
