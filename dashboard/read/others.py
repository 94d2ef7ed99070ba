"""In: systems that are no pairs of ours. Out: their reports of a case, and ways to have those that are not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import streamlit as st

from core.labels.compare import Outcome, compare
from core.labels.rules import LabeledReport
from core.systems.system import Ability, System
from core.types import CXRLensError
from dashboard import session
from dashboard.services import reports, systems
from dashboard.services.explanations import Box
from dashboard.services.studies import Case


def choose_others(case: Case) -> list[System]:
    """Systems that are no pairs of ours, and have a report of this case or can write it."""
    known = systems.of_case(case)
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
            with st.spinner(f"{system.title} writes …"):
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
            with st.spinner(f"{system.title} writes …"):
                systems.without(system, case, region, cover)
        except CXRLensError as error:
            st.error(str(error), icon=":material/error:")
    known = systems.known_without(system, case, region, cover)
    if known is None:
        _offer(f"Write again with the area covered: {system.title}", name, system)
    return known


def offer_writing(case: Case, system: System) -> None:
    """A button that lets a program write, with what that costs."""
    _offer(f"Write with {system.title}", f"write {system.name} {case.key}", system)


def _offer(label: str, name: str, system: System) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            label,
            icon=":material/edit_note:",
            key=f"{name} now",
            on_click=st.session_state.__setitem__,
            args=(name, True),
        )
        st.caption(systems.price(system, 1))
