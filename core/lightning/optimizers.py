"""The optimiser and schedule that all modules share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

WARMUP = 0.05
"""Share of the steps over which the rate rises; ours."""


def adamw(
    groups: Iterable[tuple[nn.Module | nn.Parameter, float]],
    weight_decay: float,
    total_steps: int,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-6,
) -> dict[str, Any]:
    """AdamW with linear warm-up and cosine decay, as Lightning wants it.

    Args:
        groups: modules or parameters, each with its own highest learning rate.
        weight_decay: decoupled; vectors (gains, biases, norms, temperatures) are spared.
        total_steps: optimiser steps of the whole training.
        betas: src: the community recipe for CLIP (paper-spec 1.3).
        eps: as betas.
    """
    settings: list[dict[str, Any]] = []
    for part, rate in groups:
        parameters = [part] if isinstance(part, nn.Parameter) else [p for p in part.parameters() if p.requires_grad]
        for decay, chosen in (
            (weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            if chosen:
                settings.append({"params": chosen, "lr": rate, "weight_decay": decay})
    optimizer = AdamW(settings, betas=betas, eps=eps)
    warmup = max(1, round(WARMUP * total_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total_steps - warmup))))

    schedule = LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def freeze_batch_norms(module: nn.Module) -> None:
    """Keep the statistics of batch norms as they are while the rest trains; call after each ``train()``."""
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            each.eval()


def augment(images: torch.Tensor) -> torch.Tensor:
    """Turn, shift, scale and re-expose images (B, 1, H, W) a little; values stay in [0, 1].

    No flip: reports name sides. Random numbers come from torch's generator, which each epoch seeds.
    """
    batch = len(images)
    angle = (torch.rand(batch) - 0.5) * math.radians(8)
    scale = 1 + (torch.rand(batch) - 0.5) * 0.12
    shift = (torch.rand(batch, 2) - 0.5) * 0.12
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    matrix = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], dim=1).to(
        images
    )
    grid = nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, align_corners=False)
    gamma = torch.exp((torch.rand(batch, 1, 1, 1) - 0.5) * 0.4).to(images)
    gain = 1 + (torch.rand(batch, 1, 1, 1).to(images) - 0.5) * 0.2
    return (moved.clamp(1e-4, 1) ** gamma * gain).clamp(0, 1)
