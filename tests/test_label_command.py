"""``cxr-lens label``: what goes in, what comes out, what is refused."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import core.labels.files as label_files
from core.labels.rules import LabeledReport, label_report, label_reports
from core.observations import OBSERVATIONS
from core.types import CXRLensError
from tests import needs
from tests.commands import in_its_own_process, refused, run
from tests.conftest import ROOT

OPENI = needs.SHARED / "openi"
REPORTS = [
    "The heart is enlarged. No effusion.",
    "Possible pneumonia.\nNo pneumothorax.",
    "",
    "Lungs are clear, with a PICC in place.",
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "reports.csv"
    pd.DataFrame({"study": ["a", "b", "c", "d"], "findings": REPORTS}).to_csv(path, index=False)
    return path


# --- output ---


def test_states_and_evidence_of_a_table(table: Path, tmp_path: Path) -> None:
    result = run("label", table, "--keep", "study")
    assert result.exit_code == 0, result.output
    assert "4 reports, " in result.output
    assert "reports a second" in result.output
    assert "1 rows without text: their labels are blank" in result.output
    rows = pd.read_csv(tmp_path / "reports.labels.csv")
    assert list(rows.columns) == ["row", "study", *OBSERVATIONS, "evidence"]
    assert list(rows["row"]) == [0, 1, 2, 3]
    assert list(rows["study"]) == ["a", "b", "c", "d"]
    assert list(rows["Cardiomegaly"]) == ["positive", "blank", "blank", "blank"]
    assert list(rows["No Finding"]) == ["blank", "blank", "blank", "positive"]
    assert json.loads(rows["evidence"][0])[1] == {
        "observation": "Pleural Effusion",
        "state": "negative",
        "words": "effusion",
        "start": 26,
        "end": 34,
        "reason": "no",
        "sentence": "No effusion.",
    }
    assert not (tmp_path / "reports.labels.csv.parts").exists()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_every_form_of_output_says_the_same(suffix: str, table: Path, tmp_path: Path) -> None:
    out = tmp_path / f"out{suffix}"
    assert run("label", table, "--out", out).exit_code == 0
    if suffix == ".csv":
        rows = pd.read_csv(out).to_dict("records")
        for row in rows:
            row["evidence"] = json.loads(row["evidence"])
    elif suffix == ".parquet":
        rows = pq.read_table(out).to_pylist()
    else:
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    for row, text in zip(rows, REPORTS, strict=True):
        expected = label_report(text)
        if text:
            assert {name: row[name] for name in OBSERVATIONS} == expected.states
        assert [(e["observation"], e["state"]) for e in row["evidence"]] == [
            (mention.observation, mention.state) for mention in expected.mentions
        ]
        assert all(text[e["start"] : e["end"]] == e["words"] for e in row["evidence"])


RELEASED = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PORTABLE AP)

 INDICATION:  ___ year old woman, question of pneumonia.

 FINDINGS:

 The lungs are clear without
 effusion.
"""


def test_a_released_report_is_one_report(tmp_path: Path) -> None:
    path = tmp_path / "s50414267.txt"
    wrapped = "There is no focal consolidation,\npleural effusion or\npneumothorax. The heart is\nnormal in size.\n"
    for text, expected in (
        (RELEASED, {"Pleural Effusion"}),
        (wrapped, {"Consolidation", "Pneumothorax", "Cardiomegaly"}),
    ):
        path.write_text(text, encoding="utf-8")
        result = run("label", path, "--overwrite")
        assert result.exit_code == 0, result.output
        assert "is read as one report over many lines" in result.output
        (row,) = pd.read_csv(tmp_path / "s50414267.labels.csv").to_dict("records")
        assert expected <= {name for name in OBSERVATIONS if row[name] == "negative"}
        assert row["Pneumonia"] == "blank"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_reports_a_line_are_many_reports(tmp_path: Path, end: str) -> None:
    path = tmp_path / "reports.txt"
    lines = ["FINDINGS: No effusion. IMPRESSION: Normal.", "FINDINGS: Small effusion.", "The heart is enlarged."]
    path.write_text(end.join(lines), encoding="utf-8", newline="")
    result = run("label", path)
    assert "3 reports" in result.output and "one report" not in result.output
    path.write_text("no effusion" + end + "small effusion" + end, encoding="utf-8", newline="")
    assert "2 reports" in run("label", path, "--overwrite").output


