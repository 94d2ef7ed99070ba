"""What all encoders share: input, normalisation, freezing, construction from the registry."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.registry import ENCODERS, Size, lookup
from core.types import VisualTokens


class Normalize(nn.Module):
    """Grey values to the three channels a pretrained backbone expects.

    It belongs to the encoder, so that weights and preprocessing cannot come apart.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Remember the input's side in pixels, and the channels' mean and standard deviation."""
        super().__init__()
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (B, 1, H, H) with values in [0, 1]; returns (B, 3, H, H).

        Raises:
            ValueError: another shape; silently resizing here would hide a wrong preprocessing.
        """
        expected = (1, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"This encoder takes images (batch, {expected}), not {tuple(images.shape)}.")
        normalised = (images - self.mean) / self.std
        return normalised.contiguous(memory_format=torch.channels_last)  # the faster layout on CPU and on GPU


class Encoder(nn.Module):
    """Images (B, 1, H, H) in [0, 1] to ``VisualTokens``."""

    normalize: Normalize

    def __init__(self) -> None:
        """Start unfrozen."""
        super().__init__()
        self.is_frozen = False

    def freeze(self) -> Self:
        """Stop training for good: no gradient, evaluation mode, buffers that do not move.

        The published code only switched gradients off, so that CLIP's batch norms went on drifting
        while the decoder trained (paper-spec 1.5).
        """
        self.is_frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        """Switch the mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.is_frozen)

    def backbones(self) -> list[nn.Module]:
        """Its timm models, which can start from the weights of another one of their kind."""
        return []

    def encode(self, images: Tensor) -> VisualTokens:
        """Encode images (B, 1, H, H); what subclasses implement."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> VisualTokens:
        """Encode images (B, 1, H, H), without gradient when frozen."""
        if self.is_frozen:
            with torch.no_grad():
                return self.encode(images)
        return self.encode(images)


def build_encoder(name: str, size: Size, *, pretrained: bool = False, **changes: Any) -> Encoder:
    """Build a row of the registry.

    Args:
        name: "dve", "fve", "cve" or "ccve".
        size: "paper", "small" or "tiny".
        pretrained: fetch the backbone's published weights; they come from a hub or an installed package.
        changes: further keyword arguments of the encoder (numbers of classes, vocabulary size, modes).

    Raises:
        CXRLensError: unknown name, or weights that cannot be had; the message says what to do.
    """
    spec = lookup(ENCODERS, name, "encoder")
    shape = lookup(spec.sizes, size, "size")
    module, _, attribute = spec.build.partition(":")
    arch: Mapping[str, Any] = {**shape.arch, **changes}
    normalize = Normalize(shape.image_size, **spec.normalization)
    encoder: Encoder = getattr(importlib.import_module(module), attribute)(normalize, fetch=pretrained, **arch)
    return encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def grid_tokens(features: Tensor, pool: int = 1) -> tuple[Tensor, tuple[int, int]]:
    """Flatten a feature map to tokens in raster order.

    Args:
        features: (B, D, h, w).
        pool: a token is the mean of ``pool`` by ``pool`` cells.

    Returns:
        Tokens (B, N, D), and their grid (h / pool, w / pool); N cells.
    """
    if pool > 1:
        features = functional.avg_pool2d(features, pool)
    height, width = features.shape[2:]
    return features.flatten(2).transpose(1, 2), (height, width)
