"""Memory, first runs and optimisations on tiny models: every figure is there, and growth is called."""

from __future__ import annotations

import pytest
from command import strict
from command import suites as run_suites
from quick_runs import Inside, figures, workers_inside

from rvc_mlx.optimize import OPTIMIZATIONS
from suites.base.records import read_lines, records
from suites.definitions import SUITES
from suites.definitions.single import Ablation
from suites.gate.baseline import baseline_of
from suites.measure import session
from suites.measure.config import compose_config
from suites.measure.launch import Worker
from suites.measure.phases import MemoryCase

WORDS = ["measure=smoke", "backends=[torch_cpu,mlx_cpu]", "durations=[0.5]", "threads=1"]

LEFT_OUT = {
    "memory": ["pipeline", "synthesizer"],
    "cold_start": ["pipeline", "rmvpe"],
    "ablation": ["rmvpe", "mel"],
}


# what is a process of its own: a process is measured from its start; memory grows in one that does nothing else;
# a BLAS is chosen by the environment
PROCESSES = {
    "cold_start": lambda backend, environment: True,
    "memory": lambda backend, environment: True,
    "ablation": lambda backend, environment: bool(environment),
}


@pytest.fixture(scope="module", params=["memory", "cold_start", "ablation"])
def finished(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    words = [*WORDS, f"out={folder}", "measure.warmup_seconds=0", "measure.first_calls=1"]
    words += ["suite.growth.lengths=3", "suite.growth.longest_s=0.7"] if request.param == "memory" else []
    # some are enough: each takes processes of its own
    words += [f"~suite.components.{name}" for name in {"hubert", *LEFT_OUT[request.param]}]
    if request.param == "ablation":
        words[1:3] = "backends=[mlx_cpu]", "durations=[0.16]"  # without an optimisation a CPU is slow
    own, described = PROCESSES[request.param], set()

    def started(backend, precision, threads, log, environment, raised):
        # each backend's first one only tells what it is
        kind = Worker if own(backend, environment) and (environment or backend in described) else Inside
        described.add(backend)
        return kind(backend, precision, threads, log, environment, raised)

    with workers_inside(), figures("first"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "Worker", started)
        done = run_suites("run", request.param, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return request.param, folder


def test_records_fit_their_schema_and_a_gate_can_read_them(finished):
    name, folder = finished
    schema = strict()
    lines = list(read_lines(folder / "records.jsonl"))
    for line in lines:
        schema.validate(line)
    found = baseline_of([folder])
    assert found.entries
    assert {entry.status for entry in found.entries.values()} == {"passed"}, name


def test_every_figure_is_there(finished):
    name, folder = finished
    text = (folder / "report.md").read_text()
    closed = [r for r in records(read_lines(folder / "records.jsonl")) if "workload" in r]
    if name == "ablation":
        assert "## Optimisations" in text
        on = [r for r in closed if r["component"].endswith(".on")]
        assert on
        assert all(r["parity"]["max_abs"] < 1e-4 for r in on)
        plain = next(r for r in closed if r["component"] == "synthesizer.gemm_conv.off")
        assert "gemm_conv" not in plain["optimize"]
        return
    (component,) = {"rmvpe", "synthesizer"} - set(LEFT_OUT[name])
    assert {(r["component"], r["backend"]) for r in closed} == {(component, b) for b in ("torch_cpu", "mlx_cpu")}
    cold = [one for r in closed for one in r["cold"]]
    if name == "cold_start":
        fields = ("start_s", "import_s", "load_s", "first_call_s", "second_call_s", "new_shape_s", "steady_s")
        assert all(one[field] > 0 for one in cold for field in fields)
        assert (folder / "plots" / "first.png").exists()
        return
    assert all(one["peak_rss_steady_bytes"] > 0 and one["phases"]["load"]["rss_bytes"] > 0 for one in cold)
    ours = [one for r in closed if r["backend"] == "mlx_cpu" for one in r["cold"]]
    assert all(one["phases"]["steady"]["device"]["active_bytes"] > 0 for one in ours)
    grown = [one["growth"] for one in cold if "growth" in one]
    assert len(grown) == 2
    assert all(len(g["series"]) == 3 for g in grown)
    assert "## Growth" in text


def test_growth_beyond_its_limit_fails_for_rvc_mlx_alone():
    run = MemoryCase.__new__(MemoryCase)
    growth = {"grown_bytes": 2.0**30, "limit_bytes": 2.0**26, "series": [{}] * 50}
    reason = run.failure([{"growth": growth}], "mlx_cpu")
    assert reason == "memory grew by 1024 MiB over 50 shorter inputs (limit 64 MiB)"
    assert run.failure([{"growth": growth}], "torch_cpu") is None
    cache = {"grown_bytes": 0.0, "limit_bytes": 1.0, "grown_device_bytes": 2.0**35, "limit_device_bytes": 2.0**26}
    assert "the framework's memory grew by 32768 MiB" in run.failure([{"growth": growth | cache}], "mlx_gpu")
    assert run.failure([{"growth": growth | {"grown_bytes": 0.0}}], "mlx_cpu") is None


# ---------------------------------------------------------------------- which optimisations
def test_every_optimisation_of_every_model_is_looked_at():
    suite = SUITES["ablation"]
    models = tuple(compose_config("ablation", []).suite.components)
    components = suite.components(models, {})
    for name, it in OPTIMIZATIONS.items():
        for model in it.models:
            assert {f"{model}.{name}.on", f"{model}.{name}.off"} <= set(components)


@pytest.mark.parametrize(
    ("component", "backend", "word"),
    [
        ("rmvpe.gru_kernel.on", "mlx_cpu", "no such path on the CPU"),
        ("rmvpe.gru_kernel.on", "mlx_gpu", None),
        ("rmvpe.gemm_conv.off", "mlx_gpu", "no such path on the GPU"),
        ("rmvpe.fold_norm.on", "torch_cpu", "rvc_mlx's alone"),
        ("hubert.blas.on", "mlx_gpu", "MLX chooses its BLAS"),
    ],
)
def test_what_is_impossible_says_why(component, backend, word):
    reason = Ablation().impossible(component, backend)
    assert reason is None if word is None else word in reason
