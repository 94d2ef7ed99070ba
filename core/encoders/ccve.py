"""CCVE: thirteen learned filters before CLIP, one a disease cluster (Nazarov et al. 2022, section 3.1, Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.encoders.base import Normalize
from core.encoders.clip import ClipModel, ContrastiveEncoder
from core.observations import CLUSTERS
from core.text import Vocabulary
from core.types import VisualTokens

if TYPE_CHECKING:
    from core.config import ExperimentConfig
    from core.encoders.base import LearnedFrom

K = len(CLUSTERS)


class IndependentFilters(nn.Module):
    """Thirteen separate stacks, as the paper's words say ("13 distinct convolution operators").

    Stack k is conv 3 -> hidden (5 x 5), GELU, conv hidden -> 3 (3 x 3), added to the input through a learned gate
    that starts at 0: a pretrained CLIP sees a real radiograph at first. The gate is our choice (paper-notes 1.4).
    """

    def __init__(self, hidden: int) -> None:
        """Build stacks with ``hidden`` channels each."""
        super().__init__()
        self.hidden = hidden
        self.first = nn.Conv2d(3, K * hidden, 5, padding=2)
        self.second = nn.Conv2d(K * hidden, K * 3, 3, padding=1, groups=K)  # group k is stack k's second layer
        self.gate = nn.Parameter(torch.zeros(K))

    def all(self, images: Tensor) -> Tensor:
        """Filter images (B, 3, H, H) with every stack; returns (B, K, 3, H, H).

        One stack after another: on a CPU that is twice as fast as one grouped convolution.
        """
        return torch.stack([self.one(images, k) for k in range(K)], dim=1)

    def one(self, images: Tensor, k: int) -> Tensor:
        """Filter images (B, 3, H, H) with stack k only; returns (B, 3, H, H)."""
        inner = slice(k * self.hidden, (k + 1) * self.hidden)
        outer = slice(3 * k, 3 * k + 3)
        x = functional.conv2d(images, self.first.weight[inner], _part(self.first.bias, inner), padding=2)
        x = functional.conv2d(functional.gelu(x), self.second.weight[outer], _part(self.second.bias, outer), padding=1)
        return images + self.gate[k] * x


class SharedStemFilters(nn.Module):
    """The published code's topology: one two-layer stem, filter k is a slice of three of its 39 channels.

    Its filters share the first layer and are coupled by the second norm; the output is not in CLIP's input range.
    Source: mudabek/encoding-cxr-report-gen, XRayClusterModel, as described in paper-notes 1.4.
    """

    def __init__(self, hidden: int = 16) -> None:
        """Build the stem; the published code has 16 hidden channels."""
        super().__init__()
        self.first = nn.Conv2d(3, hidden, 5, padding=2)
        self.first_norm = nn.LayerNorm(hidden, eps=1e-6)
        self.second = nn.Conv2d(hidden, K * 3, 3, padding=1)
        self.second_norm = nn.LayerNorm(K * 3, eps=1e-6)

    def all(self, images: Tensor) -> Tensor:
        """Filter images (B, 3, H, H); returns (B, K, 3, H, H)."""
        x = functional.gelu(_channel_norm(self.first(images), self.first_norm))
        x = functional.gelu(_channel_norm(self.second(x), self.second_norm))
        return x.unflatten(1, (K, 3))

    def one(self, images: Tensor, k: int) -> Tensor:
        """Filter images (B, 3, H, H) with filter k; the norm needs all of them. Returns (B, 3, H, H)."""
        return self.all(images)[:, k]


class ClusterClipEncoder(ContrastiveEncoder):
    """Thirteen filtered images, thirteen embeddings. Tokens are filters, not image cells: there is no grid."""

    source = "ccve"

    @classmethod
    def arguments(cls, config: ExperimentConfig, data: LearnedFrom) -> dict[str, Any]:
        """The text tower's words, and the kind of filters."""
        own = {"vocabulary": data.vocabulary, "filters": config.cluster_clip.filters}
        return {**super().arguments(config, data), **own}

    def __init__(
        self,
        normalize: Normalize,
        *,
        clip: Mapping[str, Any],
        fetch: bool = False,
        vocabulary: Vocabulary | None = None,
        filters: Literal["independent", "shared_stem"] = "independent",
        hidden: int = 16,
        chunk: int = 64,
    ) -> None:
        """Build filters and CLIP.

        Args:
            vocabulary: of the text tower, where it reads words.
            filters: see the two classes.
            hidden: channels between the two convolutions.
            chunk: filtered images that go through CLIP at once; bounds the memory.
        """
        super().__init__()
        self.normalize = normalize
        kinds = {"independent": IndependentFilters, "shared_stem": SharedStemFilters}
        if filters not in kinds:
            raise ValueError(f"filters is one of {', '.join(kinds)}, not '{filters}'.")
        self.filters: IndependentFilters | SharedStemFilters = kinds[filters](hidden)
        self.clip = ClipModel(**clip, fetch=fetch, vocabulary=vocabulary)
        self.chunk = chunk

    def filtered(self, images: Tensor) -> Tensor:
        """What each filter makes of images (B, 1, H, H): (B, K, 3, H, H), as CLIP sees it."""
        return self.filters.all(self.normalize(images))

    def views(self, inputs: Tensor, cluster: int | None = None) -> Tensor:
        """Normalised images (B, 3, H, H) through all filters, or through one cluster's: (B, views, 3, H, H)."""
        return self.filters.all(inputs) if cluster is None else self.filters.one(inputs, cluster).unsqueeze(1)

    def before_clip(self) -> list[nn.Module]:
        """The filters."""
        return [self.filters]

    def encode(self, images: Tensor) -> VisualTokens:
        """Encode images (B, 1, H, H); tokens (B, 13, D), not L2-normalised."""
        count = len(images) * K
        starts = range(0, count, self.chunk)
        embeddings = torch.cat([self._embed(images, start, min(count, start + self.chunk)) for start in starts])
        return VisualTokens(embeddings.unflatten(0, (-1, K)), (), (self.source,) * K)

    def _embed(self, images: Tensor, start: int, end: int) -> Tensor:
        """Embed filtered images ``start`` to ``end`` of the B * K; only the images that they are of are filtered."""
        first, last = start // K, -(-end // K)
        flat = self.filtered(images[first:last]).flatten(0, 1)  # (images, K, 3, H, H) -> (images * K, 3, H, H)
        part = flat[start - first * K : end - first * K]
        embeddings: Tensor = self.clip.image(part.contiguous(memory_format=torch.channels_last))
        return embeddings

    def embed_pairs(self, images: Tensor, clusters: Tensor) -> Tensor:
        """Embed each image through its own cluster's filter only, as CCVE trains.

        Args:
            images: (B, 1, H, H).
            clusters: (B,) indices into ``CLUSTERS``.

        Returns:
            L2-normalised embeddings (B, D).
        """
        inputs = self.normalize(images)
        filtered = torch.empty_like(inputs)
        for k in clusters.unique().tolist():
            rows = clusters == k
            filtered[rows] = self.filters.one(inputs[rows], k)
        return functional.normalize(self.clip.image(filtered), dim=1)


def _channel_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # over the channels of each pixel


def _part(bias: Tensor | None, part: slice) -> Tensor | None:
    return None if bias is None else bias[part]
