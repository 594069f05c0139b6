"""Files of F0 for ``convert --f0``: what is taken, what is refused and in which words."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rvc_common.contour import fit_f0, read_f0

SAMPLES = 16000  # one second


def frames(path, samples=SAMPLES):
    return fit_f0(*read_f0(path), samples, path)


STEPS = [f"{i / 50:.2f}" for i in range(51)]
LINES = {
    "commas": [f"{t},200" for t in STEPS],
    "a header": ["time,hz", *(f"{t},200" for t in STEPS)],
    "spaces": [f" {t}   200 " for t in STEPS],
    "tabs": [f"{t}\t200" for t in STEPS],
    "comma and space": [f"{t}, 200" for t in STEPS],
    "a third column": [f"{t};200;0.9" for t in STEPS],
    "comments": ["# by hand", "", *(f"{t} 200 # fine" for t in STEPS)],
}


@pytest.mark.parametrize("name", LINES)
def test_lines_of_time_and_hz(name, tmp_path):
    path = tmp_path / "f0.csv"
    path.write_text("\n".join(LINES[name]))
    np.testing.assert_allclose(frames(path), np.full(101, 200.0))


@pytest.mark.parametrize(("separator", "nothing"), [(",", ""), (",", "0"), ("\t", ""), (",", "-200"), (", ", "")])
def test_empty_is_unvoiced(separator, nothing, tmp_path):
    path = tmp_path / "f0.csv"
    path.write_text("\n".join(f"{i / 100:.2f}{separator}{nothing if 40 <= i < 60 else 220}" for i in range(101)))
    found = frames(path)
    assert np.flatnonzero(found == 0).tolist() == list(range(40, 60))


@pytest.mark.parametrize("count", [100, 101, 300, 301])
def test_values_every_10_ms(count, tmp_path):
    """Of the recording, or of the padded one, as before."""
    np.savetxt(tmp_path / "f0.txt", np.full(count, 200.0))
    np.save(tmp_path / "f0.npy", np.full(count, 200, np.int32))
    (tmp_path / "row.txt").write_text(" ".join(["200"] * count))
    (tmp_path / "head.txt").write_text("hz\n" + "200\n" * count)
    for name in ("f0.txt", "f0.npy", "row.txt", "head.txt"):
        assert frames(tmp_path / name).tolist() == [200.0] * count


def lines(*pairs):
    return "\n".join(pairs)


WHOLE = [f"{i / 10:.1f},200" for i in range(11)]
BAD = {
    "nothing": ("", "holds no line"),
    "header": ("time,hz\n", "holds no line"),
    "one row": ("0.0,200\n", "holds 1 value"),
    "one value": ("200\n", "holds 1 value"),
    "NaN": (lines(*WHOLE[:5], "0.5,nan", *WHOLE[6:]), ":6: '0.5,nan' is not time_s,f0_hz"),
    "NaN first": (lines("0.0,nan", *WHOLE[1:]), ":1: '0.0,nan' is not time_s,f0_hz"),
    "NaN alone": ("200\n" * 50 + "nan\n" + "200\n" * 50, ":51: 'nan' is not F0 in Hz"),
    "infinite": (lines(*WHOLE, "1.05,inf"), "is not time_s"),
    "a word": (lines(*WHOLE, "end,200"), ":12: 'end,200' is not"),
    "one column missing": (lines(*WHOLE, "1.05"), ":12: '1.05' is not"),
    "times fall": (lines(*WHOLE[:5], "0.3,200", *WHOLE[6:]), "times must rise from 0 on, in seconds; 0.3 does not"),
    "times stand": (lines(*WHOLE[:5], *WHOLE[4:]), "0.4 does not"),
    "before 0": (lines("-0.1,200", *WHOLE), "-0.1 does not"),
    "too high": (lines(*WHOLE[:5], "0.5,2500", *WHOLE[6:]), "value 6 is 2500 Hz; 31.7 to 2006 Hz are expected, or 0"),
    "too low": (lines(*WHOLE[:5], "0.5,20", *WHOLE[6:]), "value 6 is 20 Hz"),
    "negative": ("200\n" * 100 + "-1\n", "value 101 is -1 Hz"),
    "columns exchanged": (lines(*(f"200,{i / 10}" for i in range(11))), "200 does not"),
    "milliseconds": (lines(*(f"{i * 100},200" for i in range(11))), "ends at 1000.00 s, the recording at 1.00 s"),
    "ends before": (lines(*WHOLE[:6]), "ends at 0.50 s, the recording at 1.00 s"),
    "too few values": ("200\n" * 60, "60 values every 10 ms last 0.60 s, the recording lasts 1.00 s .101 values"),
    "no text": (bytes(range(256)), "is not text"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name, tmp_path):
    path, (content, message) = tmp_path / "f0.csv", BAD[name]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        frames(path)
    assert str(caught.value).startswith(f"--f0 {path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((101, 2)), "not an array"),
        (np.array(["a", "b"]), "not an array"),
        (np.array([None, 1]), "cannot be read"),
        (np.full(101, np.nan), "value 1 is nan Hz"),
        (np.full(50, 200.0), "50 values every 10 ms"),
        (np.float64(3), "not an array"),
    ],
)
def test_arrays_that_are_refused(array, message, tmp_path):
    np.save(tmp_path / "f0.npy", array)
    with pytest.raises(ValueError, match=message):
        frames(tmp_path / "f0.npy")


@pytest.mark.parametrize("ending", ["csv", "npy"])
def test_things_that_are_no_files(ending, tmp_path):
    os.mkfifo(tmp_path / f"fifo.{ending}")
    (tmp_path / f"folder.{ending}").mkdir()
    for name, message in {"fifo": "pipe or device", "folder": "a folder", "gone": "no such file"}.items():
        with pytest.raises(ValueError, match=message):
            read_f0(tmp_path / f"{name}.{ending}")
