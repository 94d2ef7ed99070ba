"""A session read by synthetic readers, so that its tables are seen before a study begins. Never a session of people.

Synthetic readers do what the reading page does, through the same functions of the store. What they answer follows from
the seed and from what a reader would know: each report has errors of its own, which readers mostly find; readers differ
in how strict and how fast they are, and systems in how good they are.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import sqlalchemy as sa

from core.files import hash_of
from core.observations import OBSERVATIONS, LabelState
from core.reviews.adjudication import adjudicate
from core.reviews.crossover import without_drafts
from core.reviews.database import Database
from core.reviews.design import REFERENCE, Case, Design, read_design
from core.reviews.editing_design import PlantedError
from core.reviews.planted import NOTHING_PLANTED, Planted
from core.reviews.progress import session_progress
from core.reviews.rubrics import ERROR_KINDS, SUPPORT, Mark, MarkKind, ReviewError
from core.reviews.schema import AnyRow, screens
from core.reviews.store import (
    Actor,
    ReaderScreen,
    annotate,
    being_read,
    close_session,
    create_session,
    first_admin,
    open_screen,
    read_screen,
    save_edit,
    save_mark,
    set_role,
    spend,
)
from core.reviews.store import progress as reading_progress
from core.reviews.store.changes import MAX_SECONDS
from core.reviews.store.edits import edited_question
from core.reviews.store.sessions import owned_session, stored_cases
from core.reviews.synthetic_answers import answer_questions, settle_screen
from core.reviews.synthetic_edits import edit_as_reader
from core.text import sentence_spans

SYNTHETIC = "synthetic reader "
"""How the names of synthetic readers begin."""
OWNER = "rehearsal"
"""The user who makes and closes a rehearsal in its own database."""
BEGIN = datetime(2026, 1, 5, 9, tzinfo=UTC)
"""When a rehearsal takes place."""
STUDIES = 20
"""Of a rehearsal whose design leaves the number open."""

NOTHING = "No Finding"
_SECONDS = 45.0
"""Median of a reading."""
_ERRORS = 1.2
"""Mean of a report's errors."""
_FOUND = 0.75
"""Share of a report's errors that a reader finds."""
_COMMENTS = (
    "Motion blur, hard to judge.",
    "I would word this more carefully.",
    "The prior would help here.",
    "Close call.",
)


