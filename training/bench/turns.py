"""Two ways to do the same, compared in one run."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any

TURNS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """What a piece of work takes, in our way and in another.

    Attributes:
        what: the work.
        peer: the other way.
        theirs: what it took the other way, at each turn.
        ours: what it took in ours.
        unit: of both: seconds of the clock ("s"), or of processors ("s of CPU").
    """

    what: str
    peer: str
    theirs: Sequence[float]
    ours: Sequence[float]
    unit: str = "s"

    @property
    def times(self) -> float:
        """How many times as fast ours is, by the medians."""
        return median(self.theirs) / median(self.ours)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest of these ratios by turn; of all pairs where the turns are not as many."""
        pairs = zip(self.theirs, self.ours, strict=True) if len(self.theirs) == len(self.ours) else None
        ratios = [theirs / ours for theirs, ours in pairs or product(self.theirs, self.ours)]
        return min(ratios), max(ratios)


def in_turns(
    what: str,
    peer: str,
    plain: Callable[[], Any],
    ours: Callable[[], Any],
    same: Callable[[Any, Any], bool] | None = operator.eq,
    *,
    clock: bool = False,
    turns: int = TURNS,
    plain_turns: int | None = None,
) -> Row:
    """Measure two ways to do the same, which take turns, so that both meet the same machine. Each warms up once.

    Args:
        what: the work.
        peer: the other way, in words.
        plain: it.
        ours: our way.
        same: whether both gave the same; None where they need not.
        clock: by the clock, where several processes work; else by the processor time of this one.
        turns: of each.
        plain_turns: of the other way, where it takes long: it warms up only to be compared then.

    Raises:
        RuntimeError: they do not give the same.
    """
    theirs, mine = plain() if same or plain_turns is None else None, ours()
    if same and not same(theirs, mine):
        raise RuntimeError(f"{what}: both ways must give the same result.")
    now = time.perf_counter if clock else time.process_time
    times: tuple[list[float], list[float]] = ([], [])
    wanted = (turns if plain_turns is None else plain_turns, turns)
    for turn in range(turns):
        for work, found, count in zip((plain, ours), times, wanted, strict=True):
            if turn < count:
                began = now()
                work()
                found.append(now() - began)
    return Row(what, peer, times[0], times[1], "s" if clock else "s of CPU")
