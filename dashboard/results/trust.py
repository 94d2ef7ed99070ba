"""Which sentences to trust: how often a pair's are wrong, the surest first, and what the mark of Read means."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.evaluation.trust import Kind
from core.evaluation.trust_files import Trust
from core.types import CXRLensError
from dashboard import figures
from dashboard.components.score_table import export
from dashboard.plain import plain, plain_message
from dashboard.results.parts import pick, score_table
from dashboard.services import bundles, evaluations, sentence_trust
from dashboard.services.evaluations import ResultSet

KINDS = {
    Kind.PRESENT.value: "Say that a finding is present",
    Kind.ABSENT.value: "Say that findings are absent",
    "all": "All of these",
}
WAYS = {
    True: "With the other models' reports",
    False: "Of this model's report alone",
}


def show_trust(results: ResultSet) -> None:
    """Draw the view."""
    try:
        family = sentence_trust.of_family(results.family)
    except CXRLensError as error:
        st.error(plain_message(bundles.without_folder(str(error))), icon=":material/error:")
        return
    measured = [name for name in results.rows if family is not None and family.pairs.get(name)]
    if family is None or not measured:
        st.info(
            "Which sentences of a report can be trusted was not measured for these models. "
            "`cxr-lens trust --preset NAME` measures it."
        )
        return
    name = pick("Model", measured, "of", measured[0], format_func=results.titles.__getitem__, width=300)
    ways = {"agreement" in each.rule.scores: each for each in family.pairs[name]}
    told = [WAYS[each] for each in ways]
    chosen = pick("Scores used", told, "trust_scores", told[0], width=300) if len(told) > 1 else told[0]
    trust = next(each for agreement, each in ways.items() if WAYS[agreement] == chosen)
    title = results.titles[name]
    panel = [evaluations.title_of(each) for each in family.panel if each != name]
    _curves(trust, title)
    _table(trust, title, results.title)
    _about(trust, panel if chosen == WAYS[True] else [])


def _curves(trust: Trust, title: str) -> None:
    st.markdown(f"**How often sentences of {plain(title)} are wrong, the surest first**")
    st.plotly_chart(
        figures.risk_curves(
            [(KINDS[kind], points) for kind, points in trust.curves.items() if kind in KINDS and points],
            limit=trust.rule.alpha,
        ),
        key="trust_curve",
        config={"displayModeBar": False},
        alt=f"Share of wrong sentences of {title} among the surest so many; the table below says where marks begin",
    )
    st.caption(
        "Sentences are put in order by what speaks for them. Read from the left: of the surest tenth of the sentences, "
        "so many are wrong; far right, of all of them. Bands: 95 % intervals, over patients. The dashed line is the "
        f"limit of the marks on Read: {trust.rule.alpha:.0%}. Measured on test films, which played no part in setting "
        "the marks."
    )


def _table(trust: Trust, title: str, name: str) -> None:
    rows = []
    for kind in KINDS:
        found = trust.found[kind]
        rows.append(
            {
                "Sentences that": KINDS[kind],
                "Sentences": found.sentences,
                "Wrong": found.all_wrong / found.sentences if found.sentences else None,
                "Marked": found.marked,
                "Wrong, of marked": found.error if found.marked else None,
                "From": found.low if found.marked else None,
                "To": found.high if found.marked else None,
            }
        )
    content = pd.DataFrame(rows)
    st.markdown("**What the mark did on test films**")
    score_table(content, f"Marked sentences of {title}", digits=3, wide="Sentences that")
    export(content, f"Marked sentences of {title}, {name}", name="trust")


def _about(trust: Trust, panel: list[str]) -> None:
    limits = {kind: trust.rule.limits[kind] for kind in Kind}
    without = [KINDS[kind.value].lower() for kind, limit in limits.items() if not limit.marked]
    sentences = sum(limit.sentences for limit in limits.values())
    st.caption(
        f"A sentence is wrong when a finding that it says is present or absent is not so in the film's reference; what "
        "the reference does not mention counts as absent, what may be there as present. Sentences that say nothing of "
        "this kind are left out, and films that get a warning. The mark was set with "
        f"{sentences:,} sentences of validation films, so that with a probability of {trust.rule.confidence:.0%} at "
        f"most {trust.rule.alpha:.0%} of marked sentences are wrong on films like those; on others, nobody knows."
        + (f" No limit could be shown for sentences that {' or '.join(without)}: they get no mark." if without else "")
        + (f" The other models: {', '.join(panel)}." if panel else "")
    )
