"""``mx.fast.metal_kernel`` without Metal: the source that MLX makes of a kernel, compiled for this CPU.

Its address spaces become checked pointers; ``metal_stand_in.h`` has the rest.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rvc_mlx.runtime import mx

HEADER = Path(__file__).with_name("metal_stand_in.h")
COMPILE = ["g++", "-std=c++14", "-Og", "-w", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-fPIC"]
MOST_THREADS, MOST_BUFFERS, MOST_BYTES = 1024, 31, 32 * 1024
POSITIONS = {
    "thread_position_in_threadgroup": "uint3{uint(self->id), 0, 0}",
    "thread_index_in_threadgroup": "uint(self->id)",
    "thread_position_in_grid": "uint3{uint(position.x * threads + self->id), position.y, position.z}",
    "threadgroup_position_in_grid": "position",
    "threadgroups_per_grid": "groups",
    "thread_index_in_simdgroup": "uint(self->id % 32)",
    "simdgroup_index_in_threadgroup": "uint(self->id / 32)",
}
MAIN = """
static void call() { %s; }
extern "C" const char* launch(char** data, const long* bytes, int count, const int* grid, int size, int reversed,
                              long* used) {
  for (int i = 0; i < count; i++) buffers[i] = {data[i], data[i] + bytes[i], i == count - 1, nullptr};
  Memory& result = buffers[count - 1];
  result.marks = new Mark[bytes[count - 1] / 4];
  body = call;
  threads = size;
  groups = {uint(grid[0]), uint(grid[1]), uint(grid[2])};
  failure[0] = 0;
  const int total = grid[0] * grid[1] * grid[2];
  for (int i = 0; i < total && !failure[0]; i++) {
    const uint at = reversed ? total - 1 - i : i;
    position = {at %% groups.x, at / groups.x %% groups.y, at / groups.x / groups.y};
    run_threadgroup(reversed);
    *used = declared;
  }
  delete[] result.marks;
  return failure[0] ? failure : nullptr;
}
"""


class Fault(RuntimeError):
    """What a kernel does that Metal forbids, or that is right by luck."""


def source_by_mlx(kernel: Any, inputs: list[mx.array], folder: Path, **given: Any) -> str:
    """Signature, header and body: MLX prints them while it records a call, which needs no Metal."""

    def record(*arrays: mx.array) -> list[mx.array]:
        return kernel(inputs=list(arrays), verbose=True, **given)

    with tempfile.TemporaryFile() as printed:
        shown = os.dup(1)
        os.dup2(printed.fileno(), 1)
        try:
            mx.export_function(str(folder / "call.mlxfn"), record, *inputs)
        finally:
            os.dup2(shown, 1)
            os.close(shown)
        printed.seek(0)
        return printed.read().decode().split("```")[1]


def as_cpp(source: str) -> str:
    """A program of the stand-in's, whose ``launch`` runs the kernel's threadgroups."""
    name, parameters = re.search(r"\[\[kernel\]\] void (\w+)\(\n(.*?)\) \{", source, re.S).groups()
    whole, _, instance = source.partition("\ntemplate [[host_name")
    values = re.search(r"decltype\(\w+(<.*?>)\)", instance)
    given = []
    for _, attribute in re.findall(r"(\S+) \[\[(.+?)\]\]", parameters):
        number = re.fullmatch(r"buffer\((\d+)\)", attribute)
        given.append(f"Argument{{&buffers[{number[1]}]}}" if number else POSITIONS[attribute])
    text = re.sub(r"\[\[.*?\]\]|#include <metal.*", "", whole)
    for word in ("[&]", "[=]"):
        assert word not in text, "Metal has no lambdas"
    text = re.sub(r"\bthreadgroup (\w+) (\w+)\[(.+?)\];", r"auto \2 = array<\1>(\3);", text)
    text = re.sub(r"(const )?\b(device|constant|threadgroup) (\w+)\s*\*", r"Pointer<\2, \1\3>", text)
    assert not re.search(r"\b(float4?|u?int|size_t)\s*\*\s*\w*\s*[=;,)]", text), "a pointer without an address space"
    call = f"{name}{values[1] if values else ''}({', '.join(given)})"
    return f'#include "{HEADER.name}"\n{text}\n{MAIN % call}'


def in_place(module: Any, caches: Iterable[Any], tmp_path_factory: Any, monkeypatch: Any) -> Iterator[Metal]:
    """For a fixture: ``module`` finds Metal, and its ``caches`` keep no kernels from one test to the next."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    folder = tmp_path_factory.getbasetemp() / "metal"
    folder.mkdir(exist_ok=True)
    emulated = Metal(folder)
    monkeypatch.setattr(mx.fast, "metal_kernel", emulated.metal_kernel)
    monkeypatch.setattr(module, "gpu_kind", lambda: "metal")
    for cache in caches:
        cache.cache_clear()
    yield emulated
    for cache in caches:
        cache.cache_clear()


