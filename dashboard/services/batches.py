"""Readers who wait for reports in; out come their reports, all of the reader who has waited longest first.

Python computes on one core at a time. One reader's reports are written here; where a second one waits, processes beside
this one load the models too, and take what this one would come to next. Where there are none, readers who wait for the
same models are served together, in one batch.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import streamlit as st

from core.bundles.card import Card
from core.bundles.helpers import Helpers, Images, Written
from core.devices import open_device
from core.types import CXRLensError, Fit, Report
from dashboard import settings
from dashboard.services import bundles

MOST = 5
"""Images of a batch where no helper writes too; ours. Where one does, reports come sooner one image after another: all
wait for the end of a batch."""
LISTEN = 0.1
"""Seconds between two moments at which a click can end a run that waits for a helper; ours."""
KEPT = 10
"""Batches that are kept for readers who have left and may come back."""

Keep = Callable[[str, Report], None]


@dataclass(eq=False)
class Request:
    """An image whose reports one reader waits for.

    Attributes:
        image: names it and its content.
        cards: of the bundles.
        images: it, for each of them.
        keep: told each bundle's name and report, also where the reader has left meanwhile.
        user: who asks.
        number: counts requests.
        found: what is written and not taken yet.
        alone: whether it is to be written alone, for a batch with it has failed.
        here: whether it is to be written by this process, for helpers broke.
        failed: why nothing more will come.
        told: set where there is something new.
    """

    image: str
    cards: Sequence[Card]
    images: Images
    keep: Keep
    user: str
    number: int
    found: deque[tuple[str, Report | CXRLensError]] = field(default_factory=deque)
    alone: bool = False
    here: bool = False
    failed: Exception | None = None
    told: threading.Event = field(default_factory=threading.Event)

    @property
    def names(self) -> list[str]:
        """Of the bundles."""
        return [card.name for card in self.cards]

    @property
    def answered(self) -> bool:
        """Whether there is something to take."""
        return bool(self.found) or self.failed is not None

    def take(self) -> Written:
        """What was written since this was asked last.

        Raises:
            Exception: nothing more will come, for this reason.
        """
        if not self.found and self.failed is not None:
            raise self.failed
        self.told.clear()
        found: Written = {}
        while self.found:  # others may add to it meanwhile
            name, answer = self.found.popleft()
            found[name] = answer
        return found


class Batch:
    """Images that the same models write for, a model at a time; several readers may wait for one image."""

    def __init__(self, requests: Sequence[Request], changed: threading.Lock) -> None:
        """Nothing is written yet; ``changed`` guards the readers and the names of all batches."""
        self.requests, self._changed = list(requests), changed
        self.images = {request.image: request.images for request in requests}
        self._keep = {request.image: request.keep for request in requests}
        self.names = requests[0].names
        """Of the bundles that have not written yet."""
        self._cards = requests[0].cards
        self._steps: Iterator[tuple[str, Sequence[Report | CXRLensError]]] | None = None
        self.away = False
        """Whether a helper has it."""

    def step(self) -> None:
        """Let the next model write; whoever calls it holds the models."""
        if self._steps is None:
            self._steps = self._write()
        self._tell(*next(self._steps))

    def hand_over(self, helpers: Helpers, ended: Callable[[Batch, BaseException | None], None]) -> None:
        """Let a helper write for the one image; ``ended`` is called when it has, or has broken."""

        def heard(done: Future[Written]) -> None:
            error = done.exception()
            try:
                for name in list(self.names) if error is None else ():
                    self._tell(name, [done.result()[name]])
            except Exception as failed:  # else its readers would wait for ever
                error = failed
            ended(self, error)

        (images,) = self.images.values()
        try:
            answer = helpers.write(self.names, images)
        except Exception as failed:
            ended(self, failed)
        else:
            answer.add_done_callback(heard)

    def _tell(self, name: str, answers: Sequence[Report | CXRLensError]) -> None:
        with self._changed:  # nobody joins in between
            self.names.remove(name)
            asking = [each for each in self.requests if name in each.names]
        answer_of = dict(zip(self.images, answers, strict=True))
        for image, answer in answer_of.items():
            if isinstance(answer, Report):
                self._keep[image](name, answer)
        for request in asking:
            request.found.append((name, answer_of[request.image]))
            request.told.set()

    def _write(self) -> Iterator[tuple[str, Sequence[Report | CXRLensError]]]:
        import torch

        from core.bundles.inference import write_batch  # brings torch; pages without inference stay quick
        from core.bundles.pair import to_batch

        models, broken = bundles.open_usable(self._cards)
        for name, message in broken.items():
            yield name, [CXRLensError(message)] * len(self.images)

        def images(size: int, fit: Fit) -> torch.Tensor:
            return to_batch([each[size, fit] for each in self.images.values()], size, fit)

        yield from write_batch(models, images)


class Batches:
    """All that is to be written by this process."""

    def __init__(self) -> None:
        """Nothing is."""
        self._changed = threading.Lock()
        self._numbers = count()
        self._waiting: list[Request] = []
        self._batches: list[Batch] = []

    @contextmanager
    def request(self, image: str, cards: Sequence[Card], images: Images, keep: Keep) -> Iterator[Request]:
        """Ask for reports until the block ends; a batch that has the image already is joined."""
        request = Request(image, cards, images, keep, bundles.user(), next(self._numbers))
        with self._changed:
            batch = next((each for each in self._batches if self._has(each, request)), None)
            if batch is None:
                self._waiting.append(request)
            else:
                batch.requests.append(request)
        try:
            yield request
        finally:
            with self._changed:
                self._forget(request)

    def wait(self, request: Request) -> None:
        """Wait a moment for what is to be written, or bring it on: who waits longest is served first."""
        self.hand_over()
        if any(each.away and request in each.requests for each in list(self._batches)):
            request.told.wait(LISTEN)
            return
        with bundles.inference():
            if not request.answered:
                self.step()

    def hand_over(self) -> None:
        """Give a helper that is free what this process would come to next, if it has something to write already.

        Where none is ready and two images are asked for, one is started: it is of use to those who come later.
        """
        helpers = bundles.helpers()
        if not helpers.count or _on_gpu():
            return
        with self._changed:
            asking = [*(each for batch in self._batches for each in batch.requests), *self._waiting]
            if len({each.image for each in asking}) > 1 and not helpers.ready:
                helpers.start(asking[0].names)
            busy = any(batch.requests and not batch.away for batch in self._batches)
            batch = self._gathered(away=True) if busy and helpers.ready and helpers.free else None
        if batch is not None:
            batch.hand_over(helpers, self._ended)

    def _ended(self, batch: Batch, error: BaseException | None) -> None:
        with self._changed:
            self._drop(batch)
            for request in batch.requests if error is not None else ():
                request.here = True  # what broke helpers twice would break the next ones too
                self._wait_again(request, batch)
        self.hand_over()

    def step(self) -> None:
        """Let a model write for the readers who have waited longest; whoever calls it holds the models."""
        with self._changed:
            batch = next((each for each in self._batches if each.requests and not each.away), None) or self._gathered()
        if batch is None:
            return
        try:
            batch.step()
        except BaseException as error:
            with self._changed:
                self._give_up(batch, error)
            if not isinstance(error, Exception):  # the end of the run that has come by
                raise
        else:
            if not batch.names:
                with self._changed:
                    self._drop(batch)

    @staticmethod
    def _has(batch: Batch, request: Request) -> bool:
        return request.image in batch.images and set(request.names) <= set(batch.names)

    def _forget(self, request: Request) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
        for batch in self._batches:
            if request in batch.requests:
                batch.requests.remove(request)
        for batch in [each for each in self._batches if not each.requests and not each.away][:-KEPT]:
            self._drop(batch)

    def _drop(self, batch: Batch) -> None:
        if batch in self._batches:  # its last reader may have left while it was written
            self._batches.remove(batch)

    def _gathered(self, *, away: bool = False) -> Batch | None:
        """A batch of requests for the same models: of each user the first one, in the order in which they came."""
        before: Counter[str] = Counter()
        ranked = []
        for request in (each for each in self._waiting if not (away and each.here)):
            ranked.append((before[request.user], request.number, request))
            before[request.user] += 1
        order = [request for *_, request in sorted(ranked, key=lambda each: each[:2])]
        if not order:
            return None
        first = order[0]
        keys = [bundles.bundle_key(card) for card in first.cards]
        alike = [each for each in order if [bundles.bundle_key(card) for card in each.cards] == keys]
        chosen = [first] if first.alone else [each for each in alike if not each.alone]
        images = list(dict.fromkeys(each.image for each in chosen))[: 1 if away or _helped() else MOST]
        batch = Batch([each for each in chosen if each.image in images], self._changed)
        for request in batch.requests:
            self._waiting.remove(request)
        batch.away = away
        self._batches.append(batch)
        return batch

    def _give_up(self, batch: Batch, error: BaseException) -> None:
        """What fails together is written one by one; what fails alone fails."""
        self._drop(batch)
        alone = len(batch.requests) == 1
        for request in batch.requests:
            if alone and isinstance(error, Exception):
                request.failed = error
                continue
            request.alone = True
            self._wait_again(request, batch)

    def _wait_again(self, request: Request, batch: Batch) -> None:
        """For what its batch had not written."""
        request.cards = [card for card in request.cards if card.name in batch.names]
        self._waiting.append(request)


@st.cache_resource(show_spinner=False)
def batches() -> Batches:
    """Of this server."""
    return Batches()


def _helped() -> bool:
    """Whether a helper writes too."""
    helpers = bundles.helpers()
    return helpers.count > 0 and helpers.ready


def _on_gpu() -> bool:
    """Whether a GPU computes: its memory would have to hold all models once for each process."""
    return open_device(settings.device()).type != "cpu"
