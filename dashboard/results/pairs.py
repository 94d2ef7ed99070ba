"""Table 1: our pairs beside the paper's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.paper.tables import paper_numbers
from core.registry import DECODERS, ENCODERS, pair_title
from core.types import CXRLensError
from dashboard import cases, figures, runs, services, settings
from dashboard.components.score_table import export
from dashboard.results.parts import SCORES, by_f1, cases_link, pick, pick_pair, show_studies, table
from dashboard.runs import Run

BESIDES = {"shuffled_f1": "F1, images shuffled", "distinct": "Distinct"}
CHOSEN, CHART, ALL = "of", "pairs_chart", "pairs_table"
# One table at a time: each takes the browser a tenth of a second at every page switch.
BESIDE, EVERYTHING = "This score beside the paper's", "All scores, with baselines"


def show(run: Run) -> None:
    """Draw the view."""
    paper = paper_numbers(settings.paper_tables(), "1")
    usable = [name for name in SCORES if all(isinstance(row.get(name), float) for row in run.rows.values())]
    score = pick("Score", usable, "score", "f1", format_func=SCORES.__getitem__, width=180)
    rows = [_row(run, pair, score, paper.get(pair, {}).get(score)) for pair in run.rows]
    content = pd.DataFrame(rows)
    _say(run, content, score)
    names = list(run.titles)
    dots = [
        figures.Dots(
            "ours, with 95 % interval",
            content["Ours"].tolist(),
            content["From"].tolist() if content["From"].notna().all() else None,
            content["To"].tolist() if content["To"].notna().all() else None,
        )
    ]
    if content["Paper"].notna().all():
        dots.append(figures.Dots("the paper's", content["Paper"].tolist()))
    st.plotly_chart(
        figures.score_dots(list(run.titles.values()), names, dots, axis=SCORES[score]),
        key=CHART,
        on_select=_follow_chart,
        selection_mode="points",
        config={"displayModeBar": False},
        alt=f"{SCORES[score]} of our pairs and the paper's; the table below has the same numbers",
    )
    shown = st.segmented_control(
        "Table",
        [BESIDE, EVERYTHING],
        default=BESIDE,
        required=True,
        key="table",
        bind="query-params",
        label_visibility="collapsed",
    )
    if shown == EVERYTHING:
        _show_all(run, names)
    else:
        table(
            content,
            f"{SCORES[score]} of our pairs beside the paper's",
            wide="Pair",
            key="pairs_beside",
            on_select=lambda: _follow_table("pairs_beside", names),
            selection_mode="single-row",
        )
        ends = "" if content["From"].isna().any() else " From, To: 95 % interval, bootstrap over patients."
        st.caption(
            f"Sort by any column; mark a row, or click a point, to see its studies.{ends} The paper prints no "
            "intervals, so those of the difference are about ours alone."
        )
        export(content, f"{SCORES[score]} of {run.name} beside the paper's Table 1 (other data)", name="beside-paper")
    _show_studies(run)
    _show_how(run)


def _row(run: Run, pair: tuple[str, str], score: str, paper: float | None) -> dict[str, Any]:
    row = run.rows[pair]
    try:
        low, high = runs.interval(run, row["name"], score) or (np.nan, np.nan)
    except CXRLensError:  # without the reports there are only the evaluation's own
        low = high = np.nan
    theirs = np.nan if paper is None else paper
    return {
        "Pair": pair_title(*pair),
        "Ours": row[score],
        "From": low,
        "To": high,
        "Paper": theirs,
        "Difference": row[score] - theirs,
        "Difference from": low - theirs,
        "Difference to": high - theirs,
        "Decoder": DECODERS[pair[1]].title,
        "Encoder": ENCODERS[pair[0]].title,
    }


def _say(run: Run, content: pd.DataFrame, score: str) -> None:
    """What the table comes to, in a sentence, and what it cannot say."""
    rows = content.to_dict("records")
    best = max(rows, key=lambda row: row["Ours"])
    told = f"Best of ours by {SCORES[score]}: **{best['Pair']}** ({best['Ours']:.3f})"
    if content["Paper"].notna().all() and len(content) > 2:
        theirs = max(rows, key=lambda row: row["Paper"])
        told += f"; of the paper's: **{theirs['Pair']}** ({theirs['Paper']:.3f})"
        order = content["Ours"].rank().corr(content["Paper"].rank())
        if not np.isnan(order):
            told += f". The two orders agree with a rank correlation of **{order:+.2f}** (1: the same, 0: no relation)"
    told += "."
    baselines = [each for each in run.content.get("baselines") or [] if isinstance(each.get(score), float)]
    if baselines:
        strongest = max(baselines, key=lambda each: float(each[score]))
        below = [row["Pair"] for row in rows if row["Ours"] <= strongest[score]]
        told += f" The best baseline, *{strongest['name']}*, has {strongest[score]:.3f}: " + (
            f"no better are {', '.join(below)}." if below else "every pair is above it."
        )
    st.markdown(told)
    data = "synthetic phantoms" if run.family == services.PHANTOM else "few radiographs"
    st.caption(
        f"Ours: small models trained on {data}, one seed. The paper's (Nazarov et al. 2022): MIMIC-CXR and larger "
        "models. Differences between the two are differences of data first; compare the order of the pairs."
    )


def _follow_chart() -> None:
    points = st.session_state[CHART].selection.points
    if points:
        st.session_state[CHOSEN] = points[0]["customdata"]


def _follow_table(key: str, names: list[str]) -> None:
    marked = st.session_state[key].selection.rows
    if marked and marked[0] < len(names):
        st.session_state[CHOSEN] = names[marked[0]]


def _show_studies(run: Run) -> None:
    best = by_f1(run)[0]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = pick_pair(run, "Studies of", CHOSEN, best)
        cases_link("All its studies on the Cases page", run, [name], order=cases.MOST_ERRORS)
    try:
        found = runs.reports(run)
    except CXRLensError as error:
        st.info(str(error))
        return
    errors = found.errors[name]
    places = [int(place) for place in np.argsort(-errors, kind="stable") if errors[place]]
    st.markdown(f"**Where {run.titles[name]} errs most**")
    notes = [f"{errors[place]} errors" for place in places]
    show_studies(run, found, places, notes, [name], "No report has an error.")


def _show_all(run: Run, names: list[str]) -> None:
    """All scores, with baselines that need no model."""
    rows = [{"Pair": pair_title(*pair)} | _scores(row) for pair, row in run.rows.items()]
    rows += [
        {"Pair": f"baseline: {each.get('name', '')}"} | _scores(each) for each in run.content.get("baselines") or []
    ]
    content = pd.DataFrame(rows)
    content = content[[name for name in content if content[name].notna().any()]]
    styled = content.style.format(precision=3, na_rep="–")
    ours = content.head(len(names))
    for column in set(SCORES.values()) & set(content):
        first = ours.index[(ours[column] == ours[column].max()) & (ours[column] > 0)]
        styled = styled.set_properties(subset=pd.IndexSlice[first, column], **{"font-weight": "700"})
    st.dataframe(
        styled,
        hide_index=True,
        height="content",
        placeholder="–",
        column_config={"Pair": st.column_config.TextColumn(width=175, pinned=True)},
        alt="All scores of our pairs and of the baselines",
        key=ALL,
        on_select=lambda: _follow_table(ALL, names),
        selection_mode="single-row",
    )
    st.caption(
        "The best pair of each column is bold. * says that the difference to the nearest training report is beyond "
        "chance (p < 0.05, Holm). It ranks these trained models, not their designs."
    )
    export(content, f"All scores of {run.name}", name="pairs")


def _show_how(run: Run) -> None:
    """Where the scores come from, and what to be warned of."""
    warnings = [f"{pair_title(*pair)}: {text}" for pair, row in run.rows.items() for text in row.get("warnings", ())]
    with st.expander("How this was scored" + (f", and {len(warnings)} warnings" if warnings else "")):
        about = [f"{run.data[1]} held-out studies." if run.data[1] else "", str(run.content.get("protocol", ""))]
        st.caption(" ".join(part for part in about if part))
        st.caption(f"Written by `{run.content.get('command', 'an unnamed command')}`. Seed: {run.seed}.")
        if warnings:
            st.markdown("\n".join(f"- {each}" for each in warnings))


def _scores(row: Any) -> dict[str, Any]:
    scores = {title: row.get(name) for name, title in (SCORES | BESIDES).items()}
    if interval := row.get("intervals", {}).get("f1"):
        scores["F1, interval"] = "{:.3f} to {:.3f}".format(*interval)
    if less := row.get("differences", {}).get("f1"):
        scores["F1 less the nearest report's"] = f"{less['difference']:+.3f}{'*' * (less['p_holm'] < 0.05)}"
    return scores
