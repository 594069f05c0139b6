"""What a suite declares; every suite is a subclass that has a ``name``.

Parent and worker share it: the parent makes inputs, judges results and never sees a model; the
worker loads the model and calls it. No framework is imported here: the worker hands over the
package and the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rvc_common.steps import Windows

from ..inputs.recordings import Audio, make_audio
from ..metrics import floors, parity
from ..metrics.audio import compare_audio
from ..metrics.limits import Check, Limits
from ..metrics.parity import Figures
from ..metrics.registry import Figure, declare
from .config import Config, SuiteConfig
from .plan import Case, Plan

Settings = Mapping[str, Any]
Results = dict[str, np.ndarray]
Samples = Mapping[str, Mapping[int, float]]  # component: round: seconds


class Steps(dict[str, np.ndarray]):
    """The arrays of one call by name, and the ``seconds`` that its parts took."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}


class OnDevice(NamedTuple):
    """What a call left on the device; ``resident``: the package's ``Resident`` that made it."""

    resident: Any
    found: Any

    def host(self) -> dict[str, np.ndarray]:
        return self.resident.host(self.found)


# A call's result; arrays that belong together have names: ``component.name`` later on.
Result = np.ndarray | dict[str, np.ndarray] | OnDevice
Calls = dict[str, Callable[[], Result]]


class Probe(NamedTuple):
    """One input that a trace walks a model on. ``settings`` go over the suite's.

    ``plain``: whether also with every optimisation off. ``walked``: in any case; else its call is compared, which
    takes a small part of the time, and its stages only where that differs. ``pieces``: whether such a call is made in
    small pieces, too."""

    name: str
    inputs: Results
    settings: dict[str, Any] = {}  # noqa: RUF012  (never written to)
    plain: bool = True
    walked: bool = True
    pieces: bool = True


class Validated(NamedTuple):
    """A row of a trace's validation table: ``pattern`` picks the stages."""

    title: str
    pattern: str

    def has(self, path: str) -> bool:
        """Whether a stage belongs here, in whichever block of a long input."""
        return re.match(self.pattern, re.sub(r"^block\.\d+\.", "", path)) is not None


# the sections of a report that need a suite's runs, and what a suite with that section must declare for it
SECTIONS: dict[str, tuple[str, ...]] = {
    "time": ("about_time",),
    "roofline": (),
    "parity": ("about_parity", "details"),
    "pitch": (),
    "accuracy": (),
    "memory": (),
    "first_run": (),
    "ablation": (),
    "precision": (),
}
DECLARED: dict[str, type[Suite]] = {}
# the longest stretch that a conversion hands to HuBERT and the voice at once: two searches around cuts, what lies
# between their middles, and padding at both ends
LONGEST_SEGMENT_S = 2 * Windows().x_query + Windows().x_center + 2 * Windows().x_pad


