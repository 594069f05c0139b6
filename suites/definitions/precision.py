"""The suite of number formats: what half precision and quantised weights gain, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rvc_common.processor import processor

from ..base.backends import BACKENDS, is_port
from ..metrics import parity
from ..metrics.audio import compare_pitch
from ..metrics.parity import Figures
from .base import Results, of_trained, sound_figures
from .config import PrecisionOptions
from .rmvpe import Rmvpe
from .single import OneProcess

FLOAT32 = "fp32"


class Policy(NamedTuple):
    """A number format. ``precision``: of the computation; ``bits``: of quantised weights, which are widened to float32
    as they are loaded."""

    precision: str
    bits: int | None = None


POLICIES = {
    FLOAT32: Policy("fp32"),
    "tf32": Policy("tf32"),
    "fp16": Policy("fp16"),
    "bf16": Policy("bf16"),
    "q8": Policy("fp32", 8),
    "q6": Policy("fp32", 6),
    "q4": Policy("fp32", 4),
}
# of F0, those that a record keeps
PITCH_FIGURES = (
    "p95_cents", "max_cents", "mean_cents", "voicing_error_rate", "octave_errors", "both_voiced_frames",
)  # fmt: skip


class Precision(OneProcess):
    """Components are ``MODEL.POLICY``. What is compared is the whole call, with the same backend's in float32."""

    name = "precision"
    title = "Number formats"
    subject = "number formats"
    order = 11
    sections = ("precision",)
    options = PrecisionOptions
    protocol = "precision"
    # F0 means something with a trained network only
    trained_calls = Rmvpe.trained_calls
    about_time = "One call of the whole model, host to host"

    def components(self, configured: tuple[str, ...], facts: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(f"{model}.{policy}" for model in configured for policy in POLICIES)

    def impossible(self, component: str, backend: str) -> str | None:
        if is_port(backend):
            return "ports are measured in the number format that they have"
        if component.endswith(".tf32") and BACKENDS[backend].device not in ("cuda", "gpu"):
            return "TF32 is a format of NVIDIA's GPUs"
        if component.endswith(".fp16") and backend == "torch_cpu" and not _multiplies_halves():
            return "this processor has no products of float16: PyTorch takes many times as long as in float32"
        return None


def _multiplies_halves() -> bool:
    """Without them a synthesizer takes PyTorch a minute for two seconds of audio. ARM's processors have them, and what
    is not known is measured."""
    found = processor()
    return found is None or not any("avx2" in flag for flag in found["flags"]) or "avx512_fp16" in found["flags"]


def fidelity(model: str, results: Results, reference: Results, sample_rate: int | None) -> Figures:
    """How far a whole call's result is from the one in float32: ``snr_db``, of the salience where the model finds
    pitch; figures of F0 in cents; of audio what is heard.

    Raises ``NotComparable``: NaN or infinity, or another shape."""
    if model == "rmvpe":
        ours, theirs = of_trained(results), of_trained(reference)
        pitch = compare_pitch(ours["f0"], theirs["f0"])
        salience = parity.compare(ours["own_salience"], theirs["own_salience"])
        return {"snr_db": salience["snr_db"]} | {name: pitch[name] for name in PITCH_FIGURES}
    (name,) = (name for name in results if name in ("features", "infer"))
    figures = parity.compare(results[name], reference[name])
    heard = sound_figures(name, results, reference, sample_rate) if name == "infer" else {}
    return {figure: figures[figure] for figure in ("snr_db", "max_abs", "corr")} | heard
