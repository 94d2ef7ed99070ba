"""Read: one radiograph, its reference report and the generated reports side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.bundles.card import Card
from core.observations import CLUSTERS, NO_FINDING, OBSERVATIONS, LabelState, findings
from core.registry import DECODERS, ENCODERS, all_pairs, table_order, token_names
from core.types import Attribution, CXRLensError
from core.views import view_in_words
from dashboard import explaining, filtering, picker, services, session
from dashboard.components.filter_bars import filter_bars
from dashboard.components.report import card, overview, reference_card, reports
from dashboard.components.tiles import tiles
from dashboard.components.viewer import Overlay, Panel, heat_maps, viewer
from dashboard.explaining import Question
from dashboard.study_map import draw_map

SLICE = 1.0  # seconds of writing between two drawings

METHODS, PAIRED = "methods", "pairs"
COMPARED = ("attention", "grad-cam", "integrated-gradients", "occlusion")
MOST_PANELS = 6
MUCH_PADDING = 0.1

# The image stays in sight while the reports beside it scroll; on a narrow screen it scrolls with them.
STICKY = """
<style>
@media (min-width: 1000px) {
  .st-key-rail > * { position: sticky; top: 4.2rem; max-height: calc(100vh - 6.2rem); overflow-y: auto; }
}
</style>
"""


def describe(case: services.Case) -> list[str]:
    """Sex, age and view, where known."""
    view = view_in_words(case.view)
    if case.study is None:
        return ["uploaded image", view or "the file does not tell the view"]
    context = case.study.context
    sex = {"F": "woman", "M": "man"}.get(context.get("sex", ""), context.get("sex", ""))
    age = f"{context['age']} years" if context.get("age") else ""
    return [part for part in (sex, age, view) if part]


def measures(case: services.Case) -> str:
    """What the ruler measures, where the image is of a file."""
    if case.study is not None:
        return ""
    if case.spacing is None:
        return "The file does not tell how large a pixel is: the ruler counts pixels."
    row, column = case.spacing
    size = f"{row:.3g} mm" if row == column else f"{row:.3g} x {column:.3g} mm"
    return (
        f"The ruler measures in millimetres; the file says {size} a pixel. Unless the image was calibrated, these are "
        "millimetres on the detector, where the chest appears about 5 % larger than it is."
    )


def show_image(case: services.Case) -> None:
    """The viewer and what is known of the study."""
    context = case.study.context if case.study else {}
    facts = [f"**{case.title}**", *describe(case)]
    told = [f"**{name.capitalize()}** {context[name]}" for name in ("indication", "comparison") if context.get(name)]
    st.markdown(" · ".join(facts) + ("  \n" + " ".join(told) if told else ""))
    truth = [Overlay(label=name, group="True findings", kind="mask", values=mask) for name, mask in case.masks.items()]
    viewer(case.pixels, study=case.title, bits=case.bits, overlays=truth, spacing=case.spacing, on_region=hear_region)
    if measures(case):
        st.caption(f":material/straighten: {measures(case)}")


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


def question_of(cards: Mapping[tuple[str, str], Card]) -> tuple[Card, Question] | None:
    """What the address asks about; a message where there is no such pair."""
    name = st.query_params.get(session.ASKED)
    kind = next((each for each in session.QUESTIONS if each in st.query_params), None)
    if not name or not kind:
        return None
    card = next((card for card in cards.values() if card.name == name), None)
    if card is None:
        st.warning(f"The address asks about '{name}', which is not among these bundles.", icon=":material/info:")
        return None
    which: int | str = st.query_params[kind]
    if kind == "mention":
        return card, Question("finding", which)
    if str(which).isdecimal():
        which = int(which) - 1
    return card, Question("sentence" if kind == "sentence" else "word", which)


def region_of() -> explaining.Box | None:
    """The region in the address; a message where it is none."""
    text = st.query_params.get(session.REGION)
    if not text:
        return None
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        st.warning(f"The address has a region '{text}'; it needs four numbers, as 0.2,0.5,0.4,0.8.")
        return None
    return left, top, right, bottom


@dataclass
class Work:
    """What is asked and not known yet, and where its progress is shown."""

    place: DeltaGenerator
    jobs: list[tuple[Card, Question, str]]


def show_answer(
    case: services.Case, card: Card, question: Question, chosen: Sequence[Card]
) -> tuple[Work, list[Panel]]:
    """Where words come from: method, meaning, trust; returns what is still to be computed, and maps for the viewer."""
    work = Work(st.empty(), [])
    try:
        words = explaining.words_of(case, card, question)
        options = explaining.choices(case, card, question)
    except CXRLensError as error:
        st.error(str(error), icon=":material/error:")
        st.button("Close", on_click=session.close_question, key="close")
        return work, []
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"Where **{words}** comes from · {services.title_of(card)}", width="stretch")
        st.button("Close", on_click=session.close_question, key="close", icon=":material/close:")
    titles = {option.title: key for key, option in options.items()}  # what the address shows
    if st.session_state.get(session.HOW, st.query_params.get(session.HOW)) not in titles:  # another encoder's method
        st.session_state[session.HOW] = next(iter(titles))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        how = titles[st.selectbox("Method", list(titles), key=session.HOW, bind="query-params", width=230)]
        compare = st.segmented_control(
            "Side by side", [METHODS, PAIRED], key=session.COMPARE, bind="query-params", width="content"
        )
    st.caption(options[how].about)
    try:
        st.caption(f":material/verified: {explaining.trust(card, how, question)}")
    except CXRLensError as error:
        st.warning(str(error))
    asked = [(card, question, how, options[how])]
    if compare == METHODS:
        asked += [
            (card, question, key, option)
            for key, option in options.items()
            if key != how and key in COMPARED and (not token_names(card.encoder) or not option.quick)
        ]
    elif compare == PAIRED:
        asked += other_pairs(case, card, question, how, words, chosen)
    panels = []
    for each, about, key, option in asked:
        try:
            found = explaining.known(case, each, about, key)
            if found is None and option.quick:
                found = explaining.answer(case, each, about, key)
        except CXRLensError as error:
            st.error(str(error), icon=":material/error:")
            continue
        if found is None:
            work.jobs.append((each, about, key))
            continue
        drawn = explaining.heat_map(found)
        if drawn is None:
            show_filter_values(case, each, question, found)
        elif not drawn.values.any():
            st.info(
                f"{option.title} of {services.title_of(each)} is empty: nothing in the image counts for these words."
            )
        else:
            label = services.title_of(each) if compare == PAIRED else option.title
            panels.append(Panel(label, drawn.values, drawn.place, drawn.signed))
            if drawn.padding > MUCH_PADDING:
                st.caption(f":material/warning: {drawn.padding:.0%} of {label} lies on padding outside the radiograph.")
    return work, panels


def other_pairs(
    case: services.Case, card: Card, question: Question, how: str, words: str, chosen: Sequence[Card]
) -> list[tuple[Card, Question, str, explaining.Choice]]:
    """The same question to other pairs that write the same word, or speak of the same finding."""
    if question.kind == "sentence":
        st.info("Sentences differ between pairs. Ask about a word or a finding to compare pairs.")
        return []
    same = Question(question.kind, words if question.kind == "word" else question.which)
    found: list[tuple[Card, Question, str, explaining.Choice]] = []
    silent = []
    for other in chosen:
        if other.name == card.name or len(found) == MOST_PANELS - 1:
            continue
        try:
            option = explaining.choices(case, other, same).get(how)
        except CXRLensError:
            silent.append(services.title_of(other))
            continue
        if option is not None:
            found.append((other, same, how, option))
    if silent:
        st.caption(f"Without it in their reports: {', '.join(silent)}.")
    return found


def show_filter_values(case: services.Case, card: Card, question: Question, found: tuple[Attribution, ...]) -> None:
    """CCVE's answer by filter, with the way to the Filters page."""
    values = explaining.filter_values(found)
    if values is None:
        return
    filter_bars(services.filtered(case, card), CLUSTERS, values, signed=found[0].signed)
    title = next((title for title, each in filtering.pairs(case).items() if each.name == card.name), None)
    query = {"study": case.title} if case.study else {}
    if title:
        query[session.MAP_PAIR] = title
    if question.kind == "word" and isinstance(question.which, int):
        query[session.FILTER_WORD] = str(question.which + 1)
    st.page_link("app_pages/filters.py", label="See the filters", icon=":material/filter_b_and_w:", query_params=query)


