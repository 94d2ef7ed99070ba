"""Sessions in a database: who may do what, and every change with its event.

Each function takes an `Actor` and asks the database again what that actor may do; a reader reaches own screens only.
Each change takes a ``key`` that the caller makes up once for it: sent again, after a lost answer, it is done once.
"""

from __future__ import annotations

import secrets
import unicodedata
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core import __version__
from core.config import to_dict
from core.observations import OBSERVATIONS
from core.reviews.database import Database, digest
from core.reviews.design import Case, Design, Screen, choose, plan
from core.reviews.rubrics import COMMENT_LIMIT, RUBRICS, Mark, ReviewError, check_mark, slot_of
from core.reviews.schema import AnyRow, cases, events, marks, screens, sessions, users

Role = Literal["reader", "researcher", "admin"]
NO_ROLE = "none"
"""Of a user whose role was taken away: may do and see nothing, and what was marked before stays."""
ScreenState = Literal["pending", "done", "skipped"]

MARK_FIELDS = ("kind", "report", "value", "version", "deleted")
SCREEN_FIELDS = ("state", "skip_reason", "flagged", "comment", "version")
"""What events of marks and of screens hold before and after."""

MAX_SECONDS = 600.0
"""Most of active time that one message may add; more is a clock that jumped."""


# What every change asks of the database. Built once: SQLAlchemy takes longer to put a statement together than SQLite to
# answer it, and readers wait for both.
_ROLE = sa.select(users.c.role).where(users.c.name == sa.bindparam("name"))
_OWN_SCREEN = sa.select(screens).where(
    screens.c.id == sa.bindparam("screen"), screens.c.reader == sa.bindparam("reader")
)
_SESSION = sa.select(sessions).where(sessions.c.id == sa.bindparam("session"))
_CASE = sa.select(cases).where(cases.c.session_id == sa.bindparam("session"), cases.c.study_id == sa.bindparam("study"))
_MARK = sa.select(*(marks.c[name] for name in MARK_FIELDS)).where(
    marks.c.screen_id == sa.bindparam("screen"), marks.c.slot == sa.bindparam("slot")
)
_KEY = sa.select(events).where(events.c.key == sa.bindparam("key"))
_NEW_MARK = marks.insert()
_SHOWN_MARKS = (
    sa.select(marks).where(marks.c.screen_id == sa.bindparam("screen"), ~marks.c.deleted).order_by(marks.c.slot)
)
_OWN_SCREENS = (
    sa.select(screens.c.id, screens.c.state, screens.c.flagged, screens.c.seconds)
    .where(screens.c.session_id == sa.bindparam("session"), screens.c.reader == sa.bindparam("reader"))
    .order_by(screens.c.position)
)
_COUNT_AND_SECONDS = sa.select(sa.func.count(), sa.func.sum(screens.c.seconds)).where(
    screens.c.session_id == sa.bindparam("session"), screens.c.reader == sa.bindparam("reader")
)
_BEING_READ = (
    sa.select(screens.c.study_id)
    .join(sessions, sessions.c.id == screens.c.session_id)
    .where(screens.c.reader == sa.bindparam("reader"), sessions.c.state == "open")
    .distinct()
)


class NotAllowedError(ReviewError):
    """The actor may not do or see this; the same words where it does not exist, so nothing is learned from them."""


