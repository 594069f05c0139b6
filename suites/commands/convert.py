"""``convert``: a checkpoint to one ``.safetensors`` file that both sides load, perhaps in fewer bits, and back."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rvc_common import checkpoint, quantized
from rvc_common.outputs import check_output, named_path

# neither needs a framework
from rvc_mlx.files import read_file

from ..base.backends import BACKENDS, impossible
from ..base.errors import UserError
from ..base.files import in_files, read_arrays, scratch_folder
from ..base.outcome import PASSED, Answer
from ..definitions import SUITES
from ..inputs.checkpoints import read_checked, write
from ..inputs.recordings import make_audio
from ..measure.config import compose_config
from ..measure.launch import Worker, WorkerError, WorkerLost
from ..measure.mixed_bits import LEAST_POWER, Bits, Mixed, fewest
from ..measure.session import HELLO_TIMEOUT_S
from ..metrics import parity

HELP = "a checkpoint to .safetensors, perhaps in fewer bits, or back to .pt"
EXAMPLES = (
    ("convert VOICE.pth VOICE.safetensors --check", "one file that both sides load, and proof that they do"),
    (
        "convert hubert.pt hubert-4.safetensors --quantize 4 --within 40",
        "4 bits where they do, more where 40 dB need it",
    ),
)
# kind of checkpoint: the suite that loads it, and the call that --check compares
CHECKED = {"rmvpe": ("rmvpe", "own_salience"), "hubert": ("hubert", "features"), "voice": ("synthesizer", "infer")}
SIDES = {"rvc_mlx": "mlx_cpu", "reference_torch": "torch_cpu"}
ENDINGS = (".safetensors", ".pt", ".pth")
CHECK_SECONDS, CHECK_SEED, TIMEOUT_S = 1.0, 11, 300.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=named_path, metavar="IN", help=".pt, .pth, .safetensors or a Hugging Face folder")
    parser.add_argument("output", type=named_path, metavar="OUT", help=".safetensors, .pt or .pth")
    kinds = ["auto", *CHECKED]
    parser.add_argument("--model", default="auto", choices=kinds, help="which model it must be")
    parser.add_argument("--check", action="store_true", help="load both files on every side and compare results")
    bits, groups = quantized.BITS, quantized.GROUPS
    text = "bits of a matrix's weights in OUT, convolutions take 8; loading widens them (default: as they are)"
    parser.add_argument("--quantize", type=int, choices=bits, help=text)
    text = "more bits, layer by layer, until the result on a second of voice is within so many dB (default: none)"
    parser.add_argument("--within", type=decibels, metavar="DB", help=text)
    parser.add_argument(
        "--group", type=int, choices=groups, default=quantized.DEFAULT_GROUP, help="values that share a scale"
    )


def run(args: argparse.Namespace) -> Answer:
    if args.within is not None and args.quantize is None:
        raise UserError("--within needs --quantize, the fewest bits")
    text = convert(args.input, args.output, args.model, args.check, args.quantize, args.group, args.within)
    lines = text.splitlines()
    found = {"input": str(args.input), "output": str(args.output), "checked": args.check, "notes": lines}
    return Answer(PASSED, text, found, lines[0])


def convert(
    source: Path,
    target: Path,
    model: str = "auto",
    check: bool = False,
    bits: int | None = None,
    group: int = quantized.DEFAULT_GROUP,
    within: float | None = None,
) -> str:
    """Read, recognise, write, read back and compare every value; one line, and one per side checked.
    Stored dtypes are kept, so that the way back is exact; only bfloat16 becomes float32. ``bits``: quantise, and say
    what that changed; ``within``: in more bits where the result would be off by more than so many dB.

    Raises ``UserError``: unreadable, another model, what no side would load, or a side whose results differ;
    ``OutputError``: the target cannot be written, or is the source."""
    check_output(target, ENDINGS if bits is None else (".safetensors",), (source,))
    content, profile = read_checked(source, None if model == "auto" else model)
    tensors, about, stored = content.state, dict[str, str](), content
    mixed: Mixed | None = None
    if bits is not None:
        mixed = None if within is None else _fewest(content, source, profile, bits, group, within)
        tensors, about = quantized.quantize(content.state, bits, group, mixed.bits if mixed else None)
        stored = content._replace(state=quantized.widen(tensors, about))
        if wrong := quantized.faults(content.state, tensors, about):
            raise UserError(f"{source}: quantising went wrong, nothing was written: {wrong[0]}")
    try:
        left_out = write(content, tensors, about, source, target, profile)
        _compare(stored, checkpoint.read_content(target, read_file, content.kind), target)
    except checkpoint.CheckpointError as error:
        raise UserError(str(error)) from None
    values = sum(v.size for v in content.state.values())
    summary = f"{target}: {content.kind}, {len(content.state)} tensors, {values:,} values, "
    summary += f"all equal to {source}" if bits is None else _changed(content, stored, about)
    why = "JSON cannot hold them" if target.suffix.lower() == ".safetensors" else "they are objects of other programs"
    lines = [summary, *([f"left out, since {why}: {', '.join(left_out)}"] if left_out else [])]
    if bits is not None:
        lines.append(_sizes(content, target))
    if mixed is not None:
        lines += _told(mixed)
    return "\n".join(lines + (check_sides(content.kind, source, target, profile, bits is None) if check else []))


def _fewest(content: checkpoint.Content, source: Path, profile: str, bits: int, group: int, within: float) -> Mixed:
    """What each layer needs, by the side that is installed."""
    backend = next((name for name in SIDES.values() if impossible(name) is None), None)
    if backend is None:
        raise UserError("--within needs a side to measure with; install mlx or torch")
    with scratch_folder() as folder, Worker(backend, "fp32", 1, folder / "log") as worker:
        part = folder / "part.safetensors"

        def measured(own: Bits) -> float | None:
            tensors, about = quantized.quantize(content.state, bits, group, own)
            write(content, tensors, about, source, part, profile)
            return ratio(_results(worker, content.kind, part, folder, profile), exact)

        try:
            exact = _results(worker, content.kind, source.resolve(), folder, profile)
            return fewest(content.state, bits, group, within, measured)
        except (WorkerError, WorkerLost, parity.NotComparable) as error:
            raise UserError(f"{backend}: {error}") from None


def ratio(found: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> float | None:
    """The worst signal-to-error ratio in dB of results; None where they are the same."""
    found_db = [parity.compare(found[name], exact[name])["snr_db"] for name in exact]
    return min((one for one in found_db if one is not None), default=None)


def _told(mixed: Mixed) -> list[str]:
    """The bits of every layer, and what the fewest would have cost alone."""
    lines = [f"{mixed.ratio:.1f} dB together; bits of every layer, and the ratio where it alone has the fewest:"]
    for one, level in sorted(mixed.parts, key=lambda found: _numbered(found[0].name)):
        alone = f"{-10 * math.log10(one.power):.1f} dB" if one.power > LEAST_POWER else "no difference"
        lines.append(f"  {one.name}: {f'{level} bits' if level else 'as it is'}, {alone} in {one.levels[0]}")
    return lines


def _numbered(name: str) -> list[tuple[int, str]]:
    """To sort by: layer 2 comes before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def decibels(text: str) -> float:
    """Of an option. Raises ``ArgumentTypeError``: no number from 0 to 200."""
    try:
        if 0 <= (value := float(text)) <= 200:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text}: a number of dB from 0 to 200 is expected")


