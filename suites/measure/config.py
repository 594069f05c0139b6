"""Composing the Hydra configuration, with errors that name the nearest right word."""

from __future__ import annotations

import re
from itertools import islice, product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Glob, Override
from msgspec import UNSET
from omegaconf import DictConfig, OmegaConf

from rvc_mlx.optimize import OPTIMIZATIONS

from ..base import plugins
from ..base.backends import register_ports
from ..base.errors import UserError, nearest
from ..base.files import read_yaml
from ..base.paths import CONF
from ..definitions import SUITES
from ..definitions.config import AccuracyOptions, Config, parsed
from ..definitions.plan import requested_backends
from ..inputs.estimators import ESTIMATORS
from ..inputs.testset import CONDITIONS
from ..inputs.weights import ODD_RATES, voice_names
from ..metrics.pitch import SHARES
from .overrides import PATHS, as_port, checked, composed

# of a sweep's runs, before the first one
MOST_CHECKED = 100


def suite_names() -> list[str]:
    return sorted(plugins.conf_files("suite"))


def measure_names() -> list[str]:
    return sorted(plugins.conf_files("measure"))


def compose_config(suite: str, overrides: list[str]) -> Config:
    """The resolved configuration of a suite.

    Raises ``UserError``: an unknown suite, measure or override, or a value that does not fit."""
    if suite not in suite_names():
        raise UserError(f"unknown suite {suite!r}{nearest(suite, suite_names())}")
    overrides_given, overrides = overrides, [*map(as_port, overrides)]
    checked(suite, overrides)
    try:
        found = composed(suite, overrides)
        OmegaConf.resolve(found)
    except Exception as error:  # Hydra has many kinds for a value that does not fit
        raise UserError(_explain(error, overrides)) from error
    return to_config(found, overrides_given)


def check_sweep(suite: str, overrides: list[str]) -> None:
    """Refuse a sweep before its first run, where one of its runs would be refused.

    Raises ``UserError``: as ``compose_config``; or several runs have the same folder."""
    overrides = [*map(as_port, overrides)]
    found = checked(suite, overrides, sweep=True)
    hydras = [word for word in overrides if word.startswith("hydra")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            whole = compose("config", [*plugins.search_path(), f"suite={suite}", *hydras], return_hydra_config=True)
        except Exception as error:
            raise UserError(_explain(error, hydras)) from error
    own = [one for one in found if not one.is_hydra_override()]
    if any(isinstance(one.value(), Glob) for one in own):
        return  # Hydra finds the files
    if open_ended := [one for one in own if one.is_sweep_override() and not one.is_discrete_sweep()]:
        if BasicSweeper.__name__ in whole.hydra.sweeper._target_:
            raise UserError(f"{open_ended[0].input_line}: Hydra's own sweeper takes a=1,2, choice() and range() only")
        return  # the sweeper will choose
    # of each name the last word, as Hydra's sweeper has it
    choices = {one.get_key_element(): _values(one) for one in own}
    runs = [compose_config(suite, list(words)) for words in islice(product(*choices.values()), MOST_CHECKED)]
    folders = [config.out for config in runs if config.out]
    if len(set(folders)) < len(folders):
        raise UserError(f"out={folders[0]}: each run of a sweep needs a folder of its own, such as out='x/${{seed}}'")


def _values(override: Override) -> list[str]:
    """As one word for each value."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _explain(error: Exception, overrides: list[str]) -> str:
    """One line out of Hydra's several."""
    told = f"{error}\n{error.__cause__}"
    if option := re.search(r"Could not find '(\w+)/([^']+)'", told):
        folder, name = option.groups()
        if folder == "hydra":
            return f"{' '.join(overrides)}: Hydra knows no such {name.partition('/')[0]}"
        return f"{folder}={name}: there is no such {folder}{nearest(name, sorted(plugins.conf_files(folder)))}"
    unset = re.search(r"Environment variable '[^']*' not found", told)
    key, inner = (re.search(text, told) for text in (r"Could not override '([^']+)'", r"Key '([^']+)' is not in"))
    named = [word for word in overrides if key and word.partition("=")[0].lstrip("+~") == key[1]]
    wrong = " ".join(named or [word for word in overrides if "${" in word] or overrides)
    if key and inner:
        return f"{wrong}: there is no {inner[1]!r} in {key[1]}"
    return f"{wrong}: {unset[0] if unset else told.splitlines()[0]}"


def to_config(found: DictConfig, overrides: list[str]) -> Config:
    """The configuration as types; ``overrides``, as the user wrote them, are kept for the report."""
    plain = OmegaConf.to_container(found, resolve=True)
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    for path in PATHS:
        _expand_home(plain, path)
    config = typed({str(key): value for key, value in plain.items()} | {"overrides": overrides})
    known = [*read_yaml(plugins.conf_files("suite")[config.suite.name])["components"]]
    for name in config.suite.components:
        if name not in known:
            raise UserError(f"suite.components.{name}: there is no such component{nearest(name, known)}")
    if not config.suite.components:
        raise UserError("suite.components={} leaves nothing to run")
    requested_backends(config)
    return config


def _expand_home(plain: dict[Any, Any], path: str) -> None:
    """``~`` at the start of a file name: no shell expands it behind ``name=``."""
    *outer, name = path.split(".")
    for part in outer:
        plain = plain[part] if isinstance(plain.get(part), dict) else {}
    if isinstance(value := plain.get(name), str) and value.startswith("~"):
        try:
            plain[name] = str(Path(value).expanduser())
        except RuntimeError:
            raise UserError(f"{path}={value}: this home folder is not known; write the whole path") from None


def typed(plain: dict[str, Any]) -> Config:
    """The configuration as types, refused where it would fail only after minutes of measuring or quietly do nothing.

    Raises ``UserError``: names the value and what is expected."""
    register_ports(plain.setdefault("ports", {}))  # runs from before there were any have none
    config = parsed(plain, SUITES[plain["suite"]["name"]].options)
    suite, measure = config.suite, config.measure
    voices = [("voice", getattr(suite, "voice", None))]
    voices += [("trace.voices", name) for name in getattr(getattr(suite, "trace", None), "voices", [])]
    for option, voice in voices:
        if voice is not None and voice not in (known := (*voice_names(), ODD_RATES)):
            raise UserError(f"suite.{option}={voice}{nearest(voice, known)}")
    bits = (config.quantize.rmvpe, config.quantize.hubert, config.quantize.voice)
    if SUITES[suite.name].protocol == "precision" and (config.precision != "fp32" or any(bits)):
        raise UserError(
            f"the suite {suite.name} has every number format by itself; leave out precision= and quantize.*"
        )
    _check_files(config)
    for word in [config.optimize] if isinstance(config.optimize, str) else config.optimize:
        if word not in (known := (*OPTIMIZATIONS, *(("all", "none") if isinstance(config.optimize, str) else ()))):
            raise UserError(f"optimize={word}{nearest(word, known)}")
    if isinstance(suite, AccuracyOptions):
        _check_accuracy(suite, config.audio)
    judged = [figure.name for figure in SUITES[suite.name].judged]
    for policy, limits in suite.limits.items():
        for name in limits:
            if name not in judged:
                raise UserError(f"suite.limits.{policy}.{name}: no such figure is judged{nearest(name, judged)}")
    growth = getattr(suite, "growth", UNSET)
    if growth is not UNSET and growth.shortest_s > growth.longest_s:
        raise UserError(
            f"suite.growth: shortest_s={growth.shortest_s} and longest_s={growth.longest_s} do not fit together"
        )
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
