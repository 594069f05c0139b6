"""ONNX files as backends: the exported reference in both engines, and files that somebody else made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from command import suites  # noqa: E402

from suites.base.errors import UserError  # noqa: E402
from suites.base.records import read_lines, records  # noqa: E402
from suites.ports.onnx import OnnxRuntime  # noqa: E402

QUICK = ["measure=smoke", "durations=[0.5]", "threads=1", "measure.warmup_seconds=0"]
OPTIONS = {"threads": 1, "precision": "fp32", "device": "cpu"}


def graph(path: Path, inputs: dict[str, list], outputs: dict[str, list]) -> Path:
    """A file with these inputs and outputs, each output the sum of the first input and a constant."""
    make = onnx.helper
    given = [make.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()]
    made = [make.make_tensor_value_info(name, 1, shape) for name, shape in outputs.items()]
    # the sum has as many channels as the output: RMVPE's and voices' are not looked at
    channels = next(iter(outputs.values()))[1] if next(iter(inputs.values()))[1] == 1 else 1
    ones = np.ones((1, channels, 1) if channels not in (1, None) else (), np.float32)
    one = onnx.numpy_helper.from_array(ones, "one")
    nodes = [make.make_node("Add", [next(iter(inputs)), "one"], [name]) for name in outputs]
    found = make.make_model(make.make_graph(nodes, "g", given, made, [one]), opset_imports=[make.make_opsetid("", 18)])
    found.ir_version = 10
    onnx.save(found, str(path))
    return path


@pytest.mark.parametrize("engine", ["OnnxRuntime", "OpenVino"])
def test_an_engine_computes_what_the_reference_does(quick, tmp_path, engine):
    if engine == "OpenVino":
        pytest.importorskip("openvino")
    port = [f"+backends.mine.adapter=suites.ports.onnx:{engine}", "backends=[torch_cpu,mine]"]
    done = suites("run", "peers", *QUICK, *port, f"out={tmp_path / 'r'}")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in records(read_lines(tmp_path / "r" / "records.jsonl")) if line["backend"] == "mine"]
    found = {line["component"]: line for line in lines}
    assert {name: line["status"] for name, line in found.items()} == {
        "rmvpe": "passed", "hubert": "passed", "vocoder": "passed", "pipeline": "skipped",
    }  # fmt: skip
    assert all(found[name]["parity"]["max_abs"] > 0 for name in ("rmvpe", "hubert", "vocoder"))


def test_somebody_elses_pitch_network_gets_whole_blocks_of_frames(tmp_path):
    made = OnnxRuntime()
    made.configure(OPTIONS | {"file": str(graph(tmp_path / "p.onnx", {"x": [1, 128, None]}, {"y": [1, 128, None]}))})
    assert made.describe()["components"] == {"rmvpe": ["network"]}
    made.load("rmvpe", {}, {"profile": "webui"})
    made.runs["network"] = lambda given: [given["x"].transpose(0, 2, 1)]
    mel = np.random.default_rng(0).standard_normal((128, 45), dtype=np.float32)
    assert np.array_equal(made.call("network", {"mel": mel}), mel.T)


def test_somebody_elses_features_have_the_frames_first(tmp_path):
    made = OnnxRuntime()
    file = graph(tmp_path / "v.onnx", {"source": [1, 1, None]}, {"embed": [1, 768, None]})
    made.configure(OPTIONS | {"file": str(file)})
    assert made.describe()["components"] == {"hubert": ["features"]}
    made.load("hubert", {}, {"version": "v2"})
    made.runs["features"] = lambda given: [np.zeros((1, 768, given["source"].shape[2] // 320))]
    assert made.call("features", {"audio": np.zeros(640)}).shape == (2, 768)


def test_a_file_of_f0_takes_the_threshold_as_it_wants_it(tmp_path):
    made = OnnxRuntime()
    file = graph(tmp_path / "w.onnx", {"waveform": [1, None], "threshold": [1]}, {"f0": [1, None], "uv": [1, None]})
    made.configure(OPTIONS | {"file": str(file)})
    made.load("rmvpe", {}, {"profile": "applio"})
    assert made.call("f0", {"audio": np.zeros(5, np.float32), "threshold": 0.03}).tolist() == [1.0] * 5


def test_what_cannot_be_compared_or_read_is_told(tmp_path):
    names = ("phone", "phone_lengths", "pitch", "pitchf", "ds", "rnd")
    voice = graph(tmp_path / "voice.onnx", {name: [1, 2] for name in names}, {"audio": [1, 2]})
    with pytest.raises(ValueError, match="it draws its noise inside, so no audio of it can be compared"):
        OnnxRuntime().configure(OPTIONS | {"file": str(voice)})
    (tmp_path / "no.onnx").write_text("no")
    with pytest.raises(UserError, match="onnxruntime cannot load it"):
        OnnxRuntime().configure(OPTIONS | {"file": str(tmp_path / "no.onnx")})
