"""The records of a run: JSON lines, appended as they are measured, never edited.

Every line is one of the types below; ``kind`` tells which. A ``Sample`` is written the moment that it is
taken, a ``Record`` closes one component of one case on one backend and repeats its samples. An interrupted
run keeps its samples, and its continuation goes on from them. Units are in the names: ``_s`` seconds,
``_bytes`` bytes, ``_cents`` cents.

A field with a default may be absent from a line, and is not written where it has that value. The JSON
Schema of the lines is generated from the types: ``python -m suites.base.records``.
"""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from .backends import BACKENDS
from .errors import UserError
from .files import write_whole
from .paths import DATA

RECORDS = "records.jsonl"
SCHEMA = 2  # 2: process launches, calls per sample
SCHEMA_FILE = DATA / "record.schema.json"
ESTIMATORS = ("pyin", "praat", "harvest", "dio", "crepe", "crepe_tiny", "fcpe")

Line = dict[str, Any]
Key = tuple[str, str, str]
T = TypeVar("T")


# ---------------------------------------------------------------------- the types of lines
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
    settings: dict[str, Any]
    voided_frames: Annotated[Count | None, Meta(description="NaN or negative in its result, taken as unvoiced")] = None


class Keyed(Struct, tag_field="kind", omit_defaults=True, kw_only=True):
    """What every line has."""

    schema: Annotated[int, Meta(extra_json_schema={"const": SCHEMA})]
    case: str
    component: str
    backend: Annotated[
        str, _one_of(*BACKENDS, *ESTIMATORS, description="in the suite accuracy also another pitch estimator")
    ]

    @property
    def key(self) -> Key:
        return self.case, self.component, self.backend


class Sample(Keyed, tag="sample", kw_only=True):
    """One timed call, written when it was taken."""

    round: Count
    seconds: Annotated[Positive, Meta(description="of one call: the mean, where one clock reading held several")]
    launch: Count
    calls: Several
    rest_s: Annotated[Amount, Meta(description="how long the device went on after the clock had stopped")]
    others: Annotated[
        Amount, Meta(description="share of the worker's threads that other work on the machine left no processor")
    ] = 0.0


class Result(Keyed, kw_only=True):
    """What both kinds of closing record say of themselves."""

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
    others_share: Annotated[float | None, Meta(description="the median of the samples' others")] = None
    work: Work | None = None
    output: Output | None = None
    accuracy: Accuracy | None = None
    estimator: Estimator | None = None


class Stage(Keyed, tag="trace", kw_only=True):
    """One value of one stage of a trace: ``case`` is the probe, ``component`` the stage's path.

    ``added``: the error on the reference's input; ``chained``: on each side's own. Both hold max_abs, rmse,
    relative, snr_db, corr, cosine and perhaps argmax_changes, or the ``reason`` why there are none.
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
    status: Annotated[str, _one_of("ok", "at fault")]
    where: Figures | None
    floor_chained: Figures | None = None
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
    "rms", "peak", "added", "chained", "floor", "floor_chained", "limit", "where", "heard", "spread", "parity", "cold"
)  # fmt: skip


def typed(raw: Line) -> Keyed:
    """A line as its type, whichever version wrote it.

    Raises:
        ValueError: it is of no kind, lacks a field, or a field is of another type or out of its range.
    """
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


# ---------------------------------------------------------------------- writing
def records_file(folder: Path) -> Path:
    """Where a run folder keeps its records: ``records.jsonl``, or ``records.jsonl.xz`` where only that is there."""
    plain, packed = folder / RECORDS, folder / f"{RECORDS}.xz"
    return packed if packed.is_file() and not plain.exists() else plain


class RecordFile:
    """Appends lines; each is on disk, whole, when ``append`` returns.

    Raises:
        UserError: the records are compressed.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix == ".xz":
            raise UserError(f"{path}: compressed records take no more lines; unpack them first: xz -d {path}")
        self.path = path
        if path.exists():
            _drop_partial_line(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, line: Keyed | Line) -> None:
        data = (json.dumps(_text(msgspec.to_builtins(line, enc_hook=float)), allow_nan=False) + "\n").encode()
        size = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            os.ftruncate(self._fd, size)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        if written != len(data):  # the disk filled up within this line
            os.ftruncate(self._fd, size)
            raise OSError(28, "No space left on device", str(self.path))

    def close(self) -> None:
        os.close(self._fd)


