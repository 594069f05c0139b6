"""What a stage's value means, by its path: its axes, and whether the stage decides."""

from __future__ import annotations

import re

import numpy as np

# the axes of a value by its name and rank; others by their rank and the part of the model they come from
AXES: dict[tuple[str, int], tuple[str, ...]] = {
    ("source", 3): ("batch", "sample", "channel"),
    ("voiced", 3): ("batch", "sample", "channel"),
    ("mask", 3): ("batch", "channel", "frame"),
    ("x_mask", 3): ("batch", "channel", "frame"),
    ("features", 2): ("frame", "feature"),
    ("features", 3): ("batch", "frame", "feature"),
    ("retrieved", 2): ("frame", "feature"),
    ("phone", 2): ("frame", "feature"),
    ("audio", 2): ("batch", "sample"),
}
FRAMES_FIRST = {"fc", "flatten", "sigmoid", "transpose", "feature_projection", "final_proj", "emb_phone", "emb_pitch"}


def axes_of(path: str, name: str, array: np.ndarray) -> tuple[str, ...]:
    """What the axes of a stage's value mean, in PyTorch's order; see ``locate``."""
    if (name, array.ndim) in AXES:
        return AXES[name, array.ndim]
    inner = set(re.split(r"[.:]", path))
    if array.ndim == 4:
        return ("batch", "channel", "row", "column") if inner & {"unet", "cnn"} else ("batch", "head", "query", "key")
    if array.ndim == 1:
        return ("sample",) if name in ("filtered", "padded", "joined", "audio", "trimmed") else ("frame",)
    if array.ndim == 2:
        return ("band", "frame") if inner & {"mel", "padded_log_mel"} else ("batch", "frame")
    if array.ndim == 3:
        hubert = "encoder" in inner and "enc_p" not in inner
        if hubert or inner & FRAMES_FIRST:
            return ("batch", "frame", "bin" if "sigmoid" in inner else "feature")
        return ("batch", "channel", "sample" if inner & {"dec", "feature_extractor"} else "frame")
    return ("feature",) * array.ndim


def has_argmax(path: str) -> bool:
    """Stages whose largest value along the last axis matters: attention's scores and weights, and the salience."""
    return path.endswith((":scores", ":weights", "sigmoid"))


def path_decides(path: str) -> bool:
    """Stages that choose: the best bin, voiced or not, a pitch code."""
    return path.rsplit(".", 1)[-1] in ("cents", "f0", "pitchf", "pitch")
