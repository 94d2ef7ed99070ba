"""Every folder of docs/studies is rehearsed by its command; its tables are of its files, and find what was planted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from core.reviews.answers import load_results
from core.reviews.database import Database
from core.reviews.effects import differences
from core.reviews.planted import Planted, read_planted
from core.reviews.questions import CANNOT_JUDGE
from core.reviews.rehearsal import OWNER
from core.reviews.store import first_admin
from core.types import CXRLensError
from tests.commands import refused, run
from tests.conftest import ROOT
from training.commands.rehearsed import inputs_hash, read_rehearsed
from training.commands.review import read_toml

STUDIES = ROOT / "docs" / "studies"
FOLDERS = sorted(each.parent.name for each in STUDIES.glob("*/design.toml"))


def planted_in(folder: Path) -> Planted:
    path = folder / "rehearsal.toml"
    return read_planted(read_toml(path))[1] if path.exists() else Planted()


def simulated(name: str, out: Path, *options: object) -> Path:
    done = run("review", "simulate", STUDIES / name, "--out", out, *options)
    assert done.exit_code == 0, (done.output, done.exception)
    return out


def headings(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]


def numbers(text: str) -> list[float]:
    return [float(each) for each in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", text)]


def test_the_index_leads_to_every_study() -> None:
    assert len(FOLDERS) >= 4
    linked = re.findall(r"\]\((\S+?)\)", (STUDIES / "README.md").read_text(encoding="utf-8"))
    assert [each for each in linked if not (STUDIES / each).exists()] == []
    for name in FOLDERS:
        text = (STUDIES / name / "README.md").read_text(encoding="utf-8")
        assert f"cxr-lens review simulate docs/studies/{name}" in text
        assert "(tables.md)" in text


@pytest.mark.parametrize("name", FOLDERS)
def test_a_study_is_rehearsed_by_its_command_and_its_tables_are_of_its_files(name: str, tmp_path: Path) -> None:
    out = simulated(name, tmp_path / "out", "--studies", 2, "--readers", 2)
    kept = STUDIES / name / "tables.md"
    hashed = inputs_hash(STUDIES / name)
    assert f"`{hashed}`" in kept.read_text(encoding="utf-8"), f"docs/studies/{name}/tables.md is of other files"
    assert f"`{hashed}`" in (out / "tables.md").read_text(encoding="utf-8")
    assert headings(kept)[0] == headings(out / "tables.md")[0]
    assert set(headings(kept)) & set(headings(out / "tables.md")) - {headings(kept)[0], "## Readers"}
    assert {"report.html", "codebook.md", "answers.csv"} <= {each.name for each in out.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_a_whole_study_writes_the_tables_of_its_folder_and_finds_what_was_planted(name: str, tmp_path: Path) -> None:
    out = simulated(name, tmp_path / "out")
    made = (out / "tables.md").read_text(encoding="utf-8")
    kept = (STUDIES / name / "tables.md").read_text(encoding="utf-8")
    assert re.sub(r"[\d.]+", "#", made) == re.sub(r"[\d.]+", "#", kept)
    # Another machine may round the last digit otherwise.
    assert numbers(made) == pytest.approx(numbers(kept), rel=0.02, abs=0.011)
    session = json.loads((out / "rehearsal.json").read_text(encoding="utf-8"))["session"]
    database = Database(out / "rehearsal.sqlite")
    try:
        results = load_results(database, first_admin(database, OWNER), session)
    finally:
        database.close()
    planted = planted_in(STUDIES / name)
    found = {(row.outcome, row.first, row.second): row.estimate for row in differences(results)}
    checked = shares_are_found(results.answers, planted, results.screens["study"].nunique())
    for (outcome, first, second), estimate in found.items():
        truth = true_difference(planted, outcome, first, second)
        if truth is not None:
            assert estimate.low <= truth <= estimate.high, (outcome, first, second, truth, estimate)
            checked += 1
        if outcome.startswith(("preference", "overall")) and {first, second} <= set(planted.systems):
            better = planted.systems[first] < planted.systems[second]
            assert (estimate.low > 0) if better else (estimate.high < 0), (outcome, first, second, estimate)
            checked += 1
    assert checked or planted == Planted()


def shares_are_found(answers: pd.DataFrame, planted: Planted, studies: int) -> int:
    """How many planted shares were checked: each is within three standard errors of as many answers as studies."""
    first = answers[~answers["repeat"] & ~answers["adjudication"] & (answers["value"] != CANNOT_JUDGE)]
    checked = 0
    for question, of_systems in planted.answers.items():
        for system, shares in of_systems.items():
            given = first[(first["question"] == question) & (first["model"] == system)]
            for answer, share in shares.items():
                units = min(studies, given["study"].nunique())
                near = 3 * (share * (1 - share) / max(units, 1)) ** 0.5
                assert (given["value"].astype(str) == answer).mean() == pytest.approx(share, abs=near + 0.02)
                checked += 1
    return checked


def true_difference(planted: Planted, outcome: str, first: str, second: str) -> float | None:
    """What was planted of a quantity: a difference of means, or a ratio of times; None where it was drawn."""
    if outcome == "seconds":
        return planted.seconds.get(first, 1.0) / planted.seconds.get(second, 1.0)
    shares = planted.answers.get(outcome, {})
    if first not in shares or second not in shares:
        return None
    one, other = (sum(int(step) * share for step, share in shares[each].items()) for each in (first, second))
    return one - other


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("seed = -1", "rehearsal.seed: a whole number"),
        ("sead = 1", "rehearsal: sead is unknown"),
        ("systems = 3", "rehearsal.systems: a table"),
        ("[systems]\nreference = 0", "rehearsal.systems: a factor is above 0"),
        ("[seconds]\nreference = inf", "rehearsal.seconds.reference: a number"),
        ("[systems]\nnobody = 2.0", "the design has no nobody; it has AI report, reference"),
        ("[answers.beauty]\nreference = { 1 = 1.0 }", "has no question 'beauty'"),
        ("[answers.score]\nreference = { 4 = 1.0 }", "4 is no answer; there are 1, 2, 3"),
        ("[answers.score]\nreference = { 1 = 0.5 }", "add up to 0.5"),
        ("[answers.discrepancy]\nreference = { a = 1.0 }", "shares are of a scale"),
    ],
)
def test_effects_that_cannot_be_are_refused_in_words(lines: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "design.toml").write_bytes((STUDIES / "radpeer" / "design.toml").read_bytes())
    (tmp_path / "rehearsal.toml").write_text(lines, encoding="utf-8")
    assert message in refused("review", "simulate", tmp_path, "--studies", 1, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "rehearsal.sqlite").exists()


def test_a_folder_without_a_design_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CXRLensError, match="design.toml cannot be read"):
        read_rehearsed(str(tmp_path), None, None, None, None, None)
