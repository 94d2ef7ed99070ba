"""A source of studies and pairs in, a file of their reports out: in blocks, which processes share and reruns keep."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from core import ranks
from core.bundles.gates import gate_file
from core.bundles.library import BundleLibrary
from core.devices import Precision
from core.files import hash_of, own_folder, read_json_lines, sha256_of, whole_file, write_whole
from core.packages import versions
from core.processes import worker_pool
from core.studies.model_image import of_study
from core.studies.source import Source
from core.studies.sources import open_source
from core.types import CXRLensError, Fit, Split

if TYPE_CHECKING:
    import torch

    from core.bundles.pair import ReportModel

Progress: TypeAlias = Callable[[int, int], None]

BLOCK = 64
"""Studies in a block: what a process loses at most when it is interrupted."""
FORMATS = (".jsonl", ".csv")
PACKAGES = ("torch", "timm", "open_clip_torch", "numpy", "pydicom", "Pillow")
_ID, _REFERENCE, _PROBLEM, _CUT, _WARNED = "study_id", "reference", "problem", "cut", "warned"


@dataclass(frozen=True, slots=True)
class Work:
    """What is written, and how.

    Attributes:
        source: key of a source, as `core.studies.sources.open_source` takes it.
        split: "train", "validate", "test"; None is all studies.
        bundles: folder of bundles.
        pairs: names of bundles.
        batch: images that are encoded together.
        beam_size: 1 is greedy; None is as each card says.
        device: see `core.devices.open_device`.
        precision: see `core.devices.Precision`.
    """

    source: str
    split: Split | None
    bundles: Path
    pairs: tuple[str, ...]
    batch: int = 16
    beam_size: int | None = None
    device: str = "cpu"
    precision: Precision = "fp32"


@dataclass(frozen=True, slots=True)
class PairCensus:
    """What a pair wrote.

    Attributes:
        reports: how many.
        empty: reports without a word.
        cut: reports that the length limit ended.
        words: mean of a report.
        distinct: share of reports that differ from each other, 0 to 1.
    """

    reports: int
    empty: int
    cut: int
    words: float
    distinct: float


@dataclass(frozen=True, slots=True)
class Census:
    """What came of it.

    Attributes:
        studies: in the source.
        written: of them have their reports in the file.
        unreadable: the others, and why: study id -> a sentence.
        pairs: name of the bundle -> what it wrote.
        warned: study id -> what must stand beside its reports: it is unlike what a pair learned from, or a pair wrote
            nothing. What is true of all of a pair's studies is in `told` alone.
        told: what is to be said of the whole.
    """

    studies: int
    written: int
    unreadable: dict[str, str]
    pairs: dict[str, PairCensus]
    warned: dict[str, list[str]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def write_source(work: Work, out: Path, processes: int = 1, progress: Progress | None = None) -> Census:
    """Write the reports of a source's studies with some pairs into one file, a line a study.

    Run again after an interruption it goes on where it stopped; run again with the same studies, pairs and settings it
    does nothing. Beside the file stands ``OUT.about.json``: settings, fingerprints, package versions and the census.
    A study whose image cannot be read is left out and named in the census.

    Args:
        work: what is written, and how.
        out: the file; ``.jsonl`` as `core.evaluation.reports` reads it, or ``.csv`` with the same columns.
        processes: on this machine, where processes do not already work together (`core.ranks`).
        progress: called with (studies done, studies in all).

    Raises:
        CXRLensError: no such format, no studies, or the source or a bundle cannot be opened.
    """
    if out.suffix not in FORMATS:
        raise CXRLensError(f"{out.name} should end in {' or '.join(FORMATS)}, which says how it is written.")
    source = open_source(work.source)
    about = _about(work, source)
    key = hash_of(about, 16)
    done = _done(out, key)
    if ranks.from_first(done is not None):
        return ranks.from_first(done)  # type: ignore[return-value]
    studies = _study_ids(work, source)
    blocks = range(0, len(studies), BLOCK)
    parts = out.with_name(f".{out.name}.{key}.parts")
    own_folder(parts)
    missing = [start for start in blocks if not _part(parts, start).is_file()]
    ranks.wait()  # all have looked before anyone writes
    finished = len(studies) - sum(min(BLOCK, len(studies) - start) for start in missing)
    if progress is not None:
        progress(finished, len(studies))
    mine = missing[ranks.rank() :: ranks.count()]
    for start in _write_blocks(work, parts, mine, processes if ranks.count() == 1 else 1):
        finished += min(BLOCK, len(studies) - start) * ranks.count()
        if progress is not None:
            progress(min(finished, len(studies)), len(studies))
    ranks.wait()
    census = None
    if ranks.is_first():
        census = _join(out, work, source, [_part(parts, start) for start in blocks])
        beside = {**about, "key": key, "versions": versions(PACKAGES, python=True), "census": asdict(census)}
        write_whole(_beside(out), json.dumps(beside, indent=1))
        shutil.rmtree(parts)
    return ranks.from_first(census)  # type: ignore[return-value]


def _write_blocks(work: Work, parts: Path, starts: Sequence[int], processes: int) -> Iterator[int]:
    """Write blocks, and say which is done."""
    if min(processes, len(starts)) <= 1:
        for start in starts:
            yield _write_block(work, parts, start)
        return
    with worker_pool(min(processes, len(starts))) as pool:
        for done in as_completed([pool.submit(_write_block, work, parts, start, alone=False) for start in starts]):
            yield done.result()


def _write_block(work: Work, parts: Path, start: int, *, alone: bool = True) -> int:
    """Write the reports of the studies from ``start`` into a file of their own."""
    import torch

    if not alone:  # processes share the cores
        torch.set_num_threads(1)
    opened = _open(work, parts)
    studies = opened.study_ids[start : start + BLOCK]
    rows: list[dict[str, Any]] = []
    for first in range(0, len(studies), work.batch):
        rows += _write_batch(work, opened, studies[first : first + work.batch])
    write_whole(_part(parts, start), "".join(json.dumps(row) + "\n" for row in rows))
    return start


def _write_batch(work: Work, opened: _Opened, study_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of some studies, in their order: their reports, or why they have none."""
    from core.bundles.inference import write_batch

    models, source = opened.models, opened.source
    rows: dict[str, dict[str, Any]] = {}
    images: dict[tuple[int, Fit], list[np.ndarray[Any, Any]]] = {}
    for study_id in study_ids:
        try:
            wanted = {(model.image_size, model.fit) for model in models}
            squares = {how: of_study(source, study_id)(*how) for how in wanted}
            reference = source.study(study_id).findings
        except CXRLensError as error:
            rows[study_id] = {_ID: study_id, _PROBLEM: str(error)}
            continue
        for how, square in squares.items():
            images.setdefault(how, []).append(square)
        rows[study_id] = {_ID: study_id, _REFERENCE: reference, _CUT: [], _WARNED: {}}
    readable = [row for row in rows.values() if _PROBLEM not in row]
    if readable:
        for name, reports in write_batch(models, lambda *how: _stack(images[how]), beam_size=work.beam_size):
            for row, report in zip(readable, reports, strict=True):
                row[name] = report.text
                row[_CUT] += [] if report.finished else [name]
                for warning in report.warnings:
                    row[_WARNED].setdefault(warning, []).append(name)
    return list(rows.values())


