"""In: a case and bundles. Out: the reports that stand beside the bundles already, without loading a model.

An evaluation keeps the reports of a family's held-out studies (``<family>-reports.jsonl``). They are those that a
bundle writes while it has the content, and the studies the fingerprint, that the scores beside them name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from core.bundles.card import Card
from core.evaluation.votes import Counts, votes_of
from core.files import hash_of, read_json_lines
from core.text import tokenize
from core.types import CXRLensError, Report
from dashboard import settings
from dashboard.services import evaluations, sources
from dashboard.services.evaluations import ResultSet
from dashboard.services.studies import Case


def stored_reports(case: Case, cards: Sequence[Card]) -> dict[str, Report]:
    """Bundles' reports of a held-out study, by name; those that are kept of this content of both, in this precision.

    They have words and no attention: whoever asks where a word comes from needs the report that the model writes.
    """
    if settings.precision() != "fp32" or case.source == sources.UPLOAD:
        return {}
    found: dict[str, Report] = {}
    for family in dict.fromkeys(card.family for card in cards):
        results = _results(family)
        if results is None or evaluations.source_of(results) != case.source:
            continue
        if not results.reports.is_file():  # scores without the reports that they are of
            continue
        texts = _texts(str(results.reports), results.reports.stat().st_mtime_ns).get(case.study.study_id, {})
        for card in cards:
            text = texts.get(card.name)
            if card.family == family and text and _is_of(results, card):
                found[card.name] = Report(text, tuple(tokenize(text)), float("nan"), finished=text.endswith("."))
    return found


def measured(family: str) -> Mapping[str, float]:
    """F1 of a family's bundles, by name, on held-out studies; empty where it was not measured."""
    results = _results(family)
    return {} if results is None else {name: float(row["f1"]) for name, row in results.rows.items()}


@dataclass(frozen=True, slots=True)
class Votes:
    """What was counted of how many models say a finding.

    Attributes:
        counts: see `core.evaluation.votes`.
        studies: what they were counted on, in words.
    """

    counts: Counts
    studies: str


def votes(cards: Sequence[Card], source: str) -> Votes | None:
    """What it was worth that so many of these bundles say a finding: on studies of this source, else on held-out ones.

    None unless they are the bundles that were counted together, with the content that they had then.
    """
    families = {card.family for card in cards}
    if len(families) != 1 or settings.precision() != "fp32":
        return None
    found = [each for each in _all().values() if each.own is not None and evaluations.source_of(each) == source]
    family = _results(families.pop())
    for results in (*found, *([] if family is None else [family])):
        try:
            names, counts = votes_of(results.content)
        except CXRLensError:  # of a damaged file Results tells
            continue
        if names == {card.name for card in cards} and _of_these(results, cards):
            count = int(results.content["studies"])
            what = "held-out studies" if results.own is None else f"studies of {evaluations.source_title(results)}"
            return Votes(counts, f"{count:,} {what}")
    return None


def _of_these(results: ResultSet, cards: Sequence[Card]) -> bool:
    """Whether an evaluation is of bundles with this content."""
    if results.own is not None:
        return not evaluations.strange_bundles(results)
    return all(_is_of(results, each) for each in cards)


def _is_of(results: ResultSet, card: Card) -> bool:
    return results.content.get("made_of", {}).get(card.name) == hash_of(card.made_of)


def _all() -> Mapping[str, ResultSet]:
    try:
        return evaluations.result_sets()[0]
    except CXRLensError:
        return {}


def _results(family: str) -> ResultSet | None:
    results = _all().get(family)
    return results if results is not None and results.own is None else None


@st.cache_resource(max_entries=4, show_spinner=False)
def _texts(path: str, stamp: int) -> Mapping[str, Mapping[str, str]]:
    """Study -> bundle -> report; empty where the file is damaged, which Cases and Results say."""
    try:
        return {str(row["study_id"]): row for _, row in read_json_lines(Path(path))}
    except (CXRLensError, OSError, KeyError, TypeError):
        return {}
