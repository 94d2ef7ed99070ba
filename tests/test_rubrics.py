"""Rubrics as files: what is wrong with one, what a session keeps of it, and which answers go together."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from core.observations import OBSERVATIONS, LabelState
from core.reviews.backup import verify
from core.reviews.database import Database
from core.reviews.questions import KINDS, SUBJECTS
from core.reviews.rubric_library import find_rubric, own_rubrics, shipped_rubrics
from core.reviews.rubric_reader import RubricError, read_rubric
from core.reviews.rubrics import ERROR_KINDS, RUBRICS, STATE_WORDS, SUPPORT, Mark, ReviewError
from core.reviews.schema import sessions
from core.reviews.store import list_sessions, read_screen, save_mark
from tests.review_cases import (
    ANNA,
    OWN_RUBRIC,
    RITA,
    ROOT_USER,
    answer,
    design,
    name_on,
    phantom_cases,
    screens_of,
    session,
)
from training.cli import app

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
    assert read_rubric(OWN_RUBRIC).name == "own"
    assert old in OWN_RUBRIC
    with pytest.raises(RubricError) as caught:
        read_rubric(OWN_RUBRIC.replace(old, new, 1), "own.toml")
    assert [each for each in caught.value.faults if fault in each], caught.value.faults
    assert str(caught.value).startswith("own.toml: ") and "Traceback" not in str(caught.value)
    assert all(each.endswith((".", "?")) and "\n" not in each for each in caught.value.faults if "TOML" not in each)


def test_all_faults_are_told_at_once() -> None:
    wrong = (
        OWN_RUBRIC.replace('key = "w"', 'key = "r"')
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
    (folder / "own.toml").write_text(OWN_RUBRIC, encoding="utf-8")
    (folder / "second.toml").write_text(OWN_RUBRIC, encoding="utf-8")
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
    path.write_text(OWN_RUBRIC, encoding="utf-8")
    trial = session(database, 2, rubric="own")
    path.write_text(OWN_RUBRIC.replace("How good is it?", "Changed?").replace('3 = "good"\n', ""), encoding="utf-8")
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


def test_a_design_names_a_rubric_that_lies_beside_it(database: Database, tmp_path: Path) -> None:
    source, (case,) = phantom_cases(count=1)
    (tmp_path / "own.toml").write_text(OWN_RUBRIC, encoding="utf-8")
    (tmp_path / "design.toml").write_text('title = "T"\nrubric = "own.toml"\nreaders = ["anna"]\n', encoding="utf-8")
    (tmp_path / "reports.jsonl").write_text(json.dumps({"study_id": case.study_id, "pair": "Clear."}), encoding="utf-8")
    words = ["create", str(tmp_path / "design.toml"), "--cases", str(tmp_path / "reports.jsonl"), "--images", source]
    done = CliRunner().invoke(app, ["review", *words])
    assert done.exit_code == 0, done.output
    (made,) = list_sessions(database, ROOT_USER)
    assert (made.rubric, made.task) == ("own", "Mine")
    (tmp_path / "own.toml").unlink()
    missing = CliRunner().invoke(app, ["review", *words])
    assert missing.exit_code != 0 and "own.toml: The file cannot be read" in str(missing.exception)


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