class ConflictError(ReviewError):
    """Somebody else's change, or one of another tab, came first. What was refused is kept in the events.

    Attributes:
        current: what is there now.
    """

    def __init__(self, message: str, current: Mapping[str, Any] | None) -> None:
        super().__init__(message)
        self.current = current


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. The role must be the one in the database.

    Attributes:
        name: of the user.
        role: what the user is.
    """

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session in a list.

    Attributes:
        id: of the session.
        title: of its design.
        rubric: of its design.
        state: "open" or "closed".
        owner: who made it.
        created: UTC, ISO.
        done: screens done or skipped; of a reader: of this reader.
        screens: all of them; of a reader: of this reader.
    """

    id: str
    title: str
    rubric: str
    state: str
    owner: str
    created: str
    done: int
    screens: int


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
        position: from 0.
        screens: how many this reader has.
        study_id: of the case.
        image_sha256: `design.image_sha256` of its image.
        source: where the image comes from, for `sources.open_source`.
        context: what is known beside it.
        reports: (blinded name, text) in the order shown.
        rubric: of the session, a name in `RUBRICS`.
        question: of the rubric.
        title: of the session.
        instructions: of the session.
        explanation: name of the explanation that is shown; empty for none.
        marks: those that stand.
        disputed: of an adjudicator: the questions, each with the answers given, in no order.
        state: "pending", "done" or "skipped".
        skip_reason: why it was skipped.
        flagged: for the researcher to look at.
        comment: free text; escape it where it is shown.
        seconds: of active reading so far.
        seconds_left: of the session's time limit, None without one.
        version: give it to `annotate`.
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
    rubric: str
    question: str
    title: str
    instructions: str
    explanation: str
    marks: tuple[SavedMark, ...]
    disputed: tuple[Mapping[str, Any], ...]
    state: ScreenState
    skip_reason: str
    flagged: bool
    comment: str
    seconds: float
    seconds_left: float | None
    version: int


# ------------------------------------------------------------------------------------------------------------- users


def first_admin(database: Database, name: str) -> Actor:
    """Make the first user of an empty database an admin; afterwards, look the user up as `actor` does.

    Raises:
        NotAllowedError: there are users, and this is none of them.
    """
    count = sa.select(sa.func.count()).select_from(users)
    with database.read() as connection:
        empty = connection.scalar(count) == 0
    with database.write() if empty else nullcontext() as connection:
        if connection is not None and connection.scalar(count) == 0:
            _check_name(name)
            connection.execute(users.insert().values(name=name, role="admin"))
            record(database, connection, name, f"user/{name}", "user", after={"name": name, "role": "admin"})
    return actor(database, name)


def actor(database: Database, name: str) -> Actor:
    """Look up a user. Whoever calls this has checked that it is really that user.

    Raises:
        NotAllowedError: there is no such user.
    """
    with database.read() as connection:
        role = _role_of(connection, name)
    if role in (None, NO_ROLE):
        raise NotAllowedError(f"There is no user '{name}'. An admin can add one.")
    return Actor(name, role)  # type: ignore[arg-type]


def set_role(database: Database, who: Actor, name: str, role: Role | Literal["none"]) -> None:
    """Add a user, change a user's role, or take it away (`NO_ROLE`). For admins.

    Raises:
        NotAllowedError: by anybody else.
        ReviewError: no such role, or the last admin would go.
    """
    if role not in (*get_args(Role), NO_ROLE):
        raise ReviewError(f"There is no role '{role}'; there are {', '.join((*get_args(Role), NO_ROLE))}.")
    with database.write() as connection:
        require_role(connection, who, "admin")
        known = _role_of(connection, name)
        if known is None:
            _check_name(name)
        admins = connection.scalar(sa.select(sa.func.count()).where(users.c.role == "admin"))
        if known == "admin" != role and admins == 1:
            raise ReviewError(f"{name} is the last admin. Make somebody else admin first.")
        if known is None and role == NO_ROLE:
            raise ReviewError(f"There is no user '{name}'.")
        _write_role(database, connection, who.name, name, role)


def enrol(database: Database, name: str, role: Role) -> Actor:
    """Give a user the role that a server's settings give; the event's actor is "sign-in".

    Whoever calls this has checked with the identity provider that it is that user, or reads the server's own settings.

    Raises:
        ReviewError: no name, or no such role.
    """
    if role not in get_args(Role):
        raise ReviewError(f"There is no role '{role}'; there are {', '.join(get_args(Role))}.")
    with database.read() as connection:
        known = _role_of(connection, name)
    if known is None:
        _check_name(name)
    if known != role:
        with database.write() as connection:
            _write_role(database, connection, "sign-in", name, role)
    return Actor(name, role)


def withdraw(database: Database, name: str) -> None:
    """Take away the role of a user whom a server's settings give none any more; the event's actor is "sign-in"."""
    with database.read() as connection:
        known = _role_of(connection, name)
    if known not in (None, NO_ROLE):
        with database.write() as connection:
            _write_role(database, connection, "sign-in", name, NO_ROLE)


