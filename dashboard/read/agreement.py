"""In: what several models wrote of a study. Out: what most of them say, and in which order they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from core.bundles.card import Card
from core.observations import ASSERTED, NO_FINDING, LabelState
from core.registry import DECODERS, ENCODERS
from dashboard.read.others import OutsideReading
from dashboard.services import stored
from dashboard.services.reports import Reading

T = TypeVar("T")
FOLDED_FROM = 5
"""Reports; of fewer all are shown."""
MOST_SAID = 4
"""Findings in the sentence above the table."""


def best_first(family: str, of: Sequence[T], name: Callable[[T], str]) -> list[T]:
    """Put what belongs to bundles of a family in the order of their measured quality; the rest keeps its order."""
    scores = stored.measured(family)
    return sorted(of, key=lambda each: -scores.get(name(each), -1.0))


def measured_in_words(family: str, name: str) -> str:
    """How good a bundle was on held-out studies; "" where that was not measured."""
    score = stored.measured(family).get(name)
    return "" if score is None else f"F1 {score:.2f} in tests"


def votes(readings: Sequence[Reading | OutsideReading]) -> dict[str, int]:
    """How many reports say each observation, as present or uncertain; those that none says are left out."""
    found: dict[str, int] = {}
    for reading in readings:
        for name, state in reading.labels.states.items():
            if state in ASSERTED:
                found[name] = found.get(name, 0) + 1
    return found


def in_words(readings: Sequence[Reading | OutsideReading], reference: Mapping[str, LabelState] | None) -> str:
    """What the models agree and differ in: "9 of 12 say Pleural Effusion, 3 do not"; "" for a single report.

    Where they differ most comes last, so that it is not lost among what all say; what the reference says and none of
    them does is told too.
    """
    count = len(readings)
    if count < 2:
        return ""
    said = {name: number for name, number in votes(readings).items() if name != NO_FINDING}
    parts = [
        f"all {count} say **{name}**"
        if number == count
        else f"**{number} of {count}** say **{name}**, {count - number} {'does' if count - number == 1 else 'do'} not"
        for name, number in sorted(said.items(), key=lambda each: -each[1])[:MOST_SAID]
    ]
    more = len(said) - MOST_SAID
    if more > 0:
        parts.append(f"{more} more {'finding is' if more == 1 else 'findings are'} said by fewer")
    if not parts:
        parts = [f"all {count} reports say that nothing is wrong, or name no finding"]
    text = "; ".join(parts)
    text = f"{text[0].upper()}{text[1:]}."
    silent = (
        []
        if reference is None
        else [
            name for name, state in reference.items() if state in ASSERTED and name != NO_FINDING and name not in said
        ]
    )
    return f"{text} None says {' or '.join(silent)}, which the reference does." if silent else text


def with_votes(table: dict[str, Any], readings: Sequence[Reading | OutsideReading]) -> dict[str, Any]:
    """The table of `components.report.overview`, a column a reading, with how many say each finding.

    What the names of encoders and decoders stand for is told where they stand.
    """
    said, count = votes(readings), len(readings)
    rows = [{**row, "votes": f"{said.get(row['observation'], 0)} of {count}"} for row in table["rows"]]
    columns = [
        column
        if isinstance(each, OutsideReading) or each.card.pair is None
        else {
            **column,
            "about": ENCODERS[each.card.encoder].summary,
            "group_about": DECODERS[each.card.decoder].summary,
        }
        for column, each in zip(table["columns"], readings, strict=True)
    ]
    return {**table, "rows": rows, "columns": columns}


def heading(card: Card, whose: str) -> tuple[str, str]:
    """Group and name of a model's column: its decoder, of a family where there are several, and its encoder."""
    if card.pair is None:
        return "From elsewhere", card.title
    encoder, decoder = card.pair
    return DECODERS[decoder].title + whose, ENCODERS[encoder].title


def in_full(card: Card) -> str:
    """What a model's name stands for."""
    if card.pair is None:
        return str(card.data.get("description", ""))
    image, text = ENCODERS[card.encoder], DECODERS[card.decoder]
    return f"{image.title}: {image.summary} {text.title}: {text.summary}"
