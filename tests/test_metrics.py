"""Metrics against hand-worked values and scikit-learn."""

from __future__ import annotations

import math
import random

import pytest
from sklearn.metrics import precision_recall_fscore_support

from core.labels.observations import OBSERVATIONS, LabelState
from core.metrics.clinical import clinical_scores
from core.metrics.language import bleu
from core.text import tokenize


def test_bleu_by_hand() -> None:
    # n-gram precisions 5/5, 3/4, 2/3, 1/2 (only "seen" is missing); brevity penalty exp(1 - 6/5).
    got = bleu([tokenize("no acute pleural effusion seen today")], [tokenize("no acute pleural effusion today")])
    penalty = math.exp(1 - 6 / 5)
    assert got["bleu_1"] == pytest.approx(penalty)
    assert got["bleu_4"] == pytest.approx((1 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25 * penalty)


def test_bleu_is_of_the_corpus_not_a_mean() -> None:
    references, generated = [["a", "b"], ["c", "d", "e", "f"]], [["a", "x"], ["c", "d", "e", "f"]]
    assert bleu(references, generated)["bleu_1"] == pytest.approx(5 / 6)


def test_bleu_refuses_unequal_lists() -> None:
    with pytest.raises(ValueError, match="1 references for 0 generated"):
        bleu([["a"]], [])


def random_states(seed: int) -> list[dict[str, LabelState]]:
    source = random.Random(seed)
    return [{name: source.choice(list(LabelState)) for name in OBSERVATIONS} for _ in range(60)]


@pytest.mark.parametrize("uncertain", ["negative", "positive"])
def test_clinical_scores_equal_scikit_learns(uncertain: str) -> None:
    counted = {LabelState.POSITIVE, *([LabelState.UNCERTAIN] if uncertain == "positive" else [])}
    references, generated = random_states(1), random_states(2)
    truth = [[states[name] in counted for name in OBSERVATIONS] for states in references]
    guess = [[states[name] in counted for name in OBSERVATIONS] for states in generated]
    ours = clinical_scores(references, generated, uncertain)
    macro = precision_recall_fscore_support(truth, guess, average="macro", zero_division=0)
    micro = precision_recall_fscore_support(truth, guess, average="micro", zero_division=0)
    assert (ours.precision, ours.recall, ours.f1) == pytest.approx(macro[:3])
    assert ours.micro_f1 == pytest.approx(micro[2])


def test_an_observation_absent_from_both_sides_counts_as_zero() -> None:
    blank = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    found = blank | {"Edema": LabelState.POSITIVE}
    assert clinical_scores([found], [found]).f1 == pytest.approx(1 / 14)
