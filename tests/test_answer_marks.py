"""Answers to a rubric of questions: which are taken, which are asked for, and that browser and server ask the same."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from typing import Any

import pytest

from core.reviews.answer_marks import answer_slot, check_together, missing, rows_of_screen
from core.reviews.database import Database
from core.reviews.questions import Rubric
from core.reviews.rubric_library import shipped_rubrics
from core.reviews.rubric_reader import read_rubric
from core.reviews.rubrics import Mark, ReviewError, check_mark
from core.reviews.store import annotate, close_session, read_screen, remove_mark, save_mark, undo
from core.text import sentence_spans
from dashboard.components.source import FRONTEND
from dashboard.reviews.reading import asked
from tests import needs
from tests.review_cases import ANNA, OWN_RUBRIC, RITA, ROOT, answer, name_on, screens_of, session

TEXT = "The heart is enlarged. There is a small left pleural effusion. No pneumothorax."
SENTENCES = [list(span) for span in sentence_spans(TEXT)]
ID, OTHER_ID = "0" * 31 + "1", "0" * 31 + "2"


def rubric_with(extra: str) -> Rubric:
    return read_rubric(OWN_RUBRIC.split("[[contradictions]]")[0] + extra)


EVERY = rubric_with("""
[[questions]]
id = "errors"
ask = "Mark."
kind = "mark"
of = "report"
on = ["words", "region"]
options = ["false", "omitted"]
[[questions]]
id = "instead"
ask = "Instead?"
kind = "replacement"
of = "finding"
finding = "errors"
when = { question = "errors", is = ["false"] }
required = true
[[questions]]
id = "clear"
ask = "Clear?"
kind = "choice"
of = "sentence"
options = ["yes", "no"]
required = false
[[questions]]
id = "sure"
ask = "Sure?"
kind = "confidence"
of = "case"
[[questions]]
id = "free"
ask = "Free"
kind = "text"
of = "case"
limit = 5
""")


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (answer("score", 2), None),
        (answer("score", "cannot judge"), None),
        (answer("score", 4), "'score' is one of 1, 2, 3; got 4"),
        (answer("score", True), "got True"),
        (answer("score", [1]), "got"),
        (answer("score", 1, ""), "no report ''"),
        (answer("score", 1, item="x"), r"unknown \['item'\]"),
        (answer("nothing", 1), "no question 'nothing'"),
        (answer("why", ["wrong", "long"]), None),
        (answer("why", []), None),
        (answer("why", "wrong"), "is a list of"),
        (answer("why", ["wrong", "wrong"]), "twice"),
        (answer("why", ["wrong", "nothing"]), "stands alone"),
        (answer("errors", "false", id=ID, span=[4, 9]), None),
        (answer("errors", "false", id=ID, region=[0.1, 0.1, 0.2, 0.2]), None),
        (answer("errors", "false", id=ID, region=[0.1, 0.1, 0.1, 0.2]), "'region'"),
        (answer("errors", "false", id="../x"), "32 hexadecimal digits"),
        (answer("errors", "false"), r"missing \['id'\]"),
        (answer("errors", "none"), None),
        (answer("instead", "", finding=ID), None),
        (answer("instead", "x" * 10_001, finding=ID), "0 to 10,000 characters"),
        (answer("clear", "yes", span=SENTENCES[1]), None),
        (answer("clear", "yes", span=[0, 5]), "that of a sentence"),
        (answer("sure", 50, ""), None),
        (answer("sure", 55, ""), "got 55"),
        (answer("sure", 50), "whole case"),
        (answer("free", "short", ""), None),
        (answer("free", " ", ""), "1 to 5 characters"),
        (answer("free", "longer", ""), "1 to 5 characters"),
        (Mark("error", "A", {"error": "omission", "significant": True}), "does not belong"),
        (Mark("count", "A", {"question": "errors: false", "count": 1}), "only by a third reader"),
    ],
)
def test_answers_are_checked(mark: Mark, message: str | None) -> None:
    if message is None:
        check_mark(mark, EVERY, {"A": TEXT})
    else:
        with pytest.raises(ReviewError, match=message):
            check_mark(mark, EVERY, {"A": TEXT})


def test_a_number_is_for_a_third_reader_and_what_was_counted() -> None:
    disputed = [
        {"report": "A", "question": "errors: false", "answers": [0, 2]},
        {"report": "A", "question": "score", "answers": [1, "x"]},
    ]
    check_mark(Mark("count", "A", {"question": "errors: false", "count": 3}), EVERY, {"A": TEXT}, disputed)
    for value in (
        {"question": "errors: false", "count": -1},
        {"question": "errors: false", "count": True},
        {"question": "score", "count": 1},
    ):
        with pytest.raises(ReviewError):
            check_mark(Mark("count", "A", value), EVERY, {"A": TEXT}, disputed)


def test_a_question_is_asked_only_where_its_condition_holds() -> None:
    with pytest.raises(ReviewError, match="not asked here"):
        check_together(answer("why", ["long"]), EVERY, [])
    with pytest.raises(ReviewError, match="not asked here"):
        check_together(answer("why", ["long"]), EVERY, [answer("score", 1, "B")])
    check_together(answer("why", ["long"]), EVERY, [answer("score", 1)])
    false, omitted = answer("errors", "false", id=ID), answer("errors", "omitted", id=OTHER_ID)
    check_together(answer("instead", "x", finding=ID), EVERY, [false, omitted])
    for finding, others in ((OTHER_ID, [false, omitted]), (ID, [omitted]), (ID, [])):
        with pytest.raises(ReviewError, match="not asked here"):
            check_together(answer("instead", "x", finding=finding), EVERY, others)
    with pytest.raises(ReviewError, match="take the other back"):
        check_together(answer("errors", "none"), EVERY, [false])


def test_what_is_missing_is_named_until_all_is_answered() -> None:
    marks: list[Mark] = []

    def left() -> list[str]:
        return [each.split("report A: ")[-1] for each in missing(EVERY, {"A": TEXT}, marks)]

    assert left() == ["How good is it?", "Mark.", "Sure?"]
    marks += [answer("score", 1), answer("errors", "false", id=ID)]
    assert left() == ["Why?", "Instead?", "Sure?"]
    marks += [answer("why", []), answer("instead", "", finding=ID), answer("sure", 0, "")]
    assert left() == []


def test_what_contradicts_is_refused_at_once_and_changes_nothing(database: Database) -> None:
    trial = session(database, 1, rubric="observation-labels")
    screen = screens_of(database, "anna", trial)[0]

    def state(observation: str, value: str, key: str, version: int = 0) -> None:
        mark = Mark("label", "", {"observation": observation, "state": value})
        save_mark(database, ANNA, screen, mark, key=key, version=version)

    state("Edema", "positive", "a")
    state("Support Devices", "positive", "b")  # beside nothing they may be
    with pytest.raises(ReviewError, match="No Finding cannot be present .* Change Edema first."):
        state("No Finding", "positive", "c")
    state("Edema", "negative", "d", 1)
    state("No Finding", "positive", "e")
    for value in ("positive", "uncertain"):
        with pytest.raises(ReviewError, match="Change No Finding first."):
            state("Edema", value, f"f{value}", 2)
    undo(database, ANNA, screen, key="g")
    state("Edema", "uncertain", "h", 2)
    assert {each.mark.value["observation"] for each in read_screen(database, ANNA, screen).marks} == {
        "Edema",
        "Support Devices",
    }


def test_an_own_contradiction_is_of_one_report_only() -> None:
    own = read_rubric(OWN_RUBRIC)
    good, wrong = answer("score", 3), answer("why", ["wrong"])
    with pytest.raises(ReviewError, match="What is good is not wrong"):
        check_together(good, own, [wrong])
    check_together(good, own, [answer("why", ["wrong"], "B")])
    check_together(good, own, [answer("why", ["long"])])


def test_a_finding_goes_with_what_it_asked_and_a_case_is_finished_without(database: Database) -> None:
    trial = session(database, 1, rubric="error-correction")
    screen = screens_of(database, "anna", trial)[0]
    report = name_on(database, screen)
    slot = save_mark(database, ANNA, screen, answer("errors", "false", report, id=ID, span=[0, 3]), key="1").slot
    assert slot == f"answer/errors/{report}/{ID}"
    save_mark(database, ANNA, screen, answer("instead", "No effusion.", report, finding=ID), key="2")
    with pytest.raises(ReviewError, match="Could the error harm"):
        annotate(database, ANNA, screen, key="3", version=1, state="done")
    save_mark(database, ANNA, screen, answer("significant", "yes", report, finding=ID), key="4")
    with pytest.raises(ReviewError, match="wording alone"):
        save_mark(database, ANNA, screen, answer("errors", "wording", report, id=ID), key="5", slot=slot, version=1)
    remove_mark(database, ANNA, screen, slot, key="6", version=1)
    with pytest.raises(ReviewError, match="Mark each error"):
        annotate(database, ANNA, screen, key="7", version=1, state="done")
    save_mark(database, ANNA, screen, answer("errors", "none", report), key="8")
    assert annotate(database, ANNA, screen, key="9", version=1, state="done") == 2
    close_session(database, RITA, trial)


# ------------------------------------------------------------------------------------------ the server and the browser


def _random_marks(rubric: Rubric, reports: dict[str, str], chance: random.Random) -> list[Mark]:
    """Answers as a reader might give them, in any order, until nothing more is asked."""
    marks: list[Mark] = []
    for _ in range(25):
        rows = list(rows_of_screen(rubric, reports, marks))
        row = chance.choice(rows)
        question = row.question
        value: Any = "words"
        if question.kind == "preference":
            value = chance.choice(["tie", "cannot judge", *reports])
        elif question.kind == "choices":
            value = chance.sample(list(question.options), chance.randrange(3))
        elif question.answers():
            value = chance.choice(question.answers())
        place: dict[str, Any] = {"item": row.item} if row.item else {}
        if row.span:
            place["span"] = list(row.span)
        if row.finding:
            place["finding"] = row.finding
        if question.kind == "mark" and value != "none":
            place["id"] = f"{chance.getrandbits(128):032x}"
        mark = answer(question.id, value, row.report, **place)
        try:
            check_mark(mark, rubric, reports)
            check_together(mark, rubric, [each for each in marks if answer_slot(each) != answer_slot(mark)])
        except ReviewError:
            continue
        marks = [each for each in marks if answer_slot(each) != answer_slot(mark)] + [mark]
    return marks


@needs.NODE.unless(shutil.which("node") is not None)
def test_the_browser_asks_what_the_server_asks() -> None:
    """For random answers to every rubric form.js and answer_marks.py have the same rows, and miss the same."""
    told, expected = [], []
    chance = random.Random(5)
    rubrics = [each for each in shipped_rubrics().values() if each.mark == "answer"] + [EVERY]
    for rubric in rubrics * 4:
        reports = dict.fromkeys(("A", "B")[: rubric.reports_per_screen], TEXT)
        marks = _random_marks(rubric, reports, chance)
        rows = list(rows_of_screen(rubric, reports, marks))
        texts = [{"name": name, "text": TEXT, "sentences": SENTENCES} for name in reports]
        view = {
            "reports": texts,
            "disputed": [],
            "marks": [{"kind": m.kind, "report": m.report, "value": dict(m.value)} for m in marks],
        }
        told.append({"questions": [asked(each) for each in rubric.questions], "view": view})
        expected.append([sorted(row.slot for row in rows), bool(missing(rubric, reports, marks))])
    script = f"""
      import {{ missingAnswers, rowsOf }} from {json.dumps((FRONTEND / "reading" / "form.js").as_uri())}
      let text = ""
      for await (const part of process.stdin) text += part
      console.log(JSON.stringify(JSON.parse(text).map(({{ questions, view }}) =>
        [rowsOf(questions, view).map(({{ slot }}) => slot).sort(), missingAnswers(questions, view) !== ""])))
    """
    done = subprocess.run(
        ["node", "--no-warnings", "--input-type=module", "-e", script],
        input=json.dumps(told), capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert json.loads(done.stdout) == expected
    assert sum(len(rows) for rows, _ in expected) > 100
