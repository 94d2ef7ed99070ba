"""Judges an image before its reports: like the training films, turned, inverted, mirrored, or unlike all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from core.gate.distance import Distance, Values

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 16
"""Ours: cells along a side of the small picture whose distance is measured."""
COMPONENTS = (32, 16)
"""Ours: directions of their own that small pictures, and mean tokens, may vary along."""
WARNED = 0.01
"""Ours: share of validation films that get a warning, for each of the reasons."""
NEARER = 1.1
"""Ours: how many times nearer a copy must be at least, whatever validation says."""
EVEN = 0.01
"""Ours: contrast that is added to a small picture's own: an even image is not blown up to its noise."""
TURNS: Mapping[str, str] = {
    "left": "This image seems to be turned by 90 degrees: turned to the left it would be like the films",
    "right": "This image seems to be turned by 90 degrees: turned to the right it would be like the films",
    "half": "This image seems to be upside down: turned by 180 degrees it would be like the films",
    "flipped": "This image seems to be flipped: with top and bottom exchanged it would be like the films",
    "inverted": "This image seems to be inverted, air white: with black and white exchanged it would be like the films",
    "mirrored": "This image may be mirrored, or the heart lies on the right: with left and right exchanged it would be "
    "more like the films",
}
"""What would make an image more like the training films, and what to say of it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a warning begins, as validation films set it: about one in a hundred of them is above each.

    Attributes:
        picture: of the small picture's distance.
        tokens: of the distance of what the encoder makes of the image.
        turned: how many times nearer a turned or inverted copy is.
        mirrored: how many times nearer the mirrored copy is.
    """

    picture: float
    tokens: float
    turned: float
    mirrored: float


@dataclass(frozen=True, slots=True)
class Scores:
    """What is measured of n images.

    Attributes:
        picture: (n,), distance of the small picture from those of training films; about 1 is usual.
        tokens: (n,), distance of the encoder's mean token from those of training films; about 1 is usual.
        copies: of each key of ``TURNS``, (n,): distance of the copy's small picture.
    """

    picture: Values
    tokens: Values
    copies: Mapping[str, Values]

    def best_copy(self, *names: str) -> Values:
        """How many times nearer the nearest of some copies is than the image, (n,)."""
        nearer: Values = self.picture / np.min([self.copies[name] for name in names], axis=0)
        return nearer


class Check(Protocol):
    """What looks at an image before its report is shown."""

    def warnings(self, images: Tensor, tokens: Tensor) -> list[tuple[str, ...]]:
        """What to say of images (B, 1, H, H) in [0, 1] and their tokens (B, N, D); nothing of usual ones."""
        ...


@dataclass(frozen=True, slots=True)
class Unchecked:
    """No check, and why; so that its absence is told."""

    reason: str

    def warnings(self, images: Tensor, tokens: Tensor) -> list[tuple[str, ...]]:
        """The reason, of each image."""
        return [(self.reason,)] * len(images)


UNCHECKED = Unchecked("It was not checked whether this image is like those that this model learned from.")


@dataclass(frozen=True, slots=True)
class Gate:
    """Compares images with the films that an encoder learned from.

    Attributes:
        picture: of small pictures, see `small_pictures`.
        tokens: of the encoder's tokens, their mean over an image.
        limits: where a warning begins.
    """

    picture: Distance
    tokens: Distance
    limits: Limits

    def scores(self, images: Tensor, tokens: Tensor) -> Scores:
        """Measure images (B, 1, H, H) in [0, 1] and their tokens (B, N, D)."""
        small = small_pictures(images)
        copies = {name: self.picture.of(flat(copy)) for name, copy in turned(small).items()}
        return Scores(self.picture.of(flat(small)), self.tokens.of(pooled(tokens)), copies)

    def warnings(self, images: Tensor, tokens: Tensor) -> list[tuple[str, ...]]:
        """See `Check.warnings`; of several reasons the one that says most, and what was measured."""
        found = self.scores(images, tokens)
        return [self._warning(found, row) for row in range(len(images))]

    def unlike(self, scores: Scores) -> Values:
        """How unlike the training films images are, (n,): 1 is where the warning begins."""
        worst: Values = np.maximum(scores.picture / self.limits.picture, scores.tokens / self.limits.tokens)
        return worst

    def _warning(self, scores: Scores, row: int) -> tuple[str, ...]:
        unlike = float(self.unlike(scores)[row])
        ratios = {name: float(scores.picture[row] / copy[row]) for name, copy in scores.copies.items()}
        # A copy must itself be a usual film: noise turned is noise.
        usual = {name: ratio for name, ratio in ratios.items() if scores.copies[name][row] <= self.limits.picture}
        mirrored = usual.pop("mirrored", 0.0)
        turn = max(usual, key=lambda name: usual[name], default="")
        if turn and usual[turn] > self.limits.turned:
            return (f"{TURNS[turn]} that this model learned from. Do not trust the report.",)
        if mirrored > self.limits.mirrored:
            return (f"{TURNS['mirrored']} that this model learned from. Sides in the report may be wrong.",)
        if unlike > 1:
            return (
                "This image is unlike the films that this model learned from. It may be a lateral view, another part "
                "of the body, or no X-ray. Do not trust the report.",
                f"Its distance from them is {unlike:.1f} times the limit, which hardly any of such films is above.",
            )
        return ()


def small_pictures(images: Tensor) -> Values:
    """Images (B, 1, H, W) as (B, ``SIDE``, ``SIDE``), all of mean 0 and about one contrast, whatever the exposure."""
    from torch.nn import functional

    small: Values = functional.adaptive_avg_pool2d(images.float(), SIDE)[:, 0].cpu().numpy()
    centred = small - small.mean((1, 2), keepdims=True)
    even: Values = centred / (small.std((1, 2), keepdims=True) + EVEN)
    return even


def turned(pictures: Values) -> dict[str, Values]:
    """Copies of small pictures (n, S, S), by the keys of ``TURNS``."""
    return {
        "left": np.rot90(pictures, 1, (1, 2)),
        "right": np.rot90(pictures, -1, (1, 2)),
        "half": np.rot90(pictures, 2, (1, 2)),
        "flipped": pictures[:, ::-1],
        "inverted": -pictures,
        "mirrored": pictures[:, :, ::-1],
    }


def pooled(tokens: Tensor) -> Values:
    """Mean of tokens (B, N, D) over an image, (B, D)."""
    found: Values = tokens.float().mean(1).cpu().numpy()
    return found


def flat(pictures: Values) -> Values:
    """Small pictures (n, S, S) as rows (n, S * S)."""
    return pictures.reshape(len(pictures), -1)


def learn_gate(picture: Distance, tokens: Distance, validation: tuple[Values, Values]) -> Gate:
    """A gate whose warnings about one in a hundred validation films would get for each reason.

    Args:
        picture: learned from small pictures of training films, flat.
        tokens: learned from mean tokens of training films.
        validation: small pictures (n, S, S) and mean tokens (m, D) of other films of the same kind.
    """
    pictures, means = validation
    scores = Scores(
        picture.of(flat(pictures)),
        tokens.of(means),
        {name: picture.of(flat(copy)) for name, copy in turned(pictures).items()},
    )
    turns = tuple(name for name in TURNS if name != "mirrored")

    def limit(values: Values, least: float = 0.0) -> float:
        return max(float(np.quantile(values, 1 - WARNED)), least)

    return Gate(
        picture,
        tokens,
        Limits(
            limit(scores.picture),
            limit(scores.tokens),
            limit(scores.best_copy(*turns), NEARER),
            limit(scores.best_copy("mirrored"), NEARER),
        ),
    )