def _changed(content: checkpoint.Content, stored: checkpoint.Content, about: Mapping[str, str]) -> str:
    """How many tensors are stored in how many bits, and how far they are from what they were."""
    forms, group = quantized.stored_forms(about), json.loads(about[quantized.METADATA])["group"]
    counts = Counter(form.bits for form in forms.values() if form.is_matrix)
    matrices = " and ".join(
        f"{count} {'matrix' if count == 1 else 'matrices'} in {bits} bits" for bits, count in sorted(counts.items())
    )
    apart: dict[str, tuple[float, float]] = {}
    for name in forms:
        wide = np.asarray(content.state[name], np.float64)
        apart[name] = float(np.linalg.norm(stored.state[name] - wide)), float(np.linalg.norm(wide))
    if not apart:
        return "none of them quantised: too small, or too much of an error"
    shares = {name: error / max(size, 1e-30) for name, (error, size) in apart.items()}
    worst = max(shares, key=lambda name: shares[name])
    total = math.hypot(*(error for error, _ in apart.values())) / math.hypot(*(size for _, size in apart.values()))
    convolutions = len(forms) - counts.total()
    return (
        f"{matrices or 'no matrices'} (groups of {group}) and {convolutions} convolution{'s' * (convolutions != 1)} in"
        f" {quantized.CONVOLUTION_BITS}, off by {total:.2%} (root mean square; the most, {shares[worst]:.2%}, in"
        f" {worst})"
    )


