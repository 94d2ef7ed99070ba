"""A report as it is written: its characters, its lines, its sections; what of it speaks of this image.

Reports come as prose, hard-wrapped prose, lists, checklists and templates. A line end ends a statement unless the line
goes on in the next one, which structure tells: the next line goes on in lower case, or the line ends in a word that
cannot end a statement ("without"). What stands under HISTORY, INDICATION and the like was known before the image was
read and does not count. Words are in `report_text.toml`.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

_TABLES: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

_MAX_STATEMENT = 1000  # ours: characters; longer ones are cut, so that time grows with the length of a text only
_WRAPPED = 55  # ours: characters; shorter lines are not full, so that their ends say nothing of a width

Section = Literal["counted", "not counted", "another part of the body"]


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence, a line of a list or an entry of a checklist.

    Attributes:
        start: in `ReadText.text`.
        body: behind its heading, if it has one.
        end: exclusive.
        section: whether it speaks of this image of the chest.
    """

    start: int
    body: int
    end: int
    section: Section


@dataclass(frozen=True, slots=True)
class ReadText:
    """A report made plain: lower case, common characters, known slips mended, lines that go on joined.

    Attributes:
        text: what is read.
        statements: that count or speak of another part of the body, in order.
        offsets: of each character of `text`, its index in what was given; None if they are the same.
    """

    text: str
    statements: tuple[Statement, ...]
    offsets: Sequence[int] | None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Where a span of `text`, not empty, stands in what was given."""
        return (start, end) if self.offsets is None else (self.offsets[start], self.offsets[end - 1] + 1)


def read_text(given: str) -> ReadText:
    """Make a report plain and cut it into statements."""
    text, offsets = _plain(given)
    text = _marks(text)
    if "\n" in text:
        text = _joined_lines(text)
    lower = lowered(text)
    return ReadText(lower, tuple(_statements(text, lower)), offsets)


def is_one_report(text: str) -> bool:
    """Whether the lines of a text file make one report, rather than a report each.

    They do where a line is nothing but a heading ("FINDINGS:"), where lines begin with several headings and with none
    twice, or where most lines go on in the next.
    """
    text = _marks(_plain(text)[0])
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) < 2:
        return False
    headings = [found[0].strip(" :").lower() for line in lines if (found := _HEADING.match(line))]
    bare = any(_BARE_HEADING.fullmatch(line) for line in lines)
    if bare or len(headings) > 1:
        return len(set(headings)) == len(headings)
    return 2 * (len(lines) - 1 - _joined_lines("\n".join(lines)).count("\n")) > len(lines) - 1


# --- characters ---

_DELETED = {0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF}  # soft hyphen, what joins or parts without being seen
_REPLACED = {
    **dict.fromkeys("\u0085\u2028\u2029", "\n"),
    **dict.fromkeys("\u2018\u2019\u02bc\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2010\u2011\u2212", "-"),
    **dict.fromkeys("\u2022\u2023\u25a0\u25a1\u25aa\u25ab\u25b8\u25ba\u25cb\u25cf\u25e6\u00b7\u2219\u2043", "\u2022"),
    **dict.fromkeys("\u2611\u2612\u2713\u2714\u2715\u2717\u2718\u27a2\u27a4", "\u2022"),
    "\u2610": "[ ]",
    "\u2012": "\u2013",
    **dict.fromkeys("\u2192\u21d2\u27f6", "\u2013"),
    "\u2015": "\u2014",
    "\u0153": "oe",
    "\u0152": "OE",
    "\u00e6": "ae",
    "\u00c6": "AE",
}
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e]")
_NOT = re.compile(r"\b(ca|wo|is|are|was|were|do|does|did|has|have|had|could|would|should)n't\b", re.IGNORECASE)
_DIVIDED = re.compile(r"\b([^\W\d_]{2,})-[ \t]*\n\s*([^\W\d_]{2,})")
_WORD = re.compile(r"[^\W\d_]{4,}")


@lru_cache(maxsize=4096)
def _plain_character(character: str) -> str:
    """What stands for a character: letters without accents, ligatures apart, one kind of dash, quote and bullet."""
    if character in _REPLACED:
        return _REPLACED[character]
    if ord(character) in _DELETED or 0xFE00 <= ord(character) <= 0xFE0F:
        return ""
    decomposed = unicodedata.normalize("NFKD", character)
    return "".join(each for each in decomposed if not unicodedata.combining(each))


def _plain(given: str) -> tuple[str, list[int] | None]:
    """Mend characters, line ends, words divided at line ends, "n't" and known slips; tell where each character was."""
    text, offsets = given, None
    if not text.isascii():
        parts = [_plain_character(character) if character > "\x7f" else character for character in text]
        if any(len(part) != 1 for part in parts):
            offsets = [index for index, part in enumerate(parts) for _ in part]
        text = "".join(parts)
    if "\r" in text or "\x0b" in text or "\x0c" in text:
        text = _LINE_ENDS.sub(lambda found: "\n".rjust(len(found[0])), text)
    if "-\n" in text:
        text, offsets = _edit(text, offsets, _DIVIDED, _undivided)
    if "n't" in text or "N'T" in text:
        text, offsets = _edit(text, offsets, _NOT, lambda found: f"{_WHOLE.get(found[1].lower(), found[1])} not")
    if not SLIPS.keys().isdisjoint(_WORD.findall(text.lower())):
        text, offsets = _edit(text, offsets, _WORD, _without_slip)
    return text, offsets


_WHOLE = {"ca": "can", "wo": "will"}


def _undivided(found: re.Match[str]) -> str:
    joined = found[1] + found[2]
    return joined if _KNOWN_BEGINNING.match(joined.lower()) else found[0]


def _without_slip(found: re.Match[str]) -> str:
    mended = SLIPS.get(found[0].lower())
    if mended is None:
        return found[0]
    return mended.upper() if found[0].isupper() else mended.capitalize() if found[0][0].isupper() else mended


def _edit(
    text: str, offsets: list[int] | None, pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str]
) -> tuple[str, list[int] | None]:
    """Replace what a pattern finds, and keep where each character was."""
    parts: list[str] = []
    moved: list[int] = []
    known: Sequence[int] = range(len(text)) if offsets is None else offsets
    edge = 0
    for found in pattern.finditer(text):
        new, old = replace(found), found[0]
        if new == old:
            continue
        start, last = found.start(), len(old) - 1
        parts += [text[edge:start], new]
        moved += known[edge:start]
        moved += [known[start + min(index, last)] for index in range(len(new) - 1)]
        moved.append(known[start + last])
        edge = found.end()
    if not parts:
        return text, offsets
    return "".join([*parts, text[edge:]]), [*moved, *known[edge:]]


def lowered(text: str) -> str:
    """Lower-case without moving any character."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)


