"""Beam search: against exhaustive search, batched against one by one, cached against uncached."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.decoders import Decoder, Memory
from core.decoders.base import DecoderOutput
from core.decoders.search import GenerateConfig, generate
from core.text import END, SENTENCE_END, START, Vocabulary, split_sentences
from core.types import CXRLensError, VisualTokens

pytestmark = pytest.mark.numeric


class Markov(Decoder):
    """A decoder whose next word depends on the last one only: small enough to search exhaustively."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table  # (V, V) log-probabilities of the next word, by the last

    def encode(self, visual: VisualTokens, *, return_attention: bool = False) -> Memory:
        return Memory(visual.tokens.unsqueeze(1), slice(0, visual.tokens.shape[1]))

    def predict(self, memory: Memory, ids: Tensor) -> Tensor:
        return self.table[ids[:, -1]]

    def decode(self, memory: Memory, ids: Tensor, *, return_attention: bool = False) -> DecoderOutput:
        # The attention spells the word that was read.
        spelled = ids.float()[:, None, None, :, None].expand(-1, -1, -1, -1, memory.levels.shape[2])
        return DecoderOutput(self.table[ids], spelled)

    def start(self, memory: Memory, beams: int = 1) -> Step:
        return Step()

    def step(self, ids: Tensor, state: Step) -> tuple[Tensor, Step]:
        return self.table[ids], state


class Step:
    def reorder(self, rows: Tensor) -> Step:
        return self


def markov(seed: int, size: int = 8) -> Markov:
    generator = torch.Generator().manual_seed(seed)
    return Markov((torch.randn(size, size, generator=generator) * 2).log_softmax(1))


def score_of(table: Tensor, ids: tuple[int, ...]) -> float:
    return sum(float(table[a, b]) for a, b in itertools.pairwise((START, *ids)))


def everything(table: Tensor, max_words: int) -> Iterator[tuple[int, ...]]:
    """All that may be written: words, then END; or as many words as the limit lets."""
    words = range(SENTENCE_END + 1, len(table))
    for length in range(1, max_words + 1):
        for middle in itertools.product(words, repeat=length - 1):
            yield (*middle, END)
    yield from itertools.product(words, repeat=max_words)


def exhaustive(table: Tensor, max_words: int, power: float) -> tuple[tuple[int, ...], float]:
    best = max(everything(table, max_words), key=lambda ids: score_of(table, ids) / len(ids) ** power)
    return best, score_of(table, best) / len(best) ** power


VISUAL = VisualTokens(torch.zeros(2, 3, 4), (), ("x",) * 3)


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_what_exhaustive_search_finds(seed: int) -> None:
    model = markov(seed)
    config = GenerateConfig(beam_size=200, max_words=4, length_penalty=0.0)
    found = generate(model, VISUAL, config)[0]
    expected, score = exhaustive(model.table, 4, 0.0)
    assert found.ids == expected
    assert found.log_probability == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_a_penalty_of_the_end_is_in_the_search_and_not_in_the_result(seed: int) -> None:
    model, penalty = markov(seed), 3.0
    config = GenerateConfig(beam_size=200, max_words=4, length_penalty=1.0, end_penalty=penalty)
    found = generate(model, VISUAL, config)[0]
    dear = model.table.clone()
    dear[:, END] -= penalty
    expected, score = exhaustive(dear, 4, 1.0)
    assert found.ids == expected
    paid = penalty if expected[-1] == END else 0.0
    assert found.log_probability == pytest.approx(score * len(expected) + paid, abs=1e-4)


def test_greedy_takes_the_best_word_each_time() -> None:
    model = markov(1)
    ids, last = [], 1
    for _ in range(12):
        allowed = [END, *range(SENTENCE_END + 1, len(model.table))]
        last = max(allowed, key=model.table[last].__getitem__)
        ids.append(last)
        if last == END:
            break
    found = generate(model, VISUAL, GenerateConfig(beam_size=1, max_words=12))[0]
    assert found.ids == tuple(ids)
    assert found.finished == (ids[-1] == END)


