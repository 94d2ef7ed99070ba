"""A session on paper: which studies, which reports, who reads what in which order. No database here.

Every choice is an order by hash and the same on every machine and in every version: which studies, by the seed; names
of reports and what stands where, by the seed and a secret of the session, so that no reader can work them out, and a
session that is closed says nothing of the next. One reader's order says nothing of another's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, TypeVar

import numpy as np

from core.config import from_dict
from core.files import hash_of
from core.observations import OBSERVATIONS, LabelState
from core.reviews.editing_design import NO_EDITING, Editing, check_arms, check_balance
from core.reviews.practice import Practice, check_practice
from core.reviews.questions import ReviewError, Rubric
from core.reviews.rubric_library import kept_rubric
from core.types import FloatImage

REFERENCE = "reference"
"""Name of the human report among the models."""

MAX_SCREENS = 100_000
"""Of all readers together; more is a typing error."""
_PRACTICE = 15  # P: names of reports on practice screens are others than later, and tell nothing of those

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which studies of a pool are read.

    Attributes:
        how: "random"; "stratified": by turns a study for each observation, rarest first; "disagreement": those whose
            reports differ in the most observations; "listed": the ``ids``.
        count: studies; 0 takes all that fit.
        ids: for "listed".
    """

    how: Literal["random", "stratified", "disagreement", "listed"] = "random"
    count: int = 0
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Design:
    """A session as the researcher writes it; `read_design` reads it from plain values.

    Attributes:
        title: for lists; readers see it.
        rubric: name of one that comes with CXR Lens, or of a user's own.
        readers: names of users.
        models: names of pairs, and "reference" for the human report; all reports there are where it is empty.
        studies: which are read.
        seed: of the choice of studies; with the session's secret, of every order.
        repeats: screens that each reader sees a second time, for intra-reader agreement.
        washout: fewest screens between the two.
        reports_per_screen: 0 is the rubric's own number.
        comparisons: pairs of reports a study and reader in a preference session; 0 is all.
        minutes: time limit of a reader, of active time; 0 is none.
        instructions: for the reader.
        explanation: name of the explanation that is shown; empty for none.
        priors: the patient's study before it is shown beside each case, where the source has one.
        practice: cases that each reader reads first, with feedback; they enter no figure.
        source: where images come from, a name that `core.reviews.sources.open_source` opens.
        rubric_text: the rubric's file as it was when the session was made, which later changes of the file leave alone;
            empty before that.
        editing: how drafts are edited, where the rubric lets readers edit a report.
    """

    title: str
    rubric: str
    readers: tuple[str, ...]
    models: tuple[str, ...] = ()
    studies: Choice = Choice()
    seed: int = 0
    repeats: int = 0
    washout: int = 10
    reports_per_screen: int = 0
    comparisons: int = 0
    minutes: int = 0
    instructions: str = ""
    explanation: str = ""
    priors: bool = False
    practice: tuple[Practice, ...] = ()
    source: str = ""
    rubric_text: str = ""
    editing: Editing = NO_EDITING

    def __post_init__(self) -> None:
        """Refuse a contradiction."""
        rubric = self.questions
        if rubric.name != self.rubric:
            raise ReviewError(f"rubric: the file that is kept is of '{rubric.name}', not of '{self.rubric}'.")
        if not self.title.strip() or len(self.title) > 200:
            raise ReviewError("A session needs a title of at most 200 characters.")
        for name, values in (("readers", self.readers), ("models", self.models), ("studies.ids", self.studies.ids)):
            if len(set(values)) != len(values):
                raise ReviewError(f"{name}: something is named twice.")
        if not self.readers:
            raise ReviewError("readers: a session needs at least one.")
        numbers = ("seed", "repeats", "washout", "reports_per_screen", "comparisons", "minutes")
        wrong = [name for name in numbers if getattr(self, name) < 0] + ["studies.count"] * (self.studies.count < 0)
        if wrong:
            raise ReviewError(f"{', '.join(wrong)}: cannot be negative.")
        if (self.studies.how == "listed") is not bool(self.studies.ids):
            raise ReviewError("studies.ids goes with studies.how = 'listed', and only with it.")
        shown = rubric.reports_per_screen
        if shown != 1 and self.reports_per_screen not in (0, shown):
            raise ReviewError(f"reports_per_screen: the rubric {self.rubric} shows {shown}.")
        check_practice(self.practice, rubric)
        if read := sorted(set(self.practice_studies) & set(self.studies.ids)):
            raise ReviewError(
                f"practice: {', '.join(read)} is in studies.ids too; a practice case is read by nobody else."
            )
        if self.comparisons and not rubric.compares:
            raise ReviewError(f"comparisons: the rubric {self.rubric} does not compare reports.")
        check_arms(self.editing, rubric.edits, self.models, self.rubric)
        if self.editing.arms:
            if self.repeats or self.reports_per_screen > 1 or self.practice:
                raise ReviewError("repeats, reports_per_screen and practice: where drafts are edited there are none.")
            if count := self.studies.count or len(self.studies.ids):
                check_balance(self.editing, count, len(self.readers))

    @property
    def practice_studies(self) -> tuple[str, ...]:
        """Ids of the practice cases."""
        return tuple(each.study for each in self.practice)

    @property
    def questions(self) -> Rubric:
        """The rubric."""
        return kept_rubric(self.rubric, self.rubric_text)


