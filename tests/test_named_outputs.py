"""Outputs that cannot be written are refused before the work; what is written is there whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rvc_common import outputs
from rvc_common.outputs import OutputError, check_folder, check_output, named_path, whole


def refused(path: Path, *given, **more) -> str:
    with pytest.raises(OutputError) as caught:
        check_output(path, *given, **more)
    assert str(caught.value).startswith(f"output {path}: ")
    assert str(caught.value).isprintable()
    return str(caught.value.strerror)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "file").write_text("content")
    (tmp_path / "in.wav").write_text("sound")
    (tmp_path / "link.wav").symlink_to("in.wav")
    os.link(tmp_path / "in.wav", tmp_path / "hard.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("out.mp3", "write .wav or .flac"),
        ("out", "write .wav or .flac"),
        ("no/out.wav", "no does not exist"),
        ("file/out.wav", "file is not a folder"),
        ("file/no/out.wav", "no does not exist"),
        ("pipe.wav", "is a pipe or device, not a file"),
        ("in.wav", "is the same file as "),
        ("link.wav", "is the same file as "),
        ("hard.wav", "is the same file as "),
        ("../{}/in.wav", "is the same file as "),
        (f"{'n' * 252}.wav", "File name too long"),
        ("loop/out.wav", "symbolic links"),
    ],
)
def test_refused(name, reason, folder):
    before = sorted(folder.iterdir())
    assert reason in refused(folder / name.format(folder.name), (".wav", ".flac"), (folder / "in.wav",))
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full"])
def test_a_device_is_refused_and_stays_one(path):
    assert "device" in refused(Path(path))
    assert Path(path).is_char_device()


def test_a_folder_is_refused(folder):
    (folder / "out.wav").mkdir()
    assert refused(folder / "out.wav") == "is a folder, not a file"


def test_files_of_a_folder_that_is_read_are_not_overwritten(folder):
    assert "is the same file as" in refused(folder / "file", inputs=(folder,))


def test_what_may_be_written(folder):
    for name in ("out.WAV", f"{'n' * 251}.wav", "ü.wav"):
        check_output(folder / name, (".wav",), (folder / "in.wav",))
    check_output(folder / "new" / "deep" / "out.wav", makes_folder=True)
    check_output(folder / "file")
    check_folder(folder)
    check_folder(folder / "new" / "deep")
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("file", "is a file, not a folder"), ("file/a", "file is not a folder"), ("n" * 256, "too long")],
)
def test_folders_that_cannot_be(name, reason, folder):
    with pytest.raises(OutputError, match=reason):
        check_folder(folder / name)


@pytest.mark.parametrize("number", ["EROFS", "EACCES", "ENOSPC"])
def test_the_folder_is_tried(number, folder, monkeypatch):
    import errno

    def fails(*_, **__):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr(Path, "open", fails)
    reason = f"the folder {folder} cannot be written ({os.strerror(getattr(errno, number))})"
    assert refused(folder / "out.wav") == reason


def test_a_file_that_is_protected(folder, monkeypatch):
    monkeypatch.setattr(outputs.os, "access", lambda *_: False)
    assert "may not be overwritten (Permission denied)" in refused(folder / "file")
    check_output(folder / "new")


def test_home_and_empty_names(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert named_path("~/x") == Path("/somewhere/x")
    assert named_path("~no such user/x") == Path("~no such user/x")
    with pytest.raises(Exception, match="the name is empty"):
        named_path("")


# ---------------------------------------------------------------------- writing
def test_long_names_and_links_are_written(folder):
    long = folder / f"{'n' * 251}.wav"
    for path in (long, folder / "link.wav"):
        with whole(path) as part:
            part.write_text("new")
        assert path.read_text() == "new"
    assert (folder / "link.wav").is_symlink()
    assert (folder / "in.wav").read_text() == "new"


def test_a_file_of_a_similar_name_is_left_alone(folder):
    (folder / "file.part").write_text("mine")
    with whole(folder / "file") as part:
        part.write_text("new")
    assert (folder / "file.part").read_text() == "mine"


def test_what_a_library_raises_becomes_one_line(folder):
    def write(error: Exception) -> None:
        with whole(folder / "file", RuntimeError) as part:
            part.write_text("half")
            raise error

    with pytest.raises(OutputError, match=r"^output .*file: inline_container$"):
        write(RuntimeError("inline_container\nmore"))
    with pytest.raises(OutputError, match="No space left on device"):
        write(OSError(28, "No space left on device"))
    with pytest.raises(KeyError):
        write(KeyError())
    assert (folder / "file").read_text() == "content"
    assert not list(folder.glob("*.part"))


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from rvc_common.recording import write_recording
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    write_recording(Path(sys.argv[1]), np.zeros(40000, np.float32), 40000)
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_a_recording_that_cannot_be_written_whole(ending, tmp_path):
    """A process that may write no files of more than 20 kB, in place of a full disk."""
    path = tmp_path / f"out.{ending}"
    path.write_text("earlier")
    code = FULL if ending == "wav" else FULL.replace("np.zeros(40000", "np.random.default_rng(0).uniform(-1, 1, 40000")
    code = code.replace(", np.float32)", ").astype(np.float32)") if ending == "flac" else code
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.stdout.startswith(f"output {path}: ")
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "earlier"
