"""The command line: ``python -m suites --help``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from .base.errors import UserError, nearest

PASSED, FAILED, ERROR, INTERRUPTED = 0, 1, 2, 130
COMMANDS = ("list", "plan", "run", "report", "compare", "gate", "trace", "selftest", "floors", "doctor", "convert")
SELFTESTS = {
    "faults": "known ones are injected, found and placed",
    "aa": "false alarms of gates on unchanged code",
    "power": "slowdowns of known size that gates catch",
    "known": "sleeps, work and memory of known size are measured right",
    "kills": "killed at random moments, runs lose nothing",
}
GATED = "a run folder, or the JSON of pytest-benchmark; several like ones are put together"
CONFIRM = "where it is slower, run the suite once more, as RUN was run, and call only what both runs show"
GITHUB = "annotations, and a table in the step summary; on by itself inside GitHub Actions"
MODELS = ("rmvpe", "hubert", "synthesizer", "pipeline", "all")


class Parser(argparse.ArgumentParser):
    """Its errors are one line, as all others are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="python -m suites",
        description="Measures RVC inference in MLX against PyTorch: time, memory and numerical difference.",
        epilog="Exit codes: 0 passed; 1 a parity limit or gate failed; 2 could not measure or judge; 130 interrupted.",
    )
    top.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("list", help="suites, measures, backends and optimisations")
    overrides = "such as durations=[5,60] backends=[torch_cpu,mlx_cpu] measure=full weights.rmvpe=FILE audio=FILE"
    plan = commands.add_parser("plan", help="what a suite would run here, without running it")
    plan.add_argument("suite", metavar="SUITE")
    plan.add_argument("overrides", nargs="*", metavar="name=value", help=overrides)
    run = commands.add_parser("run", help="measure, and write a run folder with a report")
    run.add_argument("suite", metavar="SUITE", help="a suite's name, or all, or resume=FOLDER to go on")
    run.add_argument("overrides", nargs="*", metavar="name=value", help=overrides)
    run.add_argument(
        "-m", "--multirun", action="store_true", help="Hydra sweep: one run per combination of a=1,2 values"
    )
    report = commands.add_parser("report", help="one document of one or several runs: markdown, HTML and plots")
    report.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of runs or traces, or of several")
    report.add_argument("--out", type=Path, metavar="FOLDER", help="where (default: in the only RUN, else ./report)")
    report.add_argument("--name", default="report", metavar="NAME", help="of the files: NAME.md, NAME.html")
    report.add_argument("--tables", choices=("csv", "parquet"), help="every table as a file as well, in tables/")
    report.add_argument("--sources", action="store_true", help="print for every number the records that it is from")
    report.add_argument("--history", type=Path, metavar="FOLDER", help="all runs in it over time, with what changed")
    compare = commands.add_parser("compare", help="what changed from one run to another, with significance")
    compare.add_argument("before", type=Path, metavar="RUN", help="a run folder, or a baseline")
    compare.add_argument("after", type=Path, metavar="RUN", help="a run folder")
    compare.add_argument("--policy", default="default", metavar="NAME", help="a file of conf/gate (default: default)")
    compare.add_argument("--out", type=Path, metavar="FOLDER", help="write report.md, report.html and plots there")
    gate = commands.add_parser("gate", help="judge a run by a committed baseline")
    gate.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=GATED)
    gate.add_argument("--baseline", type=Path, required=True, metavar="FILE", help="the baseline, JSON")
    gate.add_argument("--update", action="store_true", help="make or replace the baseline from the run")
    gate.add_argument("--policy", default="default", metavar="NAME", help="a file of conf/gate (default: default)")
    gate.add_argument("--all", action="store_true", dest="everything", help="print gates that simply passed too")
    gate.add_argument("--confirm", action="store_true", help=CONFIRM)
    gate.add_argument("--junit", type=Path, metavar="FILE", help="write the verdicts as JUnit XML")
    gate.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts as JSON")
    gate.add_argument("--github", action="store_true", help=GITHUB)
    trace = commands.add_parser("trace", help="walk both sides stage by stage and name the first one at fault")
    trace.add_argument("model", metavar="MODEL", help="rmvpe, hubert, synthesizer, pipeline, or all of them")
    trace.add_argument("overrides", nargs="*", metavar="name=value", help=overrides)
    trace.add_argument("--all", action="store_true", dest="everything", help="print every value of every stage")
    tested = "; ".join(f"{name}: {what}" for name, what in SELFTESTS.items())
    faults = commands.add_parser("selftest", help="how often the harness itself is right")
    faults.add_argument("what", metavar="WHAT", choices=sorted(SELFTESTS), help=tested)
    faults.add_argument("overrides", nargs="*", metavar="name=value", help="out=FOLDER, count=NUMBER, ...")
    floor = commands.add_parser("floors", help="the table of rounding floors that limits are made from")
    floor.add_argument("--update", action="store_true", help="measure it anew (minutes) and store it")
    floor.add_argument(
        "overrides",
        nargs="*",
        metavar="name=value",
        help="precision=, backends=[REFERENCE,OTHER], quick=true, merge=true",
    )
    commands.add_parser("doctor", help="what this machine has, and what slows it down")
    convert = commands.add_parser("convert", help="a checkpoint to .safetensors, or back to .pt")
    convert.add_argument("input", type=Path, metavar="IN", help=".pt, .pth, .safetensors or a Hugging Face folder")
    convert.add_argument("output", type=Path, metavar="OUT", help=".safetensors, .pt or .pth")
    kinds = ["auto", "rmvpe", "hubert", "voice"]
    convert.add_argument("--model", default="auto", choices=kinds, help="which model it must be (default: auto)")
    convert.add_argument("--check", action="store_true", help="load both files on every side and compare results")
    return top


