"""The Read page in a real browser: the viewer, the reports, uploads, links."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from tests import needs
from tests.browser.conftest import Server, Watched, start_server, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

REAL = needs.SHARED / "openi" / "images" / "images_normalized"
LOOK = "canvas => canvas.toDataURL().length + ':' + canvas.toDataURL().slice(2000, 6000)"


def cards(watched: Watched) -> Locator:
    """The cards of generated reports."""
    return watched.page.locator("article.card:not(.waiting)")


def viewer(watched: Watched) -> Locator:
    """The viewer's root, which tells its state."""
    return watched.page.locator(".viewer")


def radiograph(size: int = 300) -> np.ndarray:
    """Something like a chest: two dark ovals in a bright one, (size, size) in [0, 1]."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    body = ((x / 0.45) ** 2 + (y / 0.48) ** 2 < 1) * 0.8
    lungs = sum(((x - side) / 0.14) ** 2 + ((y + 0.02) / 0.3) ** 2 < 1 for side in (-0.2, 0.2)) > 0
    noise = np.random.default_rng(0).normal(0, 0.02, (size, size))
    return np.clip(body - 0.55 * lungs + 0.05 + noise, 0, 1)


def write_png(path: Path) -> Path:
    """An 8-bit PNG."""
    Image.fromarray((radiograph() * 255).astype(np.uint8)).save(path)
    return path


def write_dicom(path: Path) -> Path:
    """A 12-bit digital radiograph of the chest."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.PatientName, dataset.PatientID = "Nobody^Invented", "0"
    # Soft edges, as a film has: those of one pixel would pass for numbers of the other sign.
    soft = Image.fromarray(radiograph(40).astype(np.float32)).resize((320, 320), Image.Resampling.BILINEAR)
    pixels = (np.asarray(soft) * 4095).astype(np.uint16)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels.tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def upload(watched: Watched, path: Path) -> None:
    """Hand a file to the page."""
    watched.open("?source=upload")
    watched.page.locator('[data-testid="stFileUploader"] input[type="file"]').set_input_files(path)
    watched.page.wait_for_timeout(500)
    watched.settle()


def test_opens_with_twelve_reports_beside_image_and_reference(watched: Watched) -> None:
    watched.open()
    expect(cards(watched)).to_have_count(12, timeout=60_000)
    expect(watched.page.locator("article.reference")).to_be_visible()
    expect(viewer(watched)).to_have_attribute("data-zoom", "1.000")
    expect(watched.page.locator(".cxr-tiles figure")).to_have_count(13, timeout=60_000)
    expect(watched.page.get_by_text("Research use only. Not for use in diagnostic procedures.")).to_be_visible()
    expect(cards(watched).first).to_be_visible()
    expect(cards(watched).nth(1)).to_be_hidden()  # the best first, the others on demand
    watched.page.get_by_role("button", name="Show the other 11 reports").click()
    assert all(len(text) > 40 for text in cards(watched).all_inner_texts())
    assert watched.page.locator("h1").all_inner_texts() == ["Read"]
    assert watched.page.title() == "Read · CXR Lens"


def test_window_and_level_change_the_picture_without_the_server(watched: Watched) -> None:
    watched.open()
    canvas = viewer(watched).locator("canvas")
    box = canvas.bounding_box()
    assert box is not None
    before, window = canvas.evaluate(LOOK), viewer(watched).get_attribute("data-window")
    watched.page.wait_for_timeout(500)
    watched.sent.clear()
    mouse = watched.page.mouse
    mouse.move(box["x"] + 150, box["y"] + 150)
    mouse.down()
    mouse.move(box["x"] + 60, box["y"] + 210, steps=8)
    mouse.up()
    assert canvas.evaluate(LOOK) != before
    assert viewer(watched).get_attribute("data-window") != window
    watched.page.wait_for_timeout(400)
    assert watched.sent == []


def test_zooms_pans_inverts_and_resets_by_key_and_wheel(watched: Watched) -> None:
    watched.open()
    canvas = viewer(watched).locator("canvas")
    first = canvas.evaluate(LOOK)
    canvas.hover()
    watched.page.mouse.wheel(0, -400)  # the page scrolls, unless zooming is on
    watched.page.wait_for_timeout(200)
    expect(viewer(watched)).to_have_attribute("data-zoom", "1.000")
    watched.page.keyboard.press("Escape")
    canvas.press("z")
    watched.page.mouse.wheel(0, -400)
    expect(viewer(watched)).not_to_have_attribute("data-zoom", "1.000")
    canvas.press("w")
    canvas.focus()
    zoomed = canvas.evaluate(LOOK)
    canvas.press("ArrowRight")
    assert canvas.evaluate(LOOK) != zoomed
    canvas.press("i")
    expect(viewer(watched)).to_have_attribute("data-inverted", "true")
    canvas.press("0")
    expect(viewer(watched)).to_have_attribute("data-inverted", "false")
    expect(viewer(watched)).to_have_attribute("data-zoom", "1.000")
    assert canvas.evaluate(LOOK) == first
    canvas.press("h")
    expect(viewer(watched).locator(".readout")).to_contain_text("left and right are exchanged")
    canvas.press("t")
    expect(viewer(watched)).to_have_attribute("data-turns", "3")  # clockwise, as it is seen mirrored
    canvas.press("0")
    assert canvas.evaluate(LOOK) == first
    canvas.press("+")
    expect(viewer(watched)).to_have_attribute("data-zoom", "1.250")


