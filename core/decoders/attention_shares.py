"""What attention says: of the CLS token, and of each word (paper-notes 2).

A layer or head of None means the mean over them. Means are taken of the raw weights; what did not go to visual tokens
(the CLS token itself, memory slots, the sentinel) is left out afterwards, and the rest sums to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.decoders.base import Memory
from core.types import CXRLensError


def cls_attention(memory: Memory, layer: int | None = None, head: int | None = None) -> Tensor:
    """Share of each visual token in the CLS token's attention, of a layer, of a head, or the mean over them.

    Returns:
        (B, N), rows sum to 1.

    Raises:
        CXRLensError: there is no such layer or head.
        ValueError: the memory has no attention.
    """
    return _shares(_choose(_cls_rows(memory), layer, head), memory.visual)


def rollout(memory: Memory) -> Tensor:
    """Attention rollout from the CLS token through all layers (Abnar and Zuidema 2020, arXiv:2005.00928).

    Heads are averaged, memory slots dropped and rows renormalised, half of each layer is the residual.

    Returns:
        (B, N), sums to 1 over the visual tokens.

    Raises:
        ValueError: the memory has no attention.
    """
    _require_attention(memory)
    size = memory.levels.shape[2]
    identity = torch.eye(size, device=memory.levels.device)
    total = identity
    for weights in memory.attention:
        mean = weights.mean(1)[:, :, :size]  # (B, A, M, M + slots) -> (B, M, M)
        mean = mean / mean.sum(-1, keepdim=True)
        total = (0.5 * mean + 0.5 * identity) @ total
    return _shares(_reader(total, memory), memory.visual)


def word_attention(attention: Tensor, visual: slice, layer: int | None = None, head: int | None = None) -> Tensor:
    """Share of each visual token in each word's attention.

    Args:
        attention: (T, L, A, M) of a hypothesis.
        visual: columns that are visual tokens.
        layer: of the decoder, or the mean.
        head: of the layer, or the mean.

    Returns:
        (T, N), rows sum to 1.

    Raises:
        CXRLensError: there is no such layer or head.
    """
    return _shares(_choose(attention, layer, head), visual)


def word_mass(attention: Tensor, visual: slice) -> Tensor:
    """How much of each word's attention (T, L, A, M) is for visual tokens, mean over layers and heads; (T,).

    The rest went to the CLS token, or to the sentinel of CNN-RNN-RNN: then this is 1 - beta of Lu et al. 2017.
    """
    return attention.mean((1, 2))[:, visual].sum(1)


def report_attention(words: Tensor, counts: Sequence[bool]) -> Tensor:
    """Mean of word attention (T, N) over the words that count (not special, not punctuation); (N,)."""
    kept = words[torch.tensor(counts, dtype=torch.bool, device=words.device)]
    return (kept if len(kept) else words).mean(0)


def _shares(rows: Tensor, visual: slice) -> Tensor:
    tokens = rows[..., visual]
    return tokens / tokens.sum(-1, keepdim=True).clamp(min=1e-12)


def _choose(weights: Tensor, layer: int | None, head: int | None) -> Tensor:
    """Mean of (rows, L, A, M) over layers and heads, or those of one of them."""
    for what, chosen, count in (("layer", layer, weights.shape[1]), ("head", head, weights.shape[2])):
        if chosen is not None and not 0 <= chosen < count:
            raise CXRLensError(f"There is no attention {what} {chosen}: this decoder has {count}, counted from 0.")
    chosen_layer = weights.mean(1) if layer is None else weights[:, layer]
    return chosen_layer.mean(1) if head is None else chosen_layer[:, head]


def _cls_rows(memory: Memory) -> Tensor:
    """Attention of the CLS token to everything, (B, L, A, M + slots)."""
    _require_attention(memory)
    return torch.stack([_reader(weights, memory) for weights in memory.attention], dim=1)


def _reader(weights: Tensor, memory: Memory) -> Tensor:
    """The CLS token's row of weights (..., M, columns), or the mean row of a memory without one."""
    return weights[..., 0, :] if memory.visual.start else weights.mean(-2)


def _require_attention(memory: Memory) -> None:
    if not memory.attention:
        raise ValueError("This memory has no self-attention, hence no CLS token; or it was encoded without it.")
