"""Greedy and beam search over any decoder: cached, batched, deterministic.

It knows ids and log-probabilities, nothing of words or images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.decoders.base import Decoder, Memory
from core.text import END, START
from core.types import CXRLensError, VisualTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """How to write.

    Attributes:
        beam_size: hypotheses kept a study; 1 is greedy.
        max_words: longest report, START left out.
        length_penalty: finished hypotheses are compared by log-probability / length ** length_penalty.
        no_repeat_ngram: a sequence of this many words may not come twice; 0 switches it off.
        end_penalty: taken from END's log-probability, natural log, at each step of the search; above 0 for a decoder
            whose likeliest reports are shorter than what it learned from. It is not part of what is reported.
    """

    beam_size: int = 4
    max_words: int = 100
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    end_penalty: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.beam_size < 1 or self.max_words < 1 or self.no_repeat_ngram < 0:
            raise CXRLensError("generate: beam_size and max_words must be at least 1, no_repeat_ngram at least 0.")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished sequence.

    Attributes:
        ids: words and END, START left out; without END where the limit cut it.
        log_probability: sum over ids, natural log.
        finished: it has its END.
        attention: (T, L, A, M) weights of the winning beam, one row for each of ids; None unless asked for.
    """

    ids: tuple[int, ...]
    log_probability: float
    finished: bool
    attention: Tensor | None = None


@torch.inference_mode()
def generate(
    decoder: Decoder,
    visual: VisualTokens | Memory,
    config: GenerateConfig,
    *,
    return_attention: bool = False,
    cached: bool = True,
) -> list[Hypothesis]:
    """Write a report for each study.

    Beam search with a pool of finished hypotheses: an END among the best ``beam_size`` candidates finishes one; a study
    is done when its pool holds ``beam_size``, or at the length limit. Equal scores are settled by the lower word id of
    the better beam, so the result does not depend on the batch.

    Args:
        decoder: in evaluation mode.
        visual: tokens (B, N, D), or a memory already made of them.
        return_attention: keep the winning beam's weights; needs the cache.
        cached: False recomputes every prefix; the reference for tests and benchmarks.

    Returns:
        One hypothesis a study, the best by normalised score.

    Raises:
        CXRLensError: the decoder gives NaN.
    """
    if return_attention and not cached:
        raise ValueError("Attention is returned by cached generation only.")
    memory = visual if isinstance(visual, Memory) else decoder.encode(visual)
    studies, beams = memory.levels.shape[0], config.beam_size
    device = memory.levels.device
    search = _Search(studies, beams, config, device)
    state: Any = decoder.start(memory, beams) if cached else _Prefixes(memory, beams)
    last = torch.full((studies * beams,), START, device=device)
    for _ in range(config.max_words):
        logits, state = decoder.step(last, state) if cached else state.step(decoder, last)
        rows = search.advance(logits, state.attention if return_attention else None)
        if search.is_done():
            break
        state = state.reorder(rows)
        last = search.words[-1].flatten()
    return [search.best(study) for study in range(studies)]


