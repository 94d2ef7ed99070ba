"""Findings first: what a linear reading of the image's tokens finds stands in every token before a decoder reads them.

Writing in two stages: first which observations there are, then the words.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.attention import drawn
from core.observations import OBSERVATIONS
from core.types import VisualTokens

NEVER = -1e4
"""Logit of an observation that is never said: too few studies have it to learn it from."""


class FindingsFirst(nn.Module):
    """Visual tokens (B, N, D) to tokens of the same shape, each with the sum of the vectors of what was found."""

    def __init__(self, width: int) -> None:
        """Build for tokens of ``width`` D; finds nothing before ``set``."""
        super().__init__()
        self.reading = nn.Linear(width, len(OBSERVATIONS)).requires_grad_(False)
        nn.init.zeros_(self.reading.weight)
        nn.init.constant_(self.reading.bias, NEVER)
        self.vectors = drawn(len(OBSERVATIONS), width)

    def set(self, weight: Tensor, bias: Tensor, spread: float) -> None:
        """Take a reading that was fitted.

        Args:
            weight: (14, D), of the mean token.
            bias: (14,), less the threshold above which an observation is found.
            spread: of the tokens, their standard deviation; the vectors start as large.
        """
        with torch.no_grad():
            self.reading.weight.copy_(weight)
            self.reading.bias.copy_(bias)
            self.vectors.mul_(spread)

    def known(self) -> tuple[str, ...]:
        """The observations that it can find."""
        there = self.reading.weight.any(1).tolist()
        return tuple(name for name, knows in zip(OBSERVATIONS, there, strict=True) if knows)

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, 14) in the order of `core.observations.OBSERVATIONS`, of tokens (B, N, D); found where not below 0."""
        found: Tensor = self.reading(tokens.mean(1))
        return found

    def found(self, visual: VisualTokens) -> Tensor:
        """(B, 14), 1 where an observation is found, or ``visual.findings`` where these are given.

        Whether an observation is found is a step, which has no slope: gradients take that of the sigmoid instead
        (Bengio et al. 2013, arXiv:1308.3432), so explanations by gradients see this way of the image too.
        """
        if visual.findings is not None:
            return visual.findings
        logits = self.logits(visual.tokens)
        found = (logits >= 0).to(logits.dtype)
        if logits.requires_grad:
            slope = logits.sigmoid()
            found = found + slope - slope.detach()
        return found

    def forward(self, tokens: Tensor, found: Tensor) -> Tensor:
        """Tokens (B, N, D) with the vectors of what was found (B, 14)."""
        return tokens + (found @ self.vectors).unsqueeze(1)


def found_observations(found: Tensor) -> tuple[str, ...]:
    """Names of the observations of a row (14,) of `FindingsFirst.found`."""
    return tuple(name for name, there in zip(OBSERVATIONS, found.tolist(), strict=True) if there)
