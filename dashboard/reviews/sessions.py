"""The lists of sessions: what waits for a reader, and what a researcher looks after."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import get_args

import pandas as pd
import streamlit as st

from core.reviews.adjudication import adjudicate
from core.reviews.backup import backup
from core.reviews.progress import ReaderProgress, SessionProgress, session_progress
from core.reviews.rubrics import ReviewError
from core.reviews.store import (
    NO_ROLE,
    Actor,
    Role,
    SessionInfo,
    close_session,
    list_sessions,
    list_users,
    next_screen,
    read_screen,
    set_role,
    unblind,
)
from core.types import CXRLensError
from core.wording import counted
from dashboard import access
from dashboard.plain import plain, plain_message
from dashboard.reviews import people
from dashboard.reviews.design_form import HOW
from dashboard.reviews.results import show_results

READING = "app_pages/reading.py"
SESSION = "session"
"""Parameter of the address: the session that is shown."""


def minutes(seconds: float) -> str:
    """A time in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def day(iso: str) -> str:
    """A UTC time in words."""
    return datetime.fromisoformat(iso).strftime("%d %b %Y, %H:%M UTC") if iso else "–"


# ----------------------------------------------------------------------------------------------------------- readers


def show_waiting(who: Actor) -> None:
    """What the actor has to read, with one click to it; and own readings that are closed."""
    found = list_sessions(access.database(), who, to_read=True)
    waiting = [each for each in found if each.state == "open"]
    if waiting or who.role == "reader":
        st.header("Waiting for you")
    if not waiting and who.role == "reader":
        st.info("No session is waiting for you. A researcher makes one and names you as its reader.")
    for info in waiting:
        _show_task(who, info)
    closed = [each for each in found if each.state == "closed"]
    if closed and who.role == "reader":
        st.header("Closed")
        for info in closed:
            with st.expander(f"{plain(info.title)} · {info.done} of {counted(info.screens, 'screen', 'screens')}"):
                try:
                    names = unblind(access.database(), who, info.id).get(who.name, {})
                except ReviewError as error:
                    st.caption(plain_message(error))
                    continue
                st.caption("These models wrote the reports:")
                st.dataframe(
                    pd.DataFrame([{"Name": name, "Model": names[name]} for name in sorted(names)]),
                    hide_index=True,
                    height="content",
                    alt="Models by name",
                )


def _show_task(who: Actor, info: SessionInfo) -> None:
    screen_id = next_screen(access.database(), who, info.id)
    settling = screen_id is not None and bool(read_screen(access.database(), who, screen_id).disputed)
    with st.container(border=True):
        left, right = st.columns([4, 1], vertical_alignment="center")
        with left:
            st.markdown(f"**{plain(info.title)}**")
            st.caption("Other readers disagreed: decide who is right." if settling else plain(info.question))
            st.progress(info.done / max(info.screens, 1), f"{info.done} of {counted(info.screens, 'case', 'cases')}")
        verb = "Read again" if screen_id is None else "Go on" if info.done else "Settle" if settling else "Begin"
        with right:
            st.button(
                verb,
                key=f"read-{info.id}",
                type="primary" if screen_id is not None else "secondary",
                icon=":material/play_arrow:",
                width="stretch",
                on_click=_go,
                args=(who.name, info.id),
            )


_WANTED = "reviews_open"


def _go(reader: str, session_id: str) -> None:
    st.session_state[_WANTED] = {SESSION: session_id, access.READER: reader}


def follow() -> None:
    """Go to the reading page if a reader asked for it. Once a run, before anything is drawn."""
    wanted = st.session_state.pop(_WANTED, None)
    if wanted is not None:
        st.switch_page(READING, query_params=wanted)


# ------------------------------------------------------------------------------------------------------- researchers


