"""The HTML page: escaped, self-contained, reproducible, readable without a script, and usable in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import check_page
import matplotlib.pyplot as plt
import pytest

from reports.figures import style
from reports.render.document import (
    Absent,
    Block,
    Bullets,
    Cell,
    Code,
    Command,
    Document,
    Link,
    Num,
    Paragraph,
    Picture,
    Section,
    Table,
    say,
)
from reports.render.html import PAGE, STATES, render

SOURCE = "run/records.jsonl#synthetic_5s/rmvpe/mlx_cpu.samples_s"
Drawn = tuple[Path, str, str]  # the folder, and two SVGs
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Elements(HTMLParser):
    """Every element with its attributes and the names of those around it; complains of what is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str], tuple[str, ...]]] = []
        self.words: list[str] = []
        self.stack: list[str] = []
        self.feed(page)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {k: v or "" for k, v in attrs}, tuple(self.stack)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {k: v or "" for k, v in attrs}, tuple(self.stack)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.stack):
            self.words.append(data)

    def of(self, *tags: str) -> Iterator[dict[str, str]]:
        yield from (attributes for tag, attributes, _ in self.found if tag in tags)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def page_of(*blocks: Block, folder: Path = Path()) -> Elements:
    return Elements(render(Document("Title", [Section("Part", list(blocks))]), folder))


def table_of(*cells: Cell, left: int = 0) -> Elements:
    """One row of those cells."""
    return page_of(Table("t", tuple(f"c{i}" for i in range(len(cells))), (cells,), left))


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """One with marks, and one that holds a raster."""
    folder = tmp_path_factory.mktemp("drawings")
    with plt.rc_context(style.RC):
        figure, axes = style.panels(4, 2.4)
        for axis in axes:
            axis.plot([1, 2, 3], [2, 3, 5], marker="o")
            for x, y in ((1, 2), (2, 3), (3, 5)):
                style.mark(axis, x, y, f"mlx_cpu, {x} s: {y} ms & <more>")
        drawn = style.save(figure, folder / "time.png")
        figure, axes = style.panels(1, 2.4)
        axes[0].imshow([[0, 1], [1, 0]])
        return folder, drawn, style.save(figure, folder / "spectra.png")


def sample(drawings: Drawn) -> Document:
    """Wide tables with dashes, drawings with and without an SVG, everything else once."""
    _, drawn, raster = drawings

    def row(i: int) -> tuple[Cell, ...]:
        value = float(i * 7 % 12)
        figures = (Absent(f"case {i}: no record") if (i + j) % 5 == 0 else number(value + j) for j in range(9))
        return (f"synthetic_{i}s", "mlx_cpu", *figures, list(STATES)[i % len(STATES)])

    header = ("case", "backend", *(f"figure {j} ms" for j in range(9)), "verdict")
    blocks: list[Block] = [
        Paragraph(say("**Passed** in {} of `x`.", number(3.0))),
        Bullets(((f"a {'very_long_name_' * 12}end",), ("two",))),
        Table("wide", header, tuple(row(i) for i in range(12)), 2, ("About *it*.",)),
        Picture("time", "Time against duration", "time.png", drawn, (SOURCE,)),
        Picture("spectra", "Spectrograms", "spectra.png", raster),
        Picture("bitmap", "Without an SVG", "time.png"),
        Command("python -m suites run rmvpe " + " ".join(f"option.{i}=value" for i in range(30))),
        Table("audio", ("case", "file"), (("a", Link("a.wav", "audio/a b.wav")),), 2),
    ]
    return Document("A sample", [Section("First", blocks), Section("Second", [Paragraph(("End.",))], 3)])


def number(value: float) -> Num:
    return Num(f"{value:g} [{value - 1:g}, {value + 1:g}]", (SOURCE,), value, value - 1, value + 1)


@pytest.fixture(scope="module")
def page(drawings: Drawn) -> str:
    return render(sample(drawings), drawings[0])


# ---------------------------------------------------------------------- the page
def test_same_document_same_bytes(page: str, drawings: Drawn) -> None:
    assert render(sample(drawings), drawings[0]) == page


def test_well_formed_and_nothing_is_loaded(page: str) -> None:
    elements = Elements(page)
    for tag, attributes, _ in elements.found:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name, "#")
            assert target.startswith(("#", "data:image/png;base64,", "audio/")), (tag, target)
    assert not list(elements.of("link", "iframe", "object"))
    assert "url(" not in (PAGE / "style.css").read_text()
    assert "@import" not in (PAGE / "style.css").read_text()


