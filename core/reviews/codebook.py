"""What every column of the exported files means: `codebook.md` for people, `codebook.schema.json` for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from core.bundles.card import INTENDED_USE
from core.reviews.answers import Results
from core.wording import counted

ColumnType = Literal[
    "text", "number", "whole number", "yes or no", "yes or no or nothing", "date", "list", "table", "any"
]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: what its values are, and what they mean."""

    type: ColumnType
    meaning: str


_SCREEN = Column("text", "Id of the screen: what one reader saw at once.")
_READER = Column("text", "Name of the reader.")
_POSITION = Column("whole number", "Place of the screen in the order of this reader, from 0.")
_STUDY = Column("text", "Id of the study that the radiograph is of; in models the case.")
_SYSTEM = Column("text", "Name of the system that wrote the report; see the file reports. Empty: the whole case.")
_REPEAT = Column("yes or no", "The reader had seen the same before; left out of all figures but those of this.")
_THIRD = Column("yes or no", "Read by a third reader, who settles what others answered differently.")
_QUESTION = Column(
    "text",
    "What was asked: a kind of error, or 'all kinds'; two systems that were compared; an observation; from which to "
    "which character of the report the sentence is; or the question's id in the rubric, with the sentence, item or "
    "option.",
)
_VALUE = Column(
    "any",
    "The answer: clinically significant errors of this kind; the preferred system, or 'tie'; the state of an "
    "observation; the place on a scale; an option; 'yes' or 'no' to one of several; marks of this kind; or 'cannot "
    "judge'.",
)
_ASKED = Column("text", "The question in words; of a sentence, the sentence.")
_ANSWERED = Column("text", "The answer in words.")
_TEXT = Column("text", "The report as it was shown, whole. Characters of spans are counted in it, from 0.")

