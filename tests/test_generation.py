"""Beam search: against exhaustive search, batched against one by one, cached against uncached."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from core.decoders import Decoder, Memory
from core.decoders.search import GenerateConfig, generate
from core.text import END
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

    def start(self, memory: Memory, beams: int = 1) -> Step:
        return Step(torch.zeros(len(memory.levels) * beams, 1, 1, memory.levels.shape[2]))

    def step(self, ids: Tensor, state: Step) -> tuple[Tensor, Step]:
        # The attention spells the word that was read, so that a mix-up of beams shows.
        return self.table[ids], Step(ids.float()[:, None, None, None].expand_as(state.attention))


class Step:
    def __init__(self, attention: Tensor) -> None:
        self.attention = attention

    def reorder(self, rows: Tensor) -> Step:
        return Step(self.attention[rows])


def markov(seed: int, size: int = 7) -> Markov:
    generator = torch.Generator().manual_seed(seed)
    return Markov((torch.randn(size, size, generator=generator) * 2).log_softmax(1))


def exhaustive(table: Tensor, max_words: int, power: float) -> tuple[tuple[int, ...], float]:
    best, best_score = (), float("-inf")
    words = [word for word in range(len(table)) if word != END]
    for length in range(1, max_words + 1):
        for middle in itertools.product(words, repeat=length - 1):
            ids = (*middle, END)
            score = sum(float(table[a, b]) for a, b in itertools.pairwise((1, *ids))) / length**power
            if score > best_score:
                best, best_score = ids, score
    return best, best_score


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
    assert found.log_probability == pytest.approx(score * len(expected) + penalty, abs=1e-4)


def test_greedy_takes_the_best_word_each_time() -> None:
    model = markov(1)
    ids, last = [], 1
    for _ in range(12):
        last = int(model.table[last].argmax())
        ids.append(last)
        if last == END:
            break
    found = generate(model, VISUAL, GenerateConfig(beam_size=1, max_words=12))[0]
    assert found.ids == tuple(ids)
    assert found.finished == (ids[-1] == END)


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


def test_repeated_n_grams_are_blocked(decoder: Decoder, visual: VisualTokens) -> None:
    for found in generate(decoder, visual, GenerateConfig(beam_size=3, max_words=30, no_repeat_ngram=2)):
        pairs = [pair for pair in itertools.pairwise(found.ids) if END not in pair]
        if decoder.sentences:  # the planner may force SENTENCE_END, which no block can forbid
            pairs = [pair for pair in pairs if 4 not in pair]
        assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_without_repeats_a_wide_beam_finds_the_best_report_that_has_none(size: int) -> None:
    model = markov(4, size=5)
    model.table[:, END] -= 2  # long reports, which would repeat
    config = GenerateConfig(beam_size=300, max_words=5, length_penalty=0.0, no_repeat_ngram=size)
    scores = {}
    for length in range(1, 6):
        for middle in itertools.product([word for word in range(5) if word != END], repeat=length - 1):
            ids = (*middle, END)
            grams = [ids[start : start + size] for start in range(length - size + 1)]
            if len(set(grams)) == len(grams):
                scores[ids] = sum(float(model.table[a, b]) for a, b in itertools.pairwise((1, *ids)))
    assert generate(model, VISUAL, config)[0].ids == max(scores, key=lambda ids: scores[ids])


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
