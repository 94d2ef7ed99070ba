"""CVE: the image tower of a fine-tuned CLIP (Nazarov et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from core.encoders.base import Encoder, Normalize, grid_tokens
from core.encoders.clip import ClipModel
from core.text import Vocabulary
from core.types import VisualTokens


class ClipEncoder(Encoder):
    """A token a location. The text tower stays beside it, so that a text can be compared with an image."""

    def __init__(
        self,
        normalize: Normalize,
        *,
        clip: Mapping[str, Any],
        fetch: bool = False,
        vocabulary: Vocabulary | None = None,
        feature: Literal["dense", "layer4"] = "dense",
        pool: int = 1,
    ) -> None:
        """Build CLIP.

        Args:
            normalize: the input.
            clip: arguments of ``ClipModel``.
            fetch: load published weights.
            vocabulary: of the text tower, where it reads words.
            feature: "dense" gives the paper's 9 x 9 x 640, "layer4" the published code's 9 x 9 x 2560.
            pool: see ``grid_tokens``.
        """
        super().__init__()
        self.normalize = normalize
        self.clip = ClipModel(**clip, fetch=fetch, vocabulary=vocabulary)
        self.feature = feature
        self.pool = pool

    def backbones(self) -> list[nn.Module]:
        """The image tower's trunk, where it is timm's."""
        return self.clip.image.backbones()

    def encode(self, images: Tensor) -> VisualTokens:
        """Encode images (B, 1, H, H); tokens (B, h * w, D)."""
        inputs = self.normalize(images)
        tower = self.clip.image
        features = tower.dense(inputs) if self.feature == "dense" else tower.features(inputs)
        tokens, grid = grid_tokens(features, self.pool)
        return VisualTokens(tokens, (grid,), ("cve",) * tokens.shape[1])
