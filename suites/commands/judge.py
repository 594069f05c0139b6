"""``judge BUNDLE DUMP``: which stage of a port is wrong first, by what it dumped and a bundle."""

from __future__ import annotations

import argparse
import json
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from rvc_common.outputs import OutputError, check_folder, named_path

from ..base import environment
from ..base.errors import UserError, nearest
from ..base.files import write_whole
from ..base.outcome import Answer
from ..base.records import RecordFile, records_file
from ..base.run_folder import CONFIG, ENVIRONMENT, own_folder
from ..bundle.dump import read_dump
from ..bundle.judge import Judge
from ..bundle.stored import Folder
from ..bundle.verdict import Verdict, verdict

HELP = "which stage of a port in any language is wrong first"
EXAMPLES = (
    ("judge bundles/rmvpe dump", "a folder of .npy, .safetensors or raw files named like the bundle's values"),
    ("judge bundles/voice dump.safetensors --probe batch --out judged", "one file, of another probe than the first"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=named_path, metavar="BUNDLE", help="a folder that the command bundle wrote")
    parser.add_argument("dump", type=named_path, metavar="DUMP", help="a folder of arrays, or one file of them")
    parser.add_argument("--probe", metavar="NAME", help="that names without one belong to (default: the first)")
    parser.add_argument(
        "--out", type=named_path, metavar="FOLDER", help="of the report (default: one named by time, in runs)"
    )
    parser.add_argument("--all", action="store_true", dest="show_all", help="print every value")


def run(args: argparse.Namespace) -> Answer:
    check_out(args.out)
    folder = Folder(args.bundle)
    about = folder.about
    first = about.probes[0].name
    if args.probe is not None:
        found = folder.probe(args.probe)
        if found is None:
            raise UserError(
                f"the bundle has no probe {args.probe!r}{nearest(args.probe, [p.name for p in about.probes])}"
            )
        first = found.name
    words = [str(args.bundle), str(args.dump), *(["--probe", args.probe] if args.probe else [])]
    command = shlex.join(["python", "-m", "suites", "judge", *words])
    return judged(folder, args.dump, first, args.out, command, show_all=args.show_all)


def check_out(out: Path | None) -> None:
    """Raises ``OutputError``: the folder cannot be written, or holds something."""
    if out:
        check_folder(out)
        if out.is_dir() and any(out.iterdir()):
            raise OutputError(out, "the folder is not empty; name a new one")


def judged(
    folder: Folder,
    dumped: Path,
    first: str,
    out: Path | None,
    command: str,
    kind: str = "judge",
    show_all: bool = False,
) -> Answer:
    """The verdict on a dump, and its report. ``first``: the probe that names without one belong to.

    Raises ``UserError``: nothing can be read, or it was made for another bundle."""
    from reports.data import trace as traces
    from reports.documents import trace_report

    about = folder.about
    dump = read_dump(dumped, [name for one in about.probes for name in (one.name, one.folder)], first)
    if other := next((one for one in dump.ids if one != about.id), None):
        raise UserError(f"{dumped}: made for the bundle {other}, and {folder.path} is {about.id}")
    judge = Judge(folder, dump)
    found = list(judge.probes())
    result = verdict(judge, found)
    rows = [row for one in found for row in judge.rows(one)]
    facts: dict[str, Any] = {"bundle": about.id, "verdict": result.sentence.replace("`", ""), "stage": result.stage}
    facts |= {"between": result.between, "notes": result.notes, "values": len(rows), "report": None}
    text = "\n".join(line.replace("`", "") for line in (*result.notes, result.sentence))
    if not rows:
        return Answer(result.exit_code, text, facts)
    out = out or own_folder(Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{kind}-{about.model}")
    out.mkdir(parents=True, exist_ok=True)
    _write(out, command, folder, result)
    records = RecordFile(records_file(out))
    for row in rows:
        records.write_line(row)
    records.close()
    path, trace = trace_report.write_report(out)
    text = f"{traces.terminal(trace, show_all)}\nreport: {path}"
    return Answer(result.exit_code, text, facts | {"report": str(path)}, f"{facts['verdict']} report: {path}")


def _write(out: Path, command: str, folder: Folder, result: Verdict) -> None:
    """What a trace's folder has beside its records."""
    about = folder.about
    config = {"suite": {"name": about.model}, "precision": about.precision, "profile": about.profile, "overrides": []}
    write_whole(out / CONFIG, yaml.safe_dump(config, sort_keys=False))
    told = {"verdict": result.sentence, "exit_code": result.exit_code, "notes": result.notes}
    told |= {"command": command, "bundle": about.id}
    facts = environment.describe() | {
        "weights": {one.name: {"label": one.label, "sha256": one.sha256} for one in about.weights},
        "audio": about.audio,
        "judged": told,
    }
    write_whole(out / ENVIRONMENT, json.dumps(facts, indent=1) + "\n")
