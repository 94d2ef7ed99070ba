"""Two ways to do the same, compared in one run."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from statistics import median
from typing import Any

TURNS = 5


def in_turns(
    plain: Callable[[], Any], ours: Callable[[], Any], same: Callable[[Any, Any], bool] = operator.eq
) -> tuple[float, float]:
    """Seconds of CPU of two ways to do the same, medians of runs that take turns, so that both meet the same machine.

    Raises:
        RuntimeError: they do not give the same.
    """
    if not same(plain(), ours()):
        raise RuntimeError("Both ways must give the same result.")
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for work, found in zip((plain, ours), times, strict=True):
            began = time.process_time()
            work()
            found.append(time.process_time() - began)
    return median(times[0]), median(times[1])
