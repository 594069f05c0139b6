"""The texts of ``list`` and ``plan``."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from rvc_mlx.optimize import OPTIMIZATIONS

from ..base.backends import BACKENDS, impossible
from ..base.paths import CONF
from ..definitions import SUITES
from ..definitions.plan import make_plan, requested_backends
from ..measure.config import Config, measure_names, suite_names


def _conf(kind: str, name: str) -> dict[str, object]:
    return yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())


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
    lines += [f"  {name:18} {it.summary}" for name, it in OPTIMIZATIONS.items()]
    return "\n".join(lines)


def planned(config: Config) -> str:
    """The cases and backends of a run, as far as can be told without starting a framework."""
    names, asked = requested_backends(config)
    reasons = {name: impossible(name) for name in names}
    present = [name for name in names if reasons[name] is None]
    plan, suite = make_plan(config, present), SUITES[config["suite"]["name"]]
    components = suite.components(plan.components, {"has_f0": True})
    absent = {(c, b) for c in components for b in present if suite.impossible(c, b)}
    beside = suite.beside(config["suite"])
    installed = tuple(name for name, reason in beside.items() if reason is None)
    plan = plan._replace(components=components, absent=frozenset(absent), beside=installed)
    lines = [
        f"suite {plan.suite}: {config['suite']['summary']}",
        f"measure {config['measure']['name']}, precision {config['precision']}",
    ]
    lines.append("cases")
    lines += [f"  {case.name:18} {case.path or case.kind}" for case in plan.cases]
    lines.append("components")
    lines += [f"  {name:18} {words}" for name, words in config["suite"]["components"].items()]
    lines.append("backends" if asked else "backends (those without a device here are skipped)")
    lines += [f"  {name:18} {reason or 'installed'}" for name, reason in reasons.items()]
    lines += ["beside them"] if beside else []
    lines += [f"  {name:18} {reason or 'installed'}" for name, reason in beside.items()]
    rounds, launches = config["measure"]["rounds"], config["measure"]["launches"]
    each = f"{_span(launches)} process launches of {_span(rounds)} rounds" if suite.protocol in TIMED else "one figure"
    lines.append(f"{len(list(plan.expected()))} records, {each} each")
    return "\n".join(lines)


TIMED = ("timed", "ablation")


def _span(limits: Mapping[str, int]) -> str:
    return str(limits["min"]) if limits["min"] == limits["max"] else f"{limits['min']} to {limits['max']}"
