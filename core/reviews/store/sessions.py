"""Sessions: made, listed, closed and unblinded."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core import __version__
from core.config import to_dict
from core.files import hash_of
from core.reviews.cover import cover, is_covered, seal_of
from core.reviews.crossover import with_drafts
from core.reviews.database import Database, check_text
from core.reviews.design import Case, Design, Screen, choose, plan, practice_screens
from core.reviews.rubric_library import find_rubric, rubric_of, shipped_rubrics
from core.reviews.rubrics import ReviewError
from core.reviews.schema import AnyRow, cases, is_practice, screens, sessions, users
from core.reviews.store.actors import NO_ROLE, Actor, not_there, require_role, require_session

_BEING_READ = (
    sa.select(screens.c.study_id)
    .join(sessions, sessions.c.id == screens.c.session_id)
    .where(screens.c.reader == sa.bindparam("reader"), sessions.c.state == "open")
    .distinct()
)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session in a list.

    Attributes:
        id: of the session.
        title: of its design.
        rubric: name of what readers are asked.
        task: the rubric's title.
        question: what it asks, in a sentence.
        state: "open" or "closed".
        owner: who made it.
        created: UTC, ISO.
        done: screens done or skipped; of a reader: of this reader.
        screens: all of them; of a reader: of this reader.
    """

    id: str
    title: str
    rubric: str
    task: str
    question: str
    state: str
    owner: str
    created: str
    done: int
    screens: int


def create_session(database: Database, who: Actor, design: Design, pool: Sequence[Case], *, secret: str = "") -> str:
    """Choose the studies, lay out all screens, and store both with the texts of the reports.

    Args:
        secret: decides names and orders beside the seed, so nobody may know it; drawn unless a rehearsal gives its own.

    Returns:
        The id of the session.

    Raises:
        NotAllowedError: by a reader.
        ReviewError: the design does not fit the cases, or a reader is not a user.
    """
    # The file as it is now: whatever becomes of it, the session keeps what its readers were asked.
    kept = find_rubric(design.rubric) if design.rubric in shipped_rubrics() else design.questions
    design = replace(design, rubric_text=kept.text)
    chosen = choose(pool, design.studies, design.seed, design.practice_studies)
    practice = practice_screens(design)
    for screen in practice:
        by_model = next(case.reports for case in chosen if case.study_id == screen.study_id)
        if lacking := [model for _, model in screen.shown if not by_model.get(model, "").strip()]:
            raise ReviewError(f"practice, study {screen.study_id}: there is no report of {', '.join(lacking)}.")
    session_id, secret = uuid.uuid4().hex, secret or secrets.token_hex(16)
    if design.editing.arms:
        design, chosen = with_drafts(design, chosen, secret)
    for case in chosen:
        for name, text in (*case.reports.items(), *case.context.items()):
            check_text(f"study {case.study_id}, {name}", text, 1_000_000)
    planned = plan(design, [case for case in chosen if case.study_id not in design.practice_studies], secret)
    with database.write() as connection:
        require_role(connection, who, "researcher", "admin")
        may_read = users.c.name.in_(design.readers) & (users.c.role != NO_ROLE)
        known = set(connection.scalars(sa.select(users.c.name).where(may_read)))
        if missing := [name for name in design.readers if name not in known]:
            raise ReviewError(f"readers: {', '.join(missing)} are no users. An admin can add them.")
        row = {"id": session_id, "title": design.title, "design": to_dict(design), "state": "open", "owner": who.name}
        created = database.clock().isoformat(timespec="seconds")
        connection.execute(sessions.insert().values(**row, created=created, software=__version__, secret=secret))
        texts = [
            {
                "session_id": session_id,
                "study_id": case.study_id,
                "context": dict(case.context),
                "reports": dict(case.reports),
            }
            for case in chosen
        ]
        connection.execute(cases.insert(), texts)
        by_id = {case.study_id: case for case in chosen}
        for reader, laid_out in planned.items():
            insert_screens(connection, session_id, reader, laid_out, by_id, practice)
        content = {
            "session": row,
            "cases": hash_of(texts),
            "screens": {name: len(all_) for name, all_ in planned.items()},
            **cover(connection, session_id),
        }
        database.record(connection, who.name, f"create/{session_id}", "create", session_id=session_id, after=content)
    return session_id


def insert_screens(
    connection: Connection,
    session_id: str,
    reader: str,
    laid_out: Sequence[Screen],
    by_id: Mapping[str, Case],
    practice: Sequence[Screen] = (),
) -> None:
    """Store what one reader will see, in order, practice first; ``by_id`` has the case of each study."""
    laid_out = [*practice, *laid_out]
    ids = [uuid.uuid4().hex for _ in laid_out]
    rows = [
        screen_row(
            session_id,
            reader,
            position - len(practice),
            screen.study_id,
            id=ids[position],
            shown=[list(pair) for pair in screen.shown],
            repeats=None if screen.repeats is None else ids[screen.repeats + len(practice)],
            image_sha256=by_id[screen.study_id].image_sha256,
            bundles={model: by_id[screen.study_id].bundles.get(model, "") for _, model in screen.shown},
        )
        for position, screen in enumerate(laid_out)
    ]
    if rows:
        connection.execute(screens.insert(), rows)


def stored_cases(connection: Connection, session_id: str) -> list[Case]:
    """The cases of a session as they were when it was made, practice too, by id; without their labels."""
    images: dict[str, str] = {}
    bundles: dict[str, dict[str, str]] = {}
    shown = sa.select(screens.c.study_id, screens.c.image_sha256, screens.c.bundles)
    for row in connection.execute(shown.where(screens.c.session_id == session_id)):
        images[row.study_id] = row.image_sha256
        bundles.setdefault(row.study_id, {}).update(row.bundles)
    texts = sa.select(cases).where(cases.c.session_id == session_id).order_by(cases.c.study_id)
    return [
        Case(
            row.study_id,
            images.get(row.study_id, ""),
            row.reports,
            bundles.get(row.study_id, {}),
            context=row.context,
        )
        for row in connection.execute(texts)
    ]


