"""Embeddings: the studies as encoders see them, one map or two with one selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import streamlit as st

from core.observations import CLUSTERS, NO_FINDING, OBSERVATIONS, LabelState, findings
from core.projection.job import ProjectionJob
from core.projection.methods import METHODS, ProjectionConfig
from core.registry import ENCODERS, pair_title, token_names
from core.types import SPLITS, CXRLensError, Projection, Study
from dashboard import evaluation, figures, picker, services, session
from dashboard.components.hover_pictures import hover_pictures
from dashboard.components.study_cards import StudyCard, study_cards

FINDING, CLUSTER, VIEW, SPLIT, OUTCOME = "Finding", "Main cluster", "View", "Split", "Right or wrong"
PARTS = {"filter": "Filter", "area": "Place in the image"}
ALONE = "Nothing"
NEAREST = 6
CARDS = 24  # pictures shown at first, and more at each click
GROUP = {LabelState.POSITIVE: "present", LabelState.UNCERTAIN: "uncertain"}
VIEWS = ("PA", "AP", "FRONTAL", "LATERAL", "another view")
CLUSTER_ORDER = [*(name for name in CLUSTERS if name != NO_FINDING), "Several", NO_FINDING]

SHOWN, HOVERED, HOVER = "cards_shown", "hovered", "hover_pictures"
ROUND = "map_round"  # counts choices; in each figure, so that the browser forgets an older choice of its own


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
            return services.main_cluster(study)
        if self.by == VIEW:
            return study.view if study.view in VIEWS else VIEWS[-1]
        if self.by == SPLIT:
            return study.split
        if self.by == OUTCOME:
            return self.outcomes.get(study.study_id, "not evaluated")
        return GROUP.get(study.labels[self.finding], "not present")


def own_key(name: str, point: str) -> str:
    """Key of a widget that exists for maps of studies and for maps of their parts: the choices differ."""
    return name if point == "study" else f"{name}_{point}s"


def choose_colouring(point: str) -> Colouring:
    """Controls of colour and symbol."""
    choices = [FINDING, CLUSTER, *([PARTS[point]] if point in PARTS else []), OUTCOME, VIEW, SPLIT]
    by = st.selectbox(
        "Colour and symbol",
        choices,
        index=choices.index(PARTS.get(point, FINDING)),
        key=own_key(session.MAP_COLOUR_BY, point),
        bind="query-params",
        width=170,
    )
    finding = OBSERVATIONS[0]
    if by in (FINDING, OUTCOME):
        finding = st.selectbox(
            "Observation",
            list(OBSERVATIONS),
            index=OBSERVATIONS.index("Pleural Effusion"),
            key=session.MAP_FINDING,
            bind="query-params",
            width=220,
        )
    pair, outcomes = "", {}
    cards = services.cards()
    if by == OUTCOME and cards:
        names = [pair_title(*pair) for pair in cards]
        pair = st.selectbox("Pair", names, key=session.MAP_PAIR, bind="query-params", width=220)
        try:
            known = evaluation.pair_outcomes(list(cards.values())[names.index(pair)].name)
        except CXRLensError as error:
            st.info(str(error))
        else:
            outcomes = {
                study_id: found[finding].value if finding in found else "neither says it"
                for study_id, found in known.items()
            }
    orders: dict[str, Sequence[str]] = {
        PARTS["filter"]: CLUSTERS,
        PARTS["area"]: services.AREAS,
        CLUSTER: CLUSTER_ORDER,
        SPLIT: SPLITS,
        VIEW: VIEWS,
        OUTCOME: ("found", "missed", "invented", "opposite", "neither says it", "not evaluated"),
    }
    return Colouring(by, finding, pair, outcomes, orders.get(by, ("present", "uncertain", "not present")))


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
            title = "Perplexity: about how many neighbours a point minds"
            perplexity = st.slider(title, 5, 100, perplexity, 5, key=session.MAP_PERPLEXITY, bind="query-params")
        elif method == "UMAP":
            neighbours = st.slider("Neighbours", 2, 200, neighbours, key=session.MAP_NEIGHBOURS, bind="query-params")
            title = "Smallest distance of points"
            distance = st.slider(title, 0.0, 1.0, distance, 0.05, key=session.MAP_DISTANCE, bind="query-params")
        st.segmented_control(
            "Picture that the map's camera button saves",
            ["svg", "png"],
            default="svg",
            required=True,
            key=session.MAP_PICTURE,
            bind="query-params",
        )
        st.caption("Seed 0. Each map is computed once, then read from disk.")
    return ProjectionConfig(
        method=method,
        dimensions=int(dimensions),
        perplexity=float(perplexity),
        neighbours=neighbours,
        min_distance=distance,
    )


def choose_second(encoder: str, kind: str) -> tuple[str, str] | None:
    """Which map stands beside the first; the control beside CCVE's filters, unless told otherwise."""
    point = services.point_is(encoder, kind)
    found: dict[str, tuple[str, str]] = {}
    for other in ENCODERS:
        try:
            kinds = services.embedding_kinds(other)
        except CXRLensError:
            continue  # the map of this encoder says why
        for name, title in kinds.items():
            if services.point_is(other, name) == point and (other, name) != (encoder, kind):
                found[f"{ENCODERS[other].title}: {title}"] = (other, name)
    choices = [ALONE, *found]
    control = next((title for title, (_, name) in found.items() if name == services.RANDOM), ALONE)
    chosen = st.selectbox(
        "Beside it",
        choices,
        index=choices.index(control if (point, kind) == ("filter", services.TOKENS) else ALONE),
        key=own_key(session.MAP_SECOND, point),
        bind="query-params",
        width=230,
    )
    return found.get(chosen)