def _role_of(connection: Connection, name: str) -> str | None:
    return connection.scalar(_ROLE, {"name": name})


def _write_role(database: Database, connection: Connection, by: str, name: str, role: str) -> None:
    known = _role_of(connection, name)
    if known == role:
        return
    if known is None:
        connection.execute(users.insert().values(name=name, role=role))
    else:
        connection.execute(users.update().where(users.c.name == name).values(role=role))
    before = None if known is None else {"name": name, "role": known}
    after = {"name": name, "role": role}
    record(database, connection, by, uuid.uuid4().hex, "user", before=before, after=after)


def list_users(database: Database, who: Actor) -> dict[str, Role]:
    """All users who have a role, with it, by name. For researchers, who choose readers, and admins.

    Raises:
        NotAllowedError: by a reader.
    """
    with database.read() as connection:
        require_role(connection, who, "researcher", "admin")
        having = sa.select(users.c.name, users.c.role).where(users.c.role != NO_ROLE)
        rows = connection.execute(having.order_by(users.c.name)).all()
    return {row.name: row.role for row in rows}


# ---------------------------------------------------------------------------------------------------------- sessions


def create_session(database: Database, who: Actor, design: Design, pool: Sequence[Case]) -> str:
    """Choose the studies, lay out all screens, and store both with the texts of the reports.

    Returns:
        The id of the session.

    Raises:
        NotAllowedError: by a reader.
        ReviewError: the design does not fit the cases, or a reader is not a user.
    """
    chosen = choose(pool, design.studies, design.seed)
    for case in chosen:
        for name, text in (*case.reports.items(), *case.context.items()):
            _check_text(f"study {case.study_id}, {name}", text, 1_000_000)
    session_id, secret = uuid.uuid4().hex, secrets.token_hex(16)
    planned = plan(design, chosen, secret)
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
            _insert_screens(connection, session_id, reader, laid_out, by_id)
        content = {
            "session": row,
            "cases": digest(texts),
            "screens": {name: len(all_) for name, all_ in planned.items()},
        }
        record(database, connection, who.name, f"create/{session_id}", "create", session_id=session_id, after=content)
    return session_id


def _insert_screens(
    connection: Connection, session_id: str, reader: str, laid_out: Sequence[Screen], by_id: Mapping[str, Case]
) -> None:
    ids = [uuid.uuid4().hex for _ in laid_out]
    rows = [
        screen_row(
            session_id,
            reader,
            place,
            screen.study_id,
            id=ids[place],
            shown=[list(pair) for pair in screen.shown],
            repeats=None if screen.repeats is None else ids[screen.repeats],
            image_sha256=by_id[screen.study_id].image_sha256,
            bundles={model: by_id[screen.study_id].bundles.get(model, "") for _, model in screen.shown},
        )
        for place, screen in enumerate(laid_out)
    ]
    if rows:
        connection.execute(screens.insert(), rows)


def screen_row(session_id: str, reader: str, position: int, study_id: str, **fields: Any) -> dict[str, Any]:
    """Make the row of a fresh screen."""
    fresh = {"state": "pending", "skip_reason": "", "flagged": False, "comment": "", "version": 1, "opened": False}
    row = {"session_id": session_id, "reader": reader, "position": position, "study_id": study_id, "seconds": 0.0}
    return {**row, **fresh, "disputed": None, "software": __version__, **fields}


def list_sessions(database: Database, who: Actor, *, to_read: bool = False) -> list[SessionInfo]:
    """The sessions of an actor, newest first: a reader's those to read, a researcher's own, an admin's all.

    Args:
        database: of the sessions.
        who: the actor.
        to_read: those that the actor reads in, whatever the role, with the own progress.
    """
    done = sa.func.sum(sa.case((screens.c.state == "pending", 0), else_=1))
    query = (
        sa.select(sessions, done.label("done"), sa.func.count(screens.c.id).label("screens"))
        .join(screens, screens.c.session_id == sessions.c.id)
        .group_by(sessions.c.id)
        .order_by(sessions.c.created.desc(), sessions.c.id)
    )
    # JSON columns cannot be grouped by in PostgreSQL; a primary key can stand for its row there.
    if who.role == "reader" or to_read:
        query = query.where(screens.c.reader == who.name)
    elif who.role == "researcher":
        query = query.where(sessions.c.owner == who.name)
    with database.read() as connection:
        require_role(connection, who, "reader", "researcher", "admin")
        rows = connection.execute(query).all()
    return [
        SessionInfo(
            row.id, row.title, row.design["rubric"], row.state, row.owner, row.created, int(row.done), row.screens
        )
        for row in rows
    ]


