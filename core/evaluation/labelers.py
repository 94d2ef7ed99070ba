"""What reads the 14 observations in reports that are scored: our rules, or CheXbert, as in the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.evaluation.scoring import LabeledReports
from core.labels.rules import label_report
from core.observations import LabelState

Label = Callable[[Sequence[str]], Sequence[Mapping[str, LabelState]]]


@dataclass(frozen=True, slots=True)
class Labeler:
    """What reads reports.

    Attributes:
        title: for the protocol.
        label: texts -> the states of each.
        of_references: whether it reads the references too, where our rules gave them their labels.
    """

    title: str
    label: Label
    of_references: bool = False

    def read(self, texts: Sequence[str]) -> LabeledReports:
        """Reports with what it reads in them."""
        return LabeledReports(texts, self.label(texts))

    def read_again(self, references: LabeledReports, labelled_by: str) -> tuple[LabeledReports, str]:
        """References with the labels that they are scored by, and where these come from, in words.

        Args:
            references: with the labels of their source.
            labelled_by: where those come from; known truth and labels that came with the data stay.
        """
        if self.of_references and labelled_by == RULES.title:
            return self.read(references.texts), self.title
        return replace(references), labelled_by


RULES = Labeler("rule labeler", lambda texts: [label_report(text).states for text in texts])


def chexbert(checkpoint: Path, device: str = "cpu") -> Labeler:
    """CheXbert, the paper's labeler.

    Args:
        checkpoint: its published weights.
        device: see `core.devices.open_device`.

    Raises:
        CheXbertError: as of `core.labels.chexbert.load_chexbert`.
    """
    from core.labels.chexbert import load_chexbert  # brings torch

    return Labeler("CheXbert", load_chexbert(checkpoint, device).label, of_references=True)
