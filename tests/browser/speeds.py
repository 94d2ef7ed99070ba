"""Speeds of the pages on sources, in a real browser: ``python -m tests.browser.speeds [PART ...] [--index FOLDER]``.

The browser's clock counts from the click or key to what is on the screen. What is there already is used: the index of
Open-i, an evaluation of it, maps; an evaluation by two pairs and maps by two encoders are made where there are none.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from core import paths
from core.bundles.library import BundleLibrary
from core.evaluation import own
from core.projection.embeddings import Embedding, embed
from core.studies.census import Notes
from core.studies.index import StudyEntry, write_index
from core.studies.sources import open_source
from dashboard.first_paint import PAGES
from tests.browser.conftest import WAIT, Server, Watched, start_server, watch
from tests.browser.find import start
from tests.browser.test_cases import turns
from tests.openi_tree import png
from training.bench.sources import COUNT, entries

MODELS = ("openi-fve-m2", "openi-dve-m2")  # whose evaluation is made where there is none
MAPS = ("openi-fve-transformer", "openi-dve-transformer")  # whose maps the page shows of these encoders
TIMES = 5
FILM = "film.png"
FEW = 700  # studies; of 600 a list is offered

SEE = """
const all = (what) => [document, ...[...document.querySelectorAll("*")].map((each) => each.shadowRoot)]
  .filter(Boolean).flatMap((root) => [...root.querySelectorAll(what)])
