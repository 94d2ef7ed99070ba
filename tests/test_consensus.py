"""A vote of several pairs: what is chosen is chosen on other patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from core.evaluation.clinical import decision_statistics
from core.observations import OBSERVATIONS
from training.bench.consensus import ALIKE, BEST, VOTE, consensus, f1, votes_needed

COUNT = len(OBSERVATIONS)
HALVES = np.arange(400) % 2 == 1


def drawn(seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Five systems that are each right in a share of decisions, by chances of their own, and the references."""
    rng = np.random.default_rng(seed)
    references = rng.random((400, COUNT)) < 0.3
    right = rng.random((5, 400, COUNT)) < share
    return np.where(right, references, ~references), references


def test_f1_is_that_of_scikit_learn() -> None:
    written, references = drawn(0, 0.7)
    peer = f1_score(references, written[0], average=None, zero_division=0)
    assert f1(written[0], references) == pytest.approx(peer)
    assert decision_statistics(references, written[0]).scores()["f1"] == pytest.approx(peer.mean())


def test_votes_needed_are_those_of_the_best_f1() -> None:
    votes = np.repeat(np.array([[3], [2], [1], [0]]), COUNT, axis=1)
    said_by_two = np.repeat(np.array([[True], [True], [False], [False]]), COUNT, axis=1)
    assert votes_needed(votes, said_by_two, 3).tolist() == [2] * COUNT
    assert votes_needed(votes, np.zeros_like(said_by_two), 3).tolist() == [3] * COUNT  # nobody is right: say it last


def test_a_vote_of_independent_systems_beats_the_best_of_them() -> None:
    written, references = drawn(1, 0.8)
    found = {name: f1(said, references).mean() for name, said in consensus(written, references, HALVES).items()}
    assert found[VOTE] > found[BEST] + 0.1
    assert found[ALIKE] >= found[BEST]


def test_what_is_chosen_for_a_half_does_not_depend_on_its_references() -> None:
    written, references = drawn(2, 0.7)
    first = consensus(written, references, HALVES)
    changed = references.copy()
    changed[HALVES] = ~changed[HALVES]
    other = consensus(written, changed, HALVES)
    for name in (BEST, VOTE, ALIKE):
        assert (first[name][HALVES] == other[name][HALVES]).all()
        assert (first[name][~HALVES] != other[name][~HALVES]).any()
