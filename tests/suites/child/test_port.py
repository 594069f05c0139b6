"""A port in the worker: what its adapter is given, and what is told where it does not do what is asked of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from suites.base.backends import BACKENDS
from suites.base.ports import Port
from suites.child.port import AdapterError, ServedPort, named_stages
from suites.definitions import SUITES

ADAPTER = """
import numpy as np

class Adapter:
    held = 7

    def describe(self):
        return {"name": "toy", "version": 2, "components": {"m": ["double", "add", "noisy", "wrong"]}}

    def load(self, model, paths, options):
        self.loaded = model, paths, options

    def call(self, component, inputs):
        if component == "double":
            return {"x": 2 * inputs["x"], "seen": np.array(sorted(inputs) == ["scale", "x"])}
        if component == "add":
            return inputs["x"] + inputs["scale"]
        if component == "noisy":
            return np.stack(inputs["noise"])
        return [1.0, 2.0]

    def memory(self):
        return self.held

    def stages(self, component, inputs):
        self.value = inputs["x"] + 1
        yield "theirs", self.value
        self.value = self.value * inputs["scale"]
        yield "b/c", self.value

    def restart(self, path, value):
        self.value = value


class Bare:
    def describe(self):
        return ["no", "dict"]


class Half(Adapter):
    def describe(self):
        return {"components": {}, "precisions": ["fp16", "bf16"]}
