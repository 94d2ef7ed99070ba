"""In: a question in the address. Out: its answer by method, as maps for the viewer, bars of filters, or work to do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.bundles.card import Card
from core.observations import CLUSTERS
from core.registry import token_names
from core.types import Attribution, CXRLensError
from dashboard import session
from dashboard.components.asked import tell_unknown
from dashboard.components.filter_bars import filter_bars
from dashboard.components.trust import verdict
from dashboard.components.viewer import Panel
from dashboard.plain import plain, plain_message
from dashboard.read.filter_words import strongest
from dashboard.read.layout import BESIDE, METHOD, TITLE
from dashboard.services import bundles, explanations, filters, systems, turns
from dashboard.services.explanations import Box, Choice, Question
from dashboard.services.studies import Case

METHODS, MODELS = "methods", "models"
COMPARED = ("attention", "grad-cam", "integrated-gradients", "occlusion")
MOST_PANELS = 6
MUCH_PADDING = 0.1
NO_PLACE = (
    "No method was shown to point at findings better than the middle of the image does, so no map is coloured: the "
    "line is around its strongest tenth."
)
WAYS = (
    "Attention: where the model looked. All others: what the words depend on. What was measured to point best is first."
)


# ------------------------------------------------------------------------------------------------------------- words


def question_of(cards: Sequence[Card]) -> tuple[Card, Question] | None:
    """What the address asks about a model; a message where there is none. Of others: `others.finding_asked`."""
    name = st.query_params.get(session.ASKED)
    kind = next((each for each in session.QUESTIONS if each in st.query_params), None)
    if not name or not kind or systems.named(name) is not None:
        return None
    card = next((card for card in cards if card.name == name), None)
    if card is None:
        known = bundles.card_named(name)
        told = f"'{name}'" if known is None else f"{bundles.title_of(known)}, {bundles.family_title(known.family)}"
        st.warning(f"The address asks about {plain(told)}, which is not among these models.", icon=":material/info:")
        return None
    which: int | str = st.query_params[kind]
    if kind == "mention":
        return card, Question("finding", which)
    if kind == "found":
        return card, Question("found", which)
    if (number := session.whole(str(which))) is not None:
        which = number - 1
    return card, Question("sentence" if kind == "sentence" else "word", which)


@dataclass
class Work:
    """What is asked and not known yet, and where its progress is shown."""

    place: DeltaGenerator
    jobs: list[tuple[Card, Question, str]]


def show_answer(
    case: Case, card: Card, question: Question, chosen: Sequence[Card], head: DeltaGenerator
) -> tuple[Work, list[Panel]]:
    """Where words come from; returns what is still to be computed, and maps for the viewer.

    Args:
        case: the image.
        card: of the pair that wrote them.
        question: the words.
        chosen: the models whose reports are shown.
        head: where words, method and verdict stand: in sight beside the image. The rest follows where this is called.
    """
    with head:
        try:
            words = explanations.words_of(case, card, question)
            options = explanations.choices(case, card, question)
            found_first = explanations.found_first(case, card, question)
        except CXRLensError as error:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.error(plain_message(error), icon=":material/error:")
                st.button("Close", on_click=session.close_question, key="close")
            return Work(st.empty(), []), []
        title = st.container()
        how, compare = _choose_method(options)
    about_method = st.container()
    asked = [(card, question, how, options[how])]
    if compare == METHODS:
        asked += [
            (card, question, key, option)
            for key, option in options.items()
            if key != how and key in COMPARED and (not token_names(card.encoder) or not option.quick)
        ]
    elif compare == MODELS:
        asked += _other_models(case, card, question, how, words, chosen)
    # All that takes time comes before the new title: until then the old one stands above the old picture.
    answers = [(*each, _quick_answer(case, *each)) for each in asked]
    with title:
        show_title(words, bundles.title_of(card), "was found" if question.kind == "found" else "comes from")
    with head:
        untrusted = _show_trust(card, how, question)
        work = Work(st.empty(), [])
        st.container(key=BESIDE if compare else None)
    if found_first:
        about_method.caption(found_first)
    about_method.caption(options[how].about)
    panels = []
    for each, about, key, option, found in answers:
        if isinstance(found, str):
            st.error(plain_message(found), icon=":material/error:")
            continue
        if found is None:
            work.jobs.append((each, about, key))
            continue
        drawn = explanations.heat_map(found)
        if told := explanations.in_full(found):
            st.caption(f"{plain(bundles.title_of(each))}: {told}" if compare == MODELS else f"{option.title}: {told}")
        if drawn is None:
            if (values := explanations.filter_values(found)) is not None:
                head.markdown(strongest(CLUSTERS, values, signed=found[0].signed))
            _show_filter_values(case, each, question, found)
        elif not drawn.values.any():
            st.info(
                f"{option.title} of {bundles.title_of(each)} is empty: nothing in the image counts for these words."
            )
        else:
            label = bundles.title_of(each) if compare == MODELS else option.title
            filled = explanations.shows_a_place(each, about, explanations.choices(case, each, about))
            doubt = untrusted if key == how else ""
            panels.append(Panel(label, drawn.values, drawn.place, drawn.signed, filled, doubt))
            if drawn.padding > MUCH_PADDING:
                st.caption(f":material/warning: {drawn.padding:.0%} of {label} lies on padding outside the radiograph.")
    if not all(panel.filled for panel in panels):
        st.caption(NO_PLACE)
    return work, panels


def _quick_answer(
    case: Case, card: Card, question: Question, how: str, option: Choice
) -> tuple[Attribution, ...] | str | None:
    """What is known, or soon is; a message where it cannot be; None where it takes longer."""
    try:
        found = explanations.known(case, card, question, how)
        if found is None and option.quick:
            found = explanations.answer(case, card, question, how, lambda done, total: session.listen())
    except CXRLensError as error:
        return str(error)
    session.listen()
    return found


def show_title(words: str, title: str, does: str = "comes from") -> None:
    """What is asked about and of whom, with a way to close it."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=TITLE):
        st.markdown(f"Where **{plain(words)}** {does} · {plain(title)}", width="stretch")
        st.button("Close", on_click=session.close_question, key="close", icon=":material/close:")


