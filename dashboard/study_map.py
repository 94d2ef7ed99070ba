"""The embedding map with its two choices, as the Read and the Embeddings page show it."""

from __future__ import annotations

import streamlit as st

from core.observations import OBSERVATIONS, LabelState
from core.registry import ENCODERS
from core.types import CXRLensError
from dashboard import figures, services, session

_GROUP = {LabelState.POSITIVE: "present", LabelState.UNCERTAIN: "uncertain"}


def draw_map(case: services.Case | None, *, height: int) -> None:
    """Draw the studies as an encoder sees them, the open case marked."""
    there = services.encoders_with_embeddings()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        encoder = st.segmented_control(
            "Encoder",
            there,
            default=there[0],
            required=True,
            format_func=lambda name: ENCODERS[name].title,
            key=session.MAP_ENCODER,
            bind="query-params",
            width="content",
        )
        finding = st.selectbox(
            "Colour by",
            list(OBSERVATIONS),
            index=OBSERVATIONS.index("Pleural Effusion"),
            key=session.MAP_FINDING,
            bind="query-params",
            width=240,
        )
    try:
        placed = services.embedding_map(encoder, case)
    except CXRLensError as error:
        st.info(str(error))
        return
    studies = services.studies()
    known = [index for index, study_id in enumerate(placed.study_ids) if study_id in studies]
    names = [placed.study_ids[index] for index in known]
    groups = [_GROUP.get(studies[name].labels[finding], "not present") for name in names]
    figure = figures.study_map(
        placed.points[known],
        names,
        groups,
        finding=finding,
        here=placed.here,
        here_name=case.title if case else "",
        explained=placed.explained,
        height=height,
    )
    st.plotly_chart(figure, key="map", config={"displaylogo": False, "scrollZoom": True})
    st.caption(
        f"{len(known)} test studies: {ENCODERS[encoder].title}'s tokens, averaged, on their first two principal "
        "components. Near means alike to this encoder, not necessarily alike in findings."
    )
