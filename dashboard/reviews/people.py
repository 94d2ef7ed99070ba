"""Of one session, for its owner: who is invited and reminded, what was changed, and its sheet for pre-registration."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import streamlit as st

from core.reviews.amendments import amend, amendments
from core.reviews.invitations import CODE_DAYS, invite, list_invitations, withdraw_invitation
from core.reviews.progress import SessionProgress
from core.reviews.registration import sheet
from core.reviews.reminders import invitation_text, reminders
from core.reviews.store import Actor
from core.types import CXRLensError
from dashboard import access
from dashboard.plain import plain, plain_message

_LINK = access.OF_ONE_USER + "invitation"
_TOLD = access.OF_ONE_USER + "amended"


def show_people(who: Actor, progress: SessionProgress) -> None:
    """Draw it."""
    if progress.state == "open":
        with st.expander("Invite and remind readers", icon=":material/mail:"):
            _show_invitations(who, progress)
            _show_reminders(progress)
    with st.expander("Changes", icon=":material/history:"):
        _show_changes(who, progress)


def offer_sheet(progress: SessionProgress) -> None:
    """The sheet as a file."""
    st.download_button(
        "Sheet for pre-registration",
        sheet(progress.design, studies=progress.studies),
        "pre-registration.md",
        "text/markdown",
        key="sheet",
        icon=":material/assignment:",
        help="Question, arms, readers, cases, randomisation, outcomes, analysis, and a hash of the design. "
        "With the sample size: cxr-lens review sheet.",
    )


def _here() -> str:
    """The address of this dashboard, as this browser has it."""
    url = st.context.url
    parts = urlsplit(url) if isinstance(url, str) else None  # of `AppTest` it is a mock
    return f"{parts.scheme}://{parts.netloc}" if parts and parts.netloc else f"http://127.0.0.1:{access.port()}"


def _show_invitations(who: Actor, progress: SessionProgress) -> None:
    st.markdown("**Invitations**")
    st.caption(
        "For readers who cannot sign in: a link with a code that works once, for one reader and this session. Whoever "
        "has the link is that reader, so send it to nobody else. A new link replaces the one before."
    )
    found = list_invitations(access.database(), who, progress.id)
    if found:
        rows = [
            {"Reader": each.reader, "State": each.state, "Until": each.expires[:10], "Used": each.used[:10]}
            for each in found
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, height="content", alt="Invitations")
    left, middle, right = st.columns([2, 1, 1], vertical_alignment="bottom")
    reader = left.selectbox("Reader", [each.reader for each in progress.readers], key=f"invite-whom-{progress.id}")
    if middle.button("Make a link", key="invite", icon=":material/link:", width="stretch"):
        try:
            made, code = invite(access.database(), who, progress.id, str(reader), days=CODE_DAYS)
        except CXRLensError as error:
            st.error(plain_message(error), icon=":material/error:")
        else:
            st.session_state[_LINK] = invitation_text(progress.design.title, _here(), code, made.expires)
            st.rerun()
    standing = any(each.reader == reader and each.state in ("open", "used") for each in found)
    if right.button("Withdraw", key="uninvite", icon=":material/link_off:", width="stretch", disabled=not standing):
        try:
            withdraw_invitation(access.database(), who, progress.id, str(reader))
        except CXRLensError as error:
            st.error(plain_message(error), icon=":material/error:")
        else:
            st.rerun()
    if text := st.session_state.pop(_LINK, ""):  # once: it is kept nowhere
        st.success("Copy this now: it is shown once.", icon=":material/content_copy:")
        st.code(text, language=None, wrap_lines=True)


def _show_reminders(progress: SessionProgress) -> None:
    st.markdown("**Reminders**")
    try:
        texts = reminders(progress, _here())
    except CXRLensError as error:
        st.error(plain_message(error), icon=":material/error:")
        return
    st.caption("To copy into a letter; nothing is sent from here." if texts else "No reader has anything left to read.")
    for reader, text in texts.items():
        st.markdown(plain(reader))
        st.code(text, language=None, wrap_lines=True)


def _show_changes(who: Actor, progress: SessionProgress) -> None:
    st.caption(
        "Of design, readers, access and state, from the making of the session on. This record cannot be changed."
    )
    rows = [
        {
            "When": each.at[:16].replace("T", " "),
            "By": each.by,
            "What": each.what,
            "Before": each.before,
            "After": each.after,
            "Reason": each.reason,
        }
        for each in amendments(access.database(), who, progress.id)
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, height="content", alt="Changes of the session")
    if progress.state != "open":
        return
    design = progress.design
    with st.form(f"amend-{progress.id}", border=False):
        left, right = st.columns([3, 1])
        title = left.text_input("Title", design.title, max_chars=200)
        minutes = right.number_input(
            "Time limit, minutes", 0, max(600, design.minutes), design.minutes, help="0: no limit"
        )
        instructions = st.text_area("Instructions to readers", design.instructions, max_chars=10_000)
        reason = st.text_input("Why", max_chars=1000, help="For the record")
        sent = st.form_submit_button("Change, on the record", icon=":material/edit:")
    if sent:
        asked: dict[str, Any] = {"title": title, "minutes": int(minutes), "instructions": instructions}
        try:
            changed = amend(access.database(), who, progress.id, **asked, reason=reason)
        except CXRLensError as error:
            st.error(plain_message(error), icon=":material/error:")
        else:
            st.session_state[_TOLD] = f"Changed: {', '.join(changed)}." if changed else "Everything is so already."
            st.rerun()
    if told := st.session_state.pop(_TOLD, ""):
        st.success(told, icon=":material/check:")
