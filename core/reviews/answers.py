"""From marks to answers: one row for each question that a reader answered, ready to compare and to count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.reviews.answer_marks import Row as Place
from core.reviews.answer_marks import is_asked, labels_of, row_of
from core.reviews.database import Database
from core.reviews.questions import CANNOT_JUDGE, TIE, Question, label_of
from core.reviews.rubric_library import rubric_of
from core.reviews.rubrics import ERROR_KINDS, SUPPORT, Mark, ReviewError, Rubric
from core.reviews.schema import AnyRow, cases, events, is_practice, marks, screens
from core.reviews.store.actors import Actor
from core.reviews.store.sessions import owned_session

ANY_ERROR = "all kinds"

MARK_COLUMNS = ("screen", "reader", "position", "study", "report", "model", "kind", "value", "version", "repeat")
SCREEN_COLUMNS = (
    "screen",
    "reader",
    "position",
    "study",
    "shown",
    "repeat",
    "adjudication",
    "state",
    "skip_reason",
    "flagged",
    "comment",
    "seconds",
    "finished",
    "image_sha256",
    "bundles",
    "software",
)
ANSWER_COLUMNS = (
    "screen", "reader", "position", "study", "model", "question", "value", "repeat", "adjudication"
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """All of a closed session.

    Attributes:
        session_id: of the session.
        design: as the researcher wrote it, plain values.
        rubric: of the design.
        marks: `MARK_COLUMNS`; those that stand.
        screens: `SCREEN_COLUMNS`; "finished" is the number of the event that finished it, 0 where nothing did.
        answers: `ANSWER_COLUMNS`; of finished screens. Values are numbers of significant errors, models, states, or
            indices into `SUPPORT`; of a rubric of questions, steps of a scale, options, percentages, "yes" or "no" of
            several choices, models preferred, numbers of marks, or "cannot judge"; "model" are then the models that
            the question is about, joined by " / ", and texts stay in the marks.
        reports: study -> model -> text.
        contexts: study -> what readers saw beside its image, by name: age, indication, view, notes of its file.
        warnings: what the analyst should know.
    """

    session_id: str
    design: Mapping[str, Any]
    rubric: Rubric
    marks: pd.DataFrame
    screens: pd.DataFrame
    answers: pd.DataFrame
    reports: Mapping[str, Mapping[str, str]]
    contexts: Mapping[str, Mapping[str, str]]
    warnings: tuple[str, ...]


def load_results(database: Database, who: Actor, session_id: str) -> Results:
    """Read a closed session, unblinded.

    Raises:
        NotAllowedError: it is not the actor's session, or the actor is a reader.
        ReviewError: it is not closed.
    """
    with database.read() as connection:
        session = owned_session(connection, who, session_id)
        if session.state != "closed":
            raise ReviewError("Results are shown when the session is closed: cxr-lens review close.")
        screen_rows, mark_rows = rows_of(connection, session_id)
        log = connection.execute(
            sa.select(
                events.c.sequence, events.c.at, events.c.action, events.c.screen_id, events.c.before, events.c.after
            )
            .where(events.c.session_id == session_id)
            .order_by(events.c.sequence)
        ).all()
        practised = {each["study"] for each in session.design.get("practice", ())}
        stored = connection.execute(sa.select(cases).where(cases.c.session_id == session_id))
        of_studies = [row for row in stored if row.study_id not in practised]
    finished = {
        row.screen_id: row.sequence
        for row in log
        if row.action == "annotate" and row.before["state"] == "pending" != row.after["state"]
    }
    back = sum(later.at < earlier.at for earlier, later in pairwise(log))
    warnings = [f"The clock went back {back} times; the order is that of the events' numbers."] if back else []
    if open_ := sum(row.state == "pending" for row in screen_rows):
        warnings.append(f"{open_} of {len(screen_rows)} screens were not finished and are not in the figures.")
    rubric = rubric_of(session.design)
    return Results(
        session_id=session_id,
        design=session.design,
        rubric=rubric,
        marks=_marks_table(screen_rows, mark_rows),
        screens=_screens_table(screen_rows, finished),
        answers=pd.DataFrame(answers_of(rubric, screen_rows, mark_rows), columns=pd.Index(ANSWER_COLUMNS)).astype(
            {"repeat": bool, "adjudication": bool}
        ),
        reports={row.study_id: row.reports for row in of_studies},
        contexts={row.study_id: row.context for row in of_studies},
        warnings=tuple(warnings),
    )


def rows_of(connection: Connection, session_id: str) -> tuple[list[AnyRow], dict[str, list[AnyRow]]]:
    """Screens of a session without practice, and by screen the marks that stand."""
    here = (screens.c.session_id == session_id, ~is_practice)
    ordered = sa.select(screens).where(*here).order_by(screens.c.reader, screens.c.position)
    screen_rows = list(connection.execute(ordered))
    mark_rows: dict[str, list[AnyRow]] = {row.id: [] for row in screen_rows}
    of_session = (
        sa.select(marks)
        .join(screens, screens.c.id == marks.c.screen_id)
        .where(*here, ~marks.c.deleted)
        .order_by(marks.c.slot)
    )
    for mark in connection.execute(of_session):
        mark_rows[mark.screen_id].append(mark)
    return screen_rows, mark_rows


def answers_of(
    rubric: Rubric, screen_rows: Iterable[AnyRow], mark_rows: Mapping[str, list[AnyRow]]
) -> list[tuple[Any, ...]]:
    """Rows of `ANSWER_COLUMNS`, of finished screens."""
    found = []
    for screen in screen_rows:
        if screen.state != "done":
            continue
        about = (screen.id, screen.reader, screen.position, screen.study_id)
        role = (screen.repeats is not None, screen.disputed is not None)
        for model, question, value in _answers(rubric, screen, mark_rows[screen.id]):
            found.append((*about, model, question, value, *role))
    return found


Row = tuple[str, str, str | int]
"""(model, question, value)."""


def _answers(rubric: Rubric, screen: AnyRow, mark_rows: list[AnyRow]) -> list[Row]:
    """Rows of one screen. Of a third reader's, counts are only of what was answered: no mark is no answer there."""
    model_of = dict(screen.shown)
    counted: list[Row] = [
        (model_of.get(mark.report, ""), mark.value["question"], mark.value["count"])
        for mark in mark_rows
        if mark.kind == "count"
    ]
    mark_rows = [mark for mark in mark_rows if mark.kind != "count"]
    if rubric.mark == "answer":
        return counted + _of_questions(rubric, screen, mark_rows, {row[:2] for row in counted})
    if rubric.mark == "error":
        if screen.disputed:
            known = {row[:2] for row in counted}
            of_kind: dict[tuple[str, str], int] = {}
            for mark in mark_rows:
                about = (model_of[mark.report], mark.value["error"])
                of_kind[about] = of_kind.get(about, 0) + mark.value["significant"]
            return counted + [(*about, number) for about, number in of_kind.items() if about not in known]
        significant = [(model_of[mark.report], mark.value["error"]) for mark in mark_rows if mark.value["significant"]]
        counts: list[Row] = []
        for model in model_of.values():
            each = [(model, kind, significant.count((model, kind))) for kind in ERROR_KINDS]
            counts += [*each, (model, ANY_ERROR, sum(number for *_, number in each))]
        return counts
    if rubric.mark == "preference":
        first, second = model_of.values()
        value_of = {"first": first, "second": second, "tie": "tie"}
        return [("", " / ".join(sorted((first, second))), value_of[mark.value["prefer"]]) for mark in mark_rows]
    if rubric.mark == "label":
        return [("", mark.value["observation"], mark.value["state"]) for mark in mark_rows]
    return [
        (model_of[mark.report], "{}-{}".format(*mark.value["span"]), SUPPORT.index(mark.value["support"]))
        for mark in mark_rows
    ]


