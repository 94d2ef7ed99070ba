"""The Embeddings page in a real browser: lasso, box, the linked table and map, the address, the keyboard."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Locator, expect

from tests.browser.conftest import Watched, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


def maps(watched: Watched) -> Locator:
    """The maps' plotting areas."""
    return watched.page.locator(".js-plotly-plot .nsewdrag")


def drag(watched: Watched, area: Locator, path: list[tuple[float, float]]) -> None:
    """Drag along points given in fractions of an area, and wait until another choice stands in the address."""
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in path]
    before, mouse = picked(watched), watched.page.mouse
    mouse.move(*places[0])
    mouse.down()
    for place in places[1:]:
        mouse.move(*place, steps=6)
    mouse.up()
    watched.page.wait_for_function(
        "(before) => (new URL(location).searchParams.get('picked') ?? '') !== before", arg=before, timeout=60_000
    )
    watched.settle()


def picked(watched: Watched) -> str:
    """The chosen studies as the address has them."""
    return str(watched.page.evaluate("() => new URL(location).searchParams.get('picked') ?? ''"))


def chosen(watched: Watched) -> int:
    """How many studies the page says are chosen."""
    heading = watched.page.get_by_role("heading", name=re.compile(r"^Chosen studies"))
    expect(heading).to_be_visible(timeout=60_000)
    digits = re.search(r"\d+", heading.inner_text())
    return int(digits.group()) if digits else 0


def dimmed(watched: Watched, place: int) -> int:
    """Points of a map that are not part of the choice."""
    script = "(plot) => [...plot.querySelectorAll('.scatterlayer .point')].filter(p => +p.style.opacity < 0.5).length"
    return int(watched.page.locator(".js-plotly-plot").nth(place).evaluate(script))


LASSO = [(0.2, 0.2), (0.7, 0.15), (0.75, 0.8), (0.25, 0.85), (0.2, 0.25)]


def test_a_lasso_fills_table_pictures_and_address_which_restores_it(watched: Watched, context: BrowserContext) -> None:
    watched.open("embeddings")
    expect(maps(watched)).to_have_count(1, timeout=60_000)
    assert chosen(watched) == 0
    drag(watched, maps(watched).first, LASSO)
    count = chosen(watched)
    assert 10 < count < 400
    told = watched.page.get_by_text(f"{count} chosen studies are listed below the map")
    expect(told).to_be_in_viewport(ratio=1)  # while the map fills the window
    heading = watched.page.get_by_role("heading", name=f"Chosen studies: {count}")
    expect(heading).not_to_be_in_viewport()
    watched.page.get_by_role("link", name="show the table").click()
    expect(heading).to_be_in_viewport()
    assert dimmed(watched, 0) > 10
    expect(watched.page.locator(".cxr-cards a").first).to_be_visible()
    address = watched.page.url
    assert "picked=" in address
    other = watch(context, watched.url)
    other.page.goto(address)
    expect(maps(other)).to_have_count(1, timeout=60_000)
    other.settle()
    assert chosen(other) == count
    assert dimmed(other, 0) == dimmed(watched, 0)
    other.page.get_by_role("button", name="Clear").click()
    expect(other.page.get_by_role("heading", name="Chosen studies", exact=True)).to_be_visible(timeout=60_000)
    other.settle()
    assert dimmed(other, 0) == 0
    assert "picked=" not in other.page.url
    other.page.close()


@pytest.mark.slow
def test_a_box_on_one_map_is_seen_on_the_other_and_the_other_way_round(watched: Watched) -> None:
    watched.open("embeddings?beside=CVE%3A+One+point+per+X-ray+%28image%29")
    expect(maps(watched)).to_have_count(2, timeout=60_000)
    watched.page.locator(".js-plotly-plot").first.hover()
    watched.page.locator("[data-title='Box Select']").first.click()
    drag(watched, maps(watched).first, [(0.3, 0.2), (0.6, 0.7)])
    first = chosen(watched)
    assert first > 3
    expect(watched.page.locator(".js-plotly-plot")).to_have_count(2)
    assert dimmed(watched, 0) > 10
    assert dimmed(watched, 1) > 10
    drag(watched, maps(watched).nth(1), LASSO)
    second = chosen(watched)
    assert second != first
    assert dimmed(watched, 0) == dimmed(watched, 1)


