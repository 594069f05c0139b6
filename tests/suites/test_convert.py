"""Conversion keeps every value, both ways, and refuses what is not the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open

from suites.convert import convert
from suites.errors import UserError


@pytest.fixture
def checkpoint(tmp_path, tiny_state):
    torch.save({k: torch.from_numpy(v) for k, v in tiny_state.items()}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_there_and_back(tmp_path, checkpoint, tiny_state):
    text = convert(checkpoint, tmp_path / "a.safetensors", "rmvpe")
    assert "741 tensors" in text
    convert(tmp_path / "a.safetensors", tmp_path / "b.pt", "rmvpe")
    again = torch.load(tmp_path / "b.pt", weights_only=True)
    assert again.keys() == tiny_state.keys()
    assert all(np.array_equal(again[k].numpy(), tiny_state[k]) for k in tiny_state)
    with safe_open(tmp_path / "a.safetensors", "np") as file:
        assert file.metadata()["source"] == "a.pt"
        assert len(file.metadata()["source_sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.pt", "is the input itself"), ("a.bin", r"write \.safetensors"), ("nowhere/a.safetensors", "nowhere")],
)
def test_bad_targets(tmp_path, checkpoint, name, message):
    with pytest.raises((UserError, OSError), match=message):
        convert(checkpoint, tmp_path / name, "rmvpe")
    assert not list(tmp_path.glob("*.part"))


def test_another_model(tmp_path):
    torch.save({"enc_p.weight": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="not a checkpoint of this RMVPE"):
        convert(tmp_path / "a.pt", tmp_path / "a.safetensors", "rmvpe")
    assert not (tmp_path / "a.safetensors").exists()
