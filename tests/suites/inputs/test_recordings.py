"""Audio: the synthetic voice's laws, and files of every sort, good and bad."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.base.errors import UserError
from suites.inputs.recordings import SPEECH_CLIP, make_audio, read_audio
from suites.inputs.voice import synthesize


@settings(max_examples=15, deadline=None)
@given(seconds=st.floats(0.2, 6), seed=st.integers(0, 1000), snr=st.floats(0, 60))
def test_voice_laws(seconds, seed, snr):
    voice = synthesize(seconds, seed, snr)
    n = round(seconds * 16000)
    assert voice.audio.shape == (n,)
    assert voice.f0_hz.shape == (1 + n // 160,)
    assert voice.audio.dtype == np.float32
    assert np.abs(voice.audio).max() <= 0.9 + 1e-6
    voiced = voice.f0_hz[voice.f0_hz > 0]
    assert ((voiced > 50) & (voiced < 1200)).all()
    np.testing.assert_array_equal(voice.audio, synthesize(seconds, seed, snr).audio)


def test_seeds_differ():
    assert not np.array_equal(synthesize(1, 0).audio, synthesize(1, 1).audio)


def test_the_truth_is_true():
    """Autocorrelation of steady voiced parts finds the labelled period, to its own one sample."""
    voice = synthesize(60, seed=5, snr_db=60)
    within = []
    for i in range(20, voice.f0_hz.size - 20):
        near = voice.f0_hz[i - 4 : i + 5]
        if near.min() > 0 and near.max() / near.min() < 1.01:
            frame = voice.audio[i * 160 - 400 : i * 160 + 400].astype(np.float64)
            lag = 16000 / voice.f0_hz[i]
            around = np.arange(int(lag * 0.94), int(lag * 1.06) + 2)
            scores = [np.dot(frame[:-k], frame[k:]) / (800 - k) for k in around]
            within.append(abs(around[int(np.argmax(scores))] - lag) <= 1)
    assert len(within) > 200
    assert np.mean(within) > 0.9


def test_voice_has_silence_and_speech():
    voiced = (synthesize(60).f0_hz > 0).mean()
    assert 0.5 < voiced < 0.9


def test_speech_clip_ships():
    audio = make_audio("speech", None, None, 0, 30)
    assert 5 < audio.samples.size / 16000 < 15
    assert SPEECH_CLIP.stat().st_size < 300_000


def tone(rate: int, channels: int = 1, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(int(rate * seconds)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 440 * t)] * channels, axis=1)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 1), (44100, 2), (48000, 2)])
def test_formats(tmp_path, suffix, rate, channels):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(rate, channels), rate)
    check_tone(read_audio(path), slack=2500 if suffix == "mp3" else 2)


@pytest.mark.parametrize(("rate", "channels"), [(96000, 2), (192000, 2), (48000, 6)])
def test_high_rates_and_many_channels(tmp_path, rate, channels):
    soundfile.write(tmp_path / "a.wav", tone(rate, channels), rate)
    check_tone(read_audio(tmp_path / "a.wav"), slack=2)


def check_tone(audio: np.ndarray, slack: int) -> None:
    assert audio.dtype == np.float32
    assert abs(audio.size - 16000) <= slack
    middle = audio[4000:12000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(middle.size)))
    assert abs(np.argmax(spectrum) * 2 - 440) <= 2
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.05)


def bad_file(path, kind):
    if kind == "missing":
        return
    if kind == "rubbish":
        path.write_bytes(b"this is no sound" * 100)
    elif kind == "nothing":
        path.write_bytes(b"")
    else:
        samples = {"empty": 0, "10ms": 160, "nan": 16000, "inf": 16000}[kind]
        data = np.full(samples, {"nan": np.nan, "inf": np.inf}.get(kind, 0.1), np.float32)
        soundfile.write(path, data, 16000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("rubbish", "cannot be read"),
        ("nothing", "is empty"),
        ("empty", "is empty"),
        ("10ms", "10 ms is too short; RMVPE needs 160 ms"),
        ("nan", "NaN or infinite"),
        ("inf", "NaN or infinite"),
    ],
)
def test_bad_files(tmp_path, kind, message):
    bad_file(tmp_path / "a.wav", kind)
    with pytest.raises(UserError, match=message) as caught:
        read_audio(tmp_path / "a.wav")
    assert "a.wav" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_silence_is_audio(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    assert not read_audio(tmp_path / "a.wav").any()
