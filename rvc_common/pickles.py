"""A checkpoint's pickle, opened without running anything of it, by one rule for both implementations.

A pickle is a program that names classes and functions and calls them. Here the names that make plain values mean
what they say, an implementation adds those that make tensors, and what a hostile file would run is refused. Every
other name becomes a stand-in that takes any call and does nothing: trainers store objects of their own beside the
weights.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar

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


class _Dtype(StandIn):
    """NumPy's own could be given a state that makes it read past its memory; this one knows plain numbers and text."""

    def __init__(self, kind: object = "", *_: Any) -> None:
        self.kind = kind if isinstance(kind, str) and re.fullmatch(r"[biufcSU][0-9]{1,3}", kind) else None

    def __setstate__(self, state: Any) -> None:
        if self.kind and state[1] in ("<", ">"):
            self.kind = state[1] + self.kind.lstrip("<>")


class Array(Inert):
    """A NumPy array as it is pickled: empty at first, then filled by its state. ``value``: a stand-in if it cannot."""

    value: Any = StandIn()

    def __setstate__(self, state: Any) -> None:
        *_, shape, dtype, in_columns, data = state
        if isinstance(data, bytes) and isinstance(dtype, _Dtype):
            self.value = _from_buffer(data, dtype, shape, "F" if in_columns else "C")


def _from_buffer(data: bytes, dtype: Any, shape: tuple[int, ...], order: str, *_: Any) -> Any:
    if not isinstance(dtype, _Dtype) or not dtype.kind:
        return StandIn()
    return np.frombuffer(bytes(data), dtype.kind).reshape(shape, order="F" if order == "F" else "C").copy()


def _scalar(dtype: Any, data: bytes = b"") -> Any:
    if not isinstance(dtype, _Dtype) or not dtype.kind or not isinstance(data, bytes):
        return StandIn()
    return np.frombuffer(data, dtype.kind, 1)[0].item() if data else ""


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
    "numpy.dtype": lambda *arguments: _Dtype(*arguments),
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.multiarray._reconstruct": lambda *_: Array(),
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

    def __init__(self, file: BinaryIO, **how: Any) -> None:
        super().__init__(file, **how)
        self._file = file

    def load(self) -> Any:
        """What one pickle makes.

        Raises ``UnpicklingError`` or others: it is damaged."""
        start, size = self._file.tell(), self._file.seek(0, io.SEEK_END)
        self._file.seek(start)
        for code, argument, _ in pickletools.genops(self._file):
            # pickle makes room for every place below one that is named, whatever the number
            if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(str(argument)) > size:
                raise pickle.UnpicklingError(f"a pickle of {size} bytes with {argument} places")
        self._file.seek(start)
        return super().load()

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
