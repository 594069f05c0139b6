"""Everything that can be set with ``name=value``, read from the types of the configuration and from ``conf/``.

``run SUITE --help``, the completion of shells and ``docs/overrides.md`` are made of it; the latter anew by
``python -m suites.measure.options``.
"""

from __future__ import annotations

import shutil
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from msgspec import inspect
from omegaconf import OmegaConf

from rvc_mlx.optimize import OPTIMIZATIONS

from ..base.backends import BACKENDS
from ..base.files import write_whole
from ..base.paths import ROOT
from ..definitions import SUITES
from ..definitions.config import Config, Options, described
from ..inputs.estimators import ESTIMATORS
from ..inputs.testset import CONDITIONS
from ..inputs.weights import voice_names
from .config import compose_config, measure_names, suite_names
from .overrides import WEIGHTS, composed

FILES = ("audio", *(f"weights.{name}" for name in WEIGHTS))
DOCUMENT = ROOT / "docs" / "overrides.md"
# not for a command line: what describes a suite or a measure, and what a run notes of itself
HIDDEN = ("suite.name", "suite.summary", "suite.components", "measure.name", "overrides", "trace")
# words that a value is one of, where its type alone does not say
WORDS: dict[str, Callable[[], Iterable[str]]] = {
    "backends": lambda: BACKENDS,
    "optimize": lambda: ("all", "none", *OPTIMIZATIONS),
    "suite.voice": voice_names,
    "suite.conditions": lambda: CONDITIONS,
    "suite.estimators": lambda: ESTIMATORS,
}


class Option(NamedTuple):
    """``name``: ends with a star where it stands for several ``names``; ``default``: as an override has it.
    ``choices``: words that its value is one of, or that a list holds; ``kind``: else what it may be."""

    name: str
    default: str
    kind: str
    choices: tuple[str, ...]
    meaning: str
    names: tuple[str, ...]

    @property
    def values(self) -> str:
        return ", ".join(self.choices) or self.kind


def options_of(suite: str, overrides: Sequence[str] = ()) -> list[Option]:
    """What a suite takes, its own first; defaults are those that hold beside ``overrides``.

    Raises ``UserError``: an unknown suite, or an override that does not fit."""
    compose_config(suite, list(overrides))
    tree = _composed(suite, tuple(overrides))
    measure = Option("measure", tree["measure"]["name"], "", tuple(measure_names()), "how thoroughly", ("measure",))
    own = _walk(SUITES[suite].options, tree["suite"], "suite.")
    rest = [one for one in _walk(Config, {**tree, "suite": {}}, "") if not _refused(suite, one.name)]
    return [*own, measure, *sorted(rest, key=lambda one: one.name.startswith(("measure.", "paths.")))]


def _refused(suite: str, name: str) -> bool:
    """A file that the suite would not look at; see ``config.typed``."""
    one = SUITES[suite]
    unused = {f"weights.{name}" for name in WEIGHTS if name not in one.checkpoints and name != "index"}
    unused |= set() if one.takes_index else {"weights.index"}
    return name in unused or (name == "audio" and not one.takes_audio)