def _slips() -> dict[str, str]:
    """Slip -> the word that is meant: listed ones, and every slip of one letter in the long words of the list.

    A slip is two letters exchanged, a letter left out, doubled, or a wrong vowel.
    """
    slips: dict[str, str] = {}
    words: list[str] = _TABLES["slips"]["words"]
    for word in words:
        for index in range(1, len(word) - 1):
            head, letter, tail = word[:index], word[index], word[index + 1 :]
            made = [word[0] + word, head + tail[0] + letter + tail[1:], head + tail, head + letter + letter + tail]
            if letter in "aeiou":
                made += [head + vowel + tail for vowel in "aeiou"]
            slips |= dict.fromkeys(made, word)
        slips[word[1] + word[0] + word[2:]] = word
        slips[word[:-1]] = word
    slips |= {slip + "s": word + "s" for slip, word in slips.items()}
    for word, listed in _TABLES["slips"]["listed"].items():
        slips |= dict.fromkeys(listed, word)
    for right in (*words, *_TABLES["slips"]["not slips"]):
        slips.pop(right, None)
        slips.pop(right + "s", None)
    return slips


SLIPS = _slips()
"""Wrong spellings and the words that are meant."""

_KNOWN_BEGINNING = re.compile("|".join(word[:7] for word in _TABLES["slips"]["words"]))


# --- marks: nothing below moves a character ---