def test_keeps_the_view_with_the_overlay_and_resets_it_with_the_study(watched: Watched) -> None:
    watched.open("?finding=Pleural+Effusion")
    expect(cards(watched)).to_have_count(12, timeout=60_000)
    canvas = viewer(watched).locator("canvas")
    canvas.press("+")
    plain = canvas.evaluate(LOOK)
    viewer(watched).get_by_role("button", name="True findings").click()
    assert canvas.evaluate(LOOK) != plain
    expect(viewer(watched).locator(".legend").first).to_be_visible()
    expect(viewer(watched)).to_have_attribute("data-zoom", "1.250")
    study = viewer(watched).get_attribute("data-study")
    watched.page.get_by_role("button", name="Next").click()
    expect(viewer(watched)).not_to_have_attribute("data-study", study or "")
    expect(viewer(watched)).to_have_attribute("data-zoom", "1.000")
    watched.settle()


def test_a_finding_is_followed_through_all_reports(watched: Watched) -> None:
    watched.open("?finding=Pleural+Effusion")
    expect(cards(watched)).to_have_count(12, timeout=60_000)
    row = watched.page.locator("tr[data-observation='Pleural Effusion']")
    row.press("Enter")
    expect(row).to_have_class("followed")
    reference = watched.page.locator("article.reference mark[data-observation='Pleural Effusion']").first
    expect(reference).to_have_class("followed")
    assert watched.page.locator("article.card mark.followed").count() >= 1
    row.press("Enter")
    expect(row).not_to_have_class("followed")


def test_an_address_restores_study_and_pairs(watched: Watched) -> None:
    watched.open()
    watched.page.get_by_role("button", name="Choose models").click()
    watched.page.get_by_role("button", name="Same decoder, each encoder").click()
    watched.page.keyboard.press("Escape")
    expect(cards(watched)).to_have_count(4)
    watched.page.get_by_role("button", name="Next").click()
    watched.settle()
    study, address = viewer(watched).get_attribute("data-study"), watched.page.url
    assert study and study in address
    other = watch(watched.page.context.browser, watched.url)  # type: ignore[arg-type]
    other.page.goto(address)
    expect(cards(other)).to_have_count(4, timeout=60_000)
    expect(viewer(other)).to_have_attribute("data-study", study)
    other.page.close()


def test_an_unknown_study_in_the_address_is_named(watched: Watched) -> None:
    watched.open("?study=P999999-9")
    expect(watched.page.get_by_text("There is no study 'P999999-9' in Synthetic X-rays")).to_be_visible()
    expect(viewer(watched)).to_be_visible()


@pytest.mark.parametrize(("write", "name"), [(write_png, "chest.png"), (write_dicom, "chest.dcm")])
def test_reads_an_uploaded_image_and_warns(watched: Watched, tmp_path: Path, write, name: str) -> None:
    path = write(tmp_path / name)
    # All levels of 8 bits; of a file without a window of its own, from its darkest value to its brightest.
    levels = 255 if name.endswith("png") else np.ptp(pydicom.dcmread(path).pixel_array)
    upload(watched, path)
    expect(viewer(watched)).to_have_attribute("data-study", "File 1")  # a name may be a patient's
    expect(viewer(watched)).to_have_attribute("data-window", str(levels))
    expect(cards(watched)).to_have_count(12, timeout=60_000)
    expect(watched.page.get_by_text("Open-i (Indiana University)").first).to_be_visible()
    expect(watched.page.get_by_text("There is no radiologist's report")).to_be_visible()
    assert "Invented" not in watched.page.content()


@needs.OPENI.unless(REAL.is_dir())
def test_reads_a_real_radiograph(watched: Watched) -> None:
    upload(watched, sorted(REAL.glob("*.jpg"))[0])
    expect(cards(watched)).to_have_count(12, timeout=60_000)
    expect(watched.page.get_by_text("Open-i (Indiana University)").first).to_be_visible()
    watched.page.get_by_role("button", name="Models for synthetic X-rays").click()  # beside, and warned of
    expect(watched.page.get_by_text("These models learned from synthetic X-rays only")).to_be_visible(timeout=60_000)
    expect(cards(watched)).to_have_count(24, timeout=60_000)
    assert watched.errors == []