def _stack(images: Sequence[np.ndarray[Any, Any]]) -> torch.Tensor:
    """Squares (side, side) as a batch (B, 1, side, side)."""
    import torch

    return torch.from_numpy(np.stack(images)).unsqueeze(1)


@dataclass(frozen=True, slots=True)
class _Opened:
    source: Source
    study_ids: Sequence[str]
    models: Sequence[ReportModel]


@lru_cache(maxsize=1)
def _open(work: Work, parts: Path) -> _Opened:
    """What a process opens once for all its blocks; the folder of the parts is named by the content of all of it."""
    source = open_source(work.source)
    return _Opened(source, _study_ids(work, source), _models(work))


def _models(work: Work) -> list[ReportModel]:
    """The pairs, on their device; an encoder that some share is there once."""
    import torch

    library = BundleLibrary(work.bundles, work.device, work.precision)
    models = [library.load(name) for name in work.pairs]
    if all(model.card.size == "tiny" for model in models):
        torch.set_num_threads(1)  # their threads would mostly wait for each other
    return models


def _study_ids(work: Work, source: Source) -> Sequence[str]:
    """Ids of the studies, in the source's order."""
    found = source.all_ids(work.split)
    if not found:
        where = f" in its split '{work.split}'" if work.split else ""
        raise CXRLensError(f"{source.title} has no studies{where}: there is nothing to write.")
    return found


