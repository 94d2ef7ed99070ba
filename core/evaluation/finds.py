"""What a system finds and invents, counted: by observation, and on studies without a finding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from core.observations import NO_FINDING, OBSERVATIONS, SUPPORT_DEVICES, LabelState
from core.types import CXRLensError

FALSE_ALARM = (
    "Normal studies called abnormal: of the studies whose reference has No Finding, those whose report states another "
    "observation than a device as present. Intervals: Wilson's, over studies."
)

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Share:
    """A count of some, as a share with its interval.

    Attributes:
        count: of them.
        among: of all.
    """

    count: int
    among: int

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.count / self.among if self.among else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %, by Wilson (1927); None of nothing. A page's first run does not wait for scipy's statistics."""
        if not self.among:
            return None
        n, share = self.among, self.count / self.among
        middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n)) / (1 + _Z**2 / n)
        return 0.0 if self.count == 0 else middle - half, 1.0 if self.count == n else middle + half


@dataclass(frozen=True, slots=True)
class Finds:
    """One observation in all reports of a system.

    Attributes:
        positive: studies whose reference has it.
        written: studies whose report has it; None where an evaluation does not tell.
        found: studies where both have it.
    """

    positive: int
    written: int | None
    found: int

    @property
    def sensitivity(self) -> Share:
        """Found, of those that have it."""
        return Share(self.found, self.positive)

    @property
    def precision(self) -> Share | None:
        """Right, of those that were written."""
        return None if self.written is None else Share(self.found, self.written)


def count_finds(
    references: Sequence[Mapping[str, LabelState]], generated: Sequence[Mapping[str, LabelState]]
) -> dict[str, Finds]:
    """Count each observation; an uncertain mention does not count as positive, on either side."""
    found = {}
    for name in OBSERVATIONS:
        pairs = [
            (ours[name] is LabelState.POSITIVE, theirs[name] is LabelState.POSITIVE)
            for theirs, ours in zip(references, generated, strict=True)
        ]
        found[name] = Finds(sum(theirs for _, theirs in pairs), sum(ours for ours, _ in pairs), sum(map(all, pairs)))
    return found


def false_alarms(
    references: Sequence[Mapping[str, LabelState]], generated: Sequence[Mapping[str, LabelState]]
) -> Share:
    """Normal studies that are called abnormal, see `FALSE_ALARM`; an empty report calls nothing abnormal."""
    abnormal = [
        any(state is LabelState.POSITIVE for name, state in ours.items() if name not in (NO_FINDING, SUPPORT_DEVICES))
        for theirs, ours in zip(references, generated, strict=True)
        if theirs[NO_FINDING] is LabelState.POSITIVE
    ]
    return Share(sum(abnormal), len(abnormal))


def to_row(
    references: Sequence[Mapping[str, LabelState]], generated: Sequence[Mapping[str, LabelState]]
) -> dict[str, Any]:
    """What a row of results.json holds of it."""
    alarms = false_alarms(references, generated)
    counted = count_finds(references, generated).items()
    return {
        "finds": {name: [each.positive, each.written, each.found] for name, each in counted},
        "false_alarms": [alarms.count, alarms.among],
    }


def finds_of(row: Mapping[str, Any]) -> dict[str, Finds]:
    """Of a row of results.json; of one without counts, from its precision and recall.

    Raises:
        CXRLensError: the row has neither, or they are damaged.
    """
    try:
        if "finds" in row:
            return {name: Finds(*map(int, counts)) for name, counts in row["finds"].items()}
        found = {}
        for name, (precision, recall, _, positive) in row["by_observation"].items():
            hits = round(recall * positive)
            found[name] = Finds(int(positive), round(hits / precision) if precision else None, hits)
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise CXRLensError(f"{row.get('name', 'A row')} has no counts by observation. Evaluate again.") from error


def false_alarms_of(row: Mapping[str, Any]) -> Share | None:
    """Of a row of results.json; None where it was not counted."""
    counts = row.get("false_alarms")
    return None if counts is None else Share(int(counts[0]), int(counts[1]))
