"""What a design says of a session in which readers edit drafts: arms, sittings, washout, planted errors. No cases here.

An arm is what a reader begins from: nothing, a template, or the draft of a system. In a crossover a reader edits each
case in every arm, an arm a sitting; else each case once, and the arms rotate over cases and readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from core.reviews.questions import TEXT_LIMIT, ReviewError

NO_DRAFT, TEMPLATE = "no draft", "template"
"""Arms that are no system: the reader begins from nothing, or from the design's own text."""

Crossover = Literal["every arm", "one arm"]
Square = Literal["williams", "latin"]
PlantedKind = Literal["negated", "side", "severity", "omitted", "invented"]
PLANTED_KINDS: tuple[PlantedKind, ...] = get_args(PlantedKind)
LONGEST_WASHOUT = 3650


@dataclass(frozen=True, slots=True)
class PlantedError:
    """An error that was put into a draft, and what tells whether it is still there.

    Attributes:
        study: of the draft.
        arm: whose draft it is.
        kind: what was done.
        observation: that the sentence is about.
        before: the sentence as the system wrote it; empty of an invented one.
        after: the sentence as readers are shown it; empty of an omitted one.
        start: where it stands, or stood, in the draft as shown: characters.
        stated: whether the system's own draft says that the observation is there, or may be.
        wrong: of another side or severity: the modifier that was put in, as `core.labels.fine` names it.
    """

    study: str
    arm: str
    kind: PlantedKind
    observation: str
    before: str
    after: str
    start: int
    stated: bool
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Editing:
    """How drafts are edited; without arms nothing is.

    Attributes:
        arms: "no draft", "template", and names of systems.
        crossover: "every arm": each reader edits each case in every arm, an arm a sitting; "one arm": each case once.
        square: how the orders of arms are balanced: "latin": each arm equally often in each sitting; "williams": beside
            that each arm equally often after each other one (Williams 1949, doi:10.1071/CH9490149).
        washout_days: from the end of a sitting to the beginning of the next.
        template: the text of that arm.
        findings: readers see what the text says of the 14 observations while they write.
        planted: share of each system's drafts that get an error; the reference gets none.
        kinds: of these errors.
        planted_errors: filled when the session is made. Readers see none of it.
    """

    arms: tuple[str, ...] = ()
    crossover: Crossover = "every arm"
    square: Square = "williams"
    washout_days: int = 14
    template: str = ""
    findings: bool = True
    planted: float = 0.0
    kinds: tuple[PlantedKind, ...] = PLANTED_KINDS
    planted_errors: tuple[PlantedError, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a contradiction."""
        for name, values in (("arms", self.arms), ("kinds", self.kinds)):
            if len(set(values)) != len(values):
                raise ReviewError(f"editing.{name}: something is named twice.")
        if not 0 <= self.washout_days <= LONGEST_WASHOUT:
            raise ReviewError(f"editing.washout_days: 0 to {LONGEST_WASHOUT:,} days, not {self.washout_days}.")
        if not 0 <= self.planted <= 1:
            raise ReviewError(f"editing.planted: a share of the drafts, 0 to 1, not {self.planted:g}.")
        if (TEMPLATE in self.arms) is not bool(self.template.strip()):
            raise ReviewError("editing.template: a text goes with the arm 'template', and only with it.")
        if len(self.template) > TEXT_LIMIT:
            raise ReviewError(f"editing.template: {len(self.template):,} characters are more than {TEXT_LIMIT:,}.")
        if self.planted and not self.drafts:
            raise ReviewError("editing.planted: errors are planted in drafts of systems, and no arm has any.")
        if self.planted and not self.kinds:
            raise ReviewError("editing.kinds: say which errors are planted.")

    @property
    def drafts(self) -> tuple[str, ...]:
        """The arms that are systems, the reference among them."""
        return tuple(arm for arm in self.arms if arm not in (NO_DRAFT, TEMPLATE))

    @property
    def sittings(self) -> int:
        """How many each reader has; 1 where nothing is edited."""
        return len(self.arms) if self.arms and self.crossover == "every arm" else 1

    @property
    def orders(self) -> tuple[tuple[int, ...], ...]:
        """Arms by their number, in the order of sittings: a row for each group of cases."""
        return orders_of(len(self.arms), "latin" if self.crossover == "one arm" else self.square)


NO_EDITING = Editing()


def orders_of(arms: int, square: Square) -> tuple[tuple[int, ...], ...]:
    """The rows of a Latin square of ``arms`` numbers, or of Williams's, which has twice as many where they are odd."""
    if square == "latin":
        return tuple(tuple((row + column) % arms for column in range(arms)) for row in range(arms))
    first = [0]
    for step in range(1, arms):
        first.append((first[-1] + (step if step % 2 else -step)) % arms)
    rows = [tuple((each + row) % arms for each in first) for row in range(arms)]
    return (*rows, *(row[::-1] for row in rows)) if arms % 2 and arms > 1 else tuple(rows)


def check_balance(editing: Editing, cases: int, readers: int) -> None:
    """Refuse numbers of cases and readers over which the arms cannot be balanced.

    Raises:
        ReviewError: which cannot be, and which would do.
    """
    rows, arms = len(editing.orders), len(editing.arms)
    of_square = f" (a Williams square of {rows} orders)" if rows != arms else ""
    _require_multiple(cases, rows, "cases", f"{arms} arms{of_square}")
    if editing.crossover == "one arm":
        _require_multiple(readers, arms, "readers", f"{arms} arms, where each reads a case in one arm only")


def _require_multiple(count: int, of: int, what: str, over: str) -> None:
    if count and count % of == 0:
        return
    near = [str(each) for each in (count // of * of, (count // of + 1) * of) if each]
    raise ReviewError(f"{count} {what} cannot be balanced over {over}: take {' or '.join(near)}.")


def check_arms(editing: Editing, edits: bool, models: Sequence[str], rubric: str) -> None:
    """Refuse arms without a question that edits a report, and the other way round, and arms of unknown systems."""
    if edits is not bool(editing.arms):
        told = f"the rubric {rubric} lets readers edit reports: say from which arms, as ['{NO_DRAFT}', '{TEMPLATE}']"
        raise ReviewError(f"editing.arms: {told if edits else f'with the rubric {rubric} readers edit no report'}.")
    if models and (unknown := [arm for arm in editing.drafts if arm not in models]):
        raise ReviewError(f"editing.arms: {', '.join(unknown)} are none of the models. Add them to models.")
