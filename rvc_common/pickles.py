"""A checkpoint's pickle, opened without running anything of it, by one rule for both implementations.

A pickle is a program that names classes and functions and calls them. Here the names that make plain values mean
what they say, an implementation adds those that make tensors, and what a hostile file would run is refused. Every
other name becomes a stand-in that takes any call and does nothing: trainers store objects of their own beside the
weights.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from . import CheckpointError


class Inert:
    """What a pickle cannot change once it is made."""

    def __setstate__(self, _: Any) -> None: ...


class StandIn(Inert):
    """In the place of another library's class, function or object; its type bears the name."""

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> StandIn:
        return self

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def append(self, _: Any) -> None: ...

    def add(self, _: Any) -> None: ...


def _scalar(dtype: np.dtype[Any], data: bytes = b"") -> Any:
    return (np.frombuffer(data, dtype, 1) if data else np.zeros(1, dtype))[0].item()


def _array(*_: Any) -> np.ndarray:
    """Filled by its state, as NumPy pickles it."""
    return np.empty(0, np.int8)


def _from_buffer(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: str, *_: Any) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C").copy()


def _bytes(text: str, _: str = "latin1") -> bytes:
    return text.encode("latin1")


def _first(value: Any, *_: Any) -> Any:
    return value


def _called(function: Callable[..., Any], _: Any, arguments: tuple[Any, ...], *__: Any) -> Any:
    return function(*arguments)


# none of these runs what it is given
_PLAIN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": lambda *_: {},
    "builtins.set": lambda *values: set(*values),
    "builtins.frozenset": lambda *values: frozenset(*values),
    "builtins.bytearray": lambda *values: bytearray(*values),
    "builtins.complex": lambda *parts: complex(*parts),
    "_codecs.encode": _bytes,
    "numpy.dtype": np.dtype,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "torch.Size": lambda *sizes: tuple(*sizes),
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _called,
}
# protocols below 3 have Python 2's names, and NumPy 2 moved its own
_RENAMED = {
    "__builtin__": "builtins",
    "commands": "subprocess",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
    "torch.tensor": "torch._tensor",
}
# they would be stand-ins as well and run nothing; but whoever asks for them means harm
_HOSTILE = (
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "commands",
    "pty",
    "shutil",
    "socket",
    "ctypes",
    "importlib",
    "runpy",
)
_HOSTILE_NAMES = {f"builtins.{name}" for name in ("eval", "exec", "execfile", "compile", "open", "file", "__import__")}
_HOSTILE_NAMES |= {"io.open", "_io.open", "pickle.loads", "_pickle.loads", "marshal.loads", "types.CodeType"}


class Unpickler(pickle.Unpickler):
    """``tensors``: an implementation's own meanings of names, those of storages and of what rebuilds tensors."""

    tensors: ClassVar[Mapping[str, Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{_RENAMED.get(module, module)}.{name}"
        found = self.tensors.get(full, _PLAIN.get(full))
        if found is not None:
            return found
        if full.partition(".")[0] in _HOSTILE or full in _HOSTILE_NAMES:
            raise CheckpointError(f"refused: the pickle asks for {full}, which a checkpoint does not need")
        return type(full, (StandIn,), {})


def wanted(content: Any) -> Any:
    """Without the state of optimizers: it may be several times the model, and nobody asks for it."""
    if isinstance(content, Mapping) and "model" in content:
        return {k: v for k, v in content.items() if "optim" not in str(k)}
    return content


def holds_stand_in(value: Any) -> bool:
    """Whether a value is, or holds at any depth, what another library's objects became."""
    if isinstance(value, Mapping):
        return any(map(holds_stand_in, (*value, *value.values())))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(holds_stand_in, value))
    return isinstance(value, StandIn) or (isinstance(value, type) and issubclass(value, StandIn))