def close_session(database: Database, who: Actor, session_id: str) -> None:
    """End a session: nothing can be marked afterwards, and it can be unblinded. Cannot be taken back.

    Raises:
        NotAllowedError: it is not the actor's.
    """
    with database.write() as connection:
        session = owned_session(connection, who, session_id)
        if session.state == "closed":
            return
        connection.execute(sessions.update().where(sessions.c.id == session_id).values(state="closed"))
        before, after = {"state": "open"}, {"state": "closed"}
        key = f"close/{session_id}"
        record(database, connection, who.name, key, "close", session_id=session_id, before=before, after=after)


def unblind(database: Database, who: Actor, session_id: str) -> dict[str, dict[str, str]]:
    """Tell which model each blinded name stood for: reader -> name -> model. A reader learns the own ones only.

    Raises:
        NotAllowedError: it is not the actor's session.
        ReviewError: it is not closed, or is a reader's who reads the same studies in one that is open.
    """
    query = sa.select(screens.c.reader, screens.c.shown, screens.c.study_id).where(screens.c.session_id == session_id)
    with database.read() as connection:
        if who.role == "reader":
            require_role(connection, who, "reader")
            query = query.where(screens.c.reader == who.name)
            session = connection.execute(sa.select(sessions).where(sessions.c.id == session_id)).first()
        else:
            session = owned_session(connection, who, session_id)
        rows = connection.execute(query).all()
        reading = _being_read(connection, who.name) if who.role == "reader" else frozenset()
    if session is None or (not rows and who.role == "reader"):
        raise _not_there(who, "session", session_id)
    if session.state != "closed":
        raise ReviewError("Names are revealed when the session is closed, and not before: cxr-lens review close.")
    if any(row.study_id in reading for row in rows):
        raise ReviewError("You read the same radiographs in a session that is open. Names are revealed when it closes.")
    names: dict[str, dict[str, str]] = {}
    for row in rows:
        names.setdefault(row.reader, {}).update({blinded: model for blinded, model in row.shown})  # noqa: C416
    return names


# ----------------------------------------------------------------------------------------------------------- reading


def being_read(database: Database, name: str) -> frozenset[str]:
    """The studies that a user, of whatever role, reads in open sessions: to keep them back elsewhere, not to show."""
    with database.read() as connection:
        return _being_read(connection, name)


def _being_read(connection: Connection, name: str) -> frozenset[str]:
    return frozenset(connection.scalars(_BEING_READ, {"reader": name}))


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
        return connection.scalar(query)


