"""Which case a reader edits in which arm and sitting, and what the drafts are: see `core.reviews.editing_design`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.files import hash_of
from core.reviews.design import REFERENCE, Case, Design, Screen, letters
from core.reviews.editing_design import NO_DRAFT, TEMPLATE, check_balance
from core.reviews.questions import ReviewError


def with_drafts(design: Design, cases: Sequence[Case], secret: str = "") -> tuple[Design, list[Case]]:
    """The cases with what readers begin from in each arm, and the design with the errors that were planted.

    Args:
        design: with arms.
        cases: as they were written; what is no arm and no reference stays with them.
        secret: of the session, so that no reader can work out which drafts have an error.

    Raises:
        ReviewError: a draft is missing, or too few of them can take an error.
    """
    from core.reviews.planted_errors import plant  # brings the labeler

    editing = design.editing
    for case in cases:
        missing = [arm for arm in editing.drafts if not case.reports.get(arm, "").strip()]
        if missing:
            raise ReviewError(f"Study {case.study_id} has no draft of {', '.join(missing)}.")
    own = {NO_DRAFT: "", TEMPLATE: editing.template}
    given = {arm: text for arm, text in own.items() if arm in editing.arms}
    planted, errors = list(cases), editing.planted_errors
    if editing.planted:
        arms = [arm for arm in editing.drafts if arm != REFERENCE]
        salt = (design.seed, secret) if secret else (design.seed,)
        planted, errors = plant(cases, arms, editing.planted, editing.kinds, salt)
    drafted = [replace(case, reports={**case.reports, **given}) for case in planted]
    return replace(design, editing=replace(editing, planted_errors=errors)), drafted


def without_drafts(design: Design, cases: Sequence[Case]) -> tuple[Design, list[Case]]:
    """A design and its cases as they were before `with_drafts`: drafts as their systems wrote them, none planted."""
    from core.reviews.planted_errors import mend

    editing = design.editing
    planted = {(each.study, each.arm): each for each in editing.planted_errors}
    found = []
    for case in cases:
        reports = {arm: text for arm, text in case.reports.items() if arm not in (NO_DRAFT, TEMPLATE)}
        for arm in reports:
            if error := planted.get((case.study_id, arm)):
                reports[arm] = mend(error, reports[arm])
        found.append(replace(case, reports=reports))
    return replace(design, editing=replace(editing, planted_errors=())), found


def lay_out(design: Design, cases: Sequence[Case], salt: Sequence[object]) -> dict[str, list[Screen]]:
    """Every reader's screens, sitting after sitting; in each, every arm is there equally often.

    A report's letter is another on each screen, so that it tells nothing of the arm.

    Raises:
        ReviewError: the numbers of cases and readers cannot be balanced.
    """
    editing = design.editing
    check_balance(editing, len(cases), len(design.readers))
    rows = editing.orders
    ordered = sorted(cases, key=lambda case: hash_of([*map(str, salt), case.study_id, "rows"]))
    found = {}
    for number, reader in enumerate(design.readers):
        of_reader: list[tuple[str, str]] = []
        for sitting in range(editing.sittings):
            arm_of = {
                case.study_id: editing.arms[rows[(place + number) % len(rows)][sitting]]
                for place, case in enumerate(ordered)
            }
            keys = {study: hash_of([*map(str, salt), reader, sitting, study]) for study in arm_of}
            of_reader += sorted(arm_of.items(), key=lambda pair: keys[pair[0]])
        found[reader] = [Screen(study, ((letters(place), arm),)) for place, (study, arm) in enumerate(of_reader)]
    return found
