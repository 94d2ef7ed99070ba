"""What readers answered to the questions of a rubric: how often which answer, and the mean of numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.evaluation.resampling import StudyStatistics
from core.reviews.agreement import Estimate, estimates
from core.reviews.questions import CANNOT_JUDGE, Rubric


@dataclass(frozen=True, slots=True)
class AnswerSummary:
    """Answers of all first readers to a question about a model's reports, or about the images.

    Attributes:
        model: its name; of a comparison all of them, joined by " / "; empty of the image.
        question: as `questions.label_of` names it, without sentences.
        answers: how many.
        counts: by answer, in the order of the rubric where it has one; of models in that of their names.
        cannot_judge: of the answers.
        mean: of steps, percentages, or numbers of marks, with its interval over studies; NaN of words.
    """

    model: str
    question: str
    answers: int
    counts: Mapping[str, int]
    cannot_judge: int
    mean: Estimate


def without_place(label: str) -> str:
    """The name of a question without the sentence that it was asked of."""
    head, colon, item = label.partition(":")
    return head.split(" ")[0] + colon + item


def summarise(
    answers: pd.DataFrame, rubric: Rubric, *, resamples: int = 1000, seed: int = 0
) -> tuple[AnswerSummary, ...]:
    """Count the answers to each question, in the order of the rubric.

    Args:
        answers: `answers.ANSWER_COLUMNS`, of first readings.
        rubric: of questions.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    order = {question.id: number for number, question in enumerate(rubric.questions)}
    rows = []
    asked = answers["question"].map(without_place)
    for (question, model), group in answers.groupby([asked, "model"], sort=True):
        spec = rubric.of_label(str(question))
        judged = group[group["value"] != CANNOT_JUDGE]
        found = Counter(judged["value"])
        known = [each for each in spec.answers() if each in found]
        others = sorted((each for each in found if each not in known), key=lambda each: (isinstance(each, str), each))
        mean = Estimate(float("nan"), float("nan"), float("nan"))
        if spec.scale != "nominal" and len(judged):
            values = judged["value"].to_numpy(np.float64)
            means = StudyStatistics(
                ("mean",), np.column_stack([values, np.ones(len(values))]), lambda sums: sums[..., :1] / sums[..., 1:]
            )
            mean = estimates(means, judged["study"].tolist(), resamples=resamples, seed=seed)["mean"]
        counts = {str(each): found[each] for each in (*known, *others)}
        rows.append(AnswerSummary(str(model), str(question), len(group), counts, len(group) - len(judged), mean))
    return tuple(sorted(rows, key=lambda row: order[rubric.of_label(row.question).id]))