def _sizes(content: checkpoint.Content, target: Path) -> str:
    wide = sum(4 * value.size for value in content.state.values())
    size = target.stat().st_size
    return f"{size / 1e6:.3g} MB instead of {wide / 1e6:.3g} in float32 ({size / wide:.3f}); loading widens them again"


def _compare(written: checkpoint.Content, again: checkpoint.Content, target: Path) -> None:
    def same(a: np.ndarray, b: np.ndarray | None) -> bool:
        return b is not None and (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()

    different = [k for k, v in written.state.items() if not same(v, again.state.get(k))]
    if different or len(again.state) != len(written.state):
        raise UserError(f"{target}: was written, but {len(different)} tensors read back differently")
    if written.kind == "voice" and checkpoint.as_voice(again)[1:] != checkpoint.as_voice(written)[1:]:
        raise UserError(f"{target}: was written, but its configuration reads back differently")


def check_sides(kind: str, source: Path, target: Path, profile: str, exact: bool = True) -> list[str]:
    """Compare both files' results on every installed side, through the worker that runs use.

    ``exact``: they must be the same; otherwise it is said how far they are apart. Raises ``UserError``: no side is
    installed, one does not load a file, or results that must be the same differ by a bit."""
    lines, ran = [], 0
    for side, backend in SIDES.items():
        missing = impossible(backend)
        if missing:
            lines.append(f"{side}: not checked, {missing}")
            continue
        with scratch_folder() as folder, Worker(backend, "fp32", 1, folder / "log") as worker:
            try:
                first, second = (_results(worker, kind, path.resolve(), folder, profile) for path in (source, target))
            except (WorkerError, WorkerLost) as error:
                raise UserError(f"{side}: {error}") from None
        for name in first.keys() | second.keys():
            a, b = first.get(name), second.get(name)
            if a is None or b is None or a.shape != b.shape or (exact and a.tobytes() != b.tobytes()):
                raise UserError(f"{side}: {name} of the two files differs")
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise UserError(f"{side}: {name} of {'both files' if exact else 'a file'} has NaN or infinite values")
        if exact:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in first.items())
            lines.append(f"{side}: loads both, and gives bit for bit the same {shapes}")
        else:
            ratios = ", ".join(f"{name} {_ratio(second[name], value)}" for name, value in first.items())
            lines.append(f"{side}: loads both; signal-to-noise ratio of the quantised file's results: {ratios}")
        ran += 1
    if not ran:
        needed = " or ".join(sorted(BACKENDS[b].framework for b in SIDES.values()))
        raise UserError(f"--check needs a side to check with; install {needed}")
    return lines


def _ratio(value: np.ndarray, reference: np.ndarray) -> str:
    decibels = parity.compare(value, reference)["snr_db"]
    return "the same" if decibels is None else f"{decibels:.1f} dB"


def _results(worker: Worker, kind: str, path: Path, folder: Path, profile: str) -> dict[str, np.ndarray]:
    """What the model in this file makes of a second of the synthetic voice."""
    suite, component = CHECKED[kind]
    definition = SUITES[suite]
    settings = compose_config(suite, []).settings(None) | {"profile": profile}
    worker.ask("hello", HELLO_TIMEOUT_S, threads=1)
    paths = {definition.checkpoints[0]: str(path)}
    loaded = worker.ask("load", TIMEOUT_S, suite=suite, paths=paths, optimize="all", settings=settings)
    audio = make_audio("synthetic", CHECK_SECONDS, None, CHECK_SEED, 30.0)
    with in_files(definition.inputs(audio, settings, loaded["facts"])) as files:
        worker.ask("prepare", TIMEOUT_S, inputs=files)
        worker.ask("output", TIMEOUT_S, component=component, path=str(folder / "output.npz"))
    return read_arrays(folder / "output.npz")