class _Search:
    """Beams of all studies: words, parents and attention by step; hypotheses are read off backwards."""

    def __init__(self, studies: int, beams: int, config: GenerateConfig, device: torch.device) -> None:
        self.config, self.studies, self.beams = config, studies, beams
        self.scores = torch.full((studies, beams), -math.inf, device=device)
        self.scores[:, 0] = 0.0  # all beams start alike: let only the first branch
        self.words: list[Tensor] = []
        self.parents: list[Tensor] = []
        self.attention: list[Tensor] = []
        self.history = torch.empty(studies, beams, 0, dtype=torch.long, device=device)
        """Words of each hypothesis so far, START left out; kept only where repeats are blocked."""
        self.pool: list[list[tuple[float, float, int, int]]] = [[] for _ in range(studies)]
        self.offsets = (torch.arange(studies, device=device) * beams).unsqueeze(1)

    def advance(self, logits: Tensor, attention: Tensor | None) -> Tensor:
        """Extend every beam by its best words; returns the rows that go on, (studies * beams,)."""
        vocabulary = logits.shape[1]
        if torch.isnan(logits).any():
            raise CXRLensError(
                "The decoder gave NaN instead of word scores. Its weights are damaged or its input is not finite: "
                "verify the bundle with 'cxr-lens bundles --verify'."
            )
        log_probabilities = logits.float().log_softmax(1).unflatten(0, (self.studies, self.beams))
        log_probabilities[:, :, END] -= self.config.end_penalty
        if self.config.no_repeat_ngram:
            self._block_repeats(log_probabilities)
        total = (self.scores.unsqueeze(2) + log_probabilities).flatten(1)
        best, flat = total.topk(min(2 * self.beams, total.shape[1]), dim=1, sorted=True)
        beam, word = flat // vocabulary, flat % vocabulary
        if attention is not None:
            self.attention.append(attention)
        self._finish(best, beam, word)
        # END leaves the search; the best of the others go on.
        going = best.masked_fill(word == END, -math.inf)
        self.scores, order = going.topk(self.beams, dim=1, sorted=True)
        self.parents.append(beam.gather(1, order))
        self.words.append(word.gather(1, order))
        if self.config.no_repeat_ngram:
            before = self.history.gather(1, self.parents[-1].unsqueeze(2).expand_as(self.history))
            self.history = torch.cat([before, self.words[-1].unsqueeze(2)], dim=2)
        return (self.parents[-1] + self.offsets).flatten()

    def _finish(self, best: Tensor, beam: Tensor, word: Tensor) -> None:
        """Put hypotheses that END among the best ``beam_size`` into the pool."""
        ended = (word[:, : self.beams] == END) & torch.isfinite(best[:, : self.beams])
        length = len(self.words) + 1
        for study, rank in ended.nonzero().tolist():
            if len(self.pool[study]) < self.beams:
                score = float(best[study, rank])
                normalised = score / length**self.config.length_penalty
                self.pool[study].append((normalised, score, length, int(beam[study, rank])))

    def is_done(self) -> bool:
        """Whether every study has its pool full, or nothing left to extend."""
        alive = torch.isfinite(self.scores[:, 0]).tolist()
        return all(len(pool) >= self.beams or not alive[study] for study, pool in enumerate(self.pool))

    def best(self, study: int) -> Hypothesis:
        """The best finished hypothesis of a study, or its best beam where the limit came first."""
        if self.pool[study]:
            _, score, length, beam = max(self.pool[study], key=lambda entry: entry[0])
            return self._read(study, length - 1, beam, score + self.config.end_penalty, finished=True)
        return self._read(study, len(self.words), 0, float(self.scores[study, 0]), finished=False)

    def _read(self, study: int, steps: int, beam: int, score: float, *, finished: bool) -> Hypothesis:
        """Follow the parents back from ``beam``, which stands after ``steps`` words."""
        ids: list[int] = [END] if finished else []
        rows = [study * self.beams + beam] if finished else []
        for step in range(steps - 1, -1, -1):
            ids.append(int(self.words[step][study, beam]))
            beam = int(self.parents[step][study, beam])
            rows.append(study * self.beams + beam)
        ids.reverse()
        rows.reverse()
        weights = None
        if self.attention:
            weights = torch.stack([self.attention[step][row] for step, row in enumerate(rows)])
        return Hypothesis(tuple(ids), score, finished, weights)

    def _block_repeats(self, log_probabilities: Tensor) -> None:
        """Forbid words that would complete an n-gram which the hypothesis already has."""
        size = self.config.no_repeat_ngram
        if self.history.shape[2] < size:
            return
        grams = self.history.unfold(2, size, 1)  # (studies, beams, grams, size)
        last = self.history[:, :, self.history.shape[2] - size + 1 :]
        comes_again = (grams[..., :-1] == last.unsqueeze(2)).all(3)
        vocabulary = log_probabilities.shape[2]
        # Words that may come go to a column of their own, beyond the vocabulary.
        words = torch.where(comes_again, grams[..., -1], vocabulary)
        blocked = torch.zeros(*log_probabilities.shape[:2], vocabulary + 1, dtype=torch.bool, device=words.device)
        log_probabilities.masked_fill_(blocked.scatter_(2, words, value=True)[..., :vocabulary], -math.inf)


class _Prefixes:
    """The search's state without a cache: the whole prefix, read anew for every word."""

    def __init__(self, memory: Memory, beams: int) -> None:
        self.memory = Memory(memory.levels.repeat_interleave(beams, 0), memory.visual)
        self.ids = torch.zeros(len(self.memory.levels), 0, dtype=torch.long, device=memory.levels.device)
        self.attention = self.ids

    def step(self, decoder: Decoder, last: Tensor) -> tuple[Tensor, _Prefixes]:
        self.ids = torch.cat([self.ids, last.unsqueeze(1)], dim=1)
        return decoder.predict(self.memory, self.ids), self

    def reorder(self, rows: Tensor) -> _Prefixes:
        self.ids = self.ids[rows]
        return self
