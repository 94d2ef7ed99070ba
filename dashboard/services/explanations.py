"""In: a question about a report's words, or a region. Out: maps, shares of filters, the report without the region."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.bundles.card import Card
from core.cache import BoundedCache
from core.explain.measured import SMOOTHING, Measured, best_first, measured
from core.explain.measured import shows_a_place as measured_places
from core.registry import token_names
from core.text import split_sentences
from core.types import Attribution, CXRLensError, FloatImage
from dashboard import session, settings
from dashboard.services import bundles
from dashboard.services.studies import Case
from dashboard.services.subjects import subject

if TYPE_CHECKING:
    from core.encoders.token_cache import Progress
    from core.explain.counterfactuals import Counterfactual
    from core.explain.found import FoundTarget
    from core.explain.subject import Subject
    from core.explain.targets import WordTarget


MOST_ANSWERS = 400
"""Kept of all sessions; up to 150 kB each."""
TOKENS = ".tokens"
"""After a method's name: over what the decoder reads, where the method could also run over pixels."""
LIMITS = {
    "attention": "That is not proof that the model used what is there.",
    "cls-attention": "It cannot tell one word from another.",
    "grad-cam": "It cannot show detail: its cells are coarse.",
    "integrated-gradients": "It cannot show anatomy: single pixels are noisy.",
    "smoothgrad": "It cannot tell what speaks for the words from what speaks against them.",
    "occlusion": "It cannot see evidence that lies in two places at once: each covers for the other.",
    "random-masks": "It is an estimate: small differences mean nothing.",
}


