"""What the abnormalities do to the thorax: fluid in the lungs and pleura, gas around them, devices upon them.

An abnormality of lung or pleura is a *fraction* in [0, 1): how much of a ray's way through lung it turns into water.
Several abnormalities combine as 1 - (1 - f1)(1 - f2)..., so none hides another entirely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from core.studies.phantom.anatomy import HILA, SIGN
from core.studies.phantom.cavity import Cavity
from core.studies.phantom.findings import RIB_SITES, Fact
from core.studies.phantom.shapes import Grid, Values, half_chord, polyline, segments, smoothstep

ZONE_CENTRES = {"upper": (6.6, -7.2), "mid": (8.3, -0.6), "lower": (8.8, 5.2)}
"""Distance from the midline and y of the middle of a lung zone, cm."""

METAL = 4.0
"""Attenuation of thin wires and leads, 1/cm; radio-opaque plastic has half of it."""

SLIGHTEST = 0.06
"""Extent of the slightest abnormality that a patient is drawn with; below it, one fades in from nothing."""

Pieces = npt.NDArray[np.float64]


def faded(fact: Fact) -> float:
    """How much of the slightest abnormality is there: 0 at an extent of 0, 1 from `SLIGHTEST` on."""
    return min(1.0, fact.extent / SLIGHTEST)


def sides_of(fact: Fact) -> tuple[str, ...]:
    """Spell out "bilateral"."""
    return ("right", "left") if fact.side == "bilateral" else (fact.side,)


def _on(cavity: Cavity, side: str) -> Values:
    return (cavity.right if side == "right" else ~cavity.right).astype(np.float32)


def _ball(grid: Grid, x: float, y: float, radius: float, *, sharp: float = 0.5, flat: float = 1.0) -> Values:
    """A body of revolution's share of the ray, 1 in the middle: sharp=0.5 is a sphere, more is softer."""
    squared = ((grid.x - np.float32(x)) / np.float32(radius)) ** 2
    squared += ((grid.y - np.float32(y)) / np.float32(radius * flat)) ** 2
    left: Values = np.maximum(1 - squared, 0)
    return np.sqrt(left) if sharp == 0.5 else left if sharp == 1.0 else left * np.sqrt(left)


def _zone(fact: Fact, rng: np.random.Generator, spread: float) -> tuple[float, float]:
    across, y = ZONE_CENTRES[fact.site]
    return SIGN[fact.side] * (across + rng.normal(0, spread)), y + rng.normal(0, spread)


def _effusion(grid: Grid, cavity: Cavity, fact: Fact, texture: Values) -> Values:
    """Fluid that settles at the base and creeps up the chest wall (the meniscus)."""
    # Height above the costophrenic angle: subtle only fills the angle, large reaches the hilum.
    height = np.interp(
        fact.extent,
        (0.0, 0.06, 0.12, 0.2, 0.36, 0.5, 0.66, 0.8, 1.0),
        (0.6, 1.5, 1.9, 3.0, 4.2, 7.0, 9.0, 12.0, 16.0),
    )
    creep = np.interp(fact.extent, (0.0, 0.2, 1.0), (0.7, 1.8, 4.5))
    meniscus = np.float32(creep) * np.exp(-np.maximum(cavity.wall - cavity.across, 0) / np.float32(2.4))
    fluid = np.zeros_like(grid.x)
    for side in sides_of(fact):
        surface = np.float32(cavity.angles[side] - height + 0.3) - meniscus
        fluid += smoothstep((grid.y - surface) / np.float32(0.9 + 1.5 * fact.extent)) * _on(cavity, side)
    # The mediastinum keeps one side's fluid from the other's.
    return np.float32(0.97) * fluid * smoothstep((cavity.across - np.float32(0.6)) / np.float32(3.6))


