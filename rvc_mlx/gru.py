"""The bidirectional GRU of RMVPE, whose 100 steps a second are its longest dependency chain.

Three ways to take the steps, all with the same arithmetic (PyTorch's gates r, z, n):

* plain: one graph node after the other, evaluated now and then so the graph stays small;
* ``compile_gru``: 32 steps at a time as one compiled graph (CPU);
* ``gru_kernel``: all steps in one GPU kernel, checked against the plain way when a model is loaded.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .runtime import gpu_kind, mx

CHUNK_STEPS = 32
KERNEL_TOLERANCE = 2e-5

# One thread group per direction: groups cannot wait for each other on Metal. A thread owns one
# gate row; the state lives in shared memory, the weights stream from the cache.
METAL_SOURCE = """
    threadgroup float state[H];
    threadgroup float gates[3 * H];
    uint direction = threadgroup_position_in_grid.x;
    uint row = thread_position_in_threadgroup.x;
    uint steps = gi_shape[1];
    const device float* weights = wh + direction * H * 3 * H + row;
    float bias = row < 2 * H ? 0.0f : bn[direction * H + row - 2 * H];
    if (row < H) state[row] = 0.0f;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint step = 0; step < steps; step++) {
        uint t = direction ? steps - 1 - step : step;
        const device float* input = gi + (direction * steps + t) * 3 * H;
        float a0 = 0.0f, a1 = 0.0f, a2 = 0.0f, a3 = 0.0f;
        for (uint k = 0; k < H; k += 4) {
            a0 += weights[(k + 0) * 3 * H] * state[k + 0];
            a1 += weights[(k + 1) * 3 * H] * state[k + 1];
            a2 += weights[(k + 2) * 3 * H] * state[k + 2];
            a3 += weights[(k + 3) * 3 * H] * state[k + 3];
        }
        gates[row] = (a0 + a1) + (a2 + a3) + bias;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (row < H) {
            float r = 1.0f / (1.0f + metal::precise::exp(-(input[row] + gates[row])));
            float z = 1.0f / (1.0f + metal::precise::exp(-(input[H + row] + gates[H + row])));
            float n = metal::precise::tanh(input[2 * H + row] + r * gates[2 * H + row]);
            float h = n + z * (state[row] - n);
            state[row] = h;
            out[t * 2 * H + direction * H + row] = h;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
"""

# Eight blocks per direction, each keeping its share of the weights in registers. A block owns
# H / 8 hidden units; four lanes share a gate row. After each step a block publishes its units as
# 64-bit words (step number, value), so polling for a value is also the barrier between blocks.
# A word is reused two steps later, when every block must already have read it. All 16 blocks have
# to be resident at once, which holds on any GPU with 16 free multiprocessors.
CUDA_SOURCE = """
    constexpr int BLOCKS = 8, UNITS = H / BLOCKS, QUADS = H / 16;
    const int direction = blockIdx.x / BLOCKS, block = blockIdx.x % BLOCKS, tid = threadIdx.x;
    const int steps = gi_shape[1];
    __shared__ float4 state4[H / 4];
    __shared__ float gates[3 * UNITS];
    float* state = reinterpret_cast<float*>(state4);
    const int row = tid >> 2, lane = tid & 3, gate = row / UNITS, unit = row % UNITS;
    const int column = gate * H + block * UNITS + unit;
    const float* weights = wh + ((size_t)direction * 3 * H + column) * H;
    float4 mine[QUADS];
    #pragma unroll
    for (int k = 0; k < QUADS; k++)
        mine[k] = *reinterpret_cast<const float4*>(weights + (k * 4 + lane) * 4);
    const float bias = gate < 2 ? 0.0f : bn[direction * H + block * UNITS + unit];
    if (tid < H) state[tid] = 0.0f;
    unsigned long long* mail = reinterpret_cast<unsigned long long*>(mailbox);
    float previous = 0.0f;
    __syncthreads();
    for (int step = 0; step < steps; step++) {
        const int t = direction ? steps - 1 - step : step;
        float in_r = 0, in_z = 0, in_n = 0;
        if (tid < UNITS) {
            const float* input = gi + ((size_t)direction * steps + t) * 3 * H + block * UNITS + tid;
            in_r = __ldg(input); in_z = __ldg(input + H); in_n = __ldg(input + 2 * H);
        }
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        #pragma unroll
        for (int k = 0; k < QUADS; k++) {
            const float4 s = state4[k * 4 + lane];
            sum.x += mine[k].x * s.x; sum.y += mine[k].y * s.y;
            sum.z += mine[k].z * s.z; sum.w += mine[k].w * s.w;
        }
        float total = (sum.x + sum.y) + (sum.z + sum.w);
        total += __shfl_xor_sync(0xffffffffu, total, 1);
        total += __shfl_xor_sync(0xffffffffu, total, 2);
        if (lane == 0) gates[row] = total + bias;
        __syncthreads();
        unsigned long long* box = mail + ((step & 1) * 2 + direction) * H;
        if (tid < UNITS) {
            const float r = 1.0f / (1.0f + expf(-(in_r + gates[tid])));
            const float z = 1.0f / (1.0f + expf(-(in_z + gates[UNITS + tid])));
            const float n = tanhf(in_n + r * gates[2 * UNITS + tid]);
            previous = n + z * (previous - n);
            out[(size_t)t * 2 * H + direction * H + block * UNITS + tid] = previous;
            const unsigned long long word =
                ((unsigned long long)(unsigned)(step + 1) << 32) | __float_as_uint(previous);
            asm volatile("st.relaxed.gpu.global.u64 [%0], %1;"
                         :: "l"(box + block * UNITS + tid), "l"(word) : "memory");
        }
        if (step + 1 < steps && tid < H) {
            unsigned long long word;
            do {
                asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(word) : "l"(box + tid) : "memory");
            } while ((unsigned)(word >> 32) != (unsigned)(step + 1));
            state[tid] = __uint_as_float((unsigned)word);
        }
        __syncthreads();
    }
"""


@functools.cache
def _kernel(kind: str) -> Any:
    if kind == "metal":
        return mx.fast.metal_kernel(
            name="bigru", input_names=["gi", "wh", "bn"], output_names=["out"], source=METAL_SOURCE
        )
    return mx.fast.cuda_kernel(
        name="bigru", input_names=["gi", "wh", "bn"], output_names=["out", "mailbox"], source=CUDA_SOURCE
    )


@functools.cache
def compiler_fault() -> str | None:
    """Why ``mx.compile`` does not work on this CPU; None where it does.

    It builds C++ at run time, in the temporary folder, so only a build tells: the folder may be missing, read-only,
    another user's, or forbid programs."""
    if sys.platform == "linux" and shutil.which("g++") is None:
        return "there is no g++"
    # no two users build the same: one that another left there would be found ready
    own = 1 + os.getuid() % 2**16 / 2**16
    try:
        mx.eval(mx.compile(lambda x: mx.add(mx.multiply(x, own, stream=mx.cpu), x, stream=mx.cpu))(mx.ones(2)))
    except RuntimeError as error:
        return f"{error!s:.160}".splitlines()[0]
    return None


def has_compiler() -> bool:
    """Whether ``mx.compile`` works on this CPU; warns where it does not."""
    if (fault := compiler_fault()) is None:
        return True
    place = os.environ.get("TMPDIR", "/tmp")
    needs = f"it needs g++, and to write and load programs in the temporary folder (TMPDIR, here {place})"
    warnings.warn(f"MLX cannot compile for this CPU and runs slower without; {needs}: {fault}", stacklevel=2)
    return False


class BiGRU:
    """``[B, T, in] -> [B, T, 2 * hidden]``, forward half first.

    ``state`` holds PyTorch's ``weight_ih_l0`` and so on under ``prefix``. PyTorch has separate
    input and hidden biases; those of r and z only ever appear summed, the hidden one of n is
    scaled by the reset gate and stays apart.
    """

    def __init__(self, state: Mapping[str, np.ndarray], prefix: str, dtype: mx.Dtype, optimize: frozenset[str]) -> None:
        def both(leaf: str) -> np.ndarray:
            return np.stack([state[f"{prefix}.{leaf}_l0{end}"] for end in ("", "_reverse")])

        hidden = state[f"{prefix}.weight_hh_l0"].shape[1]
        bias, bias_hh = both("bias_ih").copy(), both("bias_hh")
        bias[:, : 2 * hidden] += bias_hh[:, : 2 * hidden]
        self.hidden, self.optimize = hidden, optimize
        self.input_weight = mx.array(both("weight_ih").transpose(0, 2, 1)[:, None]).astype(dtype)  # [2, 1, in, 3H]
        self.input_bias = mx.array(bias[:, None, None])
        # the recurrence stays in float32 under every precision policy
        self.hidden_weight = mx.array(np.ascontiguousarray(both("weight_hh").transpose(0, 2, 1)))  # [2, H, 3H]
        self.hidden_rows = mx.array(both("weight_hh"))  # [2, 3H, H]
        self.hidden_bias = mx.array(bias_hh[:, None, 2 * hidden :])  # [2, 1, H]
        self._chunk = self._compiled_chunk() if "compile_gru" in optimize and has_compiler() else None
        self._kernel_kind = self._checked_kernel() if "gru_kernel" in optimize else None

    @property
    def used(self) -> frozenset[str]:
        """Those of its optimisations that are in effect."""
        found = {"compile_gru": self._chunk is not None, "gru_kernel": self._kernel_kind is not None}
        return frozenset(name for name, effective in found.items() if effective)

    def __call__(self, x: mx.array) -> mx.array:
        inputs = (x[None] @ self.input_weight).astype(mx.float32) + self.input_bias  # [2, B, T, 3H]
        if self._kernel_kind is not None:
            return mx.stack([self._steps_in_kernel(inputs[:, i]) for i in range(x.shape[0])]).astype(x.dtype)
        return self._steps(inputs).astype(x.dtype)

    # ------------------------------------------------------------------ step by step
    def _step(self, inputs: mx.array, h: mx.array) -> mx.array:
        n = self.hidden
        gates = h @ self.hidden_weight
        r = mx.sigmoid(inputs[..., :n] + gates[..., :n])
        z = mx.sigmoid(inputs[..., n : 2 * n] + gates[..., n : 2 * n])
        new = mx.tanh(inputs[..., 2 * n :] + r * (gates[..., 2 * n :] + self.hidden_bias))
        return new + z * (h - new)

    def _compiled_chunk(self) -> Callable[[mx.array, mx.array], mx.array]:
        def chunk(inputs: mx.array, h: mx.array) -> mx.array:
            out = []
            for t in range(CHUNK_STEPS):
                h = self._step(inputs[t], h)
                out.append(h)
            return mx.stack(out)

        return mx.compile(chunk)

    def _steps(self, inputs: mx.array) -> mx.array:
        """``[2, B, T, 3H] -> [B, T, 2H]``; both directions walk together, the second on reversed time."""
        _, batch, steps, _ = inputs.shape
        walk = mx.stack([inputs[0], inputs[1, :, ::-1]]).transpose(2, 0, 1, 3)  # [T, 2, B, 3H]
        walk = mx.contiguous(walk)
        h = mx.zeros((2, batch, self.hidden))
        out: list[mx.array] = []
        for start in range(0, steps, CHUNK_STEPS):
            part = walk[start : start + CHUNK_STEPS]
            if self._chunk is not None and part.shape[0] == CHUNK_STEPS:
                states = self._chunk(part, h)
                h = states[-1]
                out.append(states)
            else:
                for t in range(part.shape[0]):
                    h = self._step(part[t], h)
                    out.append(h[None])
            mx.async_eval(out[-1])  # keeps the graph small and overlaps building with running
        result = mx.concatenate(out)  # [T, 2, B, H]
        both = [result[:, 0], result[::-1, 1]]
        return mx.concatenate(both, axis=-1).transpose(1, 0, 2)

    # ------------------------------------------------------------------ in one kernel
    def _checked_kernel(self) -> str | None:
        """The kernel's kind, where it exists and agrees with the plain steps on this machine."""
        kind = gpu_kind()
        if kind is None or self.hidden % 64 or self.hidden > 256:
            return None
        error = _kernel_error(kind, self.hidden)
        if not error <= KERNEL_TOLERANCE:
            warnings.warn(f"the GRU kernel differs from the plain path by {error:.1e}: not used", stacklevel=2)
            return None
        return kind

    def _steps_in_kernel(self, inputs: mx.array) -> mx.array:
        """``[2, T, 3H] -> [T, 2H]``."""
        steps, n = inputs.shape[1], self.hidden
        kernel = _kernel(str(self._kernel_kind))
        if self._kernel_kind == "metal":
            return kernel(
                inputs=[inputs, self.hidden_weight, self.hidden_bias], template=[("H", n)],
                grid=(2 * 3 * n, 1, 1), threadgroup=(3 * n, 1, 1),
                output_shapes=[(steps, 2 * n)], output_dtypes=[mx.float32],
            )[0]  # fmt: skip
        threads = 12 * n // 8
        return kernel(
            inputs=[inputs, self.hidden_rows, self.hidden_bias], template=[("H", n)],
            grid=(16 * threads, 1, 1), threadgroup=(threads, 1, 1),
            output_shapes=[(steps, 2 * n), (2, 2, n, 2)], output_dtypes=[mx.float32, mx.uint32], init_value=0,
        )[0]  # fmt: skip


@functools.cache
def _kernel_error(kind: str, hidden: int) -> float:
    """Largest difference between the kernel and the plain steps on seeded inputs; once a process."""
    rng = np.random.default_rng(0)
    gates, scale = 3 * hidden, hidden**-0.5
    shapes = {"weight_ih": (gates, 8), "weight_hh": (gates, hidden), "bias_ih": (gates,), "bias_hh": (gates,)}
    state = {
        f"gru.{leaf}_l0{end}": (scale * rng.standard_normal(shape)).astype(np.float32)
        for leaf, shape in shapes.items()
        for end in ("", "_reverse")
    }
    gru = BiGRU(state, "gru", mx.float32, frozenset())
    gru._kernel_kind = kind
    inputs = mx.array(rng.standard_normal((2, 96, 3 * hidden)).astype(np.float32))
    try:
        kernel = np.array(gru._steps_in_kernel(inputs))
    except (RuntimeError, ValueError) as error:
        warnings.warn(f"the GRU kernel cannot run here ({error!s:.200})", stacklevel=2)
        return float("inf")
    difference = np.abs(kernel - np.array(gru._steps(inputs[:, None])[0])).max()
    return float(difference) if np.isfinite(difference) else float("inf")
