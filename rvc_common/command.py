"""The command ``convert`` of both implementations: recordings into another voice."""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import numpy as np

from . import CheckpointError
from .checkpoint import embedder_called
from .checks import check_speaker
from .contour import fit_f0, read_f0
from .decoders import shown
from .interrupts import INTERRUPTED, is_interrupt
from .outputs import check_folder, check_output, named_path
from .pipeline import RANGES, Knobs, Pipeline, check_knobs
from .recording import check_recording, check_space, read_recording, write_recording
from .steps import SAMPLE_RATE

PASSED, ERROR = 0, 2
WRITTEN = (".wav", ".flac")
# what is taken from a folder; a recording that is named itself may have any ending
SOUND: tuple[str, ...] = (*WRITTEN, ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64")
SOUND += (".m4a", ".mp4", ".aac", ".webm", ".mka", ".wma")  # with ffmpeg
# what bad input, a full disk or too little memory raises
FAILURES = (CheckpointError, ValueError, OSError, RuntimeError, MemoryError, OverflowError)
EXAMPLES = """examples:
  {prog} in.wav out.wav --voice VOICE.pth --hubert contentvec/ --rmvpe rmvpe.pt --transpose 12
  {prog} songs/ more.mp3 converted/ --voice VOICE.pth --hubert contentvec/ --rmvpe rmvpe.pt --index VOICE.index

Exit codes: 0 done; 2 error, named in one line; 130 interrupted. Every OUT appears whole or not at all.
Of several recordings one that fails costs only itself: the others are converted, and the exit code is 2."""


class Side(NamedTuple):
    """An implementation: its package, its framework's name, its devices, and the default (None: it chooses)."""

    package: ModuleType
    framework: str
    devices: tuple[str, ...]
    device: str | None


class Job(NamedTuple):
    """A recording, and the file that it becomes."""

    input: Path
    output: Path


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(ERROR, f"error: {shown(message)}; see {self.prog} --help\n")


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults, and examples as they are typed."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return f"{action.help} (required)" if action.required else super()._get_help_string(action)


def within(name: str) -> Callable[[str], float]:
    """Reads a number in the range of a knob."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if RANGES[name].low <= float(text) <= RANGES[name].high:
                return float(text)
        raise argparse.ArgumentTypeError(f"{text!r}: expected {RANGES[name]}")

    return read


def natural(text: str) -> int:
    with contextlib.suppress(ValueError):
        if int(text) >= 0:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r:.60}: expected a whole number from 0 on")


def parser(side: Side) -> Parser:
    """The command line of ``python -m <package>``."""
    prog = f"python -m {side.package.__name__}"
    top = Parser(prog=prog, description=f"RVC voice conversion in {side.framework}.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    convert = commands.add_parser(
        "convert",
        help="recordings into another voice",
        description="Speaks or sings recordings in another voice. Any sample rate, length and number of channels.",
        epilog=EXAMPLES.format(prog=f"{prog} convert"),
        formatter_class=Help,
    )
    add = convert.add_argument
    sorts = ".wav, .flac, .ogg, .mp3, .aiff; .m4a, .webm and others with ffmpeg"
    folders = "of a folder its files with such endings, not those in folders inside it"
    add("inputs", type=named_path, nargs="+", metavar="IN", help=f"recordings: {sorts}; {folders}")
    place = "or, for several recordings or a folder, a folder that gets one .wav of each recording's name"
    add("output", type=named_path, metavar="OUT", help=f".wav or .flac, at the voice's sample rate; {place}")
    models = convert.add_argument_group("models")

    def model(name: str, help: str, **more: Any) -> None:
        models.add_argument(name, type=named_path, metavar="FILE", help=help, **more)

    model("--voice", "voice: .pth of Applio or the WebUI, or .safetensors", required=True)
    model("--hubert", "ContentVec/HuBERT: folder, .pt or .safetensors", required=True)
    models.add_argument("--embedder", metavar="NAME", help="which content model --hubert is, if not as its name says")
    model("--rmvpe", "rmvpe.pt or .safetensors; voices without pitch need none")
    model("--index", "the voice's .index (needs faiss) or .npy of vectors")
    knobs = convert.add_argument_group("knobs")

    def knob(name: str, default: float | None, help: str) -> None:
        option = "--" + name.replace("_", "-")
        metavar = f"{RANGES[name].low:g}..{RANGES[name].high:g}"
        knobs.add_argument(option, type=within(name), default=default, metavar=metavar, help=help)

    knob("transpose", 0, "semitones, up or down")
    knob("index_rate", 0.75, "with --index: how much of the features is taken from it")
    knobs.add_argument("--exhaustive", action="store_true", help="search all of the index, not its nearest lists alone")
    knob("protect", 0.5, "of unvoiced sounds; 0.5 is off")
    knob("rms_mix", 1, "loudness: 1 the voice's, 0 yours")
    knobs.add_argument(
        "--speaker", type=natural, default=0, metavar="NUMBER", help="of a voice with several, from 0 on"
    )
    knob("autotune", 0, "towards the nearest note, instead of --transpose")
    knob("propose_hz", None, "shift the median pitch to about this many Hz")
    pitch = "pitch: Hz every 10 ms, .npy or one per line; or lines of time_s,f0_hz. For one recording only"
    knobs.add_argument("--f0", type=named_path, metavar="FILE", help=pitch)
    seed = "of the noise, from 0 on: the same seed, the same result"
    knobs.add_argument("--seed", type=natural, default=0, metavar="NUMBER", help=seed)
    how = convert.add_argument_group("how")
    how.add_argument("--profile", choices=["applio", "webui"], default="applio", help="whose rules to follow")
    automatic = "" if side.device else "; by default the GPU where there is one"
    how.add_argument("--device", choices=side.devices, default=side.device, help=f"where to compute{automatic}")
    how.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="of the networks")
    add("-q", "--quiet", action="store_true", help="no progress bar")
    add("-v", "--verbose", action="store_true", help="show the traceback of an error")
    return top


def parse(side: Side, argv: list[str] | None) -> argparse.Namespace:
    """Paths may stand anywhere: argparse itself wants them in one place."""
    reader = parser(side)
    args, rest = reader.parse_known_args(argv)
    if unknown := [word for word in rest if word.startswith("-")]:
        reader.error(f"unrecognized arguments: {' '.join(unknown)}")
    paths = [*args.inputs, args.output, *map(named_path, rest)]
    args.inputs, args.output = paths[:-1], paths[-1]
    return args


# ---------------------------------------------------------------------- before the work
def jobs_of(args: argparse.Namespace) -> list[Job]:
    """What becomes what. Every name is checked here, before the first conversion.

    Raises ``ValueError``: no recordings, or two that would become one file; ``OutputError``: an output that cannot be
    written, or that would overwrite an input."""
    models = [path for path in (args.voice, args.hubert, args.rmvpe, args.index, args.f0) if path is not None]
    if missing := [path for path in models if not _is(path.exists)]:
        raise ValueError(f"{shown(missing[0])}: no such file")
    if len(args.inputs) == 1 and not _is(args.inputs[0].is_dir) and not _is(args.output.is_dir):
        check_output(args.output, WRITTEN, (*args.inputs, *models))
        return [Job(args.inputs[0], args.output)]
    recordings = [path for given in args.inputs for path in _recordings(given)]
    if args.f0 and len(recordings) > 1:
        raise ValueError(f"--f0 is the pitch of one recording, and {len(recordings)} are to be converted")
    if args.output.suffix.lower() in SOUND and not _is(args.output.is_dir):
        raise ValueError(f"output {shown(args.output)}: several recordings need a folder")
    check_folder(args.output)
    jobs: dict[str, Job] = {}
    for path in recordings:
        job = Job(path, args.output / f"{path.stem}.wav")
        # some disks do not tell capitals from small letters
        other = jobs.setdefault(job.output.name.casefold(), job)
        if other is not job:
            raise ValueError(f"{shown(other.input)} and {shown(path)} would both become {shown(job.output)}")
        check_output(job.output, WRITTEN, (*recordings, *models) if _is(job.output.exists) else (), makes_folder=True)
    return list(jobs.values())


def _recordings(given: Path) -> list[Path]:
    """A file, or those in a folder that are recordings by their endings."""
    if not _is(given.is_dir):
        return [given]
    files = sorted(path for path in given.iterdir() if not path.name.startswith(".") and path.is_file())
    found = [path for path in files if path.suffix.lower() in SOUND]
    if not found:
        raise ValueError(f"{shown(given)}: holds no recordings ({', '.join(SOUND)})")
    if other := len(files) - len(found):
        warnings.warn(
            f"{shown(given)}: {other} files are left out, which by their endings are no recordings", stacklevel=2
        )
    return found


def _is(check: Callable[[], bool]) -> bool:
    """Asks a path, which may be one that cannot be: a name that is too long, or links in a circle."""
    with contextlib.suppress(OSError):
        return check()
    return False


def knobs_of(args: argparse.Namespace) -> Knobs:
    """Checked as far as it can be without a recording and a voice."""
    names = ("transpose", "index_rate", "protect", "rms_mix", "speaker", "autotune", "propose_hz", "exhaustive")
    knobs = Knobs(noise=args.seed, **{name: getattr(args, name) for name in names})
    check_knobs(knobs)
    return knobs


# ---------------------------------------------------------------------- the work
def load(side: Side, args: argparse.Namespace, knobs: Knobs) -> tuple[Pipeline, Knobs]:
    """The models that the arguments name, in one pipeline; and the knobs, with the index loaded.

    Raises:
        CheckpointError: a file that is not the model it should be.
        ValueError: models that do not fit together, no such speaker, or a device that this machine lacks.
    """
    package = side.package
    options = {"device": args.device, "dtype": args.dtype}
    voice = package.Synthesizer.from_checkpoint(args.voice, profile=args.profile, **options)
    check_speaker(voice.config, np.asarray(args.speaker), 1)
    if voice.has_f0 and args.rmvpe is None and args.f0 is None:
        raise ValueError("this voice needs pitch: give --rmvpe FILE (rmvpe.pt of either project) or --f0 FILE")
    hubert = package.Hubert.from_checkpoint(args.hubert, **options)
    hubert.embedder = embedder_called(args.embedder) if args.embedder else hubert.embedder
    needed = voice.has_f0 and args.f0 is None
    rmvpe = package.RMVPE.from_checkpoint(args.rmvpe, profile=args.profile, **options) if needed else None
    pipeline = package.Pipeline(hubert, rmvpe, voice, profile=args.profile)
    retrieves = args.index is not None and knobs.index_rate > 0
    return pipeline, replace(knobs, index=pipeline.load_index(args.index) if retrieves else None)


class Conversion:
    """The jobs of one command line, checked when it is made."""

    def __init__(self, side: Side, args: argparse.Namespace) -> None:
        self.knobs, self.jobs = knobs_of(args), jobs_of(args)
        self.f0 = read_f0(args.f0) if args.f0 else None
        self.side, self.args, self.written = side, args, 0

    def run(self) -> int:
        """Convert every recording and print a line about it; the exit code. One that fails costs only itself."""
        loaded, readable = None, list[Job]()
        for job in self.jobs:
            with self.alone(job):
                check_recording(job.input)
                readable.append(job)
        for job in readable:
            samples = None
            with self.alone(job):
                samples = read_recording(job.input)
            if samples is None:
                continue
            if loaded is None:  # not before there is something to convert; an error of a model ends everything
                with Progress(self.args.quiet) as progress:
                    progress.says("loading")
                    loaded = load(self.side, self.args, self.knobs)
            with self.alone(job):
                with Progress(self.args.quiet) as progress:
                    line = self.convert(job, samples, *loaded, progress)
                print(line, flush=True)
                self.written += 1
        return PASSED if self.written == len(self.jobs) else ERROR

    def convert(self, job: Job, samples: np.ndarray, pipeline: Pipeline, knobs: Knobs, progress: Progress) -> str:
        """Write one result; the line about it."""
        f0 = fit_f0(*self.f0, samples.size, self.args.f0) if self.f0 else None
        seconds = samples.size / SAMPLE_RATE
        check_space(job.output, seconds, pipeline.synthesizer.sample_rate)
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)  # of every recording, although the words are the same
            warnings.showwarning = lambda message, *_, **__: warn(f"{shown(job.output)}: {message}")
            audio, rate = pipeline.convert(samples, SAMPLE_RATE, watch=progress.watch, **vars(replace(knobs, f0=f0)))
        job.output.parent.mkdir(exist_ok=True)
        write_recording(job.output, audio, rate)
        return f"{shown(job.output)}: {audio.size / rate:.2f} s at {rate} Hz from {seconds:.2f} s"

    @contextlib.contextmanager
    def alone(self, job: Job) -> Iterator[None]:
        """An error inside is told, and goes no farther."""
        try:
            yield
        except FAILURES as error:
            if is_interrupt(error):
                raise
            name = shown(job.input)
            tell(error, self.args.verbose, "" if len(self.jobs) == 1 or name in str(error) else f"{name}: ")


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


def warn(message: object, *_: object, **__: object) -> None:
    from tqdm import tqdm

    tqdm.write(f"warning: {message}", file=sys.stderr)  # above a progress bar


def tell(error: BaseException, verbose: bool, name: str = "") -> None:
    if verbose:
        traceback.print_exc()
    message = str(error).strip() or type(error).__name__
    print(f"error: {name}{message.splitlines()[0]}", file=sys.stderr)


def run(side: Side, argv: list[str] | None = None) -> int:
    """Carry out a command line (by default the process's own) and return its exit code: 0, 2 or 130."""
    args, conversion = parse(side, argv), None
    warnings.showwarning = warn
    try:
        conversion = Conversion(side, args)
        return conversion.run()
    except BaseException as error:
        if is_interrupt(error):
            written = conversion.written if conversion else 0
            print(f"interrupted; {written or 'nothing'} {'were' if written > 1 else 'was'} written", file=sys.stderr)
            return INTERRUPTED
        if not isinstance(error, FAILURES):
            raise
        tell(error, args.verbose)
        return ERROR
