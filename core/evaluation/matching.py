"""Does an image find its own text among others? What a CLIP is for, as a share with its interval and its chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.evaluation.finds import Share
from core.types import CXRLensError

AMONG = 64
"""Pairs that are told from each other: the paper's batch."""
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Matched:
    """How often the own text is the nearest.

    Attributes:
        share: of the pairs.
        chance: the share that blind choice has: texts that are equal count as right.
        among: pairs of a group, at most.
    """

    share: Share
    chance: float
    among: int = AMONG

    def describe(self, encoder: str, texts: str = "impression") -> str:
        """A sentence for a reader."""
        low, high = self.share.interval or (0.0, 1.0)
        value = self.share.value or 0.0
        verdict = "above chance" if low > self.chance else "not above chance"
        return (
            f"{encoder}: an image's own {texts} is the nearest of {self.among} in {value:.1%} of {self.share.among:,} "
            f"held-out pairs (95 % interval {low:.1%} to {high:.1%}), by chance in {self.chance:.1%}: {verdict}."
        )


def matched(
    images: Floats,
    words: Floats,
    texts: Sequence[str],
    *,
    groups: Sequence[int] | None = None,
    among: int = AMONG,
    seed: int = 0,
) -> Matched:
    """Share of pairs whose own text is the nearest in its group.

    Args:
        images: (n, D), L2-normalised.
        words: (n, D), likewise, the text of each image.
        texts: n; equal ones count as right.
        groups: (n,) texts are told from those of the same number only; None from all.
        among: pairs of a group.
        seed: of the order in which pairs are put into groups.

    Raises:
        CXRLensError: fewer than two pairs to tell from each other, or an embedding that is no number.
    """
    if not (np.isfinite(images).all() and np.isfinite(words).all()):
        raise CXRLensError("An embedding of an image or a text is no number: train this encoder again.")
    order = np.random.default_rng(seed).permutation(len(texts))
    kinds = np.zeros(len(texts), dtype=int) if groups is None else np.asarray(groups)
    hits, chances = 0, []
    for kind in np.unique(kinds):
        rows = order[kinds[order] == kind]
        for start in range(0, len(rows), among):
            group = rows[start : start + among]
            if len(group) < 2:
                continue
            own = [texts[row] for row in group]
            nearest = (images[group] @ words[group].T).argmax(1)
            hits += sum(own[found] == text for found, text in zip(nearest, own, strict=True))
            chances += [own.count(text) / len(own) for text in own]
    if not chances:
        raise CXRLensError("There are no two texts to tell from each other: no image can be matched with its own.")
    return Matched(Share(hits, len(chances)), float(np.mean(chances)), among)
