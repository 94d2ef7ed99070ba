"""An evaluation of the chosen studies: the button that begins it, its progress, going on after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from core.bundles.card import Card
from core.evaluation.own import Asked, EvaluationJob
from core.studies.source import Source
from core.systems.system import Ability, System
from core.types import CXRLensError
from dashboard.components.add_system import offer_upload
from dashboard.plain import plain, plain_message
from dashboard.services import bundles, evaluations, own, sources, systems

_PAIRS, _OTHERS = "own_pairs", "own_others"
_REFUSED = "own_refused"


def offer_evaluation(source_name: str, *, why: str = "") -> None:
    """Draw whatever there is to do: watch an evaluation, go on with one, or begin one.

    Args:
        source_name: short name of the source.
        why: why it is offered, in a sentence; "" says that the source has none yet.
    """
    job = own.under_way(source_name)
    if job is not None:
        _watch(job, source_name)
        return
    for told in (*own.failures(source_name), st.session_state.pop(_REFUSED, "")):
        if told:
            st.error(plain_message(told), icon=":material/error:")
    refused = own.why_not(source_name)
    if refused:
        st.info(plain_message(refused), icon=":material/info:")
        return
    for asked in own.unfinished(source_name):
        _go_on(asked)
    _begin(source_name, why or f"No model has written the reports of {sources.names()[source_name]} yet.")


@st.fragment(run_every=1.0)
def _watch(job: EvaluationJob, source_name: str) -> None:
    share, what = job.progress()
    names = _names(job.asked)
    st.markdown(f"**{plain(sources.names()[source_name])}**: {plain(names)}")
    st.progress(share, text=f"{plain(what)} …")
    st.caption("It goes on while you look at other pages, and can be gone on with after an interruption.")
    st.button("Cancel", icon=":material/close:", key="own_cancel", on_click=job.cancel)
    if job.done():
        st.rerun()


def _go_on(asked: Asked) -> None:
    names = _names(asked)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"Begun and not finished: {plain(names)}.", width="content")
        st.button(
            "Go on",
            icon=":material/play_arrow:",
            key=f"own_go_on_{asked.folder.name}",
            on_click=_try,
            args=(lambda: own.go_on(asked),),
        )


def _names(asked: Asked) -> str:
    return ", ".join([*map(evaluations.title_of, asked.pairs), *asked.systems])


def _begin(source_name: str, why: str) -> None:
    families, others = bundles.families(), systems.others()
    st.markdown(why)
    if not families and not others:
        st.info("There are no models here that could write them.", icon=":material/info:")
        offer_upload(f"{_PAIRS}_add", source_name)
        return
    best = bundles.family_for(sources.source(source_name))
    cards: list[Card] = []
    chosen: list[System] = []
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for family in sorted(families, key=lambda each: each != best):
            cards += _choose_pairs(source_name, family, default=family == best)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for group, members in others.items():
            names = st.multiselect(
                plain(group),
                list(members),
                format_func=lambda name, members=members: members[name].title,  # type: ignore[misc]
                key=f"{_OTHERS}_{source_name}_{group}",
                placeholder="Choose",
                width=260,
            )
            chosen += [members[name] for name in names]
        offer_upload(f"{_PAIRS}_add", source_name)
    source, count = sources.source(source_name), own.count(source_name)
    if strange := [
        each
        for each in dict.fromkeys(card.family for card in cards)
        if bundles.synthetic(each) != source.synthetic and not bundles.elsewhere(each)
    ]:
        st.warning(
            f"Models that learned from {plain(bundles.family_title(', '.join(strange)))}: on these studies their "
            "reports mean little.",
            icon=":material/warning:",
        )
    if source.caution:
        st.warning(plain_message(source.caution), icon=":material/warning:")
    st.button(
        _what(source, count, len(cards), chosen),
        icon=":material/edit_note:",
        type="primary",
        key="own_start",
        disabled=not cards and not chosen,
        on_click=_start,
        args=(source_name, cards, chosen),
    )
    kept = "Reports and scores are kept in your user folder, and nothing leaves this machine."
    if not source.has_reports:
        kept = f"These studies have no reference reports, so there will be no scores. {kept}"
    st.caption(" ".join([*filter(None, (systems.price(each, count) for each in chosen)), kept]))


def _choose_pairs(source_name: str, family: str, *, default: bool) -> list[Card]:
    """Pairs of a family; of the one that fits best, one of each encoder at first."""
    cards = {bundles.title_of(card): card for card in bundles.cards(family).values()}
    decoder = next(iter(cards.values())).decoder
    chosen = st.multiselect(
        f"Models for {plain(bundles.family_title(family))}",
        list(cards),
        default=[title for title, card in cards.items() if default and card.decoder == decoder],
        key=f"{_PAIRS}_{source_name}_{family}",
        placeholder="Choose models",
        width=420,
    )
    return [cards[title] for title in chosen]


def _what(source: Source, count: int, models: int, others: Sequence[System]) -> str:
    """What the button does."""
    studies = "this study" if count == 1 else f"these {count:,} studies"
    names = ["this model" if models == 1 else f"these {models} models"] if models or not others else []
    names += [each.title for each in others]
    if models or any(Ability.WRITE in each.abilities for each in others):
        do = "Write and score the reports" if source.has_reports else "Write the reports"
        return f"{do} of {studies} with {' and '.join(names)}"
    return f"{'Score' if source.has_reports else 'Show'} the reports of {studies} by {' and '.join(names)}"


def _start(source_name: str, cards: Sequence[Card], others: Sequence[System]) -> None:
    _try(lambda: own.start(source_name, cards, others))


def _try(begin: Callable[[], None]) -> None:
    """Callback: begin, or say on the next run why not."""
    try:
        begin()
    except CXRLensError as error:
        st.session_state[_REFUSED] = str(error)
