"""``profile MODEL``: the time of every stage, beside what the machine could do, and the stage to work on next."""

from __future__ import annotations

import argparse

from ..base.errors import UserError, nearest
from ..base.outcome import PASSED, Answer
from ..measure.config import compose_config
from ..measure.runner import discard
from . import OVERRIDES
from .trace import MODELS, steps

HELP = "the time of every stage of a model, and how far it is from what the machine can do"
EXAMPLES = (
    ("profile rmvpe", "PyTorch and MLX on this machine's best device, in a minute; 5 s of synthetic voice"),
    ("profile synthesizer durations=10 'backends=[mlx_cpu]' threads=1", "one backend, one thread, 10 s"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=f"one of {', '.join(MODELS)}; profile MODEL -h: what can be set")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=OVERRIDES)


def run(args: argparse.Namespace) -> Answer:
    from reports.data import profile as profiles
    from reports.documents import profile_report

    from ..trace.profile import ProfileRun, open_profile

    if args.model not in MODELS:
        raise UserError(f"unknown model {args.model!r}{nearest(args.model, MODELS)}")
    config = compose_config(args.model, args.overrides)
    with steps("{desc}, {elapsed}") as progress:
        profile = ProfileRun(config, progress)
        profile.check_audio()
        with open_profile(config) as lock:
            try:
                profile.execute(lock.folder)
            except BaseException:  # what a part of a profile says is misleading: nothing of it is kept
                discard(lock)
                raise
            progress("drawing")
            path, found = profile_report.write_report(lock.folder)
    text = f"{profiles.terminal(found)}\nreport: {path}"
    return Answer(
        PASSED,
        text,
        profiles.as_data(found) | {"report": str(path)},
        f"{found.advice[-1]} report: {path}".replace("`", ""),
    )
