"""Systems from elsewhere: files of reports in every form, ids found, programs that answer or do not, the commands."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from core.evaluation import own, results
from core.evaluation.labelers import Labeler
from core.evaluation.outside import read_scores
from core.evaluation.scoring import LabeledReports, score_systems
from core.observations import OBSERVATIONS, LabelState
from core.studies.sources import open_source
from core.systems import added
from core.systems.matching import match
from core.systems.report_files import ReportRow, parse_reports, read_report_file
from core.systems.system import Ability
from core.types import CXRLensError
from tests import needs
from tests.conftest import BUNDLES
from tests.mimic_tree import Exam, write_tree
from tests.systems_files import program, write_csv, write_jsonl
from training.cli import app
from training.scores import read_others

PHANTOM = "phantom:40:0"
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "cases"
CLEAR = "The lungs are clear."


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of this test alone."""
    monkeypatch.setenv("CXR_SYSTEMS", str(tmp_path / "systems"))
    monkeypatch.setenv("CXR_EVALUATIONS", str(tmp_path / "evaluations"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results.java, "missing", lambda: "METEOR is left out here.")
    return tmp_path


def run(*words: str, code: int = 0) -> str:
    """What a command says."""
    found = CliRunner().invoke(app, list(words))
    if isinstance(found.exception, CXRLensError):  # which `main` puts in words
        assert code
        return str(found.exception)
    assert found.exit_code == code, found.output
    return found.output


# ------------------------------------------------------------------------------------------------------------- files


FORMS = {
    "plain.csv": ("study_id", "report"),
    "by-image.csv": ("report", "dicom_id"),
    "named.csv": ("Study", "Generated_Report"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_table_is_read_by_the_names_of_its_columns(here: Path, name: str) -> None:
    columns = FORMS[name]
    order = [0, 1] if "eport" in columns[1] else [1, 0]
    rows = [("s1", CLEAR), ("s2", "Line one,\nline two.")]
    path = write_csv(here / name, columns, [[row[each] for each in order] for row in rows])
    assert [(row.ids[0], row.text) for row in read_report_file(path).rows] == rows


@pytest.mark.parametrize(
    "content",
    [
        {"s1": {"report": "the reference", "model_prediction": CLEAR}, "s2": {"report": "x", "model_prediction": "y"}},
        {"s1": CLEAR, "s2": "y"},
        [{"study_id": "s1", "prediction": CLEAR}, {"study_id": "s2", "prediction": "y"}],
        [{"id": "s1", "reference": "r", "mine": CLEAR}, {"id": "s2", "reference": "r", "mine": "y"}],
    ],
    ids=["rexrank", "by key", "list", "one other column"],
)
def test_json_in_the_forms_that_people_have(here: Path, content: object) -> None:
    path = here / "reports.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert [(row.ids[0], row.text) for row in read_report_file(path).rows] == [("s1", CLEAR), ("s2", "y")]


def test_json_lines_are_known_by_what_they_hold_and_bytes_that_are_no_utf8_are_told(here: Path) -> None:
    rows = [{"id": "s1", "report": CLEAR}, {"id": "s2", "report": "x"}]
    write_jsonl(here / "lines.json", rows)
    (here / "list.jsonl").write_text(json.dumps(rows), encoding="utf-8")
    for name in ("lines.json", "list.jsonl"):
        assert [row.text for row in read_report_file(here / name).rows] == [CLEAR, "x"]
    (here / "latin.csv").write_bytes("id,report\ns1,Zürich.\ns2,Clear.\n".encode("latin-1"))
    found = read_report_file(here / "latin.csv")
    assert [row.text for row in found.rows] == ["Z\N{REPLACEMENT CHARACTER}rich.", "Clear."]
    assert "1 report of latin.csv has signs that are not UTF-8" in found.problems[0]


def test_no_text_is_never_the_word_none(here: Path) -> None:
    rows = [
        {"id": f"s{at}", "report": value} for at, value in enumerate((CLEAR, None, float("nan"), "None", "nan", ""))
    ]
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_csv(here / "b.csv", ("id", "report"), [[row["id"], str(row["report"])] for row in rows])
    for name in ("a.jsonl", "b.csv"):
        found = read_report_file(here / name)
        assert [row.text for row in found.rows] == [CLEAR, "", "", "", "", ""]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r\n", "\r"])
def test_line_separators_within_a_text_neither_end_a_row_nor_stay(here: Path, sign: str) -> None:
    text = f"No effusion.{sign}Clear lungs."
    write_jsonl(here / "a.jsonl", [{"id": "s1", "report": text}, {"id": "s2", "report": "x"}])
    write_csv(here / "a.csv", ("id", "report"), [["s1", text], ["s2", "x"]])
    for name in ("a.jsonl", "a.csv"):
        assert [row.text for row in read_report_file(here / name).rows] == ["No effusion.\nClear lungs.", "x"]


def test_bad_rows_are_left_out_with_a_sentence_each_and_the_rest_goes_on() -> None:
    found = parse_reports(
        [
            {"id": "s1", "report": CLEAR},
            {"id": "s2", "report": 7},
            {"id": None, "report": CLEAR},
            "text",
            {"id": 50414267.0, "report": "lung " * 40_000},
            {"id": 50414268.0, "report": CLEAR},
        ],
        "mine.json",
    )
    assert [row.ids for row in found.rows] == [("s1",), ("50414268",)]
    assert len(found.problems) == 4
    assert all(each.startswith("Row ") and each.endswith("is left out.") for each in found.problems)
    assert "None" not in " ".join(found.problems)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "study_id,a,b\n1,x,y\n",
            "which column holds the reports. Name it with --report; there are study_id, a, b",
        ),
        ("a.csv", "x,report\n1,y\n", "which column says of which study a row is"),
        ("a.csv", "id,report\n1,\n2,None\n", "holds no report in its column 'report' .2 rows, none with text"),
        ("a.csv", "id,report,report\n1,a,b\n", "two columns 'report'"),
        ("a.csv", 'id,report\n1,"never closed\n', "cut off"),
        ("a.jsonl", '{"id": 1, "report": "x"}\n{"id": 2,\n', "line 2 is no JSON"),
        ("a.json", "3", "holds no reports: it should be"),
        ("a.json", "{", "is no JSON"),
        ("a.txt", "x", "is no file of reports that can be read"),
        ("a.csv", "", "no header"),
        ("a.csv", "id;report\n1;x\n", "has semicolons between its columns"),
        ("a.json", "[" * 100_000, "is no JSON"),
        ("a.jsonl", "[" * 100_000, "line 1 is no JSON"),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_sentence(here: Path, name: str, content: str, message: str) -> None:
    (here / name).write_text(content, encoding="utf-8")
    with pytest.raises(CXRLensError, match=message):
        read_report_file(here / name)
    with pytest.raises(CXRLensError, match="There is no file"):
        read_report_file(here / "not-there.csv")
    (here / "utf16.jsonl").write_bytes('{"id": "1"}'.encode("utf-16"))
    with pytest.raises(CXRLensError, match="not in UTF-8"):
        read_report_file(here / "utf16.jsonl")


def test_columns_can_be_named_and_a_slip_is_answered(here: Path) -> None:
    path = write_csv(here / "a.csv", ("key", "one", "two"), [["s1", "x", CLEAR]])
    found = read_report_file(path, "key", "two")
    assert (found.id_column, found.text_column, found.rows[0].text) == ("key", "two", CLEAR)
    with pytest.raises(CXRLensError, match="no column 'twoo'. Did you mean 'two'"):
        read_report_file(path, "key", "twoo")


@pytest.mark.parametrize(
    "name", ["f31_reports.jsonl", "f32_reports_line_separator.jsonl", "f34_cells_that_say_nothing.csv"]
)
@needs.CASES.unless(SHARED.is_dir())
def test_files_that_went_wrong_before(name: str) -> None:
    column = "A" if name.endswith("jsonl") else ""
    found = read_report_file(SHARED / name, text_column=column)
    assert not any(row.text.lower().startswith("none") for row in found.rows)
    source = open_source(PHANTOM)
    texts, census = match(
        [ReportRow((source.ids("test")[0],), row.text) for row in found.rows], source, source.ids("test")
    )
    assert census.matched + len(census.contradicting) == 1
    assert not texts or set(texts.values()) <= {row.text for row in found.rows}


# --------------------------------------------------------------------------------------------------------------- ids


def test_what_fits_misses_or_comes_twice_is_counted() -> None:
    source = open_source(PHANTOM)
    ids, elsewhere = source.ids("test"), source.ids("train")
    rows = [
        ReportRow((ids[0],), "one"),
        ReportRow((f"files/p1/{ids[1]}.dcm",), "two"),
        ReportRow((ids[1],), "two"),
        ReportRow((ids[2],), "this"),
        ReportRow((ids[2],), "that"),
        ReportRow((ids[3],), ""),
        ReportRow((elsewhere[0],), "x"),
        ReportRow(("nowhere",), "x"),
    ]
    texts, census = match(rows, source, ids)
    assert texts == {ids[0]: "one", ids[1]: "two", ids[3]: ""}
    assert (census.matched, census.missing, census.repeated, census.empty) == (3, len(ids) - 3, 1, 1)
    assert (census.contradicting, census.elsewhere, census.unknown) == ((ids[2],), 1, ("nowhere",))
    (told,) = census.sentences("Mine")
    assert told.startswith(f"Mine: 8 reports, of 3 of the {len(ids)} studies.")
    for words in (
        "1 study has two different reports",
        "as of another split",
        "of no study here: nowhere",
        "1 report is empty",
    ):
        assert words in told


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["a", "b", ""])), max_size=30))
def test_a_study_has_a_report_exactly_if_its_rows_agree(drawn: list[tuple[int, str]]) -> None:
    source = open_source(PHANTOM)
    ids = [*source.ids("train")[:6]]
    texts, census = match([ReportRow((ids[at],), text) for at, text in drawn], source, ids)
    said = {study: {text for at, text in drawn if ids[at] == study} for study in ids}
    assert texts == {study: next(iter(each)) for study, each in said.items() if len(each) == 1}
    assert set(census.contradicting) == {study for study, each in said.items() if len(each) > 1}
    assert census.matched + census.missing == len(ids)


