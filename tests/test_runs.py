"""Runs on disk, and what the Results page computes from them: by hand, and through Streamlit's test runner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.paper.filter_map import FilterMap, map_path, write_map
from core.paper.tables import TABLES, Cell, PaperTable, Row, write_table
from core.types import CXRLensError
from dashboard import figures
from dashboard.results.parts import read_query
from dashboard.results.seeds import same_training
from dashboard.results.tables import COMMANDS
from dashboard.services import evaluations
from tests.app_pages import needs_bundles, open_page, words_on
from tests.test_evaluation import CLEAR, EFFUSION, LARGE

SCORED = {"f1": 0.5, "precision": 0.5, "recall": 0.5, "intervals": {"f1": [0.4, 0.6]}}
REPORTS = [
    {"study_id": "a", "reference": EFFUSION, "one": EFFUSION, "two": CLEAR},
    {"study_id": "b", "reference": EFFUSION, "one": EFFUSION, "two": EFFUSION},
    {"study_id": "c", "reference": CLEAR, "one": CLEAR, "two": EFFUSION},
    {"study_id": "d", "reference": LARGE, "one": CLEAR, "two": LARGE},
]


def results(seed: int | None = 1, fingerprint: str = "aa", **first: Any) -> dict[str, Any]:
    rows = [
        {"name": "one", "encoder": "cve", "decoder": "m2", **SCORED, **first},
        {"name": "two", "encoder": "dve", "decoder": "transformer", **SCORED},
    ]
    content = {"family": "real", "studies": 4, "fingerprint": fingerprint, "command": "cxr-lens evaluate", "rows": rows}
    return content | ({} if seed is None else {"seed": seed})


def put(folder: Path, content: Any, reports: list[dict[str, str]] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "results.json").write_text(text, encoding="utf-8")
    if reports is not None:
        lines = "".join(json.dumps(row) + "\n" for row in reports)
        (folder / "reports.jsonl").write_text(lines, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty CXR_RUNS, and no bundles."""
    monkeypatch.setenv("CXR_BUNDLES", str(tmp_path / "none"))
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXR_RUNS", str(tmp_path / "many"))
    return tmp_path / "many"


def test_runs_are_found_named_by_their_folder_and_damaged_ones_are_told(folder: Path) -> None:
    put(folder / "seed-1" / "real" / "evaluate", results(), REPORTS)
    put(folder / "seed-2", results(seed=2))
    put(folder / "cut", '{"rows": [')
    put(folder / "odd", results() | {"rows": [{"name": "x", "encoder": "nose", "decoder": "m2", "f1": 0.1}]})
    put(folder / "lacking", results() | {"rows": [{"name": "x", "encoder": "cve", "decoder": "m2"}]})
    put(folder / "explain", {"pairs": ["another command's results"]})
    found, damaged = evaluations.result_sets()
    assert list(found) == ["many/seed-2", "many/seed-1/real"]
    assert sorted(damaged) == ["many/cut", "many/lacking", "many/odd"]
    assert all("results.json is damaged" in message for message in damaged.values())
    assert found["many/seed-2"].seed == "2"
    assert list(found["many/seed-2"].rows) == ["two", "one"]  # as in the paper's table
    with pytest.raises(CXRLensError, match=r"copy DIR/reports\.jsonl to .*seed-2.reports\.jsonl"):
        evaluations.reports_of(found["many/seed-2"])


def test_no_run_at_all_is_said(folder: Path) -> None:
    assert evaluations.result_sets() == ({}, {})
    told = words_on(open_page("results"))
    assert "No evaluation yet" in told or "No model has written the reports of" in told


def test_reports_of_other_bundles_are_refused(folder: Path) -> None:
    put(folder / "x", results(), [{"study_id": "a", "reference": CLEAR, "one": CLEAR}])
    with pytest.raises(CXRLensError, match="has no reports of two: it is of other bundles"):
        evaluations.reports_of(evaluations.result_sets()[0]["many/x"])


