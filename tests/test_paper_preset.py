"""The paper's preset: its numbers, and networks of that size on the meta device."""

from __future__ import annotations

import csv
from typing import Any

import pytest
import torch

from core.config import load_config
from core.decoders import build_decoder
from core.encoders import build_encoder
from core.encoders.classifier import ImageClassifier
from core.registry import ENCODERS, token_width
from core.types import VisualTokens
from tests.conftest import ROOT
from training.backbones import BACKBONES, build_classifier, settings_of
from training.options import PRESETS
from training.paper.tables import rows_of_table_2

pytestmark = pytest.mark.numeric

CONFIG = load_config(PRESETS, "paper")


def test_the_papers_numbers_are_the_papers() -> None:
    """paper-notes 9, hyper-parameters in one place."""
    classifier, clip, filters, report = CONFIG.classifier, CONFIG.clip, CONFIG.cluster_clip, CONFIG.report
    assert (classifier.batch_size, classifier.learning_rate, classifier.patience) == (32, 1e-4, 10)
    for each in (clip, filters):
        assert (each.epochs, each.batch_size, each.learning_rate, each.weight_decay) == (30, 64, 1e-6, 0.2)
    assert (report.epochs, report.epochs_direct, report.batch_size, report.learning_rate) == (15, 15, 24, 5e-4)
    assert (CONFIG.data.source, CONFIG.data.views, CONFIG.data.min_fine_label_count) == ("mimic_cxr", "ap", 100)
    assert len(CONFIG.encoders) * len(CONFIG.decoders) == 12


def test_every_number_of_the_preset_says_where_it_is_from() -> None:
    section = ""
    for line in (PRESETS / "paper.toml").read_text().splitlines():
        section = line if line.startswith("[") else section
        if "=" in line and not line.startswith(("#", "name")) and section != "[backbone]":
            assert any(word in line.partition("#")[2] for word in ("src:", "ours", "unused")), line


@pytest.mark.parametrize("encoder", CONFIG.encoders)
def test_the_papers_pairs_build_and_fit_together(encoder: str) -> None:
    shape = ENCODERS[encoder].sizes["paper"]
    with torch.device("meta"):
        build_encoder(encoder, "paper")
        tokens = VisualTokens(torch.empty(2, shape.num_tokens, shape.width), shape.grids, ("x",) * shape.num_tokens)
        for name in CONFIG.decoders:
            made = build_decoder(name, "paper", token_width=token_width(encoder, "paper"), vocabulary_size=5000)
            assert made.encode(tokens).levels.shape[0] == 2


def test_table_2_has_the_papers_seven_rows() -> None:
    with (ROOT / "assets" / "paper" / "table2.csv").open() as file:
        printed = {row["timm_name"]: row["backbone"] for row in csv.DictReader(file)}
    assert printed == {name: row.title for name, row in BACKBONES.items()}


# Parameters in millions with 1,000 classes as paper-notes 1.0 measured them, less 986 rows of each one's head.
@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet18", 11.69 - 986 * 513e-6),
        ("resnet50", 25.56 - 986 * 2049e-6),
        ("densenet121", 7.98 - 986 * 1025e-6),
        ("vit_small_patch16_224", 22.05 - 986 * 385e-6),
        ("convnext_small", 50.22 - 986 * 769e-6),
        ("convnext_base", 88.59 - 986 * 1025e-6),
    ],
)
def test_table_2_at_the_papers_size(name: str, millions: float) -> None:
    with torch.device("meta"):
        normalize, network = build_classifier(name, "paper", pretrained=False)
        assert network(torch.empty(2, 3, 224, 224)).shape == (2, 14)
    assert normalize.image_size == 224
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    settings = settings_of(name, CONFIG)
    sharp = name.startswith(("vit", "swin"))
    assert (settings.optimizer, settings.batch_size) == (("sam", 256) if sharp else ("adamw", 32))


def test_below_the_papers_size_a_row_has_the_epochs_of_cdc_and_of_its_start() -> None:
    """CDC of Open-i's preset starts from a classifier of the same studies; a row of Table 2 from random weights."""
    config = load_config(PRESETS, "openi")
    settings = settings_of("resnet18", config)
    assert settings.epochs == config.backbone.epochs + config.classifier.epochs
    assert settings.epochs - settings.warmup_epochs == config.classifier.epochs - config.classifier.warmup_epochs
    assert settings.learning_rate == config.backbone.learning_rate
    whole = load_config(PRESETS, "openi", ["size=paper"])
    assert settings_of("resnet18", whole) == whole.classifier
    phantom = load_config(PRESETS, "phantom")
    assert settings_of("resnet18", phantom) == phantom.classifier  # its backbone saw other phantoms
    assert rows_of_table_2(config) == [*BACKBONES, "cdc"]
    assert rows_of_table_2(whole) == list(BACKBONES)


def test_no_weights_are_asked_for_where_a_row_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(name: str, *_: Any, **options: Any) -> ImageClassifier:
        assert (name, options["fetch"]) == ("resnet18", False)
        raise KeyboardInterrupt

    monkeypatch.setattr("training.backbones.ImageClassifier", asked)
    with pytest.raises(KeyboardInterrupt):
        build_classifier("resnet18", "small", pretrained=True)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_table_2_at_tiny_size_learns_every_part(name: str) -> None:
    torch.manual_seed(0)
    normalize, network = build_classifier(name, "tiny", pretrained=False)
    network(normalize(torch.rand(2, 1, 128, 128))).square().sum().backward()
    assert sum(p.numel() for p in network.parameters()) < 3e6
    assert all(p.grad is not None for p in network.parameters())
