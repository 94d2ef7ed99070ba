"""In: a server to which nobody has come yet. Out: what its first page shows of its first source is there, and kept."""

from __future__ import annotations

from core.labels.rules import label_report
from core.types import CXRLensError
from dashboard.services import sources, studies

MARKED = 12
"""Reports that are labelled: with them most of the rules that a report needs are compiled; ours."""


def open_first() -> None:
    """Read the texts of the studies that the first page lists, draw its film, and label its report."""
    try:
        name = next(iter(sources.catalogue().specs))
        source = sources.source(name)
        listed = source.ids("test")[: studies.LISTED]
        texts = [source.study(study_id).findings for study_id in listed]
        for study_id in listed[:1]:
            studies.open_case(source, name, study_id)
    except CXRLensError:  # the page says it
        return
    for text in texts[:1]:
        label_report(text)


def label_more() -> None:
    """Label the reports of the studies that may be opened next."""
    try:
        source = sources.source(next(iter(sources.catalogue().specs)))
        texts = [source.study(study_id).findings for study_id in source.ids("test")[:MARKED]]
    except CXRLensError:
        return
    for text in texts:
        label_report(text)
