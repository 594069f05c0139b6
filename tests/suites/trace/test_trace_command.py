"""``trace``, ``selftest`` and ``floors`` as a user starts them, on tiny models."""

from __future__ import annotations

import pytest
from command import strict
from made_bundles import few_probes
from quick_runs import figures
from small_models import VOICES

from rvc_mlx import refinegan
from rvc_mlx.audio import LogMel
from rvc_mlx.rmvpe import RMVPE
from suites.__main__ import main
from suites.base.records import read_lines
from suites.definitions import rmvpe
from suites.faults import FAULTS
from suites.measure.config import compose_config
from suites.measure.launch import WorkerError
from suites.selftest.faults import Outcome, summary
from suites.trace import run
from suites.trace.run import PLAIN, TraceRun

SMALL = ["measure=smoke", "durations=[0.5]"]
SHORT = ["measure=smoke", "durations=[0.2]"]


def trace(capsys, *words: str) -> tuple[int, str]:
    code = main(["trace", *words])
    return code, capsys.readouterr().out


@pytest.fixture
def injected(monkeypatch):
    """Every model of MLX's side is loaded with this fault in it."""

    def choose(name: str) -> None:
        load = TraceRun._load

        def with_fault(self, backend, optimize):
            if backend == self.other:
                self.workers[backend].ask("inject", 60, name=name)
            return load(self, backend, optimize)

        monkeypatch.setattr(TraceRun, "_load", with_fault)

    return choose


@pytest.fixture
def clip_alone():
    """Of a model's probes; the clean pair of the self-test below, and the clean trace, walk all of them."""
    with few_probes("clip", kind=TraceRun):
        yield


def test_a_clean_trace_passes_and_leaves_its_records(capsys, tmp_path, monkeypatch):
    """With a process for either side, as users have it; the plain path, which the self-test below walks on all probes
    of RMVPE, is walked here on the clip."""
    walk = TraceRun.walk

    def shorter(self, probes, variant):
        return walk(self, (probe for probe in probes if variant != PLAIN or probe.name == "clip"), variant)

    monkeypatch.setattr(TraceRun, "walk", shorter)
    with figures():
        code, out = trace(capsys, "hubert", *SHORT, f"out={tmp_path / 't'}")
    assert code == 0
    assert "No stage at fault" in out
    assert out.splitlines()[-1] == f"report: {tmp_path / 't' / 'report.md'}"
    for name in ("report.md", "report.html", "records.jsonl", "config.yaml", "environment.json"):
        assert (tmp_path / "t" / name).stat().st_size > 0
    schema = strict()
    lines = list(read_lines(tmp_path / "t" / "records.jsonl"))
    for line in lines:
        schema.validate(line)
    assert {line["variant"] for line in lines} == {"as configured", "plain"}
    before = (tmp_path / "t" / "report.md").read_bytes()
    with figures():
        assert main(["report", str(tmp_path / "t")]) == 0
    assert (tmp_path / "t" / "report.md").read_bytes() == before
    assert main(["trace", "hubert", *SHORT, f"out={tmp_path / 't'}"]) == 2  # never over another one


@pytest.mark.usefixtures("quick", "clip_alone")
def test_the_published_fault_is_placed_told_and_pinned(capsys, tmp_path, injected):
    injected("rmvpe/transposed-zero-padded")
    code, out = trace(capsys, "rmvpe", *SMALL, f"out={tmp_path / 't'}")
    assert code == 1
    sentence = next(line for line in out.splitlines() if line.startswith("First stage at fault"))
    assert "unet.decoder.layers.0.conv1: last row and column; zero there" in sentence
    assert "belongs to the optimisation gemm_conv" in sentence
    assert "**Failed**" in (tmp_path / "t" / "report.md").read_text()
    assert main(["report", str(tmp_path / "t")]) == 1


@pytest.mark.usefixtures("quick", "clip_alone")
def test_the_plain_walk_names_the_innermost_stage(capsys, tmp_path, injected):
    injected("rmvpe/kernel-transposed")
    code, out = trace(capsys, "rmvpe", *SHORT, f"out={tmp_path / 't'}")
    assert code == 1
    assert "First stage at fault: unet.encoder.layers.1.conv.1.conv.0:" in out


