"""Composing the Hydra configuration, with errors that name the nearest right word."""

from __future__ import annotations

import re
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..base.backends import DTYPES
from ..base.errors import UserError, nearest
from ..base.paths import CONF
from ..definitions import SUITES
from ..inputs.estimators import ESTIMATORS
from ..inputs.testset import CONDITIONS
from ..inputs.weights import ODD_RATES, SIZES, voice_names
from ..metrics.floors import DERIVED
from ..metrics.pitch import SHARES

Config = dict[str, Any]

# dotted name: type, smallest, largest
NUMBERS: dict[str, tuple[Any, float, float]] = {
    "seed": (int, 0, 2**31),
    "threads": (int, 1, 1024),
    "weights.seed": (int, 0, 2**31),
    "suite.threshold": (int | float, 0, 1),
    "suite.snr_db": (int | float, -100, 200),
    "measure.rounds.min": (int, 1, 10**6),
    "measure.rounds.max": (int, 1, 10**6),
    "measure.launches.min": (int, 1, 1000),
    "measure.launches.max": (int, 1, 1000),
    "measure.goal": (int | float, 0, 10),
    "measure.first_calls": (int, 0, 2),
    "measure.sample_seconds": (int | float, 0, 10),
    "measure.warmup_seconds": (int | float, 0, 10**6),
    "measure.seconds_per_case": (int | float, 0, 10**6),
    "measure.timeout_s": (int | float, 0.001, 10**6),
    # of the suites that have them
    "suite.transpose": (int | float, -48, 48),
    "suite.index_rate": (int | float, 0, 1),
    "suite.protect": (int | float, 0, 0.5),
    "suite.rms_mix": (int | float, 0, 1),
    "suite.speaker": (int, 0, 10**6),
    "suite.parts_tolerance": (int | float, 0, 1),
}
OPTIONAL = ("threads",)
# values of these are file names: quoted for Hydra, whose grammar has its own use for spaces and brackets
WEIGHTS = ("rmvpe", "hubert", "voice", "index")
PATHS = ("audio", "out", "suite.f0", *(f"weights.{name}" for name in WEIGHTS), "paths.runs", "paths.cache")


def suite_names() -> list[str]:
    return sorted(path.stem for path in (CONF / "suite").glob("*.yaml"))


def measure_names() -> list[str]:
    return sorted(path.stem for path in (CONF / "measure").glob("*.yaml"))


def compose_config(suite: str, overrides: list[str]) -> Config:
    """The resolved configuration of a suite.

    Raises:
        UserError: an unknown suite, measure or override, or a value that does not fit.
    """
    if suite not in suite_names():
        raise UserError(f"unknown suite {suite!r}{nearest(suite, suite_names())}")
    for text in overrides:
        _check_form(text)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return to_plain(compose("config", [f"suite={suite}", *map(quoted, overrides)]), overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, overrides)) from error


def quoted(override: str) -> str:
    """A file name as Hydra wants it; everything else, and what is quoted already, as it is."""
    name, _, value = override.partition("=")
    if name not in PATHS or value in ("", "null") or value[0] in "'\"" or "${" in value:
        return override
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{name}='{escaped}'"


def check_names(overrides: list[str]) -> None:
    """For a sweep, whose values only Hydra can read: at least the names must exist.

    Raises:
        UserError: an unknown name, with the nearest known one.
    """
    for text in overrides:
        _check_form(text)
        name = text.partition("=")[0].lstrip("+~")
        if name not in _known_keys() and not name.startswith("hydra"):
            raise UserError(f"unknown override {name!r}{nearest(name, _known_keys())}")


def to_plain(composed: DictConfig, overrides: list[str]) -> Config:
    """The plain configuration; ``overrides``, as the user wrote them, are kept for the report."""
    config = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(config, dict)
    config.pop("hydra", None)
    plain = {str(key): value for key, value in config.items()}
    validate(plain)
    return plain | {"overrides": overrides}


