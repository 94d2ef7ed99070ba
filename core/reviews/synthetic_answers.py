"""What a synthetic reader of a rehearsal answers to the questions of a rubric, and as a third reader.

Every question has an answer that is true of the case, the report or the sentence, and that readers mostly give; none
contradicts another, as the store would refuse it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from core.files import hash_of
from core.reviews.answer_marks import Row, check_together, is_answered, rows_of_screen
from core.reviews.questions import CANNOT_JUDGE, NONE, TIE, Question
from core.reviews.rubrics import SUPPORT, Mark, ReviewError, check_mark
from core.reviews.store import ReaderScreen

if TYPE_CHECKING:
    from core.reviews.rehearsal import World

_AGREES = 0.8
"""How often a reader chooses what is true."""
_TEXTS = {"text": "As a synthetic reader would say it.", "replacement": "No such finding."}


def answer_questions(
    screen: ReaderScreen, models: Mapping[str, str], world: World, random: np.random.Generator
) -> list[Mark]:
    """Answers to all questions that a screen asks, those that hang on other answers too.

    Args:
        screen: as its reader sees it, without answers.
        models: by the name of the report.
        world: what is true.
        random: of this reader and screen.
    """
    texts = dict(screen.reports)
    marks: list[Mark] = []
    seen = {Row(each, name).slot for each in screen.rubric.questions if each.kind == "edit" for name in texts}
    while row := next(
        (
            each
            for each in rows_of_screen(screen.rubric, texts, marks)
            if each.slot not in seen and not is_answered(each, marks)
        ),
        None,
    ):
        seen.add(row.slot)
        for made in _candidates(row, screen, models, world, random):
            if _fits(made, screen, marks):
                marks += made
                break
    return marks


def _fits(made: list[Mark], screen: ReaderScreen, others: list[Mark], settles: bool = False) -> bool:
    """Whether the store would take these marks beside others."""
    beside = list(others)
    for mark in made:
        try:
            check_mark(mark, screen.rubric, dict(screen.reports), screen.disputed)
            check_together(mark, screen.rubric, beside, settles=settles)
        except ReviewError:
            return False
        beside.append(mark)
    return True


def _candidates(
    row: Row, screen: ReaderScreen, models: Mapping[str, str], world: World, random: np.random.Generator
) -> Iterator[list[Mark]]:
    """Answers to a question in its place, the likeliest first."""
    question, model = row.question, models.get(row.report, "")
    true = world.random("true", screen.study_id, model, question.id, row.item, row.span, row.finding)
    if question.kind == "mark":
        yield _marked(row, screen, model, world, random)
        return
    for answer in _answers(question, screen, models, world, true, random):
        value: dict[str, Any] = {"question": question.id, "answer": answer}
        value |= {"item": row.item} if row.item else {}
        value |= {"span": list(row.span)} if row.span else {}
        value |= {"finding": row.finding} if row.finding else {}
        yield [Mark("answer", row.report, value)]


def _answers(
    question: Question,
    screen: ReaderScreen,
    models: Mapping[str, str],
    world: World,
    true: np.random.Generator,
    random: np.random.Generator,
) -> Iterator[Any]:
    if question.cannot_judge and random.random() < 0.02:
        yield CANNOT_JUDGE
    if question.kind in _TEXTS:
        yield _TEXTS[question.kind]
    elif question.kind == "preference":
        worse = {
            name: len(world.errors_of(screen.study_id, models[name], text)) + true.normal(0, 1) + random.normal(0, 0.7)
            for name, text in screen.reports
        }
        first, second = sorted(worse, key=worse.__getitem__)[:2]
        yield from (TIE, first) if question.tie and worse[second] - worse[first] < 0.4 else (first, second)
    elif question.kind == "choices":
        chosen = [each for each in question.options if (true.random() < 0.25) is not bool(random.random() < 0.1)]
        yield [each for each in chosen if each not in question.alone]
        yield list(question.alone[:1])
    else:
        steps = [each for each in question.answers() if each not in (CANNOT_JUDGE, NONE)]
        shares = world.planted.shares(question.id, models.values(), steps)
        if shares is not None:
            # What is true of the report is drawn from the shares, and so is what a reader says who does not see it.
            place = int((true if random.random() < _AGREES else random).choice(len(steps), p=shares))
            yield from sorted(steps, key=lambda each: abs(steps.index(each) - place))
            return
        at = true.normal() + random.normal(0, 0.6)
        if question.kind == "choice":
            at = true.normal() if random.random() < _AGREES else random.normal()
        elif len(models) == 1:
            at -= math.log(next(iter(world.systems.get(model, 1.0) for model in models.values())))
        place = min(int(stats.norm.cdf(at / 1.2) * len(steps)), len(steps) - 1)
        yield from sorted(steps, key=lambda each: abs(steps.index(each) - place))


def _marked(row: Row, screen: ReaderScreen, model: str, world: World, random: np.random.Generator) -> list[Mark]:
    """What a reader marks of a report's errors, or of an image; "none" where there is nothing."""
    question, options = row.question, list(row.question.options)
    errors = world.errors_of(screen.study_id, model, dict(screen.reports).get(row.report, ""))
    found = []
    for number, error in enumerate(errors[: 3 if row.report else 1]):
        if random.random() >= _AGREES:
            continue
        kind = options[int(hash_of([str(error["error"]), question.id])[:8], 16) % len(options)]
        value: dict[str, Any] = {"question": question.id, "answer": kind}
        value["id"] = hash_of([screen.id, question.id, row.report, str(number)])[:32]
        if row.report and "words" in question.on and "span" in error:
            value["span"] = error["span"]
        elif "region" in question.on and "words" not in question.on:
            value["region"] = [0.4, 0.4, 0.6, 0.6]
        found.append(Mark("answer", row.report, value))
    return found or [Mark("answer", row.report, {"question": question.id, "answer": NONE})]


