"""Odd overrides: one line that names the word, with the nearest right one; never Hydra's own words."""

from __future__ import annotations

import pytest
from command import suites
from hydra import compose, initialize_config_dir
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from suites.base.errors import UserError
from suites.base.paths import CONF
from suites.measure.config import check_sweep, compose_config
from suites.measure.overrides import as_port, composed, parsed, quoted

ODD = [
    ("~key", "unknown override 'key'; known: suite, measure"),
    ("~seed", "~seed: seed cannot be left out; give it another value"),
    ("~suite", "the suite is rmvpe already"),
    ("=1", "unknown override ''; known: suite, measure"),
    ("", "'' is not an override; write name=value"),
    ("seed", "'seed' is not an override; did you mean 'seed=...'?"),
    ("seed=null", "seed=null: a whole number from 0 to 2147483648 is expected"),
    ("precision=null", "precision=null: bf16, fp16, fp32 or tf32 is expected"),
    ("measure=null", "measure=null: there is no such measure"),
    ("measure=Quick", "measure=Quick: there is no such measure; did you mean 'quick'?"),
    ("budget=foo", "budget=foo: there is no such budget"),
    ("paths=null", "paths=null: there is no such paths; known: default"),
    ("suite=hubert", "suite=hubert: the suite is rmvpe already"),
    ("suite.name=foo", "unknown override 'suite.name'"),
    ("weights=null", "weights=null: a mapping in braces is expected"),
    ("+typo=1", "unknown override 'typo'"),
    ("++x=1", "unknown override 'x'"),
    ("+seed=1", "+seed=1: seed is there already; write seed=1"),
    ("+trace=true", "unknown override 'trace'"),
    ("+suite.components.foo=bar", "suite.components.foo: there is no such component; known: mel"),
    ("suite.components={foo: bar}", "there is no 'foo' in suite.components"),
    ("se\\ed=1", "did you mean 'seed'?"),
    ("'seed'=1", "did you mean 'seed'?"),
    ("—seed=1", "unknown override '—seed'; did you mean 'seed'?"),
    (" seed=1", "did you mean 'seed'?"),
    ("sеed=1", "did you mean 'seed'?"),
    ("rounds=3", "unknown override 'rounds'; did you mean 'measure.rounds'?"),
    ("name with spaces=1", "unknown override 'name with spaces'"),
    ("suite.voice=wrong", "the suite rmvpe has no such option; suites that have it: ablation, cold_start"),
    ("seed='1'", "seed='1': a whole number"),
    ("durations=[nan]", "durations=nan: a number from 0.16 to 14400 is expected"),
    ("durations=5,30", "a list is written 'durations=[5,30]'; one run for each value: run rmvpe -m"),
    ("seed=choice(1,2)", "seed=choice(1,2): one run for each value: run rmvpe -m"),
    ("durations=[5,]", "durations=[5,]: there is a comma too many at its end"),
    ("seed=1,", "seed=1,: there is a comma too many at its end"),
    ("durations=[5，30]", "did you mean 'durations=[5,30]'?"),
    ("seed='", "seed=': a bracket or a quote has no partner"),
    ("seed=1=2", "this value cannot be read"),
    ("hydra.run.dir=x", "Hydra's own settings count in a sweep only"),
    ("hydra=1", "Hydra's own settings count in a sweep only"),
    ("resume=x", "so it stands alone: run resume=x"),
    ("out=", "out=: the name of a file or folder is expected"),
    ("weights.rmvpe=''", "weights.rmvpe='': the name of a file or folder is expected"),
    ("out=~nobody9/x", "out=~nobody9/x: this home folder is not known"),
    ("out=${paths.runz}", "out=${paths.runz}: Interpolation key 'paths.runz' not found"),
    ("seed=${oc.env:NO_SUCH}", "seed=${oc.env:NO_SUCH}: Environment variable 'NO_SUCH' not found"),
    ("optimize=nope", "optimize=nope; did you mean 'none'?"),
    ("optimize=[tiles]", "optimize=tiles; did you mean 'tile'?"),
    ("backends=[]", "backends=[] leaves nothing to run"),
    ("backends=[torch_cpus]", "unknown backend 'torch_cpus'; did you mean 'torch_cpu'?"),
    ("suite.trace.seconds=-1", "suite.trace.seconds=-1: a number from 0.16"),
    ("measure.rounds=3", "measure.rounds=3: a mapping in braces is expected"),
]


@pytest.mark.parametrize(("word", "message"), ODD)
def test_odd_words_are_explained(word, message):
    with pytest.raises(UserError) as caught:
        compose_config("rmvpe", [word])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", ["run", "plan", "trace", "profile"])
