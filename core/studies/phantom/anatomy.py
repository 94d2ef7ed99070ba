"""Who lies in the beam, and how: the numbers that make one patient and one exposure differ from the next."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from core.types import FloatImage

HILA = {"right": (-3.9, -2.0), "left": (3.9, -2.9)}
"""Where the vessels enter the lungs, cm. The left hilum is the higher one."""

SIGN = {"right": -1.0, "left": 1.0}
"""The side of the image a side of the patient falls on: the patient's left is on the image's right."""

ROOTS = ((0.15, 0.42), (0.6, 0.4), (1.15, 0.34), (1.65, 0.36), (2.1, 0.46), (2.5, 0.6), (2.85, 0.46))
"""Where the vessels of a hilum head, radians from straight up turning outwards, and their radius, cm. The lower lobes
get the larger ones."""

TEXTURE_CELLS = 72


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One patient's thorax. It stays the same from visit to visit. Lengths in cm.

    Attributes:
        sex: "F" adds breast shadows.
        age: years at the first visit; it widens the aorta and thins the bones.
        habitus: 0 lean to 1 obese.
        width: of the chest, 1 is the standard.
        height: of the chest, 1 is the standard.
        chest: half the inner width of the rib cage.
        depth: half the inner depth of the rib cage.
        apex: y of the top of the lungs.
        dome: y of the top of the right and left hemidiaphragm at full inspiration.
        heart: size of a healthy heart, 1 is the standard.
        heart_turn: the axis of the left ventricle, radians below the horizontal.
        aorta: radius of the aortic arch.
        rib_slope: how much the ribs fall from back to front, tangent.
        rib_first: y where the first rib leaves the spine.
        rib_step: distance of neighbouring ribs along the spine.
        bone: relative density of bone.
        breast: radius of the breast shadows, 0 for none.
        bubble: half width of the gastric air bubble.
        detail_seed: of the vessels and the grain of the lungs, see `grow_vessels` and `grow_texture`.
    """

    sex: Literal["F", "M"]
    age: int
    habitus: float
    width: float
    height: float
    chest: float
    depth: float
    apex: float
    dome: tuple[float, float]
    heart: float
    heart_turn: float
    aorta: float
    rib_slope: float
    rib_first: float
    rib_step: float
    bone: float
    breast: float
    bubble: float
    detail_seed: int


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure of a patient.

    Attributes:
        view: "PA" or "AP"; AP magnifies the heart and is less deeply inspired.
        rotation: of the patient about the long axis, radians.
        tilt: in the image plane, radians.
        offset: of the body on the detector, cm.
        inspiration: how much higher than at full inspiration the domes stand, cm.
        photons: that would reach a square centimetre of the bare detector.
        scatter: scattered over primary signal, mean.
        centre: line integral shown as middle grey, relative to the standard.
        contrast: slope of the display curve.
        marker: which side marker is in the image, "" for none.
        collimation: dark margins left, top, right, bottom, cm.
        noise_seed: for the photons.
    """

    view: Literal["PA", "AP"]
    rotation: float
    tilt: float
    offset: tuple[float, float]
    inspiration: float
    photons: float
    scatter: float
    centre: float
    contrast: float
    marker: Literal["", "L", "R"]
    collimation: tuple[float, float, float, float]
    noise_seed: int


@lru_cache(maxsize=256)
def grow_texture(seed: int) -> FloatImage:
    """Grow the grain of the lungs: (TEXTURE_CELLS, TEXTURE_CELLS), mean 0, spread 1."""
    return np.random.default_rng((seed, 1)).standard_normal((TEXTURE_CELLS, TEXTURE_CELLS)).astype(np.float32)


@lru_cache(maxsize=256)
def grow_vessels(seed: int) -> npt.NDArray[np.float64]:
    """Grow the pulmonary vessels from both hila: each step bends, tapers and may fork.

    Returns:
        (pieces, 6) as from `shapes.polyline`.
    """
    rng = random.Random(seed)
    pieces: list[tuple[float, ...]] = []
    for side, (hilum_x, hilum_y) in HILA.items():
        sign = SIGN[side]
        for angle, root in ROOTS:
            last = len(pieces) + 60
            # The widest tip grows first, so that the limit costs only the thinnest twigs.
            tips = [
                (-root * rng.uniform(0.85, 1.2), hilum_x, hilum_y + 0.8 * (angle - 1.4), angle + rng.gauss(0, 0.12))
            ]
            while tips and len(pieces) < last:
                minus_width, x, y, heading = heapq.heappop(tips)
                width = -minus_width
                length = rng.uniform(0.9, 1.4) * (0.75 + width)
                end_x, end_y = x + sign * length * math.sin(heading), y - length * math.cos(heading)
                if abs(end_x) < 2 or (abs(end_x) - 6.5) ** 2 / 49 + (end_y + 0.5) ** 2 / 169 > 1:
                    continue
                thin = width * rng.uniform(0.8, 0.9)
                pieces.append((x, y, end_x, end_y, width, thin))
                if thin > 0.05:
                    heapq.heappush(tips, (-thin, end_x, end_y, heading + rng.gauss(0, 0.14)))
                    if rng.random() < 0.6:
                        fork = rng.choice((-1.0, 1.0)) * rng.uniform(0.4, 0.85)
                        heapq.heappush(tips, (-thin * rng.uniform(0.5, 0.8), end_x, end_y, heading + fork))
    return np.array(pieces)


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient."""
    sex: Literal["F", "M"] = "F" if rng.random() < 0.48 else "M"
    age = int(np.clip(rng.normal(58, 17), 19, 92))
    habitus = float(rng.beta(2.0, 2.6))
    female = sex == "F"
    left_lower = rng.uniform(0.7, 1.8)
    right_dome = rng.normal(9.3, 0.4)
    return Anatomy(
        sex=sex,
        age=age,
        habitus=habitus,
        width=float(rng.normal(0.97 if female else 1.03, 0.025)),
        height=float(rng.normal(0.96 if female else 1.02, 0.025)),
        chest=float(rng.normal(13.6, 0.35)),
        depth=float(rng.normal(8.4, 0.4) + 0.6 * (age > 70)),
        apex=float(rng.normal(-14.0, 0.35)),
        dome=(float(right_dome), float(right_dome + left_lower)),
        heart=float(np.clip(rng.normal(0.97, 0.03), 0.9, 1.03)),
        heart_turn=float(rng.normal(0.62, 0.08)),
        aorta=float(np.clip(1.35 + 0.008 * (age - 40) + rng.normal(0, 0.1), 1.2, 1.9)),
        rib_slope=float(rng.normal(0.5, 0.05)),
        rib_first=float(rng.normal(-15.0, 0.3)),
        rib_step=float(rng.normal(2.35, 0.06)),
        bone=float(np.clip(1.1 - 0.005 * max(0, age - 45) + rng.normal(0, 0.06), 0.7, 1.25)),
        breast=float(rng.uniform(4.2, 6.0) + habitus) if female else 0.0,
        bubble=float(rng.uniform(1.4, 3.2)) if rng.random() < 0.85 else 0.0,
        detail_seed=int(rng.integers(2**63)),
    )


