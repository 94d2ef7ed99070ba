"""R2Gen's decoder: a relational memory of what was written, which steers the norms of each layer (Chen et al. 2020).

"Generating Radiology Reports via Memory-driven Transformer", arXiv:2010.16056. What the paper leaves open is as in its
published code, cuhksz-nlp/R2Gen: norms stand before each sublayer and divide by the sample's standard deviation, the
memory begins as an identity, and positions are added to the words, not to the image's tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.attention import Attention, WordInput
from core.decoders.base import Decoder, DecoderOutput, Memory
from core.decoders.transformer import KeysValues, chosen
from core.decoders.word_cache import WordCache
from core.types import VisualTokens

EPSILON = 1e-6
Keep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor | None]]


@dataclass(frozen=True, slots=True)
class RelationalState:
    """What one decoding run has read, and what it remembers of it.

    Attributes:
        words: keys and values of the hypotheses' words.
        image: L pairs of (studies, A, N, width / A); all rows of a study read the same.
        relations: (rows, slots, width), the relational memory after the last word.
    """

    words: WordCache
    image: tuple[KeysValues, ...]
    relations: Tensor

    def reorder(self, rows: Tensor) -> Self:
        """Keep hypotheses ``rows``."""
        image, (studies, _, beams, _) = self.image, self.words.own.shape
        if len(rows) < studies * beams:
            image = chosen(image, rows[::beams] // beams)
        return type(self)(self.words.reorder(rows), image, self.relations.index_select(0, rows))


class RelationalMemory(nn.Module):
    """Slots that attend to themselves and to each word that is read; gates say what is kept (eq. 5 to 11)."""

    def __init__(self, width: int, heads: int, slots: int, dropout: float) -> None:
        """Build with ``slots`` rows of ``width`` channels."""
        super().__init__()
        self.slots = slots
        self.attention = Attention(width, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.word_gates = nn.Linear(width, 2 * width)
        self.memory_gates = nn.Linear(width, 2 * width)

    def start(self, words: Tensor) -> Tensor:
        """The memory before the first word, (rows, slots, width), for words (rows, ..., width): an identity."""
        width = words.shape[-1]
        identity = torch.eye(self.slots, width, dtype=words.dtype, device=words.device)
        return identity.expand(len(words), -1, -1)

    def read(self, word: Tensor, memory: Tensor) -> Tensor:
        """Read one word (rows, width); from a memory (rows, slots, width) to the next one."""
        word = word.unsqueeze(1)
        source = torch.cat([memory, word], dim=1)
        mixed, _ = self.attention.attend(memory, *self.attention.keys_values(source))
        new = memory + mixed
        new = new + self.mlp(new)
        let_in, keep = (self.word_gates(word) + self.memory_gates(torch.tanh(memory))).chunk(2, dim=2)
        return torch.sigmoid(let_in) * torch.tanh(new) + torch.sigmoid(keep) * memory

    def forward(self, words: Tensor) -> Tensor:
        """The memory after each of words (B, T, width): (B, T, slots * width)."""
        memory, seen = self.start(words), []
        for word in words.unbind(1):
            memory = self.read(word, memory)
            seen.append(memory.flatten(1))
        return torch.stack(seen, dim=1)


class StandardNorm(nn.Module):
    """Layer norm by the sample's standard deviation, to which the epsilon is added."""

    def __init__(self, width: int) -> None:
        """Build for ``width`` channels."""
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def normed(self, x: Tensor) -> Tensor:
        """(..., width), mean 0 and deviation 1."""
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        return self.gamma * self.normed(x) + self.beta


