"""What a closed session says: errors, preferences, agreement, drift, and how automatic metrics compare with readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from core.evaluation.resampling import FloatArray, StudyStatistics
from core.reviews.agreement import Estimate, bootstrap, bradley_terry, coincidences, estimates, fleiss_kappa
from core.reviews.answers import ANY_ERROR, Results
from core.reviews.editing import ArmOutcome, by_arm, edits_of
from core.reviews.questions import CANNOT_JUDGE, Scale
from core.reviews.rubrics import ERROR_KINDS, SUPPORT, ReviewError
from core.reviews.summary import AnswerSummary, summarise, without_place

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Errors of a model.

    Attributes:
        model: its name.
        error: a kind, or "all kinds".
        significant: only the clinically significant ones, or all.
        readings: of its reports, by all readers, repeats left out.
        errors: how many.
        per_report: mean, with its interval over studies.
    """

    model: str
    error: str
    significant: bool
    readings: int
    errors: int
    per_report: Estimate


@dataclass(frozen=True, slots=True)
class Strength:
    """How a model fares in comparisons.

    Attributes:
        model: its name.
        wins: comparisons won; ``losses`` and ``ties`` likewise.
        losses: see above.
        ties: see above.
        log_strength: Bradley-Terry, mean 0 over the models; a difference of 1 is odds of 2.7 to 1.
    """

    model: str
    wins: int
    losses: int
    ties: int
    log_strength: Estimate


@dataclass(frozen=True, slots=True)
class Support:
    """Answers to whether explanations support their sentences: ``counts`` in the order of `SUPPORT`."""

    model: str
    counts: tuple[int, ...]
    mean: Estimate


@dataclass(frozen=True, slots=True)
class ReaderAgreement:
    """Agreement between readers, on one question.

    Attributes:
        question: a kind of error, an observation, "preference", "support".
        units: reports, comparisons or studies that two or more readers answered.
        alpha: Krippendorff's, on the rubric's scale, with its interval over studies.
        fleiss: over the units that all readers answered; NaN where there are none. Takes values as categories.
        cohen: mean over pairs of readers; linearly weighted unless the scale is nominal.
        cohen_pairs: by "reader and reader".
    """

    question: str
    units: int
    alpha: Estimate
    fleiss: float
    cohen: float
    cohen_pairs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SelfAgreement:
    """Agreement of a reader's repeated readings with the first ones.

    Attributes:
        reader: who.
        answers: given twice.
        equal: fraction that is the same.
        kappa: Cohen's, as in `ReaderAgreement`.
        question: of a rubric of several questions, which; otherwise empty.
    """

    reader: str
    answers: int
    equal: float
    kappa: float
    question: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """Change of a reader over the session, in the order in which screens were finished.

    Attributes:
        reader: who.
        screens: finished, repeats left out.
        quantity: what is followed: significant errors, support, positive labels, ties, or seconds a screen.
        first_half: its mean.
        second_half: its mean.
        rho: Spearman's correlation with the order.
        p: of rho, two-sided.
    """

    reader: str
    screens: int
    quantity: str
    first_half: float
    second_half: float
    rho: float
    p: float


@dataclass(frozen=True, slots=True)
class MetricCorrelation:
    """Correlation of an automatic metric with the readers' mean number of significant errors: below 0 if it is good.

    Attributes:
        metric: its name.
        reports: that have both.
        kendall: tau-b, with its interval over studies.
        spearman: rho, likewise.
    """

    metric: str
    reports: int
    kendall: Estimate
    spearman: Estimate


@dataclass(frozen=True, slots=True)
class Analysis:
    """All figures of a session; empty where the rubric does not ask.

    Attributes:
        errors: per model and kind.
        strengths: per model.
        support: per model.
        agreement: per question.
        self_agreement: per reader with repeats.
        drift: per reader.
        correlations: per metric.
        answers: per question and model, of a rubric of questions.
        disputed: questions that first readers answered differently.
        settled: of those, how many an adjudicator answered.
        editing: per arm, where drafts were edited.
    """

    errors: tuple[ErrorCount, ...]
    strengths: tuple[Strength, ...]
    support: tuple[Support, ...]
    agreement: tuple[ReaderAgreement, ...]
    self_agreement: tuple[SelfAgreement, ...]
    drift: tuple[Drift, ...]
    correlations: tuple[MetricCorrelation, ...]
    answers: tuple[AnswerSummary, ...]
    disputed: int
    settled: int
    editing: tuple[ArmOutcome, ...] = ()


