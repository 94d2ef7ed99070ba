"""Which study is open: the controls at the head of a page."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.observations import NO_FINDING, OBSERVATIONS, findings
from core.types import CXRLensError, Study
from dashboard import session
from dashboard.services import studies
from dashboard.services.studies import Case


def choose_case() -> Case | None:
    """Draw the controls and return the case they name; None where nothing is open yet."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        source = st.segmented_control(
            "Source",
            session.SOURCES,
            default=session.SOURCES[0],
            required=True,
            key=session.SOURCE,
            bind="query-params",
            label_visibility="collapsed",
        )
        case = _choose_upload() if source == session.SOURCES[1] else _choose_study()
    if case is None:
        return None
    if unlike := studies.unlike(case, studies.family_for(case)):  # even of the models that fit best
        st.warning(unlike, icon=":material/warning:")
    if notes := [*case.warnings, *studies.view_notes(case)]:
        st.warning("  \n".join(notes), icon=":material/warning:")
    return case


def _label(study: Study) -> str:
    context = study.context
    who = " ".join(part for part in (context.get("sex", ""), context.get("age", "")) if part)
    found = ", ".join(findings(study.labels)) or NO_FINDING
    return " · ".join(part for part in (study.study_id, who, found) if part)


def _choose_study() -> Case | None:
    known = studies.visible_studies()
    finding = st.selectbox(
        "Finding in the reference",
        [session.ANY_FINDING, *OBSERVATIONS],
        key=session.FINDING,
        bind="query-params",
        label_visibility="collapsed",
        width=220,
    )
    matching = [
        study.study_id
        for study in known.values()
        if finding == session.ANY_FINDING
        or finding in findings(study.labels)
        or (finding == NO_FINDING and not findings(study.labels))
    ]
    wanted = st.session_state[session.STUDY]
    current = wanted if wanted in matching else (matching[0] if matching else None)
    if wanted and wanted not in known:
        st.session_state[session.UNKNOWN_STUDY] = wanted
    st.session_state[session.STUDY] = current
    st.session_state[session.STUDY_CHOICE] = current
    st.selectbox(
        "Study",
        matching,
        format_func=lambda study_id: _label(known[study_id]),
        key=session.STUDY_CHOICE,
        on_change=_follow_choice,
        placeholder="No study matches",
        label_visibility="collapsed",
        width=430,
    )
    at = matching.index(current) if current else 0
    st.button(
        "Previous",
        icon=":material/chevron_left:",
        shortcut="P",
        on_click=_step,
        args=(matching, -1),
        disabled=at == 0,
        key="previous",
    )
    st.button(
        "Next",
        icon=":material/chevron_right:",
        shortcut="N",
        on_click=_step,
        args=(matching, 1),
        disabled=at >= len(matching) - 1,
        key="next",
    )
    unknown = st.session_state[session.UNKNOWN_STUDY]
    if unknown and unknown in studies.kept_back():
        st.warning(f"{studies.KEPT_BACK.format(unknown)} Showing another.", icon=":material/visibility_off:")
    elif unknown:
        st.warning(f"Study '{unknown}' is not among the test studies. Showing another.", icon=":material/info:")
    if current is None:
        st.info(f"No test study has {finding} in its reference report. Choose another finding.")
        return None
    session.write_study(current)
    return studies.open_study(current)


def _follow_choice() -> None:
    st.session_state[session.STUDY] = st.session_state[session.STUDY_CHOICE]
    st.session_state[session.UNKNOWN_STUDY] = None


def _step(ids: Sequence[str], by: int) -> None:
    at = ids.index(st.session_state[session.STUDY]) + by
    st.session_state[session.STUDY] = ids[min(max(at, 0), len(ids) - 1)]
    st.session_state[session.UNKNOWN_STUDY] = None


def _choose_upload() -> Case | None:
    file = st.file_uploader(
        "PNG, JPEG or DICOM file of a chest radiograph, at most 64 MB",
        help="The file's name does not matter: its content tells what it is.",
        max_upload_size=64,
        width=520,
    )
    state = st.session_state
    if file is not None and file.file_id != state[session.UPLOAD_ID]:
        state[session.UPLOAD_ID] = file.file_id
        state[session.UPLOAD] = None
        try:
            with st.spinner("Reading the file …"):
                state[session.UPLOAD] = studies.open_upload(file.getvalue(), file.name)
        except CXRLensError as error:
            state[session.UPLOAD_ERROR] = str(error)
        else:
            state[session.UPLOAD_ERROR] = ""
    if state[session.UPLOAD_ERROR] and file is not None:
        st.error(state[session.UPLOAD_ERROR], icon=":material/error:")
        return None
    case: Case | None = state[session.UPLOAD]
    if case is None:
        st.caption("The file stays in the memory of this browser session and is not stored.")
    elif file is None:
        st.caption(f"Open: {case.title}")
    return case
