"""Embeddings to maps: PCA, t-SNE (openTSNE) and UMAP, and new points placed into a map that is there.

t-SNE: van der Maaten and Hinton 2008; openTSNE: Poličar et al. 2024, doi:10.18637/jss.v109.i03.
UMAP: McInnes et al. 2018, arXiv:1802.03426.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from core.projection.placing import place_by_neighbours
from core.types import CXRLensError, Projection

Method = Literal["PCA", "t-SNE", "UMAP"]
METHODS: tuple[Method, ...] = get_args(Method)
Floats = npt.NDArray[np.float32]
Progress = Callable[[float, str], None]
"""Called with the share that is done, 0 to 1, and what is being done."""

FEWEST = 10
"""Points below which t-SNE and UMAP are refused: there is no neighbourhood to keep."""
_EXACT = 4096  # src: umap-learn's own limit, below which it takes the true neighbours
_EARLY, _LATE = 250, 500  # iterations of openTSNE's two phases, its defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionConfig:
    """How to make a map.

    Attributes:
        method: PCA is linear and shows the largest differences; t-SNE and UMAP keep neighbours together.
        dimensions: 2 or 3.
        components: t-SNE and UMAP start from that many principal components, which drops noise and saves time.
        perplexity: t-SNE; roughly how many neighbours a point minds. src: scikit-learn's and openTSNE's default.
        neighbours: UMAP; likewise. src: umap-learn's default.
        min_distance: UMAP; how close points may lie, 0 to 1. src: umap-learn's default.
        seed: of all that is random.
    """

    method: Method = "PCA"
    dimensions: int = 2
    components: int = 50
    perplexity: float = 30.0
    neighbours: int = 15
    min_distance: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no method can do.

        Raises:
            CXRLensError: the message names the value and its range.
        """
        if self.method not in METHODS:
            raise CXRLensError(f"Unknown projection '{self.method}'. Known: {', '.join(METHODS)}.")
        for name, value, low, high in (
            ("dimensions", self.dimensions, 2, 3),
            ("components", self.components, self.dimensions, math.inf),
            ("perplexity", self.perplexity, 1, math.inf),
            ("neighbours", self.neighbours, 2, math.inf),
            ("min_distance", self.min_distance, 0, 1),
        ):
            if not low <= value <= high:
                raise CXRLensError(f"A projection's {name} is {low} to {high}, not {value}.")

    def used(self) -> dict[str, Any]:
        """What the method reads: two configurations with the same values here give the same map."""
        shared = {"method": self.method, "dimensions": self.dimensions, "seed": self.seed}
        if self.method == "t-SNE":
            return {**shared, "components": self.components, "perplexity": self.perplexity}
        if self.method == "UMAP":
            further = {"neighbours": self.neighbours, "min_distance": self.min_distance}
            return {**shared, "components": self.components, **further}
        return shared


@dataclass(frozen=True, slots=True)
class PrincipalAxes:
    """A fitted PCA.

    Attributes:
        mean: (D,).
        axes: (D, k), orthonormal columns.
        shares: (k,), of the variance.
    """

    mean: Floats
    axes: Floats
    shares: Floats

    def place(self, features: Floats) -> Floats:
        """Project (..., D) to (..., k)."""
        placed: Floats = ((features - self.mean) @ self.axes).astype(np.float32)
        return placed


def fit_pca(features: Floats, components: int, seed: int = 0) -> PrincipalAxes:
    """Fit principal axes; the signs of the axes do not depend on the machine.

    Args:
        features: (n, D).
        components: k; fewer come back where n or D is smaller.
        seed: of the randomised solver, which large data get.

    Raises:
        CXRLensError: see `check_features`.
    """
    from sklearn.decomposition import PCA

    check_features(features)
    model = PCA(min(components, *features.shape), random_state=seed).fit(features)
    return PrincipalAxes(
        model.mean_.astype(np.float32),
        model.components_.T.astype(np.float32),
        model.explained_variance_ratio_.astype(np.float32),
    )


