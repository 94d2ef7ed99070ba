"""Read: one radiograph, its reference report and the generated reports side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from core.bundles.card import Card
from core.observations import CLUSTERS, NO_FINDING, OBSERVATIONS, LabelState, findings
from core.registry import DECODERS, ENCODERS, table_order
from core.systems.system import Ability, System
from core.types import CXRLensError
from core.views import view_in_words
from core.wording import counted
from dashboard import session
from dashboard.components import picker
from dashboard.components.asked import tell_unknown
from dashboard.components.filter_pictures import GREY_SCALE
from dashboard.components.report import card, outside_card, overview, reference_card, report_cards
from dashboard.components.source_choice import show_credit
from dashboard.components.tiles import tiles
from dashboard.components.viewer import Overlay, Panel, heat_maps, viewer
from dashboard.plain import plain, plain_message
from dashboard.read import agreement
from dashboard.read.layout import ANSWER, FACTS, INTRODUCTION, lay_out
from dashboard.read.marks import Marked, mark, measure_some
from dashboard.read.others import (
    OutsideReading,
    choose_others,
    finding_asked,
    offer_writing,
    read_other,
    show_place,
    without_region,
)
from dashboard.read.questions import (
    Work,
    compute,
    cover_of,
    question_of,
    region_of,
    show_answer,
    show_region,
    write_without,
)
from dashboard.services import bundles, explanations, filters, reports, sources, studies, turns
from dashboard.services.explanations import Box
from dashboard.services.reports import Reading
from dashboard.services.studies import Case


def describe(case: Case) -> list[str]:
    """Sex, age and view, where known."""
    context = case.study.context
    sex = {"F": "woman", "M": "man"}.get(context.get("sex", ""), context.get("sex", ""))
    age = f"{context['age']} years" if context.get("age") else ""
    return [part for part in (sex, age, view_in_words(case.view) or "view not known") if part]


def measures(spacing: tuple[float, float] | None) -> str:
    """What the ruler measures on an image of a file."""
    if spacing is None:
        return "The file does not say how large a pixel is: the ruler counts pixels."
    row, column = spacing
    size = f"{row:.3g} mm" if row == column else f"{row:.3g} x {column:.3g} mm"
    return (
        f"The ruler measures in millimetres (the file gives {size} per pixel). Unless the image was calibrated, these "
        "are millimetres on the detector, where the chest appears about 5 % larger than it is."
    )


def choose_image(case: Case) -> str:
    """Which image of the study is looked at; "" for the one that the models read."""
    known = studies.images(case)
    if len(known) < 2:
        return ""
    read = next((each for each in known if each.read), known[0])
    titles = {each.image_id: each.title for each in known}
    for number, each in enumerate(known, start=1):
        if list(titles.values()).count(each.title) > 1:
            titles[each.image_id] = f"{each.title} ({number})"
    titles[read.image_id] += ", read by the models"
    chosen = st.segmented_control(
        "Image",
        list(titles),
        default=read.image_id,
        required=True,
        format_func=lambda name: plain(titles[name]),
        key=f"image {case.key}",
        label_visibility="collapsed",
    )
    return "" if chosen == read.image_id else chosen


def show_image(case: Case) -> None:
    """The viewer and what is known of the study."""
    source, context = sources.source(case.source), case.study.context
    facts = [f"**{plain(case.title)}**", *map(plain, describe(case))]
    told = [
        f"**{name.capitalize()}** {plain(context[name])}" for name in ("indication", "comparison") if context.get(name)
    ]
    with st.container(key=FACTS):
        st.markdown(" · ".join(facts) + ("  \n" + " ".join(told) if told else ""))
    other, spacing = choose_image(case), case.spacing
    if other:
        try:
            film = studies.other_image(case, other)
        except CXRLensError as error:
            st.error(plain_message(error), icon=":material/error:")
            return
        spacing = film.pixel_spacing
        viewer(film.pixels, study=f"{case.title} {other}", bits=film.bits, grey=film.grey, spacing=spacing)
        st.caption(":material/info: The models did not read this image. What they wrote is of the other one.")
    else:
        masks = case.masks.items()
        truth = [Overlay(label=name, group="True findings", kind="mask", values=mask) for name, mask in masks]
        viewer(
            case.pixels,
            study=case.title,
            bits=case.bits,
            grey=case.grey,
            overlays=truth,
            spacing=spacing,
            on_region=hear_region,
        )
        if truth:
            st.caption(f":material/shapes: True findings: {plain(source.truth)}.")
    if case.synthetic:
        st.caption(":material/info: A synthetic X-ray: computed, no patient.")
    else:
        st.caption(f":material/straighten: {measures(spacing)}")
    show_credit(source.credit)


def hear_question() -> None:
    """A word, sentence or finding was clicked in a report."""
    asked = st.session_state.reports.ask
    if asked:
        session.ask(asked["pair"], asked["kind"], asked["which"])


def hear_region() -> None:
    """A region was drawn in the viewer."""
    region = st.session_state.viewer.region
    if region:
        session.ask_region(region)


def choose_pairs(families: Sequence[str]) -> list[Card]:
    """The matrix of encoders and decoders; returns the models of families that are chosen and there.

    A model from elsewhere has no place in the matrix: it is chosen with its family.
    """
    found = [bundles.cards(family) for family in families]
    others = [card for cards in found for card in cards.values() if not card.trained_here]
    if all(map(bundles.elsewhere, families)):
        return others
    # Grouped by decoder, so that neighbours differ in the encoder alone: that is what the paper compares.
    there = [cards[pair] for cards in found for pair in table_order() if pair in cards and cards[pair].trained_here]
    own = {card.decoder for card in there}
    offered = [name for name, spec in DECODERS.items() if spec.compared or name in own]
    chosen: set[tuple[str, str]] = set()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("**Reports**", width="content")
        with st.popover("Choose models", icon=":material/grid_view:", width="content"):
            st.caption("Each row is an encoder (how the image is seen), each column a decoder (how text is written).")
            at_once = st.container(horizontal=True, gap="small")
            for encoder, spec in ENCODERS.items():
                decoders = st.segmented_control(
                    spec.title,
                    offered,
                    default=offered,
                    selection_mode="multi",
                    format_func=lambda name: DECODERS[name].title,
                    key=encoder,
                    bind="query-params",
                    help=spec.summary,
                )
                chosen |= {(encoder, name) for name in decoders}
            shown = [card for card in there if (card.encoder, card.decoder) in chosen]
            all_there = len(shown) == len(there)
            with at_once:
                st.button("All models", key="all", on_click=session.choose_all, args=(offered,), disabled=all_there)
                st.button(
                    "Same decoder, each encoder",
                    key="four",
                    on_click=session.choose_one_decoder,
                    help="Reports that differ only in how the image is encoded.",
                )
        st.caption(f"{len(shown)} of {counted(len(there), 'model', 'models')}", width="content")
    return shown + others


def choose_families(case: Case) -> list[str]:
    """What the models learned from, where there is a choice; several stand side by side, the fitting one first."""
    families = bundles.families()
    fitting = studies.family_for(case)
    if len(families) < 2:
        return [fitting]
    titles = {family: f"Models for {plain(bundles.family_title(family))}" for family in families}
    key = session.FAMILY if case.synthetic else session.REAL_FAMILY
    tell_unknown(key, "models", titles.values())
    chosen = st.segmented_control(
        "Models for",
        families,
        default=fitting,
        selection_mode="multi",
        format_func=titles.__getitem__,
        label_visibility="collapsed",  # the options say it, in one row less
        key=key,
        bind="query-params",
        width="content",
    )
    return sorted(chosen, key=lambda family: family != fitting) or [fitting]


def title_of(card: Card, families: Sequence[str]) -> str:
    """Of a pair; with its family, where several families stand side by side."""
    title = bundles.title_of(card)
    return title if len(families) < 2 else f"{title}, {bundles.family_title(card.family)}"


def describe_training(cards: Sequence[Card], case: Case) -> None:
    """Which data the models learned from, and a warning where that is not what is read."""
    for family in dict.fromkeys(each.family for each in cards):
        of_family = [each for each in cards if each.family == family]
        st.caption(f":material/model_training: {plain(bundles.training_of(of_family))}")
        if len(bundles.families()) > 1 and (unlike := studies.unlike(case, family)):
            st.warning(plain_message(unlike), icon=":material/warning:")
    untold = [each.fit_note for each in cards if each.fit_note]
    if untold:
        others = f" The same holds for {len(untold) - 1} more." if len(untold) > 1 else ""
        st.caption(f":material/info: {plain_message(untold[0])}{others}")


def table_of(case: Case, readings: Sequence[Reading | OutsideReading]) -> dict[str, Any]:
    """Who found what, for all shown systems at one glance."""
    cells: list[dict[str, str]] = []
    for reading in readings:
        if reading.outcomes is not None:
            cells.append({name: outcome.value for name, outcome in reading.outcomes.items()})
        else:
            states = reading.labels.states.items()
            cells.append({name: state.value for name, state in states if state is not LabelState.BLANK})
    several = len({each.card.family for each in readings if isinstance(each, Reading)}) > 1
    whose: Callable[[Card], str] = lambda of: f", {bundles.family_title(of.family)}" if several else ""  # noqa: E731
    named = {name for column in cells for name in column}
    if case.labels is None or findings(case.labels):
        named.discard(NO_FINDING)  # of interest where the reference is normal
    return overview(
        [name for name in OBSERVATIONS if name in named],
        [
            (each.system.group, each.system.title)
            if isinstance(each, OutsideReading)
            else agreement.heading(each.card, whose(each.card))
            for each in readings
        ],
        cells,
        case.labels,
    )


def show_reports(
    case: Case,
    chosen: Sequence[Card],
    others: Sequence[System],
    asked: Mapping[str, Any] | None,
    region: Box | None,
) -> tuple[list[Card], list[Card], Marked]:
    """Show the reference and the reports that are written.

    Returns:
        those that are not written yet, those of which it is not known yet how they depend on the region, and what is
        marked.
    """
    unknown = []
    known = reports.written(case, chosen)
    family = chosen[0].family if chosen else ""
    drawn = []
    families = list(dict.fromkeys(each.family for each in chosen))
    for each in agreement.best_first(family, chosen, lambda card: card.name):
        found = known.get(each.name)
        if isinstance(found, Reading):
            data = card(each.name, title_of(each, families), found.report, found.labels, found.outcomes)
            data["about"] = agreement.in_full(each)
            data["measured"] = agreement.measured_in_words(each.family, each.name)
            if region and found.report.words:
                changed = explanations.known_without(case, each, region, cover_of())
                if changed is None:
                    unknown.append(each)
                else:
                    data["without"] = explanations.for_card(changed)
            drawn.append(data)
        else:
            state = {"waiting": True} if found is None else {"error": found}
            drawn.append({"name": each.name, "title": title_of(each, families), **state})
    waiting = [each for each in chosen if each.name not in known]
    show_warnings([found for found in known.values() if isinstance(found, Reading)])
    readings: list[Reading | OutsideReading] = [found for found in known.values() if isinstance(found, Reading)]
    for system in others:
        other = read_other(case, system)
        if isinstance(other, OutsideReading):
            readings.append(other)
            note = "" if other.text else "It wrote nothing about this study."
            can_write = Ability.WRITE in system.abilities
            data = outside_card(
                system.name, system.title, other.text, other.labels, other.outcomes, note, asked=can_write
            )
            if region and (changed_text := without_region(case, system, region, cover_of())):
                data["without"] = changed_text
            drawn.append(data)
        elif other is not None:
            drawn.append({"name": system.name, "title": system.title, "error": other})
        else:
            offer_writing(case, system)
    finished = bool(readings) and not waiting
    marked = mark(case, readings) if finished else Marked()
    for data in drawn:
        data["reliable"] = list(marked.firsts.get(data["name"], ()))
    counted_votes = agreement.votes_counted(readings, case.source) if finished else None
    if finished and (told := agreement.in_words(readings, case.labels, counted_votes)):
        st.markdown(told)
    reference = None
    if case.study.findings.strip() or case.study.impression.strip():
        sections = (("Findings", case.study.findings), ("Impression", case.study.impression))
        reference = reference_card([(name, text, reports.label(text)) for name, text in sections])
    texts = [each.report.text if isinstance(each, Reading) else each.text for each in readings]
    texts += [case.study.findings, case.study.impression]
    for told in (reports.note_on_removed(texts), marked.told):
        if told:
            st.caption(told)
    report_cards(
        drawn,
        reference=reference,
        table=agreement.with_votes(table_of(case, readings), readings, counted_votes) if finished else None,
        folded=len(chosen) >= agreement.FOLDED_FROM,
        asked=asked,
        on_ask=hear_question,
    )
    return waiting, unknown, marked


def show_warnings(readings: Sequence[Reading]) -> None:
    """What must be read before the reports, once, with the models that say it where not all do."""
    said: dict[str, list[str]] = {}
    for reading in readings:
        for warning in reading.report.warnings[:1]:  # what was measured follows, on the model's own card
            said.setdefault(warning, []).append(bundles.title_of(reading.card))
    for warning, who in said.items():
        by = "" if len(who) == len(readings) else f" ({len(who)} of {len(readings)} models: {', '.join(who)})"
        st.warning(plain_message(warning + by), icon=":material/warning:")


def without_reference(case: Case) -> str:
    """What to say where there is no report to compare with; "" where there is one."""
    if case.reference is not None:
        return ""
    if case.labels is None:
        return "There is no radiologist's report to compare with. Marks show what each report claims; none is checked."
    known = ", ".join(findings(case.labels)) or NO_FINDING
    return f"There is no radiologist's report, but labels: {known}. Marks compare with them."


def write_some(case: Case, waiting: Sequence[Card]) -> None:
    """Write reports for a moment, then draw the page again with them: they appear as they are written."""
    names = {each.name for each in waiting}
    image, begun, writing, alone = st.session_state.get(session.WRITING, ("", set(), None, None))
    if image != case.key or not names <= begun:
        # Kept from run to run: begun anew, it would encode the image again.
        image, begun, writing, alone = case.key, names, reports.read(case, waiting), threading.Lock()
        st.session_state[session.WRITING] = image, begun, writing, alone
    if told := turns.told():
        st.caption(told)
    with alone:  # a run that a click has ended may still be at it
        end = time.monotonic() + turns.slice_of()
        for _ in writing:
            # Whoever asks the session lets a click, or what is typed, end this run: not a second later, after a report.
            if session.WRITING not in st.session_state or time.monotonic() > end:
                break
        else:
            st.session_state.pop(session.WRITING, None)
    st.rerun()


@st.fragment
def show_filters(case: Case, family: str) -> None:
    """What each filter of CCVE makes of the image; nothing of a model from elsewhere, which has none."""
    card = filters.first_pair(family)
    if card is None and bundles.elsewhere(family):
        return
    st.header("What CCVE's filters see")
    if card is None:
        st.info("There is no model here that looks through CCVE's filters.")
        return
    try:
        weights = reports.report_of(case, card).cls_attention
        images = filters.views(case, card).filtered
    except CXRLensError as error:
        st.error(plain_message(error), icon=":material/error:")
        return
    st.caption(
        f"The X-ray through each of the 13 learned filters. {GREY_SCALE} The number: how much of its attention "
        f"{plain(bundles.title_of(card))} gave to the filter before the first word (an even share is "
        f"{1 / len(CLUSTERS):.1%}). Attention is not proof of use: see the Filters page."
    )
    tiles(images, CLUSTERS, weights)


@st.fragment
def show_map(case: Case) -> None:
    """The map of the studies; drawn when it is opened, for it takes a third of the page's time."""
    place = st.expander(
        "Where this study lies among the others", key="where", bind="query-params", icon=":material/scatter_plot:"
    )
    if place.open:
        from dashboard.components.study_map import draw_map  # brings plotly

        with place:
            draw_map(case, height=360)


