"""Radiographs keep their shape on every page, and the ruler tells what it measures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, expect

from dashboard.services.studies import visible_studies
from tests.browser.conftest import WAIT, Server, Watched, watch
from tests.images.ramps import windowed

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

# Pictures, and the viewer's canvas, in the page and in its components' shadow trees: as drawn, and as they are.
MEASURE = """() => {
  const found = []
  const visit = (root) => {
    for (const each of root.querySelectorAll("*")) {
      if (each.shadowRoot) visit(each.shadowRoot)
      const isImage = each.tagName === "IMG"
      if (!isImage && !each.matches('canvas[aria-label^="Radiograph"]')) continue
      const style = getComputedStyle(each)
      const edge = (names) => names.reduce((sum, name) => sum + parseFloat(style[name]), 0)
      const box = each.getBoundingClientRect()
      const wide = box.width - edge(["borderLeftWidth", "borderRightWidth", "paddingLeft", "paddingRight"])
      const high = box.height - edge(["borderTopWidth", "borderBottomWidth", "paddingTop", "paddingBottom"])
      if (wide < 2 || high < 2) continue
      const natural = isImage ? [each.naturalWidth, each.naturalHeight] : [each.width, each.height]
      const alt = each.alt ?? each.ariaLabel ?? ""
      found.push({ kind: each.tagName, alt, fit: style.objectFit, natural, drawn: [wide, high] })
    }
  }
  visit(document)
  return found
}"""


def pictures(watched: Watched) -> list[dict[str, Any]]:
    """All pictures on the page; they are all there when all are loaded."""
    watched.page.wait_for_function("() => [...document.images].every((each) => each.complete)")
    found: list[dict[str, Any]] = watched.page.evaluate(MEASURE)
    return found


def distorted(found: list[dict[str, Any]]) -> list[str]:
    """Pictures whose sides are drawn in another proportion than they have, by more than a pixel."""
    wrong = []
    for each in found:
        (wide, high), (drawn_wide, drawn_high) = each["natural"], each["drawn"]
        if each["kind"] == "IMG" and each["fit"] in ("contain", "cover", "scale-down", "none"):
            continue
        if abs(drawn_wide * high / wide - drawn_high) > 1:
            wrong.append(f"{each['alt'] or each['kind']}: {wide} x {high} drawn as {drawn_wide:g} x {drawn_high:g}")
    return wrong


PAGES = {
    "": 2,
    "filters": 14,
    "cases": 5,
    "embeddings?picked={two}": 8,
}
"""Address, and how many pictures it has at least."""


@pytest.mark.parametrize("path", PAGES)
def test_no_picture_is_distorted(context: BrowserContext, server: Server, path: str) -> None:
    ids = list(visible_studies())
    watched = watch(context, server.url)
    watched.open(path.format(two=",".join(ids[:2])))
    page = watched.page
    for width, height in ((1440, 900), (390, 844)):
        watched.resize(width, height)
        page.wait_for_function(f"() => ({MEASURE})().length >= {PAGES[path]}", timeout=WAIT)
        watched.settle()
        found = pictures(watched)
        assert len(found) >= PAGES[path]
        assert distorted(found) == []
    watched.close()


def test_a_stretched_picture_would_be_noticed(browser: Browser) -> None:
    page = browser.new_page()
    file = io.BytesIO()
    Image.new("L", (112, 112)).save(file, "PNG")
    page.set_content(
        "<div id='host'></div><script>document.getElementById('host').attachShadow({mode: 'open'}).innerHTML ="
        " `<img alt='bent' style='width: 96px; height: 174px' src='data:image/png;base64,"
        + base64.b64encode(file.getvalue()).decode()
        + "'>`</script>"
    )
    page.wait_for_function(f"() => ({MEASURE})()[0]?.natural[0] > 0")
    assert distorted(page.evaluate(MEASURE)) == ["bent: 112 x 112 drawn as 96 x 174"]
    page.close()


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Iterator[Watched]:
    watched = watch(context, server.url)
    yield watched
    watched.close()


def upload(watched: Watched, path: Path) -> None:
    watched.open("?source=upload")
    watched.page.locator('[data-testid="stFileUploader"] input[type="file"]').set_input_files(path)
    expect(watched.page.locator(".viewer")).to_be_visible(timeout=WAIT)


def measured(watched: Watched, key: str, times: int) -> str:
    """What the ruler says after steps of two pixels in one direction, by keyboard."""
    watched.page.locator(".viewer canvas").focus()
    for each in ("r", "Enter", *[key] * times):
        watched.page.keyboard.press(each)
    said = watched.page.locator(".viewer").get_attribute("data-ruler")
    watched.page.keyboard.press("Enter")
    return str(said)


def test_the_ruler_measures_millimetres_where_the_file_tells_them(page: Watched, tmp_path: Path) -> None:
    film = np.tile(np.linspace(0, 4095, 400, dtype=np.uint16), (500, 1))
    (tmp_path / "film.dcm").write_bytes(windowed(film, PixelSpacing=[0.5, 0.2], ViewPosition="LL"))
    upload(page, tmp_path / "film.dcm")
    assert measured(page, "ArrowRight", 10) == "4.0 mm"  # 20 pixels of 0.2 mm
    page.page.reload()
    upload(page, tmp_path / "film.dcm")
    assert measured(page, "ArrowDown", 10) == "10.0 mm"  # 20 pixels of 0.5 mm
    expect(page.page.get_by_text("the file gives 0.5 x 0.2 mm per pixel")).to_be_visible()
    expect(page.page.get_by_text("millimetres on the detector")).to_be_visible()
    expect(page.page.locator('button[data-tool="ruler"]')).to_have_attribute("title", re.compile("in millimetres"))
    expect(page.page.get_by_text("lateral view", exact=False).first).to_be_visible()
    expect(page.page.get_by_text("the models know frontal views")).to_be_visible()


def test_a_file_opens_at_its_own_window_and_what_that_cuts_off_can_be_seen(page: Watched, tmp_path: Path) -> None:
    film = np.tile(np.linspace(0, 2000, 400, dtype=np.uint16), (400, 1))
    tags = {"WindowCenter": 600, "WindowWidth": 1400, "RescaleSlope": 1, "RescaleIntercept": -200}
    (tmp_path / "film.dcm").write_bytes(windowed(film, **tags))
    upload(page, tmp_path / "film.dcm")
    seen = page.page.locator(".viewer")
    expect(seen).to_have_attribute("data-window", "1400")
    expect(seen).to_have_attribute("data-level", "600")
    white = "canvas => canvas.getContext('2d').getImageData(canvas.width - 40, canvas.height / 2, 1, 1).data[0]"
    assert seen.locator(".stage > canvas").evaluate(white) == 255
    seen.locator("canvas").first.focus()
    page.page.keyboard.press("2")  # all grey levels
    expect(seen).to_have_attribute("data-window", "2000")
    assert seen.locator(".stage > canvas").evaluate(white) < 255


def test_the_ruler_counts_pixels_where_the_file_tells_none(page: Watched, tmp_path: Path) -> None:
    film = np.random.default_rng(0).integers(0, 255, (300, 200), dtype=np.uint8)
    Image.fromarray(film).save(tmp_path / "film.png")
    upload(page, tmp_path / "film.png")
    assert measured(page, "ArrowRight", 10) == "20 pixels"
    expect(page.page.get_by_text("the ruler counts pixels")).to_be_visible()
    expect(page.page.locator('button[data-tool="ruler"]')).to_have_attribute("title", re.compile("in pixels"))
    expect(page.page.get_by_text("view not known")).to_be_visible()
    assert page.page.get_by_text("the models know frontal views").count() == 0
