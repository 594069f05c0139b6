"""Makes and shows the table of floors: traces of code known to be right, over sizes, weights, inputs and variants."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from tqdm import tqdm

from rvc_common.outputs import check_output
from rvc_common.processor import numbers, processor

from ..base import environment
from ..base.backends import DTYPES
from ..base.errors import UserError, nearest
from ..base.files import scratch_folder, write_whole
from ..base.records import read_lines, records, records_file
from ..base.words import options
from ..definitions import SUITES
from ..inputs.weights import voice_names
from ..measure.config import compose_config
from ..measure.runner import open_run
from ..metrics import floors
from ..metrics.registry import metric_of
from ..trace.findings import CONFIGURED, PLAIN
from ..trace.run import TraceRun
from ..trace.walk import REFERENCE_WRONG, device_kind

PACKAGES = ("torch", "mlx", "numpy")
DEFAULTS = {"precision": "fp32", "backends": "", "quick": "false", "what": "stages,components", "suites": ""}
DEFAULTS["merge"] = "false"
# one for each vocoder
QUICK_VOICES = ("synth_v2_40k_f0", "synth_v2_32k_f0_mrf", "synth_v2_24k_f0_refinegan")


class Sample(NamedTuple):
    """One trace that goes into the table."""

    suite: str
    seconds: float
    overrides: tuple[str, ...] = ()
    plain: bool = False


def samples(quick: bool) -> Iterator[Sample]:
    """Small models under several weights and lengths, full-size ones once, every kind of voice.

    ``quick``: only full-size models, and the voices as configured: for short access to a GPU.
    """
    tiny = "measure=smoke"
    for seed in () if quick else (1, 2):
        own = (tiny, f"weights.seed={seed}", f"seed={seed}")
        for seconds in (0.5, 3.1):
            for suite in ("rmvpe", "hubert"):
                yield Sample(suite, seconds, own, plain=True)
        yield Sample("pipeline", 1.7, own, plain=True)
        yield Sample("hubert", 1.1, (*own, "suite.version=v1"), plain=True)
    for number, voice in enumerate(QUICK_VOICES if quick else voice_names()):
        own = (tiny, f"suite.voice={voice}", f"seed={number}")
        for seconds in (0.4,) if quick else (0.3, 2.3):
            yield Sample("synthesizer", seconds, own, plain=not quick and number % 2 == 0)
    for suite, seconds in (("rmvpe", 4.3), ("hubert", 4.3), ("synthesizer", 3.1)):
        yield Sample(suite, seconds, plain=quick and suite != "synthesizer")
    for suite, seconds in () if quick else (("rmvpe", 1.2), ("hubert", 1.2), ("synthesizer", 0.16)):
        yield Sample(suite, seconds, plain=True)


def _chosen(drawn: Iterator[Sample], suites: str) -> list[Sample]:
    """Of the suites that are named; of all where none is."""
    return [sample for sample in drawn if not suites or sample.suite in suites.split(",")]


def measure(precision: str, backends: str | None, quick: bool, suites: str = "") -> tuple[dict[str, Any], str]:
    """The tables of this machine, and its kind of device.

    Raises ``UserError``: a stage differs so much that no correct variant can be meant."""
    found: dict[str, Any] = {}
    kind = "cpu"
    chosen = _chosen(samples(quick), suites)
    if not chosen:
        where = "the quick table" if quick else "the table"
        raise UserError(f"suites={suites}: no trace of it goes into {where}; its figures alone: what=components")
    for sample in tqdm(chosen, desc="floors", disable=None):
        with scratch_folder() as folder:
            common = [f"precision={precision}", "suite.trace.spread=false", f"durations=[{sample.seconds}]"]
            common += [f"backends={backends}"] if backends else []
            run = TraceRun(compose_config(sample.suite, [*sample.overrides, *common]))
            found = floors.merged(found, floors.measured(sample.suite, _rows(run, sample, folder)))
            kind = device_kind(run.other)
    rows = ((f"{model} {place}", row) for model, table in found.items() for place, row in table.items())
    errors = ((where, row[metric]) for where, row in rows for metric in floors.METRICS)
    if far := [f"{where}: {error:.3g} times its floor" for where, error in errors if error > floors.LARGEST_EXCESS]:
        raise UserError(f"no table was made; not rounding: {'; '.join(far[:4])}")
    return found, kind


def _rows(run: TraceRun, sample: Sample, folder: Path) -> Iterator[dict[str, Any]]:
    with run.started(folder):
        probes = [probe for probe in run.probes(sample.seconds) if probe.walked]
        for variant in (CONFIGURED, PLAIN) if sample.plain else (CONFIGURED,):
            if variant == PLAIN:
                run.load_other("none")
            for row in run.walk(probes, variant):
                if row.status != REFERENCE_WRONG:  # its floor is no rounding
                    yield msgspec.to_builtins(row)


def component_samples(quick: bool) -> Iterator[Sample]:
    """Runs whose figures go into the table of components."""
    tiny = ("measure=smoke", "suite.speech_clip=false")
    for seed in () if quick else (1, 2):
        for suite in ("rmvpe", "hubert", "synthesizer", "pipeline", "components"):
            for optimize in ("all", "none"):
                yield Sample(suite, 2.1, (*tiny, f"weights.seed={seed}", f"seed={seed}", f"optimize={optimize}"))
    for voice in QUICK_VOICES if quick else voice_names():
        yield Sample("synthesizer", 1.3, (*tiny, f"suite.voice={voice}"))
    for suite in ("rmvpe", "hubert", "synthesizer", "pipeline", "components"):
        yield Sample(suite, 5.0 if suite in ("rmvpe", "hubert") else 3.0)


def measure_components(precision: str, backends: str | None, quick: bool, suites: str = "") -> dict[str, Any]:
    """Per suite and figure the largest errors of runs of code known to be right."""
    once = ["measure.launches={min: 1, max: 1}", "measure.rounds={min: 1, max: 1}"]
    once += ["measure.first_calls=0", "measure.warmup_seconds=0"]
    found: dict[str, list[tuple[str, Any]]] = {}
    for sample in tqdm(_chosen(component_samples(quick), suites), desc="components", disable=None):
        with scratch_folder() as folder:
            words = [*sample.overrides, *once, f"precision={precision}", f"durations=[{sample.seconds}]"]
            words += [f"out={folder / 'run'}", "threads=1" if "measure=smoke" in words else "threads=null"]
            config = compose_config(sample.suite, [*words, *([f"backends={backends}"] if backends else [])])
            # whatever the error, it is judged: so its figure and its floor are recorded
            policy = config.suite.limits[config.precision]
            policy.update({name: metric_of(name).from_error(float("inf")) for name in policy})
            run = open_run(config)
            run.execute()
            lines = records(read_lines(records_file(folder / "run")))
        own = found.setdefault(sample.suite, [])
        own += [(c["of"], c) for line in lines for c in ((line.get("parity") or {}).get("limits") or {}).values()]
    return {suite: floors.component_rows(checks) for suite, checks in found.items()}


def update(words: list[str]) -> str:
    """Measure on this machine and store: other precisions and devices keep their tables.

    With ``merge`` a stage keeps what it had, where that is more: several machines share a table.
    """
    given = options(words, DEFAULTS)
    precision, backends, quick = given["precision"], given["backends"] or None, given["quick"] == "true"
    known = {"precision": DTYPES, "what": ("stages", "components"), "suites": tuple(SUITES)}
    for name in known:
        for word in filter(None, given[name].split(",")):
            if word not in known[name]:
                raise UserError(f"{name}={word}{nearest(word, known[name])}")
    if precision not in DTYPES:  # a list of them
        raise UserError(f"precision={precision}{nearest(precision, DTYPES)}")
    compose_config("rmvpe", [f"backends={backends}"] if backends else [])
    check_output(floors.TABLE)
    stored = floors.stored()
    if "stages" in given["what"]:
        import torch

        tables, kind = measure(precision, backends, quick, given["suites"])
        policy, key = stored["policies"].setdefault(precision, {}), f"{precision}/{kind}"
        made = {"date": date.today().isoformat(), "cpu": environment.cpu_name()}
        made |= {"processor": numbers(found)} if (found := processor()) else {}
        if kind == "gpu" and torch.cuda.is_available():
            made["gpu"] = torch.cuda.get_device_name()
        made |= {name: importlib.metadata.version(name) for name in PACKAGES}
        if given["merge"] == "true" and kind in policy:
            tables = floors.merged(policy[kind], tables)
            made["also"] = _machine_text(stored["made"][key])
        own = {model: dict(sorted(rows.items())) for model, rows in tables.items()}
        # suites that were not measured keep their rows
        policy[kind] = dict(sorted(((policy.get(kind, {}) if given["suites"] else {}) | own).items()))
        stored["made"][key] = made
        _store(stored)
    if "components" in given["what"]:
        new = measure_components(precision, backends, quick, given["suites"])
        old = stored["components"].get(precision, {})
        stored["components"][precision] = old | {k: _larger(old.get(k, {}), rows) for k, rows in new.items()}
        _store(stored)
    return show()


def _machine_text(made: Mapping[str, str]) -> str:
    """Facts of one machine; those of earlier ones, which are text already, come last."""
    own = ", ".join(f"{name} {value}" for name, value in made.items() if name != "also")
    return f"{own}; also {made['also']}" if "also" in made else own


def _store(table: dict[str, Any]) -> None:
    write_whole(floors.TABLE, json.dumps(table, indent=0, sort_keys=True) + "\n")
    floors.stored.cache_clear()


def _larger(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Devices share the components' limits: of each figure the larger."""
    return old | {n: {k: max(v, old.get(n, {}).get(k, v)) for k, v in row.items()} for n, row in new.items()}


def show() -> str:
    """The table in short: per policy, device and model the stages that are noisiest."""
    lines = [f"limit = {floors.SAFETY:g} x excess x floor; stored in {floors.TABLE}"]
    for precision, devices in floors.stored()["policies"].items():
        for device, tables in devices.items():
            made = floors.stored()["made"][f"{precision}/{device}"]
            lines.append(f"{precision} on {device}: " + _machine_text(made))
            for model, rows in tables.items():
                count = sum(row["count"] for row in rows.values())
                lines.append(f"  {model}: {len(rows)} kinds of stage, {count} values; largest excess")
                for name, row in sorted(rows.items(), key=lambda item: -item[1]["rmse"])[:3]:
                    lines.append(
                        f"    {name:52} rmse {row['rmse']:5.2f}  max {row['max_abs']:5.2f}  "
                        f"floor {row['floor_rmse_relative']:.1e} of the RMS"
                    )
    return "\n".join(lines)