def test_slices_and_the_paired_test_by_hand(folder: Path) -> None:
    put(folder / "x", results(), REPORTS)
    run = evaluations.result_sets()[0]["many/x"]
    ways = evaluations.ways_to_divide(run)
    assert ways["Finding"]["Pleural Effusion"].tolist() == [True, True, False, False]
    assert ways["Number of findings"]["none"].tolist() == [False, False, True, False]
    parts = {each.name: each for _, each in evaluations.scored_slices(run, "two", "f1[Pleural Effusion]", "Finding")}
    # Of the two with an effusion "two" finds one and invents none: 2 * 1 / (1 + 2).
    assert parts["Pleural Effusion"].score == pytest.approx(2 / 3)
    assert parts["Pleural Effusion"].count == 2
    assert parts["Cardiomegaly"].score == 0
    scores = [each.score for _, each in evaluations.scored_slices(run, "two", "micro_f1", None)]
    assert scores == []  # none has ten studies
    tested = evaluations.comparison(run, "one", "two", ["f1[Pleural Effusion]", "rouge_l"])
    # "one" has 2 of 2 right; "two" 1 of 2, and one of its 2 is invented: F1 1 less 1/2.
    assert tested["f1[Pleural Effusion]"].difference == pytest.approx(0.5)
    assert evaluations.interval(run, "one", "f1") == (0.4, 0.6)  # the evaluation's own
    low, high = evaluations.interval(run, "one", "f1[Pleural Effusion]") or (0, 0)
    assert low <= high <= 1


def test_only_runs_of_one_family_and_the_same_studies_are_seeds_of_one_training(folder: Path) -> None:
    put(folder / "a", results(seed=1))
    put(folder / "b", results(seed=2))
    put(folder / "c", results(seed=3, fingerprint="bb"))
    put(folder / "d", results(seed=4) | {"family": "other"})
    put(folder / "e", results(seed=5) | {"studies": 3})
    put(folder / "f", results(seed=6, fingerprint=""))
    put(folder / "g", results(seed=7, fingerprint=""))
    groups = [[run.seed for run in group] for group in same_training(evaluations.result_sets()[0])]
    assert groups == [["1", "2"], ["3"], ["4"], ["5"], ["6"], ["7"]]


def test_the_read_page_is_asked_for_the_named_pairs_only(folder: Path) -> None:
    put(folder / "a", results())
    run = evaluations.result_sets()[0]["many/a"]
    assert read_query(run, ["one"]) == "dve=&fve=&cve=M2&ccve="
    assert read_query(run, ["one", "two"]) == "dve=Transformer&fve=&cve=M2&ccve="


def test_dots_carry_intervals_keys_and_different_symbols() -> None:
    figure = figures.score_dots(
        ["A", "B"],
        ["a", "b"],
        [figures.Dots("ours", [0.5, 0.2], [0.4, 0.1], [0.7, 0.2]), figures.Dots("paper", [0.1, np.nan])],
        axis="F1",
    )
    ours, paper = figure.data
    assert list(ours.customdata) == ["a", "b"]
    assert np.allclose(ours.error_x.array, [0.2, 0.0])
    assert np.allclose(ours.error_x.arrayminus, [0.1, 0.1])
    assert ours.marker.symbol != paper.marker.symbol


def test_long_names_of_dots_stand_in_lines_and_short_ones_are_left() -> None:
    long = "CCVE: text by the mean radiograph, among texts of the same cluster"
    figure = figures.score_dots(["A", long], ["a", "b"], [figures.Dots("ours", [0.5, 0.2])], axis="F1")
    short, lines = figure.layout.yaxis.ticktext
    assert short == "A"
    assert lines.replace("<br>", " ") == long
    assert max(map(len, lines.split("<br>"))) <= 28
    assert list(figure.layout.yaxis.tickvals) == list(figure.data[0].y)  # each name stays at its points


