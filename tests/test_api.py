"""``import cxr_lens``: what a notebook does, against what pages and commands do."""

from __future__ import annotations

import html
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cxr_lens
from core.api import drawing
from core.bundles.inference import write_reports
from core.bundles.library import BundleLibrary
from core.studies.images import ImageError
from core.studies.model_image import of_image
from core.types import CXRLensError
from tests import documented, needs
from tests.conftest import BUNDLES, ROOT
from tests.images import making

pytestmark = [pytest.mark.numeric, needs.BUNDLES.unless(BUNDLES.is_dir())]

NAME = "phantom-fve-m2"


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    studies = cxr_lens.studies("phantom", count=40)
    return np.round(studies.image(studies.split("test")[0], 128) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pair() -> cxr_lens.Pair:
    return cxr_lens.load(NAME)


@pytest.fixture(scope="module")
def report(pair: cxr_lens.Pair, film: np.ndarray) -> cxr_lens.WrittenReport:
    return pair.write(film)


def test_importing_it_takes_a_moment_and_brings_no_torch() -> None:
    code = "import sys, time; begun = time.perf_counter(); import cxr_lens; print(time.perf_counter() - begun); "
    code += "sys.exit(bool({'torch', 'pandas', 'streamlit'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain = subprocess.run([sys.executable, "-c", "pass"], cwd=ROOT, check=False)
    assert plain.returncode == 0
    assert float(done.stdout) < 3  # idle 0.01 s


def test_it_has_ten_names_and_says_so() -> None:
    assert len(cxr_lens.__all__) == 10
    assert set(dir(cxr_lens)) == set(cxr_lens.__all__)
    for name in cxr_lens.__all__:
        assert getattr(cxr_lens, name) is not None
    with pytest.raises(AttributeError, match="It has CXRLensError, Pair"):
        cxr_lens.train  # noqa: B018


def test_a_pair_writes_what_commands_write(report: cxr_lens.WrittenReport, film: np.ndarray) -> None:
    model = BundleLibrary(BUNDLES).load(NAME)
    ((_, expected),) = write_reports([model], of_image(film.astype(np.float32) / 255))
    assert report.text == expected.text
    assert report.words == expected.words
    assert report.word_attention is not None and report.word_attention.shape[0] == len(report.words)
    assert report.cls_attention is not None and report.cls_attention.sum() == pytest.approx(1, abs=1e-3)
    assert set(report.labels.values()) <= {"positive", "negative", "uncertain"}
    assert report.text in repr(report)


def test_every_form_of_a_film_is_read_alike(film: np.ndarray, tmp_path: Path) -> None:
    picture = Image.fromarray(film)
    path, data = tmp_path / "film.png", io.BytesIO()
    picture.save(path)
    picture.save(data, "PNG")
    forms = [path, str(path), data.getvalue(), picture, film, film.astype(np.uint16) * 257, film / 255]
    hashes = {cxr_lens.read(form).pixels.round(4).tobytes() for form in forms}
    assert len(hashes) == 1
    read = cxr_lens.read(path)
    assert cxr_lens.read(read) is read
    dataset = pydicom.dcmread(io.BytesIO(making.dicom(making.CHEST12, ViewPosition="PA")))
    assert cxr_lens.read(dataset).view == "PA"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (7, "not a value of type int"),
        (None, "not a value of type NoneType"),
        (np.zeros((3, 64, 64)), "An array is (height, width)"),
        (np.full((64, 64), 2.0), "must lie between 0 and 1"),
        (np.full((64, 64), np.nan), "must lie between 0 and 1"),
        (np.zeros((64, 64), dtype=np.int32) - 1, "must lie between 0 and 65535"),
        (np.zeros((64, 64), dtype=bool), "not bool"),
        (pydicom.Dataset(), "a DICOM dataset without pixels"),
        ("no such film.png", "no such film.png"),
    ],
)
def test_what_is_no_film_gets_a_sentence(value: object, told: str) -> None:
    with pytest.raises(ImageError) as refused:
        cxr_lens.read(value)
    assert told in str(refused.value)


def test_a_name_that_is_no_bundle_gets_the_nearest(tmp_path: Path) -> None:
    assert NAME in cxr_lens.bundles()
    with pytest.raises(CXRLensError, match="Did you mean 'phantom-fve-m2'"):
        cxr_lens.load("phantom-fve-m3")
    with pytest.raises(CXRLensError, match="There is no bundle in"):
        cxr_lens.load(NAME, folder=tmp_path)
    with pytest.raises(CXRLensError, match="The device 'no such' cannot be used here"):
        cxr_lens.load(NAME, device="no such")


def test_a_word_is_explained_where_it_is_and_nothing_else(
    pair: cxr_lens.Pair, report: cxr_lens.WrittenReport, film: np.ndarray
) -> None:
    word = next(each for each in report.words if each.isalpha())
    found = pair.explain(report, word=word, method="attention")
    assert found.has_map and found.filters is None
    assert found.map.shape == film.shape
    assert word in repr(found)
    assert pair.explain(report, sentence=0, method="cls-attention").map.mean() == pytest.approx(1, abs=0.01)
    for asked, told in (
        ({"word": "zebra"}, "zebra"),
        ({"word": word, "sentence": 0}, "one thing at a time"),
        ({"word": word, "method": "guess"}, "Unknown method 'guess'"),
    ):
        with pytest.raises(CXRLensError, match=told):
            pair.explain(report, **asked)
    with pytest.raises(CXRLensError, match="Ask that pair"):
        cxr_lens.load("phantom-dve-m2").explain(report)


