"""Loading on both sides: what is accepted, and that nothing wrong is."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from checkpoints import reading
from small_models import hubert, rmvpe, synthesizer

read_file = reading("rvc_mlx").read_file


def save(path: Path, state: dict[str, np.ndarray], dtype: torch.dtype | None = None) -> Path:
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()}
    if dtype is not None:
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    torch.save(tensors, path)
    return path


def load(side: ModuleType, path: Path):
    return side.RMVPE.from_checkpoint(path, device="cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_own_reader_equals_torchs(tmp_path, tiny_state, dtype):
    path = save(tmp_path / "a.pt", tiny_state, dtype)
    ours, theirs = read_file(path), reading("reference_torch").read_file(path)
    assert ours.keys() == theirs.keys() == tiny_state.keys()
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
        assert ours[key].dtype == theirs[key].dtype


def test_own_reader_follows_strides_and_shared_storages(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    torch.save({"a": base.t(), "b": base[1:3, ::2], "c": torch.tensor(5), "d": torch.zeros(0, 3)}, tmp_path / "a.pt")
    state = read_file(tmp_path / "a.pt")
    np.testing.assert_array_equal(state["a"], base.t().numpy())
    np.testing.assert_array_equal(state["b"], base[1:3, ::2].numpy())
    assert state["c"] == 5
    assert state["d"].shape == (0, 3)


def test_loading_draws_nothing():
    """First weights would be replaced at once, and a draw would change the user's own."""
    for build in (rmvpe, hubert, lambda side, **more: synthesizer(side, "synth_v2_24k_f0_refinegan", **more)):
        before = torch.get_rng_state()
        build("reference_torch", dtype="float64")
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_loads(side, tmp_path, tiny_state, voice, suffix):
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file(tiny_state, path)
    else:
        save(path, tiny_state)
    expected = side.RMVPE.from_state_dict(tiny_state, device="cpu").f0(voice)
    np.testing.assert_array_equal(load(side, path).f0(voice), expected)


def test_missing_file(side, tmp_path):
    with pytest.raises(side.CheckpointError, match=r"nothing\.pt: no such file"):
        load(side, tmp_path / "nothing.pt")


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory, tiny_state) -> bytes:
    return save(tmp_path_factory.mktemp("whole") / "a.pt", tiny_state).read_bytes()


@pytest.mark.parametrize("kept", [0, 2, 100, 0.3, 0.9, 0.999])
def test_truncated(side, tmp_path, whole_file, kept):
    path, data = tmp_path / "a.pt", whole_file
    path.write_bytes(data[: kept if kept >= 1 or kept == 0 else int(len(data) * kept)])
    with pytest.raises(side.CheckpointError, match=r"a\.pt: not a readable"):
        load(side, path)


def test_truncated_safetensors(side, tmp_path, tiny_state):
    from safetensors.numpy import save_file

    save_file(tiny_state, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(side.CheckpointError, match="not a readable"):
        load(side, tmp_path / "a.safetensors")


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("style", ["zip", "bare"])
def test_pickle_that_runs_code_is_refused(side, tmp_path, style):
    path, target = tmp_path / "evil.pt", tmp_path / "was_run"
    if style == "zip":
        torch.save({"a": torch.zeros(1), "b": Evil(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Evil(target)))
    with pytest.raises(side.CheckpointError, match="refused" if style == "zip" else "refused|not a readable"):
        load(side, path)
    assert not target.exists()


def test_reading_outside_a_storage_is_refused(tmp_path):
    """A stride or size that reaches beyond the data must not read other memory."""

    class Rebuild:
        def __reduce__(self):
            return (torch._utils._rebuild_tensor_v2, (torch.zeros(4).untyped_storage(), 0, (1000,), (1,), False, {}))

    torch.save({"a": torch.zeros(4)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                assert data.count(b"K\x04\x85") >= 1
                data = data.replace(b"K\x04\x85", b"K\xff\x85")
            new.writestr(name, data)
    from rvc_mlx import CheckpointError

    with pytest.raises(CheckpointError, match="outside its storage"):
        reading("rvc_mlx").read_rmvpe(tmp_path / "b.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_number_does_not_fill_the_memory(side, tmp_path, zipped):
    """Python's pickle makes room for all places below the one that is named: 2 GB here."""
    torch.save({"a": torch.zeros(4)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    path, put = tmp_path / ("b.pt" if zipped else "a.pt"), (b"q\x00", b"r\xff\xff\xff\x07")
    if zipped:
        with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                new.writestr(name, data.replace(*put, 1) if name.endswith("data.pkl") else data)
    else:
        path.write_bytes(path.read_bytes().replace(*put))
    with pytest.raises(side.CheckpointError, match=r"truncated or damaged \(UnpicklingError: a pickle of"):
        load(side, path)


def test_a_state_dict_of_nothing_known(side, tmp_path):
    torch.save({"weight": {"a": torch.zeros(1)}, "version": "v2"}, tmp_path / "voice.pth")
    with pytest.raises(
        side.CheckpointError, match=r"voice\.pth: no supported kind of checkpoint \(with a\); expected RMVPE"
    ):
        load(side, tmp_path / "voice.pth")


def test_another_model_lists_first_keys_and_counts(side):
    with pytest.raises(side.CheckpointError) as caught:
        side.RMVPE.from_state_dict({f"enc_p.{i}.weight": np.zeros((2, 2), np.float32) for i in range(5)})
    text = str(caught.value)
    assert "643 missing (unet." in text or "missing (unet." in text
    assert "5 unexpected (enc_p.0.weight, enc_p.1.weight, enc_p.2.weight, ...)" in text


CHANGES = {
    "renamed": ("cnn.bias", "cnn.bios"),
    "missing": ("fc.0.gru.bias_hh_l0_reverse", None),
    "extra": (None, "fc.2.weight"),
    "misshapen": ("fc.1.weight", "fc.1.weight"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_wrong_key_is_named(side, tiny_state, change):
    old, new = CHANGES[change]
    state = dict(tiny_state)
    value = state.pop(old) if old else np.zeros((3, 3), np.float32)
    if new:
        state[new] = value[:-1] if change == "misshapen" else value
    with pytest.raises(side.CheckpointError) as caught:
        side.RMVPE.from_state_dict(state, device="cpu")
    for name in filter(None, (old, new)):
        assert name in str(caught.value)
    if change == "misshapen":
        assert "[359, 128] instead of [360, 128]" in str(caught.value)


def test_counters_are_ignored(side, tiny_state):
    state = {k: v for k, v in tiny_state.items() if not k.endswith("num_batches_tracked")}
    side.RMVPE.from_state_dict(state, device="cpu")


def test_width_is_read_from_the_checkpoint(side, tiny_state):
    assert side.RMVPE.from_state_dict(tiny_state, device="cpu").config.width == 4
