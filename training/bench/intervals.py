"""Do intervals hold the truth, and tests keep quiet where there is nothing? ``python -m training.bench.intervals``.

Test sets are drawn from populations whose scores are known: the prevalences, and the hits and false alarms of a system,
are those of an evaluation (results.json). Of an observation with few positives an evaluation says little: a second
population of each gives it half a study more, found as often as all findings together. Each test set is scored as a
real one is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from core.evaluation.clinical import decision_statistics
from core.evaluation.finds import finds_of
from core.evaluation.metrics import FREQUENT, METRICS
from core.evaluation.resampling import StudyStatistics, compare, intervals, join
from core.observations import NO_FINDING, OBSERVATIONS
from core.paths import BUNDLES
from core.types import CXRLensError

Floats = npt.NDArray[np.float64]
LANGUAGE = "language"
SCORES = {
    "f1": f"{METRICS['f1'].title}, all 14",
    "f1_frequent": METRICS["f1_frequent"].title,
    "micro_f1": METRICS["micro_f1"].title,
    LANGUAGE: "a mean over studies, skewed as CIDEr is",
}
SYSTEMS = {
    "openi": ("openi-fve-m2", "openi-cve-transformer", "openi-dve-transformer"),
    "phantom": ("phantom-fve-m2", "phantom-ccve-transformer"),
}
"""Whose hits and false alarms: a good system, and one that misses most."""
OTHER = "nearest training report"
WANTED = (0.93, 0.97)


@dataclass(frozen=True, slots=True)
class Population:
    """What test sets are drawn from.

    Attributes:
        name: for the reader.
        studies: in a test set.
        patients: of them; some then have several studies.
        prevalence: (14,) of the observations.
        hits: (14,) share of the positive studies in which the system writes it.
        alarms: (14,) share of the other studies in which it does.
        language: mean of the skewed score.
    """

    name: str
    studies: int
    patients: int
    prevalence: Floats
    hits: Floats
    alarms: Floats
    language: float = 0.3

    def truth(self, kept: npt.NDArray[np.bool_]) -> dict[str, float]:
        """The scores of endless studies; `kept` are the observations that are frequent in a test set."""
        both, either = self.prevalence * self.hits, self.prevalence + (1 - self.prevalence) * self.alarms
        sizes = either + self.prevalence * self.hits
        f1 = np.divide(2 * both, sizes, out=np.zeros_like(both), where=sizes > 0)
        return {
            "f1": float(f1.mean()),
            "f1_frequent": float(f1[kept].mean()),
            "micro_f1": float(2 * both.sum() / sizes.sum()),
            LANGUAGE: self.language,
        }


def population(results: Mapping[str, Any], system: str, *, assumed: bool) -> Population:
    """Of an evaluation's system.

    Args:
        results: content of results.json.
        system: name of a row.
        assumed: rare observations are found as often as all findings together.

    Raises:
        CXRLensError: there is no such system, or it has no scores by observation.
    """
    studies = int(results["studies"])
    rows = {row["name"]: row for row in [*results["rows"], *results["baselines"]]}
    if "by_observation" not in rows.get(system, {}):
        raise CXRLensError(f"The evaluation has no scores by observation of '{system}'. It has: {', '.join(rows)}.")
    counts = finds_of(rows[system])
    positive, found = (
        np.array([getattr(counts[name], kind) for name in OBSERVATIONS], dtype=float) for kind in ("positive", "found")
    )
    told = [counts[name].written for name in OBSERVATIONS]
    # An older evaluation does not tell how often was written what was never right; all together it does.
    untold = max(0.0, found.sum() / rows[system]["micro_precision"] - sum(each or 0 for each in told))
    written = np.array([untold / max(1, told.count(None)) if each is None else each for each in told])
    wrong = written - found
    half = 0.5 if assumed else 0.0
    findings = np.array([name != NO_FINDING for name in OBSERVATIONS])
    usual = found[findings].sum() / positive[findings].sum()
    hits = np.divide(
        found + assumed * usual, positive + assumed, out=np.zeros_like(found), where=positive + assumed > 0
    )
    return Population(
        f"{system}, {'rare findings assumed' if assumed else 'as measured'}",
        studies,
        studies if results["family"] != "phantom" else round(0.8 * studies),
        (positive + half) / (studies + 2 * half),
        hits,
        (wrong + half) / (studies - positive + 2 * half),
    )


def draw(each: Population, other: Population, random: np.random.Generator) -> tuple[list[StudyStatistics], list[str]]:
    """A test set: statistics of a system, of another of the same worth, and of a third; and whose the studies are.

    Systems agree more than by chance, since some studies are hard for all; studies of a patient are alike.
    """
    count, kinds = each.studies, len(each.prevalence)
    patient = np.sort(np.r_[np.arange(each.patients), random.integers(each.patients, size=count - each.patients)])
    alike = random.normal(size=(each.patients, kinds))[patient]
    there = stats.norm.cdf(0.6 * alike + 0.8 * random.normal(size=(count, kinds))) < each.prevalence
    hard = 0.6 * random.normal(size=(count, kinds)) + 0.3 * random.normal(size=(each.patients, 1))[patient]
    systems = []
    easy = random.gamma(1.0, 1.0, each.patients)[patient]
    for one in (each, each, other):
        chance = stats.norm.cdf(hard + np.sqrt(1 - 0.45) * random.normal(size=(count, kinds)))
        written = chance < np.where(there, one.hits, one.alarms)
        score = one.language * (easy + random.gamma(1.0, 1.0, count)) / 2
        language = StudyStatistics(
            (LANGUAGE,), np.stack([score, np.ones(count)], 1), lambda sums: sums[..., :1] / sums[..., 1:]
        )
        whole = join(decision_statistics(there, written), language)
        systems.append(whole.select("f1", "f1_frequent", "micro_f1", LANGUAGE))
    return systems, [str(number) for number in patient]


@dataclass(frozen=True, slots=True)
class Measured:
    """Shares of test sets, by score.

    Attributes:
        held: the interval holds the truth.
        low: it lies wholly below the truth.
        width: mean of the intervals.
        excluded: the interval of the difference from a system of the same worth excludes 0; NaN without interval.
        claimed: the permutation test has p < 0.05 there.
        held_difference: the interval of the difference from the third system holds the true difference.
    """

    held: float
    low: float
    width: float
    excluded: float
    claimed: float
    held_difference: float


def measure(each: Population, other: Population, sets: int, resamples: int, seed: int = 0) -> dict[str, Measured]:
    """Draw test sets and score them.

    Args:
        each: whose intervals.
        other: what it is compared with.
        sets: how many.
        resamples: of each interval and test.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    rows: dict[str, list[tuple[float, ...]]] = {score: [] for score in SCORES}
    for number in range(sets):
        (one, same, third), subjects = draw(each, other, random)
        kept = one.values[:, 2 * len(OBSERVATIONS) : 3 * len(OBSERVATIONS)].sum(0) >= FREQUENT
        truth, theirs = each.truth(kept), other.truth(kept)
        how: Any = {"subjects": subjects, "resamples": resamples, "seed": number}  # not the same draws for all sets
        ends, null, real = intervals(one, **how), compare(one, same, **how), compare(one, third, **how)
        for score in SCORES:
            low, high, true = ends[score].low, ends[score].high, truth[score]
            tested, found, less = null[score], real[score], true - theirs[score]
            none = np.isnan(tested.low)
            rows[score].append(
                (
                    low <= true <= high,
                    high < true,
                    high - low,
                    np.nan if none else not tested.low <= 0 <= tested.high,
                    tested.p_permutation < 0.05,
                    np.nan if none else found.low <= less <= found.high,
                )
            )
    return {score: Measured(*np.mean(values, 0).tolist()) for score, values in rows.items()}


