"""What a reader's marks may say, by the rubric of the session.

A mark's ``slot`` names the question it answers. A question with one answer has one slot, so two tabs cannot answer it
twice; errors have a slot each, as a report may have several of a kind. The first four rubrics have marks of their own
kinds; those of every other are answers: `core.reviews.answer_marks`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.observations import OBSERVATIONS
from core.reviews.questions import MarkKind as MarkKind
from core.reviews.questions import Question as Question
from core.reviews.questions import ReviewError as ReviewError
from core.reviews.questions import Rubric as Rubric
from core.reviews.questions import StorageError as StorageError
from core.reviews.rubric_library import shipped_rubrics

RUBRICS: Mapping[str, Rubric] = shipped_rubrics()
"""Those that come with CXR Lens, by name."""


def _first(name: str) -> Question:
    return RUBRICS[name].questions[0]


ERROR_KINDS: Mapping[str, str] = _first("report-quality").explained
"""The six kinds of ReXVal (Yu et al. 2023, doi:10.1016/j.patter.2023.100802)."""
PREFERENCES = ("first", "second", "tie")
SUPPORT = tuple(_first("explanation-helpfulness").options.values())
"""In rising order."""
STATE_WORDS: Mapping[str, str] = _first("observation-labels").options
"""States of an observation as a reader is asked for them."""

COMMENT_LIMIT = 10_000
"""Characters."""
MOST_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Mark:
    """One answer of a reader.

    Attributes:
        kind: of the rubric.
        report: blinded name of the report it is about; empty for a mark of the whole case.
        value: by kind.
            error: "error" in `ERROR_KINDS`, "significant" bool; optional "span" and "region".
            preference: "prefer" in `PREFERENCES`, of the screen's two reports in the order shown.
            helpfulness: "support" in `SUPPORT`, "span" of the sentence.
            label: "observation", "state" of `LabelState`.
            answer: see `core.reviews.answer_marks`.
            count: of a third reader, how many there are of what readers counted differently: "question", "count".
            "span" is [start, end) in characters of the report; "region" is [left, top, right, bottom] in fractions
            of the image.
    """

    kind: MarkKind
    report: str
    value: Mapping[str, Any]


_FIELDS: Mapping[str, tuple[set[str], set[str]]] = {  # needed, optional
    "error": ({"error", "significant"}, {"span", "region"}),
    "preference": ({"prefer"}, set()),
    "helpfulness": ({"support", "span"}, set()),
    "label": ({"observation", "state"}, set()),
    "count": ({"question", "count"}, set()),
}


def check_mark(
    mark: Mark, rubric: Rubric, reports: Mapping[str, str], disputed: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Refuse a mark that the rubric has no question for.

    Args:
        reports: text of each report on the screen, by blinded name.
        disputed: of a third reader's screen: what is to be settled.

    Raises:
        ReviewError: what is wrong with it.
    """
    if mark.kind == "count":
        _check_count(mark, disputed)
        return
    if mark.kind != rubric.mark:
        raise ReviewError(f"A mark of kind '{mark.kind}' does not belong to the rubric {rubric.name} ({rubric.mark}).")
    if mark.kind == "answer":
        from core.reviews.answer_marks import check_answer

        check_answer(mark, rubric, reports)
        return
    of_report = mark.kind in ("error", "helpfulness")
    check_report(mark, of_report, reports)
    check_fields(mark, *_FIELDS[mark.kind])
    choices: Mapping[str, tuple[Any, ...]] = {
        "error": tuple(ERROR_KINDS),
        "significant": (True, False),
        "prefer": PREFERENCES,
        "support": SUPPORT,
        "observation": OBSERVATIONS,
        "state": tuple(STATE_WORDS),
    }
    for name in _FIELDS[mark.kind][0] & choices.keys():
        value = mark.value[name]
        if value not in choices[name] or (name == "significant") is not isinstance(value, bool):
            raise ReviewError(f"'{name}' is one of {', '.join(map(str, choices[name]))}; got {value!r}.")
    check_places(mark, reports)


