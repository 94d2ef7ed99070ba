"""Who is signed in, and the database of reviews. Pages of reviews begin with `signed_in` and go on as that actor.

On one's own machine the server listens on the loopback device only and a reader says who he is, without a password.
On a server Streamlit's login (OpenID Connect) says who it is, and `settings.roles` what that user may do. What an
actor may see is decided in `core.reviews.store`, never here and never by the address of the page.
"""

from __future__ import annotations

import getpass
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import streamlit as st

from core.reviews.database import Database, default_location
from core.reviews.store import Actor, Role, enrol, first_admin, list_users
from core.types import CXRLensError
from dashboard import settings

READER = "reader"
"""Parameter of the address: who reads, on one's own machine. On a server it is only compared."""
_CHOSEN = "reviews_reader"


class AccessError(CXRLensError):
    """Nobody, or not this user, may use the review pages here; the message says what to do."""


# --------------------------------------------------------------------------------------------------------- database


def database() -> Database:
    """The database of reviews.

    Raises:
        ReviewError: it cannot be opened.
    """
    opened: Database = _open(default_location())
    return opened


@st.cache_resource(max_entries=2, show_spinner=False, on_release=Database.close)
def _open(location: str) -> Database:
    return Database(location)


# -------------------------------------------------------------------------------------------------------- signing in


def signed_in() -> Actor:
    """The user of this page, with the role in the database. Ends the page where there is none yet.

    Raises:
        AccessError: review pages may not be used here, or not by this user.
        ReviewError: the database cannot be used.
    """
    return _server_user() if has_login() else _local_user()


def has_login() -> bool:
    """Whether the server asks an identity provider: there is an ``[auth]`` section in secrets.toml."""
    try:
        return "auth" in st.secrets
    except FileNotFoundError:
        return False


# ------------------------------------------------------------------------------------------------- on one's own machine


def check_local(address: str | None, headers: Mapping[str, str]) -> None:
    """Refuse to go without a password where others could reach the page.

    Args:
        address: that the server listens on; None is every one.
        headers: of the request, by lower-case name.

    Raises:
        AccessError: the server, the address of the page, or a proxy is not on this machine.
    """
    host = urlsplit(f"//{headers['host']}").hostname if "host" in headers else "localhost"
    if not (_is_loopback(address) and _is_loopback(host)) or {"x-forwarded-for", "forwarded"} & set(headers):
        raise AccessError(
            "Review sessions are closed here: this server can be reached from other machines, and nobody has to sign "
            "in. Start it with --server.address=127.0.0.1 to work alone, or set up sign-in with OpenID Connect as "
            "docs/reviews.md says."
        )


def _is_loopback(host: str | None) -> bool:
    if host in ("localhost", None):
        return host is not None
    try:
        return ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _local_user() -> Actor:
    check_local(st.get_option("server.address"), {name.lower(): value for name, value in st.context.headers.items()})
    owner = first_admin(database(), getpass.getuser())
    known = list_users(database(), owner) if owner.role == "admin" else {owner.name: owner.role}
    asked = st.query_params.get(READER) or st.session_state.get(_CHOSEN)
    if asked is not None and asked not in known:
        st.session_state.pop(_CHOSEN, None)
        raise AccessError(f"There is no user '{asked}' here. Open the page Review and choose who you are.")
    if asked is None and len(known) > 1:
        _ask_who(known)
        st.stop()
    name = asked or owner.name
    st.session_state[_CHOSEN] = name
    if len(known) > 1 and st.query_params.get(READER) != name:
        st.query_params[READER] = name
    return Actor(name, known[name])


def _ask_who(known: Mapping[str, Role]) -> None:
    st.subheader("Who are you?")
    st.caption("On this machine no password is asked. Your marks are kept under the name that you choose.")
    for role in ("reader", "researcher", "admin"):
        names = [name for name in known if known[name] == role]
        if names:
            st.markdown(f"**{role.capitalize()}**")
            with st.container(horizontal=True):
                for name in names:
                    st.button(name, key=f"who-{name}", on_click=_choose, args=(name,), icon=":material/person:")


def _choose(name: str | None) -> None:
    st.session_state[_CHOSEN] = name
    if name is None:
        st.query_params.pop(READER, None)
    else:
        st.query_params[READER] = name


# ------------------------------------------------------------------------------------------------------- on a server


