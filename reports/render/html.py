"""A document as one self-contained HTML page; only audio is linked. ``write``: beside it the same as markdown.

The page reads without a script; the script adds sorting, tooltips, the choice of the theme and copying.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from suites.base.files import write_whole
from suites.gate.judge import FAILED, MEANING, PASSED, UNJUDGED, WORDS

from . import document as doc
from . import markdown

PAGE = Path(__file__).parent / "page"
BADGES = {PASSED: "good", FAILED: "bad", UNJUDGED: "warn"}
# state and CSS class of its badge: verdicts of gates, records, runs and traces
STATES = {
    **{WORDS.get(verdict, verdict): BADGES[meaning] for verdict, meaning in MEANING.items()},
    "too noisy": "off",
    "not confirmed": "off",
    "new": "off",
    "incomplete": "warn",
    "not_comparable": "warn",
    "not measured": "warn",
    "skipped": "off",
    "ok": "good",
    "same code": "off",
    "at fault": "bad",
    "reference wrong": "warn",
    "inherited": "off",
}
# most sources in a tooltip
MOST_SOURCES = 3
# more reasons than this are folded
MOST_REASONS = 8
# characters above which a cell wraps
LONG = 44
# characters up to which a heading stays on one line
SHORT = 16
# rows from which on a table scrolls under a fixed head
TALL = 30
# columns from which on it is printed in landscape
WIDE = 9

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
<script>{script}</script>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header class="top"><h1>{title}</h1></header>
<div class="columns">
{contents}
<main id="content" tabindex="-1">
{body}
</main>
</div>
</body>
</html>
"""

# fixed text contains these marks of markdown
_CODE = r"`(?P<code>[^`]+)`"
_STRONG = r"\*\*(?=\S)(?P<strong>[^*]+?)(?<=\S)\*\*"
_EMPHASIS = r"(?<![\w*])\*(?=\S)(?P<em>[^*]+?)(?<=\S)\*(?![\w*])"
_MARKS = re.compile(f"{_CODE}|{_STRONG}|{_EMPHASIS}")
# recorded text may contain literal asterisks: only code is marked up
_CODE_ONLY = re.compile(_CODE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def write(document: doc.Document, folder: Path, name: str = "report") -> Path:
    """``name``.md and ``name``.html in the folder that holds the document's pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.md"
    write_whole(path, markdown.render(document))
    write_whole(folder / f"{name}.html", render(document, folder))
    return path


def render(document: doc.Document, folder: Path) -> str:
    """The page; pictures without an SVG are read from ``folder``, the one that the page will be in.

    The same document gives the same bytes.

    Raises ``FileNotFoundError``: a picture has no SVG, and its PNG is not in the folder."""
    style, script = ("\n" + (PAGE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    anchors = _anchors([section.title for section in document.sections])
    sections = [_section(section, anchor, folder) for section, anchor in zip(document.sections, anchors, strict=True)]
    return TEMPLATE.format(
        policy=_policy(script),
        title=escape(document.title),
        style=style,
        script=script,
        contents=_contents(document.sections, anchors),
        body="\n".join(sections),
    )


def _policy(script: str) -> str:
    """Nothing is loaded from anywhere, and no script runs but this one.

    Styles must stay free: figures carry theirs in attributes. ``file:`` is for pages opened from a disk, where
    browsers disagree on what ``'self'`` means.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )


# ---------------------------------------------------------------------- structure
def _anchors(titles: Sequence[str]) -> list[str]:
    """Names made of the titles, each once; ``content`` is the page's own."""
    plain = [unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower() for title in titles]
    slugs = [re.sub(r"[^a-z0-9]+", "-", title).strip("-") or "section" for title in plain]
    return doc.distinct(["content", *slugs], "-{}")[1:]


def _contents(sections: Sequence[doc.Section], anchors: Sequence[str]) -> str:
    """The table of contents; subsections are a list within their section's item."""
    items: list[tuple[str, list[str]]] = []
    for section, anchor in zip(sections, anchors, strict=True):
        link = f'<a href="#{anchor}">{escape(section.title)}</a>'
        if section.level > 2 and items:
            items[-1][1].append(f"<li>{link}</li>")
        else:
            items.append((link, []))
    lines = [f"<li>{link}" + (f"<ol>{''.join(inner)}</ol>" if inner else "") + "</li>" for link, inner in items]
    head = '<nav class="contents" aria-label="Contents"><details open><summary>Contents</summary>\n<ol>'
    return "\n".join([head, *lines, "</ol></details></nav>"])


