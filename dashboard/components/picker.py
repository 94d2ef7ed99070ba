"""Which study is open: the controls at the head of a page. First the source, then a study of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from core.observations import OBSERVATIONS
from core.studies.images import Radiograph, read_image
from core.types import CXRLensError
from dashboard import session
from dashboard.components.asked import tell_unknown
from dashboard.components.source_choice import choose_source
from dashboard.plain import plain, plain_message
from dashboard.services import sources, studies
from dashboard.services.studies import Case

MATCHES = 20
_PAUSE = "300ms"  # ours: after which what is typed is looked for
MOST_FILES = 24  # given at a time: each is kept in memory
_TYPED = "typed_before"  # what was typed, and is followed
_FILES, _CHANGED, _NAMES = "files", "files_changed", "files_names"


def choose_case() -> Case | None:
    """Draw the controls and return the case they name; None where nothing is open yet."""
    try:
        name = choose_source()
        case = _choose_file() if name == sources.UPLOAD else _choose_study()
    except CXRLensError as error:
        st.error(plain_message(error), icon=":material/error:")
        return None
    if case is None:
        return None
    if unlike := studies.unlike(case, studies.family_for(case)):  # even of the models that fit best
        st.warning(plain_message(unlike), icon=":material/warning:")
    if notes := [*case.warnings, *studies.view_notes(case)]:
        st.warning("  \n".join(notes), icon=":material/warning:")
    return case


# ------------------------------------------------------------------------------------------------- studies of a source


def _choose_study() -> Case | None:
    source = sources.source()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        finding = _choose_finding() if studies.can_filter() else session.ANY_FINDING
        ids = studies.visible_ids() if finding == session.ANY_FINDING else studies.with_finding(finding)
        typed = _ask(source.listed) if len(ids) > studies.LISTED or not source.listed else ""
        if typed:
            found = studies.find(typed, MATCHES)
            ids = [each for each in found if each in set(ids)] if finding != session.ANY_FINDING else found
        current = _current(ids, typed, source.listed)
        offered = ids if source.listed and len(ids) <= studies.LISTED else _around(ids, current)
        _offer(offered, current)
        _step_buttons(ids, current)
    _say_unknown()
    if typed and not ids:
        st.warning(f"No study is found by '{plain(typed[:60])}'.", icon=":material/search_off:")
    elif current is None and not source.listed:
        st.info("Type an accession number or a study UID, then Enter.", icon=":material/search:")
    elif current is None and finding != session.ANY_FINDING:
        st.info(f"No study here has {finding} in its reference report. Choose another finding.")
    elif current is None:
        st.info("There is no study here that can be shown.")
    session.write_study(current or "")
    return None if current is None else studies.open_study(current)


def _choose_finding() -> str:
    tell_unknown(session.FINDING, "finding", [session.ANY_FINDING, *OBSERVATIONS])
    return st.selectbox(
        "Finding in the reference",
        [session.ANY_FINDING, *OBSERVATIONS],
        key=session.FINDING,
        bind="query-params",
        label_visibility="collapsed",
        width=220,
    )


def _ask(listed: bool) -> str:
    typed = st.text_input(
        "Find a study",
        key=session.FIND,
        type="search",
        placeholder="Part of a study or patient id" if listed else "Accession number or study UID, Enter",
        live=_PAUSE if listed else False,  # a server is asked for whole numbers
        label_visibility="collapsed",
        width=260,
    )
    return typed.strip()


def _current(ids: Sequence[str], typed: str, listed: bool) -> str | None:
    """The study that is open: the one that was asked for, or else the first."""
    state = st.session_state
    new = typed != state.get(_TYPED, "")
    state[_TYPED] = typed
    wanted = state[session.STUDY]
    if new and typed:
        wanted = None
    elif wanted and not listed and not typed:  # of a link, or found before
        return str(wanted)
    elif wanted and wanted not in ids and wanted not in studies.visible_ids():
        state[session.UNKNOWN_STUDY] = wanted
    current = wanted if wanted in ids else next(iter(ids), None)
    state[session.STUDY] = current
    return current


def _around(ids: Sequence[str], current: str | None) -> Sequence[str]:
    """The studies before and after one, few enough for a list."""
    at = ids.index(current) if current in ids else 0
    first = max(min(at - MATCHES // 2, len(ids) - MATCHES), 0)
    around = ids[first : first + MATCHES]
    return around if current is None or current in around else [current]


def _offer(ids: Sequence[str], current: str | None, also: Mapping[str, str] | None = None) -> None:
    """A list of studies; ``also`` is what is said of some of them beside their titles."""
    st.session_state[session.STUDY_CHOICE] = current
    titles = dict(studies.titles(ids))
    for name, more in (also or {}).items():
        titles[name] = f"{name} · {more}"
    st.selectbox(
        "Study",
        ids,
        format_func=lambda study_id: titles[study_id],
        key=session.STUDY_CHOICE,
        on_change=_follow_choice,
        placeholder="No study matches",
        label_visibility="collapsed",
        width=430,
    )


def _step_buttons(ids: Sequence[str], current: str | None) -> None:
    at = ids.index(current) if current in ids else 0
    for label, sign, key, by, end in (
        ("Previous", ":material/chevron_left:", "P", -1, at == 0),
        ("Next", ":material/chevron_right:", "N", 1, at >= len(ids) - 1),
    ):
        to = ids[at + by] if not end else None
        st.button(label, icon=sign, shortcut=key, on_click=_open, args=(to,), disabled=end, key=label.lower())


def _open(study_id: str | None) -> None:
    st.session_state[session.STUDY], st.session_state[session.UNKNOWN_STUDY] = study_id, None


def _follow_choice() -> None:
    _open(st.session_state[session.STUDY_CHOICE])


def _say_unknown() -> None:
    unknown = st.session_state[session.UNKNOWN_STUDY]
    if not unknown:
        return
    if unknown in studies.kept_back():
        st.warning(
            f"{plain_message(studies.KEPT_BACK.format(unknown))} Showing another.", icon=":material/visibility_off:"
        )
        return
    try:
        studies.study(unknown)
        told = f"Study '{unknown}' is not among the test studies."
    except CXRLensError as error:
        told = str(error)
    st.warning(f"{plain_message(told)} Showing another.", icon=":material/info:")


# ---------------------------------------------------------------------------------------------------- one's own files


def _choose_file() -> Case | None:
    files = st.file_uploader(
        f"PNG, JPEG or DICOM files of chest radiographs, at most 64 MB each, {MOST_FILES} at a time",
        help="The files' names do not matter: their content tells what they are. A name may be a patient's: the page "
        "calls them File 1, File 2, ... in the order given, in titles, figures and exports too.",
        accept_multiple_files=True,
        max_upload_size=64,
        width=620,
        key=_FILES,
        on_change=_note_change,
    )
    state = st.session_state
    if state.pop(_CHANGED, False):
        with st.spinner("Reading the files …"):
            _read(files)
    asked = bool(files) and st.checkbox("Show the files' own names in the list", key="file-names")
    own = {state[_NAMES][file.file_id]: file.name for file in files if file.file_id in state[_NAMES]} if asked else {}
    for name, told in state[session.UPLOADS].items():
        if isinstance(told, str):
            told = f"{told} ({own[name]})" if name in own else told
            st.error(plain_message(told), icon=":material/error:")
    ids = list(sources.uploads())
    current = state[session.STUDY] if state[session.STUDY] in ids else None
    if not ids:
        example = sources.names().get("example")
        st.caption(
            "Then the models write a report of each, and every word can be asked where it comes from. Files stay in "
            "the memory of this browser session and are not stored."
            + (f" No file at hand? *{example}*, above, are X-rays of patients." if example else "")
        )
    else:
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            _offer(ids, current, own)
            _step_buttons(ids, current)
        if len(ids) > 1:
            named = ", ".join(plain(f"{each} ({own[each]})" if each in own else each) for each in ids)
            st.caption(f"{len(ids)} files are open: {named}. Images of one study stand together.")
    session.write_study("")  # an address cannot bring a file back
    return None if current is None else studies.open_study(current)


def _note_change() -> None:
    st.session_state[_CHANGED] = True


def _read(files: Sequence[UploadedFile]) -> None:
    """Read what was given now, and open the first of it; a name stays that of one file as long as that is there."""
    state = st.session_state
    before, names = state[session.UPLOADS], state.get(_NAMES, {})
    kept = {file.file_id: names[file.file_id] for file in files if file.file_id in names}
    given: dict[str, Radiograph | str] = {name: before[name] for name in kept.values()}
    new = [file for file in files if file.file_id not in kept]
    opened = None
    for file in new:
        name = _free_name(given)
        try:
            if len(kept) >= MOST_FILES:
                raise CXRLensError(f"{name} is left out: at most {MOST_FILES} files are open at a time.")
            given[name] = read_image(file.getvalue(), name=name)
            opened = opened or name
        except CXRLensError as error:
            given[name] = str(error)
        kept[file.file_id] = name
    state[session.UPLOADS], state[_NAMES] = given, kept
    if new or state[session.STUDY] not in given:
        state[session.STUDY] = opened


def _free_name(taken: Collection[str]) -> str:
    """What a file is called on the pages: its own name may be a patient's."""
    return next(name for name in (f"File {number}" for number in count(1)) if name not in taken)
