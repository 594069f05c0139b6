"""Figures: what they show, that they say so in words and units, and that nothing empty is drawn."""

import base64
import dataclasses
import io
import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_figures import BOTH, MADE, ablation, components, grown, pipeline, record, run_of, sounds, stage, walked
from PIL import Image

from reports.data import fits
from reports.data.frame import load
from reports.data.roofs import roofs
from reports.figures import ablation as ablation_figures
from reports.figures import pictures, style, trace_plot
from reports.figures.plots import PLOTS, Plot
from suites.trace.walk import FAULT, INHERITED
from tests.made_runs import make_run

# drawn a second time
AGAIN = ("time", "samples", "growth", "waterfall", "roofline")
UNIT = re.compile(r"\((s|ms|%.*|×.*|MiB|Hz|kHz|dB.*|cents|ln|number|ratio|FLOP per byte|GFLOP/s|in order)\)")


def figures(data):
    return {name: make for plot in PLOTS for name, _, make in plot.of(data)}


def drawn(name, data):
    return figures(data)[name]()


def marks(figure):
    return [text for *_, text in getattr(figure, "named_marks", [])]


@pytest.fixture(autouse=True)
def _in_style():
    with plt.rc_context(style.RC):
        yield
    plt.close("all")


# ---------------------------------------------------------------------- all figures
def check(figure):
    """Something in every axis, units on every one, and words for what is shown."""
    bars = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    for axis in figure.axes:
        if axis not in bars:
            assert axis.has_data()
            assert UNIT.search(axis.get_xlabel()) or not any(t.get_visible() for t in axis.get_xticklabels()), axis
            named = [tick.get_text() for tick in axis.get_yticklabels()]
            # rows have names, which may stand at the panel to the left alone
            assert UNIT.search(axis.get_ylabel()) or not any(named) or any(re.search("[a-z]", name) for name in named)
        ticks = [tick.get_text() for tick in (*axis.get_xticklabels(), *axis.get_yticklabels())]
        assert not any("$" in text for text in ticks)  # a formula that nothing typesets
    told = marks(figure)
    assert told
    assert all(len(text) > 12 for text in told)
    assert figure.get_suptitle()


@pytest.mark.parametrize("name", MADE)
def test_a_figure_says_what_it_shows(name, tmp_path):
    """And the same records give the same bytes."""
    figure = drawn(name, MADE[name]())
    check(figure)
    svg = style.save(figure, tmp_path / "one.png")
    assert svg.count('class="mark"') > 1
    if name in AGAIN:
        before = (tmp_path / "one.png").read_bytes()
        assert style.save(drawn(name, MADE[name]()), tmp_path / "one.png") == svg
        assert (tmp_path / "one.png").read_bytes() == before


@pytest.mark.parametrize("name", MADE)
def test_the_machine_is_named_where_there_are_several(name):
    data = dataclasses.replace(MADE[name](), setting="Machine Two")
    assert "Machine Two" in drawn(name, data).get_suptitle().replace("\n", " ")


@pytest.mark.parametrize("name", MADE)
def test_nothing_empty_is_drawn(name):
    data = MADE[name]()
    lines = [{**r, "samples_s": [], "rounds": [], "launches": [], "cold": []} for r in data.records]
    assert drawn(name, run_of(data.name, lines)) is None


def test_a_whole_run_is_drawn(tmp_path):
    data = load(make_run(tmp_path / "run", launches=3, rounds=6))
    found = [pictures.drawn(make, tmp_path / f"{name}.png", "alt", ()) for name, make in figures(data).items()]
    drawn = {picture.name: picture.svg for picture in found if picture is not None}
    assert set(drawn) == {"time", "speedup", "breakdown", "memory", "samples"}
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in drawn)
    assert all(svg.startswith("<svg") and svg.endswith("</svg>\n") for svg in drawn.values())
    assert {path.stem for path in tmp_path.glob("*.png")} == set(drawn)


def test_many_cases_are_thinned_out_and_that_is_said():
    """A figure with a hundred panels takes a minute and tells nobody anything."""
    lines = [record(f"synthetic-{d}s", "f0", b, 0.1 * d) for d in range(1, 41) for b in BOTH]
    lines += [record(f"synthetic-{d}s", "convert", b, 0.1 * d) for d in range(1, 41) for b in BOTH]
    data = run_of("pipeline", lines)
    counts = {"breakdown": 6, "samples": 6}
    for name, count in counts.items():
        figure = drawn(name, data)
        assert len(figure.axes) == count
        assert f"{count} of 40 cases" in figure.get_suptitle().replace("\n", " ")
    figure = drawn("speedup", data)
    assert len(figure.axes[0].get_yticks()) == 12
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()][::11] == ["1 s", "40 s"]
    assert len(drawn("time", data).axes[0].get_xticks()) <= 8  # every point, but not every tick
    assert sum(text.startswith("mlx_cpu, f0") for text in marks(drawn("time", data))) == 40
    assert len([name for name in figures(data) if name.startswith("f0-")]) == 6


