"""Rubrics of questions in a real browser: RADPEER with three readers, corrected errors, disputes, a preview."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from core.reviews.adjudication import adjudicate
from core.reviews.analysis import analyse
from core.reviews.answers import load_results
from core.reviews.database import Database
from core.reviews.design import Design
from core.reviews.rubric_library import shipped_rubrics
from core.reviews.store import Actor, close_session, create_session, first_admin, list_screens, read_screen, set_role
from tests.browser.conftest import WAIT, Server, Watched, at, saved, start_server, watch, with_key
from tests.review_cases import finish, phantom_cases, screens_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

READERS = ("anna", "boris", "carla")
TEXTS = {
    "secret-pair": "The heart is enlarged. There is a small left pleural effusion.",
    "reference": "The heart is normal.",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Database]]:
    folder = tmp_path_factory.mktemp("rubrics")
    location = folder / "reviews.sqlite"
    with closing(Database(location)) as database:
        admin = first_admin(database, getpass.getuser())
        for name in (*READERS, "dora"):
            set_role(database, admin, name, "reader")
        for server in start_server(folder, CXR_REVIEWS=str(location), CXR_RUBRICS=str(folder / "own")):
            yield server, database
            assert "Traceback" not in server.log.read_text()


def make(database: Database, rubric: str, readers: tuple[str, ...] = READERS, count: int = 1) -> str:
    source, cases = phantom_cases(TEXTS, count=count)
    admin = first_admin(database, getpass.getuser())
    return create_session(database, admin, Design("Trial", rubric, readers, source=source), cases)


def enter(browser: Browser, server: Server, session: str, reader: str, width: int = 1440, height: int = 900) -> Watched:
    watched = watch(browser, server.url, width, height)
    watched.page.goto(f"{server.url}/{with_key(server.url, f'reading?session={session}&reader={reader}')}")
    expect(watched.page.locator(".reading[data-position]")).to_be_visible(timeout=WAIT)
    if watched.page.locator(".over").is_visible():
        watched.page.keyboard.press("Enter")
    return watched


def press(watched: Watched, *keys: str) -> None:
    for key in keys:
        watched.page.keyboard.press(key)


@pytest.mark.slow
def test_radpeer_with_three_readers(browser: Browser, place: tuple[Server, Database]) -> None:
    """Two by keyboard, one by mouse; all marks are in the database, and the researcher sees what they say."""
    server, database = place
    trial = make(database, "radpeer")
    for reader in READERS:
        watched = enter(browser, server, trial, reader)
        for position in range(2):
            at(watched, position)
            text = " ".join(watched.page.locator(".body .sentence").all_text_contents())
            rows = watched.page.locator(".row-of-form")
            expect(rows).to_have_count(1)
            wrong = "enlarged" in text
            if reader == "carla":
                rows.first.get_by_role("button", name="2 · Discrepancy" if wrong else "Cannot judge").click()
            else:
                press(watched, ("3" if reader == "boris" else "2") if wrong else "1")
            expect(rows).to_have_count(3 if wrong else 1)
            if wrong:
                press(watched, "n")  # refused in words: something is missing
                expect(watched.page.locator(".notice")).to_contain_text("clinically significant", timeout=WAIT)
                press(watched, "2", "Enter")
                watched.page.keyboard.type(f"no effusion, says {reader}")
                press(watched, "Control+Enter")
                expect(watched.page.locator(".form .written")).to_have_text(f"no effusion, says {reader}")
            press(watched, "n")
        expect(watched.page.locator(".sheet")).to_contain_text("All cases are read", timeout=WAIT)
        saved(watched)
        watched.close()
    admin = first_admin(database, getpass.getuser())
    root = watch(browser, server.url)
    root.open_review(f"review?reader={admin.name}&session={trial}")
    root.page.get_by_text("all cases are read").click()
    root.page.get_by_role("button", name="Close and unblind").click()
    expect(root.page.get_by_role("heading", name="Answers")).to_be_visible(timeout=WAIT)
    root.close()
    results = load_results(database, admin, trial)
    found = {(row.model, row.question): row for row in analyse(results, resamples=100).answers}
    assert found["secret-pair", "score"].counts == {"2": 2, "3": 1}
    assert (found["reference", "score"].counts, found["reference", "score"].cannot_judge) == ({"1": 2}, 1)
    assert found["secret-pair", "significance"].counts == {"b": 3}
    texts = [value["answer"] for value in results.marks["value"] if value["question"] == "discrepancy"]
    assert sorted(texts) == [f"no effusion, says {reader}" for reader in READERS]


def test_errors_are_marked_replaced_and_weighed_by_keyboard(browser: Browser, place: tuple[Server, Database]) -> None:
    server, database = place
    trial = make(database, "error-correction", ("anna",))
    watched = enter(browser, server, trial, "anna")
    at(watched, 0)
    page = watched.page
    # A box on the image, then the second sentence, or the first of the short report, as a wrong finding.
    press(watched, "v", "b", "Enter", "Enter", "Escape", "ArrowDown", "1")
    expect(page.locator(".finding")).to_have_count(1)
    expect(page.locator(".form .here .ask")).to_contain_text("stand there instead")
    press(watched, "Enter")
    page.keyboard.type("No pleural effusion & <b>no</b> n")
    press(watched, "Control+Enter", "2")
    # A second one is taken back with its answers, and a third of wording cannot do harm.
    press(watched, "2", "Delete")
    expect(page.locator(".finding")).to_have_count(1)
    press(watched, "6", "q", "2")
    expect(page.locator(".notice")).to_contain_text("wording alone cannot harm", timeout=WAIT)
    press(watched, "Escape", "1")
    saved(watched)
    screen = screens_of(database, "anna", trial)[0]
    shown = read_screen(database, Actor("anna", "reader"), screen)
    values = [dict(each.mark.value) for each in shown.marks]
    ((_, text),) = shown.reports
    by_kind = {value["answer"]: value for value in values if "id" in value}
    assert set(by_kind) == {"false", "wording"}
    assert by_kind["false"]["span"][1] == len(text) and by_kind["false"]["region"] == pytest.approx(
        [0.4, 0.4, 0.6, 0.6]
    )
    about = {value["finding"]: value["answer"] for value in values if value["question"] == "significant"}
    assert about == {by_kind["false"]["id"]: "yes", by_kind["wording"]["id"]: "no"}
    assert "No pleural effusion & <b>no</b> n" in [value["answer"] for value in values]
    page.reload()
    expect(page.locator(".finding")).to_have_count(2, timeout=WAIT)
    press(watched, "Enter", "n")  # the instructions, then the case
    at(watched, 1)
    expect(page.locator(".finding")).to_have_count(0)
    saved(watched)
    watched.close()
    assert [state for _, state, _ in list_screens(database, Actor("anna", "reader"), trial)] == ["done", "pending"]


@pytest.mark.slow
def test_a_normal_study_takes_two_keys_and_what_contradicts_is_refused(
    browser: Browser, place: tuple[Server, Database]
) -> None:
    server, database = place
    trial = make(database, "observation-labels", ("anna",), 2)
    watched = enter(browser, server, trial, "anna")
    at(watched, 0)
    press(watched, "a", "n")
    at(watched, 1)
    for _ in range(4):
        press(watched, "ArrowDown")
    press(watched, "4")  # Edema
    for _ in range(9):
        press(watched, "ArrowDown")
    press(watched, "4")  # No Finding
    expect(watched.page.locator(".notice")).to_contain_text("No Finding cannot be present", timeout=WAIT)
    press(watched, "Escape", "a", "n")
    expect(watched.page.locator(".sheet")).to_contain_text("All cases are read", timeout=WAIT)
    saved(watched)
    watched.close()
    states = []
    for screen in screens_of(database, "anna", trial):
        marks = read_screen(database, Actor("anna", "reader"), screen).marks
        states.append({each.mark.value["observation"]: each.mark.value["state"] for each in marks})
    assert [len(each) for each in states] == [14, 14]
    assert [each["No Finding"] for each in states] == ["positive", "negative"]
    assert [name for name, state in states[1].items() if state == "positive"] == ["Edema"]


def test_a_third_reader_settles_by_answering_not_by_going_on(browser: Browser, place: tuple[Server, Database]) -> None:
    server, database = place
    trial = make(database, "report-quality", ("anna", "boris"))
    for reader, errors in (("anna", 0), ("boris", 1)):
        for screen in screens_of(database, reader, trial):
            finish(database, Actor(reader, "reader"), screen, errors)
    admin = first_admin(database, getpass.getuser())
    assert adjudicate(database, admin, trial, "dora") == 2
    watched = enter(browser, server, trial, "dora")
    at(watched, 0)
    press(watched, "n")
    expect(watched.page.locator(".notice")).to_contain_text("omission, how many significant", timeout=WAIT)
    press(watched, "2")  # the number that the second answer gives
    expect(watched.page.locator('.disputed button[aria-pressed="true"]')).to_have_text("1")
    press(watched, "n")
    at(watched, 1)
    press(watched, "n", "n")  # left open: nothing is settled
    expect(watched.page.locator(".sheet")).to_contain_text("1 done, 0 skipped, 1 not read", timeout=WAIT)
    saved(watched)
    watched.close()
    close_session(database, admin, trial)
    analysis = analyse(load_results(database, admin, trial), resamples=100)
    assert (analysis.disputed, analysis.settled) == (2, 1)


@pytest.mark.slow
def test_a_rubric_is_seen_while_its_file_is_written(
    browser: Browser, place: tuple[Server, Database], tmp_path: Path
) -> None:
    server, database = place
    admin = first_admin(database, getpass.getuser())
    before = len(screens_of(database, "anna", make(database, "radpeer", ("anna",))))
    watched = watch(browser, server.url)
    watched.open_review(f"review?reader={admin.name}")
    page = watched.page
    page.get_by_text("Rubrics", exact=True).click()
    field = page.get_by_label("The file")
    expect(field).to_be_visible(timeout=WAIT)
    own = shipped_rubrics()["radpeer"].text.replace('name = "radpeer"', 'name = "mine"')
    field.fill(own.replace('key = "t"', 'key = "r"'))
    field.press("Control+Enter")
    expect(page.get_by_text("the key 'r' is that of 'score' already.")).to_be_visible(timeout=WAIT)
    field.fill(own.replace("Do you agree with this report?", "Would you sign it?"))
    field.press("Control+Enter")
    expect(page.locator(".form .ask").first).to_contain_text("Would you sign it?", timeout=WAIT)
    expect(page.locator(".reading canvas")).to_be_visible(timeout=WAIT)
    page.locator(".row-of-form button").nth(1).click()
    expect(page.locator(".row-of-form")).to_have_count(3, timeout=WAIT)
    expect(page.locator(".saved")).to_contain_text("Saved", timeout=WAIT)
    watched.close()
    assert before == 2 and list_screens(database, Actor(admin.name, "admin"), "mine") == []
