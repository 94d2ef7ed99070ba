"""M2, the meshed-memory Transformer (Cornia et al. 2020, arXiv:1912.08226; paper-notes 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.decoders.side_by_side import Affine, affine
from core.decoders.transformer import CrossLayer, KeysValues, LayerWeights, TransformerDecoder


class MeshedLayer(CrossLayer):
    """One decoder layer: the same cross-attention looks at every level, a gate weighs what it saw (eq. 5, 6)."""

    def __init__(
        self, width: int, heads: int, feed_forward: int, dropout: float, levels: int, absent_images: bool = False
    ) -> None:
        """Build with one gate a level; any number of levels (the original's three were hard-coded)."""
        super().__init__(width, heads, feed_forward, dropout, levels=1, absent_images=absent_images)
        self.gates = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(levels))

    def look(self, x: Tensor, memory: tuple[KeysValues, ...], *, return_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Attend from x (B, T, width) to each level; weights are joined by the mean of each level's gate."""
        total, seen, shares = torch.zeros_like(x), [], []
        for gate, level in zip(self.gates, memory, strict=True):
            level_out, weights = self.look_at(x, level, return_weights=return_weights)
            alpha = torch.sigmoid(gate(torch.cat([x, level_out], dim=2)))
            total = total + alpha * level_out
            if weights is not None:
                seen.append(weights)
                shares.append(alpha.mean(dim=2))  # (B, T)
        joined = None
        if seen:
            share = torch.stack(shares)
            share = share / share.sum(0)
            joined = (share[:, :, None, :, None] * torch.stack(seen)).sum(0)  # (B, A, T, M)
        return total / math.sqrt(len(memory)), joined

    @staticmethod
    def weights(layers: Sequence[CrossLayer]) -> LayerWeights:
        """A layer of each model, with its gates."""
        gates = [affine(list(each)) for each in zip(*(layer.gates for layer in layers), strict=True)]
        weight = torch.stack([each.weight for each in gates], dim=1)
        bias = torch.stack([each.bias for each in gates if each.bias is not None], dim=1)
        return CrossLayer.weights(layers)._replace(gates=Affine(weight, bias))

    @staticmethod
    def joined(layer: LayerWeights, x: Tensor, seen: Tensor) -> Tensor:
        """Weigh what was seen at each level (models, levels, rows, width) by its gate."""
        assert layer.gates is not None
        assert layer.gates.bias is not None
        both = torch.cat([x.unsqueeze(1).expand_as(seen), seen], dim=3)
        gates = Affine(layer.gates.weight.flatten(0, 1), layer.gates.bias.flatten(0, 1))
        alpha = torch.sigmoid(gates(both.flatten(0, 1))).view_as(seen)
        return (alpha * seen).sum(1) / math.sqrt(seen.shape[1])


class MeshedMemoryDecoder(TransformerDecoder):
    """Encoder layers with memory slots, decoder layers that read all of the encoder's levels."""

    layer_type = MeshedLayer
    all_levels = True
