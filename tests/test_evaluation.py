"""Evaluations: read back, labelled once, sliced and compared as one would by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import core.evaluation.reports
from core.evaluation.reports import Evaluation, Known, read_evaluation, write_labels
from core.labels.compare import Outcome
from core.observations import NO_FINDING, OBSERVATIONS, LabelState
from core.types import CXRLensError
from dashboard.components.score_table import FORMATS, as_text
from tests import needs

CLEAR, EFFUSION, LARGE = "The lungs are clear.", "There is a left pleural effusion.", "The heart is enlarged."
ROWS = [
    {"study_id": "a", "reference": EFFUSION, "good": EFFUSION, "bad": CLEAR},
    {"study_id": "b", "reference": EFFUSION, "good": EFFUSION, "bad": LARGE},
    {"study_id": "c", "reference": CLEAR, "good": CLEAR, "bad": EFFUSION},
    {"study_id": "d", "reference": LARGE, "good": "No pleural effusion.", "bad": LARGE},
]


def written(folder: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    path = folder / "reports.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def found(tmp_path: Path) -> Evaluation:
    return read_evaluation(written(tmp_path))


def test_outcomes_and_errors_by_hand(found: Evaluation) -> None:
    assert found.where("good", "Pleural Effusion", Outcome.FOUND) == ["a", "b"]
    assert found.where("bad", "Pleural Effusion", Outcome.MISSED) == ["a", "b"]
    assert found.where("bad", "Pleural Effusion", Outcome.INVENTED) == ["c"]
    assert found.errors["good"].tolist() == [0, 0, 0, 2]  # the heart missed, No Finding invented
    assert found.errors["bad"].tolist() == [2, 2, 2, 0]


def test_slices_are_the_scores_of_their_studies_alone_and_the_worst_comes_first(found: Evaluation) -> None:
    groups = {"effusion": np.array([1, 1, 0, 0], bool), "rest": np.array([0, 0, 1, 1], bool), "none": np.zeros(4, bool)}
    parts = found.slices("good", groups, "micro_f1")
    assert [(each.name, each.count) for each in parts] == [("rest", 2), ("effusion", 2)]
    # Of "rest" No Finding of c is right, that of d is wrong, and its heart is missed: 2 * 1 / (2 + 2).
    assert parts[0].score == pytest.approx(0.5)
    assert parts[1].score == 1
    assert parts[1].low == parts[1].high == 1
    (alone,) = found.slices("good", {"one": np.array([1, 0, 0, 0], bool)}, "micro_f1")
    assert np.isnan(alone.low)


def test_two_systems_are_compared_on_the_same_studies(found: Evaluation) -> None:
    test = found.against("good", "bad", ["micro_f1"])["micro_f1"]
    scores = {name: found.statistics[name].scores()["micro_f1"] for name in ("good", "bad")}
    assert test.difference == pytest.approx(scores["good"] - scores["bad"])
    assert found.against("bad", "good", ["micro_f1"])["micro_f1"].difference == pytest.approx(-test.difference)


def test_a_known_truth_wins_over_the_reference_and_chooses_the_studies(tmp_path: Path) -> None:
    blank = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    truth = {each: Known(f"patient {each}", blank | {NO_FINDING: LabelState.POSITIVE}) for each in "ca"}
    found = read_evaluation(written(tmp_path), truth)
    assert found.study_ids == ("a", "c")
    assert found.left_out == 2
    assert found.subjects == ("patient a", "patient c")
    assert found.where("good", "Pleural Effusion", Outcome.INVENTED) == ["a"]
    with pytest.raises(CXRLensError, match="no study that is known here"):
        read_evaluation(written(tmp_path), {"z": truth["a"]})


def test_labels_are_read_once_and_again_when_the_reports_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    label = core.evaluation.reports.label_report
    monkeypatch.setattr(core.evaluation.reports, "label_report", lambda text: read.append(text) or label(text))
    first = read_evaluation(written(tmp_path), cache=tmp_path / "cache")
    assert sorted(read) == sorted({CLEAR, EFFUSION, LARGE, "No pleural effusion."})  # each text once
    again = read_evaluation(written(tmp_path), cache=tmp_path / "cache")
    assert len(read) == 4
    assert again.states == first.states
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:40])  # cut short
    assert read_evaluation(written(tmp_path), cache=tmp_path / "cache").states == first.states
    read.clear()
    read_evaluation(written(tmp_path, ROWS[:3]), cache=tmp_path / "cache")
    assert read


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is missing"), ("{", "is damaged"), ('{"reference": "x"}\n', "is damaged")]
)
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "reports.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CXRLensError, match=rf"reports\.jsonl {message}"):
        read_evaluation(path, {"x": Known("x", {})} if content and "reference" in content else None)


LINE = '{"study_id": "s1", "reference": "No effusion.", "A": "Clear lungs."}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LINE + "\n" + LINE, "line 3 is of study s1, as line 1"),
        (LINE.replace('"s1"', "1") + LINE.replace('"s1"', "1.0"), "line 2 is of study 1, as line 1"),
        (LINE.replace('"s1"', '"1"') + LINE.replace('"s1"', '"1.0"'), "line 2 is of study 1, as line 1"),
        (LINE.replace('"Clear lungs."', "null"), "line 1: 'A' of study s1 is null, no text"),
        (LINE.replace('"No effusion."', "null"), "line 1: 'reference' of study s1 is null"),
        (LINE.replace('"Clear lungs."', "[]"), "'A' of study s1 is .., no text"),
        (LINE.replace('"Clear lungs."', "NaN"), "line 1 is no JSON .NaN is no number"),
        (LINE.replace('"s1"', "NaN"), "NaN is no number"),
        (LINE.replace('"s1"', "null"), "its study_id is null"),
        (LINE.replace('"s1"', "true"), "its study_id is true"),
        (LINE.replace('"s1"', '""'), "its study_id is"),
        (LINE + LINE.replace("s1", "s2").replace('"A"', '"B"'), "line 2 and line 1 have not the same systems .A, B"),
        (LINE + LINE.replace("s1", "s2")[:40], "line 2 is no JSON"),
        (LINE + "[1]\n", "line 2 has no study_id"),
        ("\n", "holds no study"),
    ],
)
def test_what_would_give_wrong_numbers_is_refused_and_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "reports.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CXRLensError, match=message):
        read_evaluation(path)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1e"])
def test_only_line_feeds_end_a_line(tmp_path: Path, character: str) -> None:
    rows = [{"study_id": each, "reference": f"No effusion.{character}Clear lungs.", "A": "x"} for each in "ab"]
    path = tmp_path / "reports.jsonl"
    for ends, mark in (("\n", ""), ("\r\n", "\ufeff"), ("\n\n", "")):
        lines = [json.dumps(row, ensure_ascii=ord(character) < 32) for row in rows]
        path.write_text(mark + ends.join(lines) + ends, encoding="utf-8", newline="")
        found = read_evaluation(path)
        assert found.study_ids == ("a", "b")
        assert found.references == (rows[0]["reference"],) * 2


def test_silence_scores_nothing_on_normal_studies(tmp_path: Path) -> None:
    systems = {"empty": "", "unknown": "<unknown> <unknown>", "none": "None.", "normal": "The lungs are clear."}
    rows = [
        {"study_id": str(place), "reference": EFFUSION if place % 5 == 0 else CLEAR, **systems} for place in range(20)
    ]
    found = read_evaluation(written(tmp_path, rows))
    for name in ("empty", "unknown", "none"):
        assert found.statistics[name].scores()["micro_f1"] == 0
        assert found.where(name, NO_FINDING, Outcome.MISSED) == [str(place) for place in range(20) if place % 5]
        assert len(found.where(name, "Pleural Effusion", Outcome.MISSED)) == 4
    assert found.statistics["normal"].scores()["micro_f1"] == pytest.approx(2 * 16 / (20 + 20))


@needs.CASES.unless(needs.FIELD.is_dir())
def test_reports_from_the_field() -> None:
    with pytest.raises(CXRLensError, match="line 2 is of study s1, as line 1"):
        read_evaluation(needs.FIELD / "f31_reports.jsonl")
    assert read_evaluation(needs.FIELD / "f32_reports_line_separator.jsonl").study_ids == ("s1", "s2")


def test_the_labels_beside_the_shipped_reports_are_of_these_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        core.evaluation.reports, "label_report", lambda text: pytest.fail("CONTRIBUTING.md says how to renew")
    )
    path = Path(__file__).resolve().parent.parent / "assets" / "bundles" / "phantom-reports.jsonl"
    assert len(read_evaluation(path).study_ids) == 400


def test_saved_tables_keep_numbers_and_say_what_they_are_for() -> None:
    table = pd.DataFrame({"Pair": ["a | b", "50 % & more_"], "F1": [0.12345, float("nan")]})
    texts = {kind: as_text(table, kind, "A title") for kind in FORMATS}
    assert all("Research only. Not a medical device." in text and "A title" in text for text in texts.values())
    back = pd.read_csv(io.StringIO(texts["CSV"]), comment="#")
    pd.testing.assert_frame_equal(back, table)
    assert r"| a \| b | 0.123 |" in texts["Markdown"]
    assert r"50 \% \& more\_ &  \\" in texts["LaTeX"]


def test_labels_beside_the_reports_are_used_while_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    first = read_evaluation(path)
    kept = write_labels(path)
    assert kept.name == "labels.npz"
    monkeypatch.setattr(core.evaluation.reports, "label_report", lambda text: pytest.fail("labelled again"))
    assert read_evaluation(path).states == first.states
    with pytest.raises(pytest.fail.Exception):
        read_evaluation(written(tmp_path, ROWS[:3]))  # other reports
    written(tmp_path)
    kept.write_bytes(kept.read_bytes()[:60])
    with pytest.raises(pytest.fail.Exception):
        read_evaluation(path)
