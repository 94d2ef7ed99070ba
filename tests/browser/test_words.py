"""Words and regions of the Read page in a real browser, on two pairs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from dashboard import settings
from tests import needs
from tests.app_pages import linked_bundles
from tests.browser.conftest import Server, overhang, start_server, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

FVE, CCVE = "phantom-fve-transformer", "phantom-ccve-transformer"
LOOK = "canvas => canvas.toDataURL()"
CUT = """viewer => {
  const edge = viewer.getBoundingClientRect()
  const all = [...viewer.querySelectorAll("button, select, canvas, span, label")]
  return all.filter(each => each.getBoundingClientRect().right > edge.right + 0.5).map(each => each.outerHTML)
}"""
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The dashboard on two pairs."""
    folder = tmp_path_factory.mktemp("few")
    if not all((settings.bundles() / name).exists() for name in (FVE, CCVE, "shared")):
        needs.BUNDLES.skip()
    bundles = linked_bundles(folder / "bundles", FVE, CCVE, "shared")
    yield from start_server(folder, CXR_BUNDLES=str(bundles))


@pytest.fixture
def page(context: BrowserContext, few: Server) -> Iterator[Page]:
    """The Read page with both reports; no error in the end."""
    watched = watch(context, few.url)
    watched.page.goto(few.url)
    expect(watched.page.locator("article.card:not(.waiting)")).to_have_count(2, timeout=240_000)
    yield watched.page
    watched.close()
    assert "Traceback" not in few.log.read_text()


def maps(page: Page, count: int) -> None:
    expect(page.locator(".viewer")).to_have_attribute("data-maps", str(count), timeout=60_000)


def words(page: Page, name: str) -> Locator:
    return page.locator(f"article[data-name='{name}'] .word")


def test_a_click_on_a_word_lays_a_map_over_the_image_and_the_address_restores_it(page: Page) -> None:
    canvas = page.locator(".viewer .stage canvas")
    plain = canvas.evaluate(LOOK)
    words(page, FVE).nth(3).click()
    maps(page, 1)
    assert canvas.evaluate(LOOK) != plain
    expect(words(page, FVE).nth(3)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".viewer .scale")).to_contain_text("average")
    shown = canvas.evaluate(LOOK)
    page.get_by_role("button", name="Contour", exact=True).click()
    assert canvas.evaluate(LOOK) != shown
    page.wait_for_url("**asked=phantom-fve-transformer**word=4**")
    page.goto(page.url)
    maps(page, 1)
    expect(words(page, FVE).nth(3)).to_have_class("word asked")
    page.get_by_role("button", name="Close").click()
    maps(page, 0)


def test_words_are_reached_and_asked_about_by_keyboard(page: Page) -> None:
    words(page, FVE).first.focus()
    page.keyboard.press("ArrowRight")
    expect(words(page, FVE).nth(1)).to_be_focused()
    assert page.locator(f"article[data-name='{FVE}'] .word[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    maps(page, 1)
    expect(words(page, FVE).nth(1)).to_be_focused()
    page.keyboard.press("Shift+Enter")
    page.wait_for_url("**sentence=1**")
    expect(page.locator(f"article[data-name='{FVE}'] .word.asked").nth(2)).to_be_visible()


def test_methods_stand_side_by_side_on_one_scale(page: Page) -> None:
    words(page, FVE).nth(3).click()
    maps(page, 1)
    page.get_by_role("radio", name="methods").or_(page.get_by_role("button", name="methods")).first.click()
    maps(page, 5)  # the one that was measured best, and the four it is compared with
    expect(page.locator(".viewer .scale")).to_have_count(1)
    expect(page.locator(".viewer .scale")).to_contain_text("against")
    for width, height in ((1440, 900), (1440, 768), (1024, 768), (820, 1180), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(300)
        across, down = map(int, (page.locator(".viewer").get_attribute("data-panel") or "").split(" x "))
        assert min(across, down) >= (160 if width == 1440 else 150), (width, across, down)
        assert overhang(page) <= 0, width
        assert page.locator(".viewer").evaluate(CUT) == [], width


def test_a_region_marks_the_words_that_depend_on_it(page: Page) -> None:
    canvas = page.locator(".viewer .stage canvas")
    canvas.focus()
    page.keyboard.press("b")
    expect(page.locator(".viewer")).to_have_attribute("data-tool", "region")
    page.keyboard.press("Enter")
    for _ in range(8):
        page.keyboard.press("Shift+ArrowDown")
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("article.card .again")).to_have_count(2, timeout=60_000)
    expect(page.locator("article.card").first).to_contain_text("the region")
    expect(page.locator(".viewer")).to_have_attribute("data-region", "0.400,0.400,0.760,0.760")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.95 * box["height"], steps=4)
    page.mouse.up()
    expect(page.locator(".viewer")).not_to_have_attribute("data-region", "0.400,0.400,0.760,0.760")
    expect(page.locator("article.card .word[data-moved]").first).to_be_visible(timeout=60_000)


def test_words_of_ccve_are_answered_by_filter_with_a_way_to_its_page(page: Page) -> None:
    words(page, CCVE).nth(1).click()
    expect(page.locator(".cxr-bars img")).to_have_count(13, timeout=60_000)
    link = page.get_by_role("link", name="See the filters")
    assert "word=2" in (link.get_attribute("href") or "")


