"""Detection of a graded finding by systems: counts, curves and the mirror test, as one table that can be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from core.detection.curves import Curve, Threshold, threshold
from core.detection.mentions import Mentioned, mentioned
from core.studies.phantom.graded import BOTH, NORMAL, DesignedSource, Film, GradedFilms
from core.types import CXRLensError

_FLIPS = 2000


@dataclass(frozen=True, slots=True)
class Point:
    """Reports at one extent.

    Attributes:
        extent: 0 is the normal film.
        reports: how many.
        mentioned: of them call the finding present.
        hedged: of these, as possible only.
        other_side: of these, on the other side alone.
    """

    extent: float
    reports: int
    mentioned: int
    hedged: int
    other_side: int


@dataclass(frozen=True, slots=True)
class Detection:
    """How one system reports the finding at one side and site; the points rise in extent, the normal one first."""

    side: str
    site: str
    points: tuple[Point, ...]
    curve: Curve
    half: Threshold


@dataclass(frozen=True, slots=True)
class Mirror:
    """The same finding on both sides of the same chests.

    Attributes:
        site: of the finding.
        right: share of the reports that mention it, over all steps, where it is on the patient's right.
        left: the same on the left.
        low: end of the 95 % interval of right less left, by a bootstrap over chests.
        high: its other end.
        p: of the difference, two-sided, by exchanging the sides of chests at random.
    """

    site: str
    right: float
    left: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class SystemDetection:
    """What a system does.

    Attributes:
        false_alarms: normal films whose report mentions the finding.
        normals: normal films.
        false_alarm_interval: 95 %, exact (Clopper and Pearson 1934).
        detections: by side and site.
        mirrors: by site; none for a finding without sides.
    """

    false_alarms: int
    normals: int
    false_alarm_interval: tuple[float, float]
    detections: tuple[Detection, ...]
    mirrors: tuple[Mirror, ...]


def measure(
    source: DesignedSource, reports: Mapping[str, str], *, resamples: int = 400, seed: int = 0
) -> SystemDetection:
    """Read the reports that a system wrote of the films of a design.

    Args:
        source: of the films.
        reports: text by film id; chests of which a film has no report are left out.
        resamples: of the chests, for intervals.
        seed: of all that is drawn at random.

    Raises:
        CXRLensError: fewer than two chests have all their films.
    """
    design = source.design
    chests = [chest for chest in range(design.chests) if all(each.film_id in reports for each in _films(design, chest))]
    if len(chests) < 2:
        raise CXRLensError(
            f"Only {len(chests)} of {design.chests} chests have the reports of all their films; two are needed. "
            f"The ids of films are as {Film(0).film_id}; the design is {design.spec}."
        )
    extents = np.array([0.0, *design.extents])
    detections = []
    shares: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
    normal = [_read(reports, design, Film(chest)) for chest in chests]
    for side, site in design.places:
        answers = [
            [first, *(_read(reports, design, Film(chest, step, side, site)) for step in range(1, design.steps + 1))]
            for chest, first in zip(chests, normal, strict=True)
        ]
        present = np.array([[each.present for each in row] for row in answers])
        curve, half = threshold(extents, present, resamples=resamples, seed=seed)
        columns = zip(*answers, strict=True)
        points = tuple(_point(float(extent), column) for extent, column in zip(extents, columns, strict=True))
        detections.append(Detection(side, site, points, curve, half))
        shares[side, site] = present[:, 1:].mean(1)
    alarms = sum(each.present for each in normal)
    exact = binomtest(alarms, len(normal)).proportion_ci(0.95)
    return SystemDetection(
        alarms,
        len(normal),
        (float(exact.low), float(exact.high)),
        tuple(detections),
        tuple(
            _mirror(site, shares["right", site], shares["left", site], resamples, seed)
            for site in design.sites
            if set(design.sides) == set(BOTH)
        ),
    )


def _films(design: GradedFilms, chest: int) -> list[Film]:
    steps = range(1, design.steps + 1)
    return [Film(chest), *(Film(chest, step, side, site) for side, site in design.places for step in steps)]


def _read(reports: Mapping[str, str], design: GradedFilms, film: Film) -> Mentioned:
    return mentioned(reports[film.film_id], design.finding, film.side if film.step != NORMAL else "")


def _point(extent: float, said: Sequence[Mentioned]) -> Point:
    return Point(
        extent,
        len(said),
        sum(each.present for each in said),
        sum(each.hedged for each in said),
        sum(each.other_side for each in said),
    )


def _mirror(
    site: str, right: npt.NDArray[np.float64], left: npt.NDArray[np.float64], resamples: int, seed: int
) -> Mirror:
    """Compare the sides chest by chest; ``right`` and ``left`` are shares over the steps, (chests,)."""
    rng = np.random.default_rng(seed)
    differences = right - left
    chests = len(differences)
    weights = rng.multinomial(chests, np.full(chests, 1 / chests), size=resamples) / chests
    low, high = np.quantile(weights @ differences, [0.025, 0.975]).tolist()
    signs = rng.choice((-1.0, 1.0), size=(_FLIPS, chests))
    as_far = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
    p = (1 + int(as_far.sum())) / (1 + _FLIPS)
    return Mirror(site, float(right.mean()), float(left.mean()), low, high, p)
