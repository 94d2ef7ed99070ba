"""What is found, invented, claimed and matched: counts by hand, a peer's intervals, older files, bad input."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from core.evaluation import results as scored
from core.evaluation.auc import macro_aucs
from core.evaluation.claims import above, is_above
from core.evaluation.finds import Finds, Share, false_alarms, false_alarms_of, finds_of, to_row
from core.evaluation.matching import matched
from core.evaluation.results import NEAREST, VERSION, nearest_by_embedding, nearest_title, score_pairs
from core.evaluation.scoring import LabeledReports, score_systems
from core.labels.rules import label_report
from core.studies.phantom import PhantomSource
from core.types import CXRLensError
from tests.conftest import BUNDLES
from training.evaluation_text import evaluation_markdown, finds_csv

TEXTS = {
    "normal": "The lungs are clear.",
    "effusion": "There is a left pleural effusion.",
    "maybe": "Possible pleural effusion.",
    "device": "A pacemaker is present. The lungs are clear.",
    "empty": "",
}
STATES = {name: label_report(text).states for name, text in TEXTS.items()}


def test_false_alarms_by_hand() -> None:
    references = [STATES[name] for name in ("normal", "normal", "normal", "normal", "normal", "effusion")]
    generated = [STATES[name] for name in ("normal", "effusion", "maybe", "device", "empty", "effusion")]
    assert false_alarms(references, generated) == Share(1, 5)
    row = to_row(references, generated)
    assert finds_of(row)["Pleural Effusion"] == Finds(1, 2, 1)
    assert finds_of(row)["Pleural Effusion"].sensitivity.value == 1
    assert finds_of(row)["Pleural Effusion"].precision == Share(1, 2)
    assert false_alarms_of(row) == Share(1, 5)
    assert false_alarms(references[-1:], generated[-1:]) == Share(0, 0)
    assert Share(0, 0).value is None and Share(0, 0).interval is None


@pytest.mark.parametrize(("count", "among"), [(0, 5), (3, 17), (17, 17), (120, 438)])
def test_wilsons_interval_is_statsmodels(count: int, among: int) -> None:
    assert Share(count, among).interval == pytest.approx(proportion_confint(count, among, method="wilson"))


def test_older_results_give_the_counts_that_they_imply() -> None:
    row = {"name": "x", "by_observation": {"Edema": [0.25, 0.5, 1 / 3, 4], "Fracture": [0.0, 0.0, 0.0, 3]}}
    assert finds_of(row) == {"Edema": Finds(4, 8, 2), "Fracture": Finds(3, None, 0)}
    assert finds_of(row)["Fracture"].precision is None
    assert false_alarms_of(row) is None
    with pytest.raises(CXRLensError, match="x has no counts by observation"):
        finds_of({"name": "x"})


def difference(value: float, p: float, low: float | None = None) -> dict[str, object]:
    return {"differences": {"f1": {"difference": value, "p_holm": p, "low": low, "high": None}}}


def test_a_claim_needs_two_seeds_and_holm_in_each() -> None:
    sure, doubtful, below = difference(0.1, 0.01, 0.02), difference(0.1, 0.2, 0.02), difference(-0.1, 0.01, -0.2)
    assert above([{"a": sure}], "f1") is None
    assert above([{"a": sure, "b": sure}, {"a": sure, "b": doubtful}], "f1") == ["a"]
    assert above([{"a": sure}, {"a": below}], "f1") == []
    assert above([{"a": sure}, {"b": sure}], "f1") == []  # not trained again
    assert above([{"a": sure}, {"a": {}}], "f1") is None
    assert above([{"a": sure}, {"a": sure}], "bleu_4") is None
    assert above([{"a": sure}, {"a": sure}], "f1", "differences_own") is None
    assert is_above(difference(0.1, 0.01)["differences"]["f1"])  # type: ignore[index]
    assert not is_above(difference(0.1, 0.01, -0.01)["differences"]["f1"])  # type: ignore[index]


def test_each_pair_is_compared_with_its_own_baseline() -> None:
    studies = PhantomSource(120, 0).studies("train")[:60]
    references = LabeledReports([each.findings for each in studies], [each.labels for each in studies])
    systems = {
        "good": references,
        "bad": references.reordered([*range(1, 60), 0]),
        "base": references.reordered([*range(2, 60), 0, 1]),
        "other": references.reordered([*range(3, 60), 0, 1, 2]),
    }
    rows = score_systems(references, systems, against="base", own={"good": "other"}, resamples=50)
    own = rows["good"]["differences_own"]
    assert own["from"] == "other"
    assert own["micro_f1"]["difference"] == pytest.approx(rows["good"]["micro_f1"] - rows["other"]["micro_f1"])
    assert own["micro_f1"]["p_holm"] == own["micro_f1"]["p_permutation"]  # one test
    assert own["f1"]["low"] is None  # some observations are rare among 60 studies
    assert "differences_own" not in rows["bad"]


def test_the_nearest_report_by_embedding_does_not_follow_what_all_have_in_common() -> None:
    studies = PhantomSource(60, 0).studies("train")[:3]
    common = np.array([50.0, 0, 0], dtype=np.float32)
    train = np.eye(3, dtype=np.float32) + common
    _, texts = nearest_by_embedding(studies, train, np.eye(3, dtype=np.float32)[[2, 0]] + common)
    assert [text.split()[:3] for text in texts] == [studies[place].findings.split()[:3] for place in (2, 0)]
    train[1, 0] = np.nan
    with pytest.raises(CXRLensError, match="embeddings of 1 of 3 studies are no numbers"):
        nearest_by_embedding(studies, train, train)


def test_matching_says_chance_and_refuses_what_cannot_be_matched() -> None:
    random = np.random.default_rng(0)
    words = random.normal(size=(300, 8))
    texts = [str(place) for place in range(300)]
    by_chance = matched(random.normal(size=(300, 8)), words, texts)
    assert "not above chance" in by_chance.describe("CVE")
    sure = matched(
        words / np.linalg.norm(words, axis=1, keepdims=True), words / np.linalg.norm(words, axis=1)[:, None], texts
    )
    assert sure.share == Share(300, 300)
    assert "100.0% of 300 held-out pairs" in sure.describe("CVE") and ": above chance" in sure.describe("CVE")
    with pytest.raises(CXRLensError, match="no two texts"):
        matched(words[:1], words[:1], texts[:1])
    words[0, 0] = np.nan
    with pytest.raises(CXRLensError, match="no number"):
        matched(words, words, texts)


def test_an_auc_of_one_kind_or_of_no_number_is_refused() -> None:
    targets, scores = np.array([[1.0, 0], [0, 0], [1, 0]]), np.zeros((3, 2))
    with pytest.raises(CXRLensError, match="Class 2 of 2 has no positive"):
        macro_aucs(targets, {"a": scores}, subjects=["x", "y", "z"])
    scores[0, 0] = np.nan
    with pytest.raises(CXRLensError, match="a scored 1 of 3 studies with what is no number"):
        macro_aucs(targets[:, :1], {"a": scores[:, :1]}, subjects=["x", "y", "z"])


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two pairs with known reports, beside the nearest reports of two kinds, through JSON."""
    monkeypatch.setattr(scored.java, "missing", lambda: "METEOR is left out here.")
    studies = PhantomSource(200, 0).studies("train")[:100]
    references = LabeledReports([each.findings for each in studies], [each.labels for each in studies])
    cards = [
        SimpleNamespace(name=f"x-{name}-m2", encoder=name, decoder="m2", pair=(name, "m2"), family="x")
        for name in ("fve", "cve")
    ]
    texts = [study.findings for study in studies]
    written = {"x-fve-m2": references, "x-cve-m2": scored.label_texts(texts[1:] + texts[:1])}
    content = score_pairs(
        cast(Any, cards),
        references,
        [each.subject_id for each in studies],
        written,
        scored.label_baselines({NEAREST: ("by pixels", texts[2:] + texts[:2])}),
        "known",
        nearest=scored.label_baselines(
            {"fve": ("by FVE", texts[3:] + texts[:3]), "cve": ("by CVE", texts[1:] + texts[:1])}
        ),
    )
    return json.loads(json.dumps({"studies": 100, **content}, allow_nan=False))  # type: ignore[no-any-return]


