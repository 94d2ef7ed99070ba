"""What a reader changes, each with its event: marks, the state of a screen, reading time, and taking back.

Each change takes a ``key`` that the caller makes up once for it: sent again, after a lost answer, it is done once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.files import hash_of
from core.observations import OBSERVATIONS
from core.reviews.answer_marks import check_together, missing, not_settled
from core.reviews.database import Database, check_text
from core.reviews.rubric_library import rubric_of
from core.reviews.rubrics import (
    COMMENT_LIMIT,
    Mark,
    ReviewError,
    Rubric,
    check_mark,
    question_in_words,
    slot_of,
)
from core.reviews.schema import AnyRow, events, marks, screens
from core.reviews.store.actors import Actor
from core.reviews.store.screens import (
    ReaderScreen,
    SavedMark,
    ScreenState,
    case_of,
    marks_on,
    open_first,
    own_screen,
    read_screen,
    saved,
    texts_of,
)
from core.reviews.store.sittings import require_sitting

MARK_FIELDS = ("kind", "report", "value", "version", "deleted")
SCREEN_FIELDS = ("state", "skip_reason", "flagged", "comment", "version")
"""What events of marks and of screens hold before and after."""

MAX_SECONDS = 600.0
"""Most of active time that one message may add; more is a clock that jumped."""

_MARK = sa.select(*(marks.c[name] for name in MARK_FIELDS)).where(
    marks.c.screen_id == sa.bindparam("screen"), marks.c.slot == sa.bindparam("slot")
)
_KEY = sa.select(events).where(events.c.key == sa.bindparam("key"))
_NEW_MARK = marks.insert()


class ConflictError(ReviewError):
    """Somebody else's change, or one of another tab, came first. What was refused is kept in the events.

    Attributes:
        current: what is there now.
    """

    def __init__(self, message: str, current: Mapping[str, Any] | None) -> None:
        super().__init__(message)
        self.current = current


def save_mark(
    database: Database, who: Actor, screen_id: str, mark: Mark, *, key: str, slot: str = "", version: int = 0
) -> SavedMark:
    """Store a mark; when this returns it is on the disk.

    Args:
        key: of this change; the same key again changes nothing and returns the same.
        slot: of the mark that is changed; empty for a new one.
        version: of the mark as the caller last saw it; 0 for a new one.

    Raises:
        NotAllowedError: not the actor's screen.
        ConflictError: the mark was changed since ``version``, or the question was answered in another tab.
        ReviewError: the session is closed, or the mark does not fit the rubric.
    """

    def apply(connection: Connection, screen: AnyRow, session: AnyRow) -> Change:
        check_on_screen(connection, screen, rubric_of(session.design), mark)
        own_slot = slot or slot_of(mark, f"{who.name}/{key}")
        answers = f"error/{mark.report}/" if mark.kind == "error" else slot_of(mark, "")
        if slot and not slot.startswith(answers):
            raise ReviewError(f"This mark answers another question than '{slot}'. Remove that one and make a new one.")
        found = mark_of(connection, screen_id, own_slot)
        if slot and found is None:
            raise ReviewError(f"There is no mark '{slot}' on this screen to change.")
        current = 0 if found is None or (found["deleted"] and not slot) else found["version"]
        wanted = {"kind": mark.kind, "report": mark.report, "value": dict(mark.value)}
        if current != version:
            agrees = found is not None and not found["deleted"] and wanted.items() <= found.items()
            return Change(own_slot, found, found if agrees else None)
        after = {
            **wanted,
            "version": (found["version"] if found else 0) + 1,
            "deleted": False,
        }
        return Change(own_slot, found, after)

    request = {"mark": asdict(mark), "slot": slot, "version": version}
    marked, after = change_once(database, who, screen_id, key, "mark", request, apply)
    return saved(marked or "", after)


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
            return Change(slot, found, found if found["deleted"] else None)
        return Change(slot, found, found | {"version": version + 1, "deleted": True})

    change_once(database, who, screen_id, key, "unmark", {"slot": slot, "version": version}, apply)


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
        key: of this change, as in `save_mark`.
        version: of the screen as the caller last saw it.
        state: "skipped" needs a reason; "done" needs all answers that the rubric cannot do without.
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
        check_text(name, text or "", COMMENT_LIMIT)
    if state is not None and state not in get_args(ScreenState):
        raise ReviewError(f"A screen is {', '.join(get_args(ScreenState))}, not '{state}'.")

    def apply(connection: Connection, screen: AnyRow, session: AnyRow) -> Change:
        before = {name: screen._mapping[name] for name in SCREEN_FIELDS}
        if screen.version != version:
            return Change(None, before, before if changes.items() <= before.items() else None)
        after = before | changes | {"version": version + 1}
        if after["state"] != "skipped":
            after["skip_reason"] = ""
        elif not after["skip_reason"].strip():
            raise ReviewError("Say in a few words why this screen is skipped.")
        if after["state"] == "done":
            _require_answers(connection, screen, session)
        return Change(None, before, after)

    _, after = change_once(database, who, screen_id, key, "annotate", {"version": version, **changes}, apply)
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

    return float(change_once(database, who, screen_id, key, "time", {"seconds": seconds}, apply)[1]["seconds"])


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

    change_once(database, who, screen_id, key, "undo", {}, apply)
    return read_screen(database, who, screen_id)


@dataclass(frozen=True, slots=True)
class Change:
    """What a change makes of a mark (``slot``) or a screen (no slot); ``after`` is None where it is refused.

    It is ``before`` where another tab came first and did the same: nobody needs to be asked then.
    """

    slot: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    undoes: int | None = None


def change_once(
    database: Database,
    who: Actor,
    screen_id: str,
    key: str,
    action: str,
    request: Mapping[str, Any],
    apply: Callable[[Connection, AnyRow, AnyRow], Change],
) -> tuple[str | None, dict[str, Any]]:
    """Do a change of an own screen once, with its event; (slot, what is there after)."""
    check_text("key", key, 200, empty=False)
    asked = hash_of([action, screen_id, dict(request)])
    with database.write() as connection:
        screen, session = own_screen(connection, who, screen_id)
        known = connection.execute(_KEY, {"key": _key(who, key)}).first()
        if known is None:
            if session.state != "open":
                raise ReviewError("This session is closed; nothing can be changed any more.")
            require_sitting(database, connection, screen, session)
            open_first(database, connection, who, screen, session)
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
    agreed = change.before is not None and "version" in change.before and change.after == change.before
    done = "agreed" if agreed else action
    database.append(
        connection,
        actor=who.name,
        action=done if change.after is not None else "refused",
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


def _key(who: Actor, key: str) -> str:
    return f"{who.name}/{key}"


def mark_of(connection: Connection, screen_id: str, slot: str) -> dict[str, Any] | None:
    """The stored mark of a slot, deleted or not, as `MARK_FIELDS`."""
    row = connection.execute(_MARK, {"screen": screen_id, "slot": slot}).first()
    return None if row is None else dict(row._mapping)


def check_on_screen(connection: Connection, screen: AnyRow, rubric: Rubric, mark: Mark) -> None:
    """Refuse a mark that does not fit the rubric, or not beside the screen's other marks.

    Raises:
        ReviewError: what is wrong with it.
    """
    check_mark(mark, rubric, texts_of(screen, case_of(connection, screen)), screen.disputed or ())
    if mark.kind == "answer" or rubric.contradictions:
        own = slot_of(mark, "")
        others = [each for slot, each in marks_on(connection, screen.id) if slot != own]
        check_together(mark, rubric, others, settles=bool(screen.disputed))


def _require_answers(connection: Connection, screen: AnyRow, session: AnyRow) -> None:
    rubric = rubric_of(session.design)
    made = [mark for _, mark in marks_on(connection, screen.id)]
    texts = texts_of(screen, case_of(connection, screen))
    lacking: list[str] = []
    if screen.disputed:
        lacking = [
            f"{'report ' + each['report'] + ', ' if each['report'] else ''}"
            f"{question_in_words(rubric, each['question'], texts.get(each['report'], ''))}"
            for each in not_settled(rubric, screen.disputed, made)
        ]
    elif rubric.mark == "answer":
        lacking = missing(rubric, texts, made)
    elif rubric.mark == "preference" and not made:
        lacking = ["which report you prefer"]
    elif rubric.mark == "label":
        stated = {mark.value["observation"] for mark in made}
        lacking = [name for name in OBSERVATIONS if name not in stated]
    elif rubric.mark == "helpfulness":
        judged = {mark.report for mark in made}
        lacking = [f"report {name}" for name in texts if name not in judged]
    if lacking:
        raise ReviewError(f"Not answered yet: {', '.join(lacking)}. Answer, or skip the screen with a reason.")
