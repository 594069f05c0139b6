"""``trace MODEL``: walk both sides stage by stage and name the first stage at fault."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from ..base.errors import UserError, nearest
from ..base.files import scratch_folder
from ..base.outcome import ERROR, INTERRUPTED, Answer
from ..base.run_folder import RunFolder
from ..bundle.port import PortTrace, traced_port
from ..bundle.stored import Folder
from ..definitions.config import Config
from ..measure.config import compose_config
from ..measure.launch import WorkerLost
from ..trace.run import TraceRun, open_trace
from . import OVERRIDES
from .judge import check_out, judged

HELP = "walk both sides stage by stage and name the first one at fault"
EXAMPLES = (
    ("trace rmvpe measure=smoke", "a tiny model, in a quarter of a minute"),
    ("trace synthesizer suite.voice=synth_v2_48k_f0 precision=fp32", "the full-size model of another voice"),
)
MODELS = ("rmvpe", "hubert", "synthesizer", "pipeline")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="rmvpe, hubert, synthesizer, pipeline, or all of them")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=OVERRIDES)
    parser.add_argument("--all", action="store_true", dest="show_all", help="print every value of every stage")


def run(args: argparse.Namespace) -> Answer:
    if args.model not in (*MODELS, "all"):
        raise UserError(f"unknown model {args.model!r}{nearest(args.model, (*MODELS, 'all'))}")
    if args.model != "all":
        return trace_one(compose_config(args.model, args.overrides), args.show_all)
    configs = {model: compose_config(model, args.overrides) for model in MODELS}
    if out := configs[MODELS[0]].out:
        raise UserError(f"out={out}: several traces need a folder each; leave it out, or set paths.runs=FOLDER")
    answers = {}
    for model, config in configs.items():
        answers[model] = trace_one(config, args.show_all)
        print(answers[model].text, end="\n\n", flush=True)
    text = "\n".join(f"{model}: {one.line}" for model, one in answers.items())
    code = max(one.exit_code for one in answers.values())
    return Answer(code, text, {"traces": [one.found for one in answers.values()]})


def trace_port(config: Config, port: str, show_all: bool) -> Answer:
    """A port's stages, as far as its adapter yields them, by a bundle that is made for it."""
    out = Path(config.out) if config.out else None
    check_out(out)
    with scratch_folder(in_memory=False) as scratch:
        bundle, dump = scratch / "bundle", scratch / "dump"
        bundle.mkdir()
        dump.mkdir()
        with steps() as progress:
            trace = PortTrace(config, port, progress)
            trace.check_audio()
            trace.execute_port(bundle, dump)
        for problem in trace.problems:
            print(f"error: {problem}", file=sys.stderr)
        folder = Folder(bundle)
        command = shlex.join(["python", "-m", "suites", "trace", config.suite.name, *config.overrides])
        if not any(dump.rglob("*.npy")):
            raise UserError(f"backend {port}: its adapter yields nothing that could be judged")
        found = judged(folder, dump, folder.about.probes[0].name, out, command, f"trace-{port}", show_all)
    code = max(found.exit_code, ERROR) if trace.problems else found.exit_code
    return Answer(code, found.text, {**found.found, "problems": trace.problems}, found.line)


@contextlib.contextmanager
def steps(shown: str = "{desc} {n} values, {elapsed}") -> Iterator[Callable[[str], None]]:
    """A bar that shows the latest step."""
    with tqdm(bar_format=shown, dynamic_ncols=True, leave=False, disable=None) as bar:

        def progress(text: str) -> None:
            bar.set_description_str(text[:70], refresh=False)
            bar.update()

        yield progress


def trace_one(config: Config, show_all: bool) -> Answer:
    from reports.data import trace as traces
    from reports.documents import trace_report

    if port := traced_port(config):
        return trace_port(config, port, show_all)
    stopped = None
    with steps() as progress:
        trace = TraceRun(config, progress)
        trace.check_audio()
        with open_trace(config) as lock:  # not before it is known that there is something to trace
            folder = lock.folder
            try:
                trace.execute(folder)
            except (KeyboardInterrupt, WorkerLost) as error:  # what was walked until then is kept
                stopped = error
    if stopped is not None and not RunFolder(folder).is_trace:
        raise stopped if isinstance(stopped, KeyboardInterrupt) else UserError(str(stopped))
    path, found = trace_report.write_report(folder)
    code = traces.exit_code(found)
    if stopped is None and (lost := traces.unjudged(found)):
        print(f"error: {lost}", file=sys.stderr)
    if stopped is not None:
        print(f"the trace is not complete: {str(stopped) or 'interrupted'}", file=sys.stderr)
        code = INTERRUPTED if isinstance(stopped, KeyboardInterrupt) else ERROR
    verdict = traces.verdict(found).replace("`", "")
    facts = {"model": found.model, "folder": str(folder), "complete": stopped is None, "verdict": verdict}
    facts |= {"finding": found.finding and found.finding._asdict(), "values": len(found.rows), "report": str(path)}
    text = f"{traces.terminal(found, show_all)}\nreport: {path}"
    return Answer(code, text, facts, f"{verdict} report: {path}")
