"""Cases: many studies and what chosen pairs wrote about them, side by side; a set of them becomes a figure."""

from __future__ import annotations

import streamlit as st

from core.evaluation.reports import Evaluation
from core.registry import DECODERS
from dashboard.components.case_table import case_table
from dashboard.services import bundles, case_figure, cases, evaluations, studies

ROWS = 8  # studies on a page: few enough to turn within half a second
TABLE, PAGE, FIGURE = "case_table", cases.KEYS["page"], "figure"
MOST = 40  # studies in a figure
ASKED = "cases_asked"  # what the shown page belongs to


def in_first_decoder(names: list[str]) -> list[str]:
    """One pair of each encoder: what the paper compares."""
    decoder = next(iter(DECODERS))
    return [name for name in names if name.endswith(f"-{decoder}")] or names[:4]


def remember() -> None:
    """Take page and figure from the address, once a session."""
    state, address = st.session_state, st.query_params
    if FIGURE not in state:
        state[FIGURE] = tuple(dict.fromkeys(filter(None, address.get(FIGURE, "").split(","))))
        number = address.get(PAGE, "1")
        state[PAGE] = int(number) - 1 if number.isdigit() and int(number) else 0


def write_address() -> None:
    """Put page and figure into the address."""
    state = st.session_state
    for name, value in ((PAGE, str(state[PAGE] + 1)), (FIGURE, ",".join(state[FIGURE]))):
        default = "1" if name == PAGE else ""
        if value != st.query_params.get(name, default):
            st.query_params[name] = value
        if value == default and name in st.query_params:
            del st.query_params[name]


def turn(by: int) -> None:
    """Callback: another page."""
    st.session_state[PAGE] += by


def turn_by_key() -> None:
    """Callback: a reader went past the last or the first row."""
    turn(int(st.session_state[TABLE]["turn"]))


def choose() -> None:
    """Callback: a study goes into the figure, or out of it."""
    state = st.session_state
    study_id, before = str(state[TABLE]["choose"]), state[FIGURE]
    if study_id in before:
        state[FIGURE] = tuple(each for each in before if each != study_id)
    else:
        state[FIGURE] = (*before, study_id)


def empty_figure() -> None:
    """Callback: begin a figure anew."""
    st.session_state[FIGURE] = ()


def ask(found: Evaluation, family: str) -> tuple[cases.Question, str, dict[str, str]]:
    """The controls.

    Returns:
        What is looked for, the slice's name, and the titles of the chosen models by name.
    """
    order = [card.name for card in bundles.cards(family).values()]
    systems = sorted(found.texts, key=lambda name: order.index(name) if name in order else len(order))
    names = {evaluations.title_of(name): name for name in systems}
    titles = {name: title for title, name in names.items()}
    chosen = st.multiselect(
        "Models",
        list(names),
        default=[titles[name] for name in in_first_decoder(systems)],
        key=cases.KEYS["pairs"],
        bind="query-params",
        placeholder="Choose models",
    )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        observation = st.selectbox(
            "Observation", cases.OBSERVATION_CHOICES, key=cases.KEYS["observation"], bind="query-params", width=230
        )
        outcome = st.selectbox(
            "What a model made of it",
            cases.OUTCOME_CHOICES,
            key=cases.KEYS["outcome"],
            bind="query-params",
            width=150,
            help="Studies where at least one of the chosen models found, missed, invented or reversed the observation.",
        )
        agreement = st.selectbox(
            "Agreement", cases.AGREEMENTS, key=cases.KEYS["agreement"], bind="query-params", width=180
        )
        part = st.selectbox(
            "Studies",
            [cases.ALL_STUDIES, *cases.named_slices(found)],
            key=cases.KEYS["slice"],
            bind="query-params",
            width=230,
        )
        text = st.text_input(
            "Words", key=cases.KEYS["text"], bind="query-params", placeholder="in any report", max_chars=100, width=190
        )
        order = st.selectbox("Order", cases.ORDERS, key=cases.KEYS["order"], bind="query-params", width=180)
    question = cases.Question(
        tuple(names[title] for title in chosen), observation, outcome, agreement, text or "", order
    )
    return question, part, {names[title]: title for title in chosen}


def pager(at: int, count: int) -> None:
    """Which page is shown, with the ways to others."""
    pages = max((count + ROWS - 1) // ROWS, 1)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "Previous page",
            icon=":material/chevron_left:",
            shortcut="PageUp",
            on_click=turn,
            args=(-1,),
            disabled=at == 0,
            key="page_back",
        )
        st.button(
            "Next page",
            icon=":material/chevron_right:",
            shortcut="PageDown",
            on_click=turn,
            args=(1,),
            disabled=at >= pages - 1,
            key="page_on",
        )
        number = "1 study" if count == 1 else f"{count} studies"
        st.markdown(f"**{number}** · page {at + 1} of {pages}", width="content")
        st.caption(
            "Keys in the table: `J` `K` or arrows for the next study, `X` adds it to the figure, Enter opens it.",
            width="content",
        )


