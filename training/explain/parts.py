"""Parts of a benchmark: a pair with a method each, side by side, kept by what they were made from.

What the benchmarks of phantoms and of real films do alike is here: which parts there are, what they cost, their files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from tqdm import tqdm

from core.bundles.card import Card
from core.files import hash_of, write_whole
from core.processes import worker_pool
from core.registry import lookup
from core.schemas import read_json
from training.console import note
from training.evaluate import cards_of
from training.explain.summary import VARIANTS
from training.identity import content_hash
from training.threads import use_threads_for

Job = TypeVar("Job")
Opened = TypeVar("Opened")
Rows = list[dict[str, Any]]


def pairs_and_methods(
    family: str, bundles: Path, names: Sequence[str], methods: Sequence[str]
) -> tuple[list[Card], list[str]]:
    """The pairs of a family that are asked for, and the methods; all where none is named.

    Raises:
        CXRLensError: there is no such bundle, or no such method.
    """
    for each in methods:
        lookup(VARIANTS, each, "method")
    cards = cards_of(family, bundles)
    for name in names:
        lookup({card.name: card for card in cards}, name, f"bundle of {bundles},")
    return [card for card in cards if not names or card.name in names], list(methods or VARIANTS)


def estimate_parts(
    cards: Sequence[Card],
    methods: Sequence[str],
    opened: Callable[[str], Sequence[Opened]],
    explain_all: Callable[[Opened, str], None],
    *,
    studies: int,
    checked: float,
    jobs: int,
) -> tuple[dict[str, float], float]:
    """Time each method on a few studies of one pair an encoder.

    Args:
        cards: of the pairs.
        methods: of explaining.
        opened: a few studies as a pair reads them, by its name; opening them is not timed.
        explain_all: answers all questions about one of them by a method.
        studies: of the whole benchmark.
        checked: share of its questions, 0 to 1, that are explained four times more: on the randomised model, on three
            noisy images.
        jobs: processes.

    Returns:
        Seconds a study by "encoder, method", and seconds of the whole benchmark; a guess, for studies differ.
    """
    seconds: dict[str, float] = {}
    for card in cards:
        for method in methods:
            if (key := f"{card.encoder}, {method}") not in seconds:
                few = opened(card.name)
                began = time.perf_counter()
                for each in few:
                    explain_all(each, method)
                seconds[key] = (time.perf_counter() - began) / len(few)
    total = sum(seconds[f"{card.encoder}, {method}"] for card in cards for method in methods)
    return seconds, total * studies * (1 + 4 * min(1.0, checked)) / jobs


def run_parts(
    compute: Callable[[Job, str, str], Rows], job: Job, parts: Sequence[tuple[str, str]], jobs: int, size: str
) -> Rows:
    """Rows of all parts, (pair, method) each, in their order; those that are not there yet are computed.

    Args:
        compute: one part, or reads it; a function of a module, for other processes.
        job: what it needs.
        parts: pairs and methods.
        jobs: processes.
        size: of the pairs; see `training.threads`.
    """
    with tqdm(total=len(parts), desc="explaining", unit="part") as bar:
        if jobs <= 1:
            for each in parts:
                compute(job, *each)
                bar.update()
        else:
            with worker_pool(jobs, begin=partial(use_threads_for, size)) as pool:
                for future in as_completed([pool.submit(compute, job, *each) for each in parts]):
                    future.result()
                    bar.update()
    return [row for each in parts for row in compute(job, *each)]


def read_part(path: Path, made_of: Mapping[str, Any]) -> Rows | None:
    """The rows of a part that was computed before; None where there is none, or it was made from something else."""
    if not path.is_file():
        return None
    try:
        saved = read_json(path)
        rows: Rows = saved["rows"]
        same = saved["key"] == content_hash(made_of) and saved.get("sum", hash_of(rows)) == hash_of(rows)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        note(f"  {path.name} is damaged ({error}): it is computed again")
        return None
    return rows if same else None


def write_part(path: Path, made_of: Mapping[str, Any], rows: Rows, seconds: float) -> None:
    """Keep the rows of a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(
        path, json.dumps({"key": content_hash(made_of), "seconds": seconds, "sum": hash_of(rows), "rows": rows})
    )


def write_results(
    out: Path, results: Mapping[str, Any], rows: Rows, markdown: str, measured: Mapping[str, Any]
) -> None:
    """Write a benchmark's files: every question, the table, all of it, and what pages say of it.

    Args:
        out: folder; made if missing.
        results: with "rows", the table.
        rows: of all parts.
        markdown: the table for a reader.
        measured: of `results`, what `core.explain.measured` reads.
    """
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(out / "findings.csv", index=False)
    pd.DataFrame(results["rows"]).to_csv(out / "table.csv", index=False)
    write_whole(out / "results.json", json.dumps(results, indent=1), private=False)
    write_whole(out / "table.md", markdown, private=False)
    write_whole(out / "measured.json", json.dumps(measured), private=False)
