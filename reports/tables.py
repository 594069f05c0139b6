"""The tables of a report, as markdown. Every figure is computed here from records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from suites.listing import optimisations
from suites.record import Line
from suites.statistics import LEAST_LAUNCHES, Estimate

from .frame import RunData

ABSENT = "–"
GROWTH = "growth"
OPTIMISATIONS = tuple(optimisations())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """First column left, the others right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


# ---------------------------------------------------------------------- printed forms
def significant(value: float, digits: int = 3) -> str:
    """Rounded to ``digits`` significant ones, without an exponent from 0.001 to a million."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    text = f"{value:.{digits}g}"
    if "e" in text:
        return f"{value:.0f}"
    return text


def milliseconds(e: Estimate | None) -> str:
    if e is None:
        return ABSENT
    if e.rounds == 1:  # one sample has no interval
        return significant(e.value * 1e3)
    return f"{significant(e.value * 1e3)} [{significant(e.low * 1e3)}, {significant(e.high * 1e3)}]"


def ratio(e: Estimate | None) -> str:
    if e is None:
        return ABSENT
    return f"{e.value:.2f}×" if e.rounds == 1 else f"{e.value:.2f}× [{e.low:.2f}, {e.high:.2f}]"


def mebibytes(value: float | None) -> str:
    return ABSENT if value is None else f"{value / 2**20:.0f}"


def seconds(value: float | None) -> str:
    return ABSENT if value is None else significant(value)


def figure(value: object, name: str = "") -> str:
    """``name``: of the figure; correlations differ from one in digits that others do not have."""
    if value is None:
        return ABSENT
    if name.endswith("corr"):
        return f"{float(str(value)):.9g}"
    return str(value) if isinstance(value, int | str) else significant(float(str(value)))


def coverage_note(estimates: Sequence[Estimate | None]) -> str:
    """What the brackets in a table mean, for the samples that it has."""
    found = [e for e in estimates if e is not None]
    if not found:
        return ""
    fewest, most = min(e.rounds for e in found), max(e.rounds for e in found)
    rounds = f"{fewest} to {most}" if fewest != most else str(fewest)
    if most == 1:
        return "One round: single samples, without an interval."
    if all(e.launches >= LEAST_LAUNCHES for e in found):
        few, many = min(e.launches for e in found), max(e.launches for e in found)
        launches = f"{few} to {many}" if few != many else str(few)
        return (
            f"{launches} process launches, {rounds} rounds in all; each launch counts once, with its median. Brackets: "
            "95 % interval over the launches."
        )
    least = min(e.coverage for e in found)
    level = "at least 95 %" if least >= 0.95 else f"at least {100 * least:.0f} % (fewer than 6 rounds somewhere)"
    return (
        f"Medians over {rounds} rounds; brackets cover the true median with a probability of {level}. Fewer than "
        f"{LEAST_LAUNCHES} process launches somewhere: what differs between launches is not in the interval."
    )


def _median(values: Iterable[float | None]) -> float | None:
    """Of those that were measured."""
    found = [value for value in values if value is not None]
    return median(found) if found else None


# ---------------------------------------------------------------------- tables
def latency(data: RunData, component: str) -> str:
    """One component on all backends: time, realtime factor, speed-up."""
    rows, used = [], []
    for case in data.cases:
        for backend in data.backends:
            time, gain = data.time(case, component, backend), data.speedup(case, component, backend)
            used += [time, gain]
            factor = ABSENT if time is None else significant(time.value / data.duration_s(case))
            beside = data.speed_reference(backend)
            told = ratio(gain) + (f" of {beside}" if gain else "")
            rows.append([case, f"{data.duration_s(case):.1f}", backend, milliseconds(time), factor, told])
    header = ("case", "audio s", "backend", "time ms", "realtime factor", "speed-up")
    return markdown(header, rows) + "\n\n" + coverage_note(used)


def precision(data: RunData) -> str:
    """How well each speed-up is known, and the smallest change of it that this run could have shown."""
    rows = []
    for case in data.cases:
        for component in data.components:
            for backend in data.backends:
                line, gain = data.find(case, component, backend), data.speedup(case, component, backend)
                if line and gain:
                    rows.append([case, component, backend, *_precision_cells(line, gain)])
    header = (
        "case", "component", "backend", "launches", "rounds", "calls a sample", "warm-up calls", "settled",
        "speed-up known to", "smallest change seen",
    )  # fmt: skip
    return markdown(header, rows)


def _precision_cells(line: Line, gain: Estimate) -> list[str]:
    warm = line.get("warmup") or []
    settled = f"{sum(w['steady'] for w in warm)} of {len(warm)}" if warm else ABSENT
    calls = figure(_median(float(w["calls"]) for w in warm)) if warm else ABSENT
    known = f"{100 * gain.half_width:.1f} %" if gain.rounds > 1 else ABSENT
    seen = ABSENT if gain.detectable is None else f"{100 * gain.detectable:.1f} %"
    return [str(gain.launches), str(gain.rounds), str(line.get("calls", 1)), calls, settled, known, seen]


def breakdown(data: RunData) -> str:
    """Components side by side, medians in milliseconds; the parts' sum, where they are parts of one call."""
    rows, summed = [], False
    for case in data.cases:
        for backend in data.backends:
            times = [data.time(case, component, backend) for component in data.components]
            row = [case, backend, *(ABSENT if t is None else significant(t.value * 1e3) for t in times)]
            pairs = data.parts_over_whole(case, backend)
            if pairs:
                summed = True
                row += [
                    significant(1e3 * median(s for s, _ in pairs)),
                    f"{100 * median(s / w for s, w in pairs):.2f} %",
                ]
            rows.append(row)
    more = ("sum of the parts ms", "sum over whole") if summed else ()
    width = 2 + len(data.components) + len(more)
    header = ("case", "backend", *(f"{c} ms" for c in data.components), *more)
    return markdown(header, [row + [ABSENT] * (width - len(row)) for row in rows])


