"""First readings as a long table, a row a number that a reader gave, for models and for other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from core.reviews.answers import ANY_ERROR, Results
from core.reviews.editing import edits_of, long_outcomes
from core.reviews.questions import MarkKind, Scale
from core.reviews.rubrics import question_in_words
from core.reviews.summary import without_place

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
        table: `LONG_COLUMNS`, one row for each reader and report: the mean of what was answered of it. Where drafts
            were edited also "sitting".
    """

    name: str
    title: str
    kind: OutcomeKind
    table: pd.DataFrame


def question_of(results: Results, question: str) -> str:
    """What a row of answers asks, without the pair of reports or the sentence that it asks about."""
    if results.rubric.mark == "answer":
        return without_place(question)
    return _ONE_QUESTION.get(results.rubric.mark, question)


def scale_of(results: Results, asked: str) -> Scale:
    """The scale of the answers to what `question_of` names."""
    return results.rubric.of_label(asked).scale if results.rubric.mark == "answer" else results.rubric.scale


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
    if results.rubric.edits:
        return tuple(Outcome(name, title, kind, rows) for name, title, kind, rows in long_outcomes(edits_of(results)))
    answers = first_readings(results)
    found = []
    numbers = answers[answers["number"].notna() & answers["model"].isin(_systems(results))]
    for asked, group in numbers.groupby("asked", sort=True):
        name = str(asked)
        if results.rubric.mark == "error":
            if name != ANY_ERROR:  # kinds are parts of one count: a test of each would be a test too many
                continue
            found.append(Outcome("errors", "significant errors per report", "count", _by_report(group, "number")))
        elif results.rubric.mark != "answer":
            found.append(Outcome(name, f"{name}, mean per report", "scale", _by_report(group, "number")))
        elif results.rubric.of_label(name).kind != "mark":
            title = f"{question_in_words(results.rubric, name, '').rstrip('?.')}, mean per report"
            found.append(Outcome(name, title, "scale", _by_report(group, "number")))
    found += _marked(results, numbers)
    times = _times(results)
    if len(times):
        found.append(Outcome("seconds", "seconds per report", "time", times))
    return tuple(found)


def _systems(results: Results) -> set[str]:
    return {model for texts in results.reports.values() for model in texts}


def _marked(results: Results, numbers: pd.DataFrame) -> list[Outcome]:
    """Marks of all kinds per report, by question for marks."""
    found = []
    for question in results.rubric.questions if results.rubric.mark == "answer" else ():
        rows = numbers[np.array([label.split(":")[0] == question.id for label in numbers["asked"]], bool)]
        if question.kind == "mark" and len(rows):
            sums = rows.groupby(["reader", "study", "model"], sort=True)["number"].sum().reset_index()
            title = f"marks per report ({question.ask.rstrip('.')})"
            found.append(Outcome(question.id, title, "count", sums.set_axis(list(LONG_COLUMNS), axis=1)))
    return found


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
