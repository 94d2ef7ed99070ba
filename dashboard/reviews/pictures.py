"""Images of a session, and the explanations on them, drawn ahead of the reader by threads of their own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import streamlit as st
from PIL import Image

from core.cache import BoundedCache
from core.files import hash_of
from core.observations import CLUSTERS
from core.reviews.database import Database
from core.reviews.design import REFERENCE, image_sha256
from core.reviews.rubrics import ReviewError
from core.reviews.sources import session_image
from core.reviews.store import Actor, ReaderScreen, check_image, writers
from core.studies.images import fit_square
from core.studies.model_image import of_image
from core.studies.source import Source
from core.text import sentence_spans, split_sentences
from core.types import CXRLensError, FloatImage, Geometry
from dashboard.components.viewer import Overlay, pack
from dashboard.read.filter_words import stands_out
from dashboard.reviews.pool import open_named
from dashboard.services.bundles import model_in_use

if TYPE_CHECKING:
    from core.bundles.pair import ReportModel
    from core.explain.subject import Subject

LONGEST_SIDE = 2048
"""Of an image in the browser, pixels; larger ones are made smaller."""
MAP_SIZE = 128
"""Side of an explanation's map, cells."""
FAINTEST = 0.25
"""Cells below this share of the largest value are not coloured."""
PRIOR = "/prior"
"""What follows the id of a screen in the name of the plate of the study before."""
MOST_PLATES = 96
"""Kept in memory; about a megabyte each, up to eight of a large film."""

_LOG = logging.getLogger(__name__)

Writers = Mapping[str, tuple[str, str]]
_WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Written:
    """A report of a screen, and who wrote it, which stays on the server.

    Attributes:
        name: blinded.
        text: of the report.
        model: that wrote it.
        bundle: hash of the model's bundle, empty if it is not known.
    """

    name: str
    text: str
    model: str
    bundle: str


class Plates:
    """Packed images by what they show; one that is not there yet is being drawn."""

    def __init__(self) -> None:
        """Start with none."""
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="plates")
        self._drawn: BoundedCache[object, Future[bytes]] = BoundedCache(MOST_PLATES)

    def close(self) -> None:
        """Draw no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, screen: ReaderScreen, by: Writers) -> Future[bytes]:
        """The image of a screen, now or later; its error is a `CXRLensError`, which the next asking tries anew."""
        key = (screen.source, screen.study_id, screen.image_sha256, screen.explanation, screen.reports, *by.items())
        found = self._drawn.get_or_make(key, lambda: self._pool.submit(draw, screen, by))
        if found.done() and found.exception() is not None:
            found = self._pool.submit(draw, screen, by)
            self._drawn.put(key, found)
        return found

    def ask_prior(self, screen: ReaderScreen) -> Future[bytes]:
        """The image of the study before, now or later; empty where there is none."""
        key = (screen.source, screen.study_id, PRIOR)
        return self._drawn.get_or_make(key, lambda: self._pool.submit(draw_prior, screen))


@st.cache_resource(show_spinner=False, on_release=Plates.close)
def _plates() -> Plates:
    return Plates()


def plates(
    database: Database, who: Actor, asked: Sequence[ReaderScreen], patience: float
) -> dict[str, bytes | CXRLensError | None]:
    """Packed image of each screen by id; an error that says why there is none; None while it is drawn.

    Of sessions that show it also that of the study before, under the id and `PRIOR`, where there is one; they come
    together.

    Args:
        database: of the session.
        who: its reader.
        asked: own screens, the most urgent first.
        patience: seconds to wait for the first.
    """
    jobs = {
        screen.id: _plates().ask(screen, writers(database, who, screen.id) if screen.explanation else {})
        for screen in asked
    }
    priors = {screen.id: _plates().ask_prior(screen) for screen in asked if screen.priors}
    wait_for([job for kind in (jobs, priors) for job in list(kind.values())[:1]], timeout=patience)
    found: dict[str, bytes | CXRLensError | None] = {}
    for screen_id, job in jobs.items():
        error = job.exception() if job.done() else None
        if error is not None and not isinstance(error, CXRLensError):
            raise error
        prior = priors.get(screen_id)
        if not job.done() or (prior is not None and not prior.done()):
            found[screen_id] = None
            continue
        found[screen_id] = error or job.result()
        if prior is not None and prior.result():
            found[screen_id + PRIOR] = prior.result()
    return found


def credit_of(source: str) -> str:
    """What must stand beside the images of a session's source; "" where nothing must, or it cannot be opened."""
    try:
        return open_named(source).credit
    except CXRLensError:
        return ""


