"""The configuration of a run as types: what ``conf/`` composes to, validated once.

A suite's own options are a subclass of ``SuiteConfig``, named by its definition (``Suite.options``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, inspect

from ..base.errors import UserError, nearest

Precision = Literal["fp32", "tf32", "fp16", "bf16"]
Profile = Literal["applio", "webui"]
Seed = Annotated[int, Meta(ge=0, le=2**31)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=10**6)]
Seconds = Annotated[float, Meta(ge=0, le=10**6)]
Duration = Annotated[float, Meta(ge=0.16, le=14400)]
Limit = Annotated[float, Meta(ge=0)] | Literal["derived"] | None


class Options(Struct, forbid_unknown_fields=True):
    """A part of the configuration."""


class Span(Options):
    """The fewest and the most of something."""

    min: Count
    max: Count


class Launches(Options):
    """The fewest and the most process launches of a case."""

    min: Annotated[int, Meta(ge=1, le=1000)]
    max: Annotated[int, Meta(ge=1, le=1000)]


class Measure(Options):
    """How thoroughly a run measures; see the comments in ``conf/measure/quick.yaml``."""

    name: str
    durations: list[Duration]
    model: Literal["full", "tiny"]
    launches: Launches
    rounds: Span
    goal: Annotated[float, Meta(ge=0, le=10)]
    seconds_per_case: Seconds
    sample_seconds: Annotated[float, Meta(ge=0, le=10)]
    warmup_seconds: Seconds
    first_calls: Annotated[int, Meta(ge=0, le=2)]
    timeout_s: Annotated[float, Meta(ge=0.001, le=10**6)]
    peaks: bool = False
    priority: Literal["high", "normal"] = "high"


class WeightChoice(Options):
    """Paths of checkpoints, and the seed of synthetic ones."""

    rmvpe: str | None = None
    hubert: str | None = None
    voice: str | None = None
    index: str | None = None
    seed: Seed = 25

    def given(self) -> dict[str, str]:
        names = ("rmvpe", "hubert", "voice", "index")
        return {name: path for name in names if (path := getattr(self, name)) is not None}


class Paths(Options):
    runs: str
    cache: str | None = None


class TraceOptions(Options):
    """Seconds of audio that a trace walks; ``plain``: also with every optimisation off; ``spread``: noise seeds."""

    seconds: float
    plain: bool
    plain_seconds: float
    spread: bool


class Growth(Options):
    """Many different lengths in one process, and the memory that they may add."""

    lengths: Count
    shortest_s: float
    longest_s: float
    limit_bytes: int
    limit_share: Share


class SuiteConfig(Options):
    name: str
    summary: str
    components: dict[str, str]
    limits: dict[Precision, dict[str, Limit]]
    speech_clip: bool = False
    snr_db: Annotated[float, Meta(ge=-100, le=200)] | UnsetType = UNSET
    trace: TraceOptions | UnsetType = UNSET


class HubertOptions(SuiteConfig):
    """``version``: whose voices the features are for."""

    version: Literal["v1", "v2"] = "v2"


class PitchOptions(SuiteConfig):
    """``threshold``: the salience below which a frame is unvoiced."""

    threshold: Share = 0.03


class VoiceOptions(SuiteConfig):
    """A suite that synthesises; ``voice`` names a manifest, ``version`` the content features."""

    voice: str = "synth_v2_40k_f0"
    speaker: Annotated[int, Meta(ge=0, le=10**6)] = 0
    version: Literal["v1", "v2"] | UnsetType = UNSET


class ConversionOptions(VoiceOptions):
    """A suite that converts: the options of ``Pipeline.convert``."""

    transpose: Annotated[float, Meta(ge=-48, le=48)] = 0
    index_rate: Share = 0
    protect: Annotated[float, Meta(ge=0, le=0.5)] = 0.5
    rms_mix: Share = 1
    threshold: Share = 0.03
    parts_tolerance: Share = 0.03


class MemoryOptions(ConversionOptions):
    growth: Growth | UnsetType = UNSET


class AblationOptions(ConversionOptions):
    """``rest``: which other optimisations are on while one is measured."""

    rest: Literal["all", "none"] = "all"


class AccuracyOptions(PitchOptions):
    """``least``: per condition the smallest share of each figure that passes; ``f0``: a file of annotations."""

    conditions: list[str] = []
    estimators: list[str] = []
    f0: str | None = None
    least: dict[str, dict[str, Share | None] | None] = {}


class Config(Options):
    """A whole configuration, resolved. ``overrides``: as the user wrote them."""

    suite: SuiteConfig
    measure: Measure
    paths: Paths
    backends: str | list[str] | None
    precision: Precision
    profile: Profile
    optimize: str | list[str]
    seed: Seed
    threads: Annotated[int, Meta(ge=1, le=1024)] | None
    durations: Duration | list[Duration]
    audio: str | None
    weights: WeightChoice
    out: str | None
    resume: str | None
    overrides: list[str] = []
    # of a trace's folder
    trace: bool | UnsetType = UNSET

    def settings(self, index: Path | None) -> dict[str, Any]:
        """The suite's options with seed, profile and index: what a call depends on besides the model."""
        own = {"seed": self.seed, "profile": self.profile, "index": str(index) if index else None}
        return msgspec.to_builtins(self.suite) | own

    def plain(self) -> dict[str, Any]:
        """Dictionaries and lists, as ``config.yaml`` holds them."""
        return dict(msgspec.to_builtins(self))

    @property
    def snr_db(self) -> float:
        """Of the synthetic voice."""
        return 0.0 if self.suite.snr_db is UNSET else self.suite.snr_db


