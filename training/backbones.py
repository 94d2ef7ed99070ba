"""Table 2: seven image classifiers of the 14 observations, at the paper's size from ImageNet weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.config import ClassifierConfig, ExperimentConfig
from core.encoders.base import Normalize
from core.encoders.classifier import ImageClassifier
from core.observations import OBSERVATIONS
from core.registry import IMAGENET, Size, lookup


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """One row of Table 2.

    Attributes:
        title: as the paper prints it.
        name: timm's, as in ``assets/paper/table2.csv``.
        weights: tag of its ImageNet weights; the bare names have changed their meaning since 2022.
        sharp: trained with SAM. src: paper 4.3.2, ViT and Swin in batches of 256.
        shrunk: arguments that make it learn in minutes at 128 px; ours.
    """

    title: str
    name: str
    weights: str
    sharp: bool = False
    shrunk: Mapping[str, Any] = field(default_factory=dict)


BACKBONES: Mapping[str, Backbone] = {
    each.name: each
    for each in (
        Backbone(
            title="ResNet-18",
            name="resnet18",
            weights="tv_in1k",
            shrunk={"layers": (1, 1, 2, 1), "channels": (24, 48, 96, 128)},
        ),
        Backbone(
            title="ResNet-50",
            name="resnet50",
            weights="a1_in1k",
            shrunk={"layers": (1, 1, 2, 1), "channels": (12, 24, 48, 64)},
        ),
        Backbone(
            title="DenseNet-121",
            name="densenet121",
            weights="tv_in1k",
            shrunk={"growth_rate": 8, "block_config": (2, 3, 4, 3)},
        ),
        Backbone(
            title="ViT-small",
            name="vit_small_patch16_224",
            weights="augreg_in21k_ft_in1k",
            sharp=True,
            shrunk={"img_size": 128, "embed_dim": 96, "depth": 4, "num_heads": 3},
        ),
        Backbone(
            title="Swin-small",
            name="swin_small_patch4_window7_224",
            weights="ms_in1k",
            sharp=True,
            shrunk={
                "img_size": 128,
                "window_size": 4,
                "embed_dim": 24,
                "depths": (1, 1, 2, 1),
                "num_heads": (1, 2, 4, 8),
            },
        ),
        Backbone(
            title="ConvNeXt-small",
            name="convnext_small",
            weights="fb_in1k",
            shrunk={"depths": (1, 1, 2, 1), "dims": (16, 32, 64, 128)},
        ),
        Backbone(
            title="ConvNeXt-base",
            name="convnext_base",
            weights="fb_in1k",
            shrunk={"depths": (1, 1, 2, 1), "dims": (24, 48, 96, 192)},
        ),
    )
}


def build_classifier(name: str, size: Size, *, pretrained: bool) -> tuple[Normalize, ImageClassifier]:
    """Build a row: its input and its network with 14 logits.

    At size "paper" it is the paper's; below it is shrunk, and as nobody has published weights of a shrunk network, it
    starts from random ones.

    Raises:
        CXRLensError: unknown name, or weights that cannot be reached.
    """
    row = lookup(BACKBONES, name, "backbone")
    whole = size == "paper"
    network = ImageClassifier(
        f"{name}.{row.weights}" if whole else name,
        len(OBSERVATIONS),
        fetch=pretrained and whole,
        backbone_args={} if whole else row.shrunk,
    )
    return Normalize(224 if whole else 128, **IMAGENET), network


def settings_of(name: str, config: ExperimentConfig) -> ClassifierConfig:
    """The preset's numbers for CDC, with SAM and, at the paper's size, batches of 256 for ViT and Swin.

    Where CDC starts from weights that learned the same studies before (``backbone.source="train"``), a row that starts
    from random ones has the epochs of both, and the rate of the first.
    """
    settings, before = config.classifier, config.backbone
    if config.size != "paper" and before.source == "train":
        settings = replace(
            settings,
            epochs=before.epochs + settings.epochs,
            warmup_epochs=before.epochs + settings.warmup_epochs,
            learning_rate=before.learning_rate,
        )
    if not lookup(BACKBONES, name, "backbone").sharp:
        return settings
    return replace(settings, optimizer="sam", batch_size=256 if config.size == "paper" else settings.batch_size)
