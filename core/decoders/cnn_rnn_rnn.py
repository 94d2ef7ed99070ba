"""CNN-RNN-RNN: one LSTM plans sentences, another writes their words (Liu et al. 2019; paper-notes 3.3).

Words look at the image through adaptive attention with a visual sentinel (Lu et al. 2017, arXiv:1612.01887).

A report is one row of ids: START, words, SENTENCE_END, words, SENTENCE_END, END. START and SENTENCE_END are
boundaries: each begins a sentence, asks the planner for a topic and whether to stop, and resets the word LSTM.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.decoders.base import Decoder, DecoderOutput, Memory
from core.decoders.findings import FindingsFirst
from core.decoders.side_by_side import Affine, affine, computed, embedded, kept, likeness, padded, stacked
from core.text import END, PAD, SENTENCE_END, START
from core.types import VisualTokens

Cell = tuple[Tensor, Tensor]


class StepWeights(NamedTuple):
    """All that a word needs, of each model: see `core.decoders.side_by_side`.

    Attributes:
        embedding: (models, V, width).
        reads: (models, 2 * width, 5 * width), from a word and the hidden of the one before to four gates (what is let
            in, kept, let out, and the sentinel's) and what is new.
        to_attention: from hidden to what the tokens are weighed by.
        sentinel: likewise of the sentinel.
        score: (models, attention width, 1).
        output: to the words.
    """

    embedding: Tensor
    reads: Tensor
    to_attention: Affine
    sentinel: Affine
    score: Tensor
    output: Affine


@dataclass(frozen=True, slots=True)
class HierarchicalState:
    """Where each row stands in its report.

    Attributes:
        weights: of one model, or of as many as there are studies.
        image: (studies, N, width) projected tokens; all rows of a study look at the same.
        keys: (studies, 1, N, attention width), their part of the attention score.
        missing: (studies, 1, N + 1), added to scores: -inf where a study has fewer tokens; None where none has.
        planned: (studies, S, 5 * width), what each sentence's topic adds to the gates: planned before the first word.
        stops: (studies, S), whether the report ends before each sentence.
        forbidden: (4, V), see `_forbidden`.
        hidden: (rows, width), of the word LSTM.
        cell: (rows, width), likewise.
        sentence: (rows,) sentences begun, less one.
        word: (rows,) words read in the current sentence.
    """

    weights: StepWeights
    image: Tensor
    keys: Tensor
    missing: Tensor | None
    planned: Tensor
    stops: Tensor
    forbidden: Tensor
    hidden: Tensor
    cell: Tensor
    sentence: Tensor
    word: Tensor

    def reorder(self, rows: Tensor) -> Self:
        """Keep hypotheses ``rows``. The image of studies that go on stays: a hypothesis never changes its study."""
        state, before, studies = self, len(self.word), len(self.image)
        if len(rows) < before:
            going = rows[:: before // studies] // (before // studies)
            state = replace(
                self,
                weights=kept(self.weights, going) if len(self.weights.embedding) > 1 else self.weights,
                image=self.image.index_select(0, going),
                keys=self.keys.index_select(0, going),
                missing=None if self.missing is None else self.missing.index_select(0, going),
                planned=self.planned.index_select(0, going),
                stops=self.stops.index_select(0, going),
            )
        by_row = {name: getattr(self, name).index_select(0, rows) for name in ("hidden", "cell", "sentence", "word")}
        return replace(state, **by_row)


class AdaptiveAttention(nn.Module):
    """Weigh the image's tokens against a sentinel that says "no need to look" (Lu et al. 2017, eq. 9 to 13)."""

    def __init__(self, width: int, hidden: int = 49) -> None:
        """Build; 49 is a constant of the published code, not the number of tokens."""
        super().__init__()
        self.from_image = nn.Linear(width, hidden, bias=False)
        self.from_word = nn.Linear(width, hidden, bias=False)
        self.from_sentinel = nn.Linear(width, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(
        self, image: Tensor, keys: Tensor, hidden: Tensor, sentinel: Tensor, asking: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Look at the image, for each of T words.

        Args:
            image: (B, N, width).
            keys: ``from_image(image)``.
            hidden: (B, T, width), of the word LSTM.
            sentinel: (B, T, width).
            asking: (B, T, width), by which the tokens are weighed, where that is not ``hidden``.

        Returns:
            context (B, T, width), and weights over the tokens (B, T, N), which sum to 1 minus the sentinel's share.
        """
        word = self.from_word(hidden)
        asked = word if asking is None else self.from_word(asking)
        tokens = self.score(torch.tanh(keys.unsqueeze(1) + asked.unsqueeze(2))).squeeze(3)
        away = self.score(torch.tanh(self.from_sentinel(sentinel) + word))
        weights = torch.cat([tokens, away], dim=2).softmax(dim=2)
        seen = weights[:, :, :-1]
        return seen @ image + weights[:, :, -1:] * sentinel, seen


class HierarchicalDecoder(Decoder):
    """Sentence planner, stop control, word writer."""

    sentences = True

    def __init__(
        self,
        token_width: int,
        vocabulary_size: int,
        *,
        width: int,
        dropout: float,
        max_sentences: int,
        max_sentence_words: int,
        looks_before: bool = False,
        findings_first: bool = False,
    ) -> None:
        """Build; numbers come from the registry.

        With ``looks_before`` a word weighs the image's tokens before it is read, and only the sentinel after, as
        IFCC's code does; Lu et al. 2017 do both after. With ``findings_first`` it reads what a linear reading of the
        tokens finds (`core.decoders.findings`).
        """
        super().__init__(FindingsFirst(token_width) if findings_first else None)
        self.looks_before = looks_before
        self.max_sentences = max_sentences
        self.max_sentence_words = max_sentence_words
        self.input = nn.Linear(token_width, width)
        self.dropout = nn.Dropout(dropout)
        self.planner = nn.LSTMCell(width, width)
        self.to_topic = nn.Linear(width, width)
        self.to_stop = nn.Linear(width, 1)
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.writer = nn.LSTMCell(3 * width, width)
        self.sentinel_input = nn.Linear(3 * width, width, bias=False)
        self.sentinel_hidden = nn.Linear(width, width, bias=False)
        self.attention = AdaptiveAttention(width)
        self.output = nn.Linear(width, vocabulary_size)

    def encode(self, visual: VisualTokens, *, return_attention: bool = False) -> Memory:
        """Project the tokens; there is no memory encoder, hence no CLS token and no self-attention to return."""
        tokens, found = self.with_findings(visual)
        return Memory(self.input(tokens).unsqueeze(1), slice(0, tokens.shape[1]), found=found)

    def plan(self, summary: Tensor, sentences: int) -> tuple[list[Tensor], list[Tensor]]:
        """Plan the first sentences of images (B, width): of each the topic (B, width) and the stop logit (B,)."""
        cell = (torch.zeros_like(summary), torch.zeros_like(summary))
        topics, stops = [], []
        for _ in range(sentences):
            hidden, _ = cell = self.planner(summary, cell)
            topics.append(functional.relu(self.to_topic(hidden)))
            stops.append(self.to_stop(hidden).squeeze(1))
        return topics, stops

    def read(self, x: Tensor, cell: Cell) -> Cell:
        """Read one word: x (rows, 4 * width) is its part of the word LSTM's gates; returns the new cell."""
        gates = x + functional.linear(cell[0], self.writer.weight_hh, self.writer.bias_hh)
        let_in, keep, new, let_out = gates.chunk(4, dim=1)
        state = torch.sigmoid(keep) * cell[1] + torch.sigmoid(let_in) * torch.tanh(new)
        return torch.sigmoid(let_out) * torch.tanh(state), state

    def look(
        self, image: Tensor, keys: Tensor, gate: Tensor, hidden: Tensor, before: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Look at the image (B, N, width) after words (B, T, ...): features of the next ones, and the weights.

        Args:
            image: (B, N, width).
            keys: (B, N, attention width).
            gate: (B, T, width), the words' part of the sentinel's gate.
            hidden: (B, T, width), of the word LSTM.
            before: (B, T, width), hidden of the word before.
            state: (B, T, width), cell of the word LSTM.
        """
        sentinel = torch.sigmoid(gate + self.sentinel_hidden(before)) * torch.tanh(state)
        context, weights = self.attention(image, keys, hidden, sentinel, before if self.looks_before else None)
        return self.dropout(context + hidden), weights

    def decode(self, memory: Memory, ids: Tensor, *, return_attention: bool = False) -> DecoderOutput:
        """Predict the word after each of ids (B, T); all sentences of all reports are read side by side."""
        image = memory.levels[:, 0]  # (B, N, width)
        summary = self.dropout(image.mean(1))
        sentence, word = _positions(ids)  # (B, T) each
        count = int(sentence.max()) + 1

        topics, stops = self.plan(summary, max(count, self.max_sentences))
        stop_logits = torch.stack(stops[: self.max_sentences], dim=1)
        written = (ids == SENTENCE_END).sum(1, keepdim=True)
        slots = torch.arange(stop_logits.shape[1], device=ids.device)
        stop_targets = (slots >= written).to(summary.dtype)

        # Each word with the image and the topic of its own report and sentence
        # (the published code tiled the one and interleaved the other, and mixed patients).
        words = torch.where(_is_boundary(ids), START, ids)
        topic_of = torch.stack(topics[:count], dim=1).gather(1, sentence.unsqueeze(2).expand(-1, -1, summary.shape[1]))
        x = torch.cat([summary.unsqueeze(1).expand_as(topic_of), topic_of, self.embedding(words)], dim=2)
        gates = functional.linear(x, self.writer.weight_ih, self.writer.bias_ih)

        # Longest sentence first: those that still go on at a word are then the first rows, and no padding is read.
        real = ((ids != PAD) & (ids != END)).nonzero()  # (words, 2): report and position
        position, row = word[real[:, 0], real[:, 1]], real[:, 0] * count + sentence[real[:, 0], real[:, 1]]
        length = torch.bincount(row, minlength=len(ids) * count)
        rank = length.argsort(descending=True, stable=True).argsort()[row]
        real = real[(position * len(length) + rank).argsort()]  # all first words, then all second ones, ...
        hidden = state = gates.new_zeros(int((length > 0).sum()), summary.shape[1])
        before, after, states = [], [], []
        for part in gates[real[:, 0], real[:, 1]].split(torch.bincount(position).tolist()):
            hidden, state = hidden[: len(part)], state[: len(part)]
            before.append(hidden)
            hidden, state = self.read(part, (hidden, state))
            after.append(hidden)
            states.append(state)

        def laid_out(parts: list[Tensor]) -> Tensor:
            return torch.zeros_like(topic_of).index_put((real[:, 0], real[:, 1]), torch.cat(parts))

        keys = self.attention.from_image(image)
        features, weights = self.look(
            image, keys, self.sentinel_input(x), laid_out(after), laid_out(before), laid_out(states)
        )
        attention = weights[:, None, None] if return_attention else None  # (B, 1, 1, T, N)
        return DecoderOutput(self.output(features), attention, stop_logits, stop_targets)

    def predict(self, memory: Memory, ids: Tensor) -> Tensor:
        """Logits (B, V) of the word after ids (B, T), with the planner's decisions applied, without a cache."""
        output = self.decode(memory, ids)
        assert output.stop_logits is not None
        sentence, word = _positions(ids)
        at = sentence[:, -1].clamp(max=output.stop_logits.shape[1] - 1)
        stop = output.stop_logits.gather(1, at.unsqueeze(1)).squeeze(1)
        places = _places(ids[:, -1], stop >= 0, sentence[:, -1], word[:, -1], self)  # sigmoid(0) = 0.5
        return output.logits[:, -1].masked_fill(_forbidden(output.logits)[places], -math.inf)

    def start(self, memory: Memory, beams: int = 1) -> HierarchicalState:
        """State before the first sentence; all sentences are planned here, for they depend on the image alone."""
        return self.begin([self], [memory], beams)

    @classmethod
    def begin(cls, decoders: Sequence[Self], memories: Sequence[Memory], beams: int = 1) -> HierarchicalState:
        """State of decoders of one likeness, each with its memory: of one study, where there are several."""
        images = [memory.levels[:, 0] for memory in memories]
        pairs = list(zip(decoders, images, strict=True))
        keys, missing = padded([decoder.attention.from_image(image) for decoder, image in pairs], dim=1)
        image, _ = padded(images, dim=1)
        plans = [decoder._plans(image) for decoder, image in pairs]
        planned, stops = (torch.cat(each) for each in zip(*plans, strict=True))
        weights = StepWeights(
            stacked([decoder.embedding.weight for decoder in decoders]),
            computed(stacked([decoder._reads() for decoder in decoders])),
            affine([decoder.attention.from_word for decoder in decoders]),
            affine([decoder.attention.from_sentinel for decoder in decoders]),
            affine([decoder.attention.score for decoder in decoders]).weight,
            affine([decoder.output for decoder in decoders]),
        )
        if missing is not None:
            missing = functional.pad(missing, (0, 1)).unsqueeze(1)  # the sentinel is always there
        zeros = image.new_zeros(len(image) * beams, image.shape[2])
        none = torch.zeros(len(zeros), dtype=torch.long, device=image.device)
        return HierarchicalState(
            weights=weights,
            image=image,
            keys=keys.unsqueeze(1),
            missing=missing,
            planned=planned,
            stops=stops,
            forbidden=_forbidden(weights.embedding[0, :, 0]),
            hidden=zeros,
            cell=zeros,
            sentence=none - 1,
            word=none,
        )

    def likeness(self) -> Hashable | None:
        """What decoders have in common that can begin together: all but what reads the image."""
        return likeness(self, ("input", "findings"))

    def step(self, ids: Tensor, state: HierarchicalState) -> tuple[Tensor, HierarchicalState]:
        """Read one more word or boundary (rows,); returns logits (rows, V) with the planner's decisions applied."""
        weights, models, studies = state.weights, state.weights.embedding.shape[0], state.image.shape[0]
        boundary = _is_boundary(ids)
        begins = boundary.unsqueeze(1)
        sentence = state.sentence + boundary
        word = (state.word + 1).masked_fill(boundary, 0)
        # The gates of each row: what its sentence's topic, its word and the word before say.
        most = state.stops.shape[1]
        plan = sentence.clamp(max=most - 1).view(studies, -1)
        plan = (plan + torch.arange(0, studies * most, most, device=plan.device).unsqueeze(1)).flatten()
        before = state.hidden.masked_fill(begins, 0.0).view(models, -1, state.hidden.shape[1])
        x = torch.cat([embedded(ids.masked_fill(boundary, START), weights.embedding), before], dim=2)
        topic = state.planned.flatten(0, 1).index_select(0, plan).view(models, before.shape[1], -1)
        gates = torch.baddbmm(topic, x, weights.reads)
        width = before.shape[2]
        let_in, keep, let_out, look_away = gates[..., : 4 * width].sigmoid().chunk(4, dim=2)
        cell = keep * state.cell.masked_fill(begins, 0.0).view_as(before)
        cell = torch.addcmul(cell, let_in, gates[..., 4 * width :].tanh())
        said = cell.tanh()
        hidden, sentinel = let_out * said, look_away * said
        # To the image, the rows of a study are so many words.
        by_word = weights.to_attention(hidden)
        asked = weights.to_attention(before) if self.looks_before else by_word
        away = (weights.sentinel(sentinel) + by_word).view(studies, -1, 1, by_word.shape[2])
        both = torch.cat([state.keys + asked.view_as(away), away], dim=2).tanh()
        scores = torch.bmm(both.view(models, -1, by_word.shape[2]), weights.score).view(both.shape[:3])
        if state.missing is not None:
            scores = scores + state.missing
        share = scores.softmax(dim=2)
        seen = torch.bmm(share[..., :-1], state.image).view_as(hidden)
        features = torch.addcmul(seen + hidden, share[..., -1:].reshape(models, -1, 1), sentinel)
        logits = weights.output(features).flatten(0, 1)
        places = _places(ids, state.stops.flatten().index_select(0, plan), sentence, word, self)
        logits = logits.masked_fill(state.forbidden.index_select(0, places), -math.inf)
        hidden, cell = hidden.flatten(0, 1), cell.flatten(0, 1)
        return logits, replace(state, hidden=hidden, cell=cell, sentence=sentence, word=word)

    def _plans(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """All sentences of images (B, N, width): what each adds to the gates, and whether the report ends before it."""
        summary = self.dropout(image.mean(1))
        topics, stops = self.plan(summary, self.max_sentences)
        topic, width = torch.stack(topics, dim=1), summary.shape[1]
        x = torch.cat([summary.unsqueeze(1).expand_as(topic), topic], dim=2)
        gates = functional.linear(x, self.writer.weight_ih[:, : 2 * width], self.writer.bias_ih + self.writer.bias_hh)
        sentinel = functional.linear(x, self.sentinel_input.weight[:, : 2 * width])
        let_in, keep, new, let_out = gates.chunk(4, dim=2)
        ends = torch.stack(stops, dim=1) >= 0  # sigmoid(0) = 0.5
        return torch.cat([let_in, keep, let_out, sentinel, new], dim=2), ends

    def _reads(self) -> Tensor:
        """From a word and the hidden of the one before to the gates, (2 * width, 5 * width); see `StepWeights`."""
        word = self.writer.weight_ih[:, -self.embedding.embedding_dim :]
        let_in, keep, new, let_out = torch.cat([word, self.writer.weight_hh], dim=1).chunk(4)
        sentinel = torch.cat([self.sentinel_input.weight[:, -word.shape[1] :], self.sentinel_hidden.weight], dim=1)
        return torch.cat([let_in, keep, let_out, sentinel, new]).t()


def _forbidden(like: Tensor) -> Tensor:
    """What cannot follow, (4, V): in a sentence, after a boundary, where a sentence is too long, and at the end."""
    forbidden = torch.zeros(4, like.shape[-1], dtype=torch.bool, device=like.device)
    forbidden[:, [PAD, START, END]] = True
    forbidden[1, SENTENCE_END] = True
    forbidden[2:] = True
    forbidden[2, SENTENCE_END] = forbidden[3, END] = False
    return forbidden


def _places(ids: Tensor, stops: Tensor, sentence: Tensor, word: Tensor, decoder: HierarchicalDecoder) -> Tensor:
    """Row of `_forbidden` for each of ids (rows,): the end where the planner stops, before what is too long."""
    boundary = _is_boundary(ids)
    ends = boundary & (sentence > 0) & (stops | (sentence >= decoder.max_sentences))
    return boundary.long().masked_fill(word >= decoder.max_sentence_words, 2).masked_fill(ends, 3)


def _is_boundary(ids: Tensor) -> Tensor:
    return (ids == START) | (ids == SENTENCE_END)


def _positions(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sentence and word index of each of ids (B, T), counted from 0; a boundary is word 0 of its sentence."""
    boundary = _is_boundary(ids)
    sentence = boundary.long().cumsum(1) - 1
    time = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    begin = torch.where(boundary, time, 0).cummax(1).values
    padding = (ids == PAD) | (ids == END)
    word = torch.where(padding, 0, time - begin)  # what follows the end needs no room
    return sentence.clamp(min=0), word
