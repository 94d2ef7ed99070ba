"""The Embeddings page at scale, in a real browser: 4,000 studies, and 20,000 points that are to stay fluid.

Speeds, so `slow`; ``python -m pytest tests/browser/test_embeddings_scale.py -m slow --junitxml=x.xml`` writes them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect
from safetensors.numpy import save_file

from core.studies.phantom import PhantomSource
from dashboard import settings
from tests.browser.conftest import Server, start_server, watch
from training.bench.maps import planted_tokens

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

STUDIES, PHANTOMS = 4_000, 33_000
TOKEN_STUDIES, TOKENS = 410, 49  # 20,090 points, as a grid of the paper's DVE gives them


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dashboard whose bundles say that they learned from many phantoms, with planted embeddings of 4,000 of them."""
    folder = tmp_path_factory.mktemp("large")
    bundles = folder / "bundles"
    bundles.mkdir()
    for source in settings.bundles().iterdir():
        if (source / "card.json").is_file():
            (bundles / source.name).mkdir()
            for part in source.iterdir():
                (bundles / source.name / part.name).symlink_to(part)
            card = json.loads((source / "card.json").read_text())
            card["data"] |= {"count": PHANTOMS}
            (bundles / source.name / "card.json").unlink()
            (bundles / source.name / "card.json").write_text(json.dumps(card))
        elif source.is_dir():
            (bundles / source.name).symlink_to(source)
    ids = [study.study_id for study in PhantomSource(PHANTOMS, 0).studies("test")][:STUDIES]
    assert len(ids) == STUDIES
    whole, grid = planted_tokens(STUDIES), planted_tokens(TOKEN_STUDIES, TOKENS, 128)
    store(bundles, "ccve", ids, {"pooled": whole.mean(1), "tokens": whole})
    store(bundles, "dve", ids, {"pooled": whole[:, 0], "tokens": grid})
    yield from start_server(folder, CXR_BUNDLES=str(bundles))


def store(bundles: Path, encoder: str, ids: list[str], tensors: dict[str, np.ndarray]) -> None:
    content = {name: np.ascontiguousarray(values, dtype=np.float16) for name, values in tensors.items()}
    save_file(content, bundles / f"phantom-embeddings-{encoder}.safetensors", {"study_ids": json.dumps(ids)})


# Times between frames while something moves, milliseconds: the median, and the longest.
RECORD = """() => { window.frames_seen = []; let last = performance.now(); window.recording = true
  const see = (now) => {
    window.frames_seen.push(now - last); last = now; if (window.recording) requestAnimationFrame(see) }
  requestAnimationFrame(see) }"""
STOP = """() => { window.recording = false; const all = window.frames_seen.slice(1).sort((a, b) => a - b)
  return [all[all.length >> 1], all[all.length - 1]] }"""


def moving(page: Page, move: list[tuple[float, float]], *, pressed: bool) -> tuple[float, float]:
    """Move the mouse over places of the map, given in fractions, and return the frames' times in milliseconds."""
    box = page.locator(".js-plotly-plot .nsewdrag").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in move]
    page.mouse.move(*places[0])
    page.evaluate(RECORD)
    if pressed:
        page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place)
        page.wait_for_timeout(16)
    median, longest = page.evaluate(STOP)
    if pressed:
        page.mouse.up()
    return median, longest


CIRCLE = [(0.5 + 0.25 * np.cos(turn), 0.5 + 0.35 * np.sin(turn)) for turn in np.linspace(0, 2 * np.pi, 40)]


def test_first_paint_of_4000_studies_and_fluid_20000_points(
    context: BrowserContext, large: Server, record_property: Any
) -> None:
    watched = watch(context, large.url)
    page = watched.page
    told: dict[str, Any] = {}
    charts = page.locator(".js-plotly-plot .gl-container, .js-plotly-plot .scatterlayer")

    def paint(arrive: Callable[[], object]) -> float:
        began = time.perf_counter()
        arrive()
        charts.first.wait_for(state="attached", timeout=300_000)
        expect(page.get_by_text("Map quality")).to_be_visible(timeout=300_000)
        taken = time.perf_counter() - began
        watched.settle()
        return taken

    def from_another_page() -> float:
        page.get_by_role("link", name="About").click()
        expect(page.get_by_text("names the folder of models")).to_be_visible(timeout=300_000)
        watched.settle()
        return paint(page.get_by_role("link", name="Embeddings").click)

    for name, path in {
        "4,000 studies": "embeddings",
        "4,000 studies x 8,320": "embeddings?encoder=CCVE&points_ccve=One+point+per+X-ray+%2813+filters+in+a+row%29",
        "20,090 points": "embeddings?points_dve=One+point+per+area+of+the+X-ray+%28410+studies%29&by_areas=Finding",
    }.items():
        address = f"{large.url}/{path}"
        paint(lambda address=address: page.goto(address))  # type: ignore[misc]
        told[f"the whole app, opened at {name}, s"] = paint(lambda address=address: page.goto(address))  # type: ignore[misc]
        told[f"first paint of {name}, s"] = min(from_another_page() for _ in range(3))
    points = page.evaluate(
        "() => document.querySelector('.js-plotly-plot')._fullData.reduce((n, t) => n + t.x.length, 0)"
    )
    assert points >= 20_000, told

    page.locator(".js-plotly-plot").hover()
    page.locator('.modebar-btn[data-title="Pan"]').click()
    told["pan, ms a frame: median, longest"] = moving(page, CIRCLE, pressed=True)
    told["hover, ms a frame: median, longest"] = moving(page, CIRCLE, pressed=False)
    box = page.locator(".js-plotly-plot .nsewdrag").bounding_box()
    assert box is not None
    page.evaluate(RECORD)
    for step in range(12):
        page.mouse.wheel(0, -60 if step < 6 else 60)
        page.wait_for_timeout(30)
    told["zoom, ms a frame: median, longest"] = tuple(page.evaluate(STOP))
    watched.settle()
    page.locator('.modebar-btn[data-title="Lasso Select"]').click()
    told["lasso being drawn, ms a frame: median, longest"] = moving(page, CIRCLE, pressed=True)
    began = time.perf_counter()
    expect(page.get_by_role("heading", name=re.compile(r"^Chosen studies: \d"))).to_be_visible(timeout=300_000)
    told["lasso to its table, s"] = time.perf_counter() - began
    page.close()
    assert watched.errors == []
    for name, value in told.items():
        record_property(name, value)
    assert all(value <= 2.0 for name, value in told.items() if name.startswith("first paint of 4,000")), told
