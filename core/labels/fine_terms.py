"""From a report to what the parser is shown: sentences with positive mentions, cut into words that it knows.

The parser learned from news: it takes "left" for a verb (explosion/spaCy issue 527) and does not know the names of
findings and sites. It is shown words of the same class that it knows; ``fine.toml`` says which words are which.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.labels.report_text import lowered
from core.labels.rules import Mention
from core.observations import SUPPORT_DEVICES, LabelState

_TABLES: dict[str, Any] = tomllib.loads(Path(__file__).with_name("fine.toml").read_text(encoding="utf-8"))

FINE_RULES_VERSION: str = _TABLES["version"]
WORDS: Mapping[str, frozenset[str]] = {name: frozenset(words) for name, words in _TABLES["words"].items()}
"""Words that the algorithm treats in a way of their own, by that way."""

_LONGEST = 300  # characters on each side of findings; a sentence without an end, as in a damaged file, is cut

KINDS = ("severity", "side", "site", "pattern", "device")

KIND_OF: Mapping[str, str] = {modifier: kind for kind in KINDS for modifier in _TABLES[kind]}
"""The kind of a modifier that `fine.toml` lists; all others are free words."""


class _Gazetteer:
    """Phrases and the modifiers they stand for; the longest phrase wins."""

    def __init__(self, phrases: Mapping[str, tuple[str, ...]]) -> None:
        ordered = sorted(phrases, key=len, reverse=True)
        self._meanings = [phrases[phrase] for phrase in ordered]
        expressions = (re.escape(phrase).replace(r"\ ", r"[\s\-]+").replace(r"\*", r"\w*") for phrase in ordered)
        self._pattern = re.compile(rf"(?<![\w\-])(?:{'|'.join(f'({expression})' for expression in expressions)})(?!\w)")

    def find(self, text: str, start: int, end: int) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Yield (start, end, modifiers) of what is found between two positions."""
        for match in self._pattern.finditer(text, start, end):
            assert match.lastindex is not None
            yield match.start(), match.end(), self._meanings[match.lastindex - 1]


def _phrases_of(*kinds: str) -> dict[str, tuple[str, ...]]:
    return {phrase: (modifier,) for kind in kinds for modifier, phrases in _TABLES[kind].items() for phrase in phrases}


MODIFIERS = _Gazetteer(
    _phrases_of("severity", "side", "site", "pattern")
    | {key: tuple(value) for key, value in _TABLES["several"].items()}
)
DEVICES = _Gazetteer(_phrases_of("device"))

_SIDE, _ADJECTIVE, _PLACE, _FINDING, _FINDINGS = "big", "local", "area", "problem", "problems"

WORD = re.compile(r"[a-z0-9]+(?:[\-'.][a-z0-9]+)*|[!-/:-@\[-`{-~]")  # a word, or a mark of ASCII
_REMOVED = re.compile(r"x{3,}|_+")  # what stands for de-identified words
_LIKE_ADJECTIVE = re.compile(r".*(?:al|ar|ic|ac|or)")
_PLURAL = re.compile(r".*[^isu]s")