# Boxes in the window's pixels, [top, bottom] of each part, and where the notice at the foot begins.
IN_SIGHT = """() => {
  const deep = (query, root = document) => {
    const found = root.querySelector(query)
    if (found) return found
    for (const each of root.querySelectorAll("*")) {
      const inside = each.shadowRoot && deep(query, each.shadowRoot)
      if (inside) return inside
    }
    return null
  }
  const box = (query) => {
    const { top, bottom } = deep(query).getBoundingClientRect()
    return [Math.round(top), Math.round(bottom)]
  }
  const cut = (element) => {
    const { top, bottom } = element.getBoundingClientRect()
    for (let each = element; each; each = each.parentElement ?? each.getRootNode().host) {
      const edge = each.getBoundingClientRect()
      const cuts = getComputedStyle(each).overflowY !== "visible"
      if (cuts && (bottom > edge.bottom + 1 || top < edge.top - 1)) return true
    }
    return false
  }
  return {
    title: box(".st-key-answer strong"), answer: box(".st-key-answer"),
    map: cut(deep(".stage > canvas")) ? [-1, -1] : box(".stage > canvas"),
    word: box(".word.asked"), notice: document.querySelector("[role=note]").getBoundingClientRect().top,
  }
}"""


def out_of_sight(page: Page) -> list[str]:
    """Parts of an explanation's answer that the window does not show whole."""
    found = page.evaluate(IN_SIGHT)
    height = found.pop("notice")
    return [
        f"{part}: {top} to {bottom} of {height}" for part, (top, bottom) in found.items() if top < 0 or bottom > height
    ]


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768), (820, 1180), (390, 844)])
def test_title_verdict_and_map_stand_in_sight_of_the_word(
    context: BrowserContext, few: Server, width: int, height: int
) -> None:
    """From a link, then from a click on the last word of the other report."""
    watched = watch(context, few.url, width, height)
    page = watched.page
    page.goto(f"{few.url}/?asked={FVE}&word=4")
    maps(page, 1)
    watched.settle()
    page.wait_for_timeout(500)
    assert out_of_sight(page) == []
    words(page, FVE).last.click()
    page.wait_for_url("**word=*")
    maps(page, 1)
    watched.settle()
    page.wait_for_timeout(500)
    assert out_of_sight(page) == []
    assert overhang(page) <= 0
    watched.close()


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768), (820, 1180), (390, 844)])
def test_the_whole_film_is_in_sight_under_a_long_answer(
    context: BrowserContext, few: Server, width: int, height: int
) -> None:
    watched = watch(context, few.url, width, height)
    watched.page.goto(f"{few.url}/?asked={CCVE}&word=1")
    expect(watched.page.locator(".cxr-bars img")).to_have_count(13, timeout=120_000)
    watched.settle()
    watched.page.wait_for_timeout(500)
    assert out_of_sight(watched.page) == []
    watched.close()


def test_a_question_in_the_middle_of_another_is_answered_and_a_page_opens_in_the_middle_of_it(page: Page) -> None:
    slow = "explain=Random+masks+%28RISE%29"
    page.goto(f"{page.url.partition('?')[0]}?asked={FVE}&word=21&{slow}")
    bar, computing = page.get_by_role("progressbar"), page.get_by_text("Computing")
    expect(computing).to_be_visible(timeout=60_000)
    words(page, FVE).nth(22).click()
    page.wait_for_url("**word=23**")
    expect(page.locator(".st-key-answer strong")).to_have_text(words(page, FVE).nth(22).inner_text().lower())
    maps(page, 1)
    expect(bar.or_(computing)).to_have_count(0)
    words(page, FVE).nth(24).click()
    expect(computing).to_be_visible(timeout=60_000)
    maps(page, 0)  # the old picture is gone
    page.get_by_role("link", name="About").click()
    expect(page.get_by_role("heading", name="Limits")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(computing).to_have_count(0)


def test_one_question_is_one_step_back(context: BrowserContext, few: Server) -> None:
    watched = watch(context, few.url)
    page = watched.page
    watched.open()
    expect(page.locator("article.card:not(.waiting)")).to_have_count(2, timeout=240_000)
    page.wait_for_timeout(600)
    before, steps = page.url, page.evaluate("history.length")
    words(page, FVE).nth(3).click()
    page.wait_for_url("**word=4**")
    maps(page, 1)
    assert page.evaluate("history.length") == steps + 1
    page.go_back()
    maps(page, 0)
    assert page.url == before
    watched.close()


def test_a_map_that_points_beside_the_finding_is_drawn_only_when_asked_for(page: Page) -> None:
    """Word attention of FVE: measured to be worse than the image's centre."""
    words(page, FVE).nth(3).click()
    maps(page, 1)
    page.wait_for_selector(IDLE)  # a list that is open closes when the page is drawn again
    page.get_by_role("combobox", name="Method").click()
    page.get_by_role("option", name="Word attention").click()
    page.wait_for_url("**explain=Word+attention**")
    maps(page, 1)
    filled = page.get_by_role("button", name="Heat map", exact=True)
    expect(filled).to_have_attribute("aria-pressed", "false")
    canvas = page.locator(".viewer .stage canvas")
    told = canvas.evaluate(LOOK)
    filled.click()
    assert canvas.evaluate(LOOK) != told


def test_works_on_a_phone(context: BrowserContext, few: Server) -> None:
    watched = watch(context, few.url, 390, 844)
    watched.page.goto(f"{few.url}/?asked={FVE}&word=2")
    maps(watched.page, 1)
    assert overhang(watched.page) <= 0
    watched.close()