def _pleural_thickening(grid: Grid, cavity: Cavity, fact: Fact, texture: Values) -> Values:
    """A lumpy rind of water density along the chest wall or over the apex."""
    thick = np.float32(np.interp(fact.extent, (0.06, 0.2, 0.5, 1.0), (0.6, 1.1, 1.8, 3.0)))
    lumps = 1 + np.float32(0.13) * texture
    if fact.site == "apical":
        depth = cavity.roof + thick * lumps - grid.y
    else:
        along = np.clip(1 - ((grid.y - np.float32(2.5)) / np.float32(7.5)) ** 2, 0, 1)
        depth = thick * lumps * np.sqrt(along) - (cavity.wall - cavity.across)
    sides = sum((_on(cavity, side) for side in sides_of(fact)), np.float32(0))
    return np.float32(0.9) * smoothstep(depth / np.float32(0.35)) * sides


def _consolidation(grid: Grid, cavity: Cavity, fact: Fact, texture: Values) -> Values:
    """A dense lobe, cut off straight by its fissure, with air left in its bronchi."""
    rng = np.random.default_rng(fact.seed)
    sign = SIGN[fact.side]
    across, middle = {"upper": (6.0, -6.6), "mid": (6.6, 1.6), "lower": (8.2, 7.0)}[fact.site]
    size = np.float32(np.interp(fact.extent, (0.06, 0.2, 0.5, 1.0), (2.2, 3.2, 4.4, 6.4)))
    dx = (grid.x - np.float32(sign * across)) / (np.float32(1.15) * size)
    dy = (grid.y - np.float32(middle)) / size
    soft = np.clip(np.float32(1.1) - (dx**2 + dy**2) - np.float32(0.05) * texture, 0, 1)
    fissure = np.float32(middle + (0.6 if fact.site == "upper" else -0.6) * float(size))
    slope = np.float32(rng.normal(0.0, 0.05)) * (cavity.across - np.float32(across))
    beyond = (fissure + slope - grid.y) if fact.site == "upper" else (grid.y - fissure - slope)
    dense = np.float32(np.interp(fact.extent, (0.06, 0.12, 0.3, 1.0), (0.25, 0.3, 0.62, 0.85)))
    fraction: Values = (
        dense * smoothstep(soft * np.float32(1.7)) * smoothstep(beyond / np.float32(0.9) + np.float32(0.5))
    )
    hilum = HILA[fact.side]
    bronchi = [
        polyline([hilum, (0.55 * hilum[0] + 0.45 * x, 0.55 * hilum[1] + 0.45 * y + rng.normal(0, 0.6)), (x, y)], 0.17)
        for x, y in zip(
            sign * (across + rng.uniform(-0.1, 0.7, 5) * float(size)),
            middle + np.linspace(-0.6, 0.6, 5) * float(size),
            strict=True,
        )
    ]
    gas = np.clip(segments(grid, np.concatenate(bronchi)) / np.float32(0.34), 0, 1)
    fraction = fraction * (1 - np.float32(0.38) * gas)
    fraction *= _on(cavity, fact.side)
    return fraction


def _pneumonia(grid: Grid, cavity: Cavity, fact: Fact, texture: Values) -> Values:
    """Many fluffy patches that run together; a severe one spreads to the neighbouring zone."""
    rng = np.random.default_rng(fact.seed)
    x, y = _zone(fact, rng, 0.4)
    dense = np.interp(fact.extent, (0.06, 0.12, 0.3, 1.0), (0.14, 0.18, 0.38, 0.55))
    # All patches are drawn, from the middle outwards, and the extent says how many are there: a worse pneumonia
    # contains the milder one.
    most = 18
    count = int(np.interp(fact.extent, (0.06, 0.2, 1.0), (4, 6, most)))
    far = 4.4 * np.sqrt((np.arange(most) + rng.random(most)) / most)
    bearing, radius = rng.uniform(0, 2 * np.pi, most), rng.uniform(1.2, 2.2, most)
    across = np.clip(abs(x) + far * np.cos(bearing), 3.6, 10.6)
    clear = np.ones_like(grid.x)
    for patch in range(count):
        place = float(SIGN[fact.side] * across[patch]), float(y + 1.2 * far[patch] * np.sin(bearing[patch]))
        clear *= 1 - np.float32(dense) * _ball(grid, *place, float(radius[patch]), sharp=1.5)
    grain = np.clip(1 + np.float32(0.22) * texture, 0.3, 1.5)
    fraction: Values = _on(cavity, fact.side) * (1 - clear) * grain
    return fraction


