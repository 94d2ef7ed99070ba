"""Parts of a benchmark: a pair with a method each, side by side, kept by what they were made from."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from core.files import write_whole
from training.identity import content_hash
from training.threads import use_threads_for

Job = TypeVar("Job")
Rows = list[dict[str, Any]]


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
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(jobs, mp_context=context, initializer=use_threads_for, initargs=(size,)) as pool:
                for future in as_completed([pool.submit(compute, job, *each) for each in parts]):
                    future.result()
                    bar.update()
    return [row for each in parts for row in compute(job, *each)]


def read_part(path: Path, made_of: Mapping[str, Any]) -> Rows | None:
    """The rows of a part that was computed before; None where there is none, or it was made from something else."""
    if not path.is_file():
        return None
    saved = json.loads(path.read_text(encoding="utf-8"))
    rows: Rows = saved["rows"]
    return rows if saved["key"] == content_hash(made_of) else None


def write_part(path: Path, made_of: Mapping[str, Any], rows: Rows, seconds: float) -> None:
    """Keep the rows of a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"key": content_hash(made_of), "seconds": seconds, "rows": rows}))
