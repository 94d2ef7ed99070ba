"""Who is signed in, and the database of reviews. Pages of reviews begin with `signed_in` and go on as that actor.

On one's own machine a reader says who he is, without a password; that it is the machine's owner who opened the page
is proved by a secret (`core.reviews.local_key`), for a proxy on the machine makes anybody look like him. On a server
Streamlit's login (OpenID Connect) says who it is, `settings.roles` what that user may do, and no page opens without.
What an actor may see is decided in `core.reviews.store`, never here and never by the address of the page.
"""

from __future__ import annotations

import getpass
import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import streamlit as st

from core.reviews import local_key
from core.types import CXRLensError
from dashboard import invited, settings
from dashboard.plain import plain, plain_message
from dashboard.roles import AccessError, Roles, read_roles, same_address

if TYPE_CHECKING:  # a database is opened for review pages and signed-in users; SQLAlchemy takes a while to come
    from core.reviews.database import Database
    from core.reviews.store import Actor, Role

READER = "reader"
"""Parameter of the address: who reads, on one's own machine. On a server it is only compared."""
_CHOSEN = "reviews_reader"
_PROVED = "reviews_key"
_WRONG_KEY = "reviews_wrong_key"
_SEEN = "reviews_seen_as"
REVIEW_PAGES = ("review", "reading")
"""Paths of the pages that an invited reader may open."""
OF_ONE_USER = "reviews_kept_"
"""How names of what a page remembers for its user begin; another user of the same tab finds none of it."""


class NotSignedInError(AccessError):
    """It is not known who this is.

    Attributes:
        ask: draws how to say it.
    """

    def __init__(self, message: str, ask: Callable[[], None]) -> None:
        super().__init__(message)
        self.ask = ask


# --------------------------------------------------------------------------------------------------------- database


def database() -> Database:
    """The database of reviews.

    Raises:
        ReviewError: it cannot be opened.
    """
    from core.reviews.database import default_location

    return _open(default_location())


@st.cache_resource(max_entries=2, show_spinner=False, on_release=lambda database: database.close())
def _open(location: str) -> Database:
    from core.reviews.database import Database

    return Database(location)


# -------------------------------------------------------------------------------------------------------- signing in


def signed_in() -> Actor:
    """The user of this page, with the role in the database. Ends the page where nobody is signed in, and asks.

    Raises:
        AccessError: review pages may not be used here, or not by this user.
        ReviewError: the database cannot be used.
    """
    if invited.has_left():
        _keep(invited.cookie(port()))
    try:
        who = identify()
    except NotSignedInError as error:
        error.ask()
        st.stop()
        raise
    if who.only:
        _keep(invited.cookie(port()))
    elif not has_login():
        _keep_cookies(who)
    return who


def identify() -> Actor:
    """The user of this page as of now; draws nothing. For what an open page does later.

    Raises:
        AccessError: as `signed_in`, and where nobody is signed in.
        ReviewError: the database cannot be used.
    """
    who = _invited_or_known()
    if st.session_state.get(_SEEN) != who:
        for name in [each for each in st.session_state if str(each).startswith(OF_ONE_USER)]:
            del st.session_state[name]
        st.session_state[_SEEN] = who
    return who


def _invited_or_known() -> Actor:
    """Who it is: by signing in or the key of this machine; by an invitation where neither is there.

    An invitation that was brought in this very tab counts first on one's own machine, so that its owner can try it.
    """
    invited.take_code()
    of_this_tab = invited.asks() or invited.is_of_this_tab()
    if of_this_tab and has_login() and st.user.is_logged_in:
        if invited.drop_code():
            st.toast("You are signed in: the invitation was not used.")
    elif invited.asks():
        raise NotSignedInError("Open the page Review to begin.", lambda: invited.ask_to_begin(database()))
    elif of_this_tab and (who := invited.reader(database, port())) is not None:
        return who
    try:
        return _server_user() if has_login() else _local_user()
    except AccessError as error:
        if not invited.is_known(port()):
            raise
        from core.reviews.store import NotAllowedError

        try:
            who = invited.reader(database, port())
        except NotAllowedError as refused:
            if not isinstance(error, NotSignedInError):
                raise
            # It lets nobody in any more: signing in still may.
            raise NotSignedInError(str(refused), invited.refused(str(refused), error.ask)) from refused
        if who is not None:
            return who
        raise