class Clock:
    """The time in a rehearsal: it moves when somebody reads."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        """The time."""
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class World:
    """What is true in a rehearsal, by which its figures can be checked.

    Attributes:
        seed: of all that is drawn.
        systems: how many times as many errors as usual each system makes.
        readers: how many times as long as usual each reader takes.
        planted: what is not drawn, but said beforehand.
    """

    seed: int
    systems: Mapping[str, float]
    readers: Mapping[str, float]
    planted: Planted = NOTHING_PLANTED

    def random(self, *names: object) -> np.random.Generator:
        """A source of chance for something, the same in every rehearsal with this seed."""
        return np.random.default_rng([self.seed, int(hash_of([str(name) for name in names])[:15], 16)])

    def errors_of(self, study: str, system: str, text: str) -> list[Mapping[str, object]]:
        """The errors of a report: values of marks."""
        random = self.random("errors", study, system)
        hard = math.exp(self.random("case", study).normal(0, 0.4))
        count = min(int(random.poisson(_ERRORS * hard * self.systems.get(system, 1.0))), 6)
        sentences = sentence_spans(text)
        found: list[Mapping[str, object]] = []
        for _ in range(count):
            kind = str(random.choice(list(ERROR_KINDS), p=[0.3, 0.35, 0.12, 0.15, 0.03, 0.05]))
            value: dict[str, object] = {"error": kind, "significant": bool(random.random() < 0.6)}
            if sentences and kind not in ("omission", "missing comparison"):
                value["span"] = list(sentences[int(random.integers(len(sentences)))])
            found.append(value)
        return found


def synthetic_readers(count: int) -> tuple[str, ...]:
    """Names of synthetic readers.

    Raises:
        ReviewError: fewer than one.
    """
    if count < 1:
        raise ReviewError("A rehearsal needs one reader at least.")
    return tuple(f"{SYNTHETIC}{number + 1}" for number in range(count))


def invented_cases(design: Design, seed: int) -> list[Case]:
    """Phantoms as cases of a design without reports yet: the reports are the reference, changed by lot."""
    from core.studies.phantom import PhantomSource

    wanted = (design.studies.count or len(design.studies.ids) or STUDIES) + len(design.practice)
    source = PhantomSource(wanted, seed)
    studies = [source.study(study_id) for study_id in source.study_ids]
    systems = design.models or (*(design.editing.drafts or ("system one", "system two")), REFERENCE)
    systems = tuple(dict.fromkeys((*systems, *(model for each in design.practice for model in each.models))))
    found = []
    for number, study in enumerate(studies):
        other = studies[(number + 1) % len(studies)].findings
        reports = {
            system: study.findings if system == REFERENCE else _changed(study.findings, other, seed, number, system)
            for system in systems
        }
        found.append(Case(study.study_id, "", reports, labels=study.labels, context=dict(study.context)))
    practised = len(found) - len(design.practice)
    read, practice = found[:practised], found[practised:]
    if design.studies.how == "listed":  # a list of ids of real studies
        read = [replace(case, study_id=name) for case, name in zip(read, design.studies.ids, strict=True)]
    named = zip(practice, design.practice_studies, strict=True)
    return read + [replace(case, study_id=name) for case, name in named]


def _changed(text: str, other: str, seed: int, number: int, system: str) -> str:
    """A report with a sentence left out, or one of another study instead, or as it is."""
    sentences = [text[start:end] for start, end in sentence_spans(text)]
    random = np.random.default_rng([seed, number, int(hash_of([system])[:15], 16)])
    chance, at = random.random(), int(random.integers(len(sentences)))
    if chance < 0.4 and len(sentences) > 1:
        del sentences[at]
    elif chance < 0.8:
        start, end = sentence_spans(other)[0]
        sentences[at] = other[start:end]
    return " ".join(sentences)


def copied(database: Database, who: Actor, session_id: str) -> tuple[Design, list[Case]]:
    """The design of a session and its cases, to rehearse it elsewhere; nothing of it is changed.

    Raises:
        NotAllowedError: it is not the actor's.
        ReviewError: it is open and the actor reads these studies: a rehearsal names who wrote what.
    """
    with database.read() as connection:
        session = owned_session(connection, who, session_id)
        found = stored_cases(connection, session_id)
    if {case.study_id for case in found} & being_read(database, who.name):
        raise ReviewError(
            "You read these studies in a session that is open, and a rehearsal tells who wrote which report. Let "
            "somebody else rehearse it, or rehearse the design: cxr-lens review simulate DESIGN.toml."
        )
    design = read_design(session.design)
    if design.editing.arms:
        design, found = without_drafts(design, found)
    read = tuple(case.study_id for case in found if case.study_id not in design.practice_studies)
    listed = replace(design.studies, how="listed", count=0, ids=read)
    return replace(design, studies=listed), found


def world_of(
    design: Design, pool: Sequence[Case], readers: Sequence[str], seed: int, planted: Planted = NOTHING_PLANTED
) -> World:
    """Draw what is true in a rehearsal, but for what is planted.

    Raises:
        ReviewError: something is planted of a system or an answer that the design does not have.
    """
    empty = World(seed, {}, {})
    systems = sorted(design.editing.arms or design.models or {model for case in pool for model in case.reports})
    planted.check(systems, design.questions)
    drawn = {
        each: 0.4 if each == REFERENCE else math.exp(empty.random("system", each).normal(0, 0.35)) for each in systems
    }
    paces = {each: math.exp(empty.random("pace", each).normal(0, 0.3)) for each in readers}
    return World(seed, {**drawn, **planted.systems}, paces, planted)


def rehearse(
    database: Database,
    clock: Clock,
    design: Design,
    pool: Sequence[Case],
    readers: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    planted: Planted = NOTHING_PLANTED,
) -> tuple[str, World]:
    """Make a session in an empty database, let synthetic readers read it and a third settle it, and close it.

    Args:
        database: of this rehearsal alone, with ``clock`` as its clock.
        clock: of the rehearsal.
        design: of the session; its readers are replaced.
        pool: cases to choose from.
        readers: how many.
        seed: equal seeds give equal answers, orders and times.
        progress: called with (read, all) screens, without those of the third reader.
        planted: effects that the session's figures should find.

    Returns:
        The id of the closed session, and what was true in it.

    Raises:
        ReviewError: the database holds something, or the design does not fit the cases or what is planted.
    """
    names = synthetic_readers(readers)
    owner = first_admin(database, OWNER)
    third = f"{SYNTHETIC}{readers + 1}"
    for name in (*names, third):
        set_role(database, owner, name, "reader")
    secret = hash_of(["rehearsal", seed])[:32]
    session_id = create_session(database, owner, replace(design, readers=names), pool, secret=secret)
    world = world_of(design, pool, (*names, third), seed, planted)
    read_session(database, owner, session_id, world, clock, progress)
    try:
        adjudicate(database, owner, session_id, third)
    except ReviewError:  # one reader, or nobody disagrees
        pass
    else:
        read_session(database, owner, session_id, world, clock)
    close_session(database, owner, session_id)
    return session_id, world


def read_session(
    database: Database,
    owner: Actor,
    session_id: str,
    world: World,
    clock: Clock,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Let the synthetic readers of a session read what they have not read yet.

    Raises:
        NotAllowedError: it is not the owner's.
        ReviewError: somebody in it is no synthetic reader; nothing was written.
    """
    about = session_progress(database, owner, session_id)
    people = [each.reader for each in about.readers if not each.reader.startswith(SYNTHETIC)]
    if people:
        raise ReviewError(
            f"{len(people)} readers of this session are people, and synthetic readers write into none of theirs. "
            "Rehearse a copy: cxr-lens review simulate SESSION --out FOLDER."
        )
    total = sum(each.screens - each.done - each.skipped for each in about.readers)
    read = 0
    drafts, laid_out = _drafts(database, session_id, about.design), _laid_out(database, session_id)
    for each in about.readers:
        who, seen, sitting = Actor(each.reader, "reader"), Counter[tuple[str, ...]](), set[str]()
        for row in laid_out[each.reader]:
            models = dict(row.shown)
            what = (row.study_id, *sorted(models.values()))
            seen[what] += 1
            if row.state != "pending":
                continue
            # A sitting that has a screen to read stays open: it is looked up where another begins.
            if about.design.editing.sittings > 1 and row.id not in sitting:
                sitting = {screen_id for screen_id, _, _ in reading_progress(database, who, session_id).screens}
                if row.id not in sitting:  # the sitting before is read
                    clock.pass_by(about.design.editing.washout_days * 24 * 3600)
            screen = read_screen(database, who, row.id)
            if screen.seconds_left is not None and screen.seconds_left <= 0:
                break
            if drafts is None:
                _read(database, who, screen, models, seen[what], world, clock)
            else:
                _edit(database, who, screen, next(iter(models.values())), drafts, world, clock)
            read += 1
            progress(read, total)