def list_screens(database: Database, who: Actor, session_id: str) -> list[tuple[str, ScreenState, bool]]:
    """(id, state, flagged) of the actor's own screens of a session, in order."""
    with database.read() as connection:
        require_role(connection, who, *get_args(Role))
        rows = connection.execute(_OWN_SCREENS, {"session": session_id, "reader": who.name})
        return [(row.id, row.state, row.flagged) for row in rows]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reader is in a session.

    Attributes:
        state: of the session, "open" or "closed".
        screens: (id, state, flagged) of the reader's own, in order.
        seconds: of active reading so far.
    """

    state: str
    screens: tuple[tuple[str, ScreenState, bool], ...]
    seconds: float


def progress(database: Database, who: Actor, session_id: str) -> Progress:
    """How far the actor is in a session to read.

    Raises:
        NotAllowedError: there is no such session, or nothing in it for this actor.
    """
    with database.read() as connection:
        require_role(connection, who, *get_args(Role))
        rows = connection.execute(_OWN_SCREENS, {"session": session_id, "reader": who.name}).all()
        session = connection.execute(_SESSION, {"session": session_id}).first()
    if not rows or session is None:
        raise _not_there(who, "session", session_id)
    found = tuple((row.id, row.state, row.flagged) for row in rows)
    return Progress(session.state, found, sum(row.seconds for row in rows))


def writers(database: Database, who: Actor, screen_id: str) -> dict[str, tuple[str, str]]:
    """Blinded name -> (model, hash of its bundle), to draw its explanation on the server. Never for the reader's eyes.

    Raises:
        NotAllowedError: it is not the actor's screen.
    """
    with database.read() as connection:
        screen, _ = _own_screen(connection, who, screen_id)
    return {blinded: (model, screen.bundles.get(model, "")) for blinded, model in screen.shown}


def read_screen(database: Database, who: Actor, screen_id: str) -> ReaderScreen:
    """One own screen with its marks.

    Raises:
        NotAllowedError: it is not the actor's.
    """
    with database.read() as connection:
        screen, session = _own_screen(connection, who, screen_id)
        case = case_of(connection, screen)
        rows = connection.execute(_SHOWN_MARKS, {"screen": screen_id}).all()
        total, left = _count_and_seconds_left(connection, screen, session)
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
        rubric=session.design["rubric"],
        question=RUBRICS[session.design["rubric"]].question,
        title=session.title,
        instructions=session.design["instructions"],
        explanation=session.design["explanation"],
        marks=tuple(_saved(row.slot, dict(row._mapping)) for row in rows),
        disputed=tuple(screen.disputed or ()),
        state=screen.state,
        skip_reason=screen.skip_reason,
        flagged=screen.flagged,
        comment=screen.comment,
        seconds=screen.seconds,
        seconds_left=left,
        version=screen.version,
    )


def open_screen(database: Database, who: Actor, screen_id: str) -> ReaderScreen:
    """Open a screen to read it; the first opening is an event.

    Raises:
        NotAllowedError: it is not the actor's.
        ReviewError: the reader's time is over; screens opened before stay open.
    """
    with database.write() as connection:
        screen, session = _own_screen(connection, who, screen_id)
        if session.state == "open":
            _open(database, connection, who, screen, session)
    return read_screen(database, who, screen_id)


def save_mark(
    database: Database, who: Actor, screen_id: str, mark: Mark, *, key: str, slot: str = "", version: int = 0
) -> SavedMark:
    """Store a mark; when this returns it is on the disk.

    Args:
        database: of the session.
        who: its reader.
        screen_id: an own screen.
        mark: the answer.
        key: of this change; the same key again changes nothing and returns the same.
        slot: of the mark that is changed; empty for a new one.
        version: of the mark as the caller last saw it; 0 for a new one.

    Raises:
        NotAllowedError: not the actor's screen.
        ConflictError: the mark was changed since ``version``, or the question was answered in another tab.
        ReviewError: the session is closed, or the mark does not fit the rubric.
    """

    def apply(connection: Connection, screen: AnyRow, session: AnyRow) -> Change:
        check_mark(mark, RUBRICS[session.design["rubric"]], texts_of(screen, case_of(connection, screen)))
        place = slot or slot_of(mark, f"{who.name}/{key}")
        answers = f"error/{mark.report}/" if mark.kind == "error" else slot_of(mark, "")
        if slot and not slot.startswith(answers):
            raise ReviewError(f"This mark answers another question than '{slot}'. Remove that one and make a new one.")
        found = mark_of(connection, screen_id, place)
        if slot and found is None:
            raise ReviewError(f"There is no mark '{slot}' on this screen to change.")
        current = 0 if found is None or (found["deleted"] and not slot) else found["version"]
        if current != version:
            return Change(place, found, None)
        after = {
            "kind": mark.kind,
            "report": mark.report,
            "value": dict(mark.value),
            "version": (found["version"] if found else 0) + 1,
            "deleted": False,
        }
        return Change(place, found, after)

    request = {"mark": asdict(mark), "slot": slot, "version": version}
    place, after = _change(database, who, screen_id, key, "mark", request, apply)
    return _saved(place or "", after)


def remove_mark(database: Database, who: Actor, screen_id: str, slot: str, *, key: str, version: int) -> None:
    """Take a mark back; its event stays.

    Raises:
        NotAllowedError, ConflictError, ReviewError: as `save_mark`.
    """

    def apply(connection: Connection, screen: AnyRow, session: AnyRow) -> Change:
        found = mark_of(connection, screen_id, slot)
        if found is None:
            raise ReviewError(f"There is no mark '{slot}' on this screen.")
        if found["version"] != version or found["deleted"]:
            return Change(slot, found, None)
        return Change(slot, found, found | {"version": version + 1, "deleted": True})

    _change(database, who, screen_id, key, "unmark", {"slot": slot, "version": version}, apply)


def annotate(
    database: Database,
    who: Actor,
    screen_id: str,
    *,
    key: str,
    version: int,
    state: ScreenState | None = None,
    skip_reason: str | None = None,
    flagged: bool | None = None,
    comment: str | None = None,
) -> int:
    """Finish, skip, flag or comment on a screen.

    Args:
        database: of the session.
        who: its reader.
        screen_id: an own screen.
        key: of this change, as in `save_mark`.
        version: of the screen as the caller last saw it.
        state: "skipped" needs a reason; "done" needs all answers that the rubric cannot do without.
        skip_reason: why it is skipped.
        flagged: for the researcher to look at.
        comment: free text, stored as it is.

    Returns:
        The new version.

    Raises:
        NotAllowedError, ConflictError, ReviewError: as `save_mark`.
    """
    given = {"state": state, "skip_reason": skip_reason, "flagged": flagged, "comment": comment}
    changes = {name: value for name, value in given.items() if value is not None}
    for name, text in (("skip_reason", skip_reason), ("comment", comment)):
        _check_text(name, text or "", COMMENT_LIMIT)
    if state is not None and state not in get_args(ScreenState):
        raise ReviewError(f"A screen is {', '.join(get_args(ScreenState))}, not '{state}'.")

    def apply(connection: Connection, screen: AnyRow, session: AnyRow) -> Change:
        before = {name: screen._mapping[name] for name in SCREEN_FIELDS}
        if screen.version != version:
            return Change(None, before, None)
        after = before | changes | {"version": version + 1}
        if after["state"] != "skipped":
            after["skip_reason"] = ""
        elif not after["skip_reason"].strip():
            raise ReviewError("Say in a few words why this screen is skipped.")
        if after["state"] == "done":
            _require_answers(connection, screen, session)
        return Change(None, before, after)

    _, after = _change(database, who, screen_id, key, "annotate", {"version": version, **changes}, apply)
    return int(after["version"])


def spend(database: Database, who: Actor, screen_id: str, seconds: float, *, key: str) -> float:
    """Add active reading time, as a steady clock of the page measured it; returns all of this screen's.

    Raises:
        ReviewError: less than nothing, or more than `MAX_SECONDS` at once.
    """
    if not 0 <= seconds <= MAX_SECONDS:
        raise ReviewError(f"{seconds:g} s of reading cannot be: a message adds 0 to {MAX_SECONDS:g} s. A clock jumped.")

    def apply(connection: Connection, screen: AnyRow, session: AnyRow) -> Change:
        return Change(None, {"seconds": screen.seconds}, {"seconds": screen.seconds + seconds})

    return float(_change(database, who, screen_id, key, "time", {"seconds": seconds}, apply)[1]["seconds"])


def undo(database: Database, who: Actor, screen_id: str, *, key: str) -> ReaderScreen:
    """Take back the actor's last change of a screen that is not taken back yet; that is an event too.

    Raises:
        ReviewError: there is nothing to undo.
    """

    def apply(connection: Connection, screen: AnyRow, session: AnyRow) -> Change:
        on_screen = events.c.screen_id == screen_id
        undone = sa.select(events.c.undoes).where(on_screen, events.c.undoes.is_not(None))
        last = connection.execute(
            sa.select(events)
            .where(
                on_screen,
                events.c.actor == who.name,
                events.c.action.in_(("mark", "unmark", "annotate")),
                events.c.sequence.not_in(undone),
            )
            .order_by(events.c.sequence.desc())
            .limit(1)
        ).first()
        if last is None:
            raise ReviewError("There is nothing to undo on this screen.")
        if last.slot is None:
            now: dict[str, Any] = {name: screen._mapping[name] for name in SCREEN_FIELDS}
            after = {**last.before, "version": screen.version + 1}
        else:
            now = mark_of(connection, screen_id, last.slot) or {}
            before = last.before or {**last.after, "deleted": True}
            after = {**before, "version": now["version"] + 1}
        return Change(last.slot, now, after, undoes=last.sequence)

    _change(database, who, screen_id, key, "undo", {}, apply)
    return read_screen(database, who, screen_id)


# --------------------------------------------------------------------------------------------------- how changes work


@dataclass(frozen=True, slots=True)
class Change:
    """What a change makes of a mark (``slot``) or a screen (no slot); ``after`` is None where it is refused."""

    slot: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    undoes: int | None = None


def _change(
    database: Database,
    who: Actor,
    screen_id: str,
    key: str,
    action: str,
    request: Mapping[str, Any],
    apply: Callable[[Connection, AnyRow, AnyRow], Change],
) -> tuple[str | None, dict[str, Any]]:
    """Do a change of an own screen once, with its event; (slot, what is there after)."""
    _check_text("key", key, 200, empty=False)
    asked = digest([action, screen_id, dict(request)])
    with database.write() as connection:
        screen, session = _own_screen(connection, who, screen_id)
        known = connection.execute(_KEY, {"key": _key(who, key)}).first()
        if known is None:
            if session.state != "open":
                raise ReviewError("This session is closed; nothing can be changed any more.")
            _open(database, connection, who, screen, session)
            change = apply(connection, screen, session)
            write_change(
                database, connection, who, screen, change, key=key, action=action, request=asked, content=request
            )
            slot, before, after = change.slot, change.before, change.after
        elif known.request != asked:
            raise ReviewError("This key was used for another change. Make up a new key for each change.")
        else:
            slot, before, after = known.slot, known.before, known.after
            if known.action == "refused":
                after = None
    if after is None:
        raise ConflictError(
            "This was changed in another tab since you saw it. Your change was not made, and is kept in the record. "
            "Look at what is there now, then decide.",
            before,
        )
    return slot, after


def write_change(
    database: Database,
    connection: Connection,
    who: Actor,
    screen: AnyRow,
    change: Change,
    *,
    key: str,
    action: str,
    request: str,
    content: Mapping[str, Any],
) -> None:
    """Write a change and its event into an open transaction; a refused one (no ``after``) is only an event."""
    if change.after is not None:
        if change.slot is None:
            connection.execute(screens.update().where(screens.c.id == screen.id).values(change.after))
        elif change.before is None:
            connection.execute(_NEW_MARK, {"screen_id": screen.id, "slot": change.slot, **change.after})
        else:
            which = (marks.c.screen_id == screen.id) & (marks.c.slot == change.slot)
            connection.execute(marks.update().where(which).values(change.after))
    database.append(
        connection,
        actor=who.name,
        action=action if change.after is not None else "refused",
        session_id=screen.session_id,
        screen_id=screen.id,
        slot=change.slot,
        key=_key(who, key),
        request=request,
        asked=None if change.after is not None else dict(content),
        before=change.before,
        after=change.after,
        undoes=change.undoes,
    )


def _open(database: Database, connection: Connection, who: Actor, screen: AnyRow, session: AnyRow) -> None:
    if screen.opened:
        return
    _, left = _count_and_seconds_left(connection, screen, session)
    if left is not None and left <= 0:
        raise ReviewError("Your time for this session is over. What you marked is saved; thank you.")
    connection.execute(screens.update().where(screens.c.id == screen.id).values(opened=True))
    where = {"session_id": screen.session_id, "screen_id": screen.id}
    record(database, connection, who.name, f"open/{screen.id}", "open", **where, after={"opened": True})


def record(database: Database, connection: Connection, name: str, key: str, action: str, **fields: Any) -> None:
    """Write an event that has no request of its own: who does the same again finds it done before."""
    asked = digest([action, fields.get("after")])
    # Names hold no slash, so no key that a caller makes up is one of these.
    database.append(connection, actor=name, action=action, key=f"/{name}/{key}", request=asked, **fields)


def _key(who: Actor, key: str) -> str:
    return f"{who.name}/{key}"


def require_role(connection: Connection, who: Actor, *roles: str) -> None:
    """Refuse an actor who is not, in the database, what is claimed, or whose role is none of these."""
    role = _role_of(connection, who.name)
    if role in (None, NO_ROLE):
        raise NotAllowedError(f"{who.name} has no role in these review sessions. Ask the people who run them.")
    if role != who.role or role not in roles:
        raise NotAllowedError(f"{who.name} ({who.role}) may not do this; it is for: {', '.join(roles)}.")


def owned_session(connection: Connection, who: Actor, session_id: str) -> AnyRow:
    """A session of the acting researcher; of an admin any.

    Raises:
        NotAllowedError: it is not there, or not theirs.
    """
    require_role(connection, who, "researcher", "admin")
    row = connection.execute(sa.select(sessions).where(sessions.c.id == session_id)).first()
    if row is None or (who.role != "admin" and row.owner != who.name):
        raise _not_there(who, "session", session_id)
    return row


def _own_screen(connection: Connection, who: Actor, screen_id: str) -> tuple[AnyRow, AnyRow]:
    """An own screen and its session. Researchers and admins can read too, but only their own screens."""
    require_role(connection, who, *get_args(Role))
    screen = connection.execute(_OWN_SCREEN, {"screen": screen_id, "reader": who.name}).first()
    if screen is None:
        raise _not_there(who, "screen", screen_id)
    return screen, connection.execute(_SESSION, {"session": screen.session_id}).one()


def _not_there(who: Actor, what: str, name: str) -> NotAllowedError:
    return NotAllowedError(f"There is no {what} '{name}' for {who.name}.")


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


def mark_of(connection: Connection, screen_id: str, slot: str) -> dict[str, Any] | None:
    """The stored mark of a slot, deleted or not, as `MARK_FIELDS`."""
    row = connection.execute(_MARK, {"screen": screen_id, "slot": slot}).first()
    return None if row is None else dict(row._mapping)


def _saved(slot: str, fields: Mapping[str, Any]) -> SavedMark:
    return SavedMark(slot, Mark(fields["kind"], fields["report"], fields["value"]), fields["version"])


def _require_answers(connection: Connection, screen: AnyRow, session: AnyRow) -> None:
    which = sa.select(marks.c.slot).where(marks.c.screen_id == screen.id, ~marks.c.deleted)
    slots = list(connection.scalars(which))
    kind = RUBRICS[session.design["rubric"]].mark
    missing: list[str] = []
    if kind == "preference" and not slots:
        missing = ["which report you prefer"]
    elif kind == "label":
        asked = [each["question"] for each in screen.disputed] if screen.disputed else OBSERVATIONS
        missing = [name for name in asked if f"label/{name}" not in slots]
    elif kind == "helpfulness" and screen.disputed:
        wanted = [(each["report"], each["question"]) for each in screen.disputed]
        missing = [f"report {name}, {span}" for name, span in wanted if f"helpfulness/{name}/{span}" not in slots]
    elif kind == "helpfulness":
        names = [blinded for blinded, _ in screen.shown]
        missing = [f"report {name}" for name in names if not any(s.startswith(f"helpfulness/{name}/") for s in slots)]
    if missing:
        raise ReviewError(f"Not answered yet: {', '.join(missing)}. Answer, or skip the screen with a reason.")


def _check_name(name: str) -> None:
    _check_text("name", name, 200, empty=False)
    if "/" in name:
        raise ReviewError(f"The name '{name}' holds a slash; choose one without.")
    # Two names that look the same must be the same: people choose by what they see.
    hidden = any(unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp") for sign in name)
    if hidden or name != unicodedata.normalize("NFC", name).strip():
        raise ReviewError(
            f"The name '{name.strip()}' begins or ends with a space, or holds signs that cannot be seen. Type it again."
        )


def _check_text(name: str, text: str, limit: int, *, empty: bool = True) -> None:
    if not isinstance(text, str) or len(text) > limit or (not empty and not text.strip()):
        raise ReviewError(f"{name}: a text of {'0' if empty else '1'} to {limit:,} characters is needed.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ReviewError(f"{name}: the text holds half a character at place {error.start}. Type it again.") from error
    if "\0" in text:
        raise ReviewError(f"{name}: the text holds a zero character. Type it again.")


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
