"""The vanilla Transformer decoder with a memory encoder (Vaswani et al. 2017; paper-notes 3.1)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.attention import Attention, EncoderLayer, FeedForward, MemoryInput, WordInput
from core.decoders.base import Decoder, DecoderOutput, Memory
from core.decoders.findings import FindingsFirst
from core.decoders.side_by_side import Affine, Norm, affine, embedded, kept, likeness, norm, padded, stacked
from core.decoders.word_cache import WordCache
from core.types import VisualTokens

if TYPE_CHECKING:
    from core.config import ExperimentConfig

KeysValues = tuple[Tensor, Tensor]


def chosen(pairs: tuple[KeysValues, ...], rows: Tensor) -> tuple[KeysValues, ...]:
    """Rows of keys and values, each (B, A, M, width / A)."""
    return tuple((key.index_select(0, rows), value.index_select(0, rows)) for key, value in pairs)


class LayerWeights(NamedTuple):
    """A decoder layer of each model, as a word needs it: see `core.decoders.side_by_side`.

    Attributes:
        words: query, key and value of the words.
        absent: (models, 1, width), what a memory of zeros gives; None where images are never absent.
        gates: of M2, weight (models, levels, 2 * width, width) and bias (models, levels, 1, width).
    """

    words: Affine
    words_out: Affine
    words_norm: Norm
    query: Affine
    cross_out: Affine
    cross_norm: Norm
    inner: Affine
    outer: Affine
    norm: Norm
    absent: Tensor | None
    gates: Affine | None


class StepWeights(NamedTuple):
    """All that a word needs; embedding (models, V, width)."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    output: Affine


