"""Composing the Hydra configuration, with errors that name the nearest right word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..base import plugins
from ..base.errors import UserError, nearest
from ..base.paths import CONF
from ..definitions import SUITES
from ..definitions.config import AccuracyOptions, Config, parsed
from ..inputs.estimators import ESTIMATORS
from ..inputs.testset import CONDITIONS
from ..inputs.weights import ODD_RATES, voice_names
from ..metrics.pitch import SHARES

# values of these are file names: quoted for Hydra, whose grammar has its own use for spaces and brackets
WEIGHTS = ("rmvpe", "hubert", "voice", "index")
PATHS = ("audio", "out", "suite.f0", *(f"weights.{name}" for name in WEIGHTS), "paths.runs", "paths.cache")


def suite_names() -> list[str]:
    return sorted(plugins.conf_files("suite"))


def measure_names() -> list[str]:
    return sorted(plugins.conf_files("measure"))


def compose_config(suite: str, overrides: list[str]) -> Config:
    """The resolved configuration of a suite.

    Raises ``UserError``: an unknown suite, measure or override, or a value that does not fit."""
    if suite not in suite_names():
        raise UserError(f"unknown suite {suite!r}{nearest(suite, suite_names())}")
    for text in overrides:
        _check_form(text)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return to_config(
                compose("config", [*plugins.search_path(), f"suite={suite}", *map(quoted, overrides)]), overrides
            )
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

    Raises ``UserError``: an unknown name, with the nearest known one."""
    for text in overrides:
        _check_form(text)
        name = text.partition("=")[0].lstrip("+~")
        if name not in _known_keys() and not name.startswith("hydra"):
            raise UserError(f"unknown override {name!r}{nearest(name, _known_keys())}")


def to_config(composed: DictConfig, overrides: list[str]) -> Config:
    """The configuration as types; ``overrides``, as the user wrote them, are kept for the report."""
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    return typed({str(key): value for key, value in plain.items()} | {"overrides": overrides})


def typed(plain: Mapping[str, Any]) -> Config:
    """The configuration as types, refused where it would fail only after minutes of measuring or quietly do nothing.

    Raises ``UserError``: names the value and what is expected."""
    config = parsed(plain, SUITES[plain["suite"]["name"]].options)
    suite, measure = config.suite, config.measure
    voice = getattr(suite, "voice", None)
    if voice is not None and voice not in (known := (*voice_names(), ODD_RATES)):
        raise UserError(f"suite.voice={voice}{nearest(voice, known)}")
    _check_files(config)
    if isinstance(suite, AccuracyOptions):
        _check_accuracy(suite, config.audio)
    judged = [figure.name for figure in SUITES[suite.name].judged]
    for policy, limits in suite.limits.items():
        for name in limits:
            if name not in judged:
                raise UserError(f"suite.limits.{policy}.{name}: no such figure is judged{nearest(name, judged)}")
    for name, span in (("rounds", measure.rounds), ("launches", measure.launches)):
        if span.min > span.max:
            raise UserError(f"measure.{name}: min={span.min} and max={span.max} do not fit together")
    return config


def _check_accuracy(suite: AccuracyOptions, audio: str | None) -> None:
    for name, wanted, known in (
        ("conditions", suite.conditions, tuple(CONDITIONS)),
        ("estimators", suite.estimators, tuple(ESTIMATORS)),
        ("least", suite.least, tuple(CONDITIONS)),
        *((f"least.{condition}", least or (), tuple(SHARES)) for condition, least in suite.least.items()),
    ):
        for word in wanted:
            if word not in known:
                raise UserError(f"suite.{name}: {word}{nearest(word, known)}")
    if suite.f0 is not None and audio is None:
        raise UserError(f"suite.f0={suite.f0}: annotations of which recording? name it: audio=FILE")


def _check_files(config: Config) -> None:
    """A file that the suite would not look at is a mistake."""
    name, suite = config.suite.name, SUITES[config.suite.name]
    for weights in config.weights.given():
        if not (suite.takes_index if weights == "index" else weights in suite.checkpoints):
            raise UserError(f"weights.{weights}: the suite {name} does not load it; leave it out")
    if config.audio is not None and not suite.takes_audio:
        raise UserError(f"audio={config.audio}: the suite {name} makes its own inputs; leave it out")


def _check_form(text: str) -> None:
    if "=" not in text and not text.startswith("~"):
        raise UserError(f"{text!r} is not an override; write name=value")


def _explain(error: Exception, overrides: list[str]) -> str:
    """One line out of Hydra's several, with a suggestion."""
    first = str(error).splitlines()[0]
    option = re.search(r"Could not find '(\w+)/([^']+)'", str(error))
    if option:
        folder, name = option.groups()
        known = sorted(plugins.conf_files(folder))
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
