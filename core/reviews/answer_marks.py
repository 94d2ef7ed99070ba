"""Marks of kind "answer": one answer to one question of a rubric's file, and how the answers of a screen go together.

The value of such a mark holds "question" and "answer"; "item" where the question has items, "span" of the sentence it
is asked of, "finding" where it is asked of a mark. A mark on words or a region is the answer of a question of kind
mark: its "answer" is the kind, it has an "id" of its own (32 hexadecimal digits), and "span" or "region" if it has
a place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.reviews.database import check_text
from core.reviews.questions import (
    A_REPORT,
    CANNOT_JUDGE,
    NONE,
    TIE,
    WRITTEN,
    Condition,
    Question,
    ReviewError,
    Rubric,
    label_of,
)
from core.reviews.rubrics import Mark, check_fields, check_places, check_report
from core.text import sentence_spans

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Row:
    """A question in one of its places, as a reader is asked it.

    Attributes:
        question: asked.
        report: blinded name; empty for one of the case or the image.
        item: of the question's items.
        span: of the sentence.
        finding: id of the mark.
    """

    question: Question
    report: str = ""
    item: str = ""
    span: tuple[int, int] | None = None
    finding: str = ""

    @property
    def slot(self) -> str:
        """Of its answer."""
        return _slot(self.question.id, self.report, self.item or (_dashed(self.span) if self.span else self.finding))

    def in_words(self) -> str:
        """Names it in a message."""
        about = [f"report {self.report}" if self.report else "", self.item]
        return ": ".join(filter(None, (", ".join(filter(None, about)), self.question.ask)))


def _dashed(span: Sequence[int]) -> str:
    return f"{span[0]}-{span[1]}"


def _slot(question: str, report: str, place: str) -> str:
    return f"answer/{question}/{report}/{place}"


def row_of(question: Question, mark: Mark) -> Row:
    """Where a mark stands; of a mark on words it is the finding that it is itself."""
    value = mark.value
    finding = value.get("id", "") if question.kind == "mark" else value.get("finding", "")
    span = tuple(value["span"]) if question.of == "sentence" and "span" in value else None
    return Row(question, mark.report, value.get("item", ""), span, finding)


def answer_slot(mark: Mark) -> str:
    """The slot of an answer, from its value."""
    value = mark.value
    if "id" in value or value.get("answer") == NONE:
        place = value.get("id", NONE)
    else:
        place = value.get("item") or value.get("finding") or (_dashed(value["span"]) if "span" in value else "")
    return _slot(value["question"], mark.report, place)


def check_answer(mark: Mark, rubric: Rubric, reports: Mapping[str, str]) -> None:
    """Refuse an answer that is none to a question of the rubric; what it means beside others is `check_together`.

    Raises:
        ReviewError: what is wrong with it.
    """
    asked = mark.value.get("question")
    question = rubric.find(asked if isinstance(asked, str) else "")
    check_report(mark, question.of_text, reports)
    needed, optional = {"question", "answer"}, set[str]()
    if question.items:
        needed.add("item")
    if question.of == "finding":
        needed.add("finding")
    if question.of == "sentence":
        needed.add("span")
    if question.kind == "mark" and mark.value.get("answer") != NONE:
        needed.add("id")
        optional = {{"words": "span"}.get(each, each) for each in question.on}
    check_fields(mark, needed, optional)
    if question.items and mark.value["item"] not in question.items:
        raise ReviewError(f"'item' is one of {', '.join(question.items)}; got {mark.value['item']!r}.")
    for name in ("id", "finding"):
        if name in mark.value and not (isinstance(mark.value[name], str) and _ID.fullmatch(mark.value[name])):
            raise ReviewError(f"'{name}' is 32 hexadecimal digits; got {mark.value[name]!r}.")
    check_places(mark, reports)
    if question.of == "sentence" and tuple(mark.value["span"]) not in sentence_spans(reports[mark.report]):
        raise ReviewError(f"'span' is that of a sentence; got {mark.value['span']!r}.")
    _check_value(question, mark.value["answer"], reports)


def _check_value(question: Question, answer: Any, reports: Mapping[str, str]) -> None:
    if answer == CANNOT_JUDGE and question.cannot_judge:
        return
    if question.kind == "edit":
        check_text(question.ask, answer, question.limit)
    elif question.kind in WRITTEN:
        check_text(question.ask, answer, question.limit, empty=question.kind == "replacement")
    elif question.kind == "choices":
        if not isinstance(answer, list) or any(each not in question.options for each in answer):
            raise ReviewError(f"'{question.id}' is a list of {', '.join(question.options)}; got {answer!r}.")
        if len(set(answer)) != len(answer):
            raise ReviewError(f"'{question.id}' names an answer twice: {answer!r}.")
        if len(answer) > 1 and (alone := next((each for each in answer if each in question.alone), None)):
            raise ReviewError(f"“{question.options[alone]}” stands alone. Take it back, or the others.")
    else:
        known = [each for each in question.answers() if each not in (A_REPORT, CANNOT_JUDGE)]
        if question.kind == "preference":
            known += list(reports)
        if isinstance(answer, bool) or not isinstance(answer, str | int) or answer not in known:
            raise ReviewError(f"'{question.id}' is one of {', '.join(map(str, known))}; got {answer!r}.")


# -------------------------------------------------------------------------------------------- answers beside each other


def _matches(question: Question, answer: Any, condition: Condition) -> bool:
    if not condition.answers:
        return answer not in (CANNOT_JUDGE, NONE)
    if question.kind == "choices" and isinstance(answer, list):
        return any(each in condition.answers for each in answer)
    if question.kind == "preference" and answer not in (TIE, CANNOT_JUDGE):
        return A_REPORT in condition.answers
    return answer in condition.answers


def _meets(one: Row, other: Row) -> bool:
    """Whether two places are the same, or one lies in the other."""
    return (
        (one.report == other.report or not (one.report and other.report))
        and (one.span == other.span or not (one.span and other.span))
        and (one.finding == other.finding or not (one.finding and other.finding))
    )


def _holds(condition: Condition, at: Row, rubric: Rubric, marks: Iterable[Mark]) -> bool:
    return any(
        mark.value["question"] == condition.question
        and _is_at(condition, at, row_of(question := rubric.find(condition.question), mark))
        and _matches(question, mark.value["answer"], condition)
        for mark in marks
        if mark.kind == "answer"
    )


def _is_at(condition: Condition, at: Row, row: Row) -> bool:
    same_item = row.item in condition.items if condition.items else row.item == at.item or not (row.item and at.item)
    return same_item and _meets(row, at)


def is_asked(row: Row, rubric: Rubric, marks: Sequence[Mark]) -> bool:
    """Whether a question is asked in this place, by its condition; those that it hangs on must be asked too."""
    condition = row.question.when
    if row.question.of == "finding" and not any(each.value.get("id") == row.finding for each in marks):
        return False
    if condition is None:
        return True
    parent = rubric.find(condition.question)
    above = Row(
        parent,
        row.report if parent.of_text else "",
        row.item if parent.items else "",
        row.span if parent.of == "sentence" else None,
        row.finding if parent.of == "finding" or parent.id == row.question.finding else "",
    )
    return _holds(condition, row, rubric, marks) and (parent.kind == "mark" or is_asked(above, rubric, marks))


def check_together(mark: Mark, rubric: Rubric, others: Sequence[Mark], *, settles: bool = False) -> None:
    """Refuse an answer that contradicts another of the screen, or to a question that is not asked there.

    Args:
        mark: the answer, by itself in order.
        rubric: of the session.
        others: the screen's other marks.
        settles: it is a third reader's, who is asked what is disputed, whatever the conditions.

    Raises:
        ReviewError: which it contradicts.
    """
    if mark.kind == "label":
        _check_labels(mark, rubric, others)
    if mark.kind != "answer":
        return
    question = rubric.find(mark.value["question"])
    row = row_of(question, mark)
    if question.kind == "mark":
        nothing = mark.value["answer"] == NONE
        same = [each for each in others if each.report == mark.report and each.value.get("question") == question.id]
        if any((each.value["answer"] == NONE) is not nothing for each in same):
            raise ReviewError("There is something marked, or there is nothing: take the other back first.")
    elif not settles and not is_asked(row, rubric, others):
        raise ReviewError(f"“{question.ask}” is not asked here: it hangs on another answer, or its mark is gone.")
    for each in rubric.contradictions:
        for mine, theirs in ((each.one, each.other), (each.other, each.one)):
            if mine.question != question.id or not _matches(question, mark.value["answer"], mine):
                continue
            if (not mine.items or row.item in mine.items) and _holds(theirs, row, rubric, others):
                raise ReviewError(each.words)


def _check_labels(mark: Mark, rubric: Rubric, others: Sequence[Mark]) -> None:
    """The same for states of observations, whose marks name the item "observation" and the answer "state"."""
    state_of = {each.value["observation"]: each.value["state"] for each in others if each.kind == "label"}
    name, state = mark.value["observation"], mark.value["state"]
    for each in rubric.contradictions:
        for mine, theirs in ((each.one, each.other), (each.other, each.one)):
            if state in mine.answers and name in mine.items:
                against = [item for item in theirs.items if state_of.get(item) in theirs.answers]
                if against:
                    more = f" and {len(against) - 2} more" if len(against) > 3 else ""
                    named = " and ".join(against[: 2 if more else 3])
                    raise ReviewError(f"{each.words} Change {named}{more} first.")


def rows_of_screen(rubric: Rubric, reports: Mapping[str, str], marks: Sequence[Mark]) -> Iterator[Row]:
    """All questions that a screen asks, in their order; those for marks once a report or image."""
    for question in rubric.questions:
        for name in reports if question.of_text else ("",):
            rows = [Row(question, name)]
            if question.items:
                rows = [Row(question, name, item) for item in question.items]
            elif question.of == "sentence":
                rows = [Row(question, name, span=span) for span in sentence_spans(reports[name])]
            elif question.of == "finding":
                rows = [
                    Row(question, name, finding=mark.value["id"])
                    for mark in marks
                    if mark.report == name and mark.value.get("question") == question.finding and "id" in mark.value
                ]
            yield from (row for row in rows if is_asked(row, rubric, marks))


def is_answered(row: Row, marks: Sequence[Mark]) -> bool:
    """Whether a question has an answer; one for marks, whether there are any, or none by the reader's word."""
    if row.question.kind == "mark":
        return any(each.report == row.report and each.value.get("question") == row.question.id for each in marks)
    found = [each for each in marks if each.kind == "answer" and answer_slot(each) == row.slot]
    # While it is written a report may be empty; one to sign is not.
    return any(row.question.kind != "edit" or each.value["answer"].strip() for each in found)