def test_only_its_own_script_may_run(page: str) -> None:
    policy = next(a["content"] for a in Elements(page).of("meta") if a.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    assert re.search(r"script-src 'sha256-[\w+/]{43}='", policy)
    assert page.count("<script>") == 1
    assert "</script" not in (PAGE / "script.js").read_text()


def test_landmarks_and_language(page: str) -> None:
    elements = Elements(page)
    assert next(elements.of("html")) == {"lang": "en"}
    assert [len(list(elements.of(tag))) for tag in ("h1", "header", "main")] == [1, 1, 1]
    skip = next(a for a in elements.of("a") if a.get("class") == "skip")
    assert skip["href"] == f"#{next(elements.of('main'))['id']}"
    assert next(elements.of("nav"))["aria-label"] == "Contents"


def test_identifiers_are_unique_and_contents_lead_to_them(drawings: Drawn) -> None:
    document = sample(drawings)
    document.sections += [Section("Été & co."), Section("First"), Section("Content"), Section("×")]
    elements = Elements(render(document, drawings[0]))
    names = [attributes["id"] for _, attributes, _ in elements.found if "id" in attributes]
    assert len(names) == len(set(names))
    targets = [a["href"][1:] for tag, a, around in elements.found if tag == "a" and "nav" in around]
    assert targets == ["first", "second", "ete-co", "first-2", "content-2", "section"]
    assert set(targets) <= set(names)
    nested = [around.count("ol") for tag, _, around in elements.found if tag == "li" and "nav" in around]
    assert nested == [1, 2, 1, 1, 1, 1]


def test_everything_is_escaped() -> None:
    evil = "<img src=x onerror=1>\"'&"
    words = (evil, Num(evil, (evil,), 1.0), Absent(evil), Code(evil), Link(evil, evil))
    document = Document(
        evil,
        [
            Section(
                evil,
                [
                    Paragraph(words),
                    Bullets((words,)),
                    Command(evil),
                    Table(evil, (evil, *"abcd"), (words,), 1, words),
                    Picture(evil, evil, "x.png", '<svg viewBox="0 0 1 1"></svg>', (evil,)),
                ],
            )
        ],
    )
    elements = Elements(render(document, Path()))
    assert not list(elements.of("img"))
    assert elements.text.count(evil) >= 12
    assert next(elements.of("svg"))["aria-label"] == evil


# ---------------------------------------------------------------------- text
def test_marks_of_markdown_in_fixed_words() -> None:
    page = render(
        Document("T", [Section("S", [Paragraph(("**bold** *Known `to`* is `a*b*c`, 2*3*4, * no *.",))])]), Path()
    )
    assert "<p><strong>bold</strong> <em>Known <code>to</code></em> is <code>a*b*c</code>, 2*3*4, * no *.</p>" in page


def test_recorded_words_keep_their_asterisks() -> None:
    page = render(Document("T", [Section("S", [Paragraph((Num("f(*args*) of `x`\nend", ("s",)),))])]), Path())
    assert '<span class="num" title="from s">f(*args*) of <code>x</code><br>end</span>' in page


def test_links_of_other_schemes_are_words() -> None:
    links = [Link("a", "javascript:alert(1)"), Link("b", "https://example.org/?a=1&b"), Link("c", "notes of mine.md#x")]
    elements = page_of(Paragraph(tuple(links)))
    found = [a["href"] for tag, a, around in elements.found if tag == "a" and "p" in around]
    assert found == ["https://example.org/?a=1&b", "notes%20of%20mine.md#x"]


@pytest.mark.parametrize(
    ("target", "played"), [("audio/a b#1.wav", True), ("../r/audio/x.wav", True), ("x.wav", False)]
)
def test_audio_is_played_where_it_is_named(target: str, played: bool) -> None:
    found = list(table_of(Link("x", target), left=1).of("audio"))
    assert len(found) == played
    if played:
        assert found[0]["preload"] == "none"
        assert " " not in found[0]["src"]
        assert "#" not in found[0]["src"]


# ---------------------------------------------------------------------- tables
def test_figures_tell_value_interval_and_sources() -> None:
    many = Num("9.5", tuple(f"r#{i}" for i in range(5)), 9.512345678, 9.1, 9.9)
    elements = table_of(many)
    told = next(a["title"] for a in elements.of("span") if a.get("class") == "num")
    assert told.splitlines() == ["value 9.51235, interval 9.1 to 9.9", "from r#0", "from r#1", "from r#2", "and 2 more"]
    assert next(elements.of("td"))["data-v"] == "9.512345678"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (say("{} of {}", Num("12", (), 12.0), Num("30", (), 30.0)), "12.0"),
        (("", Num("1", (), 1.0)), "1.0"),
        (say("about {}", Num("12", (), 12.0)), None),
        (Num("inf", (), float("inf")), "Infinity"),
        (Num("nan", (), float("nan")), None),
        (Num("words", ()), None),
    ],
)
def test_what_a_cell_is_sorted_by(cell: Cell, expected: str | None) -> None:
    assert next(table_of(cell).of("td")).get("data-v") == expected


@pytest.mark.parametrize(
    ("cell", "last"),
    [(Absent("x"), True), ((Absent(),), True), ("", True), ("–", True), ("x", False), (Num("0", (), 0.0), False)],
)
def test_cells_without_a_figure_are_marked(cell: Cell, last: bool) -> None:
    assert ("data-none" in next(table_of(cell).of("td"))) == last


def test_a_dash_gives_its_reason_to_eye_ear_and_below() -> None:
    elements = table_of(Absent("no `GPU` here"), Absent("other"), Absent("other"), Absent())
    assert "no GPU here" in [a.get("title") for a in elements.of("span")]
    assert "none: no GPU here" in elements.text
    assert elements.text.endswith("–: no GPU here; other.")


