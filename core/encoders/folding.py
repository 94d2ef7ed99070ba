"""In: a frozen encoder. Out: the same, which gives the same tokens sooner: batch norms are part of their convolutions.

In evaluation a batch norm is one factor and one summand a channel, which the convolution before it can have in its own
weights and bias (Jacob et al. 2018, section 3.2, doi:10.1109/CVPR.2018.00286). Sums then end in other last digits.
"""

from __future__ import annotations

import copy
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from core.encoders.base import Encoder

ModuleT = TypeVar("ModuleT", bound=nn.Module)
_FOLDED: WeakKeyDictionary[Encoder, tuple[torch.device, Encoder | None]] = WeakKeyDictionary()
"""Where it lay when it was folded; None where nothing was: a value must not keep its key."""


def folded(encoder: Encoder) -> Encoder:
    """An encoder that shares all weights with this one but those of folded convolutions; itself where it has none.

    Made once for an encoder, which may move to another device, and must not change otherwise any more.
    """
    weights = next(encoder.parameters(), None)
    if weights is None or not encoder.is_frozen:
        return encoder
    device = weights.device
    known = _FOLDED.get(encoder)
    if known is None or known[0] != device:
        twin = _twin(encoder)
        known = _FOLDED[encoder] = device, None if twin is encoder else twin
    return known[1] or encoder


def _twin(module: ModuleT) -> ModuleT:
    """A module like this one; a norm that comes right after a convolution among its parts is in the convolution."""
    if isinstance(module, Encoder) and not module.norms_follow:
        return module
    parts = dict(module._modules)
    before: tuple[str, nn.Module | None] = "", None
    for name, part in module._modules.items():
        if isinstance(part, nn.BatchNorm2d) and isinstance(before[1], nn.Conv2d) and _fits(before[1], part):
            parts[before[0]] = fuse_conv_bn_eval(before[1], part)
            parts[name] = _rest(part)
        elif part is not None:
            parts[name] = _twin(part)
        before = name, part
    if all(part is parts[name] for name, part in module._modules.items()):
        return module
    twin = copy.copy(module)
    twin._modules = parts
    return twin


def _fits(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    return norm.num_features == convolution.out_channels and norm.running_mean is not None


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What a norm does besides: timm's have an activation."""
    return nn.Sequential(*(getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)))
