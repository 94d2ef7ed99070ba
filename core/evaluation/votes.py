"""What it was worth, on held-out studies, that so many of several systems say a finding.

In: labels of references and of each system's reports. Out: for each number of systems that say a finding, how many
studies there were, and in how many of them the reference says it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.evaluation.finds import Share
from core.observations import ASSERTED, OBSERVATIONS, LabelState
from core.types import CXRLensError

Labels = Sequence[Mapping[str, LabelState]]
Counts = Mapping[str, Sequence[Sequence[int]]]
"""Observation -> for 0, 1, ... systems that say it: studies, and those of them whose reference says it."""
FEW = 10
"""Studies; of fewer no share is told. Ours."""


def count_votes(references: Labels, systems: Sequence[Labels]) -> dict[str, list[list[int]]]:
    """Count, as pages do: who says a finding says that it is present or uncertain.

    Args:
        references: labels of the references.
        systems: labels of each system's reports of the same studies, in the same order.
    """
    found = {name: [[0, 0] for _ in range(len(systems) + 1)] for name in OBSERVATIONS}
    for said, *written in zip(references, *systems, strict=True):
        for name, counts in found.items():
            place = counts[sum(labels[name] in ASSERTED for labels in written)]
            place[0] += 1
            place[1] += said[name] in ASSERTED
    return found


def bands(of: int) -> list[tuple[int, int]]:
    """Numbers of votes, first and last, that are told as one: none, and each third of the systems.

    A single number of votes is too rare to tell a share.
    """
    thirds: dict[int, list[int]] = {}
    for votes in range(1, of + 1):
        thirds.setdefault((votes - 1) * 3 // of, []).append(votes)
    return [(0, 0), *((each[0], each[-1]) for each in thirds.values())]


def alike(votes: int, of: int) -> tuple[int, int]:
    """The band of a number of votes."""
    return next(band for band in bands(of) if votes <= band[1])


def in_words(first: int, last: int) -> str:
    """A band: "none", "2" or "9 to 12"."""
    return "none" if last == 0 else str(first) if first == last else f"{first} to {last}"


def right(counts: Sequence[Sequence[int]], first: int, last: int) -> Share:
    """In how many of the studies with so many votes the reference says the finding."""
    there = counts[first : last + 1]
    return Share(sum(said for _, said in there), sum(studies for studies, _ in there))


def votes_of(results: Mapping[str, Any]) -> tuple[frozenset[str], Counts]:
    """The systems that an evaluation counted, by name, and its counts; nothing of one that counted none.

    Raises:
        CXRLensError: the counts are damaged.
    """
    told = results.get("votes")
    if told is None:
        return frozenset(), {}
    try:
        names = frozenset(map(str, told["of"]))
        counts = {
            str(name): [(int(studies), int(said)) for studies, said in each] for name, each in told["counts"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CXRLensError("The counts of votes in this evaluation are damaged. Evaluate again.") from error
    if any(len(each) != len(names) + 1 for each in counts.values()):
        raise CXRLensError("The counts of votes in this evaluation are not of its systems. Evaluate again.")
    return names, counts
