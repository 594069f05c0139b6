"""A port in the worker: a class of the user's is asked for everything that a package of ours would be asked for.

This module and what it imports run in the user's interpreter: Python 3.10 or later with NumPy, and nothing else.
docs/ports.md has the methods that the class needs.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..base.backends import BACKENDS, PORTED, Backend
from ..base.ports import NOISE, Port
from .adapters.base import Adapter, Call, Facts
from .served import Answer, Request, ServedModel

Inputs = dict[str, Any]
# methods that an adapter must have, and the precision policies of one that names none
NEEDED, PLAIN_PRECISION = ("describe", "load", "call"), ["fp32"]


class AdapterError(Exception):
    """The adapter did not do what docs/ports.md asks of it."""


class ServedPort(ServedModel):
    """A backend whose models and calls are an adapter's."""

    def __init__(self, backend: str, precision: str, port: Port) -> None:
        BACKENDS[backend] = Backend(backend, PORTED, port.device, "numpy", port=port)
        super().__init__(backend, precision)
        self._port = port
        self._takes: Mapping[str, list[str]] = {}
        self._composed: Mapping[str, list[list[str]]] = {}
        # by call: the model that makes it and its name there; and an adapter for each model
        self._calls: Mapping[str, list[str]] = {}
        self._models: dict[str, Any] = {}

    @cached_property
    def _adapter(self) -> PortFramework:
        return PortFramework(self._port)

    def _loader(self, request: Request) -> Callable[[], Any]:
        self._takes, self._composed, self._calls = request["takes"], request["composed"], request["calls"]
        options = {**request["settings"], **self._adapter.options}
        first = self._adapter.user
        wanted = [model for model, call in self._calls.values() if call in self._adapter.components(model)]

        def make() -> None:
            self._models = {}
            for model in dict.fromkeys(wanted):
                self._models[model] = self._adapter.made() if self._models else first
                self._models[model].load(model, dict(request["paths"]), options)

        return make

    def _loaded_facts(self) -> Facts:
        return {"optimize": []}

    def _check_device(self) -> None:
        """Where an adapter's arrays are, only the adapter knows."""

    def _call(self, name: str) -> Callable[[], Any]:
        if name in self._composed:
            return lambda: self._one_after_another(self._composed[name])
        inputs = self._given(name)
        return lambda: self._answer(name, inputs)

    def stages(self, request: Request) -> Answer:
        """Write what the adapter yields of one call, stage by stage, into the folder ``into``: ``NAME.npy``.

        With ``references``, files by stage, the call is made a second time: after every stage the reference's value
        takes the place of the adapter's own, and what it yields goes to ``into/local``."""
        call, into = request["component"], Path(request["into"])
        model, name = self._calls[call]
        user, inputs = self._models[model], self._given(call, request["settings"])
        names = named_stages(self._port.stages)
        made = []
        for path, array in user.stages(name, inputs):
            made.append(names.get(path, path))
            _keep(into, made[-1], array)
        if request["references"]:
            for path, array in user.stages(name, inputs):
                own = names.get(path, path)
                _keep(into / "local", own, array)
                if own in request["references"]:
                    user.restart(path, np.load(request["references"][own]))
        return {"stages": made}

    def _answer(self, name: str, inputs: Inputs) -> Any:
        model, call = self._calls[name]
        return checked(call, self._models[model].call(call, inputs))

    def _one_after_another(self, steps: list[list[str]]) -> Any:
        """Calls whose results are the next one's inputs; a step: the call, and what its result is."""
        inputs: Inputs = {}
        for call, made in steps:
            inputs = {made: self._answer(call, self._given(call) | inputs)}
        return inputs[steps[-1][1]]

    def _given(self, call: str, settings: Facts | None = None) -> Inputs:
        """Everything that a call takes: arrays, settings, and the noise in the order in which it is drawn."""
        chosen = {**self._settings, **(settings or {})}
        found: Inputs = {}
        for name in self._takes[call]:
            if name == "noise":
                numbers = range(sum(key.startswith(NOISE.format(call=call, number="")) for key in self._inputs))
                found[name] = [self._inputs[NOISE.format(call=call, number=number)] for number in numbers]
            else:
                found[name] = self._inputs.get(name, chosen.get(name))
        return found


