"""In: rows of cases. Out: a figure of them (Figure 3 of the paper) as one HTML file, or as PDF in vectors."""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dashboard.services.cases import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas
    from matplotlib.font_manager import FontProperties

SIGNS = {"found": "✓", "missed": "○", "invented": "+", "opposite": "⇄"}
WORDS = {
    "found": "found: the reference says it too",
    "missed": "missed",
    "invented": "invented: the reference does not mention it",
    "opposite": "opposite of the reference",
}
# Okabe and Ito's hues, dark enough for 4.5:1 on white paper.
INKS = {"found": "#00704f", "missed": "#005f9e", "invented": "#a84300", "opposite": "#8f3f75"}
LINES = {"found": "solid", "missed": "none", "invented": "wavy", "opposite": "double"}
RESEARCH = "Research use only. Not for use in diagnostic procedures."
_BOLD = ("positive", "uncertain")

LEGEND = (
    "<div style='display:flex;flex-wrap:wrap;gap:.15rem 1rem;font-size:.8rem' role='note' aria-label='Legend'>"
    + "".join(
        f"<span><b style='color:{colour}'>{SIGNS[kind]}</b> {WORDS[kind]}</span>"
        for kind, colour in {
            "found": "#0a9e76",
            "missed": "#3f97d3",
            "invented": "#dd6a14",
            "opposite": "#c0649a",
        }.items()
    )
    + "<span><b>bold</b>: said to be there, or perhaps there</span></div>"
)


@dataclass(frozen=True, slots=True)
class Figure:
    """What is drawn.

    Attributes:
        source: what the studies are.
        columns: titles of the pairs.
        bundles: which bundles wrote the reports, with their hashes.
        rows: studies; each has a cell a column.
        question: how the studies were found.
        credit: what must stand beside the images; "" where nothing must.
    """

    source: str
    columns: Sequence[str]
    bundles: Sequence[str]
    rows: Sequence[Row]
    question: str
    credit: str = ""

    @property
    def referenced(self) -> bool:
        """Whether there is a column of references."""
        return any(row.reference is not None for row in self.rows)

    @property
    def heads(self) -> tuple[str, ...]:
        """Titles of all columns."""
        return ("Study", *(["Reference"] if self.referenced else []), *self.columns)

    @property
    def caption(self) -> list[str]:
        """Lines under the figure."""
        studies = "1 study" if len(self.rows) == 1 else f"{len(self.rows)} studies"
        return [
            f"{studies} ({self.source}; {self.question}). Findings are read from the reports by rules. {RESEARCH}",
            f"Bundles: {', '.join(self.bundles)}.",
            *([f"Images: {self.credit}."] if self.credit else []),
        ]


# ------------------------------------------------------------------------------------------------------------- HTML


_STYLE = """
body { font: 13px/1.45 Inter, "DejaVu Sans", Arial, sans-serif; color: #111; background: #fff; margin: 1.2rem; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { text-align: left; vertical-align: top; padding: .4rem .55rem; border-bottom: 1px solid #bbb; }
th:first-child, td:first-child { width: 8.5rem; }
img { width: 7.5rem; display: block; background: #000; }
tr { break-inside: avoid; }
small, footer { color: #444; font-size: 11px; }
mark { color: inherit; background: none; text-underline-offset: .2em; }
.bold { font-weight: 700; }
.missed-list { font-size: 12px; }
""" + "".join(
    f".{kind} {{ color: {ink}; text-decoration: underline {LINES[kind]} {ink}; }}\n"
    if LINES[kind] != "none"
    else f".{kind} {{ color: {ink}; }}\n"
    for kind, ink in INKS.items()
)


def _marked(piece: Mapping[str, Any]) -> str:
    text = html.escape(piece["text"])
    if "observation" not in piece:
        return text
    outcome = piece.get("outcome", "")
    words = html.escape(f"{piece['observation']}: {outcome or piece['state']}", quote=True)
    bold = " bold" if piece["state"] in _BOLD else ""
    return f'<mark class="{outcome}{bold}" title="{words}">{SIGNS.get(outcome, "")}{text}</mark>'


def _missed(names: Sequence[str]) -> str:
    if not names:
        return ""
    listed = ", ".join(f"{SIGNS['missed']}{html.escape(name)}" for name in names)
    return f'<p class="missed-list">Missed: <span class="missed">{listed}</span></p>'


