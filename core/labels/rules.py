"""The rule labeler: what a report says of the 14 observations, and by which words.

Method of CheXpert (Irvin et al. 2019, arXiv:1901.07031), without a parser: find phrases, drop those that are not
meant, then decide each by the first stage that applies: hypothetical ("if there is"), uncertainty that looks like
negation ("cannot exclude"), negation, uncertainty. A cue reaches from its place to the end of its clause. One mention
of an observation outweighs another: positive over uncertain over negative. All phrases are in `rules.toml`.

Differs from CheXpert: anatomy ("the heart", "mediastinal contours") counts only with a word that judges it.
"""

from __future__ import annotations

import re
import signal
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from core.observations import NO_FINDING, OBSERVATIONS, LabelState, no_finding_state, stronger

_RULES: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

RULES_VERSION: str = _RULES["version"]

_MAX_SENTENCE = 1000  # ours: characters; longer ones are cut, so that time grows with the length of a text only
_MAX_WORDS = 9  # ours: between a structure and the word that judges it; beyond, it is about something else
_MAX_REACH = 400  # ours: characters a cue can reach; the longest list of denials is shorter
_CLOSE = 25  # ours: characters between a structure and a word that judges it rather than the next structure


@dataclass(frozen=True, slots=True)
class Mention:
    """The evidence of one decision.

    Attributes:
        observation: its name.
        state: never BLANK.
        start: of the phrase, characters in the given text.
        end: of the phrase, exclusive.
        sentence_start: of the sentence around it, characters in the given text.
        sentence_end: of the sentence, exclusive.
        reason: the words that decided, lower case ("no", "may represent", "enlarged", "no change"); "" for a plain
            statement.
    """

    observation: str
    state: LabelState
    start: int
    end: int
    sentence_start: int
    sentence_end: int
    reason: str


@dataclass(frozen=True, slots=True)
class LabeledReport:
    """The labels of a report, and why.

    Attributes:
        states: by observation name; all 14 names are there.
        mentions: by place in the text. One observation can have several; none for No Finding.
    """

    states: Mapping[str, LabelState]
    mentions: tuple[Mention, ...]


def label_report(text: str) -> LabeledReport:
    """Label a report, or a section of one.

    Prose and the lower-case, spaced text of a decoder are read alike. A text without any mention is No Finding, as in
    CheXpert; so is an empty one.
    """
    lower = _lower(text)
    mentions: list[Mention] = []
    for start, end in _sentences(lower):
        mentions += _read_sentence(lower, start, end)
    states = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    for mention in mentions:
        states[mention.observation] = stronger(states[mention.observation], mention.state)
    states[NO_FINDING] = no_finding_state(states)
    return LabeledReport(states, tuple(mentions))