@pytest.mark.usefixtures("quick", "clip_alone")
def test_a_block_that_starts_too_early_is_placed_although_no_walk_has_blocks(capsys, tmp_path, monkeypatch):
    block = LogMel._block
    monkeypatch.setattr(LogMel, "_block", lambda self, x, start, count: block(self, x, max(0, start - 3), count))
    code, out = trace(capsys, "rmvpe", *SHORT, "durations=[1]", "suite.trace.plain=false", f"out={tmp_path / 't'}")
    assert code == 1
    assert "First stage at fault: mel: " in out
    assert ", once its tiles and blocks are small (error " in out


@pytest.mark.usefixtures("quick")
def test_the_padding_of_a_mel_that_is_given_is_a_stage(capsys, tmp_path, monkeypatch):
    pad = RMVPE._pad_frames
    monkeypatch.setattr(RMVPE, "_pad_frames", lambda self, mel: pad(self, mel - 1) + 1)
    with few_probes("1 mels, webui", kind=TraceRun):
        code, out = trace(capsys, "rmvpe", *SHORT, "suite.trace.plain=false", f"out={tmp_path / 't'}")
    assert code == 1
    assert "First stage at fault: padded_log_mel: " in out


@pytest.mark.usefixtures("quick")
def test_the_decoders_that_the_voice_lacks_are_walked_on_small_voices(capsys, tmp_path, monkeypatch):
    stretch = refinegan.stretch
    monkeypatch.setattr(refinegan, "stretch", lambda x, rate: stretch(x, rate) * 1.01)
    monkeypatch.setattr(run, "VOICE_SECONDS", 0.1)
    words = [*SHORT, "suite.trace.plain=false", "suite.trace.spread=false"]
    with few_probes(*(f"voice {name}" for name in VOICES), kind=TraceRun):
        code, out = trace(capsys, "synthesizer", *words, f"out={tmp_path / 't'}")
        assert code == 1
        assert "First stage at fault: dec.upsample_blocks.0: " in out
        assert "on probe 'voice synth_v2_24k_f0_refinegan'" in out
        walked = {line["probe"] for line in read_lines(tmp_path / "t" / "records.jsonl")}
        assert walked == {f"voice synth_v2_{name}" for name in ("32k_f0_mrf", "24k_f0_refinegan", "48k_nof0")}
    one = TraceRun(compose_config("synthesizer", [*words, "suite.voice=synth_v2_24k_f0_refinegan"]))
    assert one._other_voices() == ["synth_v2_32k_f0_mrf", "synth_v2_48k_nof0"]  # not twice


@pytest.mark.usefixtures("quick")
def test_a_voice_that_cannot_be_loaded_is_a_finding_and_costs_nothing_else(capsys, tmp_path, monkeypatch):
    load = TraceRun._load

    def loaded(self, name, optimize):
        if name == self.other and "refinegan" in self.weights["voice"].label:
            raise WorkerError("ValueError", "no such decoder")
        return load(self, name, optimize)

    monkeypatch.setattr(TraceRun, "_load", loaded)
    words = [*SHORT, "suite.trace.plain=false", "suite.trace.spread=false"]
    with few_probes("clip", "voice synth_v2_24k_f0_refinegan", kind=TraceRun):
        code, out = trace(capsys, "synthesizer", *words, f"out={tmp_path / 't'}")
    assert code == 1
    assert "First stage at fault: (load): mlx_cpu: no such decoder on probe 'voice synth_v2_24k_f0_refinegan'" in out
    assert {line["probe"] for line in read_lines(tmp_path / "t" / "records.jsonl")} >= {"clip"}


