"""What holds over trainings that differ in their seed: means, intervals that are never too narrow, and the command."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from core.evaluation.clinical import clinical_statistics, decision_statistics
from core.evaluation.resampling import compare
from core.evaluation.results import NEAREST, nearest_title
from core.evaluation.scored import FILE, Scored, read_scored, scored, write_scored
from core.evaluation.scoring import LabeledReports
from core.evaluation.seeds import over_seeds
from core.labels.rules import label_report
from core.observations import OBSERVATIONS
from core.types import CXRLensError
from tests.commands import refused, run


def row(name: str, score: float, difference: float, half: float, p: float = 0.2) -> dict[str, Any]:
    told = {"difference": difference, "low": difference - half, "high": difference + half, "p_holm": p}
    encoder, decoder = name.split("-")
    return {"name": f"openi-{name}", "encoder": encoder, "decoder": decoder, "f1": score / 2, "f1_frequent": score} | {
        kind: {"f1_frequent": told, "f1": {**told, "low": None, "high": None}}
        for kind in ("differences", "differences_own")
    }


def results(folder: Path, seed: int, *rows: dict[str, Any], **changes: Any) -> Path:
    content = {"family": "openi", "studies": 590, "fingerprint": "abc", "seed": seed, "rows": rows, "baselines": []}
    path = folder / f"{seed}-{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def test_means_and_ends_are_those_of_the_seeds() -> None:
    one, other = row("cve-m2", 0.4, 0.1, 0.02, 0.01), row("cve-m2", 0.2, 0.3, 0.06, 0.3)
    found = over_seeds([{"a": one, "only here": one}, {"a": other}], "f1_frequent")
    assert list(found) == ["a"]
    assert found["a"].values == (0.4, 0.2)
    assert found["a"].difference == pytest.approx(0.2)
    assert (found["a"].low, found["a"].high) == (pytest.approx(0.16), pytest.approx(0.24))
    assert found["a"].above == (True, False)
    without_interval = over_seeds([{"a": one}, {"a": other}], "f1")["a"]
    assert without_interval.difference == pytest.approx(0.2)
    assert without_interval.low is without_interval.high is None
    not_compared = over_seeds([{"a": one}, {"a": {**other, "differences": {}}}], "f1_frequent")["a"]
    assert not_compared.difference is None
    assert not_compared.above == (True, False)


@given(
    st.floats(-1, 1),
    st.lists(st.floats(0.1, 3), min_size=2, max_size=2),
    st.integers(0, 5),
)
@settings(max_examples=20, deadline=None)
def test_an_interval_is_never_too_narrow(correlation: float, sds: list[float], seed: int) -> None:
    """Two trainings, whose differences from a truth of 0 depend on each other in any way."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 2_000))
    draws = [sds[0] * first, sds[1] * (correlation * first + (1 - correlation**2) ** 0.5 * second)]
    held = []
    for one, other in zip(*draws, strict=True):
        trainings = [{"a": row("cve-m2", 0, each, 1.96 * sd)} for each, sd in zip((one, other), sds, strict=True)]
        found = over_seeds(trainings, "f1_frequent")["a"]
        assert found.low is not None
        assert found.high is not None
        held.append(found.low <= 0 <= found.high)
    assert np.mean(held) > 0.935


