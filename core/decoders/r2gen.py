"""R2Gen's decoder: a relational memory of what was written, which steers the norms of each layer (Chen et al. 2020).

"Generating Radiology Reports via Memory-driven Transformer", arXiv:2010.16056. What the paper leaves open is as in its
published code, cuhksz-nlp/R2Gen: norms stand before each sublayer and divide by the sample's standard deviation, the
memory begins as an identity, and positions are added to the words, not to the image's tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.attention import Attention, WordInput
from core.decoders.base import Decoder, DecoderOutput, Memory
from core.decoders.transformer import KeysValues, TransformerState, by_study
from core.types import VisualTokens

EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class RelationalState:
    """What one decoding run has read, and what it remembers of it.

    Attributes:
        read: keys and values, as of any Transformer.
        relations: (rows, slots, width), the relational memory after the last word.
    """

    read: TransformerState
    relations: Tensor

    @property
    def attention(self) -> Tensor:
        """Weights of the last word (rows, L, A, M)."""
        return self.read.attention

    def reorder(self, rows: Tensor) -> Self:
        """Keep hypotheses ``rows``."""
        return type(self)(self.read.reorder(rows), self.relations.index_select(0, rows))


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
        self, x: Tensor, relations: Tensor, image: KeysValues, before: KeysValues | None, *, return_weights: bool
    ) -> tuple[Tensor, Tensor | None, KeysValues]:
        """Read words (B, T, width).

        Args:
            x: the words.
            relations: the relational memory after each of them, (B, T, slots * width).
            image: keys and values; of fewer studies than rows, see `by_study`.
            before: keys and values of the words before, for T = 1; None where x begins the text.
            return_weights: also return the weights over the image, (B, A, T, M).

        Returns:
            (B, T, width), the weights or None, and keys and values of all words so far.
        """
        normed = self.words_norm(x, relations)
        words = self.words.keys_values(normed)
        if before is not None:
            words = (torch.cat([before[0], words[0]], dim=2), torch.cat([before[1], words[1]], dim=2))
        mixed, _ = self.words.attend(normed, *words, causal=before is None)
        x = x + self.dropout(mixed)
        mixed, weights = by_study(
            lambda rows: self.cross.attend(rows, *image, return_weights=return_weights),
            self.cross_norm(x, relations),
            len(image[0]),
        )
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x, relations))), weights, words


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
            x, weights, _ = layer(x, relations, image, None, return_weights=return_attention)
            attention.append(weights)
        return DecoderOutput(self.output(self.norm(x)), torch.stack(attention, dim=1) if return_attention else None)

    def start(self, memory: Memory, beams: int = 1) -> RelationalState:
        """State before the first word; the image's keys and values are computed here, once."""
        levels, image = memory.levels, self._image(memory)
        rows, heads, size, channels = len(levels) * beams, *image[0][0].shape[1:]
        empty = levels.new_zeros(rows, heads, 0, channels)
        weights = levels.new_zeros(rows, len(self.layers), heads, size)
        read = TransformerState(((empty, empty),) * len(self.layers), tuple((each,) for each in image), 0, weights)
        return RelationalState(read, self.relations.start(levels.new_zeros(rows, levels.shape[3])))

    def step(self, ids: Tensor, state: RelationalState) -> tuple[Tensor, RelationalState]:
        """Read one more word (rows,); returns logits (rows, V) and the new state."""
        read = state.read
        x = self.embed(ids.unsqueeze(1), read.length)
        memory = self.relations.read(x[:, 0], state.relations)
        relations = memory.flatten(1).unsqueeze(1)
        words, attention = [], []
        for layer, before, (image,) in zip(self.layers, read.words, read.memory, strict=True):
            x, weights, seen = layer(x, relations, image, before, return_weights=True)
            words.append(seen)
            attention.append(weights[:, :, 0])
        new = TransformerState(tuple(words), read.memory, read.length + 1, torch.stack(attention, dim=1))
        return self.output(self.norm(x[:, 0])), RelationalState(new, memory)

    def _image(self, memory: Memory) -> list[KeysValues]:
        """Keys and values of the image, by layer."""
        return [layer.cross.keys_values(memory.levels[:, 0]) for layer in self.layers]  # type: ignore[operator, union-attr]
