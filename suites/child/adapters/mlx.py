"""MLX on a CPU and on a GPU, with the BLAS library that ``rvc_mlx`` gives it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from rvc_mlx import gru, runtime
from rvc_mlx.runtime import mx

from ..roofline import fastest
from .base import Adapter, Call, Facts

# constants of rvc_mlx that say how much is computed at a time: at these sizes a short input is cut as a long one is
# at the real ones
PIECES = {
    "rvc_mlx.attention.BLOCK_VALUES": 1 << 10,
    "rvc_mlx.attention.SHORTEST_FRAMES": 1,
    "rvc_mlx.audio.BLOCK_FRAMES": 50,
    "rvc_mlx.extractor.ROWS": 7,
    "rvc_mlx.extractor.SHORTEST_SAMPLES": 1,
    "rvc_mlx.hubert.SHORTEST_FRAMES": 2,
    "rvc_mlx.layers.EVAL_BYTES": 1 << 10,
    "rvc_mlx.layers.UNFOLD_VALUES": 1 << 16,
    "rvc_mlx.retrieval.BLOCK_VALUES": 1 << 14,
    # with 1600 more on either side: smaller tiles would cost long inputs a hundred times as much
    "rvc_mlx.rmvpe.TILE_FRAMES": 1024,
    "rvc_common.steps.FILTER_BLOCK": 5000,
    "rvc_common.steps.LOUDNESS_BLOCK": 500,
    "rvc_mlx.synthesizer.FINE_FRAMES": 7,
    "rvc_mlx.synthesizer.GPU_TILE_FRAMES": 40,
    "rvc_mlx.synthesizer.TILE_FRAMES": 40,
}


class MlxAdapter(Adapter):
    @property
    def _stream(self) -> Any:
        return mx.cpu if self.device == "cpu" else mx.gpu

    def configure(self, precision: str, threads: int) -> None:
        """MLX and its BLAS read both from the environment when they are imported."""

    def describe(self) -> Facts:
        facts = runtime.describe()
        if self.device == "gpu" and not facts["gpu"]:
            return {"available": False, "reason": f"this MLX ({facts['mlx']}) sees no GPU"}
        if self.device == "cpu":
            facts |= {"blas_gflops": self._matmul_gflops(), "slow_blas": runtime.is_slow_blas()}
            facts |= {"compiler_fault": fault} if (fault := gru.compiler_fault()) else {}
        return {"available": True, **facts}

    def _matmul_gflops(self, size: int = 512) -> float:
        """Shows a slow BLAS library by its speed, whatever its name."""
        return round(2 * size**3 / fastest(self.matmul(size, "float32"), 0.02) / 1e9, 1)

    def load_options(self, dtype: str, optimize: Any) -> Facts:
        return super().load_options(dtype, optimize) | {"optimize": optimize}

    def device_of(self, model: Any) -> str:
        return str(model.device.type.name)

    def synchronize(self) -> None:
        mx.synchronize()

    def memory(self) -> dict[str, int]:
        found = {"active": mx.get_active_memory(), "peak": mx.get_peak_memory(), "cache": mx.get_cache_memory()}
        return {f"{name}_bytes": int(held) for name, held in found.items()}

    def reset_peak_memory(self) -> None:
        mx.reset_peak_memory()

    def peak_memory(self) -> int:
        return int(mx.get_peak_memory())

    def matmul(self, size: int, dtype: str) -> Call:
        stream = self._stream
        a = mx.random.normal((size, size), stream=stream).astype(getattr(mx, dtype), stream=stream)
        mx.eval(a)
        return lambda: mx.eval(mx.matmul(a, a, stream=stream))

    def copy(self, n_bytes: int) -> Call:
        a = mx.ones(n_bytes // 4)
        mx.eval(a)
        return lambda: mx.eval(mx.negative(a, stream=self._stream))  # MLX has no plain copy

    def settle(self, values: Iterable[Any]) -> None:
        lists = (value if isinstance(value, list) else [value] for value in values)
        mx.eval([one for found in lists for one in found if isinstance(one, mx.array)])
        mx.synchronize()

    @contextlib.contextmanager
    def small_pieces(self) -> Iterator[None]:
        """Seams between tiles and blocks then show on short inputs."""
        paths = [path.rpartition(".") for path in PIECES]
        places = [(importlib.import_module(module), constant) for module, _, constant in paths]
        real = [getattr(module, constant) for module, constant in places]
        try:
            for (module, constant), value in zip(places, PIECES.values(), strict=True):
                setattr(module, constant, value)
            yield
        finally:
            for (module, constant), value in zip(places, real, strict=True):
                setattr(module, constant, value)