_ANSWER = _TABLES["answers"]["words"]
_SIZE = r"(?:tiny|trace|small|mild|moderate|large|severe)\b(?:\s+\w+){0,2}"
_ANSWERED = re.compile(rf"(?<=[\w)])\?(?=\s*(?:(?:{'|'.join(_ANSWER)})\b|{_SIZE})\s*(?:[.;,/|\n]|$))", re.IGNORECASE)
_MINUS = re.compile(r":\s-(?=\s*(?:[;,\n]|$))")
_LEADER = re.compile(r"(?<=\w)(?:\.{3,}|\s?\.{4,}\s?)(?=\w)")
_IN_BRACKETS = re.compile(
    r"\((?:(no|none|absent|negative|neg|nil|not seen|not present|n|-)|(?:yes|present|positive|pos|y|\+))\)",
    re.IGNORECASE,
)
_TICKED_BEHIND = re.compile(r"^(?=[^\[\n]*\w)[^\n]*\[[ xX]\][ \t]*$", re.MULTILINE)
_UNTICKED = re.compile(r"\[ ?\][^\[\n;,.]*")
_TICKED = re.compile(r"\[[xX]\]")
_SPACED_DASH = re.compile(
    r"(?<=\s)-{1,3}(?=\s)|-{2,}|\u2014|(?<=\w{4})-(?= (?!and\b|or\b|to\b))|(?<=\s)-(?=[A-Za-z]{4})"
)
_JOINING_DASH = re.compile(r"(?<=\w)\u2013(?=\w)")
_DECODER = re.compile(r"\w \.(?:\s|$)")
_DENIED_LIST = re.compile(
    r"\b(?:no|without|absence|negative|free)\b[^.:;\n]{0,40}(:)[ \t]*"
    r"(\n(?:[ \t]*(?:[-*\u2022\u2013]|\d[.)])\s+[^\n.:]{1,60}\n?)+)",
    re.IGNORECASE,
)

_DENIED = re.compile(
    r"\b(?:no evidence of|negative for|absence of|free of|without)"
    r"(?: (?:any|all))?(?: of)?(?: the)?(?: following)?(?: findings)?\s?:",
    re.IGNORECASE,
)

_ABSENT = re.compile(r"(?:^|(?<=[.\n] ))absent:(?= \w)", re.IGNORECASE)
_FOLLOWING = re.compile("following|:", re.IGNORECASE)


def _marks(text: str) -> str:
    """Make one kind of dash, answer and tick of the kinds there are."""
    if "?" in text:
        text = _ANSWERED.sub(":", text)
    if ".." in text:
        text = _LEADER.sub(lambda found: ":".ljust(len(found[0])), text)
    if "(" in text:
        text = _IN_BRACKETS.sub(_without_brackets, text)
    if "[" in text:
        text = _TICKED_BEHIND.sub(lambda found: found[0].replace("[ ] ", ":no|").replace("[ ]", ":no"), text)
        text = _UNTICKED.sub(lambda found: " " * len(found[0]), text)
        text = _TICKED.sub("   ", text)
    if ":" in text:
        text = _MINUS.sub(":no", text)
        text = _ABSENT.sub("no     ", text)
        text = _DENIED_LIST.sub(_denied_list, text)
        text = _DENIED.sub(lambda found: _FOLLOWING.sub(lambda words: " " * len(words[0]), found[0]), text)
    if "\u2013" in text:
        text = _JOINING_DASH.sub("-", text)
    if ("- " in text or " -" in text or "--" in text or "\u2014" in text) and not _DECODER.search(text):
        text = _SPACED_DASH.sub(lambda found: "\u2013" * len(found[0]), text)
    return text


def _without_brackets(found: re.Match[str]) -> str:
    """Make "(absent)" an answer behind a colon; "(present)" adds nothing."""
    if found[1] is None:
        return " " * len(found[0])
    return ":no" if found[1] == "-" else f":{found[1]} "


def _denied_list(found: re.Match[str]) -> str:
    """Make one denial of "No evidence of:" and the list below."""
    colon, items = found.start(1) - found.start(), found[2]
    listed = re.sub(r"[ \t]*(?:[-*\u2022\u2013]|\d[.)])", lambda mark: ",".rjust(len(mark[0])), items).rstrip("\n")
    listed = listed.replace("\n", " ") + "\n" * (len(items) - len(listed))
    return f"{found[0][:colon]} {found[0][colon + 1 : found.start(2) - found.start()]}{listed}"


# --- lines ---


def _words(name: str) -> str:
    return "|".join(sorted(_TABLES["lines"][name], key=len, reverse=True))


_MARKER = re.compile(
    r"[-*\u2022\u2013+>#]\s|#?\(?(?:\d{1,2}|[a-zA-Z]|[ivx]{1,4})[.)][\s]|\d{1,2}[-\u2013]\s|[*\u2022>]"
)
_UNFINISHED = re.compile(rf"(?:,|/|\bvs\.?|\b(?:{_words('unfinished')}))$", re.IGNORECASE)
_GOES_ON = re.compile(rf"(?:{_words('goes on')})\b|[/(,;.)]", re.IGNORECASE)
_BEGINS = re.compile(rf"(?:{_words('begins')})\b", re.IGNORECASE)
_ONLY_ANSWER = re.compile(rf"(?:{'|'.join(_ANSWER)})\b[\w ]{{0,20}}[.;]?", re.IGNORECASE)
_ENTRY = re.compile(r"[\s*\u2022\u2013]*[^.:\n]{2,40}:\s*(.*)", re.DOTALL)


