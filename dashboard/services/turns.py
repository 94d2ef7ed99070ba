"""In: images whose reports somebody waits for. Out: who writes them, this process or one beside it, and when.

Python computes on one core at a time. One reader's reports are written here; where a second one waits, processes beside
this one load the models too, and take what this one would come to later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from core.bundles.card import Card
from core.bundles.helpers import Written, images_for
from core.cache import BoundedCache
from core.devices import open_device
from core.types import Report
from dashboard import session, settings
from dashboard.services import bundles, studies
from dashboard.services.studies import Case

SLICE = 1.0
"""Seconds of writing between two drawings of a page, where nobody else waits; ours."""
LISTEN = 0.1
"""Seconds between two moments at which a click can end a run that waits for a helper."""
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


@st.cache_resource(show_spinner=False)
def _answers() -> BoundedCache[tuple[str, ...], Future[Written]]:
    """What helpers were asked for and have not written yet, by image and bundles: a page that runs again asks again."""
    return BoundedCache(200)


def slice_of() -> float:
    """Seconds of writing between two drawings of a page: each takes the time of a report, and all wait for it."""
    return SLICE * (1 + line().others())


def told() -> str:
    """What to say to a reader who waits with others; "" where there are few."""
    others = line().others() + bundles.helpers().asked
    if others < TOLD_FROM:
        return ""
    wait = line().seconds * (others + 1) / (bundles.helpers().count + 1)
    about = f" Yours will take about {wait:.0f} s." if wait >= 1 else ""
    return f"Reports of {others} other X-rays are being written at the same time.{about}"


def answer_beside(case: Case, chosen: Sequence[Card], keep: Callable[[str, Report], None]) -> Future[Written] | None:
    """What a helper will have written; None where this process is to write, for no helper would be quicker.

    Args:
        case: of the image.
        chosen: bundles.
        keep: called with each bundle's name and report, also where whoever asked has left the page meanwhile.
    """
    helpers, names = bundles.helpers(), [card.name for card in chosen]
    if not helpers.count:
        return None
    key = (case.key, *map(bundles.bundle_key, chosen))
    if (asked := _answers().get(key)) is not None and not asked.done():
        return asked
    here = line().others()
    if not here or _on_gpu():
        return None
    if not helpers.ready:
        helpers.start(names)  # they are of use to those who come later
        return None
    if helpers.asked >= here * helpers.count:
        return None
    answer = helpers.write(names, images_for(studies.pixels(case), [(card.image_side, card.fit) for card in chosen]))
    answer.add_done_callback(lambda done: _keep_all(done, keep))
    _answers().put(key, answer)
    return answer


def _on_gpu() -> bool:
    """Whether a GPU computes: its memory would have to hold all models once for each process."""
    return open_device(settings.device()).type != "cpu"


def _keep_all(done: Future[Written], keep: Callable[[str, Report], None]) -> None:
    if done.exception() is None:
        for name, report in done.result().items():
            if isinstance(report, Report):
                keep(name, report)


def hear(answer: Future[Written]) -> Written | None:
    """What a helper has written, once it has; None where it could not. A click ends the waiting run, not the work."""
    while True:
        try:
            return answer.result(timeout=LISTEN)
        except TimeoutError:
            session.listen()
        except BrokenProcessPool:
            return None
