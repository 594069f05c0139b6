"""The baseline of one made run."""

from __future__ import annotations

import pytest
from made_runs import make_run

from suites.gate.baseline import Baseline, baseline_of


@pytest.fixture(scope="module")
def baseline(tmp_path_factory) -> Baseline:
    return baseline_of([make_run(tmp_path_factory.mktemp("base") / "run", seed=1)])
