"""The small map of the studies, as the Read page shows it, and its two choices, which the Embeddings page has too."""

from __future__ import annotations

import streamlit as st

from core.observations import OBSERVATIONS, LabelState
from core.registry import ENCODERS
from core.types import CXRLensError
from dashboard import figures, session
from dashboard.services import embeddings, projections, studies
from dashboard.services.studies import Case

GROUP, ABSENT = {LabelState.POSITIVE: "present", LabelState.UNCERTAIN: "uncertain"}, "not present"


def choose_encoder() -> str:
    """Whose embeddings are shown."""
    there = embeddings.encoders()
    return st.segmented_control(
        "Encoder",
        there,
        default=there[0],
        required=True,
        format_func=lambda name: ENCODERS[name].title,
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


def draw_map(case: Case | None, *, height: int) -> None:
    """Draw the studies as an encoder sees them, the open case marked."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        encoder = choose_encoder()
        finding = choose_finding("Colour by")
    try:
        placed = projections.principal_map(encoder, case)
    except CXRLensError as error:
        st.info(str(error))
        return
    known = studies.visible_studies()
    rows = [row for row, study_id in enumerate(placed.study_ids) if study_id in known]
    names = [placed.study_ids[row] for row in rows]
    figure = figures.scatter_map(
        placed.points[rows],
        names,
        names,
        [GROUP.get(known[name].labels[finding], ABSENT) for name in names],
        order=(*GROUP.values(), ABSENT),
        axes=[f"PC {number} ({share:.0%} of variance)" for number, share in enumerate(placed.explained, start=1)],
        picked=(),
        here=None if placed.here is None else placed.here[None],
        here_name=f"This study, {case.title}" if case else "",
        height=height,
    )
    figure.update_layout(dragmode="pan")
    st.plotly_chart(figure, key="map", config={"displaylogo": False, "scrollZoom": True})
    st.caption(
        f"{len(rows)} test studies as {ENCODERS[encoder].title} sees them (first two principal components). Dots that "
        "lie close look alike to this encoder; that need not mean the same findings."
    )
    if unlike := embeddings.unlike(case):
        st.caption(f":material/warning: {unlike}")
