"""What training images may look like: turned, shifted, of other proportions and exposures, framed, with a letter."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from core.settings import AugmentConfig

FRAME = 0.12
"""Widest part of a side that a border covers; ours."""
LETTERS = {
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
}
"""The markers of a side, 7 x 5 dots. The patient's right is at the image's left."""


def augment(images: Tensor, how: AugmentConfig) -> Tensor:
    """Change images (B, 1, H, W) a little, as ``how`` says; values stay in [0, 1].

    No flip: reports name sides, and a marker stands where its side is. Random numbers come from torch's generator,
    which each epoch seeds, the same on every device; the images stay on theirs.
    """
    batch = len(images)
    angle = (torch.rand(batch) - 0.5) * math.radians(2 * how.turn)
    scale = 1 + (torch.rand(batch) - 0.5) * 2 * how.scale
    shift = (torch.rand(batch, 2) - 0.5) * 4 * how.shift
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    matrix = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], dim=1)
    if how.aspect:
        half = (torch.rand(batch) - 0.5) * how.aspect / 2
        matrix = matrix * torch.stack([half.exp(), (-half).exp()], 1)[..., None]  # the sampled area's sides
    grid = functional.affine_grid(matrix.to(images), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    gamma = torch.exp((torch.rand(batch, 1, 1, 1) - 0.5) * 2 * how.gamma).to(images)
    gain = 1 + (torch.rand(batch, 1, 1, 1).to(images) - 0.5) * 2 * how.gain
    changed = (moved.clamp(1e-4, 1) ** gamma * gain).clamp(0, 1)
    if how.borders:
        changed = changed * _inside(changed, how.borders)
    return _marked(changed, how.markers) if how.markers else changed


def _inside(images: Tensor, share: float) -> Tensor:
    """(B, 1, H, W): 0 on the border that some of the images get, each side of its own width; else 1."""
    batch, (height, width) = len(images), images.shape[2:]
    framed = (torch.rand(batch, 1) < share) * (torch.rand(batch, 4) < 0.5)
    top, bottom, left, right = (framed * torch.rand(batch, 4) * FRAME).to(images)[..., None].unbind(1)
    rows, columns = (torch.linspace(0, 1, side).to(images)[None] for side in (height, width))
    inside_rows = (rows >= top) & (rows <= 1 - bottom)
    inside_columns = (columns >= left) & (columns <= 1 - right)
    return (inside_rows[:, None, :, None] & inside_columns[:, None, None, :]).to(images)


def _marked(images: Tensor, share: float) -> Tensor:
    """Burn an R or an L into the upper corner of its side, in some of the images."""
    batch = len(images)
    marked, is_left = torch.rand(batch) < share, torch.rand(batch) < 0.5
    size = 0.04 + 0.05 * torch.rand(batch)  # the letter's height, of the image's
    across, down = 0.75 + 0.2 * torch.rand(batch), -0.95 + 0.35 * torch.rand(batch)
    grey = (0.6 + 0.4 * torch.rand(batch)) * marked
    dots = {
        side: torch.tensor([[float(dot) for dot in row] for row in letter]).to(images)
        for side, letter in LETTERS.items()
    }
    letters = torch.where(is_left.to(images.device)[:, None, None], dots["L"], dots["R"])[:, None]
    x = torch.where(is_left, across, -across)  # seen from the front, the patient's left is at the right
    zero = torch.zeros(batch)
    matrix = torch.stack(
        [
            torch.stack([1.4 / size, zero, -1.4 * x / size], 1),
            torch.stack([zero, 1 / size, -down / size], 1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix.to(images), list(images.shape), align_corners=False)
    ink = functional.grid_sample(letters, grid, align_corners=False) * marked.to(images)[:, None, None, None]
    return torch.lerp(images, grey.to(images)[:, None, None, None].expand_as(images), ink)