TABLES: Mapping[str, tuple[str, Mapping[str, Column]]] = {
    "marks": (
        "One row a mark that stands: what a reader marked or answered.",
        {
            "screen": _SCREEN,
            "reader": _READER,
            "position": _POSITION,
            "study": _STUDY,
            "report": Column("text", "Letter under which the reader saw the report; empty: the whole case."),
            "model": _SYSTEM,
            "kind": Column("text", "Kind of the mark; it belongs to the rubric."),
            "value": Column(
                "table",
                "The mark as it was stored. 'span': first character, and the one after the last, in the report's text; "
                "'region': left, top, right, bottom in fractions of the image.",
            ),
            "version": Column("whole number", "How often the mark was changed, from 1."),
            "repeat": _REPEAT,
            "words": Column("text", "The words of the report that were marked; empty: no words, as of an omission."),
            "date": Column("date", "When the mark was last changed."),
        },
    ),
    "screens": (
        "One row a screen, read or not: what was shown, what became of it, and how long it took.",
        {
            "screen": _SCREEN,
            "reader": _READER,
            "position": _POSITION,
            "study": _STUDY,
            "shown": Column("list", "Letter and system of each report, in the order shown."),
            "repeat": _REPEAT,
            "adjudication": _THIRD,
            "state": Column("text", "'done', 'skipped', or 'pending': not finished, and not in the figures."),
            "skip_reason": Column("text", "Why it was skipped, in the reader's words."),
            "flagged": Column("yes or no", "The reader wants the researcher to look at it."),
            "comment": Column("text", "In the reader's words."),
            "seconds": Column("number", "Of reading: page in sight, something done in the last minute."),
            "finished": Column("whole number", "Number of the event that finished it: their order. 0: not finished."),
            "image_sha256": Column("text", "Hash of the image, 512 pixels wide and high, 8 bits; see docs/reviews.md."),
            "bundles": Column("table", "Hash of what wrote each report, by system."),
            "software": Column("text", "Version of CXR Lens that made the screen."),
            "opened_at": Column("date", "When the reader first opened it."),
            "finished_at": Column("date", "When it was done or skipped."),
        },
    ),
    "answers": (
        "One row a question that was answered on a finished screen: the long table that figures and models are of.",
        {
            "screen": _SCREEN,
            "reader": _READER,
            "position": _POSITION,
            "study": _STUDY,
            "model": _SYSTEM,
            "question": _QUESTION,
            "value": _VALUE,
            "repeat": _REPEAT,
            "adjudication": _THIRD,
            "asked": _ASKED,
            "answered": _ANSWERED,
            "number": Column("number", "The answer as a number; nothing where it is a word."),
            "seconds": Column("number", "Of reading, of the whole screen: the same in all its rows."),
        },
    ),
    "settled": (
        "One row a question: what all first readers answered, else what the third reader did.",
        {
            "study": _STUDY,
            "model": _SYSTEM,
            "question": _QUESTION,
            "value": Column("any", _VALUE.meaning + " Nothing: it was not settled."),
            "disputed": Column("yes or no", "First readers answered differently."),
            "asked": _ASKED,
            "answered": Column("text", "The answer in words; 'not settled' where there is none."),
        },
    ),
    "reports": (
        "One row a report that was shown or could have been: the words that spans are of.",
        {
            "study": _STUDY,
            "model": _SYSTEM,
            "title": Column("text", "What the system is called in report.html."),
            "text": _TEXT,
        },
    ),
    "studies": (
        "One row a study: what readers saw beside the image.",
        {"study": _STUDY},
    ),
    "edits": (
        "One row a finished screen on which a report was edited: from which draft, how, and into what.",
        {
            "screen": _SCREEN,
            "reader": _READER,
            "position": _POSITION,
            "sitting": Column("whole number", "Which sitting of the reader it was, from 1."),
            "study": _STUDY,
            "arm": Column("text", "What the reader began from: 'no draft', 'template', or the system that wrote it."),
            "seconds": Column("number", "On the screen: page in sight, something done in the last minute."),
            "typing": Column("number", "Seconds from the first key to the last; breaks of over ten minutes left out."),
            "to_first_key": Column("number", "Seconds from opening the editor to the first key; nothing without one."),
            "bouts": Column("whole number", "How often typing began: anew after a break, or on opening it again."),
            "pauses": Column("whole number", "Times without a key for two seconds or more, between first and last."),
            "paused": Column("number", "Seconds of these pauses; they are part of typing."),
            "inserted": Column("whole number", "Characters typed, dictated or pasted."),
            "deleted": Column("whole number", "Characters taken out."),
            "not_counted": Column(
                "whole number", "Stretches of typing left out, as their times were impossible (a clock had jumped)."
            ),
            "draft_words": Column("whole number", "Of the draft."),
            "words": Column("whole number", "Of the report."),
            "words_changed": Column("whole number", "Fewest words to insert, delete or replace between the two."),
            "draft_errors": Column("number", "Observations that the draft says otherwise than the reference."),
            "errors_left": Column("number", "The same of the report. Nothing: there is no reference."),
            "planted": Column("text", "Kind of the error that was put into the draft; empty: none was."),
            "caught": Column("yes or no or nothing", "The report is without that error; nothing: there was none."),
            "draft": Column("text", "The draft as it was shown, whole."),
            "text": Column("text", "The report that the reader made of it, whole."),
        },
    ),
    "amendments": (
        "One row a change of the session's design, readers, access or state, from its making on.",
        {
            "date": Column("date", "When it was changed."),
            "by": Column("text", "Who changed it."),
            "what": Column("text", "What was changed."),
            "before": Column("text", "As it was; empty: there was nothing."),
            "after": Column("text", "As it was from then on."),
            "reason": Column("text", "As it was given; may be empty."),
        },
    ),
}
"""About each table, and its columns in their order. Of `studies` further columns are named by what is known."""

FACT = "As readers saw it beside the image: {}. Empty: not known."

