"""The Cases page in a real browser: by keyboard through its pages, a figure, its address, and the ways in and out."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from core.bundles.card import read_card
from core.evaluation import own
from core.observations import LabelState
from core.studies.openi import index_openi
from core.studies.sources import open_source
from tests import needs
from tests.browser.conftest import Watched, start_server, watch
from tests.conftest import BUNDLES
from tests.test_openi import needs_data

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_the_keyboard_goes_through_studies_and_pages_and_fills_a_figure(
    watched: Watched, context: BrowserContext
) -> None:
    watched.open("cases?case_observation=Pneumothorax")
    page, rows = watched.page, watched.page.locator(".cases .row")
    expect(rows).to_have_count(8, timeout=60_000)
    names = rows.evaluate_all("rows => rows.map(row => row.getAttribute('aria-label'))")
    rows.first.focus()
    page.keyboard.press("j")
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press("x")
    study = names[1].split(":")[0]
    expect(page).to_have_url(re.compile(f"figure={study}"), timeout=60_000)
    expect(page.get_by_text("1 chosen")).to_be_visible(timeout=60_000)
    expect(rows.nth(1)).to_be_focused()
    for _ in range(7):
        page.keyboard.press("ArrowDown")
    expect(page.get_by_text("page 2 of")).to_be_visible(timeout=60_000)
    expect(rows.first).not_to_have_attribute("aria-label", names[0], timeout=60_000)
    expect(rows.first).to_be_focused()
    page.keyboard.press("k")
    expect(page.get_by_text("page 1 of")).to_be_visible(timeout=60_000)
    expect(rows.last).to_be_focused(timeout=60_000)
    page.keyboard.press("PageDown")
    expect(page.get_by_text("page 2 of")).to_be_visible(timeout=60_000)
    watched.settle()
    other = watch(context, watched.url)
    other.page.goto(page.url)
    expect(other.page.get_by_text("page 2 of")).to_be_visible(timeout=60_000)
    expect(other.page.get_by_text("1 chosen")).to_be_visible(timeout=60_000)
    with other.page.expect_download() as html:
        other.page.get_by_role("button", name="HTML").click()
    assert study in html.value.path().read_text(encoding="utf-8")
    with other.page.expect_download(timeout=60_000) as pdf:
        other.page.get_by_role("button", name="PDF").click()
    assert pdf.value.path().read_bytes().startswith(b"%PDF")
    other.close()


def test_from_a_table_of_results_to_the_reports_to_the_read_page(watched: Watched) -> None:
    watched.page.goto(f"{watched.url}/results?view=By+observation&observation=Edema&of=FVE+%2B+M2&outcome=missed")
    watched.page.get_by_role("link", name="All of them on the Cases page").click(timeout=120_000)
    row = watched.page.locator(".cases .row").first
    expect(row.locator("mark[data-outcome=missed]", has_text="Edema")).to_be_visible(timeout=120_000)
    expect(watched.page.get_by_role("columnheader")).to_have_text(["Study", "Reference", "FVE + M2"])
    study = row.locator("a").inner_text()
    row.focus()
    watched.page.keyboard.press("Enter")
    expect(watched.page.locator("[data-study]")).to_have_attribute("data-study", study, timeout=60_000)


def turns(watched: Watched) -> list[float]:
    """Seconds from the button to another page's rows, five times."""
    row, taken = watched.page.locator(".cases .row").first, []
    for _ in range(5):
        watched.settle()
        before = row.get_attribute("aria-label")
        taken.append(
            watched.page.evaluate(
                """async (before) => {
                  const rows = () => {
                    const all = [...document.querySelectorAll("*")]
                    const host = all.find((each) => each.shadowRoot?.querySelector(".cases"))
                    return host.shadowRoot.querySelector(".cases .row")?.getAttribute("aria-label") }
                  const began = performance.now()
                  document.querySelector(".st-key-page_on button").click()
                  while (rows() === before) await new Promise(requestAnimationFrame)
                  return (performance.now() - began) / 1000 }""",
                before,
            )
        )
    return taken


@pytest.mark.slow  # a speed, not a behaviour: other work on the machine must not fail CI
def test_a_page_turns_within_half_a_second(watched: Watched, record_property: Any) -> None:
    watched.open("cases")
    taken = turns(watched)
    record_property("page_turn_seconds", taken)
    assert min(taken) <= 0.5, taken  # the best of five: other work may be going on


@needs_data
@pytest.mark.slow
def test_a_page_of_openi_with_pictures_turns_within_half_a_second(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    index = index_openi(needs.SHARED / "openi", tmp_path / "openi").folder
    monkeypatch.setenv("CXR_EVALUATIONS", str(tmp_path / "evaluations"))
    source = open_source(str(index))
    names = ("openi-cve-m2", "openi-dve-m2", "openi-fve-m2")
    made = own.ask(source, [read_card(BUNDLES / name) for name in names], BUNDLES, "test")
    made.folder.mkdir(parents=True)
    tested = [study for study in source.studies("test") if study.findings]
    for name, lines in {
        "about.json": [asdict(made)],
        "results.json": [{"family": made.family, "rows": []}],
        # Reports of other studies stand for those of models: as long, and as varied.
        "reports.jsonl": [
            {"study_id": study.study_id, "reference": study.findings}
            | {name: tested[place - shift].findings for shift, name in enumerate(names, 1)}
            for place, study in enumerate(tested)
        ],
        "studies.jsonl": [
            {"study_id": study.study_id, "subject": study.subject_id, "traits": {}, "details": [], "labels":
                {name: state for name, state in study.labels.items() if state is not LabelState.BLANK}}
            for study in tested
        ],
    }.items():  # fmt: skip
        (made.folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    where = {"CXR_SOURCES": str(index), "CXR_EVALUATIONS": str(tmp_path / "evaluations")}
    started = start_server(tmp_path, **where)
    watched = watch(browser, next(started).url)
    watched.open("cases?source=openi")
    expect(watched.page.locator(".cases .row img")).to_have_count(8, timeout=120_000)
    taken = turns(watched)
    record_property("page_turn_seconds", taken)
    expect(watched.page.locator(".cases .row img")).to_have_count(8)
    watched.page.locator(".cases .row a").first.click()
    expect(watched.page.locator("[data-study]")).to_have_attribute("data-study", re.compile("CXR"), timeout=60_000)
    assert "source=openi" in watched.page.url
    watched.close()
    started.close()
    assert min(taken) <= 0.5, taken