def _cold_rows(data: RunData, cells: Callable[[Line], list[str]], growth: bool = False) -> list[list[str]]:
    """Of everything that was measured in fresh processes; ``growth``: the case of many lengths instead."""
    rows = []
    for case in data.cases:
        for component in data.components:
            for backend in data.backends:
                line = data.find(case, component, backend)
                if line and line.get("cold") and (case == GROWTH) == growth:
                    name = case if data.suite.whole else f"{case}, {component}"
                    rows.append([name, backend, *cells(line)])
    return rows


def memory(data: RunData) -> str:
    """Peaks of fresh processes per case and backend: the largest, where there were several."""

    def cells(line: Line) -> list[str]:
        cold = line["cold"]
        return [mebibytes(max((c[name] for c in cold if c.get(name)), default=None)) for name in names]

    names = ["base_rss_bytes", "peak_rss_load_bytes", "peak_rss_call_bytes", "peak_device_bytes"]

    header = [
        "case",
        "backend",
        "before loading MiB",
        "peak while loading MiB",
        "peak of the call MiB",
        "framework's own peak MiB",
    ]
    if any("peak_rss_steady_bytes" in c for r in data.records for c in r.get("cold") or []):
        names.insert(3, "peak_rss_steady_bytes")
        header.insert(5, "peak of later calls MiB")
    return markdown(header, _cold_rows(data, cells))


def growth(data: RunData) -> str:
    """What many lengths in one process have added."""

    def cells(line: Line) -> list[str]:
        found = line["cold"][0]["growth"]
        own = [mebibytes(found.get(f"{name}_{part}bytes")) for part in ("", "device_") for name in ("grown", "limit")]
        return [str(len(found["series"])), mebibytes(found["start"]["rss_bytes"]), *own, line["status"]]

    head = ("case", "backend", "lengths", "before MiB", "added MiB", "limit MiB")
    return markdown((*head, "framework: added MiB", "limit MiB", "verdict"), _cold_rows(data, cells, growth=True))


def ablation(data: RunData) -> str:
    """Each optimisation: time without over time with it, and how far it moves the result."""
    rows = []
    for case in data.cases:
        for component in data.components:
            name, _, side = component.rpartition(".")
            for backend in data.backends if side == "on" else ():
                with_, without = data.find(case, component, backend), data.find(case, f"{name}.off", backend)
                if with_ and without:
                    rows.append([case, name, backend, *_ablation_cells(data, with_, without)])
    header = (
        "case",
        "optimisation",
        "backend",
        "with ms",
        "without ms",
        "gain",
        "in effect",
        "max abs",
        "relative",
        "status",
    )
    return markdown(header, rows)


def _ablation_cells(data: RunData, with_: Line, without: Line) -> list[str]:
    option = with_["component"].split(".")[1]
    switch = option in OPTIMISATIONS
    effect = ABSENT if not switch else "yes" if option in with_["optimize"] else "superseded"
    times = [milliseconds(data.time(x["case"], x["component"], x["backend"])) for x in (with_, without)]
    parity_ = with_["parity"] or {}
    error = [figure(parity_.get(name), name) for name in ("max_abs", "relative")]
    status = with_["status"] if with_["status"] != "passed" else without["status"]
    return [*times, ratio(data.gain(with_, without)), effect, *error, status]


