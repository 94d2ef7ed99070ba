"""Tables on disk: written whole, read back equal, refused with a clear message when damaged."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from core.files import DiskError
from core.paper.tables import (
    PRINTED,
    Cell,
    PaperTable,
    Row,
    TableError,
    beside,
    paper_numbers,
    read_table,
    read_tables,
    to_csv,
    to_markdown,
    write_table,
)
from tests.conftest import ROOT
from training.paper.tables import read_results, table_1
from training.run_folder import StageError

PAPER = ROOT / "assets" / "paper"


def example() -> PaperTable:
    paper = paper_numbers(PAPER, "1")["fve", "m2"]
    cells = beside({"bleu_4": 0.268, "f1": 0.735}, paper, intervals={"f1": (0.704, 0.762)}, sd={"bleu_4": 0.004})
    return PaperTable(
        name="1",
        family="phantom",
        metrics={name: PRINTED[name] for name in ("bleu_4", "f1")},
        rows=(
            Row(name="FVE, M2", keys={"encoder": "fve", "decoder": "m2"}, metrics=cells),
            Row(name="constant report", kind="baseline", metrics=beside({"f1": 0.126}), note="one report for all"),
        ),
        n=400,
        seeds=(1, 2, 3),
        command="cxr-lens table 1 --preset phantom",
        data="held-out phantoms.",
        notes=("Not the paper's data.",),
    )


def test_a_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = write_table(tmp_path, example())
    assert path == tmp_path / "phantom" / "table-1.json"
    assert read_table(path) == example()
    assert read_tables(tmp_path, "phantom") == ({"1": example()}, ())
    assert sorted(each.name for each in path.parent.iterdir()) == ["table-1.csv", "table-1.json", "table-1.md"]


def test_the_papers_numbers_stand_beside_ours_with_the_difference() -> None:
    cell = example().rows[0].metrics["f1"]
    assert cell.paper == 0.236  # as printed, M2 with FVE
    assert cell.difference == pytest.approx(0.499)
    lines = list(csv.DictReader(io.StringIO(to_csv(example()))))
    assert [line["metric"] for line in lines] == ["bleu_4", "f1", "f1"]
    assert lines[1]["difference"] == "0.499"
    assert lines[2]["paper"] == ""
    text = to_markdown(example())
    assert "| FVE, M2 | 0.268 ± 0.004<br>0.090, +0.178 | 0.735 (0.704 to 0.762)<br>0.236, +0.499 |" in text
    assert "| *constant report* |  | 0.126 |" in text
    assert "Seeds 1, 2, 3." in text


def test_all_numbers_of_the_paper_are_there() -> None:
    assert len(paper_numbers(PAPER, "1")) == 12
    assert paper_numbers(PAPER, "1")["cve", "cnn_rnn_rnn"]["cider"] == 0.096
    assert paper_numbers(PAPER, "2")["convnext_small",] == {"auc": 0.829}
    assert paper_numbers(PAPER, "3")["gt_fine_labels_text",]["f1"] == 0.778
    assert paper_numbers(PAPER, "filters") == {}
    assert paper_numbers(PAPER, "ccve") == {("ccve", "pca_catboost"): {"auc": 0.711}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema=99), "version 99"),
        (lambda c: c.update(name="9"), "no table '9'"),
        (lambda c: c.update(rows=[]), "no rows"),
        (lambda c: c.pop("command"), "no field 'command'"),
        (lambda c: c["rows"][0]["metrics"].update(x={"value": 1.0}), "without a column: x"),
        (lambda c: c["rows"][0]["metrics"]["f1"].update(value="much"), "f1.value': Input should be a valid number"),
        (lambda c: c["rows"][0]["metrics"]["f1"].update(low=None), "both its ends"),
        (lambda c: c["rows"][0].update(metrics=3), "no table"),
        (lambda c: c.update(rows="text"), "no table"),
    ],
)
def test_a_damaged_table_is_named_with_what_to_do(change: object, message: str, tmp_path: Path) -> None:
    path = write_table(tmp_path, example())
    content = json.loads(path.read_text())
    change(content)  # type: ignore[operator]
    path.write_text(json.dumps(content))
    with pytest.raises(TableError, match=message) as error:
        read_table(path)
    assert str(path) in str(error.value)
    assert "cxr-lens table 1 --preset phantom" in str(error.value)
    assert read_tables(tmp_path, "phantom")[0] == {}


def test_a_missing_or_cut_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"ccve\.json is missing.*cxr-lens study ccve --preset demo"):
        read_table(tmp_path / "demo" / "ccve.json")
    path = write_table(tmp_path, example())
    path.write_text(path.read_text()[:100])
    with pytest.raises(TableError, match="cannot be read"):
        read_table(path)


def test_not_a_number_is_refused_before_it_is_written() -> None:
    with pytest.raises(TableError, match="nan"):
        Cell(value=float("nan"))


def test_without_space_the_old_table_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path, example())
    before = path.read_bytes()

    def full(self: Path, *_: object, **__: object) -> int:
        self.open("wb").write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskError, match="No space left on device"):
        write_table(tmp_path, example())
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*"))


def evaluation(seed: int, shift: float = 0.0) -> dict[str, object]:
    def row(name: str, f1: float, **keys: str) -> dict[str, object]:
        scores = {"bleu_1": 0.5, "bleu_4": 0.2, "f1": f1 + shift, "distinct": 0.9}
        return {"name": name, **keys, **scores, "intervals": {"f1": [f1 - 0.1, f1 + 0.1]}, "warnings": []}

    return {
        "family": "demo",
        "studies": 50,
        "seed": seed,
        "fingerprint": "abc",
        "protocol": "as said",
        "rows": [row("demo-fve-m2", 0.6, encoder="fve", decoder="m2"), row("x", 0.4, encoder="ccve", decoder="m2")],
        "baselines": [{**row("constant report", 0.1), "detail": "one"}],
    }


def test_table_1_is_made_of_an_evaluation() -> None:
    table = table_1([evaluation(1)], PAPER, "again")
    assert [row.name for row in table.rows] == ["FVE, M2", "CCVE, M2", "constant report"]  # the order of the registry
    by_name = {row.name: row for row in table.rows}
    cell = by_name["FVE, M2"].metrics["f1"]
    assert (cell.value, cell.low, cell.high, cell.paper) == (0.6, 0.5, 0.7, 0.236)
    assert "distinct" not in by_name["FVE, M2"].metrics
    assert by_name["constant report"].kind == "baseline"
    assert table.seeds == (1,)


def test_table_1_of_several_seeds_has_means_and_spread() -> None:
    table = table_1([evaluation(1), evaluation(2, 0.1), evaluation(3, 0.2)], PAPER, "again")
    cell = next(row for row in table.rows if row.name == "FVE, M2").metrics["f1"]
    assert cell.value == pytest.approx(0.7)
    assert cell.sd == pytest.approx(0.1)
    assert cell.low is None
    assert table.seeds == (1, 2, 3)
    with pytest.raises(StageError, match="agree in 'fingerprint'"):
        table_1([evaluation(1), evaluation(2) | {"fingerprint": "other"}], PAPER, "again")
    with pytest.raises(StageError, match="seeds 1, 1: name each seed once"):
        table_1([evaluation(1), evaluation(1, 0.1)], PAPER, "again")


def test_an_evaluation_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="missing.*cxr-lens"):
        read_results(tmp_path / "results.json")
    (tmp_path / "results.json").write_text('{"rows": []}')
    with pytest.raises(StageError, match="damaged"):
        read_results(tmp_path / "results.json")
