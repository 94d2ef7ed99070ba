"""Results: scores of the bundles beside the paper's; where they come from; who is better at what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.labels.compare import Outcome
from core.labels.observations import OBSERVATIONS
from core.registry import DECODERS, ENCODERS
from core.types import CXRLensError
from dashboard import cases, evaluation, services
from dashboard.components.score_table import export
from dashboard.components.study_cards import StudyCard, study_cards

OURS = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
    "cider": "CIDEr",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "shuffled_f1": "F1, images shuffled",
    "distinct": "Distinct",
}
PAPERS = {
    "B1": "BLEU-1",
    "B2": "BLEU-2",
    "B3": "BLEU-3",
    "B4": "BLEU-4",
    "ROUGE_L": "ROUGE-L",
    "METEOR": "METEOR",
    "CIDEr": "CIDEr",
    "P": "Precision",
    "R": "Recall",
    "F1": "F1",
}
INTERVAL, LESS_NEAREST = "F1 in brackets", "F1 less the nearest report's"
COLUMNS = list(dict.fromkeys([*PAPERS.values(), INTERVAL, LESS_NEAREST, *OURS.values()]))
UNRANKED = (INTERVAL, LESS_NEAREST, "F1, images shuffled", "Distinct")  # not better where larger
ORDER = [(encoder, decoder) for decoder in DECODERS for encoder in ENCODERS]  # as in the paper's Table 1

VIEWS = ("Our twelve pairs", "By observation", "Slices", "Two pairs", "The paper's tables")
MEASURES = {"F1": 2, "Precision": 0, "Recall": 1}
TESTED = {
    "f1": "Macro F1",
    "micro_f1": "Micro F1",
    "example_f1": "F1 of a study, mean",
    "precision": "Precision",
    "recall": "Recall",
}
MOST_CARDS = 12


def titles(pair: tuple[str, str]) -> dict[str, str]:
    """First two columns of a row."""
    return {"Decoder": DECODERS[pair[1]].title, "Encoder": ENCODERS[pair[0]].title}


def scores_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of one of our rows by column, with F1's interval and its difference to the nearest report's."""
    scores = {title: row.get(name) for name, title in OURS.items()}
    if interval := row.get("intervals", {}).get("f1"):
        scores[INTERVAL] = "{:.3f} to {:.3f}".format(*interval)
    if less := row.get("differences", {}).get("f1"):
        scores[LESS_NEAREST] = f"{less['difference']:+.3f}{'*' * (less['p_holm'] < 0.05)}"
    return scores


def show(rows: Sequence[Mapping[str, Any]], alt: str, pairs: int, *, name: str) -> None:
    """A table of scores, the best of the first ``pairs`` rows bold in each column."""
    table = pd.DataFrame(rows)
    scores = [column for column in COLUMNS if column in table and table[column].notna().any()]
    ranked = [column for column in scores if column not in UNRANKED]
    best = table[ranked].head(pairs).max()
    table = table[["Decoder", "Encoder", *scores]]
    styled = table.style.format(precision=3, na_rep="–")
    for column in ranked:
        bold = (table[column] == best[column]) & (table[column] > 0) & (table.index < pairs)
        styled = styled.set_properties(subset=pd.IndexSlice[bold[bold].index, column], **{"font-weight": "700"})
    st.dataframe(
        styled,
        hide_index=True,
        height="content",
        placeholder="–",
        column_config={"Decoder": st.column_config.TextColumn(width=170, pinned=True)},
        alt=alt,
    )
    export(table, alt, name=name)


def shade(value: Any) -> str:
    """Background of a score's cell: the higher, the lighter; the number in it says the same."""
    if value is None or pd.isna(value):
        return ""
    share = min(max(float(value), 0.0), 1.0)
    low, high = np.array([22, 34, 58]), np.array([244, 222, 120])  # cividis' ends, safe for colour-blind eyes
    red, green, blue = (low + share * (high - low)).round().astype(int)
    return f"background-color: rgb({red} {green} {blue}); color: {'#10151c' if share > 0.45 else '#f0f2f5'}"