@pytest.mark.parametrize("zipped", [True, False])
def test_a_plain_table_named_gz_is_read(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "reports.csv.gz"
    data = "\ufeffreport\nNo effusion.\n".encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert run("label", path).exit_code == 0
    assert list(pd.read_csv(tmp_path / "reports.labels.csv")["Pleural Effusion"]) == ["negative"]


@needs.CASES.unless(needs.FIELD.is_dir())
def test_a_released_report_from_the_field(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    result = run("label", needs.FIELD / "f33_one_released_report.txt", "--out", out)
    assert "one report over many lines" in result.output
    (row,) = pd.read_csv(out).to_dict("records")
    assert (row["Pleural Effusion"], row["Pneumonia"]) == ("negative", "negative")


@needs.CASES.unless(needs.FIELD.is_dir())
def test_cells_that_say_nothing_from_the_field(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    result = run("label", needs.FIELD / "f34_cells_that_say_nothing.csv", "--column", "report", "--out", out)
    assert "5 rows without text" in result.output
    rows = pd.read_csv(out)
    assert set(rows[list(OBSERVATIONS)].iloc[:5].to_numpy().ravel()) == {"blank"}


def test_chexperts_table_is_the_published_one(tmp_path: Path) -> None:
    """chexpert-labeler's sample_reports.csv gives its labeled_reports.csv, order, codes and all."""
    reports = [
        "Heart size normal and lungs are clear. No edema or pneumonia. No effusion",
        "1. Left pleural effusion with adjacent atelectasis. Right effusion is also present.\n\n"
        "2. Cardiomegaly without overt edema.",
        "Minimal patchy airspace disease within the lingula, may reflect atelectasis or consolidation.",
        "1. Stable mild cardiomegaly. 2. Hyperexpanded but clear lungs.",
    ]
    pd.DataFrame({"Reports": reports}).to_csv(tmp_path / "sample.csv", index=False)
    assert run("label", tmp_path / "sample.csv", "--format", "chexpert").exit_code == 0
    with (tmp_path / "sample.labels.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert ",".join(header) == (
        "Reports,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Lesion,Lung Opacity,Edema,Consolidation,"
        "Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
    )
    assert [row[0] for row in rows] == reports
    assert [",".join(row[1:]) for row in rows] == [
        "1.0,,0.0,,,0.0,,0.0,,,0.0,,,",
        ",,1.0,,,0.0,,,1.0,,1.0,,,",
        ",,,,1.0,,-1.0,,-1.0,,,,,",
        ",,1.0,,,,,,,,,,,",
    ]


def test_chexberts_table_has_its_own_order(table: Path, tmp_path: Path) -> None:
    assert run("label", table, "--format", "chexbert", "--out", tmp_path / "out.parquet").exit_code == 0
    rows = pq.read_table(tmp_path / "out.parquet")
    assert ",".join(rows.column_names) == (
        "Report Impression,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,"
        "Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices,No Finding"
    )
    assert rows["Pneumonia"].to_pylist() == [None, -1.0, None, None]
    assert rows["Pneumothorax"].to_pylist() == [None, 0.0, None, None]
    assert rows["No Finding"].to_pylist() == [None, None, None, 1.0]


# --- input ---


def labels_of(path: Path, *arguments: object) -> list[dict[str, str]]:
    out = path.parent / "labels.jsonl"
    result = run("label", path, "--out", out, "--overwrite", *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return [{name: row[name] for name in OBSERVATIONS if row[name] != "blank"} for row in rows]


def test_text_has_a_report_a_line(tmp_path: Path) -> None:
    (tmp_path / "reports.txt").write_text("No effusion.\n\n  Edema.\n", encoding="utf-8")
    assert labels_of(tmp_path / "reports.txt") == [
        {"Pleural Effusion": "negative", "No Finding": "positive"},
        {},
        {"Edema": "positive"},
    ]


def test_parquet_gzip_and_several_columns(tmp_path: Path) -> None:
    frame = {"findings": ["Edema.", None, "nan"], "impression": ["No effusion.", "Nodule.", None]}
    pq.write_table(pa.table(frame), tmp_path / "reports.parquet")
    columns = ("--column", "findings", "--column", "impression")
    expected = [{"Edema": "positive", "Pleural Effusion": "negative"}, {"Lung Lesion": "positive"}, {}]
    assert labels_of(tmp_path / "reports.parquet", *columns) == expected
    with gzip.open(tmp_path / "reports.csv.gz", "wt", encoding="utf-8") as file:
        pd.DataFrame(frame).to_csv(file, index=False)
    assert labels_of(tmp_path / "reports.csv.gz", *columns) == expected


def test_broken_bytes_and_long_reports_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    path.write_bytes(b"report\nEdema \xe9tendu.\n" + b"No effusion. " * 9000 + b"\n")
    result = run("label", path)
    assert result.exit_code == 0
    assert "1 reports with bytes that are not UTF-8" in result.output
    assert "1 reports of more than 100,000 characters" in result.output
    rows = pd.read_csv(tmp_path / "reports.labels.csv")
    assert json.loads(rows["evidence"][0])[0]["sentence"] == "Edema �tendu."
    assert list(rows["Pleural Effusion"]) == ["blank", "negative"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty (0 bytes)"),
        ("a.csv", b"report\n", "holds no report: 0 rows, none with text"),
        ("a.csv", b"report,id\n,1\nNaN,2\n", "holds no report: 2 rows, none with text"),
        ("a.txt", b"\n\n", "holds no report: 2 rows, none with text"),
        ("a.csv", "report\nNo edema.\n".encode("utf-16"), "is in UTF-16"),
        ("a.txt", b"\x00\x01\x02", "is in UTF-16 or no text at all"),
        ("a.csv", b"No edema and no effusion today.\nEdema.\n", "has no header"),
        ("a.csv", b"id,report\n1,Edema.\n2", "line 3: 1 fields where the header has 2"),
        ("a.csv.gz", b"\x1f\x8breport\nEdema.\n", "cannot be read"),
        ("a.parquet", b"PAR1 not really", "is not a Parquet file, or was cut off"),
        ("a.xlsx", b"PK", "reports are read from .csv, .csv.gz, .parquet and .txt"),
        ("a.csv", b"one,two\nEdema.,1\n", "Choose with --column: one, two"),
    ],
)
def test_what_cannot_be_read_is_said(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refused("label", tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_wrong_column_names_the_nearest(table: Path) -> None:
    assert "has no column Finding. Did you mean findings?" in refused("label", table, "--column", "Finding")
    assert "has no column xyz. It has: study, findings." in refused("label", table, "--column", "xyz")
    assert "has no column studi. Did you mean study?" in refused("label", table, "--keep", "studi")


def test_nothing_is_overwritten_unasked(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("mine", encoding="utf-8")
    assert "is there already" in refused("label", table, "--out", out)
    assert out.read_text(encoding="utf-8") == "mine"
    assert "cannot be the file that is read" in refused("label", table, "--out", table, "--overwrite")
    assert run("label", table, "--out", out, "--overwrite").exit_code == 0
    assert "must end in .csv, .parquet or .jsonl" in refused("label", table, "--out", tmp_path / "out.xml")
    assert "There is no file" in refused("label", tmp_path / "none.csv")
    pd.DataFrame({"report": ["Edema."], "Edema": [1]}).to_csv(table, index=False)
    assert "Column Edema cannot be kept" in refused("label", table, "--out", tmp_path / "o.csv", "--keep", "Edema")


def test_an_error_is_one_line(tmp_path: Path) -> None:
    done = in_its_own_process("label", tmp_path / "none.csv")
    assert done.returncode == 2
    assert done.stderr == f"cxr-lens: There is no file {tmp_path / 'none.csv'}.\n"


def test_chexbert_without_weights_says_so_before_any_work(table: Path, tmp_path: Path) -> None:
    assert "--checkpoint FILE" in refused("label", table, "--labeler", "chexbert")
    nowhere = tmp_path / "chexbert.pth"
    assert str(nowhere) in refused("label", table, "--labeler", "chexbert", "--checkpoint", nowhere)
    assert [path.name for path in tmp_path.iterdir()] == [table.name]


# --- interruption ---


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(label_files, "_PART", 10)
    path = tmp_path / "many.csv"
    pd.DataFrame({"report": [f"Nodule of {n} mm. {REPORTS[n % 4]}" for n in range(45)]}).to_csv(path, index=False)
    return path


class Interrupted:
    """A labeler that is interrupted at its third part."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, texts: Sequence[str]) -> list[LabeledReport]:
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return label_reports(texts)


def label_with(labeler: label_files.Labeler, path: Path, out: Path, version: str = "1") -> label_files.Outcome:
    reports = label_files.find_reports(path)
    return label_files.label_file(reports, out, "states", labeler, version, label_files.take_census(reports))


def test_an_interrupted_run_goes_on_to_the_same_result(many: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert label_with(label_reports, many, whole).resumed == 0
    with pytest.raises(KeyboardInterrupt):
        label_with(Interrupted(), many, out)
    assert not out.exists()
    seen: list[str] = []

    def remember(texts: Sequence[str]) -> list[LabeledReport]:
        seen.extend(texts)
        return label_reports(texts)

    outcome = label_with(remember, many, out)
    assert outcome.resumed == 20
    assert len(seen) == 25
    assert outcome.counts["Lung Lesion"]["positive"] == 45  # type: ignore[index]
    assert out.read_bytes() == whole.read_bytes()


def test_parts_of_other_rules_or_reports_are_not_used(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    for change in ("rules", "reports"):
        with pytest.raises(KeyboardInterrupt):
            label_with(Interrupted(), many, out)
        if change == "reports":
            many.write_text(many.read_text(encoding="utf-8").replace("Nodule", "Mass"), encoding="utf-8")
        assert label_with(label_reports, many, out, "2" if change == "rules" else "1").resumed == 0
        out.unlink()


def test_a_full_disk_is_said_and_loses_nothing(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr(label_files, "_join", full)
        with pytest.raises(CXRLensError, match="No space left on device"):
            label_with(label_reports, many, out)
    assert not out.exists()
    assert label_with(label_reports, many, out).resumed == 45


HELD = """
import sys, time
from pathlib import Path
from core.labels import rules
from training import cli

label_report = rules.label_report

def held(text):
    if text.startswith("Nodule of 11999 mm"):  # the last report: the work cannot end before the key, however fast
        while not pressed.exists():
            time.sleep(0.05)
        time.sleep(2)
    return label_report(text)

pressed = Path(sys.argv.pop(1))
rules.label_report = held
cli.main()
"""


@pytest.mark.slow
def test_control_c_leaves_no_traceback_and_the_next_run_ends_it(tmp_path: Path) -> None:
    path, out = tmp_path / "many.csv", tmp_path / "out.csv"
    text = " ".join(REPORTS)
    pd.DataFrame({"report": [f"Nodule of {n} mm. {text}" for n in range(12_000)]}).to_csv(path, index=False)
    arguments = ["label", str(path), "--out", str(out), "--processes", "2"]
    command = [sys.executable, "-c", HELD, str(tmp_path / "pressed"), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list((tmp_path / "out.csv.parts").glob("*.parquet")):  # the sign that work has begun
        time.sleep(0.05)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    (tmp_path / "pressed").touch()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "run the same command again to go on" in error
    assert not out.exists()
    assert "by an earlier run" in in_its_own_process(*arguments).stdout
    assert len(pd.read_csv(out)) == 12_000
