"""The configuration of a run as types: what ``conf/`` composes to, validated once.

A suite's own options are a subclass of ``SuiteConfig``, named by its definition (``Suite.options``).
"""

from __future__ import annotations

import functools
import re
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
Error = Annotated[float, Meta(ge=0, le=1200)]
Ratio = Annotated[float, Meta(ge=-100, le=300)]
Bits = Literal[4, 6, 8] | None
Limit = Annotated[float, Meta(ge=0)] | Literal["derived"] | None


class Options(Struct, forbid_unknown_fields=True):
    """A part of the configuration. A text in a field's annotation is its meaning, as ``run SUITE --help`` and
    ``docs/overrides.md`` tell it (``measure.options``)."""


class Span(Options):
    """The fewest and the most of something."""

    min: Annotated[Count, "the fewest"]
    max: Annotated[Count, "the most"]


class Launches(Options):
    """The fewest and the most process launches of a case."""

    min: Annotated[int, Meta(ge=1, le=1000), "the fewest"]
    max: Annotated[int, Meta(ge=1, le=1000), "the most"]


class Measure(Options):
    """How thoroughly a run measures; see the comments in ``conf/measure/quick.yaml``."""

    name: str
    durations: Annotated[list[Duration], "seconds of synthetic audio; set durations= instead"]
    model: Annotated[Literal["full", "tiny"], "the size of synthetic weights"]
    launches: Annotated[Launches, "fresh processes per backend, which serve all cases"]
    rounds: Annotated[Span, "passes over all components on all backends in a launch"]
    goal: Annotated[
        float, Meta(ge=0, le=10), "launches end when every speed-up is known to this share (half of its interval)"
    ]
    seconds_per_case: Annotated[Seconds, "or when this time times the number of cases is spent on them"]
    sample_seconds: Annotated[
        float, Meta(ge=0, le=10), "shorter calls are made several times for one reading of the clock; 0: never"
    ]
    warmup_seconds: Annotated[Seconds, "longest warm-up of a call before its samples"]
    first_calls: Annotated[int, Meta(ge=0, le=2), "first calls that are measured in a fresh process"]
    timeout_s: Annotated[float, Meta(ge=0.001, le=10**6), "a worker that is silent for longer is ended"]
    peaks: Annotated[bool, "measure also the best that each device does, for the roofline"] = False
    priority: Annotated[Literal["high", "normal"], "of timed workers; high: where the system grants it"] = "high"


class WeightChoice(Options):
    """Paths of checkpoints, which content model ``hubert`` is, and the seed of synthetic ones."""

    rmvpe: Annotated[str | None, "pitch model, .pt or .safetensors; null: synthetic weights"] = None
    hubert: Annotated[str | None, "HuBERT or ContentVec, a Hugging Face folder or .pt; null: synthetic weights"] = None
    voice: Annotated[str | None, "voice, .pth or .safetensors; null: synthetic weights"] = None
    index: Annotated[str | None, "vectors for retrieval, .index or .npy; null: seeded where they are needed"] = None
    embedder: Annotated[str | None, "which content model hubert is; null: as its name says"] = None
    seed: Annotated[Seed, "of the synthetic weights"] = 25

    def given(self) -> dict[str, str]:
        names = ("rmvpe", "hubert", "voice", "index")
        return {name: path for name in names if (path := getattr(self, name)) is not None}


class Quantized(Options):
    """Weights in fewer bits, which both sides widen to float32 as they load them; see ``rvc_common.quantized``."""

    rmvpe: Annotated[Bits, "bits of the pitch model's matrices, its convolutions in 8; null: as they are"] = None
    hubert: Annotated[Bits, "the same of HuBERT"] = None
    voice: Annotated[Bits, "the same of the voice"] = None
    group: Annotated[Literal[32, 64, 128], "values of a matrix that share a scale"] = 64


class Paths(Options):
    runs: Annotated[str, "folder of the run folders that out= does not name"]
    cache: Annotated[str | None, "folder of synthetic weights; null: ~/.cache/rvc-parity"] = None


