"""The reference's PyTorch models through ``torch.compile``: the same code and weights, compiled by Inductor.

Compiled are RMVPE's U-Net (its GRU, a library call, stays as it is), HuBERT from the first convolution on, and the
voice's generator. Each compiles at its first call, so in the warm-up, and once more for each length of input.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

import reference_torch
from rvc_common.stages import Carry, Stage, group, run

from ..base.backends import DTYPES
from ..base.errors import nearest
from ..child.adapters.torch import TorchAdapter

# entries of a carry that the generator needs beside its main value
SIDES = ("source", "speaker")
# lengths of input in one run: more than PyTorch compiles for by itself
LENGTHS = 256


class Adapter:
    model: Any

    def describe(self) -> dict[str, Any]:
        components = {"rmvpe": ["network", "f0"], "hubert": ["extract", "encode", "features"]}
        components["synthesizer"] = ["decode", "infer"]
        blas = "MKL" if torch.backends.mkl.is_available() else "OpenBLAS or other"
        facts = {"name": "torch.compile", "version": torch.__version__, "torch": torch.__version__, "blas": blas}
        return {**facts, "components": components, "precisions": list(DTYPES)}

    def load(self, model: str, paths: Mapping[str, str], options: Mapping[str, Any]) -> None:
        self.framework = TorchAdapter(options["device"])
        self.framework.configure(options["precision"], options["threads"])
        facts = self.framework.describe()
        if not facts["available"]:
            raise ValueError(facts["reason"])
        if missing := lacking(options["device"]):
            raise ValueError(missing)
        self.compile = compiler(options)
        chosen = {"dtype": DTYPES[options["precision"]], "device": options["device"]}
        getattr(self, f"_load_{model}")(paths, chosen, options["profile"])

    def _load_rmvpe(self, paths: Mapping[str, str], chosen: Mapping[str, str], profile: str) -> None:
        self.model = reference_torch.RMVPE.from_checkpoint(paths["rmvpe"], profile=profile, **chosen)
        names = [stage.name for stage in self.model.stages]
        head = names.index("fc.0")
        self.model.stages = (self._compiled("unet", self.model.stages[:head]), *self.model.stages[head:])

    def _load_hubert(self, paths: Mapping[str, str], chosen: Mapping[str, str], profile: str) -> None:
        self.model = model = reference_torch.Hubert.from_checkpoint(paths["hubert"], **chosen)
        model.extracting = (self._compiled("extracting", model.extracting),)
        encoding = model._encoding_stages
        model._encoding_stages = functools.cache(lambda *which: (self._compiled("encoding", encoding(*which)),))

    def _load_synthesizer(self, paths: Mapping[str, str], chosen: Mapping[str, str], profile: str) -> None:
        self.model = model = reference_torch.Synthesizer.from_checkpoint(paths["voice"], profile=profile, **chosen)
        generator = self._compiled("generator", model.network.dec.stages())
        model.decoding = (group("dec", (*model.source_stages, generator)),)

    def _compiled(self, name: str, stages: tuple[Stage, ...]) -> Stage:
        """The stages as one that is compiled."""

        def work(x: torch.Tensor, sides: dict[str, torch.Tensor]) -> torch.Tensor:
            carry: Carry = {"x": x, **sides}
            run(stages, carry)
            return carry["x"]

        fast = self.compile(work)

        def apply(carry: Carry) -> None:
            # a copy: a CUDA graph writes each result to the same place
            carry["x"] = fast(carry["x"], {s: carry[s] for s in SIDES if carry.get(s) is not None}).clone()

        return Stage(name, apply)

    def call(self, component: str, inputs: Mapping[str, Any]) -> np.ndarray:
        def draw(index: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
            return inputs["noise"][index]

        torch.compiler.cudagraph_mark_step_begin()  # results of the call before may be overwritten
        given = {name: draw if name == "noise" else value for name, value in inputs.items()}
        names = {"network": "salience"}
        return getattr(self.model, names.get(component, component))(*given.values())

    def synchronize(self) -> None:
        self.framework.synchronize()

    def memory(self) -> dict[str, int] | None:
        return self.framework.memory()


def lacking(device: str) -> str | None:
    """Why nothing can be compiled for this device; None: it can."""
    if device == "cpu":
        from torch._inductor import exc
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except exc.InvalidCxxCompiler:
            return "torch.compile needs a C++ compiler: install g++ or clang++, or name it in CXX"
    if device == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            return "torch.compile needs Triton on CUDA: pip install triton"
    return None


def compiler(options: Mapping[str, Any]) -> functools.partial[Any]:
    """``torch.compile`` with the options ``mode``, ``dynamic`` and ``freeze``.

    Raises ``ValueError``: there is no such mode, or one of the others is neither true nor false."""
    modes = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
    mode = options.get("mode", "default")
    if mode not in modes:
        raise ValueError(f"mode={mode}{nearest(str(mode), modes)}")
    for name in ("dynamic", "freeze"):
        if not isinstance(options.get(name, False), bool):
            raise ValueError(f"{name}={options[name]}: true or false is expected")
    torch._inductor.config.freezing = options.get("freeze", False)
    torch._dynamo.config.recompile_limit = LENGTHS
    return functools.partial(torch.compile, mode=mode, dynamic=options.get("dynamic", False), fullgraph=True)
