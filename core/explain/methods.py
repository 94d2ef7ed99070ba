"""The table of methods, and how one is run by its name: how much each pixel, cell or filter counted for a target.

Gradients and perturbations are captum's, attention is the decoder's own, random masks follow RISE. Each takes a subject
(pair, image and report) and a target (what is asked), and returns one ``Attribution`` for pixels, or one for each grid
of cells and for CCVE's filters. All are seeded. ``progress(done, total)`` counts passes through the model, where a
method needs more than one; what it raises stops the work and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.encoders.token_cache import Progress
from core.explain.attention import attention, cls_attention
from core.explain.found import FoundTarget
from core.explain.gradients import grad_cam, integrated_gradients, smooth_grad
from core.explain.passes import Over
from core.explain.perturbations import occlusion, random_masks
from core.explain.subject import Subject
from core.explain.targets import Target, WordTarget
from core.types import Attribution, CXRLensError


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row of the table of methods.

    Attributes:
        title: what a reader sees.
        summary: one sentence for a radiologist.
        over: what it can run over; the first where the encoder has image cells.
        run: the function.
        of_words: it explains written words only.
    """

    title: str
    summary: str
    over: tuple[Over, ...]
    run: Callable[..., tuple[Attribution, ...]]
    of_words: bool = False


METHODS: Mapping[str, Method] = {
    "attention": Method(
        title="Word attention",
        summary="Where the model looked while it wrote the words.",
        over=("tokens",),
        run=attention,
        of_words=True,
    ),
    "cls-attention": Method(
        title="CLS attention",
        summary="What the decoder's summary token gathered from the image, the same for every word.",
        over=("tokens",),
        run=cls_attention,
        of_words=True,
    ),
    "grad-cam": Method(
        title="Grad-CAM",
        summary="Which coarse cells carry features that make the words likelier.",
        over=("tokens",),
        run=grad_cam,
    ),
    "integrated-gradients": Method(
        title="Integrated gradients",
        summary="How much each pixel or filter adds on the way from an empty image to this one; nearly adds up.",
        over=("pixels", "tokens"),
        run=integrated_gradients,
    ),
    "smoothgrad": Method(
        title="SmoothGrad",
        summary="To which pixels the words are most sensitive, up or down.",
        over=("pixels",),
        run=smooth_grad,
    ),
    "occlusion": Method(
        title="Occlusion",
        summary="How much less likely the words become when a small window, or a filter, is covered.",
        over=("pixels", "tokens"),
        run=occlusion,
    ),
    "random-masks": Method(
        title="Random masks (RISE)",
        summary="How the words' likelihood moves when random parts of the image, or filters, are covered together.",
        over=("pixels", "tokens"),
        run=random_masks,
    ),
}


def explain(
    subject: Subject,
    target: Target,
    method: str,
    *,
    over: Over | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> tuple[Attribution, ...]:
    """Run a method by its name.

    Args:
        method: a key of ``METHODS``.
        over: pixels or tokens; the default is the first that ``possible`` names.
        progress: called with (done, total).

    Raises:
        CXRLensError: there is no such method, or it cannot serve this encoder or target; the message says what can.
    """
    row = METHODS.get(method)
    if row is None:
        raise CXRLensError(f"There is no method '{method}'. Known: {', '.join(METHODS)}.")
    if over is None:
        over = possible(subject, target).get(method, row.over)[0]
    if over not in row.over:
        raise CXRLensError(f"{row.title} runs over {' or '.join(row.over)}, not over {over}.")
    return row.run(subject, target, over=over, progress=progress, **options)


def is_read_from_tokens(target: Target) -> bool:
    """Whether a target depends on the image through the decoder's tokens alone: words, and what is found first."""
    return isinstance(target, WordTarget | FoundTarget)


def possible(subject: Subject, target: Target) -> dict[str, tuple[Over, ...]]:
    """Which methods can explain a target of this pair, and over what; the default first.

    Only words, and what is found first, are read from tokens. Where tokens are filters, both are asked by filter first,
    and Grad-CAM has no map of them.
    """
    words, cells, of_tokens = isinstance(target, WordTarget), bool(subject.visual.grids), is_read_from_tokens(target)
    found: dict[str, tuple[Over, ...]] = {}
    for name, row in METHODS.items():
        if row.of_words and not words:
            continue
        if name == "grad-cam":
            over = row.over if cells or not of_tokens else ()
        else:
            over = tuple(each for each in row.over if of_tokens or each == "pixels")
        if of_tokens and not cells:
            over = tuple(sorted(over, reverse=True))  # tokens before pixels
        if over:
            found[name] = over
    return found
