"""A finding drawn into real normal films: nothing at an extent of 0, then more and more, only where it belongs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.detection.results import FILE, DetectionResult, RealFilms, read_result, write_result
from core.detection.study import measure
from core.studies.drawn.chest import NoChestError, find_chest
from core.studies.drawn.draw import FINDINGS, Prepared, draw_into, place_of, prepare
from core.studies.drawn.source import DrawnSource
from core.studies.folder import FolderSource
from core.studies.phantom.graded import PLACES, Film, GradedFilms, GradedSource, slug
from core.studies.sources import open_source
from core.types import CXRLensError, FloatImage
from tests.app_pages import needs_bundles, open_page, words_on
from tests.commands import cxr_lens

SIDE = 256
NORMALS = 2  # of the packaged radiographs, those that can be used
SAID = "There is a {} pneumothorax."


def design(finding: str, **numbers: int) -> GradedFilms:
    sides, sites = PLACES[finding]
    return GradedFilms(finding, 0.0, 1.0, sides=sides, sites=sites[:1], **{"steps": 4, "chests": NORMALS} | numbers)


@pytest.fixture(scope="module")
def real() -> Prepared:
    """A real normal film."""
    source = DrawnSource(design("Pneumothorax"), open_source("example"))
    return prepare(source.base.for_model(source.film_of(0), 0))


def drawn(real: Prepared, finding: str, side: str, steps: int = 4) -> list[FloatImage]:
    """A film with a finding, from nothing to its largest extent."""
    source = GradedSource(design(finding, steps=steps))
    site = source.design.sites[0]
    films = [Film(0, step, side, site) for step in range(1, steps + 1)]  # type: ignore[arg-type]
    return [real.film, *(draw_into(real, source.facts(each.film_id)[0]) for each in films)]


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_finding_grows_on_its_side_and_nowhere_else(real: Prepared, finding: str, side: str) -> None:
    films = drawn(real, finding, side)
    changes = [float(np.abs(film - real.film).mean()) for film in films]
    assert changes[0] == 0 and all(later > earlier for earlier, later in pairwise(changes))
    changed = np.abs(films[-1] - real.film) > 0
    middle = round(real.chest.middle * changed.shape[1])
    here, there = (
        (changed[:, :middle], changed[:, middle:]) if side == "right" else (changed[:, middle:], changed[:, :middle])
    )
    assert here.any() and not there.any()
    top = min(row for _, row in real.chest.apices.values())
    rows = np.flatnonzero(changed.any(1)) / len(changed)
    assert rows[0] > top - 0.03 and rows[-1] < real.chest.angles[side] + 0.06
    inside = np.abs(films[-1] - films[0])[changed].mean()
    sign = np.sign((films[-1] - real.film)[np.abs(films[-1] - real.film) > 0.1 * inside].mean())
    assert sign == (-1 if finding == "Pneumothorax" else 1)
    assert films[-1].min() >= 0 and films[-1].max() <= 1 and films[-1].dtype == np.float32


def test_fluid_is_as_bright_as_the_films_own_soft_tissue(real: Prepared) -> None:
    film = drawn(real, "Pleural Effusion", "right")[-1]
    height, width = film.shape
    chest = real.chest
    base = film[
        int(height * (chest.domes["right"] - 0.1)) : int(height * (chest.domes["right"] - 0.04)),
        int(width * (chest.middle - 0.6 * chest.walls["right"].max())) : int(
            width * (chest.middle - 0.3 * chest.walls["right"].max())
        ),
    ]
    liver = film[
        int(height * (chest.domes["right"] + 0.06)) : int(height * (chest.domes["right"] + 0.1)),
        int(width * 0.3) : int(width * 0.4),
    ]
    assert 0.75 * np.median(liver) < np.median(base) < 1.1 * np.median(liver)


def test_who_knows_what_is_sought_finds_more_and_more(real: Prepared) -> None:
    films = drawn(real, "Pleural Effusion", "left", steps=6)
    sought = films[-1] - films[0]
    scores = [float(((film - films[0]) * sought).sum()) for film in films]
    assert all(later > earlier for earlier, later in pairwise(scores))
    fact = GradedSource(design("Pleural Effusion", steps=6)).facts("C0000-left-06")[0]
    mask = place_of(real, fact, (SIDE, SIDE))
    assert 0.01 < mask.mean() < 0.25


@pytest.mark.parametrize("finding", ["Pneumothorax", "Lung Lesion"])
def test_films_of_a_design_are_a_source(finding: str) -> None:
    source = open_source(DrawnSource(design(finding), open_source("example")).key)
    assert isinstance(source, DrawnSource) and not source.synthetic
    base = source.base
    normal = source.film_of(1)
    assert base.study(normal).labels["No Finding"].value == "positive"
    for size in (64, 96):
        assert np.array_equal(source.image("C0001-normal", size), base.image(normal, size))
    site = f"-{slug(source.design.sites[0])}" if source.design.sites[0] else ""
    last = f"C0001-left{site}-04"
    assert not np.array_equal(source.image(last, 64), source.image("C0001-normal", 64))
    assert source.masks(last, (SIDE, SIDE))[0].observations == (finding,)
    assert source.masks("C0001-normal", (SIDE, SIDE)) == ()
    assert source.original("C0001-normal").sha256 == base.original(normal).sha256
    assert source.credit == base.credit and "had none" in source.caution
    assert source.study(last).subject_id == "C0001"
    assert len({source.film_of(chest) for chest in range(NORMALS)}) == NORMALS


@pytest.mark.parametrize(
    ("name", "walls", "domes"),
    [("00000262_000", (0.17, 0.83), (0.60, 0.66)), ("00000319_000", (0.15, 0.92), (0.65, 0.70))],
)
def test_the_lungs_are_found_where_they_are(name: str, walls: tuple[float, float], domes: tuple[float, float]) -> None:
    """Walls at half height and tops of the diaphragm, as a person reads them off the film."""
    chest = find_chest(open_source("example").original(name).pixels)
    for side, sign, wall, dome in zip(("right", "left"), (-1, 1), walls, domes, strict=True):
        found = chest.middle + sign * float(np.interp(0.5, chest.rows, chest.walls[side]))
        assert found == pytest.approx(wall, abs=0.03)
        assert chest.domes[side] == pytest.approx(dome, abs=0.03 if side == "right" else 0.07)  # the heart hides it


def test_what_shows_no_two_lungs_is_refused(real: Prepared) -> None:
    noise = np.random.default_rng(0).random((SIDE, SIDE)).astype(np.float32)
    for film in (noise, np.rot90(real.film).copy(), real.film[: len(real.film) // 2], real.film * 0 + 0.5):
        with pytest.raises(NoChestError):
            find_chest(film)


def test_films_that_cannot_be_used_are_passed_over_and_counted(tmp_path: Path, real: Prepared) -> None:
    pixels = (real.film * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "good.png")
    Image.fromarray(np.rot90(pixels).copy()).save(tmp_path / "turned.png")
    source = DrawnSource(design("Pneumothorax"), FolderSource(tmp_path))
    assert source.film_of(0) == "good"
    with pytest.raises(CXRLensError, match=r"has 1 that can be used, of 2 normal ones \(1: No two lungs"):
        source.film_of(1)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("drawn:edema:0:1:3:bilateral:none:2:0:example", "cannot be drawn into real films"),
        ("drawn:pneumothorax:0:1:3:right:none:2:0:phantom", "no real films"),
        ("drawn:pneumothorax:0:1:3:right:none:2:0", "names no real films"),
        ("drawn:pneumothorax:0:1:3:right:none:2:0:nowhere", "There are no studies at 'nowhere'"),
        ("drawn:pneumothorax:0:1:3:right:none:2:0:drawn:pneumothorax:0:1:3:right:none:2:0:example", "no real films"),
    ],
)
def test_what_cannot_be_drawn_is_said(spec: str, told: str) -> None:
    with pytest.raises(CXRLensError, match=told):
        open_source(spec)


def test_any_system_on_real_films(tmp_path: Path) -> None:
    asked = ("--finding", "pneumothorax", "--extent", "0:1:2", "-n", "2", "--films", "example", "--out", str(tmp_path))
    assert cxr_lens("detect", *asked, "--images", str(tmp_path / "films")).returncode == 0
    rows = (tmp_path / "films" / "films.csv").read_text(encoding="utf-8").splitlines()[1:]
    cells = [row.split(",") for row in rows]
    texts = [f"{each[0]},{SAID.format(each[3]) if float(each[5]) > 0.6 else 'No pneumothorax.'}" for each in cells]
    (tmp_path / "theirs.csv").write_text("\n".join(["study_id,report", *texts]) + "\n", encoding="utf-8")
    done = cxr_lens("detect", *asked, "--reports", f"theirs={tmp_path / 'theirs.csv'}")
    assert done.returncode == 0, done.stderr
    result = read_result(next(tmp_path.glob(f"pneumothorax-in-*/{FILE}")))
    assert result.real is not None and result.real.title == "Example radiographs"
    assert [point.mentioned for point in result.systems["theirs"].detections[0].points] == [0, 0, 2]


@needs_bundles
def test_the_page_shows_what_was_drawn_into_real_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DrawnSource(design("Pneumothorax"), open_source("example"))
    written = {each: SAID.format(film.side or "no") for each, film in source.films.items()}
    seen = measure(source, written, resamples=100)
    for real in (RealFilms("Example radiographs", source.base.images_fingerprint()), RealFilms("Theirs", "0")):
        result = DetectionResult(source.design, source.fingerprint(), {"theirs": seen}, 0, 100, {}, real)
        write_result(tmp_path / slug(real.title) / FILE, result)
        assert read_result(tmp_path / slug(real.title) / FILE) == result
    monkeypatch.setenv("CXR_DETECTIONS", str(tmp_path))
    app = open_page(
        "detection", detected="Pneumothorax in real films (Example radiographs)", place="left", extent="0.50"
    )
    words = words_on(app)
    assert "drawn into a real normal film of Example radiographs" in words and "that come along" not in words
    assert "Pneumothorax in real films (Example radiographs), left: all models" in words
    assert "NIH" in words  # their credit
    app.selectbox(key="detected").select("Pneumothorax in real films (Theirs)").run()
    assert not app.exception
    assert "of Theirs, are not here" in words_on(app)
