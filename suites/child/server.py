"""The child process: imports one backend, answers requests, and blocks in between.

Requests and answers are JSON lines on two pipes of their own, so that whatever a framework
prints goes to the log and not into the protocol. Only this module imports a backend.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..base.backends import BACKENDS, DTYPES
from ..definitions import SUITES
from ..definitions.base import OnDevice, Result, Results, Settings, Suite
from ..metrics.audio import noise_spread
from . import roofline
from .clock import clock, is_steady, timed
from .memory import peak_rss_bytes, reset_peak, rss_bytes
from .walks import TF32_UNIT, ReferenceWalk, TracedWalk, operations

Request = dict[str, Any]
Answer = dict[str, Any]


def describe_torch(device: str) -> Answer:
    import torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not found[device]:
        return {"available": False, "reason": f"this PyTorch ({torch.__version__}) sees no {device.upper()} device"}
    blas = "MKL" if torch.backends.mkl.is_available() else "OpenBLAS or other"
    name = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "available": True,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpu_name": name,
        "blas": blas if device == "cpu" else None,
        "threads": torch.get_num_threads(),
    }


def describe_mlx(device: str) -> Answer:
    runtime = importlib.import_module("rvc_mlx.runtime")
    facts = runtime.describe()
    if device == "gpu" and not facts["gpu"]:
        return {"available": False, "reason": f"this MLX ({facts['mlx']}) sees no GPU"}
    if device == "cpu":
        facts["blas_gflops"] = _matmul_gflops(runtime.mx)
        facts["slow_blas"] = runtime.is_slow_blas()
    return {"available": True, **facts}


def _matmul_gflops(mx: Any, n: int = 512) -> float:
    """A second witness beside the BLAS library's name."""
    with mx.stream(mx.cpu):
        a = mx.random.normal((n, n))
        mx.eval(a @ a)
        best = min(_seconds(lambda: mx.eval(a @ a)) for _ in range(5))
    return round(2 * n**3 / best / 1e9, 1)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _thread_counts(framework: str) -> dict[str, Any]:
    """What this process was told, and what its framework says."""
    told = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    if framework == "torch":
        import torch

        told["torch"] = torch.get_num_threads()
    return told


# what rvc_mlx takes at a time, in sizes that a short input is cut by as a long one is by the real ones
PIECES = {
    "attention.BLOCK_VALUES": 1 << 10,
    "attention.SHORTEST_FRAMES": 1,
    "audio.BLOCK_FRAMES": 50,
    "layers.UNFOLD_VALUES": 1 << 16,
    "retrieval.BLOCK_VALUES": 1 << 14,
    "steps.FILTER_BLOCK": 5000,
    "synthesizer.FINE_FRAMES": 7,
    "synthesizer.GPU_TILE_FRAMES": 40,
    "synthesizer.TILE_FRAMES": 40,
}


@contextlib.contextmanager
def small_pieces() -> Iterator[None]:
    """With the sizes of blocks and tiles small, so that seams show on short inputs too."""
    places = [(importlib.import_module(f"rvc_mlx.{name.partition('.')[0]}"), name.partition(".")[2]) for name in PIECES]
    old = [getattr(module, constant) for module, constant in places]
    try:
        for (module, constant), value in zip(places, PIECES.values(), strict=True):
            setattr(module, constant, value)
        yield
    finally:
        for (module, constant), value in zip(places, old, strict=True):
            setattr(module, constant, value)


def named(name: str, result: Result) -> Results:
    """A call's arrays under the names that parity knows them by."""
    if isinstance(result, OnDevice):
        result = result.host()
    if isinstance(result, dict):
        return {f"{name}.{part}": array for part, array in result.items()}
    return {name: result}


