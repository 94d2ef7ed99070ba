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
from core.observations import ASSERTED, NO_FINDING, OBSERVATIONS, LabelState, findings
from core.types import CXRLensError
from dashboard import session
from dashboard.services import bundles, evaluations, reports, studies, systems
from dashboard.services.evaluations import ResultSet

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
# Without references nothing is right or wrong.
PLAIN_AGREEMENTS = (EVERYWHERE, DISAGREE)
PLAIN_ORDERS = (AS_EVALUATED, MOST_DISAGREEMENT)

# Names in the address; a widget of another page with the same key would keep its own choice when a link leads here.
KEYS = {
    name: f"case_{name}"
    for name in ("run", "pairs", "observation", "outcome", "agreement", "slice", "text", "order", "page")
}

Outcomes = Mapping[str, Outcome | LabelState]
"""Of a report: what became of each observation; without a reference, what the report says of it."""


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
        reference: pieces of the reference report; None where there is none.
        cells: one a pair.
        here: whether it opens on the Read page.
        changed: whether its source has another report of it now than the reference.
    """

    study_id: str
    about: str
    picture: bytes | None
    reference: Sequence[Mapping[str, Any]] | None
    cells: Sequence[Cell]
    here: bool = False
    changed: bool = False


def _asked(outcomes: Outcomes, observation: str) -> dict[str, Outcome | LabelState]:
    """The outcomes that count: one observation's, or all but No Finding's, which follows from the others."""
    if observation != ANY:
        return {observation: outcomes[observation]} if observation in outcomes else {}
    return {name: outcome for name, outcome in outcomes.items() if name != NO_FINDING}


def _said(found: Evaluation, name: str, index: int) -> Outcomes:
    if found.referenced:
        return found.outcomes[name][index]
    return {each: state for each, state in found.states[name][index].items() if state in ASSERTED}


def _errors(outcomes: Outcomes) -> int:
    return sum(isinstance(outcome, Outcome) and outcome is not Outcome.FOUND for outcome in outcomes.values())


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
        asked = [_asked(_said(found, name, index), question.observation) for name in question.pairs]
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
    known = found.referenced or any(any(state in ASSERTED for state in each.values()) for each in found.truth)
    named = {NORMAL: ~positive, ABNORMAL: positive} if known else {}
    for way, groups in evaluations.divide(found).items():
        if way != evaluations.BY_FINDING:  # the observation's own control asks that
            named |= {f"{way}: {group}": mask for group, mask in groups.items()}
    return found, named


def rows(found: Evaluation, pairs: Sequence[str], indices: Sequence[int], source_name: str | None = None) -> list[Row]:
    """What the page shows of some studies, as far as whoever looks may see them.

    Args:
        found: the evaluation.
        pairs: names of the systems.
        indices: of the studies.
        source_name: short name of the source that has their images; None where it is not here.
    """
    hidden = studies.kept_back()
    indices = [index for index in indices if found.study_ids[index] not in hidden]
    here = _here([found.study_ids[index] for index in indices], source_name)
    pictures = dict(zip(here, studies.thumbnails(here, source_name), strict=True)) if here else {}
    made = []
    for index in indices:
        study_id, reference = found.study_ids[index], found.references[index]
        made.append(
            Row(
                study_id,
                _about(found, index),
                pictures.get(study_id),
                reports.segments(reference, reports.label(reference)) if found.referenced else None,
                [_cell(found, name, index) for name in pairs],
                study_id in pictures,
                found.referenced
                and study_id in pictures
                and studies.study(study_id, source_name).findings != reference,
            )
        )
    return made


def _here(study_ids: Sequence[str], source_name: str | None) -> list[str]:
    """Those of some studies that their source has, and shows to whoever looks."""
    if source_name is None:
        return []
    try:
        known = studies.visible_studies(source_name)
    except CXRLensError:  # the source cannot be opened any more; its reports can be read
        return []
    return [study_id for study_id in study_ids if study_id in known]


def _about(found: Evaluation, index: int) -> str:
    truth = found.truth[index]
    normal = found.referenced or truth[NO_FINDING] in ASSERTED
    return ", ".join(findings(truth)) or (NO_FINDING if normal else "")


def _cell(found: Evaluation, name: str, index: int) -> Cell:
    text = found.texts[name][index]
    outcomes = {each: kind for each, kind in found.outcomes[name][index].items() if each != NO_FINDING}
    return Cell(
        reports.segments(text, reports.label(text), outcomes) or [{"text": "(The model wrote nothing.)"}],
        [each for each, outcome in outcomes.items() if outcome is Outcome.MISSED],
        {kind.value: sum(outcome is kind for outcome in outcomes.values()) for kind in Outcome},
    )


def group_key(key: str, number: int) -> str:
    """The name in the address of a group's choice, counted from 0."""
    return key if number == 0 else f"{key}_{number + 1}"


def address(results: ResultSet, pairs: Sequence[str], **state: str) -> dict[str, str | list[str]]:
    """Query parameters of the Cases page in a state.

    Args:
        results: the evaluation whose reports are shown.
        pairs: names of bundles.
        state: of KEYS, beside "run" and "pairs"; a slice is a name of `named_slices`.
    """
    groups = evaluations.groups_of(results, list(results.rows) or pairs)
    chosen: dict[str, str | list[str]] = {}
    for number, titles in enumerate(groups.values()):
        # An empty choice must stand there too, or the page would take its own.
        chosen[group_key(KEYS["pairs"], number)] = [title for name, title in titles.items() if name in pairs] or [""]
    name = evaluations.source_of(results)
    where = {} if name is None else {session.SOURCE: name}
    state = {"run": results.title, **state}
    return {**where, **chosen, **{KEYS[each]: value for each, value in state.items()}}


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
    """A system's name with the beginning of its content's hash, so that a figure says what wrote it."""
    card = bundles.card_named(name)
    if card is None and (other := systems.named(name)) is not None:
        return f"{name} {other.content_hash()[:12]}"
    return f"{name} {card.content['sha256']['model.safetensors'][:12]}" if card else name
