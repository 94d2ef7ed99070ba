"""The Results page: finds and false alarms, macro F1 over frequent observations, and claims only where they hold."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.evaluation.results import VERSION
from dashboard.services import evaluations
from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on
from tests.conftest import BUNDLES

pytestmark = needs_bundles

FVE, CVE = "phantom-fve-m2", "phantom-cve-m2"


def shipped() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((BUNDLES / "phantom-results.json").read_text(encoding="utf-8"))
    return content


def newer(seed: int, p_of_cve: float) -> dict[str, Any]:
    """An evaluation as this version writes it, of a seed."""
    content = copy.deepcopy(shipped())
    content |= {"version": VERSION, "seed": seed, "frequent": ["Edema", "Fracture"]}
    for row in [*content["rows"], *content["baselines"]]:
        row |= {"f1_frequent": 0.5, "false_alarms": [9, 114], "finds": {"Edema": [47, 20, 10], "Fracture": [3, 0, 0]}}
        row["intervals"]["f1_frequent"] = [0.4, 0.6]
        sure = {"difference": 0.2, "low": 0.1, "high": 0.3, "p_bootstrap": 0.01, "p_permutation": 0.01, "p_holm": 0.01}
        if row["name"] == FVE:
            row["differences"] = {"f1": sure, "f1_frequent": sure}
        elif row["name"] == CVE:
            row["differences"] = {"f1": sure | {"low": None, "high": None, "p_holm": p_of_cve}, "f1_frequent": sure}
        else:
            row.pop("differences", None)
    return content


@pytest.fixture
def seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write evaluations of two seeds below CXR_RUNS."""

    def write(*contents: dict[str, Any]) -> None:
        for number, content in enumerate(contents):
            folder = tmp_path / "runs" / f"seed-{number}"
            folder.mkdir(parents=True)
            (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
        monkeypatch.setenv("CXR_RUNS", str(tmp_path / "runs"))

    return write


def test_older_evaluations_show_what_they_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = linked_bundles(tmp_path / "bundles", without=["phantom-results.json"])
    content = shipped()
    for row in [*content["rows"], *content["baselines"]]:
        row.pop("finds", None)
        row.pop("false_alarms", None)
    content.pop("version")
    (folder / "phantom-results.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setenv("CXR_BUNDLES", str(folder))
    app = open_page("results", view="Finds and false alarms", of="FVE + M2")
    told = words_on(app)
    assert "This evaluation did not count false alarms. `cxr-lens evaluate --preset phantom` counts them." in told
    assert "What FVE + M2 finds" in told
    (table,) = [each.value for each in app.dataframe if "Sensitivity" in each.value]
    row = next(row for row in shipped()["rows"] if row["name"] == FVE)
    precision, recall, _, positive = row["by_observation"]["Edema"]
    edema = table[table["Observation"] == "Edema"].iloc[0]
    assert (edema["Studies"], edema["Sensitivity"]) == (positive, pytest.approx(recall))
    assert edema["Found"] / edema["Written"] == pytest.approx(precision)
    assert edema["Sensitivity, from"] < recall < edema["Sensitivity, to"]


def test_votes_of_models_stand_with_what_references_say() -> None:
    app = open_page("results", view="Votes")
    (table,) = [each.value for each in app.dataframe if "Models that say it" in each.value]
    edema = table[table["Finding"] == "Edema"].set_index("Models that say it")
    assert edema.index.tolist() == ["none", "1 to 4", "5 to 8", "9 to 12"]
    assert edema["Studies"].sum() == shipped()["studies"]
    assert edema["Share"].isna().tolist() == (edema["Studies"] < 10).tolist()
    many = edema.loc["9 to 12"]
    assert many["Share"] == pytest.approx(many["Reference too"] / many["Studies"])
    assert many["Share, from"] < many["Share"] <= many["Share, to"]


def test_votes_that_were_not_counted_or_are_damaged_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = linked_bundles(tmp_path / "bundles", without=["phantom-results.json"])
    monkeypatch.setenv("CXR_BUNDLES", str(folder))
    content = shipped()
    counted = content.pop("votes")
    for votes, said in (
        (None, "This evaluation did not count votes. `cxr-lens evaluate --preset phantom` does."),
        ({"of": counted["of"][:1], "counts": {}}, "One model alone has no votes."),
        ({**counted, "of": counted["of"][1:]}, "are not of its systems. Evaluate again."),
    ):
        told = content if votes is None else {**content, "votes": votes}
        (folder / "phantom-results.json").write_text(json.dumps(told), encoding="utf-8")
        app = open_page("results", view="Votes")
        assert said in " ".join([words_on(app), *(each.value for each in app.error)])


def test_one_seed_claims_nothing() -> None:
    told = words_on(open_page("results"))
    assert "Highest Macro F1 of ours: **FVE + M2**" in told
    assert "is not claimed: that has to hold in at least 2 seeds after Holm's correction, and here is one." in told
    assert "Best of ours" not in told


def test_a_claim_stands_where_it_holds_in_both_seeds(seeds: Callable[..., None]) -> None:
    seeds(newer(1, 0.01), newer(2, 0.2))
    app = open_page("results", run="runs/seed-0")
    assert "Above the nearest training report in all 2 seeds, after Holm's correction: FVE + M2." in words_on(app)
    frequent = words_on(open_page("results", run="runs/seed-0", score="Macro F1, at least 10 positives"))
    assert "in all 2 seeds, after Holm's correction: FVE + M2, CVE + M2." in frequent
    assert "Over the 2 observations with enough positives: Edema, Fracture." in frequent


def test_false_alarms_are_counted_with_intervals(seeds: Callable[..., None]) -> None:
    seeds(newer(1, 0.01))
    app = open_page("results", run="runs/seed-0", view="Finds and false alarms", of="FVE + M2")
    (table,) = [each.value for each in app.dataframe if "Called abnormal" in each.value]
    assert set(table["Called abnormal"]) == {9}
    assert table["Share"].iloc[0] == pytest.approx(9 / 114)
    assert "baseline: nearest training report" in set(table["Model"])
    assert "Fewer than 10 studies have Fracture" in words_on(app)
    (finds,) = [each.value for each in app.dataframe if "Sensitivity" in each.value]
    assert finds["Precision"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"version": VERSION + 1}, "a newer version of CXR Lens wrote it"), ({"rows": None}, "NaN is no number of JSON")],
)
def test_what_cannot_be_read_is_told(seeds: Callable[..., None], change: dict[str, Any], message: str) -> None:
    content = newer(1, 0.01)
    if change.get("rows", 0) is None:
        content["rows"][0]["f1"] = float("nan")
        change = {}
    seeds(content | change)
    _, damaged = evaluations.result_sets()
    assert message in " ".join(damaged.values())


def test_two_models_are_compared_over_frequent_observations_too() -> None:
    app = open_page("results", view="Two models", first="FVE + M2", second="DVE + M2")
    told = words_on(app)
    assert "Macro F1: **FVE + M2 +0.0" in told
    assert "Macro F1, at least 10 positives: **FVE + M2 +0.0" in told
    (table,) = [each.value for each in app.dataframe if "p (Holm)" in each.value]
    rows = table.set_index("Score")
    assert rows.loc["Macro F1, at least 10 positives", "From"] < rows.loc["Macro F1, at least 10 positives", "To"]
