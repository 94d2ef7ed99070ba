"""Parts that the views of the Results page share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from core.evaluation.metrics import titles
from core.evaluation.reports import Evaluation
from core.observations import LabelState, findings
from core.paper.tables import PRINTED
from core.registry import DECODERS, ENCODERS
from core.types import CXRLensError
from dashboard import session
from dashboard.components.asked import tell_unknown
from dashboard.components.study_cards import StudyCard, study_cards
from dashboard.plain import plain
from dashboard.services import bundles, cases, evaluations, sources, studies
from dashboard.services.evaluations import ResultSet

_FIRST = ("f1", "f1_frequent", "precision", "recall")
SCORES = titles(*dict.fromkeys((*_FIRST, *(name for name in PRINTED if name != "auc"))))
"""Scores of the paper's Table 1, the one that says most about findings first."""
MOST_CARDS = 11  # a row on a wide screen
WIDEST = 300
"""Pixels of a column of names at most."""
WIDEST_IN_SIGHT = 230
"""Of one that stays in sight: on a phone a wider one would leave no room for what scrolls beside it."""
_SHADES = ((27, 58, 92), (32, 98, 134), (64, 140, 142), (146, 178, 116), (236, 214, 110))
"""Dark to light, so that the order shows also without colour; after cividis."""


def pick(label: str, options: Sequence[str], key: str, default: str, **more: Any) -> str:
    """A choice that stands in the address."""
    shown: Callable[[str], str] = more.get("format_func", str)
    tell_unknown(key, label.lower(), map(shown, options))
    if (
        key in st.session_state and st.session_state[key] not in options
    ):  # of another evaluation, or another way to divide
        del st.session_state[key]
    index = options.index(default) if default in options else 0
    return str(st.selectbox(label, options, index=index, key=key, bind="query-params", **more))


def pick_pair(results: ResultSet, label: str, key: str, default: str, **more: Any) -> str:
    """A choice among an evaluation's models; returns the bundle's name."""
    titles = results.titles
    return pick(label, list(titles), key, default, format_func=lambda name: titles[name], width=240, **more)


def by_f1(results: ResultSet) -> list[str]:
    """Names of an evaluation's models, the one with the best macro F1 first."""
    return [row["name"] for row in sorted(results.rows.values(), key=lambda row: -row["f1"])]


def shade(value: Any) -> str:
    """Style of the cell of a score in [0, 1]: the higher, the lighter; the number in it says the same."""
    if value is None or pd.isna(value):
        return ""
    red, green, blue = _SHADES[min(int(max(float(value), 0.0) * len(_SHADES)), len(_SHADES) - 1)]
    return f"background-color: rgb({red} {green} {blue}); color: {'#10151c' if float(value) >= 0.6 else '#f0f2f5'}"


def score_table(
    content: pd.DataFrame,
    alt: str,
    *,
    shaded: Sequence[str] = (),
    digits: int = 3,
    wide: str = "",
    heads: Mapping[str, tuple[str, str]] | None = None,
    **more: Any,
) -> None:
    """A table that can be sorted by each column.

    Args:
        content: as shown.
        alt: what it shows, for who cannot see it.
        shaded: columns of scores in [0, 1].
        digits: after the point.
        wide: a column of names; it stays in sight while the others scroll, unless it is too wide for that.
        heads: column -> (head over it and its neighbours, its own short head); such columns are narrow.
        more: of ``st.dataframe``.
    """
    config: dict[str, Any] = {
        name: st.column_config.NumberColumn(short, width=82) for name, (_, short) in (heads or {}).items()
    }
    if wide:
        longest = max((len(str(value)) for value in content[wide]), default=0)
        width = min(max(175, 7 * longest + 20), WIDEST)
        config[wide] = st.column_config.TextColumn(width=width, pinned=width <= WIDEST_IN_SIGHT)
    styled_columns: list[Any] = list(shaded)
    if heads:
        groups = [(heads[name][0] if name in heads else "", name) for name in map(str, content)]
        content = content.set_axis(pd.MultiIndex.from_tuples(groups), axis="columns")
        styled_columns = [column for column in groups if column[1] in shaded]
    styled = content.style.format(precision=digits, na_rep="–")
    if styled_columns:
        styled = styled.map(shade, subset=styled_columns)
    st.dataframe(
        styled, hide_index=True, placeholder="–", column_config=config, alt=alt, **({"height": "content"} | more)
    )


