"""The table of parts that can be exported: whose checkpoint, which graph, which inputs, and what judges them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rvc_common.noise import Draws, seeded
from rvc_common.rmvpe import N_MELS

Arrays = dict[str, np.ndarray]
# the reference's call on the arrays of a case, by any of its models: one array for each output
Call = Callable[[Any], tuple[np.ndarray, ...]]
Options = Mapping[str, str]

# what the axes of every input and output mean, in their order; those in DYNAMIC may have any length
AXES: dict[str, tuple[str, ...]] = {
    "mel": ("batch", "band", "frames"),
    "salience": ("batch", "frames", "bin"),
    "audio": ("batch", "samples"),
    "features": ("batch", "content_frames", "feature"),
    "phone": ("batch", "frames", "feature"),
    "lengths": ("batch",),
    "pitch": ("batch", "frames"),
    "m_p": ("batch", "channel", "frames"),
    "logs_p": ("batch", "channel", "frames"),
    "z_p": ("batch", "channel", "frames"),
    "z": ("batch", "channel", "frames"),
    "mask": ("batch", "one", "frames"),
    "speaker": ("batch",),
    "latent_noise": ("batch", "channel", "frames"),
    "source": ("batch", "samples", "component"),
}
DYNAMIC = ("batch", "frames", "samples", "content_frames")


def axes_of(name: str) -> tuple[str, ...]:
    """Noise has a rate of its own at each level of a vocoder."""
    return AXES.get(name, ("batch", "channel", f"samples_{name}"))


def dynamic_axes(name: str) -> dict[int, str]:
    return {i: axis for i, axis in enumerate(axes_of(name)) if axis in DYNAMIC or axis.startswith("samples_")}


class Part(NamedTuple):
    """``given(model, options, batch, size, rng)``: the graph's inputs, in its order, and the reference's call on them.
    ``graph(graphs, model, options)``: a module of ``reference_torch.graphs``. ``figures``: of the suite, by what they
    measure. ``sizes``: batch and length of the cases of the check; the exporter sees ``traced``."""

    model: str
    suite: str
    note: str
    graph: Callable[[Any, Any, Options], Any]
    given: Callable[[Any, Options, int, int, np.random.Generator], tuple[Arrays, Call]]
    outputs: tuple[str, ...]
    figures: Mapping[str, str]
    traced: int
    sizes: tuple[tuple[int, int], ...]


# odd and even, short and long, several items
FRAMES = ((1, 3), (1, 50), (3, 33), (1, 151))


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _mel(model: Any, options: Options, batch: int, frames: int, rng: np.random.Generator) -> tuple[Arrays, Call]:
    mel = 2 * _normal(rng, batch, N_MELS, frames) - 5
    return {"mel": mel}, lambda one: (one.salience(mel, 0),)


def _audio(model: Any, options: Options, batch: int, samples: int, rng: np.random.Generator) -> tuple[Arrays, Call]:
    audio = _normal(rng, batch, samples) / 10
    return {"audio": audio}, lambda one: (one.features(audio, options["version"], options["profile"]),)


def _lengths(batch: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    return np.array([frames, *rng.integers(1, frames + 1, batch - 1)])


def _speaker(model: Any, batch: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, model.config.spk_embed_dim, batch)


def _f0(model: Any, batch: int, frames: int, rng: np.random.Generator) -> np.ndarray | None:
    """Voiced and unvoiced frames."""
    f0 = np.where(rng.random((batch, frames)) < 0.3, 0, rng.uniform(60, 800, (batch, frames))).astype(np.float32)
    return f0 if model.has_f0 else None


def _phone(model: Any, options: Options, batch: int, frames: int, rng: np.random.Generator) -> tuple[Arrays, Call]:
    found = {"phone": _normal(rng, batch, frames, model.phone_channels), "lengths": _lengths(batch, frames, rng)}
    if model.has_f0:
        found["pitch"] = rng.integers(1, 256, (batch, frames))
    return found, lambda one: one.encode(*found.values())


def _latent(model: Any, options: Options, batch: int, frames: int, rng: np.random.Generator) -> tuple[Arrays, Call]:
    mask = (np.arange(frames) < _lengths(batch, frames, rng)[:, None])[:, None].astype(np.float32)
    z_p = _normal(rng, batch, model.config.inter_channels, frames) * mask
    found = {"z_p": z_p, "mask": mask, "speaker": _speaker(model, batch, rng)}
    return found, lambda one: (one.flow(*found.values()),)


class _Recorded:
    """Seeded noise, and what was drawn of it, by its index."""

    def __init__(self, seed: int) -> None:
        self.draw, self.arrays = seeded(seed), dict[int, np.ndarray]()

    def __call__(self, index: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        self.arrays[index] = self.draw(index, kind, shape)
        return self.arrays[index]


def _vocoded(model: Any, f0: np.ndarray | None, noise: _Recorded, first: int) -> Arrays:
    """What the vocoder takes besides z and speaker: the source, whose two draws are the first ones, and more noise."""
    found = {} if f0 is None else {"source": model.source(f0, Draws(noise.draw, first))}
    rest = sorted(index for index in noise.arrays if index >= first + 2)
    return found | {f"noise_{i}": noise.arrays[index] for i, index in enumerate(rest)}


def _z(model: Any, options: Options, batch: int, frames: int, rng: np.random.Generator) -> tuple[Arrays, Call]:
    z, speaker = _normal(rng, batch, model.config.inter_channels, frames), _speaker(model, batch, rng)
    f0, noise = _f0(model, batch, frames, rng), _Recorded(frames)

    def call(one: Any) -> tuple[np.ndarray, ...]:
        return (one.decode(z, f0, speaker, noise),)

    call(model)  # draws the noise
    return {"z": z, "speaker": speaker} | _vocoded(model, f0, noise, 0), call


def _whole(model: Any, options: Options, batch: int, frames: int, rng: np.random.Generator) -> tuple[Arrays, Call]:
    found, _ = _phone(model, options, batch, frames, rng)
    speaker, f0, noise = _speaker(model, batch, rng), _f0(model, batch, frames, rng), _Recorded(frames)

    def call(one: Any) -> tuple[np.ndarray, ...]:
        return (one.infer(found["phone"], found["lengths"], found.get("pitch"), f0, speaker, noise),)

    call(model)
    return found | {"speaker": speaker, "latent_noise": noise.arrays[0]} | _vocoded(model, f0, noise, 1), call


PARTS: dict[str, Part] = {
    "rmvpe": Part(
        "rmvpe",
        "rmvpe",
        "log-mel to salience, padded to 32 frames inside, the clip as one block; the applio profile needs 17 frames",
        lambda graphs, model, options: graphs.Salience(model),
        _mel,
        ("salience",),
        {"max_abs": "salience_max_abs"},
        45,
        ((1, 17), (1, 64), (3, 101), (1, 321)),
    ),
    "hubert": Part(
        "hubert",
        "hubert",
        "16 kHz audio of at least 400 samples to content features, (n - 400) // 320 + 1 frames",
        lambda graphs, model, options: graphs.Features(model, options["version"], options["profile"]),
        _audio,
        ("features",),
        {"max_abs": "features_max_abs"},
        9000,
        ((1, 400), (1, 8001), (3, 4719), (1, 32000)),
    ),
    "encoder": Part(
        "voice",
        "synthesizer",
        "features, lengths and pitch codes to mean and log deviation of the latent",
        lambda graphs, model, options: graphs.TextEncoder(model),
        _phone,
        ("m_p", "logs_p"),
        {"max_abs": "encode_max_abs"},
        45,
        FRAMES,
    ),
    "flow": Part(
        "voice",
        "synthesizer",
        "latent to latent, reversed",
        lambda graphs, model, options: graphs.Flow(model),
        _latent,
        ("z",),
        {"max_abs": "flow_max_abs"},
        45,
        FRAMES,
    ),
    "vocoder": Part(
        "voice",
        "synthesizer",
        "latent, speaker and the harmonic source (Synthesizer.source, after tanh) to audio; other noise is an input",
        lambda graphs, model, options: graphs.Vocoder(model),
        _z,
        ("audio",),
        {"max_abs": "decode_max_abs", "snr_db": "decode_snr_db"},
        45,
        FRAMES,
    ),
    "synthesizer": Part(
        "voice",
        "synthesizer",
        "features to audio; the latent's noise, the harmonic source (Synthesizer.source) and other noise are inputs",
        lambda graphs, model, options: graphs.Whole(model),
        _whole,
        ("audio",),
        {"snr_db": "infer_snr_db"},
        45,
        FRAMES,
    ),
}