FIGURES: Mapping[str, str] = {
    "errors": "Errors by system and kind, all and the clinically significant ones alone, with the mean per report.",
    "strengths": "Comparisons won, lost and tied, and Bradley-Terry strengths, by system.",
    "answers": "Of rubrics with several questions: how often each answer was given, by question and system.",
    "support": "Answers to whether explanations support their sentences, by system.",
    "agreement": "Krippendorff's alpha, Fleiss' and Cohen's kappa, by question.",
    "scale_agreement": "Weighted kappa by pair of readers and intraclass correlations, by question with a scale.",
    "self_agreement": "Repeats against first readings, by reader.",
    "drift": "Change over the session, by reader.",
    "editing": "Seconds, words changed, errors left and planted errors caught, by what readers began from.",
    "correlations": "Automatic metrics against counted errors.",
    "differences": "Tests between systems, by quantity and pair of systems.",
    "disputed": "Questions that first readers answered differently.",
    "settled": "Of those, how many a third reader answered.",
}
"""What `analysis.json` holds under "analysis"."""


def columns_of(name: str, table: pd.DataFrame) -> dict[str, Column]:
    """The columns of a table, in its order.

    Raises:
        KeyError: it has one that the codebook does not know.
    """
    known = TABLES[name][1]
    if name == "studies":
        return {column: known.get(column) or Column("text", FACT.format(column)) for column in map(str, table.columns)}
    return {column: known[column] for column in map(str, table.columns)}


def as_markdown(results: Results, tables: Mapping[str, pd.DataFrame]) -> str:
    """The codebook for people."""
    rubric = results.rubric
    lines = [
        f"# Codebook: {results.design['title']}",
        "",
        f"{INTENDED_USE}",
        "",
        f"Session {results.session_id}, rubric {rubric.name} {rubric.version}: {rubric.question}",
        "",
        "Every table is there three times: CSV (its first line says what it is for; text that a spreadsheet would take "
        "for a formula has an apostrophe before it), JSON (under the table's name) and Parquet. Lists and tables are "
        "JSON in CSV and Parquet. Dates are UTC, ISO 8601.",
        "",
    ]
    for name, table in tables.items():
        lines += [f"## {name}", "", TABLES[name][0], "", "| column | values | meaning |", "|---|---|---|"]
        lines += [
            f"| `{column}` | {about.type} | {_cell(about.meaning)} |"
            for column, about in columns_of(name, table).items()
        ]
        lines += ["", f"{counted(len(table), 'row', 'rows')}.", ""]
    lines += ["## analysis.json", "", "Under `analysis`:", "", "| part | what |", "|---|---|"]
    lines += [f"| `{part}` | {about} |" for part, about in FIGURES.items()]
    lines += [
        "",
        "Beside it: `design` as the researcher wrote it, `warnings` on what is missing, `session`, `software`, `use`. "
        "Intervals are of 95 %; `null` is a number that is not defined.",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


_TYPES: Mapping[ColumnType, Any] = {
    "text": {"type": "string"},
    "number": {"type": ["number", "null"]},
    "whole number": {"type": "integer"},
    "yes or no": {"type": "boolean"},
    "yes or no or nothing": {"type": ["boolean", "null"]},
    "date": {"type": "string", "pattern": r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*)?$"},
    "list": {"type": "array"},
    "table": {"type": "object"},
    "any": {"type": ["string", "number", "array", "boolean", "null"]},
}


def as_schema(results: Results, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """The codebook for programs: a JSON Schema with one definition for each JSON file of a table."""
    definitions = {}
    for name, table in tables.items():
        columns = columns_of(name, table)
        row = {
            "type": "object",
            "properties": {
                column: {**_TYPES[about.type], "description": about.meaning} for column, about in columns.items()
            },
            "required": list(columns),
            "additionalProperties": False,
        }
        definitions[name] = {
            "description": TABLES[name][0],
            "type": "object",
            "properties": {"use": {"type": "string"}, name: {"type": "array", "items": row}},
            "required": ["use", name],
            "additionalProperties": False,
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Files of the session {results.design['title']}",
        "description": INTENDED_USE,
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in definitions],
        "$defs": definitions,
    }