def test_seeds_have_a_mean_and_a_spread_and_other_data_an_explanation(folder: Path) -> None:
    put(folder / "a", results(seed=1), REPORTS)
    put(folder / "b", results(seed=2, f1=0.7), REPORTS)
    put(folder / "c", results(seed=2, fingerprint="bb"), REPORTS)
    put(folder / "cut", "{")
    test = open_page("results", view="Runs and seeds")
    assert "Not compared with many/a: many/c" in words_on(test)
    assert "many" in words_on(test) and "is damaged" in words_on(test)
    table = test.dataframe[1].value.set_index("Model")
    assert table.loc["CVE + M2", "Mean"] == pytest.approx(0.6)
    assert table.loc["CVE + M2", "SD"] == pytest.approx(0.2 / 2**0.5)
    assert table.loc["DVE + Transformer", "SD"] == 0
    alone = open_page("results", view="Runs and seeds", run="many/c")
    assert "There is one seed (2) of many/c" in words_on(alone)


def test_a_run_stands_beside_the_paper_and_says_what_it_lacks(folder: Path) -> None:
    put(folder / "a", results(f1=0.316))
    test = open_page("results")
    table = test.dataframe[0].value.set_index("Model")
    assert table.loc["CVE + M2", "Paper"] == pytest.approx(0.116)  # the paper's Table 1
    assert table.loc["CVE + M2", "Ours"] == pytest.approx(0.316)
    assert not [name for name in table if "Difference" in name]  # of other data, it would say nothing of the models
    assert "cxr-lens evaluate --preset real --out DIR" in words_on(test)  # no reports
    for name, command in COMMANDS.items():
        told = words_on(open_page("results", view="Tables and studies", paper_table=TABLES[name]))
        assert [each for each in COMMANDS.values() if f"`cxr-lens {each} --preset real` makes it" in told] == [command]
    assert "no scores by observation" in words_on(open_page("results", view="By observation"))


def test_scores_and_their_differences_are_two_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "a", results())
    score = {"f1": Cell(value=0.7, low=0.6, high=0.8)}
    step = {"difference": Cell(value=0.1, low=0.05, high=0.15)}
    rows = [Row(name=name, metrics=metrics) for name, metrics in
            (("FVE", score), ("DVE", score), ("FVE less DVE", step), ("DVE less CVE", step))]  # fmt: skip
    made = PaperTable(
        name="encoders", family="real", metrics={"f1": "macro F1", "difference": "difference"}, rows=tuple(rows), n=9,
        seeds=(1, 2, 3), command="cxr-lens study encoders --preset real", data="few.",
    )  # fmt: skip
    write_table(folder / "tables", made)
    monkeypatch.setattr("dashboard.settings.result_tables", lambda: folder / "tables")
    test = open_page("results", view="Tables and studies")
    scores, steps = (each.value for each in test.dataframe[-2:])
    assert scores["Row"].tolist() == ["FVE", "DVE"]
    assert "difference" not in scores
    assert scores.set_index("Row").loc["FVE", "F1, from"] == pytest.approx(0.6)  # short heads: "macro F1, from" is cut
    assert steps.set_index("Row").loc["FVE less DVE", "difference, from"] == pytest.approx(0.05)
    assert "F1" not in steps
    assert not test.exception


def test_the_chart_of_table_3_shows_what_is_clinical_not_its_first_score(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder / "a", results())
    rows = [Row(name=name, metrics={"bleu_1": Cell(value=0.6), "f1": Cell(value=0.125)}) for name in "ab"]
    made = PaperTable(
        name="3", family="real", metrics={"bleu_1": "BLEU-1", "f1": "F1 of findings"}, rows=tuple(rows), n=9,
        seeds=(1,), command="cxr-lens table 3 --preset real", data="few.",
    )  # fmt: skip
    write_table(folder / "tables", made)
    monkeypatch.setattr("dashboard.settings.result_tables", lambda: folder / "tables")
    test = open_page("results", view="Tables and studies")
    (chart,) = test.get("plotly_chart")
    assert "F1 of findings" in chart.proto.spec
    assert "BLEU-1" not in chart.proto.spec
    (shown,) = (each.value for each in test.dataframe if each.value["Row"].tolist() == ["a", "b"])
    assert shown.columns.tolist() == ["Row", "F1", "BLEU-1"]
    assert not test.exception