def analyse(results: Results, metrics: pd.DataFrame | None = None, *, resamples: int = 1000, seed: int = 0) -> Analysis:
    """Work out all figures of a session.

    Args:
        metrics: columns "study", "model" and one for each automatic metric, a row a report.

    Raises:
        ReviewError: the metrics lack a column, or the rubric counts no errors to compare them with.
    """
    first = results.answers[~results.answers["repeat"] & ~results.answers["adjudication"]]
    how = {"resamples": resamples, "seed": seed}
    kind = results.rubric.mark
    settled = settle(results)
    disputed = settled[settled["disputed"]]
    return Analysis(
        errors=_errors(results, **how) if kind == "error" else (),
        strengths=strengths(first, **how) if kind == "preference" else (),
        support=_support(first, **how) if kind == "helpfulness" else (),
        agreement=_agreements(first, results, **how),
        self_agreement=_self_agreements(results),
        drift=_drifts(results),
        correlations=() if metrics is None else correlate(first, metrics, results.rubric.mark == "error", **how),
        answers=summarise(first, results.rubric, **how) if kind == "answer" else (),
        disputed=len(disputed),
        settled=int(disputed["value"].notna().sum()),
        editing=by_arm(edits_of(results), **how) if results.rubric.edits else (),
    )


def settle(results: Results) -> pd.DataFrame:
    """One answer a question: what all first readers said, else what the adjudicator said, else None.

    With the rubric observation-labels these are the gold labels.

    Returns:
        columns study, model, question, value, disputed.
    """
    answers = results.answers[~results.answers["repeat"]]
    rows = []
    for (study, model, question), group in answers.groupby(["study", "model", "question"], sort=True):
        if question == ANY_ERROR:  # the sum of the others
            continue
        first, third = group[~group["adjudication"]]["value"], group[group["adjudication"]]["value"]
        disputed = first.nunique() > 1
        value = (third.iloc[-1] if len(third) else None) if disputed else (first.iloc[0] if len(first) else None)
        rows.append((study, model, question, value, disputed))
    columns = pd.Index(["study", "model", "question", "value", "disputed"])
    # Of objects from the start: beside a None, counts would become floats and the None a NaN.
    return pd.DataFrame(rows, columns=columns, dtype=object).astype({"disputed": bool})


def _errors(results: Results, *, resamples: int, seed: int) -> tuple[ErrorCount, ...]:
    done = results.screens[
        (results.screens["state"] == "done") & ~results.screens["repeat"] & ~results.screens["adjudication"]
    ]
    found = results.marks[results.marks["screen"].isin(done["screen"])]
    readings = pd.DataFrame(
        [
            (study, screen, model)
            for study, screen, shown in zip(done["study"], done["screen"], done["shown"], strict=True)
            for _, model in shown
        ],
        columns=pd.Index(["study", "screen", "model"]),
    )
    rows = []
    for model, of_model in readings.groupby("model", sort=True):
        of_it = found[found["model"] == model]
        row_of = {screen: index for index, screen in enumerate(of_model["screen"])}
        names = [(error, significant) for error in (*ERROR_KINDS, ANY_ERROR) for significant in (True, False)]
        counts = np.zeros((len(of_model), len(names) + 1))
        counts[:, -1] = 1
        for screen, value in zip(of_it["screen"], of_it["value"], strict=True):
            for column, (error, significant) in enumerate(names):
                if error in (value["error"], ANY_ERROR) and (value["significant"] or not significant):
                    counts[row_of[screen], column] += 1
        labels = tuple(f"{error}/{significant}" for error, significant in names)
        means = StudyStatistics(labels, counts, lambda sums: sums[..., :-1] / sums[..., -1:])
        found_means = estimates(means, of_model["study"].tolist(), resamples=resamples, seed=seed)
        rows += [
            ErrorCount(
                str(model), error, significant, len(of_model), int(counts[:, column].sum()), found_means[labels[column]]
            )
            for column, (error, significant) in enumerate(names)
        ]
    return tuple(rows)


def strengths(answers: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> tuple[Strength, ...]:
    """Bradley-Terry strengths of the models, strongest first."""
    if answers.empty:
        return ()
    models = sorted({model for question in answers["question"] for model in question.split(" / ")})
    index_of = {model: index for index, model in enumerate(models)}
    size = len(models)
    wins, ties = np.zeros((len(answers), size, size)), np.zeros(size, np.int64)
    for row, (question, value) in enumerate(zip(answers["question"], answers["value"], strict=True)):
        first, second = (index_of[model] for model in question.split(" / "))
        if value == "tie":
            wins[row, first, second] = wins[row, second, first] = 0.5
            ties[[first, second]] += 1
        else:
            winner = index_of[value]
            wins[row, winner, first + second - winner] = 1
    statistics = StudyStatistics(
        tuple(models),
        wins.reshape(len(answers), -1),
        lambda sums: bradley_terry(sums.reshape(*sums.shape[:-1], size, size)),
    )
    found = estimates(statistics, answers["study"].tolist(), resamples=resamples, seed=seed)
    whole = (wins == 1).sum(0)
    rows = [
        Strength(model, int(whole[index].sum()), int(whole[:, index].sum()), int(ties[index]), found[model])
        for model, index in index_of.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.log_strength.value))