def _opacity(grid: Grid, cavity: Cavity, fact: Fact, texture: Values) -> Values:
    """One even, hazy, ill-defined veil through which the vessels still show."""
    rng = np.random.default_rng(fact.seed)
    x, y = _zone(fact, rng, 0.3)
    radius = np.interp(fact.extent, (0.06, 0.2, 1.0), (3.6, 4.0, 5.6))
    dense = np.interp(fact.extent, (0.06, 0.12, 0.3, 1.0), (0.1, 0.13, 0.25, 0.52))
    haze = _ball(grid, x, y, float(radius), sharp=1.5, flat=0.85)
    return np.float32(dense) * haze * _on(cavity, fact.side)


def _lesion(grid: Grid, cavity: Cavity, fact: Fact, texture: Values) -> Values:
    """One round, sharply bordered ball."""
    rng = np.random.default_rng(fact.seed)
    x, y = _zone(fact, rng, 0.9)
    radius = lesion_radius(fact)
    length = np.float32(2 * radius) * _ball(grid, x, y, radius)
    fraction: Values = length / np.maximum(cavity.length, length + np.float32(1.0)) * np.float32(1.25)
    if fact.severity == "subtle":
        fraction = fraction * np.float32(0.75)
    return np.minimum(fraction, np.float32(0.9)) * _on(cavity, fact.side)


def lesion_radius(fact: Fact) -> float:
    """Radius of a nodule (below 1.5) or mass, cm."""
    return float(
        np.interp(fact.extent, (0.06, 0.12, 0.2, 0.36, 0.5, 0.66, 0.8, 1.0), (0.5, 0.6, 0.8, 1.1, 1.6, 2.0, 2.6, 3.6))
    )


def _edema(grid: Grid, cavity: Cavity, fact: Fact, texture: Values) -> Values:
    """Haze that spreads from both hila like wings, and thickened septa at the bases (Kerley B lines)."""
    rng = np.random.default_rng(fact.seed)
    dense = np.float32(np.interp(fact.extent, (0.06, 0.12, 0.3, 0.6, 1.0), (0.1, 0.12, 0.24, 0.4, 0.62)))
    dx = (cavity.across - np.float32(5.2)) / np.float32(6.6)
    dy = (grid.y - np.float32(0.6)) / np.float32(9.5)
    wing = np.maximum(1 - dx**2 - dy**2, 0)
    haze = dense * wing * np.clip(1 + np.float32(0.13) * texture, 0.5, 1.5)
    lines = []
    for sign in (-1.0, 1.0):
        for y in np.arange(3.0, 10.0, 0.75):
            outer = 12.6 + rng.normal(0, 0.15)
            lines.append([sign * outer, y, sign * (outer - rng.uniform(1.2, 2.0)), y + rng.normal(0, 0.1), 0.07, 0.05])
    septa = segments(grid, np.array(lines)) * np.float32(1.2 * min(1.0, 0.3 + fact.extent))
    fraction: Values = np.clip(haze + septa, 0, 0.9)
    return fraction


def _atelectasis(grid: Grid, cavity: Cavity, fact: Fact, texture: Values) -> Values:
    """Plates of airless lung, nearly level; a severe one closes a wedge above the dome."""
    rng = np.random.default_rng(fact.seed)
    sign = SIGN[fact.side]
    middle = cavity.tops[fact.side] - 2.5 if fact.site == "lower" else 0.6
    plates = int(np.interp(fact.extent, (0.06, 0.2, 0.36, 0.5, 1.0), (1, 2, 2, 3, 4)))
    thick = np.interp(fact.extent, (0.06, 0.2, 0.5, 1.0), (0.18, 0.24, 0.34, 0.48))
    lines = []
    for number in range(plates):
        y = middle + 1.35 * (number - (plates - 1) / 2) + rng.normal(0, 0.15)
        inner, outer = rng.uniform(4.6, 6.0), rng.uniform(10.8, 12.2)
        rise = rng.normal(0.5, 0.4)
        lines.append(
            polyline(
                [(sign * inner, y + rise), (sign * (inner + outer) / 2, y - 0.15), (sign * outer, y - rise / 2)],
                float(thick) * rng.uniform(0.8, 1.2),
            )
        )
        lines[-1][:, 4:] *= np.linspace(0.7, 1.2, len(lines[-1]))[:, None]
    dense = np.float32(np.interp(fact.extent, (0.06, 0.12, 0.2, 1.0), (0.22, 0.28, 0.45, 0.65)))
    plate = np.minimum(segments(grid, np.concatenate(lines)) / np.float32(2 * thick), 1) * dense
    plate = plate * np.clip(1 + np.float32(0.25) * texture, 0.5, 1.3)
    fraction: Values = _on(cavity, fact.side) * plate
    return fraction


