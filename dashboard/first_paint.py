"""In: a request for the first page. Out: that page with a frame, a film and its reference, before Streamlit draws it.

Streamlit's page is empty until its scripts are read and a session has run, which takes seconds on a server that has
just started. `dashboard/serve.py` puts this before it. Only a computed film is shown so, and only where no sign-in is
asked for: a patient's film waits until it is known who asks.
"""

from __future__ import annotations

import base64
import html
import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import streamlit
from streamlit import config

from core import paths
from core.files import hash_of, own_folder, sha256_of, write_whole
from core.types import CXRLensError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HERE = Path(__file__).parent
FILES = HERE / "components" / "frontend" / "first"
PAGES = ("Read", "Filters", "Embeddings", "Cases", "Results", "Detection", "Review", "About")
"""As the navigation has them; a test compares them with it."""
NOTICE = "Research use only. Not for use in diagnostic procedures."
TOLD = "/_cxr/first.json"
SHIPPED = paths.ASSETS / "first-page.json"
"""Of the demo's first study: `dashboard.services.first_studies` writes it anew."""
WAIT = 15.0
"""Seconds that the film is waited for; the page itself has come by then."""
_COLOURS = {
    "background": ("theme.backgroundColor", "#0b0e11"),
    "raised": ("theme.secondaryBackgroundColor", "#151a20"),
    "text": ("theme.textColor", "#d9dfe5"),
    "border": ("theme.borderColor", "#29313a"),
    "accent": ("theme.primaryColor", "#3d86c6"),
}
FILM = "data:image/jpeg;base64,"
_READY = threading.Event()
_told: list[bytes] = [b"null"]


def recall() -> None:
    """Tell what the last server of this user told, or what ships, where nothing has changed that decides it."""
    key = _key()
    for file in (SHIPPED, _file()):
        with suppress(OSError, ValueError, LookupError, TypeError):
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["key"] == key and kept["told"]["film"].startswith(FILM):
                _tell(kept["told"])
                return


def keep(told: Mapping[str, Any] | None) -> None:
    """Tell of the first study, and keep it for the next server; None tells nothing.

    Args:
        told: "title"; "film", a JPEG as a data URL; "sections" of the reference, (name, text) each.
    """
    if told is not None:
        with suppress(CXRLensError, OSError):  # it is drawn again then
            own_folder(paths.cache())
            write(_file(), told)
    _tell(told)


def write(file: Path, told: Mapping[str, Any]) -> None:
    """Write what is told, with what decides it."""
    write_whole(file, json.dumps({"key": _key(), "told": told}))


def _tell(told: Mapping[str, Any] | None) -> None:
    _told[0] = json.dumps(told).encode()
    _READY.set()


def _file() -> Path:
    return paths.cache() / "first-page.json"


def _key() -> str:
    """What decides the first study: the bundles, whose phantoms come before other sources, and how they are drawn."""
    chosen = os.environ.get("CXR_BUNDLES")
    code = [Path(__file__), *sorted((HERE.parent / "core" / "studies" / "phantom").glob("*.py"))]
    return hash_of([chosen, [sha256_of(each) for each in code]])


def script() -> str:
    """The script that stands in the page; `dashboard.guard` lets it run."""
    return (FILES / "first.js").read_text(encoding="utf-8")


def page() -> bytes:
    """Streamlit's start page with the frame in it, in the colours of the theme, and with what is known of the film."""
    before, after = _frame()
    told = _told[0].replace(b"<", b"\\u003c") if _READY.is_set() else b""
    return before + told + after


@cache
def _frame() -> tuple[bytes, bytes]:
    """The page before and after what is told."""
    start = (Path(streamlit.__file__).with_name("static") / "index.html").read_text(encoding="utf-8")
    links = "".join(f'<a href="./{"" if name == PAGES[0] else name.lower()}">{html.escape(name)}</a>' for name in PAGES)
    colours = {name: _colour(option, usual) for name, (option, usual) in _COLOURS.items()}
    logo = base64.b64encode((HERE / "logo.svg").read_bytes()).decode()
    style = Template((FILES / "first.css").read_text(encoding="utf-8")).substitute(colours)
    frame = (FILES / "first.html").read_text(encoding="utf-8")
    frame = Template(frame).substitute(logo=logo, links=links, notice=NOTICE)
    ours = f'<div id="cxr-first"><template><style>{style}</style>{frame}</template></div>'
    head, body = start.replace("<title>Streamlit</title>", "<title>CXR Lens</title>").split("<body>", 1)
    before = f'{head}<body>{ours}<script type="application/json" id="cxr-told">'
    return before.encode(), f"</script><script>{script()}</script>{body}".encode()


def _colour(option: str, usual: str) -> str:
    found = str(config.get_option(option) or usual)
    return found if found.replace("#", "").isalnum() else usual


class FirstPaint:
    """The middleware."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before ``app``."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for the first page of the first study, and for what it tells; leave all others alone."""
        asked = _asked(scope) if scope["type"] == "http" else ""
        if asked == "/" and not scope["query_string"]:
            await _answer(send, page(), "text/html; charset=utf-8")  # with the film, where it is there already
        elif asked == TOLD:
            from anyio import to_thread

            await to_thread.run_sync(_READY.wait, WAIT, abandon_on_cancel=True)
            await _answer(send, _told[0], "application/json")
        else:
            await self.app(scope, receive, send)


def _asked(scope: Mapping[str, Any]) -> str:
    """The path that is asked for below the server's base path; "" where it is no GET."""
    base = "/" + str(config.get_option("server.baseUrlPath") or "").strip("/")
    path = str(scope["path"])
    if scope["method"] != "GET" or not f"{path}/".startswith(f"{base.rstrip('/')}/"):
        return ""
    return path[len(base.rstrip("/")) :]


async def _answer(send: Send, body: bytes, kind: str) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
