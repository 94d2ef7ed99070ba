"""The studies that review sessions are made of, their images, and the models that write about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import streamlit as st

from core.bundles.card import Card
from core.registry import ENCODERS, encoder_parts
from core.reviews.design import REFERENCE, Case, Design, choose, plan
from core.reviews.editing_design import NO_DRAFT, TEMPLATE
from core.reviews.sources import candidates, of_others, open_source, session_image, write_cases
from core.studies.model_image import of_study
from core.studies.source import Source
from core.systems import added
from core.systems.system import Ability, System
from core.types import CXRLensError, FloatImage, Study
from dashboard.services import bundles, systems
from dashboard.services import sources as catalogued


def sources() -> dict[str, str]:
    """Title of each source that pages offer and that has test studies, by its name in a design."""
    found = {}
    for name, title in catalogued.names().items():
        try:
            source = catalogued.source(name)
        except CXRLensError:  # the page that reads it says why
            continue
        if name != catalogued.UPLOAD and source.listed and source.ids("test"):
            found[source.key] = title
    return found


@st.cache_resource(max_entries=4, show_spinner=False)
def open_named(name: str) -> Source:
    """Open what a design's ``source`` names; see `core.reviews.sources.open_source`."""
    return open_source(name)


@st.cache_resource(max_entries=4, show_spinner="Opening the studies …")
def studies(name: str) -> Mapping[str, Study]:
    """Test studies of a source, by id."""
    return {study.study_id: study for study in open_named(name).studies("test")}


def picture(name: str) -> Callable[[str], FloatImage]:
    """How to draw a study of a source."""
    return lambda study_id: session_image(open_named(name), study_id)


def writers(source: str) -> list[Card]:
    """Bundles whose training fits the source."""
    synthetic = open_named(source).synthetic
    return [card for card in bundles.library_cards() if bundles.synthetic(card.family) is synthetic]


def has_map(card: Card) -> bool:
    """Whether what a pair looks at has places on the image; CCVE's tokens are filters."""
    return any(not ENCODERS[part].token_names for part in encoder_parts(card.encoder) if part in ENCODERS)


def others(source: str) -> dict[str, dict[str, System]]:
    """Systems that were added and have reports of the source's studies, or write them: group -> name -> system."""
    opened = open_named(source)
    ids = opened.ids("test")
    found: dict[str, dict[str, System]] = {}
    for group, members in systems.others().items():
        for name, each in members.items():
            if Ability.WRITE in each.abilities or _has_any(each.content_hash(), source, each, ids):
                found.setdefault(group, {})[name] = each
    return found


@st.cache_data(max_entries=64, show_spinner=False)
def _has_any(content: str, source: str, _system: System, _ids: Sequence[str]) -> bool:
    return any(text.strip() for text in _system.reports(open_named(source), _ids).texts.values())


def _chosen(design: Design) -> tuple[list[str], list[System]]:
    """The pairs of a design, and its further systems.

    Raises:
        CXRLensError: one is not there any more.
    """
    cards = {card.name for card in bundles.library_cards()}
    pairs = [name for name in design.models if name in cards]
    return pairs, [added.system(name) for name in design.models if name not in (*cards, REFERENCE)]


def humans(source: str) -> list[str]:
    """The human writer of reports, where the source has any."""
    return [REFERENCE] if open_named(source).has_reports else []


def title_of(model: str, cards: Sequence[Card]) -> str:
    """A model's name for a person."""
    if model == REFERENCE:
        return "Reference report"
    card = next((card for card in cards if card.name == model), None)
    other = systems.named(model) if card is None else None
    return bundles.title_of(card) if card else other.title if other else model


def write(design: Design, pool: int, progress: Callable[[int, int], None]) -> list[Case]:
    """Choose a design's studies, and let its models write about them.

    Args:
        design: of the session.
        pool: studies whose reports are compared, where those are wanted that differ.
        progress: called with (done, all).
    """
    known, source = list(studies(design.source).values()), open_named(design.source)
    pairs, further = _chosen(design)
    if design.studies.how == "disagreement":
        known = [each for each in known if each.findings or not source.has_reports][:pool]
    return write_cases(
        source,
        known,
        design.studies,
        design.seed,
        bundles.load_models(pairs),
        reference=source.has_reports,  # also where it takes no part: automatic metrics compare with it
        others=further,
        besides=design.practice_studies,
        guard=bundles.inference,
        progress=progress,
    )


def preview(design: Design) -> tuple[Study, FloatImage, list[tuple[str, str]]]:
    """The first case of the first reader: study, image, and (blinded name, text) of its reports.

    Of "disagreement" it is some case: which differ is known when all are written.
    """
    known, source = studies(design.source), open_named(design.source)
    _, further = _chosen(design)
    all_, _ = of_others(source, candidates(list(known.values())), further)
    chosen = all_[: max(design.studies.count, 1)]
    if design.studies.how != "disagreement":
        chosen = choose(all_, design.studies, design.seed)
    laid_out = [Case(each.study_id, "", dict.fromkeys(design.models, "not written yet")) for each in chosen]
    first = plan(design, laid_out)[design.readers[0]][0]
    study = known[first.study_id]
    shown = [model for _, model in first.shown]
    texts = {REFERENCE: study.findings, NO_DRAFT: "", TEMPLATE: design.editing.template}
    for each in further:
        if each.name in shown:
            texts[each.name] = each.reports(source, [study.study_id]).texts.get(study.study_id, "")
    models = bundles.load_models([model for model in shown if model not in texts])
    if models:
        from core.bundles.inference import write_reports

        with bundles.inference():
            texts |= {name: report.text for name, report in write_reports(models, of_study(source, study.study_id))}
    if any(not texts[model].strip() for model in shown if model != NO_DRAFT):
        raise CXRLensError(f"Study {study.study_id} has an empty report. Choose other studies or models.")
    image = session_image(source, study.study_id)
    return study, image, [(name, texts[model]) for name, model in first.shown]
