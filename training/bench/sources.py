"""Choosing among very many studies: seconds and memory. ``python -m training.bench.sources``.

An index of as many studies as MIMIC-CXR has, with invented texts, is opened as pages open it, and searched by typing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from core.studies.census import Notes
from core.studies.index import ImageEntry, StudyEntry, write_index
from core.studies.sources import open_source

T = TypeVar("T")
COUNT = 227_835
TYPED = ("", "s5001", "s50700700", "12345", "p10000", "none like this")
_WORDS = (
    "heart",
    "normal",
    "lungs",
    "clear",
    "no",
    "effusion",
    "pneumothorax",
    "small",
    "left",
    "lower",
    "lobe",
    "opacity",
)


def entries(count: int) -> Iterator[StudyEntry]:
    """Invented studies: 80 words of report each, one or two images, three studies a patient."""
    rng = np.random.default_rng(0)
    for number in range(count):
        findings, impression, indication = (" ".join(rng.choice(_WORDS, words)) for words in (60, 20, 15))
        study, patient = f"s{50_000_000 + 7 * number}", f"p{10_000_000 + number // 3}"
        folder = f"files/{patient[:3]}/{patient}/{study}"
        images = [
            ImageEntry(f"{number:08x}-{view}", f"{folder}/{number:08x}-{view}-4d2f-9a61-77e0b1c5.jpg", view, 50_000)
            for view in ("PA", "LATERAL")[: 1 + (number % 3 > 0)]
        ]
        split = "test" if number % 50 == 0 else "validate" if number % 50 == 1 else "train"
        yield StudyEntry(study, patient, split, findings, impression, {"indication": indication}, images)


def search(folder: str) -> Iterator[tuple[str, float]]:
    """Open an index and search it: what, and its seconds; last the memory that all of it took at most, MiB."""
    before = _peak()
    source = None

    def timed(what: str, work: Callable[[], T]) -> tuple[str, float]:
        began = time.perf_counter()
        work()
        return what, time.perf_counter() - began

    def start() -> None:
        nonlocal source
        source = open_source(folder)
        source.splits()

    yield timed("open it, s", start)
    assert source is not None
    for text in TYPED:
        yield timed(f"find '{text}', s", lambda text=text: source.find(text))  # type: ignore[misc]
    ids = source.ids("test")
    yield timed("a study, the first time, s", lambda: source.study(ids[len(ids) // 2]))
    yield timed("the same study again, s", lambda: source.study(ids[len(ids) // 2]))
    yield timed("its images, s", lambda: source.images(ids[len(ids) // 2]))
    yield "memory at most, MiB", _peak() - before


def _peak() -> float:
    """The most memory that this process had, MiB; on Linux not what its parent had, which `getrusage` hands down."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _search(folder: str) -> list[tuple[str, float]]:
    return list(search(folder))


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=COUNT, help="in the index")
    count = parser.parse_args().studies
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder, "index"), "mimic_cxr", Path(folder), {}, entries(count), Notes())
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # another process: writing takes memory too
            rows = pool.apply(_search, (str(Path(folder, "index")),))
    sys.stdout.write(f"{count:,} studies\n" + "".join(f"{what:<28}{value:>10.3f}\n" for what, value in rows))


if __name__ == "__main__":
    main()
