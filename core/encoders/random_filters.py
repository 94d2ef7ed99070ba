"""The control of what CCVE's filters show: CCVE with filters that learned nothing and change a picture as much.

Thirteen different filters move an image in thirteen ways, so their embeddings fall into thirteen clusters before any
training. Clusters of filters mean something only as far as they differ from this control (paper-notes 1.4), and the
control means something only where it is as strong as what it stands beside.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from core.encoders.ccve import ClusterClipEncoder
from core.encoders.filters import Filters, K


class Strengthened(Filters):
    """Filters whose change of a picture is multiplied, each by its own number."""

    strength: Tensor

    def __init__(self, filters: Filters, strength: Tensor) -> None:
        """Multiply the changes of ``filters`` by ``strength`` (K,)."""
        super().__init__()
        self.filters = filters
        self.register_buffer("strength", strength)

    def all(self, images: Tensor) -> Tensor:
        """Filter images (B, 3, H, H) with every filter; returns (B, K, 3, H, H)."""
        plain = images.unsqueeze(1)
        return plain + self.strength[:, None, None, None] * (self.filters.all(images) - plain)


class NoFilters(Filters):
    """Filters that let every image pass as it is."""

    def all(self, images: Tensor) -> Tensor:
        """Repeat images (B, 3, H, H) for every filter; returns (B, K, 3, H, H)."""
        return images.unsqueeze(1).expand(-1, K, -1, -1, -1)


@torch.no_grad()
def picture_change(encoder: ClusterClipEncoder, images: Tensor) -> Tensor:
    """Mean absolute change of a pixel by each filter, (K,), grey levels of 0 to 1, over images (B, 1, H, H)."""
    return (encoder.pictures(images) - images).abs().mean((0, 2, 3))


def with_random_filters(encoder: ClusterClipEncoder, images: Tensor, seed: int = 0) -> ClusterClipEncoder:
    """Copy CCVE and draw its filters anew at random, each as strong as the learned one; CLIP stays as it is.

    Args:
        encoder: left as it is.
        images: (B, 1, H, H), on which filter k of the copy changes a pixel as much, on average, as the encoder's does.
        seed: of the new filters; torch's own generator is left as it was.

    Returns:
        A frozen encoder of the same shape.
    """
    control = copy.deepcopy(encoder)
    device = next(control.filters.parameters()).device
    control.filters.cpu()  # drawn there: the same filters on every device
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        control.filters.redraw()
    control.filters.to(device)
    found = picture_change(control, images.to(device))
    strength = picture_change(encoder, images.to(device)) / found.clamp(min=torch.finfo(found.dtype).tiny)
    control.filters = Strengthened(control.filters, strength)
    return control.freeze()


def without_filters(encoder: ClusterClipEncoder) -> ClusterClipEncoder:
    """Copy CCVE and take its filters away: CLIP sees the radiograph thirteen times. Frozen."""
    control = copy.deepcopy(encoder)
    control.filters = NoFilters()
    return control.freeze()