@dataclass(frozen=True, slots=True)
class TransformerState:
    """What was read, and the memory, by layer; with the weights, made when the run began.

    Attributes:
        weights: of one model, or of as many as there are studies.
        words: of the hypotheses.
        memory: L pairs of (studies * levels, A, M, width / A); all rows of a study read the same.
        missing: (studies * levels, 1, 1, M), added to scores: -inf where a memory is shorter; None where none is.
    """

    weights: StepWeights
    words: WordCache
    memory: tuple[KeysValues, ...]
    missing: Tensor | None

    def reorder(self, rows: Tensor) -> Self:
        """Keep hypotheses ``rows``. The memory of studies that go on stays: a hypothesis never changes its study."""
        weights, memory, missing = self.weights, self.memory, self.missing
        studies, _, beams, _ = self.words.own.shape
        if len(rows) < studies * beams:
            going = rows[::beams] // beams
            if len(weights.embedding) > 1:
                weights = kept(weights, going)
            levels = len(memory[0][0]) // studies
            each = (going.unsqueeze(1) * levels + torch.arange(levels, device=going.device)).flatten()
            memory = chosen(memory, each)
            missing = None if missing is None else missing.index_select(0, each)
        return replace(self, weights=weights, words=self.words.reorder(rows), memory=memory, missing=missing)


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
        self, x: Tensor, memory: tuple[KeysValues, ...], *, return_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(B, T, width) to the same shape; weights over the memory (B, A, T, M) or None."""
        mixed, _ = self.words.attend(x, *self.words.keys_values(x), causal=True)
        x = self.words_norm(x + self.dropout(mixed))
        x, weights = self.look(x, memory, return_weights=return_weights)
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

    @staticmethod
    def weights(layers: Sequence[CrossLayer]) -> LayerWeights:
        """A layer of each model, as a word needs it."""
        cross = [layer.cross for layer in layers]
        absent = [each.out(each.value.bias) for each in cross] if layers[0].absent_images else []
        return LayerWeights(
            words=affine(*([getattr(each.words, name) for each in layers] for name in ("query", "key", "value"))),
            words_out=affine([layer.words.out for layer in layers]),
            words_norm=norm([layer.words_norm for layer in layers]),
            query=affine([each.query for each in cross]),
            cross_out=affine([each.out for each in cross]),
            cross_norm=norm([layer.cross_norm for layer in layers]),
            inner=affine([layer.feed_forward.inner for layer in layers]),
            outer=affine([layer.feed_forward.outer for layer in layers]),
            norm=norm([layer.feed_forward.norm for layer in layers]),
            absent=stacked(absent).unsqueeze(1) if absent else None,
            gates=None,
        )

    @staticmethod
    def joined(layer: LayerWeights, x: Tensor, seen: Tensor) -> Tensor:
        """What rows x (models, rows, width) saw at each level, (models, levels, rows, width), as one."""
        return seen[:, 0]


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
        findings_first: bool = False,
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
            findings_first: whether it reads what a linear reading of the tokens finds (`core.decoders.findings`).
        """
        super().__init__(FindingsFirst(token_width) if findings_first else None)
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
        tokens, found = self.with_findings(visual)
        x, columns = self.input(tokens)
        levels, attention = [], []
        for layer in self.encoder:
            x, weights = layer(x, return_weights=return_attention)
            levels.append(x)
            if weights is not None:
                attention.append(weights)
        chosen = levels if self.all_levels else levels[-1:]
        return Memory(torch.stack(chosen, dim=1), columns, tuple(attention), found)

    def decode(self, memory: Memory, ids: Tensor, *, return_attention: bool = False) -> DecoderOutput:
        """Predict the word after each of ids (B, T); see ``DecoderOutput``."""
        x = self.embed(ids)
        attention = []
        for layer, keys_values in zip(self._layers(), self._memory_keys_values(memory), strict=True):
            x, weights = layer(x, keys_values, return_weights=return_attention)
            attention.append(weights)
        seen = [weights for weights in attention if weights is not None]
        return DecoderOutput(self.output(x), torch.stack(seen, dim=1) if return_attention else None)

    def start(self, memory: Memory, beams: int = 1) -> TransformerState:
        """State before the first word; the memory's keys and values are computed here, once."""
        return self.begin([self], [memory], beams)

    @classmethod
    def begin(cls, decoders: Sequence[Self], memories: Sequence[Memory], beams: int = 1) -> TransformerState:
        """State of decoders of one likeness, each with its memory: of one study, where there are several."""
        by_decoder = [decoder._memory_keys_values(memory) for decoder, memory in zip(decoders, memories, strict=True)]
        pairs, missing = [], None
        for layers in zip(*by_decoder, strict=True):
            # (studies, levels, A, M, width / A) of each decoder
            sides = [[torch.stack(side, dim=1) for side in zip(*levels, strict=True)] for levels in layers]
            (keys, missing), (values, _) = (padded(each, dim=3) for each in zip(*sides, strict=True))
            pairs.append((keys.flatten(0, 1), values.flatten(0, 1)))
        studies, levels = sum(len(memory.levels) for memory in memories), memories[0].levels.shape[1]
        if missing is not None:
            missing = missing.repeat_interleave(levels, 0)[:, None, None]
        weights = StepWeights(
            stacked([decoder.embed.embedding.weight for decoder in decoders]),
            tuple(layers[0].weights(layers) for layers in zip(*(each._layers() for each in decoders), strict=True)),
            affine([decoder.output for decoder in decoders]),
        )
        words = WordCache.empty(len(pairs), studies, beams, pairs[0][0])
        return TransformerState(weights, words, tuple(pairs), missing)

    def likeness(self) -> Hashable | None:
        """What decoders have in common that can begin together: all but what reads the image."""
        return likeness(self, ("input", "encoder", "findings"))

    def step(self, ids: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """Read one more word (rows,); returns logits (rows, V) and the new state."""
        words, weights = state.words.read(), state.weights
        studies, _, beams, _ = words.own.shape
        heads, mask = state.memory[0][0].shape[1], words.mask
        x = self.embed.placed(embedded(ids, weights.embedding), words.length - 1)
        for index, layer in enumerate(weights.layers):
            joint = layer.words(x).view(studies, beams, 3, heads, -1).permute(2, 0, 3, 1, 4)
            keys, values = words.add(index, joint[1:])
            mixed = functional.scaled_dot_product_attention(joint[0], keys, values, attn_mask=mask)
            x = layer.words_norm(x + layer.words_out(mixed.transpose(1, 2).reshape(x.shape)))
            x = self.layer_type.joined(layer, x, _seen(layer, x, state.memory[index], state.missing, studies))
            x = layer.norm(x + layer.outer(layer.inner(x).relu_()))
        new = TransformerState(weights, words, state.memory, state.missing)
        return weights.output(x).flatten(0, 1), new

    def _layers(self) -> list[CrossLayer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _memory_keys_values(self, memory: Memory) -> list[tuple[KeysValues, ...]]:
        levels = memory.levels.unbind(1)
        return [tuple(layer.cross.keys_values(level) for level in levels) for layer in self._layers()]


def _seen(layer: LayerWeights, x: Tensor, memory: KeysValues, missing: Tensor | None, studies: int) -> Tensor:
    """What rows x (models, rows, width) see at each level of the memory: (models, levels, rows, width), normed."""
    models, rows, width = x.shape
    keys, values = memory
    heads, levels, of_model = keys.shape[1], keys.shape[0] // studies, studies // models
    query = layer.query(x).view(studies, 1, -1, heads, width // heads).expand(-1, levels, -1, -1, -1)
    query = query.flatten(0, 1).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=missing)
    by_level = mixed.view(models, of_model, levels, heads, -1, width // heads).permute(0, 2, 1, 4, 3, 5)
    out = layer.cross_out(by_level.reshape(models, levels * rows, width))
    if layer.absent is not None:
        out = torch.maximum(out, layer.absent)
    whole = (out.view(models, levels, rows, width) + x.unsqueeze(1)).flatten(1, 2)
    return layer.cross_norm(whole).view(models, levels, rows, width)
