"""A trace of a port that an adapter connects: its stages are a dump, and a bundle of the reference judges them.

Every probe is called twice: once on the adapter's own values, and, where it can start again, once from the reference's
value after every stage, which gives local errors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from ..base.backends import BACKENDS, impossible, is_port
from ..base.errors import UserError
from ..base.files import scratch_folder
from ..base.ports import NOISE
from ..definitions.base import Probe
from ..definitions.config import Config
from ..definitions.plan import requested_backends
from ..measure.launch import Worker, WorkerError, WorkerLost
from ..measure.session import HELLO_TIMEOUT_S
from .make import BundleRun
from .stored import Folder, StoredProbe

# inputs of a part of the call that are values of the reference's
MADE = ("mel", "salience", "extracted")


def traced_port(config: Config) -> str | None:
    """The port among the backends that were named, if any.

    Raises ``UserError``: beside it there is not exactly one backend of PyTorch."""
    names, asked = requested_backends(config)
    ports = [name for name in names if is_port(name)]
    if len(ports) > 1 or (ports and asked and (len(names) != 2 or BACKENDS[names[0]].framework != "torch")):
        told = "a port is traced beside one backend of PyTorch, such as torch_cpu"
        raise UserError(f"backends={','.join(names)}: {told}")
    return ports[0] if ports else None


class PortTrace(BundleRun):
    """One model, walked by the reference on every probe, and by a port."""

    def __init__(self, config: Config, port: str, report: Callable[[str], None] = lambda text: None) -> None:
        if reason := impossible(port):
            raise UserError(f"backend {port}: {reason}")
        names, asked = requested_backends(config)
        others = [name for name in names if name != port] if asked else None
        device = "cpu" if BACKENDS[port].device == "cpu" else "gpu"
        super().__init__(msgspec.structs.replace(config, backends=others, ports={}), device, False, report)
        self.port, self.problems = port, list[str]()

    def wants(self, probe: Probe) -> bool:
        """Those that the port's call can be given: one recording at a time, and no setting that it does not take."""
        takes = self.suite.takes[self.call]
        changed = {name for name, value in probe.settings.items() if self.settings.get(name) != value}
        arrays = {name for name in takes if name not in self.settings} - {"noise", *MADE}
        fits = changed <= {*takes} and arrays <= {*probe.inputs} and np.ndim(probe.inputs.get("audio", [0])) == 1
        return fits and super().wants(probe)

    def execute_port(self, bundle: Path, dump: Path) -> None:
        """The reference's values into ``bundle``, the port's into ``dump``.

        Raises ``UserError``: the port cannot be started or loaded, or has no stages."""
        log = dump.parent / "port.log"
        try:
            with Worker(self.port, self.config.precision, self.threads, log) as worker:
                self._load_port(worker)  # before the reference's long walk
                self.execute(bundle)
                folder = Folder(bundle)
                for probe in folder.about.probes:
                    self._walk_port(worker, folder, probe, dump / probe.folder)
        except (WorkerError, WorkerLost) as error:
            raise UserError(f"backend {self.port}: {error}") from None

    def _load_port(self, worker: Worker) -> None:
        self.report(f"starting {self.port}")
        facts = worker.ask("hello", HELLO_TIMEOUT_S, threads=self.threads)
        if not facts["available"]:
            raise UserError(f"backend {self.port}: {facts['reason']}")
        model, call = self.suite.of_port(self.suite.whole or "")
        if not facts["stages"] or not facts["components"].get(model):
            reason = f"its adapter yields no stages() of {model}; run judges it call by call"
            raise UserError(f"backend {self.port}: {reason}")
        self.restarts = bool(facts["restart"])
        # the whole call, or the part of it that the port has
        named = [name for name in (call, *self.suite.takes) if name in facts["components"][model]]
        self.call = next(iter(named))
        paths = {name: str(self.weights[name].path) for name in self.suite.checkpoints}
        own = {"suite": self.suite.name, "paths": paths, "optimize": "none", "settings": self.settings}
        worker.ask("load", self.timeout_s, **own, **self.suite.port_facts())

    def _walk_port(self, worker: Worker, folder: Folder, probe: StoredProbe, dump: Path) -> None:
        """One probe. What the adapter raises is told, and costs this probe alone."""
        self.report(f"{self.port}: {probe.name}")
        with scratch_folder() as scratch:
            files: dict[str, str] = {}
            inputs = folder.inputs(probe)
            for name in inputs.names:
                drawn = name.removeprefix("noise.")
                own = NOISE.format(call=self.call, number=drawn) if drawn != name else name
                files[own] = str(scratch / f"in-{len(files)}.npy")
                np.save(files[own], inputs[name])
            references: dict[str, str] = {}
            values = folder.values(probe)
            for value in probe.values:
                wanted = self.restarts or value.name in self.suite.takes[self.call]
                if wanted and value.name == value.stage:  # its main one
                    references[value.stage] = str(scratch / f"{len(references)}.npy")
                    np.save(references[value.stage], values[value.key])
            # a part of the call begins with a value of the reference's
            files |= {one: references[one] for one in self.suite.takes[self.call] if one in references}
            worker.ask("prepare", self.timeout_s, inputs=files)
            asked = {"component": self.call, "settings": probe.settings, "into": str(dump)}
            try:
                worker.ask("stages", self.timeout_s, **asked, references=references if self.restarts else {})
            except WorkerError as error:
                self.problems.append(f"probe {probe.name}: the adapter raises {error}")
