"""CVE: the image tower of a fine-tuned CLIP (Nazarov et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from core.encoders.base import Normalize, grid_tokens
from core.encoders.clip import ClipModel, ContrastiveEncoder
from core.text import Vocabulary
from core.types import VisualTokens

if TYPE_CHECKING:
    from core.config import ExperimentConfig
    from core.encoders.base import LearnedFrom


class ClipEncoder(ContrastiveEncoder):
    """A token a location. The text tower stays beside it, so that a text can be compared with an image."""

    source = "cve"

    @classmethod
    def arguments(cls, config: ExperimentConfig, data: LearnedFrom) -> dict[str, Any]:
        """The text tower's words, and which features are tokens."""
        own = {"vocabulary": data.vocabulary, "feature": config.clip.feature}
        return {**super().arguments(config, data), **own}

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
            vocabulary: of the text tower, where it reads words.
            feature: "dense" gives the paper's 9 x 9 x 640, "layer4" the published code's 9 x 9 x 2560.
            pool: see ``grid_tokens``.
        """
        super().__init__()
        self.normalize = normalize
        self.clip = ClipModel(**clip, fetch=fetch, vocabulary=vocabulary)
        self.feature = feature
        self.pool = pool

    def trunks(self) -> dict[str, nn.Module]:
        """The image tower's trunk."""
        return {self.source: self.clip.image.trunk()}

    def encode(self, images: Tensor) -> VisualTokens:
        """Encode images (B, 1, H, H); tokens (B, h * w, D)."""
        inputs = self.normalize(images)
        tower = self.clip.image
        features = tower.dense(inputs) if self.feature == "dense" else tower.features(inputs)
        tokens, grid = grid_tokens(features, self.pool)
        return VisualTokens(tokens, (grid,), (self.source,) * tokens.shape[1])