def test_an_evaluation_says_all_of_it(results: dict[str, Any]) -> None:
    assert results["version"] == VERSION
    assert "No Finding" in results["frequent"]
    good, bad = results["rows"]
    assert good["differences_own"]["from"] == nearest_title("fve") == "nearest training report, FVE's embeddings"
    # CVE + M2 writes what the nearest report by its embeddings says: no difference at all.
    assert bad["differences_own"]["micro_f1"]["difference"] == 0
    assert bad["differences_own"]["micro_f1"]["p_holm"] == 1
    assert {each["name"] for each in results["baselines"]} >= {NEAREST, nearest_title("fve"), nearest_title("cve")}
    text = evaluation_markdown(results)
    head, line = text.splitlines()[0], next(each for each in text.splitlines() if each.startswith("| fve | m2"))
    assert head.count("|") == line.count("|")
    assert "Macro F1, at least 10 positives less the nearest report's by its own embeddings" in head
    normal, alarms = false_alarms_of(bad).among, false_alarms_of(bad).count  # type: ignore[union-attr]
    assert f"; {alarms} of {normal})" in next(each for each in text.splitlines() if each.startswith("| x-cve-m2"))
    assert f"At least 10 positives have {len(results['frequent'])} observations: " in text
    rows = list(csv.DictReader(finds_csv(results).splitlines()))
    own = [row for row in rows if row["system"] == "x-fve-m2" and row["measure"] == "sensitivity"]
    assert all(row["count"] == row["among"] for row in own if row["observation"] == "No Finding")
    assert {row["measure"] for row in rows} == {"normal studies called abnormal", "sensitivity", "precision"}


def test_an_older_evaluation_is_printed_without_what_it_lacks() -> None:
    older = json.loads((BUNDLES / "openi-results.json").read_text(encoding="utf-8"))
    for row in (*older["rows"], *older["baselines"]):
        for later in ("finds", "false_alarms"):
            row.pop(later, None)
    text = evaluation_markdown(older)
    assert "| fve | m2 |" in text and "Cardiomegaly (27)" in text
    assert "normal studies called abnormal" not in finds_csv(older)
