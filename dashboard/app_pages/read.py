"""Read: one radiograph, its reference report and the generated reports side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.bundle import Card
from core.labels.observations import CLUSTERS, NO_FINDING, OBSERVATIONS, LabelState
from core.registry import DECODERS, ENCODERS, PAIRS
from core.types import CXRLensError
from dashboard import picker, services, session
from dashboard.components.report import card, overview, reference_card, reports
from dashboard.components.tiles import tiles
from dashboard.components.viewer import Overlay, viewer
from dashboard.study_map import draw_map

SLICE = 1.0  # seconds of writing between two drawings

# The image stays in sight while the reports beside it scroll; on a narrow screen it scrolls with them.
STICKY = """
<style>
@media (min-width: 1000px) {
  .st-key-rail > * { position: sticky; top: 4.2rem; }
}
</style>
"""


def describe(case: services.Case) -> list[str]:
    """Sex, age and view, where known."""
    if case.study is None:
        return ["uploaded image"]
    context = case.study.context
    sex = {"F": "woman", "M": "man"}.get(context.get("sex", ""), context.get("sex", ""))
    age = f"{context['age']} years" if context.get("age") else ""
    return [part for part in (sex, age, f"{case.study.view} view") if part]


def show_image(case: services.Case) -> None:
    """The viewer and what is known of the study."""
    context = case.study.context if case.study else {}
    facts = [f"**{case.title}**", *describe(case)]
    told = [f"**{name.capitalize()}** {context[name]}" for name in ("indication", "comparison") if context.get(name)]
    st.markdown(" · ".join(facts) + ("  \n" + " ".join(told) if told else ""))
    truth = [Overlay(label=name, group="True findings", kind="mask", values=mask) for name, mask in case.masks.items()]
    viewer(case.pixels, study=case.title, bits=case.bits, overlays=truth)
    for warning in case.warnings:
        st.warning(warning, icon=":material/warning:")


def choose_pairs(cards: Mapping[tuple[str, str], Card]) -> list[Card]:
    """The encoder x decoder matrix; returns the bundles that are chosen and there."""
    chosen: set[tuple[str, str]] = set()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("**Reports**", width="content")
        with st.popover("Choose pairs", icon=":material/grid_view:", width="content"):
            st.caption("Each row is an encoder (how the image is seen), each column a decoder (how text is written).")
            for encoder, spec in ENCODERS.items():
                decoders = st.segmented_control(
                    spec.title,
                    list(DECODERS),
                    default=list(DECODERS),
                    selection_mode="multi",
                    format_func=lambda name: DECODERS[name].title,
                    key=encoder,
                    bind="query-params",
                    help=spec.summary,
                )
                chosen |= {(encoder, name) for name in decoders}
        st.button("All twelve", key="all", on_click=session.choose_all, disabled=len(chosen) == len(PAIRS))
        st.button(
            "Four encoders",
            key="four",
            on_click=session.choose_one_decoder,
            help="One decoder with each encoder, to compare encoders.",
        )
        st.caption(f"{len(chosen)} of {len(PAIRS)} pairs", width="content")
    # Grouped by decoder, so that neighbours differ in the encoder alone: that is what the paper compares.
    order = [(encoder, decoder) for decoder in DECODERS for encoder in ENCODERS]
    return [cards[pair] for pair in order if pair in chosen and pair in cards]


def choose_family(case: services.Case) -> str:
    """What the models learned from, where there is a choice."""
    families = services.families()
    fitting = services.family_for(case)
    if len(families) < 2:
        return fitting
    chosen: str = st.segmented_control(
        "Trained on",
        families,
        default=fitting,
        required=True,
        format_func=services.family_title,
        # Phantoms and uploads have defaults of their own, and are remembered apart.
        key=session.FAMILY if case.study else session.UPLOAD_FAMILY,
        bind="query-params",
        width="content",
    )
    return chosen


def describe_training(cards: Sequence[Card], case: services.Case) -> None:
    """Which data the bundles learned from, and a warning where that is not what is read."""
    data = sorted({str(card.data.get("description") or card.data.get("name", "unknown data")) for card in cards})
    numbers = {card.data.get("studies", {}).get("train") for card in cards}
    amount = f" ({numbers.pop():,} studies)" if len(numbers) == 1 and None not in numbers else ""
    st.caption(f":material/model_training: Trained on{amount}: {'; '.join(data)}")
    synthetic = cards[0].family == services.PHANTOM
    if synthetic != (case.study is not None) and len(services.families()) > 1:
        real, computed = "real radiographs", "computed phantoms"
        learned, shown = (computed, real) if synthetic else (real, computed)
        st.warning(f"These models learned from {learned}; this is one of the {shown}.", icon=":material/warning:")


def table_of(case: services.Case, readings: Sequence[services.Reading]) -> dict[str, Any]:
    """Who found what, for all shown pairs at one glance."""
    cells: list[dict[str, str]] = []
    for reading in readings:
        if reading.outcomes is not None:
            cells.append({name: outcome.value for name, outcome in reading.outcomes.items()})
        else:
            states = reading.labels.states.items()
            cells.append({name: state.value for name, state in states if state is not LabelState.BLANK})
    named = {name for column in cells for name in column}
    if case.study is None or services.findings_of(case.study):
        named.discard(NO_FINDING)  # of interest where the reference is normal
    return overview(
        [name for name in OBSERVATIONS if name in named],
        [(DECODERS[r.card.decoder].title, ENCODERS[r.card.encoder].title) for r in readings],
        cells,
        case.study.labels if case.study else None,
    )


def show_reports(case: services.Case, chosen: Sequence[Card]) -> list[Card]:
    """Show the reference and the reports that are written; returns the cards of those that are not yet."""
    known = services.written(case, chosen)
    drawn = []
    for each in chosen:
        found = known.get(each.name)
        if isinstance(found, services.Reading):
            drawn.append(card(each.name, services.title_of(each), found.report, found.labels, found.outcomes))
        else:
            state = {"waiting": True} if found is None else {"error": found}
            drawn.append({"name": each.name, "title": services.title_of(each), **state})
    waiting = [each for each in chosen if each.name not in known]
    readings = [found for found in known.values() if isinstance(found, services.Reading)]
    reference = None
    if case.study is not None:
        sections = (("Findings", case.study.findings), ("Impression", case.study.impression))
        reference = reference_card([(name, text, services.label(text)) for name, text in sections])
    reports(drawn, reference=reference, table=table_of(case, readings) if readings and not waiting else None)
    return waiting


def write_some(case: services.Case, waiting: Sequence[Card]) -> None:
    """Write reports for a moment, then draw the page again with them: they appear as they are written."""
    end = time.monotonic() + SLICE
    for _ in services.read(case, sorted(waiting, key=lambda each: each.encoder)):
        if time.monotonic() > end:
            break
    st.rerun()


@st.fragment
def show_filters(case: services.Case, family: str) -> None:
    """The first CCVE strip."""
    st.subheader("What CCVE's filters see")
    card = services.ccve_card(family)
    if card is None:
        st.info("No bundle with the CCVE encoder can be read.")
        return
    try:
        weights = next(
            (item.report.cls_attention for _, item in services.read(case, [card]) if not isinstance(item, str)), None
        )
        images = services.filtered(case, card)
    except CXRLensError as error:
        st.error(str(error), icon=":material/error:")
        return
    st.caption(
        f"The radiograph through each of the 13 learned filters, and the share of {services.title_of(card)}'s "
        "CLS attention it got. Attention is not proof of use: see the Filters page."
    )
    tiles(images, CLUSTERS, weights)


@st.fragment
def show_map(case: services.Case) -> None:
    """The first embedding plot; drawn when it is opened, for it takes a third of the page's time."""
    place = st.expander(
        "Where this study lies among the others", key="where", bind="query-params", icon=":material/scatter_plot:"
    )
    if place.open:
        with place:
            draw_map(case, height=360)


st.html(STICKY)
case = picker.choose_case()
for name, message in services.problems().items():
    st.error(f"**{name}**: {message}", icon=":material/error:")

if case is not None:
    family = choose_family(case)
    cards = services.cards(family)
    waiting: list[Card] = []
    left, right = st.columns([5, 7], gap="medium")
    with left, st.container(key="rail", height="stretch"), st.container():
        show_image(case)
    with right:
        chosen = choose_pairs(cards) if cards else []
        if cards:
            describe_training(chosen or list(cards.values()), case)
        if case.study is None:
            st.caption("No reference report: findings are marked by what each report says, not by whether it is right.")
        waiting = show_reports(case, chosen)
        if cards and not chosen:
            st.info("No pair is chosen. Choose pairs above, or all twelve.")
    if cards:
        show_filters(case, family)
        show_map(case)
    if waiting:
        write_some(case, waiting)
