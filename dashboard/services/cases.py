"""In: an evaluation, and what a reader looks for. Out: the studies that fit, in order, as rows with marked texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.evaluation.reports import Evaluation
from core.labels.compare import Outcome
from core.observations import NO_FINDING, OBSERVATIONS, findings
from dashboard.services import bundles, evaluations, reports, studies

ANY = "any"
ALL_STUDIES, NORMAL, ABNORMAL = "all studies", "normal", "abnormal"
EVERYWHERE, DISAGREE, ALL_WRONG, ALL_RIGHT = "any", "models disagree", "all models wrong", "all models right"
AGREEMENTS = (EVERYWHERE, DISAGREE, ALL_WRONG, ALL_RIGHT)
AS_EVALUATED, MOST_ERRORS, FEWEST_ERRORS, MOST_DISAGREEMENT = (
    "by study",
    "most errors",
    "fewest errors",
    "least agreement",
)
ORDERS = (AS_EVALUATED, MOST_ERRORS, FEWEST_ERRORS, MOST_DISAGREEMENT)

OBSERVATION_CHOICES = (ANY, *OBSERVATIONS)
OUTCOME_CHOICES = (ANY, *(kind.value for kind in Outcome))

# Names in the address; a widget of another page with the same key would keep its own choice when a link leads here.
KEYS = {
    name: f"case_{name}"
    for name in ("family", "pairs", "observation", "outcome", "agreement", "slice", "text", "order", "page")
}

Outcomes = Mapping[str, Outcome]


@dataclass(frozen=True, slots=True)
class Question:
    """What a reader looks for.

    Attributes:
        pairs: names of the systems whose reports are shown; the other fields are about these only.
        observation: of OBSERVATIONS, or ANY.
        outcome: at least one pair has it for the observation; an Outcome's value, or ANY.
        agreement: of AGREEMENTS.
        text: words that the reference or a report contains, in any case of letters; "" is in all.
        order: of ORDERS.
    """

    pairs: tuple[str, ...]
    observation: str = ANY
    outcome: str = ANY
    agreement: str = EVERYWHERE
    text: str = ""
    order: str = AS_EVALUATED


@dataclass(frozen=True, slots=True)
class Cell:
    """A pair's report of a study.

    Attributes:
        pieces: the text, cut and marked; see `segments`.
        missed: observations of the reference that it lacks.
        counts: outcome -> how many observations.
    """

    pieces: Sequence[Mapping[str, Any]]
    missed: Sequence[str]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Row:
    """A study.

    Attributes:
        study_id: of it.
        about: findings of the reference, in a line.
        picture: JPEG, or None where the image is not here.
        reference: pieces of the reference report.
        cells: one a pair.
    """

    study_id: str
    about: str
    picture: bytes | None
    reference: Sequence[Mapping[str, Any]]
    cells: Sequence[Cell]


def _asked(outcomes: Outcomes, observation: str) -> dict[str, Outcome]:
    """The outcomes that count: one observation's, or all but No Finding's, which follows from the others."""
    if observation != ANY:
        return {observation: outcomes[observation]} if observation in outcomes else {}
    return {name: outcome for name, outcome in outcomes.items() if name != NO_FINDING}


def _errors(outcomes: Outcomes) -> int:
    return sum(outcome is not Outcome.FOUND for outcome in outcomes.values())


def matching(found: Evaluation, question: Question, within: npt.NDArray[np.bool_] | None = None) -> list[int]:
    """Indices of the studies that fit and that whoever looks may see, in order.

    A pair is wrong about a study where it missed, invented or reversed what is asked about; pairs disagree where their
    outcomes differ.

    Args:
        found: the evaluation.
        question: what is looked for.
        within: (n,) studies that may be shown; None means all.
    """
    words, hidden = " ".join(question.text.lower().split()), studies.kept_back()
    chosen: list[tuple[tuple[int, int], int]] = []
    for index in range(len(found.study_ids)):
        if (within is not None and not within[index]) or found.study_ids[index] in hidden:
            continue
        asked = [_asked(found.outcomes[name][index], question.observation) for name in question.pairs]
        texts = (found.references[index], *(found.texts[name][index] for name in question.pairs))
        if words and not any(words in " ".join(text.lower().split()) for text in texts):
            continue
        if question.outcome != ANY and not any(question.outcome in each.values() for each in asked):
            continue
        if question.outcome == ANY and question.observation != ANY and not any(asked):
            continue  # neither the reference nor a report says it
        errors = [_errors(each) for each in asked]
        if not _agrees(question.agreement, asked, errors):
            continue
        kinds = {name for each in asked for name in each}
        differing = sum(len({each.get(name) for each in asked}) > 1 for name in kinds)
        rank = {
            AS_EVALUATED: (0, 0),
            MOST_ERRORS: (-sum(errors), -differing),
            FEWEST_ERRORS: (sum(errors), differing),
            MOST_DISAGREEMENT: (-differing, -sum(errors)),
        }[question.order]
        chosen.append((rank, index))
    return [index for _, index in sorted(chosen)]


def _agrees(agreement: str, asked: Sequence[Outcomes], errors: Sequence[int]) -> bool:
    if agreement == DISAGREE:
        return any(each != asked[0] for each in asked)
    if agreement == ALL_WRONG:
        return bool(errors) and all(errors)
    if agreement == ALL_RIGHT:
        return not any(errors)
    return True


def named_slices(found: Evaluation) -> dict[str, npt.NDArray[np.bool_]]:
    """Groups of studies by their titles: normal and abnormal ones, then "View: PA" and the like; (n,) each."""
    return _named_slices(found)[1]


# The value holds the evaluation: as long as it is kept, no other has its id. Hashing its labels takes 40 ms.
@st.cache_resource(max_entries=4, show_spinner=False, hash_funcs={Evaluation: id})
def _named_slices(found: Evaluation) -> tuple[Evaluation, dict[str, npt.NDArray[np.bool_]]]:
    positive = np.array([bool(findings(each)) for each in found.truth])
    named = {NORMAL: ~positive, ABNORMAL: positive}
    for way, groups in evaluations.divide(found).items():
        if way != evaluations.BY_FINDING:  # the observation's own control asks that
            named |= {f"{way}: {group}": mask for group, mask in groups.items()}
    return found, named


def rows(found: Evaluation, pairs: Sequence[str], indices: Sequence[int]) -> list[Row]:
    """What the page shows of some studies, as far as whoever looks may see them; pictures where the images are here."""
    known, hidden = studies.visible_studies(), studies.kept_back()
    indices = [index for index in indices if found.study_ids[index] not in hidden]
    here = [found.study_ids[index] for index in indices if found.study_ids[index] in known]
    pictures = dict(zip(here, studies.thumbnails(here), strict=True))
    made = []
    for index in indices:
        study_id, reference = found.study_ids[index], found.references[index]
        made.append(
            Row(
                study_id,
                ", ".join(findings(found.truth[index])) or NO_FINDING,
                pictures.get(study_id),
                reports.segments(reference, reports.label(reference)),
                [_cell(found, name, index) for name in pairs],
            )
        )
    return made


def _cell(found: Evaluation, name: str, index: int) -> Cell:
    text, outcomes = found.texts[name][index], _asked(found.outcomes[name][index], ANY)
    return Cell(
        reports.segments(text, reports.label(text), outcomes) or [{"text": "(The model wrote nothing.)"}],
        [each for each, outcome in outcomes.items() if outcome is Outcome.MISSED],
        {kind.value: sum(outcome is kind for outcome in outcomes.values()) for kind in Outcome},
    )


def data_title(family: str) -> str:
    """Of a family's data: as the page and its address name it."""
    title = bundles.family_title(family)
    return title[0].upper() + title[1:]


def address(pairs: Sequence[str], **state: str) -> dict[str, str | list[str]]:
    """Query parameters of the Cases page in a state.

    Args:
        pairs: names of bundles.
        state: of KEYS, beside "pairs"; a slice is a name of `named_slices`.
    """
    titles = [evaluations.title_of(name) for name in pairs]
    if "family" in state:
        state["family"] = data_title(state["family"])
    return {KEYS["pairs"]: titles, **{KEYS[name]: value for name, value in state.items()}}


def describe(question: Question, part: str) -> str:
    """What was looked for, in a line for the figure's caption."""
    asked = [part]
    if question.observation != ANY or question.outcome != ANY:
        asked.append(" ".join(each for each in (question.observation, question.outcome) if each != ANY))
    if question.agreement != EVERYWHERE:
        asked.append(question.agreement)
    if question.text:
        asked.append(f"with the words '{question.text}'")
    return "; ".join(asked)


def bundle_id(name: str) -> str:
    """A bundle's name with the beginning of its weights' hash, so that a figure says what wrote it."""
    card = bundles.card_named(name)
    return f"{name} {card.content['sha256']['model.safetensors'][:12]}" if card else name