def pick(label: str, options: Sequence[str], key: str, default: str, **more: Any) -> str:
    """A choice that stands in the address."""
    if st.session_state.get(key, options[0]) not in options:  # of another family, or another way to divide
        del st.session_state[key]
    index = options.index(default) if default in options else 0
    return str(st.selectbox(label, options, index=index, key=key, bind="query-params", **more))


def link_to_cases(pairs: Sequence[str], **state: str) -> None:
    """The way to the reports themselves."""
    st.page_link(
        "app_pages/cases.py",
        label="All of these on the Cases page",
        icon=":material/view_list:",
        query_params=cases.address(pairs, **state),
    )


def show_studies(study_ids: Sequence[str], notes: Sequence[str], empty: str) -> None:
    """The first of some studies, each opening on the Read page."""
    if not study_ids:
        st.caption(empty)
        return
    known = services.studies()
    shown = [(study_id, note) for study_id, note in zip(study_ids, notes, strict=True) if study_id in known]
    if not shown:
        st.caption(", ".join(study_ids[:MOST_CARDS]))
        return
    more = f"The first {MOST_CARDS} of {len(study_ids)}. " if len(study_ids) > MOST_CARDS else ""
    st.caption(f"{more}A card opens its study on the Read page.")
    shown = shown[:MOST_CARDS]
    pictures = services.thumbnails([study_id for study_id, _ in shown])
    study_cards(
        [
            StudyCard(
                study_id, picture, note, ", ".join(services.findings_of(known[study_id])) or "no abnormal finding"
            )
            for (study_id, note), picture in zip(shown, pictures, strict=True)
        ]
    )


