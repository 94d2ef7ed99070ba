"""What several models say of a study, in which order they are read, and reports that are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from core.bundles.card import Card
from core.evaluation.own import Asked
from core.files import hash_of
from core.labels.rules import label_report
from core.observations import OBSERVATIONS, LabelState
from core.types import Report
from dashboard import settings
from dashboard.read import agreement
from dashboard.read.filter_words import strongest
from dashboard.services import bundles, evaluations, reports, stored, studies
from dashboard.services.reports import Reading
from dashboard.services.stored import Votes
from tests import needs
from tests.app_pages import needs_bundles

CARD = Card("x", "phantom", "tiny", "dve", "m2", {}, {}, {}, "", "", "", {"sha256": {}})


def reading(text: str) -> Reading:
    return Reading(CARD, Report(text, tuple(text.split()), 0.0, finished=True), label_report(text), None)


def reference(*present: str) -> Mapping[str, LabelState]:
    return {name: LabelState.POSITIVE if name in present else LabelState.BLANK for name in OBSERVATIONS}


EFFUSION, NORMAL = "There is a left pleural effusion.", "The lungs are clear. No pleural effusion."


def test_agreement_counts_who_says_a_finding_and_who_does_not() -> None:
    texts = [EFFUSION] * 3 + [NORMAL]
    told = agreement.in_words([reading(text) for text in texts], None)
    assert told == "**3 of 4** say **Pleural Effusion**, 1 does not."
    assert agreement.votes([reading(text) for text in texts]) == {"Pleural Effusion": 3, "No Finding": 1}
    assert agreement.in_words([reading(EFFUSION)] * 2, None) == "All 2 say **Pleural Effusion**."
    assert agreement.in_words([reading(EFFUSION)], None) == ""


def test_what_only_the_reference_says_is_told_and_silence_is_no_finding() -> None:
    told = agreement.in_words([reading(NORMAL)] * 3, reference("Pneumothorax"))
    assert "nothing is wrong" in told
    assert "None says Pneumothorax, which the reference does." in told
    assert "None says" not in agreement.in_words([reading(EFFUSION)] * 3, reference("Pleural Effusion"))


def test_the_best_measured_comes_first_and_what_was_not_measured_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "measured", lambda family: {"fve-m2": 0.7, "cve-m2": 0.2})
    pairs = [("ccve", "m2"), ("cve", "m2"), ("fve", "m2"), ("dve", "m2")]
    found = agreement.best_first("phantom", pairs, "-".join)
    assert found == [("fve", "m2"), ("cve", "m2"), ("ccve", "m2"), ("dve", "m2")]
    assert agreement.measured_in_words("phantom", "fve-m2") == "F1 0.70 in tests"
    assert agreement.measured_in_words("phantom", "dve-m2") == ""


def test_the_table_has_a_column_of_votes() -> None:
    rows = [{"observation": "Pleural Effusion"}, {"observation": "Edema"}, {"observation": "No Finding"}]
    table = {"rows": rows, "columns": [{"name": "DVE"}, {"name": "DVE"}], "compared": False}
    found = agreement.with_votes(table, [reading(EFFUSION), reading(NORMAL)])
    assert [row["votes"] for row in found["rows"]] == ["1 of 2", "0 of 2", "1 of 2"]
    assert all(len(column["about"]) > 20 and len(column["group_about"]) > 20 for column in found["columns"])


def test_beside_a_vote_stands_how_often_the_reference_said_so_too() -> None:
    # 0, 1, 2 and 3 of three models: studies, and those whose reference says it.
    counted = Votes({"Pleural Effusion": [[60, 3], [20, 5], [5, 3], [15, 12]]}, "100 held-out studies")
    two, three = ([reading(EFFUSION)] * each + [reading(NORMAL)] * (3 - each) for each in (2, 3))
    told = agreement.in_words(three, None, counted)
    assert told == "All 3 say **Pleural Effusion** (the reference too in 80% of tests)."
    assert "test" not in agreement.in_words(two, None, counted)  # five studies tell nothing
    table = {"rows": [{"observation": "Pleural Effusion"}, {"observation": "Edema"}], "columns": [{"name": "x"}] * 3}
    first, other = agreement.with_votes(table, three, counted)["rows"]
    assert first["too"] == "80% of 15"
    assert all(part in first["too_about"] for part in ("Of 100 held-out", "12 of these", "in 23% of all", "interval"))
    assert "too" not in other  # not counted
    assert agreement.with_votes(table, two, counted)["rows"][0]["too"] == "too few"
    none = agreement.worth("Pleural Effusion", 0, counted)
    assert none is not None
    assert none.too == "5% of 60" and "none of the 3 models" in none.about
    two_findings = Votes({"Pleural Effusion": [[0, 0], [20, 5], [0, 0]], "Edema": [[0, 0], [90, 9], [0, 0]]}, "")
    told = agreement.in_words([reading(EFFUSION), reading("There is pulmonary edema.")], None, two_findings)
    assert (told.count("tests"), told.count("(")) == (1, 2) and "25% of tests" in told and "(10%)" in told


@needs_bundles
def test_votes_are_told_only_of_the_bundles_that_were_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = list(bundles.cards("phantom").values())
    found = stored.votes(cards, "phantom")
    assert found is not None
    assert set(found.counts) == set(OBSERVATIONS)
    assert {f"{sum(n for n, _ in each)} held-out studies" for each in found.counts.values()} == {found.studies}
    assert stored.votes(cards[1:], "phantom") is None
    changed = replace(cards[0], content={**cards[0].content, "sha256": {"model.safetensors": "0" * 64}})
    assert stored.votes([changed, *cards[1:]], "phantom") is None
    assert stored.votes([], "phantom") is None
    assert agreement.votes_counted([reading(EFFUSION)], "phantom") is None
    results = evaluations.result_sets()[0]["phantom"]
    for damage in ({"of": ["x"]}, {"of": ["x"], "counts": {"Edema": [[1, 0]]}}, [1], {"of": ["x"], "counts": {"a": 3}}):
        broken = {"phantom": replace(results, content={**results.content, "votes": damage})}
        monkeypatch.setattr(evaluations, "result_sets", lambda broken=broken: (broken, {}))
        assert stored.votes(cards, "phantom") is None


@needs_bundles
def test_votes_on_studies_of_the_open_source_come_before_those_of_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = list(bundles.cards("phantom").values())
    results = evaluations.result_sets()[0]["phantom"]
    counts = {name: [[10, 1]] * (len(cards) + 1) for name in OBSERVATIONS}
    asked = Asked("key", "Ours", None, "x", "phantom", {card.name: card.made_of for card in cards})
    content = {**results.content, "studies": 130, "votes": {"of": [card.name for card in cards], "counts": counts}}
    own = replace(results, own=asked, content=content)
    monkeypatch.setattr(evaluations, "result_sets", lambda: ({"ours": own, "phantom": results}, {}))
    monkeypatch.setattr(evaluations, "source_of", lambda each: "example" if each.own else "phantom")
    there, elsewhere = stored.votes(cards, "example"), stored.votes(cards, "phantom")
    assert there is not None and elsewhere is not None
    assert there.studies.startswith("130 studies of ") and elsewhere.studies == "400 held-out studies"
    assert there.counts["Edema"][0] == (10, 1)


@needs_bundles
def test_a_stored_report_is_shown_without_a_model_and_only_of_the_bundle_that_wrote_it() -> None:
    """Keys: the bundle's content, the studies' fingerprint, the study."""
    path = settings.bundles() / "phantom-reports.jsonl"
    if not path.is_file():
        needs.BUNDLES.skip()
    line = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    case, card = studies.open_study(line["study_id"]), bundles.card_named("phantom-fve-m2")
    assert card is not None
    found = reports.written(case, [card])[card.name]
    assert isinstance(found, Reading)
    assert found.report.text == line[card.name]
    assert stored.stored_reports(case, [card])
    other = replace(card, content={**card.content, "sha256": {"model.safetensors": "0" * 64}})
    assert not stored.stored_reports(case, [other])
    assert not stored.stored_reports(replace(case, source="upload"), [card])
    assert not stored.stored_reports(replace(case, study=replace(case.study, study_id="P999999-1")), [card])


@needs_bundles
def test_the_scores_beside_the_bundles_are_of_these_bundles() -> None:
    """Else stored reports would not be shown, and no one would know why."""
    results = evaluations.result_sets()[0]["phantom"]
    made = results.content["made_of"]
    cards = bundles.cards("phantom").values()
    assert made == {card.name: hash_of(card.made_of) for card in cards}


def test_filters_that_count_most_are_named_and_an_even_share_is_no_answer() -> None:
    names = ["Edema", "Fracture", "Support Devices", "Lung Opacity"]
    told = strongest(names, np.array([0.1, 0.1, 0.6, 0.2], np.float32), signed=False)
    assert "Support Devices 60%, Lung Opacity 20%, Edema 10%" in told and "25.0%" in told
    assert "No filter stands out" in strongest(names, np.array([0.26, 0.25, 0.25, 0.24], np.float32), signed=False)
    assert "**Fracture -0.50, Edema +0.20**" in strongest(names, np.array([0.2, -0.5, 0, 0], np.float32), signed=True)
    assert "No filter counts" in strongest(names, np.array([0.004, -0.001, 0, 0], np.float32), signed=True)