def _laid_out(database: Database, session_id: str) -> Mapping[str, Sequence[AnyRow]]:
    """By reader: what each screen shows and where it stands, in order."""
    found = defaultdict[str, list[AnyRow]](list)
    query = sa.select(screens.c.id, screens.c.reader, screens.c.study_id, screens.c.shown, screens.c.state)
    with database.read() as connection:
        for row in connection.execute(query.where(screens.c.session_id == session_id).order_by(screens.c.position)):
            found[row.reader].append(row)
    return found


def _read(
    database: Database,
    who: Actor,
    screen: ReaderScreen,
    models: Mapping[str, str],
    again: int,
    world: World,
    clock: Clock,
) -> None:
    """Read one screen as a person does: open, answer, finish."""
    random = world.random("reads", who.name, screen.study_id, *sorted(models.values()), again, bool(screen.disputed))
    open_screen(database, who, screen.id)
    slow = math.exp(world.random("case", screen.study_id).normal(0, 0.3))
    seconds = _SECONDS * slow * world.readers.get(who.name, 1.0) * math.exp(random.normal(0, 0.35))
    seconds *= float(np.mean([world.planted.seconds.get(model, 1.0) for model in models.values()] or [1.0]))
    seconds = min(round(seconds, 1), MAX_SECONDS)
    clock.pass_by(seconds)
    spend(database, who, screen.id, seconds, key=f"{screen.id}/time")
    skipped, flagged, commented = (bool(random.random() < share) for share in (0.02, 0.04, 0.05))
    if not skipped:
        marks = (
            settle_screen(screen, random)
            if screen.disputed
            else _ANSWERS[screen.rubric.mark](screen, models, world, random, who.name)
        )
        for number, mark in enumerate(marks):
            save_mark(database, who, screen.id, mark, key=f"{screen.id}/{number}")
    annotate(
        database,
        who,
        screen.id,
        key=f"{screen.id}/end",
        version=screen.version,
        state="skipped" if skipped else "done",
        skip_reason="The image cannot be judged." if skipped else None,
        flagged=flagged or None,
        comment=str(random.choice(_COMMENTS)) if commented else None,
    )


@dataclass(frozen=True, slots=True)
class _Drafts:
    """What the synthetic readers of an editing session must know: reference by study, and planted errors."""

    question: str
    references: Mapping[str, str]
    planted: Mapping[tuple[str, str], PlantedError]


def _drafts(database: Database, session_id: str, design: Design) -> _Drafts | None:
    question = edited_question(design.questions.questions)
    if question is None:
        return None
    with database.read() as connection:
        stored = stored_cases(connection, session_id)
    references = {case.study_id: case.reports.get(REFERENCE, "") for case in stored}
    return _Drafts(question.id, references, {(each.study, each.arm): each for each in design.editing.planted_errors})