def test_the_command_prints_the_highest_mean_first(tmp_path: Path) -> None:
    one = results(tmp_path, 1, row("cve-m2", 0.2, 0.1, 0.02, 0.01), row("fve-m2", 0.5, 0.1, 0.2))
    other = results(tmp_path, 2, row("cve-m2", 0.4, 0.3, 0.06), row("fve-m2", 0.3, 0.1, 0.2), row("dve-m2", 1, 1, 1))
    said = run("table", "seeds", "--results", one, "--results", other)
    assert said.exit_code == 0, said.output
    _, _, first, second, *_ = said.output.splitlines()
    assert first.startswith("| FVE + M2 | 0.200 ± 0.071 | 0.250, 0.150 | 0.400 ± 0.141 | 0.500, 0.300 |")
    assert "| +0.200 [+0.160, +0.240]: +0.100*, +0.300 |" in second
    assert "DVE" not in said.output
    told = json.loads(run("table", "seeds", "--results", one, "--results", other, "--json").output)
    assert told["f1_frequent"]["differences_own"]["openi-cve-m2"]["above"] == [True, False]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"fingerprint": "other"}, "must agree in 'fingerprint'"),
        ({"family": "phantom"}, "must agree in 'family'"),
        ({"seed": 1}, "seeds 1, 1: name each seed once"),
        ({"rows": [{"name": "other"}]}, "no system in common"),
        (None, "two evaluations or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(second: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    paths = [results(tmp_path, 1, row("cve-m2", 0.2, 0.1, 0.02))]
    if second is not None:
        second = dict(second)
        paths.append(results(tmp_path, second.pop("seed", 2), row("cve-m2", 0.2, 0.1, 0.02), **second))
    assert message in refused("table", "seeds", *(word for path in paths for word in ("--results", path)))


# ------------------------------------------------------------------------------------------- with the labels themselves

STUDIES = 120
SYSTEMS = ("openi-cve-m2", "openi-fve-m2")


def planted(path: Path, seed: int, *, shared: float, gain: float) -> tuple[Path, Scored]:
    """An evaluation whose systems find more than the nearest report does, partly in the same studies in every seed."""
    common, own = np.random.default_rng(0), np.random.default_rng(seed)
    truth = common.random((STUDIES, len(OBSERVATIONS))) < 0.3

    def reports(hit: float) -> npt.NDArray[np.bool_]:
        drawn = [rng.random(truth.shape) for rng in (np.random.default_rng([1, round(hit * 100)]), own)]
        same = np.random.default_rng(2).random(truth.shape) < shared
        return np.asarray(truth ^ (np.where(same, *drawn) > hit))

    ids, subjects = [f"s{at}" for at in range(STUDIES)], [f"p{at // 2}" for at in range(STUDIES)]
    labels = {NEAREST: reports(0.6), nearest_title("cve"): reports(0.61), nearest_title("fve"): reports(0.6)}
    labels |= {name: reports(0.6 + gain) for name in SYSTEMS}
    content = Scored(tuple(ids), tuple(subjects), truth, labels)
    rows = []
    for name in SYSTEMS:
        scores = content.statistics(name).scores()
        made = row(name.removeprefix("openi-"), 0, 0, 0) | {key: scores[key] for key in ("f1", "f1_frequent")}
        for kind, other in (("differences", NEAREST), ("differences_own", nearest_title(made["encoder"]))):
            parts = [content.statistics(each).select("f1", "f1_frequent") for each in (name, other)]
            found = compare(*parts, subjects=subjects)
            made[kind] = {score: {**asdict(each), "p_holm": each.p_permutation} for score, each in found.items()}
        rows.append(made | {"differences_own": {"from": nearest_title(made["encoder"]), **made["differences_own"]}})
    path.mkdir()
    file = results(path, seed, *rows)
    write_scored(path / FILE, content)
    return file, content


def test_what_was_scored_is_read_as_it_was_written(tmp_path: Path) -> None:
    states = [label_report(text).states for text in ("Cardiomegaly.", "Possible pneumonia.", "No effusion.")]
    reports = LabeledReports(["a", "b", "c"], states)
    content = scored(["x", "y", "ü"], ["p", "p", "q"], reports, {"A": reports.reordered([1, 2, 0]), "B": reports})
    write_scored(tmp_path / FILE, content)
    back = read_scored(tmp_path / FILE)
    assert (back.study_ids, back.subjects, list(back.reports)) == (("x", "y", "ü"), ("p", "p", "q"), ["A", "B"])
    np.testing.assert_array_equal(back.references, content.references)
    np.testing.assert_array_equal(back.reports["A"], content.references[[1, 2, 0]])
    assert back.statistics("A").scores() == pytest.approx(
        clinical_statistics(states, [states[1], states[2], states[0]]).scores(), nan_ok=True
    )
    whole = (tmp_path / FILE).read_bytes()
    for damaged in (whole[:100], b"", b"PK", whole.replace(b"subjects", b"subjectz")):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(CXRLensError, match=r"scored\.npz is damaged"):
            read_scored(tmp_path / FILE)


def test_with_labels_patients_are_left_out_in_all_trainings_at_once(tmp_path: Path) -> None:
    (one, first), (other, second) = (planted(tmp_path / str(seed), seed, shared=0.3, gain=0.1) for seed in (1, 2))
    rows = [{each["name"]: each for each in json.loads(path.read_text())["rows"]} for path in (one, other)]
    for against, nearest in (("differences", NEAREST), ("differences_own", nearest_title("cve"))):
        found = over_seeds(rows, "f1_frequent", against, [first, second])["openi-cve-m2"]
        by_ends = over_seeds(rows, "f1_frequent", against)["openi-cve-m2"]
        assert found.difference == pytest.approx(by_ends.difference)
        # by hand: the mean's difference without each patient
        left = []
        for patient in sorted(set(first.subjects)):
            kept = np.array([subject != patient for subject in first.subjects])
            means = []
            for each in (first, second):
                scores = [
                    decision_statistics(each.references, each.reports[name]) for name in ("openi-cve-m2", nearest)
                ]
                ours, theirs = (part.from_sums(part.values[kept].sum(0)) for part in scores)
                means.append((ours - theirs)[scores[0].names.index("f1_frequent")])
            left.append(np.mean(means))
        half = np.std(left) * (len(left) - 1) ** 0.5 * student.ppf(0.975, len(left) - 1)
        assert (found.low, found.high) == pytest.approx((found.difference - half, found.difference + half))
        assert by_ends.low < found.low < found.high < by_ends.high
        assert found.p_holm is not None
        assert found.p_holm < 0.05


def test_the_same_training_twice_has_its_own_interval(tmp_path: Path) -> None:
    file, content = planted(tmp_path / "1", 1, shared=0, gain=0.1)
    rows = {each["name"]: each for each in json.loads(file.read_text())["rows"]}
    for name, each in over_seeds([rows, rows], "f1_frequent", labels=[content, content]).items():
        alone = rows[name]["differences"]["f1_frequent"]
        assert (each.difference, each.low, each.high) == pytest.approx(
            [alone[key] for key in ("difference", "low", "high")]
        )


def test_the_command_takes_labels_that_lie_beside_all_results(tmp_path: Path) -> None:
    (one, _), (other, content) = (planted(tmp_path / str(seed), seed, shared=0.3, gain=0.2) for seed in (1, 2))
    both = ("table", "seeds", "--results", one, "--results", other)
    said = run(*both)
    assert said.exit_code == 0, said.output
    assert "each left out in all seeds at once" in said.output
    assert "* [" in said.output.splitlines()[2]
    wrong = dict.fromkeys(content.reports, content.references)
    write_scored(other.parent / FILE, replace(content, reports=wrong))
    assert "has not the labels of openi-" in refused(*both)
    write_scored(other.parent / FILE, replace(content, study_ids=content.study_ids[::-1]))
    assert "is of other studies than that of the first" in refused(*both)
    write_scored(other.parent / FILE, replace(content, reports={name: content.reports[name] for name in SYSTEMS}))
    assert "has no labels of the nearest training report" in refused(*both)
    (other.parent / FILE).write_bytes(b"PK")
    assert "is damaged" in refused(*both)
    (other.parent / FILE).unlink()
    assert "means of the seeds' ends" in run(*both).output
