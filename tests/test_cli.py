"""``python -m rvc_mlx convert`` and its twin: what a user types, and every way that it goes wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import soundfile
from quick_runs import loaded_once, narrow_padding
from small_models import hubert_state, module, rmvpe_state, snr_db

from rvc_common import recording
from suites import __main__ as program
from suites.inputs.weights import find_weights

ROOT = Path(__file__).parents[1]
PAIR = ("reference_torch", "rvc_mlx")
BOTH = pytest.mark.parametrize("side", PAIR)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, voice: np.ndarray) -> dict[str, Path]:
    """Small checkpoints, and a recording in stereo at 44.1 kHz."""
    folder = tmp_path_factory.mktemp("cli")
    names = {"rmvpe": None, "hubert": None, "voice": "synth_v2_40k_f0"}
    found = {kind: find_weights(kind, None, 3, "tiny", name, folder).path for kind, name in names.items()}
    found["input"] = folder / "in put.wav"
    import soxr

    wide = soxr.resample(voice[:8000], 16000, 44100)
    soundfile.write(found["input"], np.stack([wide, wide], axis=1), 44100, subtype="FLOAT")
    return found


@pytest.fixture(autouse=True)
def _loaded_once():
    """What a user types is the point here; that files load is tested where they are read. Processes mirror as much as
    users' do."""
    with loaded_once(), narrow_padding():
        yield


def arguments(files: dict[str, Path], output: Path, **changes: object) -> list[str]:
    given: dict[str, object] = {"--voice": files["voice"], "--hubert": files["hubert"], "--rmvpe": files["rmvpe"]}
    given |= {f"--{key.replace('_', '-')}": value for key, value in changes.items() if key != "input"}
    words = ["convert", str(changes.get("input", files["input"])), str(output), "--device", "cpu", "-q"]
    return words + [str(word) for pair in given.items() if pair[1] is not None for word in pair]


def call(side: str, words: list[str]) -> int:
    try:
        return int(module(side, "__main__").main(words))
    except SystemExit as end:  # argparse's
        return int(end.code or 0)


def test_both_sides_convert_alike(files, tmp_path, capsys):
    for side in PAIR:
        assert call(side, arguments(files, tmp_path / f"{side}.wav", transpose=2, seed=3)) == 0
    assert "s at 40000 Hz from 0.50 s" in capsys.readouterr().out
    (want, rate), (got, _) = (soundfile.read(tmp_path / f"{side}.wav") for side in PAIR)
    assert rate == 40000
    assert snr_db(got, want) > 50
    assert soundfile.info(tmp_path / "rvc_mlx.wav").subtype == "PCM_24"


@BOTH
def test_every_knob(side, files, tmp_path):
    np.save(tmp_path / "bank.npy", np.random.default_rng(0).standard_normal((20, 128)).astype(np.float32))
    np.savetxt(tmp_path / "f0.txt", np.full(51, 200.0))
    knobs = {"index": tmp_path / "bank.npy", "index_rate": 0.5, "protect": 0.3, "rms_mix": 0.2, "speaker": 1}
    knobs |= {"transpose": -1, "propose_hz": 200, "f0": tmp_path / "f0.txt", "profile": "webui", "rmvpe": None}
    assert call(side, arguments(files, tmp_path / "out.flac", **knobs)) == 0
    assert soundfile.info(tmp_path / "out.flac").subtype == "PCM_16"


@BOTH
def test_an_index_can_be_searched_whole(side, files, tmp_path):
    vectors = np.random.default_rng(0).standard_normal((200, 128)).astype(np.float32)
    index = faiss.index_factory(128, "IVF20,Flat")
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "voice.index"))
    np.save(tmp_path / "voice.npy", vectors)
    np.savetxt(tmp_path / "f0.txt", np.full(51, 200.0))
    knobs = {"f0": tmp_path / "f0.txt", "index_rate": 1.0}
    for name, source, more in (
        ("lists", "voice.index", []),
        ("all", "voice.index", ["--exhaustive"]),
        ("npy", "voice.npy", []),
    ):
        words = arguments(files, tmp_path / f"{name}.wav", index=tmp_path / source, **knobs)
        assert call(side, words + more) == 0
    lists, everything, array = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("lists", "all", "npy"))
    assert snr_db(everything, array) > 60
    assert snr_db(lists, array) < 40


