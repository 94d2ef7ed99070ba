"""Drafts edited in a real browser: a study of two readers from its making to its files, two tabs, a closed page."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from core.reviews.analysis import analyse
from core.reviews.answers import load_results
from core.reviews.backup import verify
from core.reviews.database import Database
from core.reviews.design import Design
from core.reviews.editing_design import NO_DRAFT, Editing
from core.reviews.export import export
from core.reviews.record import load_record
from core.reviews.store import Actor, create_session, first_admin, list_screens, read_screen, set_role
from tests.browser.conftest import WAIT, Server, Watched, at, saved, start_server, watch, with_key
from tests.review_cases import all_events, phantom_cases

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

DRAFT = "The heart is enlarged. There is a small left pleural effusion."
TEXTS = {"secret-pair": DRAFT, "reference": DRAFT.replace("small", "moderate")}
PASTE = """(area) => {
  const carried = new DataTransfer()
  carried.setData("text/plain", "x".repeat(1_048_576))
  const event = new ClipboardEvent("paste", { clipboardData: carried, bubbles: true, cancelable: true })
  return area.dispatchEvent(event)
}"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Database]]:
    folder = tmp_path_factory.mktemp("editing")
    location = folder / "reviews.sqlite"
    with closing(Database(location)) as database:
        admin = first_admin(database, getpass.getuser())
        for name in ("anna", "boris"):
            set_role(database, admin, name, "reader")
        for server in start_server(folder, CXR_REVIEWS=str(location)):
            yield server, database
            assert "Traceback" not in server.log.read_text()


def enter(opener: Browser | BrowserContext, server: Server, session: str, reader: str) -> Watched:
    watched = watch(opener, server.url)
    watched.page.goto(f"{server.url}/{with_key(server.url, f'reading?session={session}&reader={reader}')}")
    expect(watched.page.locator(".reading[data-position]")).to_be_visible(timeout=WAIT)
    if watched.page.locator(".over").is_visible():
        watched.page.keyboard.press("Enter")
    return watched