def label_reports(texts: Sequence[str], processes: int = 1) -> list[LabeledReport]:
    """Label many reports, in their order; with `processes` > 1 in that many worker processes."""
    if processes <= 1:
        return [label_report(text) for text in texts]
    # Ctrl-C reaches the workers too; that they end is the caller's business.
    with ProcessPoolExecutor(processes, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        return list(pool.map(label_report, texts, chunksize=max(1, len(texts) // (processes * 8))))


# --- phrases of rules.toml, compiled ---

_JOIN = r"[\s\-/]+"
_SPECIAL = {
    "~ ": rf"(?:[\w'.]+{_JOIN}){{0,3}}?",
    " ": _JOIN,
    "*": r"\w*",
    "(": "(?:",
    ")*": "){0,4}",
    ")+": "){1,4}",
    ")?": ")?",
    ")": ")",
    "|": "|",
    "$": r"\s*[.;]?$",
    ", ": r"\s*,\s*",
    ",": r"\s*,",
}
_TOKEN = re.compile(r"~ |\)[*+?]| ?, ?|[ *()|$]|[^ *()|?~,$]+")


def _expression(phrase: str) -> str:
    """Translate a phrase into a regular expression without capturing groups."""
    left = r"\b" if phrase.lstrip("(")[0].isalnum() else ""
    right = r"(?!\w)" if phrase.rstrip(")*?+")[-1].isalnum() else ""
    tokens = (_SPECIAL.get(token) or re.escape(token) for token in _TOKEN.findall(phrase))
    return f"{left}(?:{''.join(tokens)}){right}"


def _compile(alternatives: Iterable[str]) -> re.Pattern[str]:
    """Compile alternatives; none begins inside a word, and saying so first makes the search five times as fast."""
    return re.compile(rf"(?:\b(?=\w)|(?=[^\w\s]))(?:{'|'.join(alternatives)})")


def _any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    return _compile(map(_expression, sorted(phrases, key=len, reverse=True)))  # the longer phrase says more


@dataclass(frozen=True, slots=True)
class _Lexicon:
    """The phrases of one observation; `close` if only cues close by count."""

    name: str
    findings: re.Pattern[str]
    vague: re.Pattern[str] | None
    structures: re.Pattern[str] | None
    unmentions: re.Pattern[str] | None
    close: bool


def _lexicon(name: str) -> _Lexicon:
    entry = _RULES["observations"][name]
    findings = _any_of([*entry["findings"], *entry.get("vague", ())])
    vague, structures, unmentions = (
        _any_of(entry[key]) if key in entry else None for key in ("vague", "structures", "unmentions")
    )
    return _Lexicon(name, findings, vague, structures, unmentions, entry.get("reach") == "phrase")


@dataclass(frozen=True, slots=True)
class _Cue:
    """What a cue does: which stage, in which direction, how far."""

    stage: str
    direction: Literal["forward", "backward", "either"]
    reach: Literal["clause", "phrase", "far"]


_Meaning = TypeVar("_Meaning")


@dataclass(frozen=True, slots=True)
class _Found(Generic[_Meaning]):
    """A span of the text and what it means."""

    start: int
    end: int
    meaning: _Meaning


class _Scanner(Generic[_Meaning]):
    """Finds phrases of several meanings in one pass. Of overlapping ones the first wins, then the one listed longer."""

    def __init__(self, groups: Iterable[tuple[_Meaning, Iterable[str]]]) -> None:
        """Compile (meaning, phrases) groups."""
        phrases: list[tuple[str, _Meaning]] = [(phrase, meaning) for meaning, group in groups for phrase in group]
        phrases.sort(key=lambda pair: len(pair[0]), reverse=True)
        self._pattern = _compile(f"({_expression(phrase)})" for phrase, _ in phrases)
        self._meanings = [meaning for _, meaning in phrases]

    def scan(self, text: str, start: int, end: int) -> list[_Found[_Meaning]]:
        """Return what is found between two places, in order."""
        return [
            _Found(match.start(), match.end(), self._meanings[match.lastindex - 1])
            for match in self._pattern.finditer(text, start, end)
            if match.lastindex is not None
        ]


# By stage, in order. BLANK: not a mention.
_STATE_OF = {
    "hypothetical": LabelState.BLANK,
    "pre-negation uncertainty": LabelState.UNCERTAIN,
    "negation": LabelState.NEGATIVE,
    "post-negation uncertainty": LabelState.UNCERTAIN,
    "pseudo-negation": LabelState.POSITIVE,
}

_LEXICONS = tuple(_lexicon(name) for name in OBSERVATIONS if name != NO_FINDING)
_CUES = _Scanner(
    (_Cue(group["stage"], group["direction"], group["reach"]), group["phrases"]) for group in _RULES["cues"]
)
_QUALITIES = _Scanner(
    (
        (LabelState.POSITIVE, _RULES["qualities"]["abnormal"]),
        (LabelState.NEGATIVE, _RULES["qualities"]["normal"]),
        (LabelState.UNCERTAIN, _RULES["qualities"]["equivocal"]),
    )
)
_CLAUSE_END = _any_of(_RULES["ends"]["clause"])
_PHRASE_END = _any_of([*_RULES["ends"]["clause"], *_RULES["ends"]["phrase"]])
_BACKWARD_END = _any_of(_RULES["ends"]["backward"])
_ALTERNATIVE = re.compile(
    rf"\s*(?:(?!with\b)[\w\-]+,?\s+){{0,3}},?\s*({_any_of(_RULES['alternatives']['phrases']).pattern})\s*(?:[\w\-]+\s+){{0,3}}"
)
_HEART_FAILURE = _any_of(_RULES["heart failure"]["phrases"])

# A comma ends what a cue after it speaks of, unless the comma belongs to a list.
_COMMA_OF_NO_LIST = re.compile(r",(?!.*\b(?:or|and|nor)\b)")
_CONJUNCTION = re.compile(r"[\s,]*(?:,|\b(?:and|or|with|without|in)\b)")
_STRUNG = re.compile(r"[\s,]*(?:and\s+)?(?:\w+\s+)?")  # "stable, mildly enlarged"
_VERB = re.compile(r"\b(?:is|are|was|were|appears?|remains?|has|have)\b")
_TAIL = re.compile(r"\s*(?:[.,;:)]|in size|compared|since|from|$)")


# --- sentences and phrases ---

# A full stop between digits is a decimal point, also in a decoder's "1 . 5"; a blank line or a bullet ends a sentence.
_SENTENCE_END = re.compile(r"(?<!\bvs)(?<!\d )\.(?=[\s.a-z]|$)|(?<=\d )\.(?! ?\d)|[!?](?=\s|$)|\n\s*(?=\n|[\-*•]\s)")


@dataclass(frozen=True, slots=True)
class _Phrase:
    """A place where an observation is spoken of; `structure` if normal anatomy is."""

    lexicon: _Lexicon
    start: int
    end: int
    structure: bool


def _lower(text: str) -> str:
    """Lower-case without moving any character: spans must fit the given text."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)


def _sentences(lower: str) -> Iterator[tuple[int, int]]:
    """Yield where sentences start and end, outer spaces left out."""
    start = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(lower)), len(lower)]:
        while start < end:
            cut = end
            if end - start > _MAX_SENTENCE:
                space = lower.rfind(" ", start + 1, start + _MAX_SENTENCE)
                cut = space if space > 0 else start + _MAX_SENTENCE
            sentence = lower[start:cut]
            if content := sentence.strip():
                first = start + sentence.index(content)
                yield first, first + len(content)
            start = cut


def _phrases(lower: str, start: int, end: int) -> list[_Phrase]:
    """Find the findings and structures of a sentence that are meant, in order."""
    phrases: list[_Phrase] = []
    for lexicon in _LEXICONS:
        unmeant = (
            [match.span() for match in lexicon.unmentions.finditer(lower, start, end)] if lexicon.unmentions else []
        )
        findings = [
            _Phrase(lexicon, *match.span(), structure=False)
            for match in lexicon.findings.finditer(lower, start, end)
            if not any(first <= match.start() and match.end() <= last for first, last in unmeant)
        ]
        phrases += findings
        if lexicon.structures:
            taken = [*unmeant, *((finding.start, finding.end) for finding in findings)]
            phrases += [
                _Phrase(lexicon, *match.span(), structure=True)
                for match in lexicon.structures.finditer(lower, start, end)
                if not any(first < match.end() and match.start() < last for first, last in taken)
            ]
    return sorted(phrases, key=lambda phrase: (phrase.start, phrase.end))


# --- decisions ---


def _read_sentence(lower: str, start: int, end: int) -> list[Mention]:
    """Decide every mention of a sentence."""
    phrases = _phrases(lower, start, end)
    if not phrases:
        return []
    cues = _CUES.scan(lower, start, end)
    structures = [phrase for phrase in phrases if phrase.structure]
    qualities = _QUALITIES.scan(lower, start, end) if structures else []
    mentions: list[Mention] = []
    for phrase in phrases:
        if phrase.structure:
            decision = _judge(lower, phrase, structures, qualities, cues)
        else:
            decision = _decide(lower, phrase.start, phrase.end, cues, close=phrase.lexicon.close)
        if decision is None or decision[0] is LabelState.BLANK:
            continue
        state, reason = decision
        words = lower[phrase.start : phrase.end]
        if state is LabelState.POSITIVE and phrase.lexicon.vague and phrase.lexicon.vague.fullmatch(words):
            state, reason = LabelState.UNCERTAIN, words
        mention = Mention(phrase.lexicon.name, state, phrase.start, phrase.end, start, end, reason)
        mentions.append(mention)
        if state is not LabelState.NEGATIVE and _HEART_FAILURE.fullmatch(words):
            mentions.append(replace(mention, observation="Cardiomegaly", state=LabelState.UNCERTAIN, reason=words))
    return _alternatives(lower, mentions)


def _decide(
    lower: str, start: int, end: int, cues: Sequence[_Found[_Cue]], *, close: bool = False
) -> tuple[LabelState, str]:
    """Go through the stages for what stands at start ... end; return its state and the words that decided."""
    for stage, state in _STATE_OF.items():
        for cue in cues:
            if cue.meaning.stage == stage and _reaches(lower, cue, start, end, close=close):
                return state, lower[cue.start : cue.end]
    return LabelState.POSITIVE, ""


def _reaches(lower: str, cue: _Found[_Cue], start: int, end: int, *, close: bool) -> bool:
    """Whether a cue speaks of what stands at start ... end; with `close`, every cue before it must stand close by."""
    if max(start - cue.end, cue.start - end) > _MAX_REACH:
        return False
    if cue.end <= start:
        near = cue.meaning.reach == "phrase" or (close and cue.meaning.reach != "far")
        ends = _PHRASE_END if near else _CLAUSE_END
        return cue.meaning.direction != "backward" and ends.search(lower, cue.end, start) is None
    if cue.start < end or cue.meaning.direction == "forward":
        return False
    between = lower[end : cue.start]
    if cue.meaning.direction == "either" and (len(between.split()) > 2 or _PHRASE_END.search(between)):
        return False
    return _BACKWARD_END.search(between) is None and _COMMA_OF_NO_LIST.search(between) is None


def _judge(
    lower: str,
    structure: _Phrase,
    structures: Sequence[_Phrase],
    qualities: Sequence[_Found[LabelState]],
    cues: Sequence[_Found[_Cue]],
) -> tuple[LabelState, str] | None:
    """Decide a structure by the words that judge it; None if there are none."""
    said = [*_before(lower, structure, structures, qualities), *_after(lower, structure, qualities)]
    for state in (LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN):
        for quality in said:
            if quality.meaning is state:
                reason = lower[quality.start : quality.end]
                if state is not LabelState.POSITIVE:
                    return state, reason
                state, cue = _decide(lower, quality.start, quality.end, cues)  # "may be enlarged"
                return state, cue or reason
    return None


def _before(
    lower: str, structure: _Phrase, structures: Sequence[_Phrase], qualities: Sequence[_Found[LabelState]]
) -> Iterator[_Found[LabelState]]:
    """Yield judging words before a structure: "*normal* heart size and mediastinal contours"."""
    edge = structure.start
    for quality in reversed([quality for quality in qualities if quality.end <= structure.start]):
        between = lower[quality.end : edge]
        if edge < structure.start:
            taken = any(
                0 <= quality.start - other.end <= _CLOSE for other in structures
            )  # "heart enlarged, stable ..."
            fits = _STRUNG.fullmatch(between) is not None and not taken
        else:
            fits = not any(end.search(between) for end in (_CLAUSE_END, _VERB)) and not _CONJUNCTION.match(between)
            if "," in between or " and " in between:  # then it must be a list of structures
                listed = any(quality.end <= other.start and other.end <= structure.start for other in structures)
                fits = fits and listed and quality.meaning is not LabelState.POSITIVE
        if not fits or len(between.split()) > _MAX_WORDS:
            return
        yield quality
        edge = quality.start


def _after(lower: str, structure: _Phrase, qualities: Sequence[_Found[LabelState]]) -> Iterator[_Found[LabelState]]:
    """Yield judging words after a structure: "the heart and mediastinum are *stable* and *mildly enlarged*"."""
    edge = structure.end
    for quality in qualities:
        if quality.start < structure.end:
            continue
        between = lower[edge : quality.start].lstrip(" :")  # "heart size: normal"
        if edge > structure.end:
            fits = "," not in between and _TAIL.match(lower, quality.end) is not None
        else:
            joined = _CONJUNCTION.match(between) is not None and _VERB.search(between) is None
            fits = not joined and _CLAUSE_END.search(between) is None
        if not fits or len(between.split()) > _MAX_WORDS:
            return
        yield quality
        edge = quality.end


def _alternatives(lower: str, mentions: list[Mention]) -> list[Mention]:
    """Make two plain statements of different observations uncertain where "or" joins them."""
    decided = list(mentions)
    for index in range(len(mentions) - 1):
        first, second = mentions[index], mentions[index + 1]
        if (
            first.state is second.state is LabelState.POSITIVE
            and not first.reason
            and not second.reason
            and first.observation != second.observation
            and first.end < second.start
            and (joined := _ALTERNATIVE.fullmatch(lower, first.end, second.start))
        ):
            for place in (index, index + 1):
                decided[place] = replace(mentions[place], state=LabelState.UNCERTAIN, reason=joined[1])
    return decided
