"""The texts of ``list`` and ``plan``."""

from __future__ import annotations

import ast
import functools
from typing import Any

import yaml

from .backends import BACKENDS, impossible
from .config import CONF, ROOT, Config, measure_names, suite_names
from .plan import make_plan, requested_backends


def _conf(kind: str, name: str) -> dict[str, object]:
    return yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())


@functools.cache
def optimisations() -> dict[str, dict[str, Any]]:
    """Names with summary, models, cpu and gpu, read from the source: importing them would need MLX."""
    tree = ast.parse((ROOT / "rvc_mlx" / "optimize.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "OPTIMIZATIONS":
            assert isinstance(node.value, ast.Dict)
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {ast.literal_eval(k): _described(v) for k, v in pairs if k and isinstance(v, ast.Call)}
    return {}


def _described(call: ast.Call) -> dict[str, Any]:
    named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    return {"summary": ast.literal_eval(call.args[0]), **named}


def everything() -> str:
    lines = ["suites"]
    lines += [f"  {name:18} {_conf('suite', name)['summary']}" for name in suite_names()]
    lines.append("measures (measure=NAME; a suite may change them: see `plan SUITE`)")
    for name in measure_names():
        told = _conf("measure", name)
        lines.append(f"  {name:18} durations {told['durations']} s, rounds {told['rounds']}")
    lines.append("backends (backends=[...])")
    lines += [f"  {name:18} {impossible(name) or 'installed'}" for name in BACKENDS]
    lines.append("optimisations of rvc_mlx (optimize=[...])")
    lines += [f"  {name:18} {it['summary']}" for name, it in optimisations().items()]
    return "\n".join(lines)


def planned(config: Config) -> str:
    """The cases and backends of a run, as far as can be told without starting a framework."""
    names, asked = requested_backends(config)
    reasons = {name: impossible(name) for name in names}
    present = [name for name in names if reasons[name] is None]
    plan = make_plan(config, present)
    lines = [
        f"suite {plan.suite}: {config['suite']['summary']}",
        f"measure {config['measure']['name']}, precision {config['precision']}",
    ]
    lines.append("cases")
    lines += [f"  {case.name:18} {case.path or case.kind}" for case in plan.cases]
    lines.append("components")
    lines += [f"  {name:18} {config['suite']['components'][name]}" for name in plan.components]
    lines.append("backends" if asked else "backends (those without a device here are skipped)")
    lines += [f"  {name:18} {reason or 'installed'}" for name, reason in reasons.items()]
    rounds = config["measure"]["rounds"]
    lines.append(f"{len(list(plan.expected()))} records, {rounds['min']} to {rounds['max']} rounds each")
    return "\n".join(lines)
