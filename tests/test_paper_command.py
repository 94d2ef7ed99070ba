"""``cxr-lens paper``: one command from studies to all the paper's tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.paper.tables import TableName, read_table
from tests import needs
from tests.commands import run, setting
from tests.test_training import FEW
from training.backbones import BACKBONES
from training.commands.tables import again

pytestmark = pytest.mark.numeric

PAIR = ['encoders=["cve"]', 'decoders=["transformer"]', *FEW]


def _paper(folder: Path, preset: str, overrides: list[str], *more: str) -> list[str]:
    options = setting(overrides)
    return ["paper", "--preset", preset, *options, "--runs", str(folder / "runs"), "--out", str(folder / "out"), *more]


def test_one_command_writes_every_table_and_does_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"resnet18": BACKBONES["resnet18"], "vit_small_patch16_224": BACKBONES["vit_small_patch16_224"]}
    monkeypatch.setattr("training.paper.tables.BACKBONES", rows)
    monkeypatch.setattr(
        "core.evaluation.java.missing", lambda: "left out here: METEOR's program takes seconds to start"
    )
    command = _paper(tmp_path, "phantom", PAIR, "--jobs", "1")
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert "study of CCVE compares all encoders; this run has none of dve, fve, ccve: left out" in done.output
    bundles = tmp_path / "runs" / "phantom" / "bundles"
    assert f"CXR_BUNDLES={bundles} CXR_TABLES={tmp_path / 'out'} cxr-lens dashboard" in done.output
    folder = tmp_path / "out" / "phantom"
    names: tuple[TableName, ...] = ("1", "2", "3")
    tables = {name: read_table(folder / f"table-{name}.json") for name in names}
    assert {table.command for table in tables.values()} == {again("paper", "phantom", PAIR)}
    assert tables["1"].rows[0].name == "CVE, Transformer"
    results = json.loads((bundles / "phantom-results.json").read_text())
    assert tables["1"].rows[0].metrics["f1"].value == results["rows"][0]["f1"]
    assert [row.name for row in tables["2"].rows] == ["ResNet-18", "ViT-small", "CDC of this preset (resnet18)"]
    of_cdc = tables["2"].rows[-1]
    assert (of_cdc.kind, of_cdc.metrics["auc"].paper) == ("control", None)
    assert "after 1 epoch of labels of other phantoms" in of_cdc.note
    assert tables["3"].rows[0].name == "true fine labels to report"
    for name in ("1", "3"):  # no column without a word
        assert "METEOR's program" in " ".join(tables[name].notes)
        assert not any("meteor" in row.metrics for row in tables[name].rows)

    written = {path: path.read_bytes() for path in folder.iterdir()}
    once_more = run(*command)
    assert once_more.exit_code == 0, once_more.output
    assert "▸" not in once_more.output
    assert {path: path.read_bytes() for path in folder.iterdir()} == written


def test_what_the_study_needs_is_missed_before_hours_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = run(*_paper(tmp_path, "phantom", FEW))
    assert "catboost" in str(done.exception).lower()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "name", [["train"], ["paper"], ["table", "2"], ["table", "3"], ["study", "encoders"], ["study", "ccve"]]
)
def test_ctrl_c_ends_long_work_with_a_word_about_how_to_go_on(
    name: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.run_folder._begin", interrupted)
    monkeypatch.setattr("training.paper.ccve_study.ccve_study", interrupted)
    monkeypatch.setattr("training.paper.probes.require_catboost", lambda: None)
    options = setting(FEW)
    jobs = [] if name in (["table", "3"], ["study", "ccve"]) else ["--jobs", "1"]
    done = run(*name, "--preset", "phantom", *options, "--runs", str(tmp_path), *jobs)
    assert done.exit_code == 130
    assert "interrupted; run the same command again to go on" in done.stderr
    assert "Traceback" not in done.output


def test_an_unknown_row_of_table_2_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    command = ["table", "2", "--backbone", "resnet18", "--backbone", "resnet19", "--runs", str(tmp_path)]
    done = run(*command)
    assert str(done.exception).startswith("Unknown backbone 'resnet19'. Did you mean 'resnet18'?")
    assert "cdc" in str(done.exception)
    assert not any(tmp_path.iterdir())


def test_several_seeds_have_no_one_folder_of_bundles(tmp_path: Path) -> None:
    done = run(*_paper(tmp_path, "phantom", PAIR, "--seeds", "2", "--bundles", str(tmp_path)))
    assert "several seeds keep theirs in their run folders" in str(done.exception)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs.CATBOOST.packages("catboost")
def test_open_is_preset_from_nothing_to_the_study(tmp_path: Path) -> None:
    """Its size, its networks and their published weights, on a few phantoms."""
    few = [
        *FEW[:-1],
        "data.source=phantom",
        'data.views=""',
        "evaluate_studies=6",
        'decoders=["m2"]',
        "write.max_words=12",
    ]
    done = run(*_paper(tmp_path, "openi", few, "--jobs", "2"))
    assert done.exit_code == 0, done.output
    folder = tmp_path / "out" / "openi"
    assert len([row for row in read_table(folder / "table-1.json").rows if row.kind == "system"]) == 4
    two = read_table(folder / "table-2.json")
    assert two.rows[-1].name == "CDC of this preset (efficientnet_lite0)"
    assert ", from ImageNet's weights, after 1 epoch of coarse and fine labels" in two.rows[-1].note
    assert {"cve", "ccve"} <= {row.keys["encoder"] for row in read_table(folder / "ccve.json").rows}
