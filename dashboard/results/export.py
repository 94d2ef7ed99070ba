"""The menu that takes the reports of an evaluation away, in forms that other programs read."""

from __future__ import annotations

import streamlit as st

from core.bundles.card import INTENDED_USE
from dashboard.services import exports, studies
from dashboard.services.evaluations import ResultSet


def offer_export(results: ResultSet) -> None:
    """A button behind which the reports can be saved, if they are there."""
    if not results.reports.is_file():
        return
    hidden = studies.kept_back()
    with st.popover("Export the reports", icon=":material/download:", width="content"):
        for kind in exports.KINDS if results.rows else [list(exports.KINDS)[-1]]:
            st.download_button(
                kind,
                lambda kind=kind: exports.packed(results, kind, hidden),  # type: ignore[misc]
                f"cxr-lens-{kind.lower().replace(' ', '-')}.zip",
                "application/zip",
                key=f"export_{kind}",
                on_click="ignore",
            )
        st.caption(f"{INTENDED_USE} `cxr-lens export` writes more forms, with images.")
