"""Sources of studies on the pages: every kind opens alike, the address keeps it, and what goes wrong is a sentence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from core.studies.columns import Columns
from core.studies.folder import FolderSource
from core.studies.index import ImageEntry, Notes, StudyEntry, Told, move_index, write_index
from core.studies.indexed import IndexedSource
from core.studies.table import index_table
from dashboard import access, plain, settings
from dashboard.services import bundles, reports, sources, studies
from tests.app_pages import APP, linked_bundles, needs_bundles, open_page, words_on
from tests.images.ramps import windowed
from tests.openi_tree import png
from tests.test_dicomweb import OTHER, STUDY, Server, files, serving
from tests.test_table import write_images, write_rows

NAMED = {"id": "study", "image": "image", "view": "view", "findings": "report", "patient": "patient"}
COLUMNS = Columns(title="Our ward", of={field: (column,) for field, column in NAMED.items()})
REPORTS = {"S1": "The heart is large.", "S2": "No pneumothorax. The lungs are clear.", "S3": "Left pleural effusion."}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No models, which take their time, and no studies but those that come along."""
    monkeypatch.setenv("CXR_BUNDLES", str(tmp_path / "none"))
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("CXR_SOURCES", "CXR_INDEX", "CXR_DICOMWEB"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pair(alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pair, which learned from what is computed."""
    monkeypatch.delenv("CXR_BUNDLES")
    monkeypatch.setenv("CXR_BUNDLES", str(linked_bundles(tmp_path / "bundles", "phantom-ccve-m2", "shared")))


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the images of an index that the dashboard offers; see `index_ward`."""
    monkeypatch.setenv("CXR_SOURCES", str(tmp_path / "ward"))
    return index_ward(tmp_path)


def index_ward(folder: Path) -> Path:
    """An index of a table, of three studies with a frontal and a lateral image each; the folder of the images."""
    images = folder / "release" / "films"
    names = [f"{study}-{view}.png" for study in REPORTS for view in ("LL", "PA")]
    write_images(images, *names)
    rows = [
        {"study": name[:2], "patient": f"of-{name[:2]}", "image": name, "view": name[3:5], "report": REPORTS[name[:2]]}
        for name in names
    ]
    index_table(images, write_rows(folder / "table.csv", rows), folder / "ward", COLUMNS, only_test=True)
    return images


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A DICOMweb server."""
    for name in ("_USER", "_PASSWORD", "_TOKEN"):
        monkeypatch.delenv(f"CXR_DICOMWEB{name}", raising=False)
    with serving(files(tmp_path / "held")) as (server, url):
        monkeypatch.setenv("CXR_DICOMWEB", url)
        yield server


def offered(app: AppTest) -> list[str]:
    """What the list of studies offers."""
    return list(app.selectbox(key="study_choice").options)


def shown(app: AppTest) -> str:
    """The study whose picture the page shows; "" where it shows none."""
    titles = [plain.shown(each.value) for each in app.markdown if each.value.startswith("**") and " · " in each.value]
    return str(titles[0]).split("**")[1] if titles else ""


def said(app: AppTest) -> list[str]:
    """Errors and warnings, but that models do not fit or are not there, and that a file names no display window."""
    usual = ("synthetic X-rays only", "There is no bundle", "No model with the CCVE encoder", "no display window")
    every = [plain.shown(each.value) for each in (*app.error, *app.warning)]
    return [each for each in every if not any(words in each for words in usual)]


# --- every kind opens ---


@needs_bundles
def test_an_index_of_a_table_opens_with_its_reports_and_findings(ward: Path, pair: None) -> None:
    app = open_page("read", source="ward")
    assert not [each for each in said(app) if "unlike the films" not in each]  # its images are drawings
    assert offered(app) == ["S1 · Cardiomegaly", "S2 · No Finding", "S3 · Pleural Effusion"]
    assert shown(app) == "S1" and "PA view" in words_on(app)
    assert "There is no radiologist's report" not in words_on(app)
    app.selectbox(key="finding").select("Pleural Effusion").run()
    assert offered(app) == ["S3 · Pleural Effusion"] and shown(app) == "S3"


def test_the_models_read_the_frontal_image_and_the_lateral_one_can_be_looked_at(ward: Path) -> None:
    app = open_page("read", source="ward")
    (choice,) = [each for each in app.button_group if each.label == "Image"]
    assert list(choice.options) == ["PA view, read by the models", "lateral view"]
    case = studies.open_study("S1", "ward")
    assert case.view == "PA"
    other = next(each for each in studies.images(case) if not each.read)
    assert other.view == "LATERAL"
    choice.set_value(other.image_id).run()
    assert not app.exception
    assert "The models did not read this image" in words_on(app)
    assert "the models know frontal views" not in words_on(app)


def test_the_name_of_the_first_page_leads_to_it_with_all_that_is_asked(ward: Path) -> None:
    app = AppTest.from_file(APP, default_timeout=60)
    app._page_hash = calc_hash("read")  # as the browser asks for /read
    app.query_params["source"], app.query_params["study"] = "ward", "S2"
    app.query_params["FVE"] = ["m2", "transformer"]
    app.run()
    assert not app.exception and shown(app) == "S2"
    assert app.query_params["source"] == "ward" or app.query_params["source"] == ["ward"]


def test_a_study_with_a_lateral_image_alone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "side.dcm").write_bytes(windowed(ViewPosition="LL", PixelSpacing=[0.2, 0.2]))
    monkeypatch.setenv("CXR_SOURCES", str(folder))
    app = open_page("read", source="pictures")
    assert shown(app) == "side"
    assert "lateral view; the models know frontal views" in " ".join(said(app))
    assert "the file gives 0.2 mm per pixel" in words_on(app)


def test_a_folder_of_images_has_neither_reference_nor_a_choice_of_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "pictures", "a.png", "b.png")
    monkeypatch.setenv("CXR_SOURCES", str(tmp_path / "pictures"))
    app = open_page("read", source="pictures")
    assert offered(app) == ["a", "b"] and shown(app) == "a"
    assert [each.key for each in app.selectbox] == ["study_choice"]
    assert "There is no radiologist's report to compare with" in words_on(app)
    app.button(key="next").click().run()
    assert shown(app) == "b"


def test_what_stands_for_removed_words_is_explained_beside_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REPORTS, "S2", "Lungs are XXXX and clear.")
    monkeypatch.setenv("CXR_SOURCES", str(tmp_path / "ward"))
    index_ward(tmp_path)
    assert reports.REMOVED in words_on(open_page("read", source="ward", study="S2"))
    assert reports.REMOVED not in words_on(open_page("read", source="ward", study="S1"))


def test_before_a_file_is_given_the_page_says_what_comes_and_where_a_sample_is() -> None:
    told = words_on(open_page("read", source="upload"))
    assert "the models write a report of each" in told
    assert "not stored" in told
    assert "*Example radiographs*" in told


def test_example_radiographs_come_with_credit_boxes_and_labels() -> None:
    app = open_page("read", source="example")
    assert not said(app)
    assert "NIH Clinical Center" in words_on(app)
    assert "There is no radiologist's report, but labels" in words_on(app)
    assert "\\*" not in words_on(app)  # a mark of Markdown that is shown as it is
    boxed = [name for name in studies.visible_ids("example") if studies.open_study(name, "example").masks]
    assert boxed
    assert "True findings: " in words_on(open_page("read", source="example", study=boxed[0]))
    without = next(name for name in studies.visible_ids("example") if name not in boxed)
    assert "True findings: " not in words_on(open_page("read", source="example", study=without))


@needs_bundles
@pytest.mark.usefixtures("pair")
def test_a_lateral_image_never_goes_silently_into_a_model_that_knows_frontal_views(
    ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = studies.open_study("S1", "ward")
    assert not studies.view_notes(case)
    (told,) = studies.view_notes(replace(case, view="LATERAL"))
    assert "the models know frontal views" in told
    for each in ward.glob("*-PA.png"):
        each.unlink()
    names = [f"{study}-LL.png" for study in REPORTS]
    rows = [{"study": name[:2], "patient": name, "image": name, "view": "LL", "report": "Clear."} for name in names]
    index_table(ward, write_rows(tmp_path / "sides.csv", rows), tmp_path / "sides", COLUMNS, only_test=True)
    monkeypatch.setenv("CXR_SOURCES", str(tmp_path / "sides"))
    app = open_page("read", source="sides")  # a table of laterals opens, and every study of it says what it is
    assert shown(app) == "S1" and "the models know frontal views" in " ".join(said(app))
    assert "lateral view" in words_on(app)
    cases = open_page("cases", source="sides")
    assert "None of these images is a frontal view" in words_on(cases)


def test_a_stranger_sees_at_once_what_there_is_to_read() -> None:
    app = open_page("read")
    (choice,) = [each for each in app.button_group if each.label == "Studies from"]
    assert list(choice.options) == ["Synthetic X-rays with known truth", "Example radiographs", "Your own files"]
    assert "draft reports of chest X-rays" in words_on(app)


@needs_bundles
@pytest.mark.parametrize("name", ["example", "ward"])
def test_filters_opens_every_source(name: str, ward: Path, pair: None) -> None:
    app = open_page("filters", source=name)
    assert not said(app) and any(each.label == "Pictures" for each in app.button_group)
    assert len(offered(app)) == (16 if name == "example" else 3)
    assert app.query_params["source"] == name
    assert ("NIH Clinical Center" in words_on(app)) == (name == "example")  # it stands beside the images


def test_about_lists_the_data(ward: Path) -> None:
    told = words_on(open_page("about"))
    assert "Our ward" in told and "3 studies" in told and "NIH Clinical Center" in told


# --- the address ---


def test_the_address_keeps_the_source_from_page_to_page(ward: Path) -> None:
    app = open_page("read", source="ward")
    app.button(key="next").click().run()
    assert (app.query_params["source"], app.query_params["study"], shown(app)) == ("ward", "S2", "S2")
    app.switch_page("app_pages/about.py").run()
    app.switch_page("app_pages/filters.py").run()
    assert (app.query_params["source"], app.query_params["study"]) == ("ward", "S2")


def test_a_source_that_is_left_and_chosen_again_has_its_study_open_still(ward: Path) -> None:
    app = open_page("read", source="ward", study="S3")
    choice = next(each for each in app.button_group if each.label == "Studies from")
    choice.set_value("phantom").run()
    assert shown(app).startswith("P0") and app.query_params["source"] == "phantom"
    choice = next(each for each in app.button_group if each.label == "Studies from")
    choice.set_value("ward").run()
    assert shown(app) == "S3" and not said(app)


@pytest.mark.parametrize("name", ["nope", "wrad", "../../etc", "phantom:10:0", "Synthetic X-rays (demo)"])
def test_an_unknown_source_is_named_and_the_first_is_shown(name: str, ward: Path) -> None:
    app = open_page("read", source=name)
    (told,) = said(app)
    assert f"There are no studies '{name}' here." in told and "phantom, example, ward" in told
    assert shown(app).startswith("P0")
    app.button(key="next").click().run()
    assert app.query_params["source"] == "phantom"


def test_an_unknown_study_is_named_with_what_looks_like_it(ward: Path) -> None:
    app = open_page("read", source="ward", study="S9")
    (told,) = said(app)
    assert "There is no study 'S9' in Our ward. Did you mean 'S" in told and told.endswith("Showing another.")
    assert shown(app) == "S1"


def test_two_sources_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [write_images(tmp_path / place / "upload", "a.png") for place in ("one", "two")]
    monkeypatch.setenv("CXR_SOURCES", ",".join(map(str, folders)))
    first, second, own = [name for name in sources.names() if name.startswith("upload")]
    assert own == sources.UPLOAD and len({first, second, own}) == 3
    assert {sources.source(first).key, sources.source(second).key} == {f"images:{folder}" for folder in folders}
    assert len(set(sources.names().values())) == len(sources.names())


# --- what goes wrong ---


def test_a_study_whose_image_is_gone_is_a_sentence_and_the_next_one_opens(ward: Path) -> None:
    (ward / "S1-PA.png").unlink()
    app = open_page("read", source="ward")
    (told,) = said(app)
    assert "S1" in told and told.count(". ") <= 2
    assert shown(app) == ""
    assert studies.thumbnails(["S1", "S2"], "ward")[0] is None
    assert studies.thumbnails(["S1", "S2"], "ward")[1]
    app.button(key="next").click().run()
    assert shown(app) == "S2" and not said(app)


def test_another_image_that_is_gone_is_a_sentence_and_the_first_is_still_there(ward: Path) -> None:
    (ward / "S1-LL.png").unlink()
    app = open_page("read", source="ward")
    choice = next(each for each in app.button_group if each.label == "Image")
    read, other = studies.images(studies.open_study("S1", "ward"))
    choice.set_value(other.image_id).run()
    assert len(said(app)) == 1 and not app.exception
    choice = next(each for each in app.button_group if each.label == "Image")
    choice.set_value(read.image_id).run()
    assert shown(app) == "S1" and not said(app)


def test_a_moved_release_is_told_with_its_new_place_and_opens_once_that_is_said(ward: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(ward, moved)
    app = open_page("read", source="ward")
    (told,) = said(app)
    assert "not there any more" in told and f"--to {moved}" in told
    move_index(tmp_path / "ward", moved)
    app.run()
    assert shown(app) == "S1" and not said(app)


def test_a_source_that_cannot_be_opened_leaves_the_others(
    ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_SOURCES", f"{tmp_path / 'gone'},{tmp_path / 'ward'}")
    app = open_page("read", source="gone")
    assert "There are no studies at" in " ".join(said(app)) and shown(app) == ""
    choice = next(each for each in app.button_group if each.label == "Studies from")
    choice.set_value("ward").run()
    assert shown(app) == "S1" and not said(app)


def test_what_is_read_in_an_open_session_is_hidden_on_every_source(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "kept_back", lambda: frozenset({"S2"}))
    app = open_page("read", source="ward", study="S2")
    assert "hidden here until that session is closed" in " ".join(said(app))
    assert [each[:2] for each in offered(app)] == ["S1", "S3"]
    assert studies.find("S", 9, "ward") == ["S1", "S3"]


# --- one's own files ---


def upload(app: AppTest, *given: tuple[str, bytes]) -> AppTest:
    """Give files, after those that are given already."""
    for name, content in given:
        app.file_uploader[0].upload(name, content)
    return app.run()


def test_several_files_are_a_list_and_none_has_anothers_picture() -> None:
    app = open_page("read", source="upload")
    upload(app, ("a.png", png(1)), ("b.png", png(2)), ("a.png", png(3)))
    assert offered(app) == ["File 1", "File 2", "File 3"] and shown(app) == "File 1"
    pictures = []
    for _ in range(3):
        pictures.append(app.session_state["uploads"][shown(app)].sha256)
        if not app.button(key="next").disabled:
            app.button(key="next").click().run()
    assert shown(app) == "File 3" and len(set(pictures)) == 3
    assert "study" not in app.query_params  # an address cannot bring a file back


def test_a_file_that_cannot_be_read_takes_the_last_picture_away() -> None:
    app = open_page("read", source="upload")
    upload(app, ("good.png", png(1)))
    assert shown(app) == "File 1" and not said(app)
    upload(app, ("good.png", png(1)), ("bad.png", b"no picture"))
    upload(app, ("bad.png", b"no picture"))
    assert len(said(app)) == 1 and said(app)[0].startswith("File 1")
    assert shown(app) == ""


def test_two_views_of_one_study_stand_together() -> None:
    one, two = "1.2.840.1", "1.2.840.2"
    app = open_page("read", source="upload")
    files = [
        ("front", windowed(ViewPosition="PA", StudyInstanceUID=one)),
        ("side", windowed(ViewPosition="LL", StudyInstanceUID=one)),
        ("else", windowed(ViewPosition="PA", StudyInstanceUID=two)),
        ("picture.png", png(1)),
    ]
    upload(app, *files)
    assert "4 files are open: File 1, File 2, File 3, File 4. Images" in words_on(app)
    (views,) = [each for each in app.button_group if each.label == "Image"]
    assert views.options == ["PA view, read by the models", "lateral view"]
    views.set_value("File 2").run()
    assert "The models did not read this image" in words_on(app)
    app.button(key="next").click().run()
    app.button(key="next").click().run()
    assert shown(app) == "File 3" and not [each for each in app.button_group if each.label == "Image"]


def test_files_that_are_taken_away_are_gone() -> None:
    app = open_page("read", source="upload")
    upload(app, ("good.png", png(1)))
    app.file_uploader[0].clear().run()
    assert shown(app) == "" and not app.session_state["uploads"]


# --- a server ---


def test_files_and_servers_have_no_map_of_their_own_and_that_is_said(server: Server) -> None:
    for name, title in sources.names().items():
        told = f"{title}: no map of their own" in words_on(open_page("embeddings", source=name))
        assert told == (name in (sources.UPLOAD, "dicomweb"))


def test_a_server_is_asked_for_an_accession_number(server: Server) -> None:
    app = open_page("read", source="dicomweb")
    assert not said(app) and shown(app) == ""
    assert server.asked == []
    app.text_input(key="find").set_value("A-1").run()
    assert shown(app) == STUDY and not said(app)
    assert app.query_params["study"] == STUDY
    assert "PA view" in words_on(app) and "93 years" in words_on(app)
    linked = open_page("read", source="dicomweb", study=STUDY)  # as another viewer links to it
    assert shown(linked) == STUDY
    app.text_input(key="find").set_value("A-9").run()
    assert "No study is found by 'A-9'" in " ".join(said(app)) and shown(app) == ""


@pytest.mark.parametrize("fault", ["password", "503", "page"])
def test_a_server_that_refuses_is_a_sentence(server: Server, fault: str) -> None:
    server.fault = fault
    app = open_page("read", source="dicomweb")
    app.text_input(key="find").set_value("A-1").run()
    assert len(said(app)) == 1 and not app.exception and shown(app) == ""
    server.fault = ""
    app.text_input(key="find").set_value("A-2").run()
    assert shown(app) == OTHER and not said(app)


# --- many studies ---


def many(folder: Path, count: int) -> Path:
    """An index of so many studies, whose images are not there."""
    entries = (
        StudyEntry(
            f"s{number:06}", f"p{number // 3:06}", "test", "Lungs are clear.", "Normal.", {},
            [ImageEntry(f"s{number:06}", f"{number}.png", "PA", 1)],
        )
        for number in range(count)
    )  # fmt: skip
    write_index(folder, "table", folder, {}, entries, Notes(), Told("Many"))
    return folder


def test_of_many_studies_those_are_made_that_the_list_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_SOURCES", str(many(tmp_path / "many", 7_000)))
    made: list[Any] = []
    make = IndexedSource.study
    monkeypatch.setattr(IndexedSource, "study", lambda source, name: made.append(name) or make(source, name))
    app = open_page("read", source="many")
    assert len(offered(app)) == 20 and [each.key for each in app.selectbox] == ["study_choice"]
    app.text_input(key="find").set_value("s004321").run()
    assert app.session_state["study"] == "s004321" and [each.split(" ")[0] for each in offered(app)] == ["s004321"]
    app.text_input(key="find").set_value("P000021").run()  # a patient
    assert [each.split(" ")[0] for each in offered(app)] == ["s000063", "s000064", "s000065"]
    app.button(key="next").click().run()
    assert app.session_state["study"] == "s000064"
    app.text_input(key="find").set_value("").run()
    assert app.session_state["study"] == "s000064" and len(offered(app)) == 20
    app.button(key="next").click().run()
    assert app.session_state["study"] == "s000065"
    assert len(set(made)) < 60


# --- which models fit ---


@needs_bundles
def test_only_test_studies_are_shown_of_what_models_learned_from(pair: None, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = sources.source("phantom").splits()
    assert list(studies.visible_ids("phantom")) == list(sources.source("phantom").ids("test"))
    monkeypatch.setattr(bundles, "learned_from", lambda family, source: False)
    assert len(studies.visible_ids("phantom")) == sum(len(sources.source("phantom").ids(each)) for each in everything)


def test_settings_name_each_folder_once(ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tmp_path / "ward", tmp_path / "data" / "other")
    monkeypatch.setenv("CXR_INDEX", str(tmp_path / "ward"))
    monkeypatch.setenv("CXR_SOURCES", f" {tmp_path}/./ward , phantom:5:1 ,")
    found: Sequence[str] = settings.sources()
    assert found == [str(tmp_path / "ward"), "phantom:5:1", str(tmp_path / "data" / "other")]


def test_the_films_of_a_result_are_not_looked_for_at_each_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "S1.png").write_bytes(png(0))
    hashed: list[FolderSource] = []
    fingerprint, original = FolderSource(tmp_path / "films").fingerprint(), FolderSource.fingerprint
    monkeypatch.setattr(FolderSource, "fingerprint", lambda self: (hashed.append(self), original(self))[1])
    assert sources.with_images(fingerprint) is None
    monkeypatch.setenv("CXR_SOURCES", str(tmp_path / "films"))
    assert [sources.with_images(fingerprint) for _ in range(3)] == ["films"] * 3
    assert len(hashed) == 1
