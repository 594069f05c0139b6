"""Both sides against vectors that the upstream code computed; ``pytest -s`` prints the table.

A field passes within five times its ``float64_gap``, the upstream's own float32 rounding error.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from suites import recipe

SIDES = [("reference_torch", {}), ("rvc_mlx", {"device": "cpu"}), ("rvc_mlx", {"device": "cpu", "optimize": "none"})]
IDS = ["reference_torch", "rvc_mlx", "rvc_mlx-plain"]
FACTOR = 5.0


@pytest.fixture(scope="module", params=SIDES, ids=IDS)
def model(request: pytest.FixtureRequest, full_state: dict[str, np.ndarray]) -> Any:
    package, options = request.param
    return importlib.import_module(package).RMVPE.from_state_dict(full_state, **options)


def check(name: str, field: str, got: np.ndarray, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    want, gap = arrays[field], meta["float64_gap"][field]
    assert got.shape == want.shape
    error = float(np.abs(got.astype(np.float64) - want).max())
    print(f"{name:22} {field:36} error {error:8.2e}  gap {gap:8.2e}  ratio {error / gap if gap else 0:5.2f}")
    assert error <= FACTOR * gap


def test_weights_are_the_published_ones(full_state, golden):
    _, meta = golden("rmvpe_e2e_70")
    assert recipe.fingerprint(full_state) == meta["weights_fingerprint"]["rmvpe:25"]


@pytest.mark.parametrize("name", ["rmvpe_mel_104", "rmvpe_mel_short_513"])
def test_mel(model, golden, name):
    arrays, meta = golden(name)
    check(name, "out.log_mel", model.mel(arrays["in.audio"][0])[None], arrays, meta)


@pytest.mark.parametrize("package", ["rvc_mlx", "reference_torch"])
def test_mel_basis(golden, package):
    arrays, meta = golden("rmvpe_mel_104")
    basis = importlib.import_module(f"{package}.audio").mel_basis()
    check("rmvpe_mel_104", "mid.mel_basis", basis, arrays, meta)


@pytest.mark.parametrize("name", ["rmvpe_e2e_17", "rmvpe_e2e_70", "rmvpe_e2e_97_chunk64"])
def test_salience(model, golden, name):
    """Padded, unpadded and chunked inputs."""
    arrays, meta = golden(name)
    chunk = meta["options"].get("chunk_size", 32000)
    check(name, "out.salience", model.salience(arrays["in.log_mel"], chunk), arrays, meta)


def test_stages(model, golden):
    arrays, meta = golden("rmvpe_e2e_70")
    found: dict[str, np.ndarray] = {}
    model.trace(arrays["in.log_mel"], found.__setitem__)
    stages = [field for field in arrays if field.startswith("mid.")]
    assert len(stages) == 24
    for field in stages:
        check("rmvpe_e2e_70", field, found[field.removeprefix("mid.")], arrays, meta)


def test_decoding(model, golden):
    """Exact ties and exact threshold hits are among the 48 frames."""
    arrays, meta = golden("rmvpe_decode")
    threshold = meta["options"]["threshold"]
    check("rmvpe_decode", "out.cents", model.cents(arrays["in.salience"], threshold), arrays, meta)
    f0 = model.decode(arrays["in.salience"], threshold)
    check("rmvpe_decode", "out.f0", f0, arrays, meta)
    assert f0.dtype == np.float64


def test_audio_to_f0(model, golden):
    arrays, meta = golden("rmvpe_audio_1s")
    check("rmvpe_audio_1s", "mid.log_mel", model.mel(arrays["in.audio"])[None], arrays, meta)
    check("rmvpe_audio_1s", "mid.salience", model.salience(arrays["mid.log_mel"]), arrays, meta)
    f0, want = model.f0(arrays["in.audio"]), arrays["out.f0"]
    check("rmvpe_audio_1s", "out.f0", f0, arrays, meta)
    assert ((f0 > 0) == (want > 0)).all()
    cents = np.abs(1200 * np.log2(f0[want > 0] / want[want > 0]))
    assert cents.max() <= 0.01
