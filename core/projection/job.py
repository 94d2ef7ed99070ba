"""Maps on disk by content, and the process that computes them: ``python -m core.projection.job FOLDER``.

A process, not a thread: it can be ended at any time, and the dashboard stays quick meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core import paths
from core.files import DiskError, remove_forgotten, whole_file, write_whole
from core.projection.methods import Progress, ProjectionConfig, check_features, place, project
from core.projection.quality import trustworthiness
from core.types import CXRLensError, Projection

Floats = npt.NDArray[np.float32]
_LIBRARIES = ("numpy", "scikit-learn", "openTSNE", "umap-learn", "pynndescent", "numba")
MOST_FILES = 500
"""Maps that are kept; the oldest go first. Each takes some kilobytes."""
_VERSION = 2  # raise it when the same input gives another map


def cache_folder() -> Path:
    """Where maps are kept: ``CXR_CACHE``, or ``cxr-lens`` in the user's cache folder; "projections" in it."""
    return Path(os.environ.get("CXR_CACHE") or paths.cache()).resolve() / "projections"


def fingerprint(values: Floats) -> str:
    """Hash of a table."""
    found = hashlib.sha256(repr(values.shape).encode())
    found.update(np.ascontiguousarray(values, dtype=np.float32).data)
    return found.hexdigest()


def content_key(features: Floats | str, config: ProjectionConfig, new: Floats | None = None) -> str:
    """Hash of all that decides a map: data (or their `fingerprint`), parameters, versions of the libraries."""
    of_data = features if isinstance(features, str) else fingerprint(features)
    parts = [_VERSION, config.used(), _versions(), of_data, "" if new is None else fingerprint(new)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@functools.cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def load(key: str) -> Projection | None:
    """Read a map; None where there is none. A damaged file counts as none, and is computed again."""
    from safetensors import SafetensorError, safe_open

    path = cache_folder() / f"{key}.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["about"])
            return Projection(file.get_tensor("coordinates"), about["method"], about["parameters"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


def _save(key: str, found: Projection) -> None:
    from safetensors.numpy import save_file

    folder = _writable(cache_folder())
    remove_forgotten(folder)
    about = json.dumps({"method": found.method, "parameters": dict(found.parameters)})
    with whole_file(folder / f"{key}.safetensors") as fresh:
        save_file({"coordinates": np.ascontiguousarray(found.coordinates)}, fresh, {"about": about})
    kept = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    for path in kept[:-MOST_FILES]:
        path.unlink(missing_ok=True)


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CXRLensError(
            f"Maps cannot be kept in {folder} ({error.strerror}). Set CXR_CACHE to a folder that can be written."
        ) from error
    return folder


def compute(
    features: Floats,
    config: ProjectionConfig,
    new: Floats | None = None,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> Projection:
    """Make a map, or place new points into it; read it where it is on disk, else keep it there.

    Args:
        features: (n, D).
        new: (m, D), points to place into the map of ``features``; the result then has these only.
        threads: of t-SNE.

    Returns:
        The map; ``parameters`` has its "trustworthiness" too.

    Raises:
        CXRLensError: the data have no map, or the cache folder cannot be written.
    """
    key = content_key(features, config)
    base = load(key)
    if base is None:
        base = project(features, config, threads=threads, progress=progress)
        if progress:
            progress(0.95, "Quality of the map")
        measured = {"trustworthiness": trustworthiness(features, base.coordinates)}
        base = Projection(base.coordinates, base.method, {**base.parameters, **measured})
        _save(key, base)
    if new is None:
        return base
    if progress:
        progress(0.95, "Placing the new study")
    placed = Projection(place(features, base, new, config), base.method, base.parameters)
    _save(content_key(features, config, new), placed)
    return placed


class ProjectionJob:
    """A map that another process computes. Its result is on disk by content, so jobs may be lost and begun anew."""

    def __init__(self, features: Floats, config: ProjectionConfig, new: Floats | None = None) -> None:
        """Start the process.

        Raises:
            CXRLensError: the data have no map, or the cache folder cannot be written.
        """
        from safetensors.numpy import save_file

        check_features(features)
        self.key = content_key(features, config, new)
        self.began = time.monotonic()
        self.cancelled = False
        self.folder = _writable(cache_folder() / f"{self.key}-{os.getpid()}-{time.monotonic_ns()}.job")
        tensors = {"features": np.ascontiguousarray(features, dtype=np.float32)}
        if new is not None:
            tensors["new"] = np.ascontiguousarray(new, dtype=np.float32)
        save_file(tensors, self.folder / "input.safetensors", {"config": json.dumps(asdict(config))})
        with (self.folder / "log.txt").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "core.projection.job", str(self.folder)],
                cwd=paths.CODE,
                # Waiting threads sleep: spinning ones take many times as long where other work has the cores.
                env=os.environ | {"OMP_NUM_THREADS": str(os.cpu_count() or 1), "OMP_WAIT_POLICY": "PASSIVE"},
                stdin=subprocess.PIPE,  # closes when we end, however that happens; see _end_with_parent
                stdout=log,
                stderr=log,
            )

    def progress(self) -> tuple[float, str]:
        """Share that is done, 0 to 1, and what is being done."""
        try:
            share, what = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0.0, "Starting"
        return float(share), str(what)

    def done(self) -> bool:
        """Has it ended, well or not?"""
        return self._process.poll() is not None

    def cancel(self) -> None:
        """End the process; nothing half-done stays."""
        self.cancelled = True
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def result(self) -> Projection:
        """Wait for the map.

        Raises:
            CXRLensError: it was cancelled, the data have no map, or the process ended before its time.
        """
        code = self._process.wait()
        if self.cancelled:
            raise CXRLensError("The map was cancelled.")
        found = load(self.key) if code == 0 else None
        if found is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return found
        told = self.folder / "error.txt"
        if told.is_file():
            raise CXRLensError(told.read_text(encoding="utf-8"))
        raise CXRLensError(
            f"The map's process ended before its time (code {code}); memory may have run out. "
            f"Try PCA, or again. Its log: {self.folder / 'log.txt'}."
        )


def _end_with_parent(folder: Path) -> None:
    """End this process, and leave nothing, when the process that started it ends: our standard input closes then."""
    os.read(0, 1)  # not of sys.stdin, whose lock would stop the interpreter from ending
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _work(folder: Path) -> int:
    """What the process does."""
    from safetensors import safe_open

    def tell(share: float, what: str) -> None:
        with contextlib.suppress(DiskError):  # the folder goes when the job is cancelled
            write_whole(folder / "progress.json", json.dumps([share, what]), synced=False)

    with safe_open(folder / "input.safetensors", framework="numpy") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
        values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    try:
        compute(
            values["features"],
            ProjectionConfig(**config),
            values.get("new"),
            threads=os.cpu_count() or 1,
            progress=tell,
        )
    except CXRLensError as error:
        write_whole(folder / "error.txt", str(error))
        return 1
    return 0


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, args=(Path(sys.argv[1]),), daemon=True).start()
    sys.exit(_work(Path(sys.argv[1])))
