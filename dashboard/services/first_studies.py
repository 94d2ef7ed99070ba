"""In: a server to which nobody has come yet. Out: what its first page shows of its first source is there, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from core.labels.rules import label_report
from core.studies.source import Source
from core.types import CXRLensError
from dashboard import access
from dashboard.services import sources, studies
from dashboard.services.studies import Case

MARKED = 12
"""Reports that are labelled: with them most of the rules that a report needs are compiled; ours."""


def open_film() -> Case | None:
    """Draw the film of the first study; None where there is none, or where nobody sees it before signing in."""
    with suppress(CXRLensError):  # the page says it
        if access.has_login():
            return None
        name, source, listed = _first()
        for study_id in listed[:1]:
            return studies.open_case(source, name, study_id)
    return None


def open_first() -> None:
    """Read the texts of the studies that the first page lists, and label its report."""
    with suppress(CXRLensError):  # the page says it
        _, source, listed = _first()
        for study_id in listed:
            source.study(study_id)
        for study_id in listed[:1]:
            label_report(source.study(study_id).findings)


def label_more() -> None:
    """Label the reports of the studies that may be opened next."""
    with suppress(CXRLensError):
        _, source, listed = _first()
        for study_id in listed[:MARKED]:
            label_report(source.study(study_id).findings)


def _first() -> tuple[str, Source, Sequence[str]]:
    """The first source, by its name, and its held-out studies, as many as a list offers."""
    name = next(iter(sources.catalogue().specs))
    source = sources.source(name)
    return name, source, source.ids("test")[: studies.LISTED]
