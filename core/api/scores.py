"""Reports and references in, scores out, for a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.evaluation.scoring import LabeledReports, score_systems
from core.labels.rules import label_reports
from core.types import CXRLensError

if TYPE_CHECKING:
    import pandas as pd


def score(
    references: Sequence[str], texts: Sequence[str] | Mapping[str, Sequence[str]], *, resamples: int = 1000
) -> pd.DataFrame:
    """Score generated reports against references: as language, and by what they say of the 14 observations.

    Args:
        references: one for each study.
        texts: one for each study, in the same order; or, for several systems, such lists by the systems' names.
        resamples: for the 95 % intervals.

    Returns:
        A row for each score (and system): ``value``, and ``low`` and ``high`` where the score has an interval.

    Raises:
        CXRLensError: fewer than two studies, more or fewer texts than references, or a text that is not a string.
    """
    import pandas as pd

    systems = dict(texts) if isinstance(texts, Mapping) else {"": texts}
    if isinstance(references, str) or any(isinstance(each, str) for each in systems.values()):
        raise CXRLensError("References and texts are lists with one report a study, not one string.")
    if not systems:
        raise CXRLensError("There is nothing to score.")
    for name, each in {"the references": references, **systems}.items():
        if len(each) != len(references):
            who = f"{name}: " if name else ""
            raise CXRLensError(f"{who}{len(each)} texts for {len(references)} references. Give one a study.")
        wrong = next((index for index, text in enumerate(each) if not isinstance(text, str)), None)
        if wrong is not None:
            kind = type(each[wrong]).__name__
            raise CXRLensError(
                f"Text {wrong} of {name or 'the texts'} is of type {kind}. Write an empty string for none."
            )

    def labeled(reports: Sequence[str]) -> LabeledReports:
        return LabeledReports(list(reports), [each.states for each in label_reports(list(reports))])

    rows = score_systems(
        labeled(references), {name: labeled(each) for name, each in systems.items()}, resamples=resamples
    )
    found: list[dict[str, Any]] = []
    for name, row in rows.items():
        for key, value in row.items():
            if isinstance(value, float) and not isinstance(value, bool):
                low, high = row["intervals"].get(key, (None, None))
                found.append({"system": name, "score": key, "value": value, "low": low, "high": high})
    table = pd.DataFrame(found)
    return (
        table.set_index(["system", "score"])
        if isinstance(texts, Mapping)
        else table.drop(columns="system").set_index("score")
    )
