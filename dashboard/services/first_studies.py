"""In: a server to which nobody has come yet. Out: what its first page shows of its first source is there, and kept.

``python -m dashboard.services.first_studies`` draws the demo's first study anew for `first_paint.SHIPPED`.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from core.labels.rules import label_report
from core.studies.source import Source
from core.types import CXRLensError
from dashboard import access
from dashboard.first_paint import FILM, SHIPPED, write
from dashboard.services import sources, studies
from dashboard.services.studies import Case

SIDE = 720
"""Longest side of the start page's film, pixels."""
MARKED = 12
"""Reports that are labelled: with them most of the rules that a report needs are compiled; ours."""


def open_film() -> dict[str, Any] | None:
    """Draw the film of the first study; what the start page tells of it, see `dashboard.first_paint.keep`.

    None of a patient's film, where there is none, and where nobody sees it before signing in.
    """
    with suppress(CXRLensError):  # the page says it
        if access.has_login():
            return None
        name, source, listed = _first()
        for study_id in listed[:1]:
            case = studies.open_case(source, name, study_id)
            return told_of(case) if case.synthetic else None
    return None


def told_of(case: Case) -> dict[str, Any]:
    """A film, small, with its reference report, as the start page has it."""
    import numpy as np
    from PIL import Image

    picture, buffer = Image.fromarray(np.round(np.clip(case.pixels, 0, 1) * 255).astype(np.uint8)), io.BytesIO()
    picture.thumbnail((SIDE, SIDE))
    picture.save(buffer, "JPEG", quality=85)
    sections = (("Findings", case.study.findings), ("Impression", case.study.impression))
    return {
        "title": case.title,
        "film": f"{FILM}{base64.b64encode(buffer.getvalue()).decode()}",
        "sections": [pair for pair in sections if pair[1].strip()],
    }


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


if __name__ == "__main__":
    drawn = open_film()
    if drawn is None:
        sys.exit("The first source has no computed film: run this without CXR_BUNDLES, and where nobody signs in.")
    write(SHIPPED, drawn)
