"""Files of others are recognised by their inputs and outputs."""

from __future__ import annotations

import json

import pytest

from suites.base.errors import UserError
from suites.export.conventions import recognised
from suites.export.make import export_to
from suites.inputs.weights import find_weights

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
FLOAT, INT = 1, 7
WAVEFORM = {"waveform": (1, "n"), "threshold": (1,)}
PHONE = {"phone": (1, "t", 768), "phone_lengths": (1,)}
WEBUI = {**PHONE, "pitch": (1, "t"), "pitchf": (1, "t"), "ds": (1,), "rnd": (1, 192, "t")}
CHANGER = {"feats": (1, "t", 256), "p_len": (1,), "pitch": (1, "t"), "pitchf": (1, "t"), "sid": (1,)}
TRIMMED = {**CHANGER, "skip_head": (), "return_length": (), "formant_length": ()}
APPLIO = {**PHONE, "sid": ("b",), "rate": ("b",), "pitch": ("b", "t"), "nsff0": ("b", "t")}
CHANGER_FACTS = {"metadata": json.dumps({"samplingRate": 48000, "f0": True, "embChannels": 256})}
APPLIO_FACTS = {"model_info": json.dumps({"sr": 32000, "f0": 1})}


def write(path, inputs, outputs, metadata=None):
    """A graph without work, that only has these inputs and outputs."""
    helper = onnx.helper
    given = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()]
    made = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()]
    sizes = {name: [n if isinstance(n, int) else 1 for n in shape] for name, shape in outputs.items()}
    constants = [helper.make_tensor(f"{name}.shape", INT, [len(n)], n) for name, n in sizes.items()]
    nodes = [helper.make_node("Expand", [next(iter(inputs)), f"{name}.shape"], [name]) for name in outputs]
    graph = helper.make_graph(nodes, "g", given, made, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save_model(model, str(path))
    return path


@pytest.mark.parametrize(
    ("inputs", "outputs", "metadata", "model", "convention", "rate", "width"),
    [
        ({"input": (1, 128, "f")}, {"output": ("a", "b", "c")}, None, "rmvpe", "mel", 16000, None),
        ({"x": ("b", "c", "f")}, {"y": ("b", "f", 360)}, None, "rmvpe", "mel", 16000, None),
        (WAVEFORM, {"f0": (1, "f"), "uv": (1, "f")}, None, "rmvpe", "waveform", 16000, None),
        (WAVEFORM, {"pitchf": (1, "f")}, None, "rmvpe", "waveform", 16000, None),
        ({"source": (1, 1, "n")}, {"embed": ("a", 768, "t")}, None, "hubert", "vec", 16000, 768),
        ({"source": (1, 1, "n")}, {"embed": ("a", "t", 256)}, None, "hubert", "vec", 16000, 256),
        ({"source": (1, 1, "n")}, {"embed": ("a", "b", "t")}, None, "hubert", "vec", 16000, None),
        ({"audio": (1, "n")}, {"units9": ("a", "b"), "unit12": ("a", "b")}, None, "hubert", "units", 16000, None),
        (WEBUI, {"audio": ("a", "b", "c")}, None, "voice", "webui", None, 768),
        (CHANGER, {"audio": ("a", "b", "c")}, CHANGER_FACTS, "voice", "voice-changer", 48000, 256),
        (TRIMMED, {"audio": ("a", "b", "c")}, {"metadata": "{"}, "voice", "voice-changer", None, 256),
        (APPLIO, {"audio": ("a", "b", "c")}, APPLIO_FACTS, "voice", "applio-like", 32000, 768),
        ({**PHONE, "sid": (1,), "rnd": (1, 192, "t")}, {"audio": ("a", "b", "c")}, None, "voice", "mixed", None, 768),
    ],
)  # fmt: skip
def test_conventions(tmp_path, inputs, outputs, metadata, model, convention, rate, width):
    found = recognised(write(tmp_path / "a.onnx", inputs, outputs, metadata))
    assert (found.model, found.convention, found.sample_rate) == (model, convention, rate)
    assert found.width == width
    assert set(found.roles.values()) == set(inputs)
    assert list(found.outputs) == list(outputs)
    if model == "hubert" and width:
        assert next(iter(found.outputs.values())).shape[found.width_axis] == width


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"image": (1, 3, 224, 224)}, r"image \[1, 3, 224, 224\]"),
        ({"x": ("a", "b", "c")}, r"x \[any, any, any\]"),
        ({**PHONE, "sid": (1,), "pitch": (1, "t")}, "phone .*sid"),
        ({**WEBUI, "mel": (1, "t")}, "mel"),
    ],
)
def test_others_are_refused_with_their_inputs(tmp_path, inputs, told):
    path = write(tmp_path / "a.onnx", inputs, {"y": ("p", "q", "r")})
    with pytest.raises(UserError, match=rf"a\.onnx: no known ONNX file .*its inputs: .*{told}"):
        recognised(path)


def test_files_that_are_no_models(tmp_path):
    for content in (b"", b"not a model", b"\x80\x02}q\x00."):
        (tmp_path / "a.onnx").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.onnx: onnxruntime cannot load it: "):
            recognised(tmp_path / "a.onnx")
    with pytest.raises(UserError, match="no such file"):
        recognised(tmp_path)


def test_our_own_are_known_by_their_metadata(tmp_path):
    source = find_weights("voice", None, 5, "tiny", "synth_v2_40k_f0", tmp_path).path
    found = recognised(export_to(tmp_path / "flow.onnx", "flow", source))
    assert (found.model, found.part, found.sample_rate) == ("voice", "flow", 40000)
    assert found.roles == {name: name for name in ("z_p", "mask", "speaker")}
