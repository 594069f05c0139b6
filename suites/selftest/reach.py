"""``selftest reach``: which branches of ``rvc_mlx`` the probes of the traces take; each other one has a sentence."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ..base.errors import UserError
from ..base.files import scratch_folder
from ..base.outcome import FAILED, PASSED, Answer
from ..base.paths import ROOT
from ..base.words import options
from ..inputs.weights import ODD_RATES
from ..measure.config import compose_config
from ..measure.launch import Worker
from ..trace.run import TraceRun
from .unreached import WHY

PACKAGE = ROOT / "rvc_mlx"
BACKEND = "mlx_cpu"
# the default traces, and what only another profile, voice or content model has, or a GPU
TRACES = (
    ("rmvpe", ()),
    ("rmvpe", ("profile=webui", "optimize=[fold_norm,polyphase,tile]")),
    ("hubert", ()),
    ("hubert", ("suite.version=v1",)),
    ("synthesizer", ()),
    ("synthesizer", ("suite.voice=synth_v2_32k_f0_mrf",)),
    ("synthesizer", ("suite.voice=synth_v2_24k_f0_refinegan",)),
    ("synthesizer", ("suite.voice=synth_v2_48k_nof0",)),
    ("synthesizer", (f"suite.voice={ODD_RATES}",)),
    ("pipeline", ()),
    ("pipeline", ("profile=webui",)),
)


class Branch(NamedTuple):
    """A way out of a line that was never taken; of a function that was never called, its first line."""

    function: str  # with its module: gru.BiGRU.__call__
    line: str  # the line's text; empty of a function that was never called
    place: str  # file and line number

    @property
    def key(self) -> str:
        return f"{self.function}: {self.line}" if self.line else self.function

    @property
    def why(self) -> str | None:
        """The sentence on this branch, or on the function or module that it is in."""
        parts = self.function.split(".")
        outer = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        return next((WHY[key] for key in (self.key, *outer) if key in WHY), None)


def reach(words: Sequence[str]) -> Answer:
    """Passed where every branch is taken or has a sentence; ``words``: none."""
    options(words, {})
    if importlib.util.find_spec("coverage") is None:
        raise UserError("selftest reach needs the package coverage: pip install -e '.[dev]'")
    with scratch_folder() as folder:
        count, missed = missed_branches(_measured(folder))
    bare = [branch for branch in missed if branch.why is None]
    stale = sorted(set(WHY) - {key for branch in missed for key in _keys(branch)})
    lines = [f"{count - len(missed)} of {count} branches of {PACKAGE.name} are taken by the probes of the traces."]
    lines += ["", f"Not taken, and why that cannot matter to a trace ({len(missed) - len(bare)}):"]
    lines += [f"- {b.place} {b.key}: {b.why}" for b in missed if b.why]
    lines += ["", f"Not taken, and without a reason in {Path(__file__).parent.name}/unreached.py ({len(bare)}):"]
    lines += [f"- {b.place} {b.key}" for b in bare]
    lines += [f"- {key}: has a reason, and is taken here or is no longer there" for key in stale]
    code = FAILED if bare else PASSED
    line = f"{('passed', 'failed')[code]}: {lines[0].removesuffix('.')}; {len(bare)} without a reason"
    found = {"branches": count, "missed": [b._asdict() | {"why": b.why} for b in missed], "stale": stale}
    return Answer(code, "\n".join(lines), found, line)


def _keys(branch: Branch) -> list[str]:
    parts = branch.function.split(".")
    return [branch.key, *(".".join(parts[:count]) for count in range(1, len(parts) + 1))]


# ---------------------------------------------------------------------- running
def _measured(folder: Path) -> Mapping[str, Any]:
    """coverage.py's report on the package, of one worker that walks and calls every model on every probe."""
    import coverage

    data = folder / "coverage"
    with Worker(BACKEND, "fp32", 1, folder / "log") as worker:
        worker.ask("cover", 60, file=str(data), source=str(PACKAGE))
        for suite, overrides in tqdm(TRACES, desc="traces", disable=None):
            _walk_all(TraceRun(compose_config(suite, ["measure=smoke", *overrides])), worker)
        worker.ask("cover", 60, file=None)
    found = coverage.Coverage(data_file=str(data), branch=True, config_file=False, messages=False)
    found.load()
    found.json_report(outfile=str(folder / "report.json"))
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())["files"]
    return report


def _walk_all(run: TraceRun, worker: Worker) -> None:
    """What a trace does with the side that is compared, without another one."""
    run.reference = run.other = BACKEND
    run.workers = {BACKEND: worker}
    run._load_all()
    for plain in (False, True) if run.trace_options.plain else (False,):
        if plain:
            run.load_other("none")
        for probe in run.probes(run.seconds(plain)):
            if probe.plain or not plain:
                run.only_walk(probe)


# ---------------------------------------------------------------------- judging
def missed_branches(report: Mapping[str, Any], package: Path = PACKAGE) -> tuple[int, list[Branch]]:
    """How many branches the package has, and those that were not taken; a function counts as one branch more."""
    count, missed = 0, []
    for file in sorted(package.glob("*.py")):
        found = next(
            v for path, v in report.items() if Path(path).name == file.name and Path(path).parent.name == package.name
        )
        functions = list(_functions(ast.parse(file.read_text()), file.stem))
        text = file.read_text().splitlines()
        executed = set(found["executed_lines"])
        called = [bool(executed & set(range(body, last + 1))) for _, _, body, last in functions]
        count += found["summary"]["num_branches"] + len(functions)
        for (name, first, _, _), was_called in zip(functions, called, strict=True):
            if not was_called:
                missed.append(Branch(name, "", f"{file.name}:{first}"))
        for line in dict.fromkeys(abs(origin) for origin, _ in found["missing_branches"]):
            inside = [(f, c) for f, c in zip(functions, called, strict=True) if f[1] <= line <= f[3]]
            (name, *_), was_called = max(inside, key=lambda one: one[0][1]) if inside else ((file.stem, 0, 0, 0), True)
            if was_called:
                missed.append(Branch(name, text[line - 1].strip(), f"{file.name}:{line}"))
    return count, missed


def _functions(node: ast.AST, name: str) -> Iterator[tuple[str, int, int, int]]:
    """Functions with their names, and the lines of their ``def``, of their first statement and of their last."""
    for child in ast.iter_child_nodes(node):
        inner = f"{name}.{child.name}" if isinstance(child, ast.FunctionDef | ast.ClassDef) else name
        if isinstance(child, ast.FunctionDef):
            body = child.body[1:] if ast.get_docstring(child) and len(child.body) > 1 else child.body
            yield inner, child.lineno, body[0].lineno, child.end_lineno or child.lineno
        yield from _functions(child, inner)
