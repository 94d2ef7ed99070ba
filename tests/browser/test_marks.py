"""Marks of reliable sentences in a real browser: they come after the reports, and leave them as they are."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from dashboard import settings
from tests import needs
from tests.browser.conftest import WAIT, Watched

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(240)]
NAME = "phantom-fve-m2"


@needs.BUNDLES.unless((settings.bundles() / "phantom-trust.json").is_file())
def test_a_dot_before_a_sentence_can_be_heard_and_moves_no_focus(watched: Watched) -> None:
    watched.open("?source=phantom&fve=M2&dve=&cve=&ccve=")
    card = watched.page.locator(f"article.card[data-name={NAME}]")
    card.locator(".word").nth(2).focus()
    dots = card.locator(".reliable")
    expect(dots.first).to_be_visible(timeout=WAIT)
    assert {each.get_attribute("role") for each in dots.all()} == {"img"}
    assert {each.get_attribute("aria-label") for each in dots.all()} == {"Marked as reliable:"}
    expect(watched.page.get_by_text("● before a sentence: at most 1 in 10 sentences")).to_be_visible()
    # Each stands right before the first word of its sentence.
    starts = card.evaluate(
        "card => [...card.querySelectorAll('.reliable')].map((dot) => dot.nextElementSibling.textContent)"
    )
    assert all(word[0].isupper() for word in starts)
    expect(card.locator(".word").nth(2)).to_be_focused()  # the report was not drawn anew
