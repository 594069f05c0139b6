"""Which processor this is. Its name does not tell: virtual machines call every one of AMD's "AMD EPYC"."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
# as the kernel names them, on x86-64 and on Arm
FIELDS = {
    "vendor": ("vendor_id", "CPU implementer"),
    "family": ("cpu family", "CPU architecture"),
    "model": ("model", "CPU part"),
    "stepping": ("stepping", "CPU revision"),
}
# the vector instructions that decide how fast a matrix product can be
DECISIVE = (
    "avx", "avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16",
    "avx512_fp16", "avx512_vnni", "amx_bf16", "amx_int8", "amx_tile",
    "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sme", "sve", "sve2",
)  # fmt: skip


def processor(cpuinfo: Path = CPUINFO) -> dict[str, Any] | None:
    """``vendor``, ``family``, ``model``, ``stepping`` and ``flags``, sorted; None where the system does not tell.

    On macOS the name tells what is there."""
    if sys.platform != "linux":
        return None
    try:
        first = cpuinfo.read_text(errors="replace").strip().partition("\n\n")[0]
    except OSError:
        return None
    lines = (line.partition(":") for line in first.splitlines())
    told = {name.strip(): value.strip() for name, _, value in lines}
    found: dict[str, Any] = {}
    for name, keys in FIELDS.items():
        value = next((told[key] for key in keys if key in told), None)
        found[name] = int(value) if value is not None and value.isdecimal() else value
    flags = set((told.get("flags") or told.get("Features") or "").split())
    return found | {"flags": sorted(flags & set(DECISIVE))}


def numbers(found: Mapping[str, Any]) -> str:
    """A processor in words, without its flags."""
    parts = [f"{name} {found[name]}" for name in ("family", "model", "stepping") if found.get(name) is not None]
    return " ".join(filter(None, [str(found.get("vendor") or ""), ", ".join(parts)]))
