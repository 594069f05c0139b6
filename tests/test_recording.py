"""Recordings whose header and content disagree: what is there is read, what is not does not appear, and it is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rvc_common import recording
from rvc_common.recording import read_recording

RATE, SECONDS = 22050, 6
FORMATS = {"wav": {}, "flac": {}, "ogg": {}, "mp3": {}, "opus": {"format": "OGG", "subtype": "OPUS"}, "aiff": {}}
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")


def sound(seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    """A rising tone in noise: no two stretches of it are alike."""
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(t.size)
    return (0.3 * np.sin(2 * np.pi * (300 + 200 * t) * t) + 0.03 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("made")
    for name, options in FORMATS.items():
        rate = {"opus": 48000, "ogg": 16000}.get(name, RATE)
        soundfile.write(folder / f"a.{name}", sound(rate=rate), rate, **options)
    return {name: (folder / f"a.{name}").read_bytes() for name in FORMATS}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sound"


@pytest.fixture
def no_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def read(path: Path, content: bytes) -> tuple[np.ndarray, list[str]]:
    """The samples, and the warnings."""
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return read_recording(path), [str(warning.message) for warning in caught]


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_is_read_without_a_word(name, made, path, no_ffmpeg):
    samples, told = read(path, made[name])
    assert samples.size == SECONDS * 16000
    assert told == []


@pytest.mark.parametrize("name", FORMATS)
def test_joined_files_are_read_one_after_another(name, made, path, no_ffmpeg):
    one, _ = read(path, made[name])
    two, told = read(path, made[name] * 2)
    np.testing.assert_array_equal(two, np.concatenate([one, one]))
    assert told == []


@pytest.mark.parametrize("name", ["wav", "mp3", "aiff"])
def test_a_download_that_broke_off(name, made, path, no_ffmpeg):
    whole, _ = read(path, made[name])
    part, told = read(path, made[name][: len(made[name]) * 6 // 10])
    assert 0.55 < part.size / whole.size < 0.61
    np.testing.assert_allclose(part[:-1000], whole[: part.size - 1000], atol=1e-6)
    assert told == [f"audio {path}: its header says 6.00 s, {part.size / 16000:.2f} s are there and were read"]


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_damage_in_ogg_repeats_nothing(name, made, path, no_ffmpeg):
    whole, _ = read(path, made[name])
    content = bytearray(made[name])
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(50)
    damaged, told = read(path, bytes(content))
    assert 0.3 < damaged.size / whole.size < 1
    end = damaged[-8000:-2000]
    assert (
        min(np.abs(end - whole[at : at + end.size]).max() for at in range(whole.size - 12000, whole.size - 6000)) < 1e-4
    )
    assert "its header says 6.00 s" in told[0]


def test_mp3_without_a_count_of_frames_is_read_to_its_end(path, no_ffmpeg):
    audio = sound(30)
    audio[RATE * 5 :] *= 1e-3  # the first frames are far larger than the others
    soundfile.write(path, audio, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.0)
    content = path.read_bytes()
    content = content[content.index(content[:2], 4) :]
    path.write_bytes(content)
    assert soundfile.info(path).duration < 25
    samples, told = read(path, content)
    assert samples.size / 16000 == pytest.approx(30, abs=0.1)
    assert told == []
    behind_a_tag, _ = read(path, b"ID3\x03\x00\x00\x00\x00\x02\x00" + bytes(256) + content)
    np.testing.assert_array_equal(behind_a_tag, samples)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_streamed_wav_knows_no_length(size, made, path, no_ffmpeg):
    at = made["wav"].index(b"data") + 4
    samples, told = read(path, made["wav"][:at] + size.to_bytes(4, "little") + made["wav"][at + 4 :])
    assert samples.size == SECONDS * 16000
    assert told == []


def test_a_header_that_says_less_than_the_file_holds(made, path, no_ffmpeg):
    at = made["wav"].index(b"data") + 4
    samples, told = read(path, made["wav"][:at] + (RATE * 4).to_bytes(4, "little") + made["wav"][at + 4 :])
    assert samples.size == 32000
    assert told == [
        f"audio {path}: 2.00 s were read, as its header says; 176400 bytes follow (6.00 s in all if they are audio)"
    ]


def test_a_header_that_says_nothing_follows(made, path, no_ffmpeg):
    at = made["wav"].index(b"data") + 4
    with pytest.raises(ValueError, match=r"is empty by its header, and 264600 bytes follow; ffmpeg might read them"):
        read(path, made["wav"][:at] + bytes(4) + made["wav"][at + 4 :])


@pytest.mark.parametrize("trailer", [b"TAG" + bytes(125), b"APETAGEX" + bytes(20000)])
def test_tags_behind_the_audio_are_no_audio(trailer, made, path, no_ffmpeg):
    samples, told = read(path, made["mp3"] + trailer)
    assert samples.size == SECONDS * 16000
    assert told == []


def test_damaged_flac_without_ffmpeg_is_an_error_with_its_duration(made, path, no_ffmpeg):
    content = bytearray(made["flac"])
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    with pytest.raises(ValueError, match=r"cannot be read: 6.00 s by its header \(.*flac decoder.*\); ffmpeg"):
        read(path, bytes(content))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "DOUBLE", "ALAW", "ULAW", "IMA_ADPCM"])
@pytest.mark.parametrize("form", ["WAV", "RF64", "AIFF", "W64", "CAF"])
def test_kinds_of_samples(form, subtype, path, no_ffmpeg):
    if not soundfile.check_format(form, subtype):
        pytest.skip("libsndfile cannot write it")
    channels = 1 if subtype == "IMA_ADPCM" else 8
    soundfile.write(path, np.stack([sound()] * channels, axis=1), RATE, format=form, subtype=subtype)
    samples, told = read(path, path.read_bytes())
    assert samples.size == pytest.approx(SECONDS * 16000, abs=800)
    assert told == []


@pytest.mark.parametrize("rate", [1000, 4000, 768000])
def test_odd_rates(rate, path, no_ffmpeg):
    soundfile.write(path, sound(1, rate), rate, format="WAV")
    assert read_recording(path).size == pytest.approx(16000, abs=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"just text\n" * 500, "cannot be read.*; ffmpeg might, but is not installed"),
        (b"RIFF\x00\x00\x00\x00WAVE", "cannot be read"),
        (b"\xff" * 5000, "cannot be read"),
        (bytes(5000), "cannot be read"),
        (b"fLaC\x00\x00\x00\x22" + bytes(34), "cannot be read|is empty"),
        (b"OggS\x00\x02" + bytes(5000), "cannot be read"),
        (b"ID3\x03\x00\x00\x00\x00\x00\x10", "cannot be read"),
    ],
)
@pytest.mark.parametrize("ending", ["wav", "raw", "mp3", "vox", "au"])
def test_files_that_are_no_recordings(content, message, ending, tmp_path, no_ffmpeg):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_recording(path)
    assert str(caught.value).startswith(f"audio {path}: ")
    assert "\n" not in str(caught.value)


def test_things_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, message in {
        tmp_path: "is not a file, but a folder",
        tmp_path / "fifo": "is not a file, but a pipe or device",
        "/dev/null": "is not a file, but a pipe or device",
        tmp_path / "loop": "Too many levels of symbolic links|Symlink loop",
        tmp_path / "gone.wav": "no such file",
        tmp_path / ("a" * 300): "File name too long",
        "~nobody-of-that-name/a.wav": "home directory",
        "a\0b": "null",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_recording(name)


def test_errors_of_the_file_system(made, path, monkeypatch, no_ffmpeg):
    path.write_bytes(made["wav"])

    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fail)
        with pytest.raises(ValueError, match=r"a.sound: Permission denied"):
            read_recording(path)

    class Failing:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def readinto(self, buffer):
            if self.file.tell() > 50000:
                raise OSError(5, "Input/output error")
            return self.file.readinto(buffer)

    opened = recording.opened
    monkeypatch.setattr(recording, "opened", lambda *given: Failing(opened(*given)))
    with pytest.raises(ValueError, match=r"a.sound: cannot be read \(Input/output error\)"):
        read_recording(path)


def test_names_of_any_characters(made, tmp_path, no_ffmpeg):
    for name in (b"-i \xff\n'\".wav", "ü — 音.mp3".encode(), b"%d.raw", b"http:x.wav"):
        path = Path(os.fsdecode(bytes(tmp_path) + b"/" + name))
        path.write_bytes(made["wav"])
        assert read_recording(path).size == SECONDS * 16000
        path.write_bytes(b"")
        with pytest.raises(ValueError, match="is empty") as caught:
            read_recording(path)
        assert str(caught.value).isprintable()


# ---------------------------------------------------------------------- ffmpeg
def fake_ffmpeg(tmp_path: Path, body: str) -> None:
    """A program of that name which sees its arguments and a file object of its input."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\nimport os, struct, sys\nout = sys.stdout.buffer\n"
        "source = sys.argv[sys.argv.index('-i') + 1].removeprefix('file:')\n"
        "head = struct.pack('>4s5I', b'.snd', 32, 0xFFFFFFFF, 6, 8000, 2) + bytes(8)\n" + body
    )
    program.chmod(0o755)


