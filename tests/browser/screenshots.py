"""Write docs/screenshots/<page>-<width>x<height>.png: ``python -m tests.browser.screenshots [NAME ...]``.

Where there is an index of Open-i (``data/openi``, or --index), the pages on it are taken too, most of them into
build/screenshots: see `tests.browser.shown_sources`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from core import paths
from core.evaluation import own
from core.reviews.database import Database
from core.reviews.design import Case, Design, image_sha256
from core.reviews.editing_design import Editing
from core.reviews.rubrics import ERROR_KINDS, Mark
from core.reviews.sources import name_phantoms, open_source, session_image
from core.reviews.store import (
    Actor,
    annotate,
    close_session,
    create_session,
    first_admin,
    list_screens,
    open_screen,
    read_screen,
    save_mark,
    set_role,
    spend,
)
from core.studies.sources import open_source as open_studies
from core.text import sentence_spans
from dashboard import settings
from dashboard.services import sources
from tests.browser import shown_sources as shown
from tests.browser import shown_systems as others
from tests.browser.conftest import Server, start_server, watch
from tests.browser.find import start

OUT = settings.REPOSITORY / "docs" / "screenshots"
KEPT_HERE = settings.REPOSITORY / "build" / "screenshots"
PAGES = {
    "read": "",
    "read-word": "?asked=phantom-fve-m2&mention=Pleural+Effusion&finding=Pleural+Effusion&explain=Grad-CAM",
    "read-methods": "?asked=phantom-fve-m2&word=1&compare=methods",
    "read-filters": "?asked=phantom-ccve-m2&mention=Support+Devices&finding=Support+Devices",
    "read-region": "?region=0.55,0.5,0.9,0.9",
    "filters": "filters",
    "filters-difference": "filters?view=Difference+from+the+original&off=Support+Devices",
    "embeddings": "embeddings",
    "embeddings-tsne": "embeddings?encoder=FVE&method=t-SNE&by=Disease+group",
    "embeddings-chosen": "embeddings?picked=P000002-1,P000004-2,P000012-1,P000021-1,P000030-2,P000035-1"
    "&beside=FVE%3A+One+point+per+X-ray+%28image%29",
    "embeddings-filters": "embeddings?encoder=CCVE&points_ccve=One+point+per+filter&study=P000004-2",
    "embeddings-tokens": "embeddings?points_dve=One+point+per+area+of+the+X-ray+%28200+studies%29",
    "embeddings-outcomes": "embeddings?encoder=FVE&by=Right+or+wrong&pair=FVE+%2B+M2",
    "embeddings-solid": "embeddings?encoder=CVE&dimensions=3",
    "cases": "cases",
    "cases-disagree": "cases?case_observation=Pneumothorax&case_agreement=models+disagree&case_order=most+errors",
    "results": "results",
    "results-observations": "results?view=By+observation",
    "results-slices": "results?view=Slices",
    "results-two-pairs": "results?view=Two+models",
    "results-tables": "results?view=Tables+and+studies",
    "results-seeds": "results?view=Runs+and+seeds",
    "results-trust": "results?view=Sentences+to+trust",
    "results-votes": "results?view=Votes",
    "detection": "detection?detected=Pneumothorax&place=right&extent=0.50",
    "about": "about",
}
SIZES = ((1440, 900), (390, 844))
BETWEEN = ((1024, 768), (820, 1180))
"""Of a tablet and a small window: pictures of answers are taken at these too."""
ANSWERS = ("read-word", "read-filters", "read-methods")
RESEARCHER, READERS = "rita", ("anna", "boris")
REVIEWS = ("review", "review-reader", "review-results", "reading", "reading-preference", "reading-editing")


def review_pages(location: Path) -> Mapping[str, str]:
    """Pages of three review sessions, made here: on the bundles' reports in assets, with marks by lot."""
    source = name_phantoms(*sources.phantom_numbers())
    opened = open_source(source)
    lines = (settings.bundles() / "phantom-reports.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    pool = []
    for reports in map(json.loads, lines):
        study = reports.pop("study_id")
        pool.append(Case(study, image_sha256(session_image(opened, study)), reports))
    human = {case.reports["reference"] for case in pool}
    models = ("phantom-ccve-transformer", "phantom-dve-m2", "reference")
    said = "Window as you like. Mark what you would correct before you sign the report."
    with closing(Database(location)) as database:
        admin = first_admin(database, RESEARCHER)
        for reader in READERS:
            set_role(database, admin, reader, "reader")

        def make(title: str, rubric: str) -> str:
            design = Design(title, rubric, READERS, models, seed=1, source=source, instructions=said)
            return create_session(database, admin, design, pool)

        quality, closed = make("Pilot: errors of two pairs", "report-quality"), make("First round", "report-quality")
        preference = make("Which would you sign?", "preference")
        arms = Editing(("no draft", models[0]), planted=0.5)
        drafts = Design("From draft to report", "draft-editing", READERS, models, source=source, editing=arms)
        editing = create_session(database, admin, drafts, pool)
        skip_to_draft(database, "boris", editing)
        for reader in READERS:
            read_by_lot(database, reader, closed, 18, human)
            read_by_lot(database, reader, quality, 7 if reader == "anna" else 3, human)
        mark_by_lot(database, "anna", list_screens(database, Actor("anna", "reader"), quality)[7][0], 2)
        close_session(database, admin, closed)
    return {
        "review": f"review?reader={RESEARCHER}&session={quality}",
        "review-reader": "review?reader=anna",
        "review-results": f"review?reader={RESEARCHER}&session={closed}",
        "reading": f"reading?reader=anna&session={quality}",
        "reading-preference": f"reading?reader=anna&session={preference}",
        "reading-editing": f"reading?reader=boris&session={editing}",
    }


def read_by_lot(database: Database, reader: str, session_id: str, count: int, human: Collection[str]) -> None:
    """Finish a reader's first screens; ``human`` reports get fewer marks."""
    who, lot = Actor(reader, "reader"), np.random.default_rng(len(reader))
    for screen_id, _, _ in list_screens(database, who, session_id)[:count]:
        open_screen(database, who, screen_id)
        ((_, text),) = read_screen(database, who, screen_id).reports
        mark_by_lot(database, reader, screen_id, int(lot.poisson(0.3 if text in human else 1.4)))
        spend(database, who, screen_id, float(lot.uniform(20, 60)), key=f"time-{screen_id}")
        annotate(database, who, screen_id, key=f"done-{screen_id}", version=1, state="done")


def skip_to_draft(database: Database, reader: str, session_id: str) -> None:
    """Skip a reader's first screens until one has a draft."""
    who = Actor(reader, "reader")
    for screen_id, _, _ in list_screens(database, who, session_id):
        if read_screen(database, who, screen_id).reports[0][1]:
            return
        annotate(database, who, screen_id, key=screen_id, version=1, state="skipped", skip_reason="Another one.")


def mark_by_lot(database: Database, reader: str, screen_id: str, count: int) -> None:
    """Mark sentences of the first report of a screen."""
    who, lot = Actor(reader, "reader"), np.random.default_rng(count)
    ((name, text), *_) = read_screen(database, who, screen_id).reports
    spans = sentence_spans(text)
    for place in range(count):
        span = list(spans[int(lot.integers(len(spans)))])
        kind = list(ERROR_KINDS)[int(lot.integers(4))]
        value = {"error": kind, "significant": bool(lot.random() < 0.6), "span": span}
        save_mark(database, who, screen_id, Mark("error", name, value), key=f"{screen_id}-{place}")


def shrink(path: Path) -> None:
    """Keep a picture with 256 colours: a third of the bytes, and hardly to be seen."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def take(browser: Browser, server: Server, pages: Mapping[str, str]) -> None:
    """Visit pages at both sizes, those with an answer at four."""
    answers = {name: path for name, path in pages.items() if name in ANSWERS}
    taken = [(size, pages) for size in SIZES] + [(size, answers) for size in BETWEEN]
    for (width, height), chosen in taken:
        for name, path in chosen.items():
            watched = watch(browser, server.url, width, height)
            (watched.open_review if path.startswith("re") and "reader" in path else watched.open)(path)
            page = watched.page
            if path.startswith("embeddings"):  # t-SNE takes its time, and the chart draws after the script
                page.wait_for_selector(".js-plotly-plot .main-svg", timeout=120_000)
            if path.startswith("?") or not path:  # Read: reports are written one after another
                page.locator("article.card").first.wait_for(timeout=120_000)
                expect(page.locator("article.card.waiting")).to_have_count(0, timeout=120_000)
            if path.startswith("reading"):
                page.wait_for_selector('.reading:not([data-image=""])', timeout=30_000)
                if page.locator(".sheet").is_visible():
                    page.keyboard.press("Enter")
            if name.startswith("read-place"):  # what a program is asked has a price, which somebody agrees to
                asked = page.get_by_role("button", name="reports and compare")
                asked.or_(page.locator(".viewer[data-maps='1']")).first.wait_for()
                if asked.is_visible():  # at the first size
                    asked.click()
                expect(page.locator(".viewer")).to_have_attribute("data-maps", "1", timeout=240_000)
            expect(page.get_by_test_id("stSkeleton")).to_have_count(0, timeout=60_000)
            page.wait_for_timeout(1500)
            folder = KEPT_HERE if name.endswith("-openi") and name not in shown.NOBODYS else OUT
            folder.mkdir(parents=True, exist_ok=True)
            picture = folder / f"{name}-{width}x{height}.png"
            page.screenshot(path=picture)
            shrink(picture)
            page.close()
            print(f"{name}-{width}x{height}.png", *watched.errors, sep="\n  ")


def main() -> None:
    """Start the dashboard, visit pages at both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", metavar="NAME", help="how names of pages begin or end; all unless given")
    parser.add_argument("--index", type=Path, default=paths.INDEX, help="of Open-i")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    only, index = tuple(asked.only), asked.index.absolute()

    def wanted(pages: Mapping[str, str]) -> dict[str, str]:
        return {name: path for name, path in pages.items() if not only or name.startswith(only) or name.endswith(only)}

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = start(playwright)
        if pages := wanted({**PAGES, **dict.fromkeys(REVIEWS, "")}):
            made = review_pages(Path(folder) / "reviews.sqlite")
            for server in start_server(Path(folder), LOGNAME=RESEARCHER):
                take(browser, server, {name: made.get(name, path) for name, path in pages.items()})
        for take_pages in (own_pages, system_pages, openi_pages):
            take_pages(browser, Path(folder), index, wanted)
        browser.close()


def own_pages(
    browser: Browser, folder: Path, index: Path, wanted: Callable[[Mapping[str, str]], dict[str, str]]
) -> None:
    """Pages on the example radiographs and on a table, with a session on it."""
    examples = wanted(shown.pages_of("example", "example", shown.BOXED, order=""))
    of_ward = wanted(shown.pages_of("ward", shown.WARD, shown.BOXED))
    reviews = wanted(dict.fromkeys(("review-ward", "reading-ward"), ""))
    if not examples | of_ward | reviews:
        return
    home = folder / "own"
    home.mkdir()
    own_folders = {"CXR_CACHE": str(home / "cache"), "CXR_EVALUATIONS": str(home / "evaluations")}
    with patch.dict(os.environ, own_folders):
        ward = shown.make_ward(home)
        shown.prepare(open_studies("example"), examples)
        shown.prepare(open_studies(str(ward)), of_ward)
        if reviews:
            made = shown.evaluated(open_studies(str(ward)))
            about = ("ward", "Films of our ward", home / "reviews.sqlite", made, tuple(made.pairs))
            reviews = wanted(shown.review_pages(*about, RESEARCHER, READERS))
    for server in start_server(home, LOGNAME=RESEARCHER, CXR_SOURCES=str(ward)):
        take(browser, server, examples | of_ward | reviews)


def system_pages(
    browser: Browser, folder: Path, index: Path, wanted: Callable[[Mapping[str, str]], dict[str, str]]
) -> None:
    """Pages with a model of transformers, a file of reports and a program among the pairs, and a session of them."""
    if not wanted(dict.fromkeys(others.PAGES, "")):
        return
    home = folder / "systems"
    home.mkdir()
    with patch.dict(os.environ):
        environment = others.prepare(home)
        made = others.evaluated(home)
        about = ("systems", "Three systems from elsewhere", home / "reviews.sqlite", made, others.THREE)
        reviews = shown.review_pages(*about, RESEARCHER, READERS)
        pages = wanted({**others.pages(made), **reviews})
    for server in start_server(home, LOGNAME=RESEARCHER, **environment):
        take(browser, server, pages)


def openi_pages(
    browser: Browser, folder: Path, index: Path, wanted: Callable[[Mapping[str, str]], dict[str, str]]
) -> None:
    """Pages on Open-i's test studies, with this user's own evaluation and maps of them."""
    if not (index / "index.json").is_file():
        print(f"There is no index of Open-i at {index}: pages on it are left out.")
        return
    pages = wanted(shown.pages_of("openi", index.name, shown.first_study(str(index), "test")))
    if not pages:
        return
    home = folder / "openi"
    home.mkdir()
    shown.prepare(open_studies(str(index)), pages, "test")
    kept = {"CXR_CACHE": str(paths.cache()), "CXR_EVALUATIONS": str(own.home())}
    for server in start_server(home, LOGNAME=RESEARCHER, CXR_SOURCES=str(index), **kept):
        take(browser, server, pages)


if __name__ == "__main__":
    main()