def choose_how(titles: Mapping[str, str], about: str | None = None) -> str:
    """The key of the chosen method; the first where the address names none of these, as of another encoder.

    Args:
        titles: key by title, which the address shows.
        about: help beside the choice.
    """
    tell_unknown(session.HOW, "method", titles)
    if st.session_state.get(session.HOW, st.query_params.get(session.HOW)) not in titles:
        st.session_state[session.HOW] = next(iter(titles))
    return titles[st.selectbox("Method", list(titles), key=session.HOW, bind="query-params", width=220, help=about)]


def _choose_method(options: Mapping[str, Choice]) -> tuple[str, str | None]:
    """Controls of an answer: the method's key, and what stands beside it."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key=METHOD):
        how = choose_how({option.title: key for key, option in options.items()}, WAYS)
        compare = st.segmented_control(
            "Side by side", [METHODS, MODELS], key=session.COMPARE, bind="query-params", width="content"
        )
    return how, compare


def _show_trust(card: Card, how: str, question: Question) -> str:
    """Say how far to trust a method; returns what stands on a map that is not to be taken for the place, else ""."""
    try:
        found = explanations.trust(card, how, question)
    except CXRLensError as error:
        st.warning(plain_message(error))
        return ""
    st.caption(" ".join(verdict(found, "How far to trust this was not measured for these models.")))
    if found is None or "centre" not in found.gains:
        return ""
    return {
        "worse": "No map: in tests it pointed beside the finding more often than the image's centre does",
        "unproven": "No map: in tests it was no better than the image's centre",
    }.get(found.trust, "")


def _other_models(
    case: Case, card: Card, question: Question, how: str, words: str, chosen: Sequence[Card]
) -> list[tuple[Card, Question, str, Choice]]:
    """The same question to other models that write the same word, or speak of the same finding."""
    if question.kind == "sentence":
        st.info("Sentences differ between models. Ask about a word or a finding to compare models.")
        return []
    same = Question(question.kind, words if question.kind == "word" else question.which)
    found: list[tuple[Card, Question, str, Choice]] = []
    silent = []
    for other in chosen:
        if other.name == card.name or len(found) == MOST_PANELS - 1:
            continue
        try:
            option = explanations.choices(case, other, same).get(how)
        except CXRLensError:
            silent.append(bundles.title_of(other))
            continue
        if option is not None:
            found.append((other, same, how, option))
    if silent:
        where = "not found first by" if question.kind == "found" else "not in the reports of"
        st.caption(f"{where.capitalize()} {plain(', '.join(silent))}.")
    return found


def _show_filter_values(case: Case, card: Card, question: Question, found: tuple[Attribution, ...]) -> None:
    """CCVE's answer by filter, with the way to the Filters page."""
    values = explanations.filter_values(found)
    if values is None:
        return
    filter_bars(filters.views(case, card).filtered, CLUSTERS, values, kind="change" if found[0].signed else "share")
    title = next((title for title, each in filters.pairs(case).items() if each.name == card.name), None)
    query = {session.SOURCE: case.source, session.STUDY: case.title}
    if title:
        query[session.MAP_PAIR] = title
    if question.kind == "word" and isinstance(question.which, int):
        query[session.FILTER_WORD] = str(question.which + 1)
    st.page_link("app_pages/filters.py", label="See the filters", icon=":material/filter_b_and_w:", query_params=query)


def compute(case: Case, work: Work) -> None:
    """Answer what is asked, with progress. A click elsewhere ends it: Streamlit raises at the next progress."""
    card, question, how = work.jobs[0]
    with work.place.container():
        bar = st.progress(0.0, text=f"Computing: {plain(bundles.title_of(card))}")
        st.button("Cancel", on_click=session.close_question, key="cancel")

    def progress(done: int, total: int) -> None:
        bar.progress(done / total, text=f"Computing: {done} of {total}")

    try:
        explanations.answer(case, card, question, how, progress)
    except CXRLensError as error:
        work.place.error(plain_message(error), icon=":material/error:")
        return
    st.rerun()


# ------------------------------------------------------------------------------------------------------------ regions


def region_of() -> Box | None:
    """The region in the address; a message where it is none."""
    text = st.query_params.get(session.REGION)
    if not text:
        return None
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        st.warning(f"The address has a region '{plain(text)}'; it needs four numbers, as 0.2,0.5,0.4,0.8.")
        return None
    return left, top, right, bottom


def cover_of() -> str:
    """What a region is covered by."""
    return str(st.session_state.get(session.COVER, "blank"))


def show_region() -> None:
    """What is asked about a region."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("**Area covered.** Words that lost half their probability are marked ▾.", width="stretch")
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


def write_without(case: Case, unknown: Sequence[Card], region: Box, place: DeltaGenerator) -> None:
    """Write reports without the region for a moment, then draw the page again with them."""
    end = time.monotonic() + turns.slice_of()
    what = "Writing the reports with the area covered"
    bar = place.progress(0.0, text=what)
    try:
        for done, each in enumerate(unknown, start=1):
            explanations.without(case, each, region, "blur" if cover_of() == "blur" else "blank")
            bar.progress(done / len(unknown), text=f"{what}: {len(unknown) - done} left")
            if time.monotonic() > end:
                break
    except CXRLensError as error:
        place.error(plain_message(error), icon=":material/error:")
        return
    st.rerun()