def show_own(who: Actor) -> None:
    """A researcher's sessions, an admin's all: a table, and one of them below."""
    found = list_sessions(access.database(), who)
    if not found:
        st.info(
            "There is no session yet. In a session, radiologists judge reports without knowing who wrote them. "
            "Make one under *New session*."
        )
        return
    by_id = {each.id: each for each in found}
    asked = st.query_params.get(SESSION)
    if asked is not None and asked not in by_id:
        st.warning(
            "The session in the address does not exist or is not yours. Showing another.", icon=":material/info:"
        )
        asked = None
    ids = [each.id for each in found]
    # By its rows: after a session was made or closed the same row may be another's.
    table = f"sessions-{hash(tuple((each.id, each.state) for each in found))}"

    def pick() -> None:
        if rows := st.session_state[table].selection.rows:
            st.query_params[SESSION] = ids[rows[0]]

    st.dataframe(
        pd.DataFrame(
            [
                {
                    "Session": each.title,
                    "State": each.state,
                    "Task": each.task.split(":")[0],
                    "Read": round(100 * each.done / max(each.screens, 1)),
                    "Screens": each.screens,
                    "Made by": each.owner,
                    "Made": day(each.created),
                }
                for each in found
            ]
        ),
        hide_index=True,
        height="content",
        column_config={"Read": st.column_config.ProgressColumn(format="%d %%", min_value=0, max_value=100)},
        alt="Sessions with their progress; choosing a row opens its session",
        key=table,
        on_select=pick,
        selection_mode="single-row",
    )
    shown = asked or ids[0]
    chosen = st.selectbox(
        "Session",
        list(by_id),
        index=ids.index(shown),
        format_func=lambda key: f"{by_id[key].title} · {by_id[key].state} · {key[:6]}",
        # What was chosen stands in the browser as the words it had then; with another state it is another choice.
        key=f"session-choice-{asked}-{by_id[shown].state}",
    )
    if st.query_params.get(SESSION) != chosen:
        st.query_params[SESSION] = chosen
    show_session(who, chosen)


def show_session(who: Actor, session_id: str) -> None:
    """One session: readers, design, actions; when closed, its results."""
    progress = session_progress(access.database(), who, session_id)
    st.header(plain(progress.design.title))
    _show_readers(progress)
    with st.expander("Design", icon=":material/description:"):
        _show_design(progress)
        people.offer_sheet(progress)
    people.show_people(who, progress)
    if progress.state == "open":
        left, right = st.columns(2, gap="medium")
        with left:
            _offer_adjudication(who, progress)
        with right:
            _offer_closing(who, progress)
    else:
        show_results(who, session_id)


def _show_readers(progress: SessionProgress) -> None:
    st.dataframe(
        pd.DataFrame([_reader_row(each) for each in progress.readers]),
        hide_index=True,
        height="content",
        column_config={"Read": st.column_config.ProgressColumn(format="%d %%", min_value=0, max_value=100)},
        alt="Progress by reader",
    )


def _reader_row(each: ReaderProgress) -> dict[str, object]:
    return {
        "Reader": f"{each.reader} (settles)" if each.adjudicates else each.reader,
        "Read": round(100 * (each.done + each.skipped) / max(each.screens, 1)),
        "Done": f"{each.done} of {each.screens}",
        "Skipped": each.skipped,
        "Flagged": each.flagged,
        "Marks": each.marks,
        "Time": minutes(each.seconds),
        "Time per case": "–" if each.pace is None else minutes(each.pace),
        "Last change": day(each.last),
    }


def _show_design(progress: SessionProgress) -> None:
    design = progress.design
    rows = {
        "Task": design.questions.title,
        "Studies": f"{progress.studies}, {HOW[design.studies.how].lower()}",
        "From": design.source or "a file of cases",
        "Models": ", ".join(design.models) or "all there are",
        "Random seed": design.seed,
        "Hidden repeats": f"{design.repeats}, after at least {counted(design.washout, 'other case', 'other cases')}"
        if design.repeats
        else "none",
        "Time limit": f"{design.minutes} min" if design.minutes else "none",
        "Instructions": design.instructions or "none",
        "Made": f"{day(progress.created)} by {progress.owner}",
        "Id": progress.id,
    }
    st.dataframe(
        pd.DataFrame([{"": name, "Value": str(value)} for name, value in rows.items()]),
        hide_index=True,
        height="content",
        alt="Design of the session",
    )