def pick(chart: str) -> None:
    """Callback: what was chosen on a chart; one point also opens its study."""
    state = st.session_state
    ids: dict[str, None] = {}
    for point in state[chart]["selection"]["points"]:
        data = point.get("customdata")
        if data:
            ids[data if isinstance(data, str) else data[0]] = None
    # A chart that is drawn anew reports an empty choice; only the chart the choice was made on can take it back.
    if not ids and state[session.PICKED_ON] != chart:
        return
    if len(ids) == 1:
        # Its study opens, so the cross moves and the chart is drawn anew: no chart may take this choice back.
        choose(tuple(ids))
        session.open_study(next(iter(ids)))
    else:
        choose(tuple(ids), chart)


def choose(ids: Sequence[str], chart: str = "") -> None:
    """Make a choice of studies that all charts and the table follow."""
    state = st.session_state
    state[session.PICKED], state[session.PICKED_ON] = tuple(ids), chart
    state[ROUND] = state.get(ROUND, 0) + 1
    state[SHOWN] = CARDS


def choose_group(groups: dict[str, list[str]]) -> None:
    """Callback of the keyboard's way to choose: all studies of a group."""
    choose(list(dict.fromkeys(groups.get(st.session_state["group"], ()))))


def constant_choice(chart: str, signature: object) -> tuple[tuple[str, ...], int]:
    """The choice that is drawn into a chart's figure, and its round.

    A chart loses its selection as soon as its figure changes. So the figure of the chart on which a choice is made
    stays as it is; the other one is drawn anew with it, and so are both after any other change.
    """
    state, name = st.session_state, f"baked_{chart}"
    before = state.get(name)
    if before is None or before[0] != signature or state[session.PICKED_ON] != chart:
        state[name] = before = (signature, state[session.PICKED], state.get(ROUND, 0))
    return before[1], before[2]


@st.fragment(run_every=1.0)
def show_progress(job: ProjectionJob | None, chart: str) -> None:
    """A map that is being computed; the page goes on when it is there."""
    if job is None:
        st.info("Other maps are being computed. This one is next.", icon=":material/hourglass:")
        if not services.busy():
            st.rerun()
        return
    share, what = job.progress()
    st.progress(share, text=f"{what} …")
    st.button("Cancel", icon=":material/close:", key=f"cancel_{chart}", on_click=job.cancel)
    if job.done():
        st.rerun()


def describe(study: Study) -> str:
    """Findings in one line."""
    return ", ".join(findings(study.labels)) or NO_FINDING


def open_points(
    stored: services.Embeddings, placed: Projection, config: ProjectionConfig, case: services.Case | None
) -> tuple[npt.NDArray[np.float32] | None, str]:
    """Where the open study lies on a map, (m, 2 or 3), or None and why."""
    if case is None:
        return None, ""
    rows = [place for place, study_id in enumerate(stored.study_ids) if study_id == case.title]
    if rows:
        return placed.coordinates[rows], ""
    if stored.kind != services.POOLED:
        return None, f"{case.title} is not among the stored studies; only maps of averaged tokens can place it."
    try:
        found = services.place_case(stored, config, case)
    except CXRLensError as error:
        return None, str(error)
    if isinstance(found, Projection):
        return found.coordinates, ""
    show_progress(found, f"place_{stored.encoder}")
    return None, f"{case.title} is being placed."


