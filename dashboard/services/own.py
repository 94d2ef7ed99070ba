"""In: a source and pairs. Out: the evaluation of its studies with them, begun, under way, or failed.

Each is a process of its own; what is finished is in the user's folder, where `services.evaluations` finds it.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.bundles.card import Card
from core.evaluation import own
from core.evaluation.own import Asked, EvaluationJob
from core.studies.folder import UploadSource
from core.studies.source import Source
from core.systems.system import System
from core.types import CXRLensError, Split
from dashboard import settings
from dashboard.services import bundles, sources, studies, systems

MOST_JOBS = 1
"""Evaluations that are written at once, of all sessions: one takes the cores."""


@st.cache_resource(show_spinner=False)
def _jobs() -> dict[str, EvaluationJob]:
    """Evaluations that are under way, or that failed, by their folder."""
    return {}


def why_not(source_name: str) -> str:
    """Why the studies of a source cannot be evaluated; "" where they can."""
    source = sources.source(source_name)
    if isinstance(source, UploadSource):
        return (
            "The files of this session are in memory only, so their reports are not written and kept here. Index them "
            "(`cxr-lens data folder`), and choose the index as the source."
        )
    if not source.listed:
        return f"{source.title} does not list its studies: they are found one by one, on the Read page."
    return "" if len(studies.visible_ids(source_name)) else f"{source.title} has no studies that can be shown."


def count(source_name: str) -> int:
    """How many studies would be written."""
    source = sources.source(source_name)
    return _count(sources.content_key(source), studies.shown_split(source), source)


@st.cache_data(max_entries=8, show_spinner=False)
def _count(key: str, split: Split | None, _source: Source) -> int:
    return sum(len(_source.ids(each)) for each in ([split] if split else _source.splits()))


def start(source_name: str, cards: Sequence[Card], others: Sequence[System] = ()) -> None:
    """Begin an evaluation, or go on with it.

    Args:
        source_name: short name of the source.
        cards: of the pairs.
        others: further systems.

    Raises:
        CXRLensError: another one is under way, or it cannot be begun.
    """
    source = sources.source(source_name)
    go_on(own.ask(source, cards, settings.bundles(), studies.shown_split(source), others))


def go_on(asked: Asked) -> None:
    """Go on with an evaluation.

    Raises:
        CXRLensError: another one is under way, or it cannot be begun.
    """
    if sum(not job.done() for job in _jobs().values()) >= MOST_JOBS:
        raise CXRLensError("Another evaluation is being written. Begin when it is done, or cancel it.")
    _jobs()[str(asked.folder)] = EvaluationJob(asked)


def under_way(source_name: str) -> EvaluationJob | None:
    """The evaluation of a source that is being written."""
    return next((job for job in _of(source_name) if not job.done()), None)


def failures(source_name: str) -> list[str]:
    """Why evaluations of a source were not finished; those that ended well are forgotten."""
    told = []
    for job in _of(source_name):
        if not job.done():
            continue
        try:
            job.wait()
        except CXRLensError as error:
            told.append(str(error))
        else:
            _jobs().pop(str(job.asked.folder), None)
    return told


def _of(source_name: str) -> list[EvaluationJob]:
    key = sources.source(source_name).key
    return [job for job in list(_jobs().values()) if job.asked.source == key]


def unfinished(source_name: str) -> list[Asked]:
    """Evaluations of a source that were begun, and that nobody goes on with now, with the bundles that are here."""
    key = sources.source(source_name).key
    running = {folder for folder, job in _jobs().items() if not job.done()}
    begun = [each for each in own.evaluations() if each.source == key and not each.whole]
    return [
        each
        for each in begun
        if str(each.folder) not in running
        and all((card := bundles.card_named(name)) and card.made_of == sha for name, sha in each.pairs.items())
        and all(
            (there := systems.named(name)) and there.content_hash() == content for name, content in each.systems.items()
        )
    ]
