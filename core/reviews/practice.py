"""Practice cases: read before the first case, with feedback after each. They enter no figure, file or time limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.observations import OBSERVATIONS
from core.reviews.questions import ReviewError, Rubric
from core.reviews.rubrics import ERROR_KINDS, answer_in_words, question_in_words

if TYPE_CHECKING:
    from core.reviews.schema import AnyRow

ALL_ERRORS = "all kinds"
PREFER = "prefer"
"""Names of what is expected, where a rubric has no questions of its own."""


@dataclass(frozen=True, slots=True)
class Practice:
    """A practice case, as the researcher writes it.

    Attributes:
        study: among the cases; it is read for practice only.
        models: whose reports are shown, in this order; as many as the rubric shows.
        expected: answers, each as "question = answer" in the rubric's own names, as "score = 2" or "Edema = positive";
            of errors how many of a kind, as "omission = 1"; of a preference "prefer = MODEL".
        why: what readers are told afterwards.
    """

    study: str
    models: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    why: str = ""


def check_practice(cases: Sequence[Practice], rubric: Rubric) -> None:
    """Refuse practice that a rubric cannot have.

    Raises:
        ReviewError: which, and why.
    """
    ids = [each.study for each in cases]
    if len(set(ids)) != len(ids):
        raise ReviewError("practice: a study is named twice.")
    for each in cases:
        where = f"practice, study {each.study}"
        if len(each.models) != rubric.reports_per_screen or len(set(each.models)) != len(each.models):
            raise ReviewError(
                f"{where}: the rubric {rubric.name} shows {rubric.reports_per_screen} reports; name them."
            )
        for line in each.expected:
            question, _ = _expected(line, where)
            _check_question(question, rubric, where)


def _expected(line: str, where: str = "practice") -> tuple[str, str]:
    question, sign, answer = line.rpartition("=")
    if not sign or not question.strip() or not answer.strip():
        raise ReviewError(f"{where}: '{line}' is not written as question = answer.")
    return question.strip(), answer.strip()


def _check_question(question: str, rubric: Rubric, where: str) -> None:
    if rubric.mark == "answer":
        rubric.of_label(question)
        return
    known = {"error": (*ERROR_KINDS, ALL_ERRORS), "preference": (PREFER,), "label": OBSERVATIONS}.get(rubric.mark)
    if known is not None and question not in known:
        raise ReviewError(f"{where}: nothing is called '{question}'; there are {', '.join(known)}.")


@dataclass(frozen=True, slots=True)
class Feedback:
    """What was expected of one question, and what the reader answered, in words.

    Attributes:
        asked: the question.
        expected: the answer.
        given: the reader's; empty for none.
        right: whether they are the same.
    """

    asked: str
    expected: str
    given: str
    right: bool


def feedback(practice: Practice, rubric: Rubric, screen: AnyRow, mark_rows: Sequence[AnyRow]) -> list[Feedback]:
    """Compare what a reader answered on a finished practice screen with what was expected."""
    from core.reviews.answers import answers_of

    rows = answers_of(rubric, [screen], {screen.id: list(mark_rows)})
    given: Mapping[str, Any] = {PREFER if rubric.mark == "preference" else row[5]: row[6] for row in rows}
    letters = {model: f"report {letter}" for letter, model in screen.shown}
    found = []
    for line in practice.expected:
        question, wanted = _expected(line)
        answer = given.get(question)
        right = answer is not None and str(answer) == wanted
        asked = "Which report is better?" if question == PREFER else question_in_words(rubric, question, "")
        if rubric.mark == "error":
            asked = f"{question.capitalize()}: clinically significant errors"
        values = [
            letters.get(str(each)) or answer_in_words(rubric, _typed(str(each)), "" if question == PREFER else question)
            for each in (wanted, *(() if answer is None else (answer,)))
        ]
        found.append(Feedback(asked, values[0], values[1] if len(values) > 1 else "", right))
    return found


def _typed(value: str) -> int | str:
    return int(value) if value.lstrip("-").isdigit() else value
