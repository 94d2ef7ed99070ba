"""A sheet for pre-registration, in Markdown: what a design asks, of whom, in which order, and how it is analysed."""

from __future__ import annotations

from collections.abc import Sequence

from core import __version__
from core.config import to_dict
from core.files import hash_of
from core.reviews.design import REFERENCE, Design
from core.reviews.questions import Question

_CHOSEN = {
    "random": "at random, by the seed",
    "stratified": "by observation, the rarest first, at random within each, by the seed",
    "disagreement": "those whose reports differ in most observations",
    "listed": "a list, given in the design",
}


def design_hash(design: Design) -> str:
    """SHA-256 of a design with its rubric: another design has another one."""
    values = to_dict(design)
    return hash_of({**values, "rubric_text": design.questions.text})


def sheet(design: Design, *, studies: int | None = None, sample_size: Sequence[str] = ()) -> str:
    """Write the sheet.

    Args:
        design: of the study.
        studies: how many are read, where a session was made; None takes the design's number.
        sample_size: what `core.reviews.power` found, in sentences.
    """
    rubric = design.questions
    count = design.studies.count or len(design.studies.ids) or studies
    arms = [
        ("radiologist's report (reference)" if name == REFERENCE else name)
        for name in (design.editing.arms or design.models)
    ]
    if not rubric.reports_per_screen:
        arms = ["none: the image alone"]
    lines = [
        f"# Pre-registration: {design.title}",
        "",
        "## Question",
        "",
        f"{rubric.about} Readers are asked: “{rubric.question}”",
        "",
        "## Arms",
        "",
        *([f"- {each}" for each in arms] or ["- all systems of which the cases have a report"]),
        "",
        (
            "Readers do not know who wrote a report: systems go by letters that are drawn for each reader, and "
            "names are revealed when the session is closed."
        ),
        "",
        "## Readers",
        "",
        (
            f"{len(design.readers)}, each reads all cases{_limit(design)}. What they answer differently can be "
            "settled by a third reader, who enters no comparison."
        ),
        "",
        "## Cases",
        "",
        f"{count if count else 'All'} studies, chosen {_CHOSEN[design.studies.how]}"
        f"{f', from {design.source}' if design.source else ''}.",
        "",
        "## Randomisation",
        "",
        (
            f"Seed {design.seed}. Order of screens, letters and sides: by hash (SHA-256) of the seed and a secret "
            "of the session that is drawn when it is made; each reader has an order of their own."
        ),
        *_repeats(design),
        *_sittings(design),
        "",
        "## Outcomes",
        "",
        *_outcomes(design),
        "",
        "## Analysis",
        "",
        *_analysis(design),
        "",
        (
            "Two-sided, 95 % intervals; p-values of the pairs of systems of one quantity adjusted by Holm's "
            "method. Repeats, a third reader's answers, practice cases, skipped and unfinished screens enter no "
            "comparison."
        ),
        "",
        "## Sample size",
        "",
        *(
            list(sample_size)
            or [
                (
                    "Not worked out here. With a pilot or a rehearsal: `cxr-lens review sheet DESIGN.toml --pilot "
                    "SESSION --change=-10%`."
                )
            ]
        ),
        "",
        "## Identity",
        "",
        f"- Rubric: {rubric.name}, version {rubric.version}{f'; {rubric.source}' if rubric.source else ''}",
        f"- Software: CXR Lens {__version__}",
        f"- SHA-256 of the design with its rubric: `{design_hash(design)}`",
        "",
    ]
    return "\n".join(lines)


def _limit(design: Design) -> str:
    return f", in at most {design.minutes} minutes of active time" if design.minutes else ", without a time limit"


def _repeats(design: Design) -> list[str]:
    if not design.repeats:
        return []
    return [
        "",
        (
            f"{design.repeats} screens are shown to each reader a second time, unmarked, at least {design.washout} "
            "screens after the first, for agreement of readers with themselves."
        ),
    ]


