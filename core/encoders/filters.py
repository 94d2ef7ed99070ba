"""CCVE's filters: what each of thirteen makes of an image before CLIP sees it (Nazarov et al. 2022, section 3.1)."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from core.encoders.base import Normalize
from core.observations import CLUSTERS

K = len(CLUSTERS)
SIDE = 15
"""Side of a kernel of the bank, pixels."""
MIDDLE = 0.5
"""The grey that even areas become in a picture of the bank."""
CONTRAST = 1.0
"""Contrast of what a kernel of the bank lets pass, as a share of the radiograph's own."""


class Filters(nn.Module):
    """Thirteen filters of normalised images."""

    def all(self, images: Tensor) -> Tensor:
        """Filter images (B, 3, H, H) with every filter; returns (B, K, 3, H, H)."""
        return torch.stack([self.one(images, k) for k in range(K)], dim=1)

    def one(self, images: Tensor, k: int) -> Tensor:
        """Filter images (B, 3, H, H) with filter k only; returns (B, 3, H, H)."""
        return self.all(images)[:, k]

    def redraw(self) -> None:
        """Draw all that is learned anew, at random."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.LayerNorm):
                layer.reset_parameters()


class IndependentFilters(Filters):
    """Thirteen separate stacks, as the paper's words say ("13 distinct convolution operators").

    Stack k is conv 3 -> hidden (5 x 5), GELU, conv hidden -> 3 (3 x 3), added to the input through a learned gate.
    The gate is our choice (paper-notes 1.4). From 0 a pretrained CLIP sees a real radiograph at first, and at the end
    too: in some hundred steps it hardly opens (docs/experiments.md).
    """

    def __init__(self, hidden: int, gate: float = 0.0) -> None:
        """Build stacks with ``hidden`` channels each, whose gates start at ``gate``."""
        super().__init__()
        self.hidden = hidden
        self.first = nn.Conv2d(3, K * hidden, 5, padding=2)
        self.second = nn.Conv2d(K * hidden, K * 3, 3, padding=1, groups=K)  # group k is stack k's second layer
        self.gate = nn.Parameter(torch.full((K,), gate))

    def one(self, images: Tensor, k: int) -> Tensor:
        """Filter images (B, 3, H, H) with stack k only; on a CPU twice as fast as one grouped convolution for all."""
        inner = slice(k * self.hidden, (k + 1) * self.hidden)
        outer = slice(3 * k, 3 * k + 3)
        x = functional.conv2d(images, self.first.weight[inner], _part(self.first.bias, inner), padding=2)
        x = functional.conv2d(functional.gelu(x), self.second.weight[outer], _part(self.second.bias, outer), padding=1)
        return images + self.gate[k] * x

    def redraw(self) -> None:
        """Draw stacks at random, and open their gates: thirteen closed ones would give thirteen equal images."""
        super().redraw()
        nn.init.ones_(self.gate)


class SharedStemFilters(Filters):
    """The published code's topology: one two-layer stem, filter k is a slice of three of its 39 channels.

    Its filters share the first layer and are coupled by the second norm; the output is not in CLIP's input range.
    Source: mudabek/encoding-cxr-report-gen, XRayClusterModel, as described in paper-notes 1.4.
    """

    def __init__(self, hidden: int = 16) -> None:
        """Build the stem; the published code has 16 hidden channels."""
        super().__init__()
        self.first = nn.Conv2d(3, hidden, 5, padding=2)
        self.first_norm = nn.LayerNorm(hidden, eps=1e-6)
        self.second = nn.Conv2d(hidden, K * 3, 3, padding=1)
        self.second_norm = nn.LayerNorm(K * 3, eps=1e-6)

    def all(self, images: Tensor) -> Tensor:
        """Filter images (B, 3, H, H); returns (B, K, 3, H, H)."""
        x = functional.gelu(_channel_norm(self.first(images), self.first_norm))
        x = functional.gelu(_channel_norm(self.second(x), self.second_norm))
        return x.unflatten(1, (K, 3))


class FilterBank(Filters):
    """Thirteen kernels of 15 x 15 pixels that start as known filters and go on learning.

    Kernel k starts as ``starting_kernels()[k]``: coarse, middle or fine detail, or edges of one direction, in the place
    of the radiograph (even areas become the middle grey). All three channels are one grey picture, so what is shown is
    all that CLIP gets. Different from the start, filters need not find out of nothing that they may differ; see
    docs/experiments.md for what was tried instead. Ours.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, normalize: Normalize) -> None:
        """Build the bank for images that ``normalize`` gives: grey ones."""
        super().__init__()
        self.kernel = nn.Parameter(torch.tensor(starting_kernels()))
        self.shift = nn.Parameter(torch.zeros(K))
        self.register_buffer("mean", normalize.mean.clone(), persistent=False)
        self.register_buffer("std", normalize.std.clone(), persistent=False)

    def _filter(self, images: Tensor, part: slice) -> Tensor:
        """Images (B, 3, H, H) through some kernels, (B, kernels, 3, H, H).

        By Fourier transforms, which on a CPU are ten times as fast as a convolution of one channel.
        """
        grey = (images * self.std + self.mean)[:, :1] - MIDDLE  # (B, 1, H, H): the channels are equal
        height, width = grey.shape[2:]
        flat = functional.pad(grey, (SIDE // 2,) * 4, mode="replicate")
        whole = [-(-size // 16) * 16 for size in flat.shape[2:]]  # sizes that transform fast; what is added is cut off
        kernels = torch.fft.rfft2(self.kernel[part], s=whole).conj()
        found = torch.fft.irfft2(torch.fft.rfft2(flat, s=whole) * kernels, s=whole)[..., :height, :width]
        found = found + self.shift[part][:, None, None] + MIDDLE  # (B, kernels, H, H)
        return (found.unsqueeze(2) - self.mean) / self.std

    def all(self, images: Tensor) -> Tensor:
        """Filter images (B, 3, H, H) with every kernel; returns (B, K, 3, H, H)."""
        return self._filter(images, slice(0, K))

    def one(self, images: Tensor, k: int) -> Tensor:
        """Filter images (B, 3, H, H) with kernel k only; returns (B, 3, H, H)."""
        return self._filter(images, slice(k, k + 1))[:, 0]

    def redraw(self) -> None:
        """Draw kernels at random."""
        nn.init.normal_(self.kernel, std=1 / SIDE)
        nn.init.zeros_(self.shift)


@functools.cache
def starting_kernels() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The bank as it starts, (13, 15, 15), in the order of ``CLUSTERS``.

    Scales and directions are chosen by what a reader looks for: borders of the heart and the mediastinum, plates and
    levels, fine lines of a pleura, a rib or a catheter, textures of a lung. What lets no even grey pass is scaled to
    ``CONTRAST`` times the contrast of a picture whose amplitudes fall as 1 / frequency, as a radiograph's nearly do.
    """
    kernels = [
        _edge(2.0, 0.0),  # Enlarged Cardiomediastinum: upright borders
        0.4 * _gaussian(3.0),  # Cardiomegaly: the shape without detail, at lower contrast
        0.75 * _delta() + _band(2.8, 4.5),  # Lung Opacity: coarse patches on the radiograph
        _band(1.2, 2.4),  # Lung Lesion: spots
        0.5 * _delta() + _band(0.8, 1.6),  # Edema: fine lines on half of the radiograph
        _band(2.8, 4.5),  # Consolidation: coarse patches
        0.5 * _delta() + _band(1.6, 3.2),  # Pneumonia: patches on half of the radiograph
        _edge(1.2, 90.0),  # Atelectasis: lying plates
        _band(0.5, 1.0),  # Pneumothorax: the finest line
        _edge(2.5, 90.0),  # Pleural Effusion: a level
        _edge(1.0, 45.0),  # Fracture: a step across a rib
        _edge(1.0, 135.0),  # Support Devices: the other slant
        _delta() + 1.5 * _band(1.0, 3.0),  # No Finding: the whole, sharpened
    ]
    return np.stack(kernels).astype(np.float32)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    side = np.arange(SIDE) - SIDE // 2
    y, x = np.meshgrid(side, side, indexing="ij")
    return y.astype(float), x.astype(float)


def _gaussian(sigma: float) -> np.ndarray:
    y, x = _grid()
    kernel = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def _delta() -> np.ndarray:
    y, x = _grid()
    return ((x == 0) & (y == 0)).astype(float)


def _band(fine: float, coarse: float) -> np.ndarray:
    """Difference of two Gaussians, widths in pixels: detail between the two."""
    return _scaled(_gaussian(fine) - _gaussian(coarse))


def _edge(sigma: float, degrees: float) -> np.ndarray:
    """Slope of a Gaussian in one direction; 0 degrees is to the right, where upright borders are."""
    y, x = _grid()
    along = x * math.cos(math.radians(degrees)) + y * math.sin(math.radians(degrees))
    return _scaled(along * _gaussian(sigma))


def _scaled(kernel: np.ndarray) -> np.ndarray:
    kernel = kernel - kernel.mean()  # no even grey passes
    size = 128
    steps = np.fft.fftfreq(size)
    frequency = np.hypot(steps[:, None], steps[None, :])
    frequency[0, 0] = np.inf
    amplitude = np.abs(np.fft.fft2(kernel, (size, size)))
    return CONTRAST * kernel * np.sqrt((frequency**-2.0).sum() / (amplitude**2 * frequency**-2.0).sum())


def _channel_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # over the channels of each pixel


def _part(bias: Tensor | None, part: slice) -> Tensor | None:
    return None if bias is None else bias[part]
