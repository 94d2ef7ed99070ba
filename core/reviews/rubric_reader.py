"""From the text of a rubric's file, TOML, to the rubric. Each fault of a file is one sentence.

docs/reviews.md says how a file is written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from core.registry import did_you_mean
from core.reviews.questions import (
    CANNOT_JUDGE,
    KINDS,
    NONE,
    SUBJECTS,
    TEXT_LIMIT,
    TIE,
    WITH_OPTIONS,
    WRITTEN,
    Condition,
    Contradiction,
    MarkKind,
    Question,
    Rest,
    ReviewError,
    Rubric,
)

PAGE_KEYS: Mapping[str, str] = {
    **{"n": "next case", "p": "previous case", "g": "first case not read", "u": "undo", "f": "flag", "c": "comment"},
    **{"x": "skip", "i": "instructions", "v": "the image", "h": "the highlight", "s": "significance", "m": "marks"},
    **{"y": "use mine", "a": "all others", "j": "cannot judge", "q": "next question", "d": "next disputed"},
}
"""Letters of the reading page, which a question cannot have."""

MOST_OPTIONS, MOST_QUESTIONS, LONGEST_FILE = 9, 60, 100_000
_ID = re.compile(r"[a-z][a-z0-9-]{0,29}")
_TOP = {"name", "version", "title", "about", "question", "reports", "source", "marks", "questions", "contradictions"}
_FIELDS = {"id", "ask", "kind", "of", "items", "required", "cannot_judge", "key", "when"}
_FIELDS_OF: Mapping[str, set[str]] = {
    "scale": {"anchors"},
    "choice": {"options", "explained", "rest"},
    "choices": {"options", "explained", "alone"},
    "text": {"limit"},
    "mark": {"options", "explained", "on"},
    "preference": {"tie", "reasons", "reasons_ask"},
    "replacement": {"limit"},
    "confidence": {"steps"},
    "edit": {"limit"},
}
_STEPS = (0, 25, 50, 75, 100)
_WITHIN: Mapping[str, tuple[str, ...]] = {
    "case": SUBJECTS,
    "image": SUBJECTS,
    "report": ("report", "sentence", "finding"),
    "sentence": ("sentence",),
    "finding": ("finding",),
}
"""Of what a question may be asked whose condition is on a question of the key."""


class RubricError(ReviewError):
    """A file is no rubric.

    Attributes:
        faults: a sentence each.
    """

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        many = f"{len(faults)} faults: " if len(faults) > 1 else ""
        super().__init__(f"{where}: {many}" + " ".join(faults))
        self.faults = tuple(faults)


class _Reader:
    """One file, with what is wrong in it."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def fault(self, words: str) -> None:
        self.faults.append(words)

    def take(self, table: Mapping[str, Any], name: str, kind: type, otherwise: Any, where: str) -> Any:
        """A value of a table, of the kind it must have; ``otherwise`` where it is missing, None: it may not be."""
        if name not in table:
            if otherwise is None:
                self.fault(f"{where}: '{name}' is missing.")
            return kind() if otherwise is None else otherwise
        value = table[name]
        if type(value) is not kind or (isinstance(value, str) and not value.strip()):
            self.fault(f"{where}: '{name}' must be {_WORDS[kind]}, not {value!r}.")
            return kind() if otherwise is None else otherwise
        return value

    def texts(self, table: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
        values = self.take(table, name, list, [], where)
        if any(not isinstance(each, str) or not each.strip() or len(each) > 60 for each in values):
            self.fault(f"{where}: '{name}' must be a list of texts of 1 to 60 characters.")
            return ()
        if twice := _twice(values):
            self.fault(f"{where}: '{twice}' stands twice in '{name}'.")
        return tuple(values)


_WORDS: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def _twice(values: Sequence[Any]) -> Any:
    return next((each for number, each in enumerate(values) if each in values[:number]), None)


def read_rubric(text: str, where: str = "The rubric", *, shipped: bool = False) -> Rubric:
    """Read a rubric from the text of its file.

    Args:
        text: TOML.
        where: names the file in messages.
        shipped: it comes with the code, and may say ``marks``: how the first rubrics' answers are stored.

    Raises:
        RubricError: all that is wrong with it, a sentence each.
    """
    if len(text) > LONGEST_FILE:
        raise RubricError(where, [f"The file has more than {LONGEST_FILE:,} characters."])
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RubricError(where, [f"It cannot be read as TOML ({error})."]) from error
    reader = _Reader()
    rubric = _rubric(reader, values, text, shipped)
    if reader.faults:
        raise RubricError(where, list(dict.fromkeys(reader.faults)))
    return rubric


def _rubric(reader: _Reader, values: Mapping[str, Any], text: str, shipped: bool) -> Rubric:
    top = "The file"
    for name in sorted(set(values) - _TOP):
        reader.fault(f"{top}: '{name}' is unknown.{did_you_mean(name, _TOP)}")
    name = reader.take(values, "name", str, None, top)
    if name and not _ID.fullmatch(name):
        reader.fault(f"{top}: the name '{name}' must be small letters, digits and hyphens, 30 at most.")
    reports = reader.take(values, "reports", int, None, top)
    if not 0 <= reports <= 12:
        reader.fault(f"{top}: 'reports' is how many reports a screen shows, 0 to 12, not {reports}.")
    tables = reader.take(values, "questions", list, None, top)
    if not all(isinstance(each, dict) for each in tables) or not 1 <= len(tables) <= MOST_QUESTIONS:
        reader.fault(f"{top}: it needs [[questions]], 1 to {MOST_QUESTIONS} of them.")
        tables = [each for each in tables if isinstance(each, dict)]
    known: dict[str, Question] = {}
    for number, table in enumerate(tables, 1):
        for each in _questions(reader, table, f"Question {number}", known, reports):
            known[each.id] = each
    _check_keys(reader, list(known.values()))
    mark = reader.take(values, "marks", str, "answer", top)
    if mark != "answer" and (not shipped or mark not in get_args(MarkKind)):
        reader.fault(f"{top}: 'marks' is for rubrics that come with CXR Lens. Leave it out.")
    return Rubric(
        name,
        reader.take(values, "version", int, 1, top),
        reader.take(values, "title", str, None, top),
        reader.take(values, "about", str, None, top),
        reader.take(values, "question", str, None, top),
        reports,
        tuple(known.values()),
        tuple(_contradictions(reader, values, known)),
        cast(MarkKind, mark),
        reader.take(values, "source", str, "-", top).removeprefix("-"),
        text,
    )


def _questions(
    reader: _Reader, table: Mapping[str, Any], where: str, known: Mapping[str, Question], reports: int
) -> list[Question]:
    """The question of a table; with the one for its reasons, if it has any."""
    name = reader.take(table, "id", str, None, where)
    where = f"Question '{name}'" if name else where
    if name in known:
        reader.fault(f"{where}: it is there twice.")
    if name and not _ID.fullmatch(name):
        reader.fault(f"{where}: the id must be small letters, digits and hyphens, 30 at most.")
    kind = reader.take(table, "kind", str, None, where)
    if kind not in KINDS:
        if kind:
            reader.fault(
                f"{where}: there is no kind '{kind}'; there are {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}"
            )
        return []
    for each in sorted(set(table) - _FIELDS - _FIELDS_OF[kind] - {"finding"}):
        reader.fault(f"{where}: a question of kind {kind} has no '{each}'.{did_you_mean(each, _FIELDS_OF[kind])}")
    of = reader.take(table, "of", str, None, where)
    if of not in SUBJECTS:
        if of:
            reader.fault(f"{where}: it is asked of {', '.join(SUBJECTS)}, not of '{of}'.")
        return []
    of_text = of in ("report", "sentence", "finding")
    if of_text and of != "finding" and not reports:
        reader.fault(f"{where}: it is asked of a {of}, but a screen shows no report.")
    if kind == "mark" and of in ("sentence", "finding"):
        reader.fault(f"{where}: marks are made on a report, or on the image of a case, not on a {of}.")
    if kind == "preference" and (of != "case" or reports < 2):
        reader.fault(f"{where}: a preference is of the case, and needs two or more reports on a screen.")
    if kind == "replacement" and not of_text:
        reader.fault(f"{where}: a replacement is of a report, a sentence or a finding, not of the {of}.")
    if kind == "edit" and (of != "report" or reports != 1 or any(each.kind == "edit" for each in known.values())):
        reader.fault(f'{where}: one report is edited: of = "report", on a screen with one, and one such question.')
    items = reader.texts(table, "items", where)
    if items and (of in ("sentence", "finding") or kind in ("mark", "edit")):
        which = {"mark": "marks", "edit": "an edited report"}.get(kind, f"questions of a {of}")
        reader.fault(f"{where}: 'items' do not go with {which}.")
    options = _options(reader, table, kind, where)
    explained = reader.take(table, "explained", dict, {}, where)
    for each in explained:
        if each not in options:
            reader.fault(f"{where}: 'explained' names '{each}', which is no option.")
    alone = reader.texts(table, "alone", where)
    for each in alone:
        if each not in options:
            reader.fault(f"{where}: 'alone' names '{each}', which is no option.")
    on = reader.texts(table, "on", where) or (("words",) if of == "report" else ("region",))
    if set(on) - {"words", "region"} or (kind == "mark" and of != "report" and "words" in on):
        reader.fault(f'{where}: \'on\' is "words" (of a report), "region" (of the image), or both.')
    finding = _finding(reader, table, of, where, known)
    question = Question(
        name,
        reader.take(table, "ask", str, None, where),
        kind,  # type: ignore[arg-type]
        of,  # type: ignore[arg-type]
        options,
        {str(key): str(words) for key, words in explained.items()},
        items,
        reader.take(table, "required", bool, kind not in WRITTEN, where),
        reader.take(table, "cannot_judge", bool, kind in ("scale", "choice", "choices", "preference"), where),
        reader.take(table, "key", str, "-", where).removeprefix("-"),
        _when(reader, table, where, known, of, finding, items),
        finding,
        on,
        reader.take(table, "tie", bool, True, where),
        alone,
        _rest(reader, table, where, items, options),
        reader.take(table, "limit", int, TEXT_LIMIT, where),
    )
    if not 0 < question.limit <= TEXT_LIMIT:
        reader.fault(f"{where}: 'limit' is 1 to {TEXT_LIMIT} characters.")
    if question.cannot_judge and kind in ("mark", "edit", *WRITTEN):
        reader.fault(f"{where}: a question of kind {kind} has no 'cannot_judge'.")
    if kind == "preference":
        most = reports + question.tie + question.cannot_judge
        if most > MOST_OPTIONS:
            reader.fault(f"{where}: {most} answers are more than the {MOST_OPTIONS} that have a key.")
    return [question, *_reasons(reader, table, question, where, known)]


def _options(reader: _Reader, table: Mapping[str, Any], kind: str, where: str) -> dict[str, str]:
    if kind == "confidence":
        steps = reader.take(table, "steps", list, list(_STEPS), where)
        if not all(type(each) is int and 0 <= each <= 100 for each in steps) or sorted(set(steps)) != steps:
            reader.fault(f"{where}: 'steps' are percentages from 0 to 100, rising.")
            return {}
        _check_number(reader, steps, where, "steps")
        return {str(each): f"{each} %" for each in steps}
    if kind not in WITH_OPTIONS:
        return {}
    name = "anchors" if kind == "scale" else "options"
    given = table.get(name)
    if isinstance(given, list) and kind != "scale":
        given = {each: each for each in reader.texts(table, name, where)}
    if not isinstance(given, dict):
        reader.fault(f"{where}: it needs [questions.{name}], a line of words for each.")
        return {}
    for each, words in given.items():
        if not isinstance(words, str) or not words.strip():
            reader.fault(f"{where}: '{each}' in '{name}' has no words.")
        if not each.strip() or len(each) > 60 or each in (NONE, TIE, CANNOT_JUDGE) or {",", ":"} & set(each):
            reader.fault(f"{where}: '{each}' cannot be the name of an answer.")
    if kind == "scale":
        return _anchors(reader, given, where)
    _check_number(reader, given, where, name)
    return {each: str(words) for each, words in given.items()}


def _anchors(reader: _Reader, given: Mapping[str, Any], where: str) -> dict[str, str]:
    if any(not re.fullmatch(r"0|[1-9]\d?", each) for each in given):
        reader.fault(f"{where}: steps of a scale are whole numbers from 0 to 99.")
        return {}
    steps = sorted(map(int, given))
    if missing := [each for each in range(steps[0], steps[-1]) if each not in steps] if steps else []:
        named = ", ".join(map(str, missing))
        reader.fault(f"{where}: the scale goes from {steps[0]} to {steps[-1]}, and step {named} has no anchor.")
    _check_number(reader, steps, where, "anchors")
    return {str(each): str(given[str(each)]) for each in steps}


def _check_number(reader: _Reader, values: Sequence[Any] | Mapping[str, Any], where: str, name: str) -> None:
    if not 2 <= len(values) <= MOST_OPTIONS and not (name == "options" and len(values) == 1):
        reader.fault(f"{where}: '{name}' are 2 to {MOST_OPTIONS}, as each has a key; there are {len(values)}.")


def _finding(reader: _Reader, table: Mapping[str, Any], of: str, where: str, known: Mapping[str, Question]) -> str:
    if of != "finding":
        if "finding" in table:
            reader.fault(f"{where}: 'finding' goes with of = \"finding\".")
        return ""
    finding = str(reader.take(table, "finding", str, None, where))
    if finding and (finding not in known or known[finding].kind != "mark"):
        reader.fault(f"{where}: 'finding' names '{finding}', which is no earlier question of kind mark.")
        return ""
    return finding


def _condition(reader: _Reader, value: Any, where: str, known: Mapping[str, Question]) -> Condition | None:
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("question"), str)
        or set(value) - {"question", "is", "items"}
    ):
        reader.fault(f'{where}: a condition is {{ question = "...", is = [...] }}, not {value!r}.')
        return None
    name = value["question"]
    if name not in known:
        reader.fault(f"{where}: the condition is on '{name}', which does not exist or comes later.")
        return None
    answers = value.get("is", [])
    answers = answers if isinstance(answers, list) else [answers]
    for each in answers:
        if each not in known[name].answers() or isinstance(each, bool):
            possible = ", ".join(map(str, known[name].answers())) or "none that can be named"
            reader.fault(f"{where}: '{name}' is never {each!r}; its answers are {possible}.")
    items = reader.texts(value, "items", where)
    for each in items:
        if each not in known[name].items:
            reader.fault(f"{where}: '{name}' has no item '{each}'.")
    return Condition(name, tuple(answers), items)


