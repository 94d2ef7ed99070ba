"""Maps on disk by content, and the process that computes them: ``python -m core.projection.job FOLDER``.

A process, not a thread: it can be ended at any time, and the dashboard stays quick meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core import paths
from core.files import hash_of, open_plain, own_folder, remove_forgotten, whole_file
from core.jobs import Job, work
from core.packages import versions
from core.projection.methods import Progress, ProjectionConfig, check_features, place, project
from core.projection.quality import trustworthiness
from core.types import CXRLensError, Projection

Floats = npt.NDArray[np.float32]
_LIBRARIES = ("numpy", "scikit-learn", "openTSNE", "umap-learn", "pynndescent", "numba")
MOST_FILES = 500
"""Maps that are kept; the oldest go first. Each takes some kilobytes."""
_VERSION = 3  # raise it when the same input gives another map
_PLACED = 2  # raise it when the same point is placed elsewhere in the same map


def cache_folder() -> Path:
    """Where maps are kept."""
    return paths.cache() / "projections"


def fingerprint(values: Floats) -> str:
    """Hash of a table."""
    found = hashlib.sha256(repr(values.shape).encode())
    found.update(np.ascontiguousarray(values, dtype=np.float32).data)
    return found.hexdigest()


def content_key(features: Floats | str, config: ProjectionConfig, new: Floats | None = None) -> str:
    """Hash of all that decides a map: data (or their `fingerprint`), parameters, versions of the libraries."""
    of_data = features if isinstance(features, str) else fingerprint(features)
    parts = [_VERSION, config.used(), versions(_LIBRARIES), of_data, "" if new is None else [_PLACED, fingerprint(new)]]
    return hash_of(parts, 32)


def load(key: str) -> Projection | None:
    """Read a map; None where there is none. A damaged file counts as none, and is computed again."""
    from safetensors import SafetensorError, safe_open

    path = cache_folder() / f"{key}.safetensors"
    if not path.is_file():
        return None
    try:
        open_plain(path).close()
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["about"])
            coordinates = file.get_tensor("coordinates")
            if about["sum"] != fingerprint(coordinates):
                return None
            return Projection(coordinates, about["method"], about["parameters"])
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError):
        return None


def _save(key: str, found: Projection) -> None:
    from safetensors.numpy import save_file

    folder = writable(cache_folder())
    remove_forgotten(folder)
    told = {"method": found.method, "parameters": dict(found.parameters), "sum": fingerprint(found.coordinates)}
    about = json.dumps(told)
    with whole_file(folder / f"{key}.safetensors") as fresh:
        save_file({"coordinates": np.ascontiguousarray(found.coordinates)}, fresh, {"about": about})
    kept = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    for path in kept[:-MOST_FILES]:
        path.unlink(missing_ok=True)


def writable(folder: Path) -> Path:
    """Make a folder in the cache where it is not there.

    Raises:
        CXRLensError: it cannot be made.
    """
    try:
        own_folder(folder)
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


class ProjectionJob(Job):
    """A map that another process computes. Its result is on disk by content, so jobs may be lost and begun anew."""

    def __init__(self, features: Floats, config: ProjectionConfig, new: Floats | None = None) -> None:
        """Start the process.

        Raises:
            CXRLensError: the data have no map, or the cache folder cannot be written.
        """
        from safetensors.numpy import save_file

        check_features(features)
        self.key = content_key(features, config, new)
        folder = writable(cache_folder() / f"{self.key}-{os.getpid()}-{time.monotonic_ns()}.job")
        tensors = {"features": np.ascontiguousarray(features, dtype=np.float32)}
        if new is not None:
            tensors["new"] = np.ascontiguousarray(new, dtype=np.float32)
        with whole_file(folder / "input.safetensors", synced=False) as fresh:
            save_file(tensors, fresh, {"config": json.dumps(asdict(config))})
        super().__init__("core.projection.job", folder, "The map", "Try PCA, or again.")

    def result(self) -> Projection:
        """Wait for the map.

        Raises:
            CXRLensError: it was cancelled, the data have no map, or the process ended before its time.
        """
        self.wait()
        found = load(self.key)
        if found is None:
            raise CXRLensError("The map was computed, and is not on the disk any more. Try again.")
        return found


def _compute(folder: Path, progress: Progress) -> None:
    """What the process does."""
    from safetensors import safe_open

    with safe_open(folder / "input.safetensors", framework="numpy") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
        values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    new = values.get("new")
    threads = os.cpu_count() or 1
    compute(values["features"], ProjectionConfig(**config), new, threads=threads, progress=progress)


if __name__ == "__main__":
    work(_compute)
