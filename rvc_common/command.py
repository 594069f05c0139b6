"""The command ``convert`` of both implementations: a recording into another voice."""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from . import CheckpointError
from .checkpoint import embedder_called
from .contour import fit_f0, read_f0
from .decoders import shown
from .pipeline import Pipeline
from .recording import check_output, check_space, read_recording, write_recording
from .steps import SAMPLE_RATE

PASSED, ERROR, INTERRUPTED = 0, 2, 130


class Side(NamedTuple):
    """An implementation: its package, its framework's name, its devices, and the default (None: it chooses)."""

    package: ModuleType
    framework: str
    devices: tuple[str, ...]
    device: str | None


def parser(side: Side) -> argparse.ArgumentParser:
    """The command line of ``python -m <package>``."""
    top = argparse.ArgumentParser(
        prog=f"python -m {side.package.__name__}", description=f"RVC voice conversion in {side.framework}."
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    convert = commands.add_parser(
        "convert",
        help="a recording into another voice",
        description="Speaks or sings a recording in another voice. Any sample rate, length and number of channels.",
        epilog="Exit codes: 0 done; 2 error, named in one line; 130 interrupted. OUT appears whole or not at all.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = convert.add_argument
    add(
        "input",
        type=Path,
        metavar="IN",
        help="recording: .wav, .flac, .ogg, .mp3, .aiff; .m4a, .webm and others with ffmpeg",
    )
    add("output", type=Path, metavar="OUT", help=".wav or .flac, at the voice's sample rate")
    models = convert.add_argument_group("models")
    models.add_argument("--voice", type=Path, required=True, help="voice: .pth of Applio or the WebUI, or .safetensors")
    models.add_argument("--hubert", type=Path, required=True, help="ContentVec/HuBERT: folder, .pt or .safetensors")
    models.add_argument("--embedder", metavar="NAME", help="which content model --hubert is, if not as its name says")
    models.add_argument("--rmvpe", type=Path, help="rmvpe.pt or .safetensors; voices without pitch need none")
    models.add_argument("--index", type=Path, help="the voice's .index (needs faiss) or .npy of vectors")
    knobs = convert.add_argument_group("knobs")
    knobs.add_argument("--transpose", type=float, default=0, metavar="SEMITONES", help="up or down")
    knobs.add_argument("--index-rate", type=float, default=0.75, metavar="0..1", help="with --index")
    knobs.add_argument("--exhaustive", action="store_true", help="search all of the index, not its nearest lists alone")
    knobs.add_argument("--protect", type=float, default=0.5, metavar="0..0.5", help="of unvoiced sounds; 0.5 is off")
    knobs.add_argument("--rms-mix", type=float, default=1, metavar="0..1", help="loudness: 1 the voice's, 0 yours")
    knobs.add_argument("--speaker", type=int, default=0, help="of a voice with several")
    knobs.add_argument(
        "--autotune", type=float, default=0, metavar="0..1", help="towards the nearest note, instead of --transpose"
    )
    knobs.add_argument("--propose-hz", type=float, metavar="HZ", help="shift the median pitch to about this")
    knobs.add_argument(
        "--f0", type=Path, metavar="FILE", help="pitch: Hz every 10 ms, .npy or one per line; or lines of time_s,f0_hz"
    )
    knobs.add_argument("--seed", type=int, default=0, help="of the noise: the same seed, the same result")
    how = convert.add_argument_group("how")
    how.add_argument("--profile", choices=["applio", "webui"], default="applio", help="whose rules to follow")
    automatic = "" if side.device else "; by default the GPU where there is one"
    how.add_argument("--device", choices=side.devices, default=side.device, help=f"where to compute{automatic}")
    how.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="of the networks")
    add("-q", "--quiet", action="store_true", help="no progress bar")
    add("-v", "--verbose", action="store_true", help="show the traceback of an error")
    return top


def load(side: Side, args: argparse.Namespace) -> Pipeline:
    """The models that the arguments name, in one pipeline.

    Raises:
        CheckpointError: a file that is not the model it should be.
        ValueError: models that do not fit together, or a device that this machine lacks.
    """
    package = side.package
    options = {"device": args.device, "dtype": args.dtype}
    voice = package.Synthesizer.from_checkpoint(args.voice, profile=args.profile, **options)
    if voice.has_f0 and args.rmvpe is None and args.f0 is None:
        raise ValueError("this voice needs pitch: give --rmvpe FILE (rmvpe.pt of either project) or --f0 FILE")
    hubert = package.Hubert.from_checkpoint(args.hubert, **options)
    hubert.embedder = embedder_called(args.embedder) if args.embedder else hubert.embedder
    needed = voice.has_f0 and args.f0 is None
    rmvpe = package.RMVPE.from_checkpoint(args.rmvpe, profile=args.profile, **options) if needed else None
    return package.Pipeline(hubert, rmvpe, voice, profile=args.profile)


def convert(side: Side, args: argparse.Namespace) -> None:
    """Read the recording, convert it, write the result and print one line about it."""
    check_output(args.output)
    given = read_f0(args.f0) if args.f0 else None
    recording = read_recording(args.input)
    f0 = fit_f0(*given, recording.size, args.f0) if given else None
    with Progress(args.quiet) as progress:
        progress.says("loading")
        pipeline = load(side, args)
        check_space(args.output, recording.size / SAMPLE_RATE, pipeline.synthesizer.sample_rate)
        audio, rate = pipeline.convert(
            recording,
            SAMPLE_RATE,
            transpose=args.transpose,
            index=args.index,
            index_rate=args.index_rate if args.index else 0,
            protect=args.protect,
            rms_mix=args.rms_mix,
            speaker=args.speaker,
            f0=f0,
            noise=args.seed,
            autotune=args.autotune,
            propose_hz=args.propose_hz,
            exhaustive=args.exhaustive,
            watch=progress.watch,
        )
        write_recording(args.output, audio, rate)
    print(f"{shown(args.output)}: {audio.size / rate:.2f} s at {rate} Hz from {recording.size / SAMPLE_RATE:.2f} s")


class Progress:
    """A progress bar over the pipeline's steps: pitch once, and two per segment of the recording."""

    def __init__(self, quiet: bool) -> None:
        from tqdm import tqdm

        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
        self.bar = tqdm(total=3, bar_format=form, dynamic_ncols=True, leave=False, disable=quiet or None)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def says(self, step: str) -> None:
        self.bar.set_description_str(step)

    def watch(self, name: str, array: np.ndarray) -> None:
        if name == "cuts":
            self.bar.total = 1 + 2 * (len(array) + 1)
            self.says("pitch")
        elif name in ("pitch", "joined") or name.endswith((".features", ".audio")):
            self.bar.update(0 if name == "joined" else 1)
            self.says("writing" if name == "joined" else "converting")


def run(side: Side, argv: list[str] | None = None) -> int:
    """Carry out a command line (by default the process's own) and return its exit code: 0, 2 or 130."""
    args = parser(side).parse_args(argv)
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        convert(side, args)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    except (CheckpointError, ValueError, OSError, RuntimeError, MemoryError, OverflowError) as error:
        if args.verbose:
            traceback.print_exc()
        message = str(error).strip() or type(error).__name__
        print(f"error: {message.splitlines()[0]}", file=sys.stderr)
        return ERROR
    return PASSED
