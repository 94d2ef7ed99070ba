"""Data to plotly figures. Pure: no state, no files."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from core.evaluation.trust_outcomes import Point

# Okabe and Ito, in tones that show on the dark and the light page; the symbol says the same as the colour.
_GROUPS = {
    "present": ("#e69f00", "circle"),
    "uncertain": ("#cc79a7", "diamond"),
    "not present": ("#4a90c2", "circle-open"),
}


# Okabe and Ito's eight. Seven symbols: beside eight colours, 56 groups differ, and neighbours differ in both.
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#8a8f98")
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "circle-open", "square-open")
_OUTCOMES = {
    "found": ("#009e73", "circle"),
    "missed": ("#e69f00", "square-open"),
    "invented": ("#cc79a7", "cross"),
    "opposite": ("#d55e00", "x"),
    "neither says it": ("#8a8f98", "circle-open"),
}
_FIXED = {**_GROUPS, **_OUTCOMES}
_HERE = "#d55e00"
MOST_SVG = 1_000
"""Points that are drawn as SVG, which needs no graphics processor; more are drawn by WebGL."""


def scatter_map(
    coordinates: npt.NDArray[np.float32],
    study_ids: Sequence[str],
    texts: Sequence[str],
    groups: Sequence[str],
    *,
    order: Sequence[str],
    axes: Sequence[str],
    picked: Collection[str],
    here: npt.NDArray[np.float32] | None,
    here_name: str,
    joined: bool = True,
    height: int,
) -> go.Figure:
    """Draw a map whose points can be chosen with a lasso or a box.

    Args:
        coordinates: (n, 2 or 3).
        study_ids: n; go with the points as ``customdata``.
        texts: n, shown when pointed at.
        groups: n; colour and symbol.
        order: of the groups, for the legend; colours follow it, so that two maps agree.
        axes: titles, one a dimension.
        picked: studies that are chosen; the others are dimmed. Empty for no choice.
        here: (m, 2 or 3), the points of the open study: one is marked by a large cross, several by small ones.
        here_name: of the open study.
        joined: whether a line joins several.
        height: pixels.
    """
    figure = go.Figure()
    solid = coordinates.shape[1] == 3
    kind = go.Scatter3d if solid else go.Scatter if len(coordinates) <= MOST_SVG else go.Scattergl
    ids, text, group = np.asarray(study_ids), np.asarray(texts), np.asarray(groups)
    chosen = np.isin(ids, list(picked))
    size = 7 if len(coordinates) <= MOST_SVG else 5 if len(coordinates) <= 10 * MOST_SVG else 4
    for place, name in enumerate(order):
        rows = np.flatnonzero(group == name)
        if not len(rows):
            continue
        colour, symbol = _FIXED.get(name, (_COLOURS[place % len(_COLOURS)], _SYMBOLS[place % len(_SYMBOLS)]))
        trace: dict[str, Any] = {
            "mode": "markers",
            "name": f"{name} ({len(rows):,})",
            "text": text[rows],
            "customdata": ids[rows],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"size": 3.5 if solid else size, "color": colour, "symbol": symbol, "opacity": 0.85},
        }
        if not solid:
            trace["unselected"] = {"marker": {"opacity": 0.12}}
            if picked:
                trace["selectedpoints"] = np.flatnonzero(chosen[rows]).tolist()
        figure.add_trace(kind(**_by_axis(coordinates[rows]), **trace))
    if here is not None and len(here):
        several = len(here) > 1
        marker: dict[str, Any] = {"color": _HERE, "size": 7 if solid else 9 if several else 16, "symbol": "x"}
        if kind is go.Scatter:
            marker |= {"symbol": "x-thin", "line": {"width": 3.5, "color": _HERE}}
        figure.add_trace(
            kind(
                **_by_axis(here),
                mode="lines+markers" if several and joined else "markers",
                name=f"{here_name}, {len(here)} points" if several else here_name,
                line={"width": 1.5, "color": _HERE},
                marker=marker,
                hoverinfo="name",
            )
        )
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        legend={"orientation": "h", "yanchor": "top", "y": -0.1, "x": 0, "itemsizing": "constant"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode="orbit" if solid else "lasso",
    )
    plain = {"showgrid": solid, "gridcolor": "#8a8f9855", "zeroline": False, "showticklabels": False, "ticks": ""}
    titled = [plain | {"title": {"text": title, "font": {"size": 12}}} for title in axes]
    if solid:
        figure.update_layout(scene=dict(zip(("xaxis", "yaxis", "zaxis"), titled, strict=True)))
    else:
        figure.update_layout(xaxis=titled[0], yaxis=titled[1])
    return figure


def _by_axis(coordinates: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    return dict(zip("xyz", coordinates.T, strict=False))


def frequency_response(trained: npt.NDArray[np.float32], control: npt.NDArray[np.float32], *, height: int) -> go.Figure:
    """Draw how strongly a filter passes coarse and fine detail, beside an untrained one.

    Args:
        trained: (F,), gains from even grey to half a cycle a pixel.
        control: (F,), of the untrained filter.
        height: pixels.
    """
    figure = go.Figure()
    frequencies = np.linspace(0, 0.5, len(trained))
    for name, gains, line in (
        ("trained", trained, {"color": _COLOURS[0], "width": 2.5}),
        ("untrained", control, {"color": _COLOURS[-1], "width": 2, "dash": "dash"}),
    ):
        figure.add_scatter(x=frequencies, y=gains, mode="lines", name=name, line=line)
    figure.add_hline(y=1, line={"color": "#8a8f98", "width": 1, "dash": "dot"}, annotation_text="unchanged")
    top = max(1.5, float(max(trained.max(), control.max())) * 1.1)
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis={"title": "Detail, coarse to fine (cycles per pixel)", "showgrid": False, "zeroline": False},
        yaxis={"title": "Passed on (1 = unchanged)", "range": [0, top], "zeroline": False},
    )
    return figure


@dataclass(frozen=True, slots=True)
class Dots:
    """One system's scores, n of them.

    Attributes:
        name: for the legend.
        values: n.
        low: lower ends of their intervals; None for no intervals.
        high: upper ends.
    """

    name: str
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


_SERIES = (("#56b4e9", "circle"), ("#e69f00", "diamond-open"), ("#009e73", "square"))


def score_dots(
    names: Sequence[str],
    keys: Sequence[str],
    series: Sequence[Dots],
    *,
    axis: str,
    line: float | None = None,
    line_name: str = "",
) -> go.Figure:
    """Draw scores with their intervals, a row each, the first at the top.

    Args:
        names: n, of the rows; each once.
        keys: n; go with the points as ``customdata``.
        series: at most three, each with its colour and symbol.
        axis: title of the scores' axis.
        line: a score to compare with.
        line_name: what it is.
    """
    figure = go.Figure()
    for (colour, symbol), dots in zip(_SERIES, series, strict=False):
        values = np.asarray(dots.values, dtype=float)
        error = None
        if dots.low is not None and dots.high is not None:
            error = {
                "type": "data",
                "symmetric": False,
                "array": np.asarray(dots.high) - values,
                "arrayminus": values - np.asarray(dots.low),
                "thickness": 1.5,
                "width": 4,
            }
        figure.add_scatter(
            x=values,
            y=list(names),
            mode="markers",
            name=dots.name,
            customdata=list(keys),
            error_x=error,
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
            marker={"size": 10, "color": colour, "symbol": symbol, "line": {"width": 1.5, "color": colour}},
        )
    if line is not None:
        figure.add_vline(x=line, line={"dash": "dash", "width": 1, "color": "#8a8f98"}, annotation_text=line_name)
    rows = [_lines(name) for name in names]
    tallest = max((row.count("<br>") for row in rows), default=0) + 1
    figure.update_layout(
        height=96 + max(27, 8 + 16 * tallest) * len(rows),
        margin={"l": 8, "r": 8, "t": 30, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
        showlegend=len(series) > 1 or line is None,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode=False,
        xaxis={"title": {"text": _lines(axis), "font": {"size": 12}}, "fixedrange": True, "gridcolor": "#29313a"},
        yaxis={
            "autorange": "reversed",
            "automargin": True,
            "fixedrange": True,
            "showgrid": False,
            "tickvals": list(names),
            "ticktext": rows,
        },
    )
    return figure


@dataclass(frozen=True, slots=True)
class Rise:
    """A detection curve of `detection_curves`.

    Attributes:
        name: for the legend.
        extents: of the points, rising; the first is 0.
        shares: of reports, 0 to 1, one a point.
        smooth: the fitted curve, (x, y).
    """

    name: str
    extents: Sequence[float]
    shares: Sequence[float]
    smooth: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def detection_curves(rises: Sequence[Rise], *, here: float | None, height: int) -> go.Figure:
    """Draw how the share of reports that mention a finding rises with its extent.

    Args:
        rises: a curve a system.
        here: extent of the film that is shown; marked.
        height: pixels.
    """
    figure = go.Figure()
    for place, rise in enumerate(rises):
        colour, symbol = _COLOURS[place % len(_COLOURS)], _SYMBOLS[place % len(_SYMBOLS)]
        about = "%{fullData.name}<br>extent %{x:.2f}: %{y:.0%}<extra></extra>"
        figure.add_scatter(
            x=list(rise.extents),
            y=list(rise.shares),
            mode="markers",
            name=rise.name,
            legendgroup=rise.name,
            hovertemplate=about,
            marker={"size": 7, "color": colour, "symbol": symbol},
        )
        x, y = rise.smooth
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            legendgroup=rise.name,
            showlegend=False,
            hoverinfo="skip",
            line={"width": 2, "color": colour},
        )
    figure.add_hline(y=0.5, line={"dash": "dot", "width": 1, "color": "#8a8f98"})
    if here is not None:
        side = "top left" if here > 0.5 else "top right"  # of the line, so that the words stay within the frame
        line = {"dash": "dash", "width": 1, "color": _HERE}
        figure.add_vline(x=here, line=line, annotation_text="this film", annotation_position=side)
    axis = {"fixedrange": True, "gridcolor": "#29313a"}
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 24, "b": 8},
        legend={"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode=False,
        xaxis={
            "title": {"text": "Extent: 0 nothing, 1 as bad as it gets", "font": {"size": 12}},
            "range": [-0.03, 1.03],
            **axis,
        },
        yaxis={
            "title": {"text": "Reports that mention it", "font": {"size": 12}},
            "range": [-0.03, 1.03],
            "tickformat": ".0%",
            **axis,
        },
    )
    return figure


def risk_curves(curves: Sequence[tuple[str, Sequence[Point]]], *, limit: float) -> go.Figure:
    """Draw how many of the sentences that are kept are wrong, the surest kept first, with bands of their intervals.

    Args:
        curves: (name, points), the shares rising.
        limit: share of wrong ones that is allowed among marked sentences; a line.
    """
    figure = go.Figure()
    for place, (name, points) in enumerate(curves):
        colour = _COLOURS[place % len(_COLOURS)]
        shares = [each.share for each in points]
        figure.add_scatter(
            x=[*shares, *reversed(shares)],
            y=[*(each.high for each in points), *(each.low for each in reversed(points))],
            fill="toself",
            fillcolor=colour,
            opacity=0.15,
            line={"width": 0},
            mode="lines",
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=shares,
            y=[each.error for each in points],
            name=name,
            legendgroup=name,
            mode="lines+markers",
            hovertemplate="%{fullData.name}<br>the surest %{x:.0%}: %{y:.1%} wrong<extra></extra>",
            marker={"size": 7, "symbol": _SYMBOLS[place % len(_SYMBOLS)]},
            line={"width": 2, "color": colour},
        )
    figure.add_hline(y=limit, line={"dash": "dash", "width": 1, "color": "#8a8f98"})
    axis = {"fixedrange": True, "gridcolor": "#29313a", "tickformat": ".0%"}
    figure.update_layout(
        height=340,
        margin={"l": 8, "r": 8, "t": 24, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode=False,
        xaxis={"title": {"text": "Sentences kept, the surest first", "font": {"size": 12}}, "range": [0, 1.02], **axis},
        yaxis={"title": {"text": "Of these, wrong", "font": {"size": 12}}, "rangemode": "tozero", **axis},
    )
    return figure


def _lines(text: str) -> str:
    """A long name in lines: a phone has no room for it beside the points."""
    return "<br>".join(textwrap.wrap(text, 28))
