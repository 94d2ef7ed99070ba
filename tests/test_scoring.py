"""Rows of a table: complete, fit for JSON, and right about planted systems."""

from __future__ import annotations

import json
import random
from typing import cast
from unittest import mock

import numpy as np
import pytest

from core.evaluation.clinical import clinical_scores
from core.evaluation.java import Meteor, MeteorError
from core.evaluation.language import language_statistics
from core.evaluation.resampling import StudyStatistics
from core.evaluation.scoring import RESAMPLED, LabeledReports, score_systems
from core.labels.rules import label_report
from core.observations import LabelState
from core.studies.phantom import PhantomSource
from core.types import CXRLensError


def labeled(texts: list[str]) -> LabeledReports:
    return LabeledReports(texts, [label_report(text).states for text in texts])


@pytest.fixture(scope="module")
def studies() -> tuple[LabeledReports, dict[str, LabeledReports]]:
    """References, and systems of known worth: right in every second study, in every fourth, in none; and one report."""
    source = PhantomSource(300, 0).studies("train")[:160]
    references = labeled([study.findings for study in source])
    rng = random.Random(0)
    places = list(range(160))
    order = {
        name: [place if share and place % share == 0 else rng.choice(places) for place in places]
        for name, share in {"good": 2, "fair": 4, "chance": 0}.items()
    }
    systems = {name: references.reordered(each) for name, each in order.items()}
    return references, {**systems, "constant": references.reordered([0] * 160)}


def test_rows_are_whole_and_right(studies: tuple[LabeledReports, dict[str, LabeledReports]]) -> None:
    references, systems = studies
    rows = score_systems(references, systems, against="chance", resamples=300)
    assert json.loads(json.dumps(rows)) == rows
    for name, row in rows.items():
        direct = clinical_scores(references.states, systems[name].states)
        assert (row["precision"], row["f1"], row["f1_5"]) == (direct.precision, direct.f1, direct.f1_5)
        language = language_statistics(references.texts, systems[name].texts).scores()
        assert {score: row[score] for score in language} == language
        for score in RESAMPLED:
            low, high = row["intervals"][score]
            assert low < row[score] < high, (name, score)
    assert rows["good"]["f1"] > rows["fair"]["f1"] > rows["chance"]["f1"]
    assert "differences" not in rows["chance"]
    for name in ("good", "fair"):
        for score in RESAMPLED:
            difference = rows[name]["differences"][score]
            assert difference["difference"] == pytest.approx(rows[name][score] - rows["chance"][score])
            assert difference["low"] > 0 and difference["p_permutation"] <= difference["p_holm"] < 0.05
    assert rows["good"]["warnings"] == []
    assert any("one report was written for 100%" in text for text in rows["constant"]["warnings"])


def test_patients_widen_intervals(studies: tuple[LabeledReports, dict[str, LabeledReports]]) -> None:
    references, systems = studies
    system = {"chance": systems["chance"].reordered([place // 8 * 8 for place in range(160)])}
    eights = references.reordered([place // 8 * 8 for place in range(160)])  # eight equal studies a patient
    subjects = [str(place // 8) for place in range(160)]
    by_study, by_patient = (
        score_systems(eights, system, subjects=each, resamples=300)["chance"]["intervals"]["micro_f1"]
        for each in (None, subjects)
    )
    assert by_patient[1] - by_patient[0] > 1.5 * (by_study[1] - by_study[0])


def test_one_study_is_refused_with_a_reason() -> None:
    one = LabeledReports(["No effusion."], [label_report("No effusion.").states])
    with pytest.raises(CXRLensError, match="CIDEr cannot be computed from 1 report"):
        score_systems(one, {"same": one})


class Failing:
    """METEOR's program that stumbles over one system."""

    def statistics(self, references: list[list[str]], generated: list[list[str]]) -> StudyStatistics:
        if ["stumble"] in generated:
            raise MeteorError("1 of the generated reports has too many words.")
        return StudyStatistics(("meteor",), np.ones((len(generated), 1)), np.sign)


def test_one_system_without_meteor_leaves_the_others_theirs() -> None:
    references = labeled(["No effusion.", "Edema is seen.", "Clear lungs."])
    systems = {"good": references, "bad": labeled(["stumble", "", ""]), "base": references.reordered([1, 2, 0])}
    meteor = cast(Meteor, Failing())
    rows = score_systems(references, systems, against="base", meteor=meteor, resamples=20)
    assert "meteor" not in rows["bad"] and rows["bad"]["missing"] == {"meteor": mock.ANY}
    assert "too many words" in rows["bad"]["missing"]["meteor"]
    assert rows["good"]["meteor"] == rows["base"]["meteor"] == 1
    assert "meteor" in rows["good"]["differences"] and "meteor" not in rows["bad"]["differences"]
    assert {"f1", "bleu_1"} <= set(rows["bad"]["intervals"]) and "missing" not in rows["good"]
    rows = score_systems(references, systems, against="bad", meteor=meteor, resamples=20)
    assert all("meteor" not in rows[name]["differences"] for name in ("good", "base"))


def test_uncertain_mentions_by_both_rules() -> None:
    texts = ["Edema is possible.", "Edema is seen."]
    references = labeled(texts)
    assert references.states[0]["Edema"] is LabelState.UNCERTAIN
    row = score_systems(references, {"flipped": references.reordered([1, 0])}, resamples=20)["flipped"]
    assert row["by_observation"]["Edema"][2] == 0
    assert row["f1_uncertain_positive"] > 0
