"""Cases: many studies and what chosen pairs wrote about them, side by side; a set of them becomes a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import streamlit as st

from core.evaluation.reports import Evaluation
from core.registry import DECODERS
from dashboard import session
from dashboard.components.asked import tell_unknown
from dashboard.components.case_table import case_table
from dashboard.components.own_evaluation import offer_evaluation
from dashboard.components.source_choice import choose_source, show_credit
from dashboard.components.system_choice import choose_systems
from dashboard.plain import plain, plain_message
from dashboard.results.parts import pick
from dashboard.services import bundles, case_figure, cases, evaluations, own, reports, sources, studies
from dashboard.services.evaluations import ResultSet

ROWS = 8  # studies on a page: few enough to turn within half a second
TABLE, PAGE, FIGURE = "case_table", cases.KEYS["page"], "figure"
MOST = 40  # studies in a figure
ASKED = "cases_asked"  # what the shown page belongs to


def first_shown(results: ResultSet, names: list[str]) -> list[str]:
    """One pair of each encoder, which is what the paper compares, and what is no pair."""
    pairs = {name: pair for name in names if (pair := evaluations.pair_named(results, name))}
    decoder, others = next(iter(DECODERS)), [name for name in names if name not in pairs]
    return [*([name for name, pair in pairs.items() if pair[1] == decoder] or [*pairs][:4]), *others[:4]]


def remember() -> None:
    """Take page and figure from the address, once a session."""
    state, address = st.session_state, st.query_params
    if FIGURE not in state:
        state[FIGURE] = tuple(dict.fromkeys(filter(None, address.get(FIGURE, "").split(","))))
        state[PAGE] = max((session.whole(address.get(PAGE, "1")) or 1) - 1, 0)


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


def choose_evaluation(source_name: str) -> ResultSet | None:
    """Which evaluation of the chosen source is shown; None where there is none."""
    of_source, homeless = evaluations.with_reports(source_name)
    there = {each.name: each for each in [*of_source, *homeless]}
    if not there:
        return None
    key = cases.KEYS["run"]
    if len(there) == 1 and of_source:
        return of_source[0]
    if not of_source:
        # Reports of studies that are not here are read as texts, by whoever asks for them.
        chosen = st.selectbox(
            "Evaluation", list(there), index=None, key=key, bind="query-params", width=360,
            format_func=lambda name: there[name].title, placeholder="Evaluations of studies that are not here",
        )  # fmt: skip
        return there[chosen] if chosen else None
    title_of: Callable[[str], str] = lambda name: there[name].title  # noqa: E731
    return there[pick("Evaluation", list(there), key, of_source[0].name, format_func=title_of, width=360)]


def ask(found: Evaluation, results: ResultSet) -> tuple[cases.Question, str, dict[str, str]]:
    """The controls.

    Returns:
        What is looked for, the slice's name, and the titles of the chosen models by name.
    """
    order = [*results.rows, *(card.name for card in bundles.library_cards())]
    systems = sorted(found.texts, key=lambda name: order.index(name) if name in order else len(order))
    groups = evaluations.groups_of(results, systems)
    titles = {name: title for group in groups.values() for name, title in group.items()}
    chosen = choose_systems(groups, first_shown(results, systems), cases.KEYS["pairs"])
    tell_unknown(cases.KEYS["observation"], "observation", cases.OBSERVATION_CHOICES)
    tell_unknown(cases.KEYS["outcome"], "outcome", cases.OUTCOME_CHOICES)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        observation = st.selectbox(
            "Observation", cases.OBSERVATION_CHOICES, key=cases.KEYS["observation"], bind="query-params", width=230
        )
        outcome = cases.ANY
        if found.referenced:
            outcome = st.selectbox(
                "What a model made of it",
                cases.OUTCOME_CHOICES,
                key=cases.KEYS["outcome"],
                bind="query-params",
                width=150,
                help="Studies where at least one of the chosen models found, missed, invented or reversed it.",
            )
        agreements = cases.AGREEMENTS if found.referenced else cases.PLAIN_AGREEMENTS
        agreement = pick("Agreement", agreements, cases.KEYS["agreement"], agreements[0], width=180)
        slices = [cases.ALL_STUDIES, *cases.named_slices(found)]
        part = pick("Studies", slices, cases.KEYS["slice"], cases.ALL_STUDIES, width=230)
        text = st.text_input(
            "Words", key=cases.KEYS["text"], bind="query-params", placeholder="in any report", max_chars=100, width=190
        )
        orders = cases.ORDERS if found.referenced else cases.PLAIN_ORDERS
        by = pick("Order", orders, cases.KEYS["order"], orders[0], width=180)
    question = cases.Question(tuple(chosen), observation, outcome, agreement, text or "", by)
    return question, part, {name: titles[name] for name in chosen}


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


@dataclass(frozen=True)
class Shown:
    """What is shown.

    Attributes:
        found: the evaluation.
        titles: of the chosen pairs, by name.
        indices: of all the studies that were found, in order.
        source_name: short name of the source that has their images; None where it is not here.
        title: what the studies are.
        question: how they were found, in words.
    """

    found: Evaluation
    titles: dict[str, str]
    indices: list[int]
    source_name: str | None
    title: str
    question: str


def export(shown: Shown, on_page: list[int]) -> None:
    """The chosen studies, or those on this page, as a figure."""
    found, titles = shown.found, shown.titles
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
            rows = cases.rows(found, list(titles), (kept or on_page)[:MOST], shown.source_name)
            wrote = [cases.bundle_id(name) for name in titles]
            return case_figure.Figure(
                shown.title, list(titles.values()), wrote, rows, shown.question, credit_of(shown.source_name)
            )

        for name, write, mime in (
            ("PDF", case_figure.to_pdf, "application/pdf"),
            ("HTML", case_figure.to_html, "text/html"),
        ):
            st.download_button(
                name,
                lambda write=write: write(drawn()),  # type: ignore[misc]
                file_name=f"cases.{name.lower()}",
                mime=mime,
                icon=":material/download:",
                key=f"figure_{name}",
                on_click="ignore",
            )
        st.button("Clear the choice", key="figure_empty", on_click=empty_figure, disabled=not st.session_state[FIGURE])
    if lost:
        st.caption(f":material/info: Not among these studies, so not in the figure: {plain(', '.join(lost[:5]))}.")
    if len(kept) > MOST:
        st.caption(f":material/info: A figure has at most {MOST} studies: these are the first {MOST}.")


def credit_of(source_name: str | None) -> str:
    """What must stand beside the images of a source."""
    return "" if source_name is None else sources.source(source_name).credit


@st.fragment  # a turn of the page draws no control of the search anew
def show_page(shown: Shown) -> None:
    """The studies of one page, the ways to others, and the figure."""
    state, found, titles, indices = st.session_state, shown.found, shown.titles, shown.indices
    state[PAGE] = min(max(state[PAGE], 0), max(len(indices) - 1, 0) // ROWS)
    write_address()
    pager(state[PAGE], len(indices))
    on_page = indices[state[PAGE] * ROWS :][:ROWS]
    rows = cases.rows(found, list(titles), on_page, shown.source_name)
    if rows:
        if found.referenced:
            st.html(case_figure.LEGEND)
        case_table(
            list(titles.values()),
            rows,
            chosen=state[FIGURE],
            referenced=found.referenced,
            query=urlencode({session.SOURCE: shown.source_name}) if shown.source_name else "",
            ends=(state[PAGE] == 0, (state[PAGE] + 1) * ROWS >= len(indices)),
            key=TABLE,
            on_choose=choose,
            on_turn=turn_by_key,
        )
    else:
        st.info("No study fits. Loosen the search: any observation, any outcome, or fewer words.")
    parts = [pieces for row in rows for pieces in (row.reference or (), *(cell.pieces for cell in row.cells))]
    removed = reports.note_on_removed("".join(str(piece["text"]) for piece in pieces) for pieces in parts)
    for told in filter(None, (removed, *without_pictures(shown.source_name, rows))):
        st.caption(f":material/info: {plain_message(told)}")
    show_credit(credit_of(shown.source_name))
    export(shown, on_page)
    # The reader looks at this page now; the next one's pictures are drawn and its reports read meanwhile.
    cases.rows(found, list(titles), indices[(state[PAGE] + 1) * ROWS :][:ROWS], shown.source_name)


def without_pictures(source_name: str | None, rows: Sequence[cases.Row]) -> list[str]:
    """What to say of rows that show no radiograph."""
    if source_name is None:
        return [
            "The radiographs of these studies are not here, so there are no pictures and no links to the Read page."
        ]
    told = []
    if strange := [row.study_id for row in rows if not row.here]:
        told.append(f"Not among {sources.names()[source_name]} any more: {', '.join(strange)}.")
    if changed := [row.study_id for row in rows if row.changed]:
        told.append(
            f"Another report in {sources.names()[source_name]} now: {', '.join(changed)}. Write and score again below."
        )
    if gone := [row.study_id for row in rows if row.here and row.picture is None]:
        told.append(f"The image is gone, or cannot be read: {', '.join(gone)}.")
    return told


def show(results: ResultSet) -> None:
    """The studies of an evaluation, as the reader looks for them."""
    found = evaluations.read_reports(results)
    for told in (evaluations.strange_bundles(results), *evaluations.told_of(results, found)):
        if told:
            st.caption(f":material/info: {plain_message(told)}")
    question, part, titles = ask(found, results)
    if not titles:
        st.info("No model is chosen. Choose models above.")
        return
    within = None if part == cases.ALL_STUDIES else cases.named_slices(found)[part]
    indices = cases.matching(found, question, within)
    now = (results.name, question, part)
    if st.session_state.get(ASKED, now) != now:
        st.session_state[PAGE] = 0
    st.session_state[ASKED] = now
    source_name, title = evaluations.source_of(results), evaluations.source_title(results)
    show_page(Shown(found, titles, indices, source_name, title, cases.describe(question, part)))


remember()
chosen = choose_source()
st.header("Reports side by side")
results = choose_evaluation(chosen)
if results is None:
    offer_evaluation(chosen)
else:
    show(results)
    if own.under_way(chosen) is not None or not own.why_not(chosen):
        with st.expander(
            "Reports of these studies by other models, files and programs", expanded=own.under_way(chosen) is not None
        ):
            offer_evaluation(chosen, why="What others write about them is a further evaluation.")