class Metal:
    """In ``mx.fast``'s place: ``reversed`` is the threads' order, ``edit`` changes a kernel's body."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.reversed = folder, False
        self.edit: Callable[[str], str] = lambda body: body
        self.used: list[tuple[int, int]] = []  # threads of a threadgroup, and bytes of its memory, by call
        self._real = mx.fast.metal_kernel

    def metal_kernel(self, *, source: str, input_names: list[str], **named: Any) -> Callable[..., list[mx.array]]:
        kernel = self._real(source=self.edit(source), input_names=input_names, **named)

        def call(inputs: list[mx.array], **given: Any) -> list[mx.array]:
            text = source_by_mlx(kernel, inputs, self.folder, **given)
            arrays = []
            for name, value in zip(input_names, inputs, strict=True):
                arrays.append(np.array(value))
                if f"{name}_shape " in text:
                    arrays.append(np.array(value.shape, np.int32))
            out = np.full(given["output_shapes"][0], np.nan, np.float32)
            self._launch(as_cpp(text), [*arrays, out], given["grid"], given["threadgroup"])
            return [mx.array(out)]

        return call

    def _launch(
        self, program: str, arrays: list[np.ndarray], grid: tuple[int, ...], threadgroup: tuple[int, ...]
    ) -> None:
        size = threadgroup[0]
        assert size <= MOST_THREADS
        assert threadgroup[1:] == (1, 1)
        assert grid[0] % size == 0, "a threadgroup smaller than the others"
        assert len(arrays) <= MOST_BUFFERS
        library, used = compiled(program, self.folder), ctypes.c_long()
        padded = [np.concatenate([a.reshape(-1).view(np.uint8), np.zeros(64, np.uint8)]) for a in arrays[:-1]]
        data = [*padded, arrays[-1]]
        library.launch.restype = ctypes.c_char_p
        failure = library.launch(
            (ctypes.c_void_p * len(data))(*(a.ctypes.data for a in data)),
            (ctypes.c_long * len(data))(*(a.nbytes for a in arrays)), len(data),
            (ctypes.c_int * 3)(grid[0] // size, *grid[1:]), size, int(self.reversed), ctypes.byref(used),
        )  # fmt: skip
        self.used.append((size, used.value))
        assert used.value <= MOST_BYTES
        if failure:
            raise Fault(failure.decode())


@functools.cache
def _header(folder: Path, header: Path, how: tuple[str, ...]) -> None:
    """Compiled once: half of a kernel's time."""
    for file in header.parent.glob("*.h"):
        shutil.copy(file, folder)
    copy = folder / header.name
    subprocess.run([*COMPILE, *how, "-x", "c++-header", copy, "-o", f"{copy}.gch"], check=True, timeout=120)


@functools.cache
def compiled(program: str, folder: Path, header: Path = HEADER, how: tuple[str, ...] = ()) -> ctypes.CDLL:
    _header(folder, header, how)
    source = folder / f"{hashlib.sha256(program.encode()).hexdigest()[:16]}.cpp"
    source.write_text(program)
    library = source.with_suffix(".so")
    command = [*COMPILE, *how, "-shared", "-o", library, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise Fault("\n".join(line for line in done.stderr.splitlines() if "error" in line)[:2000])
    return ctypes.CDLL(str(library))
