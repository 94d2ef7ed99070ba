"""In: systems that are no pairs of ours. Out: their reports of a case, and ways to have those that are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.labels.compare import Outcome, compare
from core.labels.rules import LabeledReport
from core.observations import LabelState
from core.systems.system import Ability, System
from core.types import CXRLensError
from dashboard import session
from dashboard.components.asked import tell_unknown
from dashboard.components.viewer import Panel
from dashboard.plain import plain, plain_message
from dashboard.read.questions import choose_how, show_title
from dashboard.services import reports, systems
from dashboard.services.explanations import Box
from dashboard.services.studies import Case


def choose_others(case: Case) -> list[System]:
    """Systems that are no pairs of ours, and have a report of this case or can write it."""
    known = systems.of_case(case)
    tell_unknown(session.BESIDE, "system", known)
    if not known:
        return []
    chosen = st.multiselect(
        "Other systems",
        list(known),
        key=session.BESIDE,
        bind="query-params",
        placeholder="Reports from elsewhere: choose",
        label_visibility="collapsed",
        help="Files of reports that have one of this study, and programs. `cxr-lens systems add` adds them.",
    )
    return [known[name] for name in chosen]


@dataclass(frozen=True)
class OutsideReading:
    """A report of a system that is no pair.

    Attributes:
        system: that wrote it.
        text: the report.
        labels: what it says.
        outcomes: by observation, against the reference; None without one.
    """

    system: System
    text: str
    labels: LabeledReport
    outcomes: Mapping[str, Outcome] | None


def read_other(case: Case, system: System) -> OutsideReading | str | None:
    """What a system wrote of a case; a message where it fails, None where it would have to write it."""
    try:
        text = systems.text_of(system, case)
        if text is None and st.session_state.pop(f"write {system.name} {case.key}", False):
            with st.spinner(f"{plain(system.title)} writes …"):
                text = systems.write(system, case)
    except CXRLensError as error:
        return str(error)
    if text is None:
        return None
    labels = reports.label(text)
    return OutsideReading(system, text, labels, None if case.labels is None else compare(case.labels, labels.states))


def without_region(case: Case, system: System, region: Box, cover: str) -> Mapping[str, object] | None:
    """What a system writes with a region covered, for its card; where it was not asked yet, a button with the price."""
    if Ability.WRITE not in system.abilities:
        return None
    name = f"cover {system.name} {case.key} {region} {cover}"
    if st.session_state.pop(name, False):
        try:
            with st.spinner(f"{plain(system.title)} writes …"):
                systems.without(system, case, region, cover)
        except CXRLensError as error:
            st.error(plain_message(error), icon=":material/error:")
    known = systems.known_without(system, case, region, cover)
    if known is None:
        _offer(f"Write again with the area covered: {system.title}", name, system)
    return known


def finding_asked(case: Case, others: Sequence[System]) -> tuple[System, str] | None:
    """The system that is no model of ours and its finding that the address asks about; a message where it cannot."""
    name, observation = st.query_params.get(session.ASKED), st.query_params.get("mention", "")
    if not name or (system := systems.named(name)) is None:
        return None
    read = read_other(case, system) if name in {each.name for each in others} else None
    if (
        isinstance(read, OutsideReading)
        and Ability.WRITE in system.abilities
        and read.labels.states.get(observation, LabelState.BLANK) is not LabelState.BLANK
    ):
        return system, observation
    st.warning(
        f"The address asks where a finding of {plain(system.title)} comes from. That can be asked of programs whose "
        "report is shown, and of findings that it speaks of: click one in the report.",
        icon=":material/info:",
    )
    return None


def show_place(case: Case, system: System, observation: str, head: DeltaGenerator) -> list[Panel]:
    """Where in the image a system's finding comes from; where that was not asked yet, a button with the price.

    Args:
        case: the image.
        system: that has a report of it, and can write more.
        observation: that the report speaks of.
        head: where words and method stand, beside the image.
    """
    from core.explain.texts import METHODS  # brings torch

    with head:
        show_title(observation, system.title)
        method = choose_how({row.title: name for name, row in METHODS.items()})
    row = METHODS[method]
    copies = row.reports
    st.caption(
        f"{row.summary} Only the texts of {plain(system.title)} are known: it writes a report of each of {copies} "
        f"changed copies of the image, and those that say the same about {observation} are counted. How far to trust "
        "this was not measured."
    )
    wanted = f"place {system.name} {case.key} {observation} {method}"
    if st.session_state.pop(wanted, False):
        _find_place(case, system, observation, method)
    found = systems.known_place(system, case, observation, method)
    if found is None:
        _offer(f"Write {copies} reports and compare", wanted, system, copies, "those copies")
        return []
    if not found.any():
        st.info(f"{plain(system.title)} said the same about {observation} whatever was covered: no place can be shown.")
        return []
    values = np.asarray(found / np.abs(found).mean(), np.float32)
    return [Panel(row.title, values, (0.0, 0.0, 1.0, 1.0), signed=bool((values < 0).any()))]


def _find_place(case: Case, system: System, observation: str, method: str) -> None:
    """Ask, with progress. A click elsewhere ends it: Streamlit raises at the next progress."""
    place = st.empty()
    with place.container():
        bar = st.progress(0.0, text=f"{plain(system.title)} writes …")
        st.button("Cancel", on_click=session.close_question, key="cancel")
    try:
        systems.find_place(
            system, case, observation, method, lambda done, of: bar.progress(done / of, text=f"{done} of {of} reports")
        )
    except CXRLensError as error:
        st.error(plain_message(error), icon=":material/error:")
    place.empty()


def offer_writing(case: Case, system: System) -> None:
    """A button that lets a program write, with what that costs."""
    _offer(f"Write with {system.title}", f"write {system.name} {case.key}", system)


def _offer(label: str, name: str, system: System, studies: int = 1, what: str = "") -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            plain(label),
            icon=":material/edit_note:",
            key=f"{name} now",
            on_click=st.session_state.__setitem__,
            args=(name, True),
        )
        st.caption(plain(systems.price(system, studies, what)))
