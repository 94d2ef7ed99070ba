"""In: requests to the dashboard's server. Out: answers with headers that bind the browser, and no way to the inside.

`dashboard/serve.py` puts this before Streamlit. A page then loads and sends nothing elsewhere, whatever text it shows,
and stands in no other site's frame; figures of the server's memory and sessions are not told to visitors.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit
from streamlit import net_util

from dashboard.first_paint import script

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLOSED = ("/_stcore/metrics", "/_stcore/agent")
"""Paths that tell of the server's inside: to nobody."""
_installed = False


def policy(start_page: str) -> str:
    """The content security policy of the pages.

    Args:
        start_page: HTML in which Streamlit's scripts are named; those that stand in it are allowed by their hash.
    """
    inline = re.findall(r"<script>(.*?)</script>", start_page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in inline]
    scripts = " ".join(f"'sha256-{each}'" for each in hashes)
    return "; ".join(
        (
            "default-src 'self'",
            # blob: our components, as Streamlit loads them; unsafe-eval: plotly's WebGL makes its shaders' code.
            f"script-src 'self' blob: 'unsafe-eval' {scripts}".rstrip(),
            "style-src 'self' 'unsafe-inline'",  # Streamlit's styles are written into the page
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "media-src 'self' data: blob:",
            "connect-src 'self' data: blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def headers() -> dict[str, str]:
    """What every answer says to the browser."""
    start_page = Path(streamlit.__file__).with_name("static") / "index.html"
    return {
        "Content-Security-Policy": policy(f"{start_page.read_text(encoding='utf-8')}<script>{script()}</script>"),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",  # an address names the study
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    }


class Guard:
    """The middleware."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before ``app``."""
        global _installed
        self.app = app
        self.headers = {name.lower().encode(): value.encode() for name, value in headers().items()}
        _installed = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in self.headers]
                message["headers"] = [*kept, *self.headers.items()]
            await send(message)

        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif is_closed(str(scope["path"])):
            await with_headers({"type": "http.response.start", "status": 404, "headers": []})
            await with_headers({"type": "http.response.body", "body": b"Not found\n"})
        else:
            await self.app(scope, receive, with_headers)


def installed() -> bool:
    """Whether this server answers with our headers."""
    return _installed


def stay_inside() -> None:
    """Let Streamlit not ask a server on the internet for this machine's address, as it does to print and to compare."""

    def nowhere() -> None:
        return None

    net_util.get_external_ip = nowhere


def is_closed(path: str) -> bool:
    """Whether a path of a request is one of `CLOSED`, or below one, however it is written."""
    asked = re.sub(r"/+", "/", f"{path}/")
    return any(f"{each}/" in asked for each in CLOSED)
