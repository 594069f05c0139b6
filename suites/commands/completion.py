"""``completion SHELL``: a script that completes commands, flags, suites, overrides and their choices.

The script asks this module for the words that fit: ``python -m suites.commands.completion WORD... CURRENT`` prints
them. Where there are none, the shell completes file names.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence

from ..__main__ import COMMANDS, COMMON, command, common
from ..__main__ import HELP as HELP_FLAGS
from ..base import plugins
from ..base.errors import UserError
from ..base.outcome import PASSED, Answer

HELP = "a script with which bash, zsh or fish completes commands, suites and overrides"
EXAMPLES = (
    ("completion bash >> ~/.bashrc", "for python -m suites and rvc-parity, in every new bash; zsh: >> ~/.zshrc"),
    ("completion fish > ~/.config/fish/conf.d/rvc-parity.fish", "the same for fish"),
)
BASH = r"""
_rvc_parity() {
    local line=${COMP_LINE:0:COMP_POINT} IFS=$' \t\n' words start=1 python=@PYTHON@ cur
    read -r -a words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    COMPREPLY=()
    if [[ ${words[0]##*/} != rvc-parity ]]; then
        [[ ${words[1]} == -m && ${words[2]} == suites && ${#words[@]} -gt 3 ]] || return
        start=3 python=${words[0]}
    fi
    cur=${words[${#words[@]}-1]}
    cur=${cur#[\'\"]}
    IFS=$'\n'
    COMPREPLY=($("$python" -m suites.commands.completion "${words[@]:start}" 2>/dev/null))
    if [[ $cur == *=* && $COMP_WORDBREAKS == *=* && ${line: -${#cur}} == "$cur" ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${cur%%=*}="}")
    fi
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F _rvc_parity python python3 rvc-parity
"""
ZSH = r"""
_rvc_parity() {
    local start=2 python=@PYTHON@
    local -a found
    if [[ ${words[1]:t} != rvc-parity ]]; then
        if [[ $words[2] != -m || $words[3] != suites ]] || (( CURRENT < 4 )); then
            (( $+functions[_python] )) && _python "$@" || _files
            return
        fi
        start=4 python=$words[1]
    fi
    found=(${(f)"$($~python -m suites.commands.completion "${(@Q)words[start,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then
        compadd -S '' -- ${(M)found:#*=}
        compadd -- ${found:#*=}
    else
        compset -P '*='
        _files
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _rvc_parity python python3 rvc-parity
"""
FISH = r"""
function __rvc_parity_words
    set -l words (commandline -opc)
    if test (string replace -r '.*/' '' -- $words[1]) = rvc-parity
        set words[1] @PYTHON@
    else if test (count $words) -ge 3; and test "$words[2]" = -m; and test "$words[3]" = suites
        set -e words[2..3]
    else
        return 1
    end
    printf '%s\n' $words
end
function __rvc_parity
    set -l words (__rvc_parity_words)
    set -l current (commandline -ct | string trim -l -c \'\")
    set -l python $words[1]
    set -e words[1]
    set -l found ($python -m suites.commands.completion $words $current 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        set -l name (string match -r '^.*=' -- $current)
        for path in (__fish_complete_path (string replace -r '^.*=' '' -- $current))
            echo $name$path
        end
    end
end
for name in python python3 rvc-parity
    complete -c $name -n '__rvc_parity_words >/dev/null' -f -a '(__rvc_parity)'
end
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=SCRIPTS, help=f"one of {', '.join(SCRIPTS)}")


def run(args: argparse.Namespace) -> Answer:
    import shlex

    script = SCRIPTS[args.shell].strip().replace("@PYTHON@", shlex.quote(sys.executable))
    return Answer(PASSED, script, {"shell": args.shell, "script": script}, script)


# ---------------------------------------------------------------------- the words that fit
def candidates(words: Sequence[str]) -> list[str]:
    """``words``: everything after ``python -m suites``; the last one is to be completed, and may be empty."""
    *before, current = words or [""]
    current = current.lstrip("'\"")
    before = [word for word in before if word not in COMMON]
    if not before:
        found: Iterable[str] = (*COMMANDS, *COMMON, *HELP_FLAGS) if current.startswith("-") else COMMANDS
    elif before[0] in COMMANDS:
        found = _of_command(before[0], before[1:], current)
    else:
        found = ()
    return sorted({word for word in found if word.startswith(current)})


def _suites() -> Iterable[str]:
    return plugins.conf_files("suite")


def _of_command(name: str, before: Sequence[str], current: str) -> Iterable[str]:
    given = [word for word in before if not word.startswith("-")]
    if name in SUITES_OF and not current.startswith("-"):  # without the command's module, which imports much
        if name == "bundle" and len(given) == 1:
            return ()  # its folder
        return _overrides(given[0], current) if given else SUITES_OF[name]()
    own = argparse.ArgumentParser(parents=[common()])
    module = command(name)
    if hasattr(module, "arguments"):
        module.arguments(own)
    flags = {flag: action for action in own._actions for flag in action.option_strings}
    if before and before[-1] in flags and flags[before[-1]].nargs is None:  # it takes a value
        return _policies() if before[-1] == "--policy" else flags[before[-1]].choices or ()
    if current.startswith("-"):
        return flags
    positional = [action for action in own._actions if not action.option_strings]
    return positional[0].choices or () if positional and not given else ()


def _traced(*more: str) -> Iterable[str]:
    from ..definitions import TRACED

    return (*TRACED, *more)


# where a suite is named: what may stand there
SUITES_OF: dict[str, Callable[[], Iterable[str]]] = {
    "run": lambda: (*_suites(), "all", "resume="),
    "plan": _suites,
    "trace": lambda: _traced("all"),
    "profile": _traced,
    "bundle": _traced,
}


def _policies() -> Iterable[str]:
    return plugins.conf_files("gate")


def _overrides(suite: str, current: str) -> Iterable[str]:
    """Names, or the choices of the one that was begun; within a list those of its next word."""
    from ..measure.options import options_of  # half a second, which commands and flags do without

    try:
        options = options_of("pipeline" if suite == "all" else suite)
    except UserError:
        return ()
    name, sign, value = current.partition("=")
    if not sign:
        return (f"{one}=" for option in options for one in option.names)
    choices = next((option.choices for option in options if name in option.names), ())
    if not value.startswith("["):
        return (f"{name}={choice}" for choice in choices)
    done = value[: max(value.rfind("["), value.rfind(",")) + 1]
    return (f"{name}={done}{choice}" for choice in choices)


if __name__ == "__main__":
    sys.stdout.writelines(f"{word}\n" for word in candidates(sys.argv[1:]))
