"""The figure of number formats: what each moves the result, against its time."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from suites.definitions.precision import FLOAT32

from ..data.frame import Format, RunData
from .style import INK, STYLES, mark, one_two_five, panels, plain_numbers, reach
from .words import audio_of, interval, short

# points squared: the area of the largest checkpoint of a panel
LARGEST, SMALLEST_SHARE = 260.0, 0.06


def formats(data: RunData) -> Figure | None:
    """Signal over error against time; the top left corner is best. The area is that of the checkpoint's size."""
    found = [one for one in data.formats() if one.policy != FLOAT32 and _ratio(one) is not None]
    places = list(dict.fromkeys((one.case, one.model) for one in found))
    if not places:
        return None
    figure, axes = panels(len(places), 3.3, 3, 3.1)
    for axis, (case, model) in zip(axes, places, strict=True):
        _panel(axis, data, case, model, [one for one in found if (one.case, one.model) == (case, model)])
    handles: list[Any] = []
    for backend in dict.fromkeys(one.backend for one in found):
        colour, marker = STYLES[backend]
        handles.append(Line2D([], [], color=colour, marker=marker, ls="", label=backend))
    handles.append(Line2D([], [], color=INK, ls=":", label="time in float32"))
    axes[0].set_ylabel("signal over error (dB)")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8.5)
    where = f", {data.setting}" if data.setting else ""
    figure.suptitle(f"Error against time of every number format (area: size of the checkpoint){where}")
    return figure


def _panel(axis: Axes, data: RunData, case: str, model: str, own: list[Format]) -> None:
    largest = max(one.line.get("weights_bytes") or 1 for one in own)
    for one in own:
        time, ratio = data.time(case, one.component, one.backend), _ratio(one)
        if time is None or ratio is None:
            continue
        colour, marker = STYLES[one.backend]
        share = max(SMALLEST_SHARE, (one.line.get("weights_bytes") or 0) / largest)
        spread = reach(time.low, time.value, time.high)
        axis.errorbar(time.value, ratio, xerr=spread, color=colour, ls="", elinewidth=0.8, capsize=2)
        axis.scatter(time.value, ratio, s=LARGEST * share, color=colour, marker=marker, alpha=0.55)
        axis.annotate(one.policy, (time.value, ratio), (9, 4), textcoords="offset points", fontsize=8)
        place = f"{one.backend}, {model} in {one.policy}, {audio_of(data, case)}"
        mark(axis, time.value, ratio, f"{place}: {ratio:.1f} dB, {interval(time)}")
    for backend in dict.fromkeys(one.backend for one in own):
        if time := data.time(case, f"{model}.{FLOAT32}", backend):
            axis.axvline(time.value, color=STYLES[backend][0], lw=1.2, ls=":")
    axis.set(xscale="log", xlabel="time of one call (s)", title=f"{model}, {short(case)}")
    low, high = axis.get_xlim()
    axis.set_xlim(low / 1.15, high * 1.15)
    bottom, top = axis.get_ylim()
    axis.set_ylim(bottom, top + 0.12 * (top - bottom))
    plain_numbers(axis.xaxis, one_two_five(*axis.get_xlim(), most=5))


def _ratio(one: Format) -> float | None:
    value = (one.line.get("fidelity") or {}).get("snr_db")
    return float(value) if isinstance(value, int | float) else None
