"""Branches of ``rvc_mlx`` that no probe takes, and why that cannot matter to a trace.

The key is a module or a function, or a function and the line whose branch is meant."""

_FILES = "reads PyTorch's own files; traces load .safetensors, and tests/test_checkpoint.py compares what is read"
_PARTS = "a call of one part alone, which `run` times and compares; `infer` does without"
_RESIDENT = "calls whose arrays stay on the device, which `run` times and compares"
_GPU = "on GPUs only"
_KERNEL = f"{_GPU}; the kernel is compared with the plain steps whenever a model is loaded"
_FUSED = f"{_GPU}; a kernel is checked when a model is loaded, and tests/rvc_mlx/test_fused_models.py builds all models"
_RECORDED = f"{_GPU}; tests/rvc_mlx/test_model.py compares recorded networks with plain ones"
_BOUNDED = f"{_GPU}; tests/rvc_mlx/test_buffers.py"
_GPU_TILES = f"{_GPU}; tests/test_synthesizer.py compares tiles of any size with the whole"
_HALVES = "with two BLAS threads, and `reach` has one; tests/rvc_mlx/test_streams.py compares halves with the whole"
_GROUPED = "without block_groups, which CPUs have; tests/rvc_mlx/test_layers.py compares it"
_FED = "puts the reference's values into a walk: every trace does, and `reach` has no reference"
_REFUSED = "refuses what cannot be used"
_WITHOUT_PROJECTION = "a content model without final_proj: v1 voices are refused, and v2 voices do not use it"

WHY: dict[str, str] = {
    "__main__": "the command line, before any stage",
    "blas": "chooses the library before any stage",
    "buffers": _BOUNDED,
    "attention.blocked_relative_attention.attend: if two_streams:": _HALVES,
    'extractor.tiled_extractor.item: if "two_streams" in methods:': _HALVES,
    "files._Storage": _FILES,
    "files._Tensor": _FILES,
    "files._Unpickler": _FILES,
    "files._arrays": _FILES,
    "files._read_legacy": _FILES,
    "files._read_zip": _FILES,
    "files._tensor": _FILES,
    "files._values": _FILES,
    "files.read_file": _FILES,
    "fused_conv": _FUSED,
    "fused_conv_metal": _FUSED,
    "gru._kernel": _KERNEL,
    "gru._kernel_error": _KERNEL,
    "gru.BiGRU._checked_kernel": _KERNEL,
    "gru.BiGRU._steps_in_kernel": _KERNEL,
    "gru.BiGRU.__call__: if self._kernel_kind is not None:": _KERNEL,
    "gru.compiler_fault": "whether a compiler is there: without it the plain path is taken",
    "gru.has_compiler": "whether a compiler is there: without it the plain path is taken",
    "held": _HALVES,
    "hubert.Network._halved": _HALVES,
    "hubert._layer_in_halves": _HALVES,
    "hubert._leaves": _HALVES,
    "hubert.Network._conv_layer: if isinstance(conv, FusedConv):": _FUSED,
    'hubert.Network._feed_forward: if "fused_conv" in self.weights.methods:': _FUSED,
    "hubert.Network._feed_forward: if isinstance(together, FusedConv):": _FUSED,
    "layers.Weights.projections: if together is None or not isinstance(together, FusedConv):": _FUSED,
    "layers.Weights.projections.project": _FUSED,
    "hubert.Network.__init__: if config.projected is not None:": _WITHOUT_PROJECTION,
    "keys.hubert_shapes: if config.projected is not None:": _WITHOUT_PROJECTION,
    "layers.Weights._fused": _FUSED,
    "layers.Weights._fused_transpose": _FUSED,
    "layers.Weights.conv: if fused is not None:": _FUSED,
    'layers.Weights.conv_transpose: if "fused_conv" in self.methods:': _FUSED,
    "layers.Weights.conv_transpose: if fused is not None:": _FUSED,
    "layers.Weights.linear: if (fused := self._fused(raw[:, :, None], bias, then=then)) is not None:": _FUSED,
    "layers.Weights._gemm_conv: if groups > 1:": _GROUPED,
    "layers._grouped": _GROUPED,
    "layers._polyphase: if missing > 0:  # an output padding beyond the last overlap": (
        "an output padding above the padding, which no voice has (vocoder.upsampling)"
    ),
    "layouts.ChannelsLast.private": _FED,
    "layouts.RmvpeLayout.private": _FED,
    "layouts.RmvpeLayout._image: if not rows >> level:": _REFUSED,
    "packed.pack": _FED,
    "model.Model._graph": _RECORDED,
    "model.Model._place: if not fused_conv.is_available(self.dtype):": _FUSED,
    "model.Model._place: if not self.on_gpu and not streams.are_available():": _HALVES,
    "streams": _HALVES,
    'synthesizer.Synthesizer._build: if "compile_network" in self.optimize:': _RECORDED,
    "synthesizer.equal_tiles": _GPU_TILES,
    "synthesizer.Synthesizer._tiles: if self.on_gpu:": _GPU_TILES,
    "synthesizer.Synthesizer._tiles: if two:": _HALVES,
    "synthesizer.around: if width:": _GPU_TILES,
    "model.Model.alone": _RECORDED,
    "model.Model.run": _RECORDED,
    "model._recorded": _RECORDED,
    "model.Model.compute": _RESIDENT,
    "model.Model.settle": _RESIDENT,
    "rmvpe.RMVPE.settle": _RESIDENT,
    "optimize.resolve: if unknown:": _REFUSED,
    "retrieval.Bank.retrieve: if features.shape[1] != self.width:": _REFUSED,
    "rmvpe.RMVPE._mel": _PARTS,
    "rmvpe.RMVPE._cents: if sums is not None:": f"{_GPU}, where a maximum may pass over NaN",
    "runtime": "chooses the library and the device before any stage",
    "unet.NativeUNet._folded_block.apply: if self.bounded and y.nbytes >= layers.EVAL_BYTES and not recording.get():": (
        "waits for a large array; changes no value"
    ),
    "unet.NativeUNet._fused": _FUSED,
    "unet.NativeUNet._folded_conv: if (fused := self._fused(raw, shift, columns)) is not None:": _FUSED,
    "unet.NativeUNet._up: if fused is not None:": _FUSED,
    "text_encoder._feed_forward: if isinstance(first, FusedConv):": _FUSED,
    "vocoder._sum_in_kernel": _FUSED,
    "vocoder.residual_stages: if isinstance(second, FusedConv):": _FUSED,
}
