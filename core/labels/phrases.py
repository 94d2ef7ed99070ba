"""The notation of `rules.toml`, and a search for thousands of such phrases in one pass over the words of a text."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

_JOIN = r"[\s\-/]+"
_SPECIAL = {
    "~ ": rf"(?:[\w'.]+{_JOIN}){{0,3}}?",
    "... ": r"(?:(?!(?:no|not|cannot|without|but)\b)[^\s;:,.\u2013]+\s+){0,12}?",
    "#": r"\d[\d.]*",
    " ": _JOIN,
    "*": r"\w*",
    "(": "(?:",
    ">(": "(?=",
    ")*": "){0,4}",
    ")+": "){1,4}",
    ")?": ")?",
    ")": ")",
    "|": "|",
    "$": r"\s*[.;]?$",
    ", ": r"\s*,\s*",
    ",": r"\s*,",
}
_TOKEN = re.compile(r"~ |\.\.\. |>\(|\)[*+?]| ?, ?|[ *()|$#]|\?|[^ *()|?~,$#>]+")
_KEY = 2  # characters of a word that choose which phrases are tried there
_START = re.compile(r"\b\w|[^\w\s]")


def expression(phrase: str) -> str:
    """Translate a phrase into a regular expression without capturing groups."""
    left = r"\b" if phrase.lstrip("(")[0].isalnum() else ""
    right = r"(?!\w)" if phrase.rstrip(")*?+")[-1:].isalnum() else ""
    tokens = (_SPECIAL.get(token) or re.escape(token) for token in _TOKEN.findall(phrase))
    return f"{left}(?:{''.join(tokens)}){right}"


def any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    """Compile alternatives, the longer one first, as it says more.

    None begins inside a word, and saying so first makes the search five times as fast.
    """
    alternatives = map(expression, sorted(phrases, key=len, reverse=True))
    return re.compile(rf"(?:\b(?=\w)|(?=[^\w\s]))(?:{'|'.join(alternatives)})")


def starts(text: str, start: int, end: int) -> list[int]:
    """Where phrases can begin: at words and marks."""
    return [found.start() for found in _START.finditer(text, start, end)]


Meaning = TypeVar("Meaning")


class Found(NamedTuple, Generic[Meaning]):
    """A span of the text and what it means."""

    start: int
    end: int
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class Group(Generic[Meaning]):
    """Phrases of one meaning.

    Attributes:
        meaning: given back with what is found.
        phrases: in the notation of `rules.toml`.
        track: what is found in one track does not overlap; the first wins, then one of a `first` group, then the
            phrase that is written longer.
        first: see `track`.
    """

    meaning: Meaning
    phrases: Sequence[str]
    track: Hashable = 0
    first: bool = False


class Scanner(Generic[Meaning]):
    """Finds the phrases of groups. At each word only those are tried that can begin with its first letters."""

    def __init__(self, groups: Iterable[Group[Meaning]]) -> None:
        """Sort the phrases; they are compiled when a text has a word with their first letters."""
        tracks: dict[Hashable, list[tuple[bool, str, Meaning]]] = {}
        for group in groups:
            tracks.setdefault(group.track, []).extend((group.first, phrase, group.meaning) for phrase in group.phrases)
        for phrases in tracks.values():
            phrases.sort(key=lambda known: (known[0], len(known[1])), reverse=True)
        self._tracks = [
            [(_beginnings(phrase), phrase, meaning) for _, phrase, meaning in phrases] for phrases in tracks.values()
        ]
        self._tried: dict[str, list[tuple[int, re.Pattern[str], list[Meaning]]]] = {}

    def scan(self, text: str, positions: Iterable[int], end: int) -> list[Found[Meaning]]:
        """Return what is found, by its beginning.

        Args:
            text: lower case.
            positions: of `starts`.
            end: of the part of the text that is searched.
        """
        free = [0] * len(self._tracks)
        found: list[Found[Meaning]] = []
        for position in positions:
            key = text[position : position + _KEY]
            tried = self._tried.get(key)
            if tried is None:
                tried = self._tried[key] = self._compile(key)
            for track, pattern, meanings in tried:
                if position >= free[track] and (match := pattern.match(text, position, end)):
                    assert match.lastindex is not None
                    free[track] = match.end()
                    found.append(Found(position, match.end(), meanings[match.lastindex - 1]))
        return found

    def _compile(self, key: str) -> list[tuple[int, re.Pattern[str], list[Meaning]]]:
        """The patterns, by track, of the phrases that can begin with a key."""
        compiled = []
        for track, phrases in enumerate(self._tracks):
            possible = [(phrase, meaning) for begins, phrase, meaning in phrases if key.startswith(begins)]
            if possible:
                pattern = re.compile("|".join(f"({expression(phrase)})" for phrase, _ in possible))
                compiled.append((track, pattern, [meaning for _, meaning in possible]))
        return compiled


def _beginnings(phrase: str) -> tuple[str, ...]:
    """The first letters, up to two, of all that a phrase can match."""
    found, _, _ = _alternatives(_TOKEN.findall(phrase), 0)
    return tuple(found)


def _alternatives(tokens: Sequence[str], index: int) -> tuple[set[str], bool, int]:
    """First letters of alternatives, whether one may be empty, and the index of the bracket that closes them."""
    found: set[str] = set()
    some_empty = False
    empty = True  # so far, this alternative
    while index < len(tokens) and tokens[index][0] != ")":
        token = tokens[index]
        if token == "|":
            some_empty, empty = some_empty or empty, True
        elif token in ("(", ">("):
            inner, nothing, index = _alternatives(tokens, index + 1)
            if token == "(":
                if empty:
                    found |= inner
                empty = empty and (nothing or tokens[index] in (")?", ")*"))
        elif empty and token != "*":
            found |= _BEGIN.get(token, {token[:_KEY]})
            empty = token in ("~ ", "... ", "$")
        index += 1
    return found, some_empty or empty, index


_BEGIN = {**{token: {""} for token in _SPECIAL}, "#": set("0123456789"), ", ": {","}, ",": {","}}
"""What special tokens can begin with; "": anything."""
