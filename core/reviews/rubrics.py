"""What a reader is asked: four rubrics, and what a mark of each may say.

A mark's ``slot`` names the question it answers. A question with one answer has one slot, so two tabs cannot answer it
twice; errors have a slot each, as a report may have several of a kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.observations import OBSERVATIONS, LabelState
from core.types import CXRLensError

MarkKind = Literal["error", "preference", "helpfulness", "label"]

ERROR_KINDS: Mapping[str, str] = {
    "false finding": "The report says something that is not there.",
    "omission": "Something that is there is missing.",
    "wrong location": "A finding is in the wrong place.",
    "wrong severity": "A finding is too mild or too severe.",
    "false comparison": "The report compares where nothing can be compared.",
    "missing comparison": "A change from an earlier study is not mentioned.",
}
"""The six kinds of ReXVal (Yu et al. 2023, doi:10.1016/j.patter.2023.100802)."""

PREFERENCES = ("first", "second", "tie")
SUPPORT = ("does not support", "partly supports", "supports")
"""In rising order."""
STATE_WORDS: Mapping[str, str] = {
    LabelState.BLANK.value: "cannot be judged",
    LabelState.NEGATIVE.value: "absent",
    LabelState.UNCERTAIN.value: "uncertain",
    LabelState.POSITIVE.value: "present",
}
"""States of an observation as a reader is asked for them."""

COMMENT_LIMIT = 10_000
"""Characters."""


class ReviewError(CXRLensError):
    """A review cannot do what was asked; the message says why and what to do."""


class StorageError(ReviewError):
    """The database could not do it now, as it is locked or its disk is full; the same may be sent again."""


@dataclass(frozen=True, slots=True)
class Rubric:
    """A template of questions.

    Attributes:
        name: as a design writes it.
        version: rises when a question changes.
        mark: kind of the marks that answer it.
        question: for the reader.
        reports_per_screen: how many reports a screen shows unless the design says otherwise; 0 is none.
        scale: of the answers, for agreement.
    """

    name: str
    version: int
    mark: MarkKind
    question: str
    reports_per_screen: int
    scale: Literal["nominal", "ordinal", "interval"]


RUBRICS: Mapping[str, Rubric] = {
    each.name: each
    for each in (
        Rubric(
            "report-quality",
            1,
            "error",
            "Mark each error of the report: its kind, and whether it is clinically significant.",
            1,
            "interval",
        ),
        Rubric("preference", 1, "preference", "Which of the two reports would you rather sign?", 2, "nominal"),
        Rubric(
            "explanation-helpfulness",
            1,
            "helpfulness",
            "Does the highlighted region or filter support the sentence?",
            1,
            "ordinal",
        ),
        Rubric(
            "observation-labels", 1, "label", "State each of the 14 observations from the image alone.", 0, "nominal"
        ),
    )
}


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
            "span" is [start, end) in characters of the report; "region" is [left, top, right, bottom] in fractions
            of the image.
    """

    kind: MarkKind
    report: str
    value: Mapping[str, Any]


_FIELDS: Mapping[MarkKind, tuple[set[str], set[str]]] = {  # needed, optional
    "error": ({"error", "significant"}, {"span", "region"}),
    "preference": ({"prefer"}, set()),
    "helpfulness": ({"support", "span"}, set()),
    "label": ({"observation", "state"}, set()),
}


def check_mark(mark: Mark, rubric: Rubric, reports: Mapping[str, str]) -> None:
    """Refuse a mark that the rubric has no question for.

    Args:
        reports: text of each report on the screen, by blinded name.

    Raises:
        ReviewError: what is wrong with it.
    """
    if mark.kind != rubric.mark:
        raise ReviewError(f"A mark of kind '{mark.kind}' does not belong to the rubric {rubric.name} ({rubric.mark}).")
    of_report = mark.kind in ("error", "helpfulness")
    if of_report and mark.report not in reports:
        raise ReviewError(f"There is no report '{mark.report}' on this screen; it shows {', '.join(reports)}.")
    if not of_report and mark.report:
        raise ReviewError(f"A mark of kind '{mark.kind}' is about the whole case, not about report '{mark.report}'.")
    needed, optional = _FIELDS[mark.kind]
    found = set(mark.value)
    if needed - found or found - needed - optional:
        raise ReviewError(
            f"A mark of kind '{mark.kind}' has the fields {sorted(needed)} and may have {sorted(optional)}; "
            f"missing {sorted(needed - found)}, unknown {sorted(found - needed - optional)}."
        )
    choices: Mapping[str, tuple[Any, ...]] = {
        "error": tuple(ERROR_KINDS),
        "significant": (True, False),
        "prefer": PREFERENCES,
        "support": SUPPORT,
        "observation": OBSERVATIONS,
        "state": tuple(map(str, LabelState)),
    }
    for name in needed & choices.keys():
        value = mark.value[name]
        if value not in choices[name] or (name == "significant") is not isinstance(value, bool):
            raise ReviewError(f"'{name}' is one of {', '.join(map(str, choices[name]))}; got {value!r}.")
    if "span" in found:
        _check_span(mark.value["span"], reports[mark.report])
    if "region" in found:
        _check_region(mark.value["region"])


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
    if rubric.mark == "helpfulness":
        start, end = map(int, question.split("-"))
        return f"“{text[start:end]}”"
    return f"{question}, how many significant" if rubric.mark == "error" else question


def answer_in_words(rubric: Rubric, value: Any) -> str:
    """An answer of `answers.answers_of` as a person reads it."""
    if rubric.mark == "helpfulness":
        return SUPPORT[int(value)]
    if rubric.mark == "label":
        return STATE_WORDS[value]
    return "no difference" if value == "tie" else str(value)


def slot_of(mark: Mark, key: str) -> str:
    """Name the question that a mark answers; ``key`` tells the errors of one report apart."""
    if mark.kind == "error":
        return f"error/{mark.report}/{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    if mark.kind == "helpfulness":
        return f"helpfulness/{mark.report}/{mark.value['span'][0]}-{mark.value['span'][1]}"
    if mark.kind == "label":
        return f"label/{mark.value['observation']}"
    return mark.kind
