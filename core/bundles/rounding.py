"""Weights rounded to 8 bits for the disk: each row of a matrix with a scale of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SCALE = ".scale"
"""After the name of a rounded matrix: what each of its rows is multiplied by."""


def rounded(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A module's state as bundles keep it: matrices in 8 bits with a scale a row, vectors in 16; keys get a prefix."""
    import torch

    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if value.is_floating_point() and value.ndim > 1:
            rows = value.float().flatten(1)
            scale = rows.abs().amax(1).clamp(min=1e-12) / 127
            found[prefix + key] = (rows / scale[:, None]).round().to(torch.int8).view_as(value)
            found[prefix + key + SCALE] = scale
        else:
            found[prefix + key] = value.half() if value.is_floating_point() else value
    return found


def restored(values: Mapping[str, Any], key: str) -> Any:
    """What `rounded` was given under a key, times its scale where it has one; of torch's tensors or numpy's arrays."""
    value = values[key]
    return value * values[key + SCALE].reshape(-1, *[1] * (value.ndim - 1)) if key + SCALE in values else value


def all_restored(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What `rounded` was given with a prefix: a module's state."""
    return {
        key.removeprefix(prefix): restored(values, key)
        for key in values
        if key.startswith(prefix) and not key.endswith(SCALE)
    }
