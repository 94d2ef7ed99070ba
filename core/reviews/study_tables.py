"""The tables of a closed session as one Markdown file: what `report.html` tells, without charts and cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.reviews.analysis import Analysis
from core.reviews.answers import Results
from core.reviews.effects import Difference
from core.reviews.record import Record
from core.reviews.reliability import scale_agreement
from core.reviews.report_page import Section, readers_of, sections_of
from core.reviews.titles import titles_of


def tables_as_markdown(
    results: Results, analysis: Analysis, compared: Sequence[Difference], record: Record, notes: Iterable[str] = ()
) -> str:
    """Write the figures of a session as tables.

    Args:
        results: of a closed session.
        analysis: of the same.
        compared: `effects.differences` of the same.
        record: of the same.
        notes: sentences below the title.
    """
    titles = titles_of(sorted({model for texts in results.reports.values() for model in texts}))
    sections = sections_of(results, analysis, compared, scale_agreement(results), titles)
    studies, screens = results.screens["study"].nunique(), len(results.screens)
    head = (
        f"{results.rubric.title}. {studies} studies, {screens} screens. Answered differently by first readers: "
        f"{analysis.disputed} questions, of which a third reader settled {analysis.settled}."
    )
    lines = [f"# {results.design['title']}", "", *(line for note in notes for line in (note, "")), head, ""]
    for section in (readers_of(results, record), *sections):
        lines += _as_markdown(section)
    return "\n".join(lines)


def _as_markdown(section: Section) -> list[str]:
    rows = [section.head, ["---"] * len(section.head), *section.rows]
    table = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return [f"## {section.title}", "", *([section.text, ""] if section.text else []), *table, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
