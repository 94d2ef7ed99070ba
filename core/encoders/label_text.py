"""The input of Table 3: a study's true fine labels as text (Nazarov et al. 2022, Table 3; paper-notes 6.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.attention import WordInput
from core.text import PAD, Vocabulary
from core.types import VisualTokens

SEPARATOR = " ; "


def label_text(labels: Sequence[str]) -> str:
    """Labels, sorted, joined by " ; " (the paper names no order and no separator); "none" where there is none."""
    return SEPARATOR.join(sorted(labels)) or "none"


class LabelTextEncoder(nn.Module):
    """Words of a list of labels to tokens for a decoder, whose own memory encoder reads them.

    Every list is filled up to the same length, so that a study does not depend on its batch; filling is a word like
    another, which the decoder learns to pass over.
    """

    def __init__(self, vocabulary: Vocabulary, width: int, length: int, dropout: float = 0.1) -> None:
        """Embed words of ``vocabulary`` in ``width`` channels; longer lists are cut at ``length`` words."""
        super().__init__()
        self.vocabulary = vocabulary
        self.length = length
        self.words = WordInput(len(vocabulary), width, dropout)

    def ids(self, labels: Sequence[Sequence[str]]) -> Tensor:
        """Word ids (B, length) of the labels of studies."""
        rows = [self.vocabulary.encode(label_text(each), self.length) for each in labels]
        return torch.tensor([[*row, *[PAD] * (self.length - len(row))] for row in rows])

    def forward(self, ids: Tensor) -> VisualTokens:
        """Tokens (B, length, width)."""
        return VisualTokens(self.words(ids), (), ("labels",) * self.length)
