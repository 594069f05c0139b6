"""``convert``: a checkpoint to one ``.safetensors`` file that both sides load, and back."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from rvc_common import checkpoint

from .backends import BACKENDS, impossible, worker_environment
from .errors import UserError
from .weights import reduced_manifest

CLASSES = {"rmvpe": "RMVPE", "hubert": "Hubert", "voice": "Synthesizer"}
KINDS = tuple(CLASSES)
SIDES = {"rvc_mlx": "mlx_cpu", "reference_torch": "torch_cpu"}
CHECK_SECONDS, CHECK_FRAMES, CHECK_SEED = 1.0, 20, 11
ROOT = Path(__file__).parents[1]


def convert(source: Path, target: Path, model: str = "auto", check: bool = False) -> str:
    """Read, recognise, write, read back and compare every value; one line, and one per side checked.

    Stored dtypes are kept, so that the way back is exact; only bfloat16 becomes float32.

    Raises:
        UserError: unreadable, another model, an ending that is not known, or a side whose results differ.
    """
    read_file = importlib.import_module("rvc_mlx.files").read_file  # reads .pt without PyTorch
    expected = None if model == "auto" else model
    try:
        content = checkpoint.read_content(source, read_file, expected)
        if content.kind == "rmvpe":
            checkpoint.check_keys("RMVPE", _expected(content.state), content.state)
        elif content.kind == "voice":
            checkpoint.as_voice(content)  # whatever else it needs to be one
        profile = checkpoint.read_metadata(source).get("profile") if source.is_file() else None
        if source.resolve() == target.resolve():
            raise UserError(f"{target}: is the input itself")
        left_out = _write(checkpoint, content, source, target, profile)
        _compare(checkpoint, content, checkpoint.read_content(target, read_file, content.kind), target)
    except checkpoint.CheckpointError as error:
        text = str(error)
        raise UserError(text if str(source) in text or str(target) in text else f"{source}: {text}") from None
    values = sum(v.size for v in content.state.values())
    told = f"{target}: {content.kind}, {len(content.state)} tensors, {values:,} values, all equal to {source}"
    lines = [told, *([f"left out, since JSON cannot hold them: {', '.join(left_out)}"] if left_out else [])]
    return "\n".join(lines + (check_sides(content.kind, source, target) if check else []))


def _write(checkpoint: Any, content: Any, source: Path, target: Path, profile: str | None) -> list[str]:
    """Names of a voice's extras that could not be kept."""
    if target.suffix in (".pt", ".pth"):
        whole = _voice_file(checkpoint, content) if content.kind == "voice" else content.state
        _write_torch(whole, target)
        return []
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: write .safetensors, .pt or .pth")
    metadata = {
        "format": checkpoint.FORMAT,
        "model": content.kind,
        "source": source.resolve().name,
        "source_sha256": _digest(source),
    }
    left_out: list[str] = []
    if content.kind == "voice":
        fields, left_out = _voice_metadata(checkpoint, content.fields)
        metadata |= fields | {"profile": profile or _profile(content.fields)}
    _write_safetensors(content.state, metadata, target)
    return left_out