@pytest.mark.parametrize("beams", [1, 4])
def test_attention_is_that_of_reading_the_report(beams: int, decoder: Decoder, visual: VisualTokens) -> None:
    memory = decoder.encode(visual)
    for study, found in enumerate(
        generate(decoder, memory, GenerateConfig(beam_size=beams, max_words=20), return_attention=True)
    ):
        alone = Memory(memory.levels[study : study + 1], memory.visual)
        read = decoder.decode(alone, torch.tensor([[START, *found.ids[:-1]]]), return_attention=True)
        torch.testing.assert_close(found.attention, read.attention[0].permute(2, 0, 1, 3), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 4])
def test_long_reports_equal_those_without_a_cache(beams: int, decoder: Decoder, visual: VisualTokens) -> None:
    config = GenerateConfig(beam_size=beams, max_words=70, end_penalty=30.0)  # longer than there is room at first
    one = replace(visual, tokens=visual.tokens[:1])
    cached, plain = (generate(decoder, one, config, cached=each) for each in (True, False))
    assert [each.ids for each in cached] == [each.ids for each in plain]
    assert max(len(each.ids) for each in cached) == 70
    for found, other in zip(cached, plain, strict=True):
        assert found.log_probability == pytest.approx(other.log_probability, abs=2e-3)


def test_weights_that_change_between_two_searches_count(decoder: Decoder, visual: VisualTokens) -> None:
    config = GenerateConfig(beam_size=2, max_words=10)  # as when reports are written in the midst of training
    before = generate(decoder, visual, config)
    with torch.no_grad():
        for weights in decoder.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(7)) * 0.3)
    after, plain = (generate(decoder, visual, config, cached=each) for each in (True, False))
    assert [each.ids for each in after] == [each.ids for each in plain] != [each.ids for each in before]


def test_attention_belongs_to_the_winning_beam() -> None:
    model = markov(4)
    found = generate(model, VISUAL, GenerateConfig(beam_size=5, max_words=9), return_attention=True)[0]
    assert found.attention.shape == (len(found.ids), 1, 1, 3)
    assert found.attention[:, 0, 0, 0].tolist() == [1, *found.ids[:-1]]


@pytest.mark.parametrize("beams", [1, 4])
def test_cached_equals_uncached_and_batched_equals_one_by_one(
    beams: int, decoder: Decoder, visual: VisualTokens
) -> None:
    config = GenerateConfig(beam_size=beams, max_words=25)
    batched = [each.ids for each in generate(decoder, visual, config)]
    assert [each.ids for each in generate(decoder, visual, config, cached=False)] == batched
    alone = [
        generate(decoder, VisualTokens(visual.tokens[row : row + 1], visual.grids, visual.sources), config)[0].ids
        for row in range(3)
    ]
    assert alone == batched


def test_n_grams_come_once_in_a_sentence_and_again_in_the_next(
    decoder: Decoder, visual: VisualTokens, vocabulary: Vocabulary
) -> None:
    twice = 0
    for seed in range(4):
        config = GenerateConfig(beam_size=3, max_words=40, no_repeat_ngram=2, min_sentence_words=2)
        seen = replace(visual, tokens=visual.tokens.roll(seed, 2))
        for found in generate(decoder, seen, config, vocabulary):
            planned = " ".join(map(str, found.ids)).split(f" {SENTENCE_END} ")  # one without a full stop ends there too
            words = [vocabulary.decode(map(int, each.split())) for each in planned]
            sentences = [sentence for each in words for sentence in split_sentences(each)]
            pairs = [list(itertools.pairwise(sentence)) for sentence in sentences]
            assert all(len(each) == len(set(each)) for each in pairs)
            whole = [pair for each in pairs for pair in each]
            twice += len(whole) > len(set(whole))
    assert twice  # the search before would have refused these


