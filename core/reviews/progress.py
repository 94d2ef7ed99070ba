"""How far a session is, for the researcher whose it is: counts and times, and nothing of what was marked."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from core.reviews.database import Database
from core.reviews.design import Design, read_design
from core.reviews.schema import events, is_practice, marks, screens
from core.reviews.store.actors import Actor
from core.reviews.store.sessions import owned_session


@dataclass(frozen=True, slots=True)
class ReaderProgress:
    """One reader's part of a session.

    Attributes:
        reader: name.
        adjudicates: settles what others disagree on.
        screens: all of this reader.
        done: finished.
        skipped: with a reason.
        flagged: for the researcher to look at.
        marks: that stand.
        seconds: of active reading.
        last: UTC, ISO: the last change; empty before the first.
    """

    reader: str
    adjudicates: bool
    screens: int
    done: int
    skipped: int
    flagged: int
    marks: int
    seconds: float
    last: str

    @property
    def pace(self) -> float | None:
        """Seconds a finished screen; None before the first."""
        finished = self.done + self.skipped
        return self.seconds / finished if finished else None


@dataclass(frozen=True, slots=True)
class SessionProgress:
    """A session and its readers.

    Attributes:
        id: of the session.
        state: "open" or "closed".
        owner: who made it.
        created: UTC, ISO.
        design: as it was made.
        studies: that are read.
        readers: those of the design first.
    """

    id: str
    state: str
    owner: str
    created: str
    design: Design
    studies: int
    readers: tuple[ReaderProgress, ...]


def session_progress(database: Database, who: Actor, session_id: str) -> SessionProgress:
    """Look how far a session is.

    Raises:
        NotAllowedError: it is not the actor's.
    """
    here = (screens.c.session_id == session_id) & ~is_practice

    def count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.sum(sa.case((condition, 1), else_=0))

    with database.read() as connection:
        session = owned_session(connection, who, session_id)
        rows = connection.execute(
            sa.select(
                screens.c.reader,
                sa.func.count().label("screens"),
                count(screens.c.state == "done").label("done"),
                count(screens.c.state == "skipped").label("skipped"),
                count(screens.c.flagged).label("flagged"),
                sa.func.sum(screens.c.seconds).label("seconds"),
            )
            .where(here)
            .group_by(screens.c.reader)
            .order_by(screens.c.reader)
        ).all()
        of_reader = sa.select(screens.c.reader, sa.func.count()).join(screens, screens.c.id == marks.c.screen_id)
        counted = dict(
            tuple(row) for row in connection.execute(of_reader.where(here, ~marks.c.deleted).group_by(screens.c.reader))
        )
        last = dict(
            tuple(row)
            for row in connection.execute(
                sa.select(events.c.actor, sa.func.max(events.c.at))
                .where(events.c.session_id == session_id, events.c.screen_id.is_not(None))
                .group_by(events.c.actor)
            )
        )
        studies = connection.scalar(sa.select(sa.func.count(screens.c.study_id.distinct())).where(here))
    design = read_design(session.design)
    readers = [
        ReaderProgress(
            row.reader,
            row.reader not in design.readers,
            row.screens,
            int(row.done),
            int(row.skipped),
            int(row.flagged),
            int(counted.get(row.reader, 0)),
            float(row.seconds or 0),
            str(last.get(row.reader, "")),
        )
        for row in rows
    ]
    readers.sort(key=lambda each: (each.adjudicates, each.reader))
    return SessionProgress(
        session_id, session.state, session.owner, session.created, design, studies or 0, tuple(readers)
    )
