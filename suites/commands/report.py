"""``report``: one document of one or several runs, their sources, or their history."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rvc_common.outputs import check_folder, check_output, named_path

from ..base.errors import UserError
from ..base.outcome import PASSED, Answer
from ..base.run_folder import RunFolder

if TYPE_CHECKING:
    from reports.documents.build import Built

HELP = "one document of one or several runs: markdown, HTML and plots"
EXAMPLES = (
    ("report runs/one", "the report of a run anew, from its records"),
    ("report runs/one runs/two --out both --tables csv", "two runs side by side, and every table as a file"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="*", type=named_path, metavar="RUN", help="folder of a run or trace, or of several")
    add("--out", type=named_path, metavar="FOLDER", help="where (default: in the only RUN, else ./report)")
    add("--name", default="report", metavar="NAME", help="of the files: NAME.md, NAME.html")
    add("--tables", choices=("csv", "parquet"), help="every table as a file as well, in tables/ (default: none)")
    add("--sources", action="store_true", help="print for every number the records that it is from")
    add(
        "--history",
        type=named_path,
        metavar="FOLDER",
        help="instead: all runs in it over time (default: none)",
    )


def run(args: argparse.Namespace) -> Answer:
    if args.history:
        if args.runs or args.sources or args.tables:
            raise UserError("--history is a report of its own: leave out the runs, --sources and --tables")
        return _history(args)
    if not args.name or Path(args.name).name != args.name:
        raise UserError(f"--name {args.name!r}: the name of a file, without its folder and ending")
    if not args.runs:
        raise UserError("report what? name run folders, or a folder of runs, or --history FOLDER")
    if args.sources:
        from reports.documents.sources import check

        if args.out or args.tables:
            raise UserError("--sources prints and writes nothing: leave out --out and --tables")
        text, code = check(args.runs)
        return Answer(code, text, {"numbers": text.splitlines()[:-1]})
    own = args.runs[0] if len(args.runs) == 1 else Path("report")
    return report_of(args.runs, args.out or own, args.tables, args.name)


def report_of(folders: list[Path], out: Path, kind: str | None = None, name: str = "report") -> Answer:
    """One report of all of them in the folder ``out``; ``kind``: its tables as csv or parquet too."""
    from reports.data import trace
    from reports.documents import profile_report, trace_report
    from reports.documents.build import write_document
    from reports.render.export import check_kind, write_tables

    if kind:
        check_kind(kind)
    if profiled := [folder for folder in folders if RunFolder(folder).is_profile]:
        if folders != [out] or kind or name != "report":
            raise UserError(f"{profiled[0]}: a profile has a report of its own: report {profiled[0]}")
        with _writing(out, name, folders):
            path, profile = profile_report.write_report(out)
        return Answer(PASSED, f"report: {path}", {"report": str(path), "notes": profile.advice})
    if len(folders) == 1 and out == folders[0] and RunFolder(out).is_trace:
        if kind:
            raise UserError(f"{out}: a trace's tables are in its stages.csv; --out FOLDER makes others elsewhere")
        with _writing(out, name, folders):
            path, found = trace_report.write_report(out)
        verdict = trace.verdict(found).replace("`", "")
        return Answer(trace.exit_code(found), f"{verdict}\nreport: {path}", {"report": str(path), "notes": [verdict]})
    with _writing(out, name, folders):
        built = write_document(folders, out, name)
        written = write_tables(built.document, out / "tables", kind) if kind else []
    answer = of_built(built)
    if not kind:
        return answer
    tables = [str(path) for path in written]
    text = f"tables: {out / 'tables'}, {len(written)} files\n{answer.text}"
    return answer._replace(text=text, found={**answer.found, "tables": tables})


def of_built(built: Built) -> Answer:
    """The answer that tells of a document: its notes and its path."""
    text = "\n".join([*built.notes, f"report: {built.path}"])
    line = "; ".join([*built.notes[-1:], f"report: {built.path}"])
    return Answer(built.exit_code, text, {"report": str(built.path), "notes": built.notes}, line)


@contextlib.contextmanager
def _writing(out: Path, name: str, folders: Sequence[Path]) -> Iterator[None]:
    """A report is written inside, if it can be: that is known before the runs are read."""
    try:
        if not (out.is_file() and out in folders):  # reading says that this is no run
            check_folder(out)
            for ending in (".md", ".html"):
                check_output(out / f"{name}{ending}", makes_folder=True)
        yield
    except OSError as error:
        raise UserError(f"cannot write the report in {out}: {error.strerror}; --out FOLDER for another place") from None


def _history(args: argparse.Namespace) -> Answer:
    from reports.documents.history import write_history

    from ..gate.judge import read_policy

    out = args.out or args.history / "history"
    with _writing(out, "report", ()):
        built = write_history(args.history, out, read_policy("default"))
    return of_built(built)