def missing(rubric: Rubric, reports: Mapping[str, str], marks: Sequence[Mark]) -> list[str]:
    """What must still be answered before the screen is finished, in words."""
    return [
        row.in_words()
        for row in rows_of_screen(rubric, reports, marks)
        if row.question.required and not is_answered(row, marks)
    ]


def not_settled(
    rubric: Rubric, disputed: Sequence[Mapping[str, Any]], marks: Sequence[Mark]
) -> list[Mapping[str, Any]]:
    """What a third reader has not answered of what is disputed."""
    return [each for each in disputed if not _is_settled(rubric, each["report"], each["question"], marks)]


def _is_settled(rubric: Rubric, report: str, label: str, marks: Sequence[Mark]) -> bool:
    here = [each for each in marks if each.report == report]
    if any(each.kind == "count" and each.value["question"] == label for each in here):
        return True
    if rubric.mark == "error":
        return any(each.kind == "error" and each.value["error"] == label for each in here)
    if rubric.mark == "preference":
        return any(each.kind == "preference" for each in here)
    if rubric.mark == "label":
        return any(each.kind == "label" and each.value["observation"] == label for each in here)
    if rubric.mark == "helpfulness":
        return any(each.kind == "helpfulness" and _dashed(each.value["span"]) == label for each in here)
    return any(label in labels_of(rubric, each) for each in here if each.kind == "answer")


