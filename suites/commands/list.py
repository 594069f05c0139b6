"""``list``: what this machine can run, found out by trying."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rvc_mlx.optimize import OPTIMIZATIONS

from ..base import plugins
from ..base.files import read_yaml
from ..base.outcome import PASSED, Answer
from ..inputs.estimators import ESTIMATORS
from ..inputs.weights import cache_folder
from ..measure import probe
from ..measure.config import compose_config, measure_names, suite_names
from .plan import Planned, planned

HELP = "what this machine can run: suites, backends, estimators, weights; and what can be chosen"
EXAMPLES = (
    ("list", "every backend is tried, in a process of its own"),
    ("list --json", "the same for a script"),
)
# a framework that takes longer than this to start is told as such
TIMEOUT_S = 20.0


def run(args: argparse.Namespace) -> Answer:
    backends = {name: facts["reason"] for name, facts in probe.backends(1, TIMEOUT_S).items()}
    external = probe.estimators(TIMEOUT_S)
    suites = {name: planned(compose_config(name, []), backends, external) for name in suite_names()}
    measures = {name: _conf("measure", name) for name in measure_names()}
    cache = cache_folder(compose_config("rmvpe", []).paths.cache)
    weights = {str(path.relative_to(cache)): path.stat().st_size for path in sorted(cache.rglob("*.safetensors"))}
    found: dict[str, Any] = {
        "suites": {name: _suite(one) for name, one in suites.items()},
        "measures": measures,
        "backends": backends,
        "estimators": external,
        "optimisations": {name: one.summary for name, one in OPTIMIZATIONS.items()},
        "weights": {"folder": str(cache), "bytes": weights},
    }
    return Answer(PASSED, text(suites, measures, backends, external, weights, cache), found, _line(backends, suites))


def _suite(one: Planned) -> dict[str, Any]:
    facts = {"cases": len(one.plan.cases), "records": one.records, "expected_s": round(one.expected_s)}
    return {"summary": one.config.suite.summary, **facts}


def _line(backends: Mapping[str, str | None], suites: Mapping[str, Planned]) -> str:
    ready = [name for name, reason in backends.items() if reason is None]
    return f"ready: {', '.join(ready) or 'no backend'}; {len(suites)} suites"


def text(
    suites: Mapping[str, Planned],
    measures: Mapping[str, Mapping[str, Any]],
    backends: Mapping[str, str | None],
    external: Mapping[str, str | None],
    weights: Mapping[str, int],
    cache: Path,
) -> str:
    rows: list[Sequence[str]] = [("suites (run SUITE)", "cases", "records here", "time", "")]
    for name, one in suites.items():
        rows.append((f"  {name}", str(len(one.plan.cases)), str(one.records), one.time, one.config.suite.summary))
    lines = _aligned(rows)
    lines += ["measures (measure=NAME; a suite may change them: see plan SUITE; the counts above are of quick)"]
    for name, measure in measures.items():
        lines.append(f"  {name:16} durations {measure['durations']} s, a {measure['model']} model")
    lines += ["backends (backends=[...])", *_ready(backends)]
    titles = {f"{name}: {ESTIMATORS[name].title}": reason for name, reason in external.items()}
    lines += ["external estimators (suite accuracy, suite.estimators=[...])", *_ready(titles)]
    lines += ["optimisations of rvc_mlx (optimize=[...])"]
    lines += [f"  {name:16} {one.summary}" for name, one in OPTIMIZATIONS.items()]
    lines += [f"weights cached in {cache}" + ("" if weights else ": none; a run makes what it needs")]
    # tiny ones are many, and made in a moment
    full = {name: size for name, size in weights.items() if "-tiny-" not in name}
    lines += _aligned([(f"  {name}", f"{size / 2**20:.0f} MiB") for name, size in full.items()])
    if tiny := [size for name, size in weights.items() if name not in full]:
        lines.append(f"  and {len(tiny)} of tiny models, {sum(tiny) / 2**20:.0f} MiB")
    return "\n".join(lines)


def _ready(reasons: Mapping[str, str | None]) -> list[str]:
    return _aligned([(f"  {name}", "ready" if why is None else f"not here: {why}") for name, why in reasons.items()])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _conf(kind: str, name: str) -> dict[str, Any]:
    return dict(read_yaml(plugins.conf_files(kind)[name]))
