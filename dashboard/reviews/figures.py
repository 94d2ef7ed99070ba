"""Figures of a session's results: data to plotly. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from core.reviews.agreement import Estimate

BLUE = "#4a90c2"
# Okabe and Ito; the symbol says the same as the colour.
_READERS = (
    ("#e69f00", "circle"),
    ("#56b4e9", "square"),
    ("#009e73", "diamond"),
    ("#cc79a7", "cross"),
    ("#f0e442", "x"),
)


def forest(rows: Sequence[tuple[str, Estimate]], title: str, *, neutral: float | None = None) -> go.Figure:
    """Draw numbers with their intervals, one above the other.

    Args:
        rows: name and number, the first on top; NaN is left out.
        title: of the axis.
        neutral: where a line is drawn that means "no difference"; None for none.
    """
    rows = [(name, each) for name, each in rows if not math.isnan(each.value)]

    def reach(value: float, end: float) -> float:
        return 0.0 if math.isnan(end) else abs(end - value)

    figure = go.Figure()
    figure.add_scatter(
        x=[each.value for _, each in rows],
        y=[name for name, _ in rows],
        mode="markers",
        marker={"size": 10, "color": BLUE},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [reach(each.value, each.high) for _, each in rows],
            "arrayminus": [reach(each.value, each.low) for _, each in rows],
            "color": BLUE,
        },
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
    )
    if neutral is not None:
        figure.add_vline(x=neutral, line={"dash": "dot", "width": 1, "color": "#8a939c"})
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title=title)
    figure.update_layout(height=90 + 34 * max(len(rows), 1), margin={"l": 10, "r": 20, "t": 10, "b": 40})
    return figure


def drift(series: Mapping[str, Sequence[float]], title: str) -> go.Figure:
    """Draw a quantity of each reader in the order in which screens were finished.

    Args:
        series: values by reader; NaN leaves a gap.
        title: of the quantity.
    """
    figure = go.Figure()
    for index, (reader, values) in enumerate(series.items()):
        colour, symbol = _READERS[index % len(_READERS)]
        figure.add_scatter(
            x=list(range(1, len(values) + 1)),
            y=list(values),
            name=reader,
            mode="lines+markers",
            line={"color": colour, "width": 1},
            marker={"symbol": symbol, "color": colour, "size": 8},
        )
    figure.update_xaxes(title="Case, in the order of finishing")
    figure.update_yaxes(title=title, rangemode="tozero")
    figure.update_layout(
        height=280, margin={"l": 10, "r": 10, "t": 10, "b": 40}, legend={"orientation": "h", "y": 1.15}
    )
    return figure
