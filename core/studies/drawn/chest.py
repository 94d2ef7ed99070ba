"""Where the lungs lie in a real frontal film, read off the film itself, as the phantom's coordinates need it.

Lungs are what is dark and is not the air around the body: a threshold, tried at several levels, whose two regions must
look like lungs. Where they do not, the film is refused. No model is asked, so that what is drawn favours none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from core.studies.phantom.shapes import FIELD, Grid
from core.types import CXRLensError, FloatImage, Mask

SIDE = 256
"""Pixels of the square in which lungs are looked for."""

_APEX, _DOME, _WALL = -14.0, 9.6, 13.6  # cm: of the standard phantom, see `core.studies.phantom.anatomy.draw_anatomy`
_STEPS = (-0.12, -0.08, -0.04, 0.0, 0.03, 0.06, 0.09)  # ours: thresholds around Otsu's
_AREA = (0.055, 0.28)  # ours: of the film, each lung
_HEIGHT = 0.4  # ours: of the film, each lung at least
_WIDEST = 0.55  # ours: how far down the lung its widest place lies at least; breasts and arms cut lungs short above it
_REACHES = 0.9  # ours: of its greatest width, what a lung has at its base at least
_CROSSED = 0.7  # ours: of the way from lung to the brightest of the chest wall, where the wall begins
_BESIDE = 0.35  # ours: of the way from lung to mediastinum, how dense the chest wall beside the lung is at least
_DENSE = 0.6  # ours: of the way from lung to mediastinum, how dense it is below the diaphragm at least
_TOPS = 0.06  # ours: of the film; how far the tops of both lungs may differ
_BASES = (-0.03, 0.09)  # ours: of the film; how much lower the left lung reaches than the right
_LEVELS = 64


class NoChestError(CXRLensError):
    """A film in which two lungs cannot be told from the rest."""


@dataclass(frozen=True, slots=True)
class Chest:
    """Where the lungs lie. Rows and columns are fractions of the film's height and width; sides are of the patient.

    Attributes:
        middle: column between the lungs.
        rows: (N,) heights at which `walls` are known, evenly spaced over the whole film.
        walls: by side, (N,) distance of the chest's inner wall from `middle`, as a fraction of the width.
        columns: (N,) places at which `floors` are known.
        floors: (N,) row of the diaphragm, of each column on its own side.
        apices: by side, (column, row) of the top of the lung.
        angles: by side, row of the lowest place of the lung, the costophrenic angle.
        domes: by side, row of the top of the diaphragm.
    """

    middle: float
    rows: npt.NDArray[np.float64]
    walls: dict[str, npt.NDArray[np.float64]]
    columns: npt.NDArray[np.float64]
    floors: npt.NDArray[np.float64]
    apices: dict[str, tuple[float, float]]
    angles: dict[str, float]
    domes: dict[str, float]

    @property
    def _scale(self) -> tuple[float, float]:
        """Fractions of the film's width and height to a centimetre of the phantom's standard chest."""
        wide = float(np.mean([wall.max() for wall in self.walls.values()]))
        top = float(np.mean([row for _, row in self.apices.values()]))
        return wide / _WALL, (float(np.mean(list(self.domes.values()))) - top) / (_DOME - _APEX)

    def grid(self, side: int) -> Grid:
        """The phantom's coordinates of the pixels of the film, made a square of this side."""
        across, down = self._scale
        top = float(np.mean([row for _, row in self.apices.values()]))
        to_detector = np.diag([across * FIELD, down * FIELD])
        offset = np.array([self.middle - 0.5, top - _APEX * down - 0.5]) * FIELD
        centres = (np.arange(side) + 0.5) / side
        x, y = np.meshgrid((centres - self.middle) / across, (centres - top) / down + _APEX)
        return Grid(x.astype(np.float32), y.astype(np.float32), FIELD / side, to_detector, offset)

    def height(self, row: float) -> float:
        """A row in the phantom's coordinates, cm."""
        return (row - float(np.mean([each for _, each in self.apices.values()]))) / self._scale[1] + _APEX

    def distance(self, columns: float) -> float:
        """A distance along a row in the phantom's coordinates, cm."""
        return columns / self._scale[0]


