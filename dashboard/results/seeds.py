"""Runs side by side: seeds of the same training, and why other runs are not compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import streamlit as st

from core.evaluation.resampling import spread
from dashboard import figures, settings
from dashboard.components.score_table import export
from dashboard.results.parts import SCORES, pick, score_table
from dashboard.services import bundles
from dashboard.services.evaluations import ResultSet


def same_training(found: Mapping[str, ResultSet]) -> list[list[ResultSet]]:
    """Runs in groups that differ at most in the seed: one family, the same held-out studies.

    One without a fingerprint of its studies is alone: nobody knows what it was scored on.
    """
    groups: dict[tuple[str, ...], list[ResultSet]] = defaultdict(list)
    for results in found.values():
        fingerprint, studies = results.data
        groups[results.family, fingerprint, str(studies), "" if fingerprint else results.name].append(results)
    return list(groups.values())


def show_seeds(found: Mapping[str, ResultSet], chosen: ResultSet) -> None:
    """Draw the view.

    Args:
        found: all runs, by name.
        chosen: the run whose seeds are shown first.
    """
    _list(found)
    groups = same_training(found)
    group = next(each for each in groups if chosen in each)
    if len(groups) > 1:
        others = ", ".join(results.title for each in groups if each is not group for results in each)
        st.caption(
            f":material/info: Not compared with {chosen.title}: {others}. They have other held-out studies or another "
            "preset (family, fingerprint of the data, number of studies), so a difference would say nothing about the "
            "models. Choose another run above to see what it can be compared with."
        )
    score = pick("Score", list(SCORES), "score", "f1", format_func=SCORES.__getitem__, width=180)
    _show_spread(group, score)


def _list(found: Mapping[str, ResultSet]) -> None:
    rows = []
    for results in found.values():
        scores = [row["f1"] for row in results.rows.values()]
        best = max(results.rows, key=lambda name: results.rows[name]["f1"])
        rows.append(
            {
                "Run": results.title,
                "Learned from": bundles.family_title(results.family),
                "Seed": results.seed,
                "Held-out studies": results.data[1],
                "Data": results.data[0][:8] or "not recorded",
                "Models": len(scores),
                "Mean of macro F1": float(np.mean(scores)),
                "Highest macro F1": f"{results.titles[best]} ({max(scores):.3f})",
                "Reports": "yes" if results.reports.is_file() else "no",
            }
        )
    content = pd.DataFrame(rows)
    score_table(content, "All runs", wide="Run")
    where = settings.runs()
    st.caption(
        "Data: fingerprint of studies and labels. "
        + ("Beside the models and in the folder of runs (`CXR_RUNS`)." if where else "Beside the models.")
    )
    export(content, "Runs", name="runs")


def _show_spread(group: Sequence[ResultSet], score: str) -> None:
    shared = [
        name
        for name in group[0].rows
        if all(isinstance(results.rows.get(name, {}).get(score), float) for results in group)
    ]
    if len(group) < 2:
        st.info(
            f"There is one seed ({group[0].seed}) of {group[0].title}. One seed does not show how much scores vary by "
            "chance of training: train again with `cxr-lens train --preset PRESET --set seed=2 --runs FOLDER/seed-2`, "
            "and set CXR_RUNS to FOLDER.",
            icon=":material/info:",
        )
        return
    if not shared:
        st.info(f"These runs have no model in common with {SCORES[score]}.")
        return
    titles = group[0].titles
    values = [{titles[name]: results.rows[name][score] for name in shared} for results in group]
    spreads = spread(values)
    content = pd.DataFrame(
        [
            {"Model": name, "Mean": each.mean, "SD": each.sd, "Worst": each.low, "Best": each.high, "Seeds": each.seeds}
            | {
                f"{results.title} (seed {results.seed})": seed[name]
                for results, seed in zip(group, values, strict=True)
            }
            for name, each in spreads.items()
        ]
    )
    st.header(f"{SCORES[score]} over {len(group)} seeds")
    repeated = len({results.seed for results in group}) < len(group) or any(
        results.seed == "not recorded" for results in group
    )
    if repeated:
        st.warning(
            "Some of these runs have the same seed, or no recorded one: the spread may look too small.",
            icon=":material/warning:",
        )
    dots = figures.Dots(
        "mean, from the worst seed to the best",
        content["Mean"].tolist(),
        content["Worst"].tolist(),
        content["Best"].tolist(),
    )
    names = content["Model"].tolist()
    st.plotly_chart(
        figures.score_dots(names, names, [dots], axis=SCORES[score]),
        key="seeds_chart",
        config={"displayModeBar": False},
        alt=f"{SCORES[score]} over seeds; the table below has the same numbers",
    )
    score_table(content, f"{SCORES[score]} over seeds", wide="Model")
    st.caption(
        "SD: standard deviation over the seeds. The studies are the same; intervals over studies are in Table 1."
    )
    export(content, f"{SCORES[score]} over {len(group)} seeds", name="seeds")
