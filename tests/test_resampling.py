"""Intervals and tests against scipy, against hand-worked values, and under hypotheses whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from core.evaluation.resampling import (
    Comparison,
    StudyStatistics,
    compare,
    holm,
    intervals,
    join,
    mean_of_seeds,
    spread,
)
from core.types import CXRLensError


def system(scores: object, name: str = "score") -> StudyStatistics:
    """A system whose corpus score is the mean of its studies' scores."""
    column = np.asarray(scores, dtype=float)
    return StudyStatistics(
        (name,), np.stack([column, np.ones_like(column)], 1), lambda sums: sums[..., :1] / sums[..., 1:]
    )


@pytest.fixture(scope="module")
def two() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    first = rng.gamma(2, 1, 150)
    return first, first * 0.8 + rng.normal(0.3, 0.6, 150)


# --- intervals ---


def test_intervals_equal_scipys(two: tuple[np.ndarray, np.ndarray]) -> None:
    ours = intervals(system(two[0]), resamples=20_000)["score"]
    theirs = scipy.stats.bootstrap(
        (two[0],), np.mean, n_resamples=20_000, method="percentile", random_state=np.random.default_rng(0)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.01)


def test_intervals_are_repeatable_and_depend_on_the_seed(two: tuple[np.ndarray, np.ndarray]) -> None:
    assert intervals(system(two[0])) == intervals(system(two[0]))
    assert intervals(system(two[0])) != intervals(system(two[0]), seed=1)


