"""Designs of review sessions: choices, blinding, order, repeats, and what a mark may say."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.observations import OBSERVATIONS, LabelState
from core.reviews.design import Case, Choice, choose, image_sha256, plan, read_design
from core.reviews.rubrics import ERROR_KINDS, RUBRICS, Mark, check_mark
from core.types import CXRLensError
from tests.review_cases import MODELS, cases, design


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rubric": "quality"}, "no rubric 'quality'"),
        ({"readers": ()}, "at least one"),
        ({"readers": ("anna", "anna")}, "named twice"),
        ({"repeats": -1}, "repeats: cannot be negative"),
        ({"studies": Choice("listed")}, "studies.ids"),
        ({"rubric": "preference", "reports_per_screen": 3}, "shows 2"),
        ({"comparisons": 2}, "does not compare reports"),
        ({"title": " "}, "title"),
    ],
)
def test_a_contradictory_design_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CXRLensError, match=message):
        design(**changes)


def test_a_design_is_read_with_full_keys_in_errors() -> None:
    read = read_design(
        {"title": "T", "rubric": "preference", "readers": ["a"], "studies": {"how": "random", "count": 3}}
    )
    assert read.studies == Choice("random", 3)
    with pytest.raises(CXRLensError, match=r"design.studies: unknown keys \['many'\]"):
        read_design({"title": "T", "rubric": "preference", "readers": ["a"], "studies": {"many": 3}})
    with pytest.raises(CXRLensError, match=r"design.studies.how: expected one of"):
        read_design({"title": "T", "rubric": "preference", "readers": ["a"], "studies": {"how": "best"}})


def test_choices() -> None:
    pool = cases(12)
    chosen = choose(pool, Choice("random", 5), 1)
    assert chosen == choose(pool[::-1], Choice("random", 5), 1)  # whatever the order of the pool
    assert {case.study_id for case in chosen} != {case.study_id for case in choose(pool, Choice("random", 5), 2)}
    listed = choose(pool, Choice("listed", ids=("s003", "s001")), 0)
    assert [case.study_id for case in listed] == ["s003", "s001"]
    stratified = Counter(
        name
        for case in choose(pool, Choice("stratified", 4), 0)
        for name in OBSERVATIONS
        if case.labels[name] is LabelState.POSITIVE
    )
    assert stratified == {"Edema": 2, "Cardiomegaly": 2}  # although Edema is half as frequent
    with pytest.raises(CXRLensError, match="12 of 12 cases fit 'random', 13 were asked"):
        choose(pool, Choice("random", 13), 0)
    with pytest.raises(CXRLensError, match="s999"):
        choose(pool, Choice("listed", ids=("s999",)), 0)


def test_disagreement_takes_studies_whose_reports_differ() -> None:
    same = Case("same", "", {"a": "The lungs are clear.", "b": "The lungs are clear."})
    little = Case("little", "", {"a": "There is edema.", "b": "The lungs are clear."})
    much = Case("much", "", {"a": "There is edema and cardiomegaly.", "b": "There is a pneumothorax."})
    chosen = choose([same, little, much], Choice("disagreement"), 0)
    assert [case.study_id for case in chosen] == ["much", "little"]


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 12),
    seed=st.integers(0, 5),
    per_screen=st.integers(1, 4),
    repeats=st.integers(0, 3),
    washout=st.integers(0, 4),
)
def test_every_reader_sees_every_report_once_and_repeats_after_the_washout(
    count: int, seed: int, per_screen: int, repeats: int, washout: int
) -> None:
    chosen = cases(count)
    wanted = design(seed=seed, reports_per_screen=per_screen, repeats=repeats, washout=washout)
    screens_each = count * -(-len(MODELS) // per_screen)
    if repeats > max(0, screens_each - washout):
        with pytest.raises(CXRLensError, match="repeats"):
            plan(wanted, chosen)
        return
    planned = plan(wanted, chosen)
    assert planned == plan(wanted, chosen[::-1])
    for screens in planned.values():
        first = [screen for screen in screens if screen.repeats is None]
        read = Counter((screen.study_id, model) for screen in first for _, model in screen.shown)
        assert read == Counter((case.study_id, model) for case in chosen for model in MODELS)
        names = {pair for screen in screens for pair in screen.shown}
        assert len(names) == len(dict(names)) == len({model for _, model in names})  # one name a model, always the same
        again = [(place, screen) for place, screen in enumerate(screens) if screen.repeats is not None]
        assert len(again) == repeats
        for place, screen in again:
            assert place - screen.repeats - 1 >= washout  # type: ignore[operator]
            assert screens[screen.repeats].shown == screen.shown  # type: ignore[index]


def test_readers_have_orders_and_names_of_their_own() -> None:
    readers = tuple(f"reader {number}" for number in range(20))
    planned = plan(design(readers=readers), cases(8))
    orders = {tuple(screen.study_id for screen in screens) for screens in planned.values()}
    names = Counter({m: b for s in screens for b, m in s.shown}["reference"] for screens in planned.values())
    assert len(orders) == 20
    assert set(names) == {"A", "B", "C"}  # the name of the reference gives nothing away


def test_preference_compares_the_same_pairs_for_all_readers_on_either_side() -> None:
    planned = plan(design(rubric="preference", comparisons=2, readers=tuple("abcdefgh")), cases(10))
    pairs = [{(s.study_id, frozenset(m for _, m in s.shown)) for s in screens} for screens in planned.values()]
    assert all(each == pairs[0] for each in pairs)
    assert len(pairs[0]) == 20
    left = Counter(screen.shown[0][1] for screens in planned.values() for screen in screens)
    assert min(left.values()) > 30  # of 160: no model is always on one side


def test_a_missing_report_is_named() -> None:
    with pytest.raises(CXRLensError, match="Study s000 has no report of pair-nine"):
        plan(design(models=("reference", "pair-nine")), cases(2))


def test_a_human_report_takes_no_part_where_explanations_are_judged() -> None:
    wanted = design(rubric="explanation-helpfulness", explanation="attention")
    assert {model for screen in plan(wanted, cases(2))["anna"] for _, model in screen.shown} == {"pair-one", "pair-two"}
    with pytest.raises(CXRLensError, match="human report has no explanation"):
        plan(design(rubric="explanation-helpfulness", explanation="attention", models=MODELS), cases(2))


def test_image_hash_survives_another_file_format() -> None:
    image = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert image_sha256(image) == image_sha256(np.round(image * 255).astype(np.float32) / 255)
    changed = image.copy()
    changed[3, 4] += 2 / 255
    assert image_sha256(image) != image_sha256(changed)
    assert image_sha256(image) != image_sha256(image.reshape(8, 32))


def test_rexval_has_six_kinds() -> None:
    assert len(ERROR_KINDS) == 6


@pytest.mark.parametrize(
    ("rubric", "mark", "message"),
    [
        ("report-quality", Mark("error", "A", {"error": "omission", "significant": True}), None),
        ("report-quality", Mark("error", "A", {"error": "omission", "significant": False, "span": [0, 4]}), None),
        ("report-quality", Mark("error", "A", {"error": "omission", "significant": 1}), "significant"),
        ("report-quality", Mark("error", "A", {"error": "typo", "significant": True}), "'error' is one of"),
        ("report-quality", Mark("error", "A", {"error": "omission"}), r"missing \['significant'\]"),
        ("report-quality", Mark("error", "Z", {"error": "omission", "significant": True}), "no report 'Z'"),
        ("report-quality", Mark("error", "A", {"error": "omission", "significant": True, "span": [0, 99]}), "'span'"),
        ("report-quality", Mark("error", "A", {"error": "omission", "significant": True, "span": [3, 3]}), "'span'"),
        (
            "report-quality",
            Mark("error", "A", {"error": "omission", "significant": True, "region": [0, 0, 2, 1]}),
            "region",
        ),
        ("report-quality", Mark("preference", "", {"prefer": "tie"}), "does not belong"),
        ("preference", Mark("preference", "", {"prefer": "first"}), None),
        ("preference", Mark("preference", "A", {"prefer": "first"}), "whole case"),
        ("preference", Mark("preference", "", {"prefer": ["first"]}), "'prefer' is one of"),
        ("explanation-helpfulness", Mark("helpfulness", "A", {"support": "supports", "span": [0, 5]}), None),
        ("explanation-helpfulness", Mark("helpfulness", "A", {"support": "yes", "span": [0, 5]}), "'support'"),
        ("observation-labels", Mark("label", "", {"observation": "Edema", "state": "uncertain"}), None),
        ("observation-labels", Mark("label", "", {"observation": "Oedema", "state": "uncertain"}), "'observation'"),
    ],
)
def test_marks_are_checked(rubric: str, mark: Mark, message: str | None) -> None:
    reports = {"A": "No edema."}
    if message is None:
        check_mark(mark, RUBRICS[rubric], reports)
    else:
        with pytest.raises(CXRLensError, match=message):
            check_mark(mark, RUBRICS[rubric], reports)