class PortFramework(Adapter):
    """What the worker asks of a framework, answered by the user's class."""

    def __init__(self, port: Port) -> None:
        super().__init__(port.device)
        self.options: Facts = dict(port.options)
        self._written = port.adapter
        self._facts: Facts = {}

    @cached_property
    def user(self) -> Any:
        """The adapter. Raises ``AdapterError``: there is none, or a method is missing."""
        return self.made()

    def made(self) -> Any:
        """An adapter of its own, told its options where it wants to know them before it describes itself."""
        kind = _class(self._written)
        if missing := [name for name in NEEDED if not callable(getattr(kind, name, None))]:
            raise AdapterError(f"{self._written} has no method {' and no '.join(missing)}")
        found = kind()
        if tell := getattr(found, "configure", None):
            tell(dict(self.options))
        return found

    def configure(self, precision: str, threads: int) -> None:
        self.options = {"precision": precision, "threads": threads, "device": self.device, **self.options}

    def describe(self) -> Facts:
        facts = self.user.describe()
        if not isinstance(facts, dict) or not isinstance(facts.get("components"), dict):
            raise AdapterError(f"{self._written}: describe() must return a dict with 'components': {{suite: [calls]}}")
        self._facts = facts
        policies, wanted = facts.get("precisions", PLAIN_PRECISION), self.options["precision"]
        if wanted not in policies:
            reason = f"its adapter computes in {', '.join(policies)}, not in {wanted}"
            return {"available": False, "reason": reason, **facts}
        given = {name: str(value) for name, value in self.options.items() if name not in ("precision", "threads")}
        own = {"adapter": self._written, "python": sys.version.split()[0], "options": given}
        traced = {"stages": callable(getattr(self.user, "stages", None))}
        traced["restart"] = callable(getattr(self.user, "restart", None))
        return {"available": True, "blas": None, "port": _label(facts), **own, **traced, **facts}

    def components(self, suite: str) -> list[str]:
        return list(self._facts.get("components", {}).get(suite, ()))

    def device_of(self, model: Any) -> str:
        return self.device

    def synchronize(self) -> None:
        if wait := getattr(self.user, "synchronize", None):
            wait()

    def memory(self) -> dict[str, int] | None:
        ask = getattr(self.user, "memory", None)
        found = ask() if ask else None
        return {"held": found} if isinstance(found, int) else found

    def reset_peak_memory(self) -> None:
        """An adapter keeps no count."""

    def peak_memory(self) -> int | None:
        return None

    def matmul(self, size: int, dtype: str) -> Call:
        raise NotImplementedError("a port has no roofline")

    def copy(self, n_bytes: int) -> Call:
        raise NotImplementedError("a port has no roofline")


def named_stages(file: str | None) -> dict[str, str]:
    """Our names by the adapter's, from lines ``its name: our name``; a line that begins with ``#`` says nothing.

    Raises ``AdapterError``: a line without a colon."""
    found = {}
    lines = Path(file).read_text().splitlines() if file else []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            theirs, colon, ours = line.partition(": ")
            if not colon:
                raise AdapterError(f"{file}:{number}: 'its name: our name' is expected, not {line!r}")
            found[theirs.strip()] = ours.strip()
    return found


def _keep(folder: Path, name: str, array: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name.replace('/', '_')}.npy", checked(name, array))


def _label(facts: Facts) -> str:
    return " ".join(str(facts[name]) for name in ("name", "version") if name in facts) or "unnamed"


def _class(written: str) -> Any:
    """``MODULE:CLASS`` or ``FILE.py:CLASS``."""
    module, _, name = written.rpartition(":")
    if module.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(module).stem, module)
        if spec is None or spec.loader is None:
            raise AdapterError(f"{module} cannot be imported")
        found = sys.modules[Path(module).stem] = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(Path(module).parent))  # what lies beside it
        spec.loader.exec_module(found)
    else:
        found = importlib.import_module(module)
    if not hasattr(found, name):
        raise AdapterError(f"{module} has no class {name}")
    return getattr(found, name)


def checked(call: str, result: Any) -> Any:
    """A result as it is. Raises ``AdapterError``: it is neither an array nor arrays by name."""
    arrays = result.values() if isinstance(result, dict) else [result]
    for one in arrays:
        if not isinstance(one, np.ndarray):
            kind = f"{type(one).__module__}.{type(one).__qualname__}"
            raise AdapterError(f"call({call!r}) returned {kind}: a NumPy array is expected, or a dict of them")
    return result
