"""What kind of file a checkpoint is, by its first bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from rvc_common.formats import form_of


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_a_safetensors_header_of_any_length(tmp_path, name):
    """Its length comes first, and may begin like a pickle, which is 128."""
    first = set()
    for spaces in range(0, 256, 8):
        save_file({"a": np.zeros(2, np.float32)}, tmp_path / name, metadata={"note": " " * spaces})
        first.add((tmp_path / name).read_bytes()[0])
        assert form_of(tmp_path / name) == "safetensors"
    assert {0x50, 0x80} <= first


def test_a_pickle_with_braces_is_no_safetensors(tmp_path):
    text = json.dumps({"a": 1}).encode()
    (tmp_path / "a.pt").write_bytes(b"\x80\x02\x00\x00\x01\x00\x00\x00" + text)
    with pytest.raises(Exception, match="a pickle, but not one that PyTorch saved"):
        form_of(tmp_path / "a.pt")
