"""Overrides as the user wrote them: what Hydra would not take, in one line with the nearest right word."""

from __future__ import annotations

import pickle
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ..base import plugins
from ..base.errors import UserError, nearest
from ..base.paths import CONF
from ..base.ports import STORED, WRITTEN

# values of these are file names: quoted for Hydra, whose grammar has its own use for spaces and brackets
WEIGHTS = ("rmvpe", "hubert", "voice", "index")
PATHS = ("audio", "out", "suite.f0", *(f"weights.{name}" for name in WEIGHTS), "paths.runs", "paths.cache")
# of these, what every suite has
SET_LAST = tuple(name for name in PATHS if not name.startswith("suite."))
# files of conf/ that a word chooses
GROUPS = ("measure", "paths", "budget")
# whose parts may be left out
PARTS = ("suite.components.", "suite.limits.", "suite.least.")
DASHES = str.maketrans("‐‑‒–—−“”„‘’", '------"""\'\'')


def as_port(word: str) -> str:
    """``+backends.NAME.KEY=VALUE`` as the configuration has it: there ``backends`` is a list of names."""
    name, equals, value = word.partition("=")
    if not (found := re.fullmatch(rf"(\+*){WRITTEN}\.(.+)", name)):
        return word
    if value and value not in ("null", "true", "false") and not re.match(r"['\"\[{]|\$\{|[-+.\d]+$", value):
        value = in_quotes(value)
    return f"{found[1] or '+'}{STORED}.{found[2]}{equals}{value}"


def quoted(override: str) -> str:
    """A file name as Hydra wants it; everything else, and what is quoted already, as it is."""
    name, _, value = override.partition("=")
    if name not in PATHS or value in ("", "null") or value[0] in "'\"" or "${" in value:
        return override
    return f"{name}={in_quotes(value)}"


