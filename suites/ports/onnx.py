"""ONNX files in ONNX Runtime and OpenVINO: the reference's, exported and cached, or a file of the user's own.

Without ``file`` each part is exported where it is not cached, by a process of its own so that this one holds no PyTorch
because of it. A part is opened by its first call, which is a warm-up. The harmonic source is not in the vocoder's
graph: ``reference_torch`` makes it, as part of the call.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rvc_common.noise import Draws

from ..export.conventions import Known, recognised
from ..export.make import FORMAT, place_of, session_of

# from what the graph is given by name to its outputs in order
Run = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]
# call: the part that computes it, and the checkpoint that the part is from
CALLS = {
    "rmvpe": {"network": ("rmvpe", "rmvpe")},
    "hubert": {"features": ("hubert", "hubert")},
    "synthesizer": {"encode": ("encoder", "voice"), "flow": ("flow", "voice"), "decode": ("vocoder", "voice")},
}
# of somebody else's file: model and convention, and the calls that it has
FOREIGN = {
    ("rmvpe", "mel"): ("rmvpe", ["network"]),
    ("rmvpe", "waveform"): ("rmvpe", ["f0"]),
    ("hubert", "vec"): ("hubert", ["features"]),
    ("hubert", "units"): ("hubert", ["features"]),
}
FRAME_MULTIPLE = 32
UNITS = {"v1": "units9", "v2": "unit12"}


class OnnxRuntime:
    """``file``: an ONNX file of RMVPE or ContentVec in a known convention (``suites.export.conventions``)."""

    package = "onnxruntime"

    def configure(self, options: Mapping[str, Any]) -> None:
        """Raises ``UserError``: the file is not there, or is in no known convention; ``ValueError``: such as a voice,
        whose noise is drawn inside."""
        self.threads = int(options["threads"])
        self.known: Known | None = None
        if options.get("file") is not None:
            self.file = Path(str(options["file"])).expanduser()
            self.known = recognised(self.file)
            if self._own_part is None and (self.known.model, self.known.convention) not in FOREIGN:
                told = f"{self.known.model}, convention {self.known.convention}"
                raise ValueError(f"{self.file}: {told}: it draws its noise inside, so no audio of it can be compared")

    @property
    def _own_part(self) -> str | None:
        return self.known.part if self.known is not None and self.known.convention == FORMAT else None

    def describe(self) -> dict[str, Any]:
        import importlib.metadata

        found = {model: list(calls) for model, calls in CALLS.items()}
        if (part := self._own_part) is not None:
            found = {m: [call for call, (name, _) in calls.items() if name == part] for m, calls in CALLS.items()}
        elif self.known is not None:
            model, calls = FOREIGN[self.known.model, self.known.convention]
            found = {model: calls}
        return {"name": self.package, "version": importlib.metadata.version(self.package), "components": found}

    def load(self, model: str, paths: Mapping[str, str], options: Mapping[str, Any]) -> None:
        self.model, self.paths, self.options, self.runs = model, dict(paths), dict(options), dict[str, Run]()

    def _run(self, call: str) -> Run:
        if call not in self.runs:
            part, checkpoint = CALLS[self.model].get(call, ("", ""))
            file = self.file if self.known is not None else self._exported(part, self.paths[checkpoint])
            self.runs[call] = self.open(file)
            if call == "decode":
                import reference_torch

                own = {"profile": self.options["profile"], "device": "cpu"}
                self.voice = reference_torch.Synthesizer.from_checkpoint(self.paths["voice"], **own)
        return self.runs[call]

    def _exported(self, part: str, checkpoint: str) -> Path:
        version = self.options.get("version") or "v2"
        asked = (part, checkpoint, self.options["profile"], version)
        if not (found := place_of(*asked)).is_file():
            code = f"from suites.export.make import exported; exported(*{asked!r})"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"export of {part}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        return found

    def open(self, path: Path) -> Run:
        """The file, ready to be run."""
        session = session_of(path, self.threads)
        names, outputs = ([one.name for one in found] for found in (session.get_inputs(), session.get_outputs()))
        wanted = self.wanted(outputs)

        def run(given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            return list(session.run(wanted, {name: given[name] for name in names}))

        return run

    def wanted(self, outputs: list[str]) -> list[str]:
        """Of several kinds of features those of the voices' version; else all outputs."""
        chosen = UNITS[self.options.get("version") or "v2"]
        return [chosen] if chosen in outputs else outputs

    # ------------------------------------------------------------------ calls
    def call(self, component: str, inputs: Mapping[str, Any]) -> Any:
        run = self._run(component)
        if self.known is not None and self._own_part is None:
            return self._foreign(run, component, inputs)
        if component == "network":
            return run({"mel": inputs["mel"][None]})[0][0]
        if component == "features":
            return run({"audio": inputs["audio"][None]})[0][0]
        if component == "decode":
            return run(self._vocoded(inputs))[0]
        if component == "encode":
            given = {name: inputs[name] for name in ("phone", "lengths", "pitch") if inputs[name] is not None}
            return dict(zip(("m_p", "logs_p"), run(given), strict=True))
        return run({name: inputs[name] for name in ("z_p", "mask", "speaker")})[0]

    def _vocoded(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        given: dict[str, np.ndarray] = {"z": inputs["z"], "speaker": inputs["speaker"]}
        noise = list(inputs["noise"])
        if inputs["f0"] is not None:
            given["source"] = self.voice.source(inputs["f0"], Draws(lambda index, kind, shape: noise[index]))
        return given | {f"noise_{i}": array for i, array in enumerate(noise[2:])}

    def _foreign(self, run: Run, component: str, inputs: Mapping[str, Any]) -> np.ndarray:
        assert self.known is not None
        roles = self.known.roles
        if component == "network":
            mel = inputs["mel"][None]
            frames = mel.shape[2]
            mode = "constant" if self.options["profile"] == "webui" else "reflect"
            padded = np.pad(mel, ((0, 0), (0, 0), (0, -frames % FRAME_MULTIPLE)), mode=mode)  # type: ignore[call-overload]
            return run({roles["mel"]: padded})[0][0, :frames]
        if component == "f0":
            shape = [size or 1 for size in self.known.inputs[roles["threshold"]].shape]
            threshold = np.full(shape, inputs["threshold"], np.float32)
            return run({roles["audio"]: inputs["audio"][None], roles["threshold"]: threshold})[0].reshape(-1)
        audio = inputs["audio"][None]
        found = run({roles["audio"]: audio if self.known.convention == "units" else audio[None]})[0]
        return (found.transpose(0, 2, 1) if self.known.width_axis == 1 else found)[0]


class OpenVino(OnnxRuntime):
    package = "openvino"

    def open(self, path: Path) -> Run:
        import openvino

        core = openvino.Core()
        model = core.read_model(str(path))
        exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1}
        compiled = core.compile_model(model, "CPU", exact)
        names = {name for one in compiled.inputs for name in one.names}
        request = compiled.create_infer_request()
        wanted = self.wanted([one.any_name for one in compiled.outputs])

        def run(given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            found = request.infer({name: array for name, array in given.items() if name in names}, share_inputs=True)
            return [np.array(found[compiled.output(name)]) for name in wanted]  # it is the engine's own memory

        return run