lay_out()
with st.container(key=INTRODUCTION):
    st.caption(
        f"CXR Lens writes draft reports of chest X-rays with {bundles.how_many() or 'several'} models, and shows how "
        "they differ from the radiologist's and what stands behind each word. Choose what to read:"
    )
case = picker.choose_case()
for name, message in bundles.problems().items():
    st.error(f"**{plain(name)}**: {plain_message(message)}", icon=":material/error:")

if case is not None:
    families = choose_families(case)
    cards = [card for family in families for card in bundles.cards(family).values()]
    session.ask_of(case.key)
    left, right = st.columns([5, 7], gap="medium")
    asked, region = question_of(cards), region_of()
    with left, st.container(key="rail", height="stretch"), st.container():
        head = st.container(key=ANSWER)
        show_image(case)  # the film stands while the reports are read
        region_progress = st.empty()
        below = st.container()
    with right:
        chosen = choose_pairs(families) if cards else []
        others = choose_others(case)
        asked_other = finding_asked(case, others)
        if cards:
            describe_training(chosen or cards, case)
        if told := without_reference(case):
            st.caption(plain_message(told))
        told_asked = None
        if asked:
            told_asked = {"pair": asked[0].name, "kind": asked[1].kind, "which": asked[1].which}
        elif asked_other:
            told_asked = {"pair": asked_other[0].name, "kind": "finding", "which": asked_other[1]}
        waiting, unknown, marked = show_reports(case, chosen, others, told_asked, region)
        if cards and not chosen and not others:
            st.info("No model is chosen. Choose models above, or all.")
    work: Work | None = None
    panels: list[Panel] = []
    with below:
        if region:
            show_region()
        if asked:
            work, panels = show_answer(case, *asked, chosen, head)
        elif asked_other:
            panels = show_place(case, *asked_other, head)
        heat_maps(panels, study=case.title, region=region, cover=cover_of())
    if cards:
        if not waiting:
            show_filters(case, families[0])
        show_map(case)
    # What is not known yet comes after all that is: the page is there, and shows the rest as it comes.
    if work and work.jobs:
        compute(case, work)
    if waiting:
        write_some(case, waiting)
    if region and unknown:
        write_without(case, unknown, region, region_progress)
    if marked.waiting:
        measure_some(case, marked.waiting)
