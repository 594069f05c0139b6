"""The backend that a worker serves, and what the parent can ask of it.

Every public method of ``ServedModel`` is a request of the same name: it takes the request and returns the answer, both
JSON objects. What only some requests need is imported by them: most workers are started to be timed, and their start
and memory are measured.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import time
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.backends import BACKENDS, DTYPES, THREAD_VARIABLES
from ..base.statistics import largest_rest_s
from .adapters import Adapter, check_framework, load_adapter
from .clock import clock, is_steady, seconds_of, slowed, timed
from .memory import peak_rss_bytes, reset_peak, rss_bytes
from .priority import priority

if TYPE_CHECKING:
    from ..definitions.base import Result, Results, Suite
    from .walks import ReferenceWalk, TracedWalk

Request = dict[str, Any]
Answer = dict[str, Any]

# a device that seems to work on is looked at again: unfinished work shows each time, a busy processor now and then
LATE_CALLS = 5


def named(name: str, result: Result) -> Results:
    """A call's arrays, in host memory, by the names that parity uses: ``name``, or ``name.part`` of several."""
    found: Any = result.host() if hasattr(result, "host") else result  # in place of ``OnDevice``, which ports lack
    if isinstance(found, dict):
        return {f"{name}.{part}": array for part, array in found.items()}
    return {name: found}


