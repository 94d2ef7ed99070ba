"""Table 2: seven image classifiers of the 14 observations, each from ImageNet weights where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.config import ClassifierConfig
from core.encoders.base import Normalize
from core.encoders.classifier import ImageClassifier
from core.labels.observations import OBSERVATIONS
from core.registry import IMAGENET, Size, lookup


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """One row of Table 2.

    Attributes:
        title: as the paper prints it.
        name: timm's, as in ``assets/paper/table2.csv``.
        weights: tag of its ImageNet weights; the bare names have changed their meaning since 2022.
        sharp: trained with SAM. src: paper 4.3.2, ViT and Swin in batches of 256.
        tiny: arguments that shrink it for phantoms at 128 px; ours.
    """

    title: str
    name: str
    weights: str
    sharp: bool = False
    tiny: Mapping[str, Any] = field(default_factory=dict)


BACKBONES: Mapping[str, Backbone] = {
    each.name: each
    for each in (
        Backbone(
            title="ResNet-18",
            name="resnet18",
            weights="tv_in1k",
            tiny={"layers": (1, 1, 2, 1), "channels": (24, 48, 96, 128)},
        ),
        Backbone(
            title="ResNet-50",
            name="resnet50",
            weights="a1_in1k",
            tiny={"layers": (1, 1, 2, 1), "channels": (12, 24, 48, 64)},
        ),
        Backbone(
            title="DenseNet-121",
            name="densenet121",
            weights="tv_in1k",
            tiny={"growth_rate": 8, "block_config": (2, 3, 4, 3)},
        ),
        Backbone(
            title="ViT-small",
            name="vit_small_patch16_224",
            weights="augreg_in21k_ft_in1k",
            sharp=True,
            tiny={"img_size": 128, "embed_dim": 96, "depth": 4, "num_heads": 3},
        ),
        Backbone(
            title="Swin-small",
            name="swin_small_patch4_window7_224",
            weights="ms_in1k",
            sharp=True,
            tiny={
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
            tiny={"depths": (1, 1, 2, 1), "dims": (16, 32, 64, 128)},
        ),
        Backbone(
            title="ConvNeXt-base",
            name="convnext_base",
            weights="fb_in1k",
            tiny={"depths": (1, 1, 2, 1), "dims": (24, 48, 96, 192)},
        ),
    )
}


def build_classifier(name: str, size: Size, *, pretrained: bool) -> tuple[Normalize, ImageClassifier]:
    """Build a row: its input and its network with 14 logits. Size "tiny" is shrunk, any other is the paper's.

    Raises:
        CXRLensError: unknown name, or weights that cannot be reached.
    """
    row = lookup(BACKBONES, name, "backbone")
    tiny = size == "tiny"
    network = ImageClassifier(
        name if tiny else f"{name}.{row.weights}",
        len(OBSERVATIONS),
        fetch=pretrained and not tiny,
        backbone_args=row.tiny if tiny else {},
    )
    return Normalize(128 if tiny else 224, **IMAGENET), network


def settings_of(name: str, size: Size, settings: ClassifierConfig) -> ClassifierConfig:
    """The preset's numbers for CDC, with SAM and, at the paper's size, batches of 256 for ViT and Swin."""
    if not lookup(BACKBONES, name, "backbone").sharp:
        return settings
    return replace(settings, optimizer="sam", batch_size=settings.batch_size if size == "tiny" else 256)
