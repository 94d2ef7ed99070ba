"""All scores of reports in one table: what they are called, and where each is shown. A new score is a row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FREQUENT = 10
"""Positive references that an observation needs among the scored studies, to be counted as frequent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A score of a system's reports. All are better when they are higher.

    Attributes:
        name: key in results; the functions that compute it are in `language` and `clinical`, but for ROC-AUC.
        title: for the reader.
        head: of a narrow column; the title unless given.
        printed: column of the paper's tables, as `assets/paper` names it; "" where the paper has none.
        resampled: has an interval and a paired difference wherever systems are scored.
        in_table: a column of the table that ``cxr-lens evaluate`` prints.
        of_slices: shown for parts of the studies.
        tested: one of the scores in which two pairs are compared; Holm's correction is over these.
        of_a_report: computed for one report, to stand beside what readers marked.
        bounded: lies between 0 and 1.
    """

    name: str
    title: str
    head: str = ""
    printed: str = ""
    resampled: bool = False
    in_table: bool = False
    of_slices: bool = False
    tested: bool = False
    of_a_report: bool = False
    bounded: bool = True

    def __post_init__(self) -> None:
        """Take the title for the head."""
        object.__setattr__(self, "head", self.head or self.title)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="micro_f1", title="Micro F1", resampled=True, of_slices=True, tested=True),
        Metric(name="micro_precision", title="Micro precision", of_slices=True),
        Metric(name="micro_recall", title="Micro recall", of_slices=True),
        Metric(name="example_f1", title="F1 of a study, mean", of_slices=True, tested=True),
        Metric(
            name="bleu_1",
            title="BLEU-1",
            printed="B1",
            resampled=True,
            in_table=True,
            of_slices=True,
            tested=True,
            of_a_report=True,
        ),
        Metric(name="bleu_2", title="BLEU-2", printed="B2"),
        Metric(name="bleu_3", title="BLEU-3", printed="B3"),
        Metric(
            name="bleu_4",
            title="BLEU-4",
            printed="B4",
            resampled=True,
            in_table=True,
            of_slices=True,
            tested=True,
            of_a_report=True,
        ),
        Metric(
            name="rouge_l",
            title="ROUGE-L",
            printed="ROUGE_L",
            resampled=True,
            in_table=True,
            of_slices=True,
            tested=True,
            of_a_report=True,
        ),
        Metric(name="meteor", title="METEOR", printed="METEOR", resampled=True, in_table=True),
        Metric(
            name="cider",
            title="CIDEr",
            printed="CIDEr",
            resampled=True,
            in_table=True,
            of_slices=True,
            tested=True,
            of_a_report=True,
            bounded=False,
        ),
        Metric(name="precision", title="Precision", printed="P", in_table=True, tested=True),
        Metric(name="recall", title="Recall", printed="R", in_table=True, tested=True),
        Metric(name="f1", title="Macro F1", head="F1", printed="F1", resampled=True, of_slices=True, tested=True),
        Metric(
            name="f1_frequent",
            title=f"Macro F1, at least {FREQUENT} positives",
            head=f"F1, ≥ {FREQUENT} positives",
            resampled=True,
            tested=True,
        ),
        Metric(name="f1_5", title="F1 of 5", resampled=True),
        Metric(name="auc", title="ROC-AUC", printed="roc_auc"),
    )
}


READING: Mapping[str, str] = {
    "unknown": "<unknown>",
    "removed": "XXXX",
    "short": "sentence of 1 or 2 words",
    "wordless": "sentence without words",
    "repeated_denials": "same denial twice",
    "contradictions": "contradiction",
}
"""How reports read: what is counted of a set of reports (`core.evaluation.diversity`), and its column. A share of the
reports each, and better when it is not above the references'."""


def titles(*names: str) -> dict[str, str]:
    """Titles of metrics, by name, in this order."""
    return {name: METRICS[name].title for name in names}
