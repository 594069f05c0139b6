"""Figures of accuracy: pitch against the noise level, and voicing decisions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suites.base.backends import BACKENDS
from suites.inputs.testset import CONDITIONS

from ..data.frame import RunData
from .style import OTHERS, STYLES, WIDTH, legend_below, mark, panels
from .words import titled

# by rising noise level
IN_NOISE = [name for name, (_, snr_db, in_room) in CONDITIONS.items() if name == "clean" or snr_db is not None]
PANELS = {"rpa": "raw pitch accuracy (%)", "overall_accuracy": "overall accuracy (%)"}
Shares = dict[str, float]  # by condition, in per cent


def series(data: RunData, figure: str) -> Iterator[tuple[str, Shares]]:
    """One figure of every backend and estimator, by noise condition."""
    for name in data.backends:
        lines = {case: data.find(case, "f0", name) or {} for case in IN_NOISE}
        values = {case: (line.get("accuracy") or {}).get(figure) for case, line in lines.items()}
        found = {case: 100 * value for case, value in values.items() if value is not None}
        if found:
            yield name, found


def look(name: str) -> Any:
    """Solid lines for RMVPE, dashed ones for other estimators."""
    colour, marker = (STYLES if name in BACKENDS else OTHERS)[name]
    broad = name in BACKENDS
    return {"color": colour, "marker": marker, "ls": "-" if broad else "--", "lw": 2 if broad else 1.2, "ms": 6.5}


def accuracy(data: RunData) -> Figure | None:
    """Raw pitch accuracy and overall accuracy against the signal-to-noise ratio."""
    found = {figure: dict(series(data, figure)) for figure in PANELS}
    cases = [case for case in IN_NOISE if any(case in shares for shares in found["rpa"].values())]
    if len(cases) < 2:
        return None
    figure, axes = panels(2, 3.4, 2, WIDTH / 2, sharey=True)
    for axis, (name, words) in zip(axes, PANELS.items(), strict=True):
        for who, shares in found[name].items():
            places = [cases.index(case) for case in shares]
            axis.plot(places, list(shares.values()), label=_label(who), **look(who))
            for place, (case, share) in zip(places, shares.items(), strict=True):
                mark(axis, place, share, f"{_label(who)}, {_noise(case)}: {words.removesuffix(' (%)')} {share:.2f} %")
        axis.set(ylabel=words, xlabel="noise below the voice (dB)", xlim=(-0.3, len(cases) - 0.7))
        axis.set_xticks(range(len(cases)), [case.removeprefix("snr") for case in cases])
        axis.tick_params(labelleft=True)
    axes[0].set_ylim(top=101)
    legend_below(figure, axes, 5)
    figure.suptitle(titled(data, "Pitch against the truth, in noise"))
    return figure


def voicing(data: RunData) -> Figure | None:
    """Voicing recall against false alarms, from clean (large marks) to the most noise; the top left corner is best."""
    recall, alarm = (dict(series(data, name)) for name in ("voicing_recall", "voicing_false_alarm"))
    if not any(alarm.values()):
        return None
    figure, axes = panels(1, 4.4, 1, WIDTH)
    for who in alarm:
        cases = [case for case in alarm[who] if case in recall.get(who, {})]
        if cases:
            _path(axes[0], who, [(case, alarm[who][case], recall[who][case]) for case in cases])
    axes[0].set(xlabel="voicing false alarm (%)", ylabel="voicing recall (%)")
    axes[0].set_xlim(left=min(-1.0, axes[0].get_xlim()[0]))
    axes[0].set_ylim(top=101)
    legend_below(figure, axes, 5)
    figure.suptitle(titled(data, "Voicing, from clean (large marks) to more and more noise"))
    return figure


def _path(axis: Axes, who: str, points: list[tuple[str, float, float]]) -> None:
    style = look(who)
    axis.plot([x for _, x, _ in points], [y for *_, y in points], label=_label(who), **style | {"ms": 4, "lw": 1})
    axis.plot(*points[0][1:], color=style["color"], marker=style["marker"], ms=10, ls="")
    for case, x, y in points:
        mark(axis, x, y, f"{_label(who)}, {_noise(case)}: recall {y:.2f} %, false alarm {x:.2f} %")


def _label(name: str) -> str:
    return f"RMVPE, {name}" if name in BACKENDS else name


def _noise(case: str) -> str:
    return case if case == "clean" else f"{case.removeprefix('snr')} dB"