def show_map(
    chart: str,
    source: tuple[str, str],
    config: ProjectionConfig,
    colouring: Colouring,
    case: services.Case | None,
    *,
    title: bool,
) -> dict[str, list[str]]:
    """Draw one map with its quality; returns its studies by group."""
    encoder, kind = source
    try:
        if title:
            st.markdown(f"**{ENCODERS[encoder].title}: {services.embedding_kinds(encoder)[kind]}**")
        stored = services.embeddings(encoder, kind)
    except CXRLensError as error:
        st.info(str(error), icon=":material/info:")
        return {}
    try:
        placed = services.projection(stored, config)
    except CXRLensError as error:
        st.info(str(error), icon=":material/info:")
        if services.failed(stored, config):
            st.button("Compute again", key=f"again_{chart}", on_click=services.forget_jobs)
        return {}
    if not isinstance(placed, Projection):
        show_progress(placed, chart)
        return {}
    studies = services.studies()
    rows = [place for place, study_id in enumerate(stored.study_ids) if study_id in studies]
    strange, total = len(set(stored.study_ids).difference(services.all_studies())), len(set(stored.study_ids))
    if not rows and not strange:
        st.info("You read all these studies in review sessions that are open.", icon=":material/visibility_off:")
        return {}
    if not rows:
        st.info(
            f"None of the {total} stored studies is among the test studies of these bundles: the stored embeddings of "
            f"{ENCODERS[encoder].title} are of other data. {services.EXPORT}",
            icon=":material/info:",
        )
        return {}
    ids = [stored.study_ids[row] for row in rows]
    parts = [stored.parts[row] if stored.parts else "" for row in rows]
    groups = [colouring.group(studies[each], part) for each, part in zip(ids, parts, strict=True)]
    texts = {each: f"<b>{each}</b><br>{describe(studies[each])}" for each in set(ids)}
    here, reason = open_points(stored, placed, config, case)
    shares = placed.parameters.get("shares")
    axes = [
        f"PC {n + 1} ({shares[n]:.0%} of variance)" if shares and n < len(shares) else f"{placed.method} {n + 1}"
        for n in range(config.dimensions)
    ]
    signature = (
        source,
        config,
        colouring.by,
        colouring.finding,
        colouring.pair,
        case.key if case else "",
        here is None,
    )
    chosen, turn = constant_choice(chart, signature)
    figure = figures.scatter_map(
        placed.coordinates[rows],
        ids,
        [f"{texts[each]}<br>{part}" if part else texts[each] for each, part in zip(ids, parts, strict=True)],
        groups,
        order=colouring.order,
        axes=axes,
        picked=chosen,
        here=here,
        here_name=case.title if case else "",
        joined=services.point_is(encoder, kind) == "filter",
        height=560,
    )
    figure.update_layout(meta=turn)
    st.plotly_chart(
        figure,
        key=chart,
        on_select=lambda: pick(chart),
        selection_mode=("points", "box", "lasso"),
        config={
            "displaylogo": False,
            "scrollZoom": True,
            "displayModeBar": True,
            "toImageButtonOptions": {
                "format": st.session_state[session.MAP_PICTURE],
                "filename": f"{encoder}-{kind}-{config.method}".lower(),
            },
        },
        alt=f"{config.method} map of {len(ids)} points of {ENCODERS[encoder].title}; the table below says the same",
    )
    notes = [*placed.parameters.get("notes", ())]
    if strange:
        notes.append(
            f"{strange} of its {total} studies are not shown: they are not among the test studies of these bundles, so "
            "these embeddings are of other data."
        )
    for note in [*notes, *([reason] if reason else [])]:
        st.caption(f":material/info: {note}")
    show_quality(stored, placed, colouring)

    def as_csv() -> bytes:  # only when it is saved: 20,000 points take a moment
        content = {
            "study": ids,
            "part": parts,
            **{axis: placed.coordinates[rows, n] for n, axis in enumerate("xyz"[: config.dimensions])},
            "group": groups,
            "view": [studies[each].view for each in ids],
            "split": [studies[each].split for each in ids],
            "findings": [describe(studies[each]) for each in ids],
        }
        return pd.DataFrame(content).to_csv(index=False).encode()

    st.download_button(
        "Map as CSV",
        as_csv,
        file_name=f"{encoder}-{kind}-{config.method}.csv".lower(),
        mime="text/csv",
        icon=":material/download:",
        key=f"csv_{chart}",
        on_click="ignore",
    )
    found: dict[str, list[str]] = {}
    for each, group in zip(ids, groups, strict=True):
        found.setdefault(group, []).append(each)
    return {name: found[name] for name in colouring.order if name in found}