class TraceOptions(Options):
    """What ``trace`` walks."""

    seconds: Annotated[Duration, "of audio that trace walks, where durations= is not given"]
    plain: Annotated[bool, "trace walks also with every optimisation off"]
    plain_seconds: Annotated[Duration, "of audio for that, on a CPU with a full-size model"]
    spread: Annotated[bool, "trace compares the reference also with itself under other noise"]
    voices: Annotated[list[str], "small voices with other decoders, walked too unless weights.voice is given"] = []


class Growth(Options):
    """Many different lengths in one process, and the memory that they may add."""

    lengths: Annotated[Count, "how many lengths one process is given"]
    shortest_s: Annotated[Duration, "the shortest of them, seconds"]
    longest_s: Annotated[Duration, "the longest of them, seconds"]
    limit_bytes: Annotated[int, Meta(ge=0), "memory that they may add: this, or"]
    limit_share: Annotated[Share, "this share of what was held before"]


class SuiteConfig(Options):
    name: str
    summary: str
    components: dict[str, str]
    limits: Annotated[
        dict[Precision, dict[str, Limit]],
        "largest error that passes; derived: made from the table of floors; null: shown and not judged",
    ]
    speech_clip: Annotated[bool, "run also on a clip of synthetic speech"] = False
    snr_db: Annotated[
        Annotated[float, Meta(ge=-100, le=200)] | UnsetType, "signal-to-noise ratio of the synthetic voice"
    ] = UNSET
    trace: TraceOptions | UnsetType = UNSET


class HubertOptions(SuiteConfig):
    version: Annotated[Literal["v1", "v2"], "whose voices the features are for"] = "v2"


class PitchOptions(SuiteConfig):
    threshold: Annotated[Share, "salience below which a frame is unvoiced"] = 0.03


class VoiceOptions(SuiteConfig):
    """A suite that synthesises."""

    voice: Annotated[str, "the synthetic voice, a file of suites/data/manifests"] = "synth_v2_40k_f0"
    speaker: Annotated[int, Meta(ge=0, le=10**6), "number of the speaker within the voice"] = 0
    version: Annotated[Literal["v1", "v2"] | UnsetType, "of the content features"] = UNSET


class ConversionOptions(VoiceOptions):
    """A suite that converts: the options of ``Pipeline.convert``."""

    transpose: Annotated[float, Meta(ge=-48, le=48), "semitones"] = 0
    index_rate: Annotated[Share, "share of retrieved features"] = 0
    protect: Annotated[float, Meta(ge=0, le=0.5), "protection of unvoiced frames; 0.5: off"] = 0.5
    rms_mix: Annotated[Share, "1: the voice's own loudness, 0: the input's"] = 1
    threshold: Annotated[Share, "salience below which a frame is unvoiced"] = 0.03
    parts_tolerance: Annotated[Share, "the parts must add up to the whole call within this share"] = 0.03


class PeersOptions(ConversionOptions):
    peers: Annotated[list[str], "ports beside ours, where backends= is not given"] = []


class MemoryOptions(ConversionOptions):
    growth: Growth | UnsetType = UNSET


class AblationOptions(ConversionOptions):
    rest: Annotated[Literal["all", "none"], "which other optimisations are on while one is measured"] = "all"


class PrecisionOptions(ConversionOptions):
    within_cents: Annotated[list[Error], "errors of F0 that the report chooses for: 95th percentile, cents"] = []
    within_db: Annotated[list[Ratio], "signal-to-error ratios that the report chooses for, dB"] = []


class AccuracyOptions(PitchOptions):
    conditions: Annotated[list[str], "kinds of audio in the test set"] = []
    estimators: Annotated[list[str], "other pitch estimators beside it; [] for none"] = []
    f0: Annotated[str | None, "true F0 of your recording audio=, a file of lines time_s,f0_hz"] = None
    least: Annotated[
        dict[str, dict[str, Share | None] | None],
        "smallest share that passes, with the shipped network; null: shown and not judged",
    ] = {}


