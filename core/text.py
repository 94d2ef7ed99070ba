"""Words of a report: tokens, sentences, vocabulary, and text made of tokens again."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from core.files import write_whole
from core.types import CXRLensError

PAD, START, UNKNOWN, END, SENTENCE_END = range(5)
SPECIAL_TOKENS = ("<pad>", "<start>", "<unknown>", "<end>", "<sentence-end>")

_TOKEN = re.compile(r"\w+|[^\w\s]+")  # as NLTK's wordpunct_tokenize, which the reference code uses (paper-notes 3.0)
TERMINATORS = frozenset({".", "!", "?"})
"""Tokens that end a sentence."""
_REMOVED = re.compile(r"x{4,}|_{2,}", re.IGNORECASE)
"""What stands for words that a de-identification removed: Open-i has XXXX, MIMIC-CXR ___."""
_WITH_REMOVED = re.compile(rf"\S*(?:{_REMOVED.pattern})\S*", re.IGNORECASE)
_NO_NOUN = frozenset(
    _TOKEN.findall(
        "a an the this these those that which and or but nor of in on at to from with within without by for as than "
        "is are was were be been has have had appear appears remain remains may can"
    )
)
"""Words that are not what an adjective before them belongs to."""
_FEW = 2
"""Words that a sentence without removed ones must have, or what is left of it is a fragment."""


def tokenize(text: str) -> list[str]:
    """Lower-case and split into runs of word characters or of punctuation."""
    return _TOKEN.findall(text.lower())


def token_spans(text: str) -> list[tuple[int, int]]:
    """Where each token of a text stands: (start, end) in characters, end excluded."""
    return [token.span() for token in _TOKEN.finditer(text)]


def split_sentences(tokens: Sequence[str]) -> list[list[str]]:
    """Split tokens after each full stop, question or exclamation mark; a number's point does not count."""
    sentences: list[list[str]] = []
    current: list[str] = []
    for index, token in enumerate(tokens):
        current.append(token)
        following = tokens[index + 1] if index + 1 < len(tokens) else ""
        decimal = token == "." and index > 0 and tokens[index - 1].isdigit() and following.isdigit()
        if token in TERMINATORS and not decimal:
            sentences.append(current)
            current = []
    if current:
        sentences.append(current)
    return sentences


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where each sentence of a text stands, split as by `split_sentences`: (start, end) in characters, end excluded."""
    tokens = list(_TOKEN.finditer(text))
    spans, first = [], 0
    for sentence in split_sentences([token.group() for token in tokens]):
        last = first + len(sentence) - 1
        spans.append((tokens[first].start(), tokens[last].end()))
        first = last + 1
    return spans


def count_words(tokens: Iterable[str]) -> int:
    """How many tokens have a letter or a digit."""
    return sum(any(character.isalnum() for character in token) for token in tokens)


def to_text(tokens: Sequence[str]) -> str:
    """Write tokens as prose: no space before punctuation, capitals at the starts of sentences."""
    parts: list[str] = []
    for sentence in split_sentences(tokens):
        text = " ".join(sentence)
        text = re.sub(r"\s+([.,;:!?)\]%])", r"\1", text)
        text = re.sub(r"([(\[])\s+", r"\1", text)
        text = re.sub(r"\s*([-/'])\s*", r"\1", text)
        text = re.sub(r"(\d)([.,])\s(\d)", r"\1\2\3", text)
        parts.append(text[:1].upper() + text[1:])
    return " ".join(parts)


def is_removed(token: str) -> bool:
    """Whether a token stands for words that a de-identification removed."""
    return _REMOVED.search(token) is not None


def without_removed(text: str) -> str:
    """A text without the words that a de-identification removed, and without sentences that miss their noun then.

    "No XXXX focal opacity." loses a word, "The XXXX are intact." and "Stable XXXX." are left out. What would leave
    nothing keeps its sentences.
    """
    spans = sentence_spans(text) if _REMOVED.search(text) else []
    kept = [text[start:end] for start, end in spans if not _misses_its_noun(text[start:end])]
    return _without_removed(" ".join(kept)) or _without_removed(text) if spans else text


def _misses_its_noun(sentence: str) -> bool:
    tokens = tokenize(sentence)
    if any(map(is_removed, tokens)) and count_words(token for token in tokens if not is_removed(token)) < _FEW:
        return True
    following = [*tokens[1:], "."]
    return any(
        is_removed(token) and not is_removed(after) and (after in _NO_NOUN or not re.search(r"\w", after))
        for token, after in zip(tokens, following, strict=True)
    )


def _without_removed(text: str) -> str:
    """Take out the words that hold a removed one; their full stops and commas stay."""

    def rest(match: re.Match[str]) -> str:
        return match[0][-1] if match[0][-1] in ".,;:" else ""

    text = " ".join(_WITH_REMOVED.sub(rest, text).split())
    text = re.sub(r"\s+([.,;:])", r"\1", text)
    text = re.sub(r"([.,;:])(\s*[.,;:])+", r"\1", text)
    return text.strip(" ,;:") if re.search(r"\w", text) else ""


def word_spans(tokens: Sequence[str], text: str) -> list[tuple[int, int]]:
    """Where each token stands in the text that :func:`to_text` made of them: (start, end), end exclusive.

    Raises:
        ValueError: the text is not made of these tokens.
    """
    spans: list[tuple[int, int]] = []
    end = 0
    for token in tokens:
        start = end + len(text[end:]) - len(text[end:].lstrip())
        end = start + len(token)
        if text[start:end].lower() != token.lower():
            raise ValueError(f"The text does not go on with '{token}' at {start}: {text[start : start + 40]!r}")
        spans.append((start, end))
    return spans


@dataclass(frozen=True, slots=True)
class Wording:
    """Ids as their reader sees them.

    Attributes:
        text: the report.
        words: its tokens, which stand in the text one after another (`word_spans`).
        positions: of each word, the places among the ids of what it is made of: one, or those of its pieces. Words
            that share a piece both have its place.
    """

    text: str
    words: tuple[str, ...]
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Vocabulary:
    """The words a decoder can write. The id of a word is its index; the first five are special.

    Attributes:
        words: special tokens first, then words by falling frequency.
    """

    words: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a list without the special tokens at their indices."""
        if self.words[: len(SPECIAL_TOKENS)] != SPECIAL_TOKENS:
            raise CXRLensError(f"A vocabulary must begin with {SPECIAL_TOKENS}, this one with {self.words[:5]}.")
        object.__setattr__(self, "_ids", {word: index for index, word in enumerate(self.words)})
        if len(self._ids) != len(self.words):
            raise CXRLensError("A vocabulary must not have a word twice.")

    @classmethod
    def build(cls, texts: Iterable[str], min_count: int) -> Vocabulary:
        """Count the words of training texts and keep those seen at least ``min_count`` times."""
        counts = Counter(token for text in texts for token in tokenize(text))
        kept = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        return cls((*SPECIAL_TOKENS, *kept))

    def __len__(self) -> int:
        """Number of words, V."""
        return len(self.words)

    @property
    def removed(self) -> frozenset[int]:
        """Ids of the words that stand for removed ones."""
        return frozenset(index for index, word in enumerate(self.words) if is_removed(word))

    @cached_property
    def _joined(self) -> dict[str, int]:
        """Words that `tokenize` would split, with their tokens: there are none but in imported vocabularies."""
        counts = ((word, len(_TOKEN.findall(word))) for word in self.words[len(SPECIAL_TOKENS) :])
        return {word: count for word, count in counts if count > 1}

    def tokens(self, text: str) -> list[str]:
        """Split as `tokenize`, but leave whole what is one word here: "right-sided"."""
        if not self._joined:
            return tokenize(text)
        text, longest = text.lower(), max(self._joined.values())
        parts = [match.span() for match in _TOKEN.finditer(text)]
        found, place = [], 0
        while place < len(parts):
            start, end = parts[place]
            place += 1
            for further in range(place, min(place + longest - 1, len(parts))):
                if parts[further][0] != parts[further - 1][1]:
                    break
                if text[start : parts[further][1]] in self._joined:
                    end, place = parts[further][1], further + 1
            found.append(text[start:end])
        return found

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """Ids of tokens; UNKNOWN of those that are no word of this vocabulary."""
        return [self._ids.get(token, UNKNOWN) for token in tokens]

    def encode(self, text: str, max_words: int, *, sentences: bool = False) -> list[int]:
        """Turn a text into ids, START first and END last.

        Args:
            max_words: longest result, START and END counted; what is longer loses its last words, never its END.
            sentences: put SENTENCE_END after each sentence (for the CNN-RNN-RNN decoder).
        """
        ids = [START]
        for sentence in split_sentences(self.tokens(text)):
            ids += self.ids(sentence)
            if sentences:
                ids.append(SENTENCE_END)
        ids = ids[: max_words - 1]
        if sentences and ids[-1] != SENTENCE_END and len(ids) > 1:
            ids[-1] = SENTENCE_END
        return [*ids, END]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words of ids up to END; special tokens are left out, but UNKNOWN is shown."""
        words = []
        for index in ids:
            if index == END:
                break
            if index not in (PAD, START, SENTENCE_END):
                words.append(self.words[index])
        return words

    def read(self, ids: Sequence[int]) -> Wording:
        """Text and words of ids, and where each word stands among them: all that is known of words comes from here."""
        words = tuple(self.decode(ids))
        shown = (position for position, index in enumerate(ids) if self.decode([index]))
        return Wording(to_text(words), words, tuple((position,) for position in shown))

    def save(self, path: Path) -> None:
        """Write as a JSON list."""
        write_whole(path, json.dumps(self.words, ensure_ascii=False, indent=0), private=False)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what :meth:`save` wrote.

        Raises:
            CXRLensError: the file is no JSON list of words.
        """
        from core import schemas  # brings pydantic, which takes a while

        try:
            words = schemas.read_json(path)
        except (OSError, ValueError) as error:
            raise CXRLensError(f"{path} cannot be read as a vocabulary: {error}") from error
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise CXRLensError(f"{path} is not a list of words.")
        return cls(tuple(words))
