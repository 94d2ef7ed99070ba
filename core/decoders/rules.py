"""What a report may look like, whatever a decoder prefers: rules of words and sentences over ids.

They only take words away. Where they would leave a hypothesis nothing that its decoder allows, they give way, but for
what is never written. What they follow are a few numbers a hypothesis, kept in NumPy: on so few, torch takes longer to
begin than to compute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum, auto
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.text import END, PAD, SENTENCE_END, START, TERMINATORS, UNKNOWN, Vocabulary, tokenize

if TYPE_CHECKING:
    from core.decoders.search import GenerateConfig

Bools = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]

NEVER = (PAD, START, UNKNOWN)
"""What no report has: two are no words, and a reader can do nothing with the third."""
MOST_SHORT = 3
"""The longest sentence that can be called short, words and punctuation: its ids make one number."""


class Place(IntEnum):
    """Where a hypothesis stands; each place forbids some words."""

    ANYWHERE = 0
    SHORT = auto()
    """In a sentence that is too short to end."""
    SHORT_NUMBER = auto()
    """The same after a number, which a decimal point may follow."""
    SHORT_POINT = auto()
    """The same after a number and a point, which can only be a decimal point."""
    POINT = auto()
    """After a number and a point, in a sentence that is long enough for it to be a full stop."""
    REPORT = auto()
    """Before the first word."""
    SENTENCE = auto()
    """Before a sentence, after a full stop."""
    PLANNED = auto()
    """Before a planned sentence."""


class Rules:
    """The rules of one vocabulary, the same for all hypotheses.

    Attributes:
        ends: (V,) what ends a sentence.
        words: (V,) what has a letter or a digit.
        numbers: (V,) what is a number.
        point: (V,) the full stop, which after a number may be a decimal point.
        short: the short sentences that may be written, each as one number.
        costs: (places, V), on the search's device, taken from log-probabilities at each `Place`: infinity for what is
            not written there, the penalty of END.
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
        self.say_again, self.plans, self.edge_numbers = config.say_again, plans, config.edge_numbers
        texts = list(vocabulary.words) if vocabulary is not None else ["word"] * size
        removed = vocabulary.removed if vocabulary is not None and not config.removed_words else ()
        ids = np.arange(size)
        self.ends: Bools = (ids == SENTENCE_END) | np.array([text in TERMINATORS for text in texts])
        self.words: Bools = (ids > SENTENCE_END) & np.array([any(map(str.isalnum, text)) for text in texts])
        self.numbers: Bools = np.array([text.isdigit() for text in texts])
        self.point: Bools = np.array([text == "." for text in texts])
        tokens = [tokenize(text) for text in config.short_sentences]
        known = [] if vocabulary is None else [vocabulary.ids(each) for each in tokens if len(each) <= MOST_SHORT]
        self.short: Ids = np.array([_number(each, size) for each in known], dtype=np.int64)
        never = np.isin(ids, [*NEVER, *removed, *(() if plans else (SENTENCE_END,))])
        places = np.tile(never, (len(Place), 1))
        if self.min_words:
            closes, end, planned = self.ends | (ids == END), ids == END, ids == SENTENCE_END
            places[Place.SHORT] |= closes
            places[Place.SHORT_NUMBER] |= closes & ~self.point
            places[Place.SHORT_POINT] |= ~self.numbers
            places[Place.POINT] |= self.ends & ~planned
            places[Place.REPORT] |= ~self.words
            places[Place.SENTENCE] |= ~(self.words | end | planned)
            places[Place.PLANNED] |= ~(self.words | end)
            if not config.edge_numbers:
                places[[Place.REPORT, Place.SENTENCE, Place.PLANNED]] |= self.numbers
        costs = np.where(places, np.inf, np.where(ids == END, config.end_penalty, 0.0)).astype(np.float32)
        self.costs = torch.from_numpy(costs).to(device)


@lru_cache(maxsize=32)
def rules_of(
    config: GenerateConfig, vocabulary: Vocabulary | None, size: int, device: torch.device, *, plans: bool
) -> Rules:
    """`Rules`, whose tables are made once for all searches that have them in common."""
    return Rules(config, vocabulary, size, device, plans=plans)


def _number(ids: Sequence[int], size: int) -> int:
    """One number for the ids of a short sentence."""
    number = 0
    for each in ids:
        number = number * size + each
    return number


