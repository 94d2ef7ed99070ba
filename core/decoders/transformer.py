"""The vanilla Transformer decoder with a memory encoder (Vaswani et al. 2017; paper-notes 3.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from core.attention import Attention, EncoderLayer, FeedForward, MemoryInput, WordInput
from core.decoders.base import Decoder, DecoderOutput, Memory
from core.types import VisualTokens

if TYPE_CHECKING:
    from core.config import ExperimentConfig

KeysValues = tuple[Tensor, Tensor]


def chosen(pairs: tuple[KeysValues, ...], rows: Tensor) -> tuple[KeysValues, ...]:
    """Rows of keys and values, each (B, A, M, width / A)."""
    return tuple((key.index_select(0, rows), value.index_select(0, rows)) for key, value in pairs)


@dataclass(frozen=True, slots=True)
class TransformerState:
    """Keys and values of the words so far, and of the memory, by layer.

    Attributes:
        words: L pairs of (rows, A, t, width / A).
        memory: L pairs of (studies, A, M, width / A) for each level; all rows of a study read the same.
        length: t, words read so far.
        attention: (rows, L, A, M) of the last word.
    """

    words: tuple[KeysValues, ...]
    memory: tuple[tuple[KeysValues, ...], ...]
    length: int
    attention: Tensor

    def reorder(self, rows: Tensor) -> Self:
        """Keep hypotheses ``rows``. The memory of studies that go on stays: a hypothesis never changes its study."""
        memory, before = self.memory, len(self.attention)
        if len(rows) < before:
            beams = before // len(memory[0][0][0])
            studies = rows[::beams] // beams
            memory = tuple(chosen(levels, studies) for levels in memory)
        attention = self.attention.index_select(0, rows)
        return replace(self, words=chosen(self.words, rows), memory=memory, attention=attention)


def by_study(
    look: Callable[[Tensor], tuple[Tensor, Tensor | None]], x: Tensor, studies: int
) -> tuple[Tensor, Tensor | None]:
    """Let rows look at the memory of their study.

    Args:
        look: from rows (B, T, width) to what they saw, and weights (B, A, T, M) or None.
        x: (rows, T, width).
        studies: whose memories there are. Where they are fewer than the rows, the rows of a study are neighbours, with
            T = 1, and to its memory they are so many words.

    Returns:
        as ``look``, by row.
    """
    if studies == len(x):
        return look(x)
    seen, weights = look(x.view(studies, -1, x.shape[2]))
    together = None if weights is None else weights.transpose(1, 2).flatten(0, 1).unsqueeze(2)
    return seen.reshape(-1, 1, seen.shape[2]), together


class CrossLayer(nn.Module):
    """One decoder layer: words attend to earlier words, then to the memory."""

    def __init__(
        self, width: int, heads: int, feed_forward: int, dropout: float, levels: int, absent_images: bool = False
    ) -> None:
        """Build; a plain Transformer's memory has one level. See ``TransformerDecoder`` for ``absent_images``."""
        super().__init__()
        if levels != 1:
            raise ValueError("A Transformer decoder reads one level of memory.")
        self.absent_images = absent_images
        self.words = Attention(width, heads, dropout)
        self.words_norm = nn.LayerNorm(width)
        self.cross = Attention(width, heads, dropout)
        self.cross_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(width, feed_forward, dropout)

    def forward(
        self, x: Tensor, words: KeysValues, memory: tuple[KeysValues, ...], *, causal: bool, return_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(B, T, width) to the same shape; weights over the memory (B, A, T, M) or None.

        Where the memory is of fewer studies, B / studies rows that are neighbours read the same one, with T = 1.
        """
        mixed, _ = self.words.attend(x, *words, causal=causal)
        x = self.words_norm(x + self.dropout(mixed))
        x, weights = by_study(lambda rows: self.look(rows, memory, return_weights=return_weights), x, len(memory[0][0]))
        return self.feed_forward(x), weights

    def look(self, x: Tensor, memory: tuple[KeysValues, ...], *, return_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Attend from x (B, T, width) to the memory."""
        return self.look_at(x, memory[0], return_weights=return_weights)

    def look_at(self, x: Tensor, level: KeysValues, *, return_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Attend from x (B, T, width) to a level of the memory; with the residual and the norm."""
        mixed, weights = self.cross.attend(x, *level, return_weights=return_weights)
        if self.absent_images:
            mixed = torch.maximum(mixed, self.cross.out(self.cross.value.bias))  # what a memory of zeros gives
        return self.cross_norm(x + self.dropout(mixed)), weights


class TransformerDecoder(Decoder):
    """Memory encoder and decoder of the same number of layers."""

    layer_type: type[CrossLayer] = CrossLayer
    all_levels = False

    @classmethod
    def arguments(cls, config: ExperimentConfig) -> dict[str, Any]:
        """Layers, CLS token and scale of the words, where the preset has others than the registry."""
        report, changes = config.report, dict[str, Any]()
        if report.layers:
            changes["layers"] = report.layers
        if not report.cls_token:
            changes["cls_token"] = False
        if report.word_scale == "max_words":
            changes["word_scale"] = math.sqrt(config.data.max_words)
        return changes

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
        cls_token: bool = True,
        slots: int = 0,
        word_scale: float = 0.0,
        encoder_layers: int = 0,
        input_norm: bool = True,
        output_bias: bool = False,
        absent_images: bool = False,
    ) -> None:
        """Build; numbers come from the registry, what follows ``word_scale`` from imported checkpoints (IFCC).

        Args:
            token_width: D of the tokens.
            vocabulary_size: V.
            width: of the model.
            heads: of each attention.
            feed_forward: inner width.
            layers: of the decoder.
            dropout: everywhere.
            cls_token: whether one stands before the tokens.
            slots: M2's memory slots in each encoder layer.
            word_scale: see ``WordInput``.
            encoder_layers: of the memory encoder; 0 is as many as the decoder has.
            input_norm: whether the projected tokens are normed.
            output_bias: whether the logits have a bias.
            absent_images: it learned from several images a study, of which it saw the largest of what its attention
                gave, and reads one: the others are absent, which for it is an image of zeros.
        """
        super().__init__()
        depth = encoder_layers or layers
        self.input = MemoryInput(token_width, width, dropout, cls_token, input_norm)
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, feed_forward, dropout, slots) for _ in range(depth))
        self.embed = WordInput(vocabulary_size, width, dropout, scale=word_scale)
        levels = depth if self.all_levels else 1
        self.layers = nn.ModuleList(
            self.layer_type(width, heads, feed_forward, dropout, levels, absent_images) for _ in range(layers)
        )
        self.output = nn.Linear(width, vocabulary_size, bias=output_bias)

    def encode(self, visual: VisualTokens, *, return_attention: bool = False) -> Memory:
        """Read the image once; see ``Memory``."""
        x, columns = self.input(visual.tokens)
        levels, attention = [], []
        for layer in self.encoder:
            x, weights = layer(x, return_weights=return_attention)
            levels.append(x)
            if weights is not None:
                attention.append(weights)
        chosen = levels if self.all_levels else levels[-1:]
        return Memory(torch.stack(chosen, dim=1), columns, tuple(attention))

    def decode(self, memory: Memory, ids: Tensor, *, return_attention: bool = False) -> DecoderOutput:
        """Predict the word after each of ids (B, T); see ``DecoderOutput``."""
        x = self.embed(ids)
        attention = []
        for layer, keys_values in zip(self._layers(), self._memory_keys_values(memory), strict=True):
            words = layer.words.keys_values(x)
            x, weights = layer(x, words, keys_values, causal=True, return_weights=return_attention)
            attention.append(weights)
        stacked = (
            torch.stack([weights for weights in attention if weights is not None], 1) if return_attention else None
        )
        return DecoderOutput(self.output(x), stacked)

    def start(self, memory: Memory, beams: int = 1) -> TransformerState:
        """State before the first word; the memory's keys and values are computed here, once."""
        rows, _, size, _ = memory.levels.shape
        attention = self._layers()[0].words
        empty = memory.levels.new_zeros(rows * beams, attention.heads, 0, attention.head_width)
        weights = memory.levels.new_zeros(rows * beams, len(self.layers), attention.heads, size)
        return TransformerState(
            ((empty, empty),) * len(self.layers), tuple(self._memory_keys_values(memory)), 0, weights
        )

    def step(self, ids: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """Read one more word (rows,); returns logits (rows, V) and the new state."""
        x = self.embed(ids.unsqueeze(1), state.length)
        words, attention = [], []
        for layer, (keys, values), memory in zip(self._layers(), state.words, state.memory, strict=True):
            key, value = layer.words.keys_values(x)
            seen = (torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2))
            x, weights = layer(x, seen, memory, causal=False, return_weights=True)
            words.append(seen)
            attention.append(weights[:, :, 0])
        logits = self.output(x[:, 0])
        return logits, TransformerState(tuple(words), state.memory, state.length + 1, torch.stack(attention, dim=1))

    def _layers(self) -> list[CrossLayer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _memory_keys_values(self, memory: Memory) -> list[tuple[KeysValues, ...]]:
        levels = memory.levels.unbind(1)
        return [tuple(layer.cross.keys_values(level) for level in levels) for layer in self._layers()]
