"""CCVE: thirteen learned filters before CLIP, one a disease cluster (Nazarov et al. 2022, section 3.1, Fig. 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.encoders.base import Normalize
from core.encoders.clip import ClipModel, ContrastiveEncoder
from core.encoders.filters import FilterBank, Filters, IndependentFilters, K, SharedStemFilters
from core.text import Vocabulary
from core.types import VisualTokens

if TYPE_CHECKING:
    from core.config import ExperimentConfig
    from core.encoders.base import LearnedFrom

KINDS: Mapping[str, Callable[..., Filters]] = {
    "independent": lambda hidden, gate, normalize: IndependentFilters(hidden, gate),
    "shared_stem": lambda hidden, gate, normalize: SharedStemFilters(hidden),
    "bank": lambda hidden, gate, normalize: FilterBank(normalize),
}


@dataclass(frozen=True)
class ClusterTexts:
    """What a filter's token is compared with, and how alike such tokens usually are.

    Attributes:
        texts: (13, P, D), embeddings of some typical wordings of each cluster, L2-normalised: means of groups of its
            training texts. 0 for a cluster without texts.
        usual: (13, Q), the likeness of validation studies' tokens, at Q even steps from the least to the most.
    """

    texts: Tensor
    usual: Tensor

    def likeness(self, tokens: Tensor) -> Tensor:
        """Cosine of each of CCVE's tokens (B, 13, D) with the nearest wording of its own cluster, (B, 13).

        Not with the mean of all: a picture that shows a finding is near to what is said of just that (its side, its
        size), and one that shows nothing is nearest to the middle of all that could be said.
        """
        return torch.einsum("bkd,kpd->bkp", functional.normalize(tokens.float(), dim=2), self.texts).amax(2)

    def rank(self, likeness: Tensor) -> Tensor:
        """Share of validation studies that are less like their cluster's text, 0 to 1; (B, 13) of cosines (B, 13).

        Cosines of two filters are not on one scale; these shares are.
        """
        below = (self.usual < likeness.unsqueeze(2)).float()
        ties = (self.usual == likeness.unsqueeze(2)).float()
        return (below + ties / 2).mean(2)


class ClusterClipEncoder(ContrastiveEncoder):
    """Thirteen filtered images, thirteen embeddings. Tokens are filters, not image cells: there is no grid."""

    source = "ccve"
    costly = "clip.image"  # the filters are Fourier transforms, which OpenVINO does not read

    @classmethod
    def arguments(cls, config: ExperimentConfig, data: LearnedFrom) -> dict[str, Any]:
        """The text tower's words, the kind of filters, and where their gates start."""
        settings = config.cluster_clip
        gate = {"gate": settings.gate} if settings.gate else {}  # cards of before have none
        own = {"vocabulary": data.vocabulary, "filters": settings.filters, **gate}
        return {**super().arguments(config, data), **own}

    def __init__(
        self,
        normalize: Normalize,
        *,
        clip: Mapping[str, Any],
        fetch: bool = False,
        vocabulary: Vocabulary | None = None,
        filters: Literal["independent", "shared_stem", "bank"] = "independent",
        hidden: int = 16,
        gate: float = 0.0,
        chunk: int = 64,
    ) -> None:
        """Build filters and CLIP.

        Args:
            vocabulary: of the text tower, where it reads words.
            filters: see the classes in `core.encoders.filters`.
            hidden: channels between the two convolutions of a stack or of the stem.
            gate: what the gates of independent filters start from.
            chunk: filtered images that go through CLIP at once; bounds the memory.
        """
        super().__init__()
        self.normalize = normalize
        if filters not in KINDS:
            raise ValueError(f"filters is one of {', '.join(KINDS)}, not '{filters}'.")
        self.filters = KINDS[filters](hidden, gate, normalize)
        self.clip = ClipModel(**clip, fetch=fetch, vocabulary=vocabulary)
        self.chunk = chunk

    def filtered(self, images: Tensor) -> Tensor:
        """What each filter makes of images (B, 1, H, H): (B, K, 3, H, H), as CLIP sees it."""
        return self.filters.all(self.normalize(images))

    def pictures(self, images: Tensor) -> Tensor:
        """What each filter makes of images (B, 1, H, H), in their grey levels (B, K, H, H): 0 is black, 1 is white.

        The mean of the three channels; filters may go beyond black and white.
        """
        return (self.filtered(images) * self.normalize.std + self.normalize.mean).mean(2)

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
