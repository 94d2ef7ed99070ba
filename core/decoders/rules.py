"""What a report may look like, whatever a decoder prefers: rules of words and sentences, as tensors over ids.

They only take words away. Where they would leave a hypothesis nothing that its decoder allows, they give way, but for
what is never written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.text import END, PAD, SENTENCE_END, START, TERMINATORS, UNKNOWN, Vocabulary, tokenize

if TYPE_CHECKING:
    from core.decoders.search import GenerateConfig

NEVER = (PAD, START, UNKNOWN)
"""What no report has: two are no words, and a reader can do nothing with the third."""
MOST_SHORT = 3
"""The longest sentence that can be called short, words and punctuation: its ids make one number."""


class Rules:
    """The rules of one vocabulary, the same for all hypotheses.

    Attributes:
        never: (V,) what is never written.
        ends: (V,) what ends a sentence.
        words: (V,) what has a letter or a digit.
        numbers: (V,) what is a number.
        point: (V,) the full stop, which after a number may be a decimal point.
        short: (n,) the short sentences that may be written, each as one number.
    """

    def __init__(
        self,
        config: GenerateConfig,
        vocabulary: Vocabulary | None,
        size: int,
        device: torch.device,
        *,
        plans: bool,
    ) -> None:
        """Make the tables.

        Args:
            config: which rules.
            vocabulary: None where ids are no words: SENTENCE_END alone ends a sentence then.
            size: V, of the decoder's logits.
            device: of the search.
            plans: the decoder writes SENTENCE_END after each sentence.
        """
        self.size, self.ngram, self.min_words = size, config.no_repeat_ngram, config.min_sentence_words
        self.say_again, self.plans = config.say_again, plans
        texts = list(vocabulary.words) if vocabulary is not None else [""] * size
        removed = vocabulary.removed if vocabulary is not None and not config.removed_words else ()

        def table(chosen: Sequence[bool]) -> Tensor:
            return torch.tensor(chosen, dtype=torch.bool, device=device)

        never = {*NEVER, *removed, *(() if plans else (SENTENCE_END,))}
        self.never = table([index in never for index in range(size)])
        self.ends = table([index == SENTENCE_END or text in TERMINATORS for index, text in enumerate(texts)])
        self.words = table(
            [
                index > SENTENCE_END and (vocabulary is None or any(each.isalnum() for each in text))
                for index, text in enumerate(texts)
            ]
        )
        self.numbers = table([text.isdigit() for text in texts])
        self.point = table([text == "." for text in texts])
        self.closes = self.ends.clone()
        self.closes[END] = True
        tokens = [tokenize(text) for text in config.short_sentences]
        known = [] if vocabulary is None else [vocabulary.ids(each) for each in tokens if len(each) <= MOST_SHORT]
        self.short = torch.tensor([_number(each, size) for each in known], dtype=torch.long, device=device)


def _number(ids: Sequence[int], size: int) -> int:
    """One number for the ids of a short sentence."""
    number = 0
    for each in ids:
        number = number * size + each
    return number


class Written:
    """Where each hypothesis stands in its sentence: rows that go along with the search's."""

    def __init__(self, rules: Rules, rows: int, device: torch.device) -> None:
        """Nothing is written yet."""
        self.rules = rules
        self.follows_sentences = rules.ngram > 0 or rules.min_words > 0 or not rules.say_again
        none = torch.zeros(rows, dtype=torch.long, device=device)
        self.ids = none.unsqueeze(1)[:, :0]  # (rows, t), START left out
        self.begin = none  # step at which the sentence began
        self.count = none  # words in it
        self.number = none  # its ids as one number, while it is short
        self.last, self.before = none + START, none + START

    @property
    def fresh(self) -> Tensor:
        """(rows,) whether a sentence begins with the next word."""
        return self.begin == self.ids.shape[1]

    @property
    def between(self) -> Tensor:
        """(rows,) whether what is compared with the rest begins: a sentence; with a planner, all that it planned."""
        return (self.last == START) | (self.last == SENTENCE_END) if self.rules.plans else self.fresh

    def keep(self, rows: Tensor) -> None:
        """Let all other rows go."""
        self.ids, self.begin, self.count, self.number, self.last, self.before = (
            each[rows] for each in (self.ids, self.begin, self.count, self.number, self.last, self.before)
        )

    def kept(self, row: int) -> tuple[int, ...]:
        """Ids that a row has written, but for those that are left out."""
        return tuple(each for each in self.ids[row].tolist() if each != PAD)

    def leave_out(self, row: int, words: int) -> None:
        """Forget so many words before the last one."""
        self.ids[row, -1 - words : -1] = PAD

    def forbid(self, log_probabilities: Tensor) -> Tensor:
        """Log-probabilities (rows, V), with -inf for what a row may not write next."""
        allowed = log_probabilities.masked_fill(self.rules.never, -math.inf)
        if not self.follows_sentences:
            return allowed
        ruled = allowed
        if self.rules.min_words:
            ruled = ruled.masked_fill(self._out_of_place(), -math.inf)
        if self.rules.ngram:
            ruled = self._without_repeats(ruled)
        return torch.where(ruled.amax(1, keepdim=True).isneginf(), allowed, ruled)

    def follow(self, rows: Tensor, words: Tensor) -> None:
        """Go on with hypotheses ``rows`` (R,), each of which wrote one of ``words`` (R,)."""
        if not self.follows_sentences:
            return
        rules, step = self.rules, self.ids.shape[1]
        begin, count, number, last, before = (
            each[rows] for each in (self.begin, self.count, self.number, self.last, self.before)
        )
        # A point after a number was a full stop if no number follows.
        over = rules.point[last] & rules.numbers[before] & ~rules.numbers[words]
        begin = torch.where(over, step, begin)
        count = count.masked_fill(over, 0) + rules.words[words]
        number = torch.where(step - begin < MOST_SHORT, number.masked_fill(over, 0) * rules.size + words, -1)
        over = rules.ends[words] & ~(rules.point[words] & rules.numbers[last])
        self.begin = torch.where(over, step + 1, begin)
        self.count, self.number = count.masked_fill(over, 0), number.masked_fill(over, 0)
        self.last, self.before = words, last
        self.ids = torch.cat([self.ids[rows], words.unsqueeze(1)], dim=1)

    def _out_of_place(self) -> Tensor:
        """(rows, V): ends of sentences that are too short, or have ended; punctuation that begins a sentence."""
        rules, last = self.rules, self.last
        short = (self.count < rules.min_words) & ~torch.isin(self.number, rules.short)
        # Inside a sentence: one that is short goes on, with a decimal point if it is a number.
        whole = rules.numbers[last] & ~(rules.point[self.before] & (self.count > 1))
        inside = short.unsqueeze(1) & rules.closes & ~(rules.point & whole.unsqueeze(1))
        pointed = rules.point[last] & rules.numbers[self.before]
        inside |= (pointed & short).unsqueeze(1) & ~rules.numbers
        inside |= pointed.unsqueeze(1) & rules.ends & (torch.arange(rules.size, device=last.device) != SENTENCE_END)
        # Between sentences: a word begins the next one, or the end comes, of the report or of a planned sentence.
        between = ~(rules.words | rules.closes) | rules.ends
        between = between.expand(len(last), -1).clone()
        between[:, SENTENCE_END] = (last == START) | (last == SENTENCE_END)
        between[:, END] = last == START
        return torch.where(self.fresh.unsqueeze(1), between, inside)

    def _without_repeats(self, log_probabilities: Tensor) -> Tensor:
        """Forbid words that would complete an n-gram which the row's sentence already has."""
        size, step = self.rules.ngram, self.ids.shape[1]
        if step < size:
            return log_probabilities
        grams = self.ids.unfold(1, size, 1)  # (rows, grams, size)
        last = self.ids[:, step - size + 1 :]
        inside = torch.arange(grams.shape[1], device=last.device) >= self.begin.unsqueeze(1)
        comes_again = inside & (grams[..., :-1] == last.unsqueeze(1)).all(2)
        # Words that may come go to a column of their own, beyond the vocabulary.
        words = torch.where(comes_again, grams[..., -1], self.rules.size)
        blocked = torch.zeros(len(words), self.rules.size + 1, dtype=torch.bool, device=words.device)
        return log_probabilities.masked_fill(blocked.scatter_(1, words, value=True)[:, : self.rules.size], -math.inf)
