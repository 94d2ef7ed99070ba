"""How far a map can be trusted, in numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
MOST = 2000
"""Points of a sample; trustworthiness and silhouette need all distances."""


def trustworthiness(features: Floats, coordinates: Floats, neighbours: int = 10, seed: int = 0) -> float | None:
    """Are neighbours on the map neighbours in the embedding (Venna and Kaski 2001)?

    Args:
        features: (n, D).
        coordinates: (n, 2 or 3).
        neighbours: k.
        seed: of the sample of `MOST` points, where there are more.

    Returns:
        0 to 1; 1 where no neighbour is false. None where there are too few points to say.
    """
    from sklearn.manifold import trustworthiness as measure

    rows = _sample(len(features), seed)
    neighbours = min(neighbours, (len(rows) - 1) // 2)
    if neighbours < 1:
        return None
    distances = _squared_distances(features[rows])
    return float(measure(distances, coordinates[rows], n_neighbors=neighbours, metric="precomputed"))


def _squared_distances(points: Floats) -> npt.NDArray[np.floating]:
    """Of all pairs, (n, n): one product of matrices. Scikit-learn turns all into double precision first."""
    centred = points - points.mean(0)
    if points.shape[1] < 1000:  # where rounding could matter and precision costs nothing
        centred = centred.astype(np.float64)
    squares = (centred * centred).sum(1)
    found: npt.NDArray[np.floating] = squares[:, None] + squares - 2 * (centred @ centred.T)
    return np.maximum(found, 0)


def nearest(points: Floats, count: int) -> npt.NDArray[np.int64]:
    """Indices of each point's nearest others, (n, count), nearest first; fewer where there are not so many."""
    from sklearn.neighbors import NearestNeighbors

    count = min(count, len(points) - 1)
    found = NearestNeighbors(n_neighbors=count).fit(points).kneighbors(return_distance=False)
    return np.asarray(found, dtype=np.int64)


def neighbourhood_hit(neighbours: npt.NDArray[np.int64], member: npt.NDArray[np.bool_]) -> float | None:
    """Of the neighbours of a group's points, how many are of the group too (Paulovich et al. 2008)?

    Compare with the group's share of all points: that is what a map without order gives.

    Args:
        neighbours: (n, k), of `nearest`.
        member: (n,).

    Returns:
        0 to 1; None for a group without points.
    """
    return float(member[neighbours[member]].mean()) if member.any() else None


def silhouette(points: Floats, groups: Sequence[str], seed: int = 0) -> float | None:
    """How far apart are groups (Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7)?

    Args:
        points: (n, D), of a map or of the embedding itself.
        groups: n.
        seed: of the sample of `MOST` points, where there are more.

    Returns:
        -1 to 1: 1 apart, 0 mixed, below 0 nearer to another group; None for one group, or only groups of one.
    """
    from sklearn.metrics import silhouette_score

    rows = _sample(len(points), seed)
    chosen = np.asarray(groups)[rows]
    if not 2 <= len(set(chosen)) < len(chosen):
        return None
    return float(silhouette_score(points[rows], chosen))


def _sample(count: int, seed: int) -> npt.NDArray[np.int64]:
    if count <= MOST:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, MOST, replace=False))