def _edit(
    database: Database, who: Actor, screen: ReaderScreen, arm: str, drafts: _Drafts, world: World, clock: Clock
) -> None:
    """Edit the draft of one screen as a person does: open, write, finish."""
    random = world.random("edits", who.name, screen.study_id, arm)
    ((name, draft),) = screen.reports
    open_screen(database, who, screen.id)
    reference, planted = drafts.references[screen.study_id], drafts.planted.get((screen.study_id, arm))
    pace = math.exp(world.random("case", screen.study_id).normal(0, 0.3)) * world.readers.get(who.name, 1.0)
    said = world.planted.seconds.get(arm)
    edited = edit_as_reader(draft, reference, planted, pace, random, None if said is None else _SECONDS * said)
    seconds = min(edited.seconds, MAX_SECONDS)
    clock.pass_by(seconds)
    spend(database, who, screen.id, seconds, key=f"{screen.id}/time")
    text = edited.text or "Nothing to report."
    mark = Mark("answer", name, {"question": drafts.question, "answer": text})
    save_edit(database, who, screen.id, mark, key=f"{screen.id}/text", bout=edited.bout)
    others = [
        each
        for each in answer_questions(read_screen(database, who, screen.id), {name: arm}, world, random)
        if each.value["question"] != drafts.question
    ]
    for number, each in enumerate(others):
        save_mark(database, who, screen.id, each, key=f"{screen.id}/{number}")
    annotate(database, who, screen.id, key=f"{screen.id}/end", version=screen.version, state="done")


def _mark_errors(
    screen: ReaderScreen, models: Mapping[str, str], world: World, random: np.random.Generator, who: str
) -> list[Mark]:
    strict = 0.15 * float(world.random("strict", who).normal())
    marks = []
    for name, text in screen.reports:
        for value in world.errors_of(screen.study_id, models[name], text):
            if random.random() < _FOUND + strict:
                changed = bool(value["significant"]) ^ bool(random.random() < 0.1)
                marks.append(Mark("error", name, {**value, "significant": changed}))
        if random.random() < 0.08:
            marks.append(Mark("error", name, {"error": "wrong severity", "significant": False}))
    return marks


def _prefer(
    screen: ReaderScreen, models: Mapping[str, str], world: World, random: np.random.Generator, who: str
) -> list[Mark]:
    first, second = (
        len(world.errors_of(screen.study_id, models[name], text)) + random.normal(0, 0.7)
        for name, text in screen.reports
    )
    prefer = "tie" if abs(first - second) < 0.4 else "first" if first < second else "second"
    return [Mark("preference", "", {"prefer": prefer})]


def _support(
    screen: ReaderScreen, models: Mapping[str, str], world: World, random: np.random.Generator, who: str
) -> list[Mark]:
    spans = [(name, span) for name, text in screen.reports for span in sentence_spans(text)]
    return [_supports(screen, models, world, random, name, span) for name, span in spans]


def _supports(
    screen: ReaderScreen,
    models: Mapping[str, str],
    world: World,
    random: np.random.Generator,
    name: str,
    span: tuple[int, int],
) -> Mark:
    truth = world.random("support", screen.study_id, models[name], *span).normal(0, 0.8)
    worse = math.log(world.systems.get(models[name], 1.0))
    step = int(np.digitize(truth - worse + random.normal(0, 0.6), [-0.5, 0.5]))
    return Mark("helpfulness", name, {"support": SUPPORT[step], "span": list(span)})


def _label(
    screen: ReaderScreen, models: Mapping[str, str], world: World, random: np.random.Generator, who: str
) -> list[Mark]:
    states = {name: _state(screen, world, random, name) for name in OBSERVATIONS if name != NOTHING}
    # Whether there is nothing to find follows from what this reader found.
    found = [state for name, state in states.items() if name != "Support Devices" and state != LabelState.NEGATIVE]
    states[NOTHING] = LabelState.NEGATIVE if found else LabelState.POSITIVE
    return [Mark("label", "", {"observation": name, "state": str(states[name])}) for name in OBSERVATIONS]


def _state(screen: ReaderScreen, world: World, random: np.random.Generator, observation: str) -> LabelState:
    present = bool(world.random("there", screen.study_id, observation).random() < 0.12)
    if random.random() < 0.03:
        return LabelState.UNCERTAIN
    return LabelState.POSITIVE if present is not bool(random.random() < 0.05) else LabelState.NEGATIVE


_Answer = Callable[[ReaderScreen, Mapping[str, str], World, np.random.Generator, str], list[Mark]]
_ANSWERS: Mapping[MarkKind, _Answer] = {
    "error": _mark_errors,
    "preference": _prefer,
    "helpfulness": _support,
    "label": _label,
    "answer": lambda screen, models, world, random, who: answer_questions(screen, models, world, random),
}
"""How a synthetic reader answers, by what the rubric asks."""
