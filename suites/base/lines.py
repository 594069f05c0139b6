"""The lines of ``records.jsonl``, each kind a type, named by the field ``kind``.

A ``Sample`` is written the moment that it is taken, a ``Record`` closes one component of one case on one
backend and repeats its samples. Units are in the names: ``_s`` seconds, ``_bytes`` bytes, ``_cents`` cents.

A field with a default may be absent from a line, and is not written where it has that value. The JSON
Schema of the lines is generated from the types: ``python -m suites.base.lines``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from .files import write_whole
from .paths import DATA

SCHEMA = 2  # 2: process launches, calls per sample
SCHEMA_FILE = DATA / "record.schema.json"

Line = dict[str, Any]
Key = tuple[str, str, str]


def _one_of(*names: str, **extra: Any) -> Meta:
    """Names that the JSON Schema lists; reading a line does not check them."""
    return Meta(extra_json_schema={"enum": list(names)}, **extra)


Count = Annotated[int, Meta(ge=0)]
Several = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
Amount = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Figures = Annotated[dict[str, Any], Meta(description="NaN and infinity are stored as text")]
Device = Annotated[str, _one_of("cpu", "cuda", "mps", "gpu")]
Precision = Annotated[str, _one_of("fp32", "tf32", "fp16", "bf16")]
Profile = Annotated[str, _one_of("applio", "webui")]


class Workload(Struct):
    """What a case is computed on."""

    audio: str
    duration_s: float
    samples: int
    frames: int
    weights: str


class Work(Struct, forbid_unknown_fields=True):
    """What one call computes, counted on the PyTorch side."""

    flops_products: Count
    flops_other: Count
    bytes: Count


class Output(Struct, forbid_unknown_fields=True):
    """The audio that came out."""

    samples: Count
    sample_rate: Several


class Warmup(Struct):
    """The calls of one launch before its samples. ``steady``: whether their times had settled."""

    launch: Count
    calls: Count
    steady: bool


class Check(Struct):
    """A figure and its limit."""

    value: float
    limit: float
    passed: bool


class Accuracy(Struct, omit_defaults=True):
    """F0 compared with the truth: shares from 0 to 1 (suites/metrics/pitch.py)."""

    truth: Annotated[str | None, Meta(description="exact, annotations, or the consensus of two estimators")]
    reason: Annotated[str | None, Meta(description="why there are no figures")] = None
    frames: Count | None = None
    scored_frames: Count | None = None
    voiced_frames: Annotated[Count | None, Meta(description="voiced in the truth, among the scored")] = None
    rpa: Share | None = None
    rca: Share | None = None
    octave_errors: Share | None = None
    voicing_recall: Share | None = None
    voicing_false_alarm: Share | None = None
    overall_accuracy: Share | None = None
    near_frames: Annotated[
        Count | None, Meta(description="voiced in both, less than a semitone apart; those that the cents are taken of")
    ] = None
    mean_cents: Amount | None = None
    p95_cents: Amount | None = None
    limits: dict[str, Check] = {}


class Estimator(Struct, omit_defaults=True):
    """What was called instead of RMVPE."""

    title: str
    package: str
    neural: bool
    settings: dict[str, str | int | float | bool | None]
    voided_frames: Annotated[Count | None, Meta(description="NaN or negative in its result, taken as unvoiced")] = None


class Keyed(Struct, tag_field="kind", omit_defaults=True, kw_only=True):
    """What every line has."""

    schema: Annotated[int, Meta(extra_json_schema={"const": SCHEMA})]
    case: str
    component: str
    backend: Annotated[str, Meta(description="in the suite accuracy also an external pitch estimator")]

    @property
    def key(self) -> Key:
        return self.case, self.component, self.backend


class Sample(Keyed, tag="sample", kw_only=True):
    """One timed call, written when it was taken."""

    round: Annotated[Count, Meta(description="of several samples of a round the one with the least ``others`` counts")]
    seconds: Annotated[Positive, Meta(description="of one call: the mean, where one clock reading held several")]
    launch: Count
    calls: Several
    rest_s: Annotated[Amount, Meta(description="how long the device went on after the clock had stopped")]
    others: Annotated[
        Amount, Meta(description="share of the worker's threads that other work on the machine left no processor")
    ] = 0.0


class Result(Keyed, kw_only=True):
    """What both kinds of closing record have."""

    run: Annotated[str, Meta(description="the run's folder")]
    suite: str
    device: Device
    precision: Precision
    profile: Profile


Absence = Literal["skipped", "error"]


class Unmeasured(Result, tag="record", kw_only=True):
    """A backend that this machine lacks, or a case whose audio could not be had."""

    status: Absence
    reason: str
    time: Annotated[str, Meta(description="when it was written, ISO 8601 with its zone")] = ""


class Record(Result, tag="record", kw_only=True):
    """The close of one component of one case on one backend."""

    status: Literal["passed", "failed", "error", "not_comparable"]
    reason: str | None
    time: Annotated[str, Meta(description="when it was written, ISO 8601 with its zone")]
    optimize: list[str]
    blas: str | None
    threads: Several
    warnings: list[str]
    reference: Annotated[str, Meta(description="the backend that it was compared with")]
    workload: Workload
    samples_s: list[Positive]
    rounds: Annotated[list[Count], Meta(extra_json_schema={"uniqueItems": True})]
    launches: Annotated[list[Count], Meta(description="the process launch of each sample")]
    calls: Annotated[Several | None, Meta(description="per sample")]
    warmup_s: list[float]
    warmup: list[Warmup]
    parent_cpu_share: Annotated[float | None, Meta(description="of one core, by the parent, while workers were timed")]
    load_s: float | None
    first_call_s: float | None
    peak_rss_bytes: int | None
    peak_device_bytes: int | None
    cold: list[Figures]
    parity: Figures | None
    blas_core: Annotated[str | None, Meta(description="the kind of processor that the BLAS library computes for")] = (
        None
    )
    blas_choice: Annotated[str | None, Meta(description="how the BLAS library was chosen")] = None
    waiting: Annotated[str | None, Meta(description="the variables that say how idle threads wait")] = None
    others_share: Annotated[float | None, Meta(description="the median of the samples' others")] = None
    work: Work | None = None
    output: Output | None = None
    fidelity: Annotated[
        Figures | None, Meta(description="of another number format: how far the result is from float32's; not judged")
    ] = None
    weights_bytes: Annotated[Count | None, Meta(description="size of the checkpoints")] = None
    accuracy: Accuracy | None = None
    estimator: Estimator | None = None


class Stage(Keyed, tag="trace", kw_only=True):
    """One value of one stage of a trace: ``case`` is the probe, ``component`` the stage's path.

    ``added``: the error on the reference's input; ``chained``: on each side's own. Both hold max_abs, rmse,
    relative, snr_db, corr, cosine and perhaps argmax_changes, or the ``reason`` why there are none. Of a dump, one of
    them is empty where the port gave no such value.
    """

    suite: str
    reference: str
    precision: Precision
    profile: Profile
    probe: str
    variant: str
    path: str
    entry: str
    shape: list[int]
    exact: bool
    rms: float
    peak: float
    added: Figures
    chained: Figures
    floor: Figures
    limit: Figures
    status: Annotated[str, _one_of("ok", "at fault", "reference wrong", "inherited", "not judged")]
    where: Figures | None
    floor_chained: Figures | None = None
    limit_chained: Annotated[Figures | None, Meta(description="of the accumulated error, where it alone is judged")] = (
        None
    )
    heard: Figures | None = None
    shared: Annotated[bool, Meta(description="both sides ran the same code, so its agreement proves nothing")] = False


class Spread(Keyed, tag="spread", kw_only=True):
    """How far the reference is from itself under other noise seeds."""

    suite: str
    seeds: list[int]
    spread: Figures


KINDS = {"sample": Sample, "record": None, "trace": Stage, "spread": Spread}
# what lines of earlier versions lack
OLD: Mapping[str, Line] = {
    "sample": {"launch": 0, "calls": 1, "rest_s": 0.0},
    "record": {"time": "", "warnings": [], "launches": [], "calls": None, "warmup": [], "parent_cpu_share": None},
}
# the fields in which NaN and infinity are stored as text
FIGURES = (
    "rms", "peak", "added", "chained", "floor", "floor_chained", "limit", "limit_chained", "where", "heard", "spread",
    "parity", "cold", "fidelity",
)  # fmt: skip


def typed(raw: Line) -> Keyed:
    """A line as its type, whichever version wrote it.

    Raises ``ValueError``: it is of no kind, lacks a field, or a field is of another type or out of its range."""
    kind = str(raw.get("kind"))
    if kind not in KINDS:
        raise ValueError(f"its kind is {kind!r}")
    line = {**OLD.get(kind, {}), **raw}
    for name in FIGURES:
        if name in line:
            line[name] = restored(line[name])
    try:
        found = msgspec.convert(line, KINDS[kind] or (Record if "workload" in raw else Unmeasured))
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    if isinstance(found, Record) and not found.launches:
        found.launches = [0] * len(found.samples_s)
    return found


def restored(value: Any) -> Any:
    """Figures as they were before NaN and infinity were written as text."""
    return changed(value, lambda one: float(one) if one in ("nan", "inf", "-inf") else one)


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value with ``change`` made to everything inside its dictionaries and lists."""
    if isinstance(value, dict):
        return {k: changed(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [changed(v, change) for v in value]
    return change(value)


# ---------------------------------------------------------------------- the JSON Schema
def json_schema() -> Line:
    """The JSON Schema (draft 2020-12) of one line, as this version writes it."""
    kinds = (Sample, Unmeasured, Record, Stage, Spread)
    _, parts = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    for name in ("rms", "peak"):
        parts["Stage"]["properties"][name]["type"] = ["number", "string"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"One line of records.jsonl, schema {SCHEMA}",
        "description": "Units are in the names: _s seconds, _bytes bytes, _cents cents.",
        "type": "object",
        "anyOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": parts,
    }


if __name__ == "__main__":
    write_whole(SCHEMA_FILE, json.dumps(json_schema(), indent=2) + "\n")
