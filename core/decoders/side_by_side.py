"""Weights of several models of one shape, applied at once: what makes a word in few operators, of one model or many.

A small model spends its time on beginning operators. Models that are alike write as one, for the time of little more
than one. Rows of a model are neighbours: (models, rows, width).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_WEIGHTS = 2_000_000
"""Of a decoder: larger ones spend their time on arithmetic, and gain nothing from each other."""
Weights = TypeVar("Weights")


class Affine(NamedTuple):
    """A linear layer of each model: weight (models, in, out), bias (models, 1, out) or None."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """(models, rows, in) to (models, rows, out)."""
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class Norm(NamedTuple):
    """A layer norm of each model: scale and shift (models, 1, width)."""

    scale: Tensor
    shift: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        """(models, rows, width) to the same shape."""
        normed = torch.layer_norm(x, x.shape[-1:], None, None, self.epsilon)
        return torch.addcmul(self.shift, normed, self.scale)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape as one, (models, ...); of one model without a copy."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))


def computed(weight: Tensor) -> Tensor:
    """A matrix in the type that products are computed in, so that it is not cast at every word."""
    kind = weight.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return weight
    return weight.to(torch.get_autocast_dtype(kind))


def affine(*parts: Sequence[nn.Linear]) -> Affine:
    """A linear layer of each model; several that read the same, each given of every model, become one."""
    of_models = list(zip(*parts, strict=True))
    weights = [_joined([each.weight for each in linears]) for linears in of_models]
    biases = [_joined([each.bias for each in linears]) for linears in of_models if linears[0].bias is not None]
    bias = computed(stacked(biases)).unsqueeze(1) if biases else None
    return Affine(computed(stacked(weights)).transpose(1, 2), bias)


def norm(norms: Sequence[nn.LayerNorm]) -> Norm:
    """A layer norm of each model."""
    scale, shift = (stacked([getattr(each, name) for each in norms]).unsqueeze(1) for name in ("weight", "bias"))
    return Norm(scale, shift, norms[0].eps)


def embedded(ids: Tensor, tables: Tensor) -> Tensor:
    """Rows of each model's table (models, V, width) for ids (models * rows,): (models, rows, width)."""
    models, size, width = tables.shape
    ids = ids.view(models, -1)
    if models > 1:
        ids = ids + torch.arange(0, models * size, size, device=ids.device).unsqueeze(1)
    return functional.embedding(ids, tables.view(-1, width))


def padded(tensors: Sequence[Tensor], dim: int) -> tuple[Tensor, Tensor | None]:
    """Tensors of one study each, of unequal length in a dimension, as one batch.

    Args:
        tensors: (studies, ...); only where there are several, and of one study each, may their lengths differ.
        dim: which may differ.

    Returns:
        (all studies, ...), and what is added to a score of each place: (all studies, longest), -inf where nothing is.
        None where all are of one length.
    """
    if len(tensors) == 1:
        return tensors[0], None
    lengths = [each.shape[dim] for each in tensors]
    longest = max(lengths)
    if min(lengths) == longest:
        return torch.cat(list(tensors)), None
    whole = [
        torch.cat([each, each.new_zeros(*each.shape[:dim], longest - length, *each.shape[dim + 1 :])], dim=dim)
        for each, length in zip(tensors, lengths, strict=True)
    ]
    there = torch.arange(longest, device=whole[0].device) < torch.tensor(lengths, device=whole[0].device).unsqueeze(1)
    missing = torch.zeros_like(there, dtype=whole[0].dtype).masked_fill(~there, -torch.inf)
    return torch.cat(whole), missing


def kept(weights: Weights, models: Tensor) -> Weights:
    """Weights of some of the models: every tensor of a tuple of tuples, by its first dimension."""
    found: Any = weights
    if isinstance(found, Tensor):
        return found.index_select(0, models)  # type: ignore[return-value]
    if isinstance(found, tuple):
        parts = (kept(each, models) for each in found)
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)  # type: ignore[return-value]
    return weights


def likeness(decoder: nn.Module, without: Collection[str]) -> Hashable | None:
    """What two decoders have in common if a word takes the same operators: kinds, numbers and shapes of all parts.

    Args:
        decoder: any.
        without: parts that are not needed for a word.

    Returns:
        None for one that is too large to gain anything.
    """
    found, size = [], 0
    for name, module in decoder.named_modules():
        if name.partition(".")[0] in without:
            continue
        numbers = tuple((key, value) for key, value in vars(module).items() if isinstance(value, bool | int | float))
        shapes = tuple((key, each.shape, each.dtype) for key, each in module.named_parameters(recurse=False))
        size += sum(each.numel() for each in module.parameters(recurse=False))
        found.append((name, type(module), numbers, shapes))
    return tuple(found) if size <= MOST_WEIGHTS else None


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