def test_figures_of_one_page_share_no_identifier(tmp_path):
    """And everything that refers to something finds it."""
    svgs = [style.save(drawn("growth", grown()), tmp_path / f"{name}.png") for name in ("a", "b")]
    found = [set(re.findall(r' id="([^"]+)"', svg)) for svg in svgs]
    assert found[0]
    assert not found[0] & found[1]
    assert [set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) for svg in svgs] == found


def test_rasters_and_coordinates_are_small(tmp_path):
    """Few colours need one byte a pixel, and no figure is sharper than a hundredth of a point."""
    svg = style.save(drawn("spectra-synthetic-1s", sounds(tmp_path)), tmp_path / "one.png")
    images = re.findall(r'data:image/png;base64,([^"]+)"', svg)
    assert {Image.open(io.BytesIO(base64.b64decode(data))).mode for data in images} == {"P"}
    assert "<!--" not in svg
    bare = re.sub(r'scale\([^)]*\)|base64,[^"]*|aria-label="[^"]*"|<title>[^<]*', "", svg)
    assert not re.search(r"\d\.\d{3}", bare)


def test_figures_of_cases_have_their_names(tmp_path):
    data = sounds(tmp_path)
    assert {"f0-synthetic-1s", "spectra-synthetic-5s"} <= set(figures(data))
    for name in ("f0-synthetic-1s", "spectra-synthetic-1s"):
        check(drawn(name, data))
        assert drawn(name.replace("1s", "5s"), data) is None


@pytest.mark.parametrize(
    "change",
    [{"alt": ""}, {"alt": " "}, {"name": ""}, {"name": "two-words"}, {"sections": ()}, {"sections": ("no such one",)}],
)
def test_a_figure_that_is_not_fully_declared_is_refused(change):
    """When it is declared, hence when the module is imported."""
    fields = {"name": "new", "alt": "What it shows", "sections": ("time",), "draw": lambda run: None}
    Plot(**fields)
    with pytest.raises(ValueError, match="figure"):
        Plot(**fields | change)


def test_every_figure_has_its_own_name_and_text():
    assert len({plot.name for plot in PLOTS}) == len({plot.alt for plot in PLOTS}) == len(PLOTS)


def test_alternative_texts_name_case_suite_and_machine(tmp_path):
    data = sounds(tmp_path)
    found = {name: alt for plot in PLOTS for name, alt, _ in plot.of(data)}
    assert found["f0-synthetic-1s"] == "F0 of all backends, and their difference in cents, on synthetic-1s: pipeline"
    run = run_of("memory", [record("synthetic-1s", "rmvpe", "mlx_cpu")], setting="B")
    assert {name: alt for plot in PLOTS for name, alt, _ in plot.of(run)} == {
        "growth": "Memory over many lengths in one process: memory, machine B",
        "memory": "Peak memory against duration: memory, machine B",
    }


def test_a_figure_without_a_title_or_text_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="no title"):
        pictures.drawn(plt.figure, tmp_path / "bare.png", "alt", ())
    with pytest.raises(ValueError, match="no alternative text"):
        pictures.drawn(lambda: drawn("time", pipeline()), tmp_path / "mute.png", "", ())


# ---------------------------------------------------------------------- single figures
def test_the_slope_is_in_the_panel():
    figure = drawn("time", pipeline(durations=(1, 5, 10)))
    assert "slopes of fitted lines" in figure.get_suptitle()
    whole = next(axis for axis in figure.axes if axis.get_title() == "convert")
    slopes = [text.get_text() for text in whole.get_legend().get_texts()]
    assert [float(text.split()[0]) for text in slopes] == pytest.approx([1600, 3200], rel=0.05)
    assert all(text.endswith(" ms per s") for text in slopes)


def test_two_durations_have_no_slope():
    figure = drawn("time", pipeline())
    assert "slopes" not in figure.get_suptitle()
    assert all(axis.get_legend() is None for axis in figure.axes)


def test_a_mark_tells_the_time_with_its_interval():
    told = next(text for text in marks(drawn("time", pipeline())) if text.startswith("mlx_cpu, f0, 1 s"))
    assert re.fullmatch(r"mlx_cpu, f0, 1 s of audio: [\d.]+ ms \[[\d.]+, [\d.]+\]", told)


def test_parts_add_up_to_the_bar():
    figure = drawn("breakdown", pipeline())
    ends = [max(bar.get_x() + bar.get_width() for bar in axis.patches) for axis in figure.axes]
    assert ends == pytest.approx([2 * 1.5 * 1.02, 10 * 1.5 * 1.02], rel=0.02)


def test_spectra_of_both_sides_share_a_scale(tmp_path):
    figure = drawn("spectra-synthetic-1s", sounds(tmp_path))
    scales = [axis.images[0].get_clim() for axis in figure.axes if axis.images]
    assert scales[0] == scales[1] != scales[2]


def test_a_waterfall_ends_where_everything_is_on():
    (one,) = ablation_figures.waterfalls(ablation())
    assert [step.name for step in one.steps] == ["gemm_conv", "tile"]
    assert one.start.value / (3.0 * 0.9) / one.together == pytest.approx(one.end.value)
    told = marks(drawn("waterfall", ablation()))
    assert any("nothing on" in text for text in told)
    assert any("do not explain 1.48 ×" in text for text in told)


