"""Do intervals of reader studies hold the truth? ``python -m training.bench.readers``.

Studies of two systems are drawn with known effects (`core.reviews.power.simulate_study`) and analysed as a session
is: scales and times by linear mixed models, counts by the Poisson model. Of 95 % intervals, 93 to 97 in a hundred
are to hold the effect.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.reviews.effects import fit_model
from core.reviews.long_table import OutcomeKind
from core.reviews.power import Arms, Pilot, simulate_study

EFFECT = -0.2
"""Of the second system: of scales in steps, of times and counts of their logarithms."""
WANTED = (0.93, 0.97)

LINEAR = Pilot("scale", 3.0, {"reader": 0.5, "case": 0.7, "report": 0.4, "reader's leaning": 0.2, "residual": 1.0})
TIMES = Pilot("time", math.log(60), {"reader": 0.3, "case": 0.3, "report": 0.1, "residual": 0.35})
COUNTS = Pilot("count", math.log(1.2), {"reader": 0.3, "case": 0.5, "report": 0.3})
SCATTERED = Pilot("count", math.log(1.2), {"reader": 0.3, "case": 0.5, "report": 0.3}, dispersion=1.6)


@dataclass(frozen=True, slots=True)
class Setting:
    """Studies that are simulated.

    Attributes:
        words: for the table.
        pilot: how readers, cases, reports and chance vary.
        readers: of a study.
        cases: of a study.
        studies: how many are simulated.
        arms: "both": every reader reads every case with both systems; "one": with one of them, by turns.
    """

    words: str
    pilot: Pilot
    readers: int
    cases: int
    studies: int
    arms: Arms = "both"

    @property
    def used(self) -> Pilot:
        """Of two readers nobody can tell how a leaning varies: the result holds for these two, and none is drawn."""
        if self.readers > 2 or not self.pilot.spread.get("reader's leaning"):
            return self.pilot
        return replace(self.pilot, spread={**self.pilot.spread, "reader's leaning": 0.0})


SETTINGS = (
    Setting("scale; readers lean to a system by 0.2, reports differ by 0.4, chance is 1", LINEAR, 3, 40, 800),
    Setting("the same", LINEAR, 5, 30, 600),
    Setting("scale, two readers and no leaning", LINEAR, 2, 40, 800),
    Setting("seconds, each case with one of two systems by turns", TIMES, 2, 40, 800, "one"),
    Setting("seconds, each case with both", TIMES, 2, 40, 800),
    Setting("counts, 1.2 a report", COUNTS, 2, 40, 400),
    Setting("counts that scatter 1.6 times as much as Poisson's law has it", SCATTERED, 2, 40, 400),
    Setting("counts, 1.2 a report", COUNTS, 4, 24, 400),
)


def coverage(
    pilot: Pilot, effect: float, readers: int, cases: int, studies: int, arms: Arms = "both", seed: int = 7
) -> float:
    """Share of intervals that hold the effect."""
    inside = 0
    for number in range(studies):
        table = simulate_study(pilot, effect, readers, cases, arms, np.random.default_rng([seed, number]))
        found = fit_model(table, pilot.kind).contrast("a", "b")
        inside += found.low <= effect <= found.high
    return inside / studies


def rows(settings: Sequence[Setting], studies: int | None = None, seed: int = 7) -> Iterator[str]:
    """Lines of the table, each when it is measured.

    Args:
        settings: what is simulated.
        studies: of each; None as they say.
        seed: of the draws.
    """
    yield "| what | readers, cases | studies | held it |"
    yield "|---|---|---:|---:|"
    for each in settings:
        count = studies or each.studies
        found = coverage(each.used, EFFECT, each.readers, each.cases, count, each.arms, seed)
        yield f"| {each.words} | {each.readers}, {each.cases} | {count} | {100 * found:.1f} % |"


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    kinds: tuple[OutcomeKind, ...] = ("scale", "time", "count")
    parser: Any = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(kinds)}; all unless named")
    parser.add_argument("--studies", type=int, default=None, help="of each row; as in the table unless given")
    parser.add_argument("--seed", type=int, default=7, help="of the draws")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.kinds) - set(kinds):
        parser.error(f"there is no kind {', '.join(sorted(unknown))}; there are {', '.join(kinds)}")
    wanted = [each for each in SETTINGS if not chosen.kinds or each.pilot.kind in chosen.kinds]
    for line in rows(wanted, chosen.studies, chosen.seed):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
