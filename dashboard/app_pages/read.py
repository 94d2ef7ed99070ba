"""Read: one radiograph, its reference report and the generated reports side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from core.bundle import Card
from core.labels.observations import CLUSTERS, NO_FINDING, OBSERVATIONS, LabelState
from core.registry import DECODERS, ENCODERS, PAIRS
from core.types import CXRLensError
from dashboard import picker, services, session
from dashboard.components.report import overview, reference_card, report_card
from dashboard.components.tiles import tiles
from dashboard.components.viewer import Overlay, viewer
from dashboard.study_map import draw_map

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
        st.markdown("**Generated reports**", width="content")
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


def show_reading(reading: services.Reading) -> None:
    """One report's card."""
    report, card = reading.report, reading.card
    note = "" if report.finished else "Cut at the length limit."
    report_card(
        services.title_of(card),
        report.text or "(The model wrote nothing.)",
        reading.labels,
        key=f"card-{card.name}",
        outcomes=reading.outcomes,
        note=note,
    )


def show_overview(case: services.Case, readings: Sequence[services.Reading]) -> None:
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
    overview(
        [name for name in OBSERVATIONS if name in named],
        [(DECODERS[r.card.decoder].title, ENCODERS[r.card.encoder].title) for r in readings],
        cells,
        reference=case.study.labels if case.study else None,
        key="overview",
    )


def write_reports(case: services.Case, chosen: Sequence[Card]) -> list[services.Reading]:
    """Write and show the chosen reports, each as soon as it is ready."""
    summary = st.empty()
    grid = st.grid(2, min_column_width=330, gap="small")
    places = {card.name: grid.empty() for card in chosen}
    for place in places.values():
        place.skeleton(height=150)
    summary.progress(0.0, text="Loading the models")
    readings: dict[str, services.Reading] = {}
    for done, (name, reading) in enumerate(services.read(case, chosen), start=1):
        with places[name].container():
            if isinstance(reading, str):
                st.error(reading, icon=":material/error:")
            else:
                readings[name] = reading
                show_reading(reading)
        if done < len(chosen):
            summary.progress(done / len(chosen), text=f"Writing reports: {done} of {len(chosen)}")
    ordered = [readings[card.name] for card in chosen if card.name in readings]
    with summary.container():
        show_overview(case, ordered)
    return ordered


def show_training_data(cards: Sequence[Card]) -> None:
    """Which data the bundles learned from."""
    data = {str(card.data.get("description") or card.data.get("name", "unknown data")) for card in cards}
    learned = "; ".join(sorted(data))
    numbers = {card.data.get("studies", {}).get("train") for card in cards}
    amount = f" ({numbers.pop():,} studies)" if len(numbers) == 1 and None not in numbers else ""
    st.caption(f":material/model_training: Trained on{amount}: {learned}")


@st.fragment
def show_filters(case: services.Case) -> None:
    """The first CCVE strip."""
    st.subheader("What CCVE's filters see")
    card = services.ccve_card()
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
    cards = services.cards()
    left, right = st.columns([5, 7], gap="medium")
    with left, st.container(key="rail", height="stretch"), st.container():
        show_image(case)
    with right:
        if case.study is not None:
            study = case.study
            reference_card(
                [
                    ("Findings", study.findings, services.label(study.findings)),
                    ("Impression", study.impression, services.label(study.impression)),
                ],
                key="reference",
            )
        else:
            st.caption("No reference report: findings are marked by what each report says, not by whether it is right.")
        if cards:
            chosen = choose_pairs(cards)
            show_training_data(chosen or list(cards.values()))
            if chosen:
                write_reports(case, chosen)
            else:
                st.info("No pair is chosen. Choose pairs above, or all twelve.")
    if cards:
        show_filters(case)
        show_map(case)
