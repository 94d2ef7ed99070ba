"""Screens as their reader sees them: which is next, what it shows, how far the reader is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.config import from_dict
from core.reviews.database import Database
from core.reviews.practice import Feedback, Practice, feedback
from core.reviews.role import Role
from core.reviews.rubric_library import rubric_of
from core.reviews.rubrics import Mark, ReviewError, Rubric
from core.reviews.schema import AnyRow, cases, is_practice, marks, screens, sessions
from core.reviews.store.actors import Actor, not_there, require_role, require_session
from core.reviews.store.sittings import require_sitting, sittings_of

ScreenState = Literal["pending", "done", "skipped"]

# What every change asks of the database is put together once: that takes SQLAlchemy longer than SQLite takes to answer,
# and readers wait for both.
_OWN_SCREEN = sa.select(screens).where(
    screens.c.id == sa.bindparam("screen"), screens.c.reader == sa.bindparam("reader")
)
_SESSION = sa.select(sessions).where(sessions.c.id == sa.bindparam("session"))
_CASE = sa.select(cases).where(cases.c.session_id == sa.bindparam("session"), cases.c.study_id == sa.bindparam("study"))
_SHOWN_MARKS = (
    sa.select(marks).where(marks.c.screen_id == sa.bindparam("screen"), ~marks.c.deleted).order_by(marks.c.slot)
)
_OWN_SCREENS = (
    sa.select(screens.c.id, screens.c.state, screens.c.flagged, screens.c.seconds, screens.c.position)
    .where(screens.c.session_id == sa.bindparam("session"), screens.c.reader == sa.bindparam("reader"))
    .order_by(screens.c.position)
)
_COUNT_AND_SECONDS = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(screens.c.seconds), 0)).where(
    screens.c.session_id == sa.bindparam("session"), screens.c.reader == sa.bindparam("reader"), ~is_practice
)


@dataclass(frozen=True, slots=True)
class SavedMark:
    """A mark as it is stored.

    Attributes:
        slot: names the question it answers; give it to change or remove the mark.
        mark: the answer.
        version: give it too; it rises with each change.
    """

    slot: str
    mark: Mark
    version: int


@dataclass(frozen=True, slots=True)
class ReaderScreen:
    """What a reader sees: nothing of models, other readers or repeats.

    Attributes:
        id: of the screen.
        session_id: of its session.
        position: from 0; below 0 for practice.
        screens: how many this reader has.
        study_id: of the case.
        image_sha256: `design.image_sha256` of its image.
        source: where the image comes from, for `sources.open_source`.
        context: what is known beside it.
        reports: (blinded name, text) in the order shown.
        rubric: as the session was made with it.
        title: of the session.
        instructions: of the session.
        explanation: name of the explanation that is shown; empty for none.
        priors: whether the study before it is shown beside it, where there is one.
        marks: those that stand.
        disputed: of an adjudicator: the questions, each with the answers given, in no order.
        state: "pending", "done" or "skipped".
        skip_reason: why it was skipped.
        flagged: for the researcher to look at.
        comment: free text; escape it where it is shown.
        seconds: of active reading so far.
        seconds_left: of the session's time limit, None without one.
        version: give it to `annotate`.
        findings: whether the reader sees what an edited text says of the 14 observations.
        feedback: of a practice case that is done: what was expected.
        why: of the same: what is told about it.
    """

    id: str
    session_id: str
    position: int
    screens: int
    study_id: str
    image_sha256: str
    source: str
    context: Mapping[str, str]
    reports: tuple[tuple[str, str], ...]
    rubric: Rubric
    title: str
    instructions: str
    explanation: str
    priors: bool
    marks: tuple[SavedMark, ...]
    disputed: tuple[Mapping[str, Any], ...]
    state: ScreenState
    skip_reason: str
    flagged: bool
    comment: str
    seconds: float
    seconds_left: float | None
    version: int
    findings: bool = False
    feedback: tuple[Feedback, ...] | None = None
    why: str = ""


def next_screen(database: Database, who: Actor, session_id: str) -> str | None:
    """The id of the first screen that is still to do, which is where a reader goes on; None at the end."""
    query = (
        sa.select(screens.c.id)
        .where(screens.c.session_id == session_id, screens.c.reader == who.name, screens.c.state == "pending")
        .order_by(screens.c.position)
        .limit(1)
    )
    with database.read() as connection:
        require_role(connection, who, *get_args(Role))
        require_session(who, session_id)
        return connection.scalar(query)


def list_screens(database: Database, who: Actor, session_id: str) -> list[tuple[str, ScreenState, bool]]:
    """(id, state, flagged) of the actor's own screens of a session, in order."""
    with database.read() as connection:
        require_role(connection, who, *get_args(Role))
        require_session(who, session_id)
        rows = connection.execute(_OWN_SCREENS, {"session": session_id, "reader": who.name})
        return [(row.id, row.state, row.flagged) for row in rows]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reader is in a session.

    Attributes:
        state: of the session, "open" or "closed".
        screens: (id, state, flagged) of the reader's own, in order, practice first; where there are sittings, of the
            open one.
        practice: how many of them are for practice.
        seconds: of active reading so far, without practice; where there are sittings, of the open one.
        usual: seconds of active reading of a screen, median of those read; None before the first.
        sitting: which it is, in words; empty where there is one only.
        following: when the next sitting opens, in a sentence, once this one is read; else empty.
    """

    state: str
    screens: tuple[tuple[str, ScreenState, bool], ...]
    practice: int
    seconds: float
    usual: float | None
    sitting: str = ""
    following: str = ""


def progress(database: Database, who: Actor, session_id: str) -> Progress:
    """How far the actor is in a session to read.

    Raises:
        NotAllowedError: there is no such session, or nothing in it for this actor.
    """
    with database.read() as connection:
        require_role(connection, who, *get_args(Role))
        require_session(who, session_id)
        rows = connection.execute(_OWN_SCREENS, {"session": session_id, "reader": who.name}).all()
        session = connection.execute(_SESSION, {"session": session_id}).first()
        sittings = None if session is None else sittings_of(database, connection, session, who.name)
    if not rows or session is None:
        raise not_there(who, "session", session_id)
    if sittings is not None:
        rows = [row for row in rows if row.position < 0 or row.id in sittings.screens[sittings.open]]
    found = tuple((row.id, row.state, row.flagged) for row in rows)
    real = [row for row in rows if row.position >= 0]
    read = [row.seconds for row in real if row.state == "done" and row.seconds > 0]
    spent, usual = sum(row.seconds for row in real), median(read) if read else None
    words = ("", "") if sittings is None else (sittings.title, sittings.following)
    return Progress(session.state, found, len(rows) - len(real), spent, usual, *words)


def writers(database: Database, who: Actor, screen_id: str) -> dict[str, tuple[str, str]]:
    """Blinded name -> (model, hash of its bundle), to draw its explanation on the server. Never for the reader's eyes.

    Raises:
        NotAllowedError: it is not the actor's screen.
    """
    with database.read() as connection:
        screen, _ = own_screen(connection, who, screen_id)
    return {blinded: (model, screen.bundles.get(model, "")) for blinded, model in screen.shown}


def read_screen(database: Database, who: Actor, screen_id: str) -> ReaderScreen:
    """One own screen with its marks.

    Raises:
        NotAllowedError: it is not the actor's.
        ReviewError: it is of a sitting that is not open now.
    """
    with database.read() as connection:
        screen, session = own_screen(connection, who, screen_id)
        require_sitting(database, connection, screen, session)
        return _as_shown(connection, screen, session)


def _as_shown(connection: Connection, screen: AnyRow, session: AnyRow) -> ReaderScreen:
    """A screen as its reader sees it."""
    case = case_of(connection, screen)
    rows = connection.execute(_SHOWN_MARKS, {"screen": screen.id}).all()
    total, left = _count_and_seconds_left(connection, screen, session)
    told, why = _feedback(screen, session, rows)
    return ReaderScreen(
        id=screen.id,
        session_id=screen.session_id,
        position=screen.position,
        screens=total,
        study_id=screen.study_id,
        image_sha256=screen.image_sha256,
        source=session.design["source"],
        context=case.context,
        reports=tuple(texts_of(screen, case).items()),
        rubric=rubric_of(session.design),
        title=session.title,
        instructions=session.design["instructions"],
        explanation=session.design["explanation"],
        priors=session.design.get("priors", False),
        marks=tuple(saved(row.slot, dict(row._mapping)) for row in rows),
        disputed=tuple(screen.disputed or ()),
        state=screen.state,
        skip_reason=screen.skip_reason,
        flagged=screen.flagged,
        comment=screen.comment,
        seconds=screen.seconds,
        seconds_left=left,
        version=screen.version,
        findings=bool(session.design.get("editing", {}).get("findings")),
        feedback=told,
        why=why,
    )


def _feedback(screen: AnyRow, session: AnyRow, rows: Sequence[AnyRow]) -> tuple[tuple[Feedback, ...] | None, str]:
    """Of a practice case that is done: what was expected, and why."""
    if screen.position >= 0 or screen.state != "done":
        return None, ""
    about = next(each for each in session.design["practice"] if each["study"] == screen.study_id)
    practice = from_dict(Practice, about, "practice.")
    return tuple(feedback(practice, rubric_of(session.design), screen, rows)), practice.why


def open_screen(database: Database, who: Actor, screen_id: str) -> ReaderScreen:
    """Open a screen to read it; the first opening is an event.

    Raises:
        NotAllowedError: it is not the actor's.
        ReviewError: the reader's time is over; screens opened before stay open. Or its sitting is not open.
    """
    with database.write() as connection:
        screen, session = own_screen(connection, who, screen_id)
        require_sitting(database, connection, screen, session)  # of a closed session nothing is shut
        if session.state == "open":
            open_first(database, connection, who, screen, session)
        return _as_shown(connection, screen, session)


def open_first(database: Database, connection: Connection, who: Actor, screen: AnyRow, session: AnyRow) -> None:
    """Note that a screen is opened, if it was not before.

    Raises:
        ReviewError: the reader's time is over.
    """
    if screen.opened:
        return
    _, left = _count_and_seconds_left(connection, screen, session)
    if left is not None and left <= 0:
        raise ReviewError("Your time for this session is over. What you marked is saved; thank you.")
    connection.execute(screens.update().where(screens.c.id == screen.id).values(opened=True))
    where = {"session_id": screen.session_id, "screen_id": screen.id}
    database.record(connection, who.name, f"open/{screen.id}", "open", **where, after={"opened": True})


def own_screen(connection: Connection, who: Actor, screen_id: str) -> tuple[AnyRow, AnyRow]:
    """An own screen and its session. Researchers and admins can read too, but only their own screens."""
    require_role(connection, who, *get_args(Role))
    screen = connection.execute(_OWN_SCREEN, {"screen": screen_id, "reader": who.name}).first()
    if screen is None or (who.only and who.only != screen.session_id):
        raise not_there(who, "screen", screen_id)
    return screen, connection.execute(_SESSION, {"session": screen.session_id}).one()


def _count_and_seconds_left(connection: Connection, screen: AnyRow, session: AnyRow) -> tuple[int, float | None]:
    """How many screens the reader has, and what is left of the time limit; None without one."""
    whose = {"session": screen.session_id, "reader": screen.reader}
    count, spent = connection.execute(_COUNT_AND_SECONDS, whose).one()
    limit = session.design["minutes"]
    return count, float(limit * 60 - spent) if limit else None


def case_of(connection: Connection, screen: AnyRow) -> AnyRow:
    """The case that a screen shows."""
    return connection.execute(_CASE, {"session": screen.session_id, "study": screen.study_id}).one()


def texts_of(screen: AnyRow, case: AnyRow) -> dict[str, str]:
    """Text by blinded name, in the order shown."""
    return {blinded: case.reports[model] for blinded, model in screen.shown}


def marks_on(connection: Connection, screen_id: str) -> list[tuple[str, Mark]]:
    """(slot, mark) of a screen, those that stand."""
    rows = connection.execute(_SHOWN_MARKS, {"screen": screen_id})
    return [(row.slot, Mark(row.kind, row.report, row.value)) for row in rows]


def saved(slot: str, fields: Mapping[str, Any]) -> SavedMark:
    """A mark from its columns."""
    return SavedMark(slot, Mark(fields["kind"], fields["report"], fields["value"]), fields["version"])


def check_image(screen: ReaderScreen, found_sha256: str) -> None:
    """Refuse an image that is not the one the session was made with.

    Raises:
        ReviewError: its hash differs.
    """
    if screen.image_sha256 and screen.image_sha256 != found_sha256:
        raise ReviewError(
            "The image of this case is not the one this session was made with. Skip the case with that reason, and "
            "tell the people who made the session; the marks made so far are safe."
        )