@pytest.mark.usefixtures("quick", "clip_alone")
def test_the_synthesizer_tells_what_correlation_means(capsys, tmp_path):
    code, out = trace(capsys, "synthesizer", *SHORT, "suite.trace.plain=false", f"out={tmp_path / 't'}")
    assert code == 0
    assert "under 4 noise seeds" in out
    assert "level dB" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trace", "rmvep"], "did you mean 'rmvpe'"),
        (["trace", "rmvpe", "backends=[mlx_cpu]"], "a trace needs two"),
        (["trace", "rmvpe", "backends=[torch_cpu,mlx_cqu]"], "did you mean"),
        (["trace", "rmvpe", "weights.rmvpe=/nowhere.pt"], "no such file"),
        (
            ["trace", "synthesizer", "suite.trace.voices=[synth_v2_24k]"],
            "suite.trace.voices=synth_v2_24k; did you mean",
        ),
        (["trace", "hubert", "optimize=[fast]", "measure=smoke"], "optimize=fast; known: fold_norm"),
        (["selftest", "faults", "only=nothing-like-it"], "no fault of that name"),
        (["selftest", "faults", "often=3"], "unknown option 'often'"),
        (["selftest", "faults", "clean=many"], "whole number"),
        (["floors", "--update", "precision=fp8"], "precision=fp8"),
        (["floors", "--update", "speed=3"], "unknown option 'speed'"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    if words[0] == "trace" and "optimisation" not in message:
        assert not list(tmp_path.iterdir())  # nothing is left of what never began


def test_the_table_of_floors_is_shown(capsys):
    assert main(["floors"]) == 0
    out = capsys.readouterr().out
    assert "limit = 3 x excess x floor" in out
    assert "fp32 on cpu" in out


@pytest.mark.usefixtures("quick")
def test_a_lost_worker_is_no_verdict(capsys, tmp_path, monkeypatch):
    """Killed in the middle: what was walked is kept, and the exit code says that it was not measured."""
    walk = TraceRun.walk

    def cut_off(self, probes, variant):
        for count, row in enumerate(walk(self, probes, variant)):
            if count == 5:
                self.workers[self.other].kill()
            yield row

    monkeypatch.setattr(TraceRun, "walk", cut_off)
    assert main(["trace", "hubert", *SHORT, f"out={tmp_path / 't'}"]) == 2
    captured = capsys.readouterr()
    assert "the trace is not complete" in captured.err
    assert (tmp_path / "t" / "report.md").is_file()


# ---------------------------------------------------------------------- the self-test
@pytest.mark.usefixtures("quick", "clip_alone")
def test_a_few_faults_are_placed_on_the_clip(capsys, tmp_path):
    """In tiles so small that the clip has several; on the long probe that takes half a minute."""
    words = ["only=rmvpe/(f0-late|tile-halo)$", "clean=0"]
    assert main(["selftest", "faults", *words, f"out={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "faults detected: 2 of 2" in out
    assert "first guess: 2 of 2" in out


@pytest.mark.usefixtures("quick")
def test_a_clean_pair_is_not_accused_on_any_probe(capsys, tmp_path, monkeypatch):
    """On every path; of two blocks of audio, where users' traces have a third between them."""
    monkeypatch.setattr(rmvpe, "BLOCKS_SAMPLES", rmvpe.BLOCKS_SAMPLES - 160 * rmvpe.BLOCK_FRAMES)
    assert main(["selftest", "faults", "only=^$", "clean=1", f"out={tmp_path}"]) == 0
    assert "clean pairs accused: 0 of 1" in capsys.readouterr().out


def test_there_are_enough_faults_and_the_published_ones_are_among_them():
    assert len(FAULTS) >= 60
    assert {fault.model for fault in FAULTS.values()} == {"rmvpe", "hubert", "synthesizer", "pipeline"}
    assert sum(fault.known for fault in FAULTS.values()) >= 25


def outcome(expect, path):
    return Outcome("name", "rmvpe", expect, path, "somewhere", "clip", 0.1)


def test_a_self_test_that_misses_misplaces_or_accuses_is_red():
    right, clean = outcome("a", "a"), outcome(None, None)
    assert summary([right] * 60 + [clean] * 60)[1]
    assert not summary([right] * 60 + [outcome("a", None)] + [clean] * 60)[1]
    assert summary([right] * 60 + [outcome("a", "b")] * 3 + [clean] * 60)[1]
    assert not summary([right] * 60 + [outcome("a", "b")] * 4 + [clean] * 60)[1]
    assert not summary([right] * 60 + [clean] * 59 + [outcome(None, "a")])[1]
    text = summary([outcome("a", "b"), outcome("a", None), outcome(None, "c")])[0]
    assert all(word in text for word in ("**not placed**", "**not detected**", "**accused**"))