def show_difference(first: tuple[str, str], second: tuple[str, str]) -> None:
    """Say so where two maps are not of the same studies."""
    try:
        one, other = (set(services.embeddings(*each).study_ids) for each in (first, second))
    except CXRLensError:
        return  # the map says why
    if one != other:
        st.caption(
            f":material/info: The maps are of different studies: {len(one)} and {len(other)}, {len(one & other)} of "
            "them on both. Only these are seen on both when they are chosen; numbers under them cannot be compared."
        )


@st.fragment
def show_hovered() -> None:
    """The radiograph of the point under the pointer."""
    wanted = [each for each in [st.session_state.get(HOVERED)] if each in services.studies()]
    hover_pictures(dict(zip(wanted, services.thumbnails(wanted), strict=True)), key=HOVER, on_ask=hear_hover)


def hear_hover() -> None:
    """Callback: the browser wants the picture of a study."""
    st.session_state[HOVERED] = st.session_state[HOVER]["ask"]


def show_quality(stored: services.Embeddings, placed: Projection, colouring: Colouring) -> None:
    """How far the map can be trusted, in words with their numbers."""
    measured = services.map_quality(stored, placed)
    lines = []
    trust = placed.parameters.get("trustworthiness")
    if trust is not None:
        verdict = (
            "near on the map is near to the encoder"
            if trust >= 0.95
            else "near on the map is mostly near to the encoder"
            if trust >= 0.85
            else "many neighbours on the map are not neighbours to the encoder"
        )
        lines.append(f"Trustworthiness **{trust:.2f}** of 1: {verdict}.")
    hits = {name: (count, hit, share) for name, count, hit, share in measured.by_observation}
    if colouring.by in (FINDING, OUTCOME) and colouring.finding in hits:
        count, hit, share = hits[colouring.finding]
        lines.append(
            f"{colouring.finding}: of the ten neighbours of its {count} studies, **{hit:.0%}** have it too; "
            f"without any order it would be {share:.0%}."
        )
    if measured.on_map is not None and measured.before is not None:
        point = services.point_is(stored.encoder, stored.kind)
        what = {"study": "main cluster", "filter": "filter", "area": "place in the image"}[point]
        what = "untrained filters" if stored.kind == services.RANDOM else what
        lines.append(
            f"Silhouette by {what} **{measured.on_map:.2f}** on the map, **{measured.before:.2f}** in the embedding "
            "(1 apart, 0 mixed)."
        )
    st.markdown("  \n".join(lines))
    if hits:
        with st.expander("Neighbourhoods by observation"):
            table = pd.DataFrame(
                [
                    {"Observation": name, "Studies": count, "Neighbours with it": hit, "Without order": share}
                    for name, (count, hit, share) in hits.items()
                ]
            )
            st.dataframe(
                table.style.format({"Neighbours with it": "{:.0%}", "Without order": "{:.0%}"}),
                hide_index=True,
                height="content",
                alt="Neighbourhood hit by observation",
            )


def show_picked(colouring: Colouring, groups: dict[str, list[str]]) -> None:
    """The chosen studies as a table and as pictures."""
    studies = services.studies()
    picked = [each for each in st.session_state[session.PICKED] if each in studies]
    st.subheader(f"Chosen studies: {len(picked)}" if picked else "Chosen studies")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Choose a whole group",
            list(groups),
            index=None,
            placeholder="A group of the legend",
            key="group",
            on_change=choose_group,
            args=(groups,),
            width=260,
        )
        st.button("Clear", icon=":material/close:", key="clear", on_click=choose, args=((),), disabled=not picked)
    strange = len(set(st.session_state[session.PICKED]).difference(services.all_studies()))
    if strange:
        st.warning(f"{strange} of the studies in the address are not among the test studies.")
    if len(picked) > session.MOST_PICKED:
        st.caption(f"More than {session.MOST_PICKED:,} studies: this choice is not in the address.")
    if not picked:
        st.caption("Draw a lasso or a box around points of a map, or choose a group; with the pan tool, click a point.")
        return
    rows = [
        {
            "Read": f"./?study={each}",
            "Study": each,
            "Findings": describe(studies[each]),
            "Main cluster": services.main_cluster(studies[each]),
            "View": studies[each].view,
            "Split": studies[each].split,
        }
        | ({f"{colouring.pair}: {colouring.finding}": colouring.outcomes.get(each, "–")} if colouring.outcomes else {})
        for each in picked
    ]

    def open_row() -> None:
        chosen = st.session_state["picked_table"]["selection"]["rows"]
        if chosen:
            session.open_study(picked[chosen[0]])

    st.dataframe(
        pd.DataFrame(rows),
        key="picked_table",
        hide_index=True,
        height=min(38 + 35 * len(rows), 300),
        on_select=open_row,
        selection_mode="single-row",
        column_config={
            "Read": st.column_config.LinkColumn("Read", display_text="Open", width=60, help="Opens the Read page")
        },
        alt="The chosen studies",
    )
    shown = picked[: st.session_state.get(SHOWN, CARDS)]
    pictures = services.thumbnails(shown)
    study_cards(
        [StudyCard(each, picture, "", describe(studies[each])) for each, picture in zip(shown, pictures, strict=True)]
    )
    if len(shown) < len(picked):
        st.button(f"Show more of {len(picked)}", key="more", on_click=show_more)


