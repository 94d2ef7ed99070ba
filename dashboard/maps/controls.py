"""In: what is stored of an encoder. Out: the projection, the colours and the second map that a reader chose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st

from core.observations import CLUSTERS, NO_FINDING, OBSERVATIONS
from core.projection.methods import METHODS, ProjectionConfig
from core.types import SPLITS, CXRLensError, Study
from dashboard import session
from dashboard.components.study_map import ABSENT, GROUP, UNKNOWN, choose_finding, group_of
from dashboard.plain import plain_message
from dashboard.services import bundles, embeddings, evaluations, sources, studies
from dashboard.services.embeddings import Embeddings
from dashboard.services.studies import Case, main_cluster

FINDING, CLUSTER, SPLIT, OUTCOME = "Finding", "Disease group", "Split", "Right or wrong"
PARTS = {"filter": "Filter", "area": "Area of the image"}
ALONE = "No second map"
OWN = "These studies"
NOT_KNOWN, OTHER = "not known", "another"
MOST_VALUES = 20  # of a trait, ours: what is rarer is one group
CLUSTER_ORDER = [*(name for name in CLUSTERS if name != NO_FINDING), "Several", NO_FINDING]


@dataclass(frozen=True)
class Colouring:
    """What colour and symbol say; both maps agree in it."""

    source: str
    by: str
    finding: str
    pair: str
    outcomes: dict[str, str]
    traits: Mapping[str, Mapping[str, str]]
    order: Sequence[str]

    def group(self, study: Study, part: str) -> str:
        """Of a point."""
        if self.by in PARTS.values():
            return part
        if self.by == SPLIT:
            return study.split
        if self.by == OUTCOME:
            return self.outcomes.get(study.study_id, "not evaluated")
        if self.by in (FINDING, CLUSTER):
            labels = studies.labels_of(sources.source(self.source), study)
            if self.by == CLUSTER and labels is not None:
                return main_cluster(study)
            return group_of(labels, self.finding)
        value = self.traits[study.study_id].get(self.by, NOT_KNOWN)
        return value if value in self.order else OTHER


def _own_key(name: str, point: str) -> str:
    """Key of a widget that exists for maps of studies and for maps of their parts: the choices differ."""
    return name if point == "study" else f"{name}_{point}s"


def choose_source(case: Case | None) -> str:
    """Of which source the map is: that of the open study, unless told otherwise."""
    own, there = embeddings.source_of(case), embeddings.mapped()
    if len(there) < 2:
        return own
    chosen = st.selectbox(
        "Map of",
        [OWN, *there],
        format_func=lambda name: there.get(name, OWN),
        key=session.MAP_SOURCE,
        bind="query-params",
        on_change=choose_none,
        width=200,
        help="A study of another source is placed among the studies of the map.",
    )
    return own if chosen == OWN else chosen


def choose_none() -> None:
    """Callback: the studies of another source are not those that were chosen."""
    st.session_state[session.PICKED] = ()


def choose_kind(encoder: str, source_name: str) -> str:
    """What a point is."""
    kinds = embeddings.kinds(encoder, source_name)
    if len(kinds) < 2:
        return embeddings.POOLED
    return st.selectbox(
        "Points",
        list(kinds),
        format_func=kinds.__getitem__,
        key=f"points_{encoder}",
        bind="query-params",
        width=230,
    )


def choose_colouring(points: Embeddings) -> Colouring:
    """Controls of colour and symbol: whatever is known of the studies of a map."""
    source, known = sources.source(points.source or None), embeddings.known(points)
    point = embeddings.point_is(points.encoder, points.kind)
    values: dict[str, Counter[str]] = {}
    traits = embeddings.traits(points)
    for told in traits.values():
        for name, value in told.items():
            values.setdefault(name, Counter())[value] += 1
    splits = {study.split for study in known.values()}
    choices = [
        *((FINDING, CLUSTER) if source.has_labels else ()),
        *([PARTS[point]] if point in PARTS else []),
        *([OUTCOME] if source.has_reports else []),
        *values,
        SPLIT,
    ]
    first = PARTS.get(point, next((name for name in choices if name != SPLIT or len(splits) > 1), SPLIT))
    by = st.selectbox(
        "Colour and symbol",
        choices,
        index=choices.index(first),
        key=_own_key(session.MAP_COLOUR_BY, point),
        bind="query-params",
        width=170,
    )
    finding = OBSERVATIONS[0]
    if by in (FINDING, OUTCOME):
        finding = choose_finding("Observation")
    pair, outcomes = "", {}
    cards = bundles.cards(bundles.family_for(sources.source(points.source or None)))
    names = {bundles.title_of(card): card.name for card in cards.values()}
    if by == OUTCOME and names:
        pair = st.selectbox("Model", list(names), key=session.MAP_PAIR, bind="query-params", width=220)
        try:
            evaluated = evaluations.pair_outcomes(names[pair], points.source or None)
        except CXRLensError as error:
            st.info(plain_message(error))
        else:
            outcomes = {
                study_id: found[finding].value if finding in found else "neither says it"
                for study_id, found in evaluated.items()
            }
    frequent = [value for value, _ in values.get(by, Counter()).most_common(MOST_VALUES)]
    orders: dict[str, Sequence[str]] = {
        PARTS["filter"]: CLUSTERS,
        PARTS["area"]: embeddings.AREAS,
        FINDING: (*GROUP.values(), ABSENT, UNKNOWN),
        CLUSTER: (*CLUSTER_ORDER, UNKNOWN),
        SPLIT: SPLITS,
        OUTCOME: ("found", "missed", "invented", "opposite", "neither says it", "not evaluated"),
    }
    order = orders.get(by, (*sorted(frequent), OTHER, NOT_KNOWN))
    return Colouring(points.source, by, finding, pair, outcomes, traits, order)


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


def choose_second(points: Embeddings) -> Embeddings | None:
    """Which map stands beside the first; the control beside CCVE's filters, unless told otherwise."""
    point = embeddings.point_is(points.encoder, points.kind)
    found: dict[str, tuple[str, str]] = {}
    for other in embeddings.encoders(points.source):
        try:
            kinds = embeddings.kinds(other, points.source)
        except CXRLensError:
            continue  # the map of this encoder says why
        for name, title in kinds.items():
            if embeddings.point_is(other, name) == point and (other, name) != (points.encoder, points.kind):
                found[f"{embeddings.title_of(other)}: {title}"] = (other, name)
    alike = [title for title, (_, name) in found.items() if name == points.kind]  # the same points by another encoder
    choices = [ALONE, *alike, *(title for title in found if title not in alike)]
    control = next((title for title, (_, name) in found.items() if name == embeddings.RANDOM), ALONE)
    chosen = st.selectbox(
        "Compare with",
        choices,
        index=choices.index(control if (point, points.kind) == ("filter", embeddings.TOKENS) else ALONE),
        key=_own_key(session.MAP_SECOND, point),
        bind="query-params",
        width=230,
    )
    return embeddings.stored(*found[chosen], points.source) if chosen in found else None
