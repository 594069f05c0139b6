"""The MLX ports that ship, on tiny models: their stages beside the reference's, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

import reference_torch
from suites.inputs.weights import find_weights

OPTIONS = {"device": "cpu", "version": "v2"}
# what the transposed convolution makes, before the port pads it
UNPADDED = (".conv1.0", ".conv1.1")


@pytest.fixture(scope="module")
def audio():
    return (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)


def adapter(name: str, model: str, folder, options=OPTIONS):
    pytest.importorskip("mlx.core")
    pytest.importorskip(name)
    path = str(find_weights(model, None, 25, "tiny", None, folder).path)
    module = __import__(f"suites.ports.{name}", fromlist=["Adapter"])
    found = module.Adapter()
    found.load(model, {model: path}, options)
    return found, path


def test_mlx_contentvec_makes_our_stages_and_features(tmp_path, audio):
    port, path = adapter("mlx_contentvec", "hubert", tmp_path)
    wanted: dict[str, np.ndarray] = {}
    features = reference_torch.Hubert.from_checkpoint(path).features(audio, watch=wanted.setdefault)
    made = dict(port.stages("features", {"audio": audio}))
    np.testing.assert_allclose(made.pop("features"), features, atol=1e-4)
    assert len(made) > 200
    for name, array in made.items():
        np.testing.assert_allclose(array, wanted[name], atol=1e-4, err_msg=name)


def test_mlx_contentvec_without_final_proj_tells(tmp_path):
    with pytest.raises(NotImplementedError, match=r"no final_proj, which version=v1 needs; it computes version=v2"):
        adapter("mlx_contentvec", "hubert", tmp_path, OPTIONS | {"version": "v1"})


def test_mlx_rmvpe_is_right_up_to_its_transposed_convolution(tmp_path, audio):
    port, path = adapter("mlx_rmvpe", "rmvpe", tmp_path)
    wanted: dict[str, np.ndarray] = {}
    reference = reference_torch.RMVPE.from_checkpoint(path, profile="webui")  # zeros behind the last frame, as the port
    mel = reference.mel(audio)
    reference.trace(mel[None], wanted.setdefault)
    made = dict(port.stages("network", {"mel": mel}))
    assert np.array_equal(made.pop("padded_log_mel"), wanted["padded_log_mel"][0])
    assert set(made) <= set(wanted)
    for name, array in made.items():
        if name.endswith(UNPADDED):
            assert array.shape[2:] == tuple(n - 1 for n in wanted[name].shape[2:]), name
            continue
        assert array.shape == wanted[name].shape, name
        if ".decoder" not in name and name.startswith("unet."):
            np.testing.assert_allclose(array, wanted[name], atol=1e-4, err_msg=name)
    first = made["unet.decoder.layers.0.conv1"], wanted["unet.decoder.layers.0.conv1"]
    np.testing.assert_allclose(first[0][..., :-1, :-1], first[1][..., :-1, :-1], atol=1e-4)
    assert not first[0][..., -1].any()
    salience = reference.salience(mel)
    given = {"salience": salience, "threshold": 0.03}
    np.testing.assert_allclose(port.call("decode", given), reference.decode(salience), rtol=1e-5)


def test_a_checkpoint_that_does_not_fit_is_told():
    pytest.importorskip("mlx.core")
    from mlx import nn

    from suites.ports.mlx_base import fill

    with pytest.raises(ValueError, match=r"does not fit x: weight is not set; weights is unknown; bias is \[2\], not"):
        fill("x", nn.Linear(2, 2), {"weights": np.zeros((2, 2)), "bias": np.zeros(3)})
