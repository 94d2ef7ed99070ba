"""The reading page without a browser: what the server makes of a reader's changes, and what it lets out."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core.observations import OBSERVATIONS
from core.reviews.adjudication import adjudicate
from core.reviews.backup import verify
from core.reviews.database import Database
from core.reviews.design import Case, Choice, image_sha256
from core.reviews.editing_design import Editing
from core.reviews.rubrics import ReviewError
from core.reviews.sources import name_phantoms, open_source, session_image, write_cases
from core.reviews.store import (
    Actor,
    NotAllowedError,
    close_session,
    create_session,
    list_screens,
    read_screen,
    writers,
)
from core.text import sentence_spans, split_sentences, tokenize
from dashboard.reviews.pictures import draw
from dashboard.reviews.reading import respond
from dashboard.services import bundles
from tests.app_pages import needs_bundles, words_on
from tests.review_cases import (
    ANNA,
    BORIS,
    MODELS,
    RITA,
    TEXTS,
    at_a_pace,
    design,
    fill,
    open_app_page,
    open_file,
    phantom_cases,
    session,
    twenty_readers,
)


def change(do: str, key: str, screen: str, **fields: Any) -> dict[str, Any]:
    return {"tick": key, "at": screen, "change": {"do": do, "key": key, "screen": screen, **fields}}


def mark(view: dict[str, Any], key: str, **fields: Any) -> dict[str, Any]:
    said = {"kind": "error", "report": view["reports"][0]["name"], "value": {"error": "omission", "significant": True}}
    return change("mark", key, view["id"], mark=said, slot="", version=0) | fields


def first(database: Database, trial: str) -> dict[str, Any]:
    answer = respond(database, ANNA, trial, None)
    view: dict[str, Any] = answer["screens"][answer["at"]]
    return view


def test_sentences_are_those_that_explanations_count() -> None:
    text = "Heart: 1.5 times normal.  No effusion! Is it clear? Ends without"
    spans = sentence_spans(text)
    assert [text[start:end] for start, end in spans] == [
        "Heart: 1.5 times normal.",
        "No effusion!",
        "Is it clear?",
        "Ends without",
    ]
    assert [tokenize(text[start:end]) for start, end in spans] == split_sentences(tokenize(text))
    assert sentence_spans(" ") == []


@pytest.mark.parametrize("rubric", ["report-quality", "preference", "explanation-helpfulness", "observation-labels"])
def test_nothing_of_models_or_other_readers_goes_to_the_browser(database: Database, rubric: str) -> None:
    trial = session(database, rubric=rubric, explanation="attention" if rubric.startswith("expl") else "")
    told = []
    at = None
    for screen, _, _ in list_screens(database, ANNA, trial):
        told.append(respond(database, ANNA, trial, {"tick": "1", "at": screen, "want": [at] if at else []}))
        at = screen
    text = json.dumps(told)
    assert not [name for name in (*MODELS, "boris", "rita", "b" * 64) if re.search(rf"\b{name}\b", text)]


def test_names_are_told_when_the_session_is_closed_and_nothing_changes_then(database: Database) -> None:
    trial = session(database)
    view = first(database, trial)
    close_session(database, RITA, trial)
    answer = respond(database, ANNA, trial, mark(view, "late"))
    assert set(answer["names"].values()) == set(MODELS)
    assert answer["ack"]["status"] == "refused" and "closed" in answer["ack"]["message"]
    assert not answer["open"]


def test_a_reader_goes_on_where_the_last_case_was_finished(database: Database) -> None:
    trial = session(database)
    view = first(database, trial)
    saved = respond(database, ANNA, trial, mark(view, "k1"))
    assert (
        saved["ack"]["status"] == "saved" and saved["screens"][view["id"]]["marks"][0]["slot"] == saved["ack"]["slot"]
    )
    done = change("annotate", "k2", view["id"], version=view["version"], fields={"state": "done"})
    assert respond(database, ANNA, trial, done)["ack"]["status"] == "saved"
    again = respond(database, ANNA, trial, None)  # another machine
    assert again["at"] == list_screens(database, ANNA, trial)[1][0]
    assert again["places"][0][1] == "done"


def test_a_third_reader_is_asked_in_words_and_for_what_is_disputed_only(database: Database) -> None:
    trial = session(database, 1, rubric="observation-labels")
    carla = Actor("carla", "reader")

    def label(who: Actor, key: str, screen: str, observation: str, state: str, version: int = 0) -> dict[str, Any]:
        said = {"kind": "label", "report": "", "value": {"observation": observation, "state": state}}
        change_ = change("mark", key, screen, mark=said, slot="", version=version)
        return respond(database, who, trial, change_)["ack"]

    for who, edema in ((ANNA, "positive"), (BORIS, "blank")):
        screen = list_screens(database, who, trial)[0][0]
        for name in OBSERVATIONS:
            state = edema if name == "Edema" else "negative"
            assert label(who, name, screen, name, state)["status"] == "saved"
        done = change("annotate", "done", screen, version=1, fields={"state": "done"})
        assert respond(database, who, trial, done)["ack"]["status"] == "saved"
    assert adjudicate(database, RITA, trial, "carla") == 1
    answer = respond(database, carla, trial, None)
    view = answer["screens"][answer["at"]]
    asked = {
        "report": "",
        "question": "Edema",
        "words": "Edema",
        "answers": ["cannot be judged", "present"],
        "counts": [],
    }
    assert view["disputed"] == [asked]
    done = change("annotate", "done", view["id"], version=1, fields={"state": "done"})
    assert "Not answered yet: Edema." in respond(database, carla, trial, done)["ack"]["message"]
    assert label(carla, "one", view["id"], "Edema", "uncertain")["status"] == "saved"
    done = change("annotate", "again", view["id"], version=1, fields={"state": "done"})
    assert respond(database, carla, trial, done)["ack"]["status"] == "saved"


def test_two_tabs_see_their_conflict_and_both_changes_are_kept(database: Database) -> None:
    trial = session(database, rubric="preference")
    view = first(database, trial)

    def prefer(key: str, what: str) -> dict[str, Any]:
        said = {"kind": "preference", "report": "", "value": {"prefer": what}}
        return change("mark", key, view["id"], mark=said, slot="", version=0)

    assert respond(database, ANNA, trial, prefer("one", "first"))["ack"]["status"] == "saved"
    second = respond(database, ANNA, trial, prefer("two", "tie"))
    assert second["ack"]["status"] == "conflict" and "another tab" in second["ack"]["message"]
    assert [each["value"]["prefer"] for each in second["screens"][view["id"]]["marks"]] == ["first"]


def test_a_locked_database_is_told_and_the_same_change_saved_later(database: Database, tmp_path: Path) -> None:
    trial = session(database)
    view = first(database, trial)
    with closing(open_file(tmp_path, wait_seconds=0.3)) as hurried:
        with closing(sqlite3.connect(database.name, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = respond(hurried, ANNA, trial, mark(view, "k1"))
            assert answer["ack"]["status"] == "again" and "locked" in answer["ack"]["message"]
            assert answer["screens"][view["id"]]["marks"] == []  # what is there can still be read
            other.execute("ROLLBACK")
        assert respond(hurried, ANNA, trial, mark(view, "k1"))["ack"]["status"] == "saved"


@pytest.mark.parametrize(
    "broken",
    [
        {"do": "destroy"},
        {"do": "mark"},
        {"do": "mark", "mark": {"kind": "error", "report": "Z", "value": {}}, "version": 0},
        {"do": "annotate", "fields": {"flagged": "yes"}, "version": 1},
        {"do": "time", "seconds": -5},
        {"do": "time", "seconds": 1e9},
    ],
)
def test_what_cannot_be_is_refused_in_words_and_changes_nothing(database: Database, broken: dict[str, Any]) -> None:
    trial = session(database)
    view = first(database, trial)
    answer = respond(database, ANNA, trial, {"tick": "t", "change": {"key": "k", "screen": view["id"], **broken}})
    assert answer["ack"]["status"] == "refused" and answer["ack"]["message"]
    assert answer["screens"][view["id"]] == view


def test_another_readers_session_and_screens_are_out_of_reach(database: Database) -> None:
    trial = session(database)
    alone = session(database, readers=("boris",))
    with pytest.raises(NotAllowedError):
        respond(database, ANNA, alone, None)
    foreign = list_screens(database, BORIS, trial)[0][0]
    answer = respond(database, ANNA, trial, change("open", "k", foreign))
    assert answer["ack"]["status"] == "refused" and foreign not in answer["screens"]


@pytest.mark.slow
def test_twenty_readers_at_a_readers_pace_through_the_page(tmp_path: Path) -> None:
    opened = open_file(tmp_path)
    trial, who, own = twenty_readers(opened)

    def mark_and_look(reader: int, number: int) -> None:
        screen = own[reader][number // 5]
        view = {"id": screen, "reports": [{"name": blinded[screen]}]}
        assert respond(opened, who[reader], trial, mark(view, f"{number}"))["ack"]["status"] == "saved"

    blinded = {
        screen: read_screen(opened, reader, screen).reports[0][0]
        for reader, screens in zip(who, own, strict=True)
        for screen in screens
    }
    sys.stdout.write(at_a_pace(20, 25, mark_and_look))
    assert verify(opened).marks == 500
    opened.close()


@pytest.mark.slow
def test_twenty_readers_who_type_through_the_page(tmp_path: Path) -> None:
    opened = open_file(tmp_path)
    names = tuple(f"reader {number}" for number in range(20))
    fill(opened, names)
    trial = session(opened, readers=names, rubric="draft-editing", editing=Editing(("pair-two",)))
    who = [Actor(name, "reader") for name in names]
    own = [list_screens(opened, reader, trial)[0][0] for reader in who]

    def type_on(reader: int, number: int) -> None:
        text = " ".join([TEXTS["pair-two"]] * 8) + " No pleural effusion."[: number % 22]
        said = {"kind": "answer", "report": "A", "value": {"question": "report", "answer": text}}
        bout = {"id": "0" * 32, "before": 1, "seconds": number, "inserted": number, "deleted": 0, "pauses": []}
        slot = "answer/report/A/" if number else ""
        edit = change("edit", f"{number}", own[reader], mark=said, slot=slot, version=number, bout=bout)
        assert respond(opened, who[reader], trial, edit)["ack"]["status"] == "saved"

    sys.stdout.write(at_a_pace(20, 25, type_on, "a text"))
    assert verify(opened).marks == 20
    assert all(read_screen(opened, reader, own[at]).marks[0].version == 25 for at, reader in enumerate(who))
    opened.close()


def test_writers_of_one_file_go_in_the_order_they_came(database: Database) -> None:
    order: list[int] = []

    def write(number: int) -> None:
        with database.write():
            order.append(number)

    database.wait_seconds = 30
    threads = []
    with database.write():
        for number in range(8):
            threads.append(threading.Thread(target=write, args=(number,)))
            threads[-1].start()
            time.sleep(0.03)
    for thread in threads:
        thread.join()
    assert order == list(range(8))


# ------------------------------------------------------------------------------------------ images with explanations


@needs_bundles
@pytest.mark.numeric
def test_each_sentence_has_its_region_or_filter_and_a_changed_writer_is_not_named(database: Database) -> None:
    name = name_phantoms(40, 3)
    source = open_source(name)
    models = bundles.load_models(["phantom-dve-m2", "phantom-ccve-transformer"])
    pool = write_cases(source, source.studies("test"), Choice("random", 1), 0, models, reference=True)
    wanted = design(rubric="explanation-helpfulness", explanation="attention", source=name, studies=Choice())
    trial = create_session(database, RITA, wanted, pool)
    kinds = {}
    for screen_id, _, _ in list_screens(database, ANNA, trial):
        screen, by = read_screen(database, ANNA, screen_id), writers(database, ANNA, screen_id)
        ((blinded, text),) = screen.reports
        packed = draw(screen, by)
        header = json.loads(packed[4 : 4 + int.from_bytes(packed[:4], "little")])
        assert [each["group"] for each in header["overlays"]] == [f"{blinded}/{at}" for at, _ in sentence_spans(text)]
        assert "phantom" not in json.dumps(header["overlays"])
        kinds[by[blinded][0]] = {(each["kind"], each["label"][:25]) for each in header["overlays"]}
    assert kinds == {
        "phantom-dve-m2": {("heat", "Word attention: yellow mo")},
        # Where no filter stands out there is nothing to judge, and nothing is shown.
        "phantom-ccve-transformer": {("picture", "The film through the filt"), ("heat", "No filter stands out here")},
    }
    for changed, writer in (
        (replace(screen, reports=((blinded, text + " And more."),)), by),
        (screen, {blinded: (by[blinded][0], "0" * 64)}),  # another bundle of that name
        (screen, {blinded: ("phantom-gone", "")}),
    ):
        with pytest.raises(ReviewError, match=f"What report {blinded} is based on cannot be shown") as raised:
            draw(changed, writer)
        assert "phantom" not in str(raised.value)
    with pytest.raises(ReviewError, match="not the one this session was made with"):
        draw(replace(screen, image_sha256="0" * 64), by)


# ------------------------------------------------------------------------------------- the page without a browser


def answer_of(app: AppTest) -> dict[str, Any]:
    answer: dict[str, Any] = app.session_state["reading_answer"][3]
    return answer


def test_the_page_brings_the_case_with_its_image_and_saves_what_the_browser_sends(database: Database) -> None:
    name, pool = phantom_cases(count=1)
    trial = create_session(database, RITA, design(source=name), pool)
    app = open_app_page("reading", reader="anna", session=trial)
    assert not app.exception and not app.error
    view = answer_of(app)["screens"][answer_of(app)["at"]]
    assert view["position"] == 0 and view["reports"][0]["text"] in TEXTS.values()

    def sent(request: dict[str, Any]) -> dict[str, Any]:
        app.session_state["reading"] = {"request": {"want": [], "plates": [], **request}}
        app.run()
        assert not app.exception and not app.error
        return answer_of(app)

    for turn in range(200):  # as the browser does: it asks until the image is there
        answer = sent({"tick": f"image-{turn}", "at": view["id"], "plates": [view["id"]], "change": None})
        if answer["plates"][view["id"]] != "waiting":
            break
        time.sleep(0.05)
    assert answer["plates"][view["id"]] == "ready"
    assert sent(mark(view, "k1"))["ack"]["status"] == "saved"
    app.run()  # for another reason: nothing is sent or done twice
    (saved,) = read_screen(database, ANNA, view["id"]).marks
    assert saved.mark.value == {"error": "omission", "significant": True}


def test_what_must_stand_beside_the_images_of_a_source_stands_there(database: Database) -> None:
    source = open_source("example")
    (study, *_) = source.ids("test")
    pool = [Case(study, image_sha256(session_image(source, study)), TEXTS)]
    trial = create_session(database, RITA, design(source=source.key), pool)
    app = open_app_page("reading", reader="anna", session=trial)
    assert not app.exception and any("NIH Clinical Center" in each.value for each in app.caption)
    assert study not in words_on(app)


def test_the_page_without_an_image_or_a_session_says_so(database: Database) -> None:
    trial = session(database)  # its images come from nowhere
    app = open_app_page("reading", reader="anna", session=trial)
    assert not app.exception
    assert "images of this session cannot be found" in answer_of(app)["plates"][answer_of(app)["at"]]
    foreign = open_app_page("reading", reader="anna", session="0" * 32)
    assert not foreign.exception and "There is no session" in foreign.error[0].value
    assert [button.label for button in open_app_page("reading", reader="anna").button if "Trial" in button.label]
    own = session(database, title="Of boris", readers=("boris",))
    refused = open_app_page("reading", reader="anna", session=own)
    assert "There is no session" in refused.error[0].value and "reading_answer" not in refused.session_state
