"""What attention says: of the CLS token, and of each word (paper-spec section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.decoders.base import Memory


def layer_attention(memory: Memory) -> Tensor:
    """Share of each visual token in the CLS token's attention.

    Args:
        memory: encoded with its attention; CLS is row 0.

    Returns:
        (B, L, A, N), rows sum to 1 over the visual tokens.

    Raises:
        ValueError: the memory has no CLS token or no attention.
    """
    _require_cls(memory)
    rows = torch.stack([weights[:, :, 0, memory.visual] for weights in memory.attention], dim=1)
    return rows / rows.sum(-1, keepdim=True)


def rollout(memory: Memory) -> Tensor:
    """Attention rollout from the CLS token through all layers (Abnar and Zuidema 2020, arXiv:2005.00928).

    Heads are averaged, memory slots dropped and rows renormalised, half of each layer is the residual.

    Returns:
        (B, N), sums to 1 over the visual tokens.

    Raises:
        ValueError: the memory has no CLS token or no attention.
    """
    _require_cls(memory)
    size = memory.levels.shape[2]
    identity = torch.eye(size, device=memory.levels.device)
    total = identity
    for weights in memory.attention:
        mean = weights.mean(1)[:, :, :size]  # (B, A, M, M + slots) -> (B, M, M)
        mean = mean / mean.sum(-1, keepdim=True)
        total = (0.5 * mean + 0.5 * identity) @ total
    row = total[:, 0, memory.visual]
    return row / row.sum(-1, keepdim=True)


def word_attention(attention: Tensor, visual: slice) -> Tensor:
    """Share of each visual token in each word's attention, mean over layers and heads.

    Args:
        attention: (T, L, A, M) of a hypothesis.
        visual: columns that are visual tokens.

    Returns:
        (T, N), rows sum to 1.
    """
    mean = attention.mean((1, 2))[:, visual]
    return mean / mean.sum(1, keepdim=True).clamp(min=1e-12)


def report_attention(words: Tensor, counts: Sequence[bool]) -> Tensor:
    """Mean of word attention (T, N) over the words that count (not special, not punctuation); (N,)."""
    kept = words[torch.tensor(counts, dtype=torch.bool)]
    return (kept if len(kept) else words).mean(0)


def _require_cls(memory: Memory) -> None:
    if not memory.attention or memory.visual.start == 0:
        raise ValueError("This memory has no CLS token, or was encoded without its attention.")
