"""Several encoders into one decoder ("individually or jointly", Nazarov et al. 2022, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.attention import drawn
from core.encoders.base import Encoder, Normalize
from core.types import VisualTokens


class JointProjection(nn.Module):
    """Bring tokens of several encoders to one width and say which encoder each came from.

    The published code joined them on the batch axis and mixed studies; here each encoder has a projection and a
    learned source embedding, and tokens are joined on the token axis (paper-notes 1.6).
    """

    def __init__(self, widths: Sequence[int], width: int) -> None:
        """Build one projection an encoder, from its width to the common one."""
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(each, width) for each in widths)
        self.source = drawn(len(widths), width, std=0.02)

    def forward(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        """Join tokens (B, N_i, D_i) to (B, sum of N_i, width)."""
        if len(parts) != len(self.projections):
            raise ValueError(f"{len(self.projections)} encoders were joined, but {len(parts)} sets of tokens came.")
        tokens = [
            project(part.tokens) + self.source[index]
            for index, (project, part) in enumerate(zip(self.projections, parts, strict=True))
        ]
        return VisualTokens(
            torch.cat(tokens, dim=1),
            tuple(grid for part in parts for grid in part.grids),
            tuple(source for part in parts for source in part.sources),
        )


class JointEncoder(Encoder):
    """Encoders side by side, joined. It takes images at the largest size of its parts."""

    norms_follow = True

    def __init__(self, encoders: Sequence[Encoder], join: JointProjection) -> None:
        """Join ``encoders``, whose tokens have the widths that ``join`` was built for."""
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.join = join
        self.normalize: Normalize = max((each.normalize for each in encoders), key=lambda each: each.image_size)

    def parts(self) -> list[Encoder]:
        """The joined encoders."""
        return list(self.encoders)  # type: ignore[arg-type]

    def trunks(self) -> dict[str, nn.Module]:
        """Those of its parts."""
        return {source: trunk for part in self.parts() for source, trunk in part.trunks().items()}

    def encode(self, images: Tensor) -> VisualTokens:
        """Encode images (B, 1, H, H); each part gets them at its own size."""
        parts: list[VisualTokens] = []
        for encoder in self.encoders:
            size = encoder.normalize.image_size  # type: ignore[union-attr]
            fitted = images
            if size != images.shape[2]:
                fitted = functional.interpolate(images, size=size, mode="bilinear", antialias=True)  # type: ignore[arg-type]
            parts.append(encoder(fitted))
        return self.join(parts)