def test_what_libsndfile_cannot_read_goes_through_ffmpeg(tmp_path, path, no_ffmpeg):
    fake_ffmpeg(
        tmp_path,
        "assert open(source, 'rb').read() == b'some m4a'\n"
        "out.write(head + struct.pack('>2f', 0.25, 0.75) * 8000 + b'\\x00' * 3)\n"
        "sys.stderr.write('  Duration: 00:00:01.02, start: 0\\n')\n",
    )
    samples, told = read(path, b"some m4a")
    assert samples.size == 16000
    assert samples[4000:12000] == pytest.approx(0.5, abs=1e-3)
    assert told == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('moov atom\\tnot found')", r"nor by ffmpeg \(moov atom\\tnot found\)"),
        ("out.write(head + bytes(64000)); sys.exit(69)", r"nor by ffmpeg \(exit code 69\)"),
        ("out.write(head + bytes(64000)); out.flush(); os.kill(os.getpid(), 9)", r"nor by ffmpeg \(exit code -9\)"),
        ("", "nor by ffmpeg"),
        ("sys.exit('Stream map matches no streams.')", r"nor by ffmpeg \(it holds no audio\)"),
        ("out.write(head + struct.pack('>2f', float('nan'), 0) * 9000)", "NaN or infinite"),
        (
            "sys.stderr.write('misdetection possible!'); out.write(head + bytes(64000))",
            "not the format of any recording",
        ),
    ],
)
def test_ffmpeg_fails(body, message, tmp_path, path, no_ffmpeg):
    fake_ffmpeg(tmp_path, body)
    with pytest.raises(ValueError, match=message):
        read(path, b"some m4a")