def test_the_roof_is_the_best_of_a_device():
    assert roofs(components())["cpu"][:2] == (2e11, 4e10)
    told = marks(drawn("roofline", components()))
    assert any(text.startswith("mlx_cpu, mel,") and "10.1 FLOP per byte" in text for text in told)


@pytest.mark.parametrize("lacking", ["peaks", "work"])
def test_no_roofline_without_both_halves(lacking):
    assert drawn("roofline", components(**{lacking: False})) is None


def test_few_samples_are_no_distribution():
    lines = [record("synthetic-1s", "f0", b, samples=1, launches=1) for b in BOTH]
    assert drawn("samples", run_of("pipeline", lines)) is None


def test_panels_of_samples_hold_twelve_rows():
    lines = [record("synthetic-1s", f"part{i}", b) for i in range(10) for b in BOTH]
    assert [len(axis.get_yticks()) for axis in drawn("samples", run_of("components", lines)).axes] == [10, 10]


# ---------------------------------------------------------------------- traces
def test_added_and_inherited_errors_are_told_apart(tmp_path):
    picture = pictures.drawn(lambda: trace_plot.heat(walked()), tmp_path / "stages.png", "alt", ())
    assert (tmp_path / "stages.png").stat().st_size > 5000
    figure = trace_plot.heat(walked("Machine Two"))
    check(figure)
    assert "Machine Two" in figure.get_suptitle()
    told = marks(figure)
    fault = "unet.encoder.layers.0, as configured, probe clip: local error 2e+03 % of its limit"
    assert any(text.startswith(fault) and text.endswith("at fault") for text in told)
    assert any(text.startswith("cnn, as configured") and text.endswith("inherits an error") for text in told)
    assert any(text.startswith("f0, as configured") and text.endswith("within the limit") for text in told)
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {trace_plot.WORDS[FAULT], trace_plot.WORDS[INHERITED], "empty: no such value"} == names
    assert picture.svg.count('class="mark"') == len(told)


def test_what_cannot_be_compared_is_at_the_end_of_the_scale():
    rows = [stage("mel"), stage("cnn") | {"added": {"reason": "NaN"}, "chained": {"reason": "NaN"}, "status": FAULT}]
    figure = trace_plot.heat(walked()._replace(rows=rows))
    assert any("without a limit" in text for text in marks(figure))


def test_parts_keep_the_order_of_the_model():
    assert trace_plot.merged([["a", "c", "d"], ["a", "b", "c"], ["x", "a"]]) == ["x", "a", "b", "c", "d"]


def test_many_parts_become_coarser():
    walk = [f"segment.{s}.audio.enc_p.encoder.attn_layers.{i}.conv_q" for s in range(3) for i in range(30)]
    parts, named = trace_plot.columns([walk])
    assert parts == ["segment.audio.enc_p.encoder.attn_layers"]
    assert set(named) == set(walk)


# ---------------------------------------------------------------------- fits
def test_a_line_goes_through_what_lies_on_one():
    found = fits.line([1, 5, 60], [0.3 + 0.2 * d for d in (1, 5, 60)])
    assert (found.intercept, found.slope) == pytest.approx((0.3, 0.2))
    assert found.at(np.array([10.0])) == pytest.approx([2.3])


def test_a_line_weighs_relative_errors():
    durations, values = np.array([1.0, 2, 5, 10]), np.array([1.0, 2.4, 4.4, 12])
    found = fits.line(durations, values)
    best = (((found.at(durations) - values) / values) ** 2).sum()
    for a, b in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        other = fits.Line(found.intercept + a, found.slope + b)
        assert (((other.at(durations) - values) / values) ** 2).sum() > best


@pytest.mark.parametrize("durations", [[], [1], [2, 2], [1, 2], [1, 2, 2]])
def test_no_line_through_fewer_than_three_durations(durations):
    assert fits.line(durations, [1.0] * len(durations)) is None


def test_a_line_needs_positive_values():
    with pytest.raises(ValueError, match="positive"):
        fits.line([1, 2], [1.0, 0.0])


# ---------------------------------------------------------------------- ticks
@pytest.mark.parametrize("low", [1e-4, 0.03, 0.9, 7])
@pytest.mark.parametrize("reach", [1.02, 1.5, 10, 1e6])
def test_ticks_are_few_and_inside(low, reach):
    found = style.one_two_five(low, low * reach)
    assert 1 <= len(found) <= 8
    assert found == sorted(found)
    assert all(low <= v <= low * reach and math.isfinite(v) for v in found)


def test_a_legend_of_many_long_names_stays_inside():
    figure, axes = style.panels(1, 2.0, width=style.WIDTH)
    for i in range(7):
        axes[0].plot([0, 1], [0, i], label=f"{'n' * 14}_{i} over torch_cpu")
    style.legend_below(figure, axes)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_nine_ports_look_different():
    styles = style.Styles(style.STYLES)
    names = [f"port_{i}" for i in range(9)]
    assert len({styles[name] for name in [*names, *style.STYLES]}) == len({*names, *style.STYLES})
