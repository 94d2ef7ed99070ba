"""In: a case and a bundle. Out: the pair with that image and its report, ready to be explained; encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.bundles.card import Card
from dashboard.services import bundles, reports, studies
from dashboard.services.kept import kept
from dashboard.services.studies import Case

if TYPE_CHECKING:
    from core.explain.subject import Subject


@kept(24)
def subject(case: Case, card: Card) -> Subject:
    """A pair with the case and its report.

    Raises:
        CXRLensError: the bundle is broken, or its report is empty.
    """
    from core.explain.subject import open_subject

    report = reports.report_of(case, card)
    with bundles.inference():
        model = bundles.open_model(card)
        return open_subject(model, studies.pixels(case)(model.image_size, model.fit), report)


@kept(8)
def control(case: Case, card: Card) -> Subject:
    """The same pair, image and report with filters that learned nothing.

    Raises:
        CXRLensError: as `subject`, or the pair has no filters.
    """
    from core.explain.filters import with_control

    trained = subject(case, card)
    with bundles.inference():
        return with_control(trained)
