"""What happens once in a process: import, load, first calls, and their memory. Every figure has a fresh process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.backends import BACKENDS
from ..definitions import SUITES
from ..definitions.base import Suite
from ..definitions.plan import Case, Plan
from ..inputs.recordings import SAMPLE_RATE, Audio, make_audio
from .launch import Worker, WorkerError, WorkerLost
from .timed import single_calls, workload

if TYPE_CHECKING:
    from .runner import Run

Facts = dict[str, Any]

# of a cold start: the input whose shape the process has not seen is longer by this
OTHER_LENGTH = 1.37
STEADY_CALLS = 3


class PhaseRun:
    """One case: every model on every backend, each launch a process that serves nothing else."""

    def __init__(
        self, run: Run, case: Case, audio: Audio, plan: Plan, scratch: Path, told: Callable[..., None]
    ) -> None:
        self.run, self.case, self.audio, self.plan, self.scratch, self.told = run, case, audio, plan, scratch, told
        self.timeout_s = run.measure["timeout_s"]

    def execute(self) -> None:
        for component in self.plan.components:
            for backend in self.plan.backends:
                if (self.case.name, component, backend) not in self.run.done:
                    self._record(component, backend, *self._launches(component, backend))

    def _launches(self, component: str, backend: str) -> tuple[list[Facts], str | None]:
        """What every launch found, or why one failed."""
        found: list[Facts] = []
        for number in range(1 if self.case.kind == "growth" else self.run.measure["launches"]["min"]):
            self.told(f"{component} {backend}, launch {number + 1}")
            try:
                with self.run.start(backend) as worker:
                    found.append(self.measure(worker, SUITES[component]))
            except (WorkerError, WorkerLost) as error:
                return found, str(error)
            self.told(f"{component} {backend}", done=True)
        return found, None

    def measure(self, worker: Worker, suite: Suite) -> Facts:
        raise NotImplementedError

    def verdict(self, found: list[Facts], backend: str) -> str | None:
        """Why this is a failure, if so."""
        return None

    def _prepare(self, worker: Worker, suite: Suite, samples: int | None = None) -> None:
        """Hand the model its input, or its first samples."""
        audio = self.audio
        if samples is not None:
            f0 = audio.f0_hz[: 1 + samples // 160] if audio.f0_hz is not None else None
            audio = audio._replace(samples=audio.samples[:samples], f0_hz=f0)
        files = {}
        for name, array in suite.inputs(audio, self.run.settings, self.run.model_facts).items():
            files[name] = str(self.scratch / f"{name}.npy")
            np.save(files[name], array)
        worker.ask("prepare", self.timeout_s, inputs=files)

    def _record(self, component: str, backend: str, found: list[Facts], error: str | None) -> None:
        fault = None if error else self.verdict(found, backend)
        status = "error" if error else "failed" if fault else "passed"
        taken = self.run.samples.setdefault((self.case.name, component, backend), {})
        for number, one in enumerate(found, len(taken)):  # those of a case that was broken off stay
            facts = {"launch": number, "calls": 1, "rest_s": 0.0}
            self.run.sample(self.case, component, backend, number, one["steady_s"], facts)
        first: Facts = found[0] if found else {}
        self.run.record(
            self.case,
            component,
            backend,
            reference=backend,
            workload=workload(self.run, self.audio, SUITES[component]),
            **single_calls(taken),
            load_s=first.get("load_s"),
            first_call_s=first.get("first_call_s"),
            peak_rss_bytes=first.get("peak_rss_bytes"),
            peak_device_bytes=first.get("peak_device_bytes"),
            cold=found,
            parity=None,
            status=status,
            reason=error or fault,
        )


class ColdStartRun(PhaseRun):
    """Start, import, load, first and second call, the same at a new shape, and the steady state."""

    def execute(self) -> None:
        # one input for the first shape, and a longer one for the new shape
        longer = int(self.audio.samples.size * OTHER_LENGTH)
        kind, path = self.case.kind, self.case.path
        seconds = longer / SAMPLE_RATE
        snr_db = self.run.config["suite"]["snr_db"]
        self.short = self.audio.samples.size
        self.long = make_audio(kind, seconds, path, self.run.config["seed"], snr_db)
        super().execute()

    def measure(self, worker: Worker, suite: Suite) -> Facts:
        hello = self.run.hello(worker)
        ready_s = time.monotonic() - worker.started
        loaded = self.run.load(worker, suite_name(suite))
        self._prepare(worker, suite)
        first = worker.ask("cold", self.timeout_s, component=suite.whole, second=True)
        audio, self.audio = self.audio, self.long
        self._prepare(worker, suite)
        other = worker.ask("cold", self.timeout_s, component=suite.whole, second=True)
        self.audio = audio
        self._prepare(worker, suite)
        warm = worker.ask("warm", self.timeout_s, component=suite.whole, seconds=self.run.measure["warmup_seconds"])
        times = [one[suite.whole] for one in warm["seconds"]]
        return {
            **{name: loaded[name] for name in ("load_s", "base_rss_bytes", "peak_rss_load_bytes")},
            **first,
            "start_s": max(0.0, ready_s - hello["import_s"]),
            "import_s": hello["import_s"],
            "new_shape_s": other["first_call_s"],
            "new_shape_again_s": other["second_call_s"],
            "steady_s": median(times[-2:]),
            "settled": warm["steady"],
        }


class MemoryRun(PhaseRun):
    """Peaks of loading, of the first call and of steady calls; and what grows over many lengths in one process."""

    def measure(self, worker: Worker, suite: Suite) -> Facts:
        self.run.hello(worker)
        imported = worker.ask("memory", self.timeout_s)
        loaded = self.run.load(worker, suite_name(suite))
        after_load = worker.ask("memory", self.timeout_s)
        self._prepare(worker, suite)
        first = worker.ask("cold", self.timeout_s, component=suite.whole, second=False)
        after_call = worker.ask("memory", self.timeout_s)
        steady = worker.ask("steady_memory", self.timeout_s, component=suite.whole, calls=STEADY_CALLS)
        phases = {"import": imported, "load": after_load, "first_call": after_call, "steady": steady["after"]}
        found = {
            **{name: loaded[name] for name in ("load_s", "base_rss_bytes", "peak_rss_load_bytes")},
            **first,
            "peak_rss_steady_bytes": steady["peak_rss_bytes"],
            "steady_s": steady["seconds"],
            "phases": phases,
        }
        return found | self._growth(worker, suite) if self.case.kind == "growth" else found

    def _growth(self, worker: Worker, suite: Suite) -> Facts:
        """The longest input has been seen: shorter ones need nothing that is not there."""
        wish = self.run.config["suite"]["growth"]
        rng = np.random.default_rng([self.run.config["seed"], 9])
        shortest, longest = (int(wish[name] * SAMPLE_RATE) for name in ("shortest_s", "longest_s"))
        # distinct, also after rounding to frames
        lengths = rng.permutation(np.unique(np.linspace(shortest, longest, wish["lengths"] + 1).astype(int))[:-1])
        start = worker.ask("memory", self.timeout_s)
        series = []
        for samples in lengths:
            self._prepare(worker, suite, int(samples))
            after = worker.ask("steady_memory", self.timeout_s, component=suite.whole, calls=1)["after"]
            series.append({"seconds": float(samples / SAMPLE_RATE), **after})
        grown, limit = _grown([x["rss_bytes"] for x in (start, *series)], wish)
        found = {"start": start, "series": series, "grown_bytes": grown, "limit_bytes": limit}
        if start["device"] is not None:
            grown, limit = _grown([held_on_device(x["device"]) for x in (start, *series)], wish)
            found |= {"grown_device_bytes": grown, "limit_device_bytes": limit}
        return {"growth": found}

    def verdict(self, found: list[Facts], backend: str) -> str | None:
        """The reference's growth is shown: PyTorch keeps kernels for every shape that it has seen."""
        for one in found if BACKENDS[backend].package == "rvc_mlx" else []:
            growth = one.get("growth", {})
            for part, whose in (("", "memory"), ("device_", "the framework's memory")):
                grown, limit = (growth.get(f"{name}_{part}bytes", 0.0) / 2**20 for name in ("grown", "limit"))
                if grown > limit:
                    count = len(growth["series"])
                    return f"{whose} grew by {grown:.0f} MiB over {count} shorter inputs (limit {limit:.0f} MiB)"
        return None


def _grown(held: list[int], wish: Facts) -> tuple[float, float]:
    """What the last inputs have added to the first figure, and what they may."""
    limit = max(wish["limit_bytes"], wish["limit_share"] * held[0])
    return float(median(held[-5:]) - held[0]), float(limit)


def held_on_device(memory: Facts) -> int:
    """In use and kept for later, by the framework's own count."""
    whole = memory.get("reserved_bytes", memory.get("driver_bytes"))
    return int(whole if whole is not None else memory["active_bytes"] + memory["cache_bytes"])


def suite_name(suite: Suite) -> str:
    return next(name for name, one in SUITES.items() if one is suite)