def check_report(mark: Mark, of_report: bool, reports: Mapping[str, str]) -> None:
    """Refuse a mark whose report is not on the screen, or that should have none."""
    if of_report and mark.report not in reports:
        raise ReviewError(f"There is no report '{mark.report}' on this screen; it shows {', '.join(reports)}.")
    if not of_report and mark.report:
        raise ReviewError(f"A mark of kind '{mark.kind}' is about the whole case, not about report '{mark.report}'.")


def check_fields(mark: Mark, needed: set[str], optional: set[str]) -> None:
    """Refuse a mark that lacks a field, or has a foreign one."""
    found = set(mark.value)
    if needed - found or found - needed - optional:
        raise ReviewError(
            f"A mark of kind '{mark.kind}' has the fields {sorted(needed)} and may have {sorted(optional)}; "
            f"missing {sorted(needed - found)}, unknown {sorted(found - needed - optional)}."
        )


def check_places(mark: Mark, reports: Mapping[str, str]) -> None:
    """Refuse words or a region that cannot be there."""
    if "span" in mark.value:
        _check_span(mark.value["span"], reports[mark.report])
    if "region" in mark.value:
        _check_region(mark.value["region"])


def _check_count(mark: Mark, disputed: Sequence[Mapping[str, Any]]) -> None:
    check_fields(mark, *_FIELDS["count"])
    counted = [(each["report"], each["question"]) for each in disputed if all(map(_is_count, each["answers"]))]
    if (mark.report, mark.value["question"]) not in counted:
        raise ReviewError("A number is given only by a third reader, for what readers counted differently.")
    if not _is_count(mark.value["count"]) or not 0 <= mark.value["count"] <= MOST_COUNTED:
        raise ReviewError(f"'count' is a whole number from 0 to {MOST_COUNTED}; got {mark.value['count']!r}.")


def _is_count(value: Any) -> bool:
    return type(value) is int


def _check_span(span: Any, text: str) -> None:
    whole = isinstance(span, list) and len(span) == 2 and all(type(each) is int for each in span)
    if not whole or not 0 <= span[0] < span[1] <= len(text):
        raise ReviewError(f"'span' is [start, end) within the {len(text)} characters of the report; got {span!r}.")


def _check_region(region: Any) -> None:
    numbers = isinstance(region, list) and len(region) == 4 and all(type(each) in (int, float) for each in region)
    if not numbers or not (0 <= region[0] < region[2] <= 1 and 0 <= region[1] < region[3] <= 1):
        raise ReviewError(f"'region' is [left, top, right, bottom] in fractions of the image; got {region!r}.")


def question_in_words(rubric: Rubric, question: str, text: str) -> str:
    """A question of `answers.answers_of` as a person reads it; ``text`` is that of its report, if it has one."""
    if rubric.mark == "answer":
        from core.reviews.answer_marks import label_in_words

        return label_in_words(rubric, question, text)
    if rubric.mark == "helpfulness":
        start, end = map(int, question.split("-"))
        return f"“{text[start:end]}”"
    return f"{question}, how many significant" if rubric.mark == "error" else question


def answer_in_words(rubric: Rubric, value: Any, question: str = "") -> str:
    """An answer of `answers.answers_of` to ``question`` as a person reads it."""
    if rubric.mark == "answer" and question:
        return rubric.of_label(question).in_words(value)
    if rubric.mark == "helpfulness":
        return SUPPORT[int(value)]
    if rubric.mark == "label":
        return STATE_WORDS[value]
    return "no difference" if value == "tie" else str(value)


def slot_of(mark: Mark, key: str) -> str:
    """Name the question that a mark answers; ``key`` tells the errors of one report apart."""
    if mark.kind == "count":
        return f"count/{mark.report}/{mark.value['question']}"
    if mark.kind == "answer":
        from core.reviews.answer_marks import answer_slot

        return answer_slot(mark)
    if mark.kind == "error":
        return f"error/{mark.report}/{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    if mark.kind == "helpfulness":
        return f"helpfulness/{mark.report}/{mark.value['span'][0]}-{mark.value['span'][1]}"
    if mark.kind == "label":
        return f"label/{mark.value['observation']}"
    return mark.kind
