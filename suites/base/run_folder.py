"""A run's folder on disk: its files, by name, and what each of them holds."""

from __future__ import annotations

import contextlib
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from . import plugins
from .backends import register_ports
from .errors import UserError
from .files import read_arrays, read_yaml
from .lines import Key, Keyed, Record, Sample, Unmeasured
from .records import read_lines, read_records, records_file, results, samples_of

Facts = dict[str, Any]
CONFIG, ENVIRONMENT, PLAN, PROFILE = "config.yaml", "environment.json", "plan.json", "profile.json"
NO_PLAN = {"suite": "", "backends": [], "keys": []}
# what every configuration has
CONFIGURED = ("suite", "precision", "profile", "overrides")


def own_folder(wanted: Path) -> Path:
    """A new folder of that name, with a number at its end where there is one already.

    Raises ``OSError``: it cannot be made."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = wanted.with_name(wanted.name + (f"-{number}" if number > 1 else ""))
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


class StoredPlan(msgspec.Struct):
    """``plan.json``. ``keys``: every case, component and backend that is to have a record."""

    suite: str
    backends: list[str]
    keys: list[Key]


class RunFolder:
    """The folder of a run or of a trace, whole or interrupted. Nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # ------------------------------------------------------------------ what it is
    @property
    def exists(self) -> bool:
        """Whether it was begun: a run or a trace has its configuration before anything else."""
        return (self.path / CONFIG).is_file()

    @property
    def is_planned(self) -> bool:
        """Whether a run came so far that it could measure; a trace has no plan."""
        return (self.path / PLAN).is_file()

    @property
    def is_trace(self) -> bool:
        found = self.records_file
        return found.is_file() and any(line.get("kind") == "trace" for line in read_lines(found))

    @property
    def is_profile(self) -> bool:
        return (self.path / PROFILE).is_file()

    def runs(self, depth: int = 1) -> list[RunFolder]:
        """The runs and traces inside, at most ``depth`` folders down, by path; such as ``run all`` leaves them."""
        levels = ("/".join(["*"] * n) for n in range(1, depth + 1))
        found = sorted(p.parent for n in levels for p in self.path.glob(f"{n}/{CONFIG}"))
        return [run for run in map(RunFolder, found) if not run.is_profile]

    # ------------------------------------------------------------------ what was run, where
    def config(self) -> Facts:
        """The configuration that it was begun with.

        Raises ``UserError``: there is none, it lacks what every one has, or a plugin that the run needs is not
        loaded."""
        path = self.path / CONFIG
        if not path.is_file():
            raise UserError(f"{self.path}: not a run folder (no {CONFIG})")
        try:
            config = read_yaml(path)
            whole = isinstance(config["suite"]["name"], str) and all(name in config for name in CONFIGURED)
        except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise UserError(f"{path}: is damaged")
        needed = self.environment().get("plugins", [])
        if not set(needed) <= set(plugins.names()):
            raise UserError(f"{self.path}: needs {plugins.VARIABLE}={','.join(needed)}")
        register_ports(config.get("ports", {}))
        return dict(config)

    def environment(self) -> Facts:
        """The machine and its software; empty where the run was interrupted before it was written.

        Raises ``UserError``: it is damaged."""
        found = self._json(ENVIRONMENT)
        if not isinstance(found, dict):
            raise UserError(f"{self.path / ENVIRONMENT}: is damaged")
        return found

    def plan(self) -> StoredPlan:
        """What was to be measured; nothing where the run was interrupted before it was known.

        Raises ``UserError``: it is damaged."""
        try:
            return msgspec.convert(self._json(PLAN) if self.is_planned else NO_PLAN, StoredPlan)
        except msgspec.ValidationError:
            raise UserError(f"{self.path / PLAN}: is damaged") from None

    def _json(self, name: str) -> Any:
        """A JSON file; empty where it is not there, None where it is damaged."""
        path = self.path / name
        try:
            return json.loads(path.read_text()) if path.is_file() else {}
        except (ValueError, RecursionError):
            return None

    # ------------------------------------------------------------------ what was measured
    @property
    def records_file(self) -> Path:
        return records_file(self.path)

    def lines(self) -> Iterator[Keyed]:
        """Everything that was written, in order.

        Raises ``UserError``: there are no records, a line is damaged, or its schema is newer than this program."""
        return read_records(self.records_file)

    def results(self) -> list[Record | Unmeasured]:
        """The closing records that count, one per case, component and backend."""
        return results(self.lines())

    def samples(self) -> dict[Key, dict[int, Sample]]:
        return samples_of(self.lines())

    # ------------------------------------------------------------------ arrays and audio that were kept
    def array_file(self, kind: str, case: str) -> Path:
        """``kind``: ``contours`` or ``spectra``."""
        return self.path / kind / f"{case}.npz"

    def contours(self, case: str) -> dict[str, np.ndarray]:
        """F0 in Hz ``[frames]`` as ``f0.BACKEND``, ``f0.truth``, and the reference's ``mel`` ``[128, frames]``.
        Empty where the file is missing or damaged."""
        return self._arrays("contours", case)

    def spectra(self, case: str) -> dict[str, np.ndarray]:
        """``sample_rate``, and in dB ``[bins, frames]`` ``spectrum.BACKEND`` and ``residual.BACKEND``.
        Empty where the file is missing or damaged."""
        return self._arrays("spectra", case)

    def _arrays(self, kind: str, case: str) -> dict[str, np.ndarray]:
        try:
            return read_arrays(self.array_file(kind, case))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return {}

    def audio_file(self, case: str, backend: str) -> Path:
        """What came out, 24-bit WAV at the voice's rate."""
        return self.path / "audio" / f"{case}.{backend}.wav"
