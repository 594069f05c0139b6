"""Faults in the weights that a model is built from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .base import Inject, Patches, around

State = dict[str, np.ndarray]
CLASSES = {"rmvpe": "RMVPE", "hubert": "Hubert", "synthesizer": "Synthesizer"}


def of_weights(model: str) -> Callable[[Callable[[State], Any]], Inject]:
    """Decorates ``f(state)``, which changes the state dict after it was read and before the model is built from it."""

    def decorate(change: Callable[[State], Any]) -> Inject:
        @around(f"{model}.{CLASSES[model]}.from_state_dict")
        def load(p: Patches, original: Any, state: State, *rest: Any, **options: Any) -> Any:
            changed = {key: np.array(value) for key, value in state.items()}
            change(changed)
            return original(changed, *rest, **options)

        return load

    return decorate


def weight(model: str, key: str, change: Callable[[np.ndarray], np.ndarray]) -> Inject:
    return of_weights(model)(lambda state: state.update({key: change(state[key])}))


def filled(model: str, key: str, value: float, rows: slice | int = slice(None)) -> Inject:
    """A weight, or some of its rows, set to one value."""
    return of_weights(model)(lambda state: state[key].__setitem__(rows, value))


def backwards(kernel: np.ndarray) -> np.ndarray:
    """``[out, in, taps]`` reversed in time."""
    return kernel[:, :, ::-1].copy()


def exchanged(model: str, *pairs: tuple[str, str]) -> Inject:
    """Weights whose names begin as one of a pair take the place of those that begin as the other."""

    @of_weights(model)
    def change(state: State) -> None:
        for start, other in pairs:
            for key in [key for key in state if key.startswith(start)]:
                twin = other + key.removeprefix(start)
                state[key], state[twin] = state[twin], state[key]

    return change


def randomised(model: str, *starts: str) -> Inject:
    """What a load that is not strict leaves of weights whose names begin so: other values of the same kind."""

    @of_weights(model)
    def change(state: State) -> None:
        for start in starts:
            rng = np.random.default_rng(9)
            found = [key for key in state if key.startswith(start)]
            if not found:
                raise LookupError(f"no weight begins with {start!r}")
            for key in found:
                if not key.endswith("weight_g"):
                    deviation = float(np.std(state[key])) or 0.05
                    state[key] = (rng.standard_normal(state[key].shape) * deviation).astype(np.float32)

    return change
