"""A file whose name and tags name a patient, on every page that takes one: its name stays in the browser's memory."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pydicom
import pytest
from PIL import Image, PngImagePlugin
from playwright.sync_api import Browser, expect

from tests.browser.conftest import WAIT, Server, Watched, start_server, watch
from tests.browser.test_read import cards, radiograph, viewer, write_dicom

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900), pytest.mark.slow]

NAME = "ZZMARKERFAMILY"
"""In every tag and in the file's name."""


def dicom(path: Path) -> Path:
    """A radiograph whose tags all tell the patient's name."""
    dataset = pydicom.dcmread(write_dicom(path))
    for tag in (
        "PatientName", "PatientID", "AccessionNumber", "StudyDescription", "SeriesDescription", "StudyID",
        "InstitutionName", "ReferringPhysicianName", "OperatorsName", "ImageComments", "ProtocolName",
        "DeviceSerialNumber", "StationName", "PatientAddress", "OtherPatientIDs", "RequestedProcedureDescription",
    ):  # fmt: skip
        setattr(dataset, tag, f"{NAME}^{tag}"[:16] if tag in ("StudyID", "AccessionNumber", "StationName") else NAME)
    dataset.private_block(0x0029, NAME, create=True).add_new(1, "LO", NAME)
    dataset.save_as(path, enforce_file_format=True)
    return path


def png(path: Path) -> Path:
    """The same as PNG, with texts."""
    about = PngImagePlugin.PngInfo()
    for key in ("Title", "Author", "Description", NAME):
        about.add_text(key, NAME)
    Image.fromarray((radiograph() * 255).astype("uint8")).save(path, pnginfo=about)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server writes all that it writes, its temporary files too."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "temporary").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    """A server whose home and temporary folder are the test's own."""
    yield from start_server(place, TMPDIR=str(place / "temporary"), XDG_CACHE_HOME=str(place / "cache home"))


def has_name(content: bytes) -> bool:
    """Whether bytes tell the name, in any of the ways in which text is written."""
    ways = (NAME.encode(), NAME.encode("utf-16-le"), NAME.lower().encode(), quote(NAME).encode())
    return any(each in content for each in ways)


def written(folder: Path) -> Iterator[Path]:
    """All that is under a folder."""
    return (each for each in folder.rglob("*"))


@pytest.mark.parametrize("kind", ["dcm", "png"])
def test_a_patients_name_goes_nowhere(kind: str, browser: Browser, server: Server, place: Path, tmp_path: Path) -> None:
    path = (dicom if kind == "dcm" else png)(tmp_path / f"{NAME} Ann 1950-01-01.{kind}")
    assert has_name(path.read_bytes())
    watched = watch(browser, server.url)
    page, heard = watched.page, list[bytes]()
    page.on(
        "websocket",
        lambda socket: socket.on(
            "framereceived", lambda data: heard.append(data.encode() if isinstance(data, str) else data)
        ),
    )

    def looked_at() -> None:
        watched.settle()
        assert NAME not in page.url and NAME not in page.title()
        shown = page.locator("[data-testid=stMain]").evaluate(
            """main => { const copy = main.cloneNode(true);
            copy.querySelectorAll("[data-testid=stFileUploader]").forEach((each) => each.remove());
            const inner = [...main.querySelectorAll("*")].map((each) => each.shadowRoot?.innerHTML ?? "").join("");
            return copy.innerHTML + inner; }"""
        )
        assert NAME not in shown

    watched.open("?source=upload")
    page.locator('[data-testid="stFileUploader"] input[type="file"]').set_input_files(path)
    expect(cards(watched)).to_have_count(12, timeout=4 * WAIT)  # the models are loaded first
    expect(viewer(watched)).to_have_attribute("data-study", "File 1")
    looked_at()
    page.locator("article.card .word").first.click()  # an explanation
    looked_at()
    page.get_by_text("Where this study lies among the others").click()
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=WAIT)
    looked_at()
    for link in ("Filters", "Embeddings"):
        page.get_by_role("link", name=link).click()
        page.wait_for_timeout(1000)
        looked_at()
    _place_on_a_map(watched)
    looked_at()
    with page.expect_download(timeout=WAIT) as table:
        page.get_by_role("button", name="Map as CSV").click()
    assert not has_name(table.value.path().read_bytes()) and NAME not in table.value.suggested_filename
    page.get_by_role("link", name="Read").click()
    page.wait_for_timeout(500)
    watched.settle()
    errors = watched.errors
    page.close()
    assert errors == []
    # The name of the file comes back to the uploader of this very browser, and in nothing else that the server sends.
    assert not any(has_name(each) for each in heard)
    _nothing_was_written(server, place)


def _place_on_a_map(watched: Watched) -> None:
    """Let the embeddings page place the open case, with a method that writes what it makes."""
    page = watched.page
    page.get_by_role("radio", name="t-SNE").click()
    expect(page.get_by_text("Map quality")).to_be_visible(timeout=4 * WAIT)
    watched.settle()
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=WAIT)


def _nothing_was_written(server: Server, place: Path) -> None:
    assert "Traceback" not in server.log.read_text()
    files = [each for each in written(place) if each.is_file()]
    assert files
    for each in files:
        assert not has_name(each.read_bytes()), each
        assert NAME not in each.name
        if zipfile.is_zipfile(each):
            with zipfile.ZipFile(io.BytesIO(each.read_bytes())) as packed:
                assert not any(has_name(packed.read(name)) for name in packed.namelist()), each
    kept = [place / "cache", *(each for each in written(place / "cache") if "example-" not in str(each))]
    for each in kept:  # the example's index is public, and its folder is in that of the user
        if not each.name.endswith((".lock", ".log")):
            assert stat.S_IMODE(each.stat().st_mode) & 0o077 == 0, each
    assert any(each.suffix == ".safetensors" for each in kept)  # a map was written