def to_html(figure: Figure) -> bytes:
    """The figure as one HTML file that needs no other."""
    head = "".join(f"<th>{html.escape(title)}</th>" for title in figure.heads)
    body = []
    for row in figure.rows:
        study = f"<b>{html.escape(row.study_id)}</b><br><small>{html.escape(row.about)}</small>"
        if row.picture is not None:
            picture = base64.b64encode(row.picture).decode()
            study = f'<img alt="Radiograph" src="data:image/jpeg;base64,{picture}">{study}'
        cells = ["".join(map(_marked, row.reference or ()))] if figure.referenced else []
        cells += ["".join(map(_marked, cell.pieces)) + _missed(cell.missed) for cell in row.cells]
        body.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in (study, *cells)) + "</tr>")
    kinds = SIGNS if figure.referenced else ()
    legend = "".join(f'<span class="{kind}">{SIGNS[kind]} {WORDS[kind]}</span> · ' for kind in kinds)
    caption = "<br>".join(map(html.escape, figure.caption))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>CXR Lens: reports side by side</title>'
        f"<style>{_STYLE}</style><p><small>{legend}<b>bold</b>: said to be there, or perhaps there</small></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
        f"<footer><p>{caption}</p></footer></html>"
    ).encode()


# -------------------------------------------------------------------------------------------------------------- PDF

# In points, 1/72 inch.
_SIZE = 7.0
_LEADING = 9.6
_PICTURE = 92.0
_COLUMN = 150.0
_GAP = 12.0
_MARGIN = 28.0
_TALLEST = 842.0 - 2 * _MARGIN  # of A4

Stretch = tuple[str, bool, str]  # text, whether it is bold, its outcome or ""


def _stretches(pieces: Sequence[Mapping[str, Any]]) -> list[Stretch]:
    return [
        (
            SIGNS.get(piece.get("outcome", ""), "") + piece["text"],
            piece.get("state") in _BOLD,
            piece.get("outcome", ""),
        )
        for piece in pieces
    ]


def _wrapped(stretches: Sequence[Stretch], width: float) -> list[list[tuple[float, Stretch]]]:
    """Break a text into lines, at spaces only: of each (left edge, stretch), in points."""
    words: list[list[Stretch]] = []  # each of the parts that stand together, as a marked word and its comma
    gap = True
    for text, bold, outcome in stretches:
        gap = gap or text[:1].isspace()
        for part in text.split():
            if gap:
                words.append([])
            words[-1].append((part, bold, outcome))
            gap = True
        gap = text[-1:].isspace()
    lines: list[list[tuple[float, Stretch]]] = [[]]
    left = 0.0
    for word in words:
        space = _advance(" ", bold=word[0][1]) if left else 0.0
        if left and left + space + sum(_advance(text, bold=bold) for text, bold, _ in word) > width:
            lines.append([])
            left = space = 0.0
        for index, (text, bold, outcome) in enumerate(word):
            line, between = lines[-1], " " if space and not index else ""
            if line and line[-1][1][1:] == (bold, outcome):
                start, (before, *_) = line[-1]  # words of one look are one text, to be searched and copied as such
                line[-1] = (start, (f"{before}{between}{text}", bold, outcome))
            else:
                line.append((left + (0.0 if index else space), (text, bold, outcome)))
            left += (0.0 if index else space) + _advance(text, bold=bold)
    return lines


@functools.cache
def _font(*, bold: bool) -> FontProperties:
    from matplotlib.font_manager import FontProperties

    return FontProperties("DejaVu Sans", weight="bold" if bold else "normal", size=_SIZE)


@functools.lru_cache(20_000)
def _advance(text: str, *, bold: bool) -> float:
    """Width of a text with its spaces, points; matplotlib measures ink, so between two bars."""
    from matplotlib.textpath import text_to_path

    def ink(text: str) -> float:
        return float(text_to_path.get_text_width_height_descent(text, _font(bold=bold), ismath=False)[0])

    return ink(f"|{text}|") - ink("||")


def to_pdf(figure: Figure) -> bytes:
    """The figure as PDF: text that can be searched, a page as wide as its columns and no taller than A4."""
    from matplotlib.backends.backend_pdf import PdfPages

    laid = [_laid(row, referenced=figure.referenced) for row in figure.rows]
    width = 2 * _MARGIN + _PICTURE + (_GAP + _COLUMN) * (len(figure.heads) - 1)
    inner = width - 2 * _MARGIN
    kinds = SIGNS if figure.referenced else ()
    legend = [each for kind in kinds for each in ((f"{SIGNS[kind]} {WORDS[kind]} ", False, kind), ("   ", False, ""))]
    top = _wrapped([*legend, ("bold:", True, ""), (" said to be there, or perhaps there", False, "")], inner)
    foot = [line for text in figure.caption for line in _wrapped([(text, False, "")], inner)]
    frame = (len(top) + len(foot) + 3) * _LEADING
    out = io.BytesIO()
    from matplotlib import rc_context

    with rc_context({"pdf.fonttype": 42}), PdfPages(out, metadata={"Title": "CXR Lens: reports side by side"}) as file:
        for part in _pages([height for _, height in laid], _TALLEST - frame):
            height = 2 * _MARGIN + frame + sum(laid[index][1] for index in part)
            page = _Page(width, height)
            y = page.lines(_MARGIN, _MARGIN, top) + _LEADING
            for n, title in enumerate(figure.heads):
                page.lines(_left(n), y, _wrapped([(title, True, "")], _COLUMN))
            y += 1.6 * _LEADING
            for index in part:
                page.rule(y - 0.75 * _LEADING)
                row, (columns, tall) = figure.rows[index], laid[index]
                offset = 0.0
                if row.picture is not None:
                    page.picture(row.picture, _MARGIN, y - 0.3 * _LEADING)
                    offset = _PICTURE + 0.6 * _LEADING
                for n, lines in enumerate(columns):
                    page.lines(_left(n), y + (offset if n == 0 else 0.0), lines)
                y += tall
            page.rule(y - 0.75 * _LEADING)
            page.lines(_MARGIN, y, foot)
            file.savefig(page.canvas)
    return out.getvalue()