class Written:
    """Where each hypothesis stands in its sentence: rows that go along with the search's.

    Attributes:
        ids: (rows, t) what each has written, START left out; PAD for words that are left out.
        marks: (5, rows), as the properties name them.
    """

    def __init__(self, rules: Rules, rows: int) -> None:
        """Nothing is written yet."""
        self.rules = rules
        self.follows_sentences = rules.ngram > 0 or rules.min_words > 0 or not rules.say_again
        self.ids: Ids = np.zeros((rows, 0), dtype=np.int64)
        self.marks: Ids = np.array([[0], [0], [0], [START], [START]]).repeat(rows, axis=1)

    @property
    def begin(self) -> Ids:
        """(rows,) step at which its sentence began."""
        return self.marks[0]

    @property
    def count(self) -> Ids:
        """(rows,) words in it; 0 where sentences may be of any length."""
        return self.marks[1]

    @property
    def number(self) -> Ids:
        """(rows,) its ids as one number, while it is short; likewise."""
        return self.marks[2]

    @property
    def last(self) -> Ids:
        """(rows,) id of its last word."""
        return self.marks[3]

    @property
    def before(self) -> Ids:
        """(rows,) id of the word before."""
        return self.marks[4]

    @property
    def fresh(self) -> Bools:
        """(rows,) whether a sentence begins with the next word."""
        return self.begin == self.ids.shape[1]

    @property
    def between(self) -> Bools:
        """(rows,) whether what is compared with the rest begins: a sentence; with a planner, all that it planned."""
        return (self.last == START) | (self.last == SENTENCE_END) if self.rules.plans else self.fresh

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other rows go."""
        self._go_on(np.array(rows, dtype=np.int64))

    def kept(self, row: int) -> tuple[int, ...]:
        """Ids that a row has written, but for those that are left out."""
        return tuple(each for each in self.ids[row].tolist() if each != PAD)

    def leave_out(self, row: int, words: int) -> None:
        """Forget so many words before the last one."""
        self.ids[row, -1 - words : -1] = PAD

    def forbid(self, log_probabilities: Tensor) -> Tensor:
        """Log-probabilities (rows, V) less what each word costs: all, for what a row may not write next. In place."""
        rules = self.rules
        if not rules.min_words:
            ruled = log_probabilities.sub_(rules.costs[Place.ANYWHERE])
        else:
            places = torch.from_numpy(self._places()).to(log_probabilities.device)
            ruled = log_probabilities.sub_(rules.costs.index_select(0, places))
        rows, words = self._repeats()
        if len(rows):
            places = torch.from_numpy(rows * ruled.shape[1] + words).to(ruled.device)
            ruled.view(-1).index_fill_(0, places, -math.inf)
        return ruled

    def give_way(self, log_probabilities: Tensor) -> Tensor:
        """What is left where `forbid` leaves nothing: all but what is never written."""
        return log_probabilities.sub_(self.rules.costs[Place.ANYWHERE])

    def follow(self, rows: Ids, words: Ids) -> None:
        """Go on with hypotheses ``rows`` (R,), each of which wrote one of ``words`` (R,)."""
        if not self.follows_sentences:
            return
        rules, step = self.rules, self.ids.shape[1]
        self._go_on(rows)
        begin, count, number, last, before = self.marks
        ends = None
        if rules.ends[words].any() or rules.point[last].any():
            # A point after a number was a full stop if no number follows.
            over = rules.point[last] & rules.numbers[before] & ~rules.numbers[words]
            ends = rules.ends[words] & ~(rules.point[words] & rules.numbers[last])
            begin[over] = step
            count[over] = number[over] = 0
        if rules.min_words:
            number[:] = np.where(step - begin < MOST_SHORT, number * rules.size + words, -1)
            count += rules.words[words]
        if ends is not None:
            begin[ends] = step + 1
            count[ends] = number[ends] = 0
        before[:], last[:] = last, words
        self.ids = np.concatenate([self.ids, words[:, None]], axis=1)

    def _go_on(self, rows: npt.NDArray[Any]) -> None:
        self.ids, self.marks = self.ids[rows], self.marks[:, rows]

    def _places(self) -> Ids:
        """The `Place` of each row, (rows,)."""
        rules, last = self.rules, self.last
        short = (self.count < rules.min_words) & ~(self.number[:, None] == rules.short).any(1)
        number, point = rules.numbers[last], rules.point[last]
        pointed = point & rules.numbers[self.before]
        decimal = number & ~(rules.point[self.before] & (self.count > 1))  # it has no decimal point yet
        if not rules.edge_numbers:
            short |= number | pointed  # too short to end: the noun is missing, or the digits after the point
        inside = np.where(
            short,
            np.where(pointed, Place.SHORT_POINT, np.where(decimal, Place.SHORT_NUMBER, Place.SHORT)),
            np.where(pointed, Place.POINT, Place.ANYWHERE),
        )
        started, planned = last == START, last == SENTENCE_END
        between = np.where(started, Place.REPORT, np.where(planned, Place.PLANNED, Place.SENTENCE))
        return np.where(self.fresh, between, inside).astype(np.int64)

    def _repeats(self) -> tuple[Ids, Ids]:
        """Rows and words: each word would complete an n-gram that the row's sentence already has."""
        size, step = self.rules.ngram, self.ids.shape[1]
        first = int(self.begin.min(initial=step))  # no sentence begins before it
        count = step - size + 1 - first
        if not size or count < 1:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        comes_again = self.begin[:, None] <= np.arange(first, first + count)
        for place in range(size - 1):
            start = first + place
            comes_again &= self.ids[:, start : start + count] == self.ids[:, step - size + 1 + place, None]
        rows, places = comes_again.nonzero()
        return rows, self.ids[rows, first + places + size - 1]