def _joined_lines(text: str) -> str:
    """Put a space for the end of each line that goes on in the next one; other line ends stay."""
    lines = text.split("\n")
    width = max(map(len, lines))
    one_case = text.upper() == text or text.lower() == text
    joined = [lines[0]]
    first = lines[0].strip()  # line of the statement
    for before, line in pairwise(lines):
        now = line.strip()
        if _line_goes_on(before.strip(), now, first, one_case=one_case, full=_is_full(before, now, width)):
            joined.append(" ")
        else:
            joined.append("\n")
            first = now
        joined.append(line)
    return "".join(joined)


def _is_full(line: str, following: str, width: int) -> bool:
    """Whether the next word had no room in a line."""
    word = following.split(" ", 1)[0]
    return len(line) >= _WRAPPED and len(line.rstrip()) + 1 + len(word) > width


def _line_goes_on(before: str, now: str, first: str, *, one_case: bool, full: bool) -> bool:
    if not before or not now or _MARKER.match(now) or _BARE_HEADING.fullmatch(before):
        return False
    if before[-1] == ":":
        return _ONLY_ANSWER.fullmatch(now) is not None
    if before[-1] in ".!?;" and not before.lower().endswith((" vs.", " approx.")):
        return False
    entry = _ENTRY.fullmatch(before)
    if entry is not None and _ONLY_ANSWER.fullmatch(entry[1]):
        return False
    if _UNFINISHED.search(before):
        return True
    lower = not now[0].isupper() or one_case
    if not lower or _BEGINS.match(now) or _HEADING.match(now):
        return False
    if _GOES_ON.match(now):
        return True
    if one_case or not first[:1].isupper():  # case tells nothing
        return full
    return entry is None or len(entry[1].split()) > 3


# --- statements and sections ---


def _alternatives(names: Sequence[str]) -> str:
    return "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in sorted(names, key=len, reverse=True))


_SECTION_OF: dict[str, Section] = {
    name: section  # type: ignore[misc]
    for section, names in _TABLES["sections"].items()
    for name in names
}
_ALL_HEADINGS = _alternatives(list(_SECTION_OF))
_HEADING = re.compile(rf"[\s*\u2022\u2013]*({_ALL_HEADINGS})\s*:", re.IGNORECASE)
_BARE_HEADING = re.compile(rf"\s*(?:(?:{_ALL_HEADINGS})\s*[:\u2013]?|final report|report)\s*", re.IGNORECASE)
_OPENING = re.compile(rf"\s*({_ALL_HEADINGS})(?:\s*[:\u2013]|\s*$)", re.IGNORECASE)
_INLINE_HEADING = re.compile(rf"(?<=\s)(?:{_ALL_HEADINGS})\s*:", re.IGNORECASE)
_LABEL = rf"(?:{_alternatives(_TABLES['labels']['words'])})"
_LABELS = re.compile(
    rf"(?<=[\s,;/])(?:{_LABEL}(?:\s*/\s*|\s+(?:and\s+|or\s+)?))*{_LABEL}\s*:|(?<=[,;/])\s*[a-z][a-z ]{{2,40}}:(?=\s)"
)
_VALUE = re.compile(r":[^:]*\b(?!(?:of|no|not|without|for|or|and|to|with|the|a|an|is|in)[\s,;/]*$)[\w)]+[\s,;/]*$")

# A full stop between digits is a decimal point, also in a decoder's "1 . 5". A question mark before a word asks, as
# in "?pneumonia". "2)" begins a statement, and so does "effusion:" behind a separator.
# Each alternative begins with a character of its own, by which the search finds it.
_END = re.compile(
    r"\.(?<!\bvs\.)(?<!\d \.)(?=[\s.a-z]|$)|\.(?<=\d \.)(?! ?\d)|!(?=\s|$)|\?(?<=[\w)\"']\?)(?=\s|$)|\n|\|"
)
_BEGIN = re.compile(r"\s(?=#?\d{1,2}\)\s|\([1-9]\)\s*[a-z]|#\d{1,2}\s|(?:[a-e]|[ivx]{1,4})\)\s|\*\s)|(?=\u2022)")


