"""Closed-form lengths of parallel rays through simple bodies, on a grid of pixels.

Body coordinates, in centimetres: x grows towards the image's right (the patient's left), y grows downwards, z grows
from front to back and is the direction of the rays. The carina is near (0, -4.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating[Any]]
"""One number per pixel, float32 in practice."""

FIELD = 38.0
"""Side of the detector, cm."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Body coordinates of the pixels' centres.

    Attributes:
        x: (size, size), cm.
        y: (size, size), cm.
        pixel: side of a pixel, cm.
        to_detector: (2, 2), from body to detector coordinates.
        offset: (2,), where the body's origin falls on the detector, cm from its middle.
    """

    x: Values
    y: Values
    pixel: float
    to_detector: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]

    @property
    def size(self) -> int:
        """Pixels along a side."""
        return len(self.x)

    def pixels(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Turn body points (..., 2) into fractional (column, row), 0 at the first pixel's centre."""
        return np.asarray((points @ self.to_detector.T + self.offset + FIELD / 2) / self.pixel - 0.5)

    def window(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        """Cut out the pixels that a box in body coordinates can touch."""
        corners = self.pixels(np.array([[left, top], [right, top], [left, bottom], [right, bottom]]))
        low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, self.size)
        high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2, 0, self.size)
        return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


@lru_cache(maxsize=4)
def _detector(size: int) -> tuple[Values, Values]:
    centres = ((np.arange(size) + 0.5) / size - 0.5) * FIELD
    x, y = np.meshgrid(centres, centres)
    return x.astype(np.float32), y.astype(np.float32)


def make_grid(size: int, *, tilt: float, stretch: tuple[float, float], offset: tuple[float, float]) -> Grid:
    """Lay a detector over a body.

    Args:
        size: pixels along a side.
        tilt: turn of the body in the image plane, radians.
        stretch: how much wider and taller than the standard body, about 1.
        offset: where the body's origin falls, cm from the detector's middle.
    """
    cosine, sine = np.cos(tilt), np.sin(tilt)
    to_detector = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag(stretch)
    inverse = np.linalg.inv(to_detector)
    x, y = _detector(size)
    x, y = x - np.float32(offset[0]), y - np.float32(offset[1])
    (a, b), (c, d) = inverse.astype(np.float32)
    return Grid(a * x + b * y, c * x + d * y, FIELD / size, to_detector, np.array(offset, dtype=np.float64))


def half_chord(squared: Values) -> Values:
    """Square root of what is left of 1 inside a body, 0 outside."""
    left: Values = np.maximum(1.0 - squared, 0.0, dtype=np.float32)
    return np.sqrt(left)


def ellipsoid(
    x: Values,
    y: Values,
    centre: tuple[float, float],
    axes: tuple[float, float, float],
    turn: float = 0.0,
) -> Values:
    """Measure the rays through an ellipsoid.

    With semi-axes a, b, c along x, y, z the length is 2 c sqrt(1 - (x/a)² - (y/b)²).

    Args:
        x: body coordinate, cm.
        y: body coordinate, cm.
        centre: x and y, cm.
        axes: semi-axes before the turn, cm.
        turn: in the image plane, radians, clockwise as seen.

    Returns:
        Length inside, cm.
    """
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    if turn:
        cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        dx, dy = cosine * dx + sine * dy, cosine * dy - sine * dx
    return np.float32(2 * axes[2]) * half_chord((dx / np.float32(axes[0])) ** 2 + (dy / np.float32(axes[1])) ** 2)


def add_ellipsoid(
    grid: Grid, onto: Values, centre: tuple[float, float], axes: tuple[float, float, float], turn: float = 0.0
) -> None:
    """Add an ellipsoid's length to an image in place, touching only the pixels near it."""
    reach = max(axes[0], axes[1])
    rows, columns = grid.window(centre[0] - reach, centre[1] - reach, centre[0] + reach, centre[1] + reach)
    onto[rows, columns] += ellipsoid(grid.x[rows, columns], grid.y[rows, columns], centre, axes, turn)


def tube(distance: Values, radius: float, pixel: float) -> Values:
    """Measure the rays through a round tube across the beam.

    A tube thinner than a pixel is widened to one and thinned in proportion, so that its area, and with it the mean
    over larger pixels, stays what it was.

    Args:
        distance: of the ray from the axis, cm.
        radius: of the tube, cm.
        pixel: side of a pixel, cm.

    Returns:
        Length inside, cm.
    """
    wide = max(radius, 0.75 * pixel)
    return np.float32(2 * wide * (radius / wide) ** 2) * half_chord((distance / np.float32(wide)) ** 2)


