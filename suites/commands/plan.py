"""``plan SUITE``: what a run would measure here, without starting a framework."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..base.backends import impossible
from ..base.outcome import PASSED, Answer
from ..definitions import SUITES
from ..definitions.config import Config, Launches, Span
from ..definitions.plan import Plan, make_plan, requested_backends
from ..measure import estimate
from ..measure.config import compose_config
from . import OVERRIDES

HELP = "what a suite would run here, without running it"
EXAMPLES = (
    ("plan rmvpe", "cases, components, backends, and about how long"),
    ("plan pipeline measure=full 'backends=[torch_cpu,mlx_cpu]'", "of another measure, on chosen backends"),
)
# protocols whose records hold several launches and rounds
REPEATED = ("timed", "ablation", "precision")


class Planned(NamedTuple):
    """What a run would measure; ``backends``, ``external``: why each is left out, None: it is not."""

    config: Config
    plan: Plan
    backends: Mapping[str, str | None]
    external: Mapping[str, str | None]

    @property
    def records(self) -> int:
        return len(list(self.plan.expected()))

    @property
    def expected_s(self) -> float:
        return estimate.expected_s(self.config, self.plan, SUITES[self.config.suite.name].protocol)

    @property
    def time(self) -> str:
        return f"about {estimate.text(self.expected_s)}" if self.records else "nothing to measure here"


def planned(config: Config, backends: Mapping[str, str | None], external: Mapping[str, str | None] = {}) -> Planned:
    """``external``: why estimators cannot be used, where more is known than whether they are installed."""
    suite = SUITES[config.suite.name]
    present = [name for name, reason in backends.items() if reason is None]
    own = suite.external(config.settings(None))
    own |= {name: external[name] for name in own if name in external}
    plan, _ = suite.fitted(make_plan(config, present), {"has_f0": True}, own)
    return Planned(config, plan, backends, own)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", metavar="SUITE", help="a suite's name; plan SUITE -h lists what can be set")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=OVERRIDES)


def run(args: argparse.Namespace) -> Answer:
    config = compose_config(args.suite, args.overrides)
    names, _ = requested_backends(config)
    found = planned(config, {name: impossible(name) for name in names})
    measure = config.measure
    data: dict[str, Any] = {
        "suite": config.suite.name,
        "measure": measure.name,
        "precision": config.precision,
        "cases": [case._asdict() for case in found.plan.cases],
        "components": list(found.plan.components),
        "backends": dict(found.backends),
        "external": dict(found.external),
        "records": found.records,
        "expected_s": round(found.expected_s),
    }
    return Answer(PASSED, text(found), data)


def text(found: Planned) -> str:
    config, plan, suite = found.config, found.plan, SUITES[found.config.suite.name]
    lines = [
        f"suite {plan.suite}: {config.suite.summary}",
        f"measure {config.measure.name}, precision {config.precision}",
    ]
    lines.append("cases")
    lines += [f"  {case.name:18} {case.path or case.kind}" for case in plan.cases]
    lines.append("components")
    lines += [f"  {name:18} {words}" for name, words in config.suite.components.items()]
    asked = requested_backends(config)[1]
    lines.append("backends" if asked else "backends (those without a device here are skipped)")
    lines += [f"  {name:18} {reason or 'installed'}" for name, reason in found.backends.items()]
    lines += ["external estimators"] if found.external else []
    lines += [f"  {name:18} {reason or 'installed'}" for name, reason in found.external.items()]
    rounds, launches = config.measure.rounds, config.measure.launches
    each = (
        f"{_span(launches)} process launches of {_span(rounds)} rounds" if suite.protocol in REPEATED else "one figure"
    )
    lines.append(f"{found.records} records, {each} each; {found.time}")
    return "\n".join(lines)


def _span(limits: Span | Launches) -> str:
    return str(limits.min) if limits.min == limits.max else f"{limits.min} to {limits.max}"
