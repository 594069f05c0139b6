"""The report of one profile: report.md, report.html, profile.csv, trace.json and figures, from its folder alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from suites.base.files import write_whole
from suites.base.run_folder import PROFILE
from suites.trace import stages

from ..data import profile as profiles
from ..data.profile import Profile
from ..data.trace import command
from ..figures.pictures import drawn
from ..figures.profile_plot import bars, roofs
from ..render import document as doc
from ..render.html import write

ABOUT = (
    "The time of a stage is the median of several walks in which every value of a stage is computed before the next "
    "one begins, with its input computed already. *% of roof* is how much of that time the roofline explains: the "
    "larger of FLOP over the measured rate of a matrix product, and bytes over that of a copy. A profile judges "
    f"nothing. {profiles.CACHED} Where the whole call takes longer than its stages, it goes other ways: in tiles and "
    "blocks, or as one recorded graph."
)
PICTURES = (
    ("stages", bars, "time of every part of the model in order, with what its roofline explains"),
    ("roofline", roofs, "achieved rate of every part of the model against its work per traffic, below the roof"),
)


def write_report(folder: Path) -> tuple[Path, Profile]:
    """Raises ``UserError``: not a profile's folder."""
    profile = profiles.load(folder)
    (folder / "plots").mkdir(exist_ok=True)
    made = [drawn(partial(make, profile), folder / "plots" / f"{n}.png", alt, (PROFILE,)) for n, make, alt in PICTURES]
    path = write(document(profile, [one for one in made if one]), folder)
    fields = [
        row._asdict()
        | {"part": stages.group_of(row.path), "flops_per_s": row.rate(row.flops), "bytes_per_s": row.rate(row.bytes)}
        for rows in profile.rows.values()
        for row in rows
    ]
    write_whole(
        folder / "profile.csv",
        pd.DataFrame(fields).astype(dict.fromkeys(("flops", "bytes"), "Int64")).to_csv(index=False),
    )
    write_whole(folder / "trace.json", json.dumps(stages.chrome_trace(profile.found["backends"])) + "\n")
    return path, profile


def document(profile: Profile, pictures: Sequence[doc.Picture]) -> doc.Document:
    found = doc.Document(f"Where the time of {profile.model} goes", [])
    calls = [profiles.of_call(profile, backend) for backend in profile.rows]
    found.sections.append(doc.Section("Summary", [_text([f"{profile.about}."]), _bullets([*profile.advice, *calls])]))
    peaks = _bullets(profiles.peaks(profile))
    table = _table("stages", profiles.headings(profile), profiles.lines(profile))
    about = doc.Paragraph((ABOUT,))
    found.sections.append(doc.Section("Stages", [about, _text([profiles.counted(profile)]), peaks, *pictures, table]))
    tables: list[doc.Block] = []
    for backend in profile.rows:
        if events := profile.kernels(backend):
            about = doc.Paragraph(doc.say("{}, one call:", doc.Code(backend)))
            lines = profiles.kernel_lines(events)
            tables += [about, _table(f"kernels-{backend}", profiles.KERNEL_HEADINGS, lines)]
    found.sections.append(doc.Section("Kernels", tables or [doc.Paragraph((profiles.NO_KERNELS,))]))
    files = "Every stage: {}; to open in Perfetto or chrome://tracing: {}; all samples: {}."
    names = map(doc.Code, ("profile.csv", "trace.json", PROFILE))
    blocks: list[doc.Block] = [doc.Command(command("profile", profile.config)), doc.Paragraph(doc.say(files, *names))]
    found.sections.append(doc.Section("Reproduce", blocks))
    return found


def _text(texts: Sequence[str]) -> doc.Paragraph:
    return doc.Paragraph(tuple(doc.Num(text, (PROFILE,)) for text in texts))


def _bullets(texts: Iterable[str]) -> doc.Bullets:
    return doc.Bullets(tuple((doc.Num(text, (PROFILE,)),) for text in texts))


def _table(name: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> doc.Table:
    def cell(text: str) -> doc.Cell:
        return doc.Absent() if text == doc.DASH else doc.Num(text, (PROFILE,), float(text))

    return doc.Table(name, tuple(headings), tuple((line[0], *map(cell, line[1:])) for line in lines))
