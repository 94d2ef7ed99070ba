"""Reading a review session: what the radiologist sees. The address names the session."""

from __future__ import annotations

from typing import Any

import streamlit as st

from core.reviews.rubrics import StorageError
from core.reviews.store import list_sessions, read_screen
from core.types import CXRLensError
from dashboard import access
from dashboard.components.reading import plate, reading
from dashboard.components.source_choice import show_credit
from dashboard.plain import plain
from dashboard.reviews.pictures import PRIOR, credit_of, plates
from dashboard.reviews.reading import refused, respond, texts_of

KEY = "reading"
ANSWER = (
    "reading_answer"  # (whose, of which session, tick, answer, images, credits): a rerun of another reason shows it
)
PATIENCE = 0.15  # seconds that a first image may hold up the page

session_id = st.query_params.get("session", "")


@st.fragment
def case() -> None:
    """One round. What goes wrong is said here: Streamlit lets no error out of a fragment."""
    try:
        one_round()
    except CXRLensError as error:
        access.explain(error)
        st.caption("Your sessions are on the page *Review*.")


def one_round() -> None:
    """Do what the reader did, show what follows.

    The page stays open for hours: who may do it is asked each time. Where nobody may any more, the page stays as it is,
    with what was typed in it, and says why.
    """
    request = asked()
    try:
        go_on(request)
    except CXRLensError as error:
        if request is None:
            raise
        reading(refused(request, error), key=KEY)


def asked() -> dict[str, Any] | None:
    """What the page in the browser asked last; None while it is not there yet."""
    request = dict(st.session_state.get(KEY) or {}).get("request")
    return request if isinstance(request, dict) else None


def go_on(request: dict[str, Any] | None) -> None:
    """One round of a reader who may go on."""
    who = access.identify()
    database = access.database()
    tick = request.get("tick") if request else None
    kept = st.session_state.get(ANSWER)
    if kept is None or kept[:3] != (who.name, session_id, tick):
        owed: frozenset[str] = kept[5] if kept and kept[:2] == (who.name, session_id) else frozenset()
        answer = respond(database, who, session_id, request)
        images = {}
        if not answer["problem"]:
            wanted = texts_of(request.get("plates")) if request else list(answer["screens"])
            known = {screen for screen, _, _ in answer["places"]}
            try:
                screens = [read_screen(database, who, screen) for screen in wanted if screen in known][:4]
                images = plates(database, who, screens, PATIENCE)
                owed |= {credit_of(screen.source) for screen in screens}
            except StorageError as error:
                answer["problem"] = str(error)
        answer["plates"] = {
            screen: "waiting" if image is None else "ready" if isinstance(image, bytes) else str(image)
            for screen, image in images.items()
            if not screen.endswith(PRIOR)
        }
        kept = (who.name, session_id, tick, answer, images, owed)
        st.session_state[ANSWER] = kept
    reading(kept[3], key=KEY)
    # The study before comes first, so that it is there when its case is drawn.
    for screen, image in sorted(kept[4].items(), key=lambda each: not each[0].endswith(PRIOR)):
        if isinstance(image, bytes):
            plate(screen, image)
    for credit in sorted(kept[5]):
        show_credit(credit)


with st.container():  # always there: Streamlit knows a fragment by its place, and an open page asks by the old one
    if not session_id or not asked():
        who = access.signed_in()
if session_id:
    # Streamlit greys out what waits for an answer; a reader goes on, and the page itself says what is not saved yet.
    st.html("<style>[data-stale] { opacity: 1 !important; transition: none !important; }</style>")
    case()
else:
    access.show_user(who)
    st.header("Your sessions to read")
    found = list_sessions(access.database(), who, to_read=True)
    for each in found:
        left = "closed" if each.state == "closed" else f"{each.done} of {each.screens} read"
        if st.button(f"{plain(each.title)} · {left}", key=f"session-{each.id}", icon=":material/radiology:"):
            st.query_params["session"] = each.id
            st.rerun()
    if not found:
        st.info("There is no session for you to read. A researcher can make one.", icon=":material/info:")
