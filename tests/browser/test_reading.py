"""A radiologist's session in a real browser: by keyboard alone, by mouse, broken off, resumed, in two tabs."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import pytest
import sqlalchemy as sa

from core.reviews.database import Database
from core.reviews.design import Design
from core.reviews.schema import events
from core.reviews.store import create_session, first_admin, list_screens, read_screen, set_role
from tests.browser.conftest import WAIT, Server, Watched, at, saved, start_server, sync_api, watch, with_key
from tests.review_cases import ANNA, phantom_cases
from tests.served import free_port

expect = sync_api.expect
TEXTS = {
    "secret-pair": "The heart is enlarged. There is a small left pleural effusion.",
    "reference": "The heart is normal in size. The lungs are <b>clear</b>.",
}


@dataclass
class Trial:
    """A server with a database of three sessions."""

    server: Server
    database: Database
    quality: str
    preference: str
    hasty: str

    def marks(self, screen: str) -> list[dict[str, object]]:
        return [dict(saved.mark.value) for saved in read_screen(self.database, ANNA, screen).marks]

    def screens(self, session: str) -> list[str]:
        return [screen for screen, _, _ in list_screens(self.database, ANNA, session)]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    folder = tmp_path_factory.mktemp("reading")
    location = folder / "reviews.sqlite"
    database = Database(location)
    admin = first_admin(database, getpass.getuser())
    set_role(database, admin, "anna", "reader")
    name, cases = phantom_cases(TEXTS)

    def create(rubric: str) -> str:
        design = Design("Trial", rubric, ("anna",), source=name, instructions="Mark what you would correct.")
        return create_session(database, admin, design, cases)

    sessions = [create(rubric) for rubric in ("report-quality", "preference", "report-quality")]
    for server in start_server(folder, CXR_REVIEWS=str(location)):
        yield Trial(server, database, *sessions)
    database.close()


def enter(browser: sync_api.Browser, trial: Trial, session: str, width: int = 1440, height: int = 900) -> Watched:
    return go_in(watch(browser, trial.server.url, width, height), session)


def go_in(watched: Watched, session: str) -> Watched:
    watched.page.goto(f"{watched.url}/{with_key(watched.url, f'reading?session={session}&reader=anna')}")
    expect(watched.page.locator(".reading[data-position]")).to_be_visible(timeout=WAIT)
    sheet = watched.page.locator(".over")
    if sheet.is_visible():
        watched.page.keyboard.press("Enter")
    return watched


def press(watched: Watched, *keys: str) -> None:
    for key in keys:
        watched.page.keyboard.press(key)


def test_a_session_by_keyboard_broken_off_and_resumed(browser: sync_api.Browser, trial: Trial) -> None:
    watched = enter(browser, trial, trial.quality)
    at(watched, 0)
    screens = trial.screens(trial.quality)
    # The second sentence is a false finding; its second word is in the wrong place, which matters little.
    press(watched, "ArrowDown", "1", "ArrowRight", "ArrowRight", "3", "s")
    # Of the whole report: an omission, taken back at once.
    press(watched, "ArrowUp", "ArrowUp", "2", "u")
    press(watched, "f", "c")
    watched.page.keyboard.type("<script>alert(1)</script> r and c are letters")
    press(watched, "Control+Enter")
    saved(watched)
    first = read_screen(trial.database, ANNA, screens[0])
    text = first.reports[0][1]
    start = text.index(". ") + 2
    word = text.index(" ", start) + 1
    assert sorted(trial.marks(screens[0]), key=str) == sorted(
        [
            {"error": "false finding", "significant": True, "span": [start, len(text)]},
            {"error": "wrong location", "significant": False, "span": [word, text.index(" ", word)]},
        ],
        key=str,
    )
    assert first.flagged and first.comment == "<script>alert(1)</script> r and c are letters"
    expect(watched.page.locator(".comment")).to_contain_text("<script>alert(1)</script>")
    assert "secret-pair" not in watched.page.content()
    assert "secret-pair" not in watched.page.locator(".reading").inner_text()
    press(watched, "n")
    at(watched, 1)
    press(watched, "4")
    saved(watched)
    watched.page.close()  # in the middle
    assert watched.errors == []

    again = enter(browser, trial, trial.quality)
    at(again, 1)
    expect(again.page.locator(".marks li")).to_have_count(1)
    press(again, "x")
    again.page.keyboard.type("not a chest")
    press(again, "Enter")
    at(again, 2)
    press(again, "v", "r", "ArrowRight", "Enter", "ArrowRight", "ArrowRight", "Enter", "i", "Escape")
    expect(again.page.locator(".viewer")).to_have_attribute("data-ruler", "4 pixels")
    expect(again.page.locator(".viewer")).to_have_attribute("data-inverted", "true")
    press(again, "n")
    at(again, 3)
    press(again, "n")
    expect(again.page.locator(".sheet")).to_contain_text("All cases are read", timeout=WAIT)
    saved(again)
    again.page.close()
    states = [state for _, state, _ in list_screens(trial.database, ANNA, trial.quality)]
    assert states == ["done", "skipped", "done", "done"]
    assert again.errors == []
    assert "Traceback" not in trial.server.log.read_text()


def test_nothing_is_lost_or_refused_of_what_is_done_in_haste(browser: sync_api.Browser, trial: Trial) -> None:
    watched = enter(browser, trial, trial.hasty)
    at(watched, 0)
    screens = trial.screens(trial.hasty)
    field = watched.page.locator(".typing textarea")
    # A comment, and before it is saved the button to another case.
    press(watched, "c")
    watched.page.keyboard.type("half a comm")
    watched.page.locator(".places button").nth(1).click()
    at(watched, 1)
    expect(field).to_be_hidden()
    # A comment, and in the middle of it the button to skip: the reason is a field of its own.
    press(watched, "c")
    watched.page.keyboard.type("rotated")
    watched.page.locator('[data-go="skip"]').click()
    expect(field).to_have_value("")
    expect(watched.page.locator(".typing label span")).to_contain_text("skipped")
    watched.page.keyboard.type("not a chest")
    press(watched, "Enter")
    at(watched, 2)
    # A key three times, sooner than one is saved.
    press(watched, "1")
    saved(watched)
    press(watched, "s", "s", "s")
    saved(watched)
    expect(watched.page.locator(".notice")).to_be_hidden()
    assert [value["significant"] for value in trial.marks(screens[2])] == [False]
    first, second = (read_screen(trial.database, ANNA, screen) for screen in screens[:2])
    assert (first.comment, second.comment) == ("half a comm", "rotated")
    assert (second.state, second.skip_reason) == ("skipped", "not a chest")
    watched.page.close()
    assert watched.errors == []


def test_by_mouse_in_two_tabs_at_a_phones_width(browser: sync_api.Browser, trial: Trial) -> None:
    one, two = (enter(browser, trial, trial.preference, 390, 844) for _ in range(2))
    for tab in (one, two):
        at(tab, 0)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    screen = trial.screens(trial.preference)[0]
    one.page.locator(".palette button").nth(0).click()
    saved(one)
    assert trial.marks(screen) == [{"prefer": "first"}]
    # The other tab has not seen it: it is refused, told, and can insist.
    two.page.evaluate("window.dispatchEvent(new Event('blur'))")
    two.page.locator(".palette button").nth(1).click()
    saved(two)
    if trial.marks(screen) == [{"prefer": "first"}]:
        expect(two.page.locator(".notice")).to_contain_text("another tab")
        two.page.locator(".notice button").first.click()
        saved(two)
    assert trial.marks(screen) == [{"prefer": "second"}]
    two.page.locator('[data-go="next"]').click()
    at(two, 1)
    saved(two)
    assert read_screen(trial.database, ANNA, screen).state == "done"
    for tab in (one, two):
        tab.close()


@pytest.mark.slow
def test_a_mark_that_could_not_be_sent_stays_in_the_closed_browser_and_is_sent_once(
    browser: sync_api.Browser, trial: Trial
) -> None:
    context = browser.new_context()
    watched = go_in(watch(context, trial.server.url), trial.quality)
    saved(watched)
    screen = str(watched.page.locator(".reading").get_attribute("data-screen"))
    before = trial.marks(screen)
    trial.server.process.suspend()
    try:
        press(watched, "5")
        expect(watched.page.locator(".saved")).to_have_attribute("data-state", "unsaved", timeout=WAIT)
        expect(watched.page.locator(".notice")).to_contain_text("kept in this browser")
        watched.page.close()
    finally:
        trial.server.process.resume()
    again = watch(context, trial.server.url)
    again.page.wait_for_timeout(6500)  # until what was left is of a tab that is surely gone
    go_in(again, trial.quality)
    saved(again)
    expect(again.page.locator(".notice")).to_be_hidden()
    press(again, "ArrowDown")
    again.page.wait_for_timeout(1000)
    assert len(trial.marks(screen)) == len(before) + 1
    context.close()
    assert again.errors == []


@pytest.mark.slow
def test_a_killed_server_that_is_started_anew_gets_what_was_marked_meanwhile(
    browser: sync_api.Browser, trial: Trial, tmp_path: Path
) -> None:
    port, location = free_port(), trial.database.name
    servers = [start_server(tmp_path, port=port, CXR_REVIEWS=location) for _ in range(2)]  # the same place, twice
    first = next(servers[0])
    watched = go_in(watch(browser, first.url), trial.quality)
    saved(watched)
    screen = str(watched.page.locator(".reading").get_attribute("data-screen"))
    before = trial.marks(screen)
    press(watched, "6")
    saved(watched)
    first.process.kill()
    press(watched, "1", "2")
    expect(watched.page.locator(".saved")).to_have_attribute("data-state", "unsaved", timeout=WAIT)
    next(servers[1])
    saved(watched)
    press(watched, "3")
    saved(watched)
    kinds = [value["error"] for value in trial.marks(screen)]
    new = ["missing comparison", "false finding", "omission", "wrong location"]
    assert sorted(map(str, kinds)) == sorted([*(str(value["error"]) for value in before), *new])
    watched.page.close()
    for server in servers:
        server.close()


@pytest.mark.slow
def test_times_of_reading(browser: sync_api.Browser, trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    watched = enter(browser, trial, trial.quality)
    page = watched.page
    shown = page.locator('.reading:not([data-image=""])')
    expect(shown).to_be_visible(timeout=WAIT)
    press(watched, "Escape", *"ppp")
    at(watched, 0)
    turns, marks, disk = [], [], []
    for _ in range(4):
        for way in ("n", "p"):
            saved(watched)
            page.wait_for_timeout(1500)  # the neighbours' images come meanwhile
            before = page.locator(".reading").get_attribute("data-position")
            started = time.perf_counter()
            page.keyboard.press(way)
            page.wait_for_function(
                """(before) => {
                    const roots = [...document.querySelectorAll("*")].map((each) => each.shadowRoot).filter(Boolean)
                    const page = roots.map((root) => root.querySelector(".reading")).find(Boolean)
                    return page.dataset.position !== before && page.dataset.image === page.dataset.screen
                }""",
                arg=before,
            )
            turns.append(time.perf_counter() - started)
            press(watched, "Escape")
    page.evaluate(
        """() => {
            const roots = [...document.querySelectorAll("*")].map((each) => each.shadowRoot).filter(Boolean)
            const sign = roots.map((root) => root.querySelector(".saved")).find(Boolean)
            window.times = []
            const note = () => window.times.push([sign.dataset.state, performance.now() / 1000])
            new MutationObserver(note).observe(sign, { attributes: true, attributeFilter: ["data-state"] })
        }"""
    )
    for _ in range(20):
        page.evaluate("window.times.length = 0")
        page.keyboard.press("1")
        saved(watched)
        times = page.evaluate("window.times")
        begun = next(at for state, at in times if state == "saving")
        marks.append(next(at for state, at in times if state == "saved") - begun)
        with trial.database.read() as connection:
            written = connection.scalar(sa.select(events.c.at).order_by(events.c.sequence.desc()).limit(1))
        origin = page.evaluate("performance.timeOrigin / 1000")
        disk.append(datetime.fromisoformat(written).timestamp() - origin - begun)
        page.wait_for_timeout(500)
    page.close()
    with capsys.disabled():
        sys.stdout.write(f"\ncase to case: median {median(turns):.3f} s, largest {max(turns):.3f} s; ")
        sys.stdout.write(f"key to database: median {median(disk):.3f} s, largest {max(disk):.3f} s; ")
        sys.stdout.write(f"key to 'saved' on the page: median {median(marks):.3f} s, largest {max(marks):.3f} s\n")
    assert median(turns) <= 0.5
