"""How many readers and cases a study needs: it is simulated many times, as a pilot says that readers and cases vary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from core.evaluation.finds import Share
from core.evaluation.resampling import FloatArray
from core.reviews.effects import fit_model, non_inferior
from core.reviews.long_table import LONG_COLUMNS, OutcomeKind
from core.reviews.rubrics import ReviewError

Arms = Literal["both", "one"]
SYSTEMS = ("a", "b")


@dataclass(frozen=True, slots=True)
class Pilot:
    """What a pilot says of a quantity.

    Attributes:
        kind: of the quantity.
        mean: over systems, on the scale of the model: of times and counts a logarithm.
        spread: standard deviations on the same scale: "reader", "case", "report", "reader's leaning", "residual".
        dispersion: of counts, as in `mixed.Fit`.
    """

    kind: OutcomeKind
    mean: float
    spread: Mapping[str, float]
    dispersion: float = 1.0


def pilot_of(table: pd.DataFrame, kind: OutcomeKind) -> Pilot:
    """Learn from first readings how readers and cases vary.

    Args:
        table: `long_table.LONG_COLUMNS`.

    Raises:
        ReviewError: as `effects.fit_model`; or there is one reader only.
    """
    if table["reader"].nunique() < 2:
        raise ReviewError("A pilot needs two readers at least: one does not tell how readers vary.")
    model = fit_model(table, kind)
    mean = float(model.fit.effects[: len(model.systems)].mean())
    return Pilot(kind, mean, model.fit.spread, model.fit.dispersion)


@dataclass(frozen=True, slots=True)
class Power:
    """How often a study would find what is there.

    Attributes:
        readers: of the study.
        cases: of the study.
        found: of the simulated studies, in how many it was found.
    """

    readers: int
    cases: int
    found: Share


def power(
    pilot: Pilot,
    change: float,
    readers: int,
    cases: int,
    *,
    arms: Arms = "both",
    margin: float | None = None,
    less_is_better: bool = True,
    simulations: int = 500,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Power:
    """Simulate studies of two systems, and count those in which the difference is found (two-sided p below 0.05).

    Args:
        change: true difference of one system from the other: of times and counts relative, -0.1 for 10 % less; of
            scales in steps.
        readers: how many.
        cases: how many.
        arms: "both": every reader reads every case with both systems; "one": with one, by turns.
        margin: if given, non-inferiority is sought instead; as in `effects.non_inferior`.
        less_is_better: for non-inferiority.
        simulations: how many studies.
        seed: of all that is drawn.
        progress: called with (done, all).

    Raises:
        ReviewError: a change of -100 % or less, or too few readers or cases.
    """
    if readers < 2 or cases < 4 or simulations < 1:
        raise ReviewError("Power needs at least 2 readers, 4 cases and 1 simulation.")
    relative = pilot.kind != "scale"
    if not math.isfinite(change) or (relative and change <= -1):
        raise ReviewError("A change of seconds or of counts is above -100 %; 10 % less is -10%.")
    effect = math.log1p(change) if relative else change
    found = 0
    for number in range(simulations):
        table = simulate_study(pilot, effect, readers, cases, arms, np.random.default_rng([seed, number]))
        found += _finds(table, pilot.kind, margin, less_is_better)
        progress(number + 1, simulations)
    return Power(readers, cases, Share(found, simulations))


def _finds(table: pd.DataFrame, kind: OutcomeKind, margin: float | None, less_is_better: bool) -> bool:
    try:
        contrast = fit_model(table, kind).contrast(*SYSTEMS)
    except ReviewError:  # all counts are 0, for instance
        return False
    if margin is None:
        return contrast.p < 0.05
    return non_inferior(contrast, margin, less_is_better=less_is_better, ratio=kind != "scale").shown


def simulate_study(
    pilot: Pilot, effect: float, readers: int, cases: int, arms: Arms, random: np.random.Generator
) -> pd.DataFrame:
    """One study as the pilot's model draws it: `long_table.LONG_COLUMNS`, systems "a" and "b".

    Args:
        effect: of "a" less "b", on the scale of the model.
    """
    grid = np.array([(r, c, s) for r in range(readers) for c in range(cases) for s in range(len(SYSTEMS))])
    if arms == "one":
        grid = grid[(grid[:, 0] + grid[:, 1]) % 2 == grid[:, 2]]
    reader, case, system = grid.T
    spread = {
        name: pilot.spread.get(name, 0.0) for name in ("reader", "case", "report", "reader's leaning", "residual")
    }
    mean = pilot.mean + effect * np.where(system == 0, 0.5, -0.5)
    mean = mean + random.normal(0, spread["reader"], readers)[reader] + random.normal(0, spread["case"], cases)[case]
    mean = mean + random.normal(0, spread["report"], (cases, 2))[case, system]
    mean = mean + random.normal(0, spread["reader's leaning"], (readers, 2))[reader, system]
    if pilot.kind == "count":
        values = _scattered(np.exp(np.clip(mean, -30, 30)), pilot.dispersion, random)
    else:
        values = mean + random.normal(0, spread["residual"], len(mean))
        values = np.exp(values) if pilot.kind == "time" else values
    names = [f"reader {each}" for each in reader], [f"case {each}" for each in case], [SYSTEMS[each] for each in system]
    return pd.DataFrame(dict(zip(LONG_COLUMNS, (*names, values), strict=True)))


def _scattered(mean: FloatArray, dispersion: float, random: np.random.Generator) -> FloatArray:
    """Counts with this mean, and a variance that is ``dispersion`` times as large."""
    if dispersion > 1.001:
        mean = random.gamma(mean / (dispersion - 1), dispersion - 1)
    return random.poisson(mean).astype(np.float64)