@cache
def _composed(suite: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    found = OmegaConf.to_container(composed(suite, overrides), resolve=True)
    assert isinstance(found, dict)
    return {str(name): one for name, one in found.items()}


# ---------------------------------------------------------------------- the types
def _walk(struct: type[Options], tree: Mapping[str, Any], prefix: str) -> Iterator[Option]:
    """The fields that ``conf/`` gives a value: Hydra sets no others."""
    for field, hint in get_type_hints(struct, include_extras=True).items():
        name = prefix + field
        if field not in tree or name in HIDDEN:
            continue
        value, parts = tree[field], _parts(hint)
        notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        meaning = next((one for one in notes if isinstance(one, str)), "")
        inner = next((one for one in map(_bare, parts) if isinstance(one, type) and issubclass(one, Options)), None)
        if inner is not None:
            for one in _walk(inner, value, f"{name}."):
                yield one._replace(meaning=f"{one.meaning} {meaning}".strip())
        elif isinstance(value, Mapping):
            if leaves := dict(_leaves(name, value)):
                yield _table_of_numbers(name, parts, leaves, meaning)
        else:
            words = tuple(WORDS[name]()) if name in WORDS else _literals(parts)
            yield Option(name, shown(value), _kind(parts), words, meaning, (name,))


def _table_of_numbers(name: str, parts: Sequence[Any], leaves: Mapping[str, Any], meaning: str) -> Option:
    """One option for all names of a table."""
    while tables := [one for one in parts if get_origin(one) is dict]:
        parts = _parts(get_args(tables[0])[1])
    figures = dict.fromkeys(leaf.rpartition(".")[2] for leaf in leaves)
    kind = f"{_kind(parts)}, for each of {', '.join(figures)}"
    return Option(f"{name}.*", ", ".join(dict.fromkeys(map(shown, leaves.values()))), kind, (), meaning, tuple(leaves))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _leaves(f"{name}.{key}", one)
    else:
        yield name, value


def _parts(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself; ``Annotated`` stays around them, as it holds their ranges."""
    inner = _bare(hint)
    if get_origin(inner) in (Union, types.UnionType):
        return tuple(part for one in get_args(inner) for part in _parts(one))
    return (hint if get_origin(inner) is None else inner,)


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _literals(parts: Iterable[Any]) -> tuple[str, ...]:
    plain = [_bare(part) for part in parts]
    found = [str(word) for part in plain if get_origin(part) is Literal for word in get_args(part)]
    return ("true", "false") if bool in plain else tuple(found) if len(found) > 1 else ()


def _kind(parts: Iterable[Any]) -> str:
    kinds = [inspect.type_info(part) for part in parts]
    return described(one for one in kinds if not isinstance(one, inspect.CustomType))


def shown(value: Any) -> str:
    """A value as an override has it."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, bool | None):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.12g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------------- the terminal
def help_of(command: str, suite: str, overrides: Sequence[str]) -> str:
    """What ``COMMAND SUITE --help`` prints."""
    found, width = options_of(suite, overrides), min(120, shutil.get_terminal_size().columns)
    own = [one for one in found if one.name.startswith("suite.")]
    target = " OUT" if command == "bundle" else ""
    lines = [f"usage: python -m suites {command} {suite}{target} [name=value ...]", "", f"{_summary(suite)}.", ""]
    for head, options in ((f"options of {suite}, with defaults", own), ("options of every suite", found[len(own) :])):
        lines += [head, *(line for one in options for line in _help(one, width)), ""]
    lines += [f"python -m suites {command} -h shows flags and examples. Lists need quotes in most shells:"]
    return "\n".join([*lines, f"  python -m suites {command} {suite}{target} 'durations=[5,30]'"])


def _help(one: Option, width: int) -> list[str]:
    text = f"{one.meaning} ({one.values})"
    return [
        f"  {one.name}={one.default}",
        *textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6),
    ]


def _summary(suite: str) -> str:
    return str(_composed(suite, ())["suite"]["summary"])


# ---------------------------------------------------------------------- the document
HEAD = """\
# Everything that can be set

Made by `python -m suites.measure.options` from the types of the configuration (`suites/definitions/config.py`) and from
`conf/`; a test keeps it current. `run SUITE --help` tells the same of one suite. An option is given as
`name=value`; a list needs quotes in most shells: `'durations=[5,30]'`.

## Of every suite
"""
MEASURE = """
## Of a measure

`measure=NAME` sets all of these, and each can be set alone as well. Where a suite has other values for a measure, they
stand with the suite.
"""


def document() -> str:
    """``docs/overrides.md``."""
    first = options_of("pipeline")  # which takes all files
    lines = [HEAD, *_table(one for one in first if not one.name.startswith(("suite.", "measure."))), MEASURE]
    lines += _measures([one for one in first if one.name.startswith("measure.")])
    for suite in suite_names():
        own = [one for one in options_of(suite) if one.name.startswith("suite.")]
        files = [f"`{one.name}`" for one in first if one.name in FILES and not _refused(suite, one.name)]
        takes = f" Files that it takes: {', '.join(files)}." if files else " It takes no file."
        lines += ["", f"## `{suite}`", "", f"{_summary(suite)}.{takes}", "", *_table(own), *_differences(suite)]
    return "\n".join(lines) + "\n"


def _table(options: Iterable[Option]) -> list[str]:
    rows = [f"| `{one.name}` | `{one.default}` | {one.values} | {one.meaning} |" for one in options]
    return ["| name | default | values | meaning |", "|---|---|---|---|", *rows]


def _of_measure(suite: str, measure: str, part: str = "measure") -> dict[str, str]:
    """Every value of a measure, as this suite has it; ``part``: or of the suite with this measure."""
    return {name: shown(one) for name, one in _leaves(part, _composed(suite, (f"measure={measure}",))[part])}


def _measures(options: Iterable[Option]) -> list[str]:
    """A column each; ``rmvpe`` has no values of its own."""
    names = measure_names()
    of_each = [_of_measure("rmvpe", name) for name in names]
    rows = [f"| `{o.name}` | {' | '.join(f'`{of[o.name]}`' for of in of_each)} | {o.meaning} |" for o in options]
    return [f"| name | {' | '.join(f'`{name}`' for name in names)} | meaning |", "|---" * (len(names) + 2) + "|", *rows]


def _differences(suite: str) -> list[str]:
    found = []
    for measure in measure_names():
        plain = _of_measure("rmvpe", measure) | _of_measure(suite, "quick", "suite")
        values = _of_measure(suite, measure) | _of_measure(suite, measure, "suite")
        if other := [f"`{name}={value}`" for name, value in values.items() if value != plain.get(name)]:
            found.append(f"- `measure={measure}`: {', '.join(other)}")
    return ["", "Where it differs from the measure, or from these defaults:", "", *found] if found else []


if __name__ == "__main__":
    write_whole(DOCUMENT, document())
