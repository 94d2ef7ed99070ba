"""CCVE's answer in a sentence: it has no place on the image, so this stands where other answers have their map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

NAMED = 3
"""Filters that the sentence names."""
LEAST = 0.005
"""Changes of the log-likelihood below it are 0.00 on the page, and named as nothing."""


def stands_out(shares: npt.NDArray[np.floating[Any]]) -> bool:
    """Whether the largest of (K,) shares that sum to 1 is more than chance makes of even ones."""
    return bool(shares.max() >= 1.5 / len(shares))


def strongest(names: Sequence[str], values: npt.NDArray[np.float32], *, signed: bool) -> str:
    """Name the filters that count most.

    Args:
        names: K.
        values: (K,), shares that sum to 1; or, where signed, changes of the words' log-likelihood.
        signed: below 0 speaks against the words.
    """
    order = np.argsort(-np.abs(values), kind="stable")[:NAMED]
    if signed:
        told = ", ".join(f"{names[at]} {values[at]:+.2f}" for at in order if abs(values[at]) >= LEAST)
        if not told:
            return "No map: this model reads filters, not places. No filter counts for or against these words."
        return f"No map: this model reads filters, not places. Most for (+) or against (−) these words: **{told}**."
    told = ", ".join(f"{names[at]} {values[at]:.0%}" for at in order)
    even = 1 / len(names)
    if not stands_out(values):
        return (
            f"No map: this model reads filters, not places. No filter stands out: the most are {told}, and an even "
            f"share is {even:.1%}."
        )
    return f"No map: this model reads filters, not places. Most: **{told}**; an even share is {even:.1%}."