def check_features(features: Floats) -> None:
    """Refuse what has no map.

    Raises:
        CXRLensError: not a table, fewer than three points, not finite, or all points equal.
    """
    if features.ndim != 2:
        raise CXRLensError(f"A map needs a table of points by features, not an array of shape {features.shape}.")
    if len(features) < 3:
        raise CXRLensError(f"A map needs at least 3 points; there are {len(features)}.")
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features).all(axis=1)).sum())
        raise CXRLensError(f"{bad} of {len(features)} embeddings are not finite. Compute them again.")
    if not np.ptp(features, axis=0).any():
        raise CXRLensError(f"All {len(features)} embeddings are equal: there is nothing to map.")


def project(
    features: Floats, config: ProjectionConfig, *, threads: int = 1, progress: Progress | None = None
) -> Projection:
    """Make a map.

    Args:
        features: (n, D).
        threads: of t-SNE. UMAP is seeded and takes one.

    Returns:
        The map; ``parameters`` has what was really used, and under "notes" what had to be reduced and why.

    Raises:
        CXRLensError: the data have no such map; see `check_features`.
    """
    tell = progress or (lambda share, what: None)
    check_features(features)
    if features.shape[1] < config.dimensions:
        raise CXRLensError(f"Embeddings of {features.shape[1]} features have no map of {config.dimensions} dimensions.")
    if config.method != "PCA" and len(features) < FEWEST:
        raise CXRLensError(
            f"{config.method} needs at least {FEWEST} points; there are {len(features)}. PCA maps fewer points."
        )
    tell(0.0, "Principal components")
    if config.method == "PCA":
        axes = fit_pca(features, config.dimensions, config.seed)
        used = {**config.used(), "shares": [float(share) for share in axes.shares], "notes": []}
        return Projection(_padded(axes.place(features), config.dimensions), "PCA", used)
    reduced, limited, notes = _prepared(features, config)
    tell(0.1, "Neighbours")
    embedding = _tsne(reduced, limited, threads, tell) if config.method == "t-SNE" else _umap(reduced, limited, tell)
    return Projection(embedding, config.method, {**limited.used(), "notes": notes})


def place(features: Floats, placed: Projection, new: Floats, config: ProjectionConfig) -> Floats:
    """Place new points into a map; those that are there stay where they are.

    Each new point is placed by itself: the others do not move it.

    Args:
        features: (n, D), of the map.
        placed: the map of ``features`` made with ``config``.
        new: (m, D).
        config: of the map.

    Returns:
        (m, dimensions).

    Raises:
        CXRLensError: the new points have another width, or are not finite.
    """
    if new.ndim != 2 or new.shape[1] != features.shape[1]:
        raise CXRLensError(f"The map has embeddings of {features.shape[1]} features, the new ones are {new.shape}.")
    if not np.isfinite(new).all():
        raise CXRLensError("The embedding of the new study is not finite. Is its image readable?")
    if config.method == "PCA":
        return _padded(fit_pca(features, config.dimensions, config.seed).place(new), config.dimensions)
    axes, limited = fit_pca(features, config.components, config.seed), _limited(len(features), config)[0]
    reduced, moved = axes.place(features), axes.place(new)
    if config.method == "t-SNE":
        return place_by_neighbours(reduced, placed.coordinates, moved, limited.perplexity)
    # UMAP keeps no state that could be stored without pickle: it is built again around the coordinates.
    with _quiet():
        model = _umap_model(limited, init=placed.coordinates, n_epochs=0).fit(reduced)
        model.embedding_, model.n_epochs = placed.coordinates, None
        return np.asarray(model.transform(moved), dtype=np.float32)


def _limited(count: int, config: ProjectionConfig) -> tuple[ProjectionConfig, list[str]]:
    """Reduce what the number of points does not allow, and say so."""
    from dataclasses import replace

    notes = []
    highest = math.floor((count - 1) / 3)
    if config.method == "t-SNE" and config.perplexity > highest:
        notes.append(
            f"Perplexity {highest} instead of {config.perplexity:g}: {count} points allow a third of their number."
        )
        config = replace(config, perplexity=float(highest))
    if config.method == "UMAP" and config.neighbours > count - 1:
        notes.append(f"{count - 1} neighbours instead of {config.neighbours}: there are {count} points.")
        config = replace(config, neighbours=count - 1)
    return config, notes


