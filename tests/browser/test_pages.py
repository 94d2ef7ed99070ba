"""Every page in a real browser, at a desk and on a phone: no error, nothing sticks out, nothing that axe objects to."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.conftest import Server, overhang, start_server, strange_to_readers, watch
from training.commands.dashboard import command

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

PAGES = {
    "": "Reference report",
    "filters": "What each filter says of this X-ray",
    "embeddings": "The studies as an encoder sees them",
    "cases": "Reports side by side",
    "results": "Ours",
    "detection": "How small a finding is still reported",
    "review": "There is no session yet",
    "about": "Limits",
}


SIZES = {
    "desk and phone": ((1440, 900), (820, 1180), (720, 450), (390, 844)),
    "between": ((1024, 768), (820, 1180), (720, 450)),
}
"""Widths and heights, each from the one before; 720 by 450 is a desk at 200 %."""
LOOKED_AT = {"desk and phone": (1440, 390), "between": (1024, 820, 720)}
"""Widths at which axe looks too: it takes a second."""


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("sizes", ["desk and phone", pytest.param("between", marks=pytest.mark.slow)])
def test_shows_no_error_and_nothing_sticks_out(context: BrowserContext, server: Server, path: str, sizes: str) -> None:
    watched = watch(context, server.url, *SIZES[sizes][0])
    (watched.open_review if path == "review" else watched.open)(path)
    for width, height in SIZES[sizes]:
        watched.resize(width, height)
        expect(watched.page.get_by_text(PAGES[path]).first).to_be_visible(timeout=30_000)
        expect(watched.page.get_by_role("note").filter(has_text="Research use only")).to_be_visible()
        assert watched.page.get_by_test_id("stException").count() == 0
        assert overhang(watched.page) <= 0, width
        if width not in LOOKED_AT[sizes]:
            continue
        assert strange_to_readers(watched.page) == []
        found = Axe().run(watched.page)
        assert not found.violations_count, found.generate_report()
    watched.close()


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a dashboard with the light theme."""
    for server in start_server(tmp_path_factory.mktemp("light"), *command(["--theme.base", "light"])):
        yield server.url


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES)
def test_the_light_theme_is_as_accessible(browser: Browser, light: str, path: str) -> None:
    watched = watch(browser, light)
    (watched.open_review if path == "review" else watched.open)(path)
    expect(watched.page.get_by_text(PAGES[path]).first).to_be_visible(timeout=30_000)
    background = watched.page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    assert min(int(each) for each in re.findall(r"\d+", background)[:3]) > 200
    found = Axe().run(watched.page)
    assert not found.violations_count, found.generate_report()
    watched.close()
