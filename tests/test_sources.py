"""Sources of studies: each kind opened by its name, asked the same questions, and what each says it lacks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.studies.census import Notes
from core.studies.folder import FolderSource, UploadSource
from core.studies.images import read_image
from core.studies.index import ReleaseError, StudyEntry, Told, write_index
from core.studies.openi import index_openi
from core.studies.source import Source, UnknownStudyError, age_group, sex_in_words
from core.studies.sources import Catalogue, SourceError, local_indexes, open_source, source_key
from core.types import SPLITS, CXRLensError, StudySource
from core.views import lateral_note, plain_view, view_choices
from tests.conftest import ROOT
from tests.openi_tree import png, write_kaggle


def pictures(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        (folder / f"{name}.png").write_bytes(png(number))
    return folder


def openi_index(folder: Path) -> Path:
    return index_openi(write_kaggle(folder / "release"), folder / "index").folder


def phantoms(folder: Path) -> Source:
    return open_source("phantom:30:1")


def index(folder: Path) -> Source:
    return open_source(str(openi_index(folder)))


def images(folder: Path) -> Source:
    return open_source(str(pictures(folder / "pictures", "s1", "s2")))


def uploads(folder: Path) -> Source:
    return UploadSource({name: read_image(png(number)) for number, name in enumerate(("a.png", "b.png"))})


KINDS: list[Callable[[Path], Source]] = [phantoms, index, images, uploads]


@pytest.fixture(params=KINDS, ids=lambda make: make.__name__)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    found: Source = request.param(tmp_path)
    return found


def test_every_source_answers_every_question(source: Source) -> None:
    protocol: StudySource = source
    assert source.name and source.key and source.title and len(protocol.fingerprint()) == 16
    assert source.splits() and set(source.splits()) == {split for split in SPLITS if source.ids(split)}
    for split in SPLITS:
        studies = source.studies(split)
        assert [study.study_id for study in studies] == list(source.ids(split))
        for study in studies[:1]:
            assert study == source.study(study.study_id) and study.split == split
            film = source.original(study.study_id)
            (read,) = [image for image in source.images(study.study_id) if image.read]
            assert (read.study_id, read.view, read.earlier) == (study.study_id, study.view, False)
            same = source.original(study.study_id, read.image_id)
            assert same.sha256 == film.sha256 and same.pixels.shape == film.pixels.shape
            assert source.image(study.study_id, 48).shape == (48, 48)
            assert source.for_model(study.study_id, 48).ndim == 2
            for truth in source.masks(study.study_id, film.pixels.shape):
                assert source.truth and truth.name and truth.mask.shape == film.pixels.shape and truth.mask.any()
            assert all(source.traits(study).values())
            assert source.find(study.study_id.lower())[0] == study.study_id
    assert len(source.find("", 2)) == 2


def test_what_a_source_does_not_have_is_said_with_what_looks_like_it(source: Source) -> None:
    known = source.ids(source.splits()[0])[0]
    with pytest.raises(UnknownStudyError, match=f"There is no study '{known}x' in .*Did you mean .*{known}"):
        source.study(f"{known}x")
    for ask in (source.images, source.original, lambda study_id: source.image(study_id, 48)):
        with pytest.raises(CXRLensError, match="no study"):
            ask(f"{known}x")
    with pytest.raises(UnknownStudyError):
        source.original(known, "another")


def test_another_studys_image_is_never_given(source: Source) -> None:
    one, other = [study_id for split in source.splits() for study_id in source.ids(split)][:2]
    others = next(image.image_id for image in source.images(other) if image.read)
    shown = {image.image_id for image in source.images(one)}
    if others not in shown:  # it may be an earlier study of the same patient
        with pytest.raises(UnknownStudyError):
            source.original(one, others)


@pytest.mark.parametrize("make", [phantoms, index, images])
def test_a_source_is_opened_again_by_its_key(tmp_path: Path, make: Callable[[Path], Source]) -> None:
    source = make(tmp_path)
    again = open_source(source.key)
    assert (again.key, again.fingerprint(), again.splits()) == (source.key, source.fingerprint(), source.splits())
    assert source_key(source.key) == source.key


def test_names_are_written_in_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_key("phantom") == "phantom:2000:0"
    assert source_key("phantom:7") == "phantom:7:0"
    pictures(tmp_path / "scans", "s1")
    openi_index(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert source_key("scans") == f"images:{tmp_path / 'scans'}"
    assert source_key("index") == f"index:frontal:{tmp_path / 'index'}"
    assert source_key("index:both:index") == f"index:both:{tmp_path / 'index'}"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("phantm", "Did you mean phantom?"),
        ("phantom:a:b", "should be phantom:COUNT:SEED"),
        ("phantom:0:0", "1 to 1,000,000"),
        ("phantom:1:2:3", "should be phantom:COUNT:SEED"),
        ("index:upside:{here}/index", "'upside' is not a choice for openi. Known: frontal, both"),
        ("{here}/indx", "Did you mean {here}/index?"),
        ("{here}/release", "holds images in its folders only. Index it: cxr-lens data folder"),
        ("{here}/empty", "holds no image"),
        ("images:{here}/gone", "cannot be read"),
        ("index:frontal:{here}/empty", "holds no index of studies"),
        ("", "Which studies? It should be phantom"),
    ],
)
def test_a_name_that_names_nothing_is_a_sentence(tmp_path: Path, spec: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    openi_index(tmp_path)
    with pytest.raises(CXRLensError) as error:
        open_source(spec.format(here=tmp_path))
    assert said.format(here=tmp_path) in str(error.value)


def test_an_address_opens_what_is_offered_and_nothing_else(tmp_path: Path) -> None:
    pictures(tmp_path / "a" / "My scans", "s1")
    pictures(tmp_path / "b" / "My scans", "s2")
    offered = Catalogue(["phantom:30:1", str(tmp_path / "a" / "My scans"), str(tmp_path / "b" / "My scans"), "gone"])
    first, second, third, gone = offered.specs
    assert (first, second, gone) == ("phantom", "my-scans", "gone") and third.startswith("my-scans-")
    assert offered.open(second).ids("test") == ("s1",) and offered.open(third).ids("test") == ("s2",)
    assert offered.open(first) is offered.open(first)
    assert offered.titles()["gone"] == "gone" and offered.titles()[second] == "Images in My scans"
    for name in (str(tmp_path), f"images:{tmp_path}", "", "my-scan"):
        with pytest.raises(SourceError, match="There are: phantom, my-scans"):
            offered.open(name)
    with pytest.raises(SourceError, match="Did you mean 'my-scans'"):
        offered.open("my-scan")


def test_a_study_has_all_its_images_and_models_read_a_frontal_one(tmp_path: Path) -> None:
    source = index(tmp_path)
    assert [(image.view, image.read, image.title) for image in source.images("CXR1")] == [
        ("FRONTAL", True, "frontal view"),
        ("LATERAL", False, "lateral view"),
    ]
    frontal, lateral = source.images("CXR1")
    shown = [source.original("CXR1", image.image_id).sha256 for image in (frontal, lateral)]
    assert shown[0] == source.original("CXR1").sha256 != shown[1]
    with pytest.raises(UnknownStudyError, match="'CXR5' of Open-i is left out: it has no image for views=frontal"):
        source.study("CXR5")  # it has a lateral one only


def test_a_phantoms_earlier_image_is_the_visit_before(tmp_path: Path) -> None:
    source = phantoms(tmp_path)
    later = next(study_id for study_id in source.find("-2"))
    now, before = source.images(later)
    assert (before.study_id, before.earlier, before.read) == (later.replace("-2", "-1"), True, False)
    assert before.title.endswith(", earlier") and now.read
    assert source.original(later, before.image_id).sha256 == source.original(before.study_id).sha256


def test_studies_without_findings_are_shown_and_not_learned_from(tmp_path: Path) -> None:
    folder = openi_index(tmp_path)
    every = {study_id for split in SPLITS for study_id in open_source(str(folder)).ids(split)}
    learned = {study_id for split in SPLITS for study_id in open_source(str(folder), findings_only=True).ids(split)}
    assert every - learned == {"CXR3"}  # an impression only
    assert open_source(str(folder)).study("CXR3").impression == "Left-sided effusion."


def test_one_study_can_be_read_before_a_release_is_labelled(tmp_path: Path) -> None:
    source = index(tmp_path)
    before = source.study("CXR6")
    assert not list((tmp_path / "index").glob("labels-rules/*"))
    (after,) = [study for study in source.studies("train") if study.study_id == "CXR6"] or [source.study("CXR6")]
    assert list((tmp_path / "index").glob("labels-rules/part-*"))
    assert (before.labels, before.cluster_texts, before.findings) == (after.labels, after.cluster_texts, after.findings)


def test_an_image_that_is_gone_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    source = index(tmp_path)
    paths = {study_id: source.index.file(source._at("path", source._place(study_id))) for study_id in ("CXR1", "CXR2")}
    paths["CXR1"].unlink()
    with pytest.raises(CXRLensError, match="CXR1: the file cannot be read"):
        source.original("CXR1")
    assert source.original("CXR2").pixels.shape == (48, 40)
    (tmp_path / "release").rename(tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match=f"data move .* --to {tmp_path / 'elsewhere'}"):
        source.original("CXR2")


def test_a_folders_study_is_its_files_name(tmp_path: Path) -> None:
    source = FolderSource(pictures(tmp_path / "pictures", "s1"))
    assert source.study("s1").findings == "" and not source.has_reports and not source.has_labels
    assert source.truth == "" and source.masks("s1", (48, 40)) == ()


@pytest.mark.parametrize(
    ("written", "view"),
    [
        ("PA", "PA"), ("pa", "PA"), ("Posterior-anterior", "PA"), ("POSTERO_ANTERIOR", "PA"),
        ("AP_horizontal", "AP"), ("AP SUPINE", "AP"), ("Frontal", "FRONTAL"), ("L", "LATERAL"), ("LL", "LATERAL"),
        ("Lateral", "LATERAL"), ("COSTAL", "COSTAL"), ("nan", ""), ("", ""), (" - ", ""),
    ],
)  # fmt: skip
def test_views_are_written_in_many_ways(written: str, view: str) -> None:
    assert plain_view(written) == view
    assert plain_view(plain_view(written)) == plain_view(written)


def test_any_data_has_choices_of_views() -> None:
    for name in ("openi", "mimic_cxr", "table", "something new"):
        choices = view_choices(name)
        assert "frontal" in choices and "LATERAL" not in (choices["frontal"].views or ())
    assert "" in (view_choices("table")["frontal"].views or ())
    assert lateral_note("LATERAL", {"source": "table", "views": "frontal"})
    assert not lateral_note("LATERAL", {"source": "table", "views": "all"})


@pytest.mark.parametrize(
    ("age", "group"),
    [("63", "50 and over"), ("063Y", "50 and over"), ("49", "under 50"), ("011M", "under 50"), ("50.0", "50 and over"),
     ("", ""), ("old", ""), ("Y", ""), ("411", ""), ("-3", "")],
)  # fmt: skip
def test_ages_are_grouped(age: str, group: str) -> None:
    assert age_group(age) == group
    assert [sex_in_words(each) for each in ("F", "male", "O", "")] == ["female", "male", "", ""]


def test_an_index_says_what_it_is_and_older_ones_are_still_opened(tmp_path: Path) -> None:
    from core.studies.index import ImageEntry, open_index

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(0))
    entry = StudyEntry("a", "p", "test", "", "", {"site": "north"}, [ImageEntry("a", "a.png", "", 9)], with_text=False)
    told = Told("Ours", reports=False, traits=("site",))
    write_index(tmp_path / "index", "table", tmp_path / "images", {}, [entry], Notes(), told)
    source = open_source(str(tmp_path / "index"))
    assert (source.title, source.has_reports, source.has_labels) == ("Ours", False, False)
    assert source.traits(source.study("a")) == {"Site": "north"}
    assert np.array_equal(source.original("a").pixels, read_image(png(0)).pixels)
    old = openi_index(tmp_path / "old")
    about = (old / "index.json").read_text(encoding="utf-8")
    assert '"told"' in about
    import json

    content = json.loads(about)
    del content["told"]
    (old / "index.json").write_text(json.dumps(content), encoding="utf-8")
    assert open_index(old).told == Told("Open-i")


def test_indexes_are_found_where_they_are_told_to_be_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dashboard import settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CXR_INDEX", raising=False)
    assert local_indexes() == [] and settings.sources() == []
    index_openi(write_kaggle(tmp_path / "release"), Path("data", "mine"))
    assert local_indexes() == [Path("data", "mine")] and settings.sources() == [str(tmp_path / "data" / "mine")]
    index_openi(tmp_path / "release", Path("data", "openi"))
    assert set(settings.sources()) == {str(tmp_path / "data" / each) for each in ("mine", "openi")}
    monkeypatch.setenv("CXR_INDEX", "elsewhere")
    assert "elsewhere" in settings.sources()


def test_opening_sources_needs_no_torch() -> None:
    code = "import sys, core.studies.sources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