def show_more() -> None:
    """Callback: more pictures."""
    st.session_state[SHOWN] = st.session_state.get(SHOWN, CARDS) + CARDS


def show_neighbours(source: tuple[str, str], case: services.Case) -> None:
    """The studies nearest to the open one in the embedding itself, with their reports."""
    studies = services.studies()
    encoder, kind = source
    st.subheader(f"Nearest to {case.title}")
    try:
        stored = services.embeddings(encoder, kind)
        found = services.neighbours(stored, case.title, NEAREST)
        if not found and kind == services.POOLED:
            found = services.neighbours_of_case(stored, case, NEAREST)
    except CXRLensError as error:
        st.info(str(error), icon=":material/info:")
        return
    found = [(each, distance) for each, distance in found if each in studies]
    if not found:
        st.caption(f"{case.title} is not among the stored studies.")
        return
    of = "the means of their points" if stored.parts else "the embedding itself, not the map"
    st.caption(f"By {ENCODERS[encoder].title}, in {of}. The open study: {describe(case.study) if case.study else '–'}.")
    pictures = services.thumbnails([each for each, _ in found])
    study_cards(
        [
            StudyCard(each, picture, f"distance {distance:.2f}", describe(studies[each]), studies[each].findings)
            for (each, distance), picture in zip(found, pictures, strict=True)
        ]
    )


case = picker.choose_case()
st.subheader("The test studies as an encoder sees them")
there = services.encoders_with_embeddings()
with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
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
    kinds = services.embedding_kinds(encoder)
    kind = services.POOLED
    if len(kinds) > 1:
        kind = st.selectbox(
            "Points",
            list(kinds),
            format_func=kinds.__getitem__,
            key=f"points_{encoder}",
            bind="query-params",
            width=230,
        )
    config = choose_config()
    colouring = choose_colouring(services.point_is(encoder, kind))
    second = choose_second(encoder, kind)
if token_names(encoder) and services.TOKENS not in kinds:
    st.info(
        "CCVE's 13 points of each study and the control with untrained filters are not stored in these bundles. "
        "`cxr-lens train --preset phantom` writes them.",
        icon=":material/info:",
    )

mixed = services.mixed_data()
if mixed:
    st.warning(mixed, icon=":material/warning:")
session.write_picked()
first = (encoder, kind)
if second is None:
    groups = show_map("map_1", first, config, colouring, case, title=False)
else:
    left, right = st.columns(2, gap="medium")
    with left:
        groups = show_map("map_1", first, config, colouring, case, title=True)
    with right:
        show_map("map_2", second, config, colouring, case, title=True)
    show_difference(first, second)
if services.point_is(encoder, kind) == "filter":
    st.markdown(
        "Thirteen different filters move an image in thirteen ways, so their points fall into **thirteen clusters "
        "even without training**. Clusters by filter mean something only as far as they differ from the control "
        "with untrained filters. The line joins the 13 points of the open study."
    )
with st.expander("How to read this"):
    st.markdown(
        "Each point is a study (or a study through one filter of CCVE). Points that lie together look alike **to this "
        "encoder**; that need not mean the same findings: the numbers under the map say how far it does. "
        "PCA's axes show the largest differences, and distances mean something. In t-SNE and UMAP only "
        "neighbourhoods mean something: sizes of groups and gaps between them do not.  \n"
        "**Choose** with the lasso or the box of the map's toolbar, or with its pan tool click a point, which also "
        "opens its study; double-click takes the choice back. By keyboard: *Choose a whole group*, then the table. "
        "A 3-D map turns, but has no lasso."
    )
show_picked(colouring, groups)
if case is not None:
    show_neighbours(first, case)
show_hovered()