def test_an_editing_study_of_two_readers(browser: Browser, place: tuple[Server, Database], tmp_path: Path) -> None:
    server, database = place
    source, cases = phantom_cases(TEXTS)
    admin = first_admin(database, getpass.getuser())
    editing = Editing((NO_DRAFT, "secret-pair"), washout_days=0, planted=1.0, kinds=("side",))
    design = Design("Drafts", "draft-editing", ("anna", "boris"), source=source, editing=editing)
    trial = create_session(database, admin, design, cases)
    anna = Actor("anna", "reader")
    screens = [screen for screen, _, _ in list_screens(database, anna, trial)]

    # Anna: what she types is there after the page is closed at once, and two tabs are told of each other.
    context = browser.new_context()
    first = enter(context, server, trial, "anna")
    at(first, 0)
    area = first.page.locator(".editor textarea")
    expect(area).to_be_focused()
    expect(first.page.locator(".case")).to_contain_text("Sitting 1 of 2")
    assert area.evaluate(PASTE) is False
    expect(first.page.locator(".notice")).to_contain_text("1,048,576 characters, and a report has at most 10,000")
    begun = area.input_value()
    assert begun in ("", DRAFT.replace("left", "right"))
    first.page.keyboard.press("Control+End")
    first.page.keyboard.type(" No pneumothorax n p c")
    expect(area).to_have_value(f"{begun} No pneumothorax n p c")  # letters are letters here
    expect(first.page.locator(".found")).to_contain_text("Pneumothorax: absent", timeout=WAIT)
    first.page.keyboard.press("Control+z")  # the browser's own
    assert area.input_value() != f"{begun} No pneumothorax n p c"
    area.fill(f"{begun} No pneumothorax.")
    first.page.close()  # nothing of it was sent yet
    second = enter(context, server, trial, "anna")
    at(second, 0)
    area = second.page.locator(".editor textarea")
    expect(area).to_have_value(f"{begun} No pneumothorax.", timeout=WAIT)
    saved(second)
    other = enter(context, server, trial, "anna")
    at(other, 0)
    area.press_sequentially(" One.")
    saved(second)
    other.page.locator(".editor textarea").press_sequentially(" Two.")
    panel = other.page.locator(".editor .other")
    expect(panel).to_contain_text("changed in another tab", timeout=WAIT)
    expect(panel.locator("blockquote")).to_contain_text("One.")
    expect(other.page.locator(".editor textarea")).to_have_value(f"{begun} No pneumothorax. Two.")
    other.page.keyboard.press("Control+Enter")
    expect(other.page.locator(".notice")).to_contain_text("Choose first which text")
    panel.get_by_role("button", name="Keep my text").click()
    saved(other)
    assert read_screen(database, anna, screens[0]).marks[0].mark.value["answer"].endswith("Two.")
    kept = [row.asked["mark"]["value"]["answer"] for row in all_events(database) if row.action == "refused"]
    assert any("Two." in text for text in kept)
    assert "secret-pair" not in other.page.content() and "moderate" not in other.page.content()
    second.page.close()
    finish(other, 4)
    other.close()

    boris = enter(context, server, trial, "boris")
    finish(boris, 4)
    boris.close()

    root = watch(context, server.url)
    root.open_review(f"review?reader={admin.name}&session={trial}")
    root.page.get_by_text("all cases are read").click()
    root.page.get_by_role("button", name="Close and unblind").click()
    expect(root.page.get_by_role("heading", name="Editing")).to_be_visible(timeout=WAIT)
    root.close()
    context.close()
    results = load_results(database, admin, trial)
    export(results, analyse(results, resamples=100), tmp_path, record=load_record(database, admin, trial))
    rows = json.loads((tmp_path / "edits.json").read_text(encoding="utf-8"))["edits"]
    assert len(rows) == 8 and sorted(row["sitting"] for row in rows) == [1] * 4 + [2] * 4
    drafted = [row for row in rows if row["arm"] == "secret-pair"]
    assert all(row["planted"] == "side" and row["caught"] is False for row in drafted)
    assert all(row["text"].strip() and row["seconds"] > 0 for row in rows)
    assert all(row["typing"] > 0 for row in rows if row["arm"] == NO_DRAFT)
    verify(database)


@pytest.mark.slow
def test_a_finished_sitting_says_when_the_next_opens(browser: Browser, place: tuple[Server, Database]) -> None:
    server, database = place
    source, cases = phantom_cases(TEXTS)
    editing = Editing((NO_DRAFT, "secret-pair"), washout_days=14)
    design = Design("Two sittings", "draft-editing", ("boris",), source=source, editing=editing)
    trial = create_session(database, first_admin(database, getpass.getuser()), design, cases)
    boris = enter(browser, server, trial, "boris")
    finish(boris, 2)
    boris.page.keyboard.press("Escape")
    boris.page.keyboard.press("n")
    expect(boris.page.locator(".sheet")).to_contain_text("Sitting 2 opens on 20", timeout=WAIT)
    expect(boris.page.locator(".places button")).to_have_count(2)
    boris.close()


def finish(watched: Watched, count: int) -> None:
    """Read on to the end: an empty report is written, a draft is left as it is."""
    for position in range(count):
        at(watched, position)
        area = watched.page.locator(".editor textarea")
        expect(area).to_be_focused(timeout=WAIT)
        if not area.input_value():
            watched.page.keyboard.press("Control+Enter")
            expect(watched.page.locator(".notice")).to_contain_text("Not answered yet")
            watched.page.keyboard.type("Clear lungs.", delay=5)
        watched.page.keyboard.press("Control+Enter")
        if position % 2:  # the last of a sitting
            expect(watched.page.locator(".sheet")).to_contain_text("All cases are read", timeout=WAIT)
            saved(watched)
            watched.page.keyboard.press("Enter")
