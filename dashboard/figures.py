"""Data to plotly figures. Pure: no state, no files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

# Okabe and Ito, in tones that show on the dark and the light page; the symbol says the same as the colour.
_GROUPS = {
    "present": ("#e69f00", "circle"),
    "uncertain": ("#cc79a7", "diamond"),
    "not present": ("#4a90c2", "circle-open"),
}


def study_map(
    points: npt.NDArray[np.float32],
    names: Sequence[str],
    groups: Sequence[str],
    *,
    finding: str,
    here: npt.NDArray[np.float32] | None,
    here_name: str,
    explained: tuple[float, float],
    height: int,
) -> go.Figure:
    """Draw studies on a plane.

    Args:
        points: (n, 2).
        names: n, shown when pointed at.
        groups: n, each "present", "uncertain" or "not present".
        finding: what the groups are about.
        here: (2,), the open study, marked by a cross; None for none.
        here_name: of the open study.
        explained: share of the variance on each axis.
        height: pixels.
    """
    figure = go.Figure()
    group = np.asarray(groups)
    label = np.asarray(names)
    for name, (colour, symbol) in _GROUPS.items():
        chosen = group == name
        if not chosen.any():
            continue
        figure.add_scatter(
            x=points[chosen, 0],
            y=points[chosen, 1],
            mode="markers",
            name=f"{finding}: {name}",
            text=label[chosen],
            customdata=label[chosen],
            hovertemplate="%{text}<extra></extra>",
            marker={"size": 7, "color": colour, "symbol": symbol, "opacity": 0.8, "line": {"width": 1}},
        )
    if here is not None:
        figure.add_scatter(
            x=[here[0]],
            y=[here[1]],
            mode="markers+text",
            name="this study",
            text=["this study"],
            textposition="top center",
            textfont={"size": 13},
            hovertext=[here_name],
            hoverinfo="text",
            marker={"size": 18, "symbol": "x-thin", "color": "#d55e00", "line": {"width": 4, "color": "#d55e00"}},
        )
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode="pan",
    )
    for axis, share, number in (("xaxis", explained[0], 1), ("yaxis", explained[1], 2)):
        figure.update_layout(
            {
                axis: {
                    "title": {"text": f"PC {number} ({share:.0%} of variance)", "font": {"size": 12}},
                    "showgrid": False,
                    "zeroline": False,
                    "showticklabels": False,
                    "ticks": "",
                }
            }
        )
    return figure
