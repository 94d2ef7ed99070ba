"""FVE: the feature maps of a coarse and a fine classifier (Nazarov et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from core.encoders.base import Encoder, Normalize, grid_tokens
from core.encoders.classifier import ImageClassifier
from core.observations import OBSERVATIONS
from core.types import VisualTokens

if TYPE_CHECKING:
    from core.config import ExperimentConfig
    from core.encoders.base import LearnedFrom


class FineGrainedEncoder(Encoder):
    """Tokens of CDC (14 observations), then tokens of FGC (about 410 observations with modifiers)."""

    norms_follow = True

    @classmethod
    def arguments(cls, config: ExperimentConfig, data: LearnedFrom) -> dict[str, Any]:
        """As many classes as the studies have labels."""
        classes = {"coarse_classes": len(OBSERVATIONS), "fine_classes": len(data.fine_labels)}
        return {**super().arguments(config, data), **classes}

    def __init__(
        self,
        normalize: Normalize,
        *,
        backbone: str,
        coarse_classes: int = 14,
        fine_classes: int = 410,
        fetch: bool = False,
        pretrained: str | None = "hub",
        backbone_args: Mapping[str, Any] | None = None,
        pool: int = 1,
    ) -> None:
        """Build both towers. Their numbers of classes are the paper's unless the data have others.

        For ``pool`` see ``grid_tokens``.
        """
        super().__init__()
        self.normalize = normalize
        self.pool = pool
        options: dict[str, Any] = {"fetch": fetch, "pretrained": pretrained, "backbone_args": backbone_args}
        self.cdc = ImageClassifier(backbone, coarse_classes, **options)
        self.fgc = ImageClassifier(backbone, fine_classes, **options)

    def backbones(self) -> list[nn.Module]:
        """Both towers' models."""
        return [self.cdc.model, self.fgc.model]

    def trunks(self) -> dict[str, nn.Module]:
        """Both towers' models."""
        return {"fve.cdc": self.cdc.model, "fve.fgc": self.fgc.model}

    def classifiers(self) -> dict[str, ImageClassifier]:
        """The two towers by what they learn: "cdc" the 14 observations, "fgc" the fine labels."""
        return {"cdc": self.cdc, "fgc": self.fgc}

    def encode(self, images: Tensor) -> VisualTokens:
        """Encode images (B, 1, H, H); tokens (B, 2 * h * w, D)."""
        inputs = self.normalize(images)
        coarse, coarse_grid = grid_tokens(self.cdc.features(inputs), self.pool)
        fine, fine_grid = grid_tokens(self.fgc.features(inputs), self.pool)
        sources = ("fve.cdc",) * coarse.shape[1] + ("fve.fgc",) * fine.shape[1]
        return VisualTokens(torch.cat([coarse, fine], dim=1), (coarse_grid, fine_grid), sources)
