"""Trains a small RMVPE on synthetic voices: assets/rmvpe-small.safetensors.

    python tools/train_rmvpe.py --out OUT --steps 20000 --device cuda      # all at once
    python tools/train_rmvpe.py --out OUT --steps 20000 --device cuda --minutes 9   # and again, until it is done
    python tools/train_rmvpe.py --out OUT --export                         # the checkpoint, from the state
    python tools/train_rmvpe.py --curves OUT/log.jsonl curves.png
    python tools/train_rmvpe.py --score assets/rmvpe-small.safetensors OUT/rmvpe-small.safetensors --device cuda

OUT receives state.pt (95 MB; training resumes from it), log.jsonl (a JSON line every 100 steps) and, when a call
ends, rmvpe-small.safetensors. Data at step k depend only on the seed and k. Instead of --steps, --total-minutes
fixes the number of steps from the speed of the first 200. Ctrl-C saves the state. Exit codes: 0 done, 2 error,
3 time is up before the last step, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout's packages, installed or not

import torch

from reference_torch.layers import check_device
from rvc_common import CheckpointError
from rvc_common.outputs import check_folder, check_output, named_path, whole
from tools.training.export import as_model, export
from tools.training.scores import best_threshold, draw_curves, evaluate, fill_card, read_card, score, versus
from tools.training.step import STEPS_AT_ONCE, Recipe, State, Stepper, TrainingError, load_state

LOG_STEPS = 100
MEASURED_STEPS = 200
DONE, ERROR, TIME_UP, INTERRUPTED = 0, 2, 3, 130


class Log:
    """JSON lines in OUT/log.jsonl, and on the screen."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        if path.exists():  # steps after the resumed state will be logged again
            kept = [line for line in path.read_text("utf-8").splitlines() if json.loads(line).get("step", 0) <= step]
            with whole(path) as part:
                part.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def __call__(self, **entry: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)