def in_quotes(value: str) -> str:
    """A text of any characters in Hydra's grammar, where backslashes stand for themselves but in front of a quote."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def checked(suite: str, words: Iterable[str], sweep: bool = False) -> list[Override]:
    """The words as Hydra reads them; ``sweep``: several values of a name are one run each.

    Raises ``UserError``: an unknown name, with the nearest known one, or a value that cannot be read."""
    found = []
    for word in words:
        _check_name(suite, word, sweep)
        try:
            override = parsed(quoted(word))
        except HydraException:
            raise UserError(f"{word}: {_unreadable(word)}") from None
        if override.is_sweep_override() and not sweep:
            name, _, value = word.partition("=")
            listed = "" if "(" in value else f"a list is written '{name}=[{value}]'; "
            raise UserError(f"{word}: {listed}one run for each value: run {suite} -m")
        found.append(override)
    for override in found:
        last = next(one for one in reversed(found) if one.key_or_group == override.key_or_group)
        if last.input_line != override.input_line:
            warnings.warn(f"{override.input_line}: given again; the last one counts: {last.input_line}", stacklevel=2)
    return found


def _check_name(suite: str, word: str, sweep: bool) -> None:
    name, equals, value = word.partition("=")
    bare = name.lstrip("+~")
    known = known_names(suite)
    if not equals and not name.startswith("~"):
        hint = f"; did you mean '{bare}=...'?" if bare in known else "; write name=value"
        raise UserError(f"{word!r} is not an override{hint}")
    if bare == "resume" and value != "null":
        raise UserError(f"{word}: goes on with a run of its own configuration, so it stands alone: run {word}")
    if bare == "suite" and value != suite:
        raise UserError(f"{word}: the suite is {suite} already; name one of them")
    if bare == "hydra" or bare.startswith(("hydra.", "hydra/")):
        if sweep:
            return
        raise UserError(f"{word}: Hydra's own settings count in a sweep only (run {suite} -m); a run's folder is out=")
    if bare not in known and not (name.startswith("+") and "." in bare and bare != "suite.name"):
        raise UserError(f"unknown override {bare!r}{_nearest_name(suite, bare)}")
    if name.startswith("+") and not name.startswith("++") and bare in known:
        raise UserError(f"{word}: {bare} is there already; write {bare}={value}")
    if name.startswith("~") and not bare.startswith(PARTS):
        raise UserError(f"{word}: {bare} cannot be left out; give it another value")
    if bare in PATHS and not value.strip(" '\""):
        raise UserError(f"{word}: the name of a file or folder is expected")
    if bare in GROUPS and not sweep and value.strip("'\"") not in (files := plugins.conf_files(bare)):
        raise UserError(f"{word}: there is no such {bare}{nearest(value, sorted(files))}")


def _nearest_name(suite: str, name: str) -> str:
    part = name.partition(".")[2].partition(".")[0]
    owners = [other for other in plugins.conf_files("suite") if f"suite.{part}" in known_names(other)]
    if name.startswith("suite.") and owners and f"suite.{part}" not in known_names(suite):
        return f"; the suite {suite} has no such option; suites that have it: {', '.join(sorted(owners))}"
    known, wished = known_names(suite), name.translate(DASHES).strip(" -'\"").lower()
    inner = [one for one in known if one == wished or one.endswith(f".{wished}")]
    text = nearest(wished, inner[:1] or known)
    return text if "did you mean" in text else nearest("", [one for one in known if "." not in one])


def composed(suite: str, words: Sequence[str]) -> DictConfig:
    """What Hydra makes of ``conf/`` and the overrides, not resolved.

    Hydra takes long over choosing and joining files, so what it made of those is kept. Plain values, which change with
    every run, are put in afterwards, as Hydra does it; file names without its grammar."""
    names = [word.partition("=")[0] for word in words]
    apart = {
        name: word.partition("=")[2]
        for name, word in zip(names, words, strict=True)
        if name in SET_LAST and names.count(name) == 1 and quoted(word) != word and not re.search(r"[\\']", word)
    }
    rest = [quoted(word) for name, word in zip(names, words, strict=True) if name not in apart]
    found = _with_values((*plugins.search_path(), f"suite={suite}"), rest)
    for name, value in apart.items():
        OmegaConf.update(found, name, value)
    return found


def _with_values(chosen: tuple[str, ...], words: Sequence[str]) -> DictConfig:
    """A composition for whoever changes it."""
    files = [word for word in words if word.partition("=")[0].lstrip("+~") in (*GROUPS, "suite")]
    values = [parsed(word) for word in words if word not in files]
    if any(one.is_sweep_override() or one.is_hydra_override() or one.package is not None for one in values):
        return _composed((*chosen, *words))  # which Hydra refuses
    found = _composed((*chosen, *files))
    ConfigLoaderImpl._apply_overrides_to_config(values, found)
    return found


@lru_cache(maxsize=256)
def parsed(word: str) -> Override:
    """As Hydra's grammar has it.

    Raises ``HydraException``: it cannot be read."""
    return OverridesParser.create().parse_override(word)


def _composed(words: tuple[str, ...]) -> DictConfig:
    found: DictConfig = pickle.loads(_pickled(words))
    return found


@lru_cache(maxsize=128)
def _pickled(words: tuple[str, ...]) -> bytes:
    """A composition as a pickle: to read it takes a tenth of the time of a deep copy."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return pickle.dumps(compose("config", [*words]))


@cache
def known_names(suite: str) -> list[str]:
    """Dotted names of everything that can be overridden."""

    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        found = []
        for name, child in node.items():
            found += [prefix + str(name), *walk(child, f"{prefix}{name}.")]
        return found

    found = [*walk(OmegaConf.to_container(composed(suite, ()), resolve=False), ""), "budget"]
    return [name for name in found if name != "suite.name"]


def _unreadable(word: str) -> str:
    name, _, value = word.partition("=")
    plain = unicodedata.normalize("NFKC", word.translate(DASHES))
    if plain != word:
        return f"did you mean {plain!r}?"
    if value.rstrip(" )]}'\"").endswith(","):
        return "there is a comma too many at its end"
    if any(value.count(a) != value.count(b) for a, b in ("()", "[]", "{}")) or value.count("'") % 2:
        return "a bracket or a quote has no partner"
    return f"this value cannot be read; text with such characters is quoted: {name}=\"'{value}'\""
