"""Makes and shows the table of floors: traces of code known to be right, over sizes, weights, inputs and variants."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from . import environment, floors
from .backends import DTYPES
from .config import compose_config
from .errors import UserError, nearest
from .inputs import scratch_folder
from .trace import device_kind
from .tracer import CONFIGURED, PLAIN, TraceRun
from .weights import voice_names

PACKAGES = ("torch", "mlx", "numpy")


class Sample(NamedTuple):
    """One trace that goes into the table."""

    suite: str
    seconds: float
    plain: bool
    overrides: tuple[str, ...]


def samples(quick: bool) -> Iterator[Sample]:
    """Small models under several weights and lengths, full-size ones once, every kind of voice.

    ``quick``: full-size models as configured only: for a lent GPU.
    """
    tiny = "measure=smoke"
    for seed in () if quick else (1, 2):
        own = (tiny, f"weights.seed={seed}", f"seed={seed}")
        for seconds in (0.5, 3.1):
            for suite in ("rmvpe", "hubert"):
                yield Sample(suite, seconds, True, own)
        yield Sample("pipeline", 1.7, True, own)
    for number, voice in enumerate(voice_names()):
        for seconds in (0.4,) if quick else (0.3, 2.3):
            yield Sample("synthesizer", seconds, not quick and number % 2 == 0, (tiny, f"suite.voice={voice}", f"seed={number}"))
    for suite, seconds in (("rmvpe", 4.3), ("hubert", 4.3), ("synthesizer", 3.1)):
        yield Sample(suite, seconds, False, ())
    for suite, seconds in (("rmvpe", 1.2), ("hubert", 1.2), ("synthesizer", 0.16)):
        yield Sample(suite, seconds, True, ())


def measure(precision: str, backends: str | None, quick: bool) -> tuple[dict[str, Any], str]:
    """The tables of this machine, and its kind of device.

    Raises:
        UserError: a stage differs so much that no correct variant can be meant.
    """
    found: dict[str, Any] = {}
    kind = "cpu"
    for sample in tqdm(list(samples(quick)), desc="floors"):
        with scratch_folder() as folder:
            common = [f"precision={precision}", "suite.trace.spread=false", f"durations=[{sample.seconds}]"]
            common += [f"backends={backends}"] if backends else []
            run = TraceRun(compose_config(sample.suite, [*sample.overrides, *common]))
            rows = list(_rows(run, sample, folder))
            kind = device_kind(run.other)
        found = floors.merged(found, floors.measured(sample.suite, rows))
    far = [
        f"{model} {place}: {row[metric]:.3g} times its floor"
        for model, table in found.items()
        for place, row in table.items()
        for metric in floors.METRICS
        if row[metric] > floors.LARGEST_EXCESS
    ]
    if far:
        raise UserError(f"no table was made; not rounding: {'; '.join(far[:4])}")
    return found, kind


def _rows(run: TraceRun, sample: Sample, folder: Path) -> Iterator[dict[str, Any]]:
    with run.started(folder):
        probes = run.probes(sample.seconds)
        variants = [CONFIGURED, PLAIN] if sample.plain else [CONFIGURED]
        for variant in variants:
            if variant == PLAIN:
                run.load_other("none")
            for row in run.walk(probes, variant):
                yield row.record()


def update(words: list[str]) -> str:
    """Measure on this machine and store: other precisions and devices keep their tables."""
    options = {"precision": "fp32", "backends": "", "quick": "false"} | dict(word.partition("=")[::2] for word in words)
    unknown = set(options) - {"precision", "backends", "quick"}
    if unknown:
        raise UserError(f"unknown option {unknown.pop()!r}; known: precision=, backends=, quick=true")
    if options["precision"] not in DTYPES:
        raise UserError(f"precision={options['precision']}{nearest(options['precision'], DTYPES)}")
    tables, kind = measure(options["precision"], options["backends"] or None, options["quick"] == "true")
    stored = floors.stored()
    policy = stored["policies"].setdefault(options["precision"], {})
    policy[kind] = {model: dict(sorted(rows.items())) for model, rows in sorted(tables.items())}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    made = {"date": date.today().isoformat(), "cpu": environment.cpu_name(), **versions}
    stored["made"][f"{options['precision']}/{kind}"] = made
    floors.TABLE.write_text(json.dumps(stored, indent=0, sort_keys=True) + "\n")
    floors.stored.cache_clear()
    return show()


def show() -> str:
    """The table in short: per policy, device and model the stages that are noisiest."""
    lines = [f"limit = {floors.SAFETY:g} x excess x floor; stored in {floors.TABLE}"]
    for precision, devices in floors.stored()["policies"].items():
        for device, tables in devices.items():
            made = floors.stored()["made"][f"{precision}/{device}"]
            lines.append(f"{precision} on {device}: " + ", ".join(f"{k} {v}" for k, v in made.items()))
            for model, rows in tables.items():
                count = sum(row["count"] for row in rows.values())
                lines.append(f"  {model}: {len(rows)} kinds of stage, {count} values; largest excess")
                for name, row in sorted(rows.items(), key=lambda item: -item[1]["rmse"])[:3]:
                    lines.append(
                        f"    {name:52} rmse {row['rmse']:5.2f}  max {row['max_abs']:5.2f}  "
                        f"floor {row['floor_rmse_relative']:.1e} of the RMS"
                    )
    return "\n".join(lines)
