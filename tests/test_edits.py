"""Edited reports: what is stored of typing, conflicts, clocks, outcomes worked by hand, and what readers cannot see."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torchmetrics.functional.text import word_error_rate

from core.reviews.analysis import analyse
from core.reviews.answers import load_results
from core.reviews.backup import verify
from core.reviews.database import Database
from core.reviews.design import Case, Design
from core.reviews.editing import by_arm, edits_of, errors_against, words_changed
from core.reviews.editing_design import NO_DRAFT, TEMPLATE, Editing
from core.reviews.effects import differences, fit_model
from core.reviews.export import export
from core.reviews.long_table import outcomes
from core.reviews.record import load_record
from core.reviews.rehearsal import OWNER, Clock, invented_cases, rehearse
from core.reviews.rubrics import Mark, ReviewError
from core.reviews.schema import sessions
from core.reviews.store import (
    Actor,
    ConflictError,
    annotate,
    close_session,
    create_session,
    first_admin,
    list_screens,
    read_screen,
    save_edit,
    spend,
    unblind,
    undo,
    writers,
)
from core.reviews.store.edits import LONGEST_BOUT, why_not_counted
from dashboard.reviews.reading import respond
from tests.app_pages import words_on
from tests.review_cases import ANNA, BORIS, RITA, TEXTS, all_events, cases, open_app_page
from tests.test_reading import change

BOUT = {"id": "0" * 32, "before": 2.5, "seconds": 10.0, "inserted": 30, "deleted": 4, "pauses": [[1.0, 3.0]]}


def drafts(database: Database, editing: Editing, pool: list[Case] | None = None, **changes: Any) -> str:
    wanted = Design(**{"title": "T", "rubric": "draft-editing", "readers": ("anna",), "editing": editing, **changes})
    return create_session(database, RITA, wanted, pool or cases(2))


def screens(database: Database, trial: str, who: Actor = ANNA) -> list[str]:
    return [screen for screen, _, _ in list_screens(database, who, trial)]


def write(database: Database, screen: str, text: str, key: str, version: int = 0, **more: Any) -> Any:
    name = read_screen(database, more.get("who", ANNA), screen).reports[0][0]
    mark = Mark("answer", name, {"question": "report", "answer": text})
    slot = f"answer/report/{name}/" if version else ""
    who = more.pop("who", ANNA)
    return save_edit(database, who, screen, mark, key=key, slot=slot, version=version, **more)


def test_snapshots_are_events_and_the_last_one_stands(database: Database) -> None:
    trial = drafts(database, Editing(("pair-one",)))
    screen = screens(database, trial)[0]
    before = len(all_events(database))
    for number, text in enumerate(("The heart", "The heart is", "")):
        saved = write(database, screen, text, f"k{number}", number, bout=BOUT | {"seconds": 10.0 + number})
    assert saved.told == "" and saved.mark.version == 3
    (mark,) = read_screen(database, ANNA, screen).marks
    assert mark.mark.value["answer"] == "" and list(mark.mark.value["bouts"]) == ["0" * 32]
    assert mark.mark.value["bouts"]["0" * 32]["seconds"] == 12.0
    texts = [row.after["value"]["answer"] for row in all_events(database)[before:] if row.action == "edit"]
    assert texts == ["The heart", "The heart is", ""]
    again = write(database, screen, "", "k2", 2, bout=BOUT | {"seconds": 12.0})  # sent twice, done once
    assert again.mark.version == 3
    with pytest.raises(ReviewError, match="Not answered yet"):  # an empty report is none to sign
        annotate(database, ANNA, screen, key="done", version=1, state="done")
    with pytest.raises(ReviewError, match="nothing to undo"):  # undoing is the text field's own
        undo(database, ANNA, screen, key="u")
    verify(database)


def test_of_two_tabs_the_second_is_told_and_both_texts_are_kept(database: Database) -> None:
    trial = drafts(database, Editing(("pair-one",)))
    screen = screens(database, trial)[0]
    name = read_screen(database, ANNA, screen).reports[0][0]

    def edit(key: str, text: str, version: int) -> dict[str, Any]:
        mark = {"kind": "answer", "report": name, "value": {"question": "report", "answer": text}}
        slot = f"answer/report/{name}/" if version else ""
        return change("edit", key, screen, mark=mark, slot=slot, version=version, bout=BOUT)

    first = respond(database, ANNA, trial, edit("one", "From the first tab.", 0))
    assert first["ack"]["status"] == "saved" and first["ack"]["slot"] == f"answer/report/{name}/"
    second = respond(database, ANNA, trial, edit("two", "From the second tab.", 0))
    assert second["ack"]["status"] == "conflict"
    assert [mark["value"]["answer"] for mark in second["screens"][screen]["marks"]] == ["From the first tab."]
    (refused,) = [row for row in all_events(database) if row.action == "refused"]
    assert refused.asked["mark"]["value"]["answer"] == "From the second tab."
    with pytest.raises(ConflictError):
        write(database, screen, "Again.", "three", 0)
    chosen = respond(database, ANNA, trial, edit("four", "From the second tab.", 1))  # "keep mine"
    assert chosen["ack"]["status"] == "saved"
    verify(database)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"seconds": -1.0}, "below zero"),
        ({"before": -0.01}, "below zero"),
        ({"seconds": LONGEST_BOUT + 1}, "a clock jumped"),
        ({"before": 1e12}, "a clock jumped"),
        ({"seconds": math.nan}, "no numbers"),
        ({"seconds": math.inf}, "no numbers"),
        ({"seconds": "10"}, "no numbers"),
        ({"inserted": True}, "no numbers"),
        ({"inserted": 10**9}, "than anybody presses"),
        ({"pauses": [[0, 11.0], [1, 11.0]]}, "longer than all of it"),
        ({"pauses": [[0, -3.0]]}, "below zero"),
        ({"pauses": [[0]]}, "pauses that cannot be read"),
        ({"pauses": [[0, 2.0]] * 501}, "than anybody presses"),
        ({"pauses": "none"}, "no numbers"),
        ({"id": "another"}, "cannot be read"),
        ({"more": 1}, "cannot be read"),
        ({"seconds": 1.0, "pauses": []}, "shorter than it was before"),
    ],
)
def test_times_that_cannot_be_are_told(wrong: dict[str, Any], told: str) -> None:
    assert why_not_counted(BOUT, {"0" * 32: BOUT}) == ""
    found = why_not_counted({**BOUT, **wrong}, {"0" * 32: BOUT})
    assert found.startswith("The text is saved, this time of typing is not counted: ") and told in found


def test_a_clock_that_jumps_costs_the_time_and_never_the_text(database: Database) -> None:
    trial = drafts(database, Editing(("pair-one",)))
    screen = screens(database, trial)[0]
    write(database, screen, "One", "k0", bout=BOUT)
    for number, wrong in enumerate(({"seconds": -1.0}, {"seconds": math.nan}, {"pauses": [{"a": math.inf}]}), 1):
        saved = write(database, screen, f"One {number}", f"k{number}", number, bout={**BOUT, **wrong})
        assert "The text is saved" in saved.told
        value = read_screen(database, ANNA, screen).marks[0].mark.value
        assert value["answer"] == f"One {number}" and value["not_counted"] == number
        assert value["bouts"]["0" * 32]["seconds"] == 10.0
    later = write(database, screen, "One two three", "k4", 4, bout=BOUT | {"seconds": 20.0})
    assert later.told == "" and later.mark.mark.value["bouts"]["0" * 32]["seconds"] == 20.0
    verify(database)


def test_only_so_many_bouts_are_kept() -> None:
    known = {f"{number:032x}": BOUT for number in range(200)}
    assert "more than 200 times" in why_not_counted(BOUT | {"id": "f" * 32}, known)
    assert why_not_counted(BOUT | {"id": f"{5:032x}"}, known) == ""


@pytest.mark.parametrize("text", ["x" * 1_048_576, "a\0b", "half \ud800"])
def test_a_text_that_cannot_be_kept_is_refused_in_one_sentence_and_the_one_before_stays(
    database: Database, text: str
) -> None:
    trial = drafts(database, Editing(("pair-one",)))
    screen = screens(database, trial)[0]
    write(database, screen, "Before.", "k1")
    with pytest.raises(ReviewError, match="The report: "):
        write(database, screen, text, "k2", 1)
    assert read_screen(database, ANNA, screen).marks[0].mark.value["answer"] == "Before."


def test_markup_is_text(database: Database) -> None:
    trial = drafts(database, Editing(("pair-one",)))
    screen = screens(database, trial)[0]
    write(database, screen, "<b onclick=x>No</b> effusion.", "k1")
    view = respond(database, ANNA, trial, None)["screens"][screen]
    assert view["marks"][0]["value"]["answer"] == "<b onclick=x>No</b> effusion."
    assert ["Pleural Effusion", "absent"] in [found[:2] for found in view["findings"]]


def test_the_findings_of_the_text_are_told_unless_the_design_says_no(database: Database) -> None:
    trial = drafts(database, Editing(("pair-two",)))
    answer = respond(database, ANNA, trial, None)
    found = answer["screens"][answer["at"]]["findings"]
    assert [each[:2] for each in found] == [["Cardiomegaly", "present"], ["Pneumothorax", "absent"]]
    text = answer["screens"][answer["at"]]["reports"][0]["text"]
    assert [text[start:end] for *_, start, end in found][1] == "pneumothorax"
    trial = drafts(database, Editing(("pair-two",), findings=False))
    answer = respond(database, ANNA, trial, None)
    assert answer["screens"][answer["at"]]["findings"] == []


def test_a_readers_browser_learns_nothing_of_arms_errors_and_reference(database: Database) -> None:
    pool = [replace(case, reports={**case.reports, "reference": "Mystery reference. Edema."}) for case in cases(4)]
    editing = Editing((NO_DRAFT, "pair-one", "pair-two", TEMPLATE), template="All normal.", planted=0.5, washout_days=0)
    trial = drafts(database, editing, pool)
    told = []
    for screen in screens(database, trial):
        if screen in [each for each, _, _ in list_screens(database, ANNA, trial)]:
            answer = respond(database, ANNA, trial, None)
            told.append(answer)
            at = answer["at"]
            write(database, at, "Done.", f"w/{at}")
            annotate(database, ANNA, at, key=f"d/{at}", version=1, state="done")
    assert len({answer["at"] for answer in told}) == 16
    names = [answer["screens"][answer["at"]]["reports"][0]["name"] for answer in told]
    assert len(set(names)) == 16  # a letter that came again would tell the arm
    text = json.dumps(told)
    hidden = ("pair-one", "pair-two", NO_DRAFT, "Mystery", "planted", "negated", "omitted", "invented", "williams")
    assert not [word for word in hidden if re.search(word, text)]
    with database.read() as connection:
        planted = connection.execute(sessions.select()).one().design["editing"]["planted_errors"]
    assert len(planted) == 4 and {each["kind"] for each in planted} <= {"negated", "omitted", "invented"}
    close_session(database, RITA, trial)
    known = unblind(database, RITA, trial)["anna"]
    assert sorted(known.values()) == sorted(["pair-one", "pair-two", NO_DRAFT, TEMPLATE] * 4)


# ------------------------------------------------------------------------------------------------------------ outcomes


def test_words_changed_is_what_torchmetrics_counts() -> None:
    chance = random.Random(3)
    words = ["the", "heart", "is", "not", "enlarged", "no", "effusion"]
    for _ in range(60):
        one, other = (" ".join(chance.choices(words, k=chance.randint(1, 12))) for _ in range(2))
        assert words_changed(one, other) == round(float(word_error_rate(one, other)) * len(other.split()))
    assert words_changed("", "No effusion.") == 2 and words_changed("No Effusion!", "no effusion.") == 0
    assert words_changed("a b c", "") == 3 and words_changed("", "") == 0
    assert words_changed("Small left effusion.", "Moderate left pleural effusion.") == 2


def test_outcomes_are_those_worked_out_by_hand(database: Database, tmp_path: Path) -> None:
    """Two cases, two arms, one reader; a negated effusion is caught in one draft and left in the other."""
    reference = TEXTS["reference"]  # enlarged heart, small left effusion
    pool = [replace(case, reports={"pair-one": reference, "reference": reference}) for case in cases(2)]
    editing = Editing((NO_DRAFT, "pair-one"), washout_days=0, planted=1.0, kinds=("side",))
    trial = drafts(database, editing, pool)
    caught = False
    for number in range(4):
        at = respond(database, ANNA, trial, None)["at"]
        ((_, arm),) = [(name, model) for name, (model, _) in writers(database, ANNA, at).items()]
        shown = read_screen(database, ANNA, at).reports[0][1]
        if arm == NO_DRAFT:
            assert shown == ""
            write(database, at, "The heart is enlarged.", f"w{number}", bout=BOUT)  # the effusion is forgotten
        else:
            assert shown == reference.replace("left", "right")
            caught = not caught
            text = reference if caught else shown
            write(database, at, text, f"w{number}", bout=BOUT | {"pauses": [], "seconds": 4.0} if caught else None)
        spend(database, ANNA, at, 30.0 if arm == NO_DRAFT else 12.0 + number, key=f"t{number}")
        annotate(database, ANNA, at, key=f"d{number}", version=1, state="done")
    close_session(database, RITA, trial)
    results = load_results(database, RITA, trial)
    table = edits_of(results).sort_values(["arm", "study"])
    nothing, draft = (table[table["arm"] == arm] for arm in (NO_DRAFT, "pair-one"))
    assert (
        nothing[["seconds", "typing", "to_first_key", "pauses", "paused"]].to_numpy().tolist()
        == [[30, 10, 2.5, 1, 3]] * 2
    )
    assert nothing[["words_changed", "draft_words", "words"]].to_numpy().tolist() == [[4, 0, 4]] * 2
    assert nothing["errors_left"].tolist() == [1, 1] and nothing["draft_errors"].tolist() == [2, 2]
    assert nothing["planted"].tolist() == ["", ""] and nothing["caught"].tolist() == [None, None]
    assert sorted(draft["caught"].tolist()) == [False, True] and set(draft["planted"]) == {"side"}
    assert sorted(draft["words_changed"].tolist()) == [0, 1] and draft["errors_left"].tolist() == [0, 0]
    assert sorted(table["sitting"].tolist()) == [1, 1, 2, 2]
    of = {row.arm: row for row in by_arm(table, resamples=100)}
    assert (of[NO_DRAFT].readings, of[NO_DRAFT].unchanged, of[NO_DRAFT].planted) == (2, 0, 0)
    assert (of["pair-one"].planted, of["pair-one"].caught, of["pair-one"].unchanged) == (2, 1, 1)
    assert of["pair-one"].caught_share.value == 0.5 and of["pair-one"].typing.value == 2.0
    assert math.isnan(of[NO_DRAFT].caught_share.value)
    analysis = analyse(results, resamples=100)
    assert {row.arm for row in analysis.editing} == {NO_DRAFT, "pair-one"}
    files = export(results, analysis, tmp_path / "out", record=load_record(database, RITA, trial))
    assert {"edits.csv", "edits.json", "edits.parquet"} <= {each.name for each in files}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Planted errors caught" in page and "1 of 2" in page
    assert "words_changed" in (tmp_path / "out" / "codebook.md").read_text(encoding="utf-8")
    app = open_app_page("review", reader="root", session=trial)
    assert not app.exception and "from the first key to the" in words_on(app)


def test_errors_are_observations_that_two_texts_say_differently() -> None:
    assert errors_against("", "No effusion.") == 0
    assert errors_against("Possible effusion.", "Small effusion.") == 0  # said, with doubt or without
    assert errors_against("Enlarged heart.", "Small effusion. Mild edema.") == 3


def test_a_rehearsal_finds_what_is_true_in_it_and_sittings_are_fixed_effects(tmp_path: Path) -> None:
    """Synthetic readers type less where there is a draft; a day's practice is no difference between arms."""
    clock = Clock()
    database = Database(tmp_path / "r.sqlite", clock=clock)
    editing = Editing((NO_DRAFT, "system one"), planted=0.5)
    wanted = Design("T", "draft-editing", ("a", "b", "c"), ("reference", "system one"), editing=editing)
    wanted = replace(wanted, studies=replace(wanted.studies, count=4))
    trial, _ = rehearse(database, clock, wanted, invented_cases(wanted, 1), 3, 1)
    verify(database)
    results = load_results(database, first_admin(database, OWNER), trial)
    table = edits_of(results)
    assert len(table) == 24 and table["caught"].notna().sum() == 6
    named = {each.name: each for each in outcomes(results)}
    assert list(named) == ["seconds", "typing", "words-changed", "errors-left", "planted-left"]
    (typing,) = [row for row in differences(results) if row.outcome == "typing"]
    assert typing.first == NO_DRAFT and typing.estimate.value > 10
    kept = named["typing"].table.drop(index=range(0, 24, 5))  # some cases were skipped
    slower = kept.assign(value=kept["value"] + 100 * (kept["sitting"] == 2))
    one, other = (fit_model(each, "scale").contrast(NO_DRAFT, "system one") for each in (kept, slower))
    assert one.value == pytest.approx(other.value) and one.error == pytest.approx(other.error, rel=1e-3)
    without = fit_model(slower.drop(columns="sitting"), "scale").contrast(NO_DRAFT, "system one")
    assert abs(without.value - one.value) > 1
    database.close()


