"""The Embeddings page in a real browser: lasso, box, the linked table and map, the address, the keyboard."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Server, Watched, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


def maps(watched: Watched) -> Locator:
    """The maps' plotting areas."""
    return watched.page.locator(".js-plotly-plot .nsewdrag")


def drag(watched: Watched, area: Locator, path: list[tuple[float, float]]) -> None:
    """Drag along points given in fractions of an area."""
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in path]
    mouse = watched.page.mouse
    mouse.move(*places[0])
    mouse.down()
    for place in places[1:]:
        mouse.move(*place, steps=6)
    mouse.up()
    watched.page.wait_for_timeout(400)
    watched.settle()


def chosen(watched: Watched) -> int:
    """How many studies the page says are chosen."""
    heading = watched.page.get_by_role("heading", name=re.compile(r"^Chosen studies"))
    expect(heading).to_be_visible(timeout=30_000)
    digits = re.search(r"\d+", heading.inner_text())
    return int(digits.group()) if digits else 0


def dimmed(watched: Watched, place: int) -> int:
    """Points of a map that are not part of the choice."""
    script = "(plot) => [...plot.querySelectorAll('.scatterlayer .point')].filter(p => +p.style.opacity < 0.5).length"
    return int(watched.page.locator(".js-plotly-plot").nth(place).evaluate(script))


LASSO = [(0.2, 0.2), (0.7, 0.15), (0.75, 0.8), (0.25, 0.85), (0.2, 0.25)]


def test_a_lasso_fills_table_pictures_and_address_which_restores_it(watched: Watched) -> None:
    watched.open("embeddings")
    expect(maps(watched)).to_have_count(1, timeout=60_000)
    assert chosen(watched) == 0
    drag(watched, maps(watched).first, LASSO)
    count = chosen(watched)
    assert 10 < count < 400
    assert dimmed(watched, 0) > 10
    expect(watched.page.locator(".cxr-cards a").first).to_be_visible()
    address = watched.page.url
    assert "picked=" in address
    other = watch(watched.page.context.browser, watched.url)  # type: ignore[arg-type]
    other.page.goto(address)
    expect(maps(other)).to_have_count(1, timeout=60_000)
    other.settle()
    assert chosen(other) == count
    assert dimmed(other, 0) == dimmed(watched, 0)
    other.page.get_by_role("button", name="Clear").click()
    other.settle()
    assert chosen(other) == 0
    assert dimmed(other, 0) == 0
    assert "picked=" not in other.page.url
    other.page.close()


def test_a_box_on_one_map_is_seen_on_the_other_and_the_other_way_round(watched: Watched) -> None:
    watched.open("embeddings?method=PCA")
    watched.page.get_by_role("combobox", name=re.compile("Beside it")).click()
    watched.page.get_by_role("option", name=re.compile("^CVE: All tokens")).click()
    watched.settle()
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


def test_a_click_opens_the_study_and_a_card_leads_to_the_read_page(watched: Watched) -> None:
    watched.open("embeddings")
    expect(maps(watched)).to_have_count(1, timeout=60_000)
    watched.page.locator('.modebar-btn[data-title="Pan"]').click()  # with the lasso, a click is an empty lasso
    point = watched.page.locator(".js-plotly-plot .scatterlayer .point").nth(40)
    box = point.bounding_box()
    assert box is not None
    watched.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    watched.page.wait_for_timeout(300)
    watched.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    watched.page.wait_for_timeout(500)
    watched.settle()
    assert chosen(watched) == 1
    study = re.search(r"picked=([^&]+)", watched.page.url)
    assert study
    expect(watched.page.get_by_role("heading", name=f"Nearest to {study.group(1)}")).to_be_visible()
    card = watched.page.locator(".cxr-cards a").last
    target = card.locator("b").inner_text()
    card.click()
    expect(watched.page.locator(".viewer")).to_have_attribute("data-study", target, timeout=60_000)


def test_a_group_is_chosen_by_keyboard(watched: Watched) -> None:
    watched.open("embeddings?colour=Cardiomegaly")
    expect(maps(watched)).to_have_count(1, timeout=60_000)
    box = watched.page.get_by_role("combobox", name=re.compile("Choose a whole group"))
    box.focus()
    box.press("ArrowDown")
    box.press("Enter")
    watched.page.wait_for_timeout(400)
    watched.settle()
    assert chosen(watched) > 5


def test_tsne_shows_its_progress_and_then_the_map(watched: Watched) -> None:
    watched.open("embeddings?method=t-SNE&perplexity=25")
    expect(maps(watched)).to_have_count(1, timeout=120_000)
    expect(watched.page.get_by_text("Trustworthiness")).to_be_visible()


def test_nothing_sticks_out_on_a_phone(browser, server: Server) -> None:
    phone = watch(browser, server.url, 390, 844)
    phone.open("embeddings?encoder=CCVE")
    expect(maps(phone).first).to_be_visible(timeout=60_000)
    overhang = phone.page.evaluate(
        "() => { const main = document.querySelector('[data-testid=stMain]');"
        " return main.scrollWidth - main.clientWidth }"
    )
    assert overhang <= 0
    phone.page.close()
    assert phone.errors == []