def read_design(values: Mapping[str, Any]) -> Design:
    """Build a design from the values of a TOML or JSON file.

    Raises:
        CXRLensError: an unknown or missing key, a wrong type, a contradiction; the message has the full key.
    """
    return from_dict(Design, values, "design.")


@dataclass(frozen=True, slots=True)
class Case:
    """A study that can be read, with its reports as they were when the session was made.

    Attributes:
        study_id: unique.
        image_sha256: `image_sha256` of its image, or of the file; empty if it is not known.
        reports: text by name of the model.
        bundles: hash of the bundle that wrote each report, where one did.
        labels: of the study, for stratifying; may be empty.
        context: what else the reader sees.
    """

    study_id: str
    image_sha256: str
    reports: Mapping[str, str]
    bundles: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, LabelState] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Screen:
    """What one reader sees at once.

    Attributes:
        study_id: of the case.
        shown: (blinded name, model) of each report, in the order shown.
        repeats: index in the same list of the screen that it repeats, or None.
    """

    study_id: str
    shown: tuple[tuple[str, str], ...]
    repeats: int | None = None


def image_sha256(image: FloatImage) -> str:
    """Hash of an image (H, W) with values in [0, 1], in steps of 1/255: survives another file format of it."""
    grey = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return hashlib.sha256(repr(grey.shape).encode() + grey.tobytes()).hexdigest()


def choose(pool: Sequence[Case], choice: Choice, seed: int, besides: Sequence[str] = ()) -> list[Case]:
    """Choose the studies of a session.

    Args:
        pool: to choose from.
        choice: how.
        seed: of the choice.
        besides: practice studies: not chosen, and added at the end.

    Raises:
        ReviewError: fewer studies fit than asked for, or a listed one is not there.
    """
    known = {case.study_id: case for case in pool}
    if len(known) != len(pool):
        raise ReviewError("Two cases have the same study_id.")
    if besides:
        if missing := [study_id for study_id in besides if study_id not in known]:
            raise ReviewError(f"practice: {', '.join(missing[:5])} are not among the cases.")
        others = [case for case in pool if case.study_id not in besides]
        return choose(others, choice, seed) + [known[study_id] for study_id in besides]
    if choice.how == "listed":
        missing = [study_id for study_id in choice.ids if study_id not in known]
        if missing:
            raise ReviewError(f"studies.ids: {len(missing)} are not among the cases: {', '.join(missing[:5])}.")
        return [known[study_id] for study_id in choice.ids][: choice.count or None]
    ordered = _by_hash(pool, lambda case: case.study_id, seed, "studies")
    if choice.how == "stratified":
        ordered = _by_turns(ordered)
    elif choice.how == "disagreement":
        differing = {case.study_id: disagreement(case) for case in ordered}
        ordered = [case for case in ordered if differing[case.study_id]]
        ordered.sort(key=lambda case: -differing[case.study_id])  # stable: equal ones stay in the seed's order
    if not ordered or len(ordered) < choice.count:
        raise ReviewError(
            f"studies: {len(ordered)} of {len(pool)} cases fit '{choice.how}', {choice.count} were asked."
        )
    return ordered[: choice.count or None]


def disagreement(case: Case) -> int:
    """Observations of which some reports of a case say positive and others do not; by the rule labeler."""
    from core.labels.rules import label_reports

    states = [labeled.states for labeled in label_reports(list(case.reports.values()))]
    positive = [{name for name in OBSERVATIONS if state[name] is LabelState.POSITIVE} for state in states]
    return len(set[str]().union(*positive) - set[str].intersection(*positive)) if positive else 0


def _by_turns(ordered: list[Case]) -> list[Case]:
    """Take by turns a study for each observation that is positive in one, the rarest first."""
    if not any(case.labels for case in ordered):
        raise ReviewError("studies.how = 'stratified' needs the labels of the studies, and these cases have none.")
    strata = {name: [case for case in ordered if case.labels.get(name) is LabelState.POSITIVE] for name in OBSERVATIONS}
    turns = sorted((cases for cases in strata.values() if cases), key=len)
    taken: dict[str, Case] = {}
    while turns:
        for cases in turns:
            fresh = next((case for case in cases if case.study_id not in taken), None)
            if fresh is not None:
                taken[fresh.study_id] = fresh
        turns = [cases for cases in turns if any(case.study_id not in taken for case in cases)]
    return list(taken.values())