def test_reports_of_images_find_their_study_and_the_image_that_models_read_wins(here: Path) -> None:
    from core.studies.mimic_cxr import index_mimic_cxr

    exams = [
        Exam(10000001, 50000001, "train", ("PA", "LATERAL")),
        Exam(10000002, 50000002, "test", ("LATERAL", "AP")),
    ]
    index = index_mimic_cxr(write_tree(here / "release", exams), here / "index").folder
    source = open_source(str(index))
    second = next(each for each in source.all_ids() if each.endswith("50000002"))
    images = {each.view: each.image_id for each in source.images(second)}
    rows = [ReportRow((images["LATERAL"],), "of the lateral"), ReportRow((images["AP"],), "of the frontal")]
    for order in (rows, rows[::-1]):
        texts, census = match(order, source, source.all_ids())
        assert texts == {second: "of the frontal"}
        assert (census.by_image, census.other_images) == (1, 1)
    for name in ("50000002", "s50000002", "p10/p10000002/s50000002"):
        assert match([ReportRow((name,), "x")], source, source.all_ids())[0] == {second: "x"}


# -------------------------------------------------------------------------------------------------------- what is kept


def test_systems_are_kept_listed_and_removed_and_only_their_owner_reads_them(here: Path) -> None:
    write_csv(here / "a.csv", ("id", "report"), [["s1", CLEAR]])
    assert "Mine: 1 report in 'report', by 'id'" in run("systems", "add", "Mine", "a.csv", "--group", "Ours")
    run("systems", "add", "Prog", "--command", program(here))
    folder = added.home() / "Mine"
    assert stat.S_IMODE(added.home().stat().st_mode) & 0o077 == 0
    listed = json.loads(run("systems", "list", "--json"))["systems"]
    kinds = {each["name"]: (each["kind"], each["group"], each["can"]) for each in listed}
    assert kinds["Mine"] == ("file of reports", "Ours", [])
    assert kinds["Prog"] == ("program", "Reports from elsewhere", ["write"])
    assert kinds["reference"][0] == "human reference"
    assert kinds["phantom-fve-m2"] == ("pair", "phantom", sorted(Ability))
    assert all(each["content"] or each["name"] == "reference" for each in listed)
    assert "There is a system 'Mine' already" in run("systems", "add", "mine", "a.csv", code=1)
    run("systems", "add", "Mine", "a.csv", "--replace")
    (folder / "reports.jsonl").write_text("{}\n", encoding="utf-8")
    os.utime(folder / "reports.jsonl", (1, 1))
    assert "The system Mine is damaged" in added.systems()[1]["Mine"]
    run("systems", "remove", "Mine")
    assert not folder.exists()
    assert "There is no system 'Mine'" in run("systems", "remove", "Mine", code=1)