def show_table(content: Mapping[str, Any], rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
    """Table 1, ours, with its baselines."""
    st.subheader("Ours, on held-out studies")
    if content.get("family", services.PHANTOM) == services.PHANTOM:
        st.caption(
            "Tiny models trained on synthetic phantoms. Compare these rows with each other and with the baselines, "
            "not with the paper's numbers, which are of other data and larger models. The best pair of each column is "
            "bold; * says that the difference to the nearest report is beyond chance (p < 0.05, Holm). One seed: it "
            "ranks these trained models, not their designs."
        )
    else:
        st.caption(
            "Small models trained on few real radiographs. The best pair of each column is bold; * says that the "
            "difference to the nearest report is beyond chance (p < 0.05, Holm). One seed: it ranks these trained "
            "models, not their designs."
        )
    ours = [titles(pair) | scores_of(row) for pair, row in rows.items()]
    baselines = [
        {"Decoder": str(each.get("name", "")), "Encoder": "baseline"} | scores_of(each)
        for each in content.get("baselines") or []
    ]
    show([*ours, *baselines], "Scores of our twelve pairs and of the baselines", len(ours), name="pairs")
    about = [f"{content['studies']} held-out studies." if "studies" in content else "", content.get("protocol", "")]
    st.caption(" ".join(str(part) for part in about if part))
    st.caption(f"Written by `{content.get('command', 'an unnamed command')}`.")
    warnings = [f"{evaluation.title_of(row['name'])}: {text}" for row in rows.values() for text in row["warnings"]]
    if warnings:
        with st.expander(f"{len(warnings)} warnings about how the reports are written"):
            st.markdown("\n".join(f"- {each}" for each in warnings))


def show_observations(family: str, rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
    """Pairs by observations; a cell leads to its studies."""
    observed = {pair: row["by_observation"] for pair, row in rows.items() if row.get("by_observation")}
    if not observed:
        st.info("This evaluation has no scores by observation. Evaluate again to have them.")
        return
    measure = st.segmented_control(
        "Score", list(MEASURES), default="F1", required=True, key="measure", bind="query-params"
    )
    names = {rows[pair]["name"]: " + ".join(reversed(titles(pair).values())) for pair in observed}
    first = next(iter(observed.values()))
    listed = [name for name in OBSERVATIONS if name in first]
    table = pd.DataFrame(
        [
            {"Observation": name, "Studies": first[name][3]}
            | {names[rows[pair]["name"]]: scores[name][MEASURES[measure]] for pair, scores in observed.items()}
            for name in listed
        ]
    )

    def follow() -> None:
        cells = st.session_state["by_observation"].selection.cells
        if cells:
            place, column = cells[0]
            st.session_state["observation"] = table["Observation"][place]
            chosen = [name for name, title in names.items() if title == column]
            if chosen:
                st.session_state["of"] = chosen[0]

    st.dataframe(
        table.style.format(precision=2, na_rep="–").map(shade, subset=list(names.values())),
        hide_index=True,
        height="content",
        column_config={"Observation": st.column_config.TextColumn(width=170, pinned=True)},
        key="by_observation",
        on_select=follow,
        selection_mode="single-cell",
        alt=f"{measure} by observation and pair",
    )
    st.caption(
        "Studies: how many have the finding in the reference. Below about 20, a score says little. "
        "Choose a cell to see its studies."
    )
    export(table, f"{measure} by observation, family {family}", name="by-observation")
    with st.container(horizontal=True):
        observation = pick("Observation", listed, "observation", "Pleural Effusion", width=240)
        system = pick("Pair", list(names), "of", next(iter(names)), format_func=names.__getitem__, width=240)
        outcome = st.segmented_control(
            "What became of it",
            [each.value for each in Outcome],
            default=Outcome.MISSED.value,
            required=True,
            key="outcome",
            bind="query-params",
        )
    try:
        found = evaluation.evaluation(family)
        study_ids = found.where(system, observation, Outcome(outcome))
    except (CXRLensError, KeyError) as error:
        st.info(str(error))
        return
    st.markdown(f"**{observation}, {outcome} by {names[system]}: {len(study_ids)} studies**")
    show_studies(study_ids, [outcome] * len(study_ids), "There is no such study.")
    link_to_cases([system], family=family, observation=observation, outcome=outcome)


def show_slices(family: str, names: Mapping[str, str]) -> None:
    """One pair's score on parts of the studies, the worst first."""
    found = evaluation.evaluation(family)
    ways = evaluation.slices(found)
    with st.container(horizontal=True):
        system = pick("Pair", list(names), "of", next(iter(names)), format_func=names.__getitem__, width=240)
        way = pick("Divide the studies by", list(ways), "by_what", next(iter(ways)), width=240)
    parts = found.slices(system, ways[way], "micro_f1")
    whole = found.statistics[system].scores()["micro_f1"]
    table = pd.DataFrame(
        [
            {
                way: each.name,
                "Studies": each.count,
                "Micro F1": each.score,
                "From": each.low,
                "To": each.high,
                "Less all studies'": each.score - whole,
                "Errors a study": float(found.errors[system][ways[way][each.name]].mean()),
            }
            for each in parts
        ]
    )
    st.dataframe(
        table.style.format(precision=3, na_rep="–").map(shade, subset=["Micro F1"]),
        hide_index=True,
        height="content",
        alt=f"{names[system]} by {way.lower()}",
    )
    st.caption(
        f"The worst first. All {len(found.study_ids)} studies: {whole:.3f}. From, To: 95 % interval, bootstrap over "
        "patients. Micro F1 counts all decisions together: a macro mean would count findings that a "
        "slice cannot have as failures. Errors: observations missed, invented or opposite. Slices were looked at after "
        "the fact; an odd one is a question, not a finding."
    )
    export(table, f"{names[system]} by {way.lower()}, family {family}", name="slices")
    group = pick("Show the worst studies of", [each.name for each in parts], "group", parts[0].name, width=320)
    errors = found.errors[system]
    places = sorted(np.flatnonzero(ways[way][group]), key=lambda place: -errors[place])
    places = [place for place in places if errors[place]]
    show_studies(
        [found.study_ids[place] for place in places],
        [f"{errors[place]} errors" for place in places],
        "No report of these studies has an error.",
    )
    part = {"observation": group} if way == evaluation.BY_FINDING else {"slice": f"{way}: {group}"}
    link_to_cases([system], family=family, order=cases.MOST_ERRORS, **part)


def show_two(family: str, names: Mapping[str, str]) -> None:
    """Two pairs on the same studies: the paired test, and the studies in which they differ most."""
    found = evaluation.evaluation(family)
    ids = list(names)
    with st.container(horizontal=True):
        first = pick("First pair", ids, "first", ids[0], format_func=names.__getitem__, width=240)
        second = pick("Second pair", ids, "second", ids[-1], format_func=names.__getitem__, width=240)
    if first == second:
        st.info("Choose two different pairs.")
        return
    tests = found.against(first, second, list(TESTED))
    ours, theirs = (found.statistics[name].scores() for name in (first, second))
    table = pd.DataFrame(
        [
            {
                "Score": title,
                names[first]: ours[score],
                names[second]: theirs[score],
                "Difference": tests[score].difference,
                "From": tests[score].low,
                "To": tests[score].high,
                "p": tests[score].p_permutation,
                "Beyond chance": "yes" if tests[score].p_permutation < 0.05 else "no",
            }
            for score, title in TESTED.items()
        ]
    )
    st.dataframe(
        table.style.format(precision=3, na_rep="–"),
        hide_index=True,
        height="content",
        alt=f"{names[first]} against {names[second]}",
    )
    st.caption(
        "Both on the same studies. Interval: paired bootstrap over patients. p: paired permutation test; five scores "
        "of one comparison, not corrected for looking at several pairs. It is about these two trained models."
    )
    export(table, f"{names[first]} against {names[second]}, family {family}", name="two-pairs")
    gap = found.errors[second] - found.errors[first]
    for better, worse, sign in ((first, second, 1), (second, first, -1)):
        places = [place for place in np.argsort(-sign * gap, kind="stable") if sign * gap[place] > 0]
        st.markdown(f"**{names[better]} has fewer errors than {names[worse]} in {len(places)} studies**")
        show_studies(
            [found.study_ids[place] for place in places],
            [f"{found.errors[better][place]} against {found.errors[worse][place]} errors" for place in places],
            "In none.",
        )
    link_to_cases([first, second], family=family, agreement=cases.DISAGREE, order=cases.MOST_DISAGREEMENT)


def show_paper() -> None:
    """The paper's own tables, as printed."""
    paper = services.paper_table()
    if paper:
        st.subheader("Table 1: MIMIC-CXR")
        st.caption("Nazarov et al. 2022. Other data and sizes than ours; printed as in the paper.")
        known = [pair for pair in ORDER if pair in paper]
        theirs = [titles(pair) | {title: paper[pair].get(name) for name, title in PAPERS.items()} for pair in known]
        show(theirs, "Scores of the paper's twelve pairs", len(theirs), name="paper-table-1")
    for number, about in (
        ("2", "Classifiers of the 14 observations by backbone: mean ROC-AUC on validation."),
        ("3", "Reports written from the true labels as text, without any image: what perfect labels would be worth."),
    ):
        table = services.paper_rows(f"table{number}")
        if table is not None:
            st.subheader(f"Table {number}")
            st.caption(f"{about} As printed in the paper; ours is not in this folder of bundles.")
            st.dataframe(table, hide_index=True, height="content", alt=f"The paper's Table {number}")
            export(table, f"Nazarov et al. 2022, Table {number}", name=f"paper-table-{number}")


families = evaluation.families() or [services.PHANTOM]
with st.container(horizontal=True, vertical_alignment="bottom"):
    view = st.segmented_control(
        "View", VIEWS, default=VIEWS[0], required=True, key="view", bind="query-params", label_visibility="collapsed"
    )
    family = families[0] if len(families) == 1 else pick("Trained on", families, "family", families[0], width=160)
if view == VIEWS[4]:
    show_paper()
else:
    content = services.results(family)
    by_pair = {(row.get("encoder"), row.get("decoder")): row for row in content["rows"] if isinstance(row, dict)}
    rows = {pair: by_pair[pair] for pair in ORDER if pair in by_pair}
    if not rows:
        st.info(f"The evaluation has no rows yet. `cxr-lens train --preset {family}` fills it.")
        st.stop()
    names = {row["name"]: " + ".join(reversed(titles(pair).values())) for pair, row in rows.items() if "name" in row}
    if view == VIEWS[0]:
        show_table(content, rows)
    elif view == VIEWS[1]:
        show_observations(family, rows)
    elif view == VIEWS[2]:
        show_slices(family, names)
    else:
        show_two(family, names)
