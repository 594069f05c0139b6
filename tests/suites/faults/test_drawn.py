"""Faults that are drawn: every line can be changed in the running process, and is as it was afterwards."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from rvc_mlx import layers, retrieval, source
from rvc_mlx.runtime import mx
from suites.faults import FAULTS, Patches, drawn, inject
from suites.faults.drawn import MODULES, mutants


def named(module: str, text: str, changed: str) -> str:
    return next(m.name for m in mutants(module) if (m.line, m.changed) == (text, changed))


@pytest.mark.parametrize("module", MODULES)
def test_every_change_can_be_made_and_undone(module):
    found = list(mutants(module))
    assert len(found) >= 40
    assert len({m.name for m in found}) == len(found)
    for one in found[:: max(1, len(found) // 12)]:
        running = drawn._running(module, one.function)
        before, patches = running.__code__, Patches()
        inject(one.name, patches)
        assert running.__code__ is not before
        patches.undo()
        assert running.__code__ is before
        assert one.line != one.changed


def test_a_change_changes_what_runs():
    f0, start = np.full((1, 3), 123.0), np.zeros((1, 1))
    right, patches = np.array(source.sine(f0, 16000, 160, start)), Patches()
    inject(named("source", "step_mx * position + offset_mx", "step_mx * position - offset_mx"), patches)
    wrong = np.array(source.sine(f0, 16000, 160, start))
    patches.undo()
    assert np.abs(wrong - right).max() > 0.1
    assert np.array_equal(np.array(source.sine(f0, 16000, 160, start)), right)


def test_methods_and_functions_inside_functions_are_changed_too():
    """Closures keep their variables; class methods and what is imported elsewhere run the new code."""
    patches = Patches()
    inject(named("layers", "layer(x) + bias", "layer(x) - bias"), patches)
    assert layers._plus(lambda x: x, mx.array(2.0))(mx.array(5.0)).item() == 3
    patches.undo()
    assert layers._plus(lambda x: x, mx.array(2.0))(mx.array(5.0)).item() == 7
    inject(named("retrieval", "4 * count", "4 + count"), patches)
    table = retrieval.Table(np.random.default_rng(0).standard_normal((90, 4)).astype(np.float32))
    assert table.pool(20) == 32
    patches.undo()
    assert table.pool(20) == 80


def test_what_there_is_not_cannot_be_made():
    with pytest.raises((LookupError, KeyError, ValueError, IndexError)):
        inject("drawn/source/99999", Patches())
    with pytest.raises((LookupError, ValueError)):
        inject("no such fault", Patches())
    assert not any(name.startswith("drawn/") for name in FAULTS)
    assert inspect.isgeneratorfunction(mutants)
