"""A run folder's records to report.md, report.html and plots. The same records, the same bytes."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from suites.floors import to_error
from suites.record import number

from . import tables
from .frame import RunData, load
from .plots import draw_all

HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; --line: #8884; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }}
body {{ overflow-wrap: anywhere; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }}
th, td {{ padding: .25rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }}
img {{ max-width: 100%; background: white; }}
code {{ background: #8882; padding: .1em .3em; }} pre {{ overflow-x: auto; }}
</style></head><body>
{body}
</body></html>
"""


VERDICTS = {
    0: "**Passed**: every planned case was measured, and what was compared lies within its limits.",
    1: "**Failed**: a limit was exceeded; see *Not measured, and failures*.",
    2: "**Incomplete**: not everything planned could be measured; see *Not measured, and failures*.",
}

WORDS = {
    "time": (
        "{what}, steady state. The realtime factor is processing time over audio time (smaller is faster). The "
        "speed-up is PyTorch's time over MLX's on the same device, paired by round (above 1: MLX is faster)."
    ),
    "components": (
        "Each component is given the same input on every backend, host to host. The whole call (`{whole}`) keeps its "
        "intermediate values on the device, so the parts may add up to more than the whole."
    ),
    "precision": (
        "{goal}*Known to* is half of the speed-up's interval. *Smallest change seen*: what two runs like this one "
        "would tell apart in 80 % of cases (one comparison, one-sided, 5 %). *Settled*: launches in which the warm-up "
        "ended because calls had stopped becoming faster, and not for lack of time."
    ),
    "parts": (
        "The parts of the very calls timed above: each part ends when its result is on the host. In every round they "
        "must add up to the whole (`{whole}`) within {tolerance:g} %; the furthest off was {worst}."
    ),
    "memory": (
        "By the operating system and by the framework, each in a fresh process per case and backend. PyTorch keeps no "
        "count of its own on the CPU; only Linux can tell the call's peak from the load's."
    ),
    "first": (
        "In the same fresh processes. *Start* is the interpreter's and the harness's own start; *import* the "
        "framework's; the *new shape* is an input of another length, twice."
    ),
    "growth": (
        "Many lengths in one process, the longest one first: what comes after it needs nothing that is not there. "
        "*Added* is the resident memory after the last five over that after the first; *framework*: the same of what "
        "it holds by its own count, in use and kept for later. `rvc_mlx` is judged; the reference is shown."
    ),
    "ablation": (
        "Two processes of one backend in turns, with and without one optimisation. *Gain*: time without over time with "
        "(above 1: it pays), paired by round. *Superseded*: another one does its work on this device. *Max abs*, "
        "*relative*: how far it moves the result, the latter as root mean square over that of the result. `all`: "
        "everything against nothing. `blas`: the fast BLAS against MLX's own."
    ),
    "floor": (
        "*Floor* is the reference's own rounding error on this input, found by computing it in float64 as well; where "
        "three times that exceeds the limit, it is the limit. Of SNR and correlation more is better, of all "
        "other figures less."
    ),
    "records": "Every figure above is computed from `records.jsonl` beside this file.",
}


class Built(NamedTuple):
    path: Path
    notes: list[str]
    exit_code: int


def write_report(folder: Path) -> Built:
    """Write the report into the run folder.

    Raises:
        UserError: not a run folder.
    """
    data = load(folder)
    plots = draw_all(data, folder / "plots")
    text = compose(data, {name: f"plots/{path.name}" for name, path in plots.items()})
    path = folder / "report.md"
    path.write_text(text)
    (folder / "report.html").write_text(_html(text, folder))
    return Built(path, _notes(data), data.outcome.exit_code)


def compose(data: RunData, plots: dict[str, str]) -> str:
    """The whole report as markdown; ``plots`` maps names to relative paths."""
    parts = [f"# {data.config['suite']['summary']}", _summary(data)]

    def section(title: str, *content: str) -> None:
        parts.extend([f"## {title}", *(c for c in content if c)])

    def picture(name: str, alt: str) -> str:
        return f"![{alt}]({plots[name]})" if name in plots else ""

    if data.cases:
        if data.suite.protocol == "timed":
            _time_sections(data, section, picture)
        if data.suite.protocol == "ablation":
            section(
                "Optimisations", WORDS["ablation"], tables.ablation(data), picture("ablation", "gain by optimisation")
            )
        if any(record.get("cold") for record in data.records):
            section("Memory", WORDS["memory"], tables.memory(data), picture("memory", "peak memory against duration"))
            if data.suite.protocol != "memory":
                phases = picture("first", "first run in its phases")
                section("First run", _about_first(data), tables.cold_start(data), phases)
        if tables.GROWTH in data.cases:
            section("Growth", WORDS["growth"], tables.growth(data), picture("growth", "memory over many lengths"))
    if data.cases and data.suite.protocol == "timed":
        about = f"{data.suite.about_parity} {WORDS['floor']}"
        section("Parity", about, tables.parity(data), tables.parity_details(data))
        contours = [picture(f"f0-{case}", f"F0 of all backends on {case}") for case in data.cases]
        if any(contours):
            section("F0 contours", *contours)
        if (data.folder / "audio").is_dir():
            section("To listen to", tables.sounds(data))
    section("Not measured, and failures", _problems(data))
    if data.environment:
        section("Environment", tables.environment(data))
    section(
        "Reproduce",
        f"```\n{command(data)}\n```",
        "Every figure above is computed from `records.jsonl` beside this file.",
    )
    return "\n\n".join(parts) + "\n"


