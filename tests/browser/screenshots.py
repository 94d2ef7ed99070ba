"""Write docs/screenshots/<page>-<width>x<height>.png: ``python -m tests.browser.screenshots [NAME ...]``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from dashboard import settings
from tests.browser.conftest import CHROMIUM, FLAGS, start_server, watch

OUT = settings.REPOSITORY / "docs" / "screenshots"
PAGES = {
    "read": "",
    "read-word": "?asked=phantom-fve-m2&mention=Pleural+Effusion&finding=Pleural+Effusion&explain=Grad-CAM",
    "read-methods": "?asked=phantom-fve-m2&word=1&compare=methods",
    "read-filters": "?asked=phantom-ccve-m2&word=1",
    "read-region": "?region=0.55,0.5,0.9,0.9",
    "filters": "filters",
    "filters-difference": "filters?view=Difference+to+the+input&off=Support+Devices",
    "embeddings": "embeddings",
    "embeddings-tsne": "embeddings?encoder=FVE&method=t-SNE&by=Main+cluster",
    "embeddings-chosen": "embeddings?picked=P000002-1,P000004-2,P000012-1,P000021-1,P000030-2,P000035-1"
    "&beside=FVE%3A+All+tokens%2C+averaged",
    "embeddings-filters": "embeddings?encoder=CCVE&points_ccve=Each+filter+a+point&study=P000004-2",
    "embeddings-tokens": "embeddings?points_dve=Each+token+a+point+%28200+studies%29",
    "embeddings-outcomes": "embeddings?encoder=FVE&by=Right+or+wrong&pair=FVE+%2B+M2",
    "embeddings-solid": "embeddings?encoder=CVE&dimensions=3",
    "cases": "cases",
    "cases-disagree": "cases?case_observation=Pneumothorax&case_agreement=pairs+disagree&case_order=most+errors",
    "results": "results",
    "results-observations": "results?view=By+observation",
    "results-slices": "results?view=Slices",
    "results-two-pairs": "results?view=Two+pairs",
    "results-tables": "results?view=Tables+2%2C+3%2C+CCVE",
    "results-seeds": "results?view=Runs+and+seeds",
    "about": "about",
}
SIZES = ((1440, 900), (390, 844))


def main(only: Sequence[str]) -> None:
    """Start the dashboard, visit pages at both sizes.

    Args:
        only: how names of pages begin; empty for all.
    """
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for server in start_server(Path(folder)):
            for width, height in SIZES:
                for name, path in PAGES.items():
                    if only and not name.startswith(tuple(only)):
                        continue
                    watched = watch(browser, server.url, width, height)
                    watched.open(path)
                    if path.startswith("embeddings"):  # t-SNE takes its time, and the chart draws after the script
                        watched.page.wait_for_selector(".js-plotly-plot .main-svg", timeout=120_000)
                    expect(watched.page.get_by_test_id("stSkeleton")).to_have_count(0, timeout=60_000)
                    watched.page.wait_for_timeout(1500)
                    watched.page.screenshot(path=OUT / f"{name}-{width}x{height}.png")
                    watched.page.close()
                    print(f"{name}-{width}x{height}.png", *watched.errors, sep="\n  ")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
