"""Results: scores of the models beside the paper's; where they come from; which model is better at what."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from core.wording import counted
from dashboard.components.asked import tell_unknown
from dashboard.components.own_evaluation import offer_evaluation
from dashboard.components.source_choice import choose_source
from dashboard.plain import code, plain, plain_message
from dashboard.results.export import offer_export
from dashboard.results.finds import show_finds
from dashboard.results.observations import show_observations
from dashboard.results.outside import show_outside
from dashboard.results.pairs import show_table_1
from dashboard.results.parts import cases_link, pick
from dashboard.results.seeds import show_seeds
from dashboard.results.slices import show_slices
from dashboard.results.tables import show_tables
from dashboard.results.trust import show_trust
from dashboard.results.two import show_two
from dashboard.results.votes import show_votes
from dashboard.services import bundles, evaluations, own, systems

VIEWS = {
    "Table 1": show_table_1,
    "By observation": show_observations,
    "Finds and false alarms": show_finds,
    "Votes": show_votes,
    "Slices": show_slices,
    "Two models": show_two,
    "Sentences to trust": show_trust,
    "Other metrics": show_outside,
    "Tables and studies": show_tables,
}
RUNS = "Runs and seeds"
RUN, SHOWN = "run", "results_source"

chosen = choose_source()
found, damaged = evaluations.result_sets()
sources_of = {name: evaluations.source_of(results) for name, results in found.items()}
of_source = [name for name, source_name in sources_of.items() if source_name == chosen]
tell_unknown("view", "view", [*VIEWS, RUNS])
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
    # Those of the chosen source first, and of these those whose studies can be looked at.
    order = sorted(found, key=lambda name: (sources_of[name] != chosen, not found[name].reports.is_file()))
    if st.session_state.setdefault(SHOWN, chosen) != chosen:  # another source: its own evaluation
        st.session_state[SHOWN] = chosen
        if of_source:
            st.session_state[RUN] = order[0]
    title_of: Callable[[str], str] = lambda name: found[name].title  # noqa: E731
    name = next(iter(found), "")
    if len(found) > 1:
        name = pick("Evaluation", order, RUN, order[0], format_func=title_of, width=300)
for message in damaged.values():
    st.error(plain_message(message), icon=":material/error:")
can_evaluate = bool(bundles.families() or systems.others())
if not of_source and can_evaluate:
    offer_evaluation(chosen)
elif not any(found[each].reports.is_file() for each in of_source) and can_evaluate:
    with st.expander("The reports of these studies are not here yet", expanded=own.under_way(chosen) is not None):
        offer_evaluation(chosen)
if not found:
    if not damaged and not can_evaluate:
        raise evaluations.no_evaluation()
    st.stop()
results = found[name]
told = f"Evaluated on **{plain(evaluations.source_title(results))}**"
with st.container(horizontal=True, vertical_alignment="center"):
    st.markdown(
        f"{told}: {counted(results.data[1], 'study', 'studies')}." if results.data[1] else f"{told}.", width="content"
    )
    offer_export(results)
if strange := evaluations.strange_bundles(results):
    st.warning(plain_message(strange), icon=":material/warning:")
if not results.rows:
    for each in results.told:
        st.info(plain_message(each))
    if results.own is not None:
        cases_link("Their reports are on the Cases page", results, list(results.own.names))
    else:
        command = results.content.get("command", "cxr-lens evaluate")
        st.info(f"This evaluation has no scores yet. {code(command)} writes them.")
elif view == RUNS:
    show_seeds({each: results for each, results in found.items() if results.rows}, results)
else:
    VIEWS[view](results)
