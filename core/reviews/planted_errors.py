"""Errors put into drafts by rules on sentences, and whether a corrected text still has them.

A sentence takes an error only where the labeler finds one observation in it and nothing else of the report is about the
same; the draft must agree with the reference there, or the change could mend an error instead of making one. What a
text says afterwards is asked of the labeler again: nothing but the one observation may have changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from core.files import hash_of
from core.labels.fine_terms import KIND_OF, MODIFIERS
from core.labels.rules import LabeledReport, Mention, label_report
from core.observations import ASSERTED, NO_FINDING, LabelState
from core.reviews.design import REFERENCE, Case
from core.reviews.editing_design import PlantedError, PlantedKind
from core.reviews.questions import ReviewError
from core.text import sentence_spans

_SAID: Mapping[str, str] = {
    "Cardiomegaly": "The heart is enlarged.",
    "Enlarged Cardiomediastinum": "The mediastinum is widened.",
    "Lung Opacity": "There is an opacity in the {side} mid lung.",
    "Lung Lesion": "There is a nodule in the {side} upper lobe.",
    "Edema": "There is mild pulmonary edema.",
    "Consolidation": "There is consolidation in the {side} lower lobe.",
    "Pneumonia": "There is pneumonia in the {side} lower lobe.",
    "Atelectasis": "There is atelectasis at the {side} lung base.",
    "Pneumothorax": "There is a small {side} apical pneumothorax.",
    "Pleural Effusion": "There is a small {side} pleural effusion.",
    "Pleural Other": "There is {side} pleural thickening.",
    "Fracture": "There is a displaced {side} rib fracture.",
}
_DENIED: Mapping[str, str] = {
    "Cardiomegaly": "The heart is normal in size.",
    "Enlarged Cardiomediastinum": "The mediastinum is not widened.",
    "Lung Opacity": "There is no focal opacity.",
    "Lung Lesion": "There is no pulmonary nodule.",
    "Edema": "There is no pulmonary edema.",
    "Consolidation": "There is no focal consolidation.",
    "Pneumonia": "There is no pneumonia.",
    "Atelectasis": "There is no atelectasis.",
    "Pneumothorax": "There is no pneumothorax.",
    "Pleural Effusion": "There is no pleural effusion.",
    "Pleural Other": "There is no pleural thickening.",
    "Fracture": "There is no acute fracture.",
}
_OTHER_SEVERITY: Mapping[str, str] = {
    "borderline": "severe",
    "faint": "marked",
    "huge": "tiny",
    "large": "small",
    "marked": "slight",
    "massive": "minimal",
    "mild": "severe",
    "minimal": "marked",
    "moderate": "severe",
    "severe": "mild",
    "slight": "marked",
    "small": "large",
    "subtle": "marked",
    "tiny": "large",
    "trace": "large",
}
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_OF_ONE_SIDE = re.compile(r"atri|ventric|heart|aort|diaphragm", re.IGNORECASE)
"""Words of structures that have a side in their name."""
_KINDS: Mapping[str, str] = {"side": "side", "severity": "severity"}


def claimed(labeled: LabeledReport) -> dict[str, bool]:
    """Whether each observation but No Finding is said to be there, or perhaps."""
    return {name: state in ASSERTED for name, state in labeled.states.items() if name != NO_FINDING}


def is_caught(error: PlantedError, text: str) -> bool:
    """Whether a corrected text is without a planted error.

    Of what was negated, omitted or invented: the text says again that the observation is there, or not, as before the
    error was planted (by the rule labeler). Of another side or severity: no mention of the observation has the wrong
    word nearest to it.
    """
    labeled = label_report(text)
    if error.kind in _KINDS:
        return error.wrong not in _nearest(text, labeled, error.observation, _KINDS[error.kind])
    return claimed(labeled)[error.observation] is error.stated


def _nearest(text: str, labeled: LabeledReport, observation: str, kind: str) -> set[str]:
    """The modifiers of a kind that stand nearest to the claims of an observation, each in its sentence."""
    found = set()
    for mention in labeled.mentions:
        if mention.observation == observation and mention.state in ASSERTED:
            near = [
                (max(start - mention.end, mention.start - end, 0), modifiers[0])
                for start, end, modifiers in _modifiers(text, mention.sentence_start, mention.sentence_end, kind)
            ]
            if near:
                found.add(min(near)[1])
    return found


def _modifiers(text: str, start: int, end: int, kind: str) -> list[tuple[int, int, tuple[str, ...]]]:
    lower = text.lower()
    if len(lower) != len(text):  # of a letter whose small one is two
        lower = "".join(each.lower() if len(each.lower()) == 1 else each for each in text)
    return [each for each in MODIFIERS.find(lower, start, end) if KIND_OF.get(each[2][0]) == kind]


def plant(
    cases: Sequence[Case], arms: Sequence[str], share: float, kinds: Sequence[PlantedKind], salt: Sequence[object]
) -> tuple[list[Case], tuple[PlantedError, ...]]:
    """Put an error into a share of each arm's drafts: which, where and of what kind follows from ``salt``.

    The kind that is there least often comes first, so that all are there about equally often.

    Returns:
        the cases with the drafts as readers are shown them, and the errors.

    Raises:
        ReviewError: too few of an arm's drafts can take an error.
    """
    by_id = {case.study_id: case for case in cases}
    errors: list[PlantedError] = []
    for arm in arms:
        wanted, made = round(share * len(cases)), 0
        for case in sorted(cases, key=lambda each: hash_of([*map(str, salt), each.study_id, arm, "planted"])):
            if made == wanted:
                break
            own = [*map(str, salt), case.study_id, arm]
            used = Counter(each.kind for each in errors)
            for kind in sorted(kinds, key=lambda each: used[each]):
                made_here = plant_one(case.reports[arm], case.reports.get(REFERENCE), kind, [*own, kind])
                if made_here is not None:
                    text, error = made_here
                    drafts = {**by_id[case.study_id].reports, arm: text}
                    by_id[case.study_id] = replace(by_id[case.study_id], reports=drafts)
                    errors.append(replace(error, study=case.study_id, arm=arm))
                    made += 1
                    break
        if made < wanted:
            raise ReviewError(
                f"editing.planted: {wanted} drafts of {arm} should get an error, and {made} of {len(cases)} can take "
                "one of these kinds. Lower the share, or allow other kinds."
            )
    return list(by_id.values()), tuple(errors)


def plant_one(
    draft: str, reference: str | None, kind: PlantedKind, salt: Sequence[str] = ()
) -> tuple[str, PlantedError] | None:
    """A draft with one error of a kind, and the error; None where the draft cannot take one.

    Args:
        draft: as the system wrote it.
        reference: of the same study, None where there is none.
        kind: of the error.
        salt: decides where.
    """
    read = _Read(draft, label_report(draft), None if reference is None else label_report(reference), reference or "")
    options = sorted(_CHANGES[kind](read, salt), key=lambda each: hash_of([*salt, each.start, each.after]))
    before = claimed(read.labeled)
    for each in options:
        text = _put(draft, each)
        after = claimed(label_report(text))
        changed = {name for name in before if before[name] is not after[name]}
        same = changed == (set() if kind in _KINDS else {each.observation})
        if same and is_caught(each, draft) and not is_caught(each, text):
            return text, each
    return None


def _put(draft: str, error: PlantedError) -> str:
    """The draft with the error, all else as it is."""
    head, tail = draft[: error.start], draft[error.start + len(error.before) :]
    if error.kind == "omitted":
        return (head + tail.lstrip()).rstrip()
    return head + error.after + (" " if error.kind == "invented" else "") + tail


def mend(error: PlantedError, text: str) -> str:
    """The draft as the system wrote it, from the draft as readers are shown it, but for spaces between sentences."""
    head, tail = text[: error.start], text[error.start + len(error.after) :]
    if error.kind == "invented":
        return head + tail.removeprefix(" ")
    if error.kind == "omitted":
        return head + (" " if head and not head[-1].isspace() else "") + error.before + (f" {tail}" if tail else "")
    return head + error.before + tail


@dataclass(frozen=True, slots=True)
class _Read:
    """A draft and its reference, as the labeler reads them."""

    text: str
    labeled: LabeledReport
    reference: LabeledReport | None
    reference_text: str

    def agrees(self, observation: str, stated: bool) -> bool:
        """Whether the reference says the same of an observation, where there is a reference."""
        return self.reference is None or claimed(self.reference)[observation] is stated

    def sentences(self) -> Iterator[tuple[int, int, str, list[Mention]]]:
        """(start, end, observation, mentions) of sentences about one observation that no other sentence is about."""
        for start, end in sentence_spans(self.text):
            inside = [each for each in self.labeled.mentions if start <= each.start < end]
            names = {each.observation for each in inside}
            if len(names) == 1:
                (name,) = names
                if name in _SAID and all(each in inside for each in self.labeled.mentions if each.observation == name):
                    yield start, end, name, inside


def _negated(read: _Read, salt: Sequence[str]) -> Iterator[PlantedError]:
    for start, end, name, mentions in read.sentences():
        stated = any(each.state in ASSERTED for each in mentions)
        if read.agrees(name, stated):
            said = _DENIED[name] if stated else _SAID[name].format(side=_side(salt))
            yield PlantedError("", "", "negated", name, read.text[start:end], said, start, stated)


def _omitted(read: _Read, salt: Sequence[str]) -> Iterator[PlantedError]:
    if len(sentence_spans(read.text)) < 2:
        return
    for start, end, name, mentions in read.sentences():
        if any(each.state in ASSERTED for each in mentions) and read.agrees(name, True):
            yield PlantedError("", "", "omitted", name, read.text[start:end], "", start, True)


def _invented(read: _Read, salt: Sequence[str]) -> Iterator[PlantedError]:
    for name, sentence in _SAID.items():
        if read.labeled.states[name] is LabelState.BLANK and read.agrees(name, False):
            for start, _ in sentence_spans(read.text):
                yield PlantedError("", "", "invented", name, "", sentence.format(side=_side(salt)), start, False)


def _other_side(read: _Read, salt: Sequence[str]) -> Iterator[PlantedError]:
    for start, end, name, _ in _modified(read, "side"):
        sentence = read.text[start:end]
        sides = {each.lower() for each in _SIDE.findall(sentence)}
        if len(sides) == 1 and not _OF_ONE_SIDE.search(sentence):
            wrong = "left" if sides == {"right"} else "right"
            yield PlantedError("", "", "side", name, sentence, _SIDE.sub(_swapped, sentence), start, True, wrong)


def _other_severity(read: _Read, salt: Sequence[str]) -> Iterator[PlantedError]:
    for start, end, name, (first, last, modifiers) in _modified(read, "severity"):
        wrong = _OTHER_SEVERITY.get(modifiers[0])
        if wrong is None:
            continue
        words = read.text[first:last]
        new = f"{wrong}ly" if words.lower().endswith("ly") else wrong
        new = new.capitalize() if words[:1].isupper() else new
        sentence = read.text[start:first] + new + read.text[last:end]
        yield PlantedError("", "", "severity", name, read.text[start:end], sentence, start, True, wrong)


def _modified(read: _Read, kind: str) -> Iterator[tuple[int, int, str, tuple[int, int, tuple[str, ...]]]]:
    """Sentences that claim one observation with one modifier of a kind, which the reference has too, if it has any."""
    for start, end, name, mentions in read.sentences():
        found = _modifiers(read.text, start, end, kind)
        if len(found) != 1 or not all(each.state in ASSERTED for each in mentions) or not read.agrees(name, True):
            continue
        theirs = set() if read.reference is None else _nearest(read.reference_text, read.reference, name, kind)
        if not theirs or theirs == {found[0][2][0]}:
            yield start, end, name, found[0]


def _swapped(match: re.Match[str]) -> str:
    other = "left" if match[0].lower() == "right" else "right"
    return other.upper() if match[0].isupper() else other.capitalize() if match[0][0].isupper() else other


def _side(salt: Sequence[str]) -> str:
    return ("left", "right")[int(hash_of([*salt, "side"])[:8], 16) % 2]


_CHANGES = {
    "negated": _negated,
    "side": _other_side,
    "severity": _other_severity,
    "omitted": _omitted,
    "invented": _invented,
}
