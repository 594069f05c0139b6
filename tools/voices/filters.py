"""Filters that move over time, as magnitudes on short-time spectra: vowels, nasals, consonants, slopes."""

from __future__ import annotations

import math

import torch
from torch import nn

from reference_torch.audio import SAMPLE_RATE

from .contours import EVENTS, SINGING, Contour
from .draw import CONTROL_HZ, Draw, smooth
from .sources import Source

N_FFT, HOP = 512, 128
FORMANTS = 6
# the first three formants of a man's vowels in Hz
VOWELS = (
    (280.0, 2250.0, 2900.0), (370.0, 2050.0, 2650.0), (400.0, 1900.0, 2550.0), (530.0, 1850.0, 2500.0),
    (660.0, 1700.0, 2400.0), (730.0, 1100.0, 2450.0), (850.0, 1450.0, 2500.0), (570.0, 840.0, 2400.0),
    (440.0, 1020.0, 2250.0), (310.0, 870.0, 2250.0), (500.0, 1350.0, 1700.0), (500.0, 1500.0, 2500.0),
    (300.0, 1750.0, 2150.0), (380.0, 1600.0, 2200.0), (270.0, 1100.0, 2300.0), (340.0, 1250.0, 2600.0),
)  # fmt: skip


def bins_hz(device: torch.device) -> torch.Tensor:
    return torch.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE, device=device)