def _offer_adjudication(who: Actor, progress: SessionProgress) -> None:
    with st.container(border=True, height="stretch"):
        st.markdown("**Settle disagreements**")
        st.caption("A third reader gets what two readers answered differently: both answers, but not whose they are.")
        known = [name for name in list_users(access.database(), who) if name not in progress.design.readers]
        reader = st.selectbox("Third reader", known, index=None, key="adjudicator", placeholder="Choose")
        if st.button("Send the disagreements", icon=":material/balance:", disabled=reader is None, key="adjudicate"):
            try:
                added = adjudicate(access.database(), who, progress.id, str(reader))
            except CXRLensError as error:
                st.error(plain_message(error), icon=":material/error:")
            else:
                st.session_state[NOTE] = f"{plain(reader)} has {counted(added, 'screen', 'screens')} to settle."
                st.rerun()


def _offer_closing(who: Actor, progress: SessionProgress) -> None:
    with st.container(border=True, height="stretch"):
        st.markdown("**Close the session**")
        st.caption(
            "After that nothing can be marked, and you and the readers see which model wrote which report. "
            "This cannot be undone."
        )
        left = sum(each.screens - each.done - each.skipped for each in progress.readers)
        sure = st.checkbox(
            f"Close it, with {counted(left, 'case', 'cases')} unread" if left else "Close it; all cases are read",
            key="close-sure",
        )
        if st.button("Close and unblind", icon=":material/lock:", disabled=not sure, key="close"):
            seal = close_session(access.database(), who, progress.id)
            st.session_state[NOTE] = (
                f"The session is closed. The names of the models are shown below. Its seal is `{seal}`: print it or "
                "keep it outside of this server. It shows if the record is rewritten later."
            )
            st.rerun()


NOTE = "reviews_note"


# ------------------------------------------------------------------------------------------------------------- admins


def show_keeping(who: Actor) -> None:
    """Users and backups, for admins."""
    left, right = st.columns(2, gap="medium")
    with left, st.container(border=True):
        st.markdown("**Users**")
        known = list_users(access.database(), who)
        st.dataframe(
            pd.DataFrame([{"Name": name, "Role": role} for name, role in known.items()]),
            hide_index=True,
            height="content",
            alt="Users with their roles",
        )
        if access.has_login():
            st.caption("The server's roles.toml says who may do what.")
        else:
            name = st.text_input("Name", key="user-name", max_chars=200)
            role = st.selectbox(
                "Role",
                (*get_args(Role), NO_ROLE),
                key="user-role",
                help="none: this user can no longer come in; the marks stay",
            )
            if st.button("Add or change", key="user-add", icon=":material/person_add:"):
                try:
                    set_role(access.database(), who, name, role)
                except CXRLensError as error:
                    st.error(plain_message(error), icon=":material/error:")
                else:
                    st.session_state[NOTE] = (
                        f"{plain(name)} can no longer come in." if role == NO_ROLE else f"{plain(name)} is {role}."
                    )
                    st.rerun()
    with right, st.container(border=True):
        st.markdown("**Backup**")
        st.caption(
            f"Copies all sessions, marks and events of {access.database().name} into one file and checks it; readers "
            "can go on meanwhile. `cxr-lens review restore FILE --database NEW` reads it."
        )
        if st.button("Make a backup", key="backup", icon=":material/backup:"):
            try:
                with st.spinner("Copying and checking …"), tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "reviews.jsonl.gz"
                    checked = backup(access.database(), who, path)
                    st.session_state[_BACKUP] = path.read_bytes()
            except CXRLensError as error:
                st.error(plain_message(error), icon=":material/error:")
            else:
                st.success(
                    f"Checked: {counted(checked.sessions, 'session', 'sessions')}, "
                    f"{counted(checked.marks, 'mark', 'marks')}, {counted(checked.events, 'event', 'events')}."
                )
        if st.session_state.get(_BACKUP):
            st.download_button("Download the backup", st.session_state[_BACKUP], "reviews.jsonl.gz", key="backup-file")


_BACKUP = access.OF_ONE_USER + "backup"