def settle_screen(screen: ReaderScreen, random: np.random.Generator) -> list[Mark]:
    """What a third reader answers to what others answered differently: one of the answers given, or a number."""
    marks: list[Mark] = []
    seen: set[tuple[str, str]] = set()
    for each in screen.disputed:
        report, label = str(each["report"]), str(each["question"])
        question = screen.rubric.of_label(label) if screen.rubric.mark == "answer" else None
        for answer in random.permutation(np.array(each["answers"], object)):
            about = (report, label.partition(":")[0] if question and question.kind == "choices" else label)
            mark = _settled(screen, question, report, label, answer)
            if about not in seen and _fits([mark], screen, marks, settles=True):
                seen.add(about)
                marks.append(mark)
    return marks


def _settled(screen: ReaderScreen, question: Question | None, report: str, label: str, answer: Any) -> Mark:
    """A third reader's answer to one dispute."""
    kind = screen.rubric.mark
    if kind == "error" or (question is not None and question.kind == "mark" and answer != CANNOT_JUDGE):
        return Mark("count", report, {"question": label, "count": int(answer)})
    if kind == "preference":
        names = [name for name, _ in screen.reports]
        prefer = "tie" if answer == "tie" else ("first", "second")[names.index(str(answer))]
        return Mark("preference", "", {"prefer": prefer})
    if kind == "label":
        return Mark("label", "", {"observation": label, "state": answer})
    if kind == "helpfulness":
        return Mark(
            "helpfulness", report, {"support": SUPPORT[int(answer)], "span": [int(end) for end in label.split("-")]}
        )
    assert question is not None
    head, _, item = label.partition(": ")
    if question.kind == "choices":
        about, _, option = item.rpartition(", ")
        item, answer = about, answer if answer == CANNOT_JUDGE else [option] if answer == "yes" else []
    value: dict[str, Any] = {"question": question.id, "answer": answer}
    value |= {"item": item} if item else {}
    place = head.partition(" ")[2]
    value |= {"span": [int(end) for end in place.split("-")]} if place else {}
    return Mark("answer", report, value)