class Suite:
    """One model or chain of models. ``settings``: the suite's configuration, seed and profile.
    Its summary, components, settings and limits are in ``conf/suite/NAME.yaml``."""

    name: ClassVar[str]
    title: ClassVar[str]  # heading of its times in a report
    subject: ClassVar[str]  # what is compared, within a sentence
    order: ClassVar[int] = 1000  # its place in ``run all`` and in documents; as it is here: in neither
    sections: ClassVar[tuple[str, ...]]  # of ``SECTIONS``
    whole: ClassVar[str | None]  # the component that is the whole call: first calls and memory are its
    checkpoints: ClassVar[tuple[str, ...]]  # their names under ``weights``
    options: ClassVar[type[SuiteConfig]] = SuiteConfig  # the type of its part of the configuration
    protocol: ClassVar[str] = "timed"  # how its cases are measured: see ``measure.runner.PROTOCOLS``
    trained: ClassVar[bool] = False  # its figures need trained weights to mean anything: a trained RMVPE is included
    # calls that need trained weights to mean anything: their parity is that of the trained network that is included
    trained_calls: ClassVar[tuple[str, ...]] = ()
    takes_audio: ClassVar[bool] = True  # else it makes its own inputs, and audio=FILE means nothing
    takes_index: ClassVar[bool] = False
    counted: ClassVar[bool] = False  # every component is a call whose FLOPs and bytes are worth counting
    # components that both sides compute with the same code: that they agree proves nothing
    same_code: ClassVar[tuple[str, ...]] = ()
    # inputs that the parity reference makes for all backends: input name, and the result that it is
    shared: ClassVar[tuple[tuple[str, str], ...]] = ()
    extras: ClassVar[tuple[str, ...]] = ()  # calls that only parity needs; never timed
    # For ports: the model that ``load`` is asked for (None: the suite's own name); of each call the inputs and settings
    # that it takes, "noise" for all that is drawn; and calls that are made of others in a row, each with what it makes.
    # ``others``: of a suite whose calls are other models', each one's model and its name there.
    model: ClassVar[str | None] = None
    others: ClassVar[Mapping[str, tuple[str, str]]] = {}
    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    composed: ClassVar[Mapping[str, tuple[tuple[str, str], ...]]] = {}
    # a trace takes no more: what the pipeline hands to this model at most at once; None: any
    longest_traced_s: ClassVar[float | None] = None
    pipeline_step: ClassVar[str | None] = None  # the step of the pipeline that is this model
    validated: ClassVar[tuple[Validated, ...]] = ()  # rows of the validation table; without them it is not traced
    parts: ClassVar[tuple[str, ...]] = ()  # of the whole call, those that are timed by calls of their own
    headlines: ClassVar[tuple[str, ...]] = ()  # components that a summary names, where there is no whole call
    measures_headlines: ClassVar[bool] = False  # their first calls and memory, in one process one after another
    # the report: what the whole call is, how parity is judged, and the figures worth a column
    about_time: ClassVar[str]
    about_parity: ClassVar[str]
    about_components: ClassVar[str] = ""  # of a suite without a whole call
    details: ClassVar[tuple[Figure, ...]]
    judged: ClassVar[tuple[Figure, ...]]  # the figures that have a limit of their own in the configuration

    def __init_subclass__(cls) -> None:
        """Make a suite known, with its figures.

        Raises ``ValueError``: another suite has its name, one of its figures is declared otherwise, or it names a
        section of a report without what that needs."""
        for figures in ("details", "judged"):
            declare(vars(cls).get(figures, ()))
        if "name" in vars(cls):
            if DECLARED.setdefault(cls.name, cls) is not cls:
                raise ValueError(f"two suites have the name {cls.name!r}")
            for section in cls.sections:
                missing = [one for one in SECTIONS.get(section, ("such a section",)) if not hasattr(cls, one)]
                if missing:
                    raise ValueError(f"suite {cls.name!r}: section {section!r} needs {', '.join(missing)}")
            if cls.pipeline_step is not None:
                floors.INSIDE[cls.pipeline_step] = cls.name

    def of_port(self, call: str) -> tuple[str, str]:
        """The model that a port makes a call with, and the call's name there."""
        return self.others.get(call, (self.model or self.name, call))

    def port_facts(self) -> dict[str, Any]:
        """What a port's worker must know of the suite's calls."""
        return {"takes": self.takes, "composed": self.composed, "calls": {one: self.of_port(one) for one in self.takes}}

    # ------------------------------------------------------------------ in the worker
    def load(self, package: ModuleType, paths: Mapping[str, str], options: dict[str, Any], settings: Settings) -> Any:
        """The model from its checkpoints; ``options``: dtype, device, and on MLX optimize."""
        raise NotImplementedError

    def facts(self, model: Any) -> dict[str, Any]:
        """What the parent must know of a loaded model; JSON values."""
        return {"optimize": sorted(getattr(model, "optimize", ()))}

    def models(self, model: Any) -> tuple[Any, ...]:
        """The models of the package in what ``load`` made."""
        return (model,)

    def calls(self, model: Any, given: Results, settings: Settings) -> Calls:
        """Every component and extra call on the inputs ``given``, from NumPy to NumPy."""
        raise NotImplementedError

    def rounding(self, model: Any, exact: Any, given: Results, settings: Settings) -> Results:
        """The reference's results, and those of ``exact``, the same model in float64."""
        raise NotImplementedError

    def walk(self, model: Any, given: Results, settings: Settings) -> Iterator[Any]:
        """The whole call stage by stage, as the packages' ``stages.walk`` does it."""
        raise NotImplementedError

    def call(self, model: Any, given: Results, settings: Settings) -> np.ndarray:
        """The same call as users make it, in one go."""
        raise NotImplementedError

    def made_inputs(self, model: Any, given: Results, settings: Settings) -> Results:
        """What the walk makes for itself from the seed, noise aside: another program needs it as arrays."""
        return {}

    def own_features(self, model: Any, given: Results, settings: Settings) -> np.ndarray:
        """What an index can be made of that holds some of the very features that are looked for."""
        raise NotImplementedError

    # ------------------------------------------------------------------ in the parent
    def fitted(
        self, plan: Plan, facts: Mapping[str, Any], external: Mapping[str, str | None]
    ) -> tuple[Plan, dict[tuple[str, str], str]]:
        """The plan with what this model, its backends and the machine have; and why a backend lacks a component."""
        components = self.components(plan.components, facts)
        pairs = [(c, b) for c in components for b in plan.backends]
        reasons = {pair: reason for pair in pairs if (reason := self.impossible(*pair))}
        installed = tuple(name for name, reason in external.items() if reason is None)
        return plan._replace(components=components, absent=frozenset(reasons), external=installed), reasons

    def check(self, settings: Settings, facts: Mapping[str, Any]) -> None:
        """Refuse, before a trace begins, an option that fits its type and not this model. Raises ``UserError``."""

    def probes(self, audio: Audio, settings: Settings, facts: Mapping[str, Any]) -> tuple[Probe, ...]:
        """What a trace walks this model on, so that every way through it is taken."""
        raise NotImplementedError

    def components(self, configured: tuple[str, ...], facts: Mapping[str, Any]) -> tuple[str, ...]:
        return configured

    def impossible(self, component: str, backend: str) -> str | None:
        """Why this backend cannot have this component; None: it can."""
        return None

    def timed(self, components: tuple[str, ...]) -> tuple[str, ...]:
        """The calls of a round; a call may time several components at once."""
        return components

    def call_of(self, component: str) -> str:
        return component

    def audio(self, case: Case, config: Config) -> Audio:
        """What the case runs on; ``config``: the whole one. Raises ``UserError``: a file that cannot be used."""
        return make_audio(case.kind, case.seconds, case.path, config.seed, config.snr_db)

    def external(self, settings: Settings) -> dict[str, str | None]:
        """External estimators by name, each with the reason why it cannot run, if any."""
        return {}

    def frames(self, samples: int) -> int:
        """The model's frames in this many samples at 16 kHz."""
        return 1 + samples // 160

    def inputs(self, audio: Audio, settings: Settings, facts: Mapping[str, Any]) -> Results:
        return {"audio": audio.samples}

    def figures(self, name: str, results: Results, reference: Results, limits: Limits, settings: Settings) -> Figures:
        """The comparison of the component ``name``; ``limits`` among them holds what is judged.

        Raises ``NotComparable``: see ``parity``."""
        raise NotImplementedError

    def timing_fault(self, component: str, samples: Samples, settings: Settings) -> str | None:
        """Why these samples cannot be trusted; None: they can."""
        return None

    def contours(self, results: Mapping[str, Results], reference: str, audio: Audio) -> Results:
        """Per backend ``f0.NAME``, perhaps ``f0.truth`` and ``mel``, for the report; empty without F0."""
        return {}

    def sound(self, results: Results) -> tuple[np.ndarray, int] | None:
        """Samples and their rate, where the suite makes something to listen to."""
        return None


