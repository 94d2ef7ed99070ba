"""Keys and values of the words that were read, each computed and stored once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

_ROOM = 32
"""Words for which there is room at first; it doubles."""


@dataclass(frozen=True, slots=True)
class WordCache:
    """What the hypotheses of each study have read, in one buffer a study.

    Where beams branch, keys and values stay where they are: a mask says which of its study's words a hypothesis has
    read. Words are written into the buffer in place, so of a cache only the newest is of use.

    Attributes:
        held: (layers, 2, studies, A, room * beams, width / A), keys and values; words of a step are neighbours.
        own: (studies, 1, beams, room * beams), added to scores: 0 for a hypothesis's words, -inf for those of others.
        length: words read so far.
    """

    held: Tensor
    own: Tensor
    length: int

    @classmethod
    def empty(cls, layers: int, studies: int, beams: int, like: Tensor) -> WordCache:
        """Nothing is read yet; ``like`` are keys (..., A, M, width / A), of whose type those of words will be."""
        held = like.new_empty(layers, 2, studies, like.shape[-3], 0, like.shape[-1])
        return cls(held, like.new_empty(studies, 1, beams, 0), 0)

    def read(self) -> Self:
        """With room for one more word of each hypothesis, which `add` fills layer by layer."""
        held, own, beams = self.held, self.own, self.own.shape[2]
        there = held.shape[4]
        if self.length * beams == there:
            room = max(there, _ROOM * beams)
            held = torch.cat([held, held.new_empty(*held.shape[:4], room, held.shape[5])], dim=4)
            mine = own.new_full((beams, beams), -math.inf).fill_diagonal_(0.0).repeat(1, room // beams)
            own = torch.cat([own, mine.expand(*own.shape[:2], -1, -1)], dim=3)
        return type(self)(held, own, self.length + 1)

    def add(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values of the newest words, (2, studies, A, beams, width / A).

        Returns:
            Keys and values of all words of a study, (studies, A, length * beams, width / A) each.
        """
        beams = self.own.shape[2]
        held, last = self.held[layer], self.length * beams
        held.narrow(3, last - beams, beams).copy_(keys_values)
        keys, values = held.narrow(3, 0, last).unbind(0)
        return keys, values

    @property
    def mask(self) -> Tensor | None:
        """(studies, 1, beams, length * beams), added to scores; None where each study has one hypothesis."""
        beams = self.own.shape[2]
        return self.own.narrow(3, 0, self.length * beams) if beams > 1 else None

    def reorder(self, rows: Tensor) -> Self:
        """Keep hypotheses ``rows``; each comes from its own study's rows."""
        held, own = self.held, self.own
        studies, _, beams, size = own.shape
        mine = own.view(-1, size).index_select(0, rows)
        if len(rows) < studies * beams:
            held = held.index_select(2, rows[::beams] // beams)
        mine = mine.view(-1, 1, beams, size)
        # What is still to be written belongs to the hypothesis in whose place it will stand.
        last = self.length * beams
        mine.narrow(3, last, size - last).copy_(own[:1].narrow(3, last, size - last).expand(len(mine), -1, -1, -1))
        return type(self)(held, mine, self.length)
