"""From a parsed sentence to the modifiers of its findings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from core.labels.fine_parser import load_parser
from core.labels.fine_terms import DEVICES, KIND_OF, MODIFIERS, WORD, WORDS, Finding, Sentence, Term, terms_of
from core.observations import SUPPORT_DEVICES

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

_FREE_WORD = re.compile(r"[a-z][a-z\-]{2,}")
_BEFORE_NOUN = frozenset({"amod", "compound", "nmod", "nummod", "poss"})
_ADVERBS = frozenset({"advmod", "npadvmod", "det", "predet", "quantmod"})
_PREPOSITIONS = WORDS["prepositions"]
_NO_MODIFIERS = WORDS["ignored"] | WORDS["carriers"] | WORDS["measures"]


def modifiers_of(sentences: Sequence[Sentence]) -> list[list[tuple[str, ...]]]:
    """Return, for each sentence, the modifiers of each of its findings."""
    from spacy.tokens import Doc

    parser = load_parser()
    cut = [terms_of(sentence) for sentence in sentences]
    with parser.memory_zone():
        docs = parser.pipe(Doc(parser.vocab, [term.shown for term in terms]) for terms in cut)
        parses = [_Parse(*given) for given in zip(sentences, cut, docs, strict=True)]
        return [[parse.modifiers(index) for index in range(len(parse.sentence.findings))] for parse in parses]


class _Parse:
    """A parsed sentence, asked for the modifiers of its findings."""

    def __init__(self, sentence: Sentence, terms: Sequence[Term], doc: Doc) -> None:
        self.sentence = sentence
        self.terms = terms
        self.doc = doc
        self.term_of = {finding: index for index, term in enumerate(terms) for finding in term.positive}

    def modifiers(self, index: int) -> tuple[str, ...]:
        """Return the modifiers of a finding, sorted."""
        finding, term = self.sentence.findings[index], self.term_of[index]
        device = finding.observation == SUPPORT_DEVICES
        token = self.doc[term]
        found = self._inside(finding, self.terms[term]) | self._phrase(token, device=device)
        if finding.observation in WORDS["placeless"]:
            found -= _where(found)
        elif not device and not _where(found):
            for other in self._companions(token):
                found |= _where(self._known(other) | self._phrase(other, device=False))
        if finding.observation not in WORDS["bony"]:
            found -= WORDS["bones"]
        found -= set(WORD.findall(finding.reason))  # "enlarged" makes the observation
        if {"right", "left"} <= found:
            found.add("bilateral")
        if "bilateral" in found:
            found -= {"right", "left"}
        return tuple(sorted(found))

    def _inside(self, finding: Finding, term: Term) -> set[str]:
        """What a finding's own words say: "apical pleural thickening", "chest tube"."""
        if finding.observation == SUPPORT_DEVICES:
            return {word for *_, words in DEVICES.find(self.sentence.text, term.start, term.end) for word in words}
        found = MODIFIERS.find(self.sentence.text, finding.start, finding.end)
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
        if token.dep_ == "pobj" and head.text == "of" and self.terms[head.head.i].shown in WORDS["carriers"]:
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
        return {term.shown} if free and term.shown not in _NO_MODIFIERS else set()

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
                found |= self._location(child)
            elif child.dep_ in ("acl", "relcl"):
                found |= self._said_by(child, objects=False)
        return found

    def _around(self, token: Token) -> set[str]:
        """Sides, sites and measures ("of mild degree") in prepositional phrases."""
        found: set[str] = set()
        for child in token.children:
            if child.dep_ == "prep" or child.text in _PREPOSITIONS:
                found |= self._led_to(child)
            elif child.dep_ == "advmod":
                found |= self._around(child)
        return found

    def _led_to(self, preposition: Token) -> set[str]:
        """Sides, sites and measures that a preposition leads to, and those of one joined to it: "in ... and in ..."."""
        found: set[str] = set()
        for child in preposition.children:
            if self.terms[child.i].shown in WORDS["measures"]:
                found |= self._attributes(child)
            elif child.dep_ == "conj":
                found |= self._led_to(child)
            elif preposition.text in _PREPOSITIONS and child.dep_ in ("pobj", "pcomp", "dobj", "amod"):
                found |= self._location(child)
        return found

    def _location(self, token: Token) -> set[str]:
        """Sides and sites that a noun names, with its own; nothing of another finding."""
        if self.terms[token.i].finding:
            return set()
        found = _where(self._known(token))
        for child in token.children:
            if child.dep_ in _BEFORE_NOUN | _ADVERBS | {"conj", "appos"}:
                found |= self._location(child)
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
                found |= self._location(child)
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
        return self._location(token) | _where(self._attributes(token) | self._around(token))

    def _companions(self, token: Token) -> Iterator[Token]:
        """Yield the findings that share a location with this one: joined to it, or it is "adjacent" to them."""
        if token.dep_ in ("conj", "appos"):
            yield token.head
        adjacent = any(self.terms[child.i].shown in WORDS["companions"] for child in token.children)
        if adjacent and token.dep_ == "pobj" and token.head.text == "with":
            yield token.head.head
        yield from (child for child in token.children if child.dep_ in ("conj", "appos"))


def _where(words: set[str]) -> set[str]:
    """Keep sides and sites."""
    return {word for word in words if KIND_OF.get(word) in ("side", "site")}
