"""Faults that nobody thought of: any line of ``rvc_mlx`` with one operator, comparison, number or condition changed.

A mutant's name says where it is: ``drawn/MODULE/NUMBER``, counted through the module's source. The function's code
is exchanged in the running process, so that every reference to it stays."""

from __future__ import annotations

import ast
import copy
import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from .base import Patches

PACKAGE = Path(__file__).parents[2] / "rvc_mlx"
# whose trace runs a module, and on which voice where its own does not; the others compute nothing
MODULES = {
    "audio": ("rmvpe", None),
    "packed": ("rmvpe", None),
    "gru": ("rmvpe", None),
    "unet": ("rmvpe", None),
    "rmvpe": ("rmvpe", None),
    "hubert": ("hubert", None),
    "attention": ("hubert", None),
    "layers": ("synthesizer", None),
    "text_encoder": ("synthesizer", None),
    "flow": ("synthesizer", None),
    "source": ("synthesizer", None),
    "vocoder": ("synthesizer", None),
    "synthesizer": ("synthesizer", None),
    "refinegan": ("synthesizer", "synth_v2_24k_f0_refinegan"),
    "retrieval": ("pipeline", None),
}
OTHERS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Add, ast.Mod: ast.Add,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "sin": "cos", "tanh": "sin"}


class Mutant(NamedTuple):
    """``function``: with its module, as ``selftest reach`` names it; ``line`` before and ``changed`` after."""

    name: str
    model: str
    voice: str | None
    function: str
    place: str
    line: str
    changed: str


def mutants(module: str) -> Iterator[Mutant]:
    """All of a module, in the order of its source."""
    tree, (model, voice) = _parsed(module), MODULES[module]
    for number, (function, node) in enumerate(_places(tree, module)):
        before = ast.unparse(node)
        changed = _changed(copy.deepcopy(node))
        place = f"{module}.py:{node.lineno}"
        yield Mutant(f"drawn/{module}/{number}", model, voice, function, place, before, ast.unparse(changed))


def inject(name: str, patches: Patches) -> None:
    """Exchange the code of the function that this mutant is in.

    Raises ``LookupError``: there is no such mutant, or its function cannot be found in the running module."""
    _, module, number = name.split("/")
    tree = _parsed(module)
    function, node = list(_places(tree, module))[int(number)]
    _changed(node)
    running = _running(module, function)
    code = compile(ast.fix_missing_locations(tree), running.__code__.co_filename, "exec")
    for found in _codes(code):
        if (found.co_qualname, found.co_firstlineno) == (running.__code__.co_qualname, running.__code__.co_firstlineno):
            old, running.__code__ = running.__code__, found
            patches.undone(functools.partial(setattr, running, "__code__", old))
            return
    raise LookupError(f"{name}: {function} is not in the changed module")


def _parsed(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def _places(tree: ast.Module, module: str) -> Iterator[tuple[str, Any]]:
    """Every expression that can be changed, with the outermost function that it is in."""
    item: Any
    for item in tree.body:
        inner = [
            (f"{module}.{item.name}.{f.name}", f) for f in getattr(item, "body", ()) if isinstance(f, ast.FunctionDef)
        ]
        if isinstance(item, ast.FunctionDef):
            inner = [(f"{module}.{item.name}", item)]
        for name, function in inner if isinstance(item, ast.FunctionDef | ast.ClassDef) else ():
            for statement in function.body:
                yield from ((name, node) for node in ast.walk(statement) if _can_change(node))


def _can_change(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) and not isinstance(node.value, bool)
    if isinstance(node, ast.BinOp | ast.BoolOp):
        return type(node.op) in OTHERS
    if isinstance(node, ast.Compare):
        return type(node.ops[0]) in OTHERS
    if isinstance(node, ast.Call):
        return _called(node) in CALLS
    return isinstance(node, ast.IfExp | ast.UnaryOp) and not (
        isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.USub)
    )


def _called(node: ast.Call) -> str:
    return str(getattr(node.func, "id", None) or getattr(node.func, "attr", ""))


def _changed(node: Any) -> Any:
    """The expression, changed in place."""
    if isinstance(node, ast.Constant):
        value: Any = node.value
        node.value = value + 1 if isinstance(value, int) else value * 1.01 or 0.01
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        node.op = OTHERS[type(node.op)]()
    elif isinstance(node, ast.Compare):
        node.ops[0] = OTHERS[type(node.ops[0])]()
    elif isinstance(node, ast.Call):
        setattr(node.func, "id" if isinstance(node.func, ast.Name) else "attr", CALLS[_called(node)])
    elif isinstance(node, ast.IfExp):
        node.body, node.orelse = node.orelse, node.body
    else:  # minus
        node.op = ast.UAdd()
    return node


def _running(module: str, function: str) -> FunctionType:
    found: Any = importlib.import_module(f"rvc_mlx.{module}")
    for name in function.split(".")[1:]:
        found = inspect.getattr_static(found, name)
    found = getattr(found, "__func__", None) or getattr(found, "fget", None) or found
    found = inspect.unwrap(found)
    if not isinstance(found, FunctionType):
        raise LookupError(f"{function}: no function")
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