@dataclass(frozen=True, slots=True)
class Roles:
    """Who may do what on a server, from a TOML file.

    Attributes:
        users: role by e-mail address, in small letters.
        claim: of the identity provider that holds a user's groups; empty for none.
        groups: role by group; of several the one that may do most counts.
    """

    users: Mapping[str, Role]
    claim: str
    groups: Mapping[str, Role]

    def role_of(self, claims: Mapping[str, Any]) -> tuple[str, Role]:
        """Name and role of whom the identity provider describes.

        Raises:
            AccessError: the provider gives no e-mail address, has not verified it, or no role is given.
        """
        email = str(claims.get("email") or "").strip().lower()
        if not email or claims.get("email_verified") is False:
            raise AccessError("Your identity provider gives no verified e-mail address. Ask the people who run it.")
        if email in self.users:
            return email, self.users[email]
        of_user = claims.get(self.claim) or () if self.claim else ()
        groups: Iterable[Any] = [of_user] if isinstance(of_user, str) else of_user
        held = [self.groups[group] for group in map(str, groups) if group in self.groups]
        if not held:
            raise AccessError(f"{email} has no role in these review sessions. Ask the people who run this server.")
        return email, max(held, key=get_args(Role).index)


def read_roles(path: Path) -> Roles:
    """Read who may do what: tables ``users`` and ``groups`` of roles by name, and ``claim``.

    Raises:
        AccessError: it is missing, no TOML, or has foreign keys or roles.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AccessError(f"Nobody can sign in: {path.name} cannot be read ({error}). See docs/reviews.md.") from error
    users, groups, claim = content.get("users", {}), content.get("groups", {}), content.get("claim", "")
    tables = isinstance(users, dict) and isinstance(groups, dict) and isinstance(claim, str)
    if not tables or set(content) - {"users", "groups", "claim"} or (groups and not claim):
        raise AccessError(
            f"Nobody can sign in: {path.name} has the tables users and groups, and with groups the name of their claim."
        )
    wrong = sorted(str(role) for role in (*users.values(), *groups.values()) if role not in get_args(Role))
    if wrong:
        raise AccessError(f"Nobody can sign in: {path.name} has unknown roles: {', '.join(wrong)}.")
    return Roles({name.strip().lower(): role for name, role in users.items()}, claim, groups)


def _server_user() -> Actor:
    if not st.user.is_logged_in:
        _ask_to_sign_in()
        st.stop()
    path = settings.roles()
    roles: Roles = _roles(str(path), path.stat().st_mtime_ns if path.is_file() else 0, default_location())
    name, role = roles.role_of(st.user.to_dict())
    asked = st.query_params.get(READER)
    if asked is not None and asked.lower() != name:
        raise AccessError(f"This address is of another reader. You are signed in as {name}; open the page Review.")
    return enrol(database(), name, role)


@st.cache_resource(max_entries=2, show_spinner=False)
def _roles(path: str, stamp: int, location: str) -> Roles:
    """Read the roles, and enrol users named in them, so that they can be chosen as readers before they come."""
    roles = read_roles(Path(path))
    for name, role in roles.users.items():
        enrol(database(), name, role)
    return roles


def _ask_to_sign_in() -> None:
    st.subheader("Sign in to review")
    st.caption("Your marks are kept under the name that your identity provider gives.")
    auth = st.secrets["auth"]
    providers = [name for name, value in auth.items() if isinstance(value, Mapping)]
    for name in providers or [None]:
        label = "Sign in" if name is None else f"Sign in with {name}"
        st.button(label, key=f"login-{name}", type="primary", icon=":material/login:", on_click=st.login, args=(name,))


# ------------------------------------------------------------------------------------------------------ on each page


def show_user(who: Actor) -> None:
    """Say who is signed in, with the way out."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="right"):
        st.markdown(f":material/person: **{who.name}** · {who.role}", width="content")
        if has_login():
            st.button("Sign out", key="sign-out", on_click=st.logout, type="tertiary")
        else:
            st.button("Not you?", key="not-you", on_click=_choose, args=(None,), type="tertiary")


def explain(error: CXRLensError) -> None:
    """Show a refusal where it belongs, so that the rest of the page stays."""
    st.error(str(error), icon=":material/block:" if isinstance(error, AccessError) else ":material/error:")