def _support(answers: pd.DataFrame, *, resamples: int, seed: int) -> tuple[Support, ...]:
    rows = []
    for model, group in answers.groupby("model", sort=True):
        values = group["value"].to_numpy(np.float64)
        means = StudyStatistics(
            ("mean",), np.column_stack([values, np.ones(len(values))]), lambda sums: sums[..., :1] / sums[..., 1:]
        )
        mean = estimates(means, group["study"].tolist(), resamples=resamples, seed=seed)["mean"]
        counts = tuple(int((values == index).sum()) for index in range(len(SUPPORT)))
        rows.append(Support(str(model), counts, mean))
    return tuple(rows)


def _codes(answers: pd.DataFrame) -> pd.DataFrame:
    """Answers with numbers for values: of models and states their index in sorted order. "Cannot judge" is none."""
    answers = answers[answers["value"] != CANNOT_JUDGE]
    values = answers["value"]
    if any(isinstance(value, str) for value in values):
        order = {value: index for index, value in enumerate(sorted(set(values)))}
        values = values.map(order)
    return answers.assign(code=values.astype(np.float64))


def _question(answers: pd.DataFrame, results: Results) -> pd.Series:
    """What agreement is worked out for: a preference or a sentence is a unit, not a question of its own."""
    if results.rubric.mark in ("preference", "helpfulness"):
        return pd.Series({"preference": "preference", "helpfulness": "support"}[results.rubric.mark], answers.index)
    if results.rubric.mark == "answer":  # the sentences of a question are its units
        return answers["question"].map(without_place)
    return answers["question"]


def _scale(results: Results, question: str) -> Scale:
    return results.rubric.of_label(question).scale if results.rubric.mark == "answer" else results.rubric.scale


def _agreements(answers: pd.DataFrame, results: Results, *, resamples: int, seed: int) -> tuple[ReaderAgreement, ...]:
    if answers["reader"].nunique() < 2:
        return ()
    rows = []
    for question, answered in answers.groupby(_question(answers, results), sort=False):
        scale, group = _scale(results, str(question)), _codes(answered)
        table = group.pivot_table(index=["study", "model", "question"], columns="reader", values="code", aggfunc="last")
        table = table[table.notna().sum(axis=1) >= 2]
        if table.empty:
            continue
        values = table.to_numpy(np.float64)
        subjects = table.index.get_level_values("study").tolist()
        alpha = estimates(coincidences(values, scale), subjects, resamples=resamples, seed=seed)["alpha"]
        complete = values[~np.isnan(values).any(1)]
        levels = np.unique(values[~np.isnan(values)])
        counts = (complete[:, :, None] == levels).sum(1)
        pairs = {}
        for one, other in combinations(table.columns, 2):
            both = table[[one, other]].dropna().to_numpy(np.float64)
            pairs[f"{one} and {other}"] = cohen(both[:, 0], both[:, 1], weighted=scale != "nominal")
        known = [kappa for kappa in pairs.values() if not np.isnan(kappa)]
        rows.append(
            ReaderAgreement(
                str(question),
                len(table),
                alpha,
                fleiss_kappa(counts) if len(complete) else NAN,
                float(np.mean(known)) if known else NAN,
                pairs,
            )
        )
    return tuple(rows)


def cohen(first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray, *, weighted: bool) -> float:
    """Cohen's kappa of two raters; linearly weighted by the distance of values if asked.

    Returns:
        NaN without ratings, or where both give all units one and the same value.
    """
    one, other = np.asarray(first), np.asarray(second)
    levels = np.unique(np.concatenate([one, other]))
    if not len(one) or len(levels) < 2:
        return NAN
    if weighted:  # every whole number is a level, also one that nobody gave: the weights are distances
        levels = np.arange(levels.min(), levels.max() + 1)
    return float(
        cohen_kappa_score(
            one.astype(int), other.astype(int), labels=levels.astype(int), weights="linear" if weighted else None
        )
    )


