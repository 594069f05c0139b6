"""``convert`` with several recordings or a folder; and numbers and names that are refused before anything is read."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import soundfile
from small_models import module
from test_cli import BOTH, _loaded_once, arguments, call, files  # noqa: F401  (fixtures)

from rvc_common import command


@pytest.fixture
def songs(tmp_path, files):  # noqa: F811
    """Two recordings, one that is none, and what is no recording by its ending."""
    folder = tmp_path / "songs"
    folder.mkdir()
    sound = soundfile.read(files["input"])[0][:30000]
    soundfile.write(folder / "a.wav", sound, 44100)
    soundfile.write(folder / "b.flac", sound, 44100)
    (folder / "broken.mp3").write_text("no sound")
    (folder / "cover.jpg").write_text("a picture")
    (folder / ".hidden.wav").write_text("")
    return folder


def words_of(files, inputs, output, **changes):  # noqa: F811
    first, *rest = inputs
    words = arguments(files, output, input=first, **changes)
    return [*words[:2], *map(str, rest), *words[2:]]


@pytest.fixture
def unable(monkeypatch):
    """No model may be loaded, and no recording read."""
    for name in ("load", "read_recording"):
        monkeypatch.setattr(command, name, lambda *_, name=name: pytest.fail(name))


@BOTH
def test_a_folder(side, files, songs, tmp_path, capsys, monkeypatch):  # noqa: F811
    loads, load = [], command.load
    monkeypatch.setattr(command, "load", lambda *given: loads.append(1) or load(*given))
    out = tmp_path / "out"
    assert call(side, words_of(files, [songs], out)) == 2
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        f"warning: {songs}: 1 files are left out, which by their endings are no recordings",
        *[line for line in told.err.splitlines() if line.startswith("error: ")],
    ]
    assert f"error: audio {songs / 'broken.mp3'}: " in told.err
    assert [line.partition(": ")[0] for line in told.out.splitlines()] == [str(out / "a.wav"), str(out / "b.wav")]
    assert sorted(path.name for path in out.iterdir()) == ["a.wav", "b.wav"]
    assert len(loads) == 1
    assert call(side, arguments(files, tmp_path / "one.wav", input=songs / "b.flac")) == 0
    assert (tmp_path / "one.wav").read_bytes() == (out / "b.wav").read_bytes()


def test_several_files_in_any_place(files, songs, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out"
    out.mkdir()
    words = words_of(files, [songs / "a.wav", songs / "b.flac"], out)
    at = words.index(str(out))
    assert call("rvc_mlx", [*words[:at], *words[at + 1 :], str(out)]) == 0
    assert call("rvc_mlx", arguments(files, out, input=songs / "a.wav")) == 0, "one recording into a folder"
    assert sorted(path.name for path in out.iterdir()) == ["a.wav", "b.wav"]


def test_a_missing_recording_costs_only_itself(files, songs, tmp_path, capsys):  # noqa: F811
    inputs = [tmp_path / "nothing.wav", songs / "a.wav"]
    assert call("rvc_mlx", words_of(files, inputs, tmp_path / "out")) == 2
    assert capsys.readouterr().err.strip() == f"error: audio {tmp_path / 'nothing.wav'}: no such file"
    assert (tmp_path / "out" / "a.wav").exists()


@pytest.mark.usefixtures("unable")
@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["songs/a.wav", "more/a.mp3"], "out", "would both become"),
        (["songs/a.wav", "songs/../songs/a.wav"], "out", "would both become"),
        (["songs/a.wav", "more/A.wav"], "out", "would both become"),
        (["songs"], "songs", "a.wav: is the same file as"),
        (["songs/a.wav", "songs/b.flac"], "c.wav", "several recordings need a folder"),
        (["songs/a.wav", "songs/b.flac"], "note.txt", "is a file, not a folder"),
        (["songs"], "blocked", "a.wav: is a folder, not a file"),
        (["empty"], "out", "holds no recordings"),
        (["songs/a.wav"], "songs/a.wav", "is the same file as"),
        (["songs/a.wav"], "", "the name is empty"),
        (["songs/a.wav"], "voice.wav", "is the same file as"),
        (["songs/a.wav"], f"{'n' * 252}.wav", "wav: File name too long"),
        (["songs"], f"{'n' * 256}", "nnn: File name too long"),
    ],
)
def test_names_are_refused_before_the_work(inputs, output, message, files, songs, tmp_path, capsys):  # noqa: F811
    for name in ("more", "empty", "blocked/a.wav"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("more/a.mp3", "more/A.wav", "note.txt"):
        (tmp_path / name).write_text("content")
    shutil.copy(files["voice"], tmp_path / "voice.wav")
    before = sorted(tmp_path.rglob("*"))
    words = words_of(files, [tmp_path / name for name in inputs], "OUT", voice=tmp_path / "voice.wav")
    words[words.index("OUT")] = output and str(tmp_path / output)
    assert call("rvc_mlx", words) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ")
    assert message in told
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("unable")
def test_f0_is_of_one_recording(files, songs, tmp_path, capsys):  # noqa: F811
    np.savetxt(tmp_path / "f0.txt", np.full(70, 200.0))
    assert call("rvc_mlx", words_of(files, [songs], tmp_path / "out", f0=tmp_path / "f0.txt")) == 2
    assert "--f0 is the pitch of one recording, and 3 are to be converted" in capsys.readouterr().err


@pytest.mark.usefixtures("unable")
@pytest.mark.parametrize("value", ["nan", "inf", "1e9", "x"])
@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("transpose", "-48 to 48 semitones"),
        ("index-rate", "0 to 1"),
        ("protect", "0 to 0.5"),
        ("rms-mix", "0 to 1"),
        ("autotune", "0 to 1"),
        ("propose-hz", "1 to 8000 Hz"),
        ("seed", "a whole number from 0 on"),
        ("speaker", "a whole number from 0 on"),
    ],
)
def test_numbers_are_refused_with_their_range(option, allowed, value, files, tmp_path, capsys):  # noqa: F811
    words = [*arguments(files, tmp_path / "out.wav"), f"--{option}={value}"]
    assert call("rvc_mlx", words) == 2
    told = capsys.readouterr().err
    assert told == f"error: argument --{option}: {value!r}: expected {allowed}; see python -m rvc_mlx convert --help\n"


@pytest.mark.usefixtures("unable")
def test_a_model_that_is_not_there_is_told_first(files, tmp_path, capsys):  # noqa: F811
    assert call("rvc_mlx", arguments(files, tmp_path / "out.wav", rmvpe=tmp_path / "none.pt")) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.pt'}: no such file\n"


def test_home_is_known(files, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "voice.safetensors").symlink_to(files["voice"])
    assert call("rvc_mlx", arguments(files, "~/out.wav", voice="~/voice.safetensors")) == 0
    assert (tmp_path / "out.wav").exists()


@BOTH
def test_help_shows_examples_and_defaults(side, capsys):
    assert call(side, ["convert", "--help"]) == 0
    told = capsys.readouterr().out
    assert told.count(f"\n  python -m {side} convert ") == 2
    for text in ("(default: 0.75)", "(default: 0)", "(required)", "OUT", "-48..48"):
        assert text in told


def test_silence_is_a_warning_that_names_the_file(files, songs, tmp_path, monkeypatch, capsys):  # noqa: F811
    voice = module("rvc_mlx", "synthesizer").Synthesizer
    infer = voice.infer
    monkeypatch.setattr(voice, "infer", lambda *given, **named: 0 * infer(*given, **named))
    assert call("rvc_mlx", words_of(files, [songs / "a.wav", songs / "b.flac"], tmp_path / "out")) == 0
    silent = "the converted audio is silent, and the recording is not"
    names = [tmp_path / "out" / name for name in ("a.wav", "b.wav")]
    assert capsys.readouterr().err.splitlines() == [f"warning: {name}: {silent}" for name in names]
