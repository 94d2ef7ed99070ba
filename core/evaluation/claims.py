"""What may be claimed of systems: only what holds in several seeds, on held-out studies, after Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