def draw(screen: ReaderScreen, by: Writers) -> bytes:
    """Pack the image of a screen, with a map for each sentence where the session shows explanations.

    The image has no name here: what is packed goes to a reader, and to several.

    Raises:
        ReviewError: the image or the explanation is not there, or is not the one that the session was made with. The
            reason is in the log only, as it may name the study or the model.
    """
    try:
        source = open_named(screen.source)
        sha256 = image_sha256(session_image(source, screen.study_id))
        shown = _view(source, screen.study_id)
    except CXRLensError as error:
        _LOG.warning("No image for screen %s: %s", screen.id, error)
        raise ReviewError(
            "The images of this session cannot be found, or this one cannot be read. Skip the case, give that as the "
            "reason, and tell the people who made the session. The marks made so far are saved."
        ) from error
    check_image(screen, sha256)
    overlays = [
        overlay
        for name, text in screen.reports
        if screen.explanation
        for overlay in explanation(screen, Written(name, text, *by[name]), source, shown.pixels.shape)
    ]
    return pack(
        shown.pixels,
        study="",
        bits=shown.bits,
        overlays=overlays,
        spacing=shown.spacing,
        shrunk=shown.shrunk,
    )


def draw_prior(screen: ReaderScreen) -> bytes:
    """Pack the image of the patient's study before, of the same view if there is one; empty where there is none.

    One that cannot be read is as one that is not there: the reason is in the log.
    """
    try:
        source = open_named(screen.source)
        images = source.images(screen.study_id)
        view = next((each.view for each in images if each.read), "")
        earlier = sorted((each for each in images if each.earlier), key=lambda each: each.view != view)
        if not earlier:
            return b""
        shown = _view(source, screen.study_id, earlier[0].image_id)
    except CXRLensError as error:
        _LOG.warning("No earlier image for screen %s: %s", screen.id, error)
        return b""
    return pack(shown.pixels, study="", bits=shown.bits, overlays=(), spacing=shown.spacing, shrunk=shown.shrunk)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is drawn in the browser.

    Attributes:
        pixels: (H, W).
        bits: grey levels of the original are 2 ** bits.
        spacing: (row, column) distance of these pixels in millimetres, if the study tells it.
        shrunk: (row, column) pixels of the original that one of these stands for.
    """

    pixels: FloatImage
    bits: int
    spacing: tuple[float, float] | None = None
    shrunk: tuple[float, float] = (1.0, 1.0)


def _view(source: Source, study_id: str, image_id: str = "") -> _Shown:
    film = source.original(study_id, image_id)
    share = LONGEST_SIDE / max(film.pixels.shape)
    if share >= 1:
        return _Shown(film.pixels, film.bits, film.pixel_spacing)
    height, width = (round(side * share) for side in film.pixels.shape)
    smaller = Image.fromarray(film.pixels.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    shrunk = film.pixels.shape[0] / height, film.pixels.shape[1] / width
    spacing = film.pixel_spacing and (film.pixel_spacing[0] * shrunk[0], film.pixel_spacing[1] * shrunk[1])
    return _Shown(np.asarray(smaller), film.bits, spacing, shrunk)


def explanation(screen: ReaderScreen, report: Written, source: Source, shape: tuple[int, ...]) -> list[Overlay]:
    """For each sentence of a report the region, or the filter's picture, that stands behind it.

    Args:
        screen: that shows the report, with the method of its explanation.
        report: of the screen.
        source: of the image.
        shape: (H, W) of the image that is shown.

    Raises:
        ReviewError: it cannot be shown. The reason is in the log only, as it may name the model.
    """
    try:
        if report.model == REFERENCE:
            raise ReviewError("a human report has no explanation")
        return _maps(screen, report, source, shape)
    except CXRLensError as error:
        _LOG.warning("No explanation of %s (%s): %s", report.model, screen.explanation, error)
        raise ReviewError(
            f"What report {report.name} is based on cannot be shown: the model that wrote it is not here, has changed, "
            "or cannot explain its reports in this way. Skip the case, and give that as the reason."
        ) from error


def _maps(screen: ReaderScreen, report: Written, source: Source, shape: tuple[int, ...]) -> list[Overlay]:
    from core.explain.filters import filter_views
    from core.explain.methods import METHODS, explain  # bring torch
    from core.explain.on_image import on_image
    from core.explain.targets import sentence

    spans, overlays = sentence_spans(report.text), []
    with model_in_use(report.model) as opened:
        if report.bundle and report.bundle != hash_of(dict(opened.card.content)):
            raise ReviewError("the bundle has changed")
        subject = _writer(opened, source, screen.study_id, report.text)
        if len(split_sentences(subject.report.words)) != len(spans):
            raise ReviewError("the bundle writes another report now")
        square = _square_on(shape) if subject.image.shape[0] == subject.image.shape[1] else subject.geometry.square
        # A map lies over what the pair was given: the film itself, or a square, padding included.
        over_film = square if subject.image.shape[0] == subject.image.shape[1] else _WHOLE
        for which, (start, _) in enumerate(spans):
            parts = explain(subject, sentence(subject, which), screen.explanation)
            kind: Literal["heat", "picture"]
            if parts[0].values.ndim == 1:
                shares = np.abs(parts[0].values) / max(float(np.abs(parts[0].values).sum()), 1e-9)
                best = np.argsort(-shares, kind="stable")[:3]
                told = ", ".join(f"{CLUSTERS[each]} {shares[each]:.0%}" for each in best)
                if stands_out(shares):
                    words = (
                        f"The film through the filter that counted most, not the film itself. Shares of filters: {told}"
                    )
                    kind, place = "picture", square
                    values = filter_views(opened, subject.image).filtered[best[0]]
                else:  # all filters counted alike: a picture of one of them would say nothing
                    words = f"No filter stands out here ({told}; even: {1 / len(shares):.1%}): leave this sentence out."
                    kind, place, values = "heat", _WHOLE, np.zeros((2, 2), np.float32)
            else:
                words, kind, place = (
                    f"{METHODS[screen.explanation].title}: yellow most, violet least",
                    "heat",
                    over_film,
                )
                heat = np.clip(on_image(parts), 0, None)
                heat = heat[:: max(heat.shape[0] // MAP_SIZE, 1), :: max(heat.shape[1] // MAP_SIZE, 1)]
                heat = heat / max(float(heat.max()), 1e-9)
                values = np.where(heat < FAINTEST, 0, heat)
            overlays.append(Overlay(words, f"{report.name}/{start}", kind, values, place))
    return overlays


def _writer(model: ReportModel, source: Source, study_id: str, text: str) -> Subject:
    """The pair with the image from which it wrote a report.

    Raises:
        ReviewError: from none does it write this report.
    """
    import torch

    from core.bundles.inference import write_batch, write_reports
    from core.explain.subject import open_subject, with_image

    model = replace(model, precision="fp32")  # as `core.reviews.sources.write_case` wrote
    image = source.for_model(study_id, model.image_size)
    report = next(write_reports([model], of_image(image)))[1]
    if report.text == text:
        return open_subject(model, image, report)
    # Reports of older sessions were written from the session's own picture, shrunk and not rounded.
    image = session_image(source, study_id)
    fitted, geometry = fit_square(image, model.image_size)
    square = torch.from_numpy(fitted)[None, None]
    (report,) = next(write_batch([model], lambda *_: square))[1]
    if report.text != text:
        raise ReviewError("the bundle writes another report now")
    return replace(with_image(open_subject(model, image, report), square), geometry=geometry)


def _square_on(shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Where the square that a pair reads lies on an image (H, W): top, left, height, width, fractions of the image."""
    return Geometry(shape[0], shape[1], max(shape)).square
