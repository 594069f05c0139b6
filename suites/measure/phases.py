"""What happens once in a process: import, load, first calls and their memory. Every figure has a fresh process."""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from ..base.backends import BACKENDS
from ..definitions import SUITES
from ..definitions.base import Suite
from ..definitions.config import Growth, MemoryOptions
from ..inputs.recordings import SAMPLE_RATE
from .launch import Worker, WorkerError, WorkerLost
from .outputs import MeasuredCase
from .session import Facts

# a cold start's new shape is longer by this factor than its first
OTHER_LENGTH = 1.37
STEADY_CALLS = 3
LOAD_FIELDS = ("load_s", "base_rss_bytes", "peak_rss_load_bytes")


class PhaseCase(MeasuredCase):
    """One case: every model on every backend, each launch a process that serves nothing else."""

    def execute(self) -> None:
        for component in self.plan.components:
            for backend in self.plan.having(component):
                if (self.case.name, component, backend) in self.session.done:
                    continue
                found, error = self._launches(component, backend)
                failure = None if error else self.failure(found, backend)
                times = [one["steady_s"] for one in found]
                workload = self.workload(SUITES[component])
                status = "error" if error else "failed" if failure else "passed"
                verdict = {"status": status, "reason": error or failure, "parity": None}
                self.close_single(component, backend, times, found, reference=backend, workload=workload, **verdict)

    def _launches(self, component: str, backend: str) -> tuple[list[Facts], str | None]:
        found: list[Facts] = []
        for number in range(1 if self.case.kind == "growth" else self.session.measure.launches.min):
            self.progress(f"{self.case.name}: {component} {backend}, launch {number + 1}")
            try:
                with self.session.start(backend) as worker:
                    found.append(self.measure(worker, SUITES[component]))
            except (WorkerError, WorkerLost) as error:
                return found, str(error)
        return found, None

    def measure(self, worker: Worker, suite: Suite) -> Facts:
        raise NotImplementedError

    def failure(self, found: list[Facts], backend: str) -> str | None:
        """The reason why these findings fail, if they do."""
        return None

    def _prepare(self, worker: Worker, suite: Suite, samples: int | None = None) -> None:
        """Hand the model its input, or the first ``samples`` of it."""
        audio = self.audio
        if samples is not None:
            f0 = audio.f0_hz[: 1 + samples // 160] if audio.f0_hz is not None else None
            audio = audio._replace(samples=audio.samples[:samples], f0_hz=f0)
        files = {}
        for name, array in suite.inputs(audio, self.session.settings, self.session.model_facts).items():
            files[name] = str(self.scratch / f"{name}.npy")
            np.save(files[name], array)
        worker.ask("prepare", self.timeout_s, inputs=files)


class ColdStartCase(PhaseCase):
    """Start, import, load, first and second call, the same at a new shape, and the steady state."""

    def execute(self) -> None:
        seconds = int(self.audio.samples.size * OTHER_LENGTH) / SAMPLE_RATE
        self.long = self.suite.audio(self.case._replace(seconds=seconds), self.session.config)
        super().execute()

    def measure(self, worker: Worker, suite: Suite) -> Facts:
        hello = self.session.hello(worker)
        ready_s = time.monotonic() - worker.started
        loaded = self.session.load(worker, suite.name)
        self._prepare(worker, suite)
        first = worker.ask("cold", self.timeout_s, component=suite.whole, second=True)
        audio, self.audio = self.audio, self.long
        self._prepare(worker, suite)
        other = worker.ask("cold", self.timeout_s, component=suite.whole, second=True)
        self.audio = audio
        self._prepare(worker, suite)
        seconds = self.session.measure.warmup_seconds
        warm = worker.ask("warm", self.timeout_s, component=suite.whole, seconds=seconds)
        times = [one[suite.whole] for one in warm["seconds"]]
        return {
            **{name: loaded[name] for name in LOAD_FIELDS},
            **first,
            "start_s": max(0.0, ready_s - hello["import_s"]),
            "import_s": hello["import_s"],
            "new_shape_s": other["first_call_s"],
            "new_shape_again_s": other["second_call_s"],
            "steady_s": median(times[-2:]),
            "settled": warm["steady"],
        }


class MemoryCase(PhaseCase):
    """Peaks of loading, of the first call and of steady calls; and growth over many lengths in one process."""

    def measure(self, worker: Worker, suite: Suite) -> Facts:
        self.session.hello(worker)
        imported = worker.ask("memory", self.timeout_s)
        loaded = self.session.load(worker, suite.name)
        after_load = worker.ask("memory", self.timeout_s)
        self._prepare(worker, suite)
        first = worker.ask("cold", self.timeout_s, component=suite.whole, second=False)
        after_call = worker.ask("memory", self.timeout_s)
        steady = worker.ask("steady_memory", self.timeout_s, component=suite.whole, calls=STEADY_CALLS)
        phases = {"import": imported, "load": after_load, "first_call": after_call, "steady": steady["after"]}
        found = {
            **{name: loaded[name] for name in LOAD_FIELDS},
            **first,
            "peak_rss_steady_bytes": steady["peak_rss_bytes"],
            "steady_s": steady["seconds"],
            "phases": phases,
        }
        return found | self._growth(worker, suite) if self.case.kind == "growth" else found

    def _growth(self, worker: Worker, suite: Suite) -> Facts:
        """Memory over many lengths. The longest input came first, so shorter ones should add nothing."""
        options = self.session.config.suite
        assert isinstance(options, MemoryOptions)
        assert isinstance(options.growth, Growth)
        wanted = options.growth
        rng = np.random.default_rng([self.session.config.seed, 9])
        shortest, longest = (int(seconds * SAMPLE_RATE) for seconds in (wanted.shortest_s, wanted.longest_s))
        # distinct, also after rounding to frames
        lengths = rng.permutation(np.unique(np.linspace(shortest, longest, wanted.lengths + 1).astype(int))[:-1])
        start = worker.ask("memory", self.timeout_s)
        series = []
        for samples in lengths:
            self._prepare(worker, suite, int(samples))
            after = worker.ask("steady_memory", self.timeout_s, component=suite.whole, calls=1)["after"]
            series.append({"seconds": float(samples / SAMPLE_RATE), **after})
        grown, limit = _grown([x["rss_bytes"] for x in (start, *series)], wanted)
        found = {"start": start, "series": series, "grown_bytes": grown, "limit_bytes": limit}
        if start["device"] is not None:
            grown, limit = _grown([held_on_device(x["device"]) for x in (start, *series)], wanted)
            found |= {"grown_device_bytes": grown, "limit_device_bytes": limit}
        return {"growth": found}

    def failure(self, found: list[Facts], backend: str) -> str | None:
        """Growth of rvc_mlx beyond its limit. The reference's is only shown: PyTorch keeps kernels for every shape."""
        for one in found if BACKENDS[backend].package == "rvc_mlx" else []:
            growth = one.get("growth", {})
            for part, whose in (("", "memory"), ("device_", "the framework's memory")):
                grown, limit = (growth.get(f"{name}_{part}bytes", 0.0) / 2**20 for name in ("grown", "limit"))
                if grown > limit:
                    count = len(growth["series"])
                    return f"{whose} grew by {grown:.0f} MiB over {count} shorter inputs (limit {limit:.0f} MiB)"
        return None


def _grown(held: list[int], wanted: Growth) -> tuple[float, float]:
    """Bytes that the last inputs have added to the first figure, and the limit of that."""
    limit = max(wanted.limit_bytes, wanted.limit_share * held[0])
    return float(median(held[-5:]) - held[0]), float(limit)


def held_on_device(memory: Facts) -> int:
    """Bytes in use and cached, by the framework's own count."""
    whole = memory.get("reserved_bytes", memory.get("driver_bytes"))
    return int(whole if whole is not None else memory["active_bytes"] + memory["cache_bytes"])
