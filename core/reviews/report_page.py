"""The HTML report of a closed session: one file with charts, that stands alone and runs nothing."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from core import __version__
from core.bundles.card import INTENDED_USE
from core.reviews import charts
from core.reviews.agreement import Estimate
from core.reviews.analysis import Analysis, settle
from core.reviews.answers import ANY_ERROR, Results
from core.reviews.effects import ANY_READERS, Difference
from core.reviews.record import Record
from core.reviews.reliability import ScaleAgreement
from core.reviews.rubrics import SUPPORT, answer_in_words, question_in_words
from core.types import FloatImage

MAX_DISCUSSED = 200
"""Cases with a comment, a flag, a reason or a settled answer that the page shows."""
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        text: what each number counts.
        head: of the table's columns.
        rows: of the table, in words.
        chart: SVG, or empty.
    """

    title: str
    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    chart: str = ""


def page(
    results: Results,
    analysis: Analysis,
    compared: Sequence[Difference],
    scales: Sequence[ScaleAgreement],
    record: Record,
    titles: Mapping[str, str],
    picture: Callable[[str], FloatImage] | None = None,
) -> str:
    """Write the report.

    Args:
        results: of a closed session.
        analysis: of the same.
        compared: of the same.
        scales: of the same.
        record: of the same.
        titles: of the systems.
        picture: study -> image (H, W) in [0, 1]; None for none.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "report.html"
    )
    return template.render(
        use=INTENDED_USE,
        design=results.design,
        rubric=results.rubric,
        session_id=results.session_id,
        software=__version__,
        studies=results.screens["study"].nunique(),
        screens=len(results.screens),
        done=int((results.screens["state"] == "done").sum()),
        skipped=int((results.screens["state"] == "skipped").sum()),
        created=_day(record.created),
        closed=_day(record.closed),
        seal=record.seal,
        warnings=results.warnings,
        systems=_systems(results, titles),
        readers=readers_of(results, record),
        amendments=_amendments(record),
        sections=sections_of(results, analysis, compared, scales, titles),
        disputed=analysis.disputed,
        settled=analysis.settled,
        discussed=_discussed(results, titles, picture),
    )


def sections_of(
    results: Results,
    analysis: Analysis,
    compared: Sequence[Difference],
    scales: Sequence[ScaleAgreement],
    titles: Mapping[str, str],
) -> list[Section]:
    """All figures of a session as tables in words; the arguments are those of `page`."""
    return [
        *_editing(analysis, titles),
        *_errors(analysis, titles),
        *_strengths(analysis, titles),
        *_support(analysis, titles),
        *_answers(results, analysis, titles),
        *_differences(compared, titles),
        *_agreement(analysis, scales),
        *_self_agreement(analysis),
        *_drift(results, analysis),
        *_correlations(analysis),
    ]


def number(value: float, digits: int = 2) -> str:
    """A number in words of a table; a dash where it is not defined."""
    return NOTHING if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"  # no "-0.00"


def estimate(value: Estimate, digits: int = 2) -> str:
    """A number with its interval."""
    if math.isnan(value.low) or math.isnan(value.high):
        return number(value.value, digits)
    return f"{number(value.value, digits)} ({number(value.low, digits)} to {number(value.high, digits)})"


def probability(p: float) -> str:
    """A p-value, never as 0."""
    return NOTHING if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _day(at: str) -> str:
    return at[:10]


def _systems(results: Results, titles: Mapping[str, str]) -> Section:
    shown = sorted({model for shown in results.screens["shown"] for _, model in shown})
    rows = [(titles.get(model, model), model) for model in shown]
    return Section("Who wrote the reports", "", ("System", "Name in the files"), rows)


def readers_of(results: Results, record: Record) -> Section:
    """How far each reader came, and when."""
    rows = []
    for reader, group in results.screens.groupby("reader", sort=True):
        dates = sorted(_day(record.finished.get(screen, "")) for screen in group["screen"])
        dates = [each for each in dates if each]
        rows.append(
            (
                f"{reader} (third reader)" if group["adjudication"].all() else str(reader),
                f"{int((group['state'] == 'done').sum())} of {len(group)}",
                str(int((group["state"] == "skipped").sum())),
                str(int(group["flagged"].sum())),
                str(int((group["comment"] != "").sum())),
                f"{group['seconds'].sum() / 60:.0f}",
                " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else NOTHING,
            )
        )
    head = ("Reader", "Screens finished", "Skipped", "Flagged", "Commented on", "Minutes of reading", "Finished")
    return Section("Readers", "A screen is what a reader saw at once; repeats count here.", head, rows)


def _editing(analysis: Analysis, titles: Mapping[str, str]) -> Iterable[Section]:
    from core.reviews.editing_words import ABOUT, HEAD, rows_in_words  # which writes numbers as this module does

    if analysis.editing:
        named = [(titles.get(row.arm, row.arm), row.seconds) for row in analysis.editing]
        chart = charts.forest(named, "Seconds on the screen per report")
        yield Section("Editing", ABOUT, HEAD, rows_in_words(analysis.editing, titles), chart)


def _amendments(record: Record) -> Section:
    rows = [
        (each.at[:16].replace("T", " "), each.by, each.what, each.before, each.after, each.reason)
        for each in record.amendments
    ]
    text = "Changes of design, readers, access and state, from the making of the session on; times are UTC."
    return Section("What was changed", text, ("When", "By", "What", "Before", "After", "Reason"), rows)


def _errors(analysis: Analysis, titles: Mapping[str, str]) -> Iterable[Section]:
    totals = {row.model: row for row in analysis.errors if row.error == ANY_ERROR and row.significant}
    if not totals:
        return
    ranked = sorted(totals.values(), key=lambda row: row.per_report.value)
    counts = {(row.model, row.error, row.significant): row.errors for row in analysis.errors}
    kinds = list(dict.fromkeys(row.error for row in analysis.errors if row.error != ANY_ERROR))
    marked = [kind for kind in kinds if any(counts[model, kind, False] for model in totals)]
    never = [kind for kind in kinds if kind not in marked]
    rows = [
        (
            titles.get(row.model, row.model),
            str(row.readings),
            estimate(row.per_report),
            *(f"{counts[row.model, kind, True]} of {counts[row.model, kind, False]}" for kind in (ANY_ERROR, *marked)),
        )
        for row in ranked
    ]
    text = (
        "A reading is one report read by one reader, repeats left out. Errors per report: clinically significant ones, "
        "mean of all readings, with the 95 % interval over studies (bootstrap). “3 of 5”: five marks of this kind by "
        "all readers together, three of them clinically significant; two readers who mark the same error are two marks."
    )
    if never:
        text += f" Nobody marked: {', '.join(never)}."
    head = ("System", "Readings", "Significant errors per report", "All kinds", *(kind.capitalize() for kind in marked))
    chart = charts.forest(
        [(titles.get(row.model, row.model), row.per_report) for row in ranked],
        "Clinically significant errors per report",
    )
    yield Section("Errors", text, head, rows, chart)


def _strengths(analysis: Analysis, titles: Mapping[str, str]) -> Iterable[Section]:
    if not analysis.strengths:
        return
    rows = [
        (titles.get(row.model, row.model), *map(str, (row.wins, row.losses, row.ties)), estimate(row.log_strength))
        for row in analysis.strengths
    ]
    text = (
        "Won, lost, no difference: comparisons by all readers, repeats left out. Strength (Bradley-Terry) is a "
        "logarithm with mean 0: a system that is higher by 1 is preferred 2.7 times as often as the other."
    )
    chart = charts.forest(
        [(titles.get(row.model, row.model), row.log_strength) for row in analysis.strengths], "Strength", neutral=0
    )
    yield Section("Preference", text, ("System", "Won", "Lost", "No difference", "Strength"), rows, chart)


def _support(analysis: Analysis, titles: Mapping[str, str]) -> Iterable[Section]:
    if not analysis.support:
        return
    rows = [(titles.get(row.model, row.model), *map(str, row.counts), estimate(row.mean)) for row in analysis.support]
    text = (
        "One answer is one sentence judged by one reader, repeats left out. Mean: 0 does not support, 1 partly, "
        "2 supports, with the 95 % interval over studies."
    )
    head = ("System", *(each.capitalize() for each in SUPPORT), "Mean, 0 to 2")
    counts = [(titles.get(row.model, row.model), row.counts) for row in analysis.support]
    yield Section(
        "Do explanations support their sentences?", text, head, rows, charts.shares(counts, SUPPORT, "Answers")
    )


def _answers(results: Results, analysis: Analysis, titles: Mapping[str, str]) -> Iterable[Section]:
    """A section for each question of a rubric of several."""
    for asked in dict.fromkeys(row.question for row in analysis.answers):
        of_it = [row for row in analysis.answers if row.question == asked and row.counts]
        if not any(any(row.counts.values()) for row in of_it):
            continue
        question = results.rubric.of_label(asked)
        named = [
            (" / ".join(titles.get(each, each) for each in row.model.split(" / ")) if row.model else "the image")
            for row in of_it
        ]
        given = list(dict.fromkeys(each for row in of_it for each in row.counts))
        words = [titles.get(each) or question.in_words(int(each) if each.isdigit() else each) for each in given]
        rows = [
            (
                name,
                *(str(row.counts.get(each, 0)) for each in given),
                str(row.cannot_judge),
                estimate(row.mean),
            )
            for name, row in zip(named, of_it, strict=True)
        ]
        text = "How often each answer was given by all first readers, repeats left out. Mean: with its 95 % interval."
        counts = [(name, [row.counts.get(each, 0) for each in given]) for name, row in zip(named, of_it, strict=True)]
        title = question_in_words(results.rubric, asked, "")
        yield Section(title, text, ("", *words, "Cannot judge", "Mean"), rows, charts.shares(counts, words, title))


def _differences(compared: Sequence[Difference], titles: Mapping[str, str]) -> Iterable[Section]:
    """A section for each quantity."""
    for outcome in dict.fromkeys(row.outcome for row in compared):
        rows = [row for row in compared if row.outcome == outcome]
        ratio = rows[0].scale == "ratio"
        names = [f"{titles.get(row.first, row.first)} / {titles.get(row.second, row.second)}" for row in rows]
        first = rows[0]
        holds = (
            "Readers, cases and reports are random, and the difference may differ from reader to reader: it holds for "
            "readers and cases like these."
            if first.holds_for == ANY_READERS
            else "Cases are random: it holds for cases like these and for these readers."
        )
        meaning = "how many times as much the first has as the second (1: equal)"
        text = (
            f"{first.title.capitalize()}: {meaning if ratio else 'the first less the second (0: equal)'}, with the "
            f"95 % interval. {first.method.capitalize()} of {first.readings} readings, by {first.readers} readers of "
            f"{first.cases} cases. {holds} p is two-sided; adjusted: by Holm's method for {len(rows)} "
            f"{'pair' if len(rows) == 1 else 'pairs'} of systems."
        )
        cells = [
            (name, estimate(row.estimate), probability(row.p), probability(row.p_adjusted))
            for name, row in zip(names, rows, strict=True)
        ]
        chart = charts.forest(
            [(name, row.estimate) for name, row in zip(names, rows, strict=True)],
            f"{'Ratio' if ratio else 'Difference'}: {first.title}",
            neutral=1 if ratio else 0,
            log=ratio,
        )
        head = ("Systems", "Ratio" if ratio else "Difference", "p", "p, adjusted")
        yield Section(f"Tests between systems: {first.title}", text, head, cells, chart)


def _agreement(analysis: Analysis, scales: Sequence[ScaleAgreement]) -> Iterable[Section]:
    told = [row for row in analysis.agreement if not math.isnan(row.alpha.value)]
    same = [row.question for row in analysis.agreement if math.isnan(row.alpha.value)]
    if told or same:
        rows = [
            (
                row.question.capitalize(),
                str(row.units),
                estimate(row.alpha),
                number(row.fleiss),
                number(row.cohen),
                "; ".join(f"{pair}: {number(value)}" for pair, value in row.cohen_pairs.items()),
            )
            for row in told
        ]
        text = (
            "1: full agreement; 0: no more than by chance. Compared: reports, sentences, comparisons or studies that "
            "two or more readers answered. Cohen's kappa: mean over pairs of readers, and each pair."
        )
        if same:
            text += f" All gave one and the same answer, so there is no measure: {', '.join(same)}."
        head = ("Question", "Compared", "Krippendorff's alpha", "Fleiss' kappa", "Cohen's kappa", "By pair")
        chart = charts.forest(
            [(row.question.capitalize(), row.alpha) for row in told], "Krippendorff's alpha", neutral=0
        )
        yield Section("Agreement between readers", text, head, rows, chart)
    kept = [row for row in scales if not math.isnan(row.agreement.value)]
    if kept:
        cells = [
            (
                row.question.capitalize(),
                str(row.units),
                "; ".join(f"{pair}: {estimate(value)}" for pair, value in row.linear.items()),
                "; ".join(f"{pair}: {estimate(value)}" for pair, value in row.quadratic.items()),
                estimate(row.agreement),
                estimate(row.consistency),
            )
            for row in kept
        ]
        text = (
            "Of what all readers answered. Weighted kappa: an answer that is further away counts more, by its distance "
            "(linear) or its square (quadratic). Intraclass correlation of single answers (Shrout and Fleiss 1979): "
            "ICC(2,1) asks whether readers give the same number, ICC(3,1) whether they rank alike."
        )
        head = ("Question", "Compared", "Kappa, linear", "Kappa, quadratic", "ICC(2,1)", "ICC(3,1)")
        yield Section("Agreement on counts and scales", text, head, cells)


def _self_agreement(analysis: Analysis) -> Iterable[Section]:
    if analysis.self_agreement:
        rows = [
            (row.reader, row.question or "all", str(row.answers), f"{row.equal:.0%}", number(row.kappa))
            for row in analysis.self_agreement
        ]
        text = "Questions on screens that a reader saw twice without being told."
        head = ("Reader", "Question", "Answered twice", "Same answer", "Cohen's kappa")
        yield Section("Agreement of readers with themselves", text, head, rows)


def _drift(results: Results, analysis: Analysis) -> Iterable[Section]:
    if not analysis.drift:
        return
    rows = [
        (
            row.reader,
            row.quantity.capitalize(),
            str(row.screens),
            number(row.first_half),
            number(row.second_half),
            number(row.rho),
            probability(row.p),
        )
        for row in analysis.drift
        if row.first_half or row.second_half
    ]
    done = results.screens[(results.screens["state"] == "done") & ~results.screens["repeat"]]
    done = done[~done["adjudication"]].sort_values("finished")
    seconds = {str(reader): group["seconds"].tolist() for reader, group in done.groupby("reader", sort=True)}
    text = (
        "Means per screen in the first and the second half of what a reader finished, in that order; rho: Spearman's "
        "correlation with the order, above 0 where the quantity rises. The chart has the seconds of each screen."
    )
    head = ("Reader", "What", "Screens", "First half", "Second half", "rho", "p")
    chart = (
        charts.course(seconds, "Seconds per screen, in the order of finishing")
        if any(map(any, seconds.values()))
        else ""
    )
    if rows:
        yield Section("Change over the session", text, head, rows, chart)


def _correlations(analysis: Analysis) -> Iterable[Section]:
    if analysis.correlations:
        rows = [
            (row.metric, str(row.reports), estimate(row.kendall), estimate(row.spearman))
            for row in analysis.correlations
        ]
        text = (
            "Rank correlation of a metric with the readers' mean number of significant errors of each report: below 0 "
            "where the metric is good. 95 % intervals over studies."
        )
        chart = charts.forest(
            [(row.metric, row.kendall) for row in analysis.correlations], "Kendall's tau-b", neutral=0
        )
        head = ("Metric", "Reports", "Kendall's tau-b", "Spearman's rho")
        yield Section("Automatic metrics against counted errors", text, head, rows, chart)


def _discussed(
    results: Results, titles: Mapping[str, str], picture: Callable[[str], FloatImage] | None
) -> list[dict[str, Any]]:
    """Cases that a reader commented on, flagged or skipped, or that a third reader settled."""
    screens, table = results.screens, settle(results)
    noted = screens[screens["flagged"] | (screens["comment"] != "") | (screens["skip_reason"] != "")]
    settled = table[table["disputed"] & table["value"].notna()]
    found = []
    for study in sorted({*noted["study"], *settled["study"]})[:MAX_DISCUSSED]:
        group, texts = noted[noted["study"] == study], results.reports[study]
        decided = settled[settled["study"] == study].to_dict("records")
        shown = {model for row in group["shown"] for _, model in row}
        named = [name for row in decided for name in (row["model"], row["question"])]
        shown |= {model for name in named for model in name.split(" / ")}
        answers = [
            {
                "system": titles.get(row["model"], row["model"]),
                "question": question_in_words(results.rubric, row["question"], texts.get(row["model"], "")),
                "answer": answer_in_words(results.rubric, row["value"], row["question"]),
                "given": _given(results, study, row["model"], row["question"]),
            }
            for row in decided
        ]
        notes = [
            {
                "reader": row["reader"],
                "flagged": row["flagged"],
                "text": " ".join(
                    filter(None, (row["comment"], row["skip_reason"] and f"Skipped: {row['skip_reason']}"))
                ),
            }
            for row in group.to_dict("records")
        ]
        found.append(
            {
                "study": study,
                "facts": "; ".join(f"{name}: {text}" for name, text in results.contexts.get(study, {}).items() if text),
                "reports": {titles.get(model, model): text for model, text in texts.items() if model in shown},
                "notes": notes,
                "settled": answers,
                "picture": "" if picture is None else _png(picture(study)),
            }
        )
    return found


def _given(results: Results, study: str, model: str, question: str) -> str:
    """What each first reader answered to a disputed question."""
    answers = results.answers
    rows = answers[
        (answers["study"] == study)
        & (answers["model"] == model)
        & (answers["question"] == question)
        & ~answers["repeat"]
        & ~answers["adjudication"]
    ]
    said = zip(rows["reader"], rows["value"], strict=True)
    return ", ".join(f"{reader} {answer_in_words(results.rubric, value, question)}" for reader, value in said)


def _png(image: FloatImage) -> str:
    out = io.BytesIO()
    Image.fromarray((image.clip(0, 1) * 255).round().astype("uint8")).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
