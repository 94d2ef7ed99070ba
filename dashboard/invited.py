"""The second door: a reader who was invited to one session, and brings a code once (`core.reviews.invitations`).

The browser keeps a sealed cookie afterwards; whether it still lets anybody in is asked of the database each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from core.reviews import local_key
from dashboard.plain import plain_message

if TYPE_CHECKING:  # every page asks whether somebody is invited; SQLAlchemy takes a while to come
    from core.reviews.database import Database
    from core.reviews.invitations import Guesses
    from core.reviews.store import Actor

CODE = "invite"
"""Parameter of the address that holds a code; it leaves the address at once."""
_WAITS = "reviews_code"
_LET_IN = "reviews_invitation"
_LEFT = "reviews_invitation_left"
_PROBLEM = "reviews_code_problem"


def take_code() -> None:
    """Take a code out of the address, for `ask_to_begin`; nothing is used yet, as a mail program may open links."""
    given = st.query_params.get(CODE)
    if given is not None:
        del st.query_params[CODE]
        st.session_state[_WAITS] = given[:200]


def drop_code() -> bool:
    """Forget a code that was brought; whether there was one."""
    return st.session_state.pop(_WAITS, None) is not None


def asks() -> bool:
    """Whether a code was brought to this tab, or could not be used."""
    return _WAITS in st.session_state or _PROBLEM in st.session_state


def is_known(port: int) -> bool:
    """Whether this tab, or its browser before, brought an invitation; it may let nobody in any more."""
    return bool(_invitation(port))


def reader(database: Callable[[], Database], port: int) -> Actor | None:
    """Who is let in by an invitation that this tab, or its browser before, brought; None by none.

    Args:
        database: opens it; called only where there is an invitation.
        port: of the server.

    Raises:
        NotAllowedError: it lets nobody in any more.
    """
    invitation = _invitation(port)
    if not invitation:
        return None
    from core.reviews.invitations import invited

    return invited(database(), invitation)


def is_of_this_tab() -> bool:
    """Whether the code was brought in this tab."""
    return _LET_IN in st.session_state


def cookie(port: int) -> dict[str, str]:
    """What the browser is to keep, by name: nothing, once the reader has left."""
    invitation = _invitation(port)
    return {_cookie_name(port): local_key.seal(invitation, port) if invitation else ""}


def has_left() -> bool:
    """Whether the reader pressed "Leave" in this tab."""
    return bool(st.session_state.get(_LEFT))


def leave() -> None:
    """Forget the invitation, in this tab and, with `cookie`, in its browser."""
    st.session_state.pop(_LET_IN, None)
    st.session_state[_LEFT] = True


def ask_to_begin(database: Database) -> None:
    """Draw the way in."""
    from core.reviews.invitations import ACCESS_DAYS

    problem = st.session_state.get(_PROBLEM)
    st.header("You are invited to read" if problem is None else "This invitation was not taken")
    if problem is not None:
        st.error(plain_message(problem), icon=":material/block:")
    if _WAITS in st.session_state:
        st.markdown(
            f"This link is for one reader of one session, and works once. This browser can then be used for "
            f"{ACCESS_DAYS} days; on another one you need another link."
        )
    with st.container(horizontal=True):
        if _WAITS in st.session_state:
            st.button("Begin", key="invited-begin", type="primary", on_click=_begin, args=(database,))
        st.button("Not now", key="invited-not-now", on_click=_not_now)


def refused(why: str, ask: Callable[[], None]) -> Callable[[], None]:
    """What draws that an invitation lets nobody in any more, and then another way in."""

    def draw() -> None:
        st.error(plain_message(why), icon=":material/block:")
        ask()

    return draw


@st.cache_resource(max_entries=1, show_spinner=False)
def _guesses() -> Guesses:
    from core.reviews.invitations import Guesses

    return Guesses()


def _begin(database: Database) -> None:
    if _WAITS not in st.session_state:  # pressed twice
        return
    from core.reviews.invitations import redeem
    from core.reviews.rubrics import ReviewError
    from core.reviews.store import NotAllowedError

    code = st.session_state[_WAITS]
    st.session_state.pop(_PROBLEM, None)
    try:
        found = redeem(database, code, _guesses())
    except NotAllowedError as error:
        drop_code()
        st.session_state[_PROBLEM] = str(error)
    except ReviewError as error:  # later it may be right
        st.session_state[_PROBLEM] = str(error)
    else:
        drop_code()
        st.session_state[_LET_IN] = found.id
        st.session_state.pop(_LEFT, None)


def _not_now() -> None:
    drop_code()
    st.session_state.pop(_PROBLEM, None)


def _cookie_name(port: int) -> str:
    return f"cxr-lens-{port}-invited"


def _invitation(port: int) -> str:
    if is_of_this_tab():
        return str(st.session_state[_LET_IN])
    kept = st.context.cookies.get(_cookie_name(port))
    return local_key.unseal(kept, port) if isinstance(kept, str) and not has_left() else ""
