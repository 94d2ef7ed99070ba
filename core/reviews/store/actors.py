"""Users and what they may do: each function takes an `Actor` and asks the database again what that actor may do."""

from __future__ import annotations

import unicodedata
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.reviews.database import Database, check_text
from core.reviews.role import Role as Role
from core.reviews.rubrics import ReviewError
from core.reviews.schema import users

NO_ROLE = "none"
"""Of a user whose role was taken away: may do and see nothing, and what was marked before stays."""

_ROLE = sa.select(users.c.role).where(users.c.name == sa.bindparam("name"))


class NotAllowedError(ReviewError):
    """The actor may not do or see this; the same words where it does not exist, so nothing is learned from them."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. The role must be the one in the database.

    Attributes:
        name: of the user.
        role: what the user is.
        only: id of the one session that this actor may see anything of; empty for all that are the user's.
    """

    name: str
    role: Role
    only: str = ""


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
            database.record(connection, name, f"user/{name}", "user", after={"name": name, "role": "admin"})
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
    database.record(connection, by, uuid.uuid4().hex, "user", before=before, after=after)


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


def require_role(connection: Connection, who: Actor, *roles: str) -> None:
    """Refuse an actor who is not, in the database, what is claimed, or whose role is none of these."""
    role = _role_of(connection, who.name)
    if role in (None, NO_ROLE):
        raise NotAllowedError(f"{who.name} has no role in these review sessions. Ask the people who run them.")
    if role != who.role or role not in roles:
        raise NotAllowedError(f"{who.name} ({who.role}) may not do this; it is for: {', '.join(roles)}.")


def require_session(who: Actor, session_id: str) -> None:
    """Refuse a session to an actor who was let in to another one only.

    Raises:
        NotAllowedError: as if it were not there.
    """
    if who.only and who.only != session_id:
        raise not_there(who, "session", session_id)


def not_there(who: Actor, what: str, name: str) -> NotAllowedError:
    """What to say of a session or screen that is not there, or is not this actor's."""
    return NotAllowedError(f"There is no {what} '{name}' for {who.name}.")


def _check_name(name: str) -> None:
    check_text("name", name, 200, empty=False)
    if "/" in name:
        raise ReviewError(f"The name '{name}' holds a slash; choose one without.")
    # Two names that look the same must be the same: people choose by what they see.
    hidden = any(unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp") for sign in name)
    if hidden or name != unicodedata.normalize("NFC", name).strip():
        raise ReviewError(
            f"The name '{name.strip()}' begins or ends with a space, or holds signs that cannot be seen. Type it again."
        )
