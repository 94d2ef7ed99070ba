"""An evaluation of the chosen studies: the button that begins it, its progress, going on after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from core.bundles.card import Card
from core.evaluation.own import Asked, EvaluationJob
from core.types import CXRLensError
from dashboard.services import bundles, evaluations, own, sources

_FAMILY, _PAIRS = "own_family", "own_pairs"
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
            st.error(told, icon=":material/error:")
    refused = own.why_not(source_name)
    if refused:
        st.info(refused, icon=":material/info:")
        return
    for asked in own.unfinished(source_name):
        _go_on(asked)
    _begin(source_name, why or f"No model has written the reports of {sources.names()[source_name]} yet.")


@st.fragment(run_every=1.0)
def _watch(job: EvaluationJob, source_name: str) -> None:
    share, what = job.progress()
    names = ", ".join(map(evaluations.title_of, job.asked.pairs))
    st.markdown(f"**{sources.names()[source_name]}**: {names}")
    st.progress(share, text=f"{what} …")
    st.caption("It goes on while you look at other pages, and can be gone on with after an interruption.")
    st.button("Cancel", icon=":material/close:", key="own_cancel", on_click=job.cancel)
    if job.done():
        st.rerun()


def _go_on(asked: Asked) -> None:
    names = ", ".join(map(evaluations.title_of, asked.pairs))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"Begun and not finished: {names}.", width="content")
        st.button(
            "Go on",
            icon=":material/play_arrow:",
            key=f"own_go_on_{asked.folder.name}",
            on_click=_try,
            args=(lambda: own.go_on(asked),),
        )


def _begin(source_name: str, why: str) -> None:
    families = bundles.families()
    if not families:
        st.info(f"{why} There are no models here that could write them.", icon=":material/info:")
        return
    st.markdown(why)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        family = best = bundles.family_for(sources.source(source_name))
        if len(families) > 1:
            family = st.selectbox(
                "Models for",
                families,
                index=families.index(best),
                format_func=bundles.family_title,
                key=f"{_FAMILY}_{source_name}",
                width=260,
            )
        cards = {bundles.title_of(card): card for card in bundles.cards(family).values()}
        decoder = next(iter(cards.values())).decoder
        chosen = st.multiselect(
            "Models",
            list(cards),
            default=[title for title, card in cards.items() if card.decoder == decoder],
            key=f"{_PAIRS}_{source_name}_{family}",
            placeholder="Choose models",
        )
    source, count = sources.source(source_name), own.count(source_name)
    if bundles.synthetic(family) != source.synthetic:
        st.warning(
            f"These models learned from {bundles.family_title(family)}: on these studies their reports mean little.",
            icon=":material/warning:",
        )
    if source.caution:
        st.warning(source.caution, icon=":material/warning:")
    do = "Write and score the reports" if source.has_reports else "Write the reports"
    studies = "this study" if count == 1 else f"these {count:,} studies"
    models = "this model" if len(chosen) == 1 else f"these {len(chosen)} models"
    st.button(
        f"{do} of {studies} with {models}",
        icon=":material/edit_note:",
        type="primary",
        key="own_start",
        disabled=not chosen,
        on_click=_start,
        args=(source_name, [cards[title] for title in chosen]),
    )
    kept = "Reports and scores are kept in your user folder, and nothing leaves this machine."
    if not source.has_reports:
        kept = f"These studies have no reference reports, so there will be no scores. {kept}"
    st.caption(kept)


def _start(source_name: str, cards: Sequence[Card]) -> None:
    _try(lambda: own.start(source_name, cards))


def _try(begin: Callable[[], None]) -> None:
    """Callback: begin, or say on the next run why not."""
    try:
        begin()
    except CXRLensError as error:
        st.session_state[_REFUSED] = str(error)