def findings_line(states: Mapping[str, LabelState]) -> str:
    """Observations that are positive or uncertain, in a line."""
    return ", ".join(findings(states)) or "no abnormal finding"


def show_studies(
    results: ResultSet,
    found: Evaluation,
    indices: Sequence[int],
    notes: Sequence[str],
    pairs: Sequence[str],
    empty: str,
    *,
    key: str = "study_cards",
) -> None:
    """The first of some studies; each opens on the Read page with some pairs' reports.

    Args:
        results: whose reports.
        found: the reports.
        indices: of the studies in them.
        notes: one a study.
        pairs: names of the bundles whose reports are shown there.
        empty: what to say where there is no study.
        key: of the cards, unique on the page.
    """
    hidden = studies.kept_back()
    allowed = [pair for pair in zip(indices, notes, strict=True) if found.study_ids[pair[0]] not in hidden]
    indices, notes = [index for index, _ in allowed], [note for _, note in allowed]
    if not indices:
        st.caption(empty)
        return
    more = f"The first {MOST_CARDS} of {len(indices)}. " if len(indices) > MOST_CARDS else ""
    indices, notes = list(indices)[:MOST_CARDS], list(notes)[:MOST_CARDS]
    source_name = evaluations.source_of(results)
    try:
        known = studies.visible_studies(source_name) if source_name is not None else {}
    except CXRLensError:
        known = {}
    if not all(found.study_ids[index] in known for index in indices):
        lacking = "The images of some of these studies are not here, so they cannot be opened on the Read page."
        st.caption(f"{more}{lacking}")
        rows = zip(indices, notes, strict=True)
        listed = [
            {"Study": found.study_ids[at], "": note, "Reference": findings_line(found.truth[at])} for at, note in rows
        ]
        score_table(pd.DataFrame(listed), "Studies")
        return
    st.caption(f"{more}A picture opens its study on the Read page.")
    pictures = studies.thumbnails([found.study_ids[index] for index in indices], source_name)
    study_cards(
        [
            StudyCard(found.study_ids[index], picture, note, findings_line(found.truth[index]))
            for index, note, picture in zip(indices, notes, pictures, strict=True)
        ],
        query=read_query(results, pairs),
        key=key,
    )
    if source_name is not None and (credit := sources.source(source_name).credit):
        st.caption(f":material/copyright: {plain(credit)}")


def read_query(results: ResultSet, pairs: Sequence[str]) -> str:
    """What the Read page's address says: the source, and the systems that it shows; no pair of other encoders."""
    name = evaluations.source_of(results)
    chosen: dict[str, list[str]] = {encoder: [] for encoder in ENCODERS}
    for system, row in results.rows.items():
        if system in pairs and (pair := evaluations.pair_of(row)):
            chosen[pair[0]].append(DECODERS[pair[1]].title)
    address = [(encoder, title) for encoder, titles in chosen.items() for title in titles or [""]]
    address += [(session.BESIDE, system) for system in pairs if not evaluations.pair_of(results.rows.get(system, {}))]
    if name is not None:
        address.append((session.SOURCE, name))
        synthetic = sources.source(name).synthetic
        if (
            any(map(evaluations.pair_of, results.rows.values())) and bundles.synthetic(results.family) != synthetic
        ):  # not the models that page chooses by itself
            key = session.FAMILY if synthetic else session.REAL_FAMILY
            address.append((key, f"Models for {bundles.family_title(results.family)}"))
    return urlencode(address)


def cases_link(label: str, results: ResultSet, pairs: Sequence[str], **state: str) -> None:
    """A link to all the studies in question on the Cases page.

    Args:
        label: of the link.
        results: whose reports.
        pairs: names of bundles.
        state: ``observation``, ``outcome``, ``slice``, ``agreement``, ``order``, as that page has them.
    """
    if results.reports.is_file():
        query = cases.address(results, pairs, **state)
        st.page_link("app_pages/cases.py", label=label, icon=":material/view_list:", query_params=query)