def _prepared(features: Floats, config: ProjectionConfig) -> tuple[Floats, ProjectionConfig, list[str]]:
    limited, notes = _limited(len(features), config)
    return fit_pca(features, config.components, config.seed).place(features), limited, notes


def _gradient(count: int, dimensions: int) -> str:
    # src: openTSNE's own limit; its interpolation costs a fixed grid, and exists on planes only.
    return "bh" if dimensions == 3 or count < 10_000 else "fft"


def _tsne(reduced: Floats, config: ProjectionConfig, threads: int, tell: Progress) -> Floats:
    import openTSNE

    done = 0

    def step(iteration: int, error: float, embedding: object) -> None:
        nonlocal done
        done += 25
        tell(0.1 + 0.85 * min(done / (_EARLY + _LATE), 1), f"t-SNE, step {done} of {_EARLY + _LATE}")

    model = openTSNE.TSNE(
        config.dimensions,
        perplexity=config.perplexity,
        initialization="pca",
        negative_gradient_method=_gradient(len(reduced), config.dimensions),
        early_exaggeration_iter=_EARLY,
        n_iter=_LATE,
        callbacks=step,
        callbacks_every_iters=25,
        n_jobs=threads,
        random_state=config.seed,
    )
    return np.asarray(model.fit(reduced), dtype=np.float32)


def _umap(reduced: Floats, config: ProjectionConfig, tell: Progress) -> Floats:
    from sklearn.neighbors import NearestNeighbors

    tell(0.15, "UMAP: its compiler starts, which takes half a minute or so")
    # The spectral start needs more points than neighbours and a connected graph; few points start from PCA.
    further: dict[str, Any] = {"init": "pca" if len(reduced) < 100 else "spectral"}
    if len(reduced) < _EXACT:
        # UMAP takes the true neighbours of so few points too, but by a call of Python a pair: 15 s of 4,000.
        distances, neighbours = NearestNeighbors(n_neighbors=config.neighbours).fit(reduced).kneighbors(reduced)
        further["precomputed_knn"] = (neighbours.astype(np.int32), distances.astype(np.float32))
    further["tqdm_kwds"] = {"file": _Steps(tell), "disable": False, "bar_format": "{n} {total}", "mininterval": 0.3}
    with _quiet():
        return np.asarray(_umap_model(config, **further).fit_transform(reduced), dtype=np.float32)


class _Steps(io.TextIOBase):
    """Where UMAP's bar writes, the only thing that it tells of its steps: "12 500", and signs that move a cursor."""

    def __init__(self, tell: Progress) -> None:
        self.progress = tell

    def write(self, text: str) -> int:
        """Tell a step; see `io.TextIOBase.write`."""
        if (step := re.search(r"(\d+) (\d+)", text)) is not None:
            done, total = map(int, step.groups())
            self.progress(0.2 + 0.75 * done / max(total, 1), f"UMAP, step {done} of {total}")
        return len(text)


def _umap_model(config: ProjectionConfig, **further: Any) -> Any:
    import umap

    return umap.UMAP(
        n_components=config.dimensions,
        n_neighbors=config.neighbours,
        min_dist=config.min_distance,
        random_state=config.seed,
        n_jobs=1,
        **further,
    )


def _quiet() -> warnings.catch_warnings[None]:
    """UMAP warns of its own defaults."""
    return warnings.catch_warnings(action="ignore")


def _padded(coordinates: Floats, dimensions: int) -> Floats:
    """Three points span a plane only: what is missing is 0."""
    missing = dimensions - coordinates.shape[1]
    return np.pad(coordinates, ((0, 0), (0, missing))) if missing > 0 else coordinates
