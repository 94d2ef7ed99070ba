"""A finding of the phantom drawn into a real film.

The phantom says how much of a ray's way through lung turns into water, or how much gas stands where lung was. The film
says the rest. How much air a ray crosses is read off it: by how much darker it is there than its own soft tissue. So
fluid that fills the whole depth becomes as bright as the film's heart and liver, and where there is no air nothing
changes. Display values are taken for a logistic curve of the line integral, as detectors' curves nearly are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from core.studies.drawn.chest import Chest, NoChestError, as_square, find_chest
from core.studies.phantom.cavity import Cavity
from core.studies.phantom.findings import Fact
from core.studies.phantom.pathology import FRACTIONS, faded, pneumothorax_gaps
from core.studies.phantom.render import LUNG, WATER
from core.studies.phantom.shapes import Grid, Values, half_chord, smoothstep
from core.types import CXRLensError, FloatImage, Mask

FINDINGS = ("Pneumothorax", "Pleural Effusion", "Lung Opacity", "Lung Lesion")
"""What can be drawn into a real film; for the phantom's others, its bones, heart, vessels or bronchi would change."""

_SIDES = (256, 768)  # ours: pixels of the square in which a finding is drawn, at least and at most
_GRAIN, _VESSELS, _EDGES, _RIBS, _LUNG = 0.06, 0.18, 0.25, 0.7, 1.8  # cm: widths of what is seen
_HIDDEN = 0.85  # ours: of vessels, how much hides fluid that fills the whole depth, or gas where they were
_RIM = 0.6  # cm; ours: how far the pleura may lie outside of the outline that was found
_CONTRAST = 0.4  # ours: of logits, how much darker lungs are than soft tissue at least
_ROOF = 0.07  # 1/cm; ours: how fast the top of the pleural space falls; further out the wall is its border
_DEPTH = 8.4  # cm: half the inner depth of the standard chest
_LEAST = 1 / 510  # of the display values, so that black and white have a logit
_PLEURA = 0.16  # line integral of the visceral pleura seen edge on, as of the phantom
_CHANGED = 1 / 1020
"""A change of the display value that counts as one: a quarter of a grey level of 8 bits."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A film with what drawing needs of it, in a square of its own pixels.

    Attributes:
        film: (H, W), values in [0, 1].
        chest: where its lungs lie.
        grid: the phantom's coordinates of the square.
        cavity: its pleural spaces.
        space: (S, S), 1 inside the pleural spaces, 0 outside.
        vessels: (S, S), what of the logits is wider than grain and narrower than ribs.
        air: (S, S), by how much the film's soft tissue is above its lung; 0 where there is no air.
        usual_air: median of `air` in the lungs.
        slope: of logits by the line integral.
    """

    film: FloatImage
    chest: Chest
    grid: Grid
    cavity: Cavity
    space: Values
    vessels: Values
    air: Values
    usual_air: float
    slope: float


def prepare(film: FloatImage) -> Prepared:
    """Find the chest in a film, and how bright its soft tissue is.

    Args:
        film: (H, W), values in [0, 1], bright = dense.

    Raises:
        NoChestError: the lungs cannot be told from the rest.
    """
    chest = find_chest(film)
    side = int(np.clip(max(film.shape), *_SIDES))
    grid = chest.grid(side)
    cavity, space = _cavity(chest, grid)
    logits = _logit(as_square(film, side))
    pixels = 1 / chest.distance(1 / side)

    def blurred(values: Values, width: float) -> Values:
        found: Values = ndimage.gaussian_filter(values, width * pixels, mode="nearest").astype(np.float32)
        return found

    near = blurred(logits, _RIBS)
    inside = space > 0.5
    tissue = _soft_tissue(chest, near)
    # The mean of lung around each place, without heart and diaphragm beside it.
    darker = max(tissue - float(np.median(near[inside])), 0.1)
    lung: Values = space * smoothstep((tissue - near) / np.float32(0.6 * darker))
    mean = blurred(lung * logits, _LUNG) / np.maximum(blurred(lung, _LUNG), np.float32(1e-3))
    air = np.maximum(tissue - np.maximum(mean, blurred(logits, _EDGES)), 0) * space
    vessels = blurred(logits, _GRAIN) - blurred(logits, _VESSELS)
    deep = inside & (cavity.length > 0.5 * _DEPTH)
    if not deep.any() or (usual := float(np.median(air[deep]))) < _CONTRAST:
        raise NoChestError("The lungs of this film are hardly darker than its soft tissue.")
    slope = float(np.median(air[deep] / cavity.length[deep])) / (WATER - LUNG)
    return Prepared(film, chest, grid, cavity, space, vessels, air, usual, slope)


