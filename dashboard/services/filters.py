"""In: a case and a bundle with CCVE. Out: the image through each filter, how much each is looked at, and is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from core.bundles.card import Card
from core.explain.measured import Measured, measured
from core.paper.tables import read_table, table_path
from core.registry import token_names
from dashboard import settings
from dashboard.services import bundles, studies
from dashboard.services.kept import kept
from dashboard.services.studies import Case
from dashboard.services.subjects import control, subject

if TYPE_CHECKING:
    from core.explain.counterfactuals import Counterfactual
    from core.explain.filters import FilterAttention, FilterViews


EXAMPLES = 3
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pictures:
    """A radiograph through the trained filters and through random filters that change it as much.

    Attributes:
        image: (H, W), before the filters, as the encoder gets it.
        trained: (13, H, W), grey levels of the image: 0 is black, 1 is white.
        control: the same of the random filters.
        trained_response: (13, F), gain by frequency, from even grey to 0.5 cycles a pixel.
        control_response: the same of the random filters.
    """

    image: Values
    trained: Values
    control: Values
    trained_response: Values
    control_response: Values

    @property
    def change(self) -> Values:
        """Mean absolute change of a pixel by each trained filter, (13,), share of the grey scale."""
        return np.abs(self.trained - self.image).mean((1, 2))


@dataclass(frozen=True, slots=True)
class Looks:
    """Attention to the filters, of the pair and of the same pair with random filters as strong."""

    trained: FilterAttention
    control: FilterAttention


def pairs(case: Case | None) -> dict[str, Card]:
    """Usable pairs that read CCVE's filters, by their title; those of the family that fits the case first.

    Only those of other families are named by it, so that an address stays what it was when a family is added.
    """
    families = bundles.families()
    if case is not None:
        families = tuple(sorted(families, key=lambda family: family != studies.family_for(case)))
    found = [card for family in families for card in bundles.cards(family).values() if token_names(card.encoder)]
    others = {family: f" · {bundles.family_title(family)}" for family in families[1:]}
    return {bundles.title_of(card) + others.get(card.family, ""): card for card in found}


def first_pair(family: str | None = None) -> Card | None:
    """The bundle whose filters are shown: the family's first pair that reads CCVE's filters."""
    return next((card for (encoder, _), card in bundles.cards(family).items() if token_names(encoder)), None)


@kept(32)
def views(case: Case, card: Card) -> FilterViews:
    """Pass the case through the filters: on every page these pictures, in the radiograph's own grey levels."""
    from core.explain.filters import filter_views

    with bundles.inference():
        model = bundles.open_model(card)
        return filter_views(model, studies.pixels(case)(model.image_size, model.fit))


@kept(32)
def pictures(case: Case, card: Card) -> Pictures:
    """Pass the case through the filters, and through random filters that change it as much."""
    from core.explain.filters import filter_views, frequency_responses

    both, seen = (subject(case, card), control(case, card)), views(case, card)
    with bundles.inference():
        untrained = filter_views(both[1].model, both[1].image)
        responses = [frequency_responses(each.model, each.image) for each in both]
    return Pictures(seen.image, seen.filtered, untrained.filtered, *responses)


@kept(256)
def looks(case: Case, card: Card, layer: int | None, head: int | None, roll: bool) -> Looks:
    """Attention to the filters, of the report's words and in summary; see ``core.explain.filters.filter_attention``.

    Raises:
        CXRLensError: there is no such layer or head.
    """
    from core.explain.filters import filter_attention

    both = subject(case, card), control(case, card)
    with bundles.inference():
        return Looks(*(filter_attention(each, layer, head, roll=roll) for each in both))


def layers_and_heads(case: Case, card: Card) -> tuple[int, int]:
    """How many layers of the pair's decoder, and heads of each, look at the filters."""
    from core.explain.filters import attention_shape

    trained = subject(case, card)
    with bundles.inference():
        return attention_shape(trained)


@kept(256)
def needed(case: Case, card: Card) -> Values:
    """How far the log-likelihood of the report falls without each filter's token, (13,)."""
    from core.explain.methods import explain
    from core.explain.targets import whole_report

    trained = subject(case, card)
    with bundles.inference():
        found = explain(trained, whole_report(trained), "occlusion", over="tokens")
    return next(each.values for each in found if each.geometry is None)