def admit(page: str = "") -> None:
    """Ask to sign in before any page of a server. On one's own machine only review pages ask.

    Args:
        page: its path in the address.

    Raises:
        AccessError: this user may not use this server, or not this page of it.
        ReviewError: the database cannot be used.
    """
    if has_login():
        who = signed_in()
        if who.only and page not in REVIEW_PAGES:
            raise AccessError("You are invited to one review session, and to nothing else here. Open the page Review.")


def kept_back() -> frozenset[str]:
    """Studies that whoever looks at this page reads in an open session, where nothing may tell of them.

    On one's own machine this is of whom this browser was last used as on the review pages; none where it never was.

    Raises:
        AccessError: on a server, this user may not use it any more.
        ReviewError: the database cannot be used.
    """
    if has_login():
        name = identify().name
    elif _SEEN in st.session_state:
        name = st.session_state[_SEEN].name
    else:  # another tab
        kept = st.context.cookies.get(_reader_cookie())
        name = unquote(kept) if isinstance(kept, str) else ""  # of `AppTest` it is a mock
        name = name or _invited_name()
    if not name:
        return frozenset()
    from core.reviews.database import default_location

    return _kept_back(default_location(), name)


def _invited_name() -> str:
    if not invited.is_known(port()):
        return ""
    from core.reviews.store import NotAllowedError

    try:
        who = invited.reader(database, port())
    except NotAllowedError:
        return ""
    return "" if who is None else who.name


@st.cache_data(ttl=2, max_entries=1000, show_spinner=False)  # a page asks ten times while it draws
def _kept_back(location: str, name: str) -> frozenset[str]:
    from core.reviews.store import being_read

    return being_read(_open(location), name)


def has_login() -> bool:
    """Whether the server asks an identity provider: there is an ``[auth]`` section in secrets.toml.

    Raises:
        AccessError: there is such a file, and it cannot be read. Nobody may come in because of that.
    """
    try:
        return "auth" in st.secrets
    except (OSError, ValueError) as error:  # Streamlit's "there is none" and "it cannot be parsed" are the same
        there = [Path(each) for each in st.get_option("secrets.files") if Path(each).exists()]
        if there:
            raise AccessError(f"Nobody can sign in: {there[0].name} cannot be read. See docs/reviews.md.") from error
        return False


# ------------------------------------------------------------------------------------------------- on one's own machine


def check_local(address: str | None, headers: Mapping[str, str], peer: str | None = None) -> None:
    """Refuse to go without a password where others could reach the page.

    This sees a proxy only where it says that it is one; `local_key` is for the others.

    Args:
        address: that the server listens on; None is every one.
        headers: of the request, by lower-case name.
        peer: the other end of the connection; None is this machine.

    Raises:
        AccessError: the server, the address of the page, the peer, or a proxy is not on this machine.
    """
    host = _host_of(headers["host"]) if "host" in headers else "localhost"
    same_page = headers.get("origin") in (None, f"http://{headers.get('host')}", f"https://{headers.get('host')}")
    proxied = {"forwarded", "via", "x-real-ip"} & set(headers) or any(
        name.startswith("x-forwarded") for name in headers
    )
    here = _is_loopback(address) and _is_loopback(host) and (peer is None or _is_loopback(peer))
    if not here or proxied or not same_page:
        raise AccessError(
            "Review sessions are closed here: this server can be reached from other machines, and nobody has to sign "
            "in. Start it with --server.address=127.0.0.1 to work alone, or set up sign-in with OpenID Connect as "
            "docs/reviews.md says."
        )


def _host_of(header: str) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def _is_loopback(host: str | None) -> bool:
    if host in ("localhost", None):
        return host is not None
    try:
        return ip_address(str(host)).is_loopback
    except ValueError:
        return False