def _text(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are written as text, so that they are never read as a number."""
    if isinstance(value, dict):
        return {k: _text(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_text(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def restored(value: Any) -> Any:
    """Figures as they were before ``append`` wrote NaN and infinity as text."""
    if isinstance(value, dict):
        return {k: restored(v) for k, v in value.items()}
    if isinstance(value, list):
        return [restored(v) for v in value]
    return float(value) if value in ("nan", "inf", "-inf") else value


def number(value: float | str) -> float:
    """A figure as it was before ``append`` kept an infinity or NaN as text."""
    return float(value)


def _drop_partial_line(path: Path) -> None:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


# ---------------------------------------------------------------------- reading
def read_lines(path: Path) -> Iterator[Line]:
    """All whole lines as they are stored, of a ``.xz`` file as well; a last line cut off by a kill is left out.

    Raises:
        UserError: no such file, a damaged file or line, or a schema newer than this program.
    """
    for _, line in _numbered(path):
        yield line


def read_records(path: Path) -> Iterator[Keyed]:
    """All whole lines as their types.

    Raises:
        UserError: as ``read_lines``; and a line that does not fit its type.
    """
    for place, line in _numbered(path):
        try:
            yield typed(line)
        except ValueError as error:
            raise UserError(f"{place}: not a record ({error})") from None


def _numbered(path: Path) -> Iterator[tuple[str, Line]]:
    """Each line with its place, ``FILE:NUMBER``."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; is this a run folder?")
    try:
        content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    except lzma.LZMAError:
        raise UserError(f"{path}: damaged, it cannot be decompressed") from None
    whole = content.split(b"\n")[:-1]  # what follows the last line's end was cut off by a kill
    for number_, text in enumerate(whole, 1):
        place = f"{path}:{number_}"
        try:
            line = json.loads(text)
            schema = int(line["schema"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{place}: not a record") from None
        if schema > SCHEMA:
            raise UserError(f"{place}: schema {schema} is newer than this program's {SCHEMA}; update it")
        yield place, line


def key_of(line: Line) -> Key:
    return line["case"], line["component"], line["backend"]


def last_of_each(lines: Iterable[tuple[Key, T]]) -> dict[Key, T]:
    """The closing records, one per key; where a run was resumed, the last one counts.

    That a backend could not be started is void where it was measured after all.
    """
    found = dict(lines)
    void = {("all", "all", backend) for case, _, backend in found if case != "all"}
    return {key: line for key, line in found.items() if key not in void}


def results(lines: Iterable[Keyed]) -> list[Record | Unmeasured]:
    """The closing records that count, one per key."""
    return list(last_of_each((x.key, x) for x in lines if isinstance(x, Record | Unmeasured)).values())


def samples_of(lines: Iterable[Keyed]) -> dict[Key, dict[int, Sample]]:
    """Per key the sample of each round."""
    found: dict[Key, dict[int, Sample]] = {}
    for line in lines:
        if isinstance(line, Sample):
            found.setdefault(line.key, {})[line.round] = line
    return found


def records(lines: Iterable[Line]) -> list[Line]:
    """``results`` of lines as they are stored."""
    return list(last_of_each((key_of(x), x) for x in lines if x["kind"] == "record").values())


def samples(lines: Iterable[Line]) -> dict[Key, dict[int, Line]]:
    """``samples_of`` lines as they are stored."""
    found: dict[Key, dict[int, Line]] = {}
    for line in lines:
        if line["kind"] == "sample":
            found.setdefault(key_of(line), {})[line["round"]] = {"others": 0.0, **OLD["sample"], **line}
    return found


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