def _time_sections(data: RunData, section: Callable[..., None], picture: Callable[[str, str], str]) -> None:
    speedups = picture("speedup", "speed-up per case and component, with intervals")
    about = WORDS["time"].format(what=data.suite.about_time)
    if data.suite.whole is not None:
        section("Time of the whole call", about, tables.latency(data, data.suite.whole), speedups)
    section(
        "Components",
        about if data.suite.whole is None else "",
        _about_components(data),
        *_components(data),
        "" if data.suite.whole is not None else speedups,
        picture("time", "time against duration, log axes"),
    )
    if any(record.get("warmup") for record in data.records):
        section("Precision of the times", WORDS["precision"].format(goal=_goal(data)), tables.precision(data))


def _goal(data: RunData) -> str:
    goal = data.config["measure"].get("goal")
    return f"Asked for: {100 * goal:g} %. " if goal else ""


def _components(data: RunData) -> list[str]:
    words = data.config["suite"]["components"]
    parts = [
        f"**{name}** – {words[name]}\n\n{tables.latency(data, name)}"
        for name in data.components
        if name != data.suite.whole
    ]
    return [*parts, "Medians side by side:", tables.breakdown(data)]


def _about_first(data: RunData) -> str:
    return WORDS["first"] if data.suite.protocol == "cold_start" else "In the same fresh processes."


def _about_components(data: RunData) -> str:
    whole = data.suite.whole
    if whole is None:
        return data.suite.about_components
    pairs = [pair for c in data.cases for b in data.backends for pair in data.parts_over_whole(c, b)]
    if not pairs:
        return WORDS["components"].format(whole=whole)
    worst = max((s / w - 1 for s, w in pairs), key=abs)
    tolerance = 100 * data.config["suite"]["parts_tolerance"]
    return WORDS["parts"].format(whole=whole, tolerance=tolerance, worst=f"{100 * abs(worst):.3f} %")


def _summary(data: RunData) -> str:
    config = data.config
    settings = (f"{name} `{config[name]}`" for name in ("precision", "profile"))
    ran = f"Suite `{config['suite']['name']}`, measure `{config['measure']['name']}`, {', '.join(settings)}"
    knobs = ("transpose", "index_rate", "protect", "rms_mix", "speaker")
    told = ", ".join(f"{name} {config['suite'][name]:g}" for name in knobs if name in config["suite"])
    ran += f"; {told}" if told else ""
    weights = "; ".join(w["label"] for w in data.environment.get("weights", {}).values()) or "unknown"
    findings = [*_speed_findings(data), *filter(None, (_worst_parity(data, backend) for backend in data.backends))]
    all_cases = config["measure"]["name"] == "full" and config["durations"] == config["measure"]["durations"]
    if config["audio"] is None and not all_cases:
        findings.append("- Not the full set of durations: `measure=full` runs that.")
    return "\n\n".join([VERDICTS[data.outcome.exit_code], f"{ran}; weights: {weights}.", "\n".join(findings)])


def _speed_findings(data: RunData) -> list[str]:
    """The whole call on the longest case, per backend that has a PyTorch beside it."""
    sweep = [case for case in data.cases if case.startswith("synthetic")] or data.cases
    lines = []
    for backend in data.backends:
        gain = data.speedup(sweep[-1], data.suite.whole, backend) if data.suite.whole else None
        if gain:
            who = f"`{backend}` against `{data.speed_reference(backend)}`"
            audio = f"{data.duration_s(sweep[-1]):.3g} s of audio, whole call"
            rounds = f"{gain.launches} launch{'es' if gain.launches > 1 else ''}, {gain.rounds} rounds"
            rounds = rounds if gain.rounds > 1 else "one round, so without an interval"
            lines.append(f"- {who}, {audio}: {tables.ratio(gain)} ({rounds}).")
    return lines


