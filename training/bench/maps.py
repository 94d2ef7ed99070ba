"""Speeds and memory of maps at scale, against plain scikit-learn: ``python -m training.bench.maps [PCA t-SNE UMAP]``.

Each measurement has a process of its own, with as many threads as there are cores: ours is the very process that the
Embeddings page starts, its start and what it reads included.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
import unittest.mock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from core.processes import worker_pool
from core.projection.job import ProjectionJob, content_key, load
from core.projection.methods import METHODS, Method, ProjectionConfig, fit_pca
from core.projection.quality import trustworthiness

Floats = npt.NDArray[np.float32]
STUDIES, TOKENS, WIDTH = 4_000, 13, 640
GROUPS = 14


def planted_tokens(studies: int = STUDIES, tokens: int = TOKENS, width: int = WIDTH, seed: int = 0) -> Floats:
    """Tokens of studies as CCVE's are arranged, (studies, tokens, width).

    Each filter has its own place, each of `GROUPS` diseases moves all tokens of its studies and some filters more than
    others, patients differ along few directions, and each token has noise of its own.
    """
    rng = np.random.default_rng(seed)
    filters = rng.normal(0, 1.5, (tokens, width))
    diseases = rng.normal(0, 0.6, (GROUPS, 1, width)) * rng.uniform(0.5, 1.5, (GROUPS, tokens, 1))
    patients = rng.normal(0, 1, (studies, 40)) @ rng.normal(0, 0.15, (40, width))
    found = rng.normal(0, 0.3, (studies, tokens, width)).astype(np.float32)
    found += (filters + diseases)[rng.integers(0, GROUPS, studies)]
    found += patients[:, None]
    return found


@dataclass
class Usage:
    """What a piece of work took: seconds, and bytes above the start of this process and its children together."""

    seconds: float = 0.0
    peak: int = 0


@contextmanager
def measured() -> Iterator[Usage]:
    """Measure what is done within, in this process and those that it starts."""
    usage, ended, own = Usage(), threading.Event(), psutil.Process()

    def resident() -> int:
        total = own.memory_info().rss
        for child in own.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total

    before = resident()

    def watch() -> None:
        while not ended.wait(0.05):
            usage.peak = max(usage.peak, resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        yield usage
    finally:
        usage.seconds = time.perf_counter() - began
        ended.set()
        watcher.join()


def plain_pca(path: str) -> Floats:
    """Scikit-learn's PCA of a table on disk."""
    from sklearn.decomposition import PCA

    return np.asarray(PCA(2, random_state=0).fit_transform(np.load(path)), dtype=np.float32)


def plain_tsne(path: str) -> Floats:
    """Scikit-learn's t-SNE of a table on disk."""
    from sklearn.manifold import TSNE

    return np.asarray(TSNE(2, random_state=0, n_jobs=os.cpu_count()).fit_transform(np.load(path)), dtype=np.float32)


def _elsewhere(work: Callable[[str], Floats], path: Path) -> tuple[Usage, Floats]:
    with (
        measured() as usage,
        worker_pool(1) as pool,
    ):
        found = pool.submit(work, str(path)).result()
    return usage, found


def rows(methods: tuple[Method, ...] = METHODS, studies: int = STUDIES) -> Iterator[str]:
    """Lines of a Markdown table, each when it is measured."""
    table = planted_tokens(studies).reshape(studies, -1)
    yield (
        "| map | scikit-learn, s | its trustworthiness | ours, s | trustworthiness | times faster | from disk, s "
        "| peak memory above start, GB |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    threads = str(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        changes = {"CXR_CACHE": name, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        with unittest.mock.patch.dict(os.environ, changes):
            np.save(folder / "whole.npy", table)
            peers: dict[str, tuple[Usage, float | None]] = {}

            def peer(name: str, work: Callable[[str], Floats], path: Path) -> tuple[Usage, float | None]:
                if name not in peers:
                    usage, found = _elsewhere(work, path)
                    peers[name] = usage, trustworthiness(table, found)
                return peers[name]

            for method in methods:
                config = ProjectionConfig(method=method)
                with measured() as usage:
                    placed = ProjectionJob(table, config).result()
                with measured() as again:
                    assert load(content_key(table, config)) is not None
                against: list[tuple[str, tuple[Usage, float | None]]]
                if method == "PCA":
                    against = [("PCA", peer("PCA", plain_pca, folder / "whole.npy"))]
                else:
                    against = [("t-SNE", peer("t-SNE", plain_tsne, folder / "whole.npy"))]
                    if method == "t-SNE":
                        reduced = folder / "reduced.npy"
                        np.save(reduced, fit_pca(table, config.components, config.seed).place(table))
                        against.append((f"t-SNE of {config.components} components", peer("r", plain_tsne, reduced)))
                for other, (theirs, trust) in against:
                    yield (
                        f"| {method}, {len(table):,} x {table.shape[1]:,}, against {other} | {theirs.seconds:.1f} "
                        f"| {trust or 0:.3f} | {usage.seconds:.1f} | {placed.parameters['trustworthiness']:.3f} "
                        f"| {theirs.seconds / usage.seconds:.1f} | {again.seconds:.2f} | {usage.peak / 1e9:.2f} |"
                    )


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser: Any = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(METHODS)}; all unless named")
    parser.add_argument("--studies", type=int, default=STUDIES)
    chosen = parser.parse_args(arguments)
    for line in rows(tuple(chosen.methods) or METHODS, chosen.studies):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
