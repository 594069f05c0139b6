"""The models built with fused convolutions, whose kernel is replaced by its definition in NumPy, against plain ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_models
from small_models import VOICES, inputs

from rvc_mlx import fused_conv, optimize
from rvc_mlx.fused_conv import GELU, FusedConv, Tile
from rvc_mlx.hubert import gelu
from rvc_mlx.runtime import mx
from suites.metrics.stages import inside, together

NAMES = ["fused_conv", "fold_norm", "polyphase", "fuse_elementwise"]


@pytest.fixture(autouse=True)
def on_any_machine(monkeypatch):
    """Every convolution has a tile, of one channel, and the definition for a kernel; yields the calls' shapes."""
    calls: list[tuple[int, ...]] = []

    def call(self, x, residual=None, running=None, scale=1.0):
        kernel = np.array(self.weight)
        given, parts = np.array(x.astype(mx.float32)), []
        for part, w, b in zip(
            np.split(given, self.groups, -1), np.split(kernel, self.groups),
            np.split(np.array(self.bias), self.groups), strict=True,
        ):  # fmt: skip
            parts.append(fused_conv.expected(part, w, b, self))
        y = mx.array(np.concatenate(parts, axis=-1).astype(np.float32))
        y = gelu(y) if self.then == GELU else y
        y = y if residual is None else y + residual
        y = y if running is None else y + running
        calls.append(given.shape)
        return (y * scale).astype(fused_conv.DTYPES[self.kind])

    one = optimize.OPTIMIZATIONS["fused_conv"]._replace(cpu=True)
    monkeypatch.setitem(optimize.OPTIMIZATIONS, "fused_conv", one)
    monkeypatch.setattr(fused_conv, "is_available", lambda *_: True)
    monkeypatch.setattr(fused_conv, "gpu_kind", lambda: "cuda")
    monkeypatch.setattr(fused_conv, "works", lambda *given: True)
    monkeypatch.setattr(fused_conv, "_packed", lambda kernel, *given: (mx.array(kernel.astype(np.float32)), 0))
    monkeypatch.setattr(fused_conv, "tile_1d", lambda *given, **named: Tile(16, 1, 1, (1, 1)))
    monkeypatch.setattr(fused_conv, "tile_2d", lambda *given, up=False: Tile(16, 1, 1, (1, 1), 4, up))
    monkeypatch.setattr(FusedConv, "__call__", call)
    return calls


@small_models.built_once
def fused(kind: str, voice: str = "", dtype: str = "float32") -> Any:
    """Only within a test, where every convolution has a tile."""
    states = {"RMVPE": small_models.rmvpe_state, "Hubert": small_models.hubert_state}
    given = (small_models.voice_state(voice), *small_models.facts(voice)) if voice else (states[kind](),)
    made = getattr(small_models.module("rvc_mlx", kind.lower()), kind)
    return made.from_state_dict(*given, device="cpu", optimize=NAMES, dtype=dtype)


def close(got: np.ndarray, want: np.ndarray) -> bool:
    return got.shape == want.shape and float(np.abs(got - want).max()) < 2e-5 * max(1.0, float(np.abs(want).max()))


def test_rmvpe(on_any_machine):
    mel = (np.random.default_rng(1).standard_normal((2, 128, 70)) * 2 - 5).astype(np.float32)
    assert close(fused("RMVPE").salience(mel), small_models.rmvpe("plain").salience(mel))
    assert any(len(shape) == 4 for shape in on_any_machine)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_hubert(version, on_any_machine):
    audio = (0.1 * np.random.default_rng(2).standard_normal((2, 6000))).astype(np.float32)
    assert close(fused("Hubert").features(audio, version), small_models.hubert("plain").features(audio, version))
    assert on_any_machine


@pytest.mark.parametrize("name", VOICES)
def test_voices(name, on_any_machine):
    """Items of a batch, masked frames and noise included."""
    plain = small_models.synthesizer("plain", name)
    given = inputs(plain, 21, batch=2)
    assert close(fused("Synthesizer", name).infer(**given, noise=3), plain.infer(**given, noise=3))
    assert on_any_machine


def test_in_half_precision(on_any_machine):
    """Halves go in and come out of every layer: the result is as near to float32 as the plain path's."""

    def error(got: np.ndarray, want: np.ndarray) -> float:
        return float(np.sqrt(np.mean((got - want) ** 2)))

    mel = (np.random.default_rng(1).standard_normal((1, 128, 70)) * 2 - 5).astype(np.float32)
    want, plain = small_models.rmvpe("plain").salience(mel), small_models.rmvpe("plain", dtype="float16").salience(mel)
    assert 0 < error(fused("RMVPE", dtype="float16").salience(mel), want) < 1.5 * error(plain, want)
    voice = VOICES[0]
    exact, rounded = (small_models.synthesizer("plain", voice, **o) for o in ({}, {"dtype": "float16"}))
    given = inputs(exact, 7)
    want = exact.infer(**given, noise=3)
    got = fused("Synthesizer", voice, dtype="float16").infer(**given, noise=3)
    assert 0 < error(got, want) < 1.5 * error(rounded.infer(**given, noise=3), want)


def paths(events) -> list[str]:
    return [event.whole_path for event in events]


def passed_over(fused: list[str], plain: list[str]) -> list[str]:
    """Stages of the reference that a trace would call missing; see ``ReferenceWalk.advance``."""
    rest, missing = iter(plain), []
    for i, path in enumerate(fused):
        leaf = i == 0 or not inside(fused[i - 1], path)
        for other in rest:
            if other == path:
                break
            if not (leaf and together(other, path)):
                missing.append(other)
        else:
            missing.append(f"no {path}")
    return missing + list(rest)


def test_a_trace_finds_every_stage(on_any_machine):
    """Fused stages are the reference's, or several of them together."""
    audio = (0.1 * np.random.default_rng(2).standard_normal(6000)).astype(np.float32)
    mel = np.zeros((128, 40), np.float32)
    made = {"rmvpe": fused("RMVPE"), "hubert": fused("Hubert")}
    theirs = {name: getattr(small_models, name)("reference_torch") for name in made}
    assert passed_over(paths(made["hubert"].walk(audio)), paths(theirs["hubert"].walk(audio))) == []
    walks = [paths(side["rmvpe"]._walk_network(mel[None], None)) for side in (made, theirs)]
    assert passed_over(*walks) == []
    for voice in VOICES:
        theirs_voice = small_models.synthesizer("reference_torch", voice)
        own = fused("Synthesizer", voice)
        given = inputs(theirs_voice, 9)
        walks = [paths(side.walk(**given, noise=3)) for side in (own, theirs_voice)]
        assert passed_over(*walks) == []
        assert len(walks[0]) < len(walks[1])
