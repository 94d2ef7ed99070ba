"""In: what is stored of an encoder. Out: the projection, the colours and the second map that a reader chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from core.observations import CLUSTERS, NO_FINDING, OBSERVATIONS
from core.projection.methods import METHODS, ProjectionConfig
from core.registry import ENCODERS
from core.types import SPLITS, CXRLensError, Study
from dashboard import session
from dashboard.components.study_map import ABSENT, GROUP, choose_encoder, choose_finding
from dashboard.services import bundles, embeddings, evaluations
from dashboard.services.studies import main_cluster

FINDING, CLUSTER, VIEW, SPLIT, OUTCOME = "Finding", "Disease group", "View", "Split", "Right or wrong"
PARTS = {"filter": "Filter", "area": "Area of the image"}
ALONE = "No second map"
VIEWS = ("PA", "AP", "FRONTAL", "LATERAL", "another view")
CLUSTER_ORDER = [*(name for name in CLUSTERS if name != NO_FINDING), "Several", NO_FINDING]


@dataclass(frozen=True)
class Colouring:
    """What colour and symbol say; both maps agree in it."""

    by: str
    finding: str
    pair: str
    outcomes: dict[str, str]
    order: Sequence[str]

    def group(self, study: Study, part: str) -> str:
        """Of a point."""
        if self.by in PARTS.values():
            return part
        if self.by == CLUSTER:
            return main_cluster(study)
        if self.by == VIEW:
            return study.view if study.view in VIEWS else VIEWS[-1]
        if self.by == SPLIT:
            return study.split
        if self.by == OUTCOME:
            return self.outcomes.get(study.study_id, "not evaluated")
        return GROUP.get(study.labels[self.finding], ABSENT)


def _own_key(name: str, point: str) -> str:
    """Key of a widget that exists for maps of studies and for maps of their parts: the choices differ."""
    return name if point == "study" else f"{name}_{point}s"


def choose_points() -> tuple[str, str]:
    """Which encoder, and what a point is."""
    encoder = choose_encoder()
    kinds = embeddings.kinds(encoder)
    if len(kinds) < 2:
        return encoder, embeddings.POOLED
    kind = st.selectbox(
        "Points",
        list(kinds),
        format_func=kinds.__getitem__,
        key=f"points_{encoder}",
        bind="query-params",
        width=230,
    )
    return encoder, kind


def choose_colouring(point: str) -> Colouring:
    """Controls of colour and symbol."""
    choices = [FINDING, CLUSTER, *([PARTS[point]] if point in PARTS else []), OUTCOME, VIEW, SPLIT]
    by = st.selectbox(
        "Colour and symbol",
        choices,
        index=choices.index(PARTS.get(point, FINDING)),
        key=_own_key(session.MAP_COLOUR_BY, point),
        bind="query-params",
        width=170,
    )
    finding = OBSERVATIONS[0]
    if by in (FINDING, OUTCOME):
        finding = choose_finding("Observation")
    pair, outcomes = "", {}
    names = {bundles.title_of(card): card.name for card in bundles.cards().values()}
    if by == OUTCOME and names:
        pair = st.selectbox("Model", list(names), key=session.MAP_PAIR, bind="query-params", width=220)
        try:
            known = evaluations.pair_outcomes(names[pair])
        except CXRLensError as error:
            st.info(str(error))
        else:
            outcomes = {
                study_id: found[finding].value if finding in found else "neither says it"
                for study_id, found in known.items()
            }
    orders: dict[str, Sequence[str]] = {
        PARTS["filter"]: CLUSTERS,
        PARTS["area"]: embeddings.AREAS,
        CLUSTER: CLUSTER_ORDER,
        SPLIT: SPLITS,
        VIEW: VIEWS,
        OUTCOME: ("found", "missed", "invented", "opposite", "neither says it", "not evaluated"),
    }
    return Colouring(by, finding, pair, outcomes, orders.get(by, (*GROUP.values(), ABSENT)))


def choose_config() -> ProjectionConfig:
    """Controls of the projection."""
    method = st.segmented_control(
        "Method",
        METHODS,
        default="PCA",
        required=True,
        key=session.MAP_METHOD,
        bind="query-params",
        help="PCA is linear: its axes show the largest differences, and distances mean something. "
        "t-SNE and UMAP keep neighbours together; sizes of groups and gaps between them mean little.",
    )
    dimensions = st.segmented_control(
        "Dimensions", ["2", "3"], default="2", required=True, key=session.MAP_DIMENSIONS, bind="query-params"
    )
    perplexity, neighbours, distance = 30, 15, 0.1
    with st.popover("Settings", icon=":material/tune:"):
        if method == "t-SNE":
            title = "Perplexity: about how many neighbours count for each point"
            perplexity = st.slider(title, 5, 100, perplexity, 5, key=session.MAP_PERPLEXITY, bind="query-params")
        elif method == "UMAP":
            neighbours = st.slider("Neighbours", 2, 200, neighbours, key=session.MAP_NEIGHBOURS, bind="query-params")
            title = "Smallest distance between points"
            distance = st.slider(title, 0.0, 1.0, distance, 0.05, key=session.MAP_DISTANCE, bind="query-params")
        st.segmented_control(
            "The camera button of the map saves",
            ["svg", "png"],
            default="svg",
            required=True,
            key=session.MAP_PICTURE,
            bind="query-params",
        )
        st.caption("Random seed 0. Each map is computed once, then read from disk.")
    return ProjectionConfig(
        method=method,
        dimensions=int(dimensions),
        perplexity=float(perplexity),
        neighbours=neighbours,
        min_distance=distance,
    )


def choose_second(encoder: str, kind: str) -> tuple[str, str] | None:
    """Which map stands beside the first; the control beside CCVE's filters, unless told otherwise."""
    point = embeddings.point_is(encoder, kind)
    found: dict[str, tuple[str, str]] = {}
    for other in ENCODERS:
        try:
            kinds = embeddings.kinds(other)
        except CXRLensError:
            continue  # the map of this encoder says why
        for name, title in kinds.items():
            if embeddings.point_is(other, name) == point and (other, name) != (encoder, kind):
                found[f"{ENCODERS[other].title}: {title}"] = (other, name)
    choices = [ALONE, *found]
    control = next((title for title, (_, name) in found.items() if name == embeddings.RANDOM), ALONE)
    chosen = st.selectbox(
        "Compare with",
        choices,
        index=choices.index(control if (point, kind) == ("filter", embeddings.TOKENS) else ALONE),
        key=_own_key(session.MAP_SECOND, point),
        bind="query-params",
        width=230,
    )
    return found.get(chosen)
