"""Review: what waits for a reader; sessions, their design and their results for a researcher."""

from __future__ import annotations

import streamlit as st

from dashboard import access
from dashboard.reviews import design_form, rubric_preview, sessions

VIEWS = ("Sessions", "New session", "Rubrics", "Users and backup")
VIEW = "review_view"

who = access.signed_in()
sessions.follow()
access.show_user(who)
note = st.session_state.pop(sessions.NOTE, None)
if note:
    st.toast(note)

sessions.show_waiting(who)
if who.role != "reader":
    made = st.session_state.pop(design_form.MADE, None)
    if made:
        st.session_state[VIEW] = VIEWS[0]
        st.query_params[sessions.SESSION] = made
        st.success(
            "The session is made. Its readers find it on this page under *Waiting for you*.", icon=":material/check:"
        )
    view = st.segmented_control(
        "View",
        VIEWS if who.role == "admin" else VIEWS[:3],
        default=VIEWS[0],
        required=True,
        key=VIEW,
        label_visibility="collapsed",
    )
    if view == VIEWS[0]:
        sessions.show_own(who)
    elif view == VIEWS[1]:
        design_form.show_form(who)
    elif view == VIEWS[2]:
        rubric_preview.show_rubrics()
    else:
        sessions.show_keeping(who)
