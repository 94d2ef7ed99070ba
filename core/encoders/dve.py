"""DVE: a CNN trained end to end with its decoder (Nazarov et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from core.encoders.base import Encoder, Normalize, grid_tokens
from core.encoders.pretrained import timm_backbone
from core.types import VisualTokens


class DirectEncoder(Encoder):
    """The feature map of one CNN, a token a cell."""

    norms_follow = True

    def __init__(
        self,
        normalize: Normalize,
        *,
        backbone: str,
        fetch: bool = False,
        pretrained: str | None = "hub",
        backbone_args: Mapping[str, Any] | None = None,
        pool: int = 1,
        rectified: bool = True,
    ) -> None:
        """Build the backbone; see ``timm_backbone`` for ``fetch`` and ``pretrained``, ``grid_tokens`` for ``pool``.

        Tokens of a DenseNet go through a last ReLU, unless ``rectified`` is False (IFCC).
        """
        super().__init__()
        self.normalize = normalize
        self.pool = pool
        self.model = timm_backbone(backbone, fetch=fetch, pretrained=pretrained, num_classes=0, **(backbone_args or {}))
        if not rectified:
            self.model.features.norm5.act = nn.Identity()  # type: ignore[union-attr]

    def backbones(self) -> list[nn.Module]:
        """The CNN."""
        return [self.model]

    def trunks(self) -> dict[str, nn.Module]:
        """The CNN."""
        return {"dve": self.model}

    def encode(self, images: Tensor) -> VisualTokens:
        """Encode images (B, 1, H, H); tokens (B, h * w, D)."""
        features: Tensor = self.model.forward_features(self.normalize(images))  # type: ignore[operator]
        tokens, grid = grid_tokens(features, self.pool)
        return VisualTokens(tokens, (grid,), ("dve",) * tokens.shape[1])
