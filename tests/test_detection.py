"""How small a finding is still reported: planted systems whose answer is known, and intervals whose coverage is."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.detection.curves import Curve, fit_curve, threshold
from core.detection.mentions import mentioned
from core.detection.results import FILE, DetectionResult, read_result, write_result
from core.detection.study import measure
from core.studies.phantom import GradedSource
from core.studies.phantom.graded import Film, whole_design
from core.types import CXRLensError
from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on
from tests.commands import cxr_lens

FEW = 60  # resamples, where intervals are not what is asked
NORMAL = "The heart is normal in size. No pneumothorax or pleural effusion."


def says(side: str) -> str:
    return f"The heart is normal in size. There is a {side} pneumothorax. No pleural effusion."


def reports(source: GradedSource, sees: Callable[[Film, float], bool]) -> dict[str, str]:
    """A system that says what it sees."""
    return {
        film_id: says(film.side) if film.step and sees(film, source.extent(film)) else NORMAL
        for film_id, film in source.films.items()
    }


def a_source(chests: int = 12) -> GradedSource:
    return GradedSource(whole_design("Pneumothorax", steps=10, chests=chests))


def test_a_blind_spot_is_found() -> None:
    source = a_source()
    result = measure(source, reports(source, lambda film, extent: film.side == "left" and extent > 0.35), resamples=FEW)
    right, left = result.detections
    assert (right.side, left.side) == ("right", "left")
    assert right.half.extent is None and right.half.low is None
    assert left.half.extent == pytest.approx(0.35, abs=0.06)
    assert all(point.mentioned == 0 for point in right.points)
    assert [point.mentioned for point in left.points] == [0, 0, 0, 0, *[12] * 7]
    mirror = result.mirrors[0]
    assert (mirror.right, mirror.left) == (0.0, pytest.approx(0.7))
    assert mirror.high < 0 and mirror.p < 0.01


def test_sides_that_are_alike_do_not_differ() -> None:
    source, rng = a_source(30), np.random.default_rng(1)
    result = measure(source, reports(source, lambda film, extent: rng.random() < extent), resamples=FEW)
    assert abs(result.mirrors[0].right - result.mirrors[0].left) < 0.06
    assert result.mirrors[0].p > 0.01


def test_false_alarms_are_counted_on_the_same_chests() -> None:
    source = a_source()
    written = {each: says("left") if each.startswith(("C0000", "C0001")) else NORMAL for each in source.films}
    result = measure(source, written, resamples=FEW)
    assert (result.false_alarms, result.normals) == (2, 12)
    low, high = result.false_alarm_interval
    assert (low, high) == (pytest.approx(0.0209, abs=1e-4), pytest.approx(0.4841, abs=1e-4))  # Clopper and Pearson
    right = result.detections[0]
    assert {point.mentioned for point in right.points} == {2}
    assert [point.other_side for point in right.points] == [0, *[2] * 10]


def test_chests_without_all_their_reports_are_left_out_and_too_few_are_said() -> None:
    source = a_source(4)
    written = reports(source, lambda film, extent: extent > 0.5)
    del written["C0002-left-03"]
    assert measure(source, written, resamples=FEW).normals == 3
    with pytest.raises(CXRLensError, match="Only 0 of 4 chests"):
        measure(source, {"x": NORMAL})


@pytest.mark.parametrize(
    ("text", "side", "present", "hedged", "other_side"),
    [
        ("There is a small left pneumothorax.", "left", True, False, False),
        ("There is a small left pneumothorax.", "right", True, False, True),
        ("Possible right pneumothorax.", "right", True, True, False),
        ("No pneumothorax.", "right", False, False, False),
        ("Bilateral pneumothorax, larger on the left.", "right", True, False, False),
        ("Pneumothorax is seen.", "right", True, False, False),
        ("Left pneumothorax. Small right pneumothorax.", "right", True, False, False),
        ("", "right", False, False, False),
    ],
)
def test_what_a_report_says(text: str, side: str, present: bool, hedged: bool, other_side: bool) -> None:
    found = mentioned(text, "Pneumothorax", side)
    assert (found.present, found.hedged, found.other_side) == (present, hedged, other_side)
    if present:
        assert found.words is not None
        assert text[slice(*found.words)].lower() == "pneumothorax"


@given(st.floats(0, 0.4), st.floats(0.6, 1), st.floats(0.05, 0.9), st.floats(0.6, 8), st.floats(0, 1), st.floats(0, 1))
def test_a_curve_rises_and_its_threshold_is_where_it_is_half(
    floor: float, ceiling: float, scale: float, shape: float, one: float, two: float
) -> None:
    curve = Curve(floor, ceiling, scale, shape)
    low, high = sorted((one, two))
    assert floor - 1e-12 <= curve.share(low) <= curve.share(high) + 1e-12 <= ceiling + 1e-9
    half = curve.reaches()
    if half is None:
        assert curve.share(1.0) < 0.5 + 1e-9
    else:
        assert curve.share(half) == pytest.approx(0.5, abs=1e-6)


def test_a_curve_is_found_again() -> None:
    extents, curve = np.linspace(0, 1, 13), Curve(0.05, 0.9, 0.4, 3.0)
    fitted = fit_curve(extents, 1000 * curve.share(extents), np.full(13, 1000.0))
    assert fitted.share(extents) == pytest.approx(curve.share(extents), abs=1e-3)
    assert fit_curve(extents, np.zeros(13), np.full(13, 9.0)).reaches() is None
    assert fit_curve(extents, np.full(13, 9.0), np.full(13, 9.0)).reaches() is None  # it always says it
    falling = fit_curve(extents, 9 - 9 * extents, np.full(13, 9.0))
    assert falling.share(1.0) == pytest.approx(falling.share(0.0), abs=0.02)


def coverage(studies: int, chests: int, resamples: int) -> float:
    """Share of simulated measurements whose interval holds the true threshold; chests differ in it."""
    rng, extents = np.random.default_rng(7), np.linspace(0, 1, 11)
    curve = Curve(0.03, 0.95, 0.4, 3.0)

    def shares(
        differences: np.ndarray[tuple[int], np.dtype[np.float64]],
    ) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        return np.array([curve.share(extents * math.exp(each)) for each in differences])

    fine = np.linspace(0.01, 1, 200)
    mean = np.mean([curve.share(fine * math.exp(each)) for each in rng.normal(0, 0.4, 4000)], axis=0)
    true = float(np.interp(0.5, mean, fine))
    held = 0
    for number in range(studies):
        answers = rng.random((chests, len(extents))) < shares(rng.normal(0, 0.4, chests))
        _, half = threshold(extents, answers, resamples=resamples, seed=number)
        held += (half.low or math.inf) <= true <= (half.high or math.inf)
    return held / studies


def test_intervals_hold_the_truth() -> None:
    assert coverage(studies=12, chests=40, resamples=40) >= 0.75  # 0.93 to 0.97 in the slow test


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    assert 0.92 <= coverage(studies=400, chests=40, resamples=200) <= 0.98


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    source = a_source(3)
    system = measure(source, reports(source, lambda film, extent: extent > 0.5), resamples=100)
    result = DetectionResult(source.design, source.fingerprint(), {"one": system}, 0, 100, {"versions": {"torch": "1"}})
    write_result(tmp_path / FILE, result)
    assert read_result(tmp_path / FILE) == result
    text = (tmp_path / FILE).read_text(encoding="utf-8")
    assert "Not a medical device" in text
    for damage in (
        text[: len(text) // 2],
        "[]",
        "{}",
        text.replace('"schema": 1', '"schema": 99'),
        text.replace("curve", "x"),
    ):
        (tmp_path / FILE).write_text(damage, encoding="utf-8")
        with pytest.raises(CXRLensError, match="Measure again"):
            read_result(tmp_path / FILE)
    with pytest.raises(CXRLensError, match="cannot be read"):
        read_result(tmp_path / "none.json")


def another_system(films: Path, path: Path) -> Mapping[str, str]:
    """A system that reads the list of films, and says what stands there from an extent of one half on."""
    rows = list(csv.DictReader((films / "films.csv").open(encoding="utf-8")))
    assert all((films / row["image"]).is_file() for row in rows)
    texts = {row["study_id"]: says(row["side"]) if float(row["extent"]) >= 0.5 else NORMAL for row in rows}
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("study_id", "report"))
        table.writerows(texts.items())
    return texts


def test_any_system_by_films_out_and_reports_in(tmp_path: Path) -> None:
    design = ("--finding", "pneumothorax", "--extent", "0:1:4", "-n", "2", "--out", str(tmp_path / "out"))
    assert cxr_lens("detect", *design, "--images", str(tmp_path / "films")).returncode == 0
    another_system(tmp_path / "films", tmp_path / "theirs.csv")
    first = cxr_lens("detect", *design, "--reports", f"theirs={tmp_path / 'theirs.csv'}", "--json")
    assert first.returncode == 0, first.stderr
    again = cxr_lens("detect", *design, "--reports", f"others={tmp_path / 'theirs.csv'}")
    assert again.returncode == 0
    result = read_result(tmp_path / "out" / "pneumothorax" / FILE)
    assert list(result.systems) == ["theirs", "others"]  # what was measured before on the same films stays
    assert [point.mentioned for point in result.systems["theirs"].detections[0].points] == [0, 0, 2, 2, 2]
    assert json.loads(first.stdout)["systems"]["theirs"]["normals"] == 2
    rows = (tmp_path / "theirs.csv").read_text(encoding="utf-8").splitlines()
    for content, told in (
        ([rows[0], *rows[1:3], rows[1]], "two reports of film"),
        ([rows[0], "x,No finding."], "no report of these films"),
    ):
        (tmp_path / "bad.csv").write_text("\n".join(content) + "\n", encoding="utf-8")
        refused = cxr_lens("detect", *design, "--reports", f"bad={tmp_path / 'bad.csv'}")
        assert refused.returncode != 0 and told in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--finding", "pnemothorax"), "There is no graded finding"),
        (("--finding", "edema", "--extent", "0:0:4"), "should rise"),
        (("--finding", "edema", "--extent", "0:1"), "LOW:HIGH:STEPS"),
        (("--finding", "edema", "--side", "left"), "the side cannot be left"),
        (("--finding", "edema", "--bundle", "nobody"), "nobody"),
        (("--finding", "edema", "--reports", "x"), "NAME=FILE"),
    ],
)
def test_a_command_that_cannot_be_done_says_why(options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    refused = cxr_lens("detect", *options, "--out", str(tmp_path))
    assert refused.returncode != 0 and told in refused.stderr and "Traceback" not in refused.stderr


@needs_bundles
def test_the_page_shows_a_curve_the_film_and_its_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = a_source(3)
    seen = measure(source, reports(source, lambda film, extent: film.side == "left" and extent > 0.35), resamples=100)
    result = DetectionResult(source.design, source.fingerprint(), {"phantom-fve-m2": seen, "theirs": seen}, 0, 100, {})
    write_result(tmp_path / "pneumothorax" / FILE, result)
    (tmp_path / "edema").mkdir()
    (tmp_path / "edema" / FILE).write_text("{", encoding="utf-8")
    monkeypatch.setenv("CXR_DETECTIONS", str(tmp_path))
    app = open_page("detection", place="left", extent="0.50", chest="2")
    words = words_on(app)
    assert "Pneumothorax, left: all models" in words
    assert "is damaged" in words  # of the other finding, which stops nothing
    table = app.dataframe[0].value
    assert list(table["Model"]) == ["FVE + M2", "theirs"]
    assert set(table["Largest reported"]) == {"3 of 3"}
    app.selectbox(key="place").select("right").run()
    assert not app.exception
    assert set(app.dataframe[0].value["Largest reported"]) == {"0 of 3"}


def test_the_page_says_what_to_do_where_nothing_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_DETECTIONS", str(tmp_path))
    assert "cxr-lens detect" in words_on(open_page("detection"))


@needs_bundles
def test_a_film_of_a_design_opens_on_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_BUNDLES", str(linked_bundles(tmp_path / "bundles", "shared", "phantom-fve-m2")))
    spec = replace(whole_design("Pneumothorax"), steps=4, chests=2).spec
    app = open_page("read", source=spec, study="C0001-left-03")
    assert "**C0001-left-03**" in words_on(app)
    app = open_page("read", source="graded:nothing", study="C0001-left-03")
    assert "**C0001-left-03**" not in words_on(app)