def cold_start(data: RunData) -> str:
    """First calls of fresh processes: the median, where there were several."""

    def cells(line: Line) -> list[str]:
        cold = line["cold"]
        steady = data.time(line["case"], line["component"], line["backend"])
        first = [seconds(_median(c.get(name) for c in cold)) for name in names]
        return [*first, seconds(steady.value if steady else None)]

    names = ["import_s", "load_s", "first_call_s", "second_call_s"]
    header = ["case", "backend", "import s", "load s", "first call s", "second call s", "steady call s"]
    if any("new_shape_s" in c for r in data.records for c in r.get("cold") or []):
        names = ["start_s", *names, "new_shape_s", "new_shape_again_s"]
        header = [*header[:2], "start s", *header[2:-1], "new shape s", "again s", header[-1]]
    return markdown(header, _cold_rows(data, cells))


def parity(data: RunData) -> str:
    """Each judged figure beside its limit; the reference rows are left out."""
    rows = []
    for case in data.cases:
        for component in data.components:
            for backend in data.backends:
                line = data.find(case, component, backend)
                if line and line["backend"] != line["reference"]:
                    rows += _parity_rows(line)
    header = (
        "case",
        "component",
        "backend",
        "reference",
        "figure",
        "value",
        "limit",
        "reference's own floor",
        "verdict",
    )
    return markdown(header, rows)


def _parity_rows(line: Line) -> list[list[str]]:
    head = [line["case"], line["component"], line["backend"], line["reference"]]
    if not line["parity"]:
        return [[*head, ABSENT, ABSENT, ABSENT, ABSENT, f"**{line['status']}**"]]
    rows = []
    for name, check in line["parity"]["limits"].items():
        numbers = [figure(check[part], name) for part in ("value", "limit", "floor")]
        rows.append([*head, name, *numbers, "passed" if check["passed"] else "**failed**"])
    return rows or [[*head, ABSENT, ABSENT, ABSENT, ABSENT, "no limit under this policy"]]


def parity_details(data: RunData) -> str:
    """Figures without a limit, for those who want to look closer."""
    rows = []
    for case in data.cases:
        for backend in data.backends:
            lines = {c: data.find(case, c, backend) for c in data.components}
            found = {c: r["parity"] for c, r in lines.items() if r and r["parity"]}
            if found:
                cells = [figure(found.get(component, {}).get(name), name) for component, name, _ in data.suite.details]
                rows.append([case, backend, *cells])
    return markdown(("case", "backend", *(heading for *_, heading in data.suite.details)), rows)


def sounds(data: RunData) -> str:
    """Links to what the backends made, relative to the report."""
    rows = []
    for case in data.cases:
        files = {b: data.folder / "audio" / f"{case}.{b}.wav" for b in data.backends}
        links = (f"[{path.name}](audio/{path.name})" if path.is_file() else ABSENT for path in files.values())
        rows.append([case, *links])
    return markdown(("case", *data.backends), rows)


def environment(data: RunData) -> str:
    env = data.environment
    rows = [
        ["CPU", f"{env['cpu']}, {env['cores_physical']} physical cores ({env['machine']})"],
        ["memory", f"{env['memory_bytes'] / 2**30:.0f} GiB"],
        ["system", f"{env['os']}, Python {env['python']}"],
        ["packages", ", ".join(f"{k} {v}" for k, v in env["packages"].items())],
        ["threads", f"{env['threads']} on every backend"],
        ["precision", f"{data.config['precision']} on every backend"],
        *(["weights", f"{w['label']}; SHA-256 {w['sha256'][:16]}"] for w in env["weights"].values()),
        [
            "commit",
            f"{env['commit'] or 'unknown'}{' with uncommitted changes' if env['commit_clean'] is False else ''}",
        ],
        ["load average at the start", f"{env['load_average_1min']:.2f}"],
    ]
    for name, facts in env["backends"].items():
        used: list[str] = next((r["optimize"] for r in data.records if r["backend"] == name and r.get("optimize")), [])
        told = [f"{k} {facts[k]}" for k in ("mlx", "torch", "gpu_name", "blas", "blas_gflops", "cuda") if facts.get(k)]
        rows.append([name, ", ".join(told) + (f"; optimisations: {', '.join(used)}" if used else "")])
    return markdown(("", ""), rows).replace("---:", "---")
