"""The beams of a search: log-probabilities of next words in, word by word; the best hypothesis of each study out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.decoders.rules import Bools, Ids, Written, rules_of
from core.labels.repeats import last_says_again
from core.text import END, SENTENCE_END, Vocabulary, split_sentences
from core.types import CXRLensError

if TYPE_CHECKING:
    from core.decoders.search import GenerateConfig

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished sequence.

    Attributes:
        ids: words and END, START left out; without END where the limit cut it.
        log_probability: sum over ids, natural log.
        finished: it has its END.
        attention: (T, L, A, M) weights of the winning beam, one row for each of ids; None unless asked for.
        added: observations that were found and that it says because it was made to (`GenerateConfig.say_found`).
        contradicted: ids of each sentence that it does not have because it contradicts others.
    """

    ids: tuple[int, ...]
    log_probability: float
    finished: bool
    attention: Tensor | None = None
    added: tuple[str, ...] = ()
    contradicted: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Winner:
    """The best hypothesis of a study.

    Attributes:
        hypothesis: without its attention.
        written: all ids that the search wrote for it, those that its report leaves out too.
        reported: places in ``written`` of the ids of the report.
    """

    hypothesis: Hypothesis
    written: Sequence[int]
    reported: Sequence[int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A hypothesis that may win.

    Attributes:
        normalised: what it is chosen by.
        score: its log-probability.
        step: words that the search wrote for it, those that are left out too, END not.
        row: in the batch of that step.
        finished: it has its END.
    """

    normalised: float
    score: float
    step: int
    row: int
    finished: bool


class Beams:
    """Beams of the studies that are not done: words and parents by step; hypotheses are read off backwards.

    The batch of a step has ``beam_size`` rows for each of ``going``, the studies that go on, in their order.
    """

    def __init__(
        self,
        studies: int,
        config: GenerateConfig,
        vocabulary: Vocabulary | None,
        *,
        plans: bool,
    ) -> None:
        self.config, self.vocabulary, self.beams, self.plans = config, vocabulary, config.beam_size, plans
        self.going = list(range(studies))
        self.scores: Floats = np.full((studies, self.beams), -math.inf, dtype=np.float32)
        self.scores[:, 0] = 0.0  # all beams start alike: let only the first branch
        self.words: list[Ids] = []
        """By step, the word that each row of the next batch wrote."""
        self.rows: list[Ids] = []
        """By step, the row of this batch from which each row of the next one comes."""
        self.written: Written | None = None
        self.pools: list[list[Candidate]] = [[] for _ in range(studies)]
        self.cut_short: list[list[Candidate]] = [[] for _ in range(studies)]
        """Hypotheses that ended because they would have said something again."""
        self.compares = vocabulary is not None and not config.say_again
        self.opening: Floats = np.zeros((2, studies, self.beams), dtype=np.float32)
        """Where what sentences say is compared: score when the sentence began, and END's log-probability there."""
        self.omitted: Floats = np.zeros((studies, self.beams), dtype=np.float32)
        """Log-probability of the words that each beam leaves out; the search goes on counting them."""
        self.left_out: list[dict[int, int]] = []
        """By step, rows of the next batch before whose last word so many others are left out."""

    def advance(self, logits: Tensor) -> Ids:
        """Extend every beam by its best words; returns the rows that go on, none once all studies are done."""
        if self.written is None:
            rules = rules_of(self.config, self.vocabulary, logits.shape[1], logits.device, plans=self.plans)
            self.written = Written(rules, len(logits))
        ruled = self.written.forbid(logits.float().log_softmax(1))
        values, ids = self._likeliest(logits, ruled)
        if self.compares and (between := self.written.between).any():
            ends = ruled[:, END].cpu().numpy() + np.float32(self.config.end_penalty)
            now = np.stack([self.scores, ends.reshape(self.scores.shape)])
            self.opening = np.where(between.reshape(self.scores.shape), now, self.opening)
        studies, each = len(self.going), values.shape[1]
        total = (self.scores[:, :, None] + values.reshape(studies, self.beams, each)).reshape(studies, -1)
        flat = (-total).argsort(axis=1, kind="stable")[:, : 2 * self.beams]
        study = np.arange(studies)[:, None]
        best, beam, word = total[study, flat], flat // each, ids.reshape(studies, -1)[study, flat]
        ended = word == END
        if ended[:, : self.beams].any():
            self._finish(best, beam, ended)
        # END leaves the search; the best of the others go on.
        rest = np.where(ended, -np.inf, best)
        order = (-rest).argsort(axis=1, kind="stable")[:, : self.beams]
        self.scores = rest[study, order]
        self._follow(beam[study, order], word[study, order])
        if len(self.words) == self.config.max_words:
            self._let_compete()
        elif done := self._done():
            self._leave(done)
        return self.rows[-1]

    def _likeliest(self, logits: Tensor, ruled: Tensor) -> tuple[Floats, Ids]:
        """Each row's likeliest words by log-probabilities (rows, V) under the rules: (rows, up to 2 * beams) each."""
        assert self.written is not None
        count = min(2 * self.beams, ruled.shape[1])
        values, ids = (each.cpu().numpy() for each in ruled.topk(count, dim=1))
        if np.isnan(values[:, 0]).any():  # which one NaN among a row's logits makes of all
            raise CXRLensError(
                "The decoder gave NaN instead of word scores. Its weights are damaged or its input is not finite: "
                "verify the bundle with 'cxr-lens bundles --verify'."
            )
        stuck: Bools = np.isneginf(values[:, 0])
        if stuck.any():
            rows = torch.from_numpy(np.flatnonzero(stuck)).to(logits.device)
            free = self.written.give_way(logits.index_select(0, rows).float().log_softmax(1))
            ruled[rows] = free
            values[stuck], ids[stuck] = (each.cpu().numpy() for each in free.topk(count, dim=1))
        return values, ids

    def _follow(self, beam: Ids, word: Ids) -> None:
        """Go on with each study's ``beam`` (studies, beams), which wrote ``word``."""
        assert self.written is not None
        first = np.arange(0, len(self.going) * self.beams, self.beams)[:, None]
        self.rows.append((beam + first).ravel())
        self.words.append(word.ravel())
        self.left_out.append({})
        self.written.follow(self.rows[-1], self.words[-1])
        if self.compares:
            if self.beams > 1:
                self.opening = self.opening.reshape(2, -1)[:, self.rows[-1]].reshape(2, *self.scores.shape)
                self.omitted = self.omitted.ravel()[self.rows[-1]].reshape(self.scores.shape)
            closed = self.written.between.reshape(self.scores.shape)
            for place in np.unique(closed.nonzero()[0]).tolist():
                finite = np.isfinite(self.scores[place]).tolist()
                self._compare(place, [beam for beam, goes in enumerate(finite) if goes and closed[place, beam]])

    def _leave(self, done: set[int]) -> None:
        """Let the studies at these places of the batch go."""
        assert self.written is not None
        kept = [place for place in range(len(self.going)) if place not in done]
        rows = [place * self.beams + beam for place in kept for beam in range(self.beams)]
        new = {row: index for index, row in enumerate(rows)}
        self.going = [self.going[place] for place in kept]
        self.scores, self.opening, self.omitted = self.scores[kept], self.opening[:, kept], self.omitted[kept]
        self.rows[-1], self.words[-1] = self.rows[-1][rows], self.words[-1][rows]
        self.left_out[-1] = {new[row]: count for row, count in self.left_out[-1].items() if row in new}
        self.written.keep(rows)

    def _compare(self, place: int, beams: Sequence[int]) -> None:
        """Let no beam of a study say again what it said, of those whose last sentence has ended; see `say_again`."""
        assert self.written is not None
        kept: set[tuple[int, ...]] = set()
        for beam in beams:
            row = place * self.beams + beam
            sentences = self._sentences(row)
            if last_says_again(sentences):
                words = len(sentences[-1])
                if self.plans:
                    self._leave_out(place, beam, words)
                else:
                    self._end_before(place, beam, words)
            if (ids := self.written.kept(row)) in kept:  # what differed was left out
                self.scores[place, beam] = -math.inf
            kept.add(ids)

    def _leave_out(self, place: int, beam: int, words: int) -> None:
        """Keep the last words before its last one out of a beam's report."""
        assert self.written is not None
        row = place * self.beams + beam
        self.omitted[place, beam] += self.scores[place, beam] - self.opening[0, place, beam]
        self.left_out[-1][row] = words
        self.written.leave_out(row, words)

    def _end_before(self, place: int, beam: int, words: int) -> None:
        """Take a beam out of the search; its report without the last words competes."""
        score, end = self.opening[:, place, beam].tolist()
        step, row = len(self.words), place * self.beams + beam
        for _ in range(words):
            step, row = step - 1, int(self.rows[step - 1][row])
        normalised = (score + end - self.config.end_penalty) / self._length(step + 1)
        self.cut_short[self.going[place]].append(Candidate(normalised, score + end, step, row, finished=True))
        self.scores[place, beam] = -math.inf

    def _sentences(self, row: int) -> list[list[str]]:
        """Words of what a row has written, by sentence; of a planner, by what it planned as one."""
        assert self.written is not None
        assert self.vocabulary is not None
        ids: list[int] = self.written.ids[row].tolist()
        if not self.plans:
            return split_sentences(self.vocabulary.decode(ids))
        ends = [index for index, each in enumerate(ids) if each == SENTENCE_END]
        planned = [self.vocabulary.decode(ids[first:last]) for first, last in pairwise([0, *ends])]
        return [words for words in planned if words]

    def _length(self, words: float) -> float:
        """By what a log-probability of so many words is divided."""
        return float(words**self.config.length_penalty)

    def _finish(self, best: Floats, beam: Ids, ended: Bools) -> None:
        """Put hypotheses that END among the best ``beam_size`` into their study's pool."""
        step, first = len(self.words), slice(self.beams)
        for place, rank in np.argwhere(ended[:, first] & np.isfinite(best[:, first])).tolist():
            pool = self.pools[self.going[place]]
            if len(pool) < self.beams:
                score, from_beam = float(best[place, rank]), int(beam[place, rank])
                reported = score + self.config.end_penalty - float(self.omitted[place, from_beam])
                row = place * self.beams + from_beam
                pool.append(Candidate(score / self._length(step + 1), reported, step, row, finished=True))

    def _done(self) -> set[int]:
        """Places in the batch of studies whose pool is full, or that have nothing left to extend."""
        alive = set(np.isfinite(self.scores).nonzero()[0].tolist())
        full = [len(self.pools[study]) >= self.beams for study in self.going]
        return {place for place, is_full in enumerate(full) if is_full or place not in alive}

    def _let_compete(self) -> None:
        """At the length limit, put the beams of studies that are not done into their pools."""
        done, step = self._done(), len(self.words)
        for place, (study, scores) in enumerate(zip(self.going, self.scores.tolist(), strict=True)):
            for beam, score in enumerate(scores if place not in done else []):
                if math.isfinite(score):
                    reported, row = score - float(self.omitted[place, beam]), place * self.beams + beam
                    self.pools[study].append(Candidate(score / self._length(step), reported, step, row, finished=False))

    def best(self, study: int) -> Winner:
        """The best hypothesis of a study, read back from its last row."""
        pool = self.pools[study] + self.cut_short[study]
        if not pool:
            raise CXRLensError(
                "The decoder allowed no word that may be written. Its weights are damaged: verify the bundle with "
                "'cxr-lens bundles --verify'."
            )
        found = max(pool, key=lambda each: each.normalised)
        written, reported = ([END], [found.step]) if found.finished else ([], [])
        row, omit = found.row, 0
        for step in range(found.step - 1, -1, -1):
            written.append(int(self.words[step][row]))
            if omit:
                omit -= 1
            else:
                reported.append(step)
                omit = self.left_out[step].get(row, 0)
            row = int(self.rows[step][row])
        written.reverse()
        reported.reverse()
        ids = tuple(written[place] for place in reported)
        return Winner(Hypothesis(ids, found.score, found.finished), written, reported)