class Config(Options):
    """A whole configuration, resolved. ``overrides``: as the user wrote them."""

    suite: SuiteConfig
    measure: Measure
    paths: Paths
    backends: Annotated[str | list[str] | None, "where it runs; null: every backend that this machine has"]
    precision: Annotated[Precision, "number format of both sides"]
    profile: Annotated[Profile, "whose defaults a conversion follows"]
    optimize: Annotated[str | list[str], "optimisations of rvc_mlx: all, none, or a list"]
    seed: Annotated[Seed, "of the synthetic audio and of every random order"]
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None, "CPU threads on both sides; null: the number of physical cores"
    ]
    durations: Annotated[Duration | list[Duration], "seconds of synthetic audio, one case each"]
    audio: Annotated[str | None, "a recording of yours in place of the synthetic audio and the speech clip"]
    weights: WeightChoice
    ports: Annotated[dict[str, dict[str, Any]], "ports of yours, written +backends.NAME.adapter=MODULE:CLASS"]
    out: Annotated[str | None, "run folder; null: one named by time and suite, in paths.runs"]
    resume: Annotated[str | None, "folder of an interrupted run, which is completed; it takes no other override"]
    quantize: Quantized = msgspec.field(default_factory=Quantized)
    overrides: list[str] = []
    # of a trace's folder
    trace: bool | UnsetType = UNSET

    def settings(self, index: Path | None) -> dict[str, Any]:
        """The suite's options with seed, profile, index and embedder: what a call depends on besides the model."""
        own = {"seed": self.seed, "profile": self.profile, "index": str(index) if index else None}
        return msgspec.to_builtins(self.suite) | own | {"embedder": self.weights.embedder}

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
        _check(name, value, _about(kind))
    whole = msgspec.convert({**plain, "suite": _ANY}, Config)
    return msgspec.structs.replace(whole, suite=msgspec.convert(plain["suite"], options))


# what it tells of a type stays the same, and takes longer than all that is checked with it
_about = functools.cache(inspect.type_info)
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
    text = shown(value)
    raise UserError(
        f"{name}={text}" + (nearest(text, words) if words and isinstance(value, str) else f": {_expected(kinds)}")
    )


def shown(value: Any) -> str:
    """A value as it is written on the command line; text that looks like another value in quotes."""
    if isinstance(value, str):
        looks_otherwise = value in ("", "null", "true", "false") or re.fullmatch(r"[-+.\deE]+", value)
        return f"'{value}'" if looks_otherwise else value
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _check_fields(prefix: str, value: Mapping[str, Any], fields: Iterable[Any]) -> None:
    known = {field.name: field for field in fields}
    for key in value:
        if key not in known:
            raise UserError(f"{prefix}{key}: there is no such option{nearest(str(key), known)}")
    for key, field in known.items():
        if key in value:
            _check(prefix + key, value[key], field.type)
        elif field.required:
            raise UserError(f"{prefix}{key}: a value is needed")


# types without a range: what they accept, and its name in a message
PLAIN: dict[Any, tuple[type, str]] = {
    inspect.StrType: (str, "text"),
    inspect.BoolType: (bool, "true or false"),
    inspect.NoneType: (type(None), "null"),
    inspect.AnyType: (object, "anything"),
}


CONTAINERS: dict[Any, str] = {
    inspect.ListType: "a list in brackets",
    inspect.DictType: "a mapping in braces",
    inspect.StructType: "a mapping in braces",
}


def _accepts(kind: Any, value: Any) -> bool:
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        number = int if isinstance(kind, inspect.IntType) else int | float
        in_range = isinstance(value, number) and not isinstance(value, bool)
        return in_range and (kind.ge is None or value >= kind.ge) and (kind.le is None or value <= kind.le)
    if isinstance(kind, inspect.LiteralType):
        return value in kind.values
    return type(kind) in PLAIN and isinstance(value, PLAIN[type(kind)][0])


def described(kinds: Iterable[Any]) -> str:
    """What these types accept, in words."""
    parts: list[str] = []
    for kind in kinds:
        if isinstance(kind, inspect.IntType | inspect.FloatType):
            text = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
            text += f" from {kind.ge:.12g}" if kind.ge is not None else ""
            parts.append(text + (f" to {kind.le:.12g}" if kind.le is not None else ""))
        elif isinstance(kind, inspect.LiteralType):
            parts += map(str, kind.values)
        elif isinstance(kind, inspect.ListType):
            parts.append("a list")
        else:
            parts.append(PLAIN[type(kind)][1] if type(kind) in PLAIN else CONTAINERS[type(kind)])
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " or " + parts[-1]


def _expected(kinds: Iterable[Any]) -> str:
    return f"{described(kinds)} is expected"
