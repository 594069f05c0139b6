"""``doctor``: what this machine has, what is missing, and what slows it down."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from ..base import environment
from ..base.backends import BACKENDS, is_port
from ..base.errors import UserError
from ..base.outcome import ERROR, PASSED, Answer
from ..inputs.weights import cache_folder
from ..measure import probe
from ..measure.session import HELLO_TIMEOUT_S, Facts

HELP = "what this machine has, and what slows it down"
EXAMPLES = (
    ("doctor", "exit code 0 where at least one backend works, else 2"),
    ("doctor --json", "the same for a script"),
)
OK, MISSING, SLOW = "ok", "--", "!!"
BLAS_FACTS = ("blas", "blas_core", "blas_choice", "blas_gflops")
MARKED = {OK: "ok", MISSING: "missing", SLOW: "slow"}


def run(args: argparse.Namespace) -> Answer:
    """The findings; exit code 0 where at least one backend works, else 2."""
    facts = environment.describe()
    threads, found = facts["cores_physical"], dict[str, Facts]()
    for name in [name for name in BACKENDS if not is_port(name)]:  # one after another: each times its BLAS
        found |= probe.backends(threads, HELLO_TIMEOUT_S, [name])
    findings = [*(line for name, one in found.items() for line in _backend(name, one)), *_surroundings(facts)]
    working = probe.ready(found)
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    lines = [
        f"{environment.cpu_text(facts)}, {facts['cores_physical']} cores, "
        f"{facts['memory_bytes'] / 2**30:.0f} GiB, {facts['os']}",
        *([f"Vector instructions: {', '.join(more['flags'])}"] if (more := facts["processor"]) else []),
        f"Python {facts['python']}; {packages}",
        *(f"  {mark}  {text}" for mark, text in findings),
    ]
    told: dict[str, Any] = {"environment": facts, "backends": found}
    told["findings"] = [{"kind": MARKED[mark], "text": text} for mark, text in findings]
    slow = [text for mark, text in findings if mark == SLOW]
    line = f"{len(working)} of {len(found)} backends work: {', '.join(working) or 'none'}; {len(slow)} warnings"
    return Answer(PASSED if working else ERROR, "\n".join(lines), told, line)


def _backend(name: str, facts: Facts) -> Iterator[tuple[str, str]]:
    if facts["reason"] is not None:
        yield MISSING, f"{name}: {facts['reason']}"
        return
    parts = [f"{k} {facts[k]}" for k in (BACKENDS[name].framework, "gpu_name", *BLAS_FACTS) if facts.get(k)]
    yield OK, f"{name}: {', '.join(parts)}"
    if facts.get("compiler_fault"):
        yield SLOW, f"{name} cannot compile, and takes its steps one by one: {facts['compiler_fault']}"
    if facts.get("slow_blas"):
        yield SLOW, f"{name} runs on MLX's slow reference BLAS (30 to 50 times slower): pip install mkl"


def _surroundings(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield OK, f"idle threads of the workers: {facts['waiting']}"
    load = float(facts["load_average_1min"])
    if load > 0.5 * (os.cpu_count() or 1):
        yield SLOW, f"load average {load:.1f}: other programs are running, and times will scatter"
    try:
        cache = cache_folder(None)
    except UserError as error:
        yield SLOW, str(error)
        return
    nearest = next(p for p in (cache, *cache.parents) if p.exists())
    free = shutil.disk_usage(nearest).free
    yield OK if free > 2**30 else SLOW, f"weights cache {cache}: {free / 2**30:.0f} GiB free"
