"""Greedy and beam search over any decoder: cached, batched, deterministic.

It knows ids and log-probabilities, nothing of words or images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.decoders.base import Decoder, Memory
from core.decoders.beams import Beams, Hypothesis, Winner
from core.decoders.revision import log_probabilities, revised
from core.text import END, PAD, START, Vocabulary
from core.types import CXRLensError, VisualTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """How to write.

    Attributes:
        beam_size: hypotheses kept a study; 1 is greedy.
        max_words: longest report, START left out.
        length_penalty: hypotheses are compared by log-probability / length ** length_penalty.
        no_repeat_ngram: a sequence of this many words may not come twice in a sentence; 0 switches it off.
        end_penalty: taken from END's log-probability, natural log, at each step of the search; above 0 for a decoder
            whose likeliest reports are shorter than what it learned from. It is not part of what is reported.
        removed_words: whether what stands for removed words ("xxxx", "___") may be written.
        min_sentence_words: a sentence of fewer words does not end, unless it is one of ``short_sentences``; no sentence
            is empty or begins with punctuation. 0 switches all of this off.
        short_sentences: sentences of fewer words that readers write ("no pneumothorax"), without their full stop.
        say_again: whether a sentence may say what the report has said already, and nothing else (a denial in other
            words, see `core.labels.repeats`). If not, a planner leaves such a sentence out and goes on to its next one,
            and a decoder that reads what it wrote ends its report before it.
        edge_numbers: whether a sentence may begin or end with a number. If not, what was begun with "there is a 1."
            goes on with the digits. Without effect where ``min_sentence_words`` is 0.
        consistent: whether of two sentences that contradict each other only one stays, and a denial goes that a later
            sentence makes again (`core.decoders.revision`).
        say_found: whether a report that does not call the film normal says what was found before it was written and
            left out (`core.decoders.revision`), of the observations that have ``finding_sentences``.
        finding_sentences: observation -> sentences that call it present, and nothing else.
    """

    beam_size: int = 4
    max_words: int = 100
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    end_penalty: float = 0.0
    removed_words: bool = False
    min_sentence_words: int = 0
    short_sentences: Sequence[str] = ()
    say_again: bool = True
    edge_numbers: bool = True
    consistent: bool = False
    say_found: bool = False
    finding_sentences: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        object.__setattr__(self, "short_sentences", tuple(self.short_sentences))  # a card has a list
        sentences = {name: tuple(each) for name, each in self.finding_sentences.items()}
        object.__setattr__(self, "finding_sentences", sentences)
        if self.beam_size < 1 or self.max_words < 1 or min(self.no_repeat_ngram, self.min_sentence_words) < 0:
            raise CXRLensError(
                "generate: beam_size and max_words must be at least 1, no_repeat_ngram and min_sentence_words at least "
                "0."
            )


@torch.inference_mode()
def generate(
    decoder: Decoder,
    visual: VisualTokens | Memory,
    config: GenerateConfig,
    vocabulary: Vocabulary | None = None,
    *,
    return_attention: bool = False,
    cached: bool = True,
) -> list[Hypothesis]:
    """Write a report for each study.

    Beam search with a pool of finished hypotheses: an END among the best ``beam_size`` candidates finishes one; a study
    is done when its pool holds ``beam_size``, and leaves the batch. At the length limit the beams of a study that is
    not done compete with its pool, by the same score (as Hugging Face's ``generate`` with ``early_stopping=True``).
    Equal scores are settled by the lower word id of the better beam, so the result does not depend on the batch.

    What is never written, and what a sentence may look like: `core.decoders.rules`.

    Args:
        decoder: in evaluation mode.
        visual: tokens (B, N, D), or a memory already made of them.
        config: how to write.
        vocabulary: which ids are which words; without it no id is known to stand for a removed word, and
            SENTENCE_END alone ends a sentence.
        return_attention: with the winner's weights, which one more pass over its words gives.
        cached: False recomputes every prefix; the reference for tests and benchmarks.

    Returns:
        One hypothesis a study, the best by normalised score.

    Raises:
        CXRLensError: the decoder gives NaN.
    """
    memory = visual if isinstance(visual, Memory) else decoder.encode(visual)
    state: Any = decoder.start(memory, config.beam_size) if cached else _Prefixes(memory, config.beam_size)
    step = decoder.step if cached else partial(_Prefixes.step, decoder)
    winners = _write(decoder, step, state, memory.levels, config, vocabulary)
    winners = [_revise(decoder, memory, study, winner, config, vocabulary) for study, winner in enumerate(winners)]
    return _with_attention(decoder, memory, winners) if return_attention else [each.hypothesis for each in winners]


@torch.inference_mode()
def generate_together(
    decoders: Sequence[Decoder],
    memories: Sequence[Memory],
    config: GenerateConfig,
    vocabulary: Vocabulary | None = None,
    *,
    return_attention: bool = False,
) -> list[Hypothesis]:
    """Write a report with each of several decoders of one likeness, each about a study of its own, in one search.

    Args:
        decoders: of one `Decoder.likeness`, in evaluation mode.
        memories: of each, of one study.
        config: as of `generate`.
        vocabulary: likewise; it is that of all.
        return_attention: likewise.

    Returns:
        One hypothesis a decoder: what `generate` gives of it alone, but for the last digits of sums.

    Raises:
        CXRLensError: one of the decoders gives NaN.
    """
    first = decoders[0]
    state = type(first).begin(decoders, memories, config.beam_size)
    levels = [memory.levels for memory in memories]
    winners = _write(first, first.step, state, levels, config, vocabulary)
    studies = zip(decoders, memories, winners, strict=True)
    winners = [_revise(decoder, memory, 0, winner, config, vocabulary) for decoder, memory, winner in studies]
    if not return_attention:
        return [each.hypothesis for each in winners]
    parts = zip(decoders, memories, winners, strict=True)
    return [_with_attention(decoder, memory, [winner])[0] for decoder, memory, winner in parts]


def _study(memory: Memory, study: int) -> Memory:
    """What is read of one study of a memory."""
    found = None if memory.found is None else memory.found[study : study + 1]
    return Memory(memory.levels[study : study + 1], memory.visual, found=found)


def _revise(
    decoder: Decoder, memory: Memory, study: int, winner: Winner, config: GenerateConfig, vocabulary: Vocabulary | None
) -> Winner:
    """A study's hypothesis, consistent and with what was found where that is wanted and there is room for it."""
    before = winner.hypothesis
    if vocabulary is None or not (config.consistent or config.say_found) or not before.finished:
        return winner
    memory = _study(memory, study)
    report = revised(decoder, memory, before.ids[:-1], config, vocabulary)
    if report is None or len(report.ids) >= config.max_words:
        return winner
    ids = (*report.ids, END)
    if not report.added:  # the words that stay are as likely as they were when they were written
        reported = [*(winner.reported[place] for place in report.kept), winner.reported[-1]]
        left_out = sorted(set(winner.reported) - set(reported))
        gone = float(log_probabilities(decoder, memory, [winner.written])[0][left_out].sum())
        left = replace(before, ids=ids, log_probability=before.log_probability - gone, contradicted=report.contradicted)
        return Winner(left, winner.written, reported)
    likely = float(log_probabilities(decoder, memory, [ids])[0].sum())
    whole = Hypothesis(ids, likely, finished=True, added=report.added, contradicted=report.contradicted)
    return Winner(whole, ids, range(len(ids)))


def _write(
    decoder: Decoder,
    step: Callable[[Tensor, Any], tuple[Tensor, Any]],
    state: Any,
    levels: Sequence[Tensor] | Tensor,
    config: GenerateConfig,
    vocabulary: Vocabulary | None,
) -> list[Winner]:
    """The best hypothesis of each study, whose memories' ``levels`` are given."""
    studies, device = len(levels), levels[0].device
    search = Beams(studies, config, vocabulary, plans=decoder.sentences)
    last = torch.full((studies * config.beam_size,), START, device=device)
    for _ in range(config.max_words):
        logits, state = step(last, state)
        rows = search.advance(logits)
        if not len(rows):
            break
        if config.beam_size > 1 or len(rows) < len(last):  # greedy rows go on as they are
            state = state.reorder(torch.from_numpy(rows).to(device))
        last = torch.from_numpy(search.words[-1]).to(device)
    return [search.best(study) for study in range(studies)]


def _with_attention(decoder: Decoder, memory: Memory, winners: Sequence[Winner]) -> list[Hypothesis]:
    """Hypotheses of all studies of a memory with their attention, by one pass over all that was written for them."""
    device = memory.levels.device
    read = [torch.tensor([START, *winner.written[:-1]], device=device) for winner in winners]
    output = decoder.decode(memory, pad_sequence(read, batch_first=True, padding_value=PAD), return_attention=True)
    assert output.attention is not None
    by_word = output.attention.permute(0, 3, 1, 2, 4)  # (B, T, L, A, M)
    return [
        replace(winner.hypothesis, attention=weights[torch.tensor(winner.reported, device=device)])
        for winner, weights in zip(winners, by_word, strict=True)
    ]


class _Prefixes:
    """The search's state without a cache: the whole prefix, read anew for every word."""

    def __init__(self, memory: Memory, beams: int) -> None:
        self.memory = Memory(memory.levels.repeat_interleave(beams, 0), memory.visual)
        self.ids = torch.zeros(len(self.memory.levels), 0, dtype=torch.long, device=memory.levels.device)

    @staticmethod
    def step(decoder: Decoder, last: Tensor, state: _Prefixes) -> tuple[Tensor, _Prefixes]:
        state.ids = torch.cat([state.ids, last.unsqueeze(1)], dim=1)
        return decoder.predict(state.memory, state.ids), state

    def reorder(self, rows: Tensor) -> _Prefixes:
        if len(rows) < len(self.ids):
            self.memory = Memory(self.memory.levels[rows], self.memory.visual)
        self.ids = self.ids[rows]
        return self