def test_the_map_of_filters_stands_under_its_study_and_a_damaged_one_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder / "a", results())
    monkeypatch.setattr("dashboard.settings.result_tables", lambda: folder / "tables")
    path = map_path(folder / "tables", "real")
    path.parent.mkdir(parents=True)
    places = np.arange(12.0).reshape(2, 3, 2)
    made = FilterMap(
        studies=("s1", "s2"), filters=("Edema", "Fracture", "No Finding"), settings={"method": "t-SNE"},
        trained=places, random_filters=-places,
    )  # fmt: skip
    write_map(path, made)
    test = open_page("results", view="Tables and studies", paper_table=TABLES["ccve"])
    left, right = (json.loads(each.proto.spec) for each in test.get("plotly_chart")[-2:])
    assert [trace["name"] for trace in left["data"]] == ["Edema (2)", "Fracture (2)", "No Finding (2)"]
    assert left["data"][1]["text"] == ["s1<br>Fracture", "s2<br>Fracture"]
    assert right["data"][1]["text"] == left["data"][1]["text"]
    assert "13 embeddings of each of 2 held-out studies" in words_on(test)
    path.write_text("{")
    test = open_page("results", view="Tables and studies", paper_table=TABLES["ccve"])
    assert "ccve-map.json is damaged" in words_on(test)


def test_two_pairs_are_said_to_differ_where_they_do(folder: Path) -> None:
    put(folder / "a", results(), REPORTS)
    test = open_page("results", view="Two models", first="CVE + M2", second="DVE + Transformer")
    assert "CVE + M2 has fewer errors than DVE + Transformer in 2 studies" in words_on(test)
    assert "DVE + Transformer has fewer errors than CVE + M2 in 1 study" in words_on(test)
    assert "METEOR" not in test.dataframe[0].value["Score"].tolist()


def test_meteor_is_shown_beside_the_tested_scores_where_both_pairs_have_it(folder: Path) -> None:
    content = results(meteor=0.3)
    content["rows"][1]["meteor"] = 0.2
    put(folder / "a", content, REPORTS)
    test = open_page("results", view="Two models", first="CVE + M2", second="DVE + Transformer")
    row = test.dataframe[0].value.set_index("Score").loc["METEOR"]
    assert row["Difference"] == pytest.approx(0.1)
    assert row["Significant after correction"] == "not tested"
    assert np.isnan(row["p"])
    assert "its program does not run here" in words_on(test)


def test_the_best_baseline_is_told_and_stands_in_the_table_of_all_scores(folder: Path) -> None:
    content = results(f1=0.7)
    content["baselines"] = [{"name": "constant report", "f1": 0.1}, {"name": "nearest training report", "f1": 0.6}]
    put(folder / "a", content)
    assert "*nearest training report*, has 0.600; DVE + Transformer has no more." in words_on(open_page("results"))
    rows = open_page("results", table="All scores, with baselines").dataframe[0].value.set_index("Model")
    assert rows.loc["baseline: nearest training report", "Macro F1"] == 0.6
    assert rows.loc["CVE + M2", "Macro F1"] == 0.7


@needs_bundles
def test_the_address_restores_a_view() -> None:
    test = open_page("results", view="Slices", of="CVE + M2", by_what="View")
    assert test.selectbox(key="of").value == "phantom-cve-m2"
    content = test.dataframe[0].value
    assert sorted(content["Slice"]) == ["View: AP", "View: PA"]
    assert content["Micro F1"].is_monotonic_increasing
    assert content["Studies"].sum() == 400
