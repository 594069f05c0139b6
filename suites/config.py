"""Composing the Hydra configuration, with errors that name the nearest right word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .backends import DTYPES
from .errors import UserError, nearest

ROOT = Path(__file__).parents[1]
# beside the packages in a clone, inside this one in an installed wheel
CONF = next(p for p in (ROOT / "conf", Path(__file__).parent / "conf") if p.is_dir())

Config = dict[str, Any]


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
            return to_plain(compose("config", [f"suite={suite}", *overrides]))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, overrides)) from error


def to_plain(composed: DictConfig) -> Config:
    config = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(config, dict)
    config.pop("hydra", None)
    plain = {str(key): value for key, value in config.items()}
    validate(plain)
    return plain


def validate(config: Config) -> None:
    if config["precision"] not in DTYPES:
        raise UserError(f"precision={config['precision']}{nearest(str(config['precision']), DTYPES)}")
    if config["profile"] not in ("applio", "webui"):
        raise UserError(f"profile={config['profile']}{nearest(str(config['profile']), ('applio', 'webui'))}")
    rounds = config["measure"]["rounds"]
    if not 1 <= rounds["min"] <= rounds["max"]:
        raise UserError(f"measure.rounds: min={rounds['min']} and max={rounds['max']} do not fit together")
    threads = config["threads"]
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise UserError(f"threads={threads}: not a positive number")


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
    return f"{' '.join(overrides)}: {first}"


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