def analyse(x: torch.Tensor) -> torch.Tensor:
    """``[B, N]`` to spectra ``[B, 1 + N // HOP, N_FFT / 2 + 1]``, frame i centred on sample i * HOP."""
    padded = nn.functional.pad(x, (N_FFT // 2, N_FFT // 2))
    window = torch.hann_window(N_FFT, device=x.device)
    return torch.fft.rfft(padded.unfold(1, N_FFT, HOP) * window)


def resynthesise(spectrum: torch.Tensor, samples: int) -> torch.Tensor:
    """Back to ``[B, N]`` by overlap-add under a second window; the squares of its copies sum to 1.5."""
    window = torch.hann_window(N_FFT, device=spectrum.device)
    frames = (torch.fft.irfft(spectrum, N_FFT) * window).transpose(1, 2)
    length = N_FFT + HOP * (frames.shape[2] - 1)
    added = nn.functional.fold(frames, (1, length), (1, N_FFT), stride=(1, HOP))[:, 0, 0]
    return added[:, N_FFT // 2 :][:, :samples] / 1.5


def at_frames(track: torch.Tensor, samples: int) -> torch.Tensor:
    """Control points ``[B, ..., C]`` at the frames of ``analyse``."""
    step = HOP * CONTROL_HZ // SAMPLE_RATE
    return track[..., ::step][..., : 1 + samples // HOP]


def _formant_tracks(draw: Draw, contour: Contour, samples: int) -> torch.Tensor:
    """``[B, FORMANTS, F]`` in Hz, gliding between the vowels of the events."""
    batch = contour.event.shape[0]
    scale = draw.log_uniform(0.85, 1.45, batch, 1, 1)
    vowels = draw.table(VOWELS)[draw.pick(draw.table((1.0,) * len(VOWELS)), batch, EVENTS)]
    held = draw.chance(0.3, batch, 1)[..., None]  # a singer may stay on one vowel
    vowels = torch.where(held, vowels[:, :1], vowels) * torch.exp(0.08 * draw.normal(batch, EVENTS, 3))
    upper = draw.table((3500.0, 4400.0, 5600.0)) * torch.exp(0.06 * draw.normal(batch, 1, 3))
    # two vowels an event, so that long ones are diphthongs
    index = contour.event[:, None].expand(-1, 3, -1)
    tracks = vowels.transpose(1, 2).gather(2, index)
    glide = 0.06 * torch.stack([draw.wander(draw.uniform(0.5, 5, batch), index.shape[2]) for _ in range(3)], 1)
    tracks = smooth(tracks, draw.log_uniform(0.008, 0.06, batch)) * glide.exp()
    tracks = at_frames(tracks, samples)
    return torch.cat([tracks, upper.transpose(1, 2).expand(-1, -1, tracks.shape[2])], 1) * scale


def vocal_tract(draw: Draw, contour: Contour, samples: int) -> torch.Tensor:
    """Log magnitude ``[B, F, bins]`` of a cascade of resonances, nasal zero included."""
    batch = contour.event.shape[0]
    formants = _formant_tracks(draw, contour, samples)
    # sopranos open the mouth until the first formant is at F0
    f0 = at_frames(10 * torch.exp2(contour.cents / 1200), samples)
    tuned = torch.maximum(formants[:, 0], f0 * draw.uniform(0.9, 1.2, batch, 1))
    first = torch.where(draw.chance(0.6, batch, 1), tuned, formants[:, 0])
    formants = torch.cat([first[:, None], formants[:, 1:]], 1)
    widths = draw.table((70.0, 90.0, 130.0, 200.0, 250.0, 350.0)) * draw.log_uniform(0.5, 1.8, batch, FORMANTS)
    # the singer's formant: the third to fifth close together
    ring = (draw.chance(0.4, batch, 1) & (contour.style == SINGING)[:, None])[..., None]
    cluster = draw.uniform(2500, 3300, batch, 1, 1) * draw.table(((0.92,), (1.0,), (1.1,)))
    formants = torch.where(ring & (draw.table(((0,), (0,), (1,), (1,), (1,), (0,))) > 0),
                           nn.functional.pad(cluster, (0, 0, 2, 1)).expand_as(formants), formants)  # fmt: skip
    hz = bins_hz(draw.device)
    log = torch.zeros(batch, formants.shape[2], hz.shape[0], device=draw.device)
    for i in range(FORMANTS):
        log = log - _resonance(formants[:, i, :, None], widths[:, i, None, None], hz)
    nasal = smooth(draw.chance(0.12, batch, EVENTS).float().gather(1, contour.event), draw.uniform(0.01, 0.03, batch))
    zero = draw.uniform(500, 2500, batch, 1, 1)
    dip = _resonance(zero, draw.uniform(100, 400, batch, 1, 1), hz).clamp(min=-3.5)
    log = log + at_frames(nasal, samples)[..., None] * (dip - 1.0)
    # the voice bar of a closed mouth: little but the lowest harmonics
    closed = draw.chance(0.08, batch, EVENTS).float().gather(1, contour.event)
    closed = at_frames(smooth(closed, draw.uniform(0.004, 0.02, batch)), samples)
    muffled = 1.0 + draw.uniform(1, 3, batch, 1, 1) * torch.log2(hz.clamp(min=1) / 300).clamp(min=0)
    return log.clamp(-9, 5) - closed[..., None] * muffled


def _resonance(centre: torch.Tensor, width: torch.Tensor, hz: torch.Tensor) -> torch.Tensor:
    """Log of the reciprocal magnitude of a two-pole resonance of unit gain at zero frequency."""
    ratio = (hz / centre).square()
    return 0.5 * torch.log((1 - ratio).square() + ratio * (width / centre).square())


def glottal_slope(source: Source, contour: Contour, samples: int) -> torch.Tensor:
    """Log magnitude ``[B, F, bins]``: from F0 downwards, and more of it above a corner."""
    hz = bins_hz(contour.cents.device).clamp(min=20)
    f0 = at_frames(10 * torch.exp2(contour.cents / 1200), samples)[..., None]
    octaves = torch.log2(hz / f0).clamp(min=0)
    above = torch.log2(hz / source.tilt_hz).clamp(min=0)[:, None]
    return -(source.slope_db[..., None] * octaves + source.tilt_db[..., None] * above) * (math.log(10) / 20)


def random_curve(draw: Draw, batch: int, hz: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Smooth log magnitudes over log frequency, ``[B, bins]``; ``deviation`` ``[B, 1]`` in nepers."""
    octaves = torch.log2(hz.clamp(min=120) / 40)
    total = torch.zeros(batch, hz.shape[0], device=hz.device)
    for periods in (0.5, 1.0, 1.7, 2.6, 4.0):
        angle = 2 * math.pi * (periods * octaves / 7.6 + draw.uniform(0, 1, batch, 1))
        total = total + draw.normal(batch, 1) / math.sqrt(periods + 0.5) * angle.sin()
    return deviation * total


def dispersion(draw: Draw, batch: int, hz: torch.Tensor) -> torch.Tensor:
    """Unit complex ``[B, 1, bins]``: a smooth phase response, so that pulses are not all symmetric."""
    angle = torch.zeros(batch, hz.shape[0], device=hz.device)
    for order in range(1, 7):
        angle = angle + draw.normal(batch, 1) * (1.5 / order) * torch.cos(math.pi * order * hz / (SAMPLE_RATE / 2))
    return torch.polar(torch.ones_like(angle), angle)[:, None]


def consonants(draw: Draw, contour: Contour, samples: int) -> torch.Tensor:
    """Log magnitude ``[B, F, bins]`` of noise bands, one per event."""
    batch = contour.event.shape[0]
    centre = draw.log_uniform(600, 7000, batch, EVENTS).gather(1, contour.event)
    octaves = draw.uniform(0.25, 2.0, batch, EVENTS).gather(1, contour.event)
    centre, octaves = (at_frames(t, samples)[..., None] for t in (centre, octaves))
    return -0.5 * (torch.log2(bins_hz(draw.device).clamp(min=20) / centre) / octaves).square()
