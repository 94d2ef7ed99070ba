"""The encoder of a `VisionEncoderDecoderModel`: a vision model of transformers whose tokens are cells of the image."""

from __future__ import annotations

import math

from torch import Tensor, nn

from core.encoders.base import Encoder, Normalize
from core.types import CXRLensError, VisualTokens

MOST_SUMMARIES = 8
"""Tokens for the whole image; CLS, a distillation token and DINOv2's four registers are six."""


class HuggingFaceEncoder(Encoder):
    """A vision model of transformers, with the normalisation of its own image processor."""

    def __init__(self, normalize: Normalize, vision: nn.Module, source: str, channels: int) -> None:
        """Wrap.

        Args:
            normalize: the side of its images, and what its image processor does to grey levels.
            vision: takes ``pixel_values``.
            source: name of its tokens.
            channels: of its images, 3 or 1.
        """
        super().__init__()
        self.normalize, self.vision, self.source, self.channels = normalize, vision, source, channels

    def encode(self, images: Tensor) -> VisualTokens:
        """Encode images (B, 1, H, H).

        Raises:
            CXRLensError: its tokens are no square grid of cells.
        """
        pixels = self.normalize(images)[:, : self.channels]
        tokens = self.vision(pixel_values=pixels).last_hidden_state
        if tokens.ndim != 3:
            raise CXRLensError("This encoder gives feature maps, not a list of tokens: no decoder can attend to them.")
        count = tokens.shape[1]
        side = math.isqrt(count)
        return VisualTokens(tokens, ((side, side),), (self.source,) * count, _summaries(count, side))


def _summaries(count: int, side: int) -> int:
    """How many tokens stand before the cells: CLS, a distillation token, registers.

    Raises:
        CXRLensError: too many for that.
    """
    if (found := count - side * side) > MOST_SUMMARIES:
        raise CXRLensError(
            f"This encoder gives {count} tokens, which are no square grid of cells with up to {MOST_SUMMARIES} tokens "
            "for the whole image before it."
        )
    return found
