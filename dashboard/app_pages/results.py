"""Results: scores of the bundles beside the paper's; where they come from; who is better at what."""

from __future__ import annotations

import streamlit as st

from dashboard import runs
from dashboard.results import observations, pairs, seeds, slices, tables, two
from dashboard.results.parts import pick

VIEWS = {
    "Table 1": pairs.show,
    "By observation": observations.show,
    "Slices": slices.show,
    "Two pairs": two.show,
    "Tables and studies": tables.show,
}
RUNS = "Runs and seeds"

found, damaged = runs.runs()
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
    st.info(f"The evaluation has no rows yet. `{found[name].content.get('command', 'cxr-lens evaluate')}` fills it.")
elif view == RUNS:
    seeds.show(found, found[name])
else:
    VIEWS[view](found[name])