def test_blocks_of_resamples_cover_all(two: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    # Held in little memory, in pieces that do not divide evenly, the interval is one of as many resamples.
    whole = intervals(system(two[0]), resamples=5000)["score"]
    monkeypatch.setattr("core.evaluation.resampling.BLOCK_VALUES", 150 * 7)
    pieces = intervals(system(two[0]), resamples=5000)["score"]
    assert (pieces.low, pieces.high) == pytest.approx((whole.low, whole.high), abs=0.02)


def test_copies_of_a_study_carry_no_information_when_patients_are_drawn() -> None:
    rng = np.random.default_rng(2)
    scores = rng.random(80)
    copied, subjects = np.repeat(scores, 4), [f"p{place:03}" for place in range(80) for _ in range(4)]
    once = intervals(system(scores))["score"]
    by_patient = intervals(system(copied), subjects=subjects)["score"]
    by_study = intervals(system(copied))["score"]
    assert (by_patient.low, by_patient.high) == pytest.approx((once.low, once.high))
    assert by_study.high - by_study.low < 0.7 * (once.high - once.low)


def test_a_wider_level_is_a_wider_interval(two: tuple[np.ndarray, np.ndarray]) -> None:
    narrow, wide = (intervals(system(two[0]), level=level)["score"] for level in (0.8, 0.99))
    assert wide.low < narrow.low < two[0].mean() < narrow.high < wide.high


def test_intervals_refuse_one_study_and_one_patient() -> None:
    with pytest.raises(CXRLensError, match="at least two.*1 study"):
        intervals(system([0.5]))
    with pytest.raises(CXRLensError, match="1 patient"):
        intervals(system([0.5, 0.7]), subjects=["a", "a"])
    with pytest.raises(ValueError, match="1 subjects for 2 studies"):
        intervals(system([0.5, 0.7]), subjects=["a"])


# --- comparisons ---


def test_the_permutation_test_equals_scipys(two: tuple[np.ndarray, np.ndarray]) -> None:
    ours = compare(system(two[0]), system(two[1]), resamples=20_000)["score"]
    theirs = scipy.stats.permutation_test(
        two,
        lambda first, second, axis: first.mean(axis) - second.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    )
    assert ours.difference == pytest.approx(theirs.statistic)
    assert 0.001 < theirs.pvalue < 0.9  # the comparison is about something
    assert ours.p_permutation == pytest.approx(theirs.pvalue, abs=0.015)
    assert ours.p_bootstrap == pytest.approx(theirs.pvalue, abs=0.03)


def test_few_studies_are_permuted_exactly() -> None:
    # Three studies, all better by one: of 8 ways to change sides, 2 give a difference as large.
    assert compare(system([1, 2, 3]), system([0, 1, 2]), resamples=40_000)["score"].p_permutation == pytest.approx(
        2 / 8, abs=0.01
    )


def excludes_zero(found: Comparison) -> bool:
    return found.low > 0 or found.high < 0


def test_a_system_does_not_differ_from_itself(two: tuple[np.ndarray, np.ndarray]) -> None:
    got = compare(system(two[0]), system(two[0].copy()))["score"]
    assert got == Comparison(0, 0, 0, 1, 1) and not excludes_zero(got)


def test_a_clear_difference_is_found_either_way(two: tuple[np.ndarray, np.ndarray]) -> None:
    better, worse = system(two[0] + 1), system(two[0] + np.linspace(-0.1, 0.1, 150))
    for first, second, sign in ((better, worse, 1), (worse, better, -1)):
        got = compare(first, second)["score"]
        assert got.difference == pytest.approx(sign) and excludes_zero(got)
        assert got.p_permutation == pytest.approx(1 / 1001) and got.p_bootstrap == pytest.approx(2 / 1001)


def test_pairing_finds_what_intervals_of_each_alone_hide(two: tuple[np.ndarray, np.ndarray]) -> None:
    worse = two[0] - 0.05 - np.linspace(0, 0.02, 150)
    one, other = intervals(system(two[0]))["score"], intervals(system(worse))["score"]
    assert other.high > one.low  # they overlap
    assert excludes_zero(compare(system(two[0]), system(worse))["score"])


def test_without_a_difference_few_tests_claim_one() -> None:
    rng = np.random.default_rng(11)
    results = []
    for _ in range(300):
        common = rng.normal(size=60)
        first, second = (system(common + rng.normal(size=60)) for _ in range(2))
        results.append(compare(first, second, resamples=300)["score"])
    for p in ("p_permutation", "p_bootstrap"):
        claimed = np.mean([getattr(each, p) < 0.05 for each in results])
        assert 0.015 < claimed < 0.10, (p, claimed)
    assert 0.88 < np.mean([not excludes_zero(each) for each in results]) < 0.985


def test_a_patient_with_many_studies_is_one_patient() -> None:
    # The second system is better in every study of one patient and equal elsewhere: no evidence, whatever the count.
    subjects = ["often"] * 40 + [f"p{place}" for place in range(40)]
    first, second = np.zeros(80), np.r_[np.ones(40), np.zeros(40)]
    by_study = compare(system(first), system(second))["score"]
    by_patient = compare(system(first), system(second), subjects=subjects)["score"]
    assert by_study.p_permutation < 0.01 and excludes_zero(by_study)
    assert by_patient.p_permutation == 1 and not excludes_zero(by_patient)


def test_unlike_systems_are_refused() -> None:
    with pytest.raises(ValueError, match="same scores on the same studies"):
        compare(system([1, 2]), system([1, 2, 3]))
    with pytest.raises(ValueError, match="same scores on the same studies"):
        compare(system([1, 2]), system([1, 2], "other"))


# --- putting together ---


def test_join_and_select() -> None:
    both = join(system([1, 2]), system([3, 5], "other"))
    assert both.scores() == {"score": 1.5, "other": 4}
    assert both.select("other").scores() == {"other": 4}
    assert intervals(both)["other"] == intervals(system([3, 5], "other"))["other"]
    with pytest.raises(KeyError, match="missing"):
        both.select("missing")
    with pytest.raises(ValueError, match="same name"):
        join(system([1]), system([2]))


def test_the_mean_of_seeds_has_the_mean_score_and_a_narrower_interval() -> None:
    rng = np.random.default_rng(3)
    seeds = [system(rng.random(100)) for _ in range(4)]
    together = mean_of_seeds(seeds)
    assert together.scores()["score"] == pytest.approx(np.mean([each.scores()["score"] for each in seeds]))
    width = lambda one: intervals(one)["score"].high - intervals(one)["score"].low  # noqa: E731
    assert width(together) < 0.7 * min(width(each) for each in seeds)  # seeds are independent here
    with pytest.raises(ValueError, match="same scores"):
        mean_of_seeds([system([1, 2]), system([1, 2], "other")])


def test_spread_by_hand() -> None:
    got = spread([{"f1": 0.2}, {"f1": 0.4}, {"f1": 0.3}])["f1"]
    assert (got.mean, got.sd, got.low, got.high, got.seeds) == pytest.approx((0.3, 0.1, 0.2, 0.4, 3))
    assert math.isnan(spread([{"f1": 0.2}])["f1"].sd)
    for bad in ([], [{"f1": 0.2}, {"bleu_4": 0.1}]):
        with pytest.raises(ValueError, match="at least one seed"):
            spread(bad)


# --- many tests ---


def test_holm_by_hand() -> None:
    # Sorted: .01 x 3, .03 x 2, .04 x 1, the last raised to the one before.
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert list(holm({"a": 0.04, "b": 0.01})) == ["a", "b"]
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm({"a": 1.2})


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_the_value_and_bonferronis(values: list[float]) -> None:
    p = {str(place): value for place, value in enumerate(values)}
    adjusted = holm(p)
    assert all(p[name] <= adjusted[name] <= min(1, len(p) * p[name]) for name in p)
    order = sorted(p, key=lambda name: p[name])
    assert [adjusted[name] for name in order] == sorted(adjusted.values())
