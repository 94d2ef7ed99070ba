"""Maps of attribution on the radiograph: cells of any grid and pixels joined, padding told apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from core.studies.images import to_original
from core.types import Attribution, CXRLensError, FloatImage, Geometry


def on_square(attributions: Sequence[Attribution], size: int) -> FloatImage:
    """Attributions over cells and pixels, joined on the model's square: (size, size), as densities.

    A density is a value times the number of cells of its grid, so that grids of any size are on one scale.

    Raises:
        CXRLensError: they are of filters, which have no place in the image.
    """
    total = torch.zeros(size, size)
    for density, _ in _densities(attributions):
        cells = torch.from_numpy(density)[None, None]
        total += functional.interpolate(cells, size=(size, size), mode="bilinear", antialias=True)[0, 0]
    joined: FloatImage = total.numpy()
    return joined


def on_image(attributions: Sequence[Attribution]) -> FloatImage:
    """Attributions over cells and pixels, joined on the original image (H, W), as densities; padding is cropped.

    Raises:
        CXRLensError: they are of filters, which have no place in the image.
    """
    total: FloatImage = np.sum([to_original(*each) for each in _densities(attributions)], axis=0)
    return total


def padding_share(attributions: Sequence[Attribution]) -> float:
    """Share of the absolute values that lie on padding, where nothing can be seen; to be told with the map.

    Raises:
        CXRLensError: they are of filters, which have no place in the image.
    """
    outside = total = 0.0
    for density, geometry in _densities(attributions):
        outside += float((np.abs(density) * (1 - content_share(geometry, density.shape))).mean())
        total += float(np.abs(density).mean())
    return outside / total if total else 0.0


def content_share(geometry: Geometry, grid: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """How much of each cell of a grid (h, w) over the square is image, not padding: (h, w) in [0, 1]."""
    top, left, height, width = geometry.content

    def covered(cells: int, start: float, length: float) -> npt.NDArray[np.float64]:
        edges = np.arange(cells + 1) / cells
        inside = np.clip(edges, start, start + length)
        return np.diff(inside) * cells

    return np.outer(covered(grid[0], top, height), covered(grid[1], left, width)).astype(np.float32)


def _densities(attributions: Sequence[Attribution]) -> list[tuple[npt.NDArray[np.float32], Geometry]]:
    placed = [(each.values * each.values.size, each.geometry) for each in attributions if each.geometry is not None]
    if not placed:
        raise CXRLensError("Values of filters have no place in the image; show them as bars.")
    return placed
