"""Designs of sessions in which drafts are edited: balance, sittings with a washout, and what cannot be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import to_dict
from core.reviews.adjudication import adjudicate
from core.reviews.database import Database
from core.reviews.design import Case, Choice, Design, plan, read_design
from core.reviews.editing_design import NO_DRAFT, TEMPLATE, Crossover, Editing, PlantedError, Square, orders_of
from core.reviews.questions import ReviewError
from core.reviews.rehearsal import copied
from core.reviews.rubrics import Mark
from core.reviews.store import (
    Actor,
    annotate,
    close_session,
    create_session,
    list_screens,
    next_screen,
    open_screen,
    progress,
    read_screen,
    save_edit,
)
from core.types import CXRLensError
from tests.review_cases import ANNA, RITA, cases, fill, statements

ARMS = (NO_DRAFT, TEMPLATE, "one", "two", "three")


def designed(editing: Editing, readers: int = 2, **changes: Any) -> Design:
    names = tuple(f"reader {number}" for number in range(readers))
    return Design(**{"title": "T", "rubric": "draft-editing", "readers": names, "editing": editing, **changes})


def editing_of(arms: int, crossover: Crossover = "every arm", square: Square = "williams") -> Editing:
    return Editing(ARMS[:arms], crossover, square, template="Normal." if arms > 1 else "")


def some_cases(count: int) -> list[Case]:
    return [Case(f"s{number}", "", dict.fromkeys(ARMS[2:], "The lungs are clear.")) for number in range(count)]


@given(
    st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.sampled_from(["williams", "latin"]), st.integers(0, 9)
)
@settings(max_examples=40, deadline=None)
def test_every_reader_edits_every_case_in_every_arm_and_each_sitting_is_balanced(
    arms: int, blocks: int, readers: int, square: Square, seed: int
) -> None:
    editing = editing_of(arms, square=square)
    count = blocks * len(editing.orders)
    laid_out = plan(designed(editing, readers, seed=seed), some_cases(count), "secret")
    assert len(laid_out) == readers
    for screens in laid_out.values():
        shown = [(screen.study_id, screen.shown[0][1]) for screen in screens]
        assert len(set(shown)) == len(shown) == count * arms
        order: dict[str, list[str]] = {}
        for sitting in range(arms):
            part = shown[sitting * count : (sitting + 1) * count]
            assert len({study for study, _ in part}) == count
            assert set(Counter(arm for _, arm in part).values()) == {count // arms}
            for study, arm in part:
                order.setdefault(study, []).append(arm)
        follows = Counter((one, other) for each in order.values() for one, other in pairwise(each))
        if square == "williams" and arms > 1:  # each arm comes equally often after each other one
            assert set(follows.values()) == {count // arms} and len(follows) == arms * (arms - 1)
        names = [screen.shown[0][0] for screen in screens]
        assert len(set(names)) == len(names)  # a letter tells nothing of the arm


@given(st.integers(2, 4), st.integers(1, 3), st.integers(1, 2))
@settings(max_examples=20, deadline=None)
def test_with_each_case_once_the_arms_rotate_over_readers(arms: int, blocks: int, times: int) -> None:
    editing = editing_of(arms, "one arm")
    laid_out = plan(designed(editing, arms * times), some_cases(arms * blocks), "secret")
    pairs = Counter((screen.study_id, screen.shown[0][1]) for screens in laid_out.values() for screen in screens)
    assert set(pairs.values()) == {times} and len(pairs) == arms * blocks * arms
    for screens in laid_out.values():
        assert set(Counter(screen.shown[0][1] for screen in screens).values()) == {blocks}


def test_orders_are_those_of_williams() -> None:
    """Four treatments as Williams 1949 builds them: 0, 1, n-1, 2, ...; of an odd number also the mirrored rows."""
    assert orders_of(4, "williams")[0] == (0, 1, 3, 2)
    assert len(orders_of(5, "williams")) == 10 and len(orders_of(4, "williams")) == 4
    assert orders_of(3, "latin") == ((0, 1, 2), (1, 2, 0), (2, 0, 1))


def test_a_plan_follows_from_the_seed_and_the_secret() -> None:
    wanted = designed(editing_of(3))
    assert plan(wanted, some_cases(6), "x") == plan(wanted, some_cases(6), "x")
    assert plan(wanted, some_cases(6), "x") != plan(wanted, some_cases(6), "y")
    assert plan(wanted, some_cases(6), "x") != plan(replace(wanted, seed=1), some_cases(6), "x")


@pytest.mark.parametrize(
    ("editing", "cases_", "readers", "told"),
    [
        (editing_of(2), 7, 2, "7 cases cannot be balanced over 2 arms: take 6 or 8."),
        (editing_of(3), 9, 2, "9 cases cannot be balanced over 3 arms (a Williams square of 6 orders): take 6 or 12."),
        (editing_of(3, square="latin"), 1, 2, "1 cases cannot be balanced over 3 arms: take 3."),
        (
            editing_of(2, "one arm"),
            8,
            3,
            "3 readers cannot be balanced over 2 arms, where each reads a case in one arm",
        ),
    ],
)
def test_what_cannot_be_balanced_is_refused_with_what_would_do(
    editing: Editing, cases_: int, readers: int, told: str
) -> None:
    with pytest.raises(ReviewError) as error:  # as soon as the number is known
        designed(editing, readers, studies=Choice(count=cases_))
    assert str(error.value).startswith(told)
    with pytest.raises(ReviewError) as error:
        plan(designed(editing, readers), some_cases(cases_))
    assert str(error.value).startswith(told)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Editing((NO_DRAFT, NO_DRAFT)), "named twice"),
        (lambda: Editing((TEMPLATE,)), "a text goes with the arm"),
        (lambda: Editing((NO_DRAFT,), template="Normal."), "a text goes with the arm"),
        (lambda: Editing((NO_DRAFT,), planted=0.5), "no arm has any"),
        (lambda: Editing(("one",), planted=1.5), "0 to 1, not 1.5"),
        (lambda: Editing(("one",), washout_days=-1), "0 to 3,650 days"),
        (lambda: designed(Editing()), "say from which arms"),
        (lambda: designed(Editing(("one",)), rubric="radpeer"), "readers edit no report"),
        (lambda: designed(Editing(("one",)), models=("two",)), "one are none of the models"),
        (lambda: designed(Editing(("one",)), repeats=2), "where drafts are edited"),
        (lambda: plan(designed(Editing(("four",))), some_cases(2)), ""),
    ],
)
def test_a_design_that_contradicts_itself_is_refused(make: Callable[[], Any], told: str) -> None:
    if not told:  # the layout needs no texts; the drafts do
        make()
        return
    with pytest.raises(ReviewError, match=told):
        make()


def test_a_design_is_written_and_read_with_its_planted_errors() -> None:
    error = PlantedError("s0", "one", "side", "Edema", "a left", "a right", 3, True, "right")
    wanted = designed(Editing(("one",), planted=0.5, planted_errors=(error,)))
    assert read_design(to_dict(wanted)) == wanted
    with pytest.raises(CXRLensError, match=r"design\.editing\.crossover: expected one of every arm, one arm"):
        read_design(to_dict(wanted) | {"editing": {"arms": ["one"], "crossover": "both"}})


# ------------------------------------------------------------------------------------------------------------ sittings


def test_the_next_sitting_opens_after_the_washout_and_the_one_before_is_shut_then(tmp_path: Path) -> None:
    now = [datetime(2026, 3, 1, 9, tzinfo=UTC)]
    database = Database(tmp_path / "r.sqlite", clock=lambda: now[0])
    fill(database)
    wanted = designed(Editing((NO_DRAFT, "pair-one"), washout_days=10)).__class__(
        "T", "draft-editing", ("anna",), editing=Editing((NO_DRAFT, "pair-one"), washout_days=10)
    )
    trial = create_session(database, RITA, wanted, cases(2))
    ids = [screen for screen, _, _ in list_screens(database, ANNA, trial)]
    assert progress(database, ANNA, trial).sitting == "Sitting 1 of 2"
    assert [screen for screen, _, _ in progress(database, ANNA, trial).screens] == ids[:2]

    def refused(screen: str, told: str) -> None:
        for look in (read_screen, open_screen):
            with pytest.raises(ReviewError, match=told):
                look(database, ANNA, screen)
        with pytest.raises(ReviewError, match=told):
            write(screen, "late")

    def write(screen: str, key: str) -> None:
        name = "ABCD"[ids.index(screen)]
        mark = Mark("answer", name, {"question": "report", "answer": f"Text {key}."})
        save_edit(database, ANNA, screen, mark, key=f"{screen}/{key}")

    refused(ids[2], "sitting 2 of 2, which opens 10 days after sitting 1 is finished.*with 2 cases to read")
    for screen in ids[:2]:
        write(screen, "first")
        annotate(database, ANNA, screen, key=f"{screen}/done", version=1, state="done")
        now[0] += timedelta(hours=1)
    refused(ids[2], "opens on 2026-03-11 at 10:00 UTC")
    assert "opens on 2026-03-11 at 10:00 UTC" in progress(database, ANNA, trial).following
    now[0] = datetime(2026, 3, 11, 9, 59, tzinfo=UTC)
    refused(ids[3], "2026-03-11")
    assert read_screen(database, ANNA, ids[0]).marks  # still to be looked at
    now[0] -= timedelta(days=30)  # a clock that is set back opens nothing
    refused(ids[2], "2026-03-11")
    now[0] = datetime(2026, 3, 11, 10, 0, tzinfo=UTC)
    assert read_screen(database, ANNA, ids[2]).study_id
    assert next_screen(database, ANNA, trial) == ids[2]
    refused(ids[0], "Sitting 1 is over")
    assert [screen for screen, _, _ in progress(database, ANNA, trial).screens] == ids[2:]
    close_session(database, RITA, trial)
    assert all(read_screen(database, ANNA, screen) for screen in ids)
    database.close()


def test_a_copy_of_a_session_has_the_drafts_of_its_systems_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "r.sqlite")
    fill(database)
    editing = Editing((NO_DRAFT, "pair-one"), planted=1.0)
    wanted = Design("T", "draft-editing", ("anna",), seed=4, editing=editing)
    trial = create_session(database, RITA, wanted, cases(2))
    again, found = copied(database, RITA, trial)
    assert again.editing == editing
    assert {case.study_id: case.reports for case in found} == {case.study_id: case.reports for case in cases(2)}
    with pytest.raises(ReviewError, match="nothing to settle"):
        adjudicate(database, RITA, trial, "carla")
    database.close()


def test_each_reader_has_sittings_of_their_own(tmp_path: Path) -> None:
    database = Database(tmp_path / "r.sqlite")
    fill(database)
    wanted = Design("T", "draft-editing", ("anna", "boris"), editing=Editing((NO_DRAFT, "pair-one"), washout_days=0))
    trial = create_session(database, RITA, wanted, cases(2))
    ids = [screen for screen, _, _ in list_screens(database, ANNA, trial)]
    for number, screen in enumerate(ids[:2]):
        annotate(database, ANNA, screen, key=f"{number}", version=1, state="skipped", skip_reason="blurred")
    assert progress(database, ANNA, trial).sitting == "Sitting 2 of 2"  # no day of washout
    assert progress(database, Actor("boris", "reader"), trial).sitting == "Sitting 1 of 2"
    database.close()


def test_a_long_sitting_asks_no_more_of_the_database_than_a_short_one(tmp_path: Path) -> None:
    def asked(size: int) -> tuple[int, ...]:
        database = Database(tmp_path / f"{size}.sqlite")
        fill(database)
        editing = Editing((NO_DRAFT, "pair-one"), washout_days=0)
        trial = create_session(database, RITA, Design("T", "draft-editing", ("anna",), editing=editing), cases(size))
        ids = [screen for screen, _, _ in list_screens(database, ANNA, trial)]
        for number, screen in enumerate(ids[:size]):
            annotate(database, ANNA, screen, key=f"{number}", version=1, state="skipped", skip_reason="blurred")
        with statements(database) as of_progress:
            assert progress(database, ANNA, trial).sitting == "Sitting 2 of 2"
        with statements(database) as first:
            open_screen(database, ANNA, ids[size])
        with statements(database) as again:
            opened = open_screen(database, ANNA, ids[size])
        with statements(database) as read:
            assert read_screen(database, ANNA, ids[size]) == opened
        database.close()
        assert len(again) == len(read)
        return len(of_progress), len(first), len(again)

    assert asked(2) == asked(20)
