"""An image classifier whose feature map feeds a decoder: CDC and FGC, the two towers of FVE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from core.encoders.pretrained import timm_backbone


class ImageClassifier(nn.Module):
    """A timm backbone with one logit a class."""

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        *,
        fetch: bool = False,
        pretrained: str | None = "hub",
        backbone_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Build the backbone; see ``timm_backbone`` for ``fetch`` and ``pretrained``."""
        super().__init__()
        self.model = timm_backbone(
            backbone, fetch=fetch, pretrained=pretrained, num_classes=num_classes, **(backbone_args or {})
        )

    def features(self, images: Tensor) -> Tensor:
        """Feature map (B, D, h, w) of normalised images (B, 3, H, H), before pooling and the head's norm."""
        features: Tensor = self.model.forward_features(images)  # type: ignore[operator]
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, 3, H, H)."""
        logits: Tensor = self.model(images)
        return logits
