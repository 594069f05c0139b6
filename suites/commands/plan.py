"""``plan SUITE``: what a run would measure here, without starting a framework."""

from __future__ import annotations

import argparse

from ..base.backends import impossible
from ..base.outcome import PASSED
from ..definitions import SUITES
from ..definitions.config import Config, Launches, Span
from ..definitions.plan import make_plan, requested_backends
from ..measure.config import compose_config
from . import OVERRIDES

HELP = "what a suite would run here, without running it"
# protocols whose records hold several launches and rounds
REPEATED = ("timed", "ablation")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", metavar="SUITE")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=OVERRIDES)


def run(args: argparse.Namespace) -> int:
    print(text(compose_config(args.suite, args.overrides)))
    return PASSED


def text(config: Config) -> str:
    names, asked = requested_backends(config)
    reasons = {name: impossible(name) for name in names}
    present = [name for name in names if reasons[name] is None]
    plan, suite = make_plan(config, present), SUITES[config.suite.name]
    external = suite.external(config.settings(None))
    plan, _ = suite.fitted(plan, {"has_f0": True}, external)
    lines = [
        f"suite {plan.suite}: {config.suite.summary}",
        f"measure {config.measure.name}, precision {config.precision}",
    ]
    lines.append("cases")
    lines += [f"  {case.name:18} {case.path or case.kind}" for case in plan.cases]
    lines.append("components")
    lines += [f"  {name:18} {words}" for name, words in config.suite.components.items()]
    lines.append("backends" if asked else "backends (those without a device here are skipped)")
    lines += [f"  {name:18} {reason or 'installed'}" for name, reason in reasons.items()]
    lines += ["external estimators"] if external else []
    lines += [f"  {name:18} {reason or 'installed'}" for name, reason in external.items()]
    rounds, launches = config.measure.rounds, config.measure.launches
    each = (
        f"{_span(launches)} process launches of {_span(rounds)} rounds" if suite.protocol in REPEATED else "one figure"
    )
    lines.append(f"{len(list(plan.expected()))} records, {each} each")
    return "\n".join(lines)


def _span(limits: Span | Launches) -> str:
    return str(limits.min) if limits.min == limits.max else f"{limits.min} to {limits.max}"
