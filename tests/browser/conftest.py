"""The real server and a real browser for the tests of this folder."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from playwright import sync_api

from core.registry import ENCODERS
from core.reviews import local_key
from dashboard import settings
from tests import needs
from tests.browser.find import NoBrowserError, start
from tests.served import serving

WAIT = 60_000  # milliseconds: other work may be going on
sync_api.expect.set_options(timeout=WAIT)  # its own five seconds are too few then
_TOPS = [each.name for each in Path(Path.home().anchor).iterdir() if each.is_dir()]


@dataclass
class Server:
    """A running dashboard."""

    url: str
    log: Path
    process: psutil.Process


def with_key(server_url: str, path: str) -> str:
    """The address of a review page, as the owner of this machine has it."""
    token = local_key.token_of(int(server_url.rpartition(":")[2]))
    return f"{path}{'&' if '?' in path else '?'}{local_key.TOKEN}={token}"


@dataclass
class Watched:
    """A page of the browser and what went wrong or over the wire on it."""

    page: sync_api.Page
    url: str
    errors: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    def open(self, path: str = "") -> None:
        """Go to an address and wait until the script has run."""
        self.page.goto(f"{self.url}/{path}")
        self.settle()

    def open_review(self, path: str) -> None:
        """Go to a review page with the key of this machine."""
        self.open(with_key(self.url, path))

    def resize(self, width: int, height: int) -> None:
        """Make the window so large, as a visitor does or has it; what is drawn anew is there afterwards."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.wait_for_timeout(300)
        self.settle()

    def close(self) -> None:
        """Close the page, on which nothing may have gone wrong."""
        self.page.close()
        assert self.errors == []

    def settle(self) -> None:
        """Wait until the app is idle: its status is read from the app's own attribute."""
        self.page.wait_for_selector('[data-testid="stApp"]')
        self.page.wait_for_timeout(150)
        self.page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=60_000)


def start_server(folder: Path, *options: str, port: int = 0, **environment: str) -> Generator[Server, None, None]:
    """Run the dashboard on a loopback port, a free one for 0, until the generator is closed."""
    own = {"CXR_CACHE": str(folder / "cache"), "CXR_REVIEWS": str(folder / "reviews.sqlite")}
    own |= {"CXR_EVALUATIONS": str(folder / "evaluations")} | environment
    command, log = [sys.executable, "dashboard/serve.py", *options], folder / "server.log"
    with serving(command, settings.REPOSITORY, log, port, **own) as (port, process):
        yield Server(f"http://127.0.0.1:{port}", log, psutil.Process(process.pid))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The dashboard on the demo bundles."""
    if not any(settings.bundles().glob("*/card.json")):
        needs.BUNDLES.skip()
    yield from start_server(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="package")
def browser() -> Iterator[sync_api.Browser]:
    """Chromium, Chrome or Edge. Its event loop lets no other run in this thread, so it ends with this folder."""
    with sync_api.sync_playwright() as playwright:
        try:
            browser = start(playwright)
        except NoBrowserError as error:
            if os.environ.get("CXR_BROWSER"):
                pytest.fail(f"CXR_BROWSER names a browser that does not start: {error}")
            needs.BROWSER.skip()
        yield browser
        browser.close()


def watch(
    opener: sync_api.Browser | sync_api.BrowserContext, url: str, width: int = 1440, height: int = 900
) -> Watched:
    """Open a page that remembers its errors and what it sent; pages of one context share the browser's cache."""
    page = opener.new_page()
    page.set_viewport_size({"width": width, "height": height})
    watched = Watched(page, url)

    def hear(message: sync_api.ConsoleMessage) -> None:
        # On a page that is not the first, Streamlit's frontend looks for its server under that path too, and gets 404.
        if message.type == "error" and "_stcore" not in str(message.location.get("url", "")):
            watched.errors.append(f"{message.text} ({message.location.get('url')})")

    def socket_opened(web_socket: sync_api.WebSocket) -> None:
        web_socket.on("framesent", lambda _: watched.sent.append("frame"))

    page.on("console", hear)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on("request", lambda request: watched.sent.append(request.url))
    page.on("websocket", socket_opened)
    return watched


@pytest.fixture(scope="module")
def context(browser: sync_api.Browser) -> Iterator[sync_api.BrowserContext]:
    """What the browser keeps for the tests of one file: each of them reading Streamlit's scripts anew takes seconds."""
    context = browser.new_context()
    yield context
    context.close()


def guarded(opener: sync_api.Browser | sync_api.BrowserContext, server: Server) -> Iterator[Watched]:
    """A desktop page; fails at its end if the console, the page or the server's log shows an error."""
    before = len(server.log.read_text())
    watched = watch(opener, server.url)
    yield watched
    assert watched.page.get_by_text("Traceback").count() == 0
    watched.close()
    assert "Traceback" not in server.log.read_text()[before:]


@pytest.fixture
def watched(context: sync_api.BrowserContext, server: Server) -> Iterator[Watched]:
    """A desktop page, and what the browser keeps for the tests of its file.

    The test fails if the console, the page or the server's log shows an error.
    """
    yield from guarded(context, server)


def at(watched: Watched, position: int) -> None:
    """Wait until the reading page shows a case, with its image."""
    expect = sync_api.expect
    expect(watched.page.locator(".reading")).to_have_attribute("data-position", str(position), timeout=WAIT)
    expect(watched.page.locator('.reading:not([data-image=""])')).to_be_visible(timeout=WAIT)


def saved(watched: Watched) -> None:
    """Wait until the reading page says that all is saved."""
    sync_api.expect(watched.page.locator(".saved")).to_have_attribute("data-state", "saved", timeout=WAIT)


DEEP = """() => {
  const texts = []
  const read = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return texts.push(node.textContent.trim())
    if (["SCRIPT", "STYLE", "CODE"].includes(node.tagName)) return
    if (node.getAttribute) for (const name of ["title", "aria-label", "alt"]) texts.push(node.getAttribute(name))
    for (const each of [...(node.shadowRoot?.childNodes ?? []), ...node.childNodes]) read(each)
  }
  read(document.body)
  return texts.filter(Boolean)
}"""
_STRANGE = re.compile(rf"\*\*|\b[a-z-]+-(?:{'|'.join(ENCODERS)})-\w+|\{{'|\['|(?<![\w:/.])/(?:{'|'.join(_TOPS)})/\w+")


def strange_to_readers(page: sync_api.Page) -> list[str]:
    """Texts on a page, but commands, with names of bundles, paths of the server, what Python prints, or Markdown."""
    return [text for text in page.evaluate(DEEP) if _STRANGE.search(text)]


def overhang(page: sync_api.Page) -> int:
    """Pixels by which something sticks out of the page's main part, sideways."""
    main = "document.querySelector('[data-testid=stMain]')"
    return int(page.evaluate(f"{main}.scrollWidth - {main}.clientWidth"))
