"""A part of the reference as an ONNX file: traced, checked against the reference on other lengths, and cached."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rvc_common import CheckpointError
from rvc_common.outputs import check_output, whole

from ..base.errors import UserError, nearest
from ..definitions import SUITES  # noqa: F401  (declares the figures)
from ..inputs.weights import cache_folder, cached, sha256
from ..metrics import parity
from ..metrics.floors import component_limits
from ..metrics.limits import Limits
from .parts import PARTS, Options, Part, axes_of, dynamic_axes

FORMAT = "rvc-parity-onnx/1"
# of what this module and reference_torch.graphs make: raised where they make other files
EXPORTER = 1
OPSET = 18
PRECISION = "fp32"
# module: the extra that it comes with
NEEDED = {"torch": "torch", "onnx": "peers", "onnxruntime": "peers"}
MODELS = {"rmvpe": "RMVPE", "hubert": "Hubert", "voice": "Synthesizer"}
CONTENT_RATE = 16000


class Mismatch(Exception):
    """The exported file does not compute what the reference computes; the message says where."""


def check_needs(*names: str) -> None:
    """Raises ``UserError``: one of these packages, or of all that an export needs, is missing; names the extra."""
    for name in names or NEEDED:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"ONNX files need {name}, which is not installed: pip install -e '.[{NEEDED[name]}]'")


def exported(
    part: str, checkpoint: str | Path, profile: str = "applio", version: str = "v2", cache: str | Path | None = None
) -> Path:
    """The ONNX file of a part in the cache, made and checked where it is absent.

    Args:
        part: a name in ``PARTS``.
        version: whose voices HuBERT's features are for; of a voice its checkpoint tells.
        cache: the folder of cached weights; None: the usual one.

    Raises ``UserError``: a package is missing, or the checkpoint or the cache cannot be used; ``Mismatch``: the check
    failed, and there is no file."""
    row = _row(part, Path(checkpoint))
    digest = sha256(Path(checkpoint))
    target = place_of(part, checkpoint, profile, version, cache, digest)
    options = {"profile": profile, "version": version}
    cached(target, lambda path: _make(part, row, Path(checkpoint), digest, options, path))
    return target


def place_of(
    part: str,
    checkpoint: str | Path,
    profile: str = "applio",
    version: str = "v2",
    cache: str | Path | None = None,
    digest: str | None = None,
) -> Path:
    """Where ``exported`` keeps the file, whether it is there or not. Imports no framework."""
    kind = f"{part}-{version}" if part == "hubert" else part
    made = f"torch{importlib.metadata.version('torch')}-export{EXPORTER}"
    name = f"{kind}-{profile}-{(digest or sha256(Path(checkpoint)))[:16]}-{made}.onnx"
    return cache_folder(None if cache is None else str(cache)) / "onnx" / name


def export_to(target: Path, part: str, checkpoint: Path, profile: str = "applio", version: str = "v2") -> Path:
    """The same, made anew and written to ``target``.

    Raises also ``OutputError``: it cannot be written."""
    row = _row(part, checkpoint)
    check_output(target, (".onnx",), (checkpoint,), makes_folder=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole(target) as path:
        _make(part, row, checkpoint, sha256(checkpoint), {"profile": profile, "version": version}, path)
    return target


def facts_of(path: Path) -> dict[str, str]:
    """The metadata of an exported file; ``checked`` and the axes as JSON."""
    onnx: Any = importlib.import_module("onnx")
    return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}


def _row(part: str, checkpoint: Path) -> Part:
    if part not in PARTS:
        raise UserError(f"unknown part {part!r}{nearest(part, PARTS)}")
    check_needs()
    if not checkpoint.exists():
        raise UserError(f"{checkpoint}: no such file")
    return PARTS[part]


@contextlib.contextmanager
def _refused(checkpoint: Path) -> Iterator[None]:
    """What the reference refuses is the user's to know, with the file's name."""
    try:
        yield
    except (CheckpointError, ValueError) as error:
        text = str(error)
        raise UserError(text if str(checkpoint) in text else f"{checkpoint}: {text}") from None


def _make(part: str, row: Part, checkpoint: Path, digest: str, options: Options, path: Path) -> None:
    onnx: Any = importlib.import_module("onnx")
    with _refused(checkpoint):
        model, exact = (_loaded(row, checkpoint, options["profile"], dtype) for dtype in ("float32", "float64"))
        content, inputs = _traced(part, row, model, options)
        found = onnx.load_from_string(content)
        checks = checked(part, row, model, exact, content, options)
    voice = row.model == "voice"
    metadata = {
        "format": FORMAT,
        "exporter": EXPORTER,
        "part": part,
        "model": row.model,
        "about": row.note,
        "profile": options["profile"],
        "version": model.version if voice else options["version"] if part == "hubert" else "",
        "sample_rate": model.sample_rate if voice else CONTENT_RATE,
        "source": checkpoint.resolve().name,
        "source_sha256": digest,
        "torch": importlib.import_module("torch").__version__,
        "opset": OPSET,
        "inputs": {name: axes_of(name) for name in inputs},
        "outputs": {name: axes_of(name) for name in row.outputs},
        "checked": checks,
    }
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    onnx.helper.set_model_props(found, texts)
    onnx.save_model(found, str(path), format="protobuf")


def _loaded(row: Part, checkpoint: Path, profile: str, dtype: str) -> Any:
    kind = getattr(importlib.import_module("reference_torch"), MODELS[row.model])
    options = {} if row.model == "hubert" else {"profile": profile}
    return kind.from_checkpoint(checkpoint, dtype=dtype, **options)


def _traced(part: str, row: Part, model: Any, options: Options) -> tuple[bytes, tuple[str, ...]]:
    """The file's content without metadata, and the names of its inputs.

    By the tracing exporter: its axes are dynamic wherever the code takes them from a shape, as the check on other
    lengths proves, and it is ten times faster than the one that is built on ``torch.export``, for the same numbers."""
    torch: Any = importlib.import_module("torch")
    graphs = importlib.import_module("reference_torch.graphs")
    arrays, _ = row.given(model, options, 2, row.traced, np.random.default_rng(0))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter: that another one exists, that shapes are traced
        try:
            torch.onnx.export(
                row.graph(graphs, model, options).eval(),
                tuple(torch.from_numpy(array) for array in arrays.values()),
                buffer,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(arrays),
                output_names=list(row.outputs),
                dynamic_axes={name: dynamic_axes(name) for name in (*arrays, *row.outputs)},
            )
        except RuntimeError as error:  # the exporter's errors are of this kind
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"PyTorch {torch.__version__} cannot export {part}: {reason}") from error
    return buffer.getvalue(), tuple(arrays)


def session_of(file: Path | bytes, threads: int | None = None) -> Any:
    """A session of onnxruntime on the CPU that prints nothing.

    Raises ``UserError``: it cannot load the file."""
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # its errors are exceptions as well
    options.intra_op_num_threads = threads or 0
    try:
        given = file if isinstance(file, bytes) else str(file)
        return runtime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has a class for each of its states
        if isinstance(file, bytes):
            raise
        raise UserError(f"{file}: onnxruntime cannot load it: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def checked(
    part: str, row: Part, model: Any, exact: Any, content: bytes, options: Options
) -> list[dict[str, float | str | list[int]]]:
    """The figures of every case, all within their limits; the limits are made as those of the suites.

    Raises ``Mismatch``: one is not, or the graph does not run on a length."""
    session = session_of(content, 1)  # its idle threads would spin while the reference computes
    limits = Limits(component_limits(row.suite, PRECISION, dict.fromkeys(row.figures.values(), "derived")))
    found: list[dict[str, float | str | list[int]]] = []
    for case in row.sizes:
        arrays, call = row.given(model, options, *case, np.random.default_rng(list(case)))
        where = f"{part}: batch {case[0]}, length {case[1]}"
        try:
            results = session.run(list(row.outputs), arrays)
        except Exception as error:  # a length that the graph has fixed
            raise Mismatch(f"{where}: onnxruntime: {_first_line(error)}") from None
        for name, result, wanted, precise in zip(row.outputs, results, call(model), call(exact), strict=True):
            try:
                figures, floors = parity.compare(result, wanted), parity.compare(wanted, precise)
            except parity.NotComparable as error:
                raise Mismatch(f"{where}: {name}: {error}") from None
            for measure, figure in row.figures.items():
                if figures[measure] is None:  # equal: no noise to measure
                    continue
                for check in limits.check(figure, figures[measure], floors[measure]).values():
                    if not check["passed"]:
                        raise Mismatch(f"{where}: {name}: {measure} {check['value']:.3g}, limit {check['limit']:.3g}")
                    said = {"output": name, "figure": measure, "value": check["value"], "limit": check["limit"]}
                    found.append(said | {"case": list(case), "max_abs": figures["max_abs"]})
    return found
