"""A browser that watches the network: no text that a person or a file wrote loads an image or becomes a link."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser

from dashboard import settings
from tests import needs
from tests.attacks.damage import HOSTILE
from tests.attacks.texts import ADDRESSES, OTHERS, PAGES, hostile_place
from tests.browser.conftest import Server, start_server, watch, with_key

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The dashboard on files full of markup."""
    if not any(settings.bundles().glob("*/card.json")):
        needs.BUNDLES.skip()
    folder = tmp_path_factory.mktemp("hostile")
    yield from start_server(folder, **hostile_place(folder))


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_loaded_and_nothing_is_a_link(page: str, browser: Browser, hostile: Server) -> None:
    watched = watch(browser, hostile.url)
    for query in ("", urlencode(dict.fromkeys(ADDRESSES.get(page, OTHERS), HOSTILE))):
        path = f"{'' if page == 'read' else page}{'?' if query else ''}{query}"
        watched.open(with_key(hostile.url, path) if page in ("review", "reading") else path)
        watched.page.wait_for_timeout(1500)
        asked = [each for each in watched.sent if not each.startswith((hostile.url, "frame", "data:", "blob:"))]
        assert asked == []
        main = watched.page.locator("[data-testid=stMain]")
        assert main.locator("img[src*='127.0.0.1:9/'], a[href^='http://b'], a[href*='127.0.0.1:9/']").count() == 0
    watched.page.close()
