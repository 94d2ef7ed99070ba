"""What became of drafts: seconds, words changed, errors left and planted errors caught, by screen and by arm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd

from core.evaluation.resampling import StudyStatistics
from core.labels.rules import label_report
from core.reviews.agreement import Estimate, estimates
from core.reviews.answers import Results
from core.reviews.design import REFERENCE, Design, read_design
from core.reviews.editing_design import NO_DRAFT, PlantedError
from core.reviews.planted_errors import claimed, is_caught
from core.reviews.store.edits import edited_question
from core.text import count_words, tokenize

EDIT_COLUMNS = (
    *("screen", "reader", "position", "sitting", "study", "arm", "seconds", "typing", "to_first_key", "bouts"),
    *("pauses", "paused", "inserted", "deleted", "not_counted", "draft_words", "words", "words_changed"),
    *("draft_errors", "errors_left", "planted", "caught", "draft", "text"),
)
NAN = math.nan


@dataclass(frozen=True, slots=True)
class ArmOutcome:
    """What readers did from one beginning; means are of all finished screens, with intervals over studies.

    Attributes:
        arm: "no draft", "template", or the system that wrote the draft.
        readings: finished screens.
        unchanged: of these, left as they were.
        seconds: on the screen, while it was read.
        typing: seconds from the first key to the last, without breaks.
        words_changed: inserted, deleted or replaced, from the draft to the report.
        draft_errors: observations that the draft says otherwise than the reference; NaN without a reference.
        errors_left: of the report, likewise.
        planted: screens whose draft had a planted error.
        caught: of these, reports without it.
        caught_share: their share.
    """

    arm: str
    readings: int
    unchanged: int
    seconds: Estimate
    typing: Estimate
    words_changed: Estimate
    draft_errors: Estimate
    errors_left: Estimate
    planted: int
    caught: int
    caught_share: Estimate


def edits_of(results: Results) -> pd.DataFrame:
    """One row of `EDIT_COLUMNS` for each finished screen of a session in which reports were edited; else none."""
    question = edited_question(results.rubric.questions)
    rows: list[tuple[Any, ...]] = []
    if question is not None:
        design = read_design(results.design)
        wanted = [value.get("question") == question.id for value in results.marks["value"]]
        edited = results.marks[np.array(wanted, bool)]
        values = dict(zip(edited["screen"], edited["value"], strict=True))
        planted = {(each.study, each.arm): each for each in design.editing.planted_errors}
        per_reader = results.screens.groupby("reader")["position"].transform("size").tolist()
        for record, count in zip(results.screens.to_dict("records"), per_reader, strict=True):
            screen = {str(name): value for name, value in record.items()}
            if screen["state"] == "done" and screen["screen"] in values:
                rows.append(_row(results, design, screen, int(count), values[screen["screen"]], planted))
    table = pd.DataFrame(rows, columns=pd.Index(EDIT_COLUMNS))
    numbers = dict.fromkeys(("seconds", "typing", "to_first_key", "paused", "draft_errors", "errors_left"), np.float64)
    return table.astype(numbers)


def _row(
    results: Results,
    design: Design,
    screen: Mapping[str, Any],
    screens: int,
    value: Mapping[str, Any],
    planted: Mapping[tuple[str, str], PlantedError],
) -> tuple[Any, ...]:
    study, ((_, arm),) = screen["study"], screen["shown"]
    draft, text, reference = results.reports[study][arm], value["answer"], results.reports[study].get(REFERENCE)
    bouts = list(value.get("bouts", {}).values())
    pauses = [length for bout in bouts for _, length in bout["pauses"]]
    error = planted.get((study, arm))
    return (
        screen["screen"],
        screen["reader"],
        screen["position"],
        screen["position"] // (screens // design.editing.sittings) + 1,
        study,
        arm,
        screen["seconds"],
        sum(bout["seconds"] for bout in bouts),
        bouts[0]["before"] if bouts else NAN,
        len(bouts),
        len(pauses),
        sum(pauses),
        sum(bout["inserted"] for bout in bouts),
        sum(bout["deleted"] for bout in bouts),
        value.get("not_counted", 0),
        count_words(tokenize(draft)),
        count_words(tokenize(text)),
        words_changed(draft, text),
        NAN if reference is None else errors_against(draft, reference),
        NAN if reference is None else errors_against(text, reference),
        "" if error is None else error.kind,
        None if error is None else is_caught(error, text),
        draft,
        text,
    )


@lru_cache(maxsize=4096)
def _claims(text: str) -> Mapping[str, bool]:
    return claimed(label_report(text))


def errors_against(text: str, reference: str) -> int:
    """Observations, of 13, that one text says are there, or may be, and the other does not; by the rule labeler."""
    one, other = _claims(text), _claims(reference)
    return sum(one[name] is not other[name] for name in one)


def words_changed(draft: str, text: str) -> int:
    """Fewest words to insert, delete or replace to make one text of another (Levenshtein 1966); capitals are no change.

    Marks of punctuation are not counted.
    """
    one, other = (
        [token for token in tokenize(each) if any(letter.isalnum() for letter in token)] for each in (draft, text)
    )
    known = {word: number for number, word in enumerate(dict.fromkeys([*one, *other]))}
    codes = np.array([known[word] for word in other], np.int64)
    places = np.arange(len(other) + 1)
    row = places.copy()
    for number, word in enumerate(one, 1):
        kept_or_replaced = row[:-1] + (codes != known[word])
        best = np.concatenate([[number], np.minimum(kept_or_replaced, row[1:] + 1)])
        row = np.minimum.accumulate(best - places) + places  # then insert what is missing
    return int(row[-1])


def by_arm(edits: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> tuple[ArmOutcome, ...]:
    """The outcomes of each arm, by name.

    Args:
        edits: of `edits_of`.
        resamples: of the bootstrap over studies.
        seed: of the bootstrap.
    """
    found = []
    for arm, rows in edits.groupby("arm", sort=True):
        caught = np.array([NAN if each is None else float(each) for each in rows["caught"]])
        studies = rows["study"].tolist()
        means = {
            name: _mean(rows[name].to_numpy(np.float64), studies, resamples, seed)
            for name in ("seconds", "typing", "words_changed", "draft_errors", "errors_left")
        }
        found.append(
            ArmOutcome(
                arm=str(arm),
                readings=len(rows),
                unchanged=int((rows["draft"] == rows["text"]).sum()),
                planted=int((~np.isnan(caught)).sum()),
                caught=int(np.nansum(caught)),
                caught_share=_mean(caught, studies, resamples, seed),
                **means,
            )
        )
    return tuple(found)


def _mean(values: np.ndarray, studies: Sequence[str], resamples: int, seed: int) -> Estimate:
    there = ~np.isnan(values)
    if not there.any():
        return Estimate(NAN)
    sums = np.column_stack([np.where(there, values, 0), there.astype(np.float64)])
    statistics = StudyStatistics(("mean",), sums, lambda total: total[..., :1] / total[..., 1:])
    return estimates(statistics, studies, resamples=resamples, seed=seed)["mean"]


def long_outcomes(edits: pd.DataFrame) -> Iterator[tuple[str, str, Literal["count", "scale", "time"], pd.DataFrame]]:
    """(name, title, kind, table) of each quantity by which arms are compared, as `long_table.Outcome` takes them.

    Tables have a column "sitting" beside the others: readers get faster, or tired, from one to the next.
    """
    quantities: tuple[tuple[str, str, Literal["count", "scale", "time"], pd.Series], ...] = (
        ("seconds", "seconds on the screen per report", "time", edits["seconds"].where(edits["seconds"] > 0)),
        ("typing", "seconds from the first key to the last, per report", "scale", edits["typing"]),
        ("words-changed", "words changed per report", "count", edits["words_changed"].where(edits["arm"] != NO_DRAFT)),
        ("errors-left", "errors left per report, against the reference", "count", edits["errors_left"]),
        ("planted-left", "planted errors left, as a share", "scale", 1 - edits["caught"].astype(np.float64)),
    )
    about = edits[["reader", "study", "arm", "sitting"]].set_axis(["reader", "case", "system", "sitting"], axis=1)
    for name, title, kind, values in quantities:
        table = about.assign(value=values.to_numpy(np.float64)).dropna()
        if len(table):
            yield name, title, kind, table[["reader", "case", "system", "value", "sitting"]].reset_index(drop=True)