# ------------------------------------------------------------------------------------------------------ rows of answers


def labels_of(rubric: Rubric, mark: Mark) -> dict[str, Any]:
    """The rows of answers that a mark gives, with their values; none of a text or of what is asked of a finding.

    A mark on words is counted with others of its kind; several choices are a row of "yes" or "no" each.
    """
    question = rubric.find(mark.value["question"])
    answer = mark.value["answer"]
    row = row_of(question, mark)
    if question.kind in ("edit", *WRITTEN) or question.of == "finding":
        return {}
    if question.kind == "mark":
        return {} if answer == NONE else {label_of(question.id, answer): 1}
    place = _dashed(row.span) if row.span else ""
    if question.kind == "choices":
        about = f"{row.item}, " if row.item else ""
        judged = answer != CANNOT_JUDGE
        return {
            label_of(question.id, about + option, place): ("yes" if option in answer else "no") if judged else answer
            for option in question.options
        }
    return {label_of(question.id, row.item, place): answer}


def label_in_words(rubric: Rubric, label: str, text: str) -> str:
    """A row of answers as a person reads it; ``text`` is that of its report, if it has one."""
    question = rubric.of_label(label)
    head, _, item = label.partition(": ")
    about, _, option = item.rpartition(", ")
    if question.kind in ("mark", "choices") and option in question.options:
        item = ": ".join(filter(None, (about, question.options[option])))
    _, _, span = head.partition(" ")
    if span:
        start, end = map(int, span.split("-"))
        item = f"“{text[start:end]}”"
    how_many = ", how many" if question.kind == "mark" else ""
    return f"{question.ask} {item}".strip() + how_many
