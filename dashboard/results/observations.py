"""Observations by pairs: the heat map."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.labels.compare import Outcome
from core.observations import OBSERVATIONS
from core.registry import DECODERS, ENCODERS
from core.types import CXRLensError
from core.wording import counted
from dashboard.components.score_table import export
from dashboard.plain import code, plain, plain_message
from dashboard.results.parts import by_f1, cases_link, pick, pick_pair, score_table, show_studies
from dashboard.services import evaluations
from dashboard.services.evaluations import ResultSet

MEASURES = {"F1": 2, "Precision": 0, "Recall": 1}
CELLS = "by_observation"


def show_observations(results: ResultSet) -> None:
    """Draw the view."""
    observed = {row["name"]: row["by_observation"] for row in results.rows.values() if row.get("by_observation")}
    if not observed:
        st.info(
            f"This evaluation has no scores by observation. {code(results.content.get('command', ''))} writes them."
        )
        return
    measure = st.segmented_control(
        "Score", list(MEASURES), default="F1", required=True, key="measure", bind="query-params"
    )
    first = next(iter(observed.values()))
    listed = [name for name in OBSERVATIONS if name in first]
    titles = {name: results.titles[name] for name in observed}
    content = pd.DataFrame(
        [
            {"Observation": name, "Studies": first[name][3]}
            | {titles[pair]: scores[name][MEASURES[measure]] for pair, scores in observed.items()}
            for name in listed
        ]
    )

    def follow() -> None:
        cells = st.session_state[CELLS].selection.cells
        if cells:
            index, column = cells[0]
            st.session_state["observation"] = content["Observation"][index]
            chosen = [name for name, title in titles.items() if title == column]
            if chosen:
                st.session_state["of"] = chosen[0]

    score_table(
        content,
        f"{measure} by observation and model",
        shaded=list(titles.values()),
        digits=2,
        wide="Observation",
        heads={
            title: (DECODERS[of[1]].title, ENCODERS[of[0]].title)
            if (of := evaluations.pair_of(results.rows[name]))
            else (results.rows[name].get("group", ""), title)
            for name, title in titles.items()
        },
        key=CELLS,
        on_select=follow,
        selection_mode="single-cell",
    )
    st.caption(
        "The lighter, the better. Studies: how many have the finding in the reference; below about 20 a score says "
        "little. Click a cell to see its studies."
    )
    export(content, f"{measure} by observation, {results.title}", name="by-observation")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        observation = pick("Observation", listed, "observation", "Pleural Effusion", width=240)
        pair = pick_pair(results, "Model", "of", by_f1(results)[0])
        outcome = st.segmented_control(
            "What the model made of it",
            [each.value for each in Outcome],
            default=Outcome.MISSED.value,
            required=True,
            key="outcome",
            bind="query-params",
        )
    try:
        found = evaluations.reports_of(results)
    except CXRLensError as error:
        st.info(plain_message(error))
        return
    counts = {each: len(found.where(pair, observation, each)) for each in Outcome}
    study_ids = set(found.where(pair, observation, Outcome(outcome)))
    indices = [index for index, study_id in enumerate(found.study_ids) if study_id in study_ids]
    st.markdown(f"**{observation}, {outcome} by {plain(titles[pair])}: {counted(len(indices), 'study', 'studies')}**")
    st.caption(" · ".join(f"{name.value} {count}" for name, count in counts.items()))
    if indices:
        cases_link("All of them on the Cases page", results, [pair], observation=observation, outcome=outcome)
    show_studies(results, found, indices, [outcome] * len(indices), [pair], "There is no such study.")
