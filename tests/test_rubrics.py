"""Rubrics as files: what is wrong with one, what a session keeps of it, and which answers go together."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from core.observations import OBSERVATIONS, LabelState
from core.reviews.answer_marks import answer_slot, check_together, missing, rows_of_screen
from core.reviews.backup import verify
from core.reviews.database import Database
from core.reviews.questions import KINDS, SUBJECTS, Rubric
from core.reviews.rubric_library import find_rubric, own_rubrics, shipped_rubrics
from core.reviews.rubric_reader import RubricError, read_rubric
from core.reviews.rubrics import ERROR_KINDS, RUBRICS, STATE_WORDS, SUPPORT, Mark, ReviewError, check_mark
from core.reviews.schema import sessions
from core.reviews.store import annotate, close_session, list_sessions, read_screen, remove_mark, save_mark, undo
from core.text import sentence_spans
from dashboard.components.source import FRONTEND
from dashboard.reviews.reading import asked
from tests.review_cases import ANNA, RITA, ROOT, design, name_on, screens_of, session
from training.cli import app

TEXT = "The heart is enlarged. There is a small left pleural effusion. No pneumothorax."
SENTENCES = [list(span) for span in sentence_spans(TEXT)]
ID, OTHER_ID = "0" * 31 + "1", "0" * 31 + "2"

OWN = """
name = "own"
title = "Mine"
about = "For tests."
question = "What do you say?"
reports = 1

[[questions]]
id = "score"
ask = "How good is it?"
kind = "scale"
of = "report"
key = "r"
[questions.anchors]
1 = "bad"
2 = "middling"
3 = "good"

[[questions]]
id = "why"
ask = "Why?"
kind = "choices"
of = "report"
key = "w"
when = { question = "score", is = [1] }
alone = ["nothing"]
[questions.options]
wrong = "wrong"
long = "too long"
nothing = "no reason"

