"""The rule labeler: what a report says of the 14 observations, and by which words.

Method of CheXpert (Irvin et al. 2019, arXiv:1901.07031), without a parser: find phrases, drop those that are not
meant, then decide each by the first stage that applies: hypothetical ("if there is"), uncertainty that looks like
negation ("cannot exclude"), negation, uncertainty. A cue reaches from its start to the end of its clause. One mention
of an observation outweighs another: positive over uncertain over negative. All phrases are in `rules.toml`.

What is a sentence, and which ones count, says `report_text.py`.

Differs from CheXpert: anatomy ("the heart", "mediastinal contours") counts only with a word that judges it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from core.labels.phrases import Found, Group, Scanner, any_of, starts
from core.labels.report_text import ReadText, read_text
from core.observations import NO_FINDING, OBSERVATIONS, SUPPORT_DEVICES, LabelState, no_finding_state, stronger
from core.processes import worker_pool

_RULES: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

RULES_VERSION: str = _RULES["version"]

_MAX_WORDS = 9  # ours: between a structure and the word that judges it; beyond, it is about something else
_MAX_REACH = 400  # ours: characters a cue can reach; the longest list of denials is shorter
_CLOSE = 25  # ours: characters between a structure and a word that judges it rather than the next structure
_REMEMBERED = 8192  # ours: sentences, of 1,000 characters at most; some 30 MB when all are full


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
        mentions: by position in the text. One observation can have several; none for No Finding.
    """

    states: Mapping[str, LabelState]
    mentions: tuple[Mention, ...]


def label_report(text: str) -> LabeledReport:
    """Label a report, or a section of one.

    Prose, lists, checklists, whole reports with their headings and the lower-case, spaced text of a decoder are read
    alike. A text without any mention is No Finding, as in CheXpert; ours: not one that says nothing of a chest, as an
    empty one or "N/A". All states of that are BLANK.
    """
    read = read_text(text)
    mentions: list[Mention] = []
    says_something = False
    for statement in read.statements:
        found = _mentions(read.text, statement.start, statement.end)
        if statement.section != "counted":  # of another part of the body
            found = [mention for mention in found if mention.observation == SUPPORT_DEVICES]
        mentions += found
        says_something = (
            says_something or bool(found) or _CHEST.search(read.text, statement.body, statement.end) is not None
        )
    if read.offsets is not None:
        mentions = [_moved(mention, read) for mention in mentions]
    states = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    for mention in mentions:
        states[mention.observation] = stronger(states[mention.observation], mention.state)
    if says_something:
        states[NO_FINDING] = no_finding_state(states)
    return LabeledReport(states, tuple(mentions))


def _mentions(lower: str, start: int, end: int) -> list[Mention]:
    """The mentions of a statement, decided once for all texts that have it; what a section makes of it is not."""
    into = start > 0 and (lower[start - 1].isalnum() or lower[start - 1] == "_")
    first = start - into  # phrases begin at words, so of what stands before only that character is seen
    return [
        Mention(each.observation, each.state, each.start + first, each.end + first, start, end, each.reason)
        for each in _remembered(lower[first:end], int(into))
    ]


@lru_cache(maxsize=_REMEMBERED)
def _remembered(lower: str, start: int) -> tuple[Mention, ...]:
    """The mentions of a statement from ``start`` to the end of a text; a function of these characters alone."""
    return tuple(_read_statement(lower, start, len(lower)))


def _moved(mention: Mention, read: ReadText) -> Mention:
    """The same mention with its positions in the text that was given."""
    start, end = read.original(mention.start, mention.end)
    sentence_start, sentence_end = read.original(mention.sentence_start, mention.sentence_end)
    return replace(mention, start=start, end=end, sentence_start=sentence_start, sentence_end=sentence_end)


