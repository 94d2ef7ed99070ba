"""In: points chosen on a map. Out: their studies as a table and pictures, and the studies nearest to the open one."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from core.observations import NO_FINDING, findings
from core.studies.source import Source
from core.types import CXRLensError, Study
from dashboard import session
from dashboard.components.hover_pictures import hover_pictures
from dashboard.components.study_cards import StudyCard, study_cards
from dashboard.maps.controls import CLUSTER, Colouring
from dashboard.plain import plain, plain_message
from dashboard.services import embeddings, sources, studies
from dashboard.services.embeddings import Embeddings
from dashboard.services.studies import Case

ANCHOR = "chosen-studies"
"""Of the heading above the table, for links on the page."""
NEAREST = 6
CARDS = 24  # pictures shown at first, and more at each click

SHOWN, HOVERED, HOVER = "cards_shown", "hovered", "hover_pictures"
ROUND = "map_round"  # counts choices; in each figure, so that the browser forgets an older choice of its own


def describe(study: Study, points: Embeddings) -> str:
    """Findings in one line; of a study of which none is known, what else is."""
    labels = embeddings.labels_of(points, study)
    if labels is not None:
        return ", ".join(findings(labels)) or NO_FINDING
    return ", ".join(sources.source(points.source or None).traits(study).values())


# --------------------------------------------------------------------------------------------------------- the choice


def pick(chart: str, source_name: str) -> None:
    """Callback: what was chosen on a chart of a source's studies; one point also opens its study."""
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
        session.open_study(next(iter(ids)), source_name)
        choose(tuple(ids))
    else:
        choose(tuple(ids), chart)


def choose(ids: Sequence[str], chart: str = "") -> None:
    """Make a choice of studies that all charts and the table follow."""
    state = st.session_state
    state[session.PICKED], state[session.PICKED_ON] = tuple(ids), chart
    state[ROUND] = state.get(ROUND, 0) + 1
    state[SHOWN] = CARDS


def _choose_group(groups: dict[str, list[str]]) -> None:
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


# ------------------------------------------------------------------------------------------------------ what it shows


def show_picked(points: Embeddings, colouring: Colouring, groups: dict[str, list[str]]) -> None:
    """The chosen studies as a table and as pictures."""
    name, source = points.source, sources.source(points.source)
    known = studies.visible_studies(name)
    picked = [each for each in st.session_state[session.PICKED] if each in known]
    st.header(f"Chosen studies: {len(picked)}" if picked else "Chosen studies", anchor=ANCHOR)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Choose a whole group",
            list(groups),
            index=None,
            placeholder="A group of the legend",
            key="group",
            on_change=_choose_group,
            args=(groups,),
            width=260,
        )
        st.button("Clear", icon=":material/close:", key="clear", on_click=choose, args=((),), disabled=not picked)
    strange = len(set(st.session_state[session.PICKED]).difference(known, studies.kept_back()))
    if strange:
        st.warning(
            f"{strange} of the studies in the address are not among those that are shown of {plain(source.title)}."
        )
    if len(picked) > session.MOST_PICKED:
        st.caption(f"More than {session.MOST_PICKED:,} studies: a copied link will not hold this choice.")
    if not picked:
        st.caption("Draw a lasso or a box around points of a map, or choose a group; with the pan tool, click a point.")
        return
    rows = [
        {"Read": f"./?{_address(each, name)}", "Study": each}
        | ({"Findings": describe(known[each], points)} if source.has_labels else {})
        | ({CLUSTER: studies.main_cluster(known[each])} if embeddings.labels_of(points, known[each]) else {})
        | source.traits(known[each])
        | {"Split": known[each].split}
        | ({f"{colouring.pair}: {colouring.finding}": colouring.outcomes.get(each, "–")} if colouring.outcomes else {})
        for each in picked
    ]

    def open_row() -> None:
        chosen = st.session_state["picked_table"]["selection"]["rows"]
        if chosen:
            session.open_study(picked[chosen[0]], name)

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
    pictures = studies.thumbnails(shown, name)
    study_cards(
        [
            StudyCard(each, picture, "", describe(known[each], points))
            for each, picture in zip(shown, pictures, strict=True)
        ],
        urlencode({session.SOURCE: name}),
        key="picked_cards",
    )
    show_credit(source)
    if len(shown) < len(picked):
        st.button(f"Show more of {len(picked)}", key="more", on_click=_show_more)


def _show_more() -> None:
    st.session_state[SHOWN] = st.session_state.get(SHOWN, CARDS) + CARDS


def show_neighbours(points: Embeddings, case: Case) -> None:
    """The studies nearest to the open one in the embedding itself, with their reports."""
    name, source = points.source, sources.source(points.source)
    st.header(f"Nearest to {plain(case.title)}")
    try:
        found = embeddings.neighbours(points, case.title, NEAREST) if case.source == name else []
        if not found and points.kind == embeddings.POOLED:
            found = embeddings.neighbours_of_case(points, case, NEAREST)
    except CXRLensError as error:
        st.info(plain_message(error), icon=":material/info:")
        return
    known = embeddings.visible(points)
    found = [(each, distance) for each, distance in found if each in known]
    if not found:
        st.caption(f"{plain(case.title)} is not among the stored studies.")
        return
    of = "their points averaged" if points.parts else "measured before they are put on the map"
    told = ", ".join(findings(case.labels)) or NO_FINDING if case.labels else "no reference report"
    st.caption(
        f"The studies of {source.title} most alike for {embeddings.title_of(points.encoder)}, {of}. "
        f"The open study: {told}."
    )
    pictures = studies.thumbnails([each for each, _ in found], name)
    study_cards(
        [
            StudyCard(each, picture, f"distance {distance:.2f}", describe(known[each], points), _report(known[each]))
            for (each, distance), picture in zip(found, pictures, strict=True)
        ],
        urlencode({session.SOURCE: name}),
        key="nearest_cards",
    )
    show_credit(source)


def _report(study: Study) -> str:
    """What the reference report says: its findings, or else its impression."""
    return study.findings or study.impression


def _address(study_id: str, source_name: str) -> str:
    return urlencode({session.SOURCE: source_name, session.STUDY: study_id})


def show_credit(source: Source) -> None:
    """What must stand beside a source's images."""
    if source.credit:
        st.caption(plain(source.credit))


@st.fragment
def show_hovered(points: Embeddings) -> None:
    """The radiograph of the point under the pointer."""
    key = f"{HOVER}_{points.source}"  # the browser keeps pictures by id: those of another source are other pictures
    wanted = [each for each in [st.session_state.get(HOVERED)] if each in embeddings.visible(points)]
    pictures = zip(wanted, studies.thumbnails(wanted, points.source), strict=True)
    shown = {name: picture for name, picture in pictures if picture is not None}
    hover_pictures(shown, key=key, on_ask=lambda: _hear_hover(key))


def _hear_hover(key: str) -> None:
    st.session_state[HOVERED] = st.session_state[key]["ask"]