OF_FOUND = {
    "grad-cam": "Which cells of the image speak for the finding. The model adds them up: nothing else decides.",
    "integrated-gradients": "How much each pixel or filter adds to the finding on the way from an empty image.",
    "smoothgrad": "To which pixels the finding is most sensitive, up or down.",
    "occlusion": "How much less the finding is seen when a small window, or a filter, is covered.",
    "random-masks": "How the finding moves when random parts of the image, or filters, are covered together.",
}
"""What a method tells of a finding that was found before the report was written."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a reader asks about.

    Attributes:
        kind: a word or a sentence of the report, the mention of a finding, or a finding that was found before the
            report was written.
        which: the index, from 0; the observation's name for a finding; a word itself, for its first mention.
    """

    kind: Literal["word", "sentence", "finding", "found"]
    which: int | str


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to explain.

    Attributes:
        title: for the reader.
        about: what it means and what it cannot show, a line.
        quick: it takes a fraction of a second: no progress is needed.
    """

    title: str
    about: str
    quick: bool


@dataclass(frozen=True, slots=True)
class HeatMap:
    """An answer over the image.

    Attributes:
        values: (h, w), cells of the model's square input, in multiples of the mean strength over the radiograph.
        place: of the square on the radiograph: top, left, height, width, fractions of the radiograph.
        signed: below 0 speaks against the words.
        padding: share of the map that lies on padding, outside the radiograph.
    """

    values: npt.NDArray[np.float32]
    place: tuple[float, float, float, float]
    signed: bool
    padding: float


def _target(opened: Subject, question: Question) -> WordTarget | FoundTarget:
    from core.explain import found, targets

    if question.kind == "found":
        return found.found(opened, str(question.which))
    if isinstance(question.which, int) or question.kind == "sentence":
        words = opened.report.words
        count = len(split_sentences(words) if question.kind == "sentence" else words)
        if not isinstance(question.which, int) or not 0 <= question.which < count:
            told = question.which + 1 if isinstance(question.which, int) else f"'{question.which}'"
            raise CXRLensError(f"The report has no {question.kind} {told}: it has {count}. Click one in the report.")
    if question.kind == "sentence":
        return targets.sentence(opened, int(question.which))
    if question.kind == "finding":
        return targets.mention(opened, str(question.which))
    return targets.word(opened, question.which)


def words_of(case: Case, card: Card, question: Question) -> str:
    """The words that are asked about.

    Raises:
        CXRLensError: the report does not have them.
    """
    return _target(subject(case, card), question).name.split(": ", 1)[-1]


def choices(case: Case, card: Card, question: Question) -> dict[str, Choice]:
    """How a question can be answered for this pair, by key; what was measured best of it comes first.

    Raises:
        CXRLensError: the report does not have these words.
    """
    from core.explain.methods import METHODS, possible

    opened = subject(case, card)
    found = {}
    for name, overs in possible(opened, _target(opened, question)).items():
        for over in overs:
            pixels_too = "pixels" in METHODS[name].over
            cells = "filters" if not opened.visual.grids else "cells"
            title = METHODS[name].title + (f" of {cells}" if over == "tokens" and pixels_too else "")
            key = name + (TOKENS if over == "tokens" and pixels_too else "")
            about = OF_FOUND[name] if question.kind == "found" else METHODS[name].summary
            found[key] = Choice(title, f"{about} {LIMITS[name]}", over == "tokens")
    try:
        order = best_first({key: trust(card, key, question) for key in found})
    except CXRLensError:  # the page says so, beside the method
        order = list(found)
    return {key: found[key] for key in order}


def shows_a_place(card: Card, question: Question, options: Iterable[str]) -> bool:
    """Whether any of these ways to explain was measured to point better than the middle of the image for this pair.

    Also where none was measured: nothing speaks against them then.
    """
    try:
        return measured_places(trust(card, how, question) for how in options)
    except CXRLensError:
        return True


@st.cache_resource(show_spinner=False)
def _answers() -> BoundedCache[tuple[str, str, Question, str], tuple[Attribution, ...]]:
    """Answers by (bundle with its content, image, question, method)."""
    return BoundedCache(MOST_ANSWERS)


def known(case: Case, card: Card, question: Question, how: str) -> tuple[Attribution, ...] | None:
    """An answer that is there already."""
    return _answers().get((bundles.bundle_key(card), case.key, question, how))


def answer(
    case: Case, card: Card, question: Question, how: str, progress: Progress | None = None
) -> tuple[Attribution, ...]:
    """Explain words of a pair's report.

    Args:
        case: the image.
        card: of the pair.
        question: the words.
        how: key of ``choices``.
        progress: called with (done, total); what it raises stops the work.

    Raises:
        CXRLensError: the report does not have these words, the method cannot serve them, or the model gives NaN.
    """
    from core.explain.methods import METHODS, explain

    def make() -> tuple[Attribution, ...]:
        method = how.removesuffix(TOKENS)
        opened = subject(case, card)
        target = _target(opened, question)
        if method in METHODS and how not in choices(case, card, question):
            name = METHODS[method].title
            raise CXRLensError(f"{name} cannot explain {bundles.title_of(card)}. Choose another method.")
        over = None if method not in METHODS else "tokens" if how != method else METHODS[method].over[0]
        return explain(opened, target, method, over=over, progress=progress)

    key = (bundles.bundle_key(card), case.key, question, how)
    return _answers().get_or_make(key, make, waiting=session.listen)


def heat_map(found: tuple[Attribution, ...]) -> HeatMap | None:
    """An answer as a map over the radiograph; None where it is about filters."""
    from scipy.ndimage import gaussian_filter

    from core.explain.on_image import content_share, on_square, padding_share

    placed = [each for each in found if each.geometry is not None]
    if not placed or placed[0].geometry is None:
        return None
    side = max(max(each.values.shape) for each in placed)
    values = on_square(placed, side)
    if not placed[0].source:  # of pixels
        values = gaussian_filter(values, SMOOTHING * side)
    geometry = placed[0].geometry
    inside = content_share(geometry, values.shape)
    mean = float((np.abs(values) * inside).sum() / inside.sum())
    return HeatMap(
        values=np.asarray(values / mean if mean > 0 else values, dtype=np.float32),
        place=geometry.square,
        signed=placed[0].signed,
        padding=padding_share(placed),
    )


def in_full(found: tuple[Attribution, ...]) -> str:
    """What an answer leaves out, in a sentence: attention beside the image, what is missing to a sum; or nothing."""
    details = found[0].details
    if "image" in details:
        return (
            f"While it wrote these words, the model gave {details['image']:.0%} of its attention to the image; what is "
            "shown divides that part. The rest did not look at the image."
        )
    if "convergence_delta" in details:
        total = float(sum(each.values.sum() for each in found))
        missing = details["convergence_delta"]
        share = abs(missing) / max(abs(total - missing), 1e-9)
        return (
            f"The values sum to {total:.2f}; what they divide, the change of the log-likelihood from an empty image to "
            f"this one, is {total - missing:.2f} ({share:.0%} off)."
        )
    return ""


def found_first(case: Case, card: Card, question: Question) -> str:
    """What the pair found in the whole image before it wrote, and what these words owe to it; "" of other pairs.

    Raises:
        CXRLensError: the bundle is broken, or the words are not there.
    """
    from core.explain.found import without_each_found
    from core.explain.targets import WordTarget

    opened = subject(case, card)
    asked = _target(opened, question)
    changes = without_each_found(opened, asked) if isinstance(asked, WordTarget) else None
    if changes is None:
        return ""
    told = [f"**{name}** ({_without_it(change)})" for name, change in changes.items()]
    return f"Found in the whole image before writing: {', '.join(told) or 'nothing'}."


def _without_it(change: float) -> str:
    """How much less likely words are, or more; from a factor of two on, as on the cards."""
    if abs(change) < math.log(2):
        return "without it these words are about as likely"
    factor = math.exp(min(abs(change), 20))
    times = "over 1000" if factor >= 1000 else f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}"
    return f"without it these words are {times} times {'less' if change < 0 else 'more'} likely"


def filter_values(found: tuple[Attribution, ...]) -> npt.NDArray[np.float32] | None:
    """An answer by CCVE's filters, (13,); None where it is about places."""
    return next((each.values for each in found if each.geometry is None), None)