def draw_exposure(rng: np.random.Generator, *, bedridden: bool) -> Exposure:
    """Draw an exposure; a bedridden patient is seen AP, less straight and less inspired."""
    view: Literal["PA", "AP"] = "AP" if rng.random() < (0.8 if bedridden else 0.3) else "PA"
    loose = 1.7 if view == "AP" else 1.0
    markers: tuple[Literal["", "L", "R"], ...] = ("", "L", "R")
    margins = np.where(rng.random(4) < 0.25, rng.uniform(0.2, 1.4, 4), 0.0)
    return Exposure(
        view=view,
        rotation=float(rng.normal(0, 0.025) * loose),
        tilt=float(rng.normal(0, 0.013) * loose),
        offset=(float(rng.normal(0, 0.35) * loose), float(rng.normal(0.4, 0.5))),
        inspiration=float(rng.uniform(0.5, 1.6) if view == "AP" else rng.uniform(0.0, 0.8)),
        photons=float(np.exp(rng.normal(np.log(1.6e6), 0.35))),
        scatter=float(rng.uniform(0.25, 0.5) if view == "AP" else rng.uniform(0.12, 0.3)),
        centre=float(rng.normal(1.0, 0.05)),
        contrast=float(rng.normal(1.0, 0.07)),
        marker=markers[int(rng.choice(3, p=(0.3, 0.4, 0.3)))],
        collimation=(float(margins[0]), float(margins[1]), float(margins[2]), float(margins[3])),
        noise_seed=int(rng.integers(2**63)),
    )