def _self_agreements(results: Results) -> tuple[SelfAgreement, ...]:
    answers = results.answers[~results.answers["adjudication"]]
    several = results.rubric.mark == "answer"
    asked = answers["question"].map(without_place) if several else pd.Series("", answers.index)
    keys = ["study", "model", "question"]
    rows = []
    for (reader, question), answered in answers.groupby(["reader", asked], sort=True):
        group = _codes(answered)
        again = group[group["repeat"]].merge(group[~group["repeat"]], on=keys, suffixes=("_second", "_first"))
        if again.empty:
            continue
        if results.rubric.mark == "error":  # counting the sum too would count twice
            again = again[again["question"] != ANY_ERROR]
        first, second = again["code_first"].to_numpy(np.float64), again["code_second"].to_numpy(np.float64)
        kappa = cohen(first, second, weighted=_scale(results, str(question)) != "nominal")
        rows.append(SelfAgreement(str(reader), len(again), float((first == second).mean()), kappa, str(question)))
    return tuple(rows)


def _drifts(results: Results) -> tuple[Drift, ...]:
    done = results.screens[(results.screens["state"] == "done") & ~results.screens["repeat"]]
    done = done[~done["adjudication"]].sort_values("finished")
    answers = results.answers
    if results.rubric.mark == "error":
        quantity, per_screen = "significant errors", answers[answers["question"] == ANY_ERROR]
    elif results.rubric.mark == "helpfulness":
        quantity, per_screen = "support", answers
    elif results.rubric.mark == "answer":  # several questions have no common quantity: the seconds are followed
        quantity, per_screen = "", answers.iloc[:0].astype({"value": float})
    else:
        wanted = "tie" if results.rubric.mark == "preference" else "positive"
        quantity, per_screen = f"{wanted} answers", answers.assign(value=(answers["value"] == wanted).astype(int))
    values = per_screen.groupby("screen")["value"].mean().astype(float)
    rows = []
    for reader, group in done.groupby("reader", sort=True):
        followed = {
            quantity: group["screen"].map(values).to_numpy(np.float64),
            "seconds": group["seconds"].to_numpy(np.float64),
        }
        for name, series in followed.items():
            if not name:
                continue
            kept = series[~np.isnan(series)]
            if len(kept) < 4:
                continue
            rho, p = (NAN, NAN) if np.ptp(kept) == 0 else stats.spearmanr(np.arange(len(kept)), kept)
            half = len(kept) // 2
            first, second = float(kept[:half].mean()), float(kept[half:].mean())
            rows.append(Drift(str(reader), len(kept), name, first, second, float(rho), float(p)))
    return tuple(rows)


def correlate(
    answers: pd.DataFrame, metrics: pd.DataFrame, counts_errors: bool = True, *, resamples: int = 1000, seed: int = 0
) -> tuple[MetricCorrelation, ...]:
    """Rank correlation of automatic metrics with the readers' mean number of significant errors, over reports.

    Raises:
        ReviewError: no errors were counted, a column is missing or no number, or no report has both.
    """
    if not counts_errors:
        raise ReviewError(
            "Metrics are compared with counted errors: that needs a session with the rubric report-quality."
        )
    missing = [name for name in ("study", "model") if name not in metrics]
    names = [str(name) for name in metrics.columns if name not in ("study", "model")]
    wrong = [name for name in names if not pd.api.types.is_numeric_dtype(metrics[name])]
    if missing or not names or wrong:
        raise ReviewError(
            f"Metrics are a table with the columns study, model and one of numbers for each metric; missing: "
            f"{missing or 'none'}, no numbers: {wrong or 'none'}."
        )
    counted = answers[answers["question"] == ANY_ERROR].groupby(["study", "model"])["value"].mean().rename("errors")
    keyed = metrics.astype({"study": str, "model": str})
    if keyed.duplicated(["study", "model"]).any():
        raise ReviewError("The metrics hold a report twice (the same study and model).")
    both = keyed.merge(counted.astype(float).reset_index(), on=["study", "model"])
    if len(both) < 3:
        raise ReviewError(f"Only {len(both)} reports have both metrics and counted errors; three are needed at least.")
    rows = []
    for name in names:
        scored = both[both[name].notna()]
        metric, errors = scored[name].to_numpy(np.float64), scored["errors"].to_numpy(np.float64)

        def both_ways(drawn: np.ndarray, metric: FloatArray = metric, errors: FloatArray = errors) -> FloatArray:
            one, other = metric[drawn], errors[drawn]
            if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
                return np.array([NAN, NAN])
            return np.array([stats.kendalltau(one, other).statistic, stats.spearmanr(one, other).statistic])

        tau, rho = both_ways(np.arange(len(scored)))
        low, high = bootstrap(both_ways, scored["study"].tolist(), resamples=resamples, seed=seed)
        kendall, spearman = Estimate(tau, low[0], high[0]), Estimate(rho, low[1], high[1])
        rows.append(MetricCorrelation(name, len(scored), kendall, spearman))
    return tuple(rows)
