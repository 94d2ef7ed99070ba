"""Where studies come from: one choice, in the head of every page that shows studies."""

from __future__ import annotations

import streamlit as st

from dashboard import session
from dashboard.plain import plain, plain_message
from dashboard.services import sources


def choose_source() -> str:
    """Draw the choice of a source, and put it in the address; returns its short name."""
    known, current = sources.names(), sources.chosen()
    if told := sources.unknown():
        st.session_state[session.UNKNOWN_SOURCE] = told
    session.write_source(current)
    st.session_state[session.SOURCE_CHOICE] = current
    st.pills(
        "Studies from",
        list(known),
        format_func=lambda name: plain(known[name]),
        key=session.SOURCE_CHOICE,
        on_change=_follow_choice,
        label_visibility="collapsed",
        required=True,
    )
    if st.session_state[session.UNKNOWN_SOURCE]:
        st.warning(plain_message(st.session_state[session.UNKNOWN_SOURCE]), icon=":material/info:")
    return current


def show_credit(credit: str) -> None:
    """Say what must stand beside the images of a source: its `credit`; nothing where that is ""."""
    if credit:
        st.caption(f":material/copyright: {plain(credit)}")


def _follow_choice() -> None:
    session.open_source(st.session_state[session.SOURCE_CHOICE])
    session.write_study(st.session_state[session.STUDY] or "")
    st.session_state[session.UNKNOWN_SOURCE] = ""