def export(found: Evaluation, titles: dict[str, str], shown: list[int], family: str, question: str) -> None:
    """The chosen studies, or those on this page, as a figure."""
    hidden = studies.kept_back()
    indices = {study_id: index for index, study_id in enumerate(found.study_ids) if study_id not in hidden}
    kept = [indices[each] for each in st.session_state[FIGURE] if each in indices]
    lost = [each for each in st.session_state[FIGURE] if each not in indices]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        what = (
            f"**Figure** of {len(kept)} chosen {'study' if len(kept) == 1 else 'studies'}"
            if kept
            else "**Figure** of the studies on this page (none is chosen)"
        )
        st.markdown(what, width="content")

        def drawn() -> case_figure.Figure:
            rows = cases.rows(found, list(titles), (kept or shown)[:MOST])
            wrote = [cases.bundle_id(name) for name in titles]
            return case_figure.Figure(family, list(titles.values()), wrote, rows, question)

        for name, write, mime in (
            ("PDF", case_figure.to_pdf, "application/pdf"),
            ("HTML", case_figure.to_html, "text/html"),
        ):
            st.download_button(
                name,
                lambda write=write: write(drawn()),  # type: ignore[misc]
                file_name=f"cases-{family}.{name.lower()}",
                mime=mime,
                icon=":material/download:",
                key=f"figure_{name}",
                on_click="ignore",
            )
        st.button("Clear the choice", key="figure_empty", on_click=empty_figure, disabled=not st.session_state[FIGURE])
    if lost:
        st.caption(f":material/info: Not among these studies, so not in the figure: {', '.join(lost[:5])}.")
    if len(kept) > MOST:
        st.caption(f":material/info: A figure has at most {MOST} studies: these are the first {MOST}.")


@st.fragment  # a turn of the page draws no control of the search anew
def show_page(found: Evaluation, titles: dict[str, str], indices: list[int], family: str, question: str) -> None:
    """The studies of one page, the ways to others, and the figure.

    Args:
        found: the evaluation.
        titles: of the chosen pairs, by name.
        indices: of all the studies that were found, in order.
        family: of the bundles.
        question: how they were found, in words.
    """
    state = st.session_state
    state[PAGE] = min(max(state[PAGE], 0), max(len(indices) - 1, 0) // ROWS)
    write_address()
    pager(state[PAGE], len(indices))
    shown = indices[state[PAGE] * ROWS :][:ROWS]
    known = studies.visible_studies()
    pictured = all(found.study_ids[index] in known for index in shown)
    if shown:
        st.html(case_figure.LEGEND)
        case_table(
            list(titles.values()),
            cases.rows(found, list(titles), shown),
            chosen=state[FIGURE],
            links=pictured,
            ends=(state[PAGE] == 0, (state[PAGE] + 1) * ROWS >= len(indices)),
            key=TABLE,
            on_choose=choose,
            on_turn=turn_by_key,
        )
    else:
        st.info("No study fits. Loosen the search: any observation, any outcome, or fewer words.")
    if not pictured:
        st.caption(
            ":material/info: The radiographs of these studies are not here, so there are no pictures and no links to "
            "the Read page."
        )
    export(found, titles, shown, family, question)
    # The reader looks at this page now; the next one's pictures are drawn and its reports read meanwhile.
    cases.rows(found, list(titles), indices[(state[PAGE] + 1) * ROWS :][:ROWS])


remember()
st.subheader("Reports side by side")
families = evaluations.families()
family = next(iter(families), bundles.PHANTOM)
if len(families) > 1:
    family = st.segmented_control(
        "Data",
        families,
        default=families[0],
        required=True,
        format_func=cases.data_title,
        key=cases.KEYS["family"],
        bind="query-params",
    )
found = evaluations.read_reports(family)
question, part, titles = ask(found, family)
if not titles:
    st.info("No model is chosen. Choose models above.")
    st.stop()
within = None if part == cases.ALL_STUDIES else cases.named_slices(found)[part]
indices = cases.matching(found, question, within)
state = st.session_state
if state.get(ASKED, (family, question, part)) != (family, question, part):
    state[PAGE] = 0
state[ASKED] = (family, question, part)
show_page(found, titles, indices, family, cases.describe(question, part))
