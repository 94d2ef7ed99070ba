"""Vocabularies of pieces of words, as tokenizers of Hugging Face models cut them; joined to words in one place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.text import END, PAD, SENTENCE_END, SPECIAL_TOKENS, START, UNKNOWN, Vocabulary, Wording, token_spans


@dataclass(frozen=True, slots=True)
class Numbering:
    """A model's own ids in the order of ours: the five special ones first, all others as they come.

    Attributes:
        theirs: (V,) the model's id by ours.
        silent: of our special ids those that are read only, and never predicted. A model may write what it begins
            with, or what fills up (BERT's decoders were mostly taught to write [CLS] first): then it is a piece like
            another, which makes no text.
    """

    theirs: tuple[int, ...]
    silent: tuple[int, ...]

    @property
    def ours(self) -> dict[int, int]:
        """Our id by the model's."""
        return {theirs: index for index, theirs in enumerate(self.theirs) if index not in self.silent}


def numbering(size: int, *, start: int, end: int, pad: int | None = None, unknown: int | None = None) -> Numbering:
    """Number a model's ids as ours.

    Args:
        size: of the model's vocabulary.
        start: what its decoder begins with.
        end: what it ends with.
        pad: what fills up; None where there is nothing of its own.
        unknown: what stands for words that it cannot write; None where there is nothing of its own.
    """
    parts = {PAD: pad, START: start, UNKNOWN: unknown, END: end, SENTENCE_END: None}
    spoken = {END: end}
    if unknown is not None and unknown not in (start, end, pad):
        spoken[UNKNOWN] = unknown
    read = [end if theirs is None else theirs for theirs in parts.values()]
    others = [each for each in range(size) if each not in spoken.values()]
    return Numbering((*read, *others), tuple(ours for ours in range(len(SPECIAL_TOKENS)) if ours not in spoken))


@dataclass(frozen=True)
class PieceVocabulary(Vocabulary):
    """Pieces that a decoder can write, and their tokenizer, which alone knows how they become a text.

    Where a piece begins and ends in the text is read off the texts of all beginnings of the ids. So it does not matter
    how the tokenizer marks pieces: WordPiece's "##", byte-level BPE's "Ġ", SentencePiece's "▁".

    Attributes:
        words: special tokens first, then each piece as a text of its own; two may read alike.
        tokenizer: of transformers.
        numbers: which id of the tokenizer each of ours is.
    """

    tokenizer: Any = field(repr=False, compare=False)
    numbers: Numbering = field(repr=False)
    _ours: dict[int, int] = field(init=False, repr=False, compare=False)
    _hidden: frozenset[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Keep our ids by the tokenizer's, and which of these are no text; texts of pieces need not differ."""
        object.__setattr__(self, "_ours", self.numbers.ours)
        added = self.tokenizer.added_tokens_decoder.items()
        hidden = [*self.tokenizer.all_special_ids, *(index for index, token in added if token.special)]
        object.__setattr__(self, "_hidden", frozenset(hidden))

    @classmethod
    def of(cls, tokenizer: Any, numbers: Numbering) -> PieceVocabulary:
        """The vocabulary of a tokenizer of transformers."""
        pieces = [[each] for each in numbers.theirs[len(SPECIAL_TOKENS) :]]
        texts = tokenizer.batch_decode(pieces, skip_special_tokens=True) if pieces else []
        return cls((*SPECIAL_TOKENS, *(text.strip() for text in texts)), tokenizer, numbers)

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """Ids of tokens that are one piece each; UNKNOWN of those that are not."""
        cut = [self._pieces(token) for token in tokens]
        return [pieces[0] if len(pieces) == 1 else UNKNOWN for pieces in cut]

    def encode(self, text: str, max_words: int, *, sentences: bool = False) -> list[int]:
        """Turn a text into ids, START first and END last; no decoder of pieces plans sentences.

        Between them stands what the tokenizer makes of a text, [CLS] too where it begins with that: so texts are
        mostly tokenized to train such models.
        """
        pieces = self._pieces(text, special=True)
        pieces = pieces[:-1] if pieces[-1:] == [END] else pieces
        return [*[START, *pieces][: max_words - 1], END]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words of ids up to END."""
        return list(self.read(list(ids)).words)

    def read(self, ids: Sequence[int]) -> Wording:
        """The tokenizer's text of ids up to END, its words, and of which pieces each is made."""
        ids = ids[: ids.index(END)] if END in ids else ids
        pieces = [(place, self.numbers.theirs[each]) for place, each in enumerate(ids) if each > SENTENCE_END]
        pieces = [(place, theirs) for place, theirs in pieces if theirs not in self._hidden]
        whole = self._text([theirs for _, theirs in pieces])
        first = len(whole) - len(whole.lstrip())
        spans = self._spans([theirs for _, theirs in pieces], whole)
        words, positions = [], []
        for start, end in token_spans(whole):
            words.append(whole[start:end].lower())
            touched = [place for (place, _), (a, b) in zip(pieces, spans, strict=True) if a < end and b > start]
            positions.append(tuple(touched))
        return Wording(whole[first:].rstrip(), tuple(words), tuple(positions))

    def _spans(self, pieces: Sequence[int], whole: str) -> list[tuple[int, int]]:
        """Where each piece stands in the text of all: they cover it, and follow one another.

        A piece that is no character by itself (a byte of one, what is put right when more follows) goes with the next.
        """
        ends, end = [], 0
        for count in range(1, len(pieces) + 1):
            last = count == len(pieces)
            end = len(whole) if last else max(end, _shared(self._text(pieces[:count]), whole))
            ends.append(end)
        spans, stop = [], len(whole)
        for begin, end in zip(reversed([0, *ends][:-1]), reversed(ends), strict=True):
            stop = end if end > begin else stop
            spans.append((begin, stop))
        return spans[::-1]

    def _text(self, pieces: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(pieces), skip_special_tokens=True)
        return text

    def _pieces(self, text: str, *, special: bool = False) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return [self._ours.get(each, UNKNOWN) for each in found]


def _shared(first: str, second: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(first), len(second)))
