"""A rubric as its readers see it, on an invented radiograph, while its file is written. Nothing of it is kept."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

from core.files import hash_of
from core.reviews.database import Database
from core.reviews.design import Case, Choice, Design, image_sha256
from core.reviews.editing_design import NO_EDITING, Editing
from core.reviews.questions import Rubric
from core.reviews.rubric_library import own_folder, own_rubrics, shipped_rubrics
from core.reviews.rubric_reader import RubricError, read_rubric
from core.reviews.sources import name_phantoms, open_source, session_image
from core.reviews.store import create_session, first_admin, list_screens, read_screen
from dashboard import access
from dashboard.components.reading import plate, reading
from dashboard.reviews.pictures import plates
from dashboard.reviews.reading import respond

_STAGE = access.OF_ONE_USER + "rubric_stage"
READER = "you"
PATIENCE = 2.0
"""Seconds to wait for the image: it is drawn once."""


@dataclass
class _Stage:
    """A database of its own, with one case; it goes with its folder when nobody looks at it any more."""

    folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)

    @property
    def location(self) -> Path:
        return Path(self.folder.name) / "preview.sqlite"


def _set(rubric: Rubric) -> tuple[_Stage, str]:
    """A stage on which a rubric is read, and the id of the session; another one for every change of the file."""
    kept = st.session_state.get(_STAGE)
    if kept and kept[0] == rubric.text:
        return kept[1], kept[2]
    stage = _Stage()
    source = name_phantoms(40, 3)
    opened = open_source(source)
    studies = list(opened.studies("test"))
    first = studies[0]
    texts = [each.findings for each in studies[: max(rubric.reports_per_screen, 1)]]
    reports = {f"writer {number}": text for number, text in enumerate(texts, 1)}
    case = Case(first.study_id, image_sha256(session_image(opened, first.study_id)), reports)
    design = Design(
        f"Preview of {rubric.title}"[:200],
        rubric.name,
        (READER,),
        studies=Choice(),
        source=source,
        rubric_text=rubric.text,
        editing=Editing(("writer 1",)) if rubric.edits else NO_EDITING,
    )
    with closing(Database(stage.location)) as database:
        session_id = create_session(database, first_admin(database, READER), design, [case])
    st.session_state[_STAGE] = (rubric.text, stage, session_id)
    return stage, session_id


def show(rubric: Rubric) -> None:
    """Draw the reading page for a rubric: keys, marks and refusals are those of a session."""
    with st.container(border=True):
        st.caption(
            "As a reader sees it, on an invented radiograph with invented reports. Try the keys (? lists them): "
            "nothing that is answered here is kept."
        )
        _round(rubric)


@st.fragment
def _round(rubric: Rubric) -> None:
    stage, session_id = _set(rubric)
    key = f"preview-{hash_of([session_id])[:12]}"
    request: Any = dict(st.session_state.get(key) or {}).get("request")
    with closing(Database(stage.location)) as database:
        you = first_admin(database, READER)
        answer = respond(database, you, session_id, request if isinstance(request, dict) else None)
        screens = [read_screen(database, you, screen) for screen, _, _ in list_screens(database, you, session_id)[:2]]
        images = plates(database, you, screens, PATIENCE)
    answer["preview"] = True
    answer["plates"] = {
        screen: "waiting" if image is None else "ready" if isinstance(image, bytes) else str(image)
        for screen, image in images.items()
    }
    reading(answer, key=key)
    for screen, image in images.items():
        if isinstance(image, bytes):
            plate(screen, image)


def show_rubrics() -> None:
    """The rubrics there are, and a place to write one: what is wrong with it, or how a reader sees it."""
    own, wrong = own_rubrics()
    known = {**shipped_rubrics(), **own}
    # Last those that are not made to begin from: their answers are stored in ways of their own.
    names = sorted(known, key=lambda each: known[each].mark != "answer")
    st.markdown(
        f"A rubric is what readers are asked: a TOML file of questions. Own ones are files in `{own_folder()}`; "
        "a session keeps the rubric that it was made with, whatever becomes of the file."
    )
    for fault in wrong:
        st.warning(fault, icon=":material/info:")
    name = st.selectbox("Begin with", names, format_func=lambda each: known[each].title, key="rubric-name")
    st.caption(known[name].about)
    text = st.text_area("The file", known[name].text, height=340, key=f"rubric-text-{name}", max_chars=100_000)
    try:
        rubric = known[name] if text == known[name].text else read_rubric(text, "The file")
    except RubricError as error:
        st.error("\n".join(f"- {fault}" for fault in error.faults), icon=":material/error:")
        return
    if rubric is not known[name]:
        if rubric.name in shipped_rubrics():
            st.info("Give it a name of its own: this one is that of a rubric of CXR Lens.", icon=":material/info:")
            return
        st.download_button("Download the file", text, f"{rubric.name}.toml", icon=":material/download:")
    show(rubric)
