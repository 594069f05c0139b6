"""Every suite composes with every measure; mistakes get one line with the nearest right word."""

from __future__ import annotations

import pytest

from suites.base.backends import BACKENDS, parity_reference, speed_reference
from suites.base.errors import UserError
from suites.commands.plan import planned
from suites.commands.plan import text as plan_text
from suites.definitions.plan import cases, make_plan, requested_backends
from suites.measure.config import compose_config, measure_names, suite_names


@pytest.mark.parametrize("measure", measure_names())
@pytest.mark.parametrize("suite", suite_names())
def test_every_suite_composes_and_plans(suite, measure):
    config = compose_config(suite, [f"measure={measure}"])
    plan = make_plan(config, ["torch_cpu", "mlx_cpu"])
    keys = list(plan.expected())
    assert len(keys) == len(set(keys)) == len(plan.cases) * len(plan.components) * 2
    assert set(config.suite.limits) == {"fp32", "tf32", "fp16", "bf16"}


def test_full_has_all_five_durations():
    config = compose_config("rmvpe", ["measure=full"])
    assert [c.seconds for c in cases(config) if c.kind == "synthetic"] == [5, 30, 60, 180, 300]


def test_a_suite_may_have_its_own_budget_and_the_command_line_the_last_word():
    config = compose_config("pipeline", [])
    assert (config.durations, config.measure.rounds.min, config.measure.seconds_per_case) == ([5], 1, 75)
    config = compose_config("pipeline", ["measure.rounds.min=2", "durations=[3]"])
    assert (config.durations, config.measure.rounds.min) == ([3], 2)
    assert [case.kind for case in cases(compose_config("pipeline", ["measure=full"]))][-1] == "speech"


@pytest.mark.parametrize(
    ("suite", "overrides", "message"),
    [
        ("rmvp", [], "unknown suite 'rmvp'; did you mean 'rmvpe'"),
        ("zzz", [], "unknown suite 'zzz'; known: ablation, accuracy, cold_start, components"),
        ("rmvpe", ["duration=[5]"], "unknown override 'duration'; did you mean 'durations'"),
        ("rmvpe", ["weights.rmpve=x"], "unknown override 'weights.rmpve'; did you mean 'weights.rmvpe'"),
        ("rmvpe", ["measure=fulll"], "measure=fulll: there is no such measure; did you mean 'full'"),
        ("rmvpe", ["precision=fp23"], "precision=fp23; did you mean 'fp32'"),
        ("rmvpe", ["precision=FP32"], "precision=FP32; did you mean 'fp32'"),
        ("rmvpe", ["+suite.typo=1"], "suite.typo: there is no such option; known: name, summary"),
        ("rmvpe", ["profile=aplio"], "profile=aplio; did you mean 'applio'"),
        ("rmvpe", ["durations"], "'durations' is not an override"),
        ("rmvpe", ["durations=[5"], r"durations=\[5"),
        ("rmvpe", ["seed=abc"], "seed=abc: a whole number from 0"),
        ("rmvpe", ["threads=true"], "threads=true"),
        ("rmvpe", ["suite.threshold=abc"], r"suite\.threshold=abc: a number from 0 to 1"),
        ("rmvpe", ["measure.first_calls=-1"], r"measure\.first_calls=-1"),
        ("rmvpe", ["suite.limits.fp32.f0_max_cents=abc"], r"suite\.limits\.fp32\.f0_max_cents=abc"),
        ("rmvpe", ["precision=fp32", "durations=[1)"], r"^durations=\[1\): "),
        ("rmvpe", ["weights.voice=a.pth"], r"weights\.voice: the suite rmvpe does not load it"),
        ("synthesizer", ["weights.index=a.npy"], r"weights\.index: the suite synthesizer does not load it"),
        ("synthesizer", ["audio=a.wav"], "audio=a.wav: the suite synthesizer makes its own inputs"),
        ("synthesizer", ["suite.voice=synth_v2_40k"], "suite.voice=synth_v2_40k; did you mean 'synth_v2_40k_f0'"),
        ("hubert", ["suite.version=v3"], "suite.version=v3; "),
        ("pipeline", ["suite.protect=0.6"], r"suite\.protect=0\.6: a number from 0 to 0\.5"),
        ("pipeline", ["measure.model=small"], "measure.model=small; "),
        ("rmvpe", ["threads=0"], "threads=0: a whole number from 1"),
        ("rmvpe", ["measure.rounds.min=9", "measure.rounds.max=3"], "min=9 and max=3"),
    ],
)
def test_mistakes_are_explained(suite, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        compose_config(suite, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backends=[mlx_gpus]"], "unknown backend 'mlx_gpus'; did you mean 'mlx_gpu'"),
        (["backends=[]"], "nothing to run"),
        (["durations=[-1]"], "durations=-1: a number from 0.16 to 14400"),
        (["durations=[abc]"], "durations=abc: a number from"),
        (["durations=[]", "suite.speech_clip=false"], "nothing to run"),
    ],
)
def test_plans_that_make_no_sense(overrides, message):
    def plan():
        config = compose_config("rmvpe", overrides)
        return requested_backends(config), cases(config)

    with pytest.raises(UserError, match=message):
        plan()


def test_an_own_file_is_the_only_case():
    config = compose_config("rmvpe", ["audio=/a/song.mp3"])
    assert [(c.name, c.path) for c in cases(config)] == [("file", "/a/song.mp3")]


@pytest.mark.parametrize("path", ["/a b/song (1).wav", "/a/it's.wav", "/a/x=[1],{2}.mp3", "/plain.wav"])
def test_file_names_need_no_quoting(path):
    assert compose_config("rmvpe", [f"audio={path}"]).audio == path


def test_references():
    """A ratio names PyTorch on the same device, or there is none."""
    everything = list(BACKENDS)
    assert speed_reference("mlx_cpu", everything) == "torch_cpu"
    assert speed_reference("mlx_gpu", ["torch_cpu", "torch_cuda", "mlx_gpu"]) == "torch_cuda"
    assert speed_reference("mlx_gpu", ["torch_cpu", "mlx_gpu"]) is None
    assert speed_reference("torch_cpu", everything) is None
    assert parity_reference(["mlx_cpu", "torch_cuda", "torch_cpu"]) == "torch_cpu"
    assert parity_reference(["mlx_cpu"]) == "mlx_cpu"


def test_planned_text():
    config = compose_config("rmvpe", ["backends=[torch_cpu]", "durations=[5]"])
    text = plan_text(planned(config, {"torch_cpu": None}))
    assert "synthetic-5s" in text
    assert "8 records, 5 to 8 process launches of 2 to 15 rounds each" in text
