"""In: a case and a bundle. Out: the pair with that image and its report, ready to be explained; encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from core.bundles.card import Card
from dashboard.services import bundles, reports, studies
from dashboard.services.studies import Case

if TYPE_CHECKING:
    from core.explain.subject import Subject


def subject(case: Case, card: Card) -> Subject:
    """A pair with the case and its report.

    Raises:
        CXRLensError: the bundle is broken, or its report is empty.
    """
    opened: Subject = _subject(bundles.bundle_key(card), case.key, card, case)
    return opened


@st.cache_resource(max_entries=24, show_spinner=False)
def _subject(bundle: str, image: str, _card: Card, _case: Case) -> Subject:
    from core.explain.subject import open_subject

    report = reports.report_of(_case, _card)
    with bundles.inference():
        model = bundles.open_model(_card)
        return open_subject(model, studies.pixels(_case)(model.image_size), report)


def control(case: Case, card: Card) -> Subject:
    """The same pair, image and report with filters that learned nothing.

    Raises:
        CXRLensError: as `subject`, or the pair has no filters.
    """
    opened: Subject = _control(bundles.bundle_key(card), case.key, card, case)
    return opened


@st.cache_resource(max_entries=8, show_spinner=False)
def _control(bundle: str, image: str, _card: Card, _case: Case) -> Subject:
    from core.explain.filters import with_control

    trained = subject(_case, _card)
    with bundles.inference():
        return with_control(trained)