def label_reports(texts: Sequence[str], processes: int = 1) -> list[LabeledReport]:
    """Label many reports, in their order; with `processes` > 1 in that many worker processes."""
    if processes <= 1:
        return [label_report(text) for text in texts]
    with worker_pool(processes, start=None) as pool:
        return list(pool.map(label_report, texts, chunksize=max(1, len(texts) // (processes * 8))))


# --- phrases of rules.toml, compiled ---


@dataclass(frozen=True, slots=True, eq=False)
class _Lexicon:
    """What is known of one observation beside its phrases; `close` if only cues close by count."""

    name: str
    vague: re.Pattern[str] | None
    close: bool


_Kind = Literal["finding", "structure", "unmention"]


def _lexicons() -> Iterator[Group[tuple[_Lexicon, _Kind]]]:
    """All phrases that name observations; those of two observations, or of two kinds, may overlap."""
    for name, entry in _RULES["observations"].items():
        vague = entry.get("vague", [])
        lexicon = _Lexicon(name, any_of(vague) if vague else None, entry.get("reach") == "phrase")
        kinds: dict[_Kind, list[str]] = {
            "finding": [*entry["findings"], *vague],
            "structure": entry.get("structures", []),
            "unmention": entry.get("unmentions", []),
        }
        for kind, phrases in kinds.items():
            yield Group((lexicon, kind), phrases, track=(name, kind))


@dataclass(frozen=True, slots=True)
class _Cue:
    """What a cue does: which stage, in which direction, how far."""

    stage: str
    direction: Literal["forward", "backward", "either"]
    reach: Literal["clause", "phrase", "far"]


# By stage, in order. BLANK: not a mention.
_STATE_OF = {
    "hypothetical": LabelState.BLANK,
    "pre-negation uncertainty": LabelState.UNCERTAIN,
    "negation": LabelState.NEGATIVE,
    "post-negation uncertainty": LabelState.UNCERTAIN,
    "pseudo-negation": LabelState.POSITIVE,
}

_PHRASES = Scanner(_lexicons())
_CUES = Scanner(
    Group(_Cue(group["stage"], group["direction"], group["reach"]), group["phrases"], first=group.get("first", False))
    for group in _RULES["cues"]
)
_QUALITIES = Scanner(
    Group(state, _RULES["qualities"][name])
    for state, name in (
        (LabelState.POSITIVE, "abnormal"),
        (LabelState.NEGATIVE, "normal"),
        (LabelState.UNCERTAIN, "equivocal"),
    )
)
_CLAUSE_END = any_of(_RULES["ends"]["clause"])
_PHRASE_END = any_of([*_RULES["ends"]["clause"], *_RULES["ends"]["phrase"]])
_BACKWARD_END = any_of(_RULES["ends"]["backward"])
_ALTERNATIVE = re.compile(
    rf"\s*(?:(?!with\b)[\w\-]+,?\s+){{0,3}},?\s*({any_of(_RULES['alternatives']['phrases']).pattern})\s*(?:[\w\-]+\s+){{0,3}}"
)
_CHEST = any_of(_RULES["chest"]["words"])
_HEART_FAILURE = any_of(_RULES["heart failure"]["phrases"])

# A comma ends what a cue after it speaks of, unless the comma belongs to a list.
_COMMA_OF_NO_LIST = re.compile(r",(?!.*\b(?:or|and|nor)\b)")
_CONJUNCTION = re.compile(r"[\s,]*(?:,|\b(?:and|or|with|without|in)\b)")
_STRUNG = re.compile(r"[\s,]*(?:and\s+)?(?:\w+\s+)?")  # "stable, mildly enlarged"
_VERB = re.compile(r"\b(?:is|are|was|were|appears?|remains?|has|have)\b")
_ENTRY = re.compile(r"[^:=\u2013.,;]{2,60}?\s*([:=\u2013])\s*")
# It stands for the finding before: "no effusion, although a small one cannot be excluded".
_ONE = re.compile(
    r"\b(?:an?|the|any|possible|small|tiny|trace|subtle|minimal|early|occult)\s+(?:\w+\s+)?(one)\b"
    r"(?! (?:of|side|lung|view|or))"
)
_LISTED = re.compile(r"\s*(?:,\s*(?:or|and|nor)?|or|nor|and)\s+(?:\w+\s+){0,2}")
_TAIL = re.compile(r"\s*(?:[.,;:)]|in size|compared|since|from|$)")


# --- phrases ---


@dataclass(frozen=True, slots=True)
class _Phrase:
    """A position where an observation is spoken of; `structure` if normal anatomy is."""

    lexicon: _Lexicon
    start: int
    end: int
    structure: bool


def _phrases(lower: str, positions: Sequence[int], start: int, end: int) -> list[_Phrase]:
    """Find the findings and structures of a statement that are meant, in order."""
    found = _PHRASES.scan(lower, positions, end)
    phrases: list[_Phrase] = []
    for first, last, (lexicon, kind) in found:
        if kind == "unmention":
            continue
        others = [each for each in found if each.meaning[0] is lexicon and each.meaning[1] != kind]
        unmeant = any(
            each.start <= first and last <= each.end
            if kind == "finding"
            else each.start < last and first < each.end  # a structure is no part of a finding
            for each in others
            if each.meaning[1] == "unmention" or (kind == "structure" and each.meaning[1] == "finding")
        )
        if not unmeant:
            phrases.append(_Phrase(lexicon, first, last, kind == "structure"))
    for match in _ONE.finditer(lower, start, end):
        meant = [phrase for phrase in phrases if phrase.end <= match.start() and not phrase.structure]
        if meant:
            phrases.append(_Phrase(meant[-1].lexicon, *match.span(1), structure=False))
    return sorted(phrases, key=lambda phrase: (phrase.start, phrase.end))


# --- decisions ---


def _read_statement(lower: str, start: int, end: int) -> list[Mention]:
    """Decide every mention of a statement."""
    positions = starts(lower, start, end)
    phrases = _phrases(lower, positions, start, end)
    if not phrases:
        return []
    cues = _CUES.scan(lower, positions, end)
    phrases, value = _entry(lower, start, end, phrases, cues)
    structures = [phrase for phrase in phrases if phrase.structure]
    qualities = _QUALITIES.scan(lower, positions, end) if structures else []
    mentions: list[Mention] = []
    listed: _Phrase | None = None  # a device that a cue before it denies
    for phrase in phrases:
        if phrase.structure:
            decision = _judge(lower, phrase, structures, qualities, cues)
        elif phrase.end <= value:
            until = min((each.start for each in phrases if each.start >= value), default=end)
            decision = _answer(lower, phrase, value, until, cues)
        elif listed is not None and phrase.lexicon.close and _LISTED.fullmatch(lower, listed.end, phrase.start):
            decision = LabelState.NEGATIVE, mentions[-1].reason
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
        denied = state is LabelState.NEGATIVE and any(cue.end <= phrase.start for cue in cues)
        listed = phrase if denied and phrase.lexicon.close else None
        if state is not LabelState.NEGATIVE and _HEART_FAILURE.fullmatch(words):
            mentions.append(replace(mention, observation="Cardiomegaly", state=LabelState.UNCERTAIN, reason=words))
    return _alternatives(lower, mentions)


def _entry(
    lower: str, start: int, end: int, phrases: list[_Phrase], cues: Sequence[Found[_Cue]]
) -> tuple[list[_Phrase], int]:
    """If a statement is an entry of a checklist ("effusion: none"), find where its value starts, otherwise 0.

    The findings before the colon are mentions only if there is a value, and if it does not speak of them itself
    ("Pneumothorax: No pneumothorax is seen.").
    """
    mark = _ENTRY.match(lower, start, end)
    if mark is None or mark.end() <= phrases[0].start or any(cue.start < mark.start(1) for cue in cues):
        return phrases, 0
    value = mark.end()
    semicolon = lower.find(";", value, end)
    until = end if semicolon < 0 else semicolon
    named = {phrase.lexicon.name for phrase in phrases if value <= phrase.start < until}
    if named and lower[mark.start(1)] == "\u2013":  # "Small effusion - no pneumothorax"
        return phrases, 0
    empty = not lower[value:until].strip(" .\n")
    kept = [
        phrase
        for phrase in phrases
        if phrase.structure or phrase.start >= value or not (empty or phrase.lexicon.name in named)
    ]
    return kept, value


def _answer(lower: str, phrase: _Phrase, value: int, until: int, cues: Sequence[Found[_Cue]]) -> tuple[LabelState, str]:
    """Decide a finding before a colon by what the value behind it begins with, or by cues before the next finding."""
    cues = [cue for cue in cues if cue.end <= until]
    for cue in cues:
        state = _STATE_OF[cue.meaning.stage]
        opens = not lower[value : cue.start].strip() if cue.start >= value else cue.end > value
        if opens:
            return state, lower[cue.start : cue.end].strip(" :=\u2013")
    return _decide(lower, value - 1, value, cues, close=phrase.lexicon.close)


def _decide(
    lower: str, start: int, end: int, cues: Sequence[Found[_Cue]], *, close: bool = False
) -> tuple[LabelState, str]:
    """Go through the stages for what stands at start ... end; return its state and the words that decided."""
    for stage, state in _STATE_OF.items():
        for cue in cues:
            if cue.meaning.stage == stage and _reaches(lower, cue, start, end, close=close):
                return state, lower[cue.start : cue.end]
    return LabelState.POSITIVE, ""


def _reaches(lower: str, cue: Found[_Cue], start: int, end: int, *, close: bool) -> bool:
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
    qualities: Sequence[Found[LabelState]],
    cues: Sequence[Found[_Cue]],
) -> tuple[LabelState, str] | None:
    """Decide a structure by the words that judge it; None if there are none."""
    said = [
        *_before(lower, structure, structures, qualities),
        *_after(lower, structure, structures, qualities),
    ]
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
    lower: str, structure: _Phrase, structures: Sequence[_Phrase], qualities: Sequence[Found[LabelState]]
) -> Iterator[Found[LabelState]]:
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


def _after(
    lower: str, structure: _Phrase, structures: Sequence[_Phrase], qualities: Sequence[Found[LabelState]]
) -> Iterator[Found[LabelState]]:
    """Yield judging words after a structure: "the heart and mediastinum are *stable* and *mildly enlarged*"."""
    edge = structure.end
    for quality in qualities:
        if quality.start < structure.end:
            continue
        between = lower[edge : quality.start].lstrip(" :=\u2013")  # "heart size: normal"
        if edge > structure.end:
            another = any(edge <= other.start < quality.start for other in structures)
            fits = "," not in between and not another and _TAIL.match(lower, quality.end) is not None
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
            for each in (index, index + 1):
                decided[each] = replace(mentions[each], state=LabelState.UNCERTAIN, reason=joined[1])
    return decided
