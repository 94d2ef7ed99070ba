"""Readers who wait for reports in; how long a page writes before it is drawn again, and what they are told, out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.services import bundles

SLICE = 1.0
"""Seconds of writing between two drawings of a page, where nobody else waits; ours."""
TOLD_FROM = 2
"""Others that wait, from which a reader is told of them; ours."""


class Line:
    """Readers who wait for this process to write a report, each for one at a time."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: list[str] = []
        self._changed = threading.Lock()
        self.seconds = 0.0
        """What the reports of one image took lately, had its reader been alone; 0 before the first."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """This page's reader waits for a report, and gets it meanwhile."""
        reader = _reader()
        with self._changed:
            self._waiting.append(reader)
        try:
            yield
        finally:
            with self._changed:
                self._waiting.remove(reader)

    def others(self) -> int:
        """How many other readers wait at this moment."""
        with self._changed:
            return len(set(self._waiting) - {_reader()})

    def took(self, seconds: float, others: int) -> None:
        """Note how long a reader waited for the reports of an image beside so many others."""
        alone = seconds / (others + 1)
        self.seconds = alone if not self.seconds else 0.8 * self.seconds + 0.2 * alone


def _reader() -> str:
    """The session of the page that runs; "" outside of one."""
    context = get_script_run_ctx(suppress_warning=True)
    return "" if context is None else context.session_id


@st.cache_resource(show_spinner=False)
def line() -> Line:
    """Of this server."""
    return Line()


def slice_of() -> float:
    """Seconds of writing between two drawings of a page: each takes the time of a report, and all wait for it."""
    return SLICE * (1 + line().others())


def told() -> str:
    """What to say to a reader who waits with others; "" where there are few."""
    others = line().others()
    if others < TOLD_FROM:
        return ""
    wait = line().seconds * (others + 1) / (bundles.helpers().count + 1)
    about = f" Yours will take about {wait:.0f} s." if wait >= 1 else ""
    return f"Reports of {others} other X-rays are being written at the same time.{about}"
