"""A port of RMVPE's front end and first encoder level in NumPy alone. It shares no code with the project: it knows the
method, a bundle's files, and nothing else. ``fault`` plants a known one by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]
KINDS = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}
# fault: the stage at which it must be found
FAULTS = {
    "symmetric window": "mel",
    "padded with zeros": "padded_log_mel",
    "another epsilon": "unet.encoder.bn",
    "kernel flipped": "unet.encoder.layers.0.conv.0.conv.3",
    "shortcut without bias": "unet.encoder.layers.0.conv.0.shortcut",
    "no ReLU": "unet.encoder.layers.0.conv.1.conv.2",
    "largest instead of mean": "unet.encoder.layers.0.pool",
}


def read(path: Path) -> Arrays:
    """The tensors of a ``.safetensors`` file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(body[slice(*t["data_offsets"])], KINDS[t["dtype"]]).reshape(t["shape"])
        for name, t in header.items()
    }


class Port:
    def __init__(self, weights: Arrays, fault: str = "") -> None:
        self.weights, self.fault = weights, fault
        self.made: Arrays = {}

    def run(self, audio: np.ndarray) -> Arrays:
        """Audio at 16 kHz to every value up to the first pooling, by its name in the bundle."""
        mel = self.keep("mel", self.mel(audio))
        extra = -mel.shape[1] % 32
        mode = "constant" if self.fault == "padded with zeros" else "reflect"
        x = self.keep("padded_log_mel", np.pad(mel, ((0, 0), (0, extra)), mode=mode))
        x = self.norm("unet.encoder.bn", x.T[None, None], "another epsilon")
        for block in range(4):
            x = self.block(f"unet.encoder.layers.0.conv.{block}", x)
        windows = x.reshape(1, x.shape[1], x.shape[2] // 2, 2, x.shape[3] // 2, 2)
        pooled = windows.max((3, 5)) if self.fault == "largest instead of mean" else windows.mean((3, 5))
        self.keep("unet.encoder.layers.0.pool", pooled)
        return self.made

    def keep(self, name: str, value: np.ndarray) -> np.ndarray:
        self.made[name] = np.ascontiguousarray(value, np.float32)
        return self.made[name]

    def mel(self, audio: np.ndarray) -> np.ndarray:
        size, hop, bands = 1024, 160, 128
        turns = np.arange(size) / (size - 1 if self.fault == "symmetric window" else size)
        window = (0.5 - 0.5 * np.cos(2 * np.pi * turns)).astype(np.float32)
        padded = np.pad(audio, size // 2, mode="reflect")
        frames = np.stack([padded[i * hop : i * hop + size] * window for i in range(1 + len(audio) // hop)])
        magnitude = np.abs(np.fft.rfft(frames)).astype(np.float32)
        low, high = (2595 * np.log10(1 + hz / 700) for hz in (30.0, 8000.0))
        edges = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
        hz = np.arange(size // 2 + 1) * 16000 / size
        filters = []
        for left, middle, right in zip(edges, edges[1:], edges[2:], strict=False):
            triangle = np.minimum((hz - left) / (middle - left), (right - hz) / (right - middle))
            filters.append(np.maximum(0, triangle) * 2 / (right - left))
        return np.log(np.maximum(np.array(filters, np.float32) @ magnitude.T, 1e-5))

    def block(self, name: str, x: np.ndarray) -> np.ndarray:
        start, rest = x, x
        for first in (0, 3):
            x = self.convolved(f"{name}.conv.{first}", x)
            x = self.norm(f"{name}.conv.{first + 1}", x)
            left_out = self.fault == "no ReLU" and f"{name}.conv.{first + 2}" == FAULTS["no ReLU"]
            x = self.keep(f"{name}.conv.{first + 2}", x if left_out else np.maximum(x, 0))
        if f"{name}.shortcut.weight" in self.weights:
            kernel, bias = self.weights[f"{name}.shortcut.weight"], self.weights[f"{name}.shortcut.bias"]
            rest = np.einsum("oi,birc->borc", kernel[:, :, 0, 0], start)
            rest = rest if self.fault == "shortcut without bias" else rest + bias[:, None, None]
            rest = self.keep(f"{name}.shortcut", rest)
        return self.keep(f"{name}.add", x + rest)

    def convolved(self, name: str, x: np.ndarray) -> np.ndarray:
        kernel = self.weights[f"{name}.weight"]
        if self.fault == "kernel flipped" and name == FAULTS[self.fault]:
            kernel = kernel[:, :, ::-1, ::-1]
        rows, columns = x.shape[2:]
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        found = np.zeros((1, kernel.shape[0], rows, columns), np.float32)
        for i in range(3):
            for j in range(3):
                part = padded[:, :, i : i + rows, j : j + columns]
                found += np.einsum("oi,birc->borc", kernel[:, :, i, j], part, optimize=True)
        return self.keep(name, found)

    def norm(self, name: str, x: np.ndarray, fault: str = "-") -> np.ndarray:
        mean, variance, gain, bias = (
            self.weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        epsilon = 1e-3 if self.fault == fault else 1e-5
        return self.keep(name, (x - mean) / np.sqrt(variance + np.float32(epsilon)) * gain + bias)