def test_a_notebook_sees_the_film_the_marked_text_and_the_map(
    pair: cxr_lens.Pair, report: cxr_lens.WrittenReport, film: np.ndarray
) -> None:
    shown = report._repr_html_()
    assert shown.count("data:image/jpeg;base64,") == 1
    assert "Research use only" in shown
    for mention in report.labeled.mentions:
        assert f'title="{mention.observation}: {mention.state}' in shown
    found = pair.explain(report, sentence=0, method="occlusion")
    assert found.picture(side=200).size == (200, 200)
    assert "data:image/jpeg;base64," in found._repr_html_()
    filters = cxr_lens.load("phantom-ccve-m2")
    bars = filters.explain(filters.write(film), sentence=0, method="attention")
    assert len(bars.filter_names) == 13 == bars._repr_html_().count("<tr>")
    with pytest.raises(CXRLensError, match="show them as bars"):
        bars.picture()


def test_a_map_colours_where_it_is_strong_and_leaves_the_film_elsewhere() -> None:
    pixels = np.linspace(0, 1, 64 * 32, dtype=np.float32).reshape(64, 32)
    values = np.zeros((64, 32), dtype=np.float32)
    values[10:20, 5:15], values[40:50, 5:15] = 3, -1.5
    picture = np.asarray(drawing.film_with_map(pixels, values, side=64)).astype(int)
    grey = np.asarray(drawing.film(pixels, side=64)).astype(int)
    assert picture.shape == (64, 32, 3)
    assert (picture[30] == grey[30, :, None]).all()
    speaks_for, against = picture[15, 10], picture[45, 10]
    assert speaks_for[0] > speaks_for[2] + 100
    assert 40 < against[2] - against[0] < speaks_for[0] - speaks_for[2]
    assert (np.asarray(drawing.film_with_map(pixels, values * 0, side=64)) == grey[..., None]).all()


@settings(max_examples=50)
@given(st.text(alphabet="<>&'\"ab pleural effusion.", max_size=80))
def test_a_text_is_shown_as_it_is_whatever_it_holds(text: str) -> None:
    shown = cxr_lens.label(text)._repr_html_()
    (words,) = re.findall(r"<div>(.*?)</div>", shown, re.DOTALL)
    assert html.unescape(re.sub(r"</?span[^>]*>", "", words)) == text
    assert not re.search(r"<(?!/?(div|span)\b)", shown)


def test_readme_s_five_lines_run(film: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(film).save("film.png")
    (lines,) = documented.blocks("README.md", "python")
    exec(lines, {})
    assert Image.open("why.png").size[0] > 100


def test_reports_are_labelled_and_scored() -> None:
    with pytest.raises(CXRLensError, match="not a value of type NoneType"):
        cxr_lens.label(None)
    assert cxr_lens.label("No edema.").labels == {"Edema": "negative", "No Finding": "positive"}
    labels = cxr_lens.label("Small left effusion. No pneumothorax.").states
    assert (str(labels["Pleural Effusion"]), str(labels["Pneumothorax"])) == ("positive", "negative")
    references = ["Small left effusion.", "The lungs are clear.", "Large heart."]
    scores = cxr_lens.score(references, references, resamples=50)
    assert scores.loc["bleu_4", "value"] == pytest.approx(1, abs=1e-6)
    assert scores.loc["f1", "low"] <= scores.loc["f1", "value"] <= scores.loc["f1", "high"]
    both = cxr_lens.score(references, {"same": references, "other": references[::-1]}, resamples=50)
    assert both.loc[("same", "bleu_1"), "value"] > both.loc[("other", "bleu_1"), "value"]
    for texts, told in ((["one"], "1 texts for 3 references"), (["a", None, "c"], "Text 1"), ("abc", "not one string")):
        with pytest.raises(CXRLensError, match=told):
            cxr_lens.score(references, texts)


def test_studies_are_counted_and_found() -> None:
    studies = cxr_lens.studies("phantom", count=40)
    assert len(studies) == 40
    table = studies.table()
    assert list(table.index) == [each.study_id for each in studies]
    assert (table["Edema"] == [str(each.labels["Edema"]) for each in studies]).all()
    assert repr(studies).startswith("40 studies of phantom (")
    first = studies[0]
    assert studies[first.study_id] == first
    assert studies[-1] == list(studies)[-1]
    assert len(studies.split("test")) == sum(each.split == "test" for each in studies)
    with pytest.raises(CXRLensError, match=f"Did you mean '{first.study_id}'"):
        studies[first.study_id + "x"]
    with pytest.raises(IndexError, match="There are 40 studies"):
        studies[40]
    with pytest.raises(CXRLensError, match="A split is"):
        studies.split("held out")
    with pytest.raises(CXRLensError):
        cxr_lens.studies("no such folder")
