"""``--help`` of every command: options with defaults, and two examples that can be typed as they stand."""

from __future__ import annotations

import shlex
from itertools import zip_longest

import pytest

from suites.__main__ import COMMANDS, OF_SUITES, command, main, parse, parser
from suites.base.backends import is_port
from suites.measure.config import compose_config, suite_names
from suites.measure.options import DOCUMENT, WORDS, document, options_of

EXAMPLES = [words for name in COMMANDS for words, _ in command(name).EXAMPLES]


def helped(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main([*words, "-h"])
    assert end.value.code == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_the_overview_names_every_command_and_the_first_two(capsys):
    text = helped(capsys)
    assert all(f"\n    {name}" in text for name in COMMANDS)
    assert text.count("\n  python -m suites ") == 2
    assert text.count("\n") < 45


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_its_options_with_defaults_and_two_examples(name, capsys):
    text = helped(capsys, name)
    assert text.count(f"\n  python -m suites {name}") == 2
    assert all(flag in text for flag in ("--json", "--quiet", "--verbose", "--help"))
    own = parser((name,))._subparsers._group_actions[0].choices[name]
    flags = [one for one in own._actions if one.option_strings and one.dest != "help"]
    words = " ".join(text.split())
    assert words.count("default: ") >= len([one for one in flags if not one.required])
    assert "None" not in text


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_can_be_typed(example):
    words = shlex.split(example.partition(">")[0])
    args = parse(words)
    assert args.command == words[0]
    if words[0] in OF_SUITES:
        compose_config(words[1], args.overrides)


@pytest.mark.parametrize("example", [words for words in EXAMPLES if words.split()[0] in ("plan", "completion")])
def test_cheap_examples_run(example, capsys):
    assert main(shlex.split(example.partition(">")[0])) == 0
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------------- what can be set
@pytest.mark.parametrize("suite", suite_names())
def test_run_suite_help_tells_everything_that_can_be_set(suite, capsys):
    assert main(["run", suite, "--help"]) == 0
    text = capsys.readouterr().out
    for name in ("durations", "backends", "measure", "precision", "optimize", "seed", "measure.launches.min", "out"):
        assert f"\n  {name}=" in text
    assert "\n  suite.speech_clip=" in text
    assert text.index("suite.speech_clip=") < text.index("durations=")


@pytest.mark.parametrize("suite", suite_names())
def test_every_option_has_a_meaning_and_can_be_set_to_its_default(suite):
    options = options_of(suite)
    assert all(one.meaning and one.values for one in options), [one.name for one in options if not one.meaning]
    single = [f"{one.name}={one.default}" for one in options if one.names == (one.name,) and one.name != "resume"]
    compose_config(suite, single)
    known = {name for one in options for name in one.names}
    assert known <= set(names(compose_config(suite, []).plain()))


def names(tree: dict, prefix: str = "") -> list[str]:
    found = ["measure"]
    for key, value in tree.items():
        found += [prefix + key, *(names(value, f"{prefix}{key}.") if isinstance(value, dict) else [])]
    return found


@pytest.mark.parametrize("suite", ["pipeline", "accuracy"])
def test_every_choice_is_accepted(suite):
    """Composed a few times only: the first choices of all options together, then the second ones, and so on."""
    chosen = []
    for one in options_of(suite):
        listed = one.name in WORDS and one.default.startswith("[")
        # a port runs beside one of ours only
        choices = [choice for choice in one.choices if one.name != "backends" or not is_port(choice)]
        chosen.append([f"{one.name}=[{choice}]" if listed else f"{one.name}={choice}" for choice in choices])
    for words in zip_longest(*chosen):
        compose_config(suite, [word for word in words if word])


def test_defaults_follow_the_overrides_beside_them(capsys):
    assert main(["run", "pipeline", "measure=full", "-h"]) == 0
    assert "durations=[5,13.5,60]" in capsys.readouterr().out
    assert main(["run", "rmvp", "-h"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown suite 'rmvp'; did you mean 'rmvpe'")


def test_files_that_a_suite_does_not_take_are_not_offered():
    found = {one.name for one in options_of("rmvpe")}
    assert {"weights.rmvpe", "audio"} <= found
    assert not {"weights.voice", "weights.hubert", "weights.index"} & found


def test_the_document_is_current():
    """Made anew by ``python -m suites.measure.options``."""
    assert DOCUMENT.read_text() == document()
