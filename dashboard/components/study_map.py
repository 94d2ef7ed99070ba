"""The small map of the studies, as the Read page shows it, and its two choices, which the Embeddings page has too."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from core.observations import OBSERVATIONS, LabelState
from core.types import CXRLensError
from core.wording import counted
from dashboard import figures, session
from dashboard.components.asked import tell_unknown
from dashboard.components.embedding_job import offer_map, show_left_out
from dashboard.plain import plain, plain_message
from dashboard.services import embeddings, projections, sources
from dashboard.services.studies import Case

GROUP, ABSENT = {LabelState.POSITIVE: "present", LabelState.UNCERTAIN: "uncertain"}, "not present"
UNKNOWN, EVERY = "no report", "studies"


def choose_encoder(source_name: str) -> str:
    """Whose embeddings are shown; first one of which they are there."""
    able = embeddings.encoders(source_name)
    tell_unknown(session.MAP_ENCODER, "encoder", map(embeddings.title_of, able))
    return st.segmented_control(
        "Encoder",
        able,
        default=next((each for each in able if embeddings.there(each, source_name)), able[0]),
        required=True,
        format_func=embeddings.title_of,
        key=session.MAP_ENCODER,
        bind="query-params",
        width="content",
    )


def choose_finding(label: str) -> str:
    """Which observation the colours are about."""
    return st.selectbox(
        label,
        list(OBSERVATIONS),
        index=OBSERVATIONS.index("Pleural Effusion"),
        key=session.MAP_FINDING,
        bind="query-params",
        width=230,
    )


def group_of(labels: Mapping[str, LabelState] | None, finding: str) -> str:
    """What a study's labels say of a finding."""
    return UNKNOWN if labels is None else GROUP.get(labels[finding], ABSENT)


def draw_map(case: Case, *, height: int) -> None:
    """Draw the studies of a case's source as an encoder sees them, the case marked."""
    name = embeddings.source_of(case)
    source = sources.source(name)
    if told := embeddings.no_own_map(case.source):
        st.caption(f":material/info: {plain_message(told)} This is the map of {plain(source.title)}.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        encoder = choose_encoder(name)
        finding = choose_finding("Colour by") if source.has_labels else ""
    if not embeddings.there(encoder, name):
        offer_map(encoder, name)
        return
    try:
        stored = embeddings.stored(encoder, embeddings.POOLED, name)
        placed = projections.principal_map(encoder, case, name)
    except CXRLensError as error:
        st.info(plain_message(error))
        return
    known = embeddings.visible(stored)
    rows = [row for row, study_id in enumerate(placed.study_ids) if study_id in known]
    names = [placed.study_ids[row] for row in rows]
    groups = [group_of(embeddings.labels_of(stored, known[each]), finding) if finding else EVERY for each in names]
    figure = figures.scatter_map(
        placed.points[rows],
        names,
        names,
        groups,
        order=(*GROUP.values(), ABSENT, UNKNOWN, EVERY),
        axes=[f"PC {number} ({share:.0%} of variance)" for number, share in enumerate(placed.explained, start=1)],
        picked=(),
        here=None if placed.here is None else placed.here[None],
        here_name=f"This study, {case.title}",
        height=height,
    )
    figure.update_layout(dragmode="pan")
    st.plotly_chart(figure, key="map", config={"displaylogo": False, "scrollZoom": True})
    st.caption(
        f"{counted(len(rows), 'study', 'studies')} of {plain(source.title)} as {embeddings.title_of(encoder)} sees "
        "them (first two principal components). Dots that lie close look alike to this encoder; that need not mean the "
        "same findings."
    )
    show_left_out(encoder, name)
    if unlike := embeddings.unlike(case, name):
        st.caption(f":material/warning: {plain_message(unlike)}")
