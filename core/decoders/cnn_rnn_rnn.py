"""CNN-RNN-RNN: one LSTM plans sentences, another writes their words (Liu et al. 2019; paper-notes 3.3).

Words look at the image through adaptive attention with a visual sentinel (Lu et al. 2017, arXiv:1612.01887).

A report is one row of ids: START, words, SENTENCE_END, words, SENTENCE_END, END. START and SENTENCE_END are
boundaries: each begins a sentence, asks the planner for a topic and whether to stop, and resets the word LSTM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.decoders.base import Decoder, DecoderOutput, Memory
from core.text import END, PAD, SENTENCE_END, START
from core.types import VisualTokens

Cell = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class HierarchicalState:
    """Where each row stands in its report.

    Attributes:
        image: (studies, N, width) projected tokens; all rows of a study look at the same.
        keys: (studies, N, attention width), their part of the attention score.
        summary: (rows, width), the mean of the tokens.
        planner: hidden and cell of the sentence LSTM, (rows, width) each.
        topic: (rows, width) of the current sentence.
        writer: hidden and cell of the word LSTM, (rows, width) each.
        sentence: (rows,) sentences begun.
        word: (rows,) words read in the current sentence.
        attention: (rows, 1, 1, N) of the last word; what is missing to 1 went to the sentinel.
    """

    image: Tensor
    keys: Tensor
    summary: Tensor
    planner: Cell
    topic: Tensor
    writer: Cell
    sentence: Tensor
    word: Tensor
    attention: Tensor

    def reorder(self, rows: Tensor) -> Self:
        """Keep hypotheses ``rows``. The image of studies that go on stays: a hypothesis never changes its study."""
        image, keys, summary, before = self.image, self.keys, self.summary, len(self.word)
        if len(rows) < before:
            beams = before // len(image)
            studies = rows[::beams] // beams
            image, keys, summary = (
                image.index_select(0, studies),
                keys.index_select(0, studies),
                summary.index_select(0, rows),
            )
        return replace(
            self,
            image=image,
            keys=keys,
            summary=summary,
            planner=(self.planner[0].index_select(0, rows), self.planner[1].index_select(0, rows)),
            topic=self.topic.index_select(0, rows),
            writer=(self.writer[0].index_select(0, rows), self.writer[1].index_select(0, rows)),
            sentence=self.sentence.index_select(0, rows),
            word=self.word.index_select(0, rows),
            attention=self.attention.index_select(0, rows),
        )


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
    ) -> None:
        """Build; numbers come from the registry.

        With ``looks_before`` a word weighs the image's tokens before it is read, and only the sentinel after, as
        IFCC's code does; Lu et al. 2017 do both after.
        """
        super().__init__()
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
        return Memory(self.input(visual.tokens).unsqueeze(1), slice(0, visual.tokens.shape[1]))

    def plan(self, summary: Tensor, cell: Cell) -> tuple[Tensor, Tensor, Cell]:
        """Go to the next sentence: topic (rows, width), stop logit (rows,), new cell."""
        hidden, state = self.planner(summary, cell)
        return functional.relu(self.to_topic(hidden)), self.to_stop(hidden).squeeze(1), (hidden, state)

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

        cell = (torch.zeros_like(summary), torch.zeros_like(summary))
        topics, stops = [], []
        for _ in range(max(count, self.max_sentences)):
            topic, stop, cell = self.plan(summary, cell)
            topics.append(topic)
            stops.append(stop)
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
        return self._decide(output.logits[:, -1], ids[:, -1], stop, sentence[:, -1], word[:, -1])

    def start(self, memory: Memory, beams: int = 1) -> HierarchicalState:
        """State before the first sentence."""
        image = memory.levels[:, 0]
        summary = self.dropout(image.mean(1)).repeat_interleave(beams, 0)
        zeros = torch.zeros_like(summary)
        none = torch.zeros(len(summary), dtype=torch.long, device=image.device)
        weights = image.new_zeros(len(summary), 1, 1, image.shape[1])
        keys = self.attention.from_image(image)
        return HierarchicalState(image, keys, summary, (zeros, zeros), zeros, (zeros, zeros), none - 1, none, weights)

    def step(self, ids: Tensor, state: HierarchicalState) -> tuple[Tensor, HierarchicalState]:
        """Read one more word or boundary (rows,); returns logits (rows, V) with the planner's decisions applied."""
        boundary = _is_boundary(ids)
        begins = boundary.unsqueeze(1)
        topic, stop, planner = self.plan(state.summary, state.planner)
        planner = (torch.where(begins, planner[0], state.planner[0]), torch.where(begins, planner[1], state.planner[1]))
        topic = torch.where(begins, topic, state.topic)
        before = state.writer[0].masked_fill(begins, 0.0)
        words = torch.where(boundary, START, ids)
        x = torch.cat([state.summary, topic, self.embedding(words)], dim=1)
        gates = functional.linear(x, self.writer.weight_ih, self.writer.bias_ih)
        cell = self.read(gates, (before, state.writer[1].masked_fill(begins, 0.0)))
        # To the image, the rows of a study are so many words.
        parts = (self.sentinel_input(x), cell[0], before, cell[1])
        together = [each.view(len(state.image), -1, each.shape[1]) for each in parts]
        features, weights = self.look(state.image, state.keys, *together)
        sentence = state.sentence + boundary.long()
        word = torch.where(boundary, 0, state.word + 1)
        logits = self._decide(self.output(features.flatten(0, 1)), ids, stop, sentence, word)
        new = replace(
            state,
            planner=planner,
            topic=topic,
            writer=cell,
            sentence=sentence,
            word=word,
            attention=weights.flatten(0, 1)[:, None, None],
        )
        return logits, new

    def _decide(self, logits: Tensor, ids: Tensor, stop: Tensor, sentence: Tensor, word: Tensor) -> Tensor:
        """Allow only what can follow: the end where the planner stops, the end of a sentence that is too long."""
        boundary = _is_boundary(ids)
        ends = boundary & (sentence > 0) & ((stop >= 0) | (sentence >= self.max_sentences))  # sigmoid(0) = 0.5
        too_long = word >= self.max_sentence_words
        allowed = torch.ones_like(logits, dtype=torch.bool)
        allowed[:, [PAD, START, END]] = False
        allowed[:, SENTENCE_END] = ~boundary
        allowed[too_long] = False
        allowed[too_long, SENTENCE_END] = True
        allowed[ends] = False
        allowed[ends, END] = True
        return logits.masked_fill(~allowed, -math.inf)


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