@pytest.mark.parametrize("content", [b"", b"this is not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_a_bad_file_gets_one_clear_message(watched: Watched, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    upload(watched, path)
    expect(watched.page.get_by_test_id("stAlert")).to_have_count(1)
    expect(cards(watched)).to_have_count(0)
    good = io.BytesIO()
    Image.fromarray((radiograph() * 255).astype(np.uint8)).save(good, "PNG")
    watched.page.locator('[data-testid="stFileUploader"] input[type="file"]').set_input_files(
        {"name": "good.png", "mimeType": "image/png", "buffer": good.getvalue()}
    )
    expect(cards(watched)).to_have_count(12, timeout=60_000)


@pytest.mark.slow  # a speed, not a behaviour: other work on the machine must not fail CI
def test_twelve_reports_of_a_new_image_within_four_seconds(watched: Watched, record_property) -> None:
    watched.open()
    expect(cards(watched)).to_have_count(12, timeout=60_000)
    taken = []
    for _ in range(3):  # the best of three: other work may be going on
        watched.settle()
        started = time.perf_counter()
        study = viewer(watched).get_attribute("data-study")
        watched.page.get_by_role("button", name="Next").click()
        expect(viewer(watched)).not_to_have_attribute("data-study", study or "")
        watched.page.wait_for_selector("table", timeout=30_000)
        watched.settle()
        taken.append(time.perf_counter() - started)
    record_property("twelve_reports_seconds", taken)
    assert min(taken) <= 4.0, taken


def test_the_map_is_drawn_when_it_is_opened_and_its_address_opens_it(watched: Watched) -> None:
    watched.open()
    chart = watched.page.get_by_test_id("stPlotlyChart")
    expect(cards(watched)).to_have_count(12, timeout=60_000)
    expect(chart).to_have_count(0)
    watched.page.get_by_text("Where this study lies").click()
    expect(chart).to_be_visible(timeout=60_000)
    watched.settle()
    watched.page.goto(watched.page.url)
    expect(chart).to_be_visible(timeout=60_000)


@pytest.mark.slow  # a speed, not a behaviour: other work on the machine must not fail CI
def test_a_page_switch_takes_at_most_a_second(watched: Watched, record_property) -> None:
    watched.open()
    expect(cards(watched)).to_have_count(12, timeout=60_000)
    watched.settle()
    last = {
        "Results": watched.page.get_by_text("How this was scored"),
        "About": watched.page.get_by_text("names the folder of models"),
        "Filters": watched.page.get_by_text("Support Devices").last,
        "Read": cards(watched).first,
    }
    best: dict[str, float] = {}
    for _ in range(3):  # the best of three: other work may be going on
        for name, sign in last.items():
            started = time.perf_counter()
            watched.page.get_by_role("link", name=name).click()
            sign.wait_for(timeout=30_000)
            best[name] = min(best.get(name, 99), time.perf_counter() - started)
            watched.settle()
    record_property("page_switch_seconds", best)
    assert max(best.values()) <= 1.0, best


def test_memory_with_all_pairs_loaded(watched: Watched, server: Server) -> None:
    watched.open()
    expect(cards(watched)).to_have_count(12, timeout=60_000)
    used = server.process.memory_info().rss / 2**30
    assert used <= 2.5, f"{used:.2f} GiB"


def test_missing_bundles_are_named_and_the_image_can_still_be_read(browser, tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    for server in start_server(tmp_path, CXR_BUNDLES=str(tmp_path / "bundles")):
        watched = watch(browser, server.url)
        watched.open()
        expect(watched.page.get_by_text("There is no bundle in")).to_be_visible()
        expect(viewer(watched)).to_be_visible(timeout=30_000)
        assert watched.errors == []
        watched.page.close()


def test_what_was_found_before_writing_can_be_asked_about(server: Server, watched: Watched) -> None:
    """From a link, by a click, and by a link that asks for what was not found."""
    study = "?source=example&study=00025228_007"
    watched.open(f"{study}&asked=openi-fve-m2&found=Pleural+Effusion")
    page = watched.page
    title = page.locator(".st-key-answer-title")
    expect(title).to_contain_text("Where Pleural Effusion was found · FVE + M2", timeout=60_000)
    card = page.locator('article[data-name="openi-fve-m2"]')
    asked = card.locator('[data-found="Pleural Effusion"]')
    expect(asked).to_have_attribute("aria-pressed", "true")
    expect(card.locator(".first")).to_contain_text("Found in the image before writing:")
    expect(card.locator(".first")).to_contain_text("(sentence added)")
    watched.settle()
    assert viewer(watched).evaluate("root => root.querySelectorAll('canvas').length") >= 1
    expect(page.get_by_text("The model adds them up: nothing else decides.")).to_be_visible()
    other = card.locator('[data-found="Lung Opacity"]')
    other.click()
    expect(title).to_contain_text("Where Lung Opacity was found", timeout=60_000)
    assert "found=Lung+Opacity" in page.url or "found=Lung%20Opacity" in page.url
    page.get_by_role("button", name="Close").click()
    expect(title).to_have_count(0)
    assert "found=" not in page.url
    watched.open(f"{study}&asked=openi-fve-m2&found=Fracture+of+nothing")
    expect(page.get_by_text("never finds Fracture of nothing first")).to_be_visible(timeout=60_000)
    assert watched.errors == []
