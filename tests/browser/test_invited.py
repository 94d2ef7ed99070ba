"""An invited reader in a real browser: the link, practice with feedback, a break, a second window, a pencil."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.reviews.database import Database
from core.reviews.design import Case, Choice, Design, image_sha256
from core.reviews.invitations import invite, list_invitations
from core.reviews.practice import Practice
from core.reviews.sources import open_source, session_image
from core.reviews.store import Actor, create_session, first_admin, list_screens, read_screen, set_role
from tests.browser.conftest import WAIT, Server, at, saved, start_server, sync_api, watch
from tests.review_cases import ANNA, phantom_cases

expect = sync_api.expect
pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(400)]
TEXTS = {"secret-pair": "The heart is enlarged. No effusion.", "reference": "The heart is normal. The lungs are clear."}


@dataclass
class Trial:
    """A server with two sessions of anna: errors with practice, and image quality with regions."""

    server: Server
    database: Database
    admin: Actor
    errors: str
    quality: str


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    folder = tmp_path_factory.mktemp("invited")
    database = Database(folder / "reviews.sqlite")
    admin = first_admin(database, getpass.getuser())
    set_role(database, admin, "anna", "reader")
    name, cases = phantom_cases(TEXTS, count=3)
    practice = (
        Practice(
            cases[0].study_id, ("reference",), ("omission = 1", "all kinds = 1"), "Look at the costophrenic angle."
        ),
    )
    errors = Design("Zebra errors", "report-quality", ("anna",), source=name, practice=practice)
    earlier = [each for each in open_source(name).studies("test") if len(open_source(name).images(each.study_id)) > 1]
    seen = phantom_case(name, earlier[0].study_id)
    quality = Design("Zebra films", "image-quality", ("anna",), studies=Choice(count=1), source=name, priors=True)
    made = [create_session(database, admin, errors, cases), create_session(database, admin, quality, [seen])]
    for server in start_server(folder):
        yield Trial(server, database, admin, *made)
    database.close()


def phantom_case(source: str, study_id: str) -> Case:
    return Case(study_id, image_sha256(session_image(open_source(source), study_id)), TEXTS)


def picture(page: sync_api.Page, name: str) -> None:
    """Keep a picture for whoever looks at the pages: CXR_PICTURES names the folder."""
    if folder := os.environ.get("CXR_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_an_invited_reader_practises_rests_and_reads_on_two_displays(browser: sync_api.Browser, trial: Trial) -> None:
    _, code = invite(trial.database, trial.admin, trial.errors, "anna")
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    watched = watch(context, trial.server.url)
    page = watched.page
    watched.open(f"review?invite={code}")
    expect(page.get_by_role("button", name="Begin")).to_be_visible(timeout=WAIT)
    assert code not in page.url
    picture(page, "invited")
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_text("Zebra errors").first).to_be_visible(timeout=WAIT)
    assert page.get_by_text("Zebra films").count() == 0
    assert list_invitations(trial.database, trial.admin, trial.errors)[0].state == "used"
    page.wait_for_function("document.cookie.includes('-invited=')", timeout=WAIT)
    other = watch(context, trial.server.url)  # another tab of this browser
    other.open("review")
    expect(other.page.get_by_text("Zebra errors").first).to_be_visible(timeout=WAIT)
    other.page.get_by_role("button", name="Begin").click()
    page.close()
    page = other.page
    expect(page.locator(".sheet")).to_contain_text("First 1 for practice", timeout=WAIT)
    page.keyboard.press("Enter")
    at(other, -1)
    expect(page.locator(".case")).to_have_text("Practice 1 of 1")
    for key in ("ArrowUp", "2", "n"):
        page.keyboard.press(key)
    expect(page.locator(".sheet")).to_contain_text("what was expected", timeout=WAIT)
    expect(page.locator('.feedback [data-right="true"]')).to_have_count(2)
    expect(page.locator(".sheet")).to_contain_text("Look at the costophrenic angle.")
    picture(page, "feedback")
    page.set_viewport_size({"width": 390, "height": 844})
    picture(page, "feedback-phone")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.keyboard.press("Enter")
    at(other, 0)
    expect(page.locator(".case")).to_contain_text("Case 1 of 4")
    page.keyboard.press(".")
    expect(page.locator(".sheet")).to_contain_text("A break")
    before = page.evaluate("performance.now()")
    page.wait_for_timeout(2500)
    page.keyboard.press("Enter")
    assert page.evaluate("performance.now()") - before > 2500
    with page.expect_popup() as opened:
        page.keyboard.press(",")
    second = opened.value
    second.set_viewport_size({"width": 900, "height": 900})
    expect(second.locator("canvas").first).to_be_visible(timeout=WAIT)
    expect(second.locator("canvas").first).to_have_attribute(
        "aria-label", "Radiograph case 2 of Zebra errors, 640 by 640 pixels"
    )
    expect(page.locator(".film")).to_be_hidden()
    picture(page, "report-display")
    picture(second, "image-display")
    second.keyboard.press("1")  # an error of the first kind, pressed over there
    second.keyboard.press("n")
    at_second = page.locator(".reading")
    expect(at_second).to_have_attribute("data-position", "1", timeout=WAIT)
    expect(second.locator("canvas").first).to_have_attribute(
        "aria-label", "Radiograph case 3 of Zebra errors, 640 by 640 pixels"
    )
    saved(other)
    second.close()
    expect(page.locator(".film")).to_be_visible(timeout=WAIT)
    at(other, 1)
    screens = [screen for screen, _, _ in list_screens(trial.database, ANNA, trial.errors)]
    assert [len(read_screen(trial.database, ANNA, screen).marks) for screen in screens[:3]] == [1, 1, 0]
    assert read_screen(trial.database, ANNA, screens[1]).seconds < 30
    other.close()
    assert watched.errors == []
    assert code not in trial.server.log.read_text()
    context.close()


def test_a_pencil_draws_a_region_and_a_hand_beside_it_does_nothing(browser: sync_api.Browser, trial: Trial) -> None:
    _, code = invite(trial.database, trial.admin, trial.quality, "anna")
    context = browser.new_context(viewport={"width": 820, "height": 1180})
    watched = watch(context, trial.server.url, 820, 1180)
    page = watched.page
    watched.open(f"review?invite={code}")
    page.get_by_role("button", name="Begin").dblclick(timeout=WAIT)  # the second press does no harm
    expect(page.get_by_text("Zebra films").first).to_be_visible(timeout=WAIT)
    page.get_by_role("button", name="Begin").click(timeout=WAIT)
    expect(page.locator(".sheet")).to_be_visible(timeout=WAIT)
    page.keyboard.press("Enter")
    at(watched, 0)
    expect(page.locator(".prior canvas").first).to_have_attribute(
        "aria-label", re.compile("before case 1 of Zebra films")
    )
    before = page.evaluate("document.scrollingElement.scrollTop")
    page.locator(".stage canvas").first.evaluate(
        """canvas => {
          const box = canvas.getBoundingClientRect()
          const at = (x, y) => ({ clientX: box.left + box.width * x, clientY: box.top + box.height * y })
          const send = (name, pointerType, pointerId, x, y) => canvas.dispatchEvent(new PointerEvent(name, {
            pointerType, pointerId, bubbles: true, composed: true, button: 0,
            buttons: name === "pointerup" ? 0 : 1, ...at(x, y) }))
          canvas.setPointerCapture = () => undefined // these pointers are not the browser's own
          send("pointerdown", "pen", 7, 0.4, 0.4)
          send("pointerdown", "touch", 8, 0.9, 0.9)
          send("pointermove", "touch", 8, 0.8, 0.8)
          send("pointermove", "pen", 7, 0.6, 0.6)
          send("pointerup", "pen", 7, 0.6, 0.6)
          send("pointerup", "touch", 8, 0.8, 0.8)
        }"""
    )
    page.keyboard.press("k")
    page.keyboard.press("1")
    expect(page.locator(".finding")).to_contain_text("region on the image")
    saved(watched)
    picture(page, "pencil")
    (screen,) = [each for each, _, _ in list_screens(trial.database, ANNA, trial.quality)]
    (mark,) = [dict(each.mark.value) for each in read_screen(trial.database, ANNA, screen).marks]
    left, top, right, bottom = mark["region"]
    assert 0.1 < right - left < 0.6 and 0.1 < bottom - top < 0.6
    assert page.evaluate("document.scrollingElement.scrollTop") == before
    assert page.locator(".stage canvas").first.evaluate("each => getComputedStyle(each).touchAction") == "none"
    watched.close()
    context.close()


def test_the_owner_invites_and_what_a_design_lacks_is_in_sight(browser: sync_api.Browser, trial: Trial) -> None:
    watched = watch(browser, trial.server.url)
    page = watched.page
    watched.open_review(f"review?session={trial.errors}&reader={trial.admin.name}")
    page.get_by_text("Invite and remind readers").click(timeout=WAIT)
    page.get_by_role("button", name="Make a link").click(timeout=WAIT)
    expect(page.get_by_text("Copy this now: it is shown once.")).to_be_visible(timeout=WAIT)
    shown = page.get_by_text("?invite=").first.inner_text()
    assert trial.server.url in shown
    picture(page, "owner")
    page.get_by_text("Changes", exact=True).click()
    watched.settle()
    page.set_viewport_size({"width": 1440, "height": 2000})
    picture(page, "owner-changes")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("button", name="New session").or_(page.get_by_text("New session", exact=True)).first.click()
    expect(page.get_by_role("button", name="Make the session")).to_be_visible(timeout=WAIT)
    watched.settle()
    page.get_by_role("button", name="Make the session").click()
    expect(page.get_by_test_id("stToast").filter(has_text="title")).to_be_in_viewport(timeout=WAIT)
    expect(page.get_by_test_id("stAlert").filter(has_text="title")).to_have_count(1)
    expect(page.get_by_text("Give the session a title.")).to_have_count(1)
    picture(page, "design-lacks")
    page.set_viewport_size({"width": 390, "height": 844})
    watched.settle()
    picture(page, "design-lacks-phone")
    watched.close()