@pytest.mark.slow
def test_an_editing_study_is_designed_previewed_and_made_on_the_page(database: Database) -> None:
    app = open_app_page("review", reader="root")
    app.segmented_control(key="review_view").set_value("New session").run()
    app.selectbox(key="design-rubric").select("draft-editing").run()
    assert not app.exception
    app.text_input(key="design-title").input("Drafts").run()
    app.multiselect(key="design-readers").set_value(["anna", "boris"]).run()
    next(each for each in app.multiselect if str(each.key).startswith("design-models")).set_value(["reference"]).run()
    arms = next(each for each in app.multiselect if str(each.key).startswith("design-arms"))
    arms.set_value([NO_DRAFT, TEMPLATE, "reference"]).run()
    app.number_input(key="design-count").set_value(7).run()

    def press(label: str) -> None:
        next(button for button in app.button if button.label == label).click().run()

    press("Make the session")
    assert "take 6 or 12" in words_on(app)
    app.number_input(key="design-count").set_value(6).run()
    app.number_input(key="design-days").set_value(9).run()
    press("Preview the first case")
    assert not app.exception and "First case of anna" in words_on(app)
    press("Make the session")
    assert not app.exception
    with database.read() as connection:
        row = connection.execute(sessions.select()).one()
    editing = row.design["editing"]
    assert editing["arms"] == [NO_DRAFT, TEMPLATE, "reference"] and editing["washout_days"] == 9
    assert len(screens(database, row.id)) == len(screens(database, row.id, BORIS)) == 18