def _worst_parity(data: RunData, backend: str) -> str | None:
    """The judged figures of the whole call, each the worst of all cases."""
    whole = data.suite.whole
    found = [r for case in data.cases if whole and (r := data.find(case, whole, backend)) and r["parity"]]
    if not found:
        return None
    checks = [item for r in found for item in r["parity"]["limits"].items()]
    worst: dict[str, float] = {}
    for name, check in checks:
        value = number(check["value"])
        if name not in worst or to_error(name, value) > to_error(name, worst[name]):
            worst[name] = value
    told = ", ".join(f"{name} {tables.figure(value, name)}" for name, value in worst.items()) or "nothing judged"
    cases = f"{len(found)} cases" if len(found) > 1 else "one case"
    return f"- `{backend}` against `{found[0]['reference']}`, whole call, worst of {cases}: {told}."


def _skipped(data: RunData) -> list[tuple[str, str]]:
    """Backends that this machine lacks, and components that a backend cannot have, with the reason."""
    found = []
    for r in data.outcome.skipped:
        part = "" if r["component"] == "all" else f"{r['component'].removesuffix('.on').removesuffix('.off')}, "
        found.append((f"{part}{r['backend']}", r["reason"]))
    return list(dict.fromkeys(found))


def _problems(data: RunData) -> str:
    lines = [f"- {who}: skipped, {reason}" for who, reason in _skipped(data)]
    lines += [
        f"- {r['case']}, {r['component']}, {r['backend']}: {r['status']}, {r['reason']}" for r in data.outcome.errors
    ]
    lines += [f"- {r['case']}, {r['component']}, {r['backend']}: failed, {r['reason']}" for r in data.outcome.failed]
    lines += [
        f"- {case}, {component}, {backend}: planned, no record" for case, component, backend in data.outcome.missing
    ]
    warned = {(r["backend"], text) for r in data.records for text in r.get("warnings", [])}
    lines += [f"- {backend} warned: {text}" for backend, text in sorted(warned)]
    if data.suite.protocol == "timed" and not any(record.get("parity") for record in data.records):
        lines.append("- nothing was compared: the run has no second backend")
    if not data.environment:
        lines.append("- the run was broken off before it began to measure")
    return "\n".join(lines) or "Nothing: every planned case has its record."


def command(data: RunData) -> str:
    """The command line that repeats the run, with the overrides that it was given."""
    config = data.config
    words = [text for text in config["overrides"] if not text.startswith("out=")]
    return shlex.join(["python", "-m", "suites", "run", config["suite"]["name"], *words])


def _notes(data: RunData) -> list[str]:
    """What the terminal tells beside the report's path."""
    o = data.outcome
    lines = [f"skipped {who}: {reason}" for who, reason in _skipped(data)]
    lines += [
        f"{r['status']}: {r['case']} {r['component']} {r['backend']}: {r['reason']}" for r in (*o.errors, *o.failed)
    ]
    if o.missing:
        lines.append(f"{len(o.missing)} planned measurements have no record")
    lines += _precision_reached(data)
    measured = [r for r in data.records if r["status"] != "skipped"]
    passed = sum(r["status"] == "passed" for r in measured)
    lines.append(f"{o.word}: {passed} of {len(measured)} records passed")
    return lines


def _precision_reached(data: RunData) -> list[str]:
    """Of all speed-ups of each backend: how well they are known."""
    lines = []
    for backend in data.backends:
        gains = [g for c in data.cases for p in data.components if (g := data.speedup(c, p, backend)) and g.detectable]
        if gains:
            known, seen = ([100 * f(g) for g in gains] for f in (lambda g: g.half_width, lambda g: g.detectable or 0.0))
            lines.append(
                f"precision: {backend}'s speed-ups are known to {min(known):.1f} to {max(known):.1f} %; "
                f"changes of {min(seen):.1f} to {max(seen):.1f} % would have shown"
            )
    return lines


def _html(text: str, folder: Path) -> str:
    import markdown

    body = markdown.markdown(text, extensions=["tables", "fenced_code", "sane_lists"])
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    for path in sorted((folder / "plots").glob("*.png")):
        data = base64.b64encode(path.read_bytes()).decode()
        body = body.replace(f'src="plots/{path.name}"', f'src="data:image/png;base64,{data}"')
    body = re.sub(
        r'<a href="(audio/[^"]+\.wav)">', r'<audio controls preload="none" src="\1"></audio> <a href="\1">', body
    )
    return HTML.format(title=text.splitlines()[0].removeprefix("# "), body=body)
