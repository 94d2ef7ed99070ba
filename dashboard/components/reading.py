"""The reading page of a review session, in the browser: one case a screen, every key of the keyboard, an outbox.

What the reader does comes back as the state "request", see `dashboard.reviews.reading`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboard.components.source import script, source

_READING = st.components.v2.component(
    "cxr_reading",
    html=source("reading/reading.html").replace("<!-- viewer -->", source("viewer/viewer.html")),
    css=source("viewer/viewer.css", "reading/reading.css"),
    js=script("reading/mount.js"),
)
_PLATE = st.components.v2.component("cxr_plate", html="<i hidden></i>", js=script("plate.js"))


def reading(answer: Mapping[str, Any], *, key: str) -> None:
    """Show the reading page.

    Args:
        answer: of `dashboard.reviews.reading.respond`, with "plates": by id of the screen what is wrong with its image,
            "waiting", or "ready" where `plate` brings it.
        key: the next request is in ``st.session_state[key]["request"]``.
    """
    _READING(data=dict(answer), key=key, on_request_change=lambda: None)


def plate(screen_id: str, packed: bytes) -> None:
    """Bring an image to the browser, packed by `viewer.pack`; the reading page shows it without another request."""
    name = screen_id.encode()
    _PLATE(data=len(name).to_bytes(4, "little") + name + packed, key=f"plate-{screen_id}")
