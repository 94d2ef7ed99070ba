"""In: what several models wrote of a study. Out: what most of them say, and in which order they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from core.bundles.card import Card
from core.evaluation.votes import FEW, alike, right
from core.evaluation.votes import in_words as band_in_words
from core.observations import ASSERTED, NO_FINDING, LabelState
from core.registry import DECODERS, ENCODERS
from dashboard.read.others import OutsideReading
from dashboard.services import stored
from dashboard.services.reports import Reading
from dashboard.services.stored import Votes

T = TypeVar("T")
FOLDED_FROM = 5
"""Reports; of fewer all are shown."""
MOST_SAID = 4
"""Findings in the sentence above the table."""
TESTED = " (the reference too in {} of tests)"


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


@dataclass(frozen=True, slots=True)
class Worth:
    """What it was worth in tests that so many models say a finding.

    Attributes:
        share: of how many the reference said it too, "61%"; "" where too few studies tell.
        too: with their number, "61% of 36".
        about: the same in full, with its interval and how often the reference says it anyway.
    """

    share: str
    too: str
    about: str


def worth(name: str, number: int, counted: Votes | None) -> Worth | None:
    """What it is worth that so many models say a finding, by what was counted of them; None where it was not."""
    if counted is None or name not in counted.counts:
        return None
    counts = counted.counts[name]
    of = len(counts) - 1
    first, last = alike(number, of)
    share, anyway = right(counts, first, last), right(counts, 0, of)
    where = f"Of {counted.studies}, in {share.among} {band_in_words(first, last)} of the {of} models said {name}"
    if share.among < FEW or share.interval is None:
        return Worth("", "too few", f"{where}: too few to tell how often the reference does.")
    low, high = share.interval
    return Worth(
        f"{share.value:.0%}",
        f"{share.value:.0%} of {share.among}",
        f"{where}; the reference report said it in {share.count} of these ({share.value:.0%}, 95 % interval "
        f"{low:.0%} to {high:.0%}), and in {anyway.value:.0%} of all.",
    )


def votes_counted(readings: Sequence[Reading | OutsideReading], source: str) -> Votes | None:
    """What was counted of exactly the models that are shown; None where that was never done."""
    cards = [each.card for each in readings if isinstance(each, Reading)]
    return stored.votes(cards, source) if len(cards) == len(readings) else None


def in_words(
    readings: Sequence[Reading | OutsideReading],
    reference: Mapping[str, LabelState] | None,
    counted: Votes | None = None,
) -> str:
    """What the models agree and differ in: "9 of 12 say Pleural Effusion, 3 do not"; "" for a single report.

    With it stands in how many tests with such a vote the reference said the finding too, where that was counted.
    Where they differ most comes last, so that it is not lost among what all say; what the reference says and none of
    them does is told too.
    """
    count = len(readings)
    if count < 2:
        return ""
    said = {name: number for name, number in votes(readings).items() if name != NO_FINDING}
    parts: list[str] = []
    for name, number in sorted(said.items(), key=lambda each: -each[1])[:MOST_SAID]:
        known = worth(name, number, counted)
        tested = ""
        if known and known.share:  # the first says what the others mean
            tested = f" ({known.share})" if any(" tests)" in part for part in parts) else TESTED.format(known.share)
        rest = count - number
        who = f"**{number} of {count}** say **{name}**, {rest} {'does' if rest == 1 else 'do'} not"
        parts.append(f"{who if rest else f'all {count} say **{name}**'}{tested}")
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


def with_votes(
    table: dict[str, Any], readings: Sequence[Reading | OutsideReading], counted: Votes | None = None
) -> dict[str, Any]:
    """The table of `components.report.overview`, a column a reading, with how many say each finding.

    Beside it stands in how many tests with such a vote the reference said it too. What the names of encoders and
    decoders stand for is told where they stand.
    """
    said, count = votes(readings), len(readings)
    rows = []
    for row in table["rows"]:
        number = said.get(row["observation"], 0)
        known = worth(row["observation"], number, counted)
        tested = {} if known is None else {"too": known.too, "too_about": known.about}
        rows.append({**row, "votes": f"{number} of {count}", **tested})
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
