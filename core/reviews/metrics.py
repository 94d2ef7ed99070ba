"""Automatic metrics of the reports that readers judged, a row a report, to compare with their marks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from core.evaluation.metrics import METRICS
from core.observations import LabelState
from core.reviews.answers import Results
from core.reviews.design import REFERENCE

NAMES = {metric.name: metric.title for metric in METRICS.values() if metric.of_a_report}
LABELS = "F1 of labels"
COLUMNS = ("study", "model", *NAMES.values(), LABELS)


def automatic_metrics(results: Results) -> pd.DataFrame:
    """Score each report that was shown against its study's reference: BLEU, ROUGE-L, CIDEr-D, F1 of the labels.

    Returns:
        columns study, model and one a metric; without rows where no reference is stored, or nothing else was shown.
    """
    from core.evaluation.language import language_statistics
    from core.labels.rules import label_reports

    screens = zip(results.screens["study"], results.screens["shown"], strict=True)
    shown = sorted({(str(study), str(model)) for study, reports in screens for _, model in reports})
    tables = []
    for name in sorted({model for _, model in shown} - {REFERENCE}):
        studies = [study for study, model in shown if model == name and results.reports[study].get(REFERENCE)]
        if len(studies) < 2:  # CIDEr weighs words by the other reports
            continue
        theirs = [results.reports[study][REFERENCE] for study in studies]
        ours = [results.reports[study][name] for study in studies]
        statistics = language_statistics(theirs, ours).select(*NAMES)
        scores = pd.DataFrame(statistics.from_sums(statistics.values), columns=pd.Index(list(NAMES.values())))
        labels = zip(label_reports(theirs), label_reports(ours), strict=True)
        scores[LABELS] = [_f1(one.states, other.states) for one, other in labels]
        scores.insert(0, "study", studies)
        scores.insert(1, "model", name)
        tables.append(scores)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=pd.Index(COLUMNS), dtype=float)


def _f1(reference: Mapping[str, LabelState], generated: Mapping[str, LabelState]) -> float:
    """F1 of the observations that one report calls positive; 1 where both call none so."""
    theirs, ours = (
        {name for name, state in states.items() if state is LabelState.POSITIVE} for states in (reference, generated)
    )
    return float(np.float64(2 * len(theirs & ours)) / (len(theirs) + len(ours))) if theirs | ours else 1.0