FRACTIONS: dict[str, Callable[[Grid, Cavity, Fact, Values], Values]] = {
    "Pleural Effusion": _effusion,
    "Pleural Other": _pleural_thickening,
    "Consolidation": _consolidation,
    "Pneumonia": _pneumonia,
    "Lung Opacity": _opacity,
    "Lung Lesion": _lesion,
    "Edema": _edema,
    "Atelectasis": _atelectasis,
}


def water_fraction(grid: Grid, cavity: Cavity, facts: Sequence[Fact], texture: Values) -> Values:
    """Work out how much of the lung on each ray has turned into water, 0 to 1."""
    clear = np.ones_like(grid.x)
    for fact in facts:
        if fact.observation in FRACTIONS:
            clear *= 1 - np.float32(faded(fact)) * FRACTIONS[fact.observation](grid, cavity, fact, texture)
    return 1 - clear


def pneumothorax_gaps(facts: Sequence[Fact]) -> tuple[float, float]:
    """Width of the gas at mid-height of the right and left pleural cavity, cm."""
    gaps = {"right": 0.0, "left": 0.0}
    extents = (0.0, SLIGHTEST, 0.2, 0.36, 0.5, 0.66, 0.8, 1.0)
    for fact in facts:
        if fact.observation == "Pneumothorax":
            gaps[fact.side] = float(np.interp(fact.extent, extents, (0.0, 0.7, 1.4, 1.9, 2.8, 3.6, 4.8, 6.4)))
    return gaps["right"], gaps["left"]


def dome_lifts(facts: Sequence[Fact]) -> tuple[float, float]:
    """How far loss of volume in the lower lobes lifts the right and left dome, cm."""
    lifts = {"right": 0.0, "left": 0.0}
    for fact in facts:
        if fact.observation == "Atelectasis" and fact.site == "lower" and fact.extent > 0.4:
            lifts[fact.side] = 1.4 * fact.extent
    return lifts["right"], lifts["left"]


def heart_growth(facts: Sequence[Fact]) -> float:
    """Size of the heart relative to the healthy one."""
    extents = [fact.extent for fact in facts if fact.observation == "Cardiomegaly"]
    return (
        float(np.interp(extents[0], (0.0, SLIGHTEST, 0.12, 0.2, 1.0), (1.0, 1.08, 1.1, 1.16, 1.5))) if extents else 1.0
    )


def mediastinal_growth(facts: Sequence[Fact]) -> float:
    """How much wider each side of the upper mediastinum is, cm."""
    extents = [fact.extent for fact in facts if fact.observation == "Enlarged Cardiomediastinum"]
    return (
        float(np.interp(extents[0], (0.0, SLIGHTEST, 0.12, 0.2, 1.0), (0.0, 0.6, 0.75, 1.2, 3.3))) if extents else 0.0
    )


def congestion(facts: Sequence[Fact]) -> float:
    """Width of the lung vessels relative to the healthy ones."""
    found = [fact for fact in facts if fact.observation == "Edema"]
    return 1.0 + 0.15 * faded(found[0]) + 0.35 * found[0].extent if found else 1.0


def rib_breaks(facts: Sequence[Fact]) -> dict[int, tuple[str, float, float]]:
    """Broken ribs: number from 1 -> side, distance of the break from the midline, and step of the ends, cm."""
    breaks: dict[int, tuple[str, float, float]] = {}
    for fact in facts:
        if fact.observation == "Fracture" and fact.site in RIB_SITES:
            rng = np.random.default_rng(fact.seed)
            across = rng.uniform(8.0, 9.2)
            first = RIB_SITES[fact.site]
            for rib in (first, first + 1):
                breaks[rib] = (fact.side, across + rng.normal(0, 0.25), 1.1 + 1.2 * fact.extent)
    return breaks