@pytest.mark.parametrize("word", ["=1", "typo=1", "durations=[0]", "measure=null", "hydra.run.dir=x", "seed=1,2"])
def test_every_command_tells_it_in_one_line(command, word):
    done = suites(command, "rmvpe", word)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_trace_of_nothing():
    assert "durations=[] leaves nothing to trace" in suites("trace", "rmvpe", "durations=[]").stderr


def test_what_is_right_stays_so():
    config = compose_config("rmvpe", ["backends=torch_cpu", "++seed=3", "measure.rounds={min: 3}", "resume=null"])
    assert (config.backends, config.seed, config.measure.rounds.min) == ("torch_cpu", 3, 3)
    assert [*compose_config("rmvpe", ["~suite.components.mel"]).suite.components] == ["network", "decode", "f0"]
    assert compose_config("rmvpe", ["seed= 4", "optimize=tile"]).seed == 4


def test_the_last_of_several_counts_and_is_told():
    with pytest.warns(UserWarning, match="seed=1: given again; the last one counts: seed=2"):
        assert compose_config("rmvpe", ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    "name", ["audio", "out", "paths.runs", "paths.cache", "weights.rmvpe", "weights.index", "suite.f0"]
)
def test_a_home_folder_is_meant(name, monkeypatch):
    monkeypatch.setenv("HOME", "/a home")
    suite = {"weights.index": "pipeline", "suite.f0": "accuracy"}.get(name, "rmvpe")
    words = ["audio=/a.wav", f"{name}=~/x y"] if name == "suite.f0" else [f"{name}=~/x y"]
    value = compose_config(suite, words)
    for part in name.split("."):
        value = getattr(value, part)
    assert value == "/a home/x y"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=1,x"], "seed=x: a whole number"),
        (["durations=[1],[0]"], "durations=0: a number from"),
        (["measure=smoke,smok"], "did you mean 'smoke'"),
        (["seed=1,2", "out=x"], "out=x: each run of a sweep needs a folder of its own"),
        (["seed=interval(1,2)"], "Hydra's own sweeper takes"),
        (["hydra/launcher=nope"], "hydra/launcher=nope: Hydra knows no such launcher"),
        (["hydra.foo=1"], "hydra.foo=1: Could not override 'hydra.foo'"),
        (["suite=rmvpe,hubert"], "the suite is rmvpe already"),
        (["seed=1,"], "a comma too many"),
    ],
)
def test_a_sweep_is_checked_before_its_first_run(words, message):
    with pytest.raises(UserError) as caught:
        check_sweep("rmvpe", words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sweeps_that_are_right():
    check_sweep("rmvpe", ["seed=1,2", "out='x y/${seed}'", "hydra.sweep.dir=/tmp"])
    check_sweep("rmvpe", ["seed=range(1,4)", "out=${paths.runs}/s${seed}", "measure=smoke"])
    check_sweep("rmvpe", ["measure=glob(s*)"])


@given(
    st.text(st.sampled_from("\\'\"ab =[]{},:$~é/."), min_size=1).filter(
        lambda name: name[0] not in "'\"" and "${" not in name
    )
)
@example("a\\b.wav")
@example("C:\\voices\\")
@example("it\\'s")
def test_a_file_name_is_taken_as_it_is(name):
    """Backslashes too, which are part of a name on Linux and separate folders on Windows."""
    assert parsed(quoted(f"audio={name}")).value() == name
    assert parsed(as_port(f"+backends.own.file=x{name}")).value() == f"x{name}"


def test_what_is_kept_of_a_composition_is_what_hydra_makes(tmp_path, monkeypatch):
    """File names that are put in afterwards too; and whoever changes it has one of his own."""
    for out in (f"{tmp_path}/a b[1]", "it's", "back\\slash", "null", "~/x", "'quoted'", "${oc.env:OWN_FOLDER}/r"):
        words = ["measure=smoke", f"out={out}", f"audio={tmp_path}/x=y.wav", "paths.runs=7", "seed=3"]
        words += ["~suite.components.decode", "++measure.rounds={min: 3}", "+ports.own.n=1", "durations=[1]", "seed=4"]
        for folder in ("one", "two"):
            monkeypatch.setenv("OWN_FOLDER", folder)
            with initialize_config_dir(str(CONF), version_base="1.3"):
                want = OmegaConf.to_container(compose("config", ["suite=rmvpe", *map(quoted, words)]), resolve=True)
            found = composed("rmvpe", words)
            assert OmegaConf.to_container(found, resolve=True) == want
            found.seed, found.out, found.weights.seed = 4, "other", 9
            found.suite.components.mel = "other"