def test_many_reasons_are_folded() -> None:
    elements = table_of(*(Absent(f"reason {i}") for i in range(20)))
    note = next(a for a in elements.of("details") if a.get("class") == "note")
    assert note == {"class": "note"}
    assert "–: 20 reasons" in elements.text


def test_alignment_and_headers() -> None:
    rows = (("a", "b", Num("1", (), 1.0)),)
    elements = page_of(Table("two-words", ("", "name", "ms"), rows, 2))
    assert ["n" in a.get("class", "").split() for a in elements.of("th", "td")] == [False, False, True] * 2
    assert [a["scope"] for a in elements.of("th")] == ["col", "col", "row"]
    region = next(a for a in elements.of("div") if a.get("role") == "region")
    assert (region["tabindex"], region["aria-label"]) == ("0", "Table: two words")


@pytest.mark.parametrize("word", [*STATES, "Failed"])
def test_states_are_words_with_a_badge(word: str) -> None:
    elements = table_of(word, f"{word} again")
    badges = [a["class"] for a in elements.of("strong")]
    assert badges == [f"badge {STATES[word.lower()]}"]
    assert word in elements.text


# ---------------------------------------------------------------------- pictures
def test_an_svg_stands_in_the_page(page: str) -> None:
    elements = Elements(page)
    drawings = list(elements.of("svg"))
    assert [(a["role"], a["aria-label"]) for a in drawings] == [
        ("group", "Time against duration"),
        ("img", "Spectrograms"),
    ]
    marks = [a for a in elements.of("circle") if a.get("class") == "mark"]
    assert len(marks) == 12
    assert marks[0]["aria-label"] == "mlx_cpu, 1 s: 2 ms & <more>"


def test_a_picture_without_an_svg_is_embedded(page: str) -> None:
    (image,) = Elements(page).of("img")
    assert image["src"].startswith("data:image/png;base64,iVBOR")
    assert image["alt"] == "Without an SVG"


def test_a_picture_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        page_of(Picture("x", "alt", "plots/x.png"), folder=tmp_path)


# ---------------------------------------------------------------------- style
def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_contrast_in_both_themes() -> None:
    """WCAG AA: 4.5 to 1 for every text on every ground that it stands on."""
    blocks = re.findall(r":root[^{]*\{([^}]*--ink[^}]*)\}", (PAGE / "style.css").read_text())
    themes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks]
    assert len(themes) == 3
    assert themes[1] == themes[2]
    pairs = [(text, ground) for text in ("ink", "muted", "accent") for ground in ("paper", "surface")]
    pairs += [(name, f"{name}-ground") for name in set(STATES.values())]
    for theme in themes:
        for text, ground in pairs:
            low, high = sorted(luminance(theme[name]) for name in (text, ground))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground, theme[text])


# ---------------------------------------------------------------------- in a browser
@pytest.fixture(scope="module")
def checker() -> ModuleType:
    if check_page.find_browser() is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    return check_page


def test_the_page_works_on_a_screen_and_on_a_phone(
    checker: ModuleType, tmp_path: Path, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    code = checker.main([str(path), "--shots", str(tmp_path / "shots")])
    told = capsys.readouterr().out
    assert code == 0, told
    assert "390 px: table wide, column figure 0 ms: sorts" in told
    assert "390 px: tooltip on focus: mlx_cpu, 1 s: 2 ms & <more>" in told
    assert len(list((tmp_path / "shots").glob("*.png"))) == 4


@pytest.mark.parametrize(
    "faults",
    [
        # which do not touch each other, in one start of the browser
        [
            ("<main", '<main style="width: 2000px"', "beyond the edge"),
            ("body.append(...rows)", "body.append(...original)", "not sorted"),
            ("tip.hidden = false", "tip.hidden = true", "no tooltip under the pointer"),
        ],
        [("figure svg {", "figure svg { display: none !important;", "figures without a size")],
        [("const root", "nowhere(); const root", "console: ReferenceError")],
    ],
    ids=["layout, sorting and tooltips", "figures", "script"],
)
def test_the_checks_find_what_is_broken(
    checker: ModuleType, tmp_path: Path, page: str, capsys: pytest.CaptureFixture[str], faults: list[tuple[str, ...]]
) -> None:
    # an edited script is another one for the policy, so without it
    page = re.sub(r"<meta http-equiv[^>]*>", "", page)
    for old, new, _ in faults:
        assert old in page
        page = page.replace(old, new)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    assert checker.main([str(tmp_path / "report.html"), "--widths", "390"]) == 1
    told = capsys.readouterr().out
    assert all(text in told for *_, text in faults)


def test_without_a_browser_or_a_page_the_check_says_so(
    checker: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checker.main([str(tmp_path / "none.html")]) == 2
    monkeypatch.setattr(checker, "BROWSERS", ())
    assert checker.main([str(tmp_path / "none.html")]) == 2
    assert capsys.readouterr().err.splitlines()[1] == "error: no Chromium or Chrome found"
