"""Sittings of a reader: which is open. One is at a time: the next opens when all of it is read and the washout is over.

The finished one can be looked at and changed until then; afterwards it is shut, so that nobody looks up what was
written of the same case before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.reviews.database import Database
from core.reviews.questions import ReviewError
from core.reviews.schema import AnyRow, events, is_practice, screens

_STATES = (
    sa.select(screens.c.id, screens.c.state, screens.c.opened)
    .where(screens.c.session_id == sa.bindparam("session"), screens.c.reader == sa.bindparam("reader"), ~is_practice)
    .order_by(screens.c.position)
)
_FINISHED = sa.select(events.c.at, events.c.screen_id, events.c.before, events.c.after).where(
    events.c.screen_id.in_(sa.bindparam("screens", expanding=True)), events.c.action.in_(("annotate", "undo"))
)


@dataclass(frozen=True, slots=True)
class Sittings:
    """Where a reader is.

    Attributes:
        screens: ids, by sitting.
        open: number of the one that is open, from 0.
        left: screens of it that are still to read.
        next: when the one after it opens; None before it is read, and of the last.
        days: of washout.
    """

    screens: tuple[tuple[str, ...], ...]
    open: int
    left: int
    next: datetime | None
    days: int

    @property
    def title(self) -> str:
        """The open one, in words."""
        return f"Sitting {self.open + 1} of {len(self.screens)}"

    @property
    def following(self) -> str:
        """When the next one opens, in a sentence; empty while the open one is read, and of the last."""
        if self.next is None:
            return ""
        return (
            f"Sitting {self.open + 2} opens on {self.next:%Y-%m-%d at %H:%M} UTC. You can close this page until then."
        )

    def why_shut(self, sitting: int) -> str:
        """Why a sitting is not open, in a sentence; empty of the open one."""
        if sitting == self.open:
            return ""
        if sitting < self.open:
            return f"Sitting {sitting + 1} is over. Its cases are shut, as you edit them again from another draft."
        about = f"This case is of sitting {sitting + 1} of {len(self.screens)}"
        if sitting == self.open + 1 and self.next is not None:
            return f"{about}. {self.following}"
        cases = "case" if self.left == 1 else "cases"
        unread = f", with {self.left} {cases} to read" if self.left else ""
        after = f"{self.days} days after sitting {sitting} is finished" if self.days else f"after sitting {sitting}"
        return f"{about}, which opens {after}. Sitting {self.open + 1} is open now{unread}."


def sittings_of(database: Database, connection: Connection, session: AnyRow, reader: str) -> Sittings | None:
    """The sittings of a reader; None in a session that has one only, or that is closed: nothing is shut there."""
    count = _count(session)
    if count < 2 or session.state != "open":
        return None
    whose = {"session": session.id, "reader": reader}
    rows = connection.execute(_STATES, whose).all()
    size = len(rows) // count
    if not size:
        return None
    parts = [rows[start : start + size] for start in range(0, size * count, size)]
    days = int(session.design["editing"]["washout_days"])
    number, following = 0, None
    while all(row.state != "pending" for row in parts[number]) and number + 1 < count:
        if not any(row.opened for row in parts[number + 1]):  # else it was open already
            following = _finished(connection, [row.id for row in parts[number]]) + timedelta(days=days)
            if database.clock() < following:
                break
        number, following = number + 1, None
    left = sum(row.state == "pending" for row in parts[number])
    return Sittings(tuple(tuple(row.id for row in part) for part in parts), number, left, following, days)


def _finished(connection: Connection, ids: list[str]) -> datetime:
    """When the last of these screens was done or skipped."""
    ends: dict[str, str] = {}
    for row in connection.execute(_FINISHED, {"screens": ids}):
        if row.after is not None and row.after.get("state", "pending") != (row.before or {}).get("state"):
            ends[row.screen_id] = row.at
    return max(map(datetime.fromisoformat, ends.values()), default=datetime.min.replace(tzinfo=UTC))


def require_sitting(database: Database, connection: Connection, screen: AnyRow, session: AnyRow) -> None:
    """Refuse a screen whose sitting is not open.

    Raises:
        ReviewError: when it opens, or that it is over.
    """
    found = sittings_of(database, connection, session, screen.reader)
    if found is None:
        return
    for number, ids in enumerate(found.screens):
        if screen.id in ids and (why := found.why_shut(number)):
            raise ReviewError(why)


def _count(session: AnyRow) -> int:
    """Sittings of each reader: `editing_design.Editing.sittings` of the design as it is stored."""
    editing = session.design.get("editing") or {}
    return len(editing.get("arms", ())) if editing.get("crossover") == "every arm" else 1
