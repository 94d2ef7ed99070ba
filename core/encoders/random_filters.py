"""The control for the paper's Figure 4: CCVE with filters that learned nothing.

Thirteen different filters move an image in thirteen ways, so their embeddings fall into thirteen clusters before any
training. Clusters of filters mean something only as far as they differ from this control (paper-notes 1.4).
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from core.encoders.ccve import ClusterClipEncoder


def with_random_filters(encoder: ClusterClipEncoder, seed: int = 0) -> ClusterClipEncoder:
    """Copy CCVE and draw its filters anew, as before training; CLIP stays as it is.

    The gates of independent filters keep their learned values: a new gate is 0, and thirteen closed gates would give
    thirteen equal images.

    Args:
        encoder: left as it is.
        seed: of the new filters; torch's own generator is left as it was.

    Returns:
        A frozen encoder of the same shape.
    """
    control = copy.deepcopy(encoder)
    device = next(control.filters.parameters()).device
    control.filters.cpu()  # drawn there: the same filters on every device
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for layer in control.filters.modules():
            if isinstance(layer, nn.Conv2d | nn.LayerNorm):
                layer.reset_parameters()
    control.filters.to(device)
    return control.freeze()