class Session:
    """One backend with at most one model loaded."""

    def __init__(self, backend: str, precision: str) -> None:
        self.spec, self.precision = BACKENDS[backend], precision
        self.suite: Suite
        self.settings: Settings = {}
        self.model: Any = None
        self.exact: Any = None
        self.checkpoints: dict[str, str] = {}
        self.inputs: Results = {}
        self.kept: dict[str, Result] = {}
        self.walks: ReferenceWalk | TracedWalk
        self.patches: Any = None
        self.slowdowns: dict[str, float] = {}

    # ------------------------------------------------------------------ requests
    def hello(self, request: Request) -> Answer:
        """Import the framework and say what it is."""
        start = time.perf_counter()
        describe = describe_torch if self.spec.framework == "torch" else describe_mlx
        if self.spec.framework == "torch":
            self._torch_policy(int(request["threads"]))
        facts = describe(self.spec.device)
        import_s = time.perf_counter() - start
        if request.get("clock"):
            facts |= {"clock": clock(), "thread_counts": _thread_counts(self.spec.framework)}
            facts["garbage_collection"] = "before every sample, off during it"
        return facts | {"import_s": import_s, "pid": os.getpid()}

    def _torch_policy(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        tf32 = self.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32  # PyTorch's own default is on, even for float32

    def load(self, request: Request) -> Answer:
        """Build the suite's model from its checkpoint files."""
        base = rss_bytes()
        reset_peak()
        package = importlib.import_module(self.spec.package)
        options: dict[str, Any] = {"dtype": DTYPES[self.precision], "device": self.spec.device}
        if self.spec.framework == "mlx":
            options["optimize"] = request["optimize"]
        self.suite, self.settings, self.checkpoints = SUITES[request["suite"]], request["settings"], request["paths"]
        self.exact, self.kept = None, {}
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.model = self.suite.load(package, self.checkpoints, options, self.settings)
            self._synchronize()
        self._check_device()
        load_s = time.perf_counter() - start
        gc.collect()
        gc.freeze()  # the model is not garbage: collecting before a call need not look at it again
        told = sorted({str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)})
        return {
            "load_s": load_s,
            "base_rss_bytes": base,
            "peak_rss_load_bytes": peak_rss_bytes(),
            "warnings": told,
            "facts": self.suite.facts(self.model),
        }

    def prepare(self, request: Request) -> Answer:
        """Read the inputs that this case's components take, as arrays in memory."""
        self.inputs = {name: np.load(path) for name, path in request["inputs"].items()}
        self.kept = {}
        return {}

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
        self.kept.pop(name, None)
        found = timed(self.slowed(name, call), repeats, self._synchronize)
        self.kept[name] = found.result
        return {"seconds": {**found.parts, name: found.seconds}, "rest_s": found.rest_s}

    def slow(self, request: Request) -> Answer:
        """From now on some calls take longer by a share: a slowdown of known size, for tests of the harness."""
        self.slowdowns = request["shares"]
        return {}

    def slowed(self, name: str, call: Callable[[], Any]) -> Callable[[], Any]:
        if name not in self.slowdowns:
            return call

        def longer() -> Any:
            start = time.perf_counter()
            result = call()
            self._synchronize()
            now = time.perf_counter()
            until = now + (now - start) * self.slowdowns[name]
            while time.perf_counter() < until:  # busy, as real work would be
                pass
            return result

        return longer

    def output(self, request: Request) -> Answer:
        """Leave a call's arrays in a file; it runs where this case has not timed it yet."""
        name = request["component"]
        result = self.kept[name] if name in self.kept else self._call(name)()
        np.savez(request["path"], **named(name, result))  # type: ignore[arg-type]  # names are not its options
        return {}

    def rounding(self, request: Request) -> Answer:
        """Leave what float32 rounding does to this model in a file: its results beside float64's."""
        found = self.suite.rounding(self.model, self._exact(), self.inputs, self.settings)
        np.savez(request["path"], **found)  # type: ignore[arg-type]
        return {}

    def cold(self, request: Request) -> Answer:
        """The first call in this process, with its memory; then perhaps a second one."""
        call = self._call(request["component"])
        separate = reset_peak()
        self._reset_device_peak()
        first = _seconds(call)
        peak = peak_rss_bytes()
        second = _seconds(call) if request["second"] else None
        return {
            "first_call_s": first,
            "second_call_s": second,
            "peak_rss_call_bytes": peak if separate else None,
            "peak_rss_bytes": peak,
            "peak_device_bytes": self._device_peak(),
        }

    def memory(self, request: Request) -> Answer:
        """What is held now: by the operating system's count, and by the framework's own."""
        gc.collect()
        return {"rss_bytes": rss_bytes(), "device": self._device_memory()}

    def steady_memory(self, request: Request) -> Answer:
        """Some calls in a row, their peak, and what is held after them; ``seconds`` of the last one."""
        call, seconds = self._call(request["component"]), 0.0
        reset_peak()
        self._reset_device_peak()
        for _ in range(request["calls"]):
            seconds = _seconds(call)
        peak = peak_rss_bytes()
        return {"peak_rss_bytes": peak, "seconds": seconds, "after": self.memory(request)}

    def peaks(self, request: Request) -> Answer:
        """What this device does at best through this framework."""
        return roofline.peaks(self.spec.framework, self.spec.device, DTYPES[self.precision])

    def count(self, request: Request) -> Answer:
        """FLOPs and bytes of calls, where PyTorch can count them."""
        return {"work": {name: roofline.count(self._call(name)) for name in request["components"]}}

    def librosa_mel(self, request: Request) -> Answer:
        """From now on the mel is made by librosa on the CPU: what ports often keep beside their network."""
        from .librosa_mel import WithLibrosa

        self.model = WithLibrosa(self.model)
        return {}

    def estimate(self, request: Request) -> Answer:
        """Leave another estimator's F0 in a file, and time it; no model is needed, and no framework but its own."""
        from ..inputs.estimators import ESTIMATORS

        found, audio = ESTIMATORS[request["name"]], np.load(request["audio"])
        found.find(audio[: request["warm"]], found.settings)
        start = time.perf_counter()
        f0 = found.find(audio, found.settings)
        seconds = time.perf_counter() - start
        voided = ~(np.isfinite(f0) & (f0 >= 0))  # WORLD's may come out as NaN: that is no F0, so it is unvoiced
        np.save(request["path"], np.where(voided, 0.0, f0))
        return {"seconds": seconds, "facts": found.facts() | {"voided_frames": int(voided.sum())}}

    # ------------------------------------------------------------------ traces
    def trace_open(self, request: Request) -> Answer:
        """Begin to walk the model on the prepared inputs: as the reference, or beside it."""
        settings = {**self.settings, **request["settings"]}

        def begin(model: Any) -> Any:
            return self.suite.walk(model, self.inputs, settings)

        if not request["reference"]:
            self.walks = TracedWalk(begin(self.model), begin(self.model), request["sample_rate"])
            return {}
        exact = self._exact() if request["exact"] else None
        forced, chained = (None, None) if exact is None else (begin(exact), begin(exact))
        least = TF32_UNIT if self.precision == "tf32" else 0.0
        layers = operations(self.suite.models(self.model))
        self.walks = ReferenceWalk(begin(self.model), forced, chained, least, layers)
        return {}

    def trace_next(self, request: Request) -> Answer:
        """The next stage; see ``tracing``."""
        if isinstance(self.walks, ReferenceWalk):
            return self.walks.advance(request["until"], request["leaf"], Path(request["folder"]))
        return self.walks.advance()

    def trace_entry(self, request: Request) -> Answer:
        """A value of the reference that no stage has changed since it was last sent."""
        assert isinstance(self.walks, ReferenceWalk)
        return {"entry": self.walks.entry(request["name"], Path(request["folder"]))}

    def trace_call(self, request: Request) -> Answer:
        """The call as users make it, beside the stages that have just been walked; perhaps in small pieces."""
        assert isinstance(self.walks, TracedWalk)
        settings = {**self.settings, **request["settings"]}
        if request["pieces"] and self.spec.framework != "mlx":
            return {"added": None}
        with small_pieces() if request["pieces"] else contextlib.nullcontext():
            return {"added": self.walks.whole(self.suite.call(self.model, self.inputs, settings))}

    def own_features(self, request: Request) -> Answer:
        """Leave some of the features of the prepared input in a file, for an index."""
        settings = {**self.settings, **request["settings"]}
        np.save(request["path"], self.suite.own_features(self.model, self.inputs, settings))
        return {}

    def trace_spread(self, request: Request) -> Answer:
        """How far the same model is from itself under other noise."""
        signals = []
        for seed in request["seeds"]:
            settings = {**self.settings, **request["settings"], "seed": seed}
            signals.append(np.asarray(self.suite.call(self.model, self.inputs, settings), np.float64).reshape(-1))
        return {"spread": noise_spread(signals, request["sample_rate"])}

    def trace_judge(self, request: Request) -> Answer:
        assert isinstance(self.walks, TracedWalk)
        return self.walks.judge(request["entries"], request["limits"])

    def inject(self, request: Request) -> Answer:
        """Make a known fault, before the model is loaded; or, without a name, take it back."""
        from ..faults import FAULTS, Patches

        if self.patches is not None:
            self.patches.undo()
        self.patches = None
        if request["name"] is not None:
            self.patches = Patches()
            FAULTS[request["name"]].inject(self.patches)
        return {}

    # ------------------------------------------------------------------ parts
    def _exact(self) -> Any:
        """The reference's model in float64."""
        if self.exact is None:
            package = importlib.import_module("reference_torch")
            device = "cuda" if self.spec.device == "cuda" else "cpu"  # MPS has no float64
            self.exact = self.suite.load(
                package, self.checkpoints, {"dtype": "float64", "device": device}, self.settings
            )
        return self.exact

    def _call(self, name: str) -> Callable[[], Result]:
        return self.suite.calls(self.model, self.inputs, self.settings)[name]

    def _check_device(self) -> None:
        """A model that is somewhere else than its label says is not measured at all."""
        for model in self.suite.models(self.model):
            # mlx's prints as Device(gpu, 0), torch's is its name
            seen = str(model.device).removeprefix("Device(").partition(",")[0].partition(":")[0]
            if seen != self.spec.device:
                raise RuntimeError(f"the model is on {seen}, not on {self.spec.device}")

    def _synchronize(self) -> None:
        if self.spec.framework == "mlx":
            importlib.import_module("mlx.core").synchronize()
        elif self.spec.device != "cpu":
            import torch

            getattr(torch, self.spec.device).synchronize()

    def _reset_device_peak(self) -> None:
        if self.spec.framework == "mlx":
            importlib.import_module("mlx.core").reset_peak_memory()
        elif self.spec.device == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()

    def _device_memory(self) -> dict[str, int] | None:
        """Bytes by the framework's own names; None where it keeps no count."""
        if self.spec.framework == "mlx":
            mx = importlib.import_module("mlx.core")
            names = ("active", "peak", "cache")
            return {f"{name}_bytes": int(getattr(mx, f"get_{name}_memory")()) for name in names}
        if self.spec.device == "cpu":
            return None
        import torch

        if self.spec.device == "mps":
            current, driver = torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
            return {"allocated_bytes": int(current), "driver_bytes": int(driver)}
        stats = torch.cuda.memory_stats()
        keys = {"allocated": "allocated_bytes.all.current", "reserved": "reserved_bytes.all.current"}
        keys |= {"peak_allocated": "allocated_bytes.all.peak", "peak_reserved": "reserved_bytes.all.peak"}
        return {f"{name}_bytes": int(stats.get(key, 0)) for name, key in keys.items()}

    def _device_peak(self) -> int | None:
        """By the framework's own count; it includes the weights. None where it keeps none."""
        if self.spec.framework == "mlx":
            return int(importlib.import_module("mlx.core").get_peak_memory())
        if self.spec.device == "cpu":
            return None
        import torch

        # MPS tells only what is allocated now
        return int(torch.cuda.max_memory_allocated()) if self.spec.device == "cuda" else None


