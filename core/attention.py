"""Attention with its weights, its caches and its memory slots: the parts of Transformer and M2."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def drawn(*shape: int, std: float = 1.0) -> nn.Parameter:
    """A parameter that starts with normal random numbers; by ``nn.init``, as layers do (`core.bundles.unstarted`)."""
    parameter = nn.Parameter(torch.empty(shape))
    nn.init.normal_(parameter, std=std)
    return parameter


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, eq. 1), with optional memory slots.

    The slots are learned keys and values beside the given ones (Cornia et al. 2020, eq. 2).
    """

    def __init__(self, width: int, heads: int, dropout: float, slots: int = 0) -> None:
        """Build projections for ``heads`` heads of ``width / heads`` channels."""
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}.")
        self.heads = heads
        self.head_width = width // heads
        self.dropout = dropout
        self.slots = slots
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        if slots:
            # src: paper-notes 3.2; N(0, 1/head_width) scaled by sqrt(head_width), N(0, 1/slots) by sqrt(slots)
            self.slot_keys = drawn(1, slots, width, std=1 / math.sqrt(self.head_width))
            self.slot_values = drawn(1, slots, width, std=1 / math.sqrt(slots))

    def split(self, x: Tensor) -> Tensor:
        """(B, T, width) to (B, A, T, width / A)."""
        return x.unflatten(2, (self.heads, self.head_width)).transpose(1, 2)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Project what is attended to, (B, M, width), to keys and values (B, A, M + slots, width / A)."""
        key, value = self.key(source), self.value(source)
        if self.slots:
            rows = source.shape[0]
            key = torch.cat([key, self.slot_keys.expand(rows, -1, -1)], dim=1)
            value = torch.cat([value, self.slot_values.expand(rows, -1, -1)], dim=1)
        return self.split(key), self.split(value)

    def attend(
        self,
        x: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        causal: bool = False,
        mask: Tensor | None = None,
        return_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from x (B, T, width) to keys and values (B, A, M, width / A).

        Args:
            x: queries, before their projection.
            key: from :meth:`keys_values`.
            value: from :meth:`keys_values`.
            causal: position t sees only positions up to t; then M = T.
            mask: (B, 1, T, M), added to the scores; where the weights are not asked for.
            return_weights: also return the weights, taken before dropout.

        Returns:
            (B, T, width), and weights (B, A, T, M) or None.
        """
        query = self.split(self.query(x))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if return_weights:
            scores = query @ key.transpose(2, 3) / math.sqrt(self.head_width)
            if causal:
                hidden = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).triu(1)
                scores = scores.masked_fill(hidden, -math.inf)
            weights = scores.softmax(dim=3)
            mixed = functional.dropout(weights, dropout, self.training) @ value
        else:
            mixed = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal
            )
        return self.out(mixed.transpose(1, 2).flatten(2)), weights


class FeedForward(nn.Module):
    """Two linear layers with a ReLU, residual and norm around them (post-norm, as the reference code)."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        """Build with ``hidden`` inner channels."""
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to the same shape."""
        return self.norm(x + self.dropout(self.outer(self.dropout(functional.relu(self.inner(x))))))


class EncoderLayer(nn.Module):
    """One layer of the memory encoder: self-attention over CLS and visual tokens."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, slots: int = 0) -> None:
        """Build; ``slots`` is M2's."""
        super().__init__()
        self.attention = Attention(width, heads, dropout, slots)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, feed_forward, dropout)

    def forward(self, x: Tensor, *, return_weights: bool) -> tuple[Tensor, Tensor | None]:
        """(B, M, width) to the same shape; weights (B, A, M, M + slots) or None."""
        mixed, weights = self.attention.attend(x, *self.attention.keys_values(x), return_weights=return_weights)
        return self.feed_forward(self.norm(x + self.dropout(mixed))), weights


class MemoryInput(nn.Module):
    """Visual tokens to the decoder's width, with the CLS token before them (paper-notes 2).

    Linear, ReLU, dropout, norm, as the published code; the CLS token is our reading of the paper's words.
    """

    def __init__(self, token_width: int, width: int, dropout: float, cls_token: bool, norm: bool = True) -> None:
        """Build; ``cls_token=False`` restores the published architecture, whose norm can be left out too."""
        super().__init__()
        self.linear = nn.Linear(token_width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.cls = drawn(1, 1, width, std=0.02) if cls_token else None

    def forward(self, tokens: Tensor) -> tuple[Tensor, slice]:
        """(B, N, D) to (B, M, width), and which of the M are visual tokens."""
        x = self.norm(self.dropout(functional.relu(self.linear(tokens))))
        if self.cls is None:
            return x, slice(0, x.shape[1])
        return torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1), slice(1, x.shape[1] + 1)


class WordInput(nn.Module):
    """Word embeddings with sine and cosine positions (Vaswani et al. 2017, section 3.5)."""

    positions: Tensor

    def __init__(
        self, vocabulary_size: int, width: int, dropout: float, max_words: int = 512, scale: float = 0.0
    ) -> None:
        """Build for texts of up to ``max_words`` words.

        Embeddings are multiplied by ``scale``; 0 is sqrt(width). The published code has sqrt(128), its length limit, on
        which the model then depends.
        """
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.scale = scale or math.sqrt(width)
        self.dropout = nn.Dropout(dropout)
        # Computed on the CPU also where the module is built on the meta device, for which torch would import SymPy.
        position = torch.arange(max_words, device="cpu").unsqueeze(1)
        rate = torch.exp(torch.arange(0, width, 2, device="cpu") * (-math.log(10_000.0) / width))
        table = torch.zeros(max_words, width, device="cpu")
        table[:, 0::2] = torch.sin(position * rate)
        table[:, 1::2] = torch.cos(position * rate)[:, : width // 2]
        self.register_buffer("positions", table.to(self.embedding.weight.device), persistent=False)

    def forward(self, ids: Tensor, first: int = 0) -> Tensor:
        """Embed ids (B, T) that stand at positions ``first`` and after; returns (B, T, width)."""
        return self.dropout(self.embedding(ids) * self.scale + self._positions(first, ids.shape[1]))

    def placed(self, words: Tensor, position: int) -> Tensor:
        """Embeddings (..., width) of words that all stand at one position, with it; without dropout."""
        return torch.add(self._positions(position, 1), words, alpha=self.scale)

    def _positions(self, first: int, count: int) -> Tensor:
        if first + count > len(self.positions):
            raise ValueError(f"This decoder reads at most {len(self.positions)} words.")
        return self.positions[first : first + count]
