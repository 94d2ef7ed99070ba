"""Processes that write reports beside this one: images and names of bundles in, reports out.

Python computes on one core at a time, so a server of one process has one core for all its readers. A helper has models
of its own, and answers once it has loaded them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeAlias

from core.bundles.library import BundleLibrary
from core.devices import Precision
from core.processes import lasting_pool
from core.studies.model_image import Pixels
from core.types import PAD, CXRLensError, Fit, FloatImage, Report

Images: TypeAlias = Mapping[tuple[int, Fit], FloatImage]
"""Of one study: as a pair of this side and fit reads it, (side, side), or of any shape, to be fitted."""
Written: TypeAlias = dict[str, Report | CXRLensError]
"""By bundle: its report, or why it cannot write."""

IDLE = 600.0
"""Seconds without a request after which helpers end, and give their memory back; ours."""
TRIES = 2
"""How often a request is given to helpers; ours. One may have died of another's request, hardly of two."""


class Helpers:
    """Processes that share what is asked of them; safe to ask from several threads.

    They start at the first request, and again when one comes after they have ended.
    """

    def __init__(self, folder: Path, device: str, precision: Precision, count: int, idle: float = IDLE) -> None:
        """Start nothing yet.

        Args:
            folder: of the bundles.
            device: where they compute; see `core.devices.open_device`.
            precision: in which they write.
            count: how many processes; 0 answers no request.
            idle: see ``IDLE``.
        """
        self.count = count
        self._open: tuple[Any, ...] = _open, folder, device, precision
        self._idle = idle
        self._changed = threading.Lock()
        self._pool: Any = None
        self._last = -math.inf  # when the processes that run now answered last
        self._asked: set[Future[Written]] = set()

    @property
    def asked(self) -> int:
        """How many requests are not answered yet."""
        return len(self._asked)

    @property
    def free(self) -> bool:
        """Whether a helper has nothing to do."""
        return self.asked < self.count

    @property
    def ready(self) -> bool:
        """Whether a helper has its models, and answers without first loading them."""
        return time.monotonic() - self._last < self._idle / 2

    def start(self, names: Sequence[str]) -> None:
        """Let a helper load these bundles, unless one has some, or is at it; returns at once."""
        if self.count and not self.ready and not self.asked:
            self.write(names, {})

    def write(self, names: Sequence[str], images: Images) -> Future[Written]:
        """Have a study's reports written.

        Args:
            names: of bundles.
            images: for the side and the fit of each of them; none to load what would write.

        Returns:
            what will be the reports. A helper that dies is replaced, and the requests that it had are begun again;
            `BrokenProcessPool` if that does not help either.

        Raises:
            ValueError: there are no helpers.
        """
        if not self.count:
            raise ValueError("There is no helper to ask.")
        answer: Future[Written] = Future()
        with self._changed:
            self._asked.add(answer)
        self._give(answer, list(names), images, TRIES)
        return answer

    def end(self) -> None:
        """End the processes; requests that are not answered go to others, which start for them."""
        with self._changed:
            pool, self._pool, self._last = self._pool, None, -math.inf
        if pool is not None:
            pool.shutdown(wait=False, kill_workers=True)

    def _give(self, answer: Future[Written], names: list[str], images: Images, tries: int) -> None:
        def told(done: Future[Written]) -> None:
            error = BrokenProcessPool("The helpers ended.") if done.cancelled() else done.exception()
            if isinstance(error, BrokenProcessPool) and tries > 1:
                with self._changed:
                    if self._pool is pool:  # else another request has seen it, and new ones run
                        self._pool, self._last = None, -math.inf
                # Not in this thread, which belongs to the pool that ends.
                threading.Thread(target=self._give, args=(answer, names, images, tries - 1), daemon=True).start()
                return
            with self._changed:
                self._asked.discard(answer)
                if error is None:
                    self._last = time.monotonic()
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(done.result())

        with self._changed:
            if self._pool is None:
                self._pool = lasting_pool(self.count, idle=self._idle, begin=self._open)
            pool = self._pool
            try:
                work: Future[Written] = pool.submit(_write, names, images)
            except RuntimeError as error:  # the pool broke, or was closed, in this moment
                work = Future()
                work.set_exception(error if isinstance(error, BrokenProcessPool) else BrokenProcessPool(str(error)))
        work.add_done_callback(told)


def images_for(image: Pixels, inputs: Sequence[tuple[int, Fit]]) -> Images:
    """A study's image for each side and fit."""
    return {each: image(*each) for each in dict.fromkeys(inputs)}


# ------------------------------------------------------------------------------------------------ in a helper's process

_library: BundleLibrary | None = None


def _open(folder: Path, device: str, precision: Precision) -> None:
    global _library
    _library = BundleLibrary(folder, device, precision)


def _write(names: list[str], images: Images) -> Written:
    """Write reports; without images only load what would write them."""
    from core.bundles.inference import write_reports

    assert _library is not None
    written: Written = {}
    models = []
    for name in names:
        try:
            models.append(_library.load(name))
        except CXRLensError as error:
            written[name] = error
    if images:
        written.update(write_reports(models, lambda size, fit=PAD: images[size, fit]))
    return {name: written[name] for name in names if name in written}