def tried(each: Population, sets: int, resamples: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """Share of test sets whose interval of macro F1 holds the truth, by the usual methods: method -> score -> share."""
    random = np.random.default_rng(seed)
    studies = each.studies
    times = random.multinomial(studies, np.full(studies, 1 / studies), size=resamples).astype(np.float64)
    smooth = random.dirichlet(np.ones(studies), size=resamples) * studies
    alone = replace(each, patients=studies)
    hits: dict[str, list[list[bool]]] = {}
    scores = ("f1", "f1_frequent")
    for _ in range(sets):
        one = draw(alone, alone, random)[0][0].select(*scores)
        kept = one.values[:, 2 * len(OBSERVATIONS) : 3 * len(OBSERVATIONS)].sum(0) >= FREQUENT
        truth = np.array([alone.truth(kept)[score] for score in scores])
        sums = one.values.sum(0)
        middle, left = one.from_sums(sums), one.from_sums(sums - one.values)
        drawn, weighted = one.from_sums(times @ one.values), one.from_sums(smooth @ one.values)
        error = np.sqrt(((left - left.mean(0)) ** 2).sum(0) * (studies - 1) / studies)
        plain = np.quantile(drawn, [0.025, 0.975], axis=0)
        ends: dict[str, Sequence[Floats] | Floats] = {
            "percentile bootstrap": plain,
            "basic bootstrap": 2 * middle - plain[::-1],
            "BCa bootstrap": _bca(drawn, middle, left),
            "Bayesian bootstrap": np.quantile(weighted, [0.025, 0.975], axis=0),
            "jackknife": (middle - 1.96 * error, middle + 1.96 * error),
        }
        for method, (low, high) in ends.items():
            hits.setdefault(method, []).append(((low <= truth) & (truth <= high)).tolist())
    return {method: dict(zip(scores, np.mean(each, 0).tolist(), strict=True)) for method, each in hits.items()}


def _bca(drawn: Floats, middle: Floats, left: Floats) -> list[Floats]:
    """Bias-corrected and accelerated ends (Efron 1987); ties count half."""
    below = ((drawn < middle).sum(0) + 0.5 * (drawn == middle).sum(0) + 0.5) / (len(drawn) + 1)
    off = left.mean(0) - left
    speed = (off**3).sum(0) / (6 * np.maximum((off**2).sum(0), 1e-30) ** 1.5)
    shift = stats.norm.ppf(below)
    ends = []
    for end in stats.norm.ppf([0.025, 0.975]):
        places = stats.norm.cdf(shift + (shift + end) / (1 - speed * (shift + end)))
        ends.append(np.array([np.quantile(column, place) for column, place in zip(drawn.T, places, strict=True)]))
    return ends


def populations(bundles: Path, families: Sequence[str] = tuple(SYSTEMS)) -> Iterator[tuple[Population, Population]]:
    """Each population, and the one it is compared with."""
    for family in families:
        results = json.loads((bundles / f"{family}-results.json").read_text(encoding="utf-8"))
        for system in SYSTEMS[family]:
            for assumed in (False, True):
                other = replace(population(results, OTHER, assumed=assumed), language=0.33)
                yield population(results, system, assumed=assumed), other


def rows(chosen: Sequence[tuple[Population, Population]], sets: int, resamples: int, seed: int = 0) -> Iterator[str]:
    """Lines of the tables, each when it is measured."""
    yield (
        "| population | score | interval holds the truth | wholly below it | mean width "
        "| same worth: interval excludes 0 | same worth: p < 0.05 | true difference is held |"
    )
    yield "|---|---|" + "---:|" * 6
    for each, other in chosen:
        for score, found in measure(each, other, sets, resamples, seed).items():
            shares = (found.held, found.low, found.width, found.excluded, found.claimed, found.held_difference)
            cells = ["none" if np.isnan(share) else f"{share:.3f}" for share in shares]
            yield f"| {each.name} | {SCORES[score]} | {' | '.join(cells)} |"
    yield ""
    yield "Usual intervals, for comparison; one study a patient:"
    yield ""
    yield f"| population | interval | holds the truth: {SCORES['f1']} | {SCORES['f1_frequent']} |"
    yield "|---|---|---:|---:|"
    for each, _ in chosen:
        for method, shares_of in tried(each, sets, resamples, seed).items():
            yield f"| {each.name} | {method} | {shares_of['f1']:.3f} | {shares_of['f1_frequent']:.3f} |"


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser: Any = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(SYSTEMS)}; all unless named")
    parser.add_argument("--sets", type=int, default=1000, help="test sets of each population")
    parser.add_argument("--resamples", type=int, default=300, help="of each interval and test")
    parser.add_argument("--seed", type=int, default=0, help="of the test sets")
    parser.add_argument("--bundles", type=Path, default=BUNDLES, help="folder with FAMILY-results.json")
    chosen = parser.parse_args(arguments)
    found = list(populations(chosen.bundles, tuple(chosen.families) or tuple(SYSTEMS)))
    for line in rows(found, chosen.sets, chosen.resamples, chosen.seed):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
