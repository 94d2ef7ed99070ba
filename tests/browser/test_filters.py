"""The Filters page in a real browser: words played without the server, the keyboard, the address, tiles, a phone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import BrowserContext, Locator, expect

from core.observations import CLUSTERS
from tests.browser.conftest import WAIT, Server, Watched, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

ADDRESS = "filters?pair=CCVE+%2B+M2"


def opened(watched: Watched, more: str = "") -> Locator:
    """The output that says which word is shown."""
    watched.page.goto(f"{watched.url}/{ADDRESS}{more}")
    expect(watched.page.locator(".player .tile")).to_have_count(
        14, timeout=3 * WAIT
    )  # the first visit loads the models
    watched.settle()
    return watched.page.locator(".player .where")


def bars(watched: Watched) -> list[str]:
    """Shares of the trained filters."""
    return watched.page.locator(".player .bar.trained .number").all_inner_texts()


def test_words_play_in_the_browser_and_the_address_restores_the_word(watched: Watched) -> None:
    where = opened(watched)
    expect(where).to_contain_text("Attention before the first word, rollout")
    expect(where).to_contain_text("(even share 7.7 %)")
    summary = bars(watched)
    shares = [float(each.removesuffix(" %")) for each in summary]
    assert len(shares) == len(CLUSTERS)
    assert sum(shares) == pytest.approx(100, abs=4)  # rounded, 13 of them
    page = watched.page
    page.get_by_label("Words a second").select_option("4")
    sent = len([each for each in watched.sent if each == "frame"])
    page.get_by_role("button", name="Play").click()
    # Looked for in each frame: the word stands a quarter of a second, and `expect` looks once a second.
    page.wait_for_function("place => place.textContent.includes('Word 4 of')", arg=where.element_handle(), timeout=WAIT)
    assert len([each for each in watched.sent if each == "frame"]) == sent  # not a word to the server
    page.get_by_role("button", name="Pause").click()
    expect(page).to_have_url(re.compile(r"word=\d+"), timeout=WAIT)
    watched.settle()
    shown = where.inner_text()
    assert "Word" in shown
    assert bars(watched) != summary
    page.reload()
    expect(where).to_have_text(shown, timeout=2 * WAIT)


def test_the_keyboard_alone_is_enough(watched: Watched) -> None:
    where = opened(watched, "&word=3")
    expect(where).to_contain_text("Word 3 of")
    slider = watched.page.get_by_label("Word of the report")
    slider.focus()
    for key, said in (
        ("ArrowRight", "Word 4 of"),
        ("ArrowLeft", "Word 3 of"),
        ("Home", "Word 1 of"),
        ("Escape", "Attention before the first word"),
    ):
        watched.page.keyboard.press(key)
        expect(where).to_contain_text(said, timeout=WAIT)
    watched.page.keyboard.press("Space")
    expect(watched.page.get_by_role("button", name="Pause")).to_be_visible(timeout=WAIT)
    watched.page.keyboard.press("Space")
    expect(watched.page.get_by_role("button", name="Play")).to_be_visible(timeout=WAIT)


def test_a_tile_opens_its_filter_and_filters_that_are_off_are_marked(watched: Watched) -> None:
    opened(watched, "&off=Pneumothorax")
    page = watched.page
    expect(page.locator(".player .off")).to_have_count(1)
    expect(page.get_by_label("Filter Pneumothorax").locator(".off")).to_be_visible()
    expect(page.get_by_text("The report written before becomes")).to_be_visible(timeout=WAIT)
    page.get_by_label("Filter Fracture").click()
    expect(page.get_by_role("heading", name="The filter of Fracture")).to_be_visible(timeout=WAIT)
    expect(page).to_have_url(re.compile("filter=Fracture"), timeout=WAIT)
    expect(page.get_by_label("Filter Fracture")).to_have_attribute("aria-pressed", "true", timeout=WAIT)


def test_the_control_can_be_taken_away_and_a_phone_shows_no_sideways_scroll(
    context: BrowserContext, server: Server
) -> None:
    phone = watch(context, server.url, 390, 844)
    opened(phone)
    expect(phone.page.locator(".player .bar.untrained")).to_have_count(len(CLUSTERS))
    phone.page.get_by_text("Show untrained filters beside them").click()
    expect(phone.page.locator(".player .bar.untrained")).to_have_count(0, timeout=WAIT)
    assert phone.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    wide = "(e) => e.scrollWidth <= e.clientWidth + 1"
    assert phone.page.locator(".player").evaluate(wide)
    phone.close()
