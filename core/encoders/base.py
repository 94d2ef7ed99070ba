"""What all encoders share: input, normalisation, freezing, construction from the registry."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.registry import ENCODERS, Size, lookup
from core.types import VisualTokens

if TYPE_CHECKING:
    from core.config import ExperimentConfig
    from core.text import Vocabulary


class LearnedFrom(Protocol):
    """What an encoder's shape may depend on of the studies it learns from."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Words of the training split."""

    @property
    def fine_labels(self) -> Sequence[str]:
        """Fine labels that are frequent enough."""


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
    reads_words: ClassVar[bool] = False
    """Whether it has a text tower, which is built with the vocabulary."""
    norms_follow: ClassVar[bool] = False
    """Whether a batch norm that stands right after a convolution, among the parts of one module, reads what that gives
    and nothing else does: then the two can be one (`core.encoders.folding`)."""
    costly: ClassVar[str] = ""
    """The part that another engine can run (`core.encoders.engines`), as `get_submodule` finds it; "": all of it."""

    @classmethod
    def arguments(cls, config: ExperimentConfig, data: LearnedFrom) -> dict[str, Any]:
        """Arguments that a preset and its studies decide, beside those of the registry's row."""
        return {"image_size": config.image_size} if config.image_size else {}

    def __init__(self) -> None:
        """Start unfrozen."""
        super().__init__()
        self.is_frozen = False

    def freeze(self) -> Self:
        """Stop training for good: no gradient, evaluation mode, buffers that do not move.

        The published code only switched gradients off, so that CLIP's batch norms went on drifting
        while the decoder trained (paper-notes 1.5).
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

    def trunks(self) -> dict[str, nn.Module]:
        """The CNN behind each source of tokens that are cells of its feature map, for Grad-CAM."""
        return {}

    def parts(self) -> list[Encoder]:
        """The encoders that it joins; itself, where it joins none."""
        return [self]

    def encode(self, images: Tensor) -> VisualTokens:
        """Encode images (B, 1, H, H); what subclasses implement."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> VisualTokens:
        """Encode images (B, 1, H, H), without gradient when frozen."""
        if self.is_frozen:
            with torch.no_grad():
                return self.encode(images)
        return self.encode(images)


def encoder_class(name: str) -> type[Encoder]:
    """The class of a row of the registry.

    Raises:
        CXRLensError: unknown name.
    """
    module, _, attribute = lookup(ENCODERS, name, "encoder").build.partition(":")
    found: type[Encoder] = getattr(importlib.import_module(module), attribute)
    return found


def build_encoder(name: str, size: Size, *, pretrained: bool = False, image_size: int = 0, **changes: Any) -> Encoder:
    """Build a row of the registry.

    Args:
        name: key in the registry.
        pretrained: fetch the backbone's published weights; they come from a hub or an installed package.
        image_size: side of its images, pixels; 0 is that of the size.
        changes: further keyword arguments of the encoder (numbers of classes, vocabulary size, modes).

    Raises:
        CXRLensError: unknown name, or weights that cannot be had; the message says what to do.
    """
    spec = lookup(ENCODERS, name, "encoder")
    shape = lookup(spec.sizes, size, "size")
    arch: Mapping[str, Any] = {**shape.arch, **changes}
    side = image_size or shape.image_size
    if image_size and "clip" in arch:  # its attention pool has a position a cell
        arch = {**arch, "clip": {**arch["clip"], "image": {**arch["clip"]["image"], "image_size": side}}}
    normalize = Normalize(side, **spec.normalization)
    encoder = encoder_class(name)(normalize, fetch=pretrained, **arch)  # type: ignore[call-arg]
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
