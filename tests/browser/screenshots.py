"""Write docs/screenshots/<page>-<width>x<height>.png of every page: ``python -m tests.browser.screenshots``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

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
    "cases": "cases",
    "results": "results",
    "results-observations": "results?view=By+observation",
    "results-slices": "results?view=Slices",
    "results-two-pairs": "results?view=Two+pairs",
    "about": "about",
}
SIZES = ((1440, 900), (390, 844))


def main() -> None:
    """Start the dashboard, visit every page at both sizes."""
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for server in start_server(Path(folder)):
            for width, height in SIZES:
                for name, path in PAGES.items():
                    watched = watch(browser, server.url, width, height)
                    watched.open(path)
                    if path == "embeddings":  # the chart draws after the script
                        watched.page.wait_for_selector(".js-plotly-plot .scatterlayer", timeout=30_000)
                    watched.page.wait_for_timeout(1500)
                    watched.page.screenshot(path=OUT / f"{name}-{width}x{height}.png")
                    watched.page.close()
                    print(f"{name}-{width}x{height}.png", *watched.errors, sep="\n  ")
        browser.close()


if __name__ == "__main__":
    main()
