"""What may be claimed of systems: only what holds in several seeds, on held-out studies, after Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEEDS = 2
"""Trainings in which a difference has to be seen before it is claimed."""
LEVEL = 0.05

Row = Mapping[str, Any]


def is_above(difference: Mapping[str, Any] | None) -> bool:
    """Whether a difference, as a row of results.json has it, is above 0 after Holm's correction.

    Where it has an interval, that must exclude 0 too.
    """
    if difference is None or difference["difference"] <= 0 or difference["p_holm"] >= LEVEL:
        return False
    return difference["low"] is None or difference["low"] > 0


def above(seeds: Sequence[Mapping[str, Row]], score: str, against: str = "differences") -> list[str] | None:
    """Systems whose score is above what they are compared with, in each of several seeds.

    Args:
        seeds: of each training, name of a system -> its row of results.json; all on the same held-out studies.
        score: name of a score.
        against: "differences", from the nearest training report, or "differences_own", from that by own embeddings.

    Returns:
        Names, in the order of the first seed; None where nothing can be claimed: fewer than `SEEDS` seeds, or a seed
        in which this score was not compared.
    """
    if len(seeds) < SEEDS or not all(any(score in row.get(against, {}) for row in each.values()) for each in seeds):
        return None
    return [
        name for name in seeds[0] if all(is_above(each.get(name, {}).get(against, {}).get(score)) for each in seeds)
    ]


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """A score of a system over trainings that differ in their seed, and how far it is above what it is compared with.

    Attributes:
        values: of each training.
        difference: mean over the trainings; None where one of them was not compared.
        low: lower end of its 95 % interval; None where a training has none.
        high: upper end.
        above: of each training, `is_above`.
    """

    values: tuple[float, ...]
    difference: float | None
    low: float | None
    high: float | None
    above: tuple[bool, ...]


def over_seeds(seeds: Sequence[Mapping[str, Row]], score: str, against: str = "differences") -> dict[str, OverSeeds]:
    """A score of every system that all trainings have; all on the same held-out studies.

    The ends of the interval are the means of the trainings' ends. It is never too narrow: a mean of differences varies
    at most as the mean of their standard deviations, however much the trainings have in common.

    Args:
        seeds: as of `above`.
        score: likewise.
        against: likewise.

    Raises:
        KeyError: a row does not have this score.
    """
    found = {}
    for name in seeds[0]:
        if not all(name in each for each in seeds):
            continue
        differences = [each[name].get(against, {}).get(score) for each in seeds]
        found[name] = OverSeeds(
            values=tuple(float(each[name][score]) for each in seeds),
            difference=_mean_of(differences, "difference"),
            low=_mean_of(differences, "low"),
            high=_mean_of(differences, "high"),
            above=tuple(map(is_above, differences)),
        )
    return found


def _mean_of(differences: Sequence[Mapping[str, Any] | None], what: str) -> float | None:
    values = [None if each is None else each[what] for each in differences]
    known = [float(each) for each in values if each is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