def show_region(region: explaining.Box) -> None:
    """What is asked about a region."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("Without the **region**: words that depend on it are marked in the reports.", width="stretch")
        st.segmented_control(
            "Covered by",
            ["blank", "blur"],
            default="blank",
            required=True,
            key=session.COVER,
            bind="query-params",
            label_visibility="collapsed",
            format_func=lambda cover: {"blank": "Even grey", "blur": "Blur"}[cover],
            width="content",
        )
        st.button("Clear", on_click=session.ask_region, args=(None,), key="clear", icon=":material/close:")


def compute(case: services.Case, work: Work) -> None:
    """Answer what is asked, with progress. A click elsewhere ends it: Streamlit raises at the next progress."""
    card, question, how = work.jobs[0]
    with work.place.container():
        bar = st.progress(0.0, text=f"Computing: {services.title_of(card)}")
        st.button("Cancel", on_click=session.close_question, key="cancel")

    def progress(done: int, total: int) -> None:
        bar.progress(done / total, text=f"Computing: {done} of {total}")

    try:
        explaining.answer(case, card, question, how, progress)
    except CXRLensError as error:
        work.place.error(str(error), icon=":material/error:")
        return
    st.rerun()


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
        st.button("All pairs", key="all", on_click=session.choose_all, disabled=len(chosen) == len(all_pairs()))
        st.button(
            "One of each encoder",
            key="four",
            on_click=session.choose_one_decoder,
            help="One decoder with each encoder, to compare encoders.",
        )
        st.caption(f"{len(chosen)} of {len(all_pairs())} pairs", width="content")
    # Grouped by decoder, so that neighbours differ in the encoder alone: that is what the paper compares.
    order = table_order()
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
        format_func=lambda family: f"Trained on {services.family_title(family)}",
        label_visibility="collapsed",  # the options say it, in one row less
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
    if case.study is None or findings(case.study.labels):
        named.discard(NO_FINDING)  # of interest where the reference is normal
    return overview(
        [name for name in OBSERVATIONS if name in named],
        [(DECODERS[r.card.decoder].title, ENCODERS[r.card.encoder].title) for r in readings],
        cells,
        case.study.labels if case.study else None,
    )


def show_reports(
    case: services.Case,
    chosen: Sequence[Card],
    asked: tuple[Card, Question] | None,
    region: explaining.Box | None,
) -> tuple[list[Card], list[Card]]:
    """Show the reference and the reports that are written.

    Returns:
        those that are not written yet, and those of which it is not known yet how they depend on the region.
    """
    cover = st.session_state.get(session.COVER, "blank")
    unknown = []
    known = services.written(case, chosen)
    drawn = []
    for each in chosen:
        found = known.get(each.name)
        if isinstance(found, services.Reading):
            data = card(each.name, services.title_of(each), found.report, found.labels, found.outcomes)
            if region and found.report.ids:
                changed = explaining.known_without(case, each, region, cover)
                if changed is None:
                    unknown.append(each)
                else:
                    data["without"] = explaining.for_card(changed)
            drawn.append(data)
        else:
            state = {"waiting": True} if found is None else {"error": found}
            drawn.append({"name": each.name, "title": services.title_of(each), **state})
    waiting = [each for each in chosen if each.name not in known]
    readings = [found for found in known.values() if isinstance(found, services.Reading)]
    reference = None
    if case.study is not None:
        sections = (("Findings", case.study.findings), ("Impression", case.study.impression))
        reference = reference_card([(name, text, services.label(text)) for name, text in sections])
    reports(
        drawn,
        reference=reference,
        table=table_of(case, readings) if readings and not waiting else None,
        asked={"pair": asked[0].name, "kind": asked[1].kind, "which": asked[1].which} if asked else None,
        on_ask=hear_question,
    )
    return waiting, unknown


def regenerate(case: services.Case, unknown: Sequence[Card], region: explaining.Box, place: DeltaGenerator) -> None:
    """Write reports without the region for a moment, then draw the page again with them."""
    end = time.monotonic() + SLICE
    bar = place.progress(0.0, text="Writing the reports without the region")
    try:
        for done, each in enumerate(unknown, start=1):
            explaining.without(case, each, region, st.session_state.get(session.COVER, "blank"))
            bar.progress(
                done / len(unknown), text=f"Writing the reports without the region: {len(unknown) - done} left"
            )
            if time.monotonic() > end:
                break
    except CXRLensError as error:
        place.error(str(error), icon=":material/error:")
        return
    st.rerun()


def write_some(case: services.Case, waiting: Sequence[Card]) -> None:
    """Write reports for a moment, then draw the page again with them: they appear as they are written."""
    names = {each.name for each in waiting}
    image, begun, writing = st.session_state.get(session.WRITING, ("", set(), None))
    if image != case.key or not names <= begun:
        # Kept from run to run: begun anew, it would encode the image again.
        image, begun, writing = case.key, names, services.read(case, waiting)
        st.session_state[session.WRITING] = image, begun, writing
    end = time.monotonic() + SLICE
    for _ in writing:
        if time.monotonic() > end:
            break
    else:
        del st.session_state[session.WRITING]
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
    session.ask_of(case.key)
    left, right = st.columns([5, 7], gap="medium")
    with right:
        chosen = choose_pairs(cards) if cards else []
        if cards:
            describe_training(chosen or list(cards.values()), case)
        if case.study is None:
            st.caption("No reference report: findings are marked by what each report says, not by whether it is right.")
        asked, region = question_of(cards), region_of()
        waiting, unknown = show_reports(case, chosen, asked, region)
        if cards and not chosen:
            st.info("No pair is chosen. Choose pairs above, or all.")
    work: Work | None = None
    panels: list[Panel] = []
    with left, st.container(key="rail", height="stretch"), st.container():
        show_image(case)
        region_progress = st.empty()
        if region:
            show_region(region)
        if asked:
            work, panels = show_answer(case, *asked, chosen)
        heat_maps(panels, study=case.title, region=region)
    if cards:
        if not waiting:
            show_filters(case, family)
        show_map(case)
    # What is not known yet comes after all that is: the page is there, and shows the rest as it comes.
    if work and work.jobs:
        compute(case, work)
    if waiting:
        write_some(case, waiting)
    if region and unknown:
        regenerate(case, unknown, region, region_progress)
