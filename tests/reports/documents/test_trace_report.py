"""Reports of a stored trace: the fault in one sentence, the same bytes each time, and no figure that breaks a table."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator
from matplotlib import image

from reports.data import trace as reports
from reports.documents import trace_report
from reports.documents.trace_report import write_report
from suites.base.errors import UserError
from suites.base.lines import SCHEMA, SCHEMA_FILE
from suites.inputs.voice import synthesize
from suites.metrics.audio import compare_audio, compare_pitch, noise_spread
from suites.trace.findings import CONFIGURED, PLAIN
from suites.trace.walk import BLANK, FAULT, REFERENCE_WRONG, WHOLE

LIMIT = {"rmse": 1e-6, "max_abs": 1e-5}
FLOOR = {name: bound / 3 for name, bound in LIMIT.items()}
GENERATOR = "segment.0.audio.dec.resblocks.2.convs1.0"
CLIP = synthesize(0.4, 3)
LATE = compare_audio(np.roll(CLIP.audio, 160), CLIP.audio, 16000)
SHARP = compare_pitch(CLIP.f0_hz * 1.001, CLIP.f0_hz)


def figures(times: float) -> dict[str, Any]:
    """As the worker tells them, of an error of ``times`` its limit."""
    found = {name: times * bound for name, bound in LIMIT.items()}
    return found | {"snr_db": 120.0, "corr": 1 - 1e-9, "values": 800, "cosine": 1.0, "relative": times * 2e-6}


def record(path: str, times: float = 0.4, own: float | None = None, **more: Any) -> dict[str, Any]:
    """A line of a pipeline's trace; on own values the error is ``own`` times the limit."""
    fields: dict[str, Any] = {"probe": "clip", "variant": CONFIGURED, "entry": "x", "shape": [1, 4, 200]}
    fields |= {"rms": 0.5, "peak": 2.0, "limit": LIMIT, "floor": FLOOR, "floor_chained": FLOOR}
    fields |= {"added": figures(times), "chained": figures(times if own is None else own)}
    fields |= {"status": FAULT} if times > 1 else {}
    row = {**BLANK, "path": path, **fields, **more}
    line = {"schema": SCHEMA, "kind": "trace", "suite": "pipeline", "case": row["probe"], "component": path}
    line |= {"backend": "mlx_cpu", "reference": "torch_cpu", "precision": "fp32", "profile": "applio"}
    return line | row


def failed(path: str, reason: str, **more: Any) -> dict[str, Any]:
    """As the trace writes it where there is nothing to compare: no limit, no floor, no own values."""
    none: dict[str, Any] = {"limit": {}, "floor": {}, "floor_chained": None, "chained": {}, "status": FAULT}
    return record(path, entry="", rms=0.0, peak=0.0, added={"reason": reason}, shape=[], **none | more)


SPREAD = {
    f"{name}_{statistic}": 0.5 for name in ("corr", "snr_db", "mr_stft", "lsd_db") for statistic in ("min", "max")
}
SPREAD_LINE = {"schema": SCHEMA, "kind": "spread", "suite": "pipeline", "case": "clip", "component": "noise"}
SPREAD_LINE |= {"backend": "torch_cpu", "seeds": [0, 1, 2, 3], "spread": SPREAD | {"abs_level_db_max": 0.25}}

LINES = [
    record("filtered", entry="filtered", floor_chained={"rmse": "inf", "max_abs": "nan"}),
    record("cuts", 0.0, entry="cuts", exact=True, limit=dict.fromkeys(LIMIT, 0.0), floor=dict.fromkeys(FLOOR, 0.0)),
    record("f0.unet.encoder.layers.0.conv.0"),
    record("f0", entry="f0", heard=SHARP),
    record("segment.0.features.encoder.layers.0", own=0.9),
    record("segment.0.audio.dec.ups.0"),
    record(
        GENERATOR, 500.0, where={"kind": "gain", "sentence": "a gain of 1.06, -0.5 dB off", "facts": {"gain": 1.06}}
    ),
    record("segment.0.audio.dec.resblocks.2", own=700.0),
    record("segment.0.audio.dec.conv_post", own=900.0),
    record("segment.0.audio", own=900.0, entry="audio", heard=LATE),
    record("joined", chained={"reason": "on its own values it goes to the end instead of joined"}, entry="joined"),
    record(WHOLE, 0.0, 900.0, entry="audio"),
    record("filtered", probe="knobs", entry="filtered"),
    failed("segment.1.phone", "this stage is missing", probe="knobs"),
    record("segment.1.audio", probe="knobs", entry="audio", added={"reason": "the result has 3 NaN or infinite values"})
    | {"status": FAULT, "chained": {"reason": "the result has 3 NaN or infinite values"}},
    record("filtered", variant=PLAIN, entry="filtered"),
    record("filtered", variant="without tile", entry="filtered"),
    SPREAD_LINE,
]
CONFIG = {
    "suite": {"name": "pipeline"},
    "precision": "fp32",
    "profile": "applio",
    "overrides": ["measure=smoke", "out=/tmp/here", "audio=my song.wav"],
}
ENVIRONMENT = {
    "cpu": "a processor",
    "packages": {"torch": "2.8.0", "mlx": "0.32.4", "faiss": None},
    "weights": {"hubert": {"label": "seeded hubert"}, "voice": {"label": "seeded voice"}},
}


