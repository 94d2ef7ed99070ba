"""The image of a thorax: path lengths, Beer-Lambert attenuation, scatter, photons, and the display curve."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from core.studies.phantom.anatomy import HILA, SIGN, TEXTURE_CELLS, Anatomy, Exposure, grow_texture, grow_vessels
from core.studies.phantom.cavity import chest_depth, chest_width, make_cavity
from core.studies.phantom.findings import Fact
from core.studies.phantom.pathology import (
    clavicle_break,
    congestion,
    device_attenuation,
    dome_lifts,
    heart_growth,
    mediastinal_growth,
    pneumothorax_gaps,
    rib_breaks,
    water_fraction,
)
from core.studies.phantom.shapes import (
    FIELD,
    Grid,
    Values,
    add_ellipsoid,
    averaging,
    ellipsoid,
    half_chord,
    interpolation,
    make_grid,
    polyline,
    segments,
    smoothstep,
    tube,
)
from core.types import FloatImage, Mask

# Linear attenuation near 70 keV, 1/cm. src: NIST XCOM: water 0.193, cortical bone 0.50; lung at 0.26 g/cm3.
WATER = 0.193
LUNG = 0.052
CORTEX = 0.50
SPONGY_BONE = 0.26

VISIBLE = 0.004
"""A change of the line integral that counts as one: 0.4 % of the transmitted intensity."""

RIBS = 10
SCATTER_CELLS = 32


def _heart_and_mediastinum(grid: Grid, anatomy: Anatomy, exposure: Exposure, facts: Sequence[Fact]) -> Values:
    """Length of the rays through heart, vessels and mediastinum, cm."""
    # The heart lies in front of the axis of rotation: turning the patient moves it sideways. AP magnifies it.
    shift = -4.0 * np.sin(exposure.rotation)
    size = anatomy.heart * heart_growth(facts) * (1.07 if exposure.view == "AP" else 1.0)
    lift = exposure.inspiration + 10.4 - anatomy.dome[1]
    x, y = grid.x - np.float32(shift), grid.y + np.float32(lift)
    grown = size - 1
    left = ellipsoid(x, y, (2.9 + 1.3 * grown, 5.9 + grown), (6.3 * size, 4.6 * size, 5.4 * size), anatomy.heart_turn)
    right = ellipsoid(x, y, (-0.5 - 0.6 * grown, 4.6), (4.0 * size, 5.6 * size, 4.8 * size), -0.15)
    root = ellipsoid(x, y, (0.6, -1.0), (3.3, 7.0, 4.6), -0.1)
    # Fat, oesophagus and crura join the heart to the diaphragm.
    base = ellipsoid(x, y, (1.6, 13.2), (7.2, 5.2, 4.6))
    heart = np.maximum(np.maximum(left, right), np.maximum(root, base))
    wide = mediastinal_growth(facts)
    level = (grid.y + np.float32(6.0)) / np.float32(7.5)
    bulge = np.float32(wide) * np.maximum(1 - level**2, 0)
    # Great vessels: widest at the thoracic inlet, a waist above the hila; the spine closes the lower part.
    inlet = np.maximum(-grid.y - np.float32(9.0), 0) * np.float32(0.35)
    right_edge = np.float32(2.55) + inlet + bulge
    left_edge = np.float32(2.3) + inlet + bulge
    # They fill the depth above the heart; below it the spine and the oesophagus fill only the back.
    filled = np.float32(9.0) - np.float32(5.0) * smoothstep((grid.y + np.float32(4.0)) / np.float32(6.0))
    vessels = filled * half_chord((x / np.where(x < 0, right_edge, left_edge)) ** 2)
    arch = ellipsoid(x, y, (2.1 + 0.25 * wide, -6.0), (anatomy.aorta + 0.35 * wide, anatomy.aorta + 0.3, 5.0))
    arch = np.maximum(arch, ellipsoid(x, y, (2.4, -2.4), (1.75, 1.9, 3.0)))
    centre = np.float32(2.5 + 8.5 * np.sin(exposure.rotation)) - np.float32(0.11) * np.maximum(grid.y + 6, 0)
    descending = 2 * np.float32(1.25) * half_chord(((grid.x - centre) / np.float32(1.25)) ** 2) * (grid.y > -6)
    taken = np.maximum(np.maximum(heart, vessels), arch)
    taken += np.minimum(descending, np.float32(2.5))
    return taken


def _body(grid: Grid, anatomy: Anatomy, exposure: Exposure) -> Values:
    """Length of the rays through the whole body, cm."""
    fat = 0.9 + 2.6 * anatomy.habitus
    across = np.abs(grid.x)
    wide = chest_width(anatomy, np.maximum(grid.y, np.float32(-5.0))) + np.float32(1.3 + 0.9 * fat)
    shoulder = smoothstep((np.float32(-0.5) - grid.y) / np.float32(10.0))
    wide = wide + shoulder * np.float32(11.0)
    deep = np.maximum(chest_depth(anatomy, grid.y), np.float32(6.4)) + np.float32(1.4 + fat)
    torso = 2 * deep * half_chord((across / wide) ** 2)
    slope = np.float32(anatomy.apex - 2.2) + np.float32(0.29) * np.maximum(across - np.float32(4.5), 0)
    trapezius = np.sqrt(np.maximum(grid.y - slope, 0) * np.float32(46.0 + 20 * anatomy.habitus))
    neck = np.float32(10.5 + 2 * anatomy.habitus) * half_chord((across / np.float32(5.4 + anatomy.habitus)) ** 2)
    body: Values = np.maximum(np.minimum(torso, trapezius), neck * (grid.y < -9))
    return body


def _airways(grid: Grid, exposure: Exposure) -> Values:
    """Length of the rays through the air in trachea and main bronchi, cm."""
    turn = float(np.sin(exposure.rotation))
    shift = -1.0 * turn
    pieces = [
        polyline([(shift, -23.0), (shift + 0.1, -14.0), (shift - 0.15, -8.0), (shift - 0.2, -4.6)], 0.85),
        polyline([(shift - 0.2, -4.8), (-1.9, -3.2), (-3.4, -1.2)], 0.6),
        polyline([(shift - 0.2, -4.8), (1.9, -3.6), (4.1, -2.4)], 0.52),
    ]
    return segments(grid, np.concatenate(pieces))


def _add_ribs(grid: Grid, onto: Values, anatomy: Anatomy, exposure: Exposure, facts: Sequence[Fact]) -> None:
    """Add the ribs: tubes along tilted ellipses, whose back half shows as the upper arc and front half as the lower.

    A rib is a shell of cortex around spongy bone; both lengths have a closed form.
    """
    breaks = rib_breaks(facts)
    radius, wall = 0.6, 0.13
    back_shift = float(anatomy.depth * np.sin(exposure.rotation))
    for rib in range(1, RIBS + 1):
        start = anatomy.rib_first + anatomy.rib_step * (rib - 1)
        middle = np.float32(start)
        drop = 1.2 + min(rib, 6) * 0.62
        level = np.full((1, 1), start + drop, dtype=np.float32)
        width = float(chest_width(anatomy, level)[0, 0]) + 0.25
        rise = drop * anatomy.rib_slope / 0.5
        rows, columns = grid.window(-width - 1, start - 1.5, width + 1, start + 2 * rise + 2.5)
        x, y = grid.x[rows, columns], grid.y[rows, columns]
        if x.size == 0:
            continue
        if rib in breaks:
            side, place, step = breaks[rib]
            outward = (-x if side == "right" else x) - np.float32(place)
            # The outer fragment sits lower, and joins the rib again before it leaves the image's side.
            y = y - np.float32(step) * (outward > 0) * np.clip(1 - outward / np.float32(5.0), 0, 1)
        down = (y - middle) / np.float32(rise) - 1
        ratio = np.clip(x / np.float32(width), -1.2, 1.2)
        squared = ratio**2 + down**2
        steep = np.sqrt((ratio / np.float32(width)) ** 2 + (down / np.float32(rise)) ** 2) * 2
        away = np.abs(squared - 1) / np.maximum(steep, np.float32(1e-3))
        back = down < 0
        shifted = np.abs(x - np.where(back, np.float32(back_shift), np.float32(-back_shift)))
        # Behind, ribs end at the spine; in front, where cartilage begins, ever farther out.
        begin = np.where(back, np.float32(1.4), np.float32(2.6 + 0.55 * rib))
        present = smoothstep((shifted - begin) / np.float32(0.8)) * np.where(back, 1.0, np.float32(0.8))
        if rib in breaks:
            present = present * smoothstep(np.abs(outward) / np.float32(0.45))
        # Where a rib turns forward at the side the ray runs along it.
        along = np.float32(1.0) + np.float32(0.5) * smoothstep((np.abs(ratio) - np.float32(0.86)) / np.float32(0.14))
        outer = tube(away, radius, grid.pixel)
        inner = tube(away, radius - wall, grid.pixel)
        flat = np.float32(0.9)
        bone = np.float32(CORTEX - WATER) * (outer - inner) + np.float32(SPONGY_BONE - WATER) * inner
        onto[rows, columns] += np.float32(anatomy.bone) * flat * present * along * bone
        if rib in breaks:
            # Blood lifts the pleura around the ends.
            arc = start + rise * (1 - math.sqrt(1 - min(place / width, 1.0) ** 2)) + step / 2
            blood = ellipsoid(
                x,
                grid.y[rows, columns],
                (SIGN[side] * place, arc),
                (1.1 * step, 0.5 * step, 1.2 * step),
                SIGN[side] * 0.35,
            )
            onto[rows, columns] += np.float32(WATER - LUNG) * blood


def _add_shoulders(grid: Grid, onto: Values, anatomy: Anatomy, exposure: Exposure, facts: Sequence[Fact]) -> None:
    """Add clavicles, scapulae and the heads of the humeri."""
    broken = clavicle_break(facts)
    front = -anatomy.depth * float(np.sin(exposure.rotation))
    for side, sign in (("right", -1.0), ("left", 1.0)):
        rows, columns = grid.window(min(0.0, sign * 18), -16.5, max(0.0, sign * 18), -6.0)
        x, y = grid.x[rows, columns] - np.float32(front), grid.y[rows, columns]
        if x.size == 0:
            continue
        out = np.float32(sign) * x
        t = (out - np.float32(1.6)) / np.float32(14.0)
        axis = np.float32(-9.7) - np.float32(3.4) * t + np.float32(0.75) * np.sin(np.float32(2 * np.pi) * t)
        present = smoothstep(t * 14 / np.float32(0.5)) * smoothstep((1 - t) * 14 / np.float32(0.5))
        if side in broken:
            beyond = t - np.float32(0.5)
            axis = axis + np.float32(broken[side]) * (beyond > 0) * np.clip(1 - beyond / np.float32(0.5), 0, 1)
            present = present * np.clip(np.abs(beyond) * 14 / np.float32(0.3), 0, 1)
        # Thinnest in the middle of the shaft.
        thick = np.float32(0.62) + np.float32(0.25) * np.abs(t - np.float32(0.45))
        away = (y - axis) * np.float32(0.93 * 0.62) / thick
        outer = tube(away, 0.62, grid.pixel)
        inner = tube(away, 0.45, grid.pixel)
        bone = np.float32(CORTEX - WATER) * (outer - inner) + np.float32(SPONGY_BONE - WATER) * inner
        onto[rows, columns] += np.float32(1.7 * anatomy.bone) * present * bone
        blade = np.zeros_like(onto)
        spread = 14.6 if exposure.view == "PA" else 13.2
        rows, columns = grid.window(sign * spread - 8, -14, sign * spread + 8, 5)
        gx, gy = grid.x[rows, columns], grid.y[rows, columns]
        sheet = ellipsoid(gx, gy, (sign * spread, -4.5), (3.1, 7.6, 1.0), -sign * 0.22)
        inside = smoothstep(sheet / np.float32(0.5))
        border = inside * (1 - smoothstep((sheet - np.float32(0.55)) / np.float32(0.5)))
        blade[rows, columns] = np.float32(0.05) * inside + np.float32(0.07) * border
        onto += np.float32(anatomy.bone) * blade
        head: Values = np.zeros_like(onto)
        add_ellipsoid(grid, head, (sign * 18.2, -10.3), (2.5, 2.6, 2.2))
        onto += np.float32((SPONGY_BONE - WATER) * anatomy.bone) * head


def _add_spine(grid: Grid, onto: Values, anatomy: Anatomy, exposure: Exposure) -> None:
    """Add the vertebrae: bodies between discs, end plates, pedicles and spinous processes."""
    shift = np.float32(7.0 * np.sin(exposure.rotation))
    rows, columns = grid.window(-4.5, -25, 4.5, 25)
    x, y = grid.x[rows, columns] - shift, grid.y[rows, columns]
    step = np.float32(anatomy.rib_step * 1.02)
    phase = (y - np.float32(anatomy.rib_first)) / step
    place = (phase - np.floor(phase) - np.float32(0.5)) * step
    waist = np.float32(1.55) + np.float32(0.012) * (y + 14) + np.float32(0.16) * (2 * place / step) ** 2
    body = smoothstep((waist - np.abs(x)) / np.float32(0.22)) * smoothstep(
        (step / 2 - np.float32(0.17) - np.abs(place)) / np.float32(0.14)
    )
    plate = np.clip(1 - np.abs(np.abs(place) - step / 2 + np.float32(0.3)) / np.float32(0.13), 0, 1)
    shell = smoothstep((np.abs(x) - waist + np.float32(0.4)) / np.float32(0.25))
    bone = body * (np.float32(0.11) + np.float32(0.09) * plate + np.float32(0.05) * shell)
    pedicle = ((np.abs(x) - np.float32(1.05)) / np.float32(0.36)) ** 2
    pedicle += ((place + np.float32(0.35)) / np.float32(0.5)) ** 2
    bone += np.float32(0.13) * np.clip(1 - np.abs(pedicle - 1) * np.float32(1.6), 0, 1)
    process = ((x + shift * np.float32(-0.2)) / np.float32(0.3)) ** 2 + (
        (place - np.float32(0.5)) / np.float32(0.6)
    ) ** 2
    bone += np.float32(0.12) * np.clip(1 - process, 0, 1)
    wings = np.abs(x) - np.float32(2.4)
    across = (wings / np.float32(1.1)) ** 2 + ((place + np.float32(0.5)) / np.float32(0.45)) ** 2
    bone += np.float32(0.07) * np.sqrt(np.maximum(1 - across, 0))
    onto[rows, columns] += np.float32(anatomy.bone) * bone


def _vessels(grid: Grid, anatomy: Anatomy, facts: Sequence[Fact]) -> Values:
    """Length of the rays through the vessels of the lungs, cm."""
    pieces = grow_vessels(anatomy.detail_seed).copy()
    pieces[:, 4:] *= congestion(facts)
    total = np.float32(1.5) * segments(grid, pieces)
    for x, y in HILA.values():
        add_ellipsoid(grid, total, (x, y + 0.6), (1.1, 2.0, 0.75), 0.25 if x > 0 else -0.25)
    return total


def line_integral(anatomy: Anatomy, exposure: Exposure, facts: Sequence[Fact], size: int) -> FloatImage:
    """Integrate the attenuation along each ray.

    Returns:
        (size, size), from 0 in free air to about 6 in the abdomen.
    """
    grid = make_grid(
        size,
        tilt=exposure.tilt,
        stretch=(anatomy.width, anatomy.height),
        offset=exposure.offset,
    )
    cavity = make_cavity(grid, anatomy, exposure, pneumothorax_gaps(facts), dome_lifts(facts))
    rows = interpolation(TEXTURE_CELLS, size)
    texture = np.asarray(rows @ grow_texture(anatomy.detail_seed) @ rows.T * np.float32(1.6), dtype=np.float32)
    taken = _heart_and_mediastinum(grid, anatomy, exposure, facts)
    space = np.maximum(cavity.length - taken, 0)
    lung = np.minimum(np.maximum(cavity.lung - taken, 0), space)
    fraction = water_fraction(grid, cavity, facts, texture)
    body = np.maximum(_body(grid, anatomy, exposure), cavity.length + 2)
    vessels = np.minimum(_vessels(grid, anatomy, facts), lung * np.float32(0.5))
    # A collapsing lung keeps its blood: the less room, the denser.
    tissue = np.float32(LUNG) * (1 + np.float32(0.05) * texture)
    if max(pneumothorax_gaps(facts)) > 0:
        tissue = tissue * (1 + np.float32(0.12) * (cavity.wall - cavity.edge))
    solid = vessels + fraction * (lung - vessels)
    free = space - lung
    fluid = fraction * free
    total = np.float32(WATER) * (body - space + solid + fluid) + tissue * (lung - solid)
    if max(pneumothorax_gaps(facts)) > 0:
        # The visceral pleura, seen edge on.
        line = np.clip(1 - np.abs(cavity.across - cavity.edge) / np.float32(max(0.14, 0.7 * grid.pixel)), 0, 1)
        total += np.float32(0.16) * line * (free > 0) * (cavity.edge < cavity.wall - 0.01) * (1 - fraction)
    total -= np.float32(1.3 * WATER) * np.minimum(_airways(grid, exposure), body * np.float32(0.3))
    if anatomy.breast:
        for sign in (-1.0, 1.0):
            x = grid.x - np.float32(sign * 7.6)
            y = grid.y - np.float32(4.6)
            droop = np.where(y > 0, np.float32(0.85), np.float32(1.7)) * np.float32(anatomy.breast)
            total += np.float32(WATER * (1.6 + 1.4 * anatomy.habitus)) * half_chord(
                (x / np.float32(1.05 * anatomy.breast)) ** 2 + (y / droop) ** 2
            )
    if anatomy.bubble:
        lift = exposure.inspiration
        below = np.clip((grid.y - cavity.floor - np.float32(0.5)) / np.float32(0.3), 0, 1)
        air = ellipsoid(grid.x, grid.y, (6.4, anatomy.dome[1] + 1.5 - lift), (anatomy.bubble, 1.7, 2.6))
        total -= np.float32(WATER) * air * below
    bone = np.zeros_like(total)
    _add_ribs(grid, bone, anatomy, exposure, facts)
    _add_shoulders(grid, bone, anatomy, exposure, facts)
    _add_spine(grid, bone, anatomy, exposure)
    total += bone * (body > 0)
    total += device_attenuation(grid, facts)
    integral: FloatImage = np.maximum(total, 0).astype(np.float32)
    return integral


def expose(integral: FloatImage, anatomy: Anatomy, exposure: Exposure, *, noise: bool = True) -> FloatImage:
    """Turn line integrals into a picture, as a detector and its display curve do.

    Args:
        integral: (H, W), from `line_integral`.
        anatomy: habitus decides how long the automatic exposure lets the beam on.
        exposure: of this picture.
        noise: draw photons; without, the picture is smooth.

    Returns:
        (H, W), values in [0, 1], bright = dense.
    """
    size = integral.shape[0]
    primary = np.exp(-integral)
    down, up = averaging(SCATTER_CELLS, size), interpolation(SCATTER_CELLS, size)
    coarse = gaussian_filter(down @ np.minimum(primary, 0.35) @ down.T, 3.5, mode="nearest")
    signal = primary + np.float32(exposure.scatter) * (up @ coarse @ up.T)
    if noise:
        rng = np.random.default_rng((exposure.noise_seed, size))
        photons = exposure.photons * (FIELD / size) ** 2
        signal = rng.poisson(signal * photons).astype(np.float32) / np.float32(photons)
    dose = -np.log(np.maximum(signal, np.float32(1e-4)))
    # As clinical systems do: flatten what varies slowly, lift what varies fast.
    slow = up @ gaussian_filter(down @ dose @ down.T, 2.5, mode="nearest") @ up.T
    dose = np.float32(1.35) * dose - np.float32(0.6) * slow
    centre = exposure.centre * (1.72 + 0.5 * anatomy.habitus)
    image = 1 / (1 + np.exp(np.float32(-2.0 * exposure.contrast) * (dose - np.float32(centre))))
    image = np.asarray(image, dtype=np.float32)
    _add_margins(image, exposure)
    return image


_LETTERS = {"L": ("10000", "10000", "10000", "10000", "11111"), "R": ("11110", "10001", "11110", "10010", "10001")}


def _add_margins(image: Values, exposure: Exposure) -> None:
    """Set the side marker and the collimated margins, in place."""
    size = image.shape[0]
    if exposure.marker:
        cell = size / 128
        left = (0.90 if exposure.marker == "L" else 0.055) * size
        for row, line in enumerate(_LETTERS[exposure.marker]):
            for column, ink in enumerate(line):
                if ink == "1":
                    top = round(0.05 * size + row * cell)
                    start = round(left + column * cell)
                    image[top : round(0.05 * size + (row + 1) * cell), start : round(left + (column + 1) * cell)] = 0.97
    left, top, right, bottom = (round(margin / FIELD * size) for margin in exposure.collimation)
    image[:top] = 0.02
    image[size - bottom :] = 0.02
    image[:, :left] = 0.02
    image[:, size - right :] = 0.02


def mask_of(fact: Fact, anatomy: Anatomy, exposure: Exposure, facts: Sequence[Fact], integral: FloatImage) -> Mask:
    """Find where an abnormality changes the line integral: the truth an explanation can be scored against.

    Args:
        fact: one of ``facts``.
        anatomy: of the patient.
        exposure: of the picture.
        facts: all abnormalities.
        integral: (size, size), the line integral with all of them.

    Returns:
        (size, size), True where leaving out the abnormality changes the integral by more than `VISIBLE`.
    """
    others = [other for other in facts if other.id != fact.id]
    return np.asarray(np.abs(integral - line_integral(anatomy, exposure, others, len(integral))) > VISIBLE)