def parsed(plain: Mapping[str, Any], options: type[SuiteConfig]) -> Config:
    """The configuration, ``plain`` as ``config.yaml`` holds it, as types; ``options``: that of its ``suite``.

    Raises ``UserError``: names the first value that is refused, and what is expected in its place."""
    for name, value, kind in (("suite", plain["suite"], options), ("", {**plain, "suite": _ANY}, Config)):
        _check(name, value, inspect.type_info(kind))
    whole = msgspec.convert({**plain, "suite": _ANY}, Config)
    return msgspec.structs.replace(whole, suite=msgspec.convert(plain["suite"], options))


# takes the place of the suite's options where the rest is converted
_ANY = {"name": "", "summary": "", "components": {}, "limits": {}}


def _check(name: str, value: Any, info: Any) -> None:
    """Refuse the first value that its type does not accept: msgspec's own message would not name the range."""
    kinds = getattr(info, "types", (info,))
    for kind in kinds:
        if isinstance(kind, inspect.StructType) and isinstance(value, Mapping):
            _check_fields(f"{name}." if name else "", value, kind.fields)
            return
        if isinstance(kind, inspect.DictType) and isinstance(value, Mapping):
            for key, item in value.items():
                _check(f"{name}.{key}", key, kind.key_type)
                _check(f"{name}.{key}", item, kind.value_type)
            return
        if isinstance(kind, inspect.ListType) and isinstance(value, list):
            for item in value:
                _check(name, item, kind.item_type)
            return
        if _accepts(kind, value):
            return
    words = [str(word) for kind in kinds for word in getattr(kind, "values", ())]
    raise UserError(f"{name}={value}" + (nearest(str(value), words) if words else f": {_expected(kinds)}"))


def _check_fields(prefix: str, value: Mapping[str, Any], fields: Iterable[Any]) -> None:
    known = {field.name: field for field in fields}
    for key in value:
        if key not in known:
            raise UserError(f"{prefix}{key}={value[key]}{nearest(str(value[key]), known)}")
    for key, field in known.items():
        if key in value:
            _check(prefix + key, value[key], field.type)
        elif field.required:
            raise UserError(f"{prefix}{key}=None: a value is needed")


# types without a range: what they accept, and its name in a message
PLAIN: dict[Any, tuple[type, str]] = {
    inspect.StrType: (str, "text"),
    inspect.BoolType: (bool, "true or false"),
    inspect.NoneType: (type(None), "null"),
    inspect.AnyType: (object, "anything"),
}


def _accepts(kind: Any, value: Any) -> bool:
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        number = int if isinstance(kind, inspect.IntType) else int | float
        in_range = isinstance(value, number) and not isinstance(value, bool)
        return in_range and (kind.ge is None or value >= kind.ge) and (kind.le is None or value <= kind.le)
    if isinstance(kind, inspect.LiteralType):
        return value in kind.values
    return type(kind) in PLAIN and isinstance(value, PLAIN[type(kind)][0])


def _expected(kinds: Iterable[Any]) -> str:
    parts: list[str] = []
    for kind in kinds:
        if isinstance(kind, inspect.IntType | inspect.FloatType):
            text = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
            text += f" from {kind.ge:g}" if kind.ge is not None else ""
            parts.append(text + (f" to {kind.le:g}" if kind.le is not None else ""))
        elif isinstance(kind, inspect.LiteralType):
            parts += map(str, kind.values)
        else:
            parts.append(PLAIN[type(kind)][1] if type(kind) in PLAIN else "another kind of value")
    return f"{parts[0] if len(parts) == 1 else ', '.join(parts[:-1]) + ' or ' + parts[-1]} is expected"
