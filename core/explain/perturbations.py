"""What happens to a target when parts of the image, or tokens, are covered: one at a time, or many at random."""

from __future__ import annotations

import torch
from captum.attr import FeatureAblation, Occlusion
from torch import Tensor
from torch.nn import functional

from core.encoders.token_cache import Progress
from core.explain.passes import BATCH, Baseline, CountedScore, Over, result, varied
from core.explain.subject import Subject
from core.explain.targets import Target
from core.types import Attribution


def occlusion(
    subject: Subject,
    target: Target,
    *,
    over: Over = "pixels",
    windows: int = 14,
    baseline: Baseline = "mean",
    batch: int = BATCH,
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """How far the target falls when a window, or a token, is covered (Zeiler and Fergus 2014, arXiv:1311.2901).

    Args:
        windows: across and down.
        baseline: what covers pixels.
        batch: covered copies at once.
    """
    inputs, cover, forward = varied(subject, target, over, baseline)
    size = inputs.shape[-1]
    count = inputs.shape[1] if over == "tokens" else windows * windows
    score = CountedScore(subject, forward, count + 1, progress)
    with torch.no_grad():
        if over == "tokens":
            each = torch.arange(count, device=inputs.device)[None, :, None].expand_as(inputs)
            values = FeatureAblation(score).attribute(inputs, cover, feature_mask=each, perturbations_per_eval=batch)
            values = values[..., :1]  # a token's channels all carry its value
        else:
            stride = size // windows
            window = size - stride * (windows - 1)  # at least the stride: no pixel is left out
            values = Occlusion(score).attribute(
                inputs,
                sliding_window_shapes=(1, window, window),
                strides=(1, stride, stride),
                baselines=cover,
                perturbations_per_eval=batch,
            )
    return result(subject, values, over, "occlusion", target.name, {"score": score.first})


def random_masks(
    subject: Subject,
    target: Target,
    *,
    over: Over = "pixels",
    masks: int = 300,
    cells: int = 8,
    baseline: Baseline = "mean",
    seed: int = 0,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """How the target moves with what a random mask leaves visible (after RISE: Petsiuk et al. 2018, arXiv:1806.07421).

    Half of a coarse grid is visible, smoothly and at a random shift; of tokens, half of them. RISE sums masks by their
    scores; here it is the regression of scores on masks, which does not depend on the score's zero. Values are changes
    of the score for a pixel or token that becomes visible.

    Args:
        cells: of the coarse grid, across and down.
        baseline: what covers pixels.
        batch: masked copies at once.
    """
    inputs, cover, forward = varied(subject, target, over, baseline)
    score = CountedScore(subject, forward, masks, progress)
    generator = torch.Generator().manual_seed(seed)  # of the CPU: the same masks on every device
    drawn, scores = [], []
    with torch.no_grad():
        for start in range(0, masks, batch):
            count = min(batch, masks - start)
            mask = smooth_masks(count, cells, inputs.shape[-1], generator)
            if over == "tokens":
                mask = torch.bernoulli(torch.full((count, inputs.shape[1], 1), 0.5), generator=generator)
            mask = mask.to(inputs.device)
            drawn.append(mask)
            scores.append(score(cover + mask * (inputs - cover)))
    values = regressed(torch.cat(drawn), torch.cat(scores))
    return result(subject, values, over, "random-masks", target.name, {})


def regressed(masks: Tensor, scores: Tensor) -> Tensor:
    """How scores (count,) move with what masks (count, ...) show, place by place: (1, ...), slopes of regression."""
    seen = masks - masks.mean(0)
    covariance = (seen * (scores - scores.mean()).view(-1, *[1] * (seen.ndim - 1))).mean(0, keepdim=True)
    return covariance / seen.square().mean(0, keepdim=True).clamp(min=1e-6)


def smooth_masks(count: int, cells: int, size: int, generator: torch.Generator) -> Tensor:
    """Random masks (count, 1, size, size), values in [0, 1], mean 0.5."""
    side = -(-size // cells)
    coarse = torch.bernoulli(torch.full((count, 1, cells + 1, cells + 1), 0.5), generator=generator)
    fine = functional.interpolate(coarse, scale_factor=float(side), mode="bilinear")
    shifts = torch.randint(side, (count, 2), generator=generator).tolist()
    return torch.stack([mask[:, y : y + size, x : x + size] for mask, (y, x) in zip(fine, shifts, strict=True)])