@kept(256)
def switch_off(case: Case, card: Card, off: tuple[str, ...], how: Literal["token", "filter"]) -> Counterfactual:
    """Write the report again without some filters, named in the order of ``CLUSTERS``.

    Raises:
        CXRLensError: a filter is unknown.
    """
    from core.explain.counterfactuals import without_filters

    trained = subject(case, card)
    with bundles.inference():
        return without_filters(trained, off, how=how, reference=case.reference)


@dataclass(frozen=True, slots=True)
class Learned:
    """What a filter was trained on.

    Attributes:
        cluster: its name.
        studies: studies of the test split whose impression has the cluster.
        of: of how many.
        examples: sentences of such impressions; none for families that learned from patients.
        absent: whether CLIP was also trained to tell these images from others without the cluster.
    """

    cluster: str
    studies: int
    of: int
    examples: tuple[str, ...]
    absent: bool


def learned(card: Card, cluster: str) -> Learned:
    """What a filter was trained on, with examples where they are of no patient."""
    absent = bool(card.content.get("config", {}).get("cluster_clip", {}).get("absent"))
    if not bundles.synthetic(card.family):
        return Learned(cluster, 0, 0, (), absent)
    known = studies.visible_studies()
    texts = [study.cluster_texts[cluster] for study in known.values() if cluster in study.cluster_texts]
    return Learned(cluster, len(texts), len(known), tuple(dict.fromkeys(texts))[:EXAMPLES], absent)


LIKENESS = "likeness"
SIGNS: Mapping[str, str] = {
    LIKENESS: "Likeness to the wording of its finding",
    "cls-attention": "Attention before the first word",
    "attention": "Attention of the words",
    "occlusion": "How much less likely the report is without the filter",
}
"""What can be shown of a filter -> its name for a reader."""


@dataclass(frozen=True, slots=True)
class Sign:
    """How well something that is shown of a filter tells that the filter's finding is there.

    Attributes:
        name: key of ``SIGNS``.
        auc: area under the ROC curve, mean over filters, with its 95 % interval (value, low, high); 0.5 is chance.
        studies: that it was measured on.
        note: one more sentence of what was measured, or nothing.
        controls: the same AUC with random filters as strong as the learned ones, and without any, by their names;
            of the likeness, which needs no decoder.
    """

    name: str
    auc: tuple[float, float, float]
    studies: int
    note: str
    controls: tuple[tuple[str, float], ...] = ()


def signs(card: Card) -> tuple[Sign, ...]:
    """What was measured of the pair's signs, the best first; empty where nothing was.

    Raises:
        TableError: the table is damaged.
    """
    path = table_path(settings.result_tables(), card.family, "filters")
    if card.encoder != "ccve" or not path.is_file():
        return ()
    table, found = read_table(path), []
    rows = [row for row in table.rows if row.keys.get("design") == "bundles" and "presence" in row.metrics]
    controls = tuple((row.keys["filters"], row.metrics["presence"].value) for row in rows if row.kind == "control")
    for row in rows:
        name = row.keys.get("sign", LIKENESS if row.keys.get("filters") == "learned" else "")
        cell = row.metrics["presence"]
        if name not in SIGNS or row.keys.get("decoder", card.decoder) != card.decoder:
            continue
        if cell.low is not None and cell.high is not None:
            auc = (cell.value, cell.low, cell.high)
            alone = name == LIKENESS  # of the encoder: its row tells of trials, not of this sign
            found.append(Sign(name, auc, table.n, "" if alone else row.note, controls if alone else ()))
    return tuple(sorted(found, key=lambda each: -each.auc[0]))


@kept(64)
def likeness(case: Case, card: Card) -> Values | None:
    """How typical each filtered picture is of its finding's wording, (13,), 0 to 1; None where bundles keep no texts.

    See ``core.explain.filters.likeness``.
    """
    from core.explain.filters import likeness as measure

    texts = bundles.cluster_texts(card)
    if texts is None:
        return None
    opened = subject(case, card)
    with bundles.inference():
        return measure(opened, texts)


def trust(card: Card) -> Measured | None:
    """What was measured of the pair's CLS attention; None for a family that was not measured."""
    return measured(settings.explanations(), card.family, "ccve", "cls-attention", "report", card.decoder)
