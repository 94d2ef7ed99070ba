"""Tables 2 and 3 and both studies: ours beside the paper's, or the paper's and how to have ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.evaluation.metrics import METRICS
from core.paper.filter_map import FilterMapError, map_path, read_map
from core.paper.tables import TABLES, PaperTable, Row, TableName, paper_numbers, read_tables
from dashboard import figures, settings
from dashboard.components.score_table import export
from dashboard.plain import code, plain, plain_message
from dashboard.results.parts import pick, score_table
from dashboard.services.evaluations import ResultSet

ALONE = "The paper's numbers alone:"
SHOWN: tuple[TableName, ...] = ("2", "3", "ccve", "encoders", "filters")
COMMANDS: dict[TableName, str] = {
    "2": "table 2",
    "3": "table 3",
    "ccve": "study ccve",
    "encoders": "study encoders",
    "filters": "study filters",
}
ABOUT: dict[TableName, str] = {
    "2": "How well image backbones learn the observations: the choice of FVE's towers.",
    "3": "Reports written from the true fine labels as text, without any image: what perfect labels would be worth.",
    "ccve": "What can be read from CCVE's 13 embeddings of a study, without any decoder.",
    "encoders": "The paper puts FVE first, then DVE, CVE, CCVE by clinical F1. Here over several training seeds, and "
    "with CLIP's batch normalisation frozen, as here, or changing, as in the published code.",
    "filters": "Does a filter of CCVE change the picture, does its embedding know more of its own observation than the "
    "others', and does what is shown of it tell whether the observation is there? Beside each: random filters that "
    "change pictures as much, and no filter at all.",
}
DRAWN: dict[TableName, str] = {"3": "f1", "filters": "presence"}
"""The score that a table's chart shows, where that is not the table's first."""


def show_tables(results: ResultSet) -> None:
    """Draw the view."""
    if not results.family or "," in results.family:
        st.info(
            "The paper's tables are of one family of pairs. Choose an evaluation of one above.", icon=":material/info:"
        )
        return
    ours, problems = read_tables(settings.result_tables(), results.family)
    for problem in problems:
        st.error(plain_message(problem), icon=":material/error:")
    titles = {TABLES[each]: each for each in SHOWN}
    first = next((each for each in SHOWN if each in ours), SHOWN[0])
    name = titles[pick("Table or study", list(titles), "paper_table", TABLES[first], width=520)]
    st.caption(ABOUT[name])
    if name in ours:
        _ours(ours[name])
    else:
        _papers(name, results)
    if name == "ccve" and (path := map_path(settings.result_tables(), results.family)).is_file():
        _filter_map(path)


def _ours(content: PaperTable) -> None:
    kinds: dict[str, list[Row]] = {}  # scores and differences of scores are rows of different kinds
    drawn = (DRAWN.get(content.name, ""), *content.metrics)
    for row in content.rows:
        kinds.setdefault(next((key for key in drawn if key in row.metrics), ""), []).append(row)
    for first, rows in kinds.items():
        _plot(content, rows, first)
        # The chart's axis has the whole titles; as heads of five columns each they would be cut off.
        order = sorted(content.metrics, key=lambda key: key != first)  # what is drawn comes first
        heads = {key: METRICS[key].head if key in METRICS else content.metrics[key] for key in order}
        score_table(_frame(rows, heads), content.title, wide="Row")
    seeds = f"{len(content.seeds)} seed{'s' * (len(content.seeds) != 1)}" if content.seeds else "seed not recorded"
    st.caption(
        f"{content.n:,} held-out studies, {seeds}. Data: {plain(content.data)} The paper's numbers are of MIMIC-CXR. "
        f"Written by {code(content.command)}."
    )
    if content.notes:
        st.caption("  \n".join(map(plain, content.notes)))
    export(_frame(content.rows, content.metrics), f"{content.title}, {content.family}", name=f"table-{content.name}")


def _frame(chosen: Sequence[Row], titles: Mapping[str, str]) -> pd.DataFrame:
    rows = []
    for row in chosen:
        cells: dict[str, Any] = {"Row": row.name if row.kind == "system" else f"{row.kind}: {row.name}"}
        for key, title in titles.items():
            metric = row.metrics.get(key)
            if metric is None:
                continue
            cells[title] = metric.value
            if metric.low is not None:
                cells |= {f"{title}, from": metric.low, f"{title}, to": metric.high}
            if metric.sd is not None:
                cells[f"{title}, SD over seeds"] = metric.sd
            if metric.paper is not None:
                cells |= {f"{title}, paper": metric.paper, f"{title}, difference": metric.difference}
        rows.append(cells | ({"Note": row.note} if row.note else {}))
    return pd.DataFrame(rows)


def _plot(content: PaperTable, rows: Sequence[Row], key: str) -> None:
    if len(rows) < 2 or not key:
        return
    title = content.metrics[key]
    cells = [row.metrics[key] for row in rows]
    names = [row.name for row in rows]
    ends = [(cell.value if end is None else end) for cell in cells for end in (cell.low, cell.high)]
    dots = [figures.Dots("ours, with its interval", [cell.value for cell in cells], ends[::2], ends[1::2])]
    if any(cell.paper is not None for cell in cells):
        papers = [np.nan if cell.paper is None else cell.paper for cell in cells]
        dots.append(figures.Dots("the paper's", papers))
    st.plotly_chart(
        figures.score_dots(names, names, dots, axis=title),
        key=f"table_chart_{content.name}_{key}",
        config={"displayModeBar": False},
        alt=f"{content.title}: {title}; the table below has the same numbers",
    )


def _filter_map(path: Path) -> None:
    """Figure 4: does a study's filter show in its embedding, and would it without training?"""
    try:
        content = read_map(path)
    except FilterMapError as error:
        st.error(plain_message(error), icon=":material/error:")
        return
    ids = [study for study in content.studies for _ in content.filters]
    groups = list(content.filters) * len(content.studies)
    st.markdown(f"**t-SNE of 13 embeddings of each of {len(content.studies)} held-out studies (paper's Figure 4)**")
    halves = {"trained": ("CCVE", content.trained), "random": ("Untrained filters (control)", content.random_filters)}
    for column, (key, (title, points)) in zip(st.columns(2), halves.items(), strict=True):
        column.caption(title)
        column.plotly_chart(
            figures.scatter_map(
                points.reshape(-1, 2).astype(np.float32),
                ids,
                [f"{study}<br>{group}" for study, group in zip(ids, groups, strict=True)],
                groups,
                order=content.filters,
                axes=("", ""),
                picked=(),
                here=None,
                here_name="",
                height=440,
            ),
            key=f"filter_map_{key}",
            config={"displayModeBar": False},
            alt=f"{title}: t-SNE, a colour a filter",
        )
    used = ", ".join(f"{name} {value}" for name, value in content.settings.items())
    st.caption(
        f"{used}. A point is a study through one filter. Groups by filter mean something only as far as they differ "
        "from the control's: differently filtered images differ without any training."
    )


def _papers(name: TableName, results: ResultSet) -> None:
    numbers = paper_numbers(settings.paper_tables(), name)
    st.info(
        f"There is no such table yet. `cxr-lens {COMMANDS[name]} --preset {results.family}` makes it from "
        f"the data. {ALONE if numbers else ''}",
        icon=":material/info:",
    )
    if not numbers:
        return
    rows = [
        {"Row": ", ".join(key)} | {METRICS[metric].head: value for metric, value in values.items()}
        for key, values in numbers.items()
    ]
    content = pd.DataFrame(rows)
    score_table(content, f"The paper's numbers of {TABLES[name]}", wide="Row")
    export(content, f"Nazarov et al. 2022, {TABLES[name]} (MIMIC-CXR)", name=f"paper-table-{name}")
