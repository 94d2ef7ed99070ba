"""What stands before Streamlit's page does, in a browser: a film with its reference, and then the page itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import WAIT, Watched, start_server, sync_api, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]
FIRST = "#cxr-first"
# What is seen at the middle of the film, and what covers the page: our frame, before and after.
TOP = "() => document.elementFromPoint(innerWidth / 2, innerHeight / 2)?.closest('#cxr-first') !== null"


def test_a_film_stands_before_the_page_and_gives_way_to_it(browser: sync_api.Browser, tmp_path: Path) -> None:
    for server in start_server(tmp_path):
        watched = watch(browser, server.url, 1440, 900)
        page = watched.page
        page.add_init_script(
            "addEventListener('DOMContentLoaded', () => {"
            " window.before = document.querySelector('#root').childElementCount })"
        )
        page.goto(f"{server.url}/", wait_until="commit")
        page.locator(f"{FIRST}[data-shown]").wait_for(state="attached", timeout=WAIT)
        page.locator(FIRST).wait_for(state="detached", timeout=WAIT)
        assert page.evaluate("window.before") == 0
        assert page.locator("article.reference").count() == 1
        assert page.locator(".viewer").count() == 1
        assert page.evaluate(TOP) is False
        watched.settle()
        watched.close()  # no error: its script and its picture are allowed
        # Now it is in the page itself, on a telephone too.
        watched = watch(browser, server.url, 390, 844)
        watched.page.goto(f"{server.url}/", wait_until="commit")
        watched.page.locator(f"{FIRST}[data-shown]").wait_for(state="attached", timeout=WAIT)
        assert "cxr-told" in watched.page.content()
        watched.page.locator(FIRST).wait_for(state="detached", timeout=WAIT)
        watched.close()


@pytest.mark.parametrize("path", ["about", "?source=example", "results"])
def test_other_pages_have_none(path: str, watched: Watched) -> None:
    watched.page.goto(f"{watched.url}/{path}", wait_until="domcontentloaded")
    assert watched.page.locator(FIRST).count() == 0
    watched.settle()


def test_it_goes_where_the_page_has_something_else_to_say(browser: sync_api.Browser, tmp_path: Path) -> None:
    """No bundle at all: the page says so, and no film stands over it."""
    (tmp_path / "none").mkdir()
    for server in start_server(tmp_path, CXR_BUNDLES=str(tmp_path / "none")):
        watched = watch(browser, server.url)
        watched.page.goto(f"{server.url}/")
        watched.page.locator(FIRST).wait_for(state="detached", timeout=WAIT)
        watched.settle()
        assert watched.page.locator(FIRST).count() == 0
        watched.close()
