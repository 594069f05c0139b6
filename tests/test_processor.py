"""Processors are told apart by more than the name that virtual machines give all of them."""

from __future__ import annotations

import sys

import pytest

from rvc_common.processor import numbers, processor
from suites.base.environment import completed, cpu_text, describe, fingerprint
from suites.gate.baseline import differences

ZEN_5 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu sse2 avx512f avx2 hypervisor avx512_vnni

processor\t: 1
model\t\t: 99
"""
NEOVERSE = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd40\n"
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")


def read(tmp_path, text):
    (tmp_path / "cpuinfo").write_text(text)
    return processor(tmp_path / "cpuinfo")


@linux
def test_what_the_kernel_tells(tmp_path):
    found = read(tmp_path, ZEN_5)
    flags = ["avx2", "avx512_vnni", "avx512f"]
    assert found == {"vendor": "AuthenticAMD", "family": 26, "model": 2, "stepping": 1, "flags": flags}
    assert cpu_text({"cpu": "AMD EPYC", "processor": found}) == "AMD EPYC (AuthenticAMD family 26, model 2, stepping 1)"
    assert numbers(read(tmp_path, NEOVERSE)) == "0x41 family 8, model 0xd40"
    assert read(tmp_path, NEOVERSE)["flags"] == ["asimd", "sve"]
    assert numbers(read(tmp_path, "")) == ""
    assert processor(tmp_path / "none") is None


@linux
def test_it_is_kept_with_every_run():
    assert fingerprint(describe())["processor"] == processor()
    assert processor()["flags"] == sorted(processor()["flags"])


@linux
def test_two_processors_of_one_name(tmp_path):
    zen_5, zen_3 = read(tmp_path, ZEN_5), read(tmp_path, ZEN_5.replace(": 26", ": 25").replace("avx512_vnni", ""))
    one, two = completed([{"cpu": "AMD EPYC", "processor": zen_5}, {"cpu": "AMD EPYC", "processor": zen_3}])
    found = differences(one, two)
    assert found == ["processor.family: 26 there, 25 here", "processor.flags: avx512_vnni there, none here"]


def test_older_records_are_compared_by_what_they_have():
    new, other = {"cpu": "AMD EPYC", "processor": {"family": 26}}, {"cpu": "Other", "processor": {"family": 6}}
    old = {"cpu": "AMD EPYC"}
    assert completed([old, new])[0] == new
    assert completed([new, old, other]) == [new, new, other]
    assert completed([old, old]) == [{"cpu": "AMD EPYC", "processor": None}] * 2
    assert cpu_text(old) == "AMD EPYC"
    assert completed([{"cpu": "Third"}, new])[0]["processor"] is None
