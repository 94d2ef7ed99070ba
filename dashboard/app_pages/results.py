"""Results: scores of the bundles beside the paper's Table 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.labels.observations import OBSERVATIONS
from core.registry import DECODERS, ENCODERS
from dashboard import services

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


def show(rows: Sequence[Mapping[str, Any]], alt: str, pairs: int) -> None:
    """A table of scores, the best of the first ``pairs`` rows bold in each column."""
    table = pd.DataFrame(rows)
    scores = [name for name in COLUMNS if name in table and table[name].notna().any()]
    ranked = [name for name in scores if name not in UNRANKED]
    best = table[ranked].head(pairs).max()
    styled = table[["Decoder", "Encoder", *scores]].style.format(precision=3, na_rep="–")
    for name in ranked:
        bold = (table[name] == best[name]) & (table[name] > 0) & (table.index < pairs)
        styled = styled.set_properties(subset=pd.IndexSlice[bold[bold].index, name], **{"font-weight": "700"})
    st.dataframe(
        styled,
        hide_index=True,
        height="content",
        placeholder="–",
        column_config={"Decoder": st.column_config.TextColumn(width=170, pinned=True)},
        alt=alt,
    )


content = services.results()
rows = {(row.get("encoder"), row.get("decoder")): row for row in content["rows"] if isinstance(row, dict)}
pairs = [pair for pair in ORDER if pair in rows]
if not pairs:
    st.info("The evaluation has no rows yet. `cxr-lens evaluate --preset phantom` fills it.")
    st.stop()

st.subheader("Ours: demo bundles on held-out phantoms")
st.caption(
    "Tiny models trained on synthetic phantoms. Compare these rows with each other and with the baselines, "
    "not with the paper's numbers, which are of other data and larger models. The best pair of each column is bold."
)
ours = [titles(pair) | scores_of(rows[pair]) for pair in pairs]
baselines = [
    {"Decoder": str(each.get("name", "")), "Encoder": "baseline"} | scores_of(each)
    for each in content.get("baselines") or []
]
show([*ours, *baselines], "Scores of our twelve pairs and of the baselines", len(ours))
about = [f"{content['studies']} held-out studies." if "studies" in content else "", str(content.get("protocol", ""))]
st.caption(" ".join(part for part in about if part))
st.caption(f"Written by `{content.get('command', 'an unnamed command')}`.")

paper = services.paper_table()
if paper:
    st.subheader("The paper's Table 1: MIMIC-CXR")
    st.caption("Nazarov et al. 2022. Other data and sizes than ours; printed as in the paper.")
    known = [pair for pair in ORDER if pair in paper]
    theirs = [titles(pair) | {title: paper[pair].get(name) for name, title in PAPERS.items()} for pair in known]
    show(theirs, "Scores of the paper's twelve pairs", len(theirs))

# Precision, recall, F1 and number of positive studies by observation.
observed = {pair: rows[pair]["by_observation"] for pair in pairs if rows[pair].get("by_observation")}
if observed:
    st.subheader("F1 by observation")
    st.caption("Studies: how many of the held-out studies have the finding. Below about 20, F1 says little.")
    first = next(iter(observed.values()))
    table = pd.DataFrame(
        [
            {"Observation": name, "Studies": first[name][3]}
            | {" + ".join(reversed(titles(pair).values())): scores[name][2] for pair, scores in observed.items()}
            for name in OBSERVATIONS
            if name in first
        ]
    )
    st.dataframe(
        table.style.format(precision=2, na_rep="–"), hide_index=True, height="content", alt="F1 by observation"
    )
