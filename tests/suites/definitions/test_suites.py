"""Every suite on tiny models: whole runs as a user starts them, and faults that must be found where they are."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import strict
from command import suites as run_suites
from quick_runs import figures, workers_inside

from suites.base.records import read_lines, records
from suites.child.served import named
from suites.definitions import SUITES
from suites.definitions.pipeline import Recorder
from suites.definitions.synthesizer import pitch_codes
from suites.inputs.recordings import make_audio
from suites.inputs.weights import find_weights, voice_names
from suites.measure.config import compose_config
from suites.measure.verdict import Judge
from suites.metrics.floors import component_limits
from suites.metrics.limits import Limits, in_doubt

ROOT = Path(__file__).parents[3]
NEW = ("hubert", "synthesizer", "pipeline", "components")  # RMVPE has tests of its own
PACKAGES = ("rvc_mlx", "reference_torch")


# ---------------------------------------------------------------------- whole runs
@pytest.fixture(scope="module", params=NEW)
def finished(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    seconds = 1 if request.param == "pipeline" else 0.3
    words = ["measure=smoke", f"durations=[{seconds}]", "suite.speech_clip=false", "backends=[torch_cpu,mlx_cpu]"]
    words += ["threads=1", "measure.warmup_seconds=0", "measure.first_calls=1"]  # tests run beside each other
    with workers_inside(), figures("time", "speedup", "memory"):
        done = run_suites("run", request.param, *words, f"out={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    return SUITES[request.param], folder


def test_a_run_measures_every_component_and_passes(finished):
    suite, folder = finished
    schema = strict()
    lines = list(read_lines(folder / "records.jsonl"))
    for line in lines:
        schema.validate(line)
    closed = records(lines)
    assert {r["status"] for r in closed} == {"passed"}
    components = compose_config(closed[0]["suite"], []).suite.components
    assert {(r["component"], r["backend"]) for r in closed} == {
        (component, backend) for component in components for backend in ("torch_cpu", "mlx_cpu")
    }
    for record in closed:
        assert len(record["samples_s"]) == 2
        assert bool(record["cold"]) == (record["component"] == suite.whole)
        judged = record["backend"] == "mlx_cpu"
        assert bool(record["parity"] and record["parity"]["limits"]) == judged


def test_a_report_of_every_suite(finished):
    suite, folder = finished
    text = (folder / "report.md").read_text()
    page = (folder / "report.html").read_text()
    assert "**Passed**" in text
    assert ("## F0 of the backends" in text) == (suite.whole == "convert")
    assert ("<audio controls" in page) == (suite.whole == "convert")
    drawn = {"time.png", "speedup.png", *(["memory.png"] if suite.whole else [])}
    assert {p.name for p in (folder / "plots").iterdir()} >= drawn
    assert all(f"**{name}**" in text for name in suite.timed(()) if name != suite.whole)


def test_what_a_conversion_leaves(finished):
    suite, folder = finished
    if suite.whole != "convert":
        assert not (folder / "audio").exists()
        return
    made = [soundfile.read(folder / "audio" / f"synthetic-1s.{b}.wav") for b in ("torch_cpu", "mlx_cpu")]
    assert [rate for _, rate in made] == [40000, 40000]
    assert made[0][0].size == made[1][0].size == pytest.approx(40000, rel=0.03)
    times = {(r["component"], r["backend"]): r["samples_s"] for r in records(read_lines(folder / "records.jsonl"))}
    for backend in ("torch_cpu", "mlx_cpu"):
        parts = [samples for (name, where), samples in times.items() if where == backend and name != "convert"]
        for total, whole in zip(map(sum, zip(*parts, strict=True)), times["convert", backend], strict=True):
            assert total == pytest.approx(whole, rel=0.03)
    assert "sum of the parts ms" in (folder / "report.md").read_text()


# ---------------------------------------------------------------------- faults
def outcome(name, folder, **changes):
    """What the reference makes of a short clip, as a run would collect it; also settings and limits."""
    config = compose_config(name, ["measure=smoke"])
    suite, settings = SUITES[name], config.settings(None) | changes
    voice = settings.get("voice")
    paths = {n: str(find_weights(n, None, 25, "tiny", voice, folder).path) for n in suite.checkpoints}
    model = suite.load(importlib.import_module("reference_torch"), paths, {}, settings)
    facts = suite.facts(model)
    given = suite.inputs(make_audio("synthetic", 0.5, None, 0, 30), settings, facts)
    for key, source in suite.shared:
        made = named(call := source.partition(".")[0], suite.calls(model, given, settings)[call]())
        given |= {key: made[source]} if source in made else {}
    components = suite.components(tuple(settings["components"]), facts)
    calls = suite.calls(model, given, settings)
    found = {}
    for call in (*suite.extras, *suite.timed(components)):
        found |= named(call, calls[call]())
    return suite, components, found, settings


@pytest.fixture(scope="module", params=NEW)
def reference(request, tmp_path_factory):
    return outcome(request.param, tmp_path_factory.getbasetemp() / "weights")


def verdicts(reference, results):
    suite, components, found, settings = reference
    limits = component_limits(suite.name, "fp32", settings["limits"]["fp32"])
    judge = Judge(suite, limits, settings, found)
    return {component: judge(component, results, False)["status"] for component in components}


def test_equal_results_pass(reference):
    assert set(verdicts(reference, reference[2]).values()) == {"passed"}


def test_what_both_sides_compute_with_the_same_code_is_marked(reference):
    suite, components, found, settings = reference
    judge = Judge(suite, component_limits(suite.name, "fp32", settings["limits"]["fp32"]), settings, found)
    marked = {name for name in components if judge(name, found, False)["parity"].get("same_code")}
    assert marked == {"filter"} & set(components)


FAULTS = {
    "extract": ({"extract"}, "extract"),
    "encode": ({"encode"}, "encode|encode.logs_p"),
    "features": ({"features"}, "features"),
    "attention": ({"attention"}, "attention_steps.weights"),
    "flow": ({"flow"}, "flow"),
    "source": ({"source"}, "source"),
    "decode": ({"decode"}, "decode"),
    "infer": ({"infer"}, "infer"),
    "filter": ({"filter"}, "given_f0.filtered"),
    "cuts": ({"filter"}, "given_f0.cuts"),
    "f0": ({"f0"}, "convert.f0"),
    "content": ({"content"}, "given_f0.segment.0.features"),
    "blend": ({"blend"}, "given_f0.segment.0.phone"),
    "retrieval": ({"blend"}, "knobs.segment.0.phone"),
    "synthesis": ({"synthesis"}, "given_f0.segment.0.audio"),
    "finish": ({"finish", "convert"}, "given_f0.audio"),
    "convert": ({"convert"}, "convert.audio"),
    "knobs": ({"convert"}, "knobs.audio"),
}


@pytest.mark.parametrize("change", ["off", "NaN", "shorter"])
def test_faults_fail_where_they_are(reference, change):
    _, components, found, _ = reference
    tried = 0
    for expected, keys in FAULTS.values():
        key = next((k for k in keys.split("|") if k in found), None)
        if key is None or not expected <= set(components):
            continue
        tried += 1
        wrong = found[key].astype(np.float64) * 1.02 + 1e-3 if change != "shorter" else found[key][..., :-1]
        if change == "off" and key.endswith("cuts"):
            wrong = np.append(found[key], 160)
        if change == "NaN":
            if key.endswith("cuts"):
                continue
            wrong.flat[wrong.size // 2] = np.nan
        if change == "shorter" and found[key].shape[-1] == 0:
            continue
        status = verdicts(reference, found | {key: wrong})
        assert {name for name, word in status.items() if word != "passed"} == expected, key
    assert tried >= 3


def test_a_voice_without_pitch(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "weights"
    for name, absent in (("synthesizer", "source"), ("pipeline", "f0")):
        found = outcome(name, folder, voice="synth_v2_48k_nof0")
        assert absent not in found[1]
        assert set(verdicts(found, found[2]).values()) == {"passed"}


@pytest.mark.parametrize("package", PACKAGES)
def test_reduced_models_load_strictly(package, tmp_path_factory):
    folder, side = tmp_path_factory.getbasetemp() / "weights", importlib.import_module(package)
    hubert = side.Hubert.from_checkpoint(find_weights("hubert", None, 25, "tiny", None, folder).path)
    audio = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    for name in voice_names():
        voice = side.Synthesizer.from_checkpoint(find_weights("voice", None, 25, "tiny", name, folder).path)
        assert hubert.features(audio, voice.version).shape[1] == voice.phone_channels
        assert (voice.has_f0, voice.sample_rate) == ("nof0" not in name, int(name.split("_")[2][:2]) * 1000)


# ---------------------------------------------------------------------- the judge
def check(name, value, base, floor=None):
    return Limits({name: base}).check(name, value, floor)[name]


@pytest.mark.parametrize(
    ("name", "base", "good", "bad"),
    [
        ("max_abs", 1e-5, 9e-6, 1.1e-5),
        ("snr_db", 80, 81, 79),
        ("corr", 0.99999, 0.999995, 0.9999),
        ("voicing_mismatches", 0, 0, 1),
    ],
)
def test_directions(name, base, good, bad):
    assert check(name, good, base)["passed"]
    assert not check(name, bad, base)["passed"]
    assert not check(name, float("nan"), base)["passed"]
    assert check(name, good, base)["limit"] == base


@pytest.mark.parametrize(
    ("name", "base", "floor", "limit"),
    [
        ("max_abs", 1e-5, 4e-6, 1.2e-5),
        ("max_abs", 1e-5, 1e-6, 1e-5),
        ("max_abs", 1e-5, 1.0, 3e-4),  # capped
        ("snr_db", 80, 120, 80),
        ("snr_db", 80, 80, 80 - 20 * np.log10(3)),
        ("snr_db", 80, 10, 60 - 20 * np.log10(3)),  # capped
        ("corr", 0.99, 0.996, 0.964),  # three times the amplitude: nine times the distance from one
        ("voicing_mismatches", 0, 2, 2),
    ],
)
def test_floors_move_limits_either_way(name, base, floor, limit):
    found = check(name, base, base, floor)
    assert found["limit"] == pytest.approx(limit)
    assert in_doubt(name, found) == (floor in (1.0, 10))


def test_perfect_and_worthless_ratios():
    assert check("snr_db", float("inf"), 80)["passed"]
    assert not check("snr_db", float("-inf"), 80)["passed"]


def test_no_limit_no_judgement():
    assert Limits({"max_abs": None}).check("max_abs", 1.0) == {}


# ---------------------------------------------------------------------- parts
def test_parts_must_add_up():
    suite, settings = SUITES["pipeline"], {"parts_tolerance": 0.03}
    samples = {"filter": {0: 0.4, 1: 0.4}, "synthesis": {0: 0.59, 1: 0.5}, "convert": {0: 1.0, 1: 1.0}}
    assert "90.0 % of the whole in round 1" in suite.timing_fault("convert", samples, settings)
    assert suite.timing_fault("filter", samples, settings) is None
    assert suite.timing_fault("convert", {c: {0: s[0]} for c, s in samples.items()}, settings) is None


def test_a_recorder_gives_unlisted_steps_to_the_next_part():
    recorder = Recorder()
    for path in (
        "filtered",
        "f0",
        "extra",
        "pitch",
        "segment.0.features",
        "segment.0.audio",
        "segment.1.audio",
        "audio",
    ):
        recorder(path, np.zeros(1))
    assert list(recorder.steps.seconds) == ["filter", "f0", "content", "synthesis", "finish"]
    assert "extra" in recorder.steps


def test_pitch_codes():
    codes = pitch_codes(np.array([0.0, 10.0, 50.0, 220.0, 1100.0, 2000.0]))
    assert codes.tolist() == [1, 1, 1, 60, 255, 255]
