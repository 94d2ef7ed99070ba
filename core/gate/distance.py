"""How far values lie from those that were seen: a mean, the directions in which they vary, and the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.types import CXRLensError

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Distance:
    """Mahalanobis' distance under probabilistic principal components (Tipping and Bishop 1999, section 3.4).

    A few directions have variances of their own, all others one in common: so few numbers suffice, and a value may lie
    outside all that was ever seen.

    Attributes:
        mean: (F,).
        basis: (K, F), rows of length 1, at right angles to each other, of 16 bits.
        variances: (K,), along the rows.
        rest: variance along any other direction.
    """

    mean: Values
    basis: Values
    variances: Values
    rest: float

    def of(self, values: Values) -> Values:
        """Distances of values (n, F), (n,): squared, a direction; about 1 for what is like those seen."""
        centred = values.astype(np.float32) - self.mean
        along = centred @ self.basis.T
        left = np.maximum((centred**2).sum(1) - (along**2).sum(1), 0)
        found: Values = ((along**2 / self.variances).sum(1) + left / self.rest) / len(self.mean)
        return found

    @classmethod
    def learn(cls, values: Values, components: int) -> Distance:
        """Learn from values (n, F) what is usual; of few values, fewer directions than ``components``.

        Raises:
            CXRLensError: they are too few, or not finite.
        """
        count, features = values.shape
        components = min(components, features - 1, (count - 1) // 2)
        if components < 1 or not np.isfinite(values).all():
            raise CXRLensError(
                f"What usual films look like cannot be learned from {count} of them: at least 3 are needed, and finite "
                "values. Take more studies, or verify the bundles."
            )
        mean = values.mean(0, dtype=np.float64)
        _, lengths, directions = np.linalg.svd(values - mean, full_matrices=False)
        basis = directions[:components].astype(np.float16).astype(np.float32)  # as it is kept
        along = (values - mean) @ basis.T
        variances = (along**2).mean(0)
        rest = float(((values - mean) ** 2).sum() - (along**2).sum()) / count / (features - components)
        least = max(1e-6 * float(lengths[0] ** 2 / count), 1e-12)  # of what never varied: an exact 0 would divide
        return cls(
            mean.astype(np.float32),
            basis,
            np.maximum(variances, least).astype(np.float32),
            float(np.float32(max(rest, least))),
        )