def _voice_metadata(checkpoint: Any, fields: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    own = ("config", "version", "f0", "vocoder")
    extras = {k: v for k, v in fields.items() if k not in own}
    kept = {k: v for k, v in extras.items() if _json_holds(v)}
    config = checkpoint.named_config(fields["config"])
    return {
        "config": json.dumps(config),
        "version": fields.get("version") or "v1",
        "f0": str(int(_given(fields.get("f0"), 1))),
        "vocoder": fields.get("vocoder") or checkpoint.VOCODERS[0],
        "sample_rate": str(config["sr"]),
        "extras": json.dumps(kept),
    }, sorted(set(extras) - set(kept))


def _voice_file(checkpoint: Any, content: Any) -> dict[str, Any]:
    """The ``.pth`` that either upstream reads."""
    fields = dict(content.fields)
    config = checkpoint.named_config(fields.pop("config"))
    own: dict[str, Any] = {
        "config": list(config.values()),
        "version": fields.pop("version", None) or "v1",
        "f0": int(_given(fields.pop("f0", None), 1)),
        "sr": fields.pop("sr", config["sr"]),
    }
    vocoder = fields.pop("vocoder", None) or checkpoint.VOCODERS[0]
    if vocoder != checkpoint.VOCODERS[0]:
        own["vocoder"] = vocoder
    return {"weight": content.state} | own | fields


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _json_holds(value: Any) -> bool:
    try:
        # as text: NaN differs from itself, and True equals 1
        return repr(json.loads(json.dumps(value))) == repr(value)
    except (TypeError, ValueError):
        return False


def _profile(fields: dict[str, Any]) -> str:
    """Whose export it looks like: the WebUI writes ``info`` and none of Applio's entries."""
    applio = ("epoch", "step", "vocoder", "model_hash", "model_name", "creation_date")
    return "webui" if "info" in fields and not any(name in fields for name in applio) else "applio"


def _expected(state: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """RMVPE's keys and shapes at the width that the checkpoint itself shows."""
    first = state.get("unet.encoder.layers.0.conv.0.conv.0.weight")
    recurrent = state.get("fc.0.gru.weight_hh_l0")
    plain = first is not None and recurrent is not None and first.ndim == 4 and recurrent.ndim == 2
    sizes = (first.shape[0], recurrent.shape[-1]) if plain else (16, 256)  # type: ignore[union-attr]
    tensors = reduced_manifest(*sizes)["tensors"]
    return {t["key"]: tuple(t["shape"]) for t in tensors if not t["key"].endswith("num_batches_tracked")}


def _digest(source: Path) -> str:
    names = ("config.json", "model.safetensors", "pytorch_model.bin")
    present = [source / name for name in names if (source / name).is_file()][:2]  # the weights that were read
    digest = hashlib.sha256()
    for path in present if source.is_dir() else [source]:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _write_safetensors(state: dict[str, np.ndarray], metadata: dict[str, str], target: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    part = target.with_name(target.name + ".part")
    try:
        save_file({k: np.asarray(v, order="C") for k, v in state.items()}, part, metadata=metadata)
        part.replace(target)
    except SafetensorError as error:
        raise UserError(f"cannot write {target}: {error}") from None
    finally:
        part.unlink(missing_ok=True)


def _write_torch(content: dict[str, Any], target: Path) -> None:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        raise UserError("writing .pt needs PyTorch: pip install torch") from None

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: tensors(v) for k, v in value.items()}
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

    part = target.with_name(target.name + ".part")
    try:
        torch.save(tensors(content), part)
        part.replace(target)
    except RuntimeError as error:  # what torch.save makes of a folder that is missing or a full disk
        raise UserError(f"cannot write {target}: {error}".splitlines()[0]) from None
    finally:
        part.unlink(missing_ok=True)


def _compare(checkpoint: Any, written: Any, again: Any, target: Path) -> None:
    def same(a: np.ndarray, b: np.ndarray | None) -> bool:
        return b is not None and (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()

    different = [k for k, v in written.state.items() if not same(v, again.state.get(k))]
    if different or len(again.state) != len(written.state):
        raise UserError(f"{target}: was written, but {len(different)} tensors read back differently")
    if written.kind == "voice" and checkpoint.as_voice(again)[1:] != checkpoint.as_voice(written)[1:]:
        raise UserError(f"{target}: was written, but its configuration reads back differently")


def check_sides(kind: str, source: Path, target: Path) -> list[str]:
    """Both files through the ordinary loader of every installed side, each in a process of its own.

    Raises:
        UserError: none is installed, one does not load a file, or the results differ by a bit.
    """
    lines, ran = [], 0
    for side, backend in SIDES.items():
        missing = impossible(backend)
        if missing:
            lines.append(f"{side}: not checked, {missing}")
            continue
        # one thread: a second of input needs no more, and spinning ones are slow on a busy machine
        environment = worker_environment("fp32", threads=1)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "suites.convert", side, kind, str(source.resolve()), str(target.resolve())]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["ended without a word"])[-1]
            raise UserError(f"{side}: {last}")
        lines.append(f"{side}: {done.stdout.strip().splitlines()[-1]}")
        ran += 1
    if not ran:
        needed = " or ".join(sorted(BACKENDS[b].framework for b in SIDES.values()))
        raise UserError(f"--check needs a side to check with; install {needed}")
    return lines


def _check_side(side: str, kind: str, source: str, target: str) -> str:
    package = importlib.import_module(side)
    model = getattr(package, CLASSES[kind], None)
    if model is None:
        raise UserError(f"{side} has no {CLASSES[kind]} to check with")
    run = {"rmvpe": _run_rmvpe, "hubert": _run_hubert, "voice": _run_voice}[kind]
    first, second = (run(model.from_checkpoint(path, device="cpu")) for path in (source, target))
    for name in first.keys() | second.keys():
        a, b = first.get(name), second.get(name)
        if a is None or b is None or a.shape != b.shape or a.tobytes() != b.tobytes():
            raise UserError(f"{name} of the two files differs")
        if not np.isfinite(a).all():
            raise UserError(f"{name} of both files has NaN or infinite values")
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in first.items())
    return f"{CLASSES[kind]} loads both, and gives bit for bit the same {shapes}"


def _audio() -> np.ndarray:
    from .voice import synthesize

    return synthesize(CHECK_SECONDS, seed=CHECK_SEED).audio


def _run_rmvpe(model: Any) -> dict[str, np.ndarray]:
    return {"salience": model.salience(model.mel(_audio()))}


def _run_hubert(model: Any) -> dict[str, np.ndarray]:
    return {"features": model.features(_audio(), version="v2")}


def _run_voice(model: Any) -> dict[str, np.ndarray]:
    random = np.random.default_rng(CHECK_SEED)
    phone = random.standard_normal((1, CHECK_FRAMES, model.phone_channels)).astype(np.float32)
    pitch = f0 = None
    if model.has_f0:
        f0 = np.linspace(110, 220, CHECK_FRAMES, dtype=np.float32)[None]
        pitch = np.arange(40, 40 + CHECK_FRAMES)[None]
    lengths, speaker = np.array([CHECK_FRAMES]), np.array([0])
    return {"audio": model.infer(phone, lengths, pitch, f0, speaker, noise=CHECK_SEED)}


def main(argv: list[str]) -> int:
    """The child process of ``--check``: a line, or an error as the last line of stderr."""
    try:
        print(_check_side(*argv))
    except Exception as error:
        print(f"{error}".replace("\n", " ") or type(error).__name__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