def trust(card: Card, how: str, question: Question) -> Measured | None:
    """What was measured of a method for this encoder; None where nothing was.

    Raises:
        CXRLensError: the file of what was measured is damaged.
    """
    from core.explain.methods import METHODS

    kind = question.kind if question.kind in ("sentence", "found") else "mention"
    method, over_tokens = how.removesuffix(TOKENS), how.endswith(TOKENS)
    filters = bool(token_names(card.encoder))
    name = method if over_tokens == filters or method == how else f"{method}-cells"
    if filters and not over_tokens and "pixels" in METHODS[method].over:
        name = f"{method}-pixels"  # its other maps are rankings of filters
    return measured(settings.explanations(), card.family, card.encoder, name, kind, card.decoder)


Box = tuple[float, float, float, float]
"""A region: left, top, right, bottom, fractions of the radiograph."""


@st.cache_resource(show_spinner=False)
def _without() -> BoundedCache[tuple[str, str, Box, str], Counterfactual]:
    """What is written without a region, by (bundle with its content, image, region, cover)."""
    return BoundedCache(MOST_ANSWERS)


def region_mask(box: Box, image: FloatImage) -> npt.NDArray[np.bool_]:
    """A region on an image (H, W).

    Raises:
        CXRLensError: it lies outside the image, or is none.
    """
    from core.explain.counterfactuals import polygon

    height, width = image.shape
    left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    if not np.isfinite(box).all() or right <= left or bottom <= top:
        raise CXRLensError(
            "This region is empty or lies outside the image. Draw a rectangle on the image; in an address, give four "
            "numbers from 0 to 1."
        )
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)], height, width)


def known_without(case: Case, card: Card, box: Box, cover: str) -> Counterfactual | None:
    """What a pair writes without a region, if that is known already."""
    return _without().get((bundles.bundle_key(card), case.key, box, cover))


def without(case: Case, card: Card, box: Box, cover: Literal["blank", "blur"]) -> Counterfactual:
    """What a pair writes without a region of the image.

    Raises:
        CXRLensError: the region lies outside the image, the bundle is broken, or the model gives NaN.
    """
    from core.explain.counterfactuals import without_region

    def make() -> Counterfactual:
        opened = subject(case, card)
        return without_region(opened, region_mask(box, opened.image), how=cover, reference=case.reference)

    return _without().get_or_make((bundles.bundle_key(card), case.key, box, cover), make, waiting=session.listen)


def for_card(changed: Counterfactual) -> Mapping[str, object]:
    """A counterfactual as the card of a report shows it."""
    return {
        "changes": [round(float(change), 2) for change in changed.word_changes],
        "difference": [(part.kind, " ".join(part.words)) for part in changed.difference],
        "reference": changed.reference_change,
    }
