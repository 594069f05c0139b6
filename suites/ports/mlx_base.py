"""What the adapters of MLX ports share: the BLAS, a strict load, and a watch on their modules."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np

# before MLX: on Linux this gives the port the BLAS that rvc_mlx uses (docs/blas.md), so that their times compare
from rvc_mlx import runtime
from rvc_mlx.runtime import mx

Facts = dict[str, Any]
Rename = tuple[tuple[str, str], ...]
# makes an array of a module's input or result, in PyTorch's order of axes
Shown = Callable[[Any], Any]
Staged = tuple[str, np.ndarray]


class MlxPort:
    """An adapter's answers that do not depend on the port. ``needs``: what the port imports when it is first called."""

    title: ClassVar[str]
    components: ClassVar[Mapping[str, list[str]]]
    needs: ClassVar[tuple[str, ...]] = ()

    def describe(self) -> Facts:
        facts = {"name": self.title, "version": importlib.metadata.version(self.title), "components": self.components}
        if missing := [name for name in self.needs if importlib.util.find_spec(name) is None]:
            return {"available": False, "reason": f"{self.title} needs {' and '.join(missing)}", **facts}
        return facts | runtime.describe()

    def place(self, options: Mapping[str, Any]) -> None:
        """From now on on the device that was asked for."""
        mx.set_default_device(runtime.resolve_device(options["device"]))

    def synchronize(self) -> None:
        mx.synchronize()

    def memory(self) -> dict[str, int]:
        found = {"active": mx.get_active_memory(), "peak": mx.get_peak_memory(), "cache": mx.get_cache_memory()}
        return {f"{name}_bytes": int(held) for name, held in found.items()}


def host(x: Any) -> np.ndarray:
    return np.array(x, dtype=np.float32)


# ---------------------------------------------------------------------- weights
def renamed(key: str, rules: Rename) -> str:
    for pattern, text in rules:
        key = re.sub(pattern, text, key)
    return key


def fill(title: str, module: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Set every parameter of a port, and make it ready for inference.

    Raises ``ValueError``: a parameter gets no array, an array has no parameter, or a shape differs."""
    from mlx.utils import tree_flatten, tree_unflatten

    own = {name: tuple(value.shape) for name, value in tree_flatten(module.parameters())}
    wrong = [f"{name} is not set" for name in own if name not in arrays]
    wrong += [f"{name} is unknown" for name in arrays if name not in own]
    for name in own:
        if name in arrays and arrays[name].shape != own[name]:
            wrong.append(f"{name} is {list(own[name])}, not {list(arrays[name].shape)}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"this checkpoint does not fit {title}: {'; '.join(wrong[:3])}{more}")
    module.update(tree_unflatten([(name, mx.array(array)) for name, array in arrays.items()]))
    module.eval()
    mx.eval(module.parameters())


# ---------------------------------------------------------------------- stages
class Watch(NamedTuple):
    """A module of the port, as its owner holds it; our stages that its result is, and those that its input is."""

    owner: Any
    key: str | int
    made: Mapping[str, Shown]
    given: Mapping[str, Shown] = {}


class _Watched:
    """Stands in for a module: the port calls it as before."""

    def __init__(self, module: Any, watch: Watch, seen: list[Staged]) -> None:
        self._module, self._watch, self._seen = module, watch, seen

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._seen += [(name, host(shown(args[0]))) for name, shown in self._watch.given.items() if args]
        result = self._module(*args, **kwargs)
        self._seen += [(name, host(shown(result))) for name, shown in self._watch.made.items()]
        return result


@contextmanager
def watched(watches: Iterable[Watch]) -> Iterator[list[Staged]]:
    """What the modules are given and make, in the order in which it happens. The port's own code runs, and its modules
    are put back afterwards."""
    seen: list[Staged] = []
    kept = []
    try:
        for watch in watches:
            inside = isinstance(watch.key, int)
            module = watch.owner[watch.key] if inside else getattr(watch.owner, str(watch.key))
            kept.append((watch, module))
            _put(watch, _Watched(module, watch, seen))
        yield seen
    finally:
        for watch, module in reversed(kept):
            _put(watch, module)


def _put(watch: Watch, module: Any) -> None:
    if isinstance(watch.key, int):
        watch.owner[watch.key] = module
    else:
        setattr(watch.owner, watch.key, module)
