"""In: what writes reports, of which only texts are known, and a statement. Out: where in the image the statement hangs.

The score of a changed image is whether its report still states the same: 1 or 0. So any program can be asked, at the
price of a report for every changed image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch.nn import functional

from core.encoders.token_cache import Progress
from core.explain.methods import METHODS as METHODS_OF_PAIRS
from core.explain.perturbations import regressed, smooth_masks
from core.types import FloatImage

Write: TypeAlias = Callable[[Iterable[FloatImage]], Sequence[str]]
"""Writes a report of each image (H, W), values in [0, 1]."""
States: TypeAlias = Callable[[str], bool]
"""Whether a text states what is asked about."""

CELLS = 8
"""Cells of a map across and down. A window covers two by two of them, so that windows overlap."""
MASKS = 200
"""Random masks; ours: fewer than over a network, for a program may need a second for each."""
BLOCK = 30
"""Images that the writer is given at once: a program has to start for each block, and progress is told after it."""


def occlusion(
    write: Write, image: FloatImage, states: States, *, cells: int = CELLS, progress: Progress | None = None
) -> FloatImage:
    """Cover one window after another with the image's mean grey (Zeiler and Fergus 2014, arXiv:1311.2901).

    Args:
        write: of the system.
        image: (H, W), values in [0, 1], whose report states what is asked about.
        states: whether a report states it.
        cells: of the map, across and down.
        progress: called with (images written, images in all); what it raises stops the work.

    Returns:
        (cells, cells): the share of the windows over each cell without which the report does not state it; in [0, 1].

    Raises:
        CXRLensError: the system fails, or gives no report of an image.
    """
    places = [(row, column) for row in range(cells - 1) for column in range(cells - 1)]
    rows, columns = (np.linspace(0, side, cells + 1).round().astype(int) for side in image.shape)
    grey = np.float32(image.mean())

    def covered() -> Iterator[FloatImage]:
        for row, column in places:
            copy = image.copy()
            copy[rows[row] : rows[row + 2], columns[column] : columns[column + 2]] = grey
            yield copy

    lost, over = np.zeros((cells, cells), np.float32), np.zeros((cells, cells), np.float32)
    for (row, column), still in zip(places, _stated(write, covered(), len(places), states, progress), strict=True):
        lost[row : row + 2, column : column + 2] += not still
        over[row : row + 2, column : column + 2] += 1
    found: FloatImage = lost / over
    return found


def random_masks(
    write: Write,
    image: FloatImage,
    states: States,
    *,
    masks: int = MASKS,
    cells: int = CELLS,
    seed: int = 0,
    progress: Progress | None = None,
) -> FloatImage:
    """Show random halves of the image (after RISE: Petsiuk et al. 2018, arXiv:1806.07421), as `perturbations` does.

    Args:
        write: as of `occlusion`.
        image: as of `occlusion`.
        states: as of `occlusion`.
        masks: drawn.
        cells: of the coarse grid, across and down.
        seed: of the masks.
        progress: as of `occlusion`.

    Returns:
        (4 cells, 4 cells): by how much more often the report states it when a place becomes visible; signed.

    Raises:
        CXRLensError: as of `occlusion`.
    """
    drawn = smooth_masks(masks, cells, 4 * cells, torch.Generator().manual_seed(seed))  # (masks, 1, 4 cells, 4 cells)
    grey = np.float32(image.mean())

    def masked() -> Iterator[FloatImage]:
        for mask in drawn:
            seen = functional.interpolate(mask[None], size=image.shape, mode="bilinear")[0, 0].numpy()
            yield (grey + seen * (image - grey)).astype(np.float32)

    stated = torch.tensor(list(_stated(write, masked(), masks, states, progress)), dtype=torch.float32)
    found: FloatImage = regressed(drawn, stated)[0, 0].numpy()
    return found


@dataclass(frozen=True, slots=True)
class TextMethod:
    """One row of the table of methods.

    Attributes:
        title: what a reader sees.
        summary: one sentence for a radiologist.
        reports: how many it needs.
        run: the function.
    """

    title: str
    summary: str
    reports: int
    run: Callable[..., FloatImage]


METHODS: Mapping[str, TextMethod] = {
    "occlusion": TextMethod(
        title=METHODS_OF_PAIRS["occlusion"].title,
        summary="How often the report loses the finding when a window over a place is covered.",
        reports=(CELLS - 1) ** 2,
        run=occlusion,
    ),
    "random-masks": TextMethod(
        title=METHODS_OF_PAIRS["random-masks"].title,
        summary="How much more often the report has the finding when a place is visible and a random half is covered.",
        reports=MASKS,
        run=random_masks,
    ),
}


def _stated(
    write: Write, images: Iterator[FloatImage], count: int, states: States, progress: Progress | None
) -> Iterator[bool]:
    """Whether the report of each image states it; images are made as they are written."""
    for start in range(0, count, BLOCK):
        now = min(BLOCK, count - start)
        yield from map(states, write(next(images) for _ in range(now)))
        if progress is not None:
            progress(start + now, count)
