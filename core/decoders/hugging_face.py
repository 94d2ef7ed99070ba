"""The decoder of a `VisionEncoderDecoderModel` behind our contract: any causal language model with cross-attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from core.decoders.base import Decoder, DecoderOutput, Memory
from core.decoders.transformer import KeysValues, chosen
from core.packages import module
from core.pieces import Numbering
from core.text import START
from core.types import CXRLensError, VisualTokens

_NEVER = -1e4
"""Logit of an id that stands for no token: its probability is 0, and the logit still a number."""


@dataclass(frozen=True, slots=True)
class CachedState:
    """Keys and values of the pieces so far, and of the memory, by layer; a row each hypothesis.

    Attributes:
        words: L pairs of (rows, A, t, width / A); none before the first piece.
        memory: L pairs of (rows, A, M, width / A).
        tokens: (rows, M, width), of which the memory's keys and values were made.
        length: t, pieces read so far.
    """

    words: tuple[KeysValues, ...]
    memory: tuple[KeysValues, ...]
    tokens: Tensor
    length: int

    def reorder(self, rows: Tensor) -> Self:
        """Keep hypotheses ``rows``. While all studies go on the memory stays: a row never changes its study."""
        memory, tokens = self.memory, self.tokens
        if len(rows) < len(tokens):
            memory, tokens = chosen(memory, rows), tokens.index_select(0, rows)
        return replace(self, words=chosen(self.words, rows), memory=memory, tokens=tokens)


class HuggingFaceDecoder(Decoder):
    """A language model of transformers that attends to an encoder's tokens."""

    theirs: Tensor
    silent: Tensor

    def __init__(self, language: nn.Module, project: nn.Module, numbers: Numbering, longest: int) -> None:
        """Wrap.

        Args:
            language: causal, with cross-attention, eager attention (its weights are asked for).
            project: from the encoder's width to the language model's.
            numbers: its ids by ours.
            longest: ids that it can read at most.
        """
        super().__init__()
        self.language, self.project, self.longest = language, project, longest
        self.output = language.get_output_embeddings()  # type: ignore[operator]
        self.register_buffer("theirs", torch.tensor(numbers.theirs), persistent=False)
        self.register_buffer("silent", torch.tensor(numbers.silent, dtype=torch.long), persistent=False)

    def encode(self, visual: VisualTokens, *, return_attention: bool = False) -> Memory:
        """The tokens in the language model's width; it has no encoder of its own, hence no self-attention."""
        width = visual.tokens.shape[1]
        return Memory(self.project(visual.tokens).unsqueeze(1), slice(visual.summaries, width))

    def decode(self, memory: Memory, ids: Tensor, *, return_attention: bool = False) -> DecoderOutput:
        """Predict the piece after each of ids (B, T); see ``DecoderOutput``.

        Raises:
            CXRLensError: more ids than it can read.
        """
        self._fits(ids.shape[1])
        found = self.language(
            input_ids=self.theirs[ids],
            encoder_hidden_states=memory.levels[:, 0],
            use_cache=False,
            output_attentions=return_attention,
        )
        return DecoderOutput(
            self._logits(found.logits), torch.stack(found.cross_attentions, 1) if return_attention else None
        )

    def start(self, memory: Memory, beams: int = 1) -> CachedState:
        """State before the first piece; the memory's keys and values are computed here, once a study."""
        caches = module("transformers.cache_utils")
        tokens = memory.levels[:, 0]
        cache = caches.EncoderDecoderCache(caches.DynamicCache(), caches.DynamicCache())
        first = self.theirs[torch.full((len(tokens), 1), START, device=tokens.device)]
        self.language(input_ids=first, encoder_hidden_states=tokens, past_key_values=cache, use_cache=True)
        keys = [(each.keys, each.values) for each in cache.cross_attention_cache.layers]
        repeated = tuple((key.repeat_interleave(beams, 0), value.repeat_interleave(beams, 0)) for key, value in keys)
        return CachedState((), repeated, tokens.repeat_interleave(beams, 0), 0)

    def step(self, ids: Tensor, state: CachedState) -> tuple[Tensor, CachedState]:
        """Read one more piece (rows,); returns logits (rows, V) and the new state; the old one stays as it is.

        Raises:
            CXRLensError: more ids than it can read.
        """
        self._fits(state.length + 1)
        words = _cache(state.words)
        found = self.language(
            input_ids=self.theirs[ids].unsqueeze(1),
            encoder_hidden_states=state.tokens,
            past_key_values=module("transformers.cache_utils").EncoderDecoderCache(words, _cache(state.memory)),
            use_cache=True,
        )
        seen = tuple((each.keys, each.values) for each in words.layers)
        new = CachedState(seen, state.memory, state.tokens, state.length + 1)
        return self._logits(found.logits[:, 0]), new

    def _logits(self, logits: Tensor) -> Tensor:
        """Logits (..., V) of the model's ids as those of ours."""
        return logits[..., self.theirs].index_fill(-1, self.silent, _NEVER)

    def _fits(self, length: int) -> None:
        if length > self.longest:
            raise CXRLensError(
                f"This model reads texts of at most {self.longest - 1} pieces of words. Let it write fewer: cxr-lens "
                f"card write.max_words={self.longest - 1}."
            )


def _cache(pairs: tuple[KeysValues, ...]) -> Any:
    """Keys and values as a cache of transformers, without a copy; what it adds, it adds to new tensors."""
    caches = module("transformers.cache_utils")
    cache = caches.DynamicCache()
    for key, value in pairs:
        layer = caches.DynamicLayer()
        layer.lazy_initialization(key, value)
        layer.keys, layer.values = key, value
        cache.layers.append(layer)
    return cache
