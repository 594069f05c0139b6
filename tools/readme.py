"""Writes the results of the published runs into README, between two comments: ``python -m tools.readme``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from reports.data.frame import Book, RunData, load_book
from reports.render.document import Cell, Code, counted, plain, say
from reports.render.markdown import text
from reports.tables import cells, parity, phases
from reports.tables.cells import is_faster, is_slower
from reports.tables.summary import sweep
from suites.base.environment import cpu_text
from suites.base.files import write_whole

ROOT = Path(__file__).parents[1]
PUBLISHED = sorted(path.parent for path in (ROOT / "reports" / "benchmarks").glob("*/BENCHMARKS.md"))
BLOCK = re.compile(r"(<!-- results: .*? -->\n)(.*)(<!-- end of results -->)", re.DOTALL)
HEADER = (
    "suite", "audio s", "PyTorch ms", "MLX ms", "speed-up", "slower in", "faster in", "of the limit", "memory",
)  # fmt: skip


def results() -> str:
    return "".join(_of_machine(load_book([folder]), folder) for folder in PUBLISHED)


def _of_machine(book: Book, folder: Path) -> str:
    """A heading, a table with a row per suite, and on which cases whole calls are slower or faster."""
    rows = [(run, backend) for run in book.having("time") for backend in run.backends if _is_compared(run, backend)]
    run, backend = rows[0]
    link = f"[{_machine(run)}]({folder.relative_to(ROOT).as_posix()}/BENCHMARKS.md)"
    passed, measured = (sum(one.counts[i] for one in book.runs) for i in range(2))
    words = "**{}**: {} against {}, {}; {} of {} records passed. Whole calls in MLX are {}"
    names = (Code(backend), Code(str(run.speed_reference(backend))), run.precision)
    head = text(say(words, link, *names, str(passed), str(measured), _whole_calls(rows)))
    lines = ["| " + " | ".join(HEADER) + " |", "|---|" + "---:|" * (len(HEADER) - 1)]
    lines += ["| " + " | ".join(map(text, _row(book, *row))) + " |" for row in rows]
    return "\n".join(["", head, "", *lines, ""])


def _machine(run: RunData) -> str:
    """The GPU's name, or the processor's and its cores."""
    facts = run.environment
    gpus = {about["gpu_name"] for about in facts["backends"].values() if about.get("gpu_name")}
    return ", ".join(sorted(gpus)) or text(
        say("{}, {}", str(cpu_text(facts)), counted(facts["cores_physical"], "core", ()))
    )


def _is_compared(run: RunData, backend: str) -> bool:
    return run.suite.whole is not None and run.speed_reference(backend) is not None


def _whole_calls(rows: Sequence[tuple[RunData, str]]) -> str:
    found: dict[str, list[str]] = {"slower": [], "faster": [], "neither": []}
    for run, backend in rows:
        cases: dict[str, list[str]] = {}
        for case in run.cases:
            gain = run.speedup(case, run.suite.whole or "", backend)
            if gain is not None:
                word = "slower" if is_slower(gain) else "faster" if is_faster(gain) else "neither"
                label = f"{run.duration_s(case):g} s" if case.startswith("synthetic") else case
                cases.setdefault(word, []).append(label)
        for word, labels in cases.items():
            found[word].append(f"{run.name} ({', '.join(labels)})")
    return "; ".join(f"{word} in {', '.join(names) or 'no case'}" for word, names in found.items()) + "."


def _row(book: Book, run: RunData, backend: str) -> Iterator[Cell]:
    case, whole, reference = sweep(run)[-1], run.suite.whole or "", str(run.speed_reference(backend))
    yield run.name
    yield cells.seconds_of(run, case)
    for name in (reference, backend):
        time = run.time(case, whole, name)
        yield "" if time is None else plain(1e3 * time.value, ())
    yield cells.gain_number(run, case, whole, backend)
    gains = [gain for c in run.cases for part in run.components if (gain := run.speedup(c, part, backend))]
    for test in (is_slower, is_faster):
        yield say("{} of {}", plain(sum(map(test, gains)), ()), plain(len(gains), ()))
    closest = parity.closest(line for line in parity.compared(run) if line["backend"] == backend)
    yield "" if closest is None else plain(100 * closest[0], (), ".0f", unit=" %")
    yield _memory(book, run.name, backend)


def _memory(book: Book, model: str, backend: str) -> Cell:
    """The peak of a call over PyTorch's, on the longest case of the suite ``memory``."""
    for run in book.having("memory"):
        line = run.find(sweep(run)[-1], model, backend)
        if line is not None:
            return phases.against(run, line)
    return ""


def filled(readme: str) -> str:
    """README with the results in their place. Raises ``ValueError``: it has no place for them, or several."""
    made, count = BLOCK.subn(lambda found: f"{found[1]}{results()}\n{found[3]}", readme)
    if count != 1:
        raise ValueError("README.md: needs one place for the results, between two comments")
    return made


if __name__ == "__main__":
    path = ROOT / "README.md"
    write_whole(path, filled(path.read_text("utf-8")))