def plan(design: Design, cases: Sequence[Case], secret: str = "") -> dict[str, list[Screen]]:
    """Lay out every reader's screens, in order.

    Args:
        secret: of the session; empty for one that was made when sessions had none, and for a preview.

    Raises:
        ReviewError: a report is missing or empty, or there are too few or too many screens.
    """
    salt = (design.seed, secret) if secret else (design.seed,)
    if design.editing.arms:
        from core.reviews.crossover import lay_out  # which lays out the screens of this module

        per_reader = lay_out(design, cases, salt)
    else:
        models = models_of(design, cases)
        per_reader = {reader: _screens(design, cases, models, reader, salt) for reader in design.readers}
    total = sum(map(len, per_reader.values()))
    if total > MAX_SCREENS:
        raise ReviewError(f"{total:,} screens are more than {MAX_SCREENS:,}. Choose fewer studies, models or readers.")
    return per_reader


def practice_screens(design: Design) -> list[Screen]:
    """What every reader sees first, in the order of the design."""
    return [
        Screen(each.study, tuple((letters(_PRACTICE + number), model) for number, model in enumerate(each.models)))
        for each in design.practice
    ]


def models_of(design: Design, cases: Sequence[Case]) -> tuple[str, ...]:
    """The models that take part, sorted.

    Raises:
        ReviewError: a case lacks a report of one, or the rubric needs more of them.
    """
    if design.questions.reports_per_screen == 0:
        return ()
    if design.editing.arms:
        return tuple(sorted(design.editing.arms))
    models = design.models or tuple(sorted({model for case in cases for model in case.reports}))
    if design.explanation:
        if REFERENCE in design.models:
            raise ReviewError("models: a human report has no explanation to show. Leave the reference out.")
        models = tuple(model for model in models if model != REFERENCE)
    for case in cases:
        missing = [model for model in models if not case.reports.get(model, "").strip()]
        if missing:
            raise ReviewError(f"Study {case.study_id} has no report of {', '.join(missing)}.")
    if len(models) < max(1, design.questions.reports_per_screen):
        raise ReviewError(f"The rubric {design.rubric} needs at least {design.questions.reports_per_screen} models.")
    return tuple(sorted(models))


def _screens(
    design: Design, cases: Sequence[Case], models: Sequence[str], reader: str, salt: Sequence[object]
) -> list[Screen]:
    shuffled = _by_hash(models, str, *salt, reader, "names")
    blinded = {model: letters(index) for index, model in enumerate(shuffled)}
    size = design.reports_per_screen or design.questions.reports_per_screen

    def groups(study_id: str) -> Sequence[Sequence[str]]:
        if size == 0:
            return [()]
        if design.questions.compares:
            pairs = list(combinations(models, size))
            # Without the reader's name: all readers compare the same pairs, else they could not agree.
            return list(_by_hash(pairs, repr, *salt, study_id, "pairs"))[: design.comparisons or None]
        ordered = _by_hash(models, str, *salt, study_id, "groups")
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    screens = []
    for case in cases:
        for group in groups(case.study_id):
            ordered = _by_hash(group, str, *salt, reader, case.study_id, "order", *sorted(group))
            screens.append(Screen(case.study_id, tuple((blinded[model], model) for model in ordered)))
    screens = list(_by_hash(screens, lambda each: repr((each.study_id, sorted(each.shown))), *salt, reader))
    return _with_repeats(design, screens, reader, salt)


def _with_repeats(design: Design, screens: list[Screen], reader: str, salt: Sequence[object]) -> list[Screen]:
    """Append hidden repeats, each at least `washout` screens after the first reading of the same."""
    if not design.repeats:
        return screens
    early = range(max(0, len(screens) - design.washout))
    if design.repeats > len(early):
        raise ReviewError(
            f"repeats: {design.repeats} are asked, and only {len(early)} of {len(screens)} screens are followed by "
            f"washout = {design.washout} others. Lower repeats or washout, or read more studies."
        )
    chosen = sorted(_by_hash(early, str, *salt, reader, "repeats")[: design.repeats])
    # All at the end and in the order of the first reading: each is at least `washout` screens away from its first.
    return screens + [Screen(screens[index].study_id, screens[index].shown, index) for index in chosen]


def _by_hash(items: Sequence[Item], name: Any, *salt: object) -> list[Item]:
    def key(item: Item) -> str:
        return hash_of([*map(str, salt), name(item)])

    return sorted(items, key=key)


def letters(index: int) -> str:
    """0 -> A, 25 -> Z, 26 -> AA."""
    name = ""
    while index >= 0:
        name = chr(ord("A") + index % 26) + name
        index = index // 26 - 1
    return name