def local_address(at: int | None = None) -> str:
    """The address that opens the Review page of a server on this machine; print it in its terminal only.

    Args:
        at: port of the server; None is this one's.

    Raises:
        CXRLensError: the key can be neither read nor made.
    """
    return local_key.local_address(at or port())


def port() -> int:
    """The port of this server."""
    return int(st.get_option("server.port"))


def _check_key() -> None:
    """Refuse who does not bring the key of this machine: in the address, once; in a cookie; or typed.

    Raises:
        NotSignedInError: it is not there, or is another's.
        CXRLensError: the key can be neither read nor made.
    """
    given = st.query_params.get(local_key.TOKEN)
    if given is not None:
        del st.query_params[local_key.TOKEN]
        take_key(given)
    name, value = local_key.cookie_of(port())
    proofs = (st.session_state.get(_PROVED, ""), st.context.cookies.get(name, ""))
    if not any(local_key.same(each, value) for each in proofs):
        raise NotSignedInError("This page was opened without the key of this machine. Load it again.", _ask_for_key)


def take_key(given: str) -> None:
    """Take a token, or an address that ends in it; what is wrong is told when the page asks for it."""
    token = re.search("[0-9a-f]{64}", given[:1000])
    right = token is not None and local_key.same(token.group(), local_key.token_of(port()))
    st.session_state[_WRONG_KEY] = not right
    if right:
        st.session_state[_PROVED] = local_key.cookie_of(port())[1]


_COOKIES = st.components.v2.component(
    "cxr_cookies",
    html="<i hidden></i>",
    js="""
export default function ({ data }) {
  const secure = location.protocol === "https:" ? "; Secure" : ""
  for (const [name, value] of Object.entries(data)) {
    document.cookie = `${name}=${value}; Path=/; Max-Age=2592000; SameSite=Strict${secure}`
  }
}
""",
)


def _keep_cookies(who: Actor | None) -> None:
    """Let the browser keep for 30 days, at this port, the proof, and as whom it is used if that is known yet."""
    wanted = dict([local_key.cookie_of(port())])
    if who is not None:
        wanted[_reader_cookie()] = quote(who.name)
    _keep(wanted)


def _keep(wanted: Mapping[str, str]) -> None:
    """Let the browser keep cookies, if it does not have them."""
    if any(st.context.cookies.get(each) != kept for each, kept in wanted.items()):
        _COOKIES(data=dict(wanted), key="cookies")


def _reader_cookie() -> str:
    return f"cxr-lens-{port()}-reader"


def _ask_for_key() -> None:
    _print_address(local_address())
    st.header("Open this page with the key of this machine")
    st.markdown(
        "Review sessions are for whoever sits at this machine. The address that opens them has been printed in the "
        "terminal where the dashboard was started: open it once, and this browser is known from then on."
    )
    if st.session_state.pop(_WRONG_KEY, False):
        st.error("That is not the key of this dashboard. Each has its own.", icon=":material/block:")
    st.text_input(
        "Or paste that address here",
        type="password",
        key="local-key",
        on_change=lambda: take_key(st.session_state["local-key"]),
        max_chars=1000,
        width=520,
    )
    st.caption(f"`cxr-lens review key --port {port()}` prints it again.")


@st.cache_resource(max_entries=1, show_spinner=False)
def _print_address(address: str) -> None:
    """Print the address where only who started the dashboard sees it; once."""
    sys.stdout.write(f"\n  Review sessions: {address}\n\n")
    sys.stdout.flush()


