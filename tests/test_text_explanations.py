"""Where a finding hangs of which only texts are known: writers that read a known place of the image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from core.explain.texts import BLOCK, METHODS, occlusion, random_masks
from core.studies.sources import open_source
from core.systems import added
from core.systems.program import read_command
from core.systems.system import System
from core.types import CXRLensError, FloatImage, Study
from tests.systems_files import program

HEIGHT, WIDTH = 96, 64
SPOT = (slice(48, 60), slice(24, 32))  # of 8 by 8 cells, row 4, column 3
PRESENT, ABSENT = "There is a left pleural effusion.", "No pleural effusion."


def film() -> FloatImage:
    image = np.full((HEIGHT, WIDTH), 0.25, np.float32)
    image[SPOT] = 1.0
    return image


def reads_the_spot(images: Iterable[FloatImage]) -> list[str]:
    """A writer that reports the finding while most of the spot's brightness is there."""
    return [PRESENT if float(image[SPOT].mean()) > 0.6 else ABSENT for image in images]


@pytest.mark.parametrize("method", METHODS)
def test_the_place_that_a_writer_reads_stands_out(method: str) -> None:
    row = METHODS[method]
    asked: list[int] = []

    def write(images: Iterable[FloatImage]) -> list[str]:
        texts = reads_the_spot(images)
        asked.append(len(texts))
        return texts

    told: list[tuple[int, int]] = []
    found = row.run(write, film(), lambda text: text == PRESENT, progress=lambda *each: told.append(each))
    assert sum(asked) == row.reports and max(asked) == BLOCK
    assert told[-1] == (row.reports, row.reports)
    down, across = np.unravel_index(found.argmax(), found.shape)
    cells = len(found) // 8
    assert (down // cells, across // cells) == (4, 3)
    assert found.max() > 0.5
    far = found[:, 3 * len(found) // 4 :]
    assert np.abs(far).mean() < 0.2


def test_occlusion_counts_the_windows_over_a_cell_exactly() -> None:
    found = occlusion(reads_the_spot, film(), lambda text: text == PRESENT)
    expected = np.zeros((8, 8), np.float32)
    expected[3:6, 2:5] = np.outer(
        (0.5, 1, 0.5), (0.5, 1, 0.5)
    )  # all four windows over the spot hide it, of others some
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("run", [occlusion, random_masks])
def test_a_writer_that_does_not_look_gets_an_empty_map(run: object) -> None:
    for text in (PRESENT, ABSENT):
        found = run(lambda images, text=text: [text for _ in images], film(), lambda said: said == PRESENT)  # type: ignore[operator]
        assert not found.any() or text == ABSENT
    same = random_masks(reads_the_spot, film(), lambda said: said == PRESENT, seed=3)
    assert np.array_equal(same, random_masks(reads_the_spot, film(), lambda said: said == PRESENT, seed=3))


class Counting(System):
    """A system that says which images it was given."""

    name = title = group = kind = provenance = "counting"

    def content_hash(self) -> str:
        return "counting"

    def reports(self, *_: object) -> object:  # type: ignore[override]
        raise AssertionError

    def of_image(self, pixels: FloatImage, study: Study) -> str:
        return f"{study.study_id} {pixels.mean():.2f}"


def test_every_system_that_writes_can_be_given_several_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_SYSTEMS", str(tmp_path / "systems"))
    study = open_source("phantom:20:0").study(open_source("phantom:20:0").ids("test")[0])
    images = [np.full((8, 8), level, np.float32) for level in (0.0, 0.5, 1.0)]
    assert Counting().of_images(images, study) == [f"{study.study_id} {level}" for level in ("0.00", "0.50", "1.00")]

    # A program is started once for all of them, and each report belongs to its image.
    count = tmp_path / "runs.txt"
    level = "f\"{Image.open(os.path.join(images, case['image_path'][0])).getpixel((0, 0))}\""
    before = f'from PIL import Image; open({str(count)!r}, "a").write(f"{{len(cases)}} ")'
    theirs = added.add_program("Theirs", read_command(program(tmp_path / "theirs", level, before), tmp_path))
    assert theirs.of_images(iter(images), study) == ["0", "128", "255"]
    assert count.read_text() == "3 "
    silent = program(tmp_path / "silent", '"x"', before="cases = dict(list(cases.items())[:2])")
    with pytest.raises(CXRLensError, match=f"Silent gave no report of study {study.study_id}-2"):
        added.add_program("Silent", read_command(silent, tmp_path)).of_images(images, study)
