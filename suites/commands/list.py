"""``list``: suites, measures, backends and optimisations."""

from __future__ import annotations

import argparse

import yaml

from rvc_mlx.optimize import OPTIMIZATIONS

from ..base import plugins
from ..base.backends import BACKENDS, impossible
from ..base.outcome import PASSED
from ..measure.config import measure_names, suite_names

HELP = "suites, measures, backends and optimisations"


def run(args: argparse.Namespace) -> int:
    print(text())
    return PASSED


def text() -> str:
    lines = ["suites"]
    lines += [f"  {name:18} {_conf('suite', name)['summary']}" for name in suite_names()]
    lines.append("measures (measure=NAME; a suite may change them: see `plan SUITE`)")
    for name in measure_names():
        conf = _conf("measure", name)
        lines.append(f"  {name:18} durations {conf['durations']} s, rounds {conf['rounds']}")
    lines.append("backends (backends=[...])")
    lines += [f"  {name:18} {impossible(name) or 'installed'}" for name in BACKENDS]
    lines.append("optimisations of rvc_mlx (optimize=[...])")
    lines += [f"  {name:18} {it.summary}" for name, it in OPTIMIZATIONS.items()]
    return "\n".join(lines)


def _conf(kind: str, name: str) -> dict[str, object]:
    return yaml.safe_load(plugins.conf_files(kind)[name].read_text())