def _section(section: doc.Section, anchor: str, folder: Path) -> str:
    tag = f"h{min(max(section.level, 2), 6)}"
    heading = f'<{tag} id="{anchor}">{escape(section.title)}</{tag}>'
    return "\n".join(["<section>", heading, *(_block(block, folder) for block in section.blocks), "</section>"])


def _block(block: doc.Block, folder: Path) -> str:
    if isinstance(block, doc.Paragraph):
        return f"<p>{_text(block.text)}</p>"
    if isinstance(block, doc.Bullets):
        return "\n".join(["<ul>", *(f"<li>{_text(item)}</li>" for item in block.items), "</ul>"])
    if isinstance(block, doc.Command):
        return f'<div class="command"><pre tabindex="0"><code>{escape(block.text)}</code></pre></div>'
    if isinstance(block, doc.Picture):
        return _picture(block, folder)
    return _table(block)


def _text(cell: doc.Cell) -> str:
    return "".join(_inline(inline) for inline in doc.inlines(cell))


def _inline(inline: doc.Inline) -> str:
    if isinstance(inline, doc.Num):
        return f'<span class="num"{_title(_about(inline))}>{_marked(inline.text, _CODE_ONLY)}</span>'
    if isinstance(inline, doc.Absent):
        return _absent(inline)
    if isinstance(inline, doc.Code):
        return f"<code>{escape(inline.text)}</code>"
    if isinstance(inline, doc.Link):
        return _link(inline)
    return _marked(inline, _MARKS)


def _marked(text: str, marks: re.Pattern[str]) -> str:
    """Escaped, with code, strong words and emphasis as elements; line breaks are kept."""
    parts, end = [], 0
    for match in marks.finditer(text):
        parts += [escape(text[end : match.start()]), _element(match, marks)]
        end = match.end()
    return "".join([*parts, escape(text[end:])]).replace("\n", "<br>")


def _element(match: re.Match[str], marks: re.Pattern[str]) -> str:
    tag, inner = str(match.lastgroup), str(match[str(match.lastgroup)])
    if tag == "code":
        return f"<code>{escape(inner)}</code>"
    if tag == "strong" and inner.lower() in STATES:
        return _badge(inner)
    return f"<{tag}>{_marked(inner, marks)}</{tag}>"


def _badge(text: str) -> str:
    """A state as a badge; colour and symbol come from the style sheet."""
    return f'<strong class="badge {STATES[text.lower()]}">{escape(text)}</strong>'


def _title(text: str) -> str:
    return f' title="{escape(text)}"' if text else ""


def _about(number: doc.Num) -> str:
    """Text of a number's tooltip: more digits, the interval, and the sources."""
    lines = []
    if number.value is not None:
        lines.append(f"value {number.value:.6g}")
        if number.low is not None and number.high is not None:
            lines[0] += f", interval {number.low:.6g} to {number.high:.6g}"
    return "\n".join([*lines, *_sources(number.sources)])


def _sources(sources: Sequence[str]) -> Iterator[str]:
    yield from (f"from {source}" for source in sources[:MOST_SOURCES])
    if len(sources) > MOST_SOURCES:
        yield f"and {len(sources) - MOST_SOURCES} more"


def _absent(absent: doc.Absent) -> str:
    reason = absent.reason.replace("`", "")
    spoken = f"none: {reason}" if reason else "none"
    dash = f'<span aria-hidden="true">{doc.DASH}</span><span class="hidden">{escape(spoken)}</span>'
    return f'<span class="none"{_title(reason)}>{dash}</span>'


def _link(link: doc.Link) -> str:
    """A link, with a player for audio; plain text where the target is neither relative nor HTTP."""
    text, scheme = escape(link.text), _SCHEME.match(link.target)
    if scheme:
        if scheme[0].lower() not in ("http:", "https:"):
            return text
        return f'<a href="{escape(link.target)}" rel="noreferrer">{text}</a>'
    if not re.search(r"(^|/)audio/[^/]+\.wav$", link.target):
        return f'<a href="{escape(quote(link.target, safe="/#?=&;,+~%"))}">{text}</a>'
    target = escape(quote(link.target))
    player = f'<audio controls preload="none" src="{target}" aria-label="{text}"></audio>'
    return f'<span class="sound"><a href="{target}">{text}</a> {player}</span>'


