"""What the adapter of torch.compile refuses, and its compiler; compiling a model takes minutes."""

from __future__ import annotations

import pytest
import torch

from suites.ports import torch_compile


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "reduce-overheads"}, "mode=reduce-overheads; did you mean 'reduce-overhead'?"),
        ({"dynamic": "maybe"}, "dynamic=maybe: true or false is expected"),
        ({"freeze": 3}, "freeze=3: true or false is expected"),
    ],
)
def test_an_option_that_cannot_be_is_told(options, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        torch_compile.compiler(options)


def test_a_missing_compiler_is_told_in_a_line(monkeypatch):
    from torch._inductor import cpp_builder, exc

    def missing():
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    assert "needs a C++ compiler: install g++ or clang++" in torch_compile.lacking("cpu")


def test_options_reach_pytorch(monkeypatch):
    monkeypatch.setattr(torch._inductor.config, "freezing", False)
    made = torch_compile.compiler({"mode": "max-autotune", "dynamic": True, "freeze": True})
    assert made.keywords == {"mode": "max-autotune", "dynamic": True, "fullgraph": True}
    assert torch._inductor.config.freezing
