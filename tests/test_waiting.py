"""How idle threads wait: set before a framework is imported, the same on both sides, and the user's own is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rvc_common.waiting import POLICY, WAITING, set_waiting, waiting
from suites.base.backends import worker_environment

ROOT = Path(__file__).parents[1]


def test_what_is_set_already_stays():
    empty: dict[str, str] = {}
    set_waiting(empty)
    assert empty == WAITING
    own = {"KMP_BLOCKTIME": "7"}
    set_waiting(own)
    assert own == WAITING | {"KMP_BLOCKTIME": "7"}
    chosen = {POLICY: "ACTIVE"}
    set_waiting(chosen)
    assert chosen == {POLICY: "ACTIVE"}
    assert waiting(chosen) == "OMP_WAIT_POLICY=ACTIVE"
    assert waiting({}) == ""


def test_workers_get_it(monkeypatch):
    for name in (POLICY, *WAITING):
        monkeypatch.delenv(name, raising=False)
    assert waiting(worker_environment("fp32", 2)) == ", ".join(f"{name}={value}" for name, value in WAITING.items())
    monkeypatch.setenv(POLICY, "PASSIVE")
    assert waiting(worker_environment("fp32", 2)) == "OMP_WAIT_POLICY=PASSIVE"


@pytest.mark.parametrize(("module", "framework"), [("reference_torch", "torch"), ("rvc_mlx.runtime", "mlx.core")])
def test_both_packages_set_it_before_their_framework(module, framework):
    code = f"""
import os, sys
class Seen:
    def find_spec(self, name, path=None, target=None):
        if name == {framework!r}:
            print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("KMP_BLOCKTIME"))
            sys.exit()
sys.meta_path.insert(0, Seen())
import {module}
"""
    own = {name: value for name, value in os.environ.items() if name not in (POLICY, *WAITING)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=own)
    assert done.stdout.split() == list(WAITING.values()), done.stderr
