"""What models find and invent: by observation, and false alarms on normal studies, as counts with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from core.evaluation.finds import FALSE_ALARM, Share, false_alarms_of, finds_of
from core.evaluation.metrics import FREQUENT
from core.observations import OBSERVATIONS
from core.types import CXRLensError
from dashboard.components.score_table import export
from dashboard.plain import code, plain_message
from dashboard.results.parts import by_f1, pick, score_table
from dashboard.services.evaluations import ResultSet


def show_finds(results: ResultSet) -> None:
    """Draw the view."""
    rows = {results.titles[name]: row for name, row in results.rows.items()}
    rows |= {f"baseline: {row.get('name', '')}": row for row in results.content.get("baselines") or []}
    _alarms(results, rows)
    titles = {row["name"]: title for title, row in rows.items()}
    name = pick("Model", list(titles), "of", by_f1(results)[0], format_func=titles.__getitem__, width=300)
    try:
        found = finds_of(rows[titles[name]])
    except CXRLensError as error:
        st.info(plain_message(error))
        return
    content = pd.DataFrame(
        [
            {"Observation": each, "Studies": found[each].positive, "Found": found[each].found}
            | _cells("Sensitivity", found[each].sensitivity)
            | {"Written": found[each].written}
            | _cells("Precision", found[each].precision)
            for each in OBSERVATIONS
            if each in found
        ]
    )
    title = f"What {titles[name]} finds"
    st.markdown(f"**{title}**")
    score_table(content, title, digits=2, wide="Observation")
    rare = [each for each in OBSERVATIONS if each in found and found[each].positive < FREQUENT]
    few = f" Fewer than {FREQUENT} studies have {', '.join(rare)}: their numbers say little." if rare else ""
    st.caption(
        "Studies: whose reference has it. Sensitivity: found, of these. Written: studies whose report has it. "
        f"Precision: right, of these. From, to: 95 % interval (Wilson), over studies.{few}"
    )
    export(content, f"{title}, {results.title}", name="finds")


def _alarms(results: ResultSet, rows: Mapping[str, Mapping[str, Any]]) -> None:
    counted = {title: share for title, row in rows.items() if (share := false_alarms_of(row)) is not None}
    st.markdown("**Normal studies called abnormal**")
    if not counted:
        command = results.content.get("command", "cxr-lens evaluate")
        st.info(f"This evaluation did not count false alarms. {code(command)} counts them.")
        return
    content = pd.DataFrame(
        [
            {"Model": title, "Called abnormal": share.count, "Normal studies": share.among} | _cells("Share", share)
            for title, share in counted.items()
        ]
    )
    score_table(content, "Normal studies called abnormal", digits=2, wide="Model")
    st.caption(FALSE_ALARM)
    export(content, f"Normal studies called abnormal, {results.title}", name="false-alarms")


def _cells(name: str, share: Share | None) -> dict[str, float | None]:
    low, high = (None, None) if share is None or share.interval is None else share.interval
    return {name: None if share is None else share.value, f"{name}, from": low, f"{name}, to": high}