def _when(
    reader: _Reader,
    table: Mapping[str, Any],
    where: str,
    known: Mapping[str, Question],
    of: str,
    finding: str,
    items: tuple[str, ...],
) -> Condition | None:
    if "when" not in table:
        return None
    found = _condition(reader, table["when"], where, known)
    if found is None:
        return None
    on = known[found.question]
    if of not in _WITHIN[on.of] or (on.of == "finding" and on.finding != finding):
        reader.fault(f"{where}: it is asked of the {of}, its condition is on a question of a {on.of}.")
    if on.items and not found.items and on.items != items:
        reader.fault(f"{where}: the condition is on '{on.id}', which has items; name them in 'items'.")
    return found


def _rest(
    reader: _Reader, table: Mapping[str, Any], where: str, items: tuple[str, ...], options: Mapping[str, str]
) -> Rest | None:
    if "rest" not in table:
        return None
    value = reader.take(table, "rest", dict, {}, where)
    if not items or set(value) - {"answer", "nothing", "nothing_answer", "beside"}:
        reader.fault(f"{where}: 'rest' is for a question with items, and has answer, nothing, nothing_answer, beside.")
    rest = Rest(
        reader.take(value, "answer", str, None, f"{where}, rest"),
        value.get("nothing", ""),
        value.get("nothing_answer", ""),
        reader.texts(value, "beside", f"{where}, rest"),
    )
    for each in (rest.answer, rest.nothing_answer):
        if each and each not in options:
            reader.fault(f"{where}: 'rest' names '{each}', which is no option.")
    for each in (rest.nothing, *rest.beside):
        if each and each not in items:
            reader.fault(f"{where}: 'rest' names '{each}', which is no item.")
    if bool(rest.nothing) != bool(rest.nothing_answer):
        reader.fault(f"{where}: 'rest' needs both 'nothing' and 'nothing_answer', or neither.")
    return rest


