"""What would it have written if: filters off, a region covered."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from core.bundles.pair import write_from_tokens
from core.encoders.ccve import ClusterClipEncoder
from core.encoders.filters import Filters
from core.explain.filters import filter_tokens
from core.explain.passes import as_array, baseline_image
from core.explain.subject import Subject, encode, tokens_to_write_from, twin, with_image
from core.explain.targets import WordTarget, whole_report
from core.explain.targets import reference as reference_target
from core.observations import CLUSTERS
from core.studies.images import to_square
from core.types import CXRLensError, Mask, Report, VisualTokens


@dataclass(frozen=True, slots=True)
class Difference:
    """A run of words that two reports share, or that only one of them has."""

    kind: Literal["same", "removed", "added"]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """A report, and the one that the changed input gives.

    Attributes:
        change: what was changed, for the reader.
        before: as written.
        after: written again with the change.
        difference: word by word, in reading order.
        word_changes: (T,) float32, change of the log-probability of each word of ``before``, natural log; far below 0:
            the word depends on what was changed.
        report_change: change of the log-likelihood of ``before``.
        reference_change: change of the reference's log-likelihood; None without one that the decoder can read.
    """

    change: str
    before: Report
    after: Report
    difference: tuple[Difference, ...]
    word_changes: npt.NDArray[np.float32]
    report_change: float
    reference_change: float | None


def without_filters(
    subject: Subject, off: Sequence[str], *, how: Literal["token", "filter"] = "token", reference: str | None = None
) -> Counterfactual:
    """Switch off filters of CCVE.

    Args:
        subject: with CCVE among its encoders.
        off: clusters whose filters are switched off.
        how: "token" sets their tokens to 0, so that the decoder gets nothing from them; "filter" lets the image pass
            unfiltered, so that CLIP sees the plain radiograph there.
        reference: the radiologist's report.

    Raises:
        CXRLensError: no CCVE, nothing chosen, or an unknown cluster.
    """
    run = filter_tokens(subject)
    unknown = [name for name in off if name not in CLUSTERS]
    if unknown or not off:
        what = f"There is no filter '{unknown[0]}'" if unknown else "No filter was chosen"
        raise CXRLensError(f"{what}. CCVE's filters: {', '.join(CLUSTERS)}.")
    indices = [CLUSTERS.index(name) for name in off]
    if how == "token":
        columns = [run.columns.start + index for index in indices]
        changed = replace(subject, visual=_without_columns(subject.visual, columns))
        read = _without_columns(tokens_to_write_from(subject), columns)
    elif how == "filter":
        model = twin(subject.model)
        for module in model.encoder.modules():
            if isinstance(module, ClusterClipEncoder):
                module.filters = _Unfiltered(module.filters, indices)
        changed = replace(subject, model=model, visual=encode(model, subject.square))
        read = tokens_to_write_from(changed)
    else:
        raise CXRLensError(f"Filters are switched off by 'token' or by 'filter', not by '{how}'.")
    names = ", ".join(off)
    change = f"filters off ({how}): {names}"
    return _compare(subject, changed, read, change, reference)


def without_region(
    subject: Subject, region: Mask, *, how: Literal["blank", "blur"] = "blank", reference: str | None = None
) -> Counterfactual:
    """Cover a region of the image.

    Args:
        region: (H, W) of the original image, True inside; see :func:`polygon`.
        how: "blank" fills it with the image's mean grey, "blur" with the image without detail.
        reference: the radiologist's report.

    Raises:
        CXRLensError: the region is empty, of another image, or wholly on a border that is cut off.
    """
    if region.shape != subject.image.shape:
        raise CXRLensError(f"The region is drawn on {region.shape} pixels, but the image has {subject.image.shape}.")
    if not region.any():
        raise CXRLensError("The region is empty or lies outside the image. Draw it on the image.")
    if how not in ("blank", "blur"):
        raise CXRLensError(f"A region is covered by 'blank' or by 'blur', not by '{how}'.")
    inside = torch.from_numpy(to_square(region.astype(np.float32), subject.geometry))[None, None]
    inside = inside.to(subject.square.device)
    if not inside.any():
        raise CXRLensError(
            "The region lies on a border of the image that the model does not read. Draw it on the film."
        )
    cover = baseline_image(subject, "mean" if how == "blank" else "blur")
    changed = with_image(subject, subject.square * (1 - inside) + cover * inside)
    share = region.mean()
    word = "blank" if how == "blank" else "blurred"
    read = tokens_to_write_from(changed)
    return _compare(subject, changed, read, f"region {word}: {share:.1%} of the image", reference)


def polygon(points: Sequence[tuple[float, float]], height: int, width: int) -> Mask:
    """A drawn region.

    Args:
        points: corners (x, y), pixels of the original image, x to the right and y down; what is outside is cut off.

    Returns:
        (height, width), True inside.

    Raises:
        CXRLensError: fewer than three corners, numbers that are none, or all of it outside the image.
    """
    if len(points) < 3 or not np.isfinite(points).all():
        raise CXRLensError("A region needs at least three corners, each with two finite numbers.")
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points], fill=1)
    region = np.array(canvas, dtype=np.bool_)
    if not region.any():
        (left, top), (right, bottom) = np.min(points, axis=0), np.max(points, axis=0)
        raise CXRLensError(
            f"The region lies outside the image: it spans x {left:g} to {right:g} and y {top:g} to {bottom:g}, the "
            f"image 0 to {width} and 0 to {height}."
        )
    return region


def differences(before: Sequence[str], after: Sequence[str]) -> tuple[Difference, ...]:
    """Compare two reports word by word."""
    found: list[Difference] = []
    for operation, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if operation == "equal":
            found.append(Difference("same", tuple(before[a:b])))
            continue
        if b > a:
            found.append(Difference("removed", tuple(before[a:b])))
        if d > c:
            found.append(Difference("added", tuple(after[c:d])))
    return tuple(found)


class _Unfiltered(Filters):
    """Filters of which some let the image pass."""

    def __init__(self, filters: Filters, off: Sequence[int]) -> None:
        super().__init__()
        self.filters, self.off = filters, list(off)

    def all(self, images: Tensor) -> Tensor:
        """Filter images (B, 3, H, H); returns (B, K, 3, H, H)."""
        filtered = self.filters.all(images).clone()  # (B, K, 3, H, H)
        filtered[:, self.off] = images.unsqueeze(1)
        return filtered


def _without_columns(visual: VisualTokens, columns: Sequence[int]) -> VisualTokens:
    tokens = visual.tokens.clone()
    tokens[:, list(columns)] = 0
    return replace(visual, tokens=tokens)


def _compare(
    subject: Subject, changed: Subject, read: VisualTokens, change: str, reference: str | None
) -> Counterfactual:
    """Write again of the tokens ``read``, and compare the reports and the likelihoods."""
    after = write_from_tokens(changed.model, read, subject.write)[0]

    def likelihood_change(target: WordTarget) -> Tensor:
        with torch.no_grad():
            before = target.by_word(subject, subject.visual.tokens)
            return (target.by_word(changed, changed.visual.tokens) - before)[0]

    asked = whole_report(subject)
    own = likelihood_change(asked)
    by_id = own.new_zeros(len(subject.report.ids))  # what a planner left out, and its END, are no words: they have 0
    by_id[list(asked.positions)] = own
    theirs = None
    if reference is not None:
        with suppress(CXRLensError):  # empty, or longer than this decoder reads: the rest is told all the same
            theirs = float(likelihood_change(reference_target(subject, reference)).sum())
    return Counterfactual(
        change=change,
        before=subject.report,
        after=after,
        difference=differences(subject.report.words, after.words),
        word_changes=as_array(subject.by_word(by_id)),
        report_change=float(own.sum()),
        reference_change=theirs,
    )