def _left(column: int) -> float:
    return _MARGIN if column == 0 else _MARGIN + _PICTURE + _GAP + (column - 1) * (_COLUMN + _GAP)


def _laid(row: Row, *, referenced: bool) -> tuple[list[list[list[tuple[float, Stretch]]]], float]:
    """Lines of each column of a row, and the row's height."""
    study = [(f"{row.study_id} ", True, ""), (row.about, False, "")]
    columns = [_wrapped(study, _PICTURE)]
    if referenced:
        columns.append(_wrapped(_stretches(row.reference or ()), _COLUMN))
    for cell in row.cells:
        lines = _wrapped(_stretches(cell.pieces), _COLUMN)
        if cell.missed:
            missed = [("Missed: ", False, ""), (", ".join(SIGNS["missed"] + n for n in cell.missed), False, "missed")]
            lines += _wrapped(missed, _COLUMN)
        columns.append(lines)
    own = len(columns[0]) * _LEADING + (_PICTURE + 0.6 * _LEADING if row.picture is not None else 0.0)
    return columns, max(own, *(len(lines) * _LEADING for lines in columns[1:])) + _LEADING


def _pages(heights: Sequence[float], room: float) -> Iterator[list[int]]:
    """Share rows among pages; a row that is taller than a page has one of its own."""
    page: list[int] = []
    used = 0.0
    for index, height in enumerate(heights):
        if page and used + height > room:
            yield page
            page, used = [], 0.0
        page.append(index)
        used += height
    yield page


class _Page:
    """A sheet measured in points from its upper left corner."""

    canvas: Canvas

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure as Canvas

        self.width, self.height = width, height
        self.canvas = Canvas(figsize=(width / 72, height / 72))

    def lines(self, x: float, y: float, lines: Sequence[Sequence[tuple[float, Stretch]]]) -> float:
        """Write lines, the first one's baseline at y + its size; returns the y below them."""
        for line in lines:
            for left, (text, bold, outcome) in line:
                self._write(x + left, y + _SIZE, text, bold, outcome)
            y += _LEADING
        return y

    def _write(self, x: float, y: float, text: str, bold: bool, outcome: str) -> None:
        ink = INKS.get(outcome, "#111111")
        self.canvas.text(
            x / self.width, 1 - y / self.height, text, fontproperties=_font(bold=bold), color=ink, parse_math=False
        )
        kind = LINES.get(outcome, "none")
        if kind == "none":
            return
        end = x + _advance(text, bold=bold)
        if kind == "wavy":
            from math import ceil

            count = max(ceil((end - x) / 1.5), 2)
            xs = [x + (end - x) * n / count for n in range(count + 1)]
            self._line(xs, [y + 1.5 + (0.5 if n % 2 else -0.5) for n in range(count + 1)], ink)
            return
        for below in (1.3, 2.4) if kind == "double" else (1.5,):
            self._line([x, end], [y + below] * 2, ink)

    def _line(self, xs: Sequence[float], ys: Sequence[float], colour: str) -> None:
        from matplotlib.lines import Line2D

        self.canvas.add_artist(
            Line2D([x / self.width for x in xs], [1 - y / self.height for y in ys], color=colour, linewidth=0.5)
        )

    def rule(self, y: float) -> None:
        """A thin line across the sheet."""
        self._line([_MARGIN, self.width - _MARGIN], [y, y], "#aaaaaa")

    def picture(self, content: bytes, x: float, y: float) -> None:
        """A picture of a study, its upper left corner at (x, y)."""
        import numpy as np
        from PIL import Image

        size = (_PICTURE / self.width, _PICTURE / self.height)
        axes = self.canvas.add_axes((x / self.width, 1 - (y + _PICTURE) / self.height, *size))
        axes.imshow(np.asarray(Image.open(io.BytesIO(content)).convert("L")), cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
