"""Sources of studies in a real browser: one is chosen, a study opens with its picture and its reference."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.app_pages import linked_bundles, needs_bundles
from tests.browser.conftest import WAIT, Server, Watched, overhang, start_server, watch
from tests.openi_tree import png
from tests.test_dashboard_sources import index_ward, many

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240), needs_bundles]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The dashboard with one pair, an index of a table, and one of more studies than a list offers."""
    folder = tmp_path_factory.mktemp("sources")
    index_ward(folder)
    bundles = linked_bundles(folder / "bundles", "phantom-fve-m2", "shared")
    yield from start_server(
        folder, CXR_SOURCES=f"{folder / 'ward'},{many(folder / 'many', 700)}", CXR_BUNDLES=str(bundles)
    )


@pytest.fixture
def page(context: BrowserContext, served: Server) -> Iterator[Watched]:
    watched = watch(context, served.url)
    yield watched
    watched.close()
    assert "Traceback" not in served.log.read_text()


def test_a_source_is_chosen_and_its_study_opens_with_picture_and_reference(page: Watched) -> None:
    page.open()
    viewer, reference = page.page.locator(".viewer"), page.page.locator("article.reference")
    expect(page.page.get_by_text("draft reports of chest X-rays")).to_be_visible()
    page.page.get_by_text("Our ward", exact=True).click()
    expect(viewer).to_have_attribute("data-study", "S1", timeout=WAIT)
    expect(reference).to_contain_text("The heart is large.")
    expect(page.page.locator("article.card:not(.waiting)")).to_have_count(1, timeout=WAIT)
    picture = viewer.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    page.page.get_by_role("button", name="Next").click()
    expect(viewer).to_have_attribute("data-study", "S2", timeout=WAIT)
    expect(reference).to_contain_text("No pneumothorax.")
    assert viewer.locator("canvas").evaluate("canvas => canvas.toDataURL()") != picture
    assert "source=ward" in page.page.url and "study=S2" in page.page.url
    page.page.get_by_role("radio", name="lateral view").click()
    expect(page.page.get_by_text("The models did not read this image")).to_be_visible()
    page.settle()
    page.page.reload()
    expect(viewer).to_have_attribute("data-study", "S2", timeout=WAIT)
    page.page.set_viewport_size({"width": 390, "height": 844})
    page.settle()
    assert overhang(page.page) == 0


def test_another_program_links_to_the_page_by_its_name(page: Watched) -> None:
    page.open("read?source=ward&study=S2")
    expect(page.page.locator(".viewer")).to_have_attribute("data-study", "S2", timeout=WAIT)
    expect(page.page.get_by_text("Page not found")).to_have_count(0)
    expect(page.page).to_have_url(re.compile(r"/\?.*study=S2"))


def test_a_study_is_looked_for_while_one_types(page: Watched) -> None:
    page.open("?source=many")
    field = page.page.get_by_label("Find a study")
    field.press_sequentially("000432", delay=20)  # no Enter
    expect(page.page).to_have_url(re.compile("study=s000432"), timeout=WAIT)
    expect(field).to_be_focused()
    field.press("Backspace")
    expect(page.page).to_have_url(re.compile("study=s000043"), timeout=WAIT)  # the first of those that are found
    expect(field).to_have_value("00043")


def test_several_files_are_read_one_after_another(page: Watched) -> None:
    page.open("?source=upload")
    files = [{"name": f"{name}.png", "mimeType": "image/png", "buffer": png(n)} for n, name in enumerate("ab")]
    page.page.locator('[data-testid="stFileUploader"] input[type="file"]').set_input_files(files)
    viewer = page.page.locator(".viewer")
    expect(viewer).to_have_attribute("data-study", "File 1", timeout=WAIT)
    page.page.get_by_role("button", name="Next").click()
    expect(viewer).to_have_attribute("data-study", "File 2", timeout=WAIT)
    assert "a.png" not in page.page.url and "b.png" not in page.page.url