def clavicle_break(facts: Sequence[Fact]) -> dict[str, float]:
    """Broken clavicles: side -> step of the ends, cm."""
    return {
        fact.side: 0.9 + 1.3 * fact.extent
        for fact in facts
        if fact.observation == "Fracture" and fact.site == "clavicle"
    }


def _device(fact: Fact) -> tuple[Pieces, float]:
    """Lines of a device and what they attenuate, 1/cm."""
    rng = np.random.default_rng(fact.seed)
    sign = SIGN.get(fact.side, 1.0)
    wobble = float(rng.normal(0, 0.2))
    if fact.kind == "endotracheal tube":
        tip = -7.3 + rng.normal(0, 0.6)
        walls = [
            polyline([(s * 0.42 + 0.1, -22.0), (s * 0.42 + wobble / 3, -13.0), (s * 0.36, tip)], 0.1)
            for s in (-1.0, 1.0)
        ]
        return np.concatenate(walls), METAL / 2
    if fact.kind == "enteric tube":
        return polyline(
            [(0.4, -22.0), (0.5 + wobble, -10.0), (0.7, 0.0), (1.2, 9.0), (4.5, 12.6), (7.0, 14.5), (6.0, 17.0)], 0.17
        ), METAL / 2
    if fact.kind == "central venous catheter":
        end = (-2.3, float(rng.normal(0, 0.8)))
        if fact.side == "right":
            return polyline([(-5.4, -20.0), (-4.4, -15.0), (-2.9, -10.0), (-2.4, -5.0), end], 0.15), METAL / 2
        return polyline([(6.0, -20.0), (4.9, -15.0), (3.4, -10.6), (0.2, -8.0), (-2.1, -5.0), end], 0.15), METAL / 2
    if fact.kind == "pacemaker":
        x = sign * 10.2
        entry = [(x, -8.8), (sign * 8.6, -11.4), (sign * 4.6, -10.6), (-1.4, -7.4), (-2.4, -3.0)]
        return np.concatenate(
            [
                polyline([*entry, (-2.9, 3.2), (-2.2, 4.6), (-1.2, 3.4)], 0.11),
                polyline([*entry, (-2.3, 4.0), (0.5, 7.2), (4.8 + wobble, 8.6)], 0.11),
            ]
        ), METAL
    if fact.kind == "chest tube":
        y = 4.0 + wobble
        path = [(sign * 16.5, y + 1.5), (sign * 13.2, y), (sign * 11.2, -1.5), (sign * 8.6, -7.0), (sign * 6.0, -10.6)]
        offset = 0.28
        upper = [(px + offset, py - offset) for px, py in path]
        return np.concatenate([polyline(path, 0.1), polyline(upper, 0.1)]), METAL / 2
    loops = []
    for number in range(6):
        y = -6.4 + 2.35 * number + rng.normal(0, 0.15)
        width, height = rng.uniform(0.75, 0.95), rng.uniform(0.45, 0.6)
        turn = np.linspace(0, 2 * np.pi, 8)
        loops.append(
            polyline([(width * np.cos(t) + 0.1 * wobble, y + height * np.sin(t)) for t in turn], 0.085, step=0.5)
        )
    return np.concatenate(loops), METAL


def device_attenuation(grid: Grid, facts: Sequence[Fact]) -> Values:
    """Line integral of all the devices."""
    total = np.zeros_like(grid.x)
    for fact in facts:
        if not fact.kind:
            continue
        pieces, mu = _device(fact)
        total += np.float32(mu) * segments(grid, pieces)
        if fact.kind == "pacemaker":
            x = SIGN[fact.side] * 10.2
            rows, columns = grid.window(x - 3, -10.5, x + 3, -5.0)
            across = (grid.x[rows, columns] - np.float32(x)) / np.float32(2.3)
            down = (grid.y[rows, columns] + np.float32(7.6)) / np.float32(2.0)
            can = half_chord(across**4 + down**4)
            total[rows, columns] += np.float32(2.6) * can**0.25
    return total