def validate(config: Config) -> None:
    """Refuse values that would fail only after minutes of measuring, or quietly do nothing.

    Raises:
        UserError: names the value and what is expected.
    """
    suite, measure = config["suite"], config["measure"]
    words = {
        "precision": (config["precision"], tuple(DTYPES)),
        "profile": (config["profile"], ("applio", "webui")),
        "measure.model": (measure["model"], SIZES),
        "suite.version": (suite.get("version", "v2"), ("v1", "v2")),
        "suite.rest": (suite.get("rest", "all"), ("all", "none")),
        "suite.voice": (suite.get("voice", voice_names()[0]), (*voice_names(), ODD_RATES)),
    }
    for name, (value, known) in words.items():
        if value not in known:
            raise UserError(f"{name}={value}{nearest(str(value), known)}")
    for name, (kind, low, high) in NUMBERS.items():
        group, _, rest = name.partition(".")
        if group == "suite" and rest not in suite:
            continue
        _check_number(config, name, kind, low, high)
    _check_files(config)
    _check_accuracy(suite, config["audio"])
    judged = [figure.name for figure in SUITES[suite["name"]].judged]
    for policy, limits in suite["limits"].items():
        if policy not in DTYPES:
            raise UserError(f"suite.limits.{policy}: there is no such precision{nearest(policy, DTYPES)}")
        for name, limit in limits.items():
            if name not in judged:
                raise UserError(f"suite.limits.{policy}.{name}: no such figure is judged{nearest(name, judged)}")
            if limit not in (None, DERIVED) and (
                isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 0
            ):
                raise UserError(f"suite.limits.{policy}.{name}={limit}: a number from 0, derived, or null, is expected")
    for name in ("rounds", "launches"):
        span = measure[name]
        if span["min"] > span["max"]:
            raise UserError(f"measure.{name}: min={span['min']} and max={span['max']} do not fit together")


def _check_accuracy(suite: Config, audio: str | None) -> None:
    """Of the suite ``accuracy``: conditions, estimators and least figures that there are."""
    for name, known in (("conditions", CONDITIONS), ("estimators", ESTIMATORS)):
        for wish in suite.get(name) or ():
            if wish not in known:
                raise UserError(f"suite.{name}: {wish}{nearest(str(wish), known)}")
    for condition, least in suite.get("least", {}).items():
        for figure, value in (least or {}).items():
            if condition not in CONDITIONS or figure not in SHARES:
                wrong, right = (condition, CONDITIONS) if condition not in CONDITIONS else (figure, SHARES)
                raise UserError(f"suite.least.{condition}.{figure}{nearest(wrong, right)}")
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1
            ):
                raise UserError(f"suite.least.{condition}.{figure}={value}: a share from 0 to 1, or null, is expected")
    if suite.get("f0") is not None and audio is None:
        raise UserError(f"suite.f0={suite['f0']}: annotations of which recording? name it: audio=FILE")


def _check_number(config: Config, name: str, kind: Any, low: float, high: float) -> None:
    value: Any = config
    for part in name.split("."):
        value = value[part]
    if value is None and name in OPTIONAL:
        return
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        what = "a whole number" if kind is int else "a number"
        raise UserError(f"{name}={value}: {what} from {low:g} to {high:g} is expected")


def _check_files(config: Config) -> None:
    """A file that the suite would not look at is a mistake."""
    name = config["suite"]["name"]
    suite = SUITES[name]
    for weights in WEIGHTS:
        used = suite.takes_index if weights == "index" else weights in suite.checkpoints
        if config["weights"][weights] is not None and not used:
            raise UserError(f"weights.{weights}: the suite {name} does not load it; leave it out")
    if config["audio"] is not None and not suite.takes_audio:
        raise UserError(f"audio={config['audio']}: the suite {name} makes its own inputs; leave it out")


def _check_form(text: str) -> None:
    if "=" not in text and not text.startswith("~"):
        raise UserError(f"{text!r} is not an override; write name=value")


def _explain(error: Exception, overrides: list[str]) -> str:
    """One line out of Hydra's several, with a suggestion."""
    first = str(error).splitlines()[0]
    option = re.search(r"Could not find '(\w+)/([^']+)'", str(error))
    if option:
        folder, name = option.groups()
        known = sorted(path.stem for path in (CONF / folder).glob("*.yaml"))
        return f"{folder}={name}: there is no such {folder}{nearest(name, known)}"
    key = re.search(r"Could not override '([^']+)'", str(error)) or re.search(
        r"Key '([^']+)' is not in struct", str(error)
    )
    if key:
        return f"unknown override {key[1]!r}{nearest(key[1], _known_keys())}"
    wrong = next((text for text in overrides if _refused(text)), " ".join(overrides))
    return f"{wrong}: {first}"


def _refused(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(quoted(override))
    except HydraException:
        return True
    return False


def _known_keys() -> list[str]:
    """Dotted names of everything that can be overridden."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = OmegaConf.to_container(compose("config"), resolve=False)

    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        found = []
        for name, child in node.items():
            found += [prefix + str(name), *walk(child, f"{prefix}{name}.")]
        return found

    return walk(composed, "")