def test_an_ffmpeg_that_is_no_program(tmp_path, path, no_ffmpeg):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").write_text("no program")
    (tmp_path / "bin" / "ffmpeg").chmod(0o755)
    with pytest.raises(ValueError, match="Exec format error"):
        read(path, b"some m4a")


def test_ffmpeg_is_asked_where_a_header_says_too_little(tmp_path, made, path, no_ffmpeg):
    fake_ffmpeg(tmp_path, "out.write(head + bytes(8 * 48000))")
    at = made["wav"].index(b"data") + 4
    samples, told = read(path, made["wav"][:at] + bytes(4) + made["wav"][at + 4 :])
    assert samples.size == SECONDS * 16000
    assert told == [f"audio {path}: its header says 0.00 s, 6.00 s are there and were read"]


@needs_ffmpeg
@pytest.mark.parametrize(("ending", "codec"), [("m4a", "aac"), ("aac", "aac"), ("webm", "libopus"), ("mka", "flac")])
def test_with_the_real_ffmpeg(ending, codec, made, path):
    path.write_bytes(made["wav"])
    output = path.with_name(f"-ü.{ending}")
    words = ["ffmpeg", "-v", "error", "-i", str(path), "-c:a", codec, f"file:{output}"]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip(f"this ffmpeg has no {codec}")
    samples, told = read(output, output.read_bytes())
    assert samples.size / 16000 == pytest.approx(SECONDS, abs=0.1)
    assert told == []


@needs_ffmpeg
@pytest.mark.parametrize("form", ["<f4", "<f8", "<i2", ">i2", "<i4", "u1"])
def test_samples_without_a_header_are_no_format_that_ffmpeg_knows(form, tmp_path):
    """It took float samples for AMR frames, and made minutes of noise of them."""
    whole = sound(rate=16000) if form[1] == "f" else sound(rate=16000) * 100 + 100
    for ending in ("raw", "pcm", "wav"):
        path = tmp_path / f"a.{ending}"
        path.write_bytes(whole.astype(form).tobytes())
        with pytest.raises(ValueError, match=r"nor by ffmpeg \((not the format of any recording|Invalid data)"):
            read_recording(path)


def test_an_ogg_that_is_zeros_but_for_its_head(made, path, no_ffmpeg):
    content = made["ogg"]
    with pytest.raises(ValueError, match="holds nothing that can be decoded"):
        read(path, content[:4000] + bytes(len(content) - 4000))


@needs_ffmpeg
def test_damaged_flac_with_the_real_ffmpeg(made, path):
    content = bytearray(made["flac"])
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    samples, told = read(path, bytes(content))
    assert 4 < samples.size / 16000 < 6
    assert len(told) == 1
    assert told[0].startswith(f"audio {path}: is damaged (")
    assert told[0].endswith(f"); {samples.size / 16000:.2f} s of 6.00 s were read")
