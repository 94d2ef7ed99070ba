"""Embeddings: the studies as encoders see them, one map or two with one selection."""

from __future__ import annotations

import streamlit as st

from core.projection.methods import ProjectionConfig
from core.registry import token_names
from dashboard import session
from dashboard.components import picker
from dashboard.components.embedding_job import offer_map, show_left_out
from dashboard.components.source_choice import show_credit
from dashboard.components.study_map import choose_encoder
from dashboard.maps.chart import show_difference, show_map
from dashboard.maps.chosen import ANCHOR, show_hovered, show_neighbours, show_picked
from dashboard.maps.controls import choose_colouring, choose_config, choose_kind, choose_second, choose_source
from dashboard.plain import plain, plain_message
from dashboard.services import bundles, embeddings, sources
from dashboard.services.studies import Case

# While the map fills the window, what was chosen on it is said at the window's foot, above the notice there.
_IN_SIGHT = """
<style>
[data-testid="stLayoutWrapper"]:has(> .st-key-chosen-below) { position: sticky; bottom: 2.1rem; z-index: 4; }
.st-key-chosen-below {
  padding: 0.35rem 0.7rem; border-radius: 6px; border: 1px solid var(--st-border-color, #29313a);
  background: var(--st-secondary-background-color, #14181d);
}
</style>
"""


def show_points(name: str, encoder: str, method: ProjectionConfig, case: Case | None) -> None:
    """The maps of a source by an encoder, what is chosen on them, and the studies nearest to the open one."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        points = embeddings.stored(encoder, choose_kind(encoder, name), name)
        colouring = choose_colouring(points)
        second = choose_second(points)
    if token_names(encoder) and embeddings.TOKENS not in embeddings.kinds(encoder, name):
        st.info(
            "CCVE's 13 points of each study and the control with untrained filters are not stored with these models. "
            f"{embeddings.EXPORT}",
            icon=":material/info:",
        )
    for warning in (bundles.mixed_data(bundles.family_for(sources.source(name))), embeddings.unlike(case, name)):
        if warning:
            st.warning(plain_message(warning), icon=":material/warning:")
    session.write_picked()
    if second is None:
        groups = show_map("map_1", points, method, colouring, case, title=False)
    else:
        left, right = st.columns(2, gap="medium")
        with left:
            groups = show_map("map_1", points, method, colouring, case, title=True)
        with right:
            show_map("map_2", second, method, colouring, case, title=True)
        show_difference(points, second)
    show_left_out(encoder, name)
    if embeddings.point_is(encoder, points.kind) == "filter":
        st.markdown(
            "Where the 13 points of a study lie on one another, its filters change the image too little for this "
            "encoder to tell them apart, and only the uppermost colour is seen. Groups by filter mean something only "
            "**as far as they stand further apart than with untrained filters** (the control): compare the silhouettes "
            "under the two maps. The line joins the points of the open study."
        )
    if count := len(st.session_state[session.PICKED]):
        told = "1 chosen study is" if count == 1 else f"{count:,} chosen studies are"
        with st.container(key="chosen-below"):
            st.html(_IN_SIGHT)
            st.markdown(f":material/south: **{told} listed below the map**: [show the table](#{ANCHOR})")
    explain()
    show_picked(points, colouring, groups)
    if case is not None:
        show_neighbours(points, case)
    show_hovered(points)


def explain() -> None:
    """What a map is."""
    with st.expander("How to read this"):
        st.markdown(
            "Each point is a study (or a study through one filter of CCVE). Points that lie together look alike **to "
            "this encoder**; that need not mean the same findings: the numbers under the map say how far it does. "
            "PCA's axes show the largest differences, and distances mean something. In t-SNE and UMAP only "
            "neighbourhoods mean something: sizes of groups and gaps between them do not.  \n"
            "**Choose** with the lasso or the box of the map's toolbar. With its pan tool, click a point: this also "
            "opens its study. Double-click clears the choice. By keyboard: *Choose a whole group*, then the table. "
            "A 3-D map turns, but has no lasso."
        )


case = picker.choose_case()
st.header("The studies as an encoder sees them")
with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    name = choose_source(case)
    encoder = choose_encoder(name)
    method = choose_config()
if told := embeddings.no_own_map(sources.chosen()):
    st.caption(f":material/info: {plain_message(told)} This is the map of {plain(sources.source(name).title)}.")
if embeddings.there(encoder, name):
    show_points(name, encoder, method, case)
    show_credit(sources.source(name).credit)
else:
    offer_map(encoder, name)