class ConditionalNorm(StandardNorm):
    """A norm whose scale and shift the relational memory changes word by word (eq. 12 to 15)."""

    def __init__(self, width: int, slots: int) -> None:
        """Build for ``width`` channels and a memory of ``slots`` rows of them."""
        super().__init__(width)
        self.to_gamma = nn.Sequential(nn.Linear(slots * width, width), nn.ReLU(), nn.Linear(width, width))
        self.to_beta = nn.Sequential(nn.Linear(slots * width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, relations: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, width) to the same shape, by the memory after each word (B, T, slots * width)."""
        gamma, beta = self.gamma + self.to_gamma(relations), self.beta + self.to_beta(relations)
        return gamma * self.normed(x) + beta


def feed_forward_of(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """Two linear layers with a ReLU; norm and residual are the layer's."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))


class ImageLayer(nn.Module):
    """One layer of the memory encoder: self-attention over the image's tokens, norms before."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        """Build."""
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.attention_norm = StandardNorm(width)
        self.feed_forward = feed_forward_of(width, feed_forward, dropout)
        self.feed_forward_norm = StandardNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, return_weights: bool) -> tuple[Tensor, Tensor | None]:
        """(B, M, width) to the same shape; weights (B, A, M, M) or None."""
        normed = self.attention_norm(x)
        mixed, weights = self.attention.attend(
            normed, *self.attention.keys_values(normed), return_weights=return_weights
        )
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), weights


class MemoryDrivenLayer(nn.Module):
    """One decoder layer: words attend to earlier words, then to the image; the memory steers all three norms."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, slots: int) -> None:
        """Build for a relational memory of ``slots`` rows."""
        super().__init__()
        self.words = Attention(width, heads, dropout)
        self.words_norm = ConditionalNorm(width, slots)
        self.cross = Attention(width, heads, dropout)
        self.cross_norm = ConditionalNorm(width, slots)
        self.feed_forward = feed_forward_of(width, feed_forward, dropout)
        self.feed_forward_norm = ConditionalNorm(width, slots)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, relations: Tensor, image: KeysValues, *, return_weights: bool = False, keep: Keep | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Read words (B, T, width).

        Args:
            x: the words.
            relations: the relational memory after each of them, (B, T, slots * width).
            image: keys and values.
            return_weights: also return the weights over the image, (B, A, T, M).
            keep: from keys and values of x to those of all words that it sees, and the mask that says which; None
                where x is a text from its beginning.

        Returns:
            (B, T, width), and the weights or None.
        """
        normed = self.words_norm(x, relations)
        key, value = self.words.keys_values(normed)
        key, value, mask = (key, value, None) if keep is None else keep(key, value)
        mixed, _ = self.words.attend(normed, key, value, causal=keep is None, mask=mask)
        x = x + self.dropout(mixed)
        mixed, weights = self.cross.attend(self.cross_norm(x, relations), *image, return_weights=return_weights)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x, relations))), weights


class MemoryDrivenDecoder(Decoder):
    """An encoder over the image's tokens, and a decoder that a relational memory steers."""

    def __init__(
        self,
        token_width: int,
        vocabulary_size: int,
        *,
        width: int,
        heads: int,
        feed_forward: int,
        layers: int,
        dropout: float,
        slots: int,
        memory_heads: int,
        encoder_layers: int = 0,
        input_dropout: float = 0.5,
    ) -> None:
        """Build; numbers come from the registry.

        Args:
            token_width: D of the tokens.
            vocabulary_size: V.
            width: of the model, and of the memory's slots.
            heads: of each attention.
            feed_forward: inner width.
            layers: of the decoder.
            dropout: in both stacks.
            slots: rows of the relational memory.
            memory_heads: heads of its attention.
            encoder_layers: over the image's tokens; 0 is as many as the decoder has.
            input_dropout: of the projected tokens.
        """
        super().__init__()
        self.input = nn.Linear(token_width, width)
        self.input_dropout = nn.Dropout(input_dropout)
        depth = encoder_layers or layers
        self.encoder = nn.ModuleList(ImageLayer(width, heads, feed_forward, dropout) for _ in range(depth))
        self.encoder_norm = StandardNorm(width)
        self.embed = WordInput(vocabulary_size, width, dropout)
        self.relations = RelationalMemory(width, memory_heads, slots, dropout)
        self.layers = nn.ModuleList(
            MemoryDrivenLayer(width, heads, feed_forward, dropout, slots) for _ in range(layers)
        )
        self.norm = StandardNorm(width)
        self.output = nn.Linear(width, vocabulary_size)

    def encode(self, visual: VisualTokens, *, return_attention: bool = False) -> Memory:
        """Read the image once; there is no CLS token."""
        x = self.input_dropout(functional.relu(self.input(visual.tokens)))
        attention = []
        for layer in self.encoder:
            x, weights = layer(x, return_weights=return_attention)
            if weights is not None:
                attention.append(weights)
        return Memory(self.encoder_norm(x).unsqueeze(1), slice(0, x.shape[1]), tuple(attention))

    def decode(self, memory: Memory, ids: Tensor, *, return_attention: bool = False) -> DecoderOutput:
        """Predict the word after each of ids (B, T); the relational memory reads them one after another."""
        x = self.embed(ids)
        relations = self.relations(x)
        attention = []
        for layer, image in zip(self.layers, self._image(memory), strict=True):
            x, weights = layer(x, relations, image, return_weights=return_attention)
            attention.append(weights)
        return DecoderOutput(self.output(self.norm(x)), torch.stack(attention, dim=1) if return_attention else None)

    def start(self, memory: Memory, beams: int = 1) -> RelationalState:
        """State before the first word; the image's keys and values are computed here, once."""
        levels, image = memory.levels, self._image(memory)
        words = WordCache.empty(len(image), len(levels), beams, image[0][0])
        return RelationalState(
            words, tuple(image), self.relations.start(levels.new_zeros(len(levels) * beams, levels.shape[3]))
        )

    def step(self, ids: Tensor, state: RelationalState) -> tuple[Tensor, RelationalState]:
        """Read one more word (rows,); returns logits (rows, V) and the new state."""
        words = state.words.read()
        studies, mask = len(words.own), words.mask
        x = self.embed(ids.unsqueeze(1), words.length - 1)
        memory = self.relations.read(x[:, 0], state.relations)
        # The hypotheses of a study stand side by side, as the words of a text do.
        x, relations = x.view(studies, -1, x.shape[2]), memory.view(studies, -1, memory.shape[1] * memory.shape[2])
        for index, (layer, image) in enumerate(zip(self.layers, state.image, strict=True)):

            def keep(key: Tensor, value: Tensor, index: int = index) -> tuple[Tensor, Tensor, Tensor | None]:
                return *words.add(index, torch.stack([key, value])), mask

            x, _ = layer(x, relations, image, keep=keep)
        return self.output(self.norm(x.flatten(0, 1))), RelationalState(words, state.image, memory)

    def _image(self, memory: Memory) -> list[KeysValues]:
        """Keys and values of the image, by layer."""
        return [layer.cross.keys_values(memory.levels[:, 0]) for layer in self.layers]  # type: ignore[operator, union-attr]