class ServedModel:
    """One backend with at most one model loaded.

    Raises ``KeyError``: there is no such backend. Raises ``ValueError``: there is no adapter for its framework."""

    def __init__(self, backend: str, precision: str) -> None:
        self._backend, self._precision = BACKENDS[backend], precision
        if self._backend.port is None:
            check_framework(self._backend.framework)
        self._suite: Suite
        self._suite_name = ""
        self._settings: dict[str, Any] = {}
        self._model: Any = None
        self._exact_model: Any = None
        self._checkpoints: dict[str, str] = {}
        self._inputs: Results = {}
        self._kept: dict[str, Result] = {}
        self._reference_walk: ReferenceWalk
        self._traced_walk: TracedWalk
        self._patches: Any = None
        self._coverage: Any = None
        self._slowdowns: dict[str, float] = {}

    @cached_property
    def _adapter(self) -> Adapter:
        return load_adapter(self._backend.framework, self._backend.device)

    # ------------------------------------------------------------------ loading
    def hello(self, request: Request) -> Answer:
        start = time.perf_counter()
        self._adapter.configure(self._precision, int(request["threads"]))
        facts = self._adapter.describe()
        import_s = time.perf_counter() - start
        if request.get("clock"):
            counts = {name: os.environ.get(name) for name in THREAD_VARIABLES} | self._adapter.thread_counts()
            facts |= {"clock": clock(), "thread_counts": counts}
            facts["garbage_collection"] = "before every sample, off during it"
        return facts | {"import_s": import_s, "pid": os.getpid(), "priority": priority()}

    def load(self, request: Request) -> Answer:
        base = rss_bytes()
        reset_peak()
        self._suite_name, self._settings = request["suite"], request["settings"]
        self._checkpoints, self._exact_model, self._kept = request["paths"], None, {}
        make = self._loader(request)
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._model = make()
            self._adapter.synchronize()
        self._check_device()
        load_s = time.perf_counter() - start
        gc.collect()
        gc.freeze()  # the model is not garbage: collecting before a call need not look at it again
        shown = sorted({str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)})
        return {
            "load_s": load_s,
            "base_rss_bytes": base,
            "peak_rss_load_bytes": peak_rss_bytes(),
            "warnings": shown,
            "facts": self._loaded_facts(),
        }

    def _loader(self, request: Request) -> Callable[[], Any]:
        """What makes the model, once everything that it needs is imported."""
        from ..definitions import SUITES

        package = importlib.import_module(self._backend.package)
        options = self._adapter.load_options(DTYPES[self._precision], request["optimize"])
        self._suite = SUITES[request["suite"]]
        return lambda: self._suite.load(package, self._checkpoints, options, self._settings)

    def _loaded_facts(self) -> Answer:
        return self._suite.facts(self._model)

    def prepare(self, request: Request) -> Answer:
        self._inputs = {name: np.load(path) for name, path in request["inputs"].items()}
        self._kept = {}
        return {}

    def librosa_mel(self, request: Request) -> Answer:
        """From now on librosa makes the mel of this RMVPE of rvc_mlx, on the CPU: as many ports do."""
        from .others import librosa_mel

        self._model.mel = librosa_mel()
        return {}

    def inject(self, request: Request) -> Answer:
        """Make a known fault, before the model is loaded; or, without a name, take it back."""
        from ..faults import Patches, inject

        if self._patches is not None:
            self._patches.undo()
        self._patches = None
        if request["name"] is not None:
            self._patches = Patches()
            inject(request["name"], self._patches)
        return {}

    def cover(self, request: Request) -> Answer:
        """Record from now on which branches of the package in the folder ``source`` are taken; or, without a ``file``,
        end that and write them to the one named before."""
        import coverage

        if request["file"] is not None:
            options = {"data_file": request["file"], "source": [request["source"]], "branch": True}
            self._coverage = coverage.Coverage(**options, config_file=False, messages=False)
            self._coverage.start()
        else:
            self._coverage.stop()
            self._coverage.save()
        return {}

    # ------------------------------------------------------------------ timing
    def time(self, request: Request) -> Answer:
        """Calls by name with their numbers of repeats, timed one after another; the last result of each is kept:
        what parity compares is what was timed."""
        return {"calls": {name: self._timed(name, repeats) for name, repeats in request["calls"].items()}}

    def warm(self, request: Request) -> Answer:
        """Call until the times have settled, or until this took ``seconds``; at least once."""
        name, start = request["component"], time.perf_counter()
        taken: list[Answer] = []
        while not is_steady([one["seconds"][name] for one in taken]):
            if taken and time.perf_counter() - start > request["seconds"]:
                break
            taken.append(self._timed(name, 1))
        steady = is_steady([one["seconds"][name] for one in taken])
        return {"seconds": [one["seconds"] for one in taken], "steady": steady}

    def _timed(self, name: str, repeats: int) -> Answer:
        call = self._call(name)
        self._kept.pop(name, None)
        found = timed(self._slowed(name, call), repeats, self._adapter.synchronize)
        self._kept[name] = found.result
        rest, limit = found.rest_s, largest_rest_s(found.seconds * repeats)
        for _ in range(LATE_CALLS):
            if rest > limit:
                rest = min(rest, timed(call, repeats, self._adapter.synchronize).rest_s)
        return {"seconds": {**found.parts, name: found.seconds}, "rest_s": rest}

    def slow(self, request: Request) -> Answer:
        """From now on some calls take longer by a share: a slowdown of known size, for tests of the harness."""
        self._slowdowns = request["shares"]
        return {}

    def _slowed(self, name: str, call: Callable[[], Any]) -> Callable[[], Any]:
        return slowed(call, self._slowdowns[name], self._adapter.synchronize) if name in self._slowdowns else call

    def cold(self, request: Request) -> Answer:
        """The first call in this process, with its memory; a second one if asked."""
        call = self._call(request["component"])
        separate = reset_peak()
        self._adapter.reset_peak_memory()
        first = seconds_of(call)
        peak = peak_rss_bytes()
        second = seconds_of(call) if request["second"] else None
        return {
            "first_call_s": first,
            "second_call_s": second,
            "peak_rss_call_bytes": peak if separate else None,
            "peak_rss_bytes": peak,
            "peak_device_bytes": self._adapter.peak_memory(),
        }

    def memory(self, request: Request) -> Answer:
        """What is held now: by the operating system's count, and by the framework's own."""
        gc.collect()
        return {"rss_bytes": rss_bytes(), "device": self._adapter.memory()}

    def steady_memory(self, request: Request) -> Answer:
        """Some calls in a row, their peak, and what is held after them; ``seconds`` of the last one."""
        call, seconds = self._call(request["component"]), 0.0
        reset_peak()
        self._adapter.reset_peak_memory()
        for _ in range(request["calls"]):
            seconds = seconds_of(call)
        peak = peak_rss_bytes()
        return {"peak_rss_bytes": peak, "seconds": seconds, "after": self.memory(request)}

    def peaks(self, request: Request) -> Answer:
        from .roofline import peaks

        return peaks(self._adapter, DTYPES[self._precision])

    def count(self, request: Request) -> Answer:
        return {"work": {name: self._adapter.count(self._call(name)) for name in request["components"]}}

    # ------------------------------------------------------------------ results
    def output(self, request: Request) -> Answer:
        """Write a call's arrays to a file; it runs where this case has not timed it yet."""
        name = request["component"]
        result = self._kept[name] if name in self._kept else self._call(name)()
        np.savez(request["path"], **named(name, result))  # type: ignore[arg-type]  # names are not its options
        return {}

    def draws(self, request: Request) -> Answer:
        """Write to a file the noise that a call takes, in the order in which it is drawn: a port has no generator of
        ours."""
        from rvc_common.noise import seeded

        taken: list[np.ndarray] = []
        draw = seeded(self._settings["seed"])

        def kept(index: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
            taken.append(draw(index, kind, shape))
            return taken[-1]

        self._suite.calls(self._model, self._inputs, {**self._settings, "noise": kept})[request["component"]]()
        np.savez(request["path"], *taken)
        return {}

    def rounding(self, request: Request) -> Answer:
        """Write to a file what float32 rounding does to this model: its results and float64's."""
        found = self._suite.rounding(self._model, self._exact(), self._inputs, self._settings)
        np.savez(request["path"], **found)  # type: ignore[arg-type]
        return {}

    def estimate(self, request: Request) -> Answer:
        """Write another estimator's F0 to a file, and time it; no model is needed, and no framework but its own."""
        from .others import estimated

        f0, answer = estimated(request["name"], np.load(request["audio"]), request["warm"])
        np.save(request["path"], f0)
        return answer

    def own_features(self, request: Request) -> Answer:
        """Write some of the features of the prepared input to a file, for an index."""
        features = self._suite.own_features(self._model, self._inputs, self._settings | request["settings"])
        np.save(request["path"], features)
        return {}

    # ------------------------------------------------------------------ traces
    def trace_open(self, request: Request) -> Answer:
        """Begin to walk the model on the prepared inputs: as the reference, or as the side compared with it, whose
        stages work in small pieces if asked."""
        from .walks import TF32_UNIT, ReferenceWalk, TracedWalk, operations

        own = self._begun(request, self._model)
        if not request["reference"]:
            self._walks_in_pieces = request.get("pieces", False)
            self._traced_walk = TracedWalk(own, self._begun(request, self._model), request["sample_rate"])
            return {}
        exact = self._exact() if request["exact"] else None
        fed, chained = (None, None) if exact is None else (self._begun(request, exact) for _ in range(2))
        least = TF32_UNIT if self._precision == "tf32" else 0.0
        self._reference_walk = ReferenceWalk(own, fed, chained, least, operations(self._suite.models(self._model)))
        return {}

    def _begun(self, request: Request, model: Any) -> Any:
        return self._suite.walk(model, self._inputs, self._settings | request["settings"])

    def trace_next(self, request: Request) -> Answer:
        """The next stage; of the reference, which follows the other side, the stage ``until``."""
        if "until" in request:
            return self._reference_walk.advance(request["until"], request["leaf"], Path(request["folder"]))
        with (self._walks_in_pieces and self._adapter.small_pieces()) or contextlib.nullcontext():
            return self._traced_walk.advance()

    def trace_step(self, request: Request) -> Answer:
        """The reference's next stage, whatever it is."""
        return self._reference_walk.step(Path(request["folder"]))

    def trace_inputs(self, request: Request) -> Answer:
        """Write to a file what a walk takes besides the prepared inputs and the weights."""
        made = self._suite.made_inputs(self._model, self._inputs, self._settings | request["settings"])
        np.savez(request["path"], **made)  # type: ignore[arg-type]
        return {}

    def trace_entry(self, request: Request) -> Answer:
        """A value of the reference that no stage has changed since it was last sent."""
        return {"entry": self._reference_walk.entry(request["name"], Path(request["folder"]))}

    def trace_judge(self, request: Request) -> Answer:
        return self._traced_walk.judge(request["entries"], request["limits"])

    def trace_again(self, request: Request) -> Answer:
        """Compare two more walks with each other at the stage ``until``: a stage that keeps nothing repeats itself."""
        from .walks import TracedWalk

        one, other = (self._begun(request, self._model) for _ in range(2))
        return {"again": TracedWalk(one, other).again(request["until"], request["entry"])}

    def trace_call(self, request: Request) -> Answer:
        """The call as users make it, if asked in small pieces: compared with the stages that have just been walked, or
        with the result in the file ``against``; of the reference, written to the file ``keep``."""
        from ..metrics.parity import figures

        pieces = self._adapter.small_pieces() if request["pieces"] else contextlib.nullcontext()
        if pieces is None:
            return {"added": None}
        with pieces:
            result = self._suite.call(self._model, self._inputs, self._settings | request["settings"])
        if "keep" in request:
            np.save(request["keep"], result)
            return {}
        if "against" in request:
            return {"added": figures(result, np.load(request["against"]))}
        return {"added": self._traced_walk.whole(result)}

    def stages(self, request: Request) -> Answer:
        """What a port yields stage by stage: see ``port.ServedPort``."""
        raise NotImplementedError("the stages of our own models are walked by trace_next")

    def trace_spread(self, request: Request) -> Answer:
        """How far the model's results for different noise seeds are from each other."""
        from ..metrics.audio import noise_spread

        signals = []
        for seed in request["seeds"]:
            settings = {**self._settings, **request["settings"], "seed": seed}
            signals.append(np.asarray(self._suite.call(self._model, self._inputs, settings), np.float64).reshape(-1))
        return {"spread": noise_spread(signals, request["sample_rate"])}

    def profile(self, request: Request) -> Answer:
        """A ``part`` of a profile: see ``profiled``."""
        from .profiled import PARTS

        given = self._model, self._inputs, self._settings | request["settings"]
        return PARTS[request["part"]](
            self._adapter, lambda: self._suite.walk(*given), lambda: self._suite.call(*given), request
        )

    # ------------------------------------------------------------------ parts
    def _exact(self) -> Any:
        if self._exact_model is None:
            package = importlib.import_module("reference_torch")
            device = "cuda" if self._backend.device == "cuda" else "cpu"  # MPS has no float64
            options = {"dtype": "float64", "device": device}
            self._exact_model = self._suite.load(package, self._checkpoints, options, self._settings)
        return self._exact_model

    def _call(self, name: str) -> Callable[[], Result]:
        return self._suite.calls(self._model, self._inputs, self._settings)[name]

    def _check_device(self) -> None:
        """A model that is on another device than its label says is not measured at all."""
        for model in self._suite.models(self._model):
            found = self._adapter.device_of(model)
            if found != self._backend.device:
                raise RuntimeError(f"the model is on {found}, not on {self._backend.device}")


REQUESTS: dict[str, Callable[[ServedModel, Request], Answer]] = {
    name: method for name, method in vars(ServedModel).items() if callable(method) and not name.startswith("_")
}
