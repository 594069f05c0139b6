"""Of several BLAS libraries the one that is measured to be faster; whatever the cache holds, nothing fails."""

from __future__ import annotations

import json
import os
import sys

import pytest

from rvc_mlx import blas
from rvc_mlx.blas import Library, chosen

LIBRARIES = [Library("/a/libmkl_rt.so.3", "1"), Library("libopenblas.so.0", "2", "SKYLAKEX")]


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Rates by path, and what was measured; with a cache of its own."""
    rates, asked = {"/a/libmkl_rt.so.3": 200.0, "libopenblas.so.0": 400.0}, []

    def measure(library: Library) -> float:
        asked.append(library.path)
        return rates[library.path]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(blas, "_measured", measure)
    return rates, asked


def test_one_or_none_is_not_measured(measured):
    assert chosen([]) == ([], "none is installed")
    assert chosen(LIBRARIES[:1]) == (LIBRARIES[:1], "the only one installed")
    assert measured[1] == []


def test_the_faster_one_comes_first_and_is_measured_once(measured, monkeypatch):
    told = "measured, GFLOP/s: libmkl_rt.so.3 200, libopenblas.so.0 400"
    for _ in range(2):
        assert chosen(LIBRARIES) == (LIBRARIES[::-1], told)
    assert len(measured[1]) == 2
    chosen([LIBRARIES[0]._replace(version="3"), LIBRARIES[1]])
    assert len(measured[1]) == 4
    monkeypatch.setattr(blas, "processor", lambda: {"vendor": "AuthenticAMD", "flags": []})
    chosen(LIBRARIES)
    assert len(measured[1]) == 6


def test_a_small_gain_changes_nothing(measured):
    measured[0]["/a/libmkl_rt.so.3"] = 390.0
    assert chosen(LIBRARIES)[0] == LIBRARIES


def test_what_cannot_be_measured(measured):
    measured[0]["libopenblas.so.0"] = 0.0
    assert chosen(LIBRARIES)[0] == LIBRARIES
    measured[0]["/a/libmkl_rt.so.3"] = 0.0
    assert chosen(LIBRARIES) == (LIBRARIES, "the first of 2; they could not be measured")
    measured[0]["libopenblas.so.0"] = 1.0
    assert chosen(LIBRARIES)[0] == LIBRARIES[::-1]  # a failure was not kept


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"k": null}', "\x00\xff", "rates", "nan"])
def test_a_damaged_cache_is_measured_again(measured, tmp_path, text):
    chosen(LIBRARIES)
    file = tmp_path / "rvc-parity" / "blas.json"
    (key,) = json.loads(file.read_text())
    damaged = {"rates": json.dumps({key: ["a", 2]}), "nan": json.dumps({key: [float("nan"), 2]})}.get(text, text)
    file.write_text(damaged, encoding="latin-1")
    assert chosen(LIBRARIES)[0] == LIBRARIES[::-1]
    assert len(measured[1]) == 4
    assert json.loads(file.read_text())[key] == [200.0, 400.0]


def test_a_cache_that_cannot_be_written(measured, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert chosen(LIBRARIES)[0] == LIBRARIES[::-1]
    assert len(measured[1]) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="libraries are opened on Linux only")
def test_a_real_measurement(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert blas._measured(Library("/nowhere/libblas.so")) == 0.0
    (tmp_path / "text.so").write_text("no library")
    assert blas._measured(Library(str(tmp_path / "text.so"))) == 0.0
    found = blas.installed()
    if not found:
        pytest.skip("no BLAS library is installed")
    there, told = chosen([Library("/nowhere/libblas.so"), found[0]])
    assert there[0] == found[0]
    assert told.startswith("measured, GFLOP/s: libblas.so 0, ")
    assert os.environ.get(blas.CORE_VARIABLE) is None or found[0].core is None


@pytest.mark.parametrize(
    ("vendor", "flags", "core"),
    [("AuthenticAMD", ["avx2", "avx512bw"], "SKYLAKEX"), ("AuthenticAMD", ["avx2"], None),
     ("GenuineIntel", ["avx2", "avx512bw"], None)],
)  # fmt: skip
def test_openblas_is_told_of_avx_512_on_amd(monkeypatch, vendor, flags, core):
    monkeypatch.setattr(blas, "processor", lambda: {"vendor": vendor, "flags": flags})
    monkeypatch.setattr(blas.ctypes.util, "find_library", lambda name: "libopenblas.so.0")
    monkeypatch.delenv(blas.CORE_VARIABLE, raising=False)
    assert blas.installed()[-1].core == core
    monkeypatch.setenv(blas.CORE_VARIABLE, "ZEN")
    assert blas.installed()[-1].core == "ZEN"
