"""A difference between two sounds in words, from the figures of ``audio.compare_audio``."""

from __future__ import annotations

import numpy as np

from .parity import Figures

FRAMES_PER_SECOND = 100
# From when ``describe`` names a difference of level, and what counts as the same sound moved in time
NAMED_LEVEL_DB = 0.2
NAMED_DELAY_CORR = 0.5
NAMED_EDGE_DB = 20.0
CLEAN_SNR_DB = 40.0
SILENT = {"value": "silent, and the reference is not", "reference": "not silent, and the reference is"}
SILENT["both"] = "both silent"


def describe(figures: Figures) -> str:
    """One line: the kind of difference, else the SNR.

    Kinds: silence, a delay, an inverted sign, another level, a bad edge. What else differs by more than -40 dB once
    delay and level are undone is added as an SNR, lest the name hide it.
    """
    if figures["snr_db"] is None:
        return "equal"
    if figures["silent"] != "neither":
        return SILENT[figures["silent"]]
    level, kinds, edge = figures["level_db"], _named_delay(figures), _named_edge(figures)
    if abs(level) >= NAMED_LEVEL_DB:
        kinds.insert(0, f"{abs(level):.2f} dB {'louder' if level > 0 else 'quieter'}")
    inner_is_clean = figures["inner_snr_db"] is None or figures["inner_snr_db"] >= CLEAN_SNR_DB
    if edge and (inner_is_clean or not kinds):  # a loud click at an edge changes the level too
        return edge
    if not kinds:
        return f"SNR {figures['snr_db']:.1f} dB"
    # a least-squares gain leaves this share of the power unexplained
    rest_db = -10.0 * np.log10(max(1.0 - figures["delay_corr"] ** 2, 1e-12))
    return ", ".join(kinds) + (f"; SNR {rest_db:.1f} dB beyond that" if rest_db < CLEAN_SNR_DB else "")


def _named_delay(figures: Figures) -> list[str]:
    delay, corr = figures["delay_samples"], figures["delay_corr"]
    if abs(corr) < NAMED_DELAY_CORR:
        return []
    kinds = ["inverted"] if corr < 0 else []
    # between outputs of different noise some lag beats 0 by chance: a delay must explain half of what differs
    undelayed = max(0.0, (figures["corr"] or 0.0) * np.sign(corr))
    if delay and 1.0 - corr**2 <= 0.5 * (1.0 - undelayed**2):
        kinds.append(_in_time(delay, figures["sample_rate"]))
    return kinds


def _in_time(delay: int, sample_rate: int) -> str:
    """``one frame (400 samples) late``; a frame is 10 ms."""
    samples = f"{abs(delay)} sample{'s' if abs(delay) > 1 else ''}"
    frames, rest = divmod(abs(delay) * FRAMES_PER_SECOND, sample_rate)
    if rest:
        amount = f"{samples} ({1e3 * abs(delay) / sample_rate:.2g} ms)"
    else:
        amount = f"{'one frame' if frames == 1 else f'{frames} frames'} ({samples})"
    return f"{amount} {'late' if delay > 0 else 'early'}"


def _named_edge(figures: Figures) -> str | None:
    """An edge that is far worse than what lies between the edges."""
    inner = np.inf if figures["inner_snr_db"] is None else figures["inner_snr_db"]
    bad = [
        f"the {place} 0.1 s (SNR {figures[f'edge_{edge}_snr_db']:.1f} dB)"
        for edge, place in (("start", "first"), ("end", "last"))
        if figures[f"edge_{edge}_snr_db"] is not None and figures[f"edge_{edge}_snr_db"] <= inner - NAMED_EDGE_DB
    ]
    between = "equal" if figures["inner_snr_db"] is None else f"SNR {inner:.1f} dB"
    return f"differs in {' and '.join(bad)}, {between} between the edges" if bad else None
