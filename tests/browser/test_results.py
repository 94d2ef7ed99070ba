"""The Results page in a real browser: a cell leads to its studies, a link brings everything back."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.conftest import Server, Watched, overhang, strange_to_readers, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


def test_a_link_restores_what_was_chosen_and_a_card_opens_its_study(watched: Watched) -> None:
    watched.open("results?view=By+observation&observation=Edema&of=FVE+%2B+M2&outcome=found")
    expect(watched.page.get_by_text("Edema, found by FVE + M2")).to_be_visible(timeout=60_000)
    card = watched.page.locator(".cxr-cards a").first
    study = card.locator("b").inner_text()
    card.click()
    expect(watched.page.locator("[data-study]")).to_have_attribute("data-study", study, timeout=60_000)


def test_a_cell_of_the_table_leads_to_its_studies_and_to_its_pair_on_the_read_page(watched: Watched) -> None:
    watched.open("results?view=By+observation")
    expect(watched.page.get_by_text("Pleural Effusion, missed by FVE + M2")).to_be_visible(timeout=60_000)
    table = watched.page.get_by_test_id("stDataFrame").first
    overhang = table.locator(".dvn-scroller").evaluate("scroller => scroller.scrollWidth - scroller.clientWidth")
    assert overhang <= 0  # all twelve pairs are in sight
    box = table.bounding_box()
    assert box is not None
    rows = 16  # two heads and 14 observations
    table.click(position={"x": 300, "y": box["height"] * 4.5 / rows})  # Lung Opacity, the first pair
    expect(watched.page.get_by_text("Lung Opacity, missed by DVE + Transformer")).to_be_visible(timeout=60_000)
    watched.settle()
    assert "observation=Lung+Opacity" in watched.page.url.replace("%20", "+")
    card = watched.page.locator(".cxr-cards a").first
    study = card.locator("b").inner_text()
    card.click()
    expect(watched.page.locator("[data-study]")).to_have_attribute("data-study", study, timeout=60_000)
    expect(watched.page.get_by_text("1 of 12 models")).to_be_visible(timeout=60_000)


def test_a_point_of_the_chart_chooses_its_pair(watched: Watched) -> None:
    watched.open("results")
    expect(watched.page.get_by_text("Where FVE + M2 makes most errors")).to_be_visible(timeout=60_000)
    point = watched.page.locator(".js-plotly-plot .scatterlayer .trace").first.locator("path.point").first
    point.click(force=True)  # plotly takes clicks on the layer above its points
    expect(watched.page.get_by_text("Where DVE + Transformer makes most errors")).to_be_visible(timeout=60_000)
    watched.settle()
    assert "of=DVE" in watched.page.url


def test_slices_and_two_pairs_are_there_and_can_be_saved(watched: Watched) -> None:
    watched.open("results?view=Slices&by_what=Worst+severity&of=CVE+%2B+M2")
    expect(watched.page.get_by_text("The worst first.")).to_be_visible(timeout=60_000)
    watched.page.get_by_text("Save this table").click()
    with watched.page.expect_download() as download:
        watched.page.get_by_role("button", name="CSV", exact=True).click()
    text = download.value.path().read_text()
    assert "Micro F1 of CVE + M2 by Worst severity" in text
    assert "Worst severity: severe" in text
    watched.open("results?view=Two+models&first=FVE+%2B+M2&second=DVE+%2B+M2")
    expect(watched.page.get_by_text("FVE + M2 has fewer errors than DVE + M2")).to_be_visible(timeout=60_000)
    watched.open("results?view=Two+models&first=FVE+%2B+M2&second=FVE+%2B+M2")
    expect(watched.page.get_by_text("Choose two different models.")).to_be_visible(timeout=60_000)


def test_on_a_phone_nothing_sticks_out(context: BrowserContext, server: Server) -> None:
    watched = watch(context, server.url, 390, 844)
    tables = (
        "By observation",
        "Slices",
        "Two models",
        "Tables and studies",
        "Runs and seeds",
        "Finds and false alarms",
        "Votes",
    )
    for view in (*tables, "Sentences to trust", "Other metrics"):
        watched.open(f"results?{urlencode({'view': view})}")
        shown = watched.page.get_by_text("Add scores of other programs").or_(
            watched.page.get_by_text("scores of other programs here")
        )
        expect(shown.or_(watched.page.get_by_test_id("stDataFrame")).first).to_be_visible(timeout=60_000)
        assert overhang(watched.page) <= 0, view
        assert strange_to_readers(watched.page) == [], view
    watched.close()
