"""In: a server to which nobody has come yet. Out: the texts of the studies that its first page lists are there."""

from __future__ import annotations

from core.labels.rules import label_report
from core.types import CXRLensError
from dashboard.services import sources

MARKED = 12
"""Reports that are labelled: with them most of the rules that a report needs are compiled; ours."""


def read_them() -> None:
    """Write the texts of the studies that the first page lists, and mark some: what comes of both is kept."""
    try:
        source = sources.source(next(iter(sources.catalogue().specs)))
        texts = [source.study(study_id).findings for study_id in source.ids("test")]
    except CXRLensError:  # the page says it
        return
    for text in texts[:MARKED]:
        label_report(text)