def run_list(args: argparse.Namespace) -> int:
    from .commands import listing

    print(listing.everything())
    return PASSED


def run_plan(args: argparse.Namespace) -> int:
    from .commands import listing
    from .measure.config import compose_config

    print(listing.planned(compose_config(args.suite, args.overrides)))
    return PASSED


def run_run(args: argparse.Namespace) -> int:
    from .measure import run_all
    from .measure.config import compose_config
    from .measure.runner import open_run, resume_run

    words = [args.suite, *args.overrides]
    resume = [text.removeprefix("resume=") for text in words if text.startswith("resume=") and text != "resume=null"]
    if resume:
        if len(words) > 1 + (words[0] != f"resume={resume[0]}"):
            raise UserError("a resumed run keeps its own configuration; leave out the other overrides")
        folder = Path(resume[0]).expanduser()
        return run_everything(folder) if run_all.is_everything(folder) else finish(resume_run(folder))
    if args.suite == run_all.NAME:
        if args.multirun:
            raise UserError("run all takes no sweep; sweep a suite, or run it once for each value")
        return run_everything(run_all.open_folder(args.overrides))
    if args.multirun:
        return sweep(args.suite, args.overrides)
    return finish(open_run(compose_config(args.suite, args.overrides)))


def run_everything(folder: Path) -> int:
    """Every suite and trace in one folder, and the report of all of them."""
    from .measure import run_all

    code = run_all.execute(folder, finish, lambda config: trace_one(config, everything=False))
    if code == INTERRUPTED:
        print(f"interrupted; to go on: python -m suites run resume={folder}")
        return code
    return max(code, report_of([folder], folder))


def finish(run: object) -> int:
    """Execute a run and write its report, also of a run that was broken off."""
    from reports.documents.build import write_report

    from .measure.runner import Run

    assert isinstance(run, Run)
    interrupted = False
    try:
        run.execute()
    except KeyboardInterrupt:
        interrupted = True
    except UserError:
        run.discard_if_empty()
        raise
    except Exception:
        with contextlib.suppress(OSError):
            write_report(run.folder)  # of what there is
        raise
    try:
        built = write_report(run.folder)
    except OSError as error:
        again = f"python -m suites report {run.folder}"
        raise UserError(f"cannot write the report in {run.folder}: {error.strerror}; then: {again}") from None
    for line in built.notes:
        print(line)
    if interrupted:
        print(f"interrupted; nothing measured is lost. To go on: python -m suites run resume={run.folder}")
    print(f"report: {built.path}")
    return INTERRUPTED if interrupted else built.exit_code