const study = () => all(".viewer")[0]?.dataset.study
const frame = () => new Promise(requestAnimationFrame)
"""
# From the button to the next study with all its reports, seconds.
NEXT = f"""async (reports) => {{ {SEE}
  const before = study(), began = performance.now()
  document.querySelector(".st-key-next button").click()
  while (study() === before || all("article.card:not(.waiting)").length < reports) await frame()
  return (performance.now() - began) / 1000 }}"""
SHOWS = f"(wanted) => {{ {SEE} return study() === wanted }}"

Row = tuple[str, str, list[float]]
"""What, its limit, and what was measured."""


@contextmanager
def opened(
    browser: Browser, folder: Path, sources: str, *, own_cache: bool = False
) -> Iterator[tuple[Server, Watched]]:
    """A fresh server on some sources, with this user's own maps and evaluations, and a page of it.

    With ``own_cache`` it has none of them, but a cache in ``folder``.
    """
    kept = {} if own_cache else {"CXR_CACHE": str(paths.cache()), "CXR_EVALUATIONS": str(own.home())}
    folder.mkdir(parents=True, exist_ok=True)
    with closing(start_server(folder, CXR_SOURCES=sources, **kept)) as started:
        server = next(started)
        watched = watch(browser, server.url)
        watched.page.set_default_timeout(WAIT * 4)
        yield server, watched
        watched.page.close()


def name_of(index: Path) -> str:
    """What stands for an index in the address."""
    return index.name.lower()


# ------------------------------------------------------------------------------------------------------------ parts


def first(browser: Browser, folder: Path, index: Path) -> Iterator[Row]:
    """The first page of a server that has just started: its default source, nothing loaded.

    The film and its reference are seen first in the start page (`dashboard.first_paint`), then in the page itself. Each
    server has a cache of its own, as after an installation, but for what is measured of the next start.
    """
    seen, again, film, report = [], [], [], []
    for turn in range(TIMES):
        with opened(browser, folder / str(turn), str(index), own_cache=True) as (_, watched):
            began = time.perf_counter()
            watched.page.goto(watched.url, wait_until="commit")
            watched.page.locator("#cxr-first[data-shown]").wait_for(state="attached")
            seen.append(time.perf_counter() - began)
            watched.page.wait_for_function(f"() => {{ {SEE} return study() && all('article.reference').length }}")
            film.append(time.perf_counter() - began)
            watched.page.wait_for_function(f"() => {{ {SEE} return all('article.card:not(.waiting)').length }}")
            report.append(time.perf_counter() - began)
        with opened(browser, folder / str(turn), str(index), own_cache=True) as (_, watched):
            began = time.perf_counter()
            watched.page.goto(watched.url, wait_until="commit")
            watched.page.locator("#cxr-first[data-shown]").wait_for(state="attached")
            again.append(time.perf_counter() - began)
    yield "Read: the first server of this user just started, from the address to film and reference, s", "2", seen
    yield "the same of the next server", "2", again
    yield "the first again, to the page itself with film and reference, s", "", film
    yield "the same, to the first report, s", "6", report


def read(browser: Browser, folder: Path, index: Path) -> Iterator[Row]:
    """A study of Open-i and twelve reports, models loaded, the study never opened before."""
    with opened(browser, folder, str(index)) as (_, watched):
        watched.open(f"?source={name_of(index)}")
        ready = watched.page.locator("article.card:not(.waiting)")
        expect(ready).to_have_count(12, timeout=WAIT * 4)
        taken = []
        for _ in range(TIMES):
            watched.settle()
            taken.append(float(watched.page.evaluate(NEXT, 12)))
    yield "Read: another study of Open-i with its twelve reports, s", "3", taken


def cases(browser: Browser, folder: Path, index: Path) -> Iterator[Row]:
    """A page of Cases."""
    evaluated(index)
    with opened(browser, folder, str(index)) as (_, watched):
        watched.open(f"cases?source={name_of(index)}")
        pictures = watched.page.locator(".cases .row img")
        expect(pictures).to_have_count(8, timeout=WAIT * 4)
        taken = turns(watched)
        expect(pictures).to_have_count(8)
    yield "Cases: the next eight studies of Open-i, with pictures, s", "0.5", taken


def maps(browser: Browser, folder: Path, index: Path) -> Iterator[Row]:
    """Maps of the test studies, from disk."""
    source = open_source(str(index))
    for name in MAPS:
        embed(Embedding(source.key, paths.BUNDLES, name, "test"), lambda share, what: None)
    first, then = [], []
    address = f"embeddings?source={name_of(index)}&encoder="
    for turn in range(3):  # the first time makes what is on disk then
        with opened(browser, folder / str(turn), str(index)) as (_, watched):
            watched.open(f"about?source={name_of(index)}")
            began = time.perf_counter()
            watched.page.get_by_role("link", name="Embeddings").click()
            drawn(watched)
            first.append(time.perf_counter() - began)
            watched.open(address + "FVE")
            drawn(watched)
            watched.settle()
            watched.page.locator(".js-plotly-plot").first.evaluate("each => each.remove()")
            began = time.perf_counter()
            watched.page.get_by_role("radio", name="DVE").or_(
                watched.page.get_by_test_id("stButtonGroup").get_by_text("DVE", exact=True)
            ).first.click()
            drawn(watched)
            then.append(time.perf_counter() - began)
    yield "Embeddings: the first map of a fresh server, libraries read too, s", "", first[1:]
    yield "Embeddings: another map of Open-i's 590 test studies, s", "2", then[1:]


def memory(browser: Browser, folder: Path, index: Path) -> Iterator[Row]:
    """What a server and its processes hold after all pages, then after four large films were given and reported."""
    films = folder / "films"
    films.mkdir(parents=True)
    for number in range(4):
        grey = np.random.default_rng(number).normal(128, 40, (764, 636)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grey).resize((2544, 3056)).save(films / f"film-{number}.jpg")
    with opened(browser, folder, str(index)) as (server, watched):
        for page in PAGES:
            watched.open(("" if page == PAGES[0] else page.lower()) + f"?source={name_of(index)}")
            watched.settle()
        after_pages = [held(server)]
        watched.open("?source=upload")
        watched.page.locator('[data-testid="stFileUploader"] input[type="file"]').set_input_files(
            sorted(films.iterdir())
        )
        expect(watched.page.locator("article.card:not(.waiting)")).to_have_count(12, timeout=WAIT * 4)
        watched.settle()
        yield "memory of the server and its processes after all pages, MB", "", after_pages
        yield "the same after four films of 3056 x 2544 were given, MB", "1500", [held(server)]


def held(server: Server) -> float:
    """Memory of a server and its processes, MB; what several share counts once."""
    return sum(each.memory_full_info().pss for each in processes(server)) / 1e6


def processes(server: Server) -> list[psutil.Process]:
    """Of a server: itself and those that it started."""
    return [server.process, *server.process.children(recursive=True)]


def drawn(watched: Watched) -> None:
    """Wait until a map and the numbers under it are there."""
    watched.page.locator(".js-plotly-plot .main-svg").first.wait_for(state="attached")
    expect(watched.page.get_by_text("Map quality")).to_be_visible(timeout=WAIT * 4)


def typing(browser: Browser, folder: Path, index: Path, count: int = COUNT) -> Iterator[Row]:
    """Choosing among as many studies as MIMIC-CXR has; all have one small image.

    Memory is that of a server which has read as many reports of other studies before.
    """
    films = folder / "films"
    films.mkdir(parents=True)
    (films / FILM).write_bytes(png(1))
    size = (films / FILM).stat().st_size
    for name, many in (("few", FEW), ("as-few", FEW), ("many", count)):
        write_index(folder / name, "mimic_cxr", films, {}, (alike(each, size) for each in entries(many)), Notes())
    named = ",".join(str(folder / each) for each in ("few", "as-few", "many"))
    with opened(browser, folder, named) as (server, watched):
        choose(watched, folder / "few")
        with growth(server) as of_few:
            choose(watched, folder / "as-few")
        with growth(server) as of_many:
            entered, writing, paused = choose(watched, folder / "many")
    yield f"Read: a study of {count:,} by its id, from Enter, s", "0.3", entered
    yield "the same while reports of the last one are written, s", "", writing
    yield "the same without Enter, with the pause of 0.3 s before it is looked for, s", "", paused
    yield f"memory by which the server grows with {count:,} studies, at most, MB", "300", of_many
    yield f"the same with another {FEW} studies, which are chosen and reported alike, MB", "", of_few


def choose(watched: Watched, index: Path) -> tuple[list[float], list[float], list[float]]:
    """Open an index, and choose studies by typing: seconds from Enter, while reports are written, and without Enter."""
    ids = open_source(str(index)).ids("test")
    chosen = iter([ids[len(ids) * place // (3 * TIMES + 1)] for place in range(1, 3 * TIMES + 1)])
    watched.open(f"?source={index.name}")
    watched.page.locator(".viewer").wait_for()
    field = watched.page.get_by_label("Find a study")

    def type_(key: str, *, idle: bool) -> float:
        if idle:
            expect(watched.page.locator("article.card:not(.waiting)")).to_have_count(12, timeout=WAIT * 4)
            watched.settle()
        study_id = next(chosen)
        field.fill(study_id)
        began = time.perf_counter()
        if key:
            field.press(key)
        watched.page.wait_for_function(SHOWS, arg=study_id)
        return time.perf_counter() - began

    entered = [type_("Enter", idle=True) for _ in range(TIMES)]
    writing = [type_("Enter", idle=False) for _ in range(TIMES)]
    return entered, writing, [type_("", idle=True) for _ in range(TIMES)]


def alike(entry: StudyEntry, size: int) -> StudyEntry:
    """A study whose images are all in one file, to be shown among the others whatever models learned."""
    return replace(entry, split="test", images=[replace(each, path=FILM, size=size) for each in entry.images])


@contextmanager
def growth(server: Server) -> Iterator[list[float]]:
    """How much the memory of a server and its processes grows, at most, MB."""
    ended, found = threading.Event(), [0.0]

    def resident() -> float:
        return sum(each.memory_info().rss for each in processes(server)) / 1e6

    before = resident()

    def watch_it() -> None:
        while not ended.wait(0.1):
            try:
                found[0] = max(found[0], resident() - before)
            except psutil.Error:
                continue

    watcher = threading.Thread(target=watch_it)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


def evaluated(index: Path) -> None:
    """Evaluate the test studies as the button of the page does, where nobody did."""
    source = open_source(str(index))
    if any(each.whole and each.source == source.key for each in own.evaluations()):
        return
    cards = [card for card in BundleLibrary(paths.BUNDLES).cards() if card.name in MODELS]
    own.EvaluationJob(own.ask(source, cards, paths.BUNDLES, "test")).wait()


PARTS: dict[str, Callable[..., Iterator[Row]]] = {
    "first": first,
    "read": read,
    "cases": cases,
    "maps": maps,
    "typing": typing,
    "memory": memory,
}


def main() -> None:
    """Print a Markdown table, each row when it is measured."""
    parser: Any = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all unless named")
    parser.add_argument("--index", type=Path, default=paths.INDEX, help="of Open-i, for all but typing")
    parser.add_argument("--studies", type=int, default=COUNT, help="among which one is chosen by typing")
    chosen = parser.parse_args()
    sys.stdout.write("| what | limit | median | longest |\n|---|---:|---:|---:|\n")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = start(playwright)
        for part in chosen.parts or PARTS:
            more = {"count": chosen.studies} if part == "typing" else {}
            for what, limit, values in PARTS[part](browser, Path(folder, part), chosen.index.absolute(), **more):
                sys.stdout.write(f"| {what} | {limit} | {median(values):.2f} | {max(values):.2f} |\n")
                sys.stdout.flush()
        browser.close()
    sys.stdout.write(
        f"\nOther work counts too: {os.getloadavg()[2]:.1f} processes wanted the {os.cpu_count()} cores.\n"
    )


if __name__ == "__main__":
    main()