@BOTH
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "nothing.wav"}, "nothing.wav: no such file"),
        ({"input": __file__}, "cannot be read"),
        ({"voice": "nothing.pth"}, "nothing.pth: no such file"),
        ({"hubert": __file__}, "test_cli.py"),
        ({"rmvpe": None}, "give --rmvpe FILE"),
        ({"index": "nothing.index"}, "nothing.index: no such file"),
        ({"protect": 3}, "--protect: '3': expected 0 to 0.5"),
        ({"f0": __file__}, "--f0"),
        ({"speaker": 77}, "speakers 0 to 3"),
        ({"speaker": 2**80}, "speakers 0 to 3"),
        ({"propose_hz": 0}, "1 to 8000 Hz"),
        ({"transpose": 10**6}, "-48 to 48"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(side, changes, message, files, tmp_path, capsys):
    assert call(side, arguments(files, tmp_path / "out.wav", **changes)) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert told.startswith("error: ")
    assert "\n" not in told
    assert list(tmp_path.iterdir()) == []


@BOTH
@pytest.mark.parametrize(("name", "message"), [("out.mp3", "write .wav or .flac"), ("no/out.wav", "no does not exist")])
def test_an_output_that_cannot_be_is_refused_at_once(side, name, message, files, tmp_path, capsys):
    assert call(side, arguments(files, tmp_path / name)) == 2
    assert message in capsys.readouterr().err


@BOTH
@pytest.mark.parametrize("kind", ["nan", "short", "empty", "silent"])
def test_odd_recordings(side, kind, files, tmp_path, capsys):
    samples = {
        "nan": np.full(9000, np.nan),
        "short": np.ones(160) * 0.1,
        "empty": np.zeros(0),
        "silent": np.zeros(9000),
    }
    soundfile.write(tmp_path / "in.wav", samples[kind].astype(np.float32), 16000, subtype="FLOAT")
    code = call(side, arguments(files, tmp_path / "out.wav", input=tmp_path / "in.wav"))
    assert code == (0 if kind == "silent" else 2)
    messages = {"nan": "NaN", "short": "10 ms is too short", "empty": "is empty", "silent": ""}
    assert messages[kind] in capsys.readouterr().err
    assert (tmp_path / "out.wav").exists() == (kind == "silent")


@BOTH
def test_the_wrong_kind_of_checkpoint_is_named(side, files, tmp_path, capsys):
    assert call(side, arguments(files, tmp_path / "out.wav", voice=files["rmvpe"])) == 2
    assert "RMVPE" in capsys.readouterr().err


# says when it begins to convert
TOLD = """
import sys
from {side}.__main__ import main
from {side}.pipeline import Pipeline
convert = Pipeline.convert
Pipeline.convert = lambda *given, **options: print("converting", flush=True) or convert(*given, **options)
sys.exit(main({words!r}))
"""


def test_ctrl_c(files, tmp_path):
    """A real process, interrupted while it converts a long file; the twin is the same command (rvc_common.command)."""
    side = "rvc_mlx"
    soundfile.write(tmp_path / "long.wav", np.tile(soundfile.read(files["input"])[0], (200, 1)), 44100)
    words = arguments(files, tmp_path / "out.wav", input=tmp_path / "long.wav")
    process = subprocess.Popen(
        [sys.executable, "-c", TOLD.format(side=side, words=words)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout
    assert process.stdout.readline() == "converting\n"
    for _ in range(6):  # an import that is under way may swallow one
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            break
    _, told = process.communicate(timeout=10)
    assert process.returncode == 130, told
    assert told.strip().endswith("interrupted; nothing was written")
    assert not (tmp_path / "out.wav").exists()


def test_ctrl_c_within_an_import(files, tmp_path, monkeypatch, capsys):
    """A package makes an ImportError of it, and the recordings that follow are not converted."""

    def interrupted(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise RuntimeError("initialization failed") from error

    monkeypatch.setattr("rvc_mlx.pipeline.Pipeline.convert", interrupted)
    (tmp_path / "out").mkdir()
    soundfile.write(tmp_path / "other.wav", np.zeros(8000), 16000)
    words = arguments(files, tmp_path / "out")
    words.insert(2, str(tmp_path / "other.wav"))
    assert call("rvc_mlx", words) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


WITHOUT = {"rvc_mlx": ("torch", "transformers", "reference_torch"), "reference_torch": ("mlx", "rvc_mlx")}


@BOTH
def test_converts_without_the_other_side(side, files, tmp_path):
    """In a fresh interpreter in which the other framework, the suites and the reports do not exist."""
    blocked = {*WITHOUT[side], "suites", "reports", "hydra", "pandas", "matplotlib", "faiss"}
    words = arguments(files, tmp_path / "out.wav")
    script = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from {side}.__main__ import main
sys.exit(main({words!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "out.wav").samplerate == 40000


def test_the_small_checkpoints_are_what_the_models_load():
    """The states that other tests build from, and the files here, are one and the same recipe."""
    assert set(hubert_state()) >= {"final_proj.weight"}
    assert "unet.encoder.bn.weight" in rmvpe_state()


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there(device, files, tmp_path, capsys):
    import torch

    if {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[device]:
        pytest.skip("this machine has it")
    words = arguments(files, tmp_path / "out.wav")
    words[words.index("--device") + 1] = device
    assert call("reference_torch", words) == 2
    assert capsys.readouterr().err.strip() == f"error: this machine has no {device.upper()} device that PyTorch can use"


@BOTH
def test_an_empty_f0_file(side, files, tmp_path, capsys):
    (tmp_path / "f0.npy").touch()
    assert call(side, arguments(files, tmp_path / "out.wav", f0=tmp_path / "f0.npy")) == 2
    assert "f0.npy" in capsys.readouterr().err


@BOTH
def test_a_disk_without_room_is_told_before_the_work(side, files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recording.shutil, "disk_usage", lambda _: SimpleNamespace(free=50 << 10))
    monkeypatch.setattr(module(side, "pipeline").Pipeline, "convert", lambda *_, **__: pytest.fail("it began"))
    assert call(side, arguments(files, tmp_path / "out.wav")) == 2
    assert "58 KiB are needed, 50 KiB are free" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("missing", "shown"), [("_cffi_backend", "install it again"), ("suites.gone", "fault of the")])
def test_a_package_that_is_missing_is_no_fault_of_the_program(missing, shown, monkeypatch, capsys):
    """soundfile without its own dependency, for one; a module of the project's own that is missing is one."""

    def command(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(program, "command", command)
    assert program.main(["list"]) == 2
    assert shown in capsys.readouterr().err