@pytest.mark.parametrize("size", [1, 2, 3])
def test_without_repeats_a_wide_beam_finds_the_best_report_that_has_none(size: int) -> None:
    model = markov(4)
    model.table[:, END] -= 2  # long reports, which would repeat
    config = GenerateConfig(beam_size=300, max_words=5, length_penalty=0.0, no_repeat_ngram=size)

    def repeats(ids: tuple[int, ...]) -> bool:
        grams = [ids[start : start + size] for start in range(len(ids) - size + 1)]
        return len(set(grams)) < len(grams)

    without = [ids for ids in everything(model.table, 5) if not repeats(ids)]
    assert generate(model, VISUAL, config)[0].ids == max(without, key=lambda ids: score_of(model.table, ids))


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_at_the_limit_unfinished_reports_compete(power: float) -> None:
    table = torch.full((7, 7), -9.0)
    table[START, 5], table[START, 6], table[5, 5], table[5, 6], table[6, END] = -0.1, -3.0, -0.1, -2.0, -1.0
    config = GenerateConfig(beam_size=2, max_words=3, length_penalty=power)
    (found, _) = generate(Markov(table), VISUAL, config)
    # (5, 6, END) is done, but (5, 5, 5), which the limit cuts, is likelier.
    table = table.log_softmax(1)
    assert not found.finished
    assert found.ids == (5, 5, 5) == exhaustive(table, 3, power)[0]
    assert found.log_probability == pytest.approx(score_of(table, (5, 5, 5)), abs=1e-5)


class Ending(Markov):
    """Studies whose first token says after how many words their report ends; it counts the rows it is asked for."""

    def __init__(self, size: int = 8) -> None:
        super().__init__(torch.zeros(size, size))
        self.asked: list[int] = []

    def start(self, memory: Memory, beams: int = 1) -> Lengths:
        return Lengths(memory.levels[:, 0, 0, 0].repeat_interleave(beams), 0)

    def step(self, ids: Tensor, state: Lengths) -> tuple[Tensor, Lengths]:
        self.asked.append(len(ids))
        generator = torch.Generator().manual_seed(state.step)
        logits = torch.randn(len(self.table), generator=generator).expand(len(ids), -1).clone()
        logits[:, END] = torch.where(state.lengths == state.step, 40.0, -40.0)
        return logits, Lengths(state.lengths, state.step + 1)

    def decode(self, memory: Memory, ids: Tensor, *, return_attention: bool = False) -> DecoderOutput:
        lengths = memory.levels[:, 0, 0, 0][:, None, None, None, None]
        return DecoderOutput(torch.zeros(*ids.shape, 1), lengths.expand(-1, 1, 1, ids.shape[1], 3))


class Lengths:
    def __init__(self, lengths: Tensor, step: int) -> None:
        self.lengths, self.step = lengths, step

    def reorder(self, rows: Tensor) -> Lengths:
        return Lengths(self.lengths[rows], self.step)


def test_studies_that_are_done_leave_the_batch() -> None:
    lengths = [2, 9, 5, 2]
    tokens = torch.tensor(lengths).float()[:, None, None].expand(-1, 3, 4)
    model, config = Ending(), GenerateConfig(beam_size=1, max_words=20)
    found = generate(model, VisualTokens(tokens, (), ("x",) * 3), config, return_attention=True)
    assert [len(each.ids) for each in found] == [3, 10, 6, 3]
    assert model.asked == [4, 4, 4, 2, 2, 2, 1, 1, 1, 1]
    for length, each in zip(lengths, found, strict=True):
        assert each.attention[:, 0, 0, 0].tolist() == [length] * (length + 1)  # of its own rows throughout


def test_the_limit_cuts_and_says_so(visual: VisualTokens) -> None:
    model = markov(0)
    model.table[:, END] = -1e9
    found = generate(model, VISUAL, GenerateConfig(beam_size=2, max_words=6))[0]
    assert not found.finished
    assert len(found.ids) == 6


def test_nan_is_refused(visual: VisualTokens) -> None:
    model = markov(0)
    model.table[:] = float("nan")
    with pytest.raises(CXRLensError, match="NaN instead of word scores"):
        generate(model, VISUAL, GenerateConfig())


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(CXRLensError, match="beam_size"):
        GenerateConfig(beam_size=0)