def _of_questions(rubric: Rubric, screen: AnyRow, mark_rows: list[AnyRow], known: set[tuple[str, str]]) -> list[Row]:
    """Rows of a rubric of questions: answers to questions that are asked, and how many marks there are of each kind."""
    model_of = dict(screen.shown)
    compared = " / ".join(sorted(model_of.values()))

    def about(question: Question, report: str) -> str:
        return model_of[report] if question.of_text else compared if question.of == "case" else ""

    made = [Mark(mark.kind, mark.report, mark.value) for mark in mark_rows]
    rows: list[Row] = []
    counts: dict[tuple[str, str], int] = {}
    if not screen.disputed:
        for question in (each for each in rubric.questions if each.kind == "mark"):
            for report in model_of if question.of_text else ("",):
                if is_asked(Place(question, report), rubric, made):
                    labels = (label_of(question.id, option) for option in question.options)
                    counts |= {(about(question, report), label): 0 for label in labels}
    for mark in made:
        question = rubric.find(mark.value["question"])
        if not screen.disputed and not is_asked(row_of(question, mark), rubric, made):
            continue  # answered before another answer took the question away
        model = about(question, mark.report)
        for label, value in labels_of(rubric, mark).items():
            if question.kind == "mark":
                counts[model, label] = counts.get((model, label), 0) + 1
            elif question.kind == "preference" and value not in (TIE, CANNOT_JUDGE):
                rows.append((model, label, model_of[value]))
            else:
                rows.append((model, label, value))
    return rows + [(*asked, number) for asked, number in counts.items() if asked not in known]


def _marks_table(screen_rows: list[AnyRow], mark_rows: Mapping[str, list[AnyRow]]) -> pd.DataFrame:
    found = [
        (
            screen.id,
            screen.reader,
            screen.position,
            screen.study_id,
            mark.report,
            dict(screen.shown).get(mark.report, ""),
            mark.kind,
            mark.value,
            mark.version,
            screen.repeats is not None,
        )
        for screen in screen_rows
        for mark in mark_rows[screen.id]
    ]
    return pd.DataFrame(found, columns=pd.Index(MARK_COLUMNS)).astype({"repeat": bool})


def _screens_table(screen_rows: list[AnyRow], finished: Mapping[str, int]) -> pd.DataFrame:
    found = [
        (
            row.id,
            row.reader,
            row.position,
            row.study_id,
            row.shown,
            row.repeats is not None,
            row.disputed is not None,
            row.state,
            row.skip_reason,
            row.flagged,
            row.comment,
            row.seconds,
            finished.get(row.id, 0),
            row.image_sha256,
            row.bundles,
            row.software,
        )
        for row in screen_rows
    ]
    return pd.DataFrame(found, columns=pd.Index(SCREEN_COLUMNS)).astype(
        {"repeat": bool, "adjudication": bool, "flagged": bool}
    )