class Loop:
    """Training steps until the last one, the time limit, or a signal."""

    def __init__(self, state: State, arguments: argparse.Namespace, log: Log) -> None:
        self.state, self.arguments, self.log = state, arguments, log
        self.step = Stepper(state)
        self.began, self.before = time.monotonic(), state.seconds
        self.stopped = False
        self.measured = (state.step, 0.0)

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def stop(self, *_: object) -> None:
        self.stopped = True

    def run(self) -> int:
        """The exit code; the state is saved, unless a step failed."""
        handlers = {number: signal.signal(number, self.stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = self.run_steps()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self.save()
        return code

    def run_steps(self) -> int:
        while not self.state.steps or self.state.step < self.state.steps:
            if self.stopped:
                return INTERRUPTED
            if self.arguments.minutes and self.elapsed() > 60 * self.arguments.minutes:
                return TIME_UP
            self.step()
            self.after_step()
        return DONE

    def save(self) -> None:
        self.state.seconds = self.before + self.elapsed()
        self.state.save(self.arguments.out / "state.pt")

    def after_step(self) -> None:
        state, every = self.state, self.arguments.check_every
        state.seconds = self.before + self.elapsed()
        if not state.steps and state.step in (MEASURED_STEPS // 2, MEASURED_STEPS):
            self.plan()
        if state.step % LOG_STEPS == 0:
            loss = float(state.loss_sum) / LOG_STEPS
            state.loss_sum.zero_()
            if not math.isfinite(loss):
                raise TrainingError(f"the loss is not finite at step {state.step}; try a lower --lr")
            self.log(event="train", step=state.step, loss=round(loss, 5), lr=state.learning_rate(),
                     seconds=round(state.seconds, 2))  # fmt: skip
        if every and state.step % every == 0:
            self.check()
            self.save()

    def plan(self) -> None:
        """Fix the number of steps from the speed of the second half of the first ``MEASURED_STEPS``."""
        state = self.state
        float(state.loss_sum)  # waits for the device
        if state.step < MEASURED_STEPS:
            self.measured = (state.step, self.elapsed())
            return
        each = (self.elapsed() - self.measured[1]) / (state.step - self.measured[0])
        left = 60 * self.arguments.total_minutes - state.seconds
        state.steps = state.step + max(1, int(0.95 * left / each))
        self.log(event="plan", step=state.step, steps=state.steps, seconds_per_step=round(each, 4))

    def check(self) -> None:
        """Scores of the averaged network on the held-out streams, at the threshold that is best for now."""
        recipe = self.state.recipe
        frames = evaluate(as_model(self.state.average, recipe, self.state.device), recipe, 1)
        threshold = best_threshold(frames)
        scores = {
            stream: {name: value and round(value, 4) for name, value in score(found, threshold).items()}
            for stream, found in frames.items()
        }
        self.log(event="check", step=self.state.step, threshold=round(threshold, 4), scores=scores)


def time_data(loop: Loop, repeats: int = 5) -> float:
    """Seconds to make a batch, the device waited for; the first makes are not counted."""
    for i in range(2 * repeats):
        if i == repeats:
            began = time.monotonic()
        float(loop.step.data(i * STEPS_AT_ONCE)[0].sum())
    return (time.monotonic() - began) / repeats / STEPS_AT_ONCE


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    return Recipe(**{name: getattr(arguments, name) for name in Recipe.__dataclass_fields__})


def train(arguments: argparse.Namespace) -> int:
    """Begin or go on, then write the checkpoint of what has been learnt."""
    recipe = recipe_of(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "state.pt"
    state = load_state(path, arguments.device, recipe) if path.exists() else State(recipe, arguments.device)
    if arguments.steps and state.steps and arguments.steps != state.steps:
        raise TrainingError(f"{path} was planned for {state.steps} steps, not {arguments.steps}")
    state.steps = state.steps or arguments.steps
    if not state.steps and not arguments.total_minutes:
        raise TrainingError("give --steps, or --total-minutes to have them counted")
    log = Log(arguments.out / "log.jsonl", state.step)
    loop = Loop(state, arguments, log)
    log(event="start", step=state.step, steps=state.steps, device=arguments.device, torch=torch.__version__,
        parameters=sum(p.numel() for p in state.network.parameters()),
        seconds_per_batch=round(time_data(loop), 4) if arguments.device != "cpu" else None)  # fmt: skip
    code = loop.run()
    if code != INTERRUPTED:
        write_checkpoint(state, arguments, log)
    return code


def write_checkpoint(state: State, arguments: argparse.Namespace, log: Log) -> None:
    began = time.monotonic()
    result = export(state, arguments.out / "rmvpe-small.safetensors", arguments.check_batches)
    log(step=state.step, **result, export_seconds=round(time.monotonic() - began, 1))


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, recipe = command.add_argument, Recipe()
    add("--out", type=named_path, help="folder of state.pt, log.jsonl and rmvpe-small.safetensors")
    add("--steps", type=int, default=0, help="number of steps; the learning rate is zero at the last")
    add("--total-minutes", type=float, default=0, help="time for all calls together, to count steps by")
    add("--minutes", type=float, default=0, help="time for the steps of this call; the checkpoint comes on top")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--threads", type=int, default=0, help="CPU threads")
    for name, text in (
        ("width", "channels of the first level (upstream: 16)"),
        ("hidden", "size of the GRU (upstream: 256)"),
        ("batch", "recordings a step"),
        ("frames", "frames of 10 ms a recording, a multiple of 32"),
        ("seed", "of weights and data"),
        ("lr", "highest learning rate"),
        ("decay", "weight decay"),
    ):
        default = getattr(recipe, name)
        add(f"--{name}", type=type(default), default=default, help=f"{text} (default: %(default)s)")
    text = "of the convolutions; fp32 uses TF32 on CUDA (default: %(default)s)"
    add("--precision", choices=("bf16", "fp32"), default=recipe.precision, help=text)
    add("--repeatable", action="store_true", help="deterministic algorithms on CUDA: the same file again")
    add("--channels-last", action="store_true", help="keep images with the channels last")
    add("--check-every", type=int, default=2000, help="steps between scores; 0: none (default: %(default)s)")
    # the default is that of the card: another number is another set of voices
    text = "held-out batches per condition for scores (default: %(default)s)"
    add("--check-batches", type=int, default=32, help=text)
    add("--export", action="store_true", help="only write the checkpoint, from OUT/state.pt")
    text = "only score files, the others against the first"
    add("--score", type=named_path, nargs="+", metavar="CHECKPOINT", help=text)
    add("--curves", type=named_path, nargs=2, metavar=("LOG", "PNG"), help="only draw a log")
    add("--card", type=named_path, metavar="README", help="with --score: write it into a model card as well")
    return command


def check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.card and not arguments.score:
        raise TrainingError("--card goes with --score CHECKPOINT")
    if arguments.out is None and not arguments.score:
        raise TrainingError("give --out, the folder to work in")
    if arguments.card:
        check_output(arguments.card, inputs=arguments.score)
        read_card(arguments.card)
    if arguments.out and not arguments.score:
        check_folder(arguments.out)
    for name in ("width", "hidden", "batch", "frames", "check_batches"):
        if getattr(arguments, name) < 1:
            raise TrainingError(f"--{name.replace('_', '-')} must be positive")
    if arguments.frames % 32:
        raise TrainingError(f"--frames must be a multiple of 32, not {arguments.frames}")
    if arguments.batch < 2:
        raise TrainingError("--batch must be at least 2: babble is made of the others' voices")
    try:
        check_device(arguments.device)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    if arguments.device.startswith("mps"):
        raise TrainingError("the voices' phases need float64, which MPS lacks: cpu or cuda")


def set_up(arguments: argparse.Namespace) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = False  # the log-mel is a product of matrices, exact as in inference
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = not arguments.repeatable  # it may choose another algorithm each time
    if arguments.repeatable:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.use_deterministic_algorithms(True, warn_only=True)


def dispatch(arguments: argparse.Namespace) -> int:
    if arguments.curves:
        check_output(arguments.curves[1], (".png",), arguments.curves[:1])
        draw_curves(*arguments.curves)
        return DONE
    check_arguments(arguments)
    set_up(arguments)
    if arguments.score:
        text = versus(arguments.score, recipe_of(arguments), arguments.check_batches, arguments.device)
        print(text)
        if arguments.card:
            fill_card(text, arguments.card)
        return DONE
    if not arguments.export:
        return train(arguments)
    state = load_state(arguments.out / "state.pt", arguments.device)
    write_checkpoint(state, arguments, Log(arguments.out / "log.jsonl", state.step))
    return DONE


def main(words: Sequence[str] | None = None) -> int:
    try:
        return dispatch(parser().parse_args(words))
    except (TrainingError, CheckpointError, OSError) as error:
        print(f"train_rmvpe: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