@pytest.mark.parametrize(
    "name", ["reference", "Constant report", "phantom-fve-m2", "../x", ".hidden", "a/b", "", "x" * 99]
)
def test_a_name_that_means_something_else_is_refused(here: Path, name: str) -> None:
    write_csv(here / "a.csv", ("id", "report"), [["s1", CLEAR]])
    told = run("systems", "add", name, "a.csv", code=1)
    assert "taken" in told or "no name of a system" in told
    assert not added.home().exists() or not list(added.home().iterdir())


# ------------------------------------------------------------------------------------------------------------- scores


def test_a_file_and_a_program_are_scored_as_everything_is_and_kept_for_the_pages(here: Path) -> None:
    source = open_source(PHANTOM)
    studies = source.studies("test")
    exact = write_csv(
        here / "exact.csv", ("report", "dicom_id"), [[each.findings, each.study_id] for each in studies[1:]]
    )
    run("systems", "add", "Exact", str(exact))
    run("systems", "add", "Theirs", "--command", program(here / "theirs"))
    # A file of other studies is left out, and the others are scored.
    other = write_csv(here / "other.csv", ("id", "report"), [[source.ids("train")[0], CLEAR]])
    run("systems", "add", "Other", str(other))
    command = ["evaluate", "--source", PHANTOM, "--split", "test", "--json"]
    for name in ("Exact", "Theirs", "Other"):
        command += ["--system", name]
    told = run(*command)
    content = json.loads(told[told.index("{") : told.rindex("}") + 1])
    rows = {row["name"]: row for row in content["rows"]}
    assert set(rows) == {"Exact", "Theirs"}
    assert content["studies"] == len(studies) - 1
    assert rows["Exact"]["bleu_4"] == pytest.approx(1)
    assert rows["Exact"]["kind"] == "file of reports"
    text = "There is a small left pleural effusion."
    kept = studies[1:]
    expected = score_systems(
        results.references_of(source, kept),
        {"Theirs": results.label_texts([text] * len(kept))},
        subjects=[s.subject_id for s in kept],
    )["Theirs"]
    assert {key: rows["Theirs"][key] for key in expected} == json.loads(json.dumps(expected))
    said = " ".join(content["told"])
    assert "1 study has no report" in said
    assert "Other is left out" in said
    assert f"Scored are the {len(kept)} of {len(studies)} studies" in said
    (asked,) = own.evaluations()
    assert set(asked.systems) == {"Exact", "Theirs", "Other"}
    lines = [json.loads(line) for line in (asked.folder / "reports.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {each["Theirs"] for each in lines} == {text}
    assert [each["reference"] for each in lines] == [each.findings for each in kept]


def test_only_reports_of_other_studies_are_refused_with_the_census(here: Path) -> None:
    write_csv(here / "other.csv", ("id", "report"), [["nowhere", CLEAR]])
    run("systems", "add", "Other", "other.csv")
    told = run("evaluate", "--source", PHANTOM, "--split", "test", "--system", "Other", code=1)
    assert "of 0 of the" in told
    assert "1 row is of no study here: nowhere" in told


def test_files_beside_a_preset_need_names_of_their_own(here: Path) -> None:
    write_csv(here / "a.csv", ("id", "report"), [["s1", CLEAR]])
    (found,) = read_others(["A=a.csv"], [], ["phantom-fve-m2"], BUNDLES)
    assert (found.name, found.title) == ("A", "A")
    for files, names, message in (
        (["a.csv"], [], "it should be NAME=FILE"),
        (["A=a.csv", "A=a.csv"], [], "Two systems are called 'A'"),
        (["phantom-fve-m2=a.csv"], [], "Two systems are called 'phantom-fve-m2'"),
        ([], ["B"], "There is no system 'B'"),
    ):
        with pytest.raises(CXRLensError, match=message):
            read_others(files, names, ["phantom-fve-m2"], BUNDLES)
    assert read_others([], ["openi-dve-m2"], ["phantom-fve-m2"], BUNDLES)[0].kind == "pair"
    assert "one of the two" in run("evaluate", code=1)


def test_another_labeler_reads_reports_and_the_references_that_rules_labelled() -> None:
    blank = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    always = {**blank, "Edema": LabelState.POSITIVE}
    labeler = Labeler("CheXbert", lambda texts: [always for _ in texts], of_references=True)
    references = LabeledReports(["x", "y"], [blank, blank])
    again, truth = labeler.read_again(references, "rule labeler")
    assert (truth, [each["Edema"] for each in again.states]) == ("CheXbert", [LabelState.POSITIVE] * 2)
    same, truth = labeler.read_again(references, "the phantom's known truth")
    assert truth == "the phantom's known truth"
    assert same == references
    scored = results.score_pairs(
        [], again, ["a", "b"], {"A": labeler.read(["p", "q"])}, {}, truth, others=[{"name": "A"}], labeler=labeler
    )
    assert "Generated reports: CheXbert" in scored["protocol"]
    assert scored["rows"][0]["by_observation"]["Edema"][2] == 1


# ------------------------------------------------------------------------------------------- scores of other programs


def test_scores_of_other_programs_have_means_intervals_and_tests(here: Path) -> None:
    ids = [f"s{at}" for at in range(40)]
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.5, 0.1, 40), rng.normal(0.3, 0.1, 40)
    rows = [[study, "A", str(value), "1"] for study, value in zip(ids, one, strict=True)]
    rows += [[study, "B", str(value), ""] for study, value in zip(ids, other, strict=True)]
    rows += [["s1", "Unknown", "3", "3"], ["elsewhere", "A", "9", "9"], ["s0", "A", "7", "7"], ["s2", "B", "high", ""]]
    found = read_scores(write_csv(here / "s.csv", ("study", "system", "GREEN", "RadGraph"), rows), ids, ["A", "B", "C"])
    assert found.metrics == ("GREEN", "RadGraph")
    mean, studies = found.mean("A", "GREEN")
    assert (mean, studies) == (pytest.approx(one[1:].mean()), 39)  # of s0 there are two rows
    assert found.mean("B", "RadGraph")[1] == 0
    ends = found.interval("A", "GREEN", ids)
    assert ends.low < mean < ends.high
    error = one[1:].std() / np.sqrt(39)
    assert ends.high - ends.low == pytest.approx(2 * 1.96 * error, rel=0.2)
    test = found.against("A", "B", "GREEN", ids)
    both = np.r_[1, 3:40]
    assert test.difference == pytest.approx(one[both].mean() - other[both].mean())
    assert test.p_permutation < 0.01
    assert found.against("A", "B", "RadGraph", ids) is None
    told = " ".join(found.told)
    assert "no system 'Unknown' here" in told
    assert "1 row is of a study that is not evaluated here" in told
    assert "2 reports have two different rows of scores" in told
    assert "1 cell is no number (line" in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("study,GREEN\ns1,1\n", "no column 'system'"),
        ("study,system\ns1,A\n", "no column of a metric"),
        ("study,system,GREEN\ns1,Z,1\n", "has no score of these systems and studies. .*no system 'Z'"),
        ("study,system,G,G\ns1,A,1,1\n", "two columns of one name"),
        ("", "no column 'study'"),
    ],
)
def test_a_table_of_scores_that_is_none_is_refused(here: Path, content: str, message: str) -> None:
    (here / "s.csv").write_text(content, encoding="utf-8")
    with pytest.raises(CXRLensError, match=message):
        read_scores(here / "s.csv", ["s1"], ["A"])
    with pytest.raises(CXRLensError, match="There is no file"):
        read_scores(here / "t.csv", ["s1"], ["A"])
