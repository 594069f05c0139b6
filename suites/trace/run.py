"""A trace as a run: workers, probes, variants, and what was found, kept in a run folder."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tqdm import tqdm

from ..base import environment
from ..base.backends import BACKENDS, impossible, parity_reference
from ..base.errors import UserError
from ..base.files import in_files, scratch_folder, write_whole
from ..base.lines import SCHEMA, Spread, Stage
from ..base.lock import Lock
from ..base.records import RecordFile, records_file
from ..base.run_folder import ENVIRONMENT
from ..definitions import SUITES
from ..definitions.base import Probe
from ..definitions.config import Config, TraceOptions
from ..definitions.plan import requested_backends
from ..inputs.recordings import SAMPLE_RATE, Audio, make_audio, read_audio
from ..measure.launch import Worker, WorkerError, WorkerLost
from ..measure.run_weights import weights_of
from ..measure.runner import new_folder
from ..measure.session import HELLO_TIMEOUT_S, Facts
from ..metrics import floors
from ..metrics.floors import Tolerances
from . import findings
from .findings import CONFIGURED, PLAIN
from .walk import FAULT, Pair, ProbeTrace, device_kind

# the same probes under other noise: how far apart two right answers may sound
SPREAD_SEEDS = 4
# the synthetic voice begins with silence: less of it is the end of so much
SOUNDING_S = 1.0
# of a voice that is walked beside the traced one
VOICE_SECONDS = 0.3


class Sides:
    """One model on the backends that are to walk it, the reference first: their workers, its weights and its probes."""

    def __init__(self, config: Config, backends: tuple[str, ...], report: Callable[[str], None]) -> None:
        if config.durations == [] and config.audio is None:
            raise UserError("durations=[] leaves nothing to trace")
        self.config, self.report, self.backends = config, report, backends
        self.suite, self.reference = SUITES[config.suite.name], backends[0]
        # the two sides take turns: a second thread of each would only spin while the other works
        self.threads = config.threads or 1
        self.timeout_s = config.measure.timeout_s
        self.weights = weights_of(config)
        self.workers: dict[str, Worker] = {}
        self.facts: dict[str, Facts] = {}
        self.warned: set[str] = set()

    @contextlib.contextmanager
    def started(self, folder: Path) -> Iterator[None]:
        """With every worker running and its model loaded."""
        try:
            for name in self.backends:
                self.report(f"starting {name}")
                self.workers[name] = Worker(name, self.config.precision, self.threads, folder / "workers.log")
            self._load_all()
            yield
        finally:
            for worker in self.workers.values():
                worker.kill()

    def _load_all(self) -> None:
        for name, worker in self.workers.items():
            try:
                self.facts[name] = worker.ask("hello", HELLO_TIMEOUT_S, threads=self.threads)
                if not self.facts[name]["available"]:
                    raise UserError(f"backend {name}: {self.facts[name]['reason']}")
                self.facts[name] |= {"model": self._load(name, self.config.optimize)}
            except (WorkerError, WorkerLost) as error:
                raise UserError(str(error)) from None
        self.suite.check(self.settings, self.facts[self.reference]["model"])

    def _load(self, name: str, optimize: Any) -> Facts:
        self.report(f"loading the model on {name}")
        paths = {n: str(self.weights[n].path) for n in self.suite.checkpoints}
        loaded = self.workers[name].ask(
            "load", self.timeout_s, suite=self.config.suite.name, paths=paths, optimize=optimize, settings=self.settings
        )
        for text in loaded["warnings"]:
            if text not in self.warned:
                self.warned.add(text)
                tqdm.write(f"{name}: {text}", file=sys.stderr)
        return dict(loaded["facts"])

    @property
    def trace_options(self) -> TraceOptions:
        options = self.config.suite.trace
        assert isinstance(options, TraceOptions)
        return options

    @property
    def settings(self) -> Facts:
        index = self.weights.get("index")
        return self.config.settings(index.path if index else None)

    def described(self) -> Facts:
        """The machine, the software, and what the model is walked with."""
        return environment.describe() | {
            "threads": self.threads,
            "backends": self.facts,
            "weights": {name: {"label": w.label, "sha256": w.sha256} for name, w in self.weights.items()},
            "audio": self._audio(self.seconds(plain=False)).source,
            "floors": {name: floors.stored()[name] for name in ("schema", "made")},
        }

    @property
    def sample_rate(self) -> int | None:
        rate: int | None = self.facts[self.reference]["model"].get("sample_rate")
        return rate

    @property
    def longest_s(self) -> float | None:
        return self.suite.longest_traced_s

    def _audio(self, seconds: float) -> Audio:
        """The input, no longer than the model ever gets at once: so memory stays bounded."""
        config, longest = self.config, self.longest_s
        if config.audio is not None:
            audio = make_audio("file", None, config.audio, config.seed, 0.0)
        else:
            audio = _ending(
                make_audio("synthetic", max(seconds, SOUNDING_S), None, config.seed, config.snr_db), seconds
            )
        if longest is None or audio.samples.size <= longest * SAMPLE_RATE:
            return audio
        count = int(longest * SAMPLE_RATE)
        self.report(f"the first {longest:g} s: in a conversion this model gets no more at once")
        f0 = None if audio.f0_hz is None else audio.f0_hz[: 1 + count // 160]
        return audio._replace(samples=audio.samples[:count], f0_hz=f0, source=f"{audio.source}, first {longest:g} s")

    def check_audio(self) -> None:
        """A file that cannot be used is an error before anything is started."""
        if self.config.audio is not None:
            read_audio(self.config.audio)

    def probes(self, seconds: float) -> tuple[Probe, ...]:
        return tuple(map(self._with_vectors, filter(self.wants, self._probes(seconds))))

    def wants(self, probe: Probe) -> bool:
        """Whether this run takes it; asked first, as vectors for an index cost a call of HuBERT."""
        return True

    def _probes(self, seconds: float) -> tuple[Probe, ...]:
        return self.suite.probes(self._audio(seconds), self.settings, self.facts[self.reference]["model"])

    def _with_vectors(self, probe: Probe) -> Probe:
        """Where features are looked up among seeded vectors, some of the reference's own are among them."""
        wanted = {**self.settings, **probe.settings}
        if not wanted.get("index_rate") or wanted["index"]:
            return probe
        worker = self.workers[self.reference]
        with in_files(probe.inputs) as files, scratch_folder() as folder:
            worker.ask("prepare", self.timeout_s, inputs=files)
            path = str(folder / "vectors.npy")
            try:
                worker.ask("own_features", self.timeout_s, settings=probe.settings, path=path)
            except WorkerError as error:
                raise UserError(f"probe {probe.name!r}: {error}") from None
            return probe._replace(inputs={**probe.inputs, "vectors": np.load(path)})

    def seconds(self, plain: bool) -> float:
        """What the user asked for, else the suite's default; without optimisations a CPU is slow."""
        asked = any(text.startswith("durations=") for text in self.config.overrides)
        durations = self.config.durations
        first = durations if isinstance(durations, int | float) else durations[0]
        trace = self.trace_options
        if plain and device_kind(self.backends[-1]) == "cpu" and self.config.measure.model == "full":
            return min(trace.plain_seconds, first) if asked else trace.plain_seconds
        return float(first if asked else trace.seconds)


