"""New points among those of a t-SNE map: each by its own neighbours, without the affinities of all the others.

The same as openTSNE's ``transform`` (Poličar et al. 2024, doi:10.18637/jss.v109.i03) with its defaults, but for what it
approximates: forces of distant points are exact here, and one point costs as many operations as there are others.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# src: openTSNE 1.0, TSNEEmbedding.transform and its gradient_descent
_PERPLEXITY, _FIRST, _STEPS = 5.0, 25, 250
_RATE, _MOMENTUM, _EXAGGERATION, _STEEPEST, _LEAST_GAIN = 0.1, 0.8, 1.5, 0.25, 0.01
_AT_ONCE = 2**20  # ours: distances that are held at a time, 8 MiB


def place_by_neighbours(features: Floats32, coordinates: Floats32, new: Floats32, perplexity: float) -> Floats32:
    """Place points into a t-SNE map, each by itself; the map stays as it is.

    Args:
        features: (n, k), what the map was made of.
        coordinates: (n, dimensions), the map.
        new: (m, k), finite.
        perplexity: of the map; new points mind 5 or fewer.

    Returns:
        (m, dimensions), where the map's own points are.
    """
    from openTSNE.affinity import joint_probabilities_nn
    from sklearn.neighbors import NearestNeighbors

    perplexity = min(_PERPLEXITY, perplexity)
    count = min(len(features), int(3 * perplexity))
    distances, near = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(features).kneighbors(new)
    shares = joint_probabilities_nn(
        near,
        distances,
        [min(perplexity, count / 3)],
        symmetrize=False,
        normalization="point-wise",
        n_reference_samples=len(features),
    )
    rows = np.repeat(np.arange(len(near)), count)
    pulls = np.asarray(shares[rows, near.ravel()], dtype=np.float64).reshape(near.shape)
    there = coordinates.astype(np.float64)
    size = max(1, _AT_ONCE // len(there))
    blocks = [
        _settled(there, near[start : start + size], _EXAGGERATION * pulls[start : start + size])
        for start in range(0, len(new), size)
    ]
    return np.concatenate(blocks).astype(np.float32)


def _settled(there: Doubles, near: npt.NDArray[np.int64], pulls: Doubles) -> Doubles:
    """Where points (m, dimensions) come to rest between what pulls them (m, count) and what pushes them."""
    neighbours = there[near]
    points: Doubles = np.median(neighbours[:, :_FIRST], axis=1)
    squares = (there**2).sum(1)
    update, gains = np.zeros_like(points), np.ones_like(points)
    for _ in range(_STEPS):
        apart = points[:, None] - neighbours
        gradient = ((pulls / (1 + (apart**2).sum(2)))[:, :, None] * apart).sum(1)
        closeness = 1 / (1 + np.maximum((points**2).sum(1)[:, None] + squares - 2 * points @ there.T, 0))
        total = closeness.sum(1, keepdims=True)
        closeness **= 2
        gradient -= (closeness.sum(1, keepdims=True) * points - closeness @ there) / total
        gradient *= np.minimum(_STEEPEST / (np.linalg.norm(gradient, axis=1, keepdims=True) + 1e-6), 1)
        turned = np.sign(update) != np.sign(gradient)
        gains = np.where(turned, gains + 0.2, gains * 0.8 + _LEAST_GAIN)
        update = _MOMENTUM * update - _RATE * gains * gradient
        points = points + update
    return points