def _reasons(
    reader: _Reader, table: Mapping[str, Any], question: Question, where: str, known: Mapping[str, Question]
) -> list[Question]:
    if question.kind != "preference" or "reasons" not in table:
        return []
    name = f"{question.id}-why"
    if name in known:
        reader.fault(f"Question '{name}': it is there twice.")
    given = _options(reader, {"options": table["reasons"]}, "choices", f"{where}, reasons")
    when = Condition(question.id, ("a report",), ())
    ask = reader.take(table, "reasons_ask", str, "Why? All that apply.", where)
    return [Question(name, ask, "choices", "case", given, items=question.items, required=True, when=when)]


def _check_keys(reader: _Reader, questions: Sequence[Question]) -> None:
    holder: dict[str, str] = {}
    for each in questions:
        key = each.key.lower()
        if not key:
            continue
        if not re.fullmatch(r"[a-z]", key):
            reader.fault(f"Question '{each.id}': the key must be one letter, not '{each.key}'.")
        elif key in PAGE_KEYS:
            free = "".join(sorted(set("abcdefghijklmnopqrstuvwxyz") - set(PAGE_KEYS)))
            reader.fault(f"Question '{each.id}': the key '{key}' is the page's ({PAGE_KEYS[key]}); free are {free}.")
        elif key in holder:
            reader.fault(f"Question '{each.id}': the key '{key}' is that of '{holder[key]}' already.")
        holder.setdefault(key, each.id)


def _contradictions(reader: _Reader, values: Mapping[str, Any], known: Mapping[str, Question]) -> list[Contradiction]:
    found = []
    for number, table in enumerate(reader.take(values, "contradictions", list, [], "The file"), 1):
        where = f"Contradiction {number}"
        if not isinstance(table, dict) or set(table) != {"one", "other", "words"}:
            reader.fault(f"{where}: it has 'one', 'other' and 'words'.")
            continue
        one, other = (_condition(reader, table[name], where, known) for name in ("one", "other"))
        words = reader.take(table, "words", str, None, where)
        if one and other:
            found.append(Contradiction(one, other, words))
    return found
