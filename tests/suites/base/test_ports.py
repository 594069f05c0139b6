"""What a configuration says of a port, and what is refused before anything starts."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from suites.base.backends import BACKENDS, impossible, is_port, register_ports, speed_reference
from suites.base.errors import UserError
from suites.base.ports import PEERS, Port, port_of
from suites.definitions.plan import requested_backends
from suites.measure.config import check_sweep, compose_config

ADAPTER = {"adapter": "my_port.rvc:Adapter"}


def test_what_is_no_field_is_an_option_of_the_adapter(tmp_path):
    (tmp_path / "a.py").touch()
    given = {"adapter": f"{tmp_path}/a.py:X", "python": sys.executable, "device": "cuda", "file": "x.onnx", "n": 3}
    found = port_of("mine", given)
    assert found == Port(f"{tmp_path}/a.py:X", sys.executable, "cuda", None, {"file": "x.onnx", "n": 3})


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("mine", {}, "which class calls the port? write +backends.mine.adapter=MODULE:CLASS"),
        ("mine", 3, "which class calls the port?"),
        ("mine", {"adapter": "my_port"}, "MODULE:CLASS or FILE.py:CLASS is expected"),
        ("mine", {"adapter": "a:b:c d"}, "MODULE:CLASS or FILE.py:CLASS is expected"),
        ("mine", {"adapter": "nowhere/a.py:X"}, "backends.mine.adapter=nowhere/a.py: no such file"),
        ("mine", ADAPTER | {"python": "/nowhere/python"}, "backends.mine.python=/nowhere/python: no such file"),
        ("mine", ADAPTER | {"python": 3}, "backends.mine.python=3: text is expected"),
        ("mine", ADAPTER | {"device": "gpus"}, "backends.mine.device=gpus; did you mean 'gpu'?"),
        ("mine", ADAPTER | {"devices": "gpu"}, "backends.mine.devices: did you mean 'device'?"),
        ("my-port", ADAPTER, "a backend's name is a letter, then letters, digits and underscores"),
        ("torch_cpu", ADAPTER, "is one of the backends already"),
        ("mine", {"adapter": "mlx_rmvp"}, "or a port that ships; did you mean 'mlx_rmvpe'?"),
    ],
)
def test_what_cannot_be_is_told(name, given, message):
    with pytest.raises(UserError) as told:
        register_ports({name: given})
    assert message in str(told.value)
    assert not is_port(name)


def test_a_port_is_a_backend_with_pytorchs_time_on_its_device():
    register_ports({"mine": ADAPTER, "other": ADAPTER | {"device": "cuda"}})
    assert is_port("mine")
    assert impossible("mine") is None
    assert speed_reference("mine", ["torch_cpu", "torch_cuda"]) == "torch_cpu"
    assert speed_reference("other", ["torch_cpu", "torch_cuda"]) == "torch_cuda"


@pytest.mark.parametrize("word", ["+backends.mine.adapter=my_port.rvc:Adapter", "+backends.mine.adapter='m:A'"])
def test_a_port_is_described_on_the_command_line(word):
    words = [word, "+backends.mine.file=a b.onnx", "+backends.mine.size=3", "+backends.mine.fast=true"]
    config = compose_config("rmvpe", words)
    assert config.ports["mine"]["adapter"] in ("my_port.rvc:Adapter", "m:A")
    assert {k: v for k, v in config.ports["mine"].items() if k != "adapter"} == {
        "file": "a b.onnx",
        "size": 3,
        "fast": True,
    }
    assert config.overrides == words
    check_sweep("rmvpe", [*words, "seed=1,2"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backends=[mine]"], "a port is measured beside one of ours; add torch_cpu"),
        (["backends=[torch_cpu,yours]"], "unknown backend 'yours'"),
        (["+backends.mine.device=tpu"], "backends.mine.device=tpu"),
    ],
)
def test_choices_that_cannot_be_are_told(words, message):
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        compose_config("rmvpe", ["+backends.mine.adapter=m:A", *words])


def test_a_port_runs_where_no_backends_are_named_and_only_in_its_own_run():
    from suites.definitions.plan import requested_backends

    mine = compose_config("rmvpe", ["+backends.mine.adapter=m:A"])
    assert requested_backends(mine)[0][-1] == "mine"
    assert "mine" not in requested_backends(compose_config("rmvpe", []))[0]


@pytest.mark.parametrize("name", PEERS)
def test_a_port_that_ships_is_a_backend_that_runs_when_it_is_asked_for(name):
    assert is_port(name)
    assert name not in requested_backends(compose_config("rmvpe", []))[0]
    assert name in requested_backends(compose_config("rmvpe", [f"backends=[torch_cpu,{name}]"]))[0]
    assert importlib.util.find_spec(PEERS[name].adapter.partition(":")[0]) is not None


def test_a_port_that_ships_takes_options_under_its_own_name_and_under_another():
    register_ports({"torch_compile": {"mode": "default"}, "mine": {"adapter": "torch_compile", "device": "cuda"}})
    own, other = BACKENDS["torch_compile"].port, BACKENDS["mine"].port
    assert (own.adapter, own.device, own.options) == (other.adapter, "cpu", {"mode": "default"})
    assert (other.device, BACKENDS["mine"].requires) == ("cuda", "torch")
    register_ports({})
    assert BACKENDS["torch_compile"].port.options == {}
    with pytest.raises(UserError, match="mlx_rmvpe: is a port that ships; give yours another name"):
        register_ports({"mlx_rmvpe": ADAPTER})


def test_a_port_whose_package_is_absent_is_told(monkeypatch):
    monkeypatch.setattr("suites.base.backends._installed", lambda module: module != "mlx_rmvpe")
    assert impossible("mlx_rmvpe") == "mlx_rmvpe is not installed: pip install -e '.[peers]'"
