"""What a rubric asks: questions, when each is asked, and which answers contradict each other.

A question is asked once in each of its places: of the case, of the image, of each report, of each sentence of a report,
or of each finding that was marked; with ``items`` once for each of them, as for the 14 observations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from core.types import CXRLensError


class ReviewError(CXRLensError):
    """A review cannot do what was asked; the message says why and what to do."""


class StorageError(ReviewError):
    """The database could not do it now, as it is locked or its disk is full; the same may be sent again."""


MarkKind = Literal["error", "preference", "helpfulness", "label", "answer", "count"]
"""How answers are stored: the four kinds of the first rubrics; "answer" of every other; "count" of a third reader."""
QuestionKind = Literal["scale", "choice", "choices", "text", "mark", "preference", "replacement", "confidence", "edit"]
Subject = Literal["case", "image", "report", "sentence", "finding"]
Scale = Literal["nominal", "ordinal", "interval"]

CANNOT_JUDGE = "cannot judge"
NONE = "none"
"""Answer of a question for marks: there is nothing to mark."""
TIE = "tie"
A_REPORT = "a report"
"""In a condition on a preference: one of the reports is preferred."""

WITH_OPTIONS = ("scale", "choice", "choices", "mark")
WRITTEN = ("text", "replacement")
TEXT_LIMIT = 10_000
"""Characters of a written answer."""


@dataclass(frozen=True, slots=True)
class Condition:
    """That a question has one of some answers.

    Attributes:
        question: its id.
        answers: any of these; empty: any answer but "cannot judge" and "none".
        items: any of these items; empty: the item that is asked about.
    """

    question: str
    answers: tuple[str | int, ...] = ()
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two answers that cannot both be, and what the reader is told."""

    one: Condition
    other: Condition
    words: str


@dataclass(frozen=True, slots=True)
class Rest:
    """What one key answers for every item that has no answer yet.

    Attributes:
        answer: of all of them.
        nothing: the item that says that there is nothing, answered ``nothing_answer`` if all others have ``answer``.
        nothing_answer: see above.
        beside: items that may be there beside nothing.
    """

    answer: str
    nothing: str = ""
    nothing_answer: str = ""
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a rubric.

    Attributes:
        id: names it in answers and files.
        ask: for the reader.
        kind: how it is answered.
        of: what it is asked of.
        options: answers with their words, in the order of the keys; of a scale by its steps, of marks their kinds.
        explained: more words for an option.
        items: each asked for; empty: asked once.
        required: a case is finished only with an answer.
        cannot_judge: may be answered "cannot judge".
        key: letter that goes to it.
        when: asked only then.
        finding: of "finding": the question whose marks it is asked of.
        on: of marks: what is marked, "words" and "region".
        tie: of a preference: may be "no difference".
        alone: of several choices: options that stand alone.
        rest: what one key answers for all items without an answer.
        limit: characters of a written answer.
    """

    id: str
    ask: str
    kind: QuestionKind
    of: Subject
    options: Mapping[str, str] = field(default_factory=dict)
    explained: Mapping[str, str] = field(default_factory=dict)
    items: tuple[str, ...] = ()
    required: bool = True
    cannot_judge: bool = False
    key: str = ""
    when: Condition | None = None
    finding: str = ""
    on: tuple[str, ...] = ("words",)
    tie: bool = True
    alone: tuple[str, ...] = ()
    rest: Rest | None = None
    limit: int = TEXT_LIMIT

    @property
    def scale(self) -> Scale:
        """Of its answers, for agreement."""
        kinds: Mapping[str, Scale] = {"scale": "ordinal", "confidence": "interval", "mark": "interval"}
        return kinds.get(self.kind, "nominal")

    @property
    def of_text(self) -> bool:
        """Whether it is asked of a report or a part of one."""
        return self.of in ("report", "sentence", "finding")

    def answers(self) -> tuple[str | int, ...]:
        """All that can be named in a condition on it."""
        own: tuple[str | int, ...] = tuple(self.options)
        if self.kind in ("scale", "confidence"):
            own = tuple(int(step) for step in self.options)
        if self.kind == "preference":
            own = (A_REPORT, *((TIE,) if self.tie else ()))
        if self.kind == "mark":
            own = (*own, NONE)
        return (*own, CANNOT_JUDGE) if self.cannot_judge else own

    def in_words(self, answer: Any) -> str:
        """An answer as a person reads it."""
        if isinstance(answer, list):
            return ", ".join(self.options.get(each, str(each)) for each in answer) or "none of these"
        words = None if self.kind == "choices" else self.options.get(str(answer))  # there, "yes" or "no" of an option
        if self.kind == "scale" and words:
            return f"{answer}: {words}"
        return "no difference" if answer == TIE else words or str(answer)


@dataclass(frozen=True, slots=True)
class Rubric:
    """What a reader is asked.

    Attributes:
        name: as a design writes it.
        version: rises when a question changes.
        title: for lists.
        about: one sentence for whoever designs a session.
        question: for the reader, one sentence.
        reports_per_screen: how many reports a screen shows unless the design says otherwise; 0 is none.
        questions: in the order in which they are asked.
        contradictions: answers that cannot both be.
        mark: how its answers are stored.
        source: where it was published.
        text: the file, as it is kept with a session.
    """

    name: str
    version: int
    title: str
    about: str
    question: str
    reports_per_screen: int
    questions: tuple[Question, ...]
    contradictions: tuple[Contradiction, ...] = ()
    mark: MarkKind = "answer"
    source: str = ""
    text: str = ""

    @property
    def scale(self) -> Scale:
        """Of the answers of a rubric with one question."""
        return self.questions[0].scale

    @property
    def edits(self) -> bool:
        """Whether readers edit the report of a screen."""
        return any(each.kind == "edit" for each in self.questions)

    @property
    def compares(self) -> bool:
        """Whether readers compare the reports of a screen with each other."""
        return any(each.kind == "preference" for each in self.questions)

    def find(self, name: str) -> Question:
        """A question by its id.

        Raises:
            ReviewError: there is none.
        """
        for each in self.questions:
            if each.id == name:
                return each
        raise ReviewError(f"The rubric {self.name} has no question '{name}'.")

    def of_label(self, label: str) -> Question:
        """The question that a row of answers is of: see `label_of`."""
        return self.find(label.split(":")[0].split(" ")[0])


def label_of(question: str, item: str = "", place: str = "") -> str:
    """How a row of answers names its question: ``id``, ``id: item`` or option, ``id 12-40`` of a sentence."""
    return f"{question} {place}".rstrip() + (f": {item}" if item else "")


KINDS: tuple[str, ...] = get_args(QuestionKind)
SUBJECTS: tuple[str, ...] = get_args(Subject)
