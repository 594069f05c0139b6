"""``trace MODEL``: walk both sides stage by stage and name the first stage at fault."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from ..base.errors import UserError, nearest
from ..base.outcome import ERROR, FAILED, INTERRUPTED, PASSED
from ..base.run_folder import RunFolder
from ..definitions.config import Config
from ..measure.config import compose_config
from ..measure.launch import WorkerLost
from ..trace.run import TraceRun, open_trace
from . import OVERRIDES

HELP = "walk both sides stage by stage and name the first one at fault"
MODELS = ("rmvpe", "hubert", "synthesizer", "pipeline")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="rmvpe, hubert, synthesizer, pipeline, or all of them")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=OVERRIDES)
    parser.add_argument("--all", action="store_true", dest="show_all", help="print every value of every stage")


def run(args: argparse.Namespace) -> int:
    if args.model not in (*MODELS, "all"):
        raise UserError(f"unknown model {args.model!r}{nearest(args.model, (*MODELS, 'all'))}")
    models = MODELS if args.model == "all" else (args.model,)
    return max(trace_one(compose_config(model, args.overrides), args.show_all) for model in models)


def trace_one(config: Config, show_all: bool) -> int:
    from reports.data import trace as traces
    from reports.documents import trace_report

    stopped = None
    with tqdm(bar_format="{desc} {n} values, {elapsed}", dynamic_ncols=True, leave=False, disable=None) as bar:

        def progress(text: str) -> None:
            bar.set_description_str(text[:70], refresh=False)
            bar.update()

        trace = TraceRun(config, progress)
        trace.check_audio()
        folder = open_trace(config)  # not before it is known that there is something to trace
        try:
            trace.execute(folder)
        except (KeyboardInterrupt, WorkerLost) as error:  # what was walked until then is kept
            stopped = error
    if stopped is not None and not RunFolder(folder).is_trace:
        raise stopped if isinstance(stopped, KeyboardInterrupt) else UserError(str(stopped))
    path, found = trace_report.write_report(folder)
    print(traces.terminal(found, show_all))
    print(f"report: {path}")
    if stopped is None:
        return PASSED if found.finding is None else FAILED
    print(f"the trace is not complete: {str(stopped) or 'interrupted'}", file=sys.stderr)
    return INTERRUPTED if isinstance(stopped, KeyboardInterrupt) else ERROR