def sweep(suite: str, overrides: list[str]) -> int:
    """Hydra's own multirun, so that its sweepers and launchers work."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    from .base.paths import CONF
    from .measure.config import check_names, quoted, suite_names, to_plain
    from .measure.runner import open_run

    if suite not in suite_names():
        raise UserError(f"unknown suite {suite!r}{nearest(suite, suite_names())}")
    check_names(overrides)
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def job(config: DictConfig) -> None:
        own = [text for text in HydraConfig.get().overrides.task if not text.startswith("suite=")]
        try:
            codes.append(finish(open_run(to_plain(config, own))))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            codes.append(ERROR)
        if codes[-1] == INTERRUPTED:
            raise KeyboardInterrupt

    sys.argv = [sys.argv[0], "--multirun", f"suite={suite}", *map(quoted, overrides)]
    try:
        job()
    except SystemExit:  # Hydra has printed why
        return ERROR
    return max(codes, default=ERROR)


def run_trace(args: argparse.Namespace) -> int:
    from .measure.config import compose_config

    if args.model not in MODELS:
        raise UserError(f"unknown model {args.model!r}{nearest(args.model, MODELS)}")
    if args.model != "all":
        return trace_one(compose_config(args.model, args.overrides), args.everything)
    return max(trace_one(compose_config(model, args.overrides), args.everything) for model in MODELS[:-1])


def trace_one(config: dict[str, object], everything: bool) -> int:
    from tqdm import tqdm

    from reports.data import trace as reports
    from reports.documents import trace_report

    from .base.run_folder import RunFolder
    from .measure.launch import WorkerLost
    from .trace.run import TraceRun, open_trace

    stopped = None
    with tqdm(bar_format="{desc} {n} values, {elapsed}", dynamic_ncols=True, leave=False, disable=None) as bar:

        def told(text: str) -> None:
            bar.set_description_str(text[:70], refresh=False)
            bar.update()

        run = TraceRun(config, told)
        run.check_audio()
        folder = open_trace(config)  # not before it is known that there is something to trace
        try:
            run.execute(folder)
        except (KeyboardInterrupt, WorkerLost) as error:  # what was walked until then is kept
            stopped = error
    if stopped is not None and not RunFolder(folder).is_trace:
        raise stopped if isinstance(stopped, KeyboardInterrupt) else UserError(str(stopped))
    path, found = trace_report.write_report(folder)
    print(reports.terminal(found, everything))
    print(f"report: {path}")
    if stopped is None:
        return PASSED if found.finding is None else FAILED
    print(f"the trace is not complete: {str(stopped) or 'interrupted'}", file=sys.stderr)
    return INTERRUPTED if isinstance(stopped, KeyboardInterrupt) else ERROR


def run_selftest(args: argparse.Namespace) -> int:
    from .selftest import alarms, faults, kills, known

    tests = {
        "faults": faults.faults,
        "aa": alarms.aa,
        "power": alarms.power,
        "known": known.known,
        "kills": kills.kills,
    }
    return tests[args.what](args.overrides)


def run_floors(args: argparse.Namespace) -> int:
    from .selftest.floor_table import show, update

    print(update(args.overrides) if args.update else show())
    return PASSED


def run_report(args: argparse.Namespace) -> int:
    if args.history:
        if args.runs or args.sources or args.tables:
            raise UserError("--history is a report of its own: leave out the runs, --sources and --tables")
        return run_history(args)
    if not args.name or Path(args.name).name != args.name:
        raise UserError(f"--name {args.name!r}: the name of a file, without its folder and ending")
    if not args.runs:
        raise UserError("report what? name run folders, or a folder of runs, or --history FOLDER")
    if args.sources:
        from reports.documents.sources import check

        if args.out or args.tables:
            raise UserError("--sources prints and writes nothing: leave out --out and --tables")
        text, code = check(args.runs)
        print(text)
        return code
    if len(args.runs) == 1:
        return report_of(args.runs, args.out or args.runs[0], args.tables, args.name)
    return report_of(args.runs, args.out or Path("report"), args.tables, args.name)


def report_of(folders: list[Path], out: Path, kind: str | None = None, name: str = "report") -> int:
    """One report of all of them in the folder ``out``; ``kind``: its tables as csv or parquet too."""
    from reports.data import trace
    from reports.documents import trace_report
    from reports.documents.build import write_document
    from reports.render.export import check_kind, write_tables

    from .base.run_folder import RunFolder

    if kind:
        check_kind(kind)
    if len(folders) == 1 and out == folders[0] and RunFolder(out).is_trace:
        if kind:
            raise UserError(f"{out}: a trace's tables are in its stages.csv; --out FOLDER makes others elsewhere")
        path, found = trace_report.write_report(out)
        print(trace.verdict(found).replace("`", ""), f"report: {path}", sep="\n")
        return PASSED if found.finding is None else FAILED
    try:
        built = write_document(folders, out, name)
        written = write_tables(built.document, out / "tables", kind) if kind else []
    except OSError as error:
        raise UserError(f"cannot write the report in {out}: {error.strerror}; --out FOLDER for another place") from None
    if kind:
        print(f"tables: {out / 'tables'}, {len(written)} files")
    print(*built.notes, f"report: {built.path}", sep="\n")
    return built.exit_code


def run_gate(args: argparse.Namespace) -> int:
    from reports.render import gate as texts

    from .gate.baseline import baseline_of, read_baseline, write_baseline
    from .gate.judge import confirmed, judge, read_policy

    policy = read_policy(args.policy)
    candidate = baseline_of(args.runs)
    if args.update:
        if args.baseline.exists():
            print(texts.terminal(judge(read_baseline(args.baseline), candidate, policy)), end="\n\n")
        itself = judge(candidate, candidate, policy)
        if itself.red:  # too few launches, or a machine on which nothing can be seen
            first = itself.red[0]
            raise UserError(f"no baseline: {first.kind}, {first.where} {first.metric}: {first.text}")
        write_baseline(candidate, args.baseline)
        seen = [v.detectable for v in itself.verdicts if v.detectable and v.metric == "time"]
        print(f"baseline: {args.baseline}, {len(candidate.entries)} entries; commit it")
        if seen:
            print(f"a run like it would show slowdowns of {100 * min(seen):.1f} to {100 * max(seen):.1f} %")
        return PASSED
    baseline = read_baseline(args.baseline)
    outcome = judge(baseline, candidate, policy)
    if args.confirm and any(v.kind in ("slower", "implausible") for v in outcome.verdicts):
        print(texts.terminal(outcome, args.everything))
        again = repeated(args.runs[0])
        outcome = confirmed(outcome, judge(baseline, baseline_of([again]), policy), policy)
    print(texts.terminal(outcome, args.everything))
    title = f"Gate of {candidate.facts['suite']}"
    if args.junit:
        write_text(args.junit, texts.junit(outcome, title))
    if args.json:
        write_text(args.json, texts.as_json(outcome, str(args.baseline), candidate.name))
    if args.github or os.environ.get("GITHUB_ACTIONS") == "true":
        print(*texts.workflow_commands(outcome), sep="\n")
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            try:
                with Path(summary).open("a", encoding="utf-8") as file:
                    file.write(texts.markdown(outcome, title))
            except OSError as error:
                print(f"cannot write the step summary {summary}: {error.strerror}", file=sys.stderr)
    return outcome.exit_code


def repeated(folder: Path) -> Path:
    """The same run once more, in a folder beside it."""
    from .base.run_folder import RunFolder
    from .measure.config import compose_config
    from .measure.runner import open_run

    if not folder.is_dir():
        raise UserError(f"{folder}: only a run can be repeated; leave out --confirm")
    stored = RunFolder(folder).config()
    words = [word for word in stored["overrides"] if not word.startswith(("out=", "resume="))]
    names = (f"{folder.name}-again{end}" for end in ("", *(f"-{i}" for i in range(2, 100))))
    again = next(path for name in names if not (path := folder.with_name(name)).exists())
    print(f"once more, to confirm: {again}")
    run = open_run(compose_config(stored["suite"]["name"], [*words, f"out={again}"]))
    run.execute()
    return run.folder


def write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def run_compare(args: argparse.Namespace) -> int:
    from reports.render import gate as texts

    from .gate.baseline import baseline_of, read_baseline
    from .gate.judge import UNJUDGED, judge, read_policy

    policy = read_policy(args.policy)
    before = baseline_of([args.before]) if args.before.is_dir() else read_baseline(args.before)
    after = baseline_of([args.after])
    outcome = judge(before, after, policy)
    print(texts.terminal(outcome, everything=True))
    if args.out:
        from reports.documents.comparison import write_comparison

        print(f"report: {write_comparison(before, after, outcome, args.out)}")
    return ERROR if outcome.exit_code == UNJUDGED else PASSED


def run_history(args: argparse.Namespace) -> int:
    """``report --history FOLDER``: all runs in it, by what the default gate would say of them."""
    from reports.documents.history import write_history

    from .gate.judge import read_policy

    built = write_history(args.history, args.out or args.history / "history", read_policy("default"))
    print(*built.notes, f"report: {built.path}", sep="\n")
    return built.exit_code


def run_doctor(args: argparse.Namespace) -> int:
    from .commands.doctor import examine

    return examine()


def run_convert(args: argparse.Namespace) -> int:
    from .commands.convert import convert

    print(convert(args.input, args.output, args.model, args.check))
    return PASSED


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    verbose = "-v" in argv or "--verbose" in argv or os.environ.get("HYDRA_FULL_ERROR") == "1"
    first = next((word for word in argv if not word.startswith("-")), None)
    try:
        if first is not None and first not in COMMANDS:
            raise UserError(f"unknown command {first!r}{nearest(first, COMMANDS)}")
        args = parse(argv)
        command: Callable[[argparse.Namespace], int] = globals()[f"run_{args.command}"]
        return command(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (UserError, OSError) as error:
        if verbose:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return ERROR
    except Exception as error:
        traceback.print_exc()
        print(f"error: unexpected {type(error).__name__}; this is a fault of the program", file=sys.stderr)
        return ERROR


def parse(argv: list[str]) -> argparse.Namespace:
    """Flags may stand anywhere: argparse itself wants them before the overrides."""
    verbose = [word for word in argv if word in ("-v", "--verbose")]
    if argv and argv[0] in ("gate", "compare", "report"):  # they take no overrides
        return parser().parse_args([*verbose, *(word for word in argv if word not in verbose)])
    flags = [word for word in argv if word in ("-m", "--multirun", "--all", "--update")]
    words = [word for word in argv if word not in verbose + flags]
    return parser().parse_args([*verbose, *words[:1], *flags, *words[1:]])


if __name__ == "__main__":
    sys.exit(main())
