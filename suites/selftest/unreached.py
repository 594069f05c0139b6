"""Branches of ``rvc_mlx`` that no probe takes, and why that cannot matter to a trace.

The key is a module or a function, or a function and the line whose branch is meant."""

_FILES = "reads PyTorch's own files; traces load .safetensors, and tests/test_checkpoint.py compares what is read"
_PARTS = "a call of one part alone, which `run` times and compares; `infer` does without"
_RESIDENT = "calls whose arrays stay on the device, which `run` times and compares"
_GPU = "on GPUs only"
_KERNEL = f"{_GPU}; the kernel is compared with the plain steps whenever a model is loaded"
_FED = "puts the reference's values into a walk: every trace does, and `reach` has no reference"
_REFUSED = "refuses what cannot be used"
_WITHOUT_PROJECTION = "a content model without final_proj: v1 voices are refused, and v2 voices do not use it"

WHY: dict[str, str] = {
    "__main__": "the command line, before any stage",
    "files._Storage": _FILES,
    "files._Tensor": _FILES,
    "files._Unpickler": _FILES,
    "files._arrays": _FILES,
    "files._read_legacy": _FILES,
    "files._read_zip": _FILES,
    "files._tensor": _FILES,
    "files._values": _FILES,
    "files.read_file": _FILES,
    "gru._kernel": _KERNEL,
    "gru._kernel_error": _KERNEL,
    "gru.BiGRU._checked_kernel": _KERNEL,
    "gru.BiGRU._steps_in_kernel": _KERNEL,
    "gru.BiGRU.__call__: if self._kernel_kind is not None:": _KERNEL,
    "gru.compiler_fault": "whether a compiler is there: without it the plain path is taken",
    "gru.has_compiler": "whether a compiler is there: without it the plain path is taken",
    "hubert.Network.__init__: if config.projected is not None:": _WITHOUT_PROJECTION,
    "keys.hubert_shapes: if config.projected is not None:": _WITHOUT_PROJECTION,
    "layers._polyphase: if missing > 0:  # an output padding beyond the last overlap": (
        "an output padding above the padding, which no voice has (vocoder.upsampling)"
    ),
    "layouts.ChannelsLast.private": _FED,
    "layouts.RmvpeLayout.private": _FED,
    "layouts.RmvpeLayout._image: if not rows >> level:": _REFUSED,
    "packed.pack": _FED,
    "model.Model.compute": _RESIDENT,
    "model.Model.settle": _RESIDENT,
    "rmvpe.RMVPE.settle": _RESIDENT,
    "optimize.resolve: if unknown:": _REFUSED,
    "retrieval.Bank.retrieve: if features.shape[1] != self.width:": _REFUSED,
    "rmvpe.RMVPE._mel": _PARTS,
    "rmvpe.RMVPE._cents: if sums is not None:": f"{_GPU}, where a maximum may pass over NaN",
    "runtime": "chooses the library and the device before any stage",
    "synthesizer.Synthesizer._attention_stages": _PARTS,
    "synthesizer.Synthesizer._channels_second": _PARTS,
    "synthesizer.Synthesizer._hidden": _PARTS,
    "synthesizer.Synthesizer._noisy": _PARTS,
    "unet.NativeUNet._folded_block.apply: if y.nbytes >= self.eval_bytes:": "waits for a large array; changes no value",
}
