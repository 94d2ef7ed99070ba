"""Errors that are planted in drafts: each kind by known answers, and when one counts as caught."""

from __future__ import annotations

import pytest

from core.labels.rules import label_report
from core.reviews.design import REFERENCE, Case
from core.reviews.editing_design import PLANTED_KINDS, PlantedError, PlantedKind
from core.reviews.planted_errors import claimed, is_caught, mend, plant, plant_one
from core.reviews.questions import ReviewError
from core.studies.phantom import PhantomSource

EFFUSION = "There is a small left pleural effusion."


@pytest.mark.parametrize(
    ("kind", "draft", "planted", "before", "after"),
    [
        ("negated", f"{EFFUSION}", "There is no pleural effusion.", EFFUSION, "There is no pleural effusion."),
        (
            "negated",
            "Heart size is normal.",
            "The heart is enlarged.",
            "Heart size is normal.",
            "The heart is enlarged.",
        ),
        ("side", f"{EFFUSION}", "There is a small right pleural effusion.", EFFUSION, None),
        ("side", "Right-sided pneumothorax.", "Left-sided pneumothorax.", "Right-sided pneumothorax.", None),
        ("severity", f"{EFFUSION}", "There is a large left pleural effusion.", EFFUSION, None),
        ("severity", "Mildly enlarged heart.", "Severely enlarged heart.", "Mildly enlarged heart.", None),
        ("omitted", f"The lungs are clear.  {EFFUSION}", "The lungs are clear.", EFFUSION, ""),
    ],
)
def test_known_answers(kind: PlantedKind, draft: str, planted: str, before: str, after: str | None) -> None:
    made = plant_one(draft, draft, kind)
    assert made is not None
    text, error = made
    assert text == planted and error.before == before and error.after == (planted if after is None else after)
    assert text[error.start :].startswith(error.after)
    assert not is_caught(error, text) and is_caught(error, draft)


def test_an_invented_sentence_is_of_what_neither_draft_nor_reference_speaks_of() -> None:
    made = plant_one(EFFUSION, "There is a small left pleural effusion. The heart is enlarged.", "invented")
    assert made is not None
    text, error = made
    assert error.before == "" and text == f"{error.after} {EFFUSION}"
    assert error.observation not in ("Pleural Effusion", "Cardiomegaly")
    assert claimed(label_report(text))[error.observation]


@pytest.mark.parametrize(
    ("kind", "draft", "reference"),
    [
        ("negated", EFFUSION, "No pleural effusion."),  # the draft is wrong already: this would mend it
        ("omitted", f"Clear lungs. {EFFUSION}", "Clear lungs."),
        ("side", EFFUSION, "There is a right pleural effusion."),
        ("side", "Small left effusion. Small right effusion.", None),  # two sentences are about the same
        ("side", "Small left effusion and right atelectasis.", None),  # one sentence is about two
        ("side", "The left ventricle is enlarged.", None),
        ("side", "No left pleural effusion.", None),
        ("severity", "There is a pleural effusion.", None),
        ("severity", "Mild to moderate edema.", None),
        ("negated", "No effusion or pneumothorax.", None),
        ("omitted", EFFUSION, None),  # nothing would be left
        ("negated", "", None),
    ],
)
def test_where_an_error_cannot_be_told_none_is_planted(kind: PlantedKind, draft: str, reference: str | None) -> None:
    assert plant_one(draft, reference, kind) is None


@pytest.mark.parametrize(
    ("kind", "text", "caught"),
    [
        ("negated", "A left effusion is seen.", True),
        ("negated", "Possible small left effusion.", True),  # it is there again, if with doubt
        ("negated", "There is no pleural effusion. Clear lungs.", False),
        ("negated", "Clear lungs.", False),
        ("side", "Small left pleural effusion.", True),
        ("side", "Clear lungs.", True),  # the wrong statement does not stand any more
        ("side", "Small RIGHT effusion.", False),
        ("side", "Small left effusion. The right lung is clear.", True),
        ("side", "Right lower lobe opacity with a small left effusion.", True),
        ("severity", "Small left pleural effusion.", True),
        ("severity", "Moderate left pleural effusion.", True),
        ("severity", "Large left effusion.", False),
        ("omitted", "Left pleural effusion.", True),
        ("omitted", "No effusion.", False),
        ("invented", EFFUSION, True),
    ],
)
def test_caught_is_decided_by_the_final_text(kind: PlantedKind, text: str, caught: bool) -> None:
    made = plant_one(f"The lungs are clear. {EFFUSION}", None, kind, [str(caught), "3"])
    assert made is not None
    error = made[1]
    if kind in ("negated", "omitted") and error.observation != "Pleural Effusion":
        pytest.fail("the only statement that can be negated or left out is the effusion's")
    assert is_caught(error, text) is caught
    assert not is_caught(error, made[0])


def test_nothing_but_the_one_statement_changes_in_many_reports() -> None:
    source = PhantomSource(40, 5)
    found = dict.fromkeys(PLANTED_KINDS, 0)
    for study in (source.study(each) for each in source.study_ids):
        for kind in PLANTED_KINDS:
            made = plant_one(study.findings, study.findings, kind, [study.study_id])
            if made is None:
                continue
            text, error = made
            found[kind] += 1
            before, after = (claimed(label_report(each)) for each in (study.findings, text))
            differs = {name for name in before if before[name] is not after[name]}
            assert differs == (set() if kind in ("side", "severity") else {error.observation})
            assert mend(error, text).split() == study.findings.split()
            assert is_caught(error, study.findings) and not is_caught(error, text)
            assert text[error.start :].startswith(error.after) and text != study.findings
    assert min(found.values()) > 5, found


def test_a_share_of_each_arms_drafts_gets_an_error_and_kinds_take_turns() -> None:
    source = PhantomSource(20, 5)
    studies = [source.study(each) for each in source.study_ids]
    drafts = [
        Case(each.study_id, "", {REFERENCE: each.findings, "a": each.findings, "b": each.findings}) for each in studies
    ]
    changed, errors = plant(drafts, ["a", "b"], 0.5, PLANTED_KINDS, ["7"])
    assert [sum(error.arm == arm for error in errors) for arm in "ab"] == [10, 10]
    assert len({(error.study, error.arm) for error in errors}) == 20
    assert len({error.kind for error in errors}) == 5
    by_id = {case.study_id: case for case in changed}
    for case in drafts:
        now = by_id[case.study_id]
        assert now.reports[REFERENCE] == case.reports[REFERENCE]
        for arm in "ab":
            planted = any(error.study == case.study_id and error.arm == arm for error in errors)
            assert (now.reports[arm] != case.reports[arm]) is planted
    assert plant(drafts, ["a", "b"], 0.5, PLANTED_KINDS, ["7"])[1] == errors
    assert plant(drafts, ["a", "b"], 0.5, PLANTED_KINDS, ["8"])[1] != errors


def test_too_few_drafts_that_can_take_an_error_are_told() -> None:
    plain = [Case(f"s{number}", "", {"a": "Unremarkable."}) for number in range(4)]
    with pytest.raises(ReviewError, match="2 drafts of a should get an error, and 0 of 4 can take one"):
        plant(plain, ["a"], 0.5, ("side", "severity"), ["1"])


def test_an_error_that_is_found_nowhere_is_not_caught_by_an_empty_text() -> None:
    error = PlantedError("s", "a", "omitted", "Edema", "Mild edema.", "", 0, True)
    assert not is_caught(error, "")
