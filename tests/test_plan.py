"""The plan's numbers against hand-worked ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from core.config import ExperimentConfig, load_config
from training.backbones import BACKBONES
from training.options import PRESETS
from training.plan import (
    StageCost,
    backbone_stage,
    backbone_stages,
    costs,
    decoder_stage,
    measure,
    plan_markdown,
    stages,
    table_stages,
    token_stage,
)
from training.stages.counts import MIMIC_CXR, OPENI, Counts, counts_of

COUNTS = Counts(train=70, validate=10, test=20, vocabulary=50, words=12)


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    return load_config(PRESETS, "phantom")


def test_operations_and_saved_bytes_of_a_layer() -> None:
    layer = nn.Linear(3, 5, bias=False, device="meta")
    images = torch.zeros(7, 3, device="meta")
    operations, saved = measure(layer, lambda: layer(images).relu().sum())
    assert operations == 2 * 7 * 3 * 5 * 2  # forward, and the weights' gradient; the input needs none
    assert saved == 4 * 7 * (3 + 5)  # the layer's input, the rectifier's output; no weights


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("transposed", [False, True])
def test_operations_of_a_convolution_count_its_groups(groups: int, transposed: bool) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(6, 12, 3, stride=2, groups=groups, bias=False, device="meta")
    images = torch.zeros(7, 6, 9, 9, device="meta", requires_grad=True)
    positions = 9 * 9 if transposed else 4 * 4
    operations, _ = measure(layer, lambda: layer(images).sum())
    forward = 2 * 7 * positions * 6 * 12 * 9 // groups
    assert operations == 3 * forward  # and the gradients of weights and of images


# Multiply-adds of one forward pass as timm's and the papers' tables have them, in GFLOPs.
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet18", 1.82),
        ("resnet50", 4.11),
        ("densenet121", 2.87),
        ("vit_small_patch16_224", 4.6),
        ("swin_small_patch4_window7_224", 8.7),
        ("convnext_small", 8.7),
        ("convnext_base", 15.4),
    ],
)
def test_table_2_costs_what_its_networks_are_published_to_cost(name: str, published: float) -> None:
    stage = backbone_stage(name, load_config(PRESETS, "paper"), Counts())
    passes = 2 if name.startswith(("vit", "swin")) else 1  # SAM
    assert stage.operations / 1e9 == pytest.approx(2 * 3 * published * passes, rel=0.04)
    assert stage.epochs == 15


def test_what_paper_adds_to_train(config: ExperimentConfig) -> None:
    rows = {stage.name: stage for stage in table_stages(config, COUNTS)}
    assert list(rows) == [*(f"table2/{name}" for name in BACKBONES), "table3", "study_ccve"]
    assert rows["table3"].epochs == config.report.epochs
    ccve, cve = (token_stage(name, config, COUNTS).operations for name in ("ccve", "cve"))
    assert rows["study_ccve"].operations > 2 * ccve + cve
    assert rows["study_ccve"].items == 100  # all there are


def test_the_plan_sums_what_each_command_costs(config: ExperimentConfig) -> None:
    row = StageCost("x", items=1_000_000, epochs=36, operations=1e9, memory=2e9, disk=1e9)
    lines = plan_markdown(costs([row], [row, row], config, COUNTS, 10, 1, 16)).splitlines()
    assert lines[-4].startswith("| **all of `train`** | | | | **1** | **2.0** |")
    assert lines[-1].startswith("| **all of `paper`** | | | | **3** | **2.0** |")


def test_hours() -> None:
    stage = StageCost("x", items=1_000_000, epochs=36, operations=1e9, memory=0, disk=0)
    assert stage.hours(tflops=10, gpus=1) == pytest.approx(1.0)
    assert stage.hours(tflops=10, gpus=4) == pytest.approx(0.25)


def test_tokens_of_all_studies_in_half_precision(config: ExperimentConfig) -> None:
    stage = token_stage("fve", config, COUNTS)
    assert (stage.items, stage.epochs) == (100, 1)
    assert stage.disk == 100 * 32 * 128 * 2
    assert token_stage("ccve", config, COUNTS).operations > 12 * token_stage("cve", config, COUNTS).operations


@pytest.mark.numeric
def test_a_decoder_that_trains_its_encoder_costs_more(config: ExperimentConfig) -> None:
    cached, direct = (decoder_stage(name, "transformer", config, COUNTS) for name in ("cve", "dve"))
    assert cached.epochs == config.report.epochs
    assert direct.epochs == config.report.epochs_direct
    assert direct.operations > 2 * cached.operations
    assert direct.memory > cached.memory
    assert decoder_stage("cve", "cnn_rnn_rnn", config, COUNTS).operations > 0


# ------------------------------------------------------------------------------------------------------- real studies


def test_a_preset_of_real_studies_costs_what_it_learns_from(tmp_path: Path) -> None:
    """Without an index the numbers counted of the copies here; further studies teach classifiers and CLIP only."""
    changes = [f"data.folder={tmp_path}", "encoders=['cve']", "decoders=['m2']"]
    config = load_config(PRESETS, "openi", changes)
    counts = counts_of(config)
    assert counts == replace(OPENI, impressions=OPENI.impressions + OPENI.further, laterals=0, codes=0)
    rows = {stage.name: stage for stage in stages(config, counts)}
    assert list(rows)[:2] == ["backbone_before", "backbone"]
    items = {name: (rows[name].items, rows[name].epochs) for name in rows}
    assert items["backbone_before"] == (OPENI.before, config.backbone.before_epochs)
    assert items["backbone"] == (OPENI.train + OPENI.further, config.backbone.epochs)
    assert items["clip_cve"][0] == OPENI.impressions + OPENI.further
    assert items["cve-m2"] == (OPENI.train, config.report.epochs)
    changes += ["backbone.before=none", "data.impressions=false", "backbone.laterals=true"]
    alone = load_config(PRESETS, "openi", changes)
    (only,) = backbone_stages(alone, counts_of(alone))
    assert (only.name, only.items) == ("backbone", OPENI.train + OPENI.laterals)
    assert counts_of(alone).impressions == OPENI.impressions
    assert counts_of(load_config(PRESETS, "paper", [f"data.folder={tmp_path}"])) == MIMIC_CXR
    minutes = plan_markdown(costs([only], [only], alone, counts, 0.01, 2, 2, on_cpu=True)).splitlines()
    told = f"| {only.hours(0.01, 2) * 60:.1f} |"
    assert "2 training core(s) that reach 0.01 TFLOPS each" in minutes[0]
    assert "| minutes | memory, GB |" in minutes[2]
    assert sum(told in line for line in minutes) == 2


def test_phantoms_are_counted(config: ExperimentConfig) -> None:
    counts = counts_of(load_config(PRESETS, "phantom", ["data.count=60", "data.min_fine_label_count=2"]))
    assert counts.samples == counts.files + counts.validate + counts.test == 60
    assert counts.impressions == counts.train
    assert 5 < counts.words < 100


def test_a_larger_image_has_more_tokens_where_they_are_cells(config: ExperimentConfig) -> None:
    larger = replace(config, image_size=256)
    for name, times in (("cve", 4), ("ccve", 1)):
        before, after = (token_stage(name, each, COUNTS) for each in (config, larger))
        assert after.disk == times * before.disk
        assert after.operations > 3 * before.operations