def test_a_point_shows_its_radiograph_and_a_click_opens_it_and_a_card_leads_to_the_read_page(watched: Watched) -> None:
    watched.open("embeddings")
    expect(maps(watched)).to_have_count(1, timeout=60_000)
    watched.page.locator('.modebar-btn[data-title="Pan"]').click()  # with the lasso, a click is an empty lasso
    watched.settle()  # a map that is drawn again moves its points from under the mouse
    point = watched.page.locator(".js-plotly-plot .scatterlayer .point").nth(40)
    box = point.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    watched.page.mouse.move(x, y, steps=2)
    picture = watched.page.locator("img.picture")
    expect(picture).to_be_visible(timeout=60_000)
    label = watched.page.locator(".hoverlayer .hovertext").first.text_content() or ""
    pointed = picture.get_attribute("alt")
    assert pointed is not None
    assert pointed.removeprefix("Radiograph ") in label
    assert picture.evaluate("image => image.naturalWidth") > 50
    watched.settle()
    watched.page.mouse.click(x, y)
    expect(watched.page.get_by_role("heading", name="Chosen studies: 1")).to_be_visible(timeout=60_000)
    watched.settle()
    study = picked(watched)
    assert pointed == f"Radiograph {study}"
    expect(watched.page.get_by_role("heading", name=f"Nearest to {study}")).to_be_visible(timeout=60_000)
    watched.page.mouse.move(5, 400)
    expect(picture).to_be_hidden()
    card = watched.page.locator(".cxr-cards a").last
    target = card.locator("b").inner_text()
    watched.page.evaluate("window.cxrStays = true")
    card.click()
    expect(watched.page.locator(".viewer")).to_have_attribute("data-study", target, timeout=60_000)
    assert watched.page.evaluate("window.cxrStays")  # the app was not loaded anew: what was uploaded would be gone
    assert f"study={target}" in watched.page.url


def test_a_group_is_chosen_by_keyboard_and_all_of_it_is_there_again_after_another_page(watched: Watched) -> None:
    watched.open("embeddings?colour=Cardiomegaly&encoder=CVE")
    expect(maps(watched)).to_have_count(1, timeout=60_000)
    box = watched.page.get_by_role("combobox", name=re.compile("Choose a whole group"))
    box.focus()
    box.press("ArrowDown")
    box.press("Enter")
    expect(watched.page.get_by_role("heading", name=re.compile(r"^Chosen studies: \d"))).to_be_visible(timeout=60_000)
    count = chosen(watched)
    assert count > 5
    watched.settle()
    before = watched.page.url
    watched.page.get_by_role("link", name="About").click()
    expect(watched.page.get_by_text("names the folder of models")).to_be_visible(timeout=60_000)
    watched.page.get_by_role("link", name="Embeddings").click()
    expect(maps(watched)).to_have_count(1, timeout=60_000)
    watched.settle()
    assert chosen(watched) == count
    assert query(watched.page.url) == query(before)


def query(url: str) -> dict[str, list[str]]:
    """What an address says, but of the open study, which each page writes."""
    return {name: values for name, values in parse_qs(urlsplit(url).query).items() if name != "study"}


def test_a_map_is_saved_as_svg_png_and_csv(watched: Watched) -> None:
    watched.open("embeddings?encoder=CVE")
    page = watched.page
    starts = {"svg": b"<svg", "png": b"\x89PNG"}
    for kind, start in starts.items():
        expect(maps(watched)).to_have_count(1, timeout=60_000)
        page.locator(".js-plotly-plot").hover()
        with page.expect_download(timeout=60_000) as picture:
            page.locator(".modebar-btn[data-title^='Download plot']").click()
        assert picture.value.suggested_filename == f"cve-pooled-pca.{kind}"
        assert picture.value.path().read_bytes().startswith(start)
        if kind == "svg":
            page.get_by_role("button", name="Settings").click()
            page.get_by_role("radio", name="png").click()
            watched.settle()
            page.keyboard.press("Escape")
    with page.expect_download(timeout=60_000) as table:
        page.get_by_role("button", name="Map as CSV").click()
    lines = table.value.path().read_text(encoding="utf-8").splitlines()
    assert lines[0] == "study,part,x,y,group,view,split,findings"
    assert len(lines) == 401


@pytest.mark.slow  # a map that ends beside the cancelled one may draw the page anew before the sentence is seen
def test_tsne_shows_its_progress_and_can_be_cancelled(watched: Watched) -> None:
    # Two maps of thousands of points, so that on a fast machine too there is something left to cancel.
    watched.page.goto(f"{watched.url}/embeddings?encoder=CCVE&points_ccve=One+point+per+filter&method=t-SNE")
    cancel, cancelled = watched.page.get_by_role("button", name="Cancel"), watched.page.get_by_text("was cancelled.")
    cancel.first.click(timeout=60_000)
    expect(cancelled.first).to_be_visible(timeout=60_000)
    watched.page.get_by_role("button", name="Compute again").first.click()
    expect(watched.page.get_by_role("progressbar").first).to_be_visible(timeout=60_000)
    cancel.first.click(timeout=60_000)
    expect(cancelled.first).to_be_visible(timeout=60_000)


def test_tsne_is_there_in_the_end(watched: Watched) -> None:
    watched.page.goto(f"{watched.url}/embeddings?method=t-SNE&perplexity=25")
    expect(maps(watched)).to_have_count(1, timeout=120_000)
    expect(watched.page.get_by_text("Map quality")).to_be_visible()
