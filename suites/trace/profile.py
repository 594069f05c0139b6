"""A profile as a run: every stage of a model by the clock, on one backend or several, beside the machine's peaks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..base import environment
from ..base.backends import BACKENDS, impossible, is_port
from ..base.errors import UserError
from ..base.files import in_files, write_whole
from ..base.lock import Lock
from ..base.run_folder import ENVIRONMENT, PROFILE
from ..definitions import SUITES
from ..definitions.base import Probe
from ..definitions.config import Config
from ..definitions.plan import requested_backends
from ..inputs.recordings import SAMPLE_RATE
from ..measure.launch import WorkerError, WorkerLost
from ..measure.runner import new_folder
from . import stages
from .run import Sides, works

# a longer input has the same stages, and every one of its values is kept in memory for a moment
LONGEST_S = 60.0
# rounds of one walk and one call on each backend, until this time is spent
SECONDS, ROUNDS = 15.0, (3, 20)
# between measurements of the peaks: other work slows them now and then
PEAKS_EVERY_S = 10.0


class ProfileRun(Sides):
    def __init__(self, config: Config, report: Callable[[str], None]) -> None:
        if config.durations == [] and config.audio is None:
            raise UserError("durations=[] leaves nothing to profile")
        # before the weights, which may have to be made
        self.config, self.suite = config, SUITES[config.suite.name]
        if config.audio is None and (wanted := self.seconds()) > self.longest_s:
            raise UserError(f"durations={wanted:g}: a profile of {self.suite.name} takes {self.longest_s:g} s at most")
        self.timed = chosen(config)
        # whose operators are counted: the work is the same on every backend
        self.counter = next((name for name in (*self.timed, "torch_cpu") if BACKENDS[name].framework == "torch"), "")
        more = (self.counter,) if self.counter not in self.timed and impossible(self.counter) is None else ()
        super().__init__(config, (*self.timed, *more), report)
        self.peaks: dict[str, dict[str, float]] = {}
        self.peaks_at = 0.0
        self.threads = config.threads or environment.physical_cores()

    @property
    def longest_s(self) -> float:
        return min(LONGEST_S, super().longest_s or LONGEST_S)

    def seconds(self, plain: bool = False) -> float:
        durations = self.config.durations
        several = isinstance(durations, list) and len(durations) > 1
        if several and any(text.startswith("durations=") for text in self.config.overrides):
            raise UserError(f"durations={durations}: a profile takes one; give the others a profile each")
        return float(durations[0] if isinstance(durations, list) else durations)

    def execute(self, folder: Path) -> dict[str, Any]:
        """Measure, and leave it in ``profile.json``.

        Raises ``UserError``: the model refuses this input, or a worker died."""
        with self.started(folder):
            write_whole(folder / ENVIRONMENT, json.dumps(self.described(), indent=1) + "\n")
            try:
                probe = self._with_vectors(self._probes(self.seconds())[0])
                audio = self._audio(self.seconds())
                head = {"model": self.suite.name, "source": audio.source, "seconds": audio.samples.size / SAMPLE_RATE}
                found = head | self._measured(probe)
            except (WorkerError, WorkerLost) as error:
                raise UserError(str(error)) from None
        write_whole(folder / PROFILE, json.dumps(found) + "\n")
        return found

    def _measured(self, probe: Probe) -> dict[str, Any]:
        walks: dict[str, list[stages.Walked]] = {name: [] for name in self.timed}
        calls: dict[str, list[float]] = {name: [] for name in self.timed}
        with in_files(probe.inputs) as files:
            for worker in self.workers.values():
                worker.ask("prepare", self.timeout_s, inputs=files)
            self._peaks()
            number, total, spent = 0, ROUNDS[0], 0.0
            while number <= total:  # the first round warms up
                left = f", about {(total + 1 - number) * spent:.0f} s left" if number > 1 else ""
                begun = time.monotonic()
                for name in self.timed:
                    self.report(f"round {number} of {total}{left}: {name}" if number else f"warming up {name}")
                    walked, called = (self._ask(name, part, probe) for part in ("stages", "call"))
                    if number:
                        walks[name].append(walked["stages"])
                        calls[name].append(called["seconds"])
                spent = time.monotonic() - begun
                if time.monotonic() - self.peaks_at > PEAKS_EVERY_S:
                    self._peaks()
                if number == 1:
                    total = min(max(ROUNDS[0], round(SECONDS / spent)), ROUNDS[1])
                number += 1
            self._peaks()
            until = stages.common([[path for path, _, _ in own[0]] for own in walks.values()])
            seconds = {name: [stages.merged(one, until) for one in own] for name, own in walks.items()}
            work = self._work(probe, until)
            backends = {name: self._of_backend(name, probe, walks[name], calls[name]) for name in self.timed}
        rows = [
            {"path": path, **counts, "seconds": {name: [one[i] for one in own] for name, own in seconds.items()}}
            for i, (path, counts) in enumerate(zip(until, work, strict=True))
        ]
        counted_on = self.counter if any(one["bytes"] for one in work) else None
        return {"counted_on": counted_on, "peaks": self.peaks, "backends": backends, "stages": rows}

    def _of_backend(self, name: str, probe: Probe, walks: list[Any], calls: list[float]) -> dict[str, Any]:
        self.report(f"kernels of {name}")
        totals = [sum(seconds for _, _, seconds in walk) for walk in walks]
        middle = walks[totals.index(sorted(totals)[len(totals) // 2])]
        return {"calls_s": calls, "walk": middle, **self._ask(name, "kernels", probe)}

    def _peaks(self) -> None:
        """Before, between and after the rounds: the best ones count, as other work only ever slows."""
        for name, worker in self.workers.items():
            self.report(f"the machine's peaks by {name}")
            again, before = worker.ask("peaks", self.timeout_s), self.peaks.get(name, {})
            self.peaks[name] = {key: max(value, before.get(key, value)) for key, value in again.items()}
        self.peaks_at = time.monotonic()

    def _work(self, probe: Probe, until: list[str]) -> list[dict[str, int | None]]:
        """FLOP and bytes up to each of these stages; None where no operator of PyTorch ran, as in NumPy."""
        if self.counter not in self.workers:
            return [{"flops": None, "bytes": None}] * len(until)
        self.report(f"counting the work on {self.counter}")
        work = self._ask(self.counter, "work", probe, until=until)["work"]
        return [{name: one[name] if one["bytes"] else None for name in ("flops", "bytes")} for one in work]

    def _ask(self, name: str, part: str, probe: Probe, **arguments: Any) -> dict[str, Any]:
        ask = {"part": part, "settings": probe.settings, **arguments}
        return self.workers[name].ask("profile", self.timeout_s, **ask)


def chosen(config: Config) -> tuple[str, ...]:
    """The backends that were asked for; else of each framework one, the GPU's where there is one.

    Raises ``UserError``: one of them is not there, or is a port, whose stages are its own."""
    names, asked = requested_backends(config)
    reasons = {name: impossible(name) for name in names}
    if asked:
        reasons |= {name: "a port's stages cannot be timed one by one; leave it out" for name in names if is_port(name)}
        if bad := [f"backend {name}: {reason}" for name, reason in reasons.items() if reason]:
            raise UserError(bad[0])
        return tuple(names)
    present = [name for name, reason in reasons.items() if reason is None and not is_port(name) and works(name)]
    if not present:
        raise UserError("a profile needs PyTorch or MLX; install both: pip install -e '.[mlx,torch]'")
    return tuple({BACKENDS[name].framework: name for name in present}.values())


def open_profile(config: Config) -> Lock:
    """A new folder ``<time>-profile-<model>`` under ``runs``, or ``out=``."""
    return new_folder(config, f"profile-{config.suite.name}")