def polyline(points: list[tuple[float, float]], radius: float, step: float = 0.9) -> npt.NDArray[np.float64]:
    """Cut a smooth line into short straight tubes.

    Args:
        points: the line passes through them (Catmull-Rom), cm.
        radius: of the tube, cm.
        step: length of a piece, cm.

    Returns:
        (pieces, 6): x, y of the start, x, y of the end, radius at the start and at the end.
    """
    knots = np.array([points[0], *points, points[-1]], dtype=np.float64)
    curve = []
    for before, start, end, after in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        pieces = max(2, int(np.hypot(*(end - start)) / step) + 1)
        t = np.linspace(0, 1, pieces, endpoint=False)[:, None]
        curve.append(
            0.5
            * (
                2 * start
                + (end - before) * t
                + (2 * before - 5 * start + 4 * end - after) * t**2
                + (3 * start - before - 3 * end + after) * t**3
            )
        )
    line = np.concatenate([*curve, knots[-1:]])
    radii = np.full((len(line) - 1, 2), radius)
    return np.concatenate([line[:-1], line[1:], radii], axis=1)


def segments(grid: Grid, pieces: npt.NDArray[np.float64]) -> Values:
    """Measure the rays through many short, tapering tubes, the longest length where tubes overlap.

    Args:
        grid: the pixels.
        pieces: (pieces, 6) as from `polyline`.

    Returns:
        (size, size), cm.
    """
    out = np.zeros((grid.size, grid.size), dtype=np.float32)
    if not len(pieces):
        return out
    wide = np.maximum(pieces[:, 4:], 0.75 * grid.pixel)
    ends = np.stack([grid.pixels(pieces[:, :2]), grid.pixels(pieces[:, 2:4])])
    reach = np.max(np.abs(ends[1] - ends[0]), axis=1) / 2 + 1.1 * wide.max(axis=1) / grid.pixel + 0.5
    # Tubes of like size share a window, so that each group is one array operation.
    order = np.argsort(reach)
    for group in np.array_split(order, min(4, len(order))):
        half = int(np.ceil(reach[group].max()))
        centre = np.rint(ends[:, group].mean(axis=0)).astype(int)
        around = np.arange(-half, half + 1)
        columns = centre[:, 0, None, None] + around[None, None, :]
        rows = centre[:, 1, None, None] + around[None, :, None]
        start, end = ends[0, group, :, None, None], ends[1, group, :, None, None]
        along = end - start
        dx = (columns - start[:, 0]).astype(np.float32)
        dy = (rows - start[:, 1]).astype(np.float32)
        ax, ay = along[:, 0].astype(np.float32), along[:, 1].astype(np.float32)
        t = np.clip((dx * ax + dy * ay) / (ax * ax + ay * ay + np.float32(1e-9)), 0, 1)
        squared = ((dx - t * ax) ** 2 + (dy - t * ay) ** 2) * np.float32(grid.pixel**2)
        first, last = pieces[group, 4, None, None], pieces[group, 5, None, None]
        radius = (first + (last - first) * t).astype(np.float32)
        drawn = np.maximum(radius, np.float32(0.75 * grid.pixel))
        length = 2 * radius**2 / drawn * half_chord(squared / drawn**2)
        inside = (length > 0) & (rows >= 0) & (rows < grid.size) & (columns >= 0) & (columns < grid.size)
        flat = (rows * grid.size + columns)[inside]
        np.maximum.at(out.reshape(-1), flat, length[inside])
    return out


def smoothstep(value: Values) -> Values:
    """Rise smoothly from 0 at 0 to 1 at 1."""
    t = np.clip(value, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


@lru_cache(maxsize=16)
def interpolation(cells: int, size: int) -> Values:
    """Weights (size, cells) that take a coarse row to a fine one: cubic B-spline, each row adds up to 1."""
    place = (np.arange(size) + 0.5) / size * cells - 0.5
    distance = np.abs(place[:, None] - np.arange(cells)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


@lru_cache(maxsize=16)
def averaging(cells: int, size: int) -> Values:
    """Weights (cells, size) that average a fine row over coarse cells; each row adds up to 1."""
    edges = np.arange(size + 1) / size * cells
    low, high = edges[None, :-1], edges[None, 1:]
    cell = np.arange(cells)[:, None]
    weights = np.clip(np.minimum(high, cell + 1) - np.maximum(low, cell), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
