"""Figures of a session against statsmodels, krippendorff, SciPy and hand-worked numbers; exports; the commands."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from scipy import stats

from core.observations import OBSERVATIONS, LabelState
from core.reviews.adjudication import adjudicate
from core.reviews.agreement import Scale, bradley_terry, coincidences, fleiss_kappa
from core.reviews.analysis import Analysis, analyse, cohen, correlate, settle, strengths
from core.reviews.answers import Results, load_results
from core.reviews.database import Database
from core.reviews.export import export
from core.reviews.rubrics import ERROR_KINDS, Mark
from core.reviews.store import Actor, annotate, close_session, read_screen, save_mark, spend
from core.studies.phantom import PhantomSource
from core.types import CXRLensError
from tests import needs
from tests.commands import cxr_lens
from tests.review_cases import ANNA, RITA, screens_of, session

SCALES: tuple[Scale, ...] = ("nominal", "ordinal", "interval")

# ---------------------------------------------------------------------------------------------------- worked examples


def test_fleiss_own_example() -> None:
    # Fleiss 1971: 10 subjects, 14 raters, 5 categories; kappa 0.210 (as worked on Wikipedia, "Fleiss' kappa").
    table = np.array(
        [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ]
    )
    assert fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)
    inter_rater = needs.DEVELOPER.package("statsmodels.stats.inter_rater")
    assert fleiss_kappa(table) == pytest.approx(inter_rater.fleiss_kappa(table), abs=1e-12)


def krippendorff_alpha(ratings: np.ndarray, scale: Scale) -> float:
    return coincidences(ratings, scale).scores()["alpha"]


def test_krippendorffs_own_example() -> None:
    # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: 12 units, 4 observers.
    nan = math.nan
    observers = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    )
    expected = {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849}
    for scale in SCALES:
        assert krippendorff_alpha(observers.T, scale) == pytest.approx(expected[scale], abs=5e-4)


@settings(max_examples=60, deadline=None)
@given(
    ratings=stn.arrays(np.float64, st.tuples(st.integers(2, 9), st.integers(2, 5)), elements=st.integers(0, 3)),
    missing=st.randoms(use_true_random=False),
    scale=st.sampled_from(SCALES),
)
def test_krippendorff_equals_the_package(ratings: np.ndarray, missing: object, scale: Scale) -> None:
    package = needs.DEVELOPER.package("krippendorff")
    for place in np.ndindex(ratings.shape):
        if missing.random() < 0.2:  # type: ignore[attr-defined]
            ratings[place] = math.nan
    pairable = ratings[(~np.isnan(ratings)).sum(1) > 1]
    if len(np.unique(pairable[~np.isnan(pairable)])) < 2:
        assert math.isnan(krippendorff_alpha(ratings, scale))
        return
    theirs = package.alpha(reliability_data=ratings.T, level_of_measurement=scale)
    assert krippendorff_alpha(ratings, scale) == pytest.approx(theirs, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(first=st.lists(st.integers(0, 4), min_size=12, max_size=40), seed=st.integers(0, 99))
def test_cohen_equals_statsmodels(first: list[int], seed: int) -> None:
    inter_rater = needs.DEVELOPER.package("statsmodels.stats.inter_rater")
    random = np.random.default_rng(seed)
    second = np.where(random.random(len(first)) < 0.6, first, random.integers(5, size=len(first)))
    table = np.zeros((5, 5))
    np.add.at(table, (first, second), 1)
    for weighted in (False, True):
        ours = cohen(first, second, weighted=weighted)
        if math.isnan(ours):
            assert len({*first, *second.tolist()}) == 1
            continue
        theirs = inter_rater.cohens_kappa(table, wt="linear" if weighted else None, return_results=False)
        assert ours == pytest.approx(float(theirs), abs=1e-9)


def test_weights_of_kappa_are_distances_also_over_values_nobody_gave() -> None:
    inter_rater = needs.DEVELOPER.package("statsmodels.stats.inter_rater")
    first, second = [0, 0, 3, 3, 1], [0, 1, 3, 0, 1]  # nobody says 2
    table = np.zeros((4, 4))
    np.add.at(table, (first, second), 1)
    theirs = inter_rater.cohens_kappa(table, wt="linear", return_results=False)
    assert cohen(first, second, weighted=True) == pytest.approx(float(theirs), abs=1e-12)


def test_bradley_terry_equals_statsmodels_logit() -> None:
    wins = np.array([[0, 7, 9, 4], [3, 0, 6, 5], [1, 4, 0, 6], [6, 5, 4, 0]], float)
    discrete = needs.DEVELOPER.package("statsmodels.discrete.discrete_model")
    rows, outcomes = [], []
    for one in range(4):
        for other in range(4):
            for _ in range(int(wins[one, other])):
                row = np.zeros(4)
                row[one], row[other] = 1, -1
                rows.append(row[1:])  # the first model is the zero
                outcomes.append(1.0)
                rows.append(-row[1:])
                outcomes.append(0.0)
    fitted = discrete.Logit(np.array(outcomes), np.array(rows)).fit(disp=0)
    theirs = np.concatenate([[0], fitted.params])
    np.testing.assert_allclose(bradley_terry(wins, prior=0), theirs - theirs.mean(), atol=1e-6)


def test_bradley_terry_of_two_models_is_the_log_odds_and_never_infinite() -> None:
    np.testing.assert_allclose(np.diff(bradley_terry(np.array([[0, 8.0], [2, 0]]), prior=0)), -math.log(4), atol=1e-8)
    never_lost = bradley_terry(np.array([[0, 8.0], [0, 0]]))
    assert 0 < never_lost[0] - never_lost[1] < 10


# -------------------------------------------------------------------------------------------------------- a session


def model_of(text: str) -> str:
    return (
        {"The heart is e": "reference", "The heart is n": "pair-one"}[text[:14]]
        if "No pneu" not in text
        else "pair-two"
    )


def read_quality(database: Database, reader: str, trial: str, count: dict[str, int]) -> None:
    """Marks ``count`` omissions by model (one more by boris in s001), the first of each is significant."""
    who = Actor(reader, "reader")
    for screen in screens_of(database, reader, trial):
        shown = read_screen(database, who, screen)
        ((name, text),) = shown.reports
        wanted = count[model_of(text)] + (reader == "boris" and shown.study_id == "s001")
        for number in range(wanted):
            mark = Mark("error", name, {"error": "omission", "significant": number != 1})
            save_mark(database, who, screen, mark, key=f"{screen}{number}")
        spend(database, who, screen, 10, key=f"{screen}t")
        annotate(database, who, screen, key=f"{screen}d", version=1, state="done")


@pytest.fixture
def quality(database: Database) -> Results:
    trial = session(database, 6, repeats=4, washout=3)
    for reader in ("anna", "boris"):
        read_quality(database, reader, trial, {"reference": 0, "pair-one": 2, "pair-two": 1})
    adjudicate(database, RITA, trial, "carla")
    carla = Actor("carla", "reader")
    for screen in screens_of(database, "carla", trial):
        shown = read_screen(database, carla, screen)
        mark = Mark("error", shown.reports[0][0], {"error": "omission", "significant": True})
        save_mark(database, carla, screen, mark, key=screen)
        annotate(database, carla, screen, key=f"d{screen}", version=1, state="done", comment="<b>settled</b>")
    close_session(database, RITA, trial)
    return load_results(database, RITA, trial)


def test_error_counts_are_those_that_were_marked(quality: Results) -> None:
    analysis = analyse(quality, resamples=200)
    found = {(row.model, row.significant): row for row in analysis.errors if row.error == "all kinds"}
    assert {key: row.errors for key, row in found.items()} == {
        ("reference", False): 1,
        ("reference", True): 1,
        ("pair-one", False): 25,  # 12 readings of 2, and boris's one more
        ("pair-one", True): 13,
        ("pair-two", False): 13,
        ("pair-two", True): 12,
    }
    assert all(row.readings == 12 for row in found.values())
    assert found["pair-one", False].per_report.value == pytest.approx(25 / 12)
    one = found["pair-one", False].per_report
    assert 2 <= one.low <= one.value <= one.high <= 2.5
    assert {row.error for row in analysis.errors} == {*ERROR_KINDS, "all kinds"}
    assert repr(analysis) == repr(analyse(quality, resamples=200))  # the same seed


def test_agreement_self_agreement_and_adjudication(quality: Results, tmp_path: Path) -> None:
    analysis = analyse(quality, resamples=200)
    omission = next(row for row in analysis.agreement if row.question == "omission")
    table = quality.answers[(quality.answers["question"] == "omission") & ~quality.answers["repeat"]]
    table = table[~table["adjudication"]].pivot_table(index=["study", "model"], columns="reader", values="value")
    values = table.to_numpy(float)
    assert omission.units == 18
    assert omission.alpha.value == pytest.approx(krippendorff_alpha(values, "interval"))
    assert omission.cohen_pairs == {"anna and boris": pytest.approx(cohen(values[:, 0], values[:, 1], weighted=True))}
    assert 0.5 < omission.alpha.value < 1
    assert [(row.reader, row.equal) for row in analysis.self_agreement] == [("anna", 1.0), ("boris", 1.0)]
    assert all(row.answers == 4 * len(ERROR_KINDS) for row in analysis.self_agreement)
    # In s001 boris marked one omission more: the second (not significant) of pair-two, else significant ones.
    assert (analysis.disputed, analysis.settled) == (2, 2)
    settled = settle(quality)
    assert settled[settled["disputed"]]["value"].tolist() == [1, 1]
    assert {row.quantity for row in analysis.drift} == {"significant errors", "seconds"}
    # What a third reader settled is a discussed case: with its picture, its reports and the answer.
    export(quality, analysis, tmp_path, lambda _: np.zeros((4, 4), np.float32))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (page.count("Settled by a third reader"), page.count("data:image/png")) == (2, 1)
    assert ", pair-one: omission, how many significant: 1 (before: anna 1, boris 2)</li>" in page


def test_metrics_correlate_with_counted_errors(quality: Results) -> None:
    first = quality.answers[~quality.answers["repeat"] & ~quality.answers["adjudication"]]
    counted = first[first["question"] == "all kinds"].groupby(["study", "model"])["value"].mean().reset_index()
    random = np.random.default_rng(3)
    metrics = counted[["study", "model"]].assign(
        perfect=-counted["value"].astype(float), noise=random.random(len(counted)), constant=1.0
    )
    rows = {row.metric: row for row in correlate(first, metrics, resamples=200)}
    assert rows["perfect"].spearman.value == pytest.approx(-1)
    assert rows["perfect"].kendall.value == pytest.approx(-1)
    assert rows["noise"].kendall.value == pytest.approx(
        stats.kendalltau(metrics["noise"], counted["value"].astype(float)).statistic
    )
    assert rows["noise"].kendall.low < rows["noise"].kendall.value < rows["noise"].kendall.high
    assert math.isnan(rows["constant"].kendall.value)
    with pytest.raises(CXRLensError, match="no numbers: .*name"):
        correlate(first, metrics.assign(name="x"))
    with pytest.raises(CXRLensError, match="missing: .*model"):
        correlate(first, metrics.drop(columns="model"))
    with pytest.raises(CXRLensError, match="twice"):
        correlate(first, pd.concat([metrics, metrics]))


def finish(database: Database, trial: str, rubric: str) -> Analysis:
    """All readers prefer the reference, or label Edema; boris differs in the first study."""
    for reader in ("anna", "boris"):
        who = Actor(reader, "reader")
        for screen in screens_of(database, reader, trial):
            shown = read_screen(database, who, screen)
            odd = reader == "boris" and shown.study_id == "s000"
            if rubric == "preference":
                models = [model_of(text) for _, text in shown.reports]
                prefer = "tie" if "reference" not in models else ("first", "second")[models.index("reference") ^ odd]
                save_mark(database, who, screen, Mark("preference", "", {"prefer": prefer}), key=screen)
            elif rubric == "observation-labels":
                for name in OBSERVATIONS:
                    state = "positive" if (name == "Edema") is not odd else "blank"
                    if odd and name == "No Finding":  # which cannot be present beside the others
                        state = "negative"
                    mark = Mark("label", "", {"observation": name, "state": state})
                    save_mark(database, who, screen, mark, key=f"{screen}{name}")
            else:
                ((name, text),) = shown.reports
                support = "supports" if model_of(text) == "reference" and not odd else "partly supports"
                mark = Mark("helpfulness", name, {"support": support, "span": [0, text.index(".") + 1]})
                save_mark(database, who, screen, mark, key=screen)
            annotate(database, who, screen, key=f"d{screen}", version=1, state="done")
    close_session(database, RITA, trial)
    return analyse(load_results(database, RITA, trial), resamples=100)


def test_preference_session(database: Database) -> None:
    analysis = finish(database, session(database, 4, rubric="preference"), "preference")
    first, *others = analysis.strengths
    # 4 studies x 2 readers x 2 comparisons with the reference, of which boris turns two round; the rest are ties.
    assert (first.model, first.wins, first.losses, first.ties) == ("reference", 14, 2, 0)
    assert [(row.wins, row.losses, row.ties) for row in others] == [(1, 7, 8), (1, 7, 8)]
    assert first.log_strength.low > 0
    (agreement,) = analysis.agreement
    assert (agreement.question, agreement.units) == ("preference", 12)


def test_labelling_session_gives_gold_labels(database: Database) -> None:
    trial = session(database, 3, rubric="observation-labels")
    analysis = finish(database, trial, "observation-labels")
    gold = settle(load_results(database, RITA, trial))
    agreed = gold[gold["study"] != "s000"]
    assert set(agreed["question"]) == set(OBSERVATIONS)
    assert set(agreed[agreed["question"] == "Edema"]["value"]) == {str(LabelState.POSITIVE)}
    assert gold[gold["study"] == "s000"]["disputed"].all()
    assert gold[gold["study"] == "s000"]["value"].isna().all()  # nobody settled it
    assert (analysis.disputed, analysis.settled, len(analysis.agreement)) == (14, 0, 14)


def test_helpfulness_session(database: Database) -> None:
    trial = session(database, 4, rubric="explanation-helpfulness")
    support = {row.model: row for row in finish(database, trial, "explanation-helpfulness").support}
    assert support["reference"].counts == (0, 1, 7)
    assert support["pair-one"].counts == (0, 8, 0)
    assert support["reference"].mean.value == pytest.approx(15 / 8)


def test_an_empty_session_has_no_figures_and_no_error(database: Database, tmp_path: Path) -> None:
    for rubric in ("report-quality", "preference", "observation-labels", "explanation-helpfulness"):
        trial = session(database, 2, rubric=rubric)
        close_session(database, RITA, trial)
        results = load_results(database, RITA, trial)
        analysis = analyse(results)
        assert analysis.agreement == analysis.errors == analysis.strengths == ()
        assert "were not finished" in results.warnings[0]
        assert export(results, analysis, tmp_path / rubric)


def test_ties_alone_leave_models_equal() -> None:
    answers = pd.DataFrame({"study": ["1", "2"], "question": ["a / b"] * 2, "value": ["tie"] * 2})
    assert [row.log_strength.value for row in strengths(answers, resamples=100)] == [0, 0]


# ---------------------------------------------------------------------------------------------------------- exports


def test_exports_agree_and_run_nothing(database: Database, tmp_path: Path) -> None:
    trial = session(database, 2)
    texts = ["<script>alert(1)</script>", "=cmd|' /C calc'!A0", "'); DROP TABLE marks; --", "{{ 7 * 7 }}"]
    for screen, text in zip(screens_of(database, "anna", trial), texts, strict=False):
        name = read_screen(database, ANNA, screen).reports[0][0]
        save_mark(database, ANNA, screen, Mark("error", name, {"error": "omission", "significant": True}), key=screen)
        annotate(database, ANNA, screen, key=f"d{screen}", version=1, state="done", comment=text)
    close_session(database, RITA, trial)
    results = load_results(database, RITA, trial)
    files = export(results, analyse(results, resamples=100), tmp_path / "out", lambda _: np.zeros((4, 4), np.float32))
    assert len(files) == 25
    for path in files:
        content = path.read_bytes()
        assert b"Not for use in diagnostic procedures" in content, path
    csv_file = pd.read_csv(tmp_path / "out" / "screens.csv", skiprows=1, keep_default_na=False)
    json_file = json.loads((tmp_path / "out" / "screens.json").read_text(encoding="utf-8"))["screens"]
    parquet = pq.read_table(tmp_path / "out" / "screens.parquet").to_pandas()
    kept = [text for text in results.screens["comment"] if text]
    assert sorted(kept) == sorted(texts)
    assert [row["comment"] for row in json_file] == parquet["comment"].tolist() == results.screens["comment"].tolist()
    assert "'=cmd|' /C calc'!A0" in csv_file["comment"].tolist()
    assert not csv_file["comment"].str.startswith("=").any()
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")  # nothing is loaded from elsewhere
    marks = json.loads((tmp_path / "out" / "marks.json").read_text(encoding="utf-8"))["marks"]
    assert [mark["value"]["error"] for mark in marks] == ["omission"] * len(texts)
    assert len(pq.read_table(tmp_path / "out" / "marks.parquet")) == len(texts)


# --------------------------------------------------------------------------------------------------------- commands


def review(*arguments: object) -> subprocess.CompletedProcess[str]:
    return cxr_lens("review", *arguments)


def test_a_session_by_command_line(tmp_path: Path) -> None:
    where = ("--database", str(tmp_path / "r.sqlite"), "--as", "rita")
    design_file, cases_file = tmp_path / "design.toml", tmp_path / "cases.jsonl"
    design_file.write_text('title = "Trial"\nrubric = "report-quality"\nreaders = ["anna"]\n', encoding="utf-8")
    study = PhantomSource(1, 0).study_ids[0]
    case = {
        "study_id": study,
        "reference": "The lungs are clear.",
        "pair-one": "There is edema.",
    }  # as `evaluate` writes
    cases_file.write_text(json.dumps(case) + "\n", encoding="utf-8")
    made = review("create", str(design_file), "--cases", str(cases_file), "--images", "phantom:1:0", *where)
    assert made.returncode == 0, made.stderr
    session_id = made.stdout[:32]
    assert "2 screens for 1 reader" in made.stdout
    database = Database(tmp_path / "r.sqlite")
    screen = screens_of(database, "anna", session_id)[0]
    name = read_screen(database, ANNA, screen).reports[0][0]
    database.close()
    marks = tmp_path / "marks.csv"
    value = '{""error"": ""omission"", ""significant"": true}'
    marks.write_text(f'screen,report,kind,value\n{screen},{name},error,"{value}"\n', encoding="utf-8")
    assert "1 marks added" in review("import-marks", session_id[:8], str(marks), *where).stdout
    early = review("export", session_id, "--out", str(tmp_path / "early"), *where)
    assert (early.returncode, "Traceback" in early.stderr) == (2, False)
    assert "review close" in early.stderr
    assert review("close", session_id, *where).returncode == 0
    assert "closed      0 of     2 screens" in review("list", *where).stdout
    assert review("export", session_id, "--out", str(tmp_path / "out"), *where).returncode == 0
    assert (tmp_path / "out" / "report.html").is_file()
    copy = str(tmp_path / "copy.jsonl.gz")
    assert "1 mark, " in review("backup", copy, *where).stdout
    restored = review("restore", copy, "--database", str(tmp_path / "again.sqlite"))
    assert "1 session, 2 screens, 1 mark" in restored.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("title = ", "cannot be read as TOML"),
        ('title = "T"\nrubric = "x"\nreaders = ["a"]', "no rubric 'x'"),
        ('title = "T"\nrubric = "preference"\nreaders = ["a"]\ncolour = 1', "unknown keys ['colour']"),
        ('title = "T"\nrubric = "explanation-helpfulness"\nreaders = ["a"]', "one of attention, "),
    ],
)
def test_a_bad_design_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "design.toml").write_text(content, encoding="utf-8")
    (tmp_path / "cases.jsonl").write_text("", encoding="utf-8")
    database = ("--database", str(tmp_path / "r.sqlite"))
    done = review("create", str(tmp_path / "design.toml"), "--cases", str(tmp_path / "cases.jsonl"), *database)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
