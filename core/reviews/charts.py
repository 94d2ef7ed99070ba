"""Charts of a report as inline SVG: no script, nothing loaded, and every number is in the text beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from core.reviews.agreement import Estimate

WIDTH, LEFT, ROW = 760, 260, 28
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Okabe and Ito, for readers who do not tell red from green."""


def forest(rows: Sequence[tuple[str, Estimate]], axis: str, *, neutral: float | None = None, log: bool = False) -> str:
    """Draw numbers with their intervals, one above the other.

    Args:
        rows: label and number, the first on top; what is not a number is left out.
        axis: what the numbers are.
        neutral: where a line means "no difference".
        log: ratios, on a logarithmic axis.
    """
    rows = [(label, each) for label, each in rows if math.isfinite(each.value) and (each.value > 0 or not log)]
    if not rows:
        return ""

    def place(value: float) -> float:
        return math.log(value) if log else value

    ends = [place(end) for _, each in rows for end in (each.value, each.low, each.high) if math.isfinite(end)]
    if neutral is not None:
        ends.append(place(neutral))
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.06 or max(abs(low) * 0.1, 0.1)
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return LEFT + (place(value) - low) / (high - low) * (WIDTH - LEFT - 20)

    parts = []
    bottom = 8 + ROW * len(rows)
    for tick in _ticks(low, high, log):
        parts.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{bottom}" stroke="#e3e6ea"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    if neutral is not None:
        parts.append(
            f'<line x1="{x(neutral):.1f}" x2="{x(neutral):.1f}" y1="4" y2="{bottom}" stroke="#5a6068" '
            'stroke-dasharray="4 3"/>'
        )
    for index, (label, each) in enumerate(rows):
        y = 8 + ROW * index + ROW / 2
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{_short(label)}</text>')
        if math.isfinite(each.low) and math.isfinite(each.high):
            parts.append(
                f'<line x1="{x(each.low):.1f}" x2="{x(each.high):.1f}" y1="{y:.1f}" y2="{y:.1f}" '
                f'stroke="{COLOURS[0]}" stroke-width="2"/>'
            )
        parts.append(f'<circle cx="{x(each.value):.1f}" cy="{y:.1f}" r="5" fill="{COLOURS[0]}"/>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{bottom + 36}" text-anchor="middle">{escape(axis)}</text>')
    return _svg(parts, bottom + 44, axis)


def shares(rows: Sequence[tuple[str, Sequence[int]]], answers: Sequence[str], axis: str) -> str:
    """Draw how often each answer was given, a bar of parts for each label; numbers stand in the parts."""
    rows = [(label, counts) for label, counts in rows if sum(counts)]
    if not rows:
        return ""
    parts, bottom = [], 8 + ROW * len(rows)
    width = WIDTH - LEFT - 20
    for index, (label, counts) in enumerate(rows):
        y, start = 8 + ROW * index + 4, float(LEFT)
        parts.append(f'<text x="{LEFT - 12}" y="{y + 14}" text-anchor="end">{_short(label)}</text>')
        for number, count in enumerate(counts):
            wide = width * count / sum(counts)
            colour = COLOURS[number % len(COLOURS)]
            parts.append(f'<rect x="{start:.1f}" y="{y}" width="{wide:.1f}" height="{ROW - 8}" fill="{colour}"/>')
            if wide > 24:
                parts.append(
                    f'<text x="{start + wide / 2:.1f}" y="{y + 15}" text-anchor="middle" font-weight="bold" '
                    f'fill="#fff" stroke="#1c1e21" stroke-width="3" paint-order="stroke">{count}</text>'
                )
            start += wide
    return _svg([*parts, *_legend(answers, bottom + 8)], bottom + 34, axis)


def course(series: Mapping[str, Sequence[float]], axis: str) -> str:
    """Draw a quantity of each reader in the order of finishing, each reader a line."""
    series = {name: [value for value in values if math.isfinite(value)] for name, values in series.items()}
    series = {name: values for name, values in series.items() if len(values) > 1}
    if not series:
        return ""
    top = max(max(values) for values in series.values()) or 1.0
    length = max(len(values) for values in series.values()) - 1
    left, height = 60, 180

    def y(value: float) -> float:
        return 10 + height * (1 - value / top)

    parts = []
    for tick in _ticks(0, top, False):
        parts.append(f'<line x1="{left}" x2="{WIDTH - 20}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#e3e6ea"/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for number, values in enumerate(series.values()):
        points = " ".join(
            f"{left + index / length * (WIDTH - 20 - left):.1f},{y(value):.1f}" for index, value in enumerate(values)
        )
        dash = ("", "6 3", "2 3")[number // len(COLOURS) % 3]
        colour = COLOURS[number % len(COLOURS)]
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="{dash}"/>'
        )
    return _svg([*parts, *_legend(list(series), height + 22)], height + 48, axis)


def _legend(names: Sequence[str], y: float) -> list[str]:
    """Colours and what they mean, in one row."""
    parts, x = [], 60.0
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="{x:.0f}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18:.0f}" y="{y + 11}">{_short(name, 24)}</text>')
        x += 40 + 7.5 * min(len(name), 24)
    return parts


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """A few round numbers of an axis; of a logarithmic one the ends are logarithms."""
    if log:
        low, high = math.exp(low), math.exp(high)
        if high / low > 4:
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            steps = (1, 2, 5) if len(decades) < 5 else (1,)
            return [tick for decade in decades for step in steps if low <= (tick := step * 10.0**decade) <= high]
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(each for each in (1, 2, 5, 10) if (high - low) / (step * each) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(text: str, most: int = 36) -> str:
    return escape(text if len(text) <= most else text[: most - 1] + "…")


def _svg(parts: Sequence[str], height: float, label: str) -> str:
    # Everything in the parts is a number or was escaped.
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