def write(folder: Path, lines: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.jsonl").write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    return folder


@pytest.fixture
def stored(tmp_path):
    return write(tmp_path / "trace", LINES)


class Written(NamedTuple):
    folder: Path
    text: str
    trace: reports.Trace


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(trace_report, "drawn", lambda *_: None)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The stored trace with its report."""
    folder = write(tmp_path_factory.mktemp("written") / "trace", LINES)
    path, trace = write_report(folder)
    return Written(folder, path.read_text(), trace)


def test_the_stored_lines_are_what_a_trace_writes():
    validator = Draft202012Validator(json.loads(SCHEMA_FILE.read_text()) | {"unevaluatedProperties": False})
    for line in LINES:
        validator.validate(line)


# ---------------------------------------------------------------------- the finding
def test_the_fault_is_told_in_one_sentence_everywhere(written):
    trace = written.trace
    sentence = reports.verdict(trace)
    assert trace.finding is not None
    assert trace.finding.path == GENERATOR
    assert sentence == trace.finding.sentence
    assert sentence.startswith(f"First stage at fault: `{GENERATOR}`: a gain of 1.06, -0.5 dB off (error 0.005")
    assert "4 later values are right in themselves and only inherit the error." in sentence
    assert f"**Failed**: {sentence}" in written.text
    assert reports.terminal(trace).endswith(sentence.replace("`", ""))


def test_a_clean_trace_passes(tmp_path, undrawn):
    path, trace = write_report(write(tmp_path, [record("filtered"), record(WHOLE)]))
    assert trace.finding is None
    told = "No stage at fault: all 2 values of mlx_cpu lie within what rounding explains beside torch_cpu."
    assert f"**Passed**: {told}" in path.read_text()
    assert reports.terminal(trace).endswith(told)


def test_shared_stages_are_told_apart(tmp_path, undrawn):
    path, trace = write_report(write(tmp_path, [record("filtered", shared=True), record("f0"), record(WHOLE)]))
    assert {line[0]: line[-1] for line in reports.table(trace.rows)} == {
        "filtered": "same code",
        "f0": "ok",
        WHOLE: "ok",
    }
    assert "all 2 values of mlx_cpu" in reports.verdict(trace)
    assert reports.verdict(trace).endswith("1 more come from code that both sides share, which proves nothing.")
    assert path.read_text().count("same code |") == 2  # the validation table and the table of stages


def test_numbers_that_json_lacks_come_back(written):
    trace = written.trace
    assert trace.rows[0]["floor_chained"]["rmse"] == math.inf
    assert math.isnan(trace.rows[0]["floor_chained"]["max_abs"])
    assert (trace.model, trace.backends) == ("pipeline", ("mlx_cpu", "torch_cpu"))
    assert (len(trace.rows), len(trace.spreads)) == (len(LINES) - 1, 1)


def test_same_records_same_bytes(stored, written):
    """In a folder of the same name."""

    def everything(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first = everything(written.folder)
    assert {"report.md", "report.html", "plots/stages.png"} <= set(first)
    write_report(stored)
    assert everything(stored) == first
    trace = reports.load(stored)
    assert reports.terminal(trace) == reports.terminal(reports.load(stored))


def test_the_command_repeats_the_trace_elsewhere(written):
    assert "python -m suites trace pipeline measure=smoke 'audio=my song.wav'\n" in written.text
    assert "out=" not in written.text
    assert "a processor; torch 2.8.0, mlx 0.32.4." in written.text


# ---------------------------------------------------------------------- tables
def tables(text: str) -> list[list[list[str]]]:
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.M)
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()] for block in blocks]


def test_no_table_has_ragged_rows(written):
    found = tables(written.text)
    assert len(found) == 1 + 4  # the validation, and one per walk
    for lines in found:
        assert len({len(line) for line in lines}) == 1


def test_the_part_at_fault_is_marked_and_what_follows_inherits(written):
    rows = [row for row in written.trace.rows if (row["variant"], row["probe"]) == (CONFIGURED, "clip")]
    verdicts = {line[0].strip(): line[-1] for line in reports.table(rows)}
    assert verdicts["segment.0.audio.dec.resblocks.2"] == "AT FAULT"
    assert verdicts[".convs1.0 x"] == "AT FAULT"
    assert verdicts["segment.0.audio.dec.ups.0"] == "ok"
    assert verdicts["joined"] == verdicts[WHOLE] == "inherited"


def test_the_terminal_lists_every_value_when_asked_to(written):
    trace = written.trace
    short, long = reports.terminal(trace), reports.terminal(trace, show_all=True)
    for row in trace.rows:
        assert re.search(rf"^{re.escape(row['path'])} +{row['entry']} ", long, flags=re.M)
    assert "segment.0.audio.dec.conv_post " not in short
    assert "plain, probe clip: 1 values, none above 40 % of its limit" in short


def test_what_one_hears_is_told(written):
    for text in (reports.terminal(written.trace), written.text):
        assert "one frame (160 samples) late" in text
        assert f"0 of {CLIP.f0_hz.size} frames voiced otherwise, largest difference in cents 1.7" in text
        assert "delay in samples +160" in text
        assert "The same PyTorch model under 4 noise seeds" in text


def test_the_validation_stands_in_the_report(written):
    validation = tables(written.text)[0]
    verdicts = {line[0].strip(): line[-1].strip() for line in validation[2:]}
    assert verdicts["High-pass, cuts and padding"] == "ok"
    assert verdicts["Retrieval and protection"] == "AT FAULT"
    assert verdicts["Content features"] == "not walked"


# ---------------------------------------------------------------------- what has no figures
NOTHING = {
    "a stage is missing": failed("segment.0.phone", "this stage is missing"),
    "a worker was lost at once": failed("", "a worker was lost: killed"),
    "NaN": record("filtered", added={"reason": "the result has 3 NaN or infinite values"}, status=FAULT),
    "the call raises": record(WHOLE, added={"reason": "the call raises ValueError: no | pipe"}, status=FAULT),
    "no chain": record("filtered", chained={"reason": "absent"}),
    "silence": record("filtered", 0.0, rms=0.0, peak=0.0, limit=dict.fromkeys(LIMIT, 0.0)),
    "infinite figures": record("filtered", added=figures(1.0) | {"max_abs": "inf", "rmse": "inf"}, status=FAULT),
    "undefined figures": record("filtered", added=figures(0.1) | {"snr_db": None, "corr": None, "relative": None}),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_a_trace_of_one_value_without_figures_is_told(tmp_path, kind, undrawn):
    path, trace = write_report(write(tmp_path, [NOTHING[kind]]))
    wrong = NOTHING[kind]["status"] == FAULT
    assert (trace.finding is not None) == wrong
    assert ("**Failed**" in path.read_text()) == wrong
    for everything in (False, True):
        assert ("AT FAULT" in reports.terminal(trace, everything)) == wrong
    for lines in tables(path.read_text()):
        assert len({len(line) for line in lines}) == 1


def test_all_values_without_figures_at_once(tmp_path):
    path, trace = write_report(write(tmp_path, list(NOTHING.values())))
    assert trace.finding is not None
    assert "this stage is missing" in path.read_text()
    assert reports.terminal(trace, show_all=True)


SILENCE = np.zeros_like(CLIP.audio)
SOUNDS = {
    "equal": compare_audio(CLIP.audio, CLIP.audio, 16000),
    "silent": compare_audio(SILENCE, CLIP.audio, 16000),
    "both silent": compare_audio(SILENCE, SILENCE, 16000),
    "unvoiced": compare_pitch(CLIP.f0_hz * 0, CLIP.f0_hz),
}


@pytest.mark.parametrize("kind", SOUNDS)
def test_silence_has_a_line_too(kind):
    (line,) = reports.audible([record("audio", entry="audio", heard=SOUNDS[kind])])
    assert line.startswith("as configured, clip, `audio`: ")
    assert "nan" not in line


def test_a_spread_of_equal_signals_is_told(tmp_path, undrawn):
    """Noise that does not reach the output leaves no SNR to tell."""
    spread = noise_spread([CLIP.audio] * 3, 16000)
    assert spread["snr_db_min"] is None
    path, _ = write_report(write(tmp_path, [record("audio"), SPREAD_LINE | {"spread": spread}]))
    assert "in pairs: waveform correlation 1.000 to 1.000" in path.read_text()


def test_a_trace_without_stages_is_refused(tmp_path):
    """A comparison of nothing is no pass."""
    for lines in ([], [SPREAD_LINE]):
        with pytest.raises(UserError, match="ended before its first stage"):
            write_report(write(tmp_path, lines))


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        reports.load(tmp_path)


def test_a_line_that_was_cut_off_is_left_out(stored):
    with (stored / "records.jsonl").open("a") as file:
        file.write(json.dumps(LINES[0])[:-9])
    assert len(reports.load(stored).rows) == len(LINES) - 1


# ---------------------------------------------------------------------- documents
def check_pictures(folder: Path, count: int) -> None:
    pictures = sorted((folder / "plots").glob("*.png"))
    assert len(pictures) == count
    for path in pictures:
        pixels = image.imread(path)[..., :3]
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique((255 * pixels).astype(int) @ [1, 256, 65536])) > 20
        assert 0.005 < (pixels.min(axis=-1) < 0.9).mean() < 0.9


def test_the_pictures_are_not_blank(written, tmp_path):
    check_pictures(written.folder, 1)
    write_report(write(tmp_path, [NOTHING["NaN"]]))
    check_pictures(tmp_path, 1)


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.0, "0"), (1.25e-7, "1.2e-07"), (math.inf, "inf")])
def test_printed_figures(value, text):
    assert reports.figure(value) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0"), (0.404, "40"), (9.99, "999"), (10.5, ">1000"), (math.inf, ">1000")]
)
def test_printed_shares(share, text):
    assert reports.percent(share) == text


# ---------------------------------------------------------------------- a wrong reference
def test_a_wrong_reference_is_told_everywhere_and_is_no_failure(tmp_path, undrawn):
    told = (
        "the reference is wrong here: `segment.0.audio.dec.ups.0`, ConvTranspose1d(512, 256), with output [1, 2] is 0.2"
    )
    where = {"kind": "reference", "sentence": told, "facts": {"operation": "ConvTranspose1d(512, 256)", "times": 9e4}}
    lines = [record("filtered"), record("segment.0.audio.dec.ups.0", status=REFERENCE_WRONG, where=where)]
    validator = Draft202012Validator(json.loads(SCHEMA_FILE.read_text()) | {"unevaluatedProperties": False})
    validator.validate(lines[1])
    path, trace = write_report(write(tmp_path / "trace", lines))
    assert trace.finding is None
    for text in (path.read_text(), path.with_suffix(".html").read_text(), reports.terminal(trace)):
        assert "No stage of mlx_cpu is at fault" in text
        assert "The reference is wrong here" in text
        assert "ConvTranspose1d(512, 256)" in text
    assert "**Passed**" in path.read_text()
    assert "reference wrong" in path.read_text()
    assert (tmp_path / "trace" / "stages.csv").read_text().count("reference wrong") == 1


def test_a_reference_that_is_not_finite_leaves_the_trace_unjudged(tmp_path, undrawn):
    where = {"kind": "reference", "sentence": "the reference is wrong here", "facts": {"finite": False, "times": "inf"}}
    lines = [record("filtered"), record("segment.0.audio.dec.ups.0", status=REFERENCE_WRONG, where=where)]
    path, trace = write_report(write(tmp_path / "trace", lines))
    told = "computes NaN or infinite values, first in stage segment.0.audio.dec.ups.0; nothing after it can be compared"
    assert told in str(reports.unjudged(trace))
    assert told in path.read_text()
    assert "**Failed**" in path.read_text()
    assert reports.exit_code(trace) == 2
    _, trace = write_report(write(tmp_path / "other", [record("cuts", times=5.0), *lines]))
    assert (reports.unjudged(trace), reports.exit_code(trace)) == (None, 1)