@dataclass(frozen=True, slots=True)
class Term:
    """A word, or several that are shown to the parser as one.

    Attributes:
        shown: what the parser sees.
        start: in the sentence.
        end: in the sentence, exclusive.
        modifiers: that it stands for, where `fine.toml` knows it.
        finding: True of a mention, in whatever state.
        positive: indices in the sentence's findings.
    """

    shown: str
    start: int
    end: int
    modifiers: tuple[str, ...] = ()
    finding: bool = False
    positive: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A positive mention within its sentence."""

    observation: str
    start: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """What is parsed; equal ones are parsed once.

    Attributes:
        text: lower case.
        findings: positive mentions.
        others: where mentions in other states stand.
    """

    text: str
    findings: tuple[Finding, ...]
    others: tuple[tuple[int, int], ...]


def sentences_of(text: str, mentions: Sequence[Mention]) -> Iterator[tuple[Sentence, list[Mention]]]:
    """Yield the sentences with positive mentions, and these mentions; of an overlong sentence, the part around them."""
    lower = lowered(text).replace("-to-", " to ")  # of "mild-to-moderate"
    ordered = sorted(mentions, key=lambda mention: (mention.start, mention.end))
    groups: list[list[Mention]] = []
    for mention in ordered:
        if mention.state is not LabelState.POSITIVE:
            continue
        first = groups[-1][0] if groups else None
        if first and mention.sentence_start == first.sentence_start and mention.end - first.start <= _LONGEST:
            groups[-1].append(mention)
        else:
            groups.append([mention])
    starts = [mention.start for mention in ordered]
    for group in groups:
        start = max(group[0].sentence_start, group[0].start - _LONGEST)
        end = min(group[0].sentence_end, max(mention.end for mention in group) + _LONGEST)
        around = ordered[bisect_left(starts, start) : bisect_left(starts, end)]
        findings = (Finding(m.observation, m.start - start, m.end - start, m.reason) for m in group)
        others = ((m.start - start, min(m.end, end) - start) for m in around if m not in group)
        yield Sentence(lower[start:end], tuple(findings), tuple(others)), group


def terms_of(sentence: Sentence) -> list[Term]:
    """Cut a sentence into what the parser is shown."""
    terms: list[Term] = []
    edge = 0
    for start, end, positive in _spans(sentence):
        terms += _between(sentence.text, edge, start)
        shown = _FINDINGS if _PLURAL.fullmatch(sentence.text, start, end) else _FINDING
        terms.append(Term(shown, start, end, finding=True, positive=positive))
        edge = end
    terms += _between(sentence.text, edge, len(sentence.text))
    return _join_ranges(terms)


def _spans(sentence: Sentence) -> list[tuple[int, int, tuple[int, ...]]]:
    """Where findings stand, overlapping ones joined; a device's whole name belongs to it ("chest tube")."""
    spans: list[tuple[int, int, tuple[int, ...]]] = [(start, end, ()) for start, end in sentence.others]
    devices = list(DEVICES.find(sentence.text, 0, len(sentence.text)))
    for index, finding in enumerate(sentence.findings):
        start, end = finding.start, finding.end
        if finding.observation == SUPPORT_DEVICES:
            names = [(first, last) for first, last, _ in devices if first < end and start < last]
            start, end = min([start, *(first for first, _ in names)]), max([end, *(last for _, last in names)])
        spans.append((start, end, (index,)))
    joined: list[tuple[int, int, tuple[int, ...]]] = []
    for start, end, indices in sorted(spans):
        if joined and start < joined[-1][1]:
            first, last, others = joined.pop()
            start, end, indices = first, max(last, end), others + indices
        joined.append((start, end, indices))
    return joined


def _between(text: str, start: int, end: int) -> Iterator[Term]:
    """Yield the terms between two findings."""
    edge = start
    for first, last, modifiers in [*MODIFIERS.find(text, start, end), (end, end, ())]:
        for match in WORD.finditer(text, edge, first):
            if not _REMOVED.fullmatch(match[0]):
                yield Term(match[0], match.start(), match.end())
        if modifiers:
            yield Term(_shown(text[first:last], modifiers), first, last, modifiers)
        edge = last


def _shown(words: str, modifiers: tuple[str, ...]) -> str:
    """Choose what the parser sees of words that `fine.toml` knows."""
    kind = KIND_OF[modifiers[-1]]
    if kind == "side":
        return _SIDE
    if kind == "pattern" or (kind == "site" and _LIKE_ADJECTIVE.fullmatch(words)):
        return _ADJECTIVE
    return _PLACE if kind == "site" else re.split(r"[\s\-]", words)[0]


def _join_ranges(terms: Sequence[Term]) -> list[Term]:
    """Make one term of "mild to moderate"."""
    joined: list[Term] = []
    for term in terms:
        if (
            len(joined) > 1
            and joined[-1].shown in ("to", "or", "/", "-")
            and all(other.modifiers and KIND_OF[other.modifiers[0]] == "severity" for other in (joined[-2], term))
        ):
            joined.pop()
            first = joined.pop()
            term = Term(term.shown, first.start, term.end, first.modifiers + term.modifiers)
        joined.append(term)
    return joined