class TraceRun(Sides):
    """One model on two sides, walked on every probe in every variant; rows go to ``records.jsonl`` at once."""

    def __init__(self, config: Config, report: Callable[[str], None] = lambda text: None) -> None:
        super().__init__(config, choose(config), report)
        self.other = self.backends[1]
        self.rows: list[Stage] = []

    # ------------------------------------------------------------------ the whole trace
    def execute(self, folder: Path) -> None:
        self.file = RecordFile(records_file(folder))
        with self.started(folder):
            write_whole(folder / ENVIRONMENT, json.dumps(self.described(), indent=1) + "\n")
            for row in self._variants():
                self._keep(row)
            self._pin()
            self._spread()
            for voice in self._other_voices():
                for row in self._walk_voice(voice):
                    self._keep(row)
        self.file.close()

    @property
    def optimize(self) -> list[str]:
        """The optimisations of the other side, as configured."""
        return list(self.facts[self.other]["model"]["optimize"])

    def load_other(self, optimize: Any) -> None:
        self._load(self.other, optimize)

    # ------------------------------------------------------------------ walking
    def _pair(self) -> Pair:
        identity = {"suite": self.config.suite.name, "backend": self.other, "reference": self.reference}
        identity |= {"precision": self.config.precision, "profile": self.config.profile}
        workers = self.workers[self.reference], self.workers[self.other]
        return Pair(*workers, self.timeout_s, identity, sample_rate=self.sample_rate)

    def walk(self, probes: Iterable[Probe], variant: str) -> Iterator[Stage]:
        tolerances = Tolerances.of(self.config.suite.name, self.config.precision, device_kind(self.other))
        for probe in probes:
            for row in ProbeTrace(self._pair(), probe, variant, tolerances).rows():
                self.report(f"{variant}, {probe.name}: {row.path}")
                yield row

    def only_walk(self, probe: Probe) -> None:
        """What is done to the compared side on this probe, without the reference and without judging."""
        worker = self.workers[self.other]
        with in_files(probe.inputs) as files:
            worker.ask("prepare", self.timeout_s, inputs=files)
            common = {"exact": False, "sample_rate": self.sample_rate, "settings": probe.settings}
            worker.ask("trace_open", self.timeout_s, reference=False, **common)
            while probe.walked and worker.ask("trace_next", self.timeout_s)["path"] is not None:
                pass
            for pieces in (False, True) if probe.pieces else (False,):
                worker.ask("trace_call", self.timeout_s, settings=probe.settings, pieces=pieces)

    def _variants(self) -> Iterator[Stage]:
        """As configured; and with every optimisation off, whose stages are the finest."""
        yield from self.walk(self.probes(self.seconds(plain=False)), CONFIGURED)
        if self.optimize and self.trace_options.plain:
            self.load_other("none")
            yield from self.walk((p for p in self.probes(self.seconds(plain=True)) if p.plain), PLAIN)

    def _other_voices(self) -> list[str]:
        """Of the voices to walk too, those that are not the traced one; a voice of yours is walked alone."""
        if self.config.weights.voice is not None:
            return []
        return [name for name in self.trace_options.voices if name != getattr(self.config.suite, "voice", None)]

    def _walk_voice(self, voice: str) -> Iterator[Stage]:
        """A small voice, on a short clip: as configured, since a plain path takes too long on a CPU."""
        probe = Probe(f"voice {voice}", {})
        if not self.wants(probe):
            return
        suite = msgspec.structs.replace(self.config.suite, voice=voice)
        measure = msgspec.structs.replace(self.config.measure, model="tiny")
        self.weights = weights_of(msgspec.structs.replace(self.config, suite=suite, measure=measure))
        for name in self.backends:
            try:
                self.facts[name] = self.facts[name] | {"model": self._load(name, self.config.optimize)}
            except WorkerError as error:  # a finding as well, and what was walked before is kept
                tolerances = Tolerances(self.config.suite.name, {})  # nothing is compared
                yield ProbeTrace(self._pair(), probe, CONFIGURED, tolerances).failed("(load)", f"{name}: {error}")
                return
        clip = self._probes(VOICE_SECONDS)[0]
        yield from self.walk([clip._replace(name=probe.name)], CONFIGURED)

    def _keep(self, row: Stage) -> None:
        self.rows.append(row)
        self.file.write_line(row)

    def _pin(self) -> None:
        """A fault that is gone with every optimisation off belongs to one: each is left out in turn."""
        found = findings.find([msgspec.to_builtins(row) for row in self.rows])
        walked_plain = any(row.variant == PLAIN for row in self.rows)
        if found is None or found.variant != CONFIGURED or not walked_plain or self._faulty(PLAIN):
            return
        # on the very input that the fault was seen on: a shorter one may not have it
        probes = [p for p in self.probes(self.seconds(plain=False)) if p.name == found.probe]
        for name in self.optimize:
            self.load_other([other for other in self.optimize if other != name])
            for row in self.walk(probes, f"without {name}"):
                self._keep(row)
            if not self._faulty(f"without {name}"):
                return

    def _faulty(self, variant: str) -> bool:
        return any(row.variant == variant and row.status == FAULT for row in self.rows)

    def _spread(self) -> None:
        """How far the reference is from itself under other noise, where it takes any."""
        rate = self.sample_rate
        if rate is None or not self.trace_options.spread:
            return
        self.report("the reference under other noise")
        probe = self._probes(self.seconds(plain=False))[0]
        pair = self._pair()
        with in_files(probe.inputs) as files:
            pair.ask(pair.reference, "prepare", inputs=files)
            seeds = [self.config.seed + i for i in range(SPREAD_SEEDS)]
            ask = {"seeds": seeds, "settings": probe.settings, "sample_rate": rate}
            try:
                answer = pair.ask(pair.reference, "trace_spread", **ask)
            except WorkerError as error:
                if error.kind == "NonFiniteError":  # its rows say where
                    return
                raise
        key = {"suite": self.config.suite.name, "case": probe.name, "component": "noise", "backend": self.reference}
        self.file.write_line(Spread(schema=SCHEMA, seeds=seeds, spread=answer["spread"], **key))