def _local_user() -> Actor:
    from core.reviews.store import Actor, first_admin, list_users

    headers = {name.lower(): value for name, value in st.context.headers.items()}
    check_local(st.get_option("server.address"), headers, st.context.ip_address)
    _check_key()
    owner = first_admin(database(), getpass.getuser())
    known = list_users(database(), owner) if owner.role == "admin" else {owner.name: owner.role}
    asked = st.query_params.get(READER) or st.session_state.get(_CHOSEN)
    if asked is not None and asked not in known:
        st.session_state.pop(_CHOSEN, None)
        raise AccessError(f"There is no user '{asked}' here. Open the page Review and choose who you are.")
    if asked is None and len(known) > 1:
        raise NotSignedInError("Open the page Review and choose who you are.", lambda: _ask_who(known))
    name = asked or owner.name
    st.session_state[_CHOSEN] = name
    if len(known) > 1 and st.query_params.get(READER) != name:
        st.query_params[READER] = name
    return Actor(name, known[name])


def _ask_who(known: Mapping[str, Role]) -> None:
    _keep_cookies(None)
    st.header("Who are you?")
    st.caption("On this machine no password is asked. Your marks are kept under the name that you choose.")
    for role in ("reader", "researcher", "admin"):
        names = [name for name in known if known[name] == role]
        if names:
            st.markdown(f"**{role.capitalize()}**")
            with st.container(horizontal=True):
                for name in names:
                    st.button(plain(name), key=f"who-{name}", on_click=_choose, args=(name,), icon=":material/person:")


def _choose(name: str | None) -> None:
    st.session_state[_CHOSEN] = name
    if name is None:
        st.query_params.pop(READER, None)
    else:
        st.query_params[READER] = name


# ------------------------------------------------------------------------------------------------------- on a server


def _server_user() -> Actor:
    from core.reviews.database import default_location
    from core.reviews.store import enrol, withdraw

    if not st.user.is_logged_in:
        raise NotSignedInError("You are not signed in. Open the page Review and sign in.", _ask_to_sign_in)
    claims = st.user.to_dict()
    if _sign_in_of(claims) in _ended():
        raise NotSignedInError("You signed out in another tab. Sign in there again to go on.", _ask_to_sign_in)
    path = settings.roles()
    roles: Roles = _roles(str(path), path.stat().st_mtime_ns if path.is_file() else 0, default_location())
    name = roles.name_of(claims)
    try:
        name, role = roles.role_of(claims)
    except AccessError:
        withdraw(database(), name)  # so that the database knows, whoever asks it next
        raise
    asked = st.query_params.get(READER)
    if asked is not None and same_address(asked) != name:
        raise AccessError(f"This link is of another reader. You are signed in as {name}; open the page Review.")
    return enrol(database(), name, role)


@st.cache_resource(max_entries=2, show_spinner=False)
def _roles(path: str, stamp: int, location: str) -> Roles:
    """Read the roles, and enrol users named in them, so that they can be chosen as readers before they come."""
    from core.reviews.store import enrol

    roles = read_roles(Path(path))
    for name, role in roles.users.items():
        enrol(database(), name, role)
    return roles


def _sign_in_of(claims: Mapping[str, Any]) -> str:
    """One signing in of one person, which all tabs of a browser share; empty where the provider does not date it."""
    if not {"iat", "nonce"} & set(claims):
        return ""
    parts = [str(claims.get(name)) for name in ("iss", "sub", "iat", "nonce")]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@st.cache_resource(show_spinner=False)
def _ended() -> set[str]:
    """Signings in that were ended. An open tab knows nothing of that: Streamlit asks its cookie only once."""
    return set()


def _sign_out() -> None:
    _ended().add(_sign_in_of(st.user.to_dict()))
    _ended().discard("")
    st.logout()


def _ask_to_sign_in() -> None:
    st.header("Sign in to review")
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
        st.markdown(f":material/person: **{plain(who.name)}** · {who.role}", width="content")
        if who.only:
            st.button("Leave", key="leave", on_click=invited.leave, type="tertiary", help="This browser forgets you")
        elif has_login():
            st.button("Sign out", key="sign-out", on_click=_sign_out, type="tertiary")
        else:
            st.button("Not you?", key="not-you", on_click=_choose, args=(None,), type="tertiary")


def explain(error: CXRLensError) -> None:
    """Show a refusal where it belongs, so that the rest of the page stays."""
    st.error(plain_message(error), icon=":material/block:" if isinstance(error, AccessError) else ":material/error:")
