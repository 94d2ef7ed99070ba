"""What methods share: what is varied, what stands for an empty image, a score that counts its passes, the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from core.encoders.token_cache import Progress
from core.explain.on_image import content_share
from core.explain.subject import Subject, not_finite, token_runs
from core.explain.targets import Target
from core.types import Attribution, CXRLensError

Over = Literal["pixels", "tokens"]
"""Of the image, or what the decoder reads: cells of a grid, CCVE's filters."""

Baseline = Literal["blur", "mean", "black"]
"""What stands for an image with nothing to see; a token's is 0."""

BATCH = 28
"""Images or sets of tokens that go through the model at once; bounds the memory."""

BLUR = 0.1
"""Standard deviation of the blurred baseline, share of the image's side."""


def baseline_image(subject: Subject, kind: Baseline) -> Tensor:
    """An image (1, 1, size, size) with nothing to see; padding stays black."""
    size, device = subject.square.shape[-1], subject.square.device
    content = torch.from_numpy(content_share(subject.geometry, (size, size)))[None, None].to(device)
    if kind == "black":
        return torch.zeros_like(subject.square)
    if kind == "mean":
        return content * (subject.square * content).sum() / content.sum()
    if kind == "blur":
        blurred = gaussian_filter(subject.square.cpu().numpy(), (0, 0, BLUR * size, BLUR * size))
        return torch.from_numpy(blurred).to(device) * content
    raise CXRLensError(f"A baseline is blur, mean or black, not '{kind}'.")


class CountedScore:
    """A score of inputs (B, ...) that counts its passes, and refuses NaN.

    Attributes:
        first: the first score that was computed; NaN before.
    """

    def __init__(
        self,
        subject: Subject,
        forward: Callable[[Tensor], Tensor],
        total: int,
        progress: Progress | None,
        done: int = 0,
    ) -> None:
        """Count from `done` to `total`."""
        self.subject, self.forward, self.total, self.progress, self.done = subject, forward, total, progress, done
        self.first = float("nan")

    def __call__(self, inputs: Tensor) -> Tensor:
        """Scores (B,) of inputs (B, ...)."""
        scores = self.forward(inputs)
        if not torch.isfinite(scores).all():
            raise CXRLensError(not_finite(self.subject.model, "model"))
        if self.first != self.first:
            self.first = float(scores.detach()[0])
        self.done = min(self.done + len(inputs), self.total)
        if self.progress:
            self.progress(self.done, self.total)
        return scores


def varied(
    subject: Subject, target: Target, over: Over, baseline: Baseline
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """What is varied (1, ...), its baseline, and the score of it."""
    if over == "tokens":
        tokens = subject.visual.tokens
        return tokens, torch.zeros_like(tokens), lambda values: target.of_tokens(subject, values)
    return subject.square, baseline_image(subject, baseline), lambda values: target.of_images(subject, values)


def result(
    subject: Subject,
    values: Tensor,
    over: Over,
    method: str,
    target: str,
    details: Mapping[str, float],
    *,
    signed: bool = True,
) -> tuple[Attribution, ...]:
    """Attributions of values (1, 1, H, H) over pixels, or (1, N, D) over tokens, whose channels are summed."""
    if over == "tokens":
        return over_tokens(subject, values[0].sum(1), method, target, details, signed=signed)
    return (Attribution(as_array(values[0, 0]), signed, method, target, subject.geometry, "", details),)


def over_tokens(
    subject: Subject, values: Tensor, method: str, target: str, details: Mapping[str, float], *, signed: bool
) -> tuple[Attribution, ...]:
    """Attributions of values (N,): one for each grid, one for filters.

    Raises:
        CXRLensError: values are not finite.
    """
    if not torch.isfinite(values).all():
        raise CXRLensError(not_finite(subject.model, "model"))
    results = []
    for run in token_runs(subject.visual):
        part = values[run.columns]
        part, geometry = (part.unflatten(0, run.grid), subject.geometry) if run.grid else (part, None)
        results.append(Attribution(as_array(part), signed, method, target, geometry, run.source, details))
    return tuple(results)


def as_array(values: Tensor) -> npt.NDArray[np.float32]:
    """A tensor's values, of any device and precision."""
    array: npt.NDArray[np.float32] = values.detach().float().cpu().numpy()
    return array
