"""What the Filters page asks of core, and its caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.bundles.card import Card
from core.explain.measured import Measured, measured
from core.observations import CLUSTERS
from core.registry import token_names
from core.types import CXRLensError, Report
from dashboard import services, settings

if TYPE_CHECKING:
    from core.explain.counterfactuals import Counterfactual
    from core.explain.filters import FilterAttention
    from core.explain.subject import Subject

EXAMPLES = 3
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pictures:
    """A radiograph through the trained filters and through filters that learned nothing.

    Attributes:
        image: (H, W), before the filters, as the encoder gets it.
        trained: (13, H, W), grey levels of the image: 0 is black, 1 is white.
        control: the same of the untrained filters.
        trained_response: (13, F), gain by frequency, from even grey to 0.5 cycles a pixel.
        control_response: the same of the untrained filters.
    """

    image: Values
    trained: Values
    control: Values
    trained_response: Values
    control_response: Values

    @property
    def change(self) -> Values:
        """Mean absolute change of a pixel by each trained filter, (13,), share of the grey scale."""
        changes: Values = np.abs(self.trained - self.image).mean((1, 2))
        return changes


@dataclass(frozen=True, slots=True)
class Looks:
    """Attention to the filters, of the pair and of the same pair with untrained filters."""

    trained: FilterAttention
    control: FilterAttention


def pairs(case: services.Case | None) -> dict[str, Card]:
    """Usable pairs that read CCVE's filters, by their title; those of the family that fits the case first.

    Only those of other families are named by it, so that an address stays what it was when a family is added.
    """
    families = services.families()
    if case is not None:
        families = tuple(sorted(families, key=lambda family: family != services.family_for(case)))
    found = [card for family in families for card in services.cards(family).values() if token_names(card.encoder)]
    others = {family: f" · {services.family_title(family)}" for family in families[1:]}
    return {services.title_of(card) + others.get(card.family, ""): card for card in found}


def report(case: services.Case, card: Card) -> Report:
    """The pair's report of a case.

    Raises:
        CXRLensError: the bundle is broken.
    """
    for _, reading in services.read(case, [card]):
        if isinstance(reading, str):
            raise CXRLensError(reading)
        return reading.report
    raise AssertionError("a report is asked for and none comes")


def pictures(case: services.Case, card: Card) -> Pictures:
    """Pass the case through the filters."""
    found: Pictures = _pictures(services.bundle_key(card), case.key, card, case)
    return found


@st.cache_resource(max_entries=32, show_spinner=False)
def _pictures(bundle: str, image: str, _card: Card, _case: services.Case) -> Pictures:
    from core.explain.filters import filter_views, frequency_responses

    trained, control = _subjects(bundle, image, _card, _case)
    with services.inference():
        views, untrained = (filter_views(each.model, each.image) for each in (trained, control))
        responses = [frequency_responses(each.model, each.image) for each in (trained, control)]
    return Pictures(views.image, views.filtered, untrained.filtered, *responses)


def looks(case: services.Case, card: Card, layer: int | None, head: int | None, roll: bool) -> Looks:
    """Attention to the filters, of the report's words and in summary; see ``core.explain.filters.filter_attention``.

    Raises:
        CXRLensError: there is no such layer or head.
    """
    found: Looks = _looks(services.bundle_key(card), case.key, layer, head, roll, card, case)
    return found


@st.cache_resource(max_entries=256, show_spinner=False)
def _looks(
    bundle: str, image: str, layer: int | None, head: int | None, roll: bool, _card: Card, _case: services.Case
) -> Looks:
    from core.explain.filters import filter_attention

    trained, control = _subjects(bundle, image, _card, _case)
    with services.inference():
        return Looks(*(filter_attention(each, layer, head, roll=roll) for each in (trained, control)))


def layers_and_heads(case: services.Case, card: Card) -> tuple[int, int]:
    """How many layers of the pair's decoder, and heads of each, look at the filters."""
    from core.explain.filters import attention_shape

    trained, _ = _subjects(services.bundle_key(card), case.key, card, case)
    with services.inference():
        return attention_shape(trained)


def needed(case: services.Case, card: Card) -> Values:
    """How far the log-likelihood of the report falls without each filter's token, (13,)."""
    falls: Values = _needed(services.bundle_key(card), case.key, card, case)
    return falls


@st.cache_resource(max_entries=256, show_spinner=False)
def _needed(bundle: str, image: str, _card: Card, _case: services.Case) -> Values:
    from core.explain.methods import explain
    from core.explain.targets import whole_report

    trained, _ = _subjects(bundle, image, _card, _case)
    with services.inference():
        found = explain(trained, whole_report(trained), "occlusion", over="tokens")
    return next(each.values for each in found if each.geometry is None)


def switch_off(case: services.Case, card: Card, off: Sequence[str], how: Literal["token", "filter"]) -> Counterfactual:
    """Write the report again without some filters.

    Raises:
        CXRLensError: a filter is unknown.
    """
    ordered = tuple(name for name in CLUSTERS if name in off)
    found: Counterfactual = _switch_off(services.bundle_key(card), case.key, ordered, how, card, case)
    return found


@st.cache_resource(max_entries=256, show_spinner=False)
def _switch_off(
    bundle: str, image: str, off: tuple[str, ...], how: Literal["token", "filter"], _card: Card, _case: services.Case
) -> Counterfactual:
    from core.explain.counterfactuals import without_filters

    trained, _ = _subjects(bundle, image, _card, _case)
    reference = _case.study.findings if _case.study else None
    with services.inference():
        return without_filters(trained, off, how=how, reference=reference)


@st.cache_resource(max_entries=8, show_spinner=False)
def _subjects(bundle: str, image: str, _card: Card, _case: services.Case) -> tuple[Subject, Subject]:
    """The pair with its report, and the same with untrained filters."""
    from core.explain.filters import with_control
    from core.explain.subject import open_subject

    written = report(_case, _card)
    with services.inference():
        model = services.open_model(_card)
        trained = open_subject(model, services.pixels(_case)(model.image_size), written)
        return trained, with_control(trained)


@dataclass(frozen=True, slots=True)
class Learned:
    """What a filter was trained on.

    Attributes:
        cluster: its name.
        studies: phantom studies of the test split whose impression has the cluster.
        of: of how many.
        examples: sentences of such impressions; none for families that learned from patients.
    """

    cluster: str
    studies: int
    of: int
    examples: tuple[str, ...]


def learned(card: Card, cluster: str) -> Learned:
    """What a filter was trained on, with examples where they are of phantoms."""
    if card.family != services.PHANTOM:
        return Learned(cluster, 0, 0, ())
    known = services.studies()
    texts = [study.cluster_texts[cluster] for study in known.values() if cluster in study.cluster_texts]
    return Learned(cluster, len(texts), len(known), tuple(dict.fromkeys(texts))[:EXAMPLES])


def trust(card: Card) -> Measured | None:
    """What was measured of the pair's CLS attention; None for a family that was not measured."""
    return measured(settings.explanations(), card.family, "ccve", "cls-attention", "report", card.decoder)