# prefix of the results of the trained network, where a synthetic one is timed
TRAINED = "learned."


def of_trained(results: Results) -> Results:
    """The trained network's results without their prefix; all results where only one network ran."""
    own = {name.removeprefix(TRAINED): array for name, array in results.items() if name.startswith(TRAINED)}
    return own or results


def floor_of(reference: Results, name: str, figure: str) -> float | None:
    """What float32 rounding does to the reference: ``floor_NAME`` against ``exact_NAME`` of ``rounding``."""
    if f"exact_{name}" not in reference:
        return None
    return parity.level(parity.compare(reference[f"floor_{name}"], reference[f"exact_{name}"]), figure)


def compared(
    name: str, results: Results, reference: Results, limits: Limits, judged: Mapping[str, str], floor: str | None = None
) -> Figures:
    """One array against the reference's; ``judged``: figures and the names of their limits.
    ``floor``: the array whose rounding counts, where it has another name."""
    figures = parity.compare(results[name], reference[name])
    checks: dict[str, Check] = {}
    for figure, limit in judged.items():
        own = floor_of(reference, floor or name, figure)
        checks |= limits.check(limit, parity.level(figures, figure), own)
    return figures | {"limits": checks}


# of the figures of audio, those that a record keeps
SOUND_FIGURES = ("level_db", "delay_samples", "mr_stft", "lsd_db", "edge_start_snr_db", "edge_end_snr_db")


def sound_figures(name: str, results: Results, reference: Results, sample_rate: int | None) -> Figures:
    """What differs audibly; empty where the rate is not known."""
    if sample_rate is None:
        return {}
    found = compare_audio(results[name].reshape(-1), reference[name].reshape(-1), sample_rate)
    return {figure: found[figure] for figure in SOUND_FIGURES}