def find_chest(film: FloatImage) -> Chest:
    """Find the lungs.

    Args:
        film: (H, W), values in [0, 1], bright = dense, upright, frontal.

    Raises:
        NoChestError: there are no two regions that look like lungs.
    """
    small = as_square(film, SIDE)
    smooth = ndimage.gaussian_filter(small, 2.0)
    # Breasts and arms veil lungs slowly over the film; half of what varies slowly is taken out for a second look.
    flat = smooth - 0.5 * ndimage.gaussian_filter(small, SIDE / 6, mode="nearest")
    found = []
    for seen in (smooth, flat):
        base = _otsu(seen[SIDE // 8 : -SIDE // 8, SIDE // 10 : -SIDE // 10])
        found += [lungs for step in _STEPS if (lungs := _lungs(seen < base + step)) is not None]
    if not found:
        raise NoChestError("No two lungs can be told from the rest of this film.")
    # The largest that still look like lungs: a low threshold leaves out their borders.
    right, left = max(found, key=lambda lungs: sum(lung.sum() for lung in lungs))
    chest = _measured(right, left, smooth)
    _check_below(chest, smooth, right | left)
    return chest


def as_square(film: FloatImage, side: int) -> FloatImage:
    """A film as a square, whatever its shape."""
    if film.shape == (side, side):
        return film
    resample = Image.Resampling.BOX if min(film.shape) >= side else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(film).resize((side, side), resample), dtype=np.float32)


def _otsu(values: FloatImage) -> float:
    """The threshold that divides values best in two (Otsu 1979, doi:10.1109/TSMC.1979.4310076)."""
    counts, edges = np.histogram(values, _LEVELS)
    centres = (edges[1:] + edges[:-1]) / 2
    below, sums = counts.cumsum()[:-1], (counts * centres).cumsum()
    above = counts.sum() - below
    means = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(centres[:-1][np.argmax(below * above * means**2)])


def _lungs(dark: Mask) -> tuple[Mask, Mask] | None:
    """The right and the left lung among what is dark; None where they do not look like lungs."""
    regions, _ = ndimage.label(dark)
    around = np.unique(np.concatenate([regions[:, [0, 1, -2, -1]].ravel(), regions[[0, 1, -2, -1]].ravel()]))
    inner = ndimage.binary_opening(dark & ~np.isin(regions, around[around > 0]), iterations=2)
    lungs = []
    for half in (slice(0, SIDE // 2), slice(SIDE // 2, SIDE)):
        own = np.zeros_like(inner)
        own[:, half] = inner[:, half]
        parts, count = ndimage.label(own)
        if not count:
            return None
        sizes = ndimage.sum_labels(own, parts, range(1, count + 1))
        padded = ndimage.binary_closing(np.pad(parts == 1 + int(np.argmax(sizes)), 20), iterations=8)
        lungs.append(ndimage.binary_fill_holes(padded)[20:-20, 20:-20])
    return (lungs[0], lungs[1]) if _look_like_lungs(lungs) else None


def _look_like_lungs(lungs: list[Mask]) -> bool:
    spans = []
    for lung, outward in zip(lungs, (-1, 1), strict=True):
        area = lung.mean()
        rows = np.flatnonzero(lung.any(1))
        spans.append((rows[0], rows[-1]))
        reach = _reach(lung, outward)[rows[0] : rows[-1] + 1]
        widest = np.argmax(reach) / len(reach)
        reaches_down = reach[-len(reach) // 6 :].max() > _REACHES * reach.max() and widest > _WIDEST
        if not (_AREA[0] < area < _AREA[1] and len(rows) > _HEIGHT * SIDE and reaches_down):
            return False
    (top, bottom), (other_top, other_bottom) = spans
    lower = (other_bottom - bottom) / SIDE  # the left lung's base, which heart and stomach hide first
    return bool(abs(top - other_top) < _TOPS * SIDE and _BASES[0] < lower < _BASES[1])


def _reach(lung: Mask, outward: int) -> npt.NDArray[np.float64]:
    """How far out a lung reaches in each row, columns from the image's inner side; 0 where it is not."""
    columns = np.arange(SIDE) if outward > 0 else np.arange(SIDE)[::-1]
    return np.asarray(np.where(lung, columns, 0).max(1), dtype=np.float64)


def _measured(right: Mask, left: Mask, smooth: FloatImage) -> Chest:
    """Measure two lungs, (SIDE, SIDE)."""
    place = np.arange(SIDE)
    both = np.flatnonzero(right.any(1) & left.any(1))
    upper = both[: max(1, len(both) // 2)]  # below, the heart takes more room on the left
    inner_right, inner_left = np.where(right, place, -1).max(1), np.where(left, place, SIDE).min(1)
    middle = float(np.median((inner_right[upper] + inner_left[upper]) / 2)) + 0.5
    walls, apices, angles, domes = {}, {}, {}, {}
    floors = np.zeros(SIDE)
    for side, lung, outward in (("right", right, -1), ("left", left, 1)):
        rows, columns = np.flatnonzero(lung.any(1)), np.flatnonzero(lung.any(0))
        walls[side] = np.interp(place, rows, _wall(lung, smooth, middle, outward)) / SIDE
        apices[side] = (float(np.flatnonzero(lung[rows[0] + 3]).mean()) + 0.5) / SIDE, rows[0] / SIDE
        angles[side] = (rows[-1] + 1) / SIDE
        floor = SIDE - np.argmax(lung[::-1, columns], axis=0).astype(np.float64)
        floor = ndimage.gaussian_filter1d(ndimage.grey_closing(floor, 15, mode="nearest"), 2.0, mode="nearest")
        # The heart hides the inner part: there the diaphragm is as high as where it is seen highest.
        outer = np.abs(columns + 0.5 - middle) > 0.5 * np.abs(columns + 0.5 - middle).max()
        dome = float(np.quantile(floor[outer], 0.1))
        own = place < middle if outward < 0 else place >= middle
        floors[own] = np.maximum(np.interp(place, columns, floor), dome)[own] / SIDE
        domes[side] = dome / SIDE
    centres = (place + 0.5) / SIDE
    return Chest(middle / SIDE, centres, walls, centres, floors, apices, angles, domes)


def _wall(lung: Mask, smooth: FloatImage, middle: float, outward: int) -> npt.NDArray[np.float64]:
    """Distance of the chest's inner wall from the middle in each row of a lung, columns.

    It is where the film has become bright on the way from the threshold's outline to the chest wall. Ribs make notches
    in it; the wall passes them.
    """
    rows = np.flatnonzero(lung.any(1))
    reach = _reach(lung, outward)[rows] + 1 - (SIDE - middle if outward < 0 else middle)
    reach = ndimage.grey_closing(reach, 31, mode="nearest")
    steps = np.arange(-6, 14)
    columns = np.clip(np.rint(middle - 0.5 + outward * (reach[:, None] + steps)), 0, SIDE - 1).astype(int)
    profile = ndimage.gaussian_filter1d(smooth[rows[:, None], columns], 4.0, axis=0, mode="nearest")
    dark, bright = profile[:, :7].min(1), profile.max(1)
    crossed = (profile > (dark + _CROSSED * (bright - dark))[:, None]).argmax(1)
    moved = ndimage.median_filter(reach + steps[crossed], 25, mode="nearest")
    return np.asarray(ndimage.gaussian_filter1d(moved, 8.0, mode="nearest"))


def _check_below(chest: Chest, smooth: FloatImage, lungs: Mask) -> None:
    """Refuse a film on which what is below the lungs is hardly denser than they: breasts or arms cut them off.

    Raises:
        NoChestError: it is so.
    """
    low = int(SIDE * max(row for _, row in chest.apices.values()))
    heart = smooth[(low + int(SIDE * min(chest.domes.values()))) // 2 : int(SIDE * min(chest.domes.values()))]
    column = int(chest.middle * SIDE)
    dense = float(np.median(heart[:, column - SIDE // 40 : column + SIDE // 16]))
    air = float(np.median(smooth[lungs]))
    for side, sign in (("right", -1), ("left", 1)):
        width = chest.walls[side].max()
        places = np.arange(chest.middle + sign * 0.35 * width, chest.middle + sign * 0.85 * width, sign / SIDE)
        columns = np.clip((places * SIDE).astype(int), 0, SIDE - 1)
        rows = np.clip((chest.floors[columns] * SIDE).astype(int) + SIDE // 25, 0, SIDE - 1)
        beside = np.arange(int(SIDE * (chest.domes[side] - 0.25)), int(SIDE * chest.domes[side]))
        out = np.rint(SIDE * (chest.middle + sign * (chest.walls[side][beside] + 0.02))).astype(int)
        wall = np.quantile(smooth[beside, np.clip(out, 0, SIDE - 1)], 0.2)
        if wall < air + _BESIDE * (dense - air):
            raise NoChestError(f"The {side} lung of this film is not seen out to the chest wall.")
        if np.median(smooth[rows, columns]) < air + _DENSE * (dense - air):
            raise NoChestError(f"The {side} lung of this film is not seen down to the diaphragm.")