TRACE_REQUESTS = (
    "trace_open",
    "trace_next",
    "trace_entry",
    "trace_judge",
    "trace_call",
    "trace_spread",
    "own_features",
    "inject",
)
TIMING_REQUESTS = ("warm", "time", "slow", "cold", "memory", "steady_memory", "librosa_mel", "peaks", "count")
REQUESTS = ("hello", "load", "prepare", "output", "rounding", "estimate", *TIMING_REQUESTS, *TRACE_REQUESTS)


def serve(session: Session, requests: Any, answers: Any) -> None:
    for line in requests:
        request = json.loads(line)
        try:
            if request["do"] not in REQUESTS:
                raise ValueError(f"unknown request {request['do']!r}")
            answer = {"ok": True, **getattr(session, request["do"])(request)}
        except Exception as error:  # the parent decides what an error means; it gets all of it
            traceback.print_exc()
            answer = {"ok": False, "kind": type(error).__name__, "message": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _die_with_parent() -> None:
    """On Linux the kernel ends this process with its parent; elsewhere the closed pipe does."""
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--requests", type=int, required=True, help="file descriptor to read")
    parser.add_argument("--answers", type=int, required=True, help="file descriptor to write")
    args = parser.parse_args()
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with os.fdopen(args.requests) as requests, os.fdopen(args.answers, "w") as answers:
        serve(Session(args.backend, args.precision), requests, answers)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # tearing PyTorch down takes most of a second


if __name__ == "__main__":
    main()