[[contradictions]]
words = "What is good is not wrong."
one = { question = "score", is = [3] }
other = { question = "why", is = ["wrong"] }
"""


def answer(question: str, value: Any, report: str = "A", **place: Any) -> Mark:
    return Mark("answer", report, {"question": question, "answer": value, **place})


# ------------------------------------------------------------------------------------------- the files that come along


def test_the_first_four_ask_and_store_what_they_always_did() -> None:
    first = ["report-quality", "preference", "explanation-helpfulness", "observation-labels"]
    assert list(RUBRICS)[:4] == first
    assert [(RUBRICS[name].version, RUBRICS[name].mark, RUBRICS[name].scale) for name in first] == [
        (1, "error", "interval"),
        (1, "preference", "nominal"),
        (1, "helpfulness", "ordinal"),
        (1, "label", "nominal"),
    ]
    assert [RUBRICS[name].reports_per_screen for name in first] == [1, 2, 1, 0]
    assert list(ERROR_KINDS) == [
        "false finding", "omission", "wrong location", "wrong severity", "false comparison", "missing comparison"
    ]  # fmt: skip
    assert SUPPORT == ("does not support", "partly supports", "supports")
    assert tuple(STATE_WORDS) == tuple(map(str, LabelState)) and STATE_WORDS["positive"] == "present"
    (labels,) = RUBRICS["observation-labels"].questions
    assert labels.items == OBSERVATIONS


def test_what_comes_along_uses_every_kind_of_question_and_says_itself_in_a_sentence() -> None:
    questions = [question for rubric in shipped_rubrics().values() for question in rubric.questions]
    assert {each.kind for each in questions} == set(KINDS)
    assert {each.of for each in questions} == set(SUBJECTS)
    for name, rubric in shipped_rubrics().items():
        assert rubric.name == name
        for words in (rubric.about, rubric.question):
            assert re.fullmatch(r"[A-Z].{20,}[.?]", words), words
        if rubric.mark == "answer":  # a scale is never forced on who cannot judge
            assert all(each.cannot_judge for each in rubric.questions if each.kind == "scale")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('id = "why"', 'id = "score"', "Question 'score': it is there twice."),
        ('key = "w"', 'key = "r"', "Question 'why': the key 'r' is that of 'score' already."),
        ('key = "w"', 'key = "n"', "Question 'why': the key 'n' is the page's (next case); free are "),
        ('key = "w"', 'key = "é"', "the key must be one letter"),
        ('kind = "scale"', 'kind = "skale"', "there is no kind 'skale'; there are scale, choice, "),
        ('question = "score", is = [1] }', 'question = "later" }', "'later', which does not exist or comes later."),
        ('question = "score", is = [1] }', 'question = "why" }', "'why', which does not exist or comes later."),
        (
            'question = "score", is = [1] }',
            'question = "score", is = [4] }',
            "'score' is never 4; its answers are 1, 2",
        ),
        ('2 = "middling"\n', "", "the scale goes from 1 to 3, and step 2 has no anchor."),
        ('2 = "middling"', '2 = " "', "'2' in 'anchors' has no words."),
        ('2 = "middling"', 'two = "middling"', "steps of a scale are whole numbers"),
        ('of = "report"\nkey = "w"', 'of = "patient"', "it is asked of case, image, report, sentence, finding"),
        (
            'of = "report"\nkey = "w"',
            'of = "finding"\nfinding = "score"',
            "'score', which is no earlier question of kind mark",
        ),
        ('alone = ["nothing"]', 'alone = ["nobody"]', "'alone' names 'nobody', which is no option."),
        ('alone = ["nothing"]', 'alones = ["nothing"]', "has no 'alones'. Did you mean 'alone'?"),
        ('ask = "Why?"', "", "Question 'why': 'ask' is missing."),
        ("reports = 1", "reports = 0", "it is asked of a report, but a screen shows no report."),
        ("reports = 1", 'reports = "one"', "'reports' must be a whole number, not 'one'."),
        (
            'one = { question = "score", is = [3] }',
            'one = { question = "scores" }',
            "Contradiction 1: the condition is on",
        ),
        ('words = "What is good is not wrong."', "", "Contradiction 1: it has 'one', 'other' and 'words'."),
        ('name = "own"', 'name = "Own file"', "small letters"),
        ('name = "own"', 'name = "own"\nmarks = "error"', "'marks' is for rubrics that come with CXR Lens."),
        ('kind = "choices"', 'kind = "choices', "It cannot be read as TOML"),
    ],
)
def test_each_fault_of_a_file_is_a_sentence(old: str, new: str, fault: str) -> None:
    assert read_rubric(OWN).name == "own"
    assert old in OWN
    with pytest.raises(RubricError) as caught:
        read_rubric(OWN.replace(old, new, 1), "own.toml")
    assert [each for each in caught.value.faults if fault in each], caught.value.faults
    assert str(caught.value).startswith("own.toml: ") and "Traceback" not in str(caught.value)
    assert all(each.endswith((".", "?")) and "\n" not in each for each in caught.value.faults if "TOML" not in each)


def test_all_faults_are_told_at_once() -> None:
    wrong = (
        OWN.replace('key = "w"', 'key = "r"')
        .replace('2 = "middling"\n', "")
        .replace('alone = ["nothing"]', "limit = 3")
    )
    with pytest.raises(RubricError) as caught:
        read_rubric(wrong)
    assert len(caught.value.faults) == 3
    assert "3 faults" in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_told_and_never_a_traceback(seed: int) -> None:
    """Lines lost, doubled and swapped in every file that comes along: a rubric, or sentences."""
    chance = random.Random(seed)
    for rubric in shipped_rubrics().values():
        lines = rubric.text.splitlines()
        at = chance.randrange(len(lines))
        other = chance.randrange(len(lines))
        kind = chance.randrange(4)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(other, lines[at])
        elif kind == 2:
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines[at] = re.sub(
                r"= .*", f"= {chance.choice(['3', '[]', '{}', 'true', '1.5', '[[1]]', '{ a = 1 }', 'nan'])}", lines[at]
            )
        try:
            read_rubric("\n".join(lines), rubric.name)
        except RubricError as error:
            assert error.faults


# --------------------------------------------------------------------------------------------------------- a user's own


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CXR_RUBRICS", str(tmp_path / "rubrics"))
    (tmp_path / "rubrics").mkdir()
    return tmp_path / "rubrics"


def test_own_files_are_found_and_wrong_ones_told(folder: Path) -> None:
    (folder / "own.toml").write_text(OWN, encoding="utf-8")
    (folder / "second.toml").write_text(OWN, encoding="utf-8")
    (folder / "radpeer.toml").write_text(shipped_rubrics()["radpeer"].text, encoding="utf-8")
    (folder / "bytes.toml").write_bytes(b"\xff\xfe")
    found, wrong = own_rubrics()
    assert list(found) == ["own"] and find_rubric("own").title == "Mine"
    told = " ".join(wrong)
    assert "bytes.toml: The file cannot be read" in told
    assert "second.toml: another file has the name 'own'" in told
    assert "'radpeer' is that of a rubric of CXR Lens" in told
    with pytest.raises(ReviewError, match="no rubric 'nothing'; there are report-quality, .*own"):
        find_rubric("nothing")


def test_a_session_keeps_its_rubric_whatever_becomes_of_the_file(folder: Path, database: Database) -> None:
    path = folder / "own.toml"
    path.write_text(OWN, encoding="utf-8")
    trial = session(database, 2, rubric="own")
    path.write_text(OWN.replace("How good is it?", "Changed?").replace('3 = "good"\n', ""), encoding="utf-8")
    screen = screens_of(database, "anna", trial)[0]
    report = name_on(database, screen)
    for gone in (False, True):
        if gone:
            path.unlink()
        shown = read_screen(database, ANNA, screen)
        assert shown.rubric.questions[0].ask == "How good is it?"
        save_mark(database, ANNA, screen, answer("score", 3, report), key=f"k{gone}", version=int(gone))
    assert [each.question for each in list_sessions(database, RITA)] == ["What do you say?"]
    with pytest.raises(ReviewError, match="no rubric 'own'"):
        design(rubric="own")
    verify(database)


def test_sessions_from_before_rubrics_were_kept_open_as_they_were(database: Database) -> None:
    trial = session(database, 1)
    with database.write() as connection:
        kept = connection.scalar(sa.select(sessions.c.design))
        connection.execute(sessions.update().values(design={k: v for k, v in kept.items() if k != "rubric_text"}))
    screen = screens_of(database, "anna", trial)[0]
    assert read_screen(database, ANNA, screen).rubric is RUBRICS["report-quality"]
    mark = Mark("error", name_on(database, screen), {"error": "omission", "significant": True})
    assert re.fullmatch(r"error/\w/[0-9a-f]{32}", save_mark(database, ANNA, screen, mark, key="k").slot)


def test_the_commands_list_show_and_check(folder: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    path = tmp_path / "mine.toml"
    shown = run(app, ["review", "rubric", "show", "radpeer"])
    path.write_text(shown.stdout.replace('name = "radpeer"', 'name = "mine"'), encoding="utf-8")
    checked = run(app, ["review", "rubric", "check", str(path)])
    assert checked.exit_code == 0 and "score: scale of the report" in checked.stdout
    assert "significance: choice of the report, if score is 2 or 3" in checked.stdout
    shutil.copy(path, folder)
    listed = json.loads(run(app, ["review", "rubric", "list", "--json"]).stdout)
    assert [row["name"] for row in listed if row["own"]] == ["mine"]
    assert len(listed) == len(shipped_rubrics()) + 1
    path.write_text(path.read_text(encoding="utf-8").replace("[2, 3]", "[7]"), encoding="utf-8")
    refused = run(app, ["review", "rubric", "check", str(path)])
    assert refused.exit_code != 0 and "'score' is never 7" in str(refused.exception or refused.output)


# ------------------------------------------------------------------------------------------------------------- answers


def rubric_with(extra: str) -> Rubric:
    return read_rubric(OWN.split("[[contradictions]]")[0] + extra)


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
    own = read_rubric(OWN)
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


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
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
