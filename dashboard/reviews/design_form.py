"""Designing a session: all choices on one page, a preview of the first case, and its making."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.reviews.design import Choice, Design
from core.reviews.editing_design import Editing
from core.reviews.questions import ReviewError, Rubric
from core.reviews.rubric_library import own_folder, own_rubrics, shipped_rubrics
from core.reviews.size import size_in_words, usual_seconds
from core.reviews.store import Actor, create_session, list_users, set_role
from core.systems.system import System
from core.types import CXRLensError
from core.wording import counted
from dashboard import access, session
from dashboard.components.add_system import offer_upload
from dashboard.plain import plain, plain_message
from dashboard.reviews import pool, rubric_preview
from dashboard.reviews.editing import ask_editing
from dashboard.services import systems

HOW = {
    "random": "At random",
    "stratified": "By observation, rare ones first",
    "disagreement": "Where the reports disagree most",
    "listed": "A list of studies",
}
MADE = "reviews_made"
_TRIED = "design-tried"
_PREVIEW = access.OF_ONE_USER + "preview"


def show_form(who: Actor) -> None:
    """Draw the form; makes a session when it is sent."""
    design, pool_size, problem = _ask(who)
    if design is not None:
        st.session_state.pop(_TRIED, None)
        told = _size(who, design, pool_size)
        st.markdown(f":material/schedule: {told}" if told else ":material/schedule: All studies, by all readers.")
    elif _TRIED in st.session_state:
        st.error(plain_message(problem), icon=":material/error:")
    left, right = st.columns([1, 1], vertical_alignment="center", width=520)
    tried: dict[str, Any] = {"on_click": _note_trying, "width": "stretch"}
    wants_preview = left.button("Preview the first case", icon=":material/visibility:", **tried)
    wants_session = right.button("Make the session", type="primary", icon=":material/add_task:", **tried)
    if design is None:
        if wants_preview or wants_session:  # the page grew above the buttons: this is in sight wherever it is
            st.toast(plain_message(problem), icon=":material/error:")
        return
    if wants_session:
        _make(who, design, pool_size)
    elif wants_preview:
        with st.spinner("Writing the reports of the first case …"):
            try:
                st.session_state[_PREVIEW] = (design, pool.preview(design))
            except CXRLensError as error:
                st.error(plain_message(error), icon=":material/error:")
    shown = st.session_state.get(_PREVIEW)
    if shown and shown[0] == design:
        _show_preview(design, *shown[1])


def _note_trying() -> None:
    st.session_state[_TRIED] = True


def _fault(where: DeltaGenerator, missing: bool, words: str) -> None:
    """Say beside a field what it lacks, once somebody tried to go on without."""
    if missing and _TRIED in st.session_state:
        where.markdown(f":red[:material/error: {words}]")


def _size(who: Actor, design: Design, pool_size: int) -> str:
    """How much each reader gets, in words; empty where it cannot be told."""
    studies = design.studies.count or len(design.studies.ids)
    if not studies:
        there = len(pool.studies(design.source))
        studies = min(pool_size, there) if pool_size else there
    usual = usual_seconds(access.database(), who, design.rubric)
    return size_in_words(design, studies, len(design.models), usual)


def _ask(who: Actor) -> tuple[Design | None, int, str]:
    """The design as it stands, the number of candidates, and why it is none yet."""
    known = list_users(access.database(), who)
    may_add = who.role == "admin" and not access.has_login()
    values: dict[str, Any] = {}
    with st.container(border=True):
        left, right = st.columns([3, 2], gap="medium")
        values["title"] = left.text_input(
            "Title",
            key="design-title",
            max_chars=200,
            placeholder="Readers see it",
            help="Readers see the title: do not name models in it.",
        )
        _fault(left, not values["title"].strip(), "Give the session a title.")
        own, wrong = own_rubrics()
        rubrics = {**shipped_rubrics(), **own}
        values["rubric"] = right.selectbox(
            "What readers do",
            list(rubrics),
            format_func=lambda name: rubrics[name].title,
            key="design-rubric",
            help=f"Own ones are files in {own_folder()}; the view Rubrics shows how to write one.",
        )
        rubric = rubrics[values["rubric"]]
        left.caption(f"{rubric.about} Readers are asked: {rubric.question}")
        for fault in wrong:
            left.warning(fault, icon=":material/info:")
        if right.toggle("Show it as a reader sees it", key="design-rubric-shown"):
            rubric_preview.show(rubric)
        values["readers"] = tuple(
            st.multiselect(
                "Readers",
                sorted(known, key=lambda name: (known[name] != "reader", name)),
                key="design-readers",
                accept_new_options=may_add,
                placeholder="Choose, or type a new name" if may_add else "Choose",
                help="Each reader gets their own order of cases and their own names of reports (A, B, …).",
            )
        )
        _fault(st.container(), not values["readers"], "Choose one reader at least.")
    with st.container(border=True):
        named = pool.sources()
        left, middle, right = st.columns([2, 2, 1], gap="medium")
        source = left.selectbox("Studies from", list(named), format_func=lambda name: named[name], key="design-source")
        how = middle.selectbox("Choose them", list(HOW), format_func=lambda name: HOW[name], key="design-how")
        count = right.number_input("Number of studies", 0, 10_000, 20, key="design-count", help="0: all studies")
        ids: tuple[str, ...] = ()
        pool_size = 0
        if how == "listed":
            picked = st.session_state.get(session.PICKED, ())
            text = st.text_area(
                "Study ids",
                " ".join(picked),
                key=f"design-ids-{hash(picked)}",
                help="Separated by spaces, commas or lines. Those chosen on the Embeddings page are filled in.",
            )
            ids = tuple(dict.fromkeys(re.split(r"[\s,;]+", text.strip()))) if text.strip() else ()
            st.caption(
                f"{counted(len(ids), 'study', 'studies')} listed. Studies that you lasso on the Embeddings page are "
                "filled in here."
            )
            _fault(st.container(), not ids, "List one study at least, or choose them in another way.")
        elif how == "disagreement":
            pool_size = st.number_input(
                "Compare the reports of this many studies",
                1,
                10_000,
                40,
                key="design-pool",
                help="All their reports are written now; the studies whose reports differ most are chosen.",
            )
        values["studies"] = Choice(how, 0 if how == "listed" else count, ids)
        values["source"] = source
        cards = pool.writers(source)
        values["models"] = ()
        if rubric.reports_per_screen:
            explained = rubric.mark == "helpfulness"  # and a human report has no explanation
            human = [] if explained else pool.humans(source)
            further = {} if explained else pool.others(source)
            # A pair without a map has little to show as an explanation: it can be chosen, and is not there at first.
            first = [card for card in cards if pool.has_map(card)] if explained else cards
            names = tuple(
                st.multiselect(
                    "Who wrote the reports (readers never see it)",
                    [*(card.name for card in cards), *human],
                    default=[*(card.name for card in first[:2]), *human],
                    format_func=lambda name: pool.title_of(name, cards),
                    key=f"design-models-{source}-{explained}",
                )
            )
            values["models"] = names + _ask_others(source, further)
            fewest = max(1, rubric.reports_per_screen)
            lack = f"Choose {fewest} at least." if fewest > 1 else "Choose one at least."
            _fault(st.container(), len(values["models"]) < fewest, lack)
            if not cards and explained:
                st.caption("No model here learned from such studies, so there is nothing to explain.")
            elif not cards and not human and not further:
                st.caption("No model here learned from such studies, and they have no reference reports.")
            elif not cards and not further:
                st.caption("No model here learned from such studies, so only the reference reports can be judged.")
    with st.container(border=True):
        _ask_details(values, rubric)
    if rubric.edits:
        with st.container(border=True):
            arms = ask_editing(values["models"])
    else:
        arms = {}
    fewest = rubric.reports_per_screen
    if fewest and len(values["models"]) < fewest:
        return None, pool_size, f"Who wrote the reports: this task needs {fewest} at least."
    try:
        return Design(**values, editing=Editing(**arms)), pool_size, ""
    except ReviewError as error:
        return None, pool_size, str(error)


def _ask_others(source: str, further: Mapping[str, Mapping[str, System]]) -> tuple[str, ...]:
    """Systems that were added, a list a group; and the way to add a file of reports."""
    chosen: list[str] = []
    for group, members in further.items():
        chosen += st.multiselect(
            group,
            list(members),
            format_func=lambda name, members=members: members[name].title,  # type: ignore[misc]
            key=f"design-others-{source}-{group}",
            placeholder="Choose",
            help="Chosen are studies of which each of them has a report.",
        )
    for each in (members[name] for members in further.values() for name in chosen if name in members):
        if told := systems.price(each, 1):
            st.caption(f":material/timer: {plain_message(told)}")
    offer_upload("design-upload")
    return tuple(chosen)


def _ask_details(values: dict[str, Any], rubric: Rubric) -> None:
    one, two, three, four = st.columns(4, gap="medium")
    values["minutes"] = one.number_input(
        "Time limit, minutes", 0, 600, 0, key="design-minutes", help="Active time of each reader; 0: no limit"
    )
    values["repeats"] = two.number_input(
        "Hidden repeats",
        0,
        0 if rubric.edits else 1000,
        0,
        key="design-repeats",
        help="Cases that each reader sees a second time, without being told",
    )
    values["washout"] = three.number_input(
        "Other cases before a repeat", 0, 1000, 10, key="design-washout", help="At least this many"
    )
    values["seed"] = four.number_input(
        "Random seed",
        0,
        2**31,
        0,
        key="design-seed",
        help="Decides which studies are chosen; names and orders are drawn anew",
    )
    if rubric.compares:
        values["comparisons"] = st.number_input(
            "Comparisons per study", 0, 1000, 0, key="design-comparisons", help="0: all there are"
        )
    elif rubric.mark == "helpfulness":
        values["explanation"] = "attention"
    elif rubric.reports_per_screen == 1 and not rubric.edits:
        values["reports_per_screen"] = st.number_input(
            "Reports on a screen", 1, 12, 1, key="design-reports", help="All of the same radiograph, side by side"
        )
    values["priors"] = st.checkbox(
        "Show the study before beside each case",
        key="design-priors",
        help="The patient's earlier study, where the source has one. Models that see one image do not see it.",
    )
    values["instructions"] = st.text_area(
        "Instructions to readers",
        key="design-instructions",
        max_chars=10_000,
        placeholder="Shown before the first case",
    )


def _make(who: Actor, design: Design, pool_size: int) -> None:
    bar = st.progress(0.0, "Writing the reports …")
    try:
        found = pool.write(design, pool_size, lambda done, total: bar.progress(done / total, _step(done, total)))
        database = access.database()
        if who.role == "admin" and not access.has_login():
            known = list_users(database, who)
            for name in design.readers:
                if name not in known:
                    set_role(database, who, name, "reader")
        session_id = create_session(database, who, design, found)
    except CXRLensError as error:
        bar.empty()
        st.error(plain_message(error), icon=":material/error:")
        return
    st.session_state[MADE] = session_id
    st.rerun()


def _step(done: int, total: int) -> str:
    return (
        f"Reports of {done} of {counted(total, 'study', 'studies')}. Leaving this page stops it, and makes no session."
    )


def _show_preview(design: Design, study: Any, image: Any, reports: list[tuple[str, str]]) -> None:
    st.markdown(
        f"**First case of {plain(design.readers[0])}, as an example**: names and order are drawn when the session is "
        "made"
    )
    left, right = st.columns([2, 3], gap="medium")
    left.image(image, width=420, clamp=True, alt=f"Radiograph of study {study.study_id}")
    with right:
        st.markdown(f"*{plain(design.questions.question)}*")
        for name, text in reports:
            with st.container(border=True):
                st.markdown(f"**Report {plain(name)}**")
                st.text(text)
        if not reports:
            st.caption("The image alone, without a report.")
