"""Clinical scores against hand-worked values and scikit-learn."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from core.evaluation.clinical import (
    FIVE_OBSERVATIONS,
    ClinicalProtocol,
    Uncertain,
    clinical_scores,
    clinical_statistics,
)
from core.labels.rules import label_report
from core.observations import OBSERVATIONS, LabelState
from core.types import CXRLensError

BLANK = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
states = st.fixed_dictionaries({name: st.sampled_from(LabelState) for name in OBSERVATIONS})
pairs_of_states = st.lists(st.tuples(states, states), min_size=1, max_size=6)


def random_states(seed: int) -> list[dict[str, LabelState]]:
    source = random.Random(seed)
    return [{name: source.choice(list(LabelState)) for name in OBSERVATIONS} for _ in range(60)] + [BLANK]


@pytest.mark.parametrize("uncertain", ["negative", "positive"])
def test_scores_equal_scikit_learns(uncertain: Uncertain) -> None:
    counted = {LabelState.POSITIVE, *([LabelState.UNCERTAIN] if uncertain == "positive" else [])}
    references, generated = random_states(1), random_states(2)

    def theirs(average: str | None, names: tuple[str, ...] = OBSERVATIONS) -> list[object]:
        truth, guess = (
            [[states[name] in counted for name in names] for states in side] for side in (references, generated)
        )
        return list(precision_recall_fscore_support(truth, guess, average=average, zero_division=0))

    got = clinical_statistics(references, generated, uncertain).scores()
    for prefix, average in {"": "macro", "micro_": "micro", "example_": "samples"}.items():
        ours = [got[f"{prefix}{score}"] for score in ("precision", "recall", "f1")]
        assert ours == pytest.approx(theirs(average)[:3])
    for prefix, average in {"": "macro", "micro_": "micro"}.items():
        ours = [got[f"{prefix}{score}_5"] for score in ("precision", "recall", "f1")]
        assert ours == pytest.approx(theirs(average, FIVE_OBSERVATIONS)[:3])
    table = clinical_scores(references, generated, uncertain).by_observation
    np.testing.assert_allclose(np.array(list(table.values())).T, theirs(None))
    assert [got[f"f1[{name}]"] for name in OBSERVATIONS] == [f1 for _, _, f1, _ in table.values()]


def test_the_two_uncertainty_rules_by_hand() -> None:
    # Truth: Edema positive, Fracture uncertain. Report: Edema uncertain, Fracture positive.
    reference = BLANK | {"Edema": LabelState.POSITIVE, "Fracture": LabelState.UNCERTAIN}
    report = BLANK | {"Edema": LabelState.UNCERTAIN, "Fracture": LabelState.POSITIVE}
    strict = clinical_scores([reference], [report], "negative")
    lenient = clinical_scores([reference], [report], "positive")
    assert (strict.f1, strict.micro_f1, strict.f1_5, strict.example_f1) == (0, 0, 0, 0)
    assert lenient.f1 == pytest.approx(2 / 14) and lenient.micro_f1 == lenient.example_f1 == 1
    assert lenient.f1_5 == pytest.approx(1 / 5) and lenient.micro_f1_5 == 1


def test_negative_and_blank_never_count_as_positive() -> None:
    denied = dict.fromkeys(OBSERVATIONS, LabelState.NEGATIVE)
    scores = clinical_scores([BLANK], [denied], "positive")
    assert scores.micro_f1 == 0 and all(row == (0, 0, 0, 0) for row in scores.by_observation.values())


def test_an_observation_absent_from_both_sides_counts_as_zero_and_is_named() -> None:
    found = BLANK | {"Edema": LabelState.POSITIVE}
    scores = clinical_scores([found], [found])
    assert scores.f1 == pytest.approx(1 / 14)
    assert scores.without_positives == tuple(name for name in OBSERVATIONS if name != "Edema")


def test_five_label_scores_need_all_five() -> None:
    found = BLANK | {"Edema": LabelState.POSITIVE}
    scores = clinical_scores([found], [found], observations=["Edema", "Fracture"])
    assert scores.f1 == pytest.approx(1 / 2) and math.isnan(scores.f1_5) and math.isnan(scores.micro_f1_5)


def test_a_flipped_negation_is_caught() -> None:
    references = [label_report("No pleural effusion."), label_report("Mild cardiomegaly.")]
    flipped = [label_report("Pleural effusion."), label_report("Mild cardiomegaly.")]
    scores = clinical_scores([each.states for each in references], [each.states for each in flipped])
    assert scores.by_observation["Pleural Effusion"] == (0, 0, 0, 0)
    assert scores.by_observation["Cardiomegaly"][:3] == (1, 1, 1)
    assert scores.micro_precision < 1


def test_unequal_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="0 references for 1 generated"):
        clinical_statistics([], [BLANK])


def test_a_missing_state_is_named() -> None:
    incomplete = {name: state for name, state in BLANK.items() if name != "Edema"}
    with pytest.raises(CXRLensError, match="generated report 1 have no state for 'Edema'"):
        clinical_scores([BLANK, BLANK], [BLANK, incomplete])


@settings(max_examples=50, deadline=None)
@given(pairs_of_states, st.randoms(use_true_random=False), st.sampled_from(["negative", "positive"]))
def test_bounds_and_order(
    pairs: list[tuple[dict[str, LabelState], dict[str, LabelState]]], rng: random.Random, uncertain: Uncertain
) -> None:
    got = clinical_statistics(*zip(*pairs, strict=True), uncertain).scores()
    assert math.isnan(got["f1_frequent"])  # six studies: no observation has ten positives
    assert all(0 <= value <= 1 for name, value in got.items() if name != "f1_frequent")
    shuffled = rng.sample(pairs, len(pairs))
    again = clinical_statistics(*zip(*shuffled, strict=True), uncertain).scores()
    assert again == pytest.approx(got, nan_ok=True)


@given(st.lists(states, min_size=1, max_size=6))
def test_equal_states_give_one_wherever_something_is_positive(studies: list[dict[str, LabelState]]) -> None:
    scores = clinical_scores(studies, studies)
    assert all(f1 == (1 if positive else 0) for _, _, f1, positive in scores.by_observation.values())


@settings(max_examples=30, deadline=None)
@given(pairs_of_states, st.data())
def test_sums_of_a_resample_give_its_scores(
    pairs: list[tuple[dict[str, LabelState], dict[str, LabelState]]], data: st.DataObject
) -> None:
    drawn = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=9))
    statistics = clinical_statistics(*zip(*pairs, strict=True))
    again = clinical_statistics(*zip(*(pairs[place] for place in drawn), strict=True))
    expected = list(again.scores().values())
    assert statistics.from_sums(statistics.values[drawn].sum(0)) == pytest.approx(expected, nan_ok=True)


def test_the_protocol_says_how() -> None:
    strict = ClinicalProtocol("CheXbert on the reference findings", "CheXbert")
    lenient = ClinicalProtocol("CheXbert on the reference findings", "CheXbert", "positive")
    assert strict.name == "CheXbert, uncertain negative" and strict.name != lenient.name
    assert "does not count as positive" in strict.describe() and "mention counts as positive" in lenient.describe()
    assert "CheXbert on the reference findings" in strict.describe()
