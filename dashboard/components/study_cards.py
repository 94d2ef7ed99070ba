"""Studies as small cards: picture, id, findings, and a report where asked for; each opens on the Read page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import streamlit as st

from dashboard import session
from dashboard.components.source import script, source

_COMPONENT = st.components.v2.component(
    "cxr_study_cards",
    html="<div class='cxr-cards'>\n</div>",
    css=source("study_cards.css", "print.css"),
    js=script("study_cards.js"),
)


@dataclass(frozen=True, slots=True)
class StudyCard:
    """What a card shows.

    Attributes:
        study_id: also the link.
        picture: JPEG; None where the image is gone or cannot be read.
        note: beside the id, a distance for instance.
        findings: one line.
        report: longer text, or "".
    """

    study_id: str
    picture: bytes | None
    note: str
    findings: str
    report: str = ""


def study_cards(cards: Sequence[StudyCard], query: str = "", *, key: str) -> None:
    """Show cards side by side, wide ones where they have reports; a click opens the Read page in this session.

    Args:
        cards: one a study.
        query: more for the Read page's address, as "cve=m2&dve=".
        key: unique on the page.
    """
    data = [
        {
            "id": card.study_id,
            "picture": card.picture and base64.b64encode(card.picture).decode(),
            "note": card.note,
            "findings": card.findings,
            "report": card.report,
            "address": f"study={quote(card.study_id)}" + (f"&{query}" if query else ""),
        }
        for card in cards
    ]
    result = _COMPONENT(key=key, data={"cards": data}, on_open_change=lambda: None)
    if result.open:
        session.follow(result.open)
