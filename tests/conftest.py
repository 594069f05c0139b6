"""Shared fixtures: seeded weights, tiny and full, and the two sides as a parameter."""

from __future__ import annotations

import functools
import gc
import io
import json
import lzma
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from suites.base.backends import BACKENDS, THREAD_VARIABLES

if "PYTEST_XDIST_WORKER" in os.environ:  # one core each: their spinning threads would fight over them
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")

if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):  # a hundred processes would each compile the project anew
    sys.dont_write_bytecode = False

# only now: a library reads these where it is loaded
import numpy as np

# instead of after 700 new objects: imports, compositions, figures and networks make that many in a millisecond
gc.set_threshold(20_000)

# files that take long, the longest first: begun last, one would keep one process busy while the other has nothing to do
LONG = (
    "golden_webui", "golden", "trace_command", "runner", "synthesizer", "suites", "pipeline", "make", "train_rmvpe",
    "phases", "profile_command", "layouts", "convert", "plots", "checkpoint_faults", "cli", "imports", "answers",
    "extending", "timed", "judge", "fused_conv_metal", "optimize", "kills", "action", "fused_conv", "accuracy",
    "lost_workers", "cli_folders", "finite", "rmvpe", "history", "unreadable", "testset", "html", "probes", "known",
    "checkpoint_kinds", "components", "resident", "build", "fused_models", "reference_wrong", "run", "checkpoint",
    "records", "model", "missing_records", "help", "bytes", "voices_truth", "floors_shipped", "locate", "port_trace",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """What every process that runs tests needs; the one that hands them out to others does without."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", default=None):
        # torch first: loaded after rvc_mlx, it would take some of its BLAS calls to MLX's fast BLAS; and rvc_mlx before
        # any test imports mlx, which would then run on its slow one
        import torch  # noqa: F401  # isort: skip
        import rvc_mlx.runtime  # noqa: F401  # isort: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = item.path.stem.removeprefix("test_")
        return LONG.index(name) if name in LONG else len(LONG)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What was imported is no garbage; a collection, of which runs make many, need not look at it again."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=2, help="how often test_kills.py kills a run")


GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _ports_forgotten() -> Iterator[None]:
    """A port that a run made known is a backend of that test alone."""
    before = dict(BACKENDS)
    yield
    if before != BACKENDS:
        BACKENDS.clear()
        BACKENDS.update(before)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of this session, for both of its processes."""
    own = tmp_path_factory.getbasetemp()
    found = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    found.mkdir(exist_ok=True)
    return found


@pytest.fixture(scope="session", autouse=True)
def _own_cache(shared_folder: Path) -> None:
    """Weights that tests generate stay out of the user's cache; who fills a cache at once makes the same."""
    os.environ["XDG_CACHE_HOME"] = str(shared_folder / "cache")


@pytest.fixture
def quick() -> Iterator[None]:
    """Runs of this test have no processes and no figures; see ``quick_runs``."""
    from quick_runs import figures, workers_inside

    with workers_inside(), figures():
        yield


@pytest.fixture(scope="session")
def tiny_state() -> dict[str, np.ndarray]:
    """RMVPE at width 4 and hidden size 64."""
    from suites.inputs import recipe
    from suites.inputs.weights import reduced_manifest

    return recipe.make_state_dict(reduced_manifest(4, 64), 7)


@pytest.fixture(scope="session")
def full_state() -> dict[str, np.ndarray]:
    """RMVPE at upstream's size, with the weights of the golden vectors."""
    from suites.inputs import recipe
    from suites.inputs.weights import reduced_manifest

    return recipe.make_state_dict(reduced_manifest(16, 256), 25)


@pytest.fixture(params=["rvc_mlx", "reference_torch"])
def side(request: pytest.FixtureRequest) -> ModuleType:
    """One of the two packages."""
    import importlib

    return importlib.import_module(request.param)


@functools.cache
def _unpacked(name: str) -> bytes:
    plain = GOLDEN / f"{name}.npz"
    return plain.read_bytes() if plain.is_file() else lzma.decompress(plain.with_name(f"{name}.npz.xz").read_bytes())


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """Arrays and metadata of a stored vector, ``NAME.npz`` or ``NAME.npz.xz``."""

    def read(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        with np.load(io.BytesIO(_unpacked(name)), allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files if key != "meta"}
            return arrays, json.loads(str(stored["meta"]))

    return read


@pytest.fixture(scope="session")
def voice() -> np.ndarray:
    """Four seconds of the synthetic voice."""
    from suites.inputs.voice import synthesize

    return synthesize(4.0, seed=3).audio