def screen_row(session_id: str, reader: str, position: int, study_id: str, **fields: Any) -> dict[str, Any]:
    """Make the row of a fresh screen."""
    fresh = {"state": "pending", "skip_reason": "", "flagged": False, "comment": "", "version": 1, "opened": False}
    row = {"session_id": session_id, "reader": reader, "position": position, "study_id": study_id, "seconds": 0.0}
    return {**row, **fresh, "disputed": None, "software": __version__, **fields}


def list_sessions(database: Database, who: Actor, *, to_read: bool = False) -> list[SessionInfo]:
    """The sessions of an actor, newest first: a reader's those to read, a researcher's own, an admin's all.

    Args:
        to_read: those that the actor reads in, whatever the role, with the own progress.
    """
    done = sa.func.sum(sa.case((screens.c.state == "pending", 0), else_=1))
    query = (
        sa.select(sessions, done.label("done"), sa.func.count(screens.c.id).label("screens"))
        .join(screens, screens.c.session_id == sessions.c.id)
        .where(~is_practice)
        .group_by(sessions.c.id)
        .order_by(sessions.c.created.desc(), sessions.c.id)
    )
    # JSON columns cannot be grouped by in PostgreSQL; a primary key can stand for its row there.
    if who.role == "reader" or to_read:
        query = query.where(screens.c.reader == who.name)
    elif who.role == "researcher":
        query = query.where(sessions.c.owner == who.name)
    if who.only:
        query = query.where(sessions.c.id == who.only)
    with database.read() as connection:
        require_role(connection, who, "reader", "researcher", "admin")
        rows = connection.execute(query).all()
    found = []
    for row in rows:
        rubric = rubric_of(row.design)
        about = (row.id, row.title, rubric.name, rubric.title, rubric.question)
        found.append(SessionInfo(*about, row.state, row.owner, row.created, int(row.done), row.screens))
    return found


def close_session(database: Database, who: Actor, session_id: str, *, reason: str = "") -> str:
    """End a session: nothing can be marked afterwards, and it can be unblinded. Cannot be taken back.

    Args:
        reason: for the record of changes.

    Returns:
        The session's seal, see `cover.seal_of`: print it, or keep it where nobody who can write to the database can.

    Raises:
        NotAllowedError: it is not the actor's.
    """
    with database.write() as connection:
        session = owned_session(connection, who, session_id)
        if session.state == "closed":
            return seal_of(connection, session_id)
        connection.execute(sessions.update().where(sessions.c.id == session_id).values(state="closed"))
        before: dict[str, Any] = {"state": "open"}
        after: dict[str, Any] = {"state": "closed"} | ({"reason": reason} if reason else {})
        if not is_covered(connection, session_id):  # made by a version that did not: from here on it is
            after |= cover(connection, session_id)
        key = f"close/{session_id}"
        database.record(connection, who.name, key, "close", session_id=session_id, before=before, after=after)
        return seal_of(connection, session_id)


def unblind(database: Database, who: Actor, session_id: str) -> dict[str, dict[str, str]]:
    """Tell which model each blinded name stood for: reader -> name -> model. A reader learns the own ones only.

    Raises:
        NotAllowedError: it is not the actor's session.
        ReviewError: it is not closed, or is a reader's who reads the same studies in one that is open.
    """
    query = sa.select(screens.c.reader, screens.c.shown, screens.c.study_id)
    query = query.where(screens.c.session_id == session_id, ~is_practice)
    with database.read() as connection:
        if who.role == "reader":
            require_role(connection, who, "reader")
            require_session(who, session_id)
            query = query.where(screens.c.reader == who.name)
            session = connection.execute(sa.select(sessions).where(sessions.c.id == session_id)).first()
        else:
            session = owned_session(connection, who, session_id)
        rows = connection.execute(query).all()
        reading = _being_read(connection, who.name) if who.role == "reader" else frozenset()
    if session is None or (not rows and who.role == "reader"):
        raise not_there(who, "session", session_id)
    if session.state != "closed":
        raise ReviewError("Names are revealed when the session is closed, and not before: cxr-lens review close.")
    if any(row.study_id in reading for row in rows):
        raise ReviewError("You read the same radiographs in a session that is open. Names are revealed when it closes.")
    names: dict[str, dict[str, str]] = {}
    for row in rows:
        names.setdefault(row.reader, {}).update({blinded: model for blinded, model in row.shown})  # noqa: C416
    return names


def being_read(database: Database, name: str) -> frozenset[str]:
    """The studies that a user, of whatever role, reads in open sessions: to keep them back elsewhere, not to show."""
    with database.read() as connection:
        return _being_read(connection, name)


def _being_read(connection: Connection, name: str) -> frozenset[str]:
    return frozenset(connection.scalars(_BEING_READ, {"reader": name}))


def owned_session(connection: Connection, who: Actor, session_id: str) -> AnyRow:
    """A session of the acting researcher; of an admin any.

    Raises:
        NotAllowedError: it is not there, or not theirs.
    """
    require_role(connection, who, "researcher", "admin")
    require_session(who, session_id)
    row = connection.execute(sa.select(sessions).where(sessions.c.id == session_id)).first()
    if row is None or (who.role != "admin" and row.owner != who.name):
        raise not_there(who, "session", session_id)
    return row
