"""Results: scores of the models beside the paper's; where they come from; which model is better at what."""

from __future__ import annotations

import streamlit as st

from dashboard.results.observations import show_observations
from dashboard.results.pairs import show_table_1
from dashboard.results.parts import pick
from dashboard.results.seeds import show_seeds
from dashboard.results.slices import show_slices
from dashboard.results.tables import show_tables
from dashboard.results.two import show_two
from dashboard.services import evaluations

VIEWS = {
    "Table 1": show_table_1,
    "By observation": show_observations,
    "Slices": show_slices,
    "Two models": show_two,
    "Tables and studies": show_tables,
}
RUNS = "Runs and seeds"

found, damaged = evaluations.result_sets()
with st.container(horizontal=True, vertical_alignment="bottom"):
    view = st.segmented_control(
        "View",
        [*VIEWS, RUNS],
        default="Table 1",
        required=True,
        key="view",
        bind="query-params",
        label_visibility="collapsed",
    )
    name = pick("Run", list(found), "run", next(iter(found)), width=220) if len(found) > 1 else next(iter(found), "")
for message in damaged.values():
    st.error(message, icon=":material/error:")
if not found:
    st.stop()
if not found[name].rows:
    st.info(
        f"This evaluation has no scores yet. `{found[name].content.get('command', 'cxr-lens evaluate')}` writes them."
    )
elif view == RUNS:
    show_seeds(found, found[name])
else:
    VIEWS[view](found[name])