def _ending(audio: Audio, seconds: float) -> Audio:
    """The last seconds, from a whole frame on."""
    start = max(0, audio.samples.size - int(seconds * SAMPLE_RATE)) // 160
    if start == 0 or audio.f0_hz is None:
        return audio
    samples = audio.samples[start * 160 :][: int(seconds * SAMPLE_RATE)]
    f0 = audio.f0_hz[start : start + 1 + samples.size // 160]
    return audio._replace(samples=samples, f0_hz=f0, source=f"{audio.source}, last {seconds:g} s")


def choose(config: Config) -> tuple[str, str]:
    """The reference, and the backend that is compared with it.

    Raises ``UserError``: one of them is not there, or more than two were named."""
    names, asked = requested_backends(config)
    reasons = {name: impossible(name) for name in names}
    if asked:
        if len(names) != 2:
            raise UserError(f"backends={names}: a trace needs two: the reference and the one compared with it")
        if bad := [f"backend {name}: {reason}" for name, reason in reasons.items() if reason]:
            raise UserError(bad[0])
        first = next((name for name in names if BACKENDS[name].framework == "torch"), names[0])
        if config.precision != "fp32" and "torch_cuda" in names:
            first = "torch_cuda"  # TF32 exists there only, and CPUs are slow in half precision
        return first, next(name for name in names if name != first)
    present = [name for name, reason in reasons.items() if reason is None and works(name)]
    torch, mlx = ([name for name in present if BACKENDS[name].framework == own] for own in ("torch", "mlx"))
    if not torch or not mlx:
        raise UserError("a trace needs PyTorch and MLX; install both: pip install -e '.[mlx,torch]'")
    on_gpu = config.precision != "fp32" and "torch_cuda" in torch
    return "torch_cuda" if on_gpu else parity_reference(torch), mlx[-1]


@functools.cache
def works(name: str) -> bool:
    """Whether a backend with a GPU in its name finds one; the others do. Asked once a process: it starts a worker."""
    if BACKENDS[name].device == "cpu":
        return True
    with scratch_folder() as folder, Worker(name, "fp32", 1, folder / "log") as worker:
        try:
            return bool(worker.ask("hello", HELLO_TIMEOUT_S, threads=1)["available"])
        except (WorkerError, WorkerLost):
            return False


def open_trace(config: Config) -> Lock:
    """A new folder ``<time>-trace-<model>`` under ``runs``, or ``out=``."""
    return new_folder(msgspec.structs.replace(config, trace=True), f"trace-{config.suite.name}")
