"""First readings as a long table, a row a number that a reader gave, for models and for other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from core.reviews.answers import ANY_ERROR, Results
from core.reviews.rubrics import MarkKind

OutcomeKind = Literal["count", "scale", "time"]
LONG_COLUMNS = ("reader", "case", "system", "value")

_ONE_QUESTION: Mapping[MarkKind, str] = {"preference": "preference", "helpfulness": "support"}
"""Of rubrics that ask one question again and again: of each pair of reports, of each sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One quantity by which systems are compared.

    Attributes:
        name: in files and commands.
        title: for readers: what one value is.
        kind: how it is modelled: times by their logarithm, counts by Poisson's law, scales as they are.
        table: `LONG_COLUMNS`, one row for each reader and report: the mean of what was answered of it.
    """

    name: str
    title: str
    kind: OutcomeKind
    table: pd.DataFrame


def question_of(results: Results, question: str) -> str:
    """What a row of answers asks, without the pair of reports or the sentence that it asks about."""
    return _ONE_QUESTION.get(results.rubric.mark, question)


def number(value: Any) -> float:
    """An answer as a number; NaN for one in words."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def first_readings(results: Results) -> pd.DataFrame:
    """Answers without repeats and those of a third reader, with the columns "asked" and "number"."""
    found = results.answers[~results.answers["repeat"] & ~results.answers["adjudication"]]
    asked = [question_of(results, question) for question in found["question"]]
    return found.assign(asked=asked, number=np.array([number(value) for value in found["value"]], np.float64))


def outcomes(results: Results) -> tuple[Outcome, ...]:
    """All quantities of a session by which its systems can be compared with a mixed model."""
    answers = first_readings(results)
    counted = results.rubric.scale == "interval"
    found = []
    numbers = answers[answers["number"].notna() & (answers["model"] != "")]
    for asked, group in numbers.groupby("asked", sort=True):
        # Kinds of errors are parts of one count: a test of each would be a test too many.
        if counted and asked != ANY_ERROR and ANY_ERROR in set(numbers["asked"]):
            continue
        title = "significant errors per report" if counted else f"{asked}, mean per report"
        name = "errors" if counted else str(asked)
        found.append(Outcome(name, title, "count" if counted else "scale", _by_report(group, "number")))
    times = _times(results)
    if len(times):
        found.append(Outcome("seconds", "seconds per report", "time", times))
    return tuple(found)


def _by_report(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    means = rows.groupby(["reader", "study", "model"], sort=True)[value].mean().reset_index()
    return means.set_axis(list(LONG_COLUMNS), axis=1)


def _times(results: Results) -> pd.DataFrame:
    """Seconds by reader and report, of finished screens that showed one report each."""
    screens = results.screens
    done = screens[(screens["state"] == "done") & ~screens["repeat"] & ~screens["adjudication"]]
    done = done[(done["shown"].map(len) == 1) & (done["seconds"] > 0)]
    if done.empty:
        return pd.DataFrame(columns=list(LONG_COLUMNS))
    models = [shown[0][1] for shown in done["shown"]]
    return _by_report(done.assign(model=models, seconds=done["seconds"].astype(float)), "seconds")
