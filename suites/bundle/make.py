"""Makes a bundle: the reference walks every probe, and what it computes is written down with its tolerances."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rvc_common.outputs import OutputError, check_folder

from ..base.backends import BACKENDS, impossible, parity_reference
from ..base.errors import UserError
from ..base.files import in_files, read_arrays, scratch_folder, write_whole
from ..definitions.base import Probe
from ..definitions.config import Config
from ..definitions.plan import requested_backends
from ..inputs.weights import sha256
from ..measure.launch import WorkerError, WorkerLost
from ..metrics.floors import METRICS, SAFETY, Tolerances, floor
from ..metrics.stages import inside
from ..trace.run import Sides
from ..trace.walk import FAR
from .stored import (
    BUNDLE,
    INPUTS,
    SCHEMA,
    SCHEMA_FILE,
    SCHEMA_NAME,
    STAGES,
    Array,
    Bound,
    Bundle,
    Draw,
    Group,
    StoredFile,
    StoredProbe,
    StoredWeights,
    Tolerance,
    Value,
    dtype_of,
    key_of,
)
from .tensors import TensorFile

Facts = dict[str, Any]
RULE = (
    f"limit = {SAFETY:g} x excess x floor, for the root mean square and for the largest error. floor: the reference "
    "against itself in float64 at this stage on this input, at least unit x level; excess: how many floors a correct "
    "backend was away when the table of floors was measured, at least 1 (docs/parity.md). factor = limit / floor"
)
# what the inputs of all models mean
MEANINGS = {
    "audio": "mono audio; 16 kHz unless the settings name a sample_rate",
    "phone": "content features, one row for each frame",
    "pitch": "coarse pitch, 1 to 255",
    "f0": "F0 in Hz, 0 where unvoiced",
    "own_f0": "F0 in Hz that takes the place of the pitch model's",
    "lengths": "frames of each batch item; what follows is padding",
    "speaker": "number of the speaker of each batch item",
    "index": "vectors that features are looked up among",
}
# of the configuration, what a call does not depend on, or what the bundle says elsewhere
LEFT_OUT = (
    "name", "summary", "components", "limits", "trace", "growth", "durations", "seed", "speech_clip", "snr_db",
    "parts_tolerance", "index",
)  # fmt: skip


class BundleRun(Sides):
    """One model on the reference's backend, walked on every probe. ``device``: where the port runs.

    Raises ``UserError``: the backend is not there, or is none that has a float64 of its own."""

    def __init__(
        self, config: Config, device: str, copy_weights: bool, report: Callable[[str], None] = lambda text: None
    ) -> None:
        super().__init__(config, (reference_of(config),), report)
        self.device, self.copy_weights = device, copy_weights
        self.tolerances = Tolerances.of(config.suite.name, config.precision, device)

    def execute(self, folder: Path) -> Bundle:
        """Everything into ``folder``, which is empty; ``bundle.json`` last.

        Raises ``UserError``: the model cannot walk the input, or computes NaN or infinity."""
        weights = [self._weights(name, folder) for name in self.weights if name in self._loaded]
        try:
            with scratch_folder() as scratch, self.started(scratch):
                probes = [self._probe(one, folder) for one in self.probes(self.seconds(plain=False))]
                described = self.described()
        except (WorkerError, WorkerLost) as error:
            raise UserError(str(error)) from None
        shutil.copyfile(SCHEMA_FILE, folder / SCHEMA_NAME)
        files = [_file(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()]
        own = hashlib.sha256(
            "".join(f"{f.path} {f.sha256}\n" for f in files if f.path.endswith((INPUTS, STAGES))).encode()
        )
        words = [word for word in self.config.overrides if not word.startswith("out=")]
        bundle = Bundle(
            schema=SCHEMA,
            id=own.hexdigest()[:16],
            model=self.suite.name,
            precision=self.config.precision,
            profile=self.config.profile,
            reference=self.reference,
            device=self.device,  # type: ignore[arg-type]  # argparse takes no other
            seed=self.config.seed,
            audio=described.pop("audio"),
            facts={k: v for k, v in described.pop("backends")[self.reference]["model"].items() if k != "optimize"},
            rule=RULE,
            versions={k: v for k, v in described.items() if k not in ("weights", "load_average_1min")},
            command=shlex.join(["python", "-m", "suites", "bundle", self.suite.name, "OUT", *words]),
            weights=weights,
            probes=probes,
            files=files,
        )
        write_whole(folder / BUNDLE, msgspec.json.format(msgspec.json.encode(bundle), indent=1).decode() + "\n")
        return bundle

    def wants(self, probe: Probe) -> bool:
        """Those that are not plain reach what rvc_mlx alone has, and of a call alone there are no stages."""
        return probe.plain and probe.walked

    # ------------------------------------------------------------------ weights
    @property
    def _loaded(self) -> tuple[str, ...]:
        return (*self.suite.checkpoints, "index")

    def _weights(self, name: str, folder: Path) -> StoredWeights:
        """Synthetic ones are copied: another language cannot make them. A real checkpoint is only named."""
        found = self.weights[name]
        given = name in self.config.weights.given()
        size = sum(p.stat().st_size for p in found.path.rglob("*") if p.is_file()) if found.path.is_dir() else 0
        target = None
        if not given or self.copy_weights:
            target = folder / "weights" / (name + found.path.suffix)
            target.parent.mkdir(exist_ok=True)
            (shutil.copytree if found.path.is_dir() else shutil.copyfile)(found.path, target)
        return StoredWeights(
            name=name,
            label=found.label,
            original=found.path.name,
            sha256=found.sha256,
            bytes=size or found.path.stat().st_size,
            file=target.relative_to(folder).as_posix() if target else None,
        )

    # ------------------------------------------------------------------ probes
    def _probe(self, probe: Probe, folder: Path) -> StoredProbe:
        # the reference runs on what the port will read
        probe = probe._replace(inputs={name: narrowed(array) for name, array in probe.inputs.items()})
        place = folder / key_of(probe.name, [path.name.lower() for path in folder.iterdir()])
        place.mkdir()
        inputs = TensorFile(place / INPUTS)
        with in_files(probe.inputs) as files, scratch_folder() as scratch:
            self._ask("prepare", inputs=files)
            self._ask("trace_inputs", settings=probe.settings, path=str(scratch / "made.npz"))
            given = {**probe.inputs, **read_arrays(scratch / "made.npz")}
            given.pop("vectors", None)  # they are in the index
            for name, array in given.items():
                inputs.add(name, array)
            walk = Walked(self.tolerances, self._meaning, place, inputs)
            for step in self._steps(probe, scratch):
                self.report(f"{probe.name}: {step['path']}")
                walk.take(step)
            for step in self._merged(probe, scratch, walk):
                self.report(f"{probe.name}, as one: {step['path']}")
                walk.judge_group(step)
        inputs.close()
        walk.stages.close()
        settings = {k: v for k, v in {**self.settings, **probe.settings}.items() if k not in LEFT_OUT and v is not None}
        return StoredProbe(
            name=probe.name,
            folder=place.name,
            settings=settings,
            inputs=[Array(n, list(a.shape), dtype_of(a), MEANINGS.get(n, n)) for n, a in given.items()],
            noise=walk.noise,
            values=walk.values,
            groups=walk.groups,
        )

    def _ask(self, do: str, **arguments: Any) -> Facts:
        return self.workers[self.reference].ask(do, self.timeout_s, **arguments)

    def _open(self, probe: Probe) -> None:
        self._ask("trace_open", reference=True, exact=True, settings=probe.settings)

    def _steps(self, probe: Probe, scratch: Path) -> Iterator[Facts]:
        self._open(probe)
        while (step := self._ask("trace_step", folder=str(scratch)))["path"] is not None:
            yield step

    def _merged(self, probe: Probe, scratch: Path, walk: Walked) -> Iterator[Facts]:
        """A second walk, in which a group of plain stages is one: ports merge these, and their rounding adds up."""
        self._open(probe)
        for path in walk.outline():
            found = self._ask("trace_next", until=path, leaf=True, folder=str(scratch))
            yield {"path": path, "entries": found["entries"]}

    def _meaning(self, path: str, entry: Mapping[str, Any]) -> str:
        part = next((item.title for item in self.suite.validated if item.has(path)), "")
        return ": ".join(text for text in (part, entry["operation"]) if text) or path.rpartition(".")[2]


class Walked:
    """What the reference's walk on one probe gives, as it goes."""

    def __init__(
        self, tolerances: Tolerances, meaning: Callable[[str, Facts], str], place: Path, inputs: TensorFile
    ) -> None:
        self.tolerances, self.meaning = tolerances, meaning
        self.stages, self.inputs = TensorFile(place / STAGES), inputs
        self.values: list[Value] = []
        self.groups: list[Group] = []
        self.noise: list[Draw] = []
        self._stored: set[bytes] = set()  # digests of the values
        self._keys: set[str] = set()
        self._last: dict[tuple[str, str], Value] = {}  # of every model inside and entry, the last value
        self._paths: list[str] = []

    def take(self, step: Facts) -> None:
        path = step["path"]
        self._paths.append(path)
        for draw in step["draws"]:
            array = np.load(draw["file"])
            key = f"noise.{draw['index']}"
            self.inputs.add(key, array)
            self.noise.append(Draw(key, draw["index"], draw["kind"], list(array.shape), path))
        for name, entry in step["entries"].items():
            self._value(step, name, entry)
        made, last = step["product"] in step["entries"], self._last.get((step["prefix"], step["product"]))
        if made or last is None:
            return
        first = next((one for one in self.values if inside(one.stage, path)), None)
        if first is not None:
            self.groups.append(Group(path, self._key(path), last.name, first.name))

    def _key(self, name: str) -> str:
        key = key_of(name, self._keys)
        self._keys.add(key.lower())
        return key

    def _value(self, step: Facts, name: str, entry: Facts) -> None:
        path, array = step["path"], narrowed(np.load(entry["file"]))
        main = name == step["product"]
        if not entry["finite"]:
            raise UserError(f"the reference computes NaN or infinite values, first in stage {path}; no port can match")
        digest = hashlib.blake2b(repr((array.shape, array.dtype)).encode() + array.tobytes()).digest()
        if not main and digest in self._stored:
            return  # kept for a later stage: no value of its own
        self._stored.add(digest)
        entry["decides"] = step["decides"]
        times = self.tolerances.reference_error(path, name, entry)
        full = path if main else f"{path}#{name}"
        value = Value(
            name=full,
            key=self._key(full),
            stage=path,
            entry=name,
            within=step["prefix"].rstrip("."),
            shape=list(array.shape),
            axes=list(entry["axes"]),
            dtype=dtype_of(array),
            meaning=self.meaning(path, entry),
            rms=entry["rms"],
            peak=entry["peak"],
            exact=entry["exact"],
            decides=step["decides"],
            ranks=step["ranks"],
            reference_wrong=None if times is None else FAR.format(error=entry["floor_added"]["max_abs"], times=times),
            tolerance=Tolerance(entry["unit"], self._local(path, name, entry), self._accumulated(path, entry)),
        )
        self.stages.add(value.key, array)
        self.values.append(value)
        self._last[step["prefix"], name] = value

    # ------------------------------------------------------------------ tolerances
    def _local(self, path: str, name: str, entry: Facts) -> Bound:
        return _bound(self.tolerances.limits(path, name, entry), {m: floor(entry, m) for m in METRICS})

    def _accumulated(self, path: str, entry: Facts) -> Bound | None:
        limits = self.tolerances.chained_limits(path, entry)
        both = {m: max(floor(entry, m, "chained"), floor(entry, m)) for m in METRICS} if limits else {}
        return None if limits is None else _bound(limits, both)

    def outline(self) -> list[str]:
        """Of the walk's paths, those of groups that hold no other group, and of the stages outside these."""
        groups = {one.name for one in self.groups}
        groups -= {outer for outer in groups for other in groups if inside(other, outer)}
        return [path for path in self._paths if path in groups or not self._covered(path, groups)]

    def _covered(self, path: str, groups: set[str]) -> bool:
        """Whether it is inside one of these, or holds one."""
        return any(inside(path, group) or inside(group, path) for group in groups)

    def judge_group(self, step: Facts) -> None:
        group = next((one for one in self.groups if one.name == step["path"]), None)
        value = next((one for one in self.values if group is not None and one.name == group.value), None)
        if group is not None and value is not None and value.entry in step["entries"]:
            group.local = self._local(
                group.name, value.entry, {**step["entries"][value.entry], "decides": value.decides}
            )


