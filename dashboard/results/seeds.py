"""Runs side by side: seeds of the same training, and why other runs are not compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import streamlit as st

from core.evaluation.resampling import spread
from core.registry import pair_title, table_order
from dashboard import figures, settings
from dashboard.components.score_table import export
from dashboard.results.parts import SCORES, pick, table
from dashboard.runs import Run


def same_training(found: Mapping[str, Run]) -> list[list[Run]]:
    """Runs in groups that differ at most in the seed: one family, the same held-out studies.

    A run without a fingerprint of its studies is alone: nobody knows what it was scored on.
    """
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in found.values():
        fingerprint, studies = run.data
        groups[run.family, fingerprint, str(studies), "" if fingerprint else run.name].append(run)
    return list(groups.values())


def show(found: Mapping[str, Run], chosen: Run) -> None:
    """Draw the view.

    Args:
        found: all runs, by name.
        chosen: the run whose seeds are shown first.
    """
    _list(found)
    groups = same_training(found)
    group = next(each for each in groups if chosen in each)
    if len(groups) > 1:
        others = ", ".join(f"{run.name}" for each in groups if each is not group for run in each)
        st.info(
            f"Not compared with {chosen.name}: {others}. Their held-out studies or their preset are others "
            "(family, fingerprint of the data, number of studies), so a difference would say nothing about the models. "
            "Choose another run above to see its own.",
            icon=":material/info:",
        )
    score = pick("Score", list(SCORES), "score", "f1", format_func=SCORES.__getitem__, width=180)
    _show_spread(group, score)


def _list(found: Mapping[str, Run]) -> None:
    rows = []
    for run in found.values():
        scores = [row["f1"] for row in run.rows.values()]
        best = max(run.rows, key=lambda pair: run.rows[pair]["f1"])
        rows.append(
            {
                "Run": run.name,
                "Family": run.family,
                "Seed": run.seed,
                "Held-out studies": run.data[1],
                "Data": run.data[0][:8] or "not recorded",
                "Pairs": len(scores),
                "Mean of macro F1": float(np.mean(scores)),
                "Best pair": f"{pair_title(*best)} ({max(scores):.3f})",
                "Reports": "yes" if run.reports.is_file() else "no",
            }
        )
    content = pd.DataFrame(rows)
    table(content, "All runs", wide="Run")
    where = settings.runs()
    st.caption(
        "Data: the fingerprint of studies and labels. "
        + (f"Beside the bundles and below {where} (CXR_RUNS)." if where else "Beside the bundles.")
    )
    export(content, "Runs", name="runs")


def _show_spread(group: Sequence[Run], score: str) -> None:
    shared = [
        pair for pair in table_order() if all(isinstance(run.rows.get(pair, {}).get(score), float) for run in group)
    ]
    if len(group) < 2:
        st.info(
            f"There is one seed ({group[0].seed}) of {group[0].name}. What differs by the seed alone cannot be told "
            "from one: train again with `cxr-lens train --preset PRESET --set seed=2 --runs FOLDER/seed-2`, and set "
            "CXR_RUNS to FOLDER.",
            icon=":material/info:",
        )
        return
    if not shared:
        st.info(f"These runs share no pair with {SCORES[score]}.")
        return
    values = [{pair_title(*pair): run.rows[pair][score] for pair in shared} for run in group]
    spreads = spread(values)
    content = pd.DataFrame(
        [
            {"Pair": name, "Mean": each.mean, "SD": each.sd, "Worst": each.low, "Best": each.high, "Seeds": each.seeds}
            | {f"{run.name} (seed {run.seed})": seed[name] for run, seed in zip(group, values, strict=True)}
            for name, each in spreads.items()
        ]
    )
    st.subheader(f"{SCORES[score]} over {len(group)} seeds")
    repeated = len({run.seed for run in group}) < len(group) or any(run.seed == "not recorded" for run in group)
    if repeated:
        st.warning(
            "Some of these runs have the same seed, or none that is recorded: their spread may be too small.",
            icon=":material/warning:",
        )
    dots = figures.Dots(
        "mean, from the worst seed to the best",
        content["Mean"].tolist(),
        content["Worst"].tolist(),
        content["Best"].tolist(),
    )
    names = content["Pair"].tolist()
    st.plotly_chart(
        figures.score_dots(names, names, [dots], axis=SCORES[score]),
        key="seeds_chart",
        config={"displayModeBar": False},
        alt=f"{SCORES[score]} over seeds; the table below has the same numbers",
    )
    table(content, f"{SCORES[score]} over seeds", wide="Pair")
    st.caption(
        "SD: standard deviation over the seeds. The studies are the same; intervals over studies are in Table 1."
    )
    export(content, f"{SCORES[score]} over {len(group)} seeds", name="seeds")
