"""Whole sessions with rubrics of questions, without a browser: from answers to rows, figures, disputes and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.reviews.adjudication import adjudicate
from core.reviews.agreement import coincidences
from core.reviews.analysis import Analysis, analyse, settle
from core.reviews.answers import Results, load_results
from core.reviews.database import Database
from core.reviews.export import export
from core.reviews.rubric_library import shipped_rubrics
from core.reviews.rubrics import Mark, ReviewError
from core.reviews.store import (
    Actor,
    ReaderScreen,
    annotate,
    close_session,
    list_sessions,
    read_screen,
    save_mark,
)
from tests.app_pages import words_on
from tests.review_cases import (
    ANNA,
    RITA,
    ROOT_USER,
    TEXTS,
    finish,
    open_app_page,
    screens_of,
    session,
)

CARLA, DORA = Actor("carla", "reader"), Actor("dora", "reader")
MODEL_OF = {text: model for model, text in TEXTS.items()}
Give = Callable[..., None]


def read(database: Database, trial: str, reader: str, answers: Callable[[ReaderScreen, Give], None]) -> None:
    """A reader answers all screens of a session and finishes them."""
    who = Actor(reader, "reader")
    for screen in screens_of(database, reader, trial):
        shown = read_screen(database, who, screen)

        def give(question: str, value: Any, report: str = "", *, screen: str = screen, **place: Any) -> None:
            mark = Mark("answer", report, {"question": question, "answer": value, **place})
            save_mark(database, who, screen, mark, key=f"{screen}/{question}/{report}/{place}/{value}")

        answers(shown, give)
        annotate(database, who, screen, key=f"{screen}/done", version=1, state="done")


def close(database: Database, trial: str) -> tuple[Results, Analysis]:
    close_session(database, RITA, trial)
    results = load_results(database, RITA, trial)
    return results, analyse(results, resamples=100)


def test_radpeer_of_three_readers_is_counted_compared_and_written(database: Database, tmp_path: Path) -> None:
    """Scores worked by hand: all give the reference 1; pair-one gets 2, of boris 3; carla cannot judge pair-two."""
    trial = session(database, 2, rubric="radpeer", readers=("anna", "boris", "carla"))

    def scored(reader: str) -> Callable[[ReaderScreen, Give], None]:
        def give_all(shown: ReaderScreen, give: Give) -> None:
            ((name, text),) = shown.reports
            score = {"reference": 1, "pair-one": 3 if reader == "boris" else 2, "pair-two": 1}[MODEL_OF[text]]
            if reader == "carla" and MODEL_OF[text] == "pair-two":
                give("score", "cannot judge", name)
                return
            give("score", score, name)
            if score > 1:
                give("significance", "b", name)
                give("discrepancy", "<b>wrong side</b>", name)

        return give_all

    for reader in ("anna", "boris", "carla"):
        read(database, trial, reader, scored(reader))
    results, analysis = close(database, trial)
    found = {(row.model, row.question): row for row in analysis.answers}
    assert set(found) == {*((model, "score") for model in TEXTS), ("pair-one", "significance")}
    assert found["reference", "score"].counts == {"1": 6}
    assert found["pair-one", "score"].counts == {"2": 4, "3": 2}
    assert found["pair-one", "score"].mean.value == pytest.approx(14 / 6)
    assert (found["pair-two", "score"].answers, found["pair-two", "score"].cannot_judge) == (6, 2)
    assert np.isnan(found["pair-one", "significance"].mean.value)
    score = next(row for row in analysis.agreement if row.question == "score")
    # 2 studies of each model, as anna, boris and carla scored them: what cannot be judged is no score.
    table = np.array([[1, 1, 1], [2, 3, 2], [1, 1, np.nan]] * 2, float)
    statistics = coincidences(table, "ordinal")
    assert score.alpha.value == pytest.approx(float(statistics.from_sums(statistics.values.sum(0))[0]))
    assert score.units == 6
    assert {row.question for row in analysis.agreement} == {"score", "significance"}
    assert {row.quantity for row in analysis.drift} == {"seconds"}
    # Disputed: boris against the others on pair-one; carla's "cannot judge" against two scores of pair-two.
    assert (analysis.disputed, analysis.settled) == (4, 0)
    export(results, analysis, tmp_path)
    marks = json.loads((tmp_path / "marks.json").read_text(encoding="utf-8"))["marks"]
    assert sum(row["value"]["question"] == "discrepancy" for row in marks) == 6  # the texts are in the marks
    assert {row["value"]["answer"] for row in marks if row["value"]["question"] == "discrepancy"} == {
        "<b>wrong side</b>"
    }
    assert pd.read_parquet(tmp_path / "answers.parquet")["value"].isin(["cannot judge", "b", "1", "2", "3"]).all()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Do you agree with this report?</h2>" in page and "<b>" not in page


def test_an_answer_whose_question_went_away_does_not_count(database: Database) -> None:
    trial = session(database, 1, rubric="radpeer", readers=("anna",), models=("reference",))
    screen = screens_of(database, "anna", trial)[0]
    ((name, _),) = read_screen(database, ANNA, screen).reports

    def give(question: str, value: Any, key: str, version: int = 0) -> None:
        mark = Mark("answer", name, {"question": question, "answer": value})
        save_mark(database, ANNA, screen, mark, key=key, version=version)

    give("score", 2, "a")
    with pytest.raises(ReviewError, match="clinically significant"):
        annotate(database, ANNA, screen, key="b", version=1, state="done")
    give("significance", "a", "c")
    give("score", 1, "d", 1)
    annotate(database, ANNA, screen, key="e", version=1, state="done")
    results, _ = close(database, trial)
    assert results.answers[["question", "value"]].to_numpy().tolist() == [["score", 1]]


def test_preferences_by_finding_name_models_and_their_reasons(database: Database) -> None:
    trial = session(database, 1, rubric="preference-by-finding")

    def prefer(shown: ReaderScreen, give: Give) -> None:
        name_of = {MODEL_OF[text]: name for name, text in shown.reports}
        best = name_of.get("reference", "tie")
        for item in shown.rubric.questions[0].items:
            give("better", "cannot judge" if item.startswith("Lines") else best, item=item)
        give("overall", best)
        if best != "tie":
            give("overall-why", ["complete", "style"])

    for reader in ("anna", "boris"):
        read(database, trial, reader, prefer)
    results, analysis = close(database, trial)
    found = {(row.model, row.question): row for row in analysis.answers}
    both = "pair-one / reference"
    assert found[both, "overall"].counts == {"reference": 2}
    assert found["pair-one / pair-two", "overall"].counts == {"tie": 2}
    assert found[both, "better: Lines, tubes and devices"].cannot_judge == 2
    assert found[both, "overall-why: complete"].counts == {"yes": 2}
    assert found[both, "overall-why: correct"].counts == {"no": 2}
    assert ("pair-one / pair-two", "overall-why: correct") not in found
    assert analysis.disputed == 0
    assert set(results.answers["model"]) == {both, "pair-one / pair-two", "pair-two / reference"}


def test_a_third_reader_settles_only_what_was_answered(database: Database) -> None:
    """Disputes passed without an answer are not settled as none; a number, also 0, or a mark settles."""
    trial = session(database, 2)
    for who, errors in ((ANNA, 0), (Actor("boris", "reader"), 1)):
        for screen in screens_of(database, who.name, trial):
            finish(database, who, screen, errors)
    assert adjudicate(database, RITA, trial, "carla") == 6
    first, second, *others = screens_of(database, "carla", trial)
    for screen in others:
        with pytest.raises(ReviewError, match="Not answered yet: report .*, omission, how many significant."):
            annotate(database, CARLA, screen, key=f"{screen}d", version=1, state="done")
    for screen, kind in ((first, "count"), (second, "error")):
        ((name, _),) = read_screen(database, CARLA, screen).reports
        value = {"count": {"question": "omission", "count": 0}, "error": {"error": "omission", "significant": True}}
        save_mark(database, CARLA, screen, Mark(kind, name, value[kind]), key=screen)  # type: ignore[arg-type]
        annotate(database, CARLA, screen, key=f"{screen}d", version=1, state="done")
    results, analysis = close(database, trial)
    assert (analysis.disputed, analysis.settled) == (6, 2)
    table = settle(results)
    assert sorted(table[table["disputed"] & table["value"].notna()]["value"]) == [0, 1]


def test_disputes_of_questions_are_blind_and_settled_one_by_one(database: Database) -> None:
    trial = session(database, 1, rubric="error-correction", models=("reference",))
    ids = {"anna": "a" * 32, "boris": "b" * 32}

    def correct(reader: str) -> Callable[[ReaderScreen, Give], None]:
        def give_all(shown: ReaderScreen, give: Give) -> None:
            ((name, _),) = shown.reports
            give("errors", "place" if reader == "anna" else "omitted", name, id=ids[reader])
            give("significant", "yes", name, finding=ids[reader])

        return give_all

    for reader in ids:
        read(database, trial, reader, correct(reader))
    assert adjudicate(database, RITA, trial, "carla") == 1
    (screen,) = screens_of(database, "carla", trial)
    shown = read_screen(database, CARLA, screen)
    ((name, _),) = shown.reports
    assert shown.disputed == (
        {"report": name, "question": "errors: omitted", "answers": [0, 1]},
        {"report": name, "question": "errors: place", "answers": [0, 1]},
    )
    assert "reference" not in repr(shown.disputed)
    save_mark(database, CARLA, screen, Mark("count", name, {"question": "errors: place", "count": 1}), key="1")
    with pytest.raises(ReviewError, match="leaves out what is there, how many"):
        annotate(database, CARLA, screen, key="2", version=1, state="done")
    save_mark(database, CARLA, screen, Mark("count", name, {"question": "errors: omitted", "count": 0}), key="3")
    annotate(database, CARLA, screen, key="4", version=1, state="done")
    results, analysis = close(database, trial)
    assert (analysis.disputed, analysis.settled) == (2, 2)
    table = settle(results).set_index("question")["value"]
    assert (table["errors: place"], table["errors: omitted"], table["errors: wording"]) == (1, 0, 0)


def test_image_quality_is_of_the_image_and_several_choices_are_yes_or_no(database: Database) -> None:
    trial = session(database, 2, rubric="image-quality")
    for reader, faults in (("anna", ["rotation", "motion"]), ("boris", ["rotation"])):
        read(
            database,
            trial,
            reader,
            lambda _, give, faults=faults: (give("quality", 3), give("faults", faults)),  # type: ignore[misc]
        )
    assert adjudicate(database, RITA, trial, "carla") == 2
    shown = read_screen(database, CARLA, screens_of(database, "carla", trial)[0])
    assert [each["question"] for each in shown.disputed] == ["faults: motion"]
    read(database, trial, "carla", lambda _, give: give("faults", ["motion"]))
    results, analysis = close(database, trial)
    assert set(results.answers["model"]) == {""}
    found = {row.question: row.counts for row in analysis.answers}
    assert (found["quality"], found["faults: rotation"], found["faults: motion"]) == (
        {"3": 4},
        {"yes": 4},
        {"no": 2, "yes": 2},
    )
    assert (analysis.disputed, analysis.settled) == (2, 2)


@pytest.mark.parametrize("rubric", ["acceptability", "turing-test", "error-correction", "image-quality", "radpeer"])
def test_a_session_without_answers_has_no_figures_and_no_error(database: Database, tmp_path: Path, rubric: str) -> None:
    results, analysis = close(database, session(database, 2, rubric=rubric, repeats=1, washout=0))
    assert analysis.answers == analysis.agreement == analysis.self_agreement == ()
    assert export(results, analysis, tmp_path)


def test_the_page_says_what_is_wrong_with_a_file_and_shows_a_rubric(database: Database) -> None:
    app = open_app_page("review", reader="root")
    app.segmented_control(key="review_view").set_value("Rubrics").run()
    assert not app.exception and "a session keeps the rubric" in words_on(app)
    app.selectbox(key="rubric-name").select("radpeer").run()
    text = app.text_area(key="rubric-text-radpeer").value
    app = app.text_area(key="rubric-text-radpeer").input(text.replace("[2, 3]", "[8]")).run()
    assert not app.exception and "'score' is never 8" in words_on(app)
    app = app.text_area(key="rubric-text-radpeer").input(text.replace("agree", "concur")).run()
    assert "Give it a name of its own" in words_on(app)
    mine = text.replace('name = "radpeer"', 'name = "mine"')
    app = app.text_area(key="rubric-text-radpeer").input(mine).run()
    assert not app.exception and not app.error and "nothing that is answered here is kept" in words_on(app)
    assert list_sessions(database, ROOT_USER) == []


def test_the_form_offers_every_rubric_with_a_sentence(database: Database) -> None:
    app = open_app_page("review", reader="root")
    app.segmented_control(key="review_view").set_value("New session").run()
    for name, rubric in shipped_rubrics().items():
        app = app.selectbox(key="design-rubric").select(name).run()
        assert not app.exception and rubric.about in words_on(app)
        if name == "observation-labels":
            break  # the others are drawn by the same lines
