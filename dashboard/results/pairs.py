"""Table 1: our models beside the paper's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.evaluation.claims import SEEDS, above
from core.evaluation.metrics import METRICS
from core.evaluation.results import NEAREST
from core.paper.tables import paper_numbers
from core.registry import DECODERS, ENCODERS
from core.types import CXRLensError
from core.wording import counted
from dashboard import figures, settings
from dashboard.components.score_table import export
from dashboard.plain import code, plain, plain_message
from dashboard.results.parts import SCORES, by_f1, cases_link, pick, pick_pair, score_table, show_studies
from dashboard.results.seeds import same_training
from dashboard.services import bundles, cases, evaluations
from dashboard.services.evaluations import ResultSet

BESIDES = {"shuffled_f1": "F1, images shuffled", "distinct": "Distinct"}
CHOSEN, CHART, ALL = "of", "pairs_chart", "pairs_table"
# One table at a time: each takes the browser a tenth of a second at every page switch.
BESIDE, EVERYTHING = "This score beside the paper's", "All scores, with baselines"


def show_table_1(results: ResultSet) -> None:
    """Draw the view."""
    paper = paper_numbers(settings.paper_tables(), "1")
    usable = [name for name in SCORES if all(isinstance(row.get(name), float) for row in results.rows.values())]
    score = pick("Score", usable, "score", "f1", format_func=SCORES.__getitem__, width=180)
    rows = [
        _row(results, name, score, paper.get(evaluations.pair_of(row) or ("", ""), {}).get(score))
        for name, row in results.rows.items()
    ]
    content = pd.DataFrame(rows)
    _say(results, content, score)
    names = list(results.titles)
    dots = [
        figures.Dots(
            "ours, with 95 % interval" if content["Decoder"].all() else "score, with 95 % interval",
            content["Ours"].tolist(),
            content["From"].tolist() if content["From"].notna().all() else None,
            content["To"].tolist() if content["To"].notna().all() else None,
        )
    ]
    if content["Paper"].notna().any():
        dots.append(figures.Dots("the paper's", content["Paper"].tolist()))
    st.plotly_chart(
        figures.score_dots(list(results.titles.values()), names, dots, axis=SCORES[score]),
        key=CHART,
        on_select=_follow_chart,
        selection_mode="points",
        config={"displayModeBar": False},
        alt=f"{SCORES[score]} of our models and the paper's; the table below has the same numbers",
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
        _show_all(results, names)
    else:
        if not content["Decoder"].all():  # not all of them are ours
            content = content.rename(columns={"Ours": "Score"})
        score_table(
            content,
            f"{SCORES[score]} of our models beside the paper's",
            wide="Model",
            key="pairs_beside",
            on_select=lambda: _follow_table("pairs_beside", names),
            selection_mode="single-row",
        )
        ends = "" if content["From"].isna().any() else " From, To: 95 % interval, bootstrap over patients."
        st.caption(
            f"Sort by any column; mark a row, or click a point, to see its studies.{ends} The paper gives no intervals."
        )
        export(
            content, f"{SCORES[score]} of {results.title} beside the paper's Table 1 (other data)", name="beside-paper"
        )
    _show_studies(results)
    _show_how(results)


def _row(results: ResultSet, name: str, score: str, paper: float | None) -> dict[str, Any]:
    row = results.rows[name]
    pair = evaluations.pair_of(row)
    try:
        low, high = evaluations.interval(results, row["name"], score) or (np.nan, np.nan)
    except CXRLensError:  # without the reports there are only the evaluation's own
        low = high = np.nan
    return {
        "Model": results.titles[name],
        "Ours": row[score],
        "From": low,
        "To": high,
        "Paper": np.nan if paper is None else paper,
        "Decoder": DECODERS[pair[1]].title if pair else "",
        "Encoder": ENCODERS[pair[0]].title if pair else row.get("kind", ""),
    }


def _say(results: ResultSet, content: pd.DataFrame, score: str) -> None:
    """What the table comes to, in a sentence, and what it cannot say."""
    rows = content.to_dict("records")
    best = max(rows, key=lambda row: row["Ours"])
    of_ours = " of ours" if all(row["Decoder"] for row in rows) else ""
    told = f"Highest {SCORES[score]}{of_ours}: **{plain(best['Model'])}** ({best['Ours']:.3f})"
    both = content[content["Paper"].notna()]  # the paper knows its own pairs
    if (
        len(both) > 2 and not both.duplicated(["Encoder", "Decoder"]).any()
    ):  # a pair of two families has one number there
        theirs = max(both.to_dict("records"), key=lambda row: row["Paper"])
        told += f"; of the paper's: **{plain(theirs['Model'])}** ({theirs['Paper']:.3f})"
        order = both["Ours"].rank().corr(both["Paper"].rank())
        if not np.isnan(order):
            told += f". Rank correlation of the two rankings: **{order:+.2f}** (1 = same, 0 = unrelated)"
    told += "."
    baselines = [each for each in results.content.get("baselines") or [] if isinstance(each.get(score), float)]
    if baselines:
        strongest = max(baselines, key=lambda each: float(each[score]))
        below = [row["Model"] for row in rows if row["Ours"] <= strongest[score]]
        told += f" The highest baseline, *{plain(strongest['name'])}*, has {strongest[score]:.3f}"
        if len(below) == len(rows):
            told += "; no model has more."
        else:
            told += f"; {plain(', '.join(below))} {'has' if len(below) == 1 else 'have'} no more." if below else "."
    st.markdown(f"{told} {_claim(results, score)}")
    frequent = results.content.get("frequent", ())
    if score == "f1_frequent" and frequent:
        st.caption(f"Over the {len(frequent)} observations with enough positives: {plain(', '.join(frequent))}.")
    if both.empty:
        return
    data = "synthetic X-rays" if bundles.synthetic(results.family) else "few radiographs"
    st.caption(
        f"Ours: small models trained once on {data}. The paper's (Nazarov et al. 2022): larger models trained on "
        "MIMIC-CXR. The data differ, so compare the ranking of the models, not the numbers."
    )


def _claim(results: ResultSet, score: str) -> str:
    """Which models are above the nearest training report: only what holds in several seeds after Holm's correction."""
    groups = same_training(evaluations.result_sets()[0])
    group = next((each for each in groups if results.name in {one.name for one in each}), [results])
    seeds = list({each.seed: {row["name"]: row for row in each.rows.values()} for each in group}.values())
    parts = []
    for against, what in (
        ("differences", f"the {NEAREST}"),
        ("differences_own", f"the {NEAREST} by its own embeddings"),
    ):
        found = above(seeds, score, against)
        if found is None:
            continue
        names = ", ".join(results.titles[name] for name in found if name in results.titles)
        parts.append(f"Above {what} in all {len(seeds)} seeds, after Holm's correction: {names or 'no model'}.")
    if parts:
        return " ".join(parts)
    if not any(score in row.get("differences", {}) for row in results.rows.values()):
        return "This score was not tested: that one number is higher is no claim."
    return (
        f"Whether a model is really above another, or above a baseline, is not claimed: that has to hold in at least "
        f"{SEEDS} seeds after Holm's correction, and here is one."
    )


