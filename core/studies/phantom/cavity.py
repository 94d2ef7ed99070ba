"""The space the lungs fill: inside the ribs, below the apex, above the diaphragm, with closed-form lengths along z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.studies.phantom.anatomy import Anatomy, Exposure
from core.studies.phantom.shapes import Grid, Values, half_chord, smoothstep
from core.types import Mask

APEX_X = 5.0
DOME_X = (6.6, 6.9)
DOME_CURVE = 0.064
"""How fast the dome falls sideways, 1/cm."""
DOME_STEEPER = 0.07
"""How much faster for each cm further out, 1/cm."""


@dataclass(frozen=True, slots=True)
class Cavity:
    """Both pleural cavities.

    Attributes:
        length: of the ray inside, cm, before heart and mediastinum take their part.
        lung: of the ray inside lung; shorter than `length` where a pneumothorax keeps the lung from the wall.
        across: distance from the midline, cm.
        right: True on the patient's right.
        wall: distance of the chest wall from the midline at this height, cm.
        edge: distance of the lung's edge from the midline at this height; `wall` unless there is a pneumothorax, cm.
        floor: y of the diaphragm's outline at this x, cm.
        roof: y of the apex's outline at this x, cm.
        tops: y of the top of each dome, by side, cm.
        angles: y of each costophrenic angle, by side, cm.
    """

    length: Values
    lung: Values
    across: Values
    right: Mask
    wall: Values
    edge: Values
    floor: Values
    roof: Values
    tops: dict[str, float]
    angles: dict[str, float]


def chest_width(anatomy: Anatomy, y: Values) -> Values:
    """Half the inner width of the rib cage at a height, cm."""
    reach = np.clip((y - np.float32(anatomy.apex - 0.8)) / np.float32(18.5), 0, 1)
    return np.float32(2.6) + np.float32(anatomy.chest - 2.6) * half_chord((1 - reach) ** 2)


def chest_depth(anatomy: Anatomy, y: Values) -> Values:
    """Half the inner depth of the rib cage at a height, cm."""
    reach = np.clip((y - np.float32(anatomy.apex - 1.0)) / np.float32(17.0), 0, 1)
    return np.float32(3.2) + np.float32(anatomy.depth - 3.2) * half_chord((1 - reach) ** 2)


def make_cavity(
    grid: Grid, anatomy: Anatomy, exposure: Exposure, gaps: tuple[float, float], lifts: tuple[float, float]
) -> Cavity:
    """Measure the pleural cavities.

    Args:
        grid: the pixels.
        anatomy: of the patient.
        exposure: its inspiration lifts the domes.
        gaps: between chest wall and lung in the right and left pneumothorax, cm.
        lifts: of the right and left dome by loss of volume, cm.
    """
    right = grid.x < 0
    across = np.abs(grid.x)
    wall = chest_width(anatomy, grid.y)
    depth = chest_depth(anatomy, grid.y)
    centre = np.where(right, np.float32(DOME_X[0]), np.float32(DOME_X[1]))
    tops = [dome - exposure.inspiration - lift for dome, lift in zip(anatomy.dome, lifts, strict=True)]
    angles = [
        top + DOME_CURVE * (anatomy.chest - x) ** 2 * (1 + DOME_STEEPER * (anatomy.chest - x))
        for top, x in zip(tops, DOME_X, strict=True)
    ]
    sideways = across - centre
    # Steeper on the outer slope, so that the costophrenic angle is sharp.
    leftward = smoothstep(grid.x / np.float32(4.0) + np.float32(0.5))
    floor = (
        np.float32(tops[0])
        + np.float32(tops[1] - tops[0]) * leftward
        + np.float32(DOME_CURVE) * sideways**2 * (1 + np.float32(DOME_STEEPER) * np.maximum(sideways, 0))
    )
    roof = np.float32(anatomy.apex) + np.float32(0.24) * (across - np.float32(APEX_X)) ** 2
    under_dome = 2 * np.sqrt(np.maximum(grid.y - floor, 0) / np.float32(0.055))

    def inside(width: Values, top: Values) -> Values:
        ribs = 2 * depth * half_chord((across / np.maximum(width, np.float32(0.5))) ** 2)
        apex = 2 * np.sqrt(np.maximum(grid.y - top, 0) / np.float32(0.09))
        above: Values = np.minimum(ribs, apex) - under_dome
        return np.maximum(above, 0, out=above)

    length = inside(wall, roof)
    lung, edge = length, wall
    if max(gaps) > 0:
        gap = np.where(right, np.float32(gaps[0]), np.float32(gaps[1]))
        height = np.clip((grid.y - np.float32(anatomy.apex)) / np.float32(24.0), 0, 1)
        edge = wall - gap * (np.float32(1.2) - np.float32(0.7) * height)
        lung = np.where(gap > 0, np.minimum(inside(edge, roof + gap), length), length)
    return Cavity(
        length=length,
        lung=lung,
        across=across,
        right=right,
        wall=wall,
        edge=edge,
        floor=floor,
        roof=roof,
        tops=dict(zip(("right", "left"), tops, strict=True)),
        angles=dict(zip(("right", "left"), angles, strict=True)),
    )
