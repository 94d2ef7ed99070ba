"""In: a case and reports of it. Out: which of their sentences to mark as reliable, by what was measured of their pair.

Its scores need a pass of the pair; they are kept. What was measured lies beside the bundles (`cxr-lens trust`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from core.bundles.card import Card
from core.cache import BoundedCache
from core.evaluation.trust import SCORES, Kind
from core.evaluation.trust_files import FamilyTrust, Trust, read_trust, trust_file, trust_key
from core.evaluation.trust_scores import Measured, sentences_of
from core.files import hash_of
from core.labels.rules import LabeledReport
from dashboard import settings
from dashboard.services import bundles, reports, studies
from dashboard.services.reports import Reading
from dashboard.services.studies import Case

if TYPE_CHECKING:
    from core.types import VisualTokens

MOST = 5_000
"""Measured reports that are kept in memory; a few hundred bytes each."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What to mark in a report.

    Attributes:
        firsts: places of the first words of marked sentences among the report's words.
        trust: what was measured of its pair.
        unlike: the film is unlike those that the pair learned from, so nothing is marked.
    """

    firsts: tuple[int, ...]
    trust: Trust
    unlike: bool = False


def of_family(family: str) -> FamilyTrust | None:
    """What was measured of a family's pairs; None where nothing was.

    Raises:
        CXRLensError: its file is damaged.
    """
    path = trust_file(settings.bundles(), family)
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        return None
    cards = {card.name: card for card in bundles.cards(family).values()}
    return _read(str(path), stamp, hash_of([trust_key(card) for card in cards.values()]), cards)


@st.cache_resource(max_entries=8, show_spinner=False)
def _read(path: str, stamp: int, made: str, _cards: dict[str, Card]) -> FamilyTrust:
    return read_trust(Path(path), _cards)


def can_be_marked(case: Case, reading: Reading) -> bool:
    """Whether a report's sentences may have marks: a limit was found for its pair, and it writes in that precision.

    Raises:
        CXRLensError: the family's file is damaged.
    """
    if settings.precision() != "fp32" or not reading.report.words:
        return False
    family = of_family(reading.card.family)
    ways = family.pairs.get(reading.card.name, ()) if family is not None else ()
    # A way that needs no other report is there, and there is something to mark.
    return any("agreement" not in each.rule.scores for each in ways) and any(each.rule.marks_some for each in ways)


@st.cache_resource(show_spinner=False)
def _measured() -> BoundedCache[tuple[str, str], Measured]:
    """By (image, bundle with its content)."""
    return BoundedCache(MOST)


def measure(case: Case, reading: Reading) -> None:
    """Compute the scores of a report's sentences, and keep them.

    Raises:
        CXRLensError: the bundle is broken, or the films to compare with cannot be read.
    """
    import torch

    from core.bundles.pair import encode_batch
    from core.evaluation.trust_scores import measure as measure_reports

    family = of_family(reading.card.family)
    assert family is not None, "only what can be marked is measured"
    with bundles.inference():
        model = bundles.open_model(reading.card)
        image = torch.from_numpy(model.reads(studies.pixels(case)))[None, None]
        others = _other_tokens(family.others, family.other_films, bundles.bundle_key(reading.card), reading.card)
        (found,) = measure_reports(model, image, encode_batch(model, image), [reading.report], others)
    _measured().put(_key(case, reading), found)


@st.cache_resource(max_entries=24, show_spinner=False)
def _other_tokens(source: str, films: tuple[str, ...], made: str, _card: Card) -> VisualTokens:
    """Of the films that stand in for a case's own."""
    from core.evaluation.trust_scores import other_tokens
    from core.studies.model_image import of_study
    from core.studies.sources import open_source

    model, opened = bundles.open_model(_card), open_source(source)
    return other_tokens(model, [model.reads(of_study(opened, each)) for each in films])


def marks(case: Case, reading: Reading) -> Marks | None:
    """What to mark in a report of a pair that `can_be_marked`; None where its scores are not there yet.

    Of the ways that were measured, the first of which all scores are known: agreement needs the reports of the panel.

    Raises:
        CXRLensError: the family's file is damaged.
    """
    family = of_family(reading.card.family)
    assert family is not None, "only what can be marked is asked for"
    others = _panel(case, reading, family)
    ways = family.pairs[reading.card.name]
    trust = next(each for each in ways if others or "agreement" not in each.rule.scores)
    if studies.unlike(case, reading.card.family):
        return Marks((), trust, unlike=True)
    found = _measured().get(_key(case, reading))
    if found is None or found.warned:
        return None if found is None else Marks((), trust, unlike=True)
    sentences = sentences_of(reading.report, reading.labels)
    agreements = [each.agreement([other.states for other in others]) for each in sentences]
    values = (found.likelihood, found.fall, [found.distance] * len(sentences), agreements)
    marked = trust.rule.marks([each.kind for each in sentences], dict(zip(SCORES, values, strict=True)))
    firsts = tuple(each.first for each, mark in zip(sentences, marked, strict=True) if mark)
    return Marks(firsts, trust)


def _panel(case: Case, reading: Reading, family: FamilyTrust) -> list[LabeledReport]:
    """What the reports of all other pairs of the panel say; empty where one is not there."""
    cards = [card for card in bundles.cards(reading.card.family).values() if card.name in family.panel]
    found = reports.written(case, [card for card in cards if card.name != reading.card.name])
    labels = [each.labels for each in found.values() if isinstance(each, Reading)]
    return labels if len(labels) == len(family.panel) - 1 else []


def calibrated_on(trust: Trust) -> int:
    """Validation sentences that a pair's limits were tested with."""
    return sum(trust.rule.limits[kind].sentences for kind in Kind)


def _key(case: Case, reading: Reading) -> tuple[str, str]:
    return case.key, bundles.bundle_key(reading.card)