def _follow_chart() -> None:
    points = st.session_state[CHART].selection.points
    if points:
        st.session_state[CHOSEN] = points[0]["customdata"]


def _follow_table(key: str, names: list[str]) -> None:
    marked = st.session_state[key].selection.rows
    if marked and marked[0] < len(names):
        st.session_state[CHOSEN] = names[marked[0]]


def _show_studies(results: ResultSet) -> None:
    best = by_f1(results)[0]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = pick_pair(results, "Show studies of", CHOSEN, best)
        cases_link("All its studies on the Cases page", results, [name], order=cases.MOST_ERRORS)
    try:
        found = evaluations.reports_of(results)
    except CXRLensError as error:
        st.info(plain_message(error))
        return
    errors = found.errors[name]
    indices = [int(index) for index in np.argsort(-errors, kind="stable") if errors[index]]
    st.markdown(f"**Where {plain(results.titles[name])} makes most errors**")
    notes = [counted(int(errors[index]), "error", "errors") for index in indices]
    show_studies(results, found, indices, notes, [name], "No report has an error.")


def _show_all(results: ResultSet, names: list[str]) -> None:
    """All scores, with baselines that need no model."""
    rows = [{"Model": results.titles[name]} | _scores(row) for name, row in results.rows.items()]
    rows += [
        {"Model": f"baseline: {each.get('name', '')}"} | _scores(each)
        for each in results.content.get("baselines") or []
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
        column_config={"Model": st.column_config.TextColumn(width=175, pinned=True)},
        alt="All scores of our models and of the baselines",
        key=ALL,
        on_select=lambda: _follow_table(ALL, names),
        selection_mode="single-row",
    )
    st.caption(
        "The highest of each column is bold, which is no test. * means that the difference from the nearest training "
        "report is significant (p < 0.05 after Holm's correction for all rows), in this one training."
    )
    export(content, f"All scores of {results.title}", name="pairs")


def _show_how(results: ResultSet) -> None:
    """Where the scores come from, and their warnings."""
    warnings = [
        f"{results.titles[name]}: {text}" for name, row in results.rows.items() for text in row.get("warnings", ())
    ]
    with st.expander("How this was scored" + (f", and {len(warnings)} warnings" if warnings else "")):
        about = [
            f"{results.data[1]} held-out studies." if results.data[1] else "",
            str(results.content.get("protocol", "")),
            *(str(each["told"]) for each in results.content.get("matching", {}).values()),
        ]
        st.caption(plain_message(" ".join(part for part in about if part)))
        command = results.content.get("command", "an unnamed command")
        by = "on this machine, with the button on the Cases page" if results.own is not None else f"by {code(command)}"
        told = plain_message(" ".join(results.told))
        st.caption(f"Written {by}. Random seed: {plain(results.seed)}. {told}".rstrip())
        if warnings:
            st.markdown("\n".join(f"- {plain_message(each)}" for each in warnings))


def _scores(row: Any) -> dict[str, Any]:
    scores = {title: row.get(name) for name, title in (SCORES | BESIDES).items()}
    for name in ("f1", "f1_frequent"):
        head = METRICS[name].head
        if interval := row.get("intervals", {}).get(name):
            scores[f"{head}, interval"] = "{:.3f} to {:.3f}".format(*interval)
        for against, what in (("differences", "nearest report's"), ("differences_own", "nearest's, own embeddings")):
            if less := row.get(against, {}).get(name):
                scores[f"{head} above the {what}"] = f"{less['difference']:+.3f}{'*' * (less['p_holm'] < 0.05)}"
    return scores
