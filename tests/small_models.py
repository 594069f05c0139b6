"""Small models of every kind for tests: reduced manifests, seeded weights, both sides."""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from suites.inputs import recipe
from suites.inputs.weights import reduced_hubert, reduced_manifest, reduced_voice, voice_names

VOICES = voice_names()
SIDES = {"reference_torch": {}, "rvc_mlx": {"device": "cpu"}, "plain": {"device": "cpu", "optimize": "none"}}

Arrays = dict[str, np.ndarray]


def module(side: str, name: str) -> Any:
    return importlib.import_module(f"{'rvc_mlx' if side == 'plain' else side}.{name}")


@functools.cache
def voice_state(name: str, seed: int = 1) -> Arrays:
    return recipe.make_state_dict(reduced_voice(name), seed)


@functools.cache
def hubert_state(seed: int = 2) -> Arrays:
    return recipe.make_state_dict(reduced_hubert(), seed)


@functools.cache
def rmvpe_state(seed: int = 3) -> Arrays:
    return recipe.make_state_dict(reduced_manifest(4, 64), seed)


def facts(name: str) -> tuple[Any, ...]:
    """What ``from_state_dict`` takes after the state."""
    about = reduced_voice(name)
    return about["config_list"], about["version"], bool(about["f0"]), about["vocoder"]


def built_once(build: Callable[..., Any]) -> Callable[..., Any]:
    """The same arguments, the same model; whoever changes its attributes has one of his own, but not its layers."""
    made: dict[str, Any] = {}

    @functools.wraps(build)
    def model(*given: str, **options: Any) -> Any:
        key = repr((given, sorted(options.items())))
        if key not in made:
            made[key] = build(*given, **options)
        return copy.copy(made[key])

    return model


@built_once
def synthesizer(side: str, name: str, **options: Any) -> Any:
    state = voice_state(name)
    return module(side, "synthesizer").Synthesizer.from_state_dict(state, *facts(name), **SIDES[side] | options)


@built_once
def hubert(side: str, **options: Any) -> Any:
    return module(side, "hubert").Hubert.from_state_dict(hubert_state(), **SIDES[side] | options)


@built_once
def rmvpe(side: str, **options: Any) -> Any:
    return module(side, "rmvpe").RMVPE.from_state_dict(rmvpe_state(), **SIDES[side] | options)


def pipeline(side: str, name: str = "synth_v2_40k_f0", profile: str = "applio", **options: Any) -> Any:
    parts = (hubert(side), rmvpe(side, profile=profile), synthesizer(side, name, profile=profile))
    return module(side, "pipeline").Pipeline(*parts, profile=profile, **options)


def inputs(model: Any, frames: int, batch: int = 1, seed: int = 0) -> dict[str, Any]:
    """Arguments of ``infer``: padded items, voiced and unvoiced stretches, several speakers."""
    rng = np.random.default_rng(seed)
    lengths = np.array([frames, *rng.integers(1, frames + 1, batch - 1)])
    f0 = np.where(rng.random((batch, frames)) < 0.3, 0, rng.uniform(60, 800, (batch, frames))).astype(np.float32)
    return {
        "phone": rng.standard_normal((batch, frames, model.phone_channels)).astype(np.float32),
        "lengths": lengths,
        "pitch": rng.integers(1, 256, (batch, frames)) if model.has_f0 else None,
        "f0": f0 if model.has_f0 else None,
        "speaker": rng.integers(0, model.config.spk_embed_dim, batch),
    }


def snr_db(value: np.ndarray, reference: np.ndarray) -> float:
    assert value.shape == reference.shape
    a, b = value.astype(np.float64), reference.astype(np.float64)
    return float(10 * np.log10(np.square(b).sum() / max(np.square(a - b).sum(), 1e-300)))
