"""What backbones, classifiers and CLIP learn from beside the studies that decoders learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.types import Split
from training.data import StudyData

Images = npt.NDArray[np.uint8]
"""(studies, side, side)."""


class JoinedImages:
    """Images of several files as one after the other, read by rows."""

    def __init__(self, parts: Sequence[Images]) -> None:
        """Join ``parts``, all of one side."""
        self._parts = parts
        self._starts = [0, *accumulate(len(each) for each in parts)]

    def __len__(self) -> int:
        """Count."""
        return self._starts[-1]

    def __getitem__(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Images:
        """Images of rows, in their order."""
        chosen = np.asarray(rows)
        part = np.searchsorted(self._starts, chosen, side="right") - 1
        pairs = zip(part.tolist(), chosen.tolist(), strict=True)
        return np.stack([self._parts[index][row - self._starts[index]] for index, row in pairs])


@dataclass(frozen=True)
class Taught:
    """Studies to learn from: those of a run and, in its training split, more that have no findings to write.

    Attributes:
        data: validated on, and first in training.
        more: in training only, behind them.
    """

    data: StudyData
    more: tuple[StudyData, ...] = ()

    def parts(self, split: Split) -> tuple[StudyData, ...]:
        """Those of a split."""
        return (self.data, *self.more) if split == "train" else (self.data,)

    def images(self, split: Split, size: int) -> Images | JoinedImages:
        """Images by row, as those of `StudyData`."""
        parts = [each.images(split, size) for each in self.parts(split)]
        return parts[0] if len(parts) == 1 else JoinedImages(parts)

    def coarse_targets(self, split: Split) -> Tensor:
        """(studies, 14)."""
        return torch.cat([each.coarse_targets(split) for each in self.parts(split)])

    def fine_targets(self, split: Split) -> Tensor:
        """(studies, fine labels of the run's own studies)."""
        return torch.cat([each.fine_targets(split, self.data.fine_labels) for each in self.parts(split)])

    def clusters(self, split: Split) -> Tensor:
        """(studies, 13), True where a study has a cluster."""
        return torch.cat([each.clusters(split) for each in self.parts(split)])

    def code_targets(self, split: Split) -> Tensor:
        """(studies, codes that are frequent among the run's own studies); NaN where nobody gave a study codes."""
        return torch.cat([each.code_targets(split, self.data.codes) for each in self.parts(split)])

    def pairs(self, split: Split) -> list[tuple[int, int, str]]:
        """(row, 0, impression), as `StudyData.pairs`."""
        return self._numbered(split, [each.pairs(split) for each in self.parts(split)])

    def cluster_pairs(self, split: Split) -> list[tuple[int, int, str]]:
        """(row, cluster, text), as `StudyData.cluster_pairs`."""
        return self._numbered(split, [each.cluster_pairs(split) for each in self.parts(split)])

    def _numbered(self, split: Split, parts: Sequence[list[tuple[int, int, str]]]) -> list[tuple[int, int, str]]:
        starts = accumulate((len(each.studies[split]) for each in self.parts(split)), initial=0)
        numbered = zip(starts, parts, strict=False)  # one start more than parts: the end
        return [(start + row, cluster, text) for start, found in numbered for row, cluster, text in found]

    def further(self) -> dict[str, Any]:
        """What they add to the identity of a stage beside that of the run's own studies; nothing if there are none."""
        return {"further": [{"kind": each.kind, **each.identity()} for each in self.more]} if self.more else {}
