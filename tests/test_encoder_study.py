"""The encoder study on planted reports: its means, differences and intervals are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from core.config import ExperimentConfig, load_config
from core.labels.rules import label_report
from core.observations import OBSERVATIONS
from core.paper.tables import PaperTable, Row, read_table, write_table
from training.commands.tables import PAPER, again
from training.data import StudyData
from training.options import PRESETS
from training.paper.encoder_study import encoder_table
from training.run_folder import StageError

pytestmark = pytest.mark.numeric

RIGHT = {"fve": 0.9, "dve": 0.7, "cve": 0.5, "ccve": 0.3}
"""Share of the studies that get their own report; the others get a neighbour's."""


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    few = ["data.count=600", "data.min_word_count=1", "data.min_fine_label_count=2", "evaluate_studies=60"]
    return load_config(PRESETS, "phantom", [*few, 'decoders=["m2"]'])


@pytest.fixture(scope="module")
def data(config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    return StudyData(config.data, tmp_path_factory.mktemp("images"))


def planted(folder: Path, data: StudyData, count: int, right: Mapping[str, float], seed: int) -> Path:
    """An evaluation whose pairs write the reference for some studies, and another study's for the others."""
    studies = data.studies["test"][:count]
    chance = np.random.default_rng(seed).random(len(studies))
    lines = []
    for place, study in enumerate(studies):
        other = studies[place - 1].findings
        texts = {
            f"phantom-{name}-m2": study.findings if chance[place] < share else other for name, share in right.items()
        }
        lines.append(json.dumps({"study_id": study.study_id, "reference": study.findings, **texts}))
    folder.mkdir(parents=True)
    (folder / "reports.jsonl").write_text("\n".join(lines) + "\n")
    about = {"rows": [{"name": "x"}], "baselines": [], "protocol": "as planted"}
    (folder / "results.json").write_text(json.dumps(about))
    return folder


def f1_of(folder: Path, data: StudyData, pair: str) -> float:
    lines = [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
    truth = {study.study_id: study.labels for study in data.studies["test"]}
    sides = [
        [[states[name] == "positive" for name in OBSERVATIONS] for states in column]
        for column in (
            [truth[line["study_id"]] for line in lines],
            [label_report(line[pair]).states for line in lines],
        )
    ]
    return float(f1_score(*map(np.array, sides), average="macro", zero_division=0))


@pytest.fixture(scope="module")
def folders(config: ExperimentConfig, data: StudyData, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    root = tmp_path_factory.mktemp("steady")
    return [planted(root / str(seed), data, config.evaluate_studies, RIGHT, seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def drifted(config: ExperimentConfig, data: StudyData, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    root = tmp_path_factory.mktemp("drifting")
    worse = {"cve": 0.1, "ccve": 0.3}
    return [planted(root / str(seed), data, config.evaluate_studies, worse, seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def made(config: ExperimentConfig, data: StudyData, folders: Sequence[Path], drifted: Sequence[Path]) -> PaperTable:
    return encoder_table(config, data, folders, drifted, PAPER, "again")


def by_name(made: PaperTable) -> dict[str, Row]:
    return {row.name: row for row in made.rows}


def test_scores_are_scikit_learns_and_stand_beside_the_papers(
    made: PaperTable, data: StudyData, folders: Sequence[Path]
) -> None:
    rows = by_name(made)
    for name, title, paper in (("fve", "FVE", 0.236), ("ccve", "CCVE", 0.130)):
        cell = rows[f"{title}, M2"].metrics["f1"]
        seeds = [f1_of(folder, data, f"phantom-{name}-m2") for folder in folders]
        assert cell.value == pytest.approx(np.mean(seeds))
        assert cell.sd == pytest.approx(np.std(seeds, ddof=1))
        assert cell.low is not None
        assert cell.high is not None
        assert cell.low < cell.value < cell.high
        assert cell.paper == paper


def test_each_step_of_the_order_has_both_intervals(made: PaperTable, data: StudyData, folders: Sequence[Path]) -> None:
    row = by_name(made)["DVE less CVE, M2"]
    values = [f1_of(each, data, "phantom-dve-m2") - f1_of(each, data, "phantom-cve-m2") for each in folders]
    over_studies, over_seeds = row.metrics["difference"], row.metrics["over_seeds"]
    assert over_studies.value == pytest.approx(np.mean(values))
    assert over_studies.low is None  # 60 studies: most observations have too few positives for an interval of the mean
    frequent = row.metrics["difference_frequent"]
    assert frequent.low is not None
    assert frequent.low > 0  # a fifth of the reports: beyond doubt
    ends = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (over_seeds.low, over_seeds.high) == pytest.approx((ends.low, ends.high))
    assert over_studies.paper == pytest.approx(0.211 - 0.116)
    assert row.note.startswith("Above in 3 of 3 seeds: +")


def test_drift_is_a_control_with_its_own_order(made: PaperTable) -> None:
    rows = by_name(made)
    assert [row.name for row in made.rows if row.kind == "control"] == [
        "CVE less CVE, norms drifting, M2",
        "CCVE less CCVE, norms drifting, M2",
        "DVE less CVE, norms drifting, M2",
        "CVE, norms drifting less CCVE, norms drifting, M2",
    ]
    harmed = rows["CVE less CVE, norms drifting, M2"].metrics["difference_frequent"]
    same = rows["CCVE less CCVE, norms drifting, M2"].metrics["difference_frequent"]
    assert harmed.low is not None
    assert harmed.low > 0
    assert (same.value, same.low, same.high) == (0, 0, 0)  # planted alike
    assert rows["CVE, norms drifting less CCVE, norms drifting, M2"].metrics["difference"].value < 0
    assert harmed.paper is None


def test_one_encoder_may_drift_alone(
    config: ExperimentConfig, data: StudyData, folders: Sequence[Path], drifted: Sequence[Path]
) -> None:
    made = encoder_table(config, data, folders, drifted, PAPER, "again", ("cve",))
    assert [row.name for row in made.rows if row.kind == "control"] == [
        "CVE less CVE, norms drifting, M2",
        "DVE less CVE, norms drifting, M2",
    ]


def test_without_drift_one_seed_has_no_interval_over_seeds(
    config: ExperimentConfig, data: StudyData, folders: Sequence[Path], tmp_path: Path
) -> None:
    made = encoder_table(config, data, folders[:1], [], PAPER, "again")
    assert not any("drifting" in note for note in made.notes)
    assert not [row for row in made.rows if row.kind == "control"]
    assert "over_seeds" not in by_name(made)["FVE less DVE, M2"].metrics
    assert read_table(write_table(tmp_path, made)) == made
    assert (tmp_path / "phantom" / "encoders.md").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("phantom-dve-m2", "phantom-dve-transformer"), "has no 'phantom-dve-m2'"),
        (lambda text: "".join(text.splitlines(keepends=True)[1:]), "has no 'P0"),
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: None, "is missing: this seed is not evaluated"),
    ],
)
def test_what_is_wrong_with_an_evaluation_is_said(
    change: object, message: str, config: ExperimentConfig, data: StudyData, tmp_path: Path
) -> None:
    folder = planted(tmp_path / "seed", data, config.evaluate_studies, RIGHT, 1)
    path = folder / "reports.jsonl"
    changed = change(path.read_text())  # type: ignore[operator]
    path.unlink()
    if changed is not None:
        path.write_text(changed)
    with pytest.raises(StageError, match=message):
        encoder_table(config, data, [folder], [], PAPER, "again")


def test_a_command_stands_beside_its_table_as_a_shell_reads_it() -> None:
    assert again("study encoders", "phantom", ['decoders=["m2"]']) == (
        "cxr-lens study encoders --preset phantom --set 'decoders=[\"m2\"]'"
    )
    assert again("train", "phantom", None, 3) == "cxr-lens train --preset phantom --seeds 3"
