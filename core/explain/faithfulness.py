"""Whether an explanation is true to the model: what its map calls important must matter to the score.

Scores are put on a scale of their own kind first (``Target.unit``): probability of a word, of a class, or a cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from core.explain.on_image import content_share, on_square
from core.explain.passes import BATCH, Baseline, baseline_image
from core.explain.subject import Subject, encode, token_runs, twin, with_image
from core.explain.targets import Target
from core.types import Attribution

Part = Literal["decoder", "encoder"]

Explain = Callable[[Subject], tuple[Attribution, ...]]
"""A method with its target and options: what is run again on changed subjects."""

CELLS = 16
"""Cells across and down in which an image is covered, so that maps of any grid are compared alike."""

STEPS = 16
"""Steps from the whole image to nothing."""

SHARES = (0.1, 0.2, 0.3, 0.5)
"""Shares of the tokens that are taken away or kept; src: ERASER has 1 to 50 %, which are fractions of a filter here."""

MAP_SIZE = 32
"""Side at which two maps are compared."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The score while an image is covered, or uncovered, cell by cell in the order of a map.

    Attributes:
        shares: of the image that is covered or uncovered, 0 to 1.
        values: the score on its scale.
        area: under the curve, its mean value.
    """

    shares: tuple[float, ...]
    values: tuple[float, ...]
    area: float


def cover_curve(
    subject: Subject,
    target: Target,
    attributions: Sequence[Attribution],
    kind: Literal["deletion", "insertion"],
    *,
    baseline: Baseline = "mean",
    batch: int = BATCH,
) -> Curve:
    """Cover the image from its most important cell on ("deletion"), or uncover it so ("insertion").

    A faithful map makes the score fall early in the one and rise early in the other (Petsiuk et al. 2018,
    arXiv:1806.07421). Cells of padding are left out: covering them changes nothing.

    Args:
        attributions: over cells or pixels.
        baseline: what covers.
        batch: covered images at once.

    Raises:
        CXRLensError: attributions of filters; see :func:`erasure` for those.
    """
    importance = on_square(attributions, CELLS).ravel()
    content = np.flatnonzero(content_share(subject.geometry, (CELLS, CELLS)).ravel() >= 0.5)
    order = content[np.argsort(-importance[content], kind="stable")]
    counts = np.rint(np.linspace(0, len(order), STEPS + 1)).astype(int)
    taken = subject.square.new_zeros(STEPS + 1, CELLS * CELLS)
    for step, count in enumerate(counts):
        taken[step, order[:count]] = 1
    size = subject.square.shape[-1]
    masks = functional.interpolate(taken.view(-1, 1, CELLS, CELLS), size=(size, size), mode="nearest-exact")
    cover = baseline_image(subject, baseline)
    shown = 1 - masks if kind == "deletion" else masks
    images = cover + shown * (subject.square - cover)
    with torch.no_grad():
        scores = torch.cat([target.of_images(subject, part) for part in images.split(batch)])
    values = target.unit(scores).cpu().double().numpy()
    shares = counts / max(len(order), 1)
    return Curve(tuple(shares.tolist()), tuple(values.tolist()), float(np.trapezoid(values, shares)))


@dataclass(frozen=True, slots=True)
class Erasure:
    """What taking tokens away does to the score (DeYoung et al. 2020, ERASER, doi:10.18653/v1/2020.acl-main.408).

    Attributes:
        comprehensiveness: how far the score falls without the most important tokens; more is better.
        sufficiency: how far it falls with these tokens only; less is better.
    """

    comprehensiveness: float
    sufficiency: float


def erasure(subject: Subject, target: Target, values: npt.NDArray[np.floating], *, batch: int = BATCH) -> Erasure:
    """Set tokens to 0, the most important ones or all others, and average over ``SHARES`` of them.

    Args:
        target: words.
        values: (N,) importance of each token; see :func:`token_values`.
        batch: sets of tokens at once.
    """
    tokens = subject.visual.tokens
    ranks = np.empty(len(values), dtype=int)
    ranks[np.argsort(-values, kind="stable")] = np.arange(len(values))
    counts = [max(1, round(share * len(values))) for share in SHARES]
    top = torch.tensor(np.array([ranks < count for count in counts]), dtype=tokens.dtype, device=tokens.device)
    kept = torch.cat([torch.ones_like(top[:1]), 1 - top, top])  # all, without the top, the top alone
    with torch.no_grad():
        scores = torch.cat([target.of_tokens(subject, tokens * part.unsqueeze(2)) for part in kept.split(batch)])
    full, *rest = target.unit(scores).tolist()
    without, alone = rest[: len(counts)], rest[len(counts) :]
    return Erasure(float(np.mean([full - each for each in without])), float(np.mean([full - each for each in alone])))


def token_values(subject: Subject, attributions: Sequence[Attribution]) -> npt.NDArray[np.float64] | None:
    """Importance of each token (N,): its own value, or the mean of a finer map in its cell.

    None where the attributions say nothing of some tokens: a map over pixels of CCVE's filters.
    """
    by_source = {each.source: each.values for each in attributions if each.source}
    values = np.zeros(subject.visual.tokens.shape[1])
    for run in token_runs(subject.visual):
        if run.grid and (run.source in by_source or not by_source):
            cells = by_source.get(run.source)
            cells = on_square(attributions, subject.square.shape[-1]) if cells is None else cells
            values[run.columns] = functional.adaptive_avg_pool2d(torch.from_numpy(cells)[None], run.grid).flatten()
        elif run.source in by_source:
            values[run.columns] = by_source[run.source]
        else:
            return None
    return values


def randomised(subject: Subject, parts: Sequence[Part], seed: int) -> Subject:
    """The same image and report, read by a model whose weights are shuffled (after Adebayo et al. 2018).

    A map that stays the same does not come from what the model learned. Each tensor keeps its values in another order,
    so that activations keep their size; arXiv:1810.03292 draws new ones.

    Args:
        subject: stays as it is.
        parts: what is shuffled.
    """
    generator = torch.Generator().manual_seed(seed)  # of the CPU: the same order on every device
    model = twin(subject.model, own_weights=True)
    with torch.no_grad():
        for part in parts:
            for weights in getattr(model, part).parameters():
                order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
                weights.copy_(weights.flatten()[order].view_as(weights))
    return replace(subject, model=model, visual=encode(model, subject.square))


def sanity(
    subject: Subject,
    found: Sequence[Attribution],
    explain: Explain,
    parts: Sequence[Part] = ("decoder", "encoder"),
    seed: int = 0,
) -> float:
    """How alike an explanation is to that of a randomised model: a rank correlation, near 0 for a sound method.

    Args:
        parts: see :func:`randomised`, as ``seed``.
    """
    return agreement(found, explain(randomised(subject, parts, seed)))


def stability(
    subject: Subject,
    found: Sequence[Attribution],
    explain: Explain,
    *,
    noise: float = 0.02,
    repeats: int = 3,
    seed: int = 0,
) -> float:
    """How alike an explanation is to those of slightly noisy images, for the same words: mean rank correlation.

    Args:
        noise: standard deviation, grey levels run from 0 to 1; padding stays black.
        repeats: noisy images.
    """
    generator = torch.Generator().manual_seed(seed)
    content = torch.from_numpy(content_share(subject.geometry, tuple(subject.square.shape[2:])))
    alike = []
    for _ in range(repeats):
        drawn = (torch.randn(subject.square.shape, generator=generator) * noise * content).to(subject.square.device)
        alike.append(agreement(found, explain(with_image(subject, (subject.square + drawn).clamp(0, 1)))))
    return float(np.mean(alike))


def agreement(first: Sequence[Attribution], second: Sequence[Attribution]) -> float:
    """Rank correlation of two explanations of the same kind, -1 to 1; 0 where one of them is constant."""
    a, b = (_flat(each) for each in (first, second))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)


def _flat(attributions: Sequence[Attribution]) -> npt.NDArray[np.float32]:
    placed = [each for each in attributions if each.geometry is not None]
    parts = [each.values for each in attributions if each.geometry is None]
    if placed:
        parts.append(on_square(placed, MAP_SIZE).ravel())
    return np.concatenate(parts)
