"""One-time codes for named readers of one session, where no identity provider is at hand.

What became of an invitation is in the append-only events, and nowhere else: made ("invite"), used ("redeem"), taken
back ("uninvite"). Of its code there is only a salted hash (scrypt). Each event has a key that can be written once, so
a code works once, whoever is faster.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.files import hash_of
from core.reviews.database import Database
from core.reviews.rubrics import ReviewError
from core.reviews.schema import AnyRow, events, screens, users
from core.reviews.store.actors import Actor, NotAllowedError
from core.reviews.store.sessions import owned_session

CODE_DAYS = 14
"""Until when a code must be used, unless its maker says otherwise."""
MOST_DAYS = 90
ACCESS_DAYS = 30
"""How long a browser is let in that brought a code."""
TRIES, TRIES_SECONDS = 20, 60.0
"""So many wrong codes a minute are looked at, of all who try together; then nobody's until a minute is over."""

InvitationState = Literal["open", "used", "expired", "withdrawn"]
SCRYPT: Mapping[str, int] = {"n": 2**14, "r": 8, "p": 1, "maxmem": 2**26}
"""Cost of a hash: 16 MB and some 50 ms."""
_CODE = re.compile(r"([a-z2-7]{13})-([a-z2-7]{32})")
_EVENTS = sa.select(events).where(events.c.key.in_(sa.bindparam("keys", expanding=True)))
_OF_SESSION = (
    sa.select(events)
    .where(events.c.session_id == sa.bindparam("session"), events.c.action.in_(("invite", "redeem", "uninvite")))
    .order_by(events.c.sequence)
)
_NO = (
    "This invitation does not open a session: it was used, has expired or was withdrawn, or the code is not complete. "
    "Ask whoever invited you for a new one."
)


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation, without its code, which nobody has but its reader.

    Attributes:
        id: of the invitation.
        session_id: the one session that it opens.
        reader: whose part of it.
        by: who made it.
        created: UTC, ISO.
        expires: UTC, ISO: the code must be used before.
        used: UTC, ISO; empty if it was not.
        state: "open" while it can be used; "used" lets one browser in for `ACCESS_DAYS`.
    """

    id: str
    session_id: str
    reader: str
    by: str
    created: str
    expires: str
    used: str
    state: InvitationState


class Guesses:
    """Counts wrong codes, so that nobody tries many. Safe to share by threads."""

    def __init__(self, most: int = TRIES, seconds: float = TRIES_SECONDS, now: Callable[[], float] = time.monotonic):
        """Start with none.

        Args:
            most: wrong codes within ``seconds``.
            seconds: how long a wrong code counts.
            now: a steady clock, seconds.
        """
        self._most, self._seconds, self._now = most, seconds, now
        self._wrong: deque[float] = deque(maxlen=most)
        self._lock = threading.Lock()

    def attempt(self, is_right: Callable[[], bool]) -> bool:
        """Look whether a code is right, one after another; a wrong one is counted.

        Raises:
            ReviewError: too many wrong ones came lately; nothing was looked at.
        """
        with self._lock:
            if len(self._wrong) == self._most and self._now() - self._wrong[0] < self._seconds:
                raise ReviewError("Too many codes that open nothing were tried. Wait a minute, then try again.")
            right = is_right()
            if not right:
                self._wrong.append(self._now())
        return right


def invite(
    database: Database, who: Actor, session_id: str, reader: str, *, days: int = CODE_DAYS
) -> tuple[Invitation, str]:
    """Make a code for a reader of a session; one that the reader had for it is withdrawn.

    Args:
        days: until it must be used.

    Returns:
        The invitation, and its code: to be shown once, as it is kept nowhere.

    Raises:
        NotAllowedError: it is not the actor's session.
        ReviewError: the session is closed, or the user reads nothing in it or is no reader.
    """
    if not 1 <= days <= MOST_DAYS:
        raise ReviewError(f"An invitation is valid for 1 to {MOST_DAYS} days, not {days}.")
    name, secret, salt = _random(8)[:13], _random(20), secrets.token_bytes(16)
    kept = _hash(secret, salt)  # before the transaction: it takes a while, and others write meanwhile
    with database.write() as connection:
        session = owned_session(connection, who, session_id)
        if session.state != "open":
            raise ReviewError("This session is closed; nobody can be invited any more.")
        _require_reader(connection, session_id, reader)
        for each in _of_session(connection, session_id, database.clock()):
            if each.reader == reader and each.state in ("open", "used"):
                _take_back(database, connection, who, each)
        expires = (database.clock() + timedelta(days=days)).astimezone(UTC).isoformat(timespec="seconds")
        after = {"reader": reader, "expires": expires, "salt": salt.hex(), "hash": kept}
        _append(database, connection, who.name, "invite", name, session_id, after)
        made = _read(connection, name, database.clock())
    assert made is not None
    return made, f"{name}-{secret}"


def list_invitations(database: Database, who: Actor, session_id: str) -> tuple[Invitation, ...]:
    """The invitations of a session, oldest first.

    Raises:
        NotAllowedError: it is not the actor's session.
    """
    with database.read() as connection:
        owned_session(connection, who, session_id)
        return tuple(_of_session(connection, session_id, database.clock()))


def withdraw_invitation(database: Database, who: Actor, session_id: str, reader: str) -> int:
    """Take back a reader's invitations to a session: codes open nothing, and browsers that brought one are out.

    Returns:
        How many were taken back.

    Raises:
        NotAllowedError: it is not the actor's session.
    """
    with database.write() as connection:
        owned_session(connection, who, session_id)
        standing = [
            each
            for each in _of_session(connection, session_id, database.clock())
            if each.reader == reader and each.state in ("open", "used")
        ]
        for each in standing:
            _take_back(database, connection, who, each)
    return len(standing)


def redeem(database: Database, code: str, guesses: Guesses) -> Invitation:
    """Use a code: once, by whoever brings it first.

    Args:
        code: as it was shown; spaces around it do no harm.
        guesses: of this server.

    Raises:
        NotAllowedError: it opens nothing, in the same words whatever the reason.
        ReviewError: too many wrong ones were tried lately.
    """
    parts = _CODE.fullmatch(code.strip()[:200])
    name, secret = parts.groups() if parts else ("", "")
    with database.read() as connection:
        event = connection.execute(_EVENTS, {"keys": [_key("invite", name)]}).first()
    kept = event.after if event is not None else {"salt": "00" * 16, "hash": ""}
    # Of a code that nobody made the same is worked out, so that the time tells nothing.
    if not guesses.attempt(lambda: hmac.compare_digest(_hash(secret, bytes.fromhex(kept["salt"])), kept["hash"])):
        raise NotAllowedError(_NO)
    with database.write() as connection:
        found = _read(connection, name, database.clock())
        if found is None or found.state != "open" or not _reads(connection, found.session_id, found.reader):
            raise NotAllowedError(_NO)
        _append(database, connection, found.reader, "redeem", found.id, found.session_id, {"reader": found.reader})
        used = _read(connection, found.id, database.clock())
    assert used is not None
    return used


def invited(database: Database, invitation_id: str) -> Actor:
    """Who is let in by a used invitation: its reader, to its one session. Asked anew each time.

    Whoever calls this has checked that the browser is the one that brought the code.

    Raises:
        NotAllowedError: it was withdrawn, was used too long ago, or the reader's role is another now.
    """
    with database.read() as connection:
        found = _read(connection, invitation_id, database.clock())
        if found is None or found.state != "used" or not _reads(connection, found.session_id, found.reader):
            raise NotAllowedError(_NO)
    until = datetime.fromisoformat(found.used) + timedelta(days=ACCESS_DAYS)
    if database.clock() > until:
        raise NotAllowedError(_NO)
    return Actor(found.reader, "reader", found.session_id)


def _random(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()


def _hash(secret: str, salt: bytes) -> str:
    return hashlib.scrypt(secret.encode(), salt=salt, dklen=32, **SCRYPT).hex()


def _require_reader(connection: Connection, session_id: str, reader: str) -> None:
    role = connection.scalar(sa.select(users.c.role).where(users.c.name == reader))
    here = sa.select(screens.c.id).where(screens.c.session_id == session_id, screens.c.reader == reader).limit(1)
    if connection.scalar(here) is None:
        raise ReviewError(f"{reader} reads nothing in this session. Invite one of its readers.")
    if role != "reader":
        raise ReviewError(f"{reader} is {role}, and a code lets in readers only, who may do nothing else.")


def _reads(connection: Connection, session_id: str, reader: str) -> bool:
    try:
        _require_reader(connection, session_id, reader)
    except ReviewError:
        return False
    return True


def _append(
    database: Database,
    connection: Connection,
    by: str,
    action: str,
    invitation_id: str,
    session_id: str,
    after: Mapping[str, Any],
) -> None:
    key, request = _key(action, invitation_id), hash_of([action, dict(after)])
    database.append(
        connection, actor=by, action=action, key=key, request=request, session_id=session_id, after=dict(after)
    )


def _take_back(database: Database, connection: Connection, who: Actor, invitation: Invitation) -> None:
    after = {"reader": invitation.reader}
    _append(database, connection, who.name, "uninvite", invitation.id, invitation.session_id, after)


def _key(action: str, invitation_id: str) -> str:
    """Keys that a caller makes up begin with a user's name, and those of `Database.record` with one slash."""
    return f"//{action}/{invitation_id}"


def _read(connection: Connection, invitation_id: str, now: datetime) -> Invitation | None:
    keys = [_key(action, invitation_id) for action in ("invite", "redeem", "uninvite")]
    return next(iter(_told(connection.execute(_EVENTS, {"keys": keys}).all(), now)), None)


def _of_session(connection: Connection, session_id: str, now: datetime) -> list[Invitation]:
    return _told(connection.execute(_OF_SESSION, {"session": session_id}).all(), now)


def _told(rows: Sequence[AnyRow], now: datetime) -> list[Invitation]:
    """The invitations that events tell of, in the order in which they were made."""
    by_key = {row.key: row for row in rows}
    found = []
    for key, made in by_key.items():
        if made.action != "invite":
            continue
        invitation_id = key.rpartition("/")[2]
        used, back = (by_key.get(_key(action, invitation_id)) for action in ("redeem", "uninvite"))
        state: InvitationState = "open"
        if back is not None:
            state = "withdrawn"
        elif used is not None:
            state = "used"
        elif now >= datetime.fromisoformat(made.after["expires"]):
            state = "expired"
        about = (invitation_id, made.session_id, made.after["reader"], made.actor, made.at, made.after["expires"])
        found.append(Invitation(*about, "" if used is None else used.at, state))
    return found