"""
TAKES = {"double": ["x", "scale"], "add": ["x", "scale"], "noisy": ["noise"], "wrong": []}
COMPOSED = {"twice": [["add", "x"], ["add", "x"]]}


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setattr("suites.base.backends.BACKENDS", dict(BACKENDS))
    (tmp_path / "toy_adapter.py").write_text(ADAPTER)

    def make(name: str = "Adapter", precision: str = "fp32") -> ServedPort:
        return ServedPort("mine", precision, Port(f"{tmp_path}/toy_adapter.py:{name}", options={"file": "f"}))

    yield make
    BACKENDS.pop("mine", None)


def loaded(served: ServedPort, tmp_path: Path, **inputs: np.ndarray) -> ServedPort:
    served.hello({"threads": 2})
    request = {"suite": "m", "paths": {"rmvpe": "p"}, "settings": {"scale": 3.0}, "optimize": "all"}
    served.load(request | {"takes": TAKES, "composed": COMPOSED, "calls": {name: ["m", name] for name in TAKES}})
    files = {name: str(tmp_path / f"{name}.npy") for name in inputs}
    for name, array in inputs.items():
        np.save(files[name], array)
    served.prepare({"inputs": files})
    return served


def outputs(served: ServedPort, call: str, path: Path) -> dict[str, np.ndarray]:
    served.output({"component": call, "path": str(path)})
    with np.load(path) as found:
        return dict(found)


def test_it_describes_itself(served):
    facts = served().hello({"threads": 2, "clock": True})
    assert (facts["available"], facts["port"], facts["components"]["m"][0]) == (True, "toy 2", "double")
    assert facts["options"] == {"device": "cpu", "file": "f"}
    json.dumps(facts)


def test_it_is_given_its_inputs_settings_and_options(served, tmp_path):
    found = loaded(served(), tmp_path, x=np.arange(3.0), y=np.zeros(1))
    made = outputs(found, "double", tmp_path / "o.npz")
    assert made["double.x"].tolist() == [0, 2, 4]
    assert made["double.seen"]
    model, paths, options = found._adapter.user.loaded
    assert (model, paths) == ("m", {"rmvpe": "p"})
    assert options == {"scale": 3.0, "precision": "fp32", "threads": 2, "device": "cpu", "file": "f"}


def test_noise_comes_in_the_order_of_its_draws(served, tmp_path):
    noise = {f"noise.noisy.{i}": np.full(2, float(i)) for i in range(12)} | {"noise.add.0": np.zeros(2)}
    made = outputs(loaded(served(), tmp_path, **noise), "noisy", tmp_path / "o.npz")
    assert made["noisy"][:, 0].tolist() == list(range(12))


def test_calls_in_a_row_feed_one_another(served, tmp_path):
    made = outputs(loaded(served(), tmp_path, x=np.zeros(2)), "twice", tmp_path / "o.npz")
    assert made["twice"].tolist() == [6, 6]


def test_it_is_timed_and_its_memory_is_asked_for(served, tmp_path):
    found = loaded(served(), tmp_path, x=np.zeros(2))
    assert found.time({"calls": {"add": 3}})["calls"]["add"]["seconds"]["add"] > 0
    assert found.memory({})["device"] == {"held": 7}
    assert found.cold({"component": "add", "second": True})["peak_device_bytes"] is None


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("Nothing", "fp32", "has no class Nothing"),
        ("Bare", "fp32", "toy_adapter.py:Bare has no method load and no call"),
    ],
)
def test_an_adapter_that_is_none_is_told(served, name, precision, message):
    with pytest.raises(Exception, match=message):
        served(name, precision).hello({"threads": 1})


def test_a_precision_that_it_does_not_compute_in_makes_it_unavailable(served):
    facts = served("Half").hello({"threads": 1})
    assert not facts["available"]
    assert facts["reason"] == "its adapter computes in fp16, bf16, not in fp32"
    assert served("Half", "bf16").hello({"threads": 1})["available"]


def test_a_result_that_is_no_array_is_told(served, tmp_path):
    with pytest.raises(Exception, match=r"call\('wrong'\) returned builtins.list: a NumPy array is expected"):
        loaded(served(), tmp_path, x=np.zeros(2)).time({"calls": {"wrong": 1}})


def test_the_worker_of_a_port_needs_numpy_alone():
    """In another interpreter nothing else of ours is installed."""
    code = "import sys; from suites.child import server, port; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    third = {"msgspec", "omegaconf", "hydra", "scipy", "psutil", "torch", "mlx", "yaml", "rvc_common", "tqdm", "pandas"}
    assert not third & set(done.stdout.split())


def test_stages_are_written_under_our_names_and_again_from_the_references_values(served, tmp_path):
    (tmp_path / "names").write_text("# theirs: ours\ntheirs: a\n")
    found = served()
    found._port = found._port._replace(stages=str(tmp_path / "names"))
    loaded(found, tmp_path, x=np.zeros(2))
    np.save(tmp_path / "reference.npy", np.full(2, 10.0))
    asked = {"component": "add", "settings": {"scale": 2.0}, "into": str(tmp_path / "dump")}
    made = found.stages(asked | {"references": {"a": str(tmp_path / "reference.npy")}})
    assert made["stages"] == ["a", "b/c"]
    dump = {str(p.relative_to(tmp_path / "dump")): np.load(p).tolist() for p in (tmp_path / "dump").rglob("*.npy")}
    assert dump == {"a.npy": [1, 1], "b_c.npy": [2, 2], "local/a.npy": [1, 1], "local/b_c.npy": [20, 20]}


def test_a_line_of_names_without_a_colon_is_told(tmp_path):
    (tmp_path / "names").write_text("a: b\nc\n")
    with pytest.raises(AdapterError, match="names:2: 'its name: our name' is expected, not 'c'"):
        named_stages(str(tmp_path / "names"))


def test_models_of_one_suite_have_an_adapter_each(served, tmp_path):
    found = served()
    found.hello({"threads": 1})
    found._adapter._facts["components"] = {"m": ["double"], "n": ["add"], "o": []}
    calls = {"double": ["m", "double"], "other": ["n", "add"], "none": ["o", "add"]}
    request = {"suite": "peers", "paths": {}, "settings": {}, "optimize": "all", "composed": {}}
    found.load(request | {"takes": {name: ["x"] for name in calls}, "calls": calls})
    assert {model: one.loaded[0] for model, one in found._models.items()} == {"m": "m", "n": "n"}
    assert found._models["m"] is not found._models["n"]


def test_what_calls_take_is_what_suites_hand_out():
    for name in ("rmvpe", "hubert", "synthesizer"):
        suite = SUITES[name]
        assert suite.whole in suite.takes
        assert {step for steps in suite.composed.values() for step, _ in steps} <= set(suite.takes)