def narrowed(array: np.ndarray) -> np.ndarray:
    """As the bundle stores it: MLX reads no float64. A floor is at least float32's rounding."""
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _bound(limit: Mapping[str, float], floors: Mapping[str, float]) -> Bound:
    factor = {name: limit[name] / floors[name] if floors[name] > 0 else 0.0 for name in limit}
    return Bound(dict(limit), dict(floors), factor)


def _file(path: Path, folder: Path) -> StoredFile:
    return StoredFile(path.relative_to(folder).as_posix(), path.stat().st_size, sha256(path))


# ---------------------------------------------------------------------- before the work
def reference_of(config: Config) -> str:
    """The backend whose values a bundle holds.

    Raises ``UserError``: it is not there, or is not PyTorch's, which alone has a float64 to compare with."""
    names, asked = requested_backends(config)
    torch = [name for name in names if BACKENDS[name].framework == "torch"]
    if asked and (len(names) != 1 or not torch):
        raise UserError(f"backends={names}: a bundle holds the values of one backend of PyTorch, such as torch_cpu")
    reasons = {name: impossible(name) for name in torch}
    if asked and (reason := reasons[names[0]]):
        raise UserError(f"backend {names[0]}: {reason}")
    present = [name for name, reason in reasons.items() if reason is None]
    if not present:
        raise UserError("a bundle needs PyTorch, the reference: pip install -e '.[torch]'")
    return parity_reference(present)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that becomes ``path`` if this ends well, and is removed if not.

    Raises ``OutputError``: ``path`` cannot be made, or holds something."""
    check_folder(path)
    real = Path(os.path.realpath(path))
    if real.is_dir() and any(real.iterdir()):
        raise OutputError(path, "the folder is not empty; name a new one")
    made = next(one for one in (real, *real.parents) if one.is_dir())
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=made) as scratch:
        part = Path(scratch) / "bundle"
        part.mkdir()
        yield part
        if made == real:  # which may be a disk of its own
            for one in sorted(part.iterdir(), key=lambda one: one.name == BUNDLE):
                one.replace(real / one.name)
        else:
            real.parent.mkdir(parents=True, exist_ok=True)
            part.replace(real)