def _statements(text: str, lower: str) -> Iterator[Statement]:
    """Yield the statements that count or speak of another part of the body, outer spaces left out."""
    spans = list(_spans(lower, text))
    if not any(mark in lower for mark in ":\n\u2013"):  # no heading
        yield from (Statement(start, start, end, "counted") for start, end in spans)
        return
    openings = [_opening(text, lower, start, end) for start, end in spans]
    following = _following(openings)
    section: Section = "counted"
    filled = False  # whether the section has said something
    for index, (start, end) in enumerate(spans):
        opening, body = openings[index], start
        if opening is not None:
            section, filled, body = _SECTION_OF[opening[0]], False, opening[1]
        elif filled and section != "counted":
            gap = lower[spans[index - 1][1] - 1 : start]
            if _is_over(gap, following[index], one_line="\n" not in lower.strip()):
                section = "counted"
        filled = filled or bool(lower[body:end].strip())
        if section != "not counted":
            yield Statement(start, body, end, section)


def _opening(text: str, lower: str, start: int, end: int) -> tuple[str, int] | None:
    """The heading at the beginning of a statement, and its end; one without a colon must be a line of its own."""
    found = _OPENING.match(lower, start, end)
    if found is None:
        return None
    marked = lower[found.end() - 1] in ":\u2013"
    alone = text[start:end].isupper() or _BARE.fullmatch(text, start, end) is not None
    return (" ".join(found[1].split()), found.end()) if marked or alone else None


_BULLETS = "-*\u2022\u2013>+ \t\n"
_BARE = re.compile(r"(?:Findings|Impression|Indication|History|Comparison|Technique|Conclusion|Report)\s*")


def _following(openings: Sequence[tuple[str, int] | None]) -> list[Literal["findings", "counted", None]]:
    """For each statement, whether FINDINGS, or else a section that counts, is still to come."""
    ahead: Literal["findings", "counted", None] = None
    found = []
    for opening in reversed(openings):
        if opening is not None and _SECTION_OF[opening[0]] == "counted":
            ahead = "findings" if "finding" in opening[0] or ahead == "findings" else "counted"
        found.append(ahead)
    return found[::-1]


def _is_over(gap: str, ahead: Literal["findings", "counted", None], *, one_line: bool) -> bool:
    """Whether a section that does not count is over, though no heading says so.

    A blank line ends it, unless FINDINGS are still to come. Where nothing that counts follows at all, so does a line
    end; in a text of one line the first sentence.
    """
    if gap.count("\n") > 1:
        return ahead != "findings"
    return ahead is None and ("\n" in gap or one_line)


def _spans(lower: str, text: str) -> Iterator[tuple[int, int]]:
    """Yield where statements start and end, outer spaces left out."""
    ends = [found.end() for found in _END.finditer(lower)]
    if any(mark in lower for mark in ")#*\u2022"):
        ends = sorted({*ends, *(found.end() for found in _BEGIN.finditer(lower))})
    if ":" in lower:
        ends = sorted({*ends, *_heading_starts(lower, text)})
        ends = sorted({*ends, *_label_starts(lower, ends)})
    start = 0
    for end in [*ends, len(lower)]:
        while start < end:
            cut = end
            if end - start > _MAX_STATEMENT:
                space = lower.rfind(" ", start + 1, start + _MAX_STATEMENT)
                cut = space if space > 0 else start + _MAX_STATEMENT
            part = lower[start:cut]
            if content := part.strip().lstrip(_BULLETS):
                first = start + part.index(content)
                yield first, first + len(content)
            start = cut


def _heading_starts(lower: str, text: str) -> Iterator[int]:
    """Headings within a line: "Cough. FINDINGS: ...", "cough FINDINGS: ..."; those that count, in any spelling."""
    for found in _INLINE_HEADING.finditer(lower):
        name = " ".join(lower[found.start() : found.end() - 1].split())
        if name in _MAIN_HEADINGS or text[found.start() : found.end()].isupper():
            yield found.start()


_MAIN_HEADINGS = frozenset({"findings", "impression", "conclusion", "opinion", "findings and impression"})


def _label_starts(lower: str, ends: Sequence[int]) -> Iterator[int]:
    """Entries of a checklist behind the first: "Pneumothorax: none Pleural effusion: small"."""
    begin = 0
    for found in _LABELS.finditer(lower):
        index = bisect_right(ends, found.start())
        begin = max(begin, ends[index - 1] if index else 0, found.start() - 80)
        if _VALUE.search(lower, begin, found.start()):
            begin = found.start()
            yield begin
