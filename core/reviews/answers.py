"""From marks to answers: one row for each question that a reader answered, ready to compare and to count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.reviews.database import Database
from core.reviews.rubrics import ERROR_KINDS, RUBRICS, SUPPORT, ReviewError, Rubric
from core.reviews.schema import AnyRow, cases, events, marks, screens
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
            indices into `SUPPORT`.
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
        of_studies = list(connection.execute(sa.select(cases).where(cases.c.session_id == session_id)))
    finished = {
        row.screen_id: row.sequence
        for row in log
        if row.action == "annotate" and row.before["state"] == "pending" != row.after["state"]
    }
    back = sum(later.at < earlier.at for earlier, later in pairwise(log))
    warnings = [f"The clock went back {back} times; the order is that of the events' numbers."] if back else []
    if open_ := sum(row.state == "pending" for row in screen_rows):
        warnings.append(f"{open_} of {len(screen_rows)} screens were not finished and are not in the figures.")
    rubric = RUBRICS[session.design["rubric"]]
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
    """Screens of a session, and by screen the marks that stand."""
    ordered = (
        sa.select(screens).where(screens.c.session_id == session_id).order_by(screens.c.reader, screens.c.position)
    )
    screen_rows = list(connection.execute(ordered))
    mark_rows: dict[str, list[AnyRow]] = {row.id: [] for row in screen_rows}
    of_session = (
        sa.select(marks)
        .join(screens, screens.c.id == marks.c.screen_id)
        .where(screens.c.session_id == session_id, ~marks.c.deleted)
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
        for model, question, value in _answers(rubric, dict(screen.shown), mark_rows[screen.id]):
            found.append((*about, model, question, value, *role))
    return found


def _answers(rubric: Rubric, model_of: Mapping[str, str], mark_rows: list[AnyRow]) -> list[tuple[str, str, str | int]]:
    """(model, question, value) of one screen."""
    if rubric.mark == "error":
        significant = [(model_of[mark.report], mark.value["error"]) for mark in mark_rows if mark.value["significant"]]
        counts: list[tuple[str, str, str | int]] = []
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