def _table(table: doc.Table) -> str:
    """A table in a box that scrolls: a wide one must not widen the page."""
    about = f"<p>{_text(table.about)}</p>\n" if table.about else ""
    css = (" tall" if len(table.rows) >= TALL else "") + (" wide" if len(table.header) >= WIDE else "")
    name = escape(table.name.replace("-", " ").replace("_", " "))
    head = "".join(_header(text, i >= table.left) for i, text in enumerate(table.header))
    rows = ["<tr>" + "".join(_cell(c, i, table.left) for i, c in enumerate(row)) + "</tr>" for row in table.rows]
    lines = [
        f'{about}<div class="scroll table{css}" tabindex="0" role="region" aria-label="Table: {name}">',
        f'<table data-name="{escape(table.name)}">',
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody></table></div>",
    ]
    return "\n".join([*lines, *_reasons(table.absences())])


def _header(text: str, right: bool) -> str:
    """A heading; an empty corner is an ordinary cell."""
    names = (["n"] if right else []) + (["short"] if len(text) <= SHORT else [])
    css = f' class="{" ".join(names)}"' if names else ""
    return f'<th scope="col"{css}>{_marked(text, _MARKS)}</th>' if text else f"<td{css}></td>"


def _cell(cell: doc.Cell, column: int, left: int) -> str:
    """A cell; the first column is the row's heading, if it is text."""
    parts, words = doc.inlines(cell), doc.words_of(doc.inlines(cell)).strip()
    number = next((i for i in parts if not (isinstance(i, str) and not i.strip())), None)
    value = _sortable(number) if isinstance(number, doc.Num) else ""
    css = ["n"] if column >= left else []
    css += ["long"] if len(words) > LONG else []
    attributes = f' class="{" ".join(css)}"' if css else ""
    attributes += f' data-v="{value}"' if value else ""
    nothing = any(isinstance(i, doc.Absent) for i in parts) and not any(isinstance(i, doc.Num) for i in parts)
    attributes += " data-none" if nothing or words in ("", doc.DASH) else ""
    inner = _state(cell) or _text(cell)
    return f'<th scope="row"{attributes}>{inner}</th>' if column == 0 and left else f"<td{attributes}>{inner}</td>"


def _sortable(number: doc.Num) -> str:
    """The value that the script sorts by; empty where there is none."""
    if number.value is None or math.isnan(number.value):
        return ""
    if math.isinf(number.value):
        return "Infinity" if number.value > 0 else "-Infinity"
    return repr(float(number.value))


def _state(cell: doc.Cell) -> str:
    """The badge, where the cell is nothing but the name of a state."""
    parts = doc.inlines(cell)
    if len(parts) != 1 or not isinstance(parts[0], str | doc.Num):
        return ""
    text = parts[0] if isinstance(parts[0], str) else parts[0].text
    if text.lower() not in STATES:
        return ""
    return _badge(text) if isinstance(parts[0], str) else f"<span{_title(_about(parts[0]))}>{_badge(text)}</span>"


def _reasons(reasons: Sequence[str]) -> Iterator[str]:
    """Reasons for absent figures; many of them are folded."""
    texts = [_marked(reason, _CODE_ONLY) for reason in reasons]
    if len(texts) > MOST_REASONS:
        items = "".join(f"<li>{text}</li>" for text in texts)
        yield f'<details class="note"><summary>{doc.DASH}: {len(texts)} reasons</summary><ul>{items}</ul></details>'
    elif texts:
        yield f'<p class="note">{doc.DASH}: {"; ".join(texts)}.</p>'


def _picture(picture: doc.Picture, folder: Path) -> str:
    alt = escape(picture.alt)
    inner = _svg(picture) if picture.svg else _png(picture, folder)
    title = _title("\n".join(_sources(picture.sources)))
    return (
        f'<figure data-name="{escape(picture.name)}"><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Figure: {alt}">{inner}</div>\n<figcaption{title}>{alt}</figcaption></figure>'
    )


def _svg(picture: doc.Picture) -> str:
    """The inline drawing. With marks its role is a group: the content of an image is not accessible."""
    svg = picture.svg[picture.svg.index("<svg") :].rstrip()
    role = "group" if 'class="mark"' in svg else "img"
    box = re.search(r'<svg[^>]*? viewBox="[-\d.]+ [-\d.]+ ([\d.]+)', svg)
    # the style limits scaling by the natural width, so that a wide figure stays readable on a phone
    width = f' style="--natural: {float(box[1]):g}"' if box else ""
    return svg.replace("<svg", f'<svg role="{role}" aria-label="{escape(picture.alt)}"{width}', 1)


def _png(picture: doc.Picture, folder: Path) -> str:
    data = base64.b64encode((folder / picture.path).read_bytes()).decode()
    return f'<img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}">'
