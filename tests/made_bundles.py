"""Tiny bundles, and dumps beside them."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quick_runs import workers_inside

from suites.__main__ import main
from suites.bundle import make
from suites.trace.run import Sides

Arrays = dict[str, np.ndarray]


@contextlib.contextmanager
def few_probes(*names: str, kind: type[Sides] = make.BundleRun) -> Iterator[None]:
    """Bundles, or what else walks, of these probes alone: a walk of all takes half a minute."""
    wants = kind.wants
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "wants", lambda self, probe: probe.name in names and wants(self, probe))
        yield


def make_bundle(model: str, folder: Path, *words: str, probes: Sequence[str] = ("clip", "short")) -> Path:
    with workers_inside(), few_probes(*probes), contextlib.redirect_stdout(io.StringIO()):
        assert main(["bundle", model, str(folder), "measure=smoke", "durations=[0.5]", *words]) == 0
    return folder


def shared_bundle(folder: Path) -> Path:
    """The bundle of RMVPE that several files read; made by the first of a session's processes that asks for it."""
    with (folder / "bundle.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "bundle"
        if not made.exists():
            make_bundle("rmvpe", folder / "bundle.part").rename(made)
    return made


def save(arrays: Arrays, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def save_raw(arrays: Arrays, folder: Path, kind: str = "<f4") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        (folder / f"{name}.bin").write_bytes(array.astype(kind).tobytes())
        (folder / f"{name}.shape").write_text(" ".join(map(str, array.shape)))
    return folder


def save_tensors(arrays: Arrays, file: Path, kind: str = "F32", metadata: dict[str, str] | None = None) -> Path:
    """A ``.safetensors`` file; ``kind`` BF16: rounded to it."""
    header: dict[str, Any] = {"__metadata__": metadata or {}}
    body = b""
    for name, array in arrays.items():
        data = array.astype("<f4").tobytes()
        if kind == "BF16":
            data = ((array.astype("<f4").view("<u4") + 0x8000) >> 16).astype("<u2").tobytes()
        place = [len(body), len(body) + len(data)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": place}
        body += data
    text = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return file