def _outcomes(design: Design) -> list[str]:
    rubric = design.questions
    own = {
        "error": "clinically significant errors per report, of six kinds",
        "preference": "which of two reports is preferred, or no difference",
        "helpfulness": "whether what is highlighted supports a sentence, 0 to 2",
        "label": "state of each of 14 observations",
    }
    lines = (
        [f"- {_outcome(each)}" for each in rubric.questions] if rubric.mark == "answer" else [f"- {own[rubric.mark]}"]
    )
    return [*lines, *_edits(design), "- seconds of active reading per screen"]


def _edits(design: Design) -> list[str]:
    """What comes of editing a draft."""
    editing = design.editing
    if not editing.arms:
        return []
    lines = ["- seconds from the first key to the last, words changed, errors left against the reference, per report"]
    if editing.planted:
        kinds = ", ".join(editing.kinds)
        lines.append(f"- planted errors caught ({editing.planted:.0%} of the systems' drafts get one: {kinds})")
    return lines


def _sittings(design: Design) -> list[str]:
    """How drafts are given to readers."""
    editing = design.editing
    if not editing.arms:
        return []
    if editing.sittings > 1:
        square = "Williams" if editing.square == "williams" else "Latin"
        how = (
            f"Each reader edits each case in every arm, an arm a sitting, at least {editing.washout_days} days apart; "
            f"orders of arms by a {square} square."
        )
    else:
        how = "Each reader edits each case once; the arms rotate over cases and readers by a Latin square."
    return ["", how]


def _outcome(question: Question) -> str:
    kinds = {
        "scale": f"scale of {len(question.options)} steps",
        "choice": "one of " + ", ".join(question.options.values()),
        "choices": "any of " + ", ".join(question.options.values()),
        "confidence": "per cent",
        "preference": "a report, or no difference" if question.tie else "a report",
        "mark": "marks of the kinds " + ", ".join(question.options.values()),
        "text": "text",
        "replacement": "text",
        "edit": "the draft, as the reader would sign it",
    }
    when = "" if question.when is None else f"; asked depending on {question.when.question}"
    items = f"; of each of {', '.join(question.items)}" if question.items else ""
    return f"{question.ask} ({kinds[question.kind]}{items}{when})"


def _analysis(design: Design) -> list[str]:
    rubric = design.questions
    kinds = {each.kind for each in rubric.questions} if rubric.mark == "answer" else set()
    random = "readers, cases and reports random and crossed" + (
        ", and a reader's leaning to a system" if len(design.readers) >= 3 else ""
    )
    lines = []
    if design.editing.arms:
        sitting = ", sittings fixed too" if design.editing.sittings > 1 else ""
        lines.append(
            f"- Words changed and errors left: Poisson mixed model (Laplace), arms fixed{sitting}, {random}; ratio of "
            "means."
        )
        quantities = "Typing" + (" and the share of planted errors left" if design.editing.planted else "")
        lines.append(f"- {quantities}: linear mixed model (REML), arms fixed{sitting}, {random}.")
    if kinds & {"scale", "confidence"} or rubric.mark == "helpfulness":
        lines.append(
            f"- Scales, mean per report: linear mixed model (REML), systems fixed, {random}; Satterthwaite's "
            "degrees of freedom."
        )
    if "mark" in kinds or rubric.mark == "error":
        lines.append(f"- Counts: Poisson mixed model (Laplace), systems fixed, {random}; ratio of means.")
    if "preference" in kinds or rubric.mark == "preference":
        lines.append("- Preference: share won less share lost, permutation of whole studies, jackknifed interval.")
    if rubric.reports_per_screen == 1:
        lines.append(f"- Seconds: linear mixed model of logarithms, systems fixed, {random}; ratio.")
    if rubric.mark == "label" or kinds & {"choice", "choices"}:
        lines.append("- Choices: how often each answer was given, by system.")
    lines.append(
        "- Agreement: Krippendorff's alpha, Cohen's and Fleiss' kappa; of scales weighted kappa and "
        "intraclass correlation (Shrout and Fleiss)."
    )
    return lines
