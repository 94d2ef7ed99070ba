"""``cxr-lens label-quality``: against sentences labelled by hand, and against the codes of Open-i."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from core.evaluation.label_quality import CodedReport, read_openi
from core.labels.rules import label_reports
from tests import needs
from tests.commands import refused, run

OPENI = needs.SHARED / "openi"


@pytest.fixture
def openi(tmp_path: Path) -> Path:
    rows = [
        ("1", "Cardiomegaly/mild", "The heart is mildly enlarged.", ""),
        ("2", "normal", "", "No effusion."),
        ("3", "No Indexing", "Edema.", ""),
        ("4", "normal", "", ""),
        ("5", "Pneumonia", "Consistent with pneumonitis.", ""),
    ]
    frame = pd.DataFrame(rows, columns=["uid", "MeSH", "findings", "impression"])
    frame.to_csv(tmp_path / "indiana_reports.csv", index=False)
    return tmp_path


def test_reports_without_codes_or_text_are_left_out(openi: Path) -> None:
    reports = read_openi(openi)
    assert [report.uid for report in reports] == ["1", "2", "5"]
    assert reports == read_openi(openi / "indiana_reports.csv")
    assert reports[0].coded["Cardiomegaly"] == "positive"
    assert reports[1].text == "No effusion."


def test_halves_depend_on_the_number_only() -> None:
    halves = [CodedReport(str(uid), "", (), {}).development for uid in range(4000)]
    assert halves[:8] == [CodedReport(str(uid), "other", ("normal",), {}).development for uid in range(8)]
    assert 1900 < sum(halves) < 2100


def test_quality_prints_three_tables(openi: Path) -> None:
    result = run("label-quality", "--openi", openi, "-n", "40", "--disagreements", "5")
    assert result.exit_code == 0, result.exception
    assert "**macro, 40 reports**" in result.output
    assert "| **all** | 279 |" in result.output
    assert "| **macro, 2 and 1 reports** |" in result.output
    assert "Labeler: rules " in result.output


def test_quality_says_what_is_missing(tmp_path: Path) -> None:
    assert "--sentences" in refused("label-quality", "-n", "10", "--sentences", tmp_path / "none.tsv")
    assert "cannot be read" in refused("label-quality", "-n", "10", "--openi", tmp_path / "indiana_reports.csv")


def test_quality_without_open_i_says_what_was_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = run("label-quality", "-n", "10")
    assert result.exit_code == 0
    assert "| **all** | 279 |" in result.stdout
    assert "not measured. The package torchxrayvision" in result.stderr


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(OPENI, marks=needs.OPENI.unless(OPENI.is_dir())),
        pytest.param(
            None,
            marks=[pytest.mark.slow, needs.REFERENCE.packages("torchxrayvision")],
        ),
    ],
)
def test_reaches_the_codes_of_openi(path: Path | None) -> None:
    from core.evaluation.label_quality import openi_scores

    reports = [report for report in read_openi(path) if not report.development]
    scores = openi_scores(reports, label_reports([report.text for report in reports]))
    assert len(reports) > 1500
    assert scores.f1 >= 0.80