def _about(work: Work, source: Source) -> dict[str, Any]:
    """Everything that decides the reports."""
    cards = {card.name: card for card in BundleLibrary(work.bundles).cards()}
    unknown = [name for name in work.pairs if name not in cards]
    if unknown or not work.pairs:
        known = ", ".join(cards) or "none"
        raise CXRLensError(f"There is no bundle '{', '.join(unknown)}' in {work.bundles}. Those there: {known}.")
    return {
        "source": work.source,
        "fingerprint": source.fingerprint(),
        "split": work.split,
        "pairs": {name: [cards[name].content["sha256"], cards[name].content["encoder"]] for name in work.pairs},
        "gates": {family: _gate_hash(work.bundles, family) for family in {cards[name].family for name in work.pairs}},
        "write": {name: cards[name].write for name in work.pairs},
        "fit": {name: asdict(cards[name].fit) for name in work.pairs},
        "beam_size": work.beam_size,
        "precision": work.precision,
    }


def _gate_hash(bundles: Path, family: str) -> str:
    path = gate_file(bundles, family)
    return sha256_of(path) if path.is_file() else ""


def _done(out: Path, key: str) -> Census | None:
    """The census of a file that was written from the same; None where there is none."""
    try:
        beside = json.loads(_beside(out).read_text(encoding="utf-8"))
        if beside["key"] != key or not out.is_file():
            return None
        census = beside["census"]
        pairs = {name: PairCensus(**each) for name, each in census["pairs"].items()}
        return replace(Census(**census), pairs=pairs)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _beside(out: Path) -> Path:
    return out.with_name(out.name + ".about.json")


def _part(parts: Path, start: int) -> Path:
    return parts / f"{start:09}.jsonl"


def _join(out: Path, work: Work, source: Source, parts: Sequence[Path]) -> Census:
    """Put the blocks into one file, a block in memory at a time, and count."""
    studies, unreadable, warned = 0, dict[str, str](), dict[str, list[str]]()
    tallies = {name: _Tally() for name in work.pairs}
    columns = [_ID, *([_REFERENCE] if source.has_reports else []), *work.pairs]
    with whole_file(out) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        if out.suffix == ".csv":
            table.writeheader()
        for path in parts:
            for _, row in read_json_lines(path):
                studies += 1
                if _PROBLEM in row:
                    unreadable[row[_ID]] = row[_PROBLEM]
                    continue
                for name, tally in tallies.items():
                    tally.add(row[name], cut=name in row[_CUT])
                if row[_WARNED]:
                    warned[row[_ID]] = [
                        f"{warning} ({_all_or(names, work.pairs)})" for warning, names in row[_WARNED].items()
                    ]
                if out.suffix == ".csv":
                    table.writerow(row)
                else:
                    file.write(json.dumps({name: row[name] for name in columns}, ensure_ascii=False) + "\n")
    return Census(
        studies,
        studies - len(unreadable),
        unreadable,
        {name: tally.census() for name, tally in tallies.items()},
        *_summed(warned, studies - len(unreadable)),
    )


def _all_or(names: Sequence[str], pairs: Sequence[str]) -> str:
    return "all pairs" if len(names) == len(pairs) else ", ".join(names)


def _summed(warned: dict[str, list[str]], written: int) -> tuple[dict[str, list[str]], list[str]]:
    """Warnings of single studies, and those that every study has, once."""
    counts = Counter(warning for each in warned.values() for warning in each)
    of_all = [warning for warning, count in counts.items() if count == written and written > 1]
    single = {name: kept for name, each in warned.items() if (kept := [one for one in each if one not in of_all])}
    return single, of_all


@dataclass(slots=True)
class _Tally:
    """Counts of one pair's reports, as they are read."""

    reports: int = 0
    empty: int = 0
    cut: int = 0
    words: int = 0
    different: set[bytes] = field(default_factory=set)

    def add(self, text: str, *, cut: bool) -> None:
        self.reports += 1
        self.empty += not text
        self.cut += cut
        self.words += len(text.split())
        self.different.add(hashlib.sha256(text.encode()).digest()[:8])

    def census(self) -> PairCensus:
        many = max(self.reports, 1)
        words, distinct = round(self.words / many, 2), round(len(self.different) / many, 4)
        return PairCensus(self.reports, self.empty, self.cut, words, distinct)
