"""Studies as small cards: picture, id, findings, and a report where asked for; each opens on the Read page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import streamlit as st

_STYLE = """
<style>
.cxr-cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(var(--card), 100%), 1fr)); gap: .6rem; }
.cxr-cards a { display: flex; gap: .6rem; flex-direction: var(--direction); min-width: 0; padding: .4rem;
  border-radius: 6px; border: 1px solid #8884; color: inherit; text-decoration: none; font-size: .78rem;
  line-height: 1.35; }
.cxr-cards a:hover, .cxr-cards a:focus-visible { border-color: #e69f00; outline: none; }
.cxr-cards img { width: var(--picture); height: auto; align-self: flex-start; flex: none; border-radius: 4px;
  background: #000; }
.cxr-cards span { display: block; min-width: 0; overflow-wrap: anywhere; }
.cxr-cards small { opacity: .75; }
</style>
"""


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


def study_cards(cards: Sequence[StudyCard], query: str = "") -> None:
    """Show cards side by side; wide ones where they have reports.

    Args:
        cards: one a study.
        query: more for the Read page's address, as "cve=m2&dve=".
    """
    wide = any(card.report for card in cards)
    shape = "--card:300px;--direction:row;--picture:96px" if wide else "--card:104px;--direction:column;--picture:100%"
    st.html(f"{_STYLE}<div class='cxr-cards' style='{shape}'>{''.join(_card(card, query) for card in cards)}</div>")


def _card(card: StudyCard, query: str) -> str:
    study_id, note, findings, report = map(html.escape, (card.study_id, card.note, card.findings, card.report))
    words = f"<b>{study_id}</b> <small>{note}</small><br>{findings}" + (
        f"<br><small>{report}</small>" if report else ""
    )
    label = f"Open {study_id} on the Read page"
    image = "<span>No image</span>"
    if card.picture is not None:
        picture = base64.b64encode(card.picture).decode()
        image = f"<img alt='Radiograph {study_id}' src='data:image/jpeg;base64,{picture}'>"
    address = html.escape(f"./?study={quote(card.study_id)}" + (f"&{query}" if query else ""))
    return f"<a href='{address}' target='_self' title='{label}'>{image}<span>{words}</span></a>"