def draw_into(prepared: Prepared, fact: Fact) -> FloatImage:
    """Draw one finding into a film.

    Args:
        prepared: the film.
        fact: of one of `FINDINGS`, on one side; an extent of 0 is the film itself.

    Returns:
        (H, W), values in [0, 1]; where the finding is not, exactly the film's.
    """
    change = _change(prepared, fact)
    if change is None:
        return prepared.film
    height, width = prepared.film.shape
    wanted = (
        np.asarray(Image.fromarray(change).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
        if change.shape != prepared.film.shape
        else change
    )
    drawn = 1 / (1 + np.exp(-(_logit(prepared.film) + wanted)))
    return np.where(wanted != 0, drawn, prepared.film).astype(np.float32)


def place_of(prepared: Prepared, fact: Fact, shape: tuple[int, int]) -> Mask:
    """Where a finding changes a film by a quarter of a grey level or more, (H, W)."""
    changed = np.abs(draw_into(prepared, fact) - prepared.film) > _CHANGED
    if changed.shape == shape:
        return changed
    resized = Image.fromarray(changed.astype(np.uint8) * 255).resize(shape[::-1], Image.Resampling.BILINEAR)
    return np.asarray(resized) > 127


def _change(prepared: Prepared, fact: Fact) -> Values | None:
    """What a finding adds to the logits, (S, S); None for nothing."""
    if fact.observation not in FINDINGS:
        raise CXRLensError(f"{fact.observation} cannot be drawn into a real film. There are: {', '.join(FINDINGS)}.")
    if fact.extent <= 0:
        return None
    drawn = _gas(prepared, fact) if fact.observation == "Pneumothorax" else _water(prepared, fact)
    # Below an eighth of a grey level of 8 bits it is nothing, so that the film stays as it is around the finding.
    return np.where(np.abs(drawn) > 0.002, drawn, 0).astype(np.float32)


def _water(prepared: Prepared, fact: Fact) -> Values:
    """Lung that turns into water: brighter by its share of the air, its vessels hidden."""
    grid, cavity = prepared.grid, prepared.cavity
    fraction = np.float32(faded(fact)) * FRACTIONS[fact.observation](grid, cavity, fact, np.zeros_like(grid.x))
    return fraction * (prepared.air - np.float32(_HIDDEN) * prepared.vessels * prepared.space)


def _gas(prepared: Prepared, fact: Fact) -> Values:
    """Gas between wall and lung: darker, without vessels; the lung's edge a line, the lung behind it denser."""
    grid, cavity = prepared.grid, prepared.cavity
    gap = np.float32(max(pneumothorax_gaps((fact,))))
    there = cavity.right if fact.side == "right" else ~cavity.right
    top = prepared.chest.height(prepared.chest.apices[fact.side][1])
    height = np.clip((grid.y - np.float32(top)) / np.float32(24.0), 0, 1)
    edge = cavity.wall - gap * (np.float32(1.2) - np.float32(0.7) * height)
    # Distance inside the lung's edge: from its side, and from its top, where gas collects first.
    inner = _lesser(edge - cavity.across, (grid.y - cavity.roof - gap) * np.float32(0.8), 1.2)
    gas = smoothstep(-inner / np.float32(0.25) + np.float32(0.5)) * there * prepared.space
    # What the heart covers has no air to lose.
    aired = smoothstep(prepared.air / np.float32(0.4 * prepared.usual_air))
    lung = (1 - gas) * there * prepared.space * aired
    unit = np.float32(prepared.slope)
    darker = -unit * np.float32(LUNG) * cavity.length * gas
    denser = np.float32(0.12) * np.minimum(gap, 6.5) * lung * np.float32(LUNG) * cavity.length * unit
    line = np.clip(1 - np.abs(inner) / np.float32(max(0.14, 0.9 * prepared.chest.distance(1 / grid.size))), 0, 1)
    pleura = unit * np.float32(_PLEURA * faded(fact)) * line * there * prepared.space * aired
    return darker + denser + pleura - np.float32(_HIDDEN) * gas * prepared.vessels


def _lesser(one: Values, other: Values, round_by: float) -> Values:
    """The smaller of two distances, with a corner that is rounded by some cm."""
    apart = np.maximum(np.float32(round_by) - np.abs(one - other), 0) / np.float32(round_by)
    return np.asarray(np.minimum(one, other) - apart**2 * np.float32(round_by / 4), dtype=np.float32)


def _cavity(chest: Chest, grid: Grid) -> tuple[Cavity, Values]:
    """The pleural spaces in the phantom's coordinates, and 1 inside them, softly falling to 0 outside."""
    side = grid.size
    centres = (np.arange(side) + 0.5) / side
    right = grid.x < 0
    across = np.abs(grid.x)
    walls = {
        name: np.interp(centres, chest.rows, wall)[:, None] / wall.max() * chest.distance(wall.max())
        for name, wall in chest.walls.items()
    }
    wall = np.where(right, walls["right"], walls["left"]).astype(np.float32)
    floors = np.interp(centres, chest.columns, chest.floors)
    floor = np.array([chest.height(row) for row in floors], dtype=np.float32)[None, :] + np.zeros_like(grid.x)
    roof = np.zeros_like(grid.x)
    for name, mask in (("right", right), ("left", ~right)):
        column, row = chest.apices[name]
        from_top = across - np.float32(chest.distance(abs(column - chest.middle)))
        roof = np.where(mask, np.float32(chest.height(row)) + np.float32(_ROOF) * from_top**2, roof)
    deep = np.float32(2 * _DEPTH) * half_chord((across / np.maximum(wall, 0.5)) ** 2)
    above = np.minimum(deep, 2 * np.sqrt(np.maximum(grid.y - roof, 0) / np.float32(0.09)))
    length = np.maximum(above - 2 * np.sqrt(np.maximum(grid.y - floor, 0) / np.float32(0.055)), 0)
    space = (
        smoothstep((wall - across) / np.float32(_RIM) + 1)
        * smoothstep((grid.y - roof) / np.float32(0.5))
        * smoothstep((floor - grid.y) / np.float32(_RIM) + 1)
        * smoothstep((across - np.float32(0.4)) / np.float32(1.2))
    )
    tops = {name: chest.height(row) for name, row in chest.domes.items()}
    angles = {name: chest.height(row) for name, row in chest.angles.items()}
    return Cavity(length, length, across, right, wall, wall, floor, roof, tops, angles), space


def _soft_tissue(chest: Chest, smooth: Values) -> float:
    """The logit of the film's soft tissue: of heart and of what lies below the diaphragm, the darker of both."""
    side = len(smooth)
    top = float(np.mean([row for _, row in chest.apices.values()]))
    low = min(chest.domes.values())
    rows = slice(int(side * (top + 0.6 * (low - top))), int(side * low))
    width = float(np.mean([wall.max() for wall in chest.walls.values()]))
    heart = smooth[rows, int(side * (chest.middle - 0.12 * width)) : int(side * (chest.middle + 0.35 * width))]
    below = int(side * chest.domes["right"])
    columns = slice(int(side * (chest.middle - 0.75 * width)), int(side * (chest.middle - 0.3 * width)))
    liver = smooth[below + side // 30 : below + side // 12, columns]
    return float(min([np.quantile(heart, 0.7), *([np.median(liver)] if liver.size else [])]))


def _logit(values: FloatImage) -> Values:
    kept = np.clip(values, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(kept / (1 - kept)), dtype=np.float32)
