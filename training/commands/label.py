"""The commands ``cxr-lens label`` and ``cxr-lens label-quality``."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.observations import LabelState
from core.types import CXRLensError
from core.wording import counted
from training.console import print_result, progress_bar, resumable, warn
from training.options import (
    AsJson,
    Disagreements,
    OpenI,
    PhantomCount,
    Processes,
    checkpoint_option,
)

if TYPE_CHECKING:
    from core.evaluation.clinical import ClinicalScores
    from core.labels.files import Labeler, Outcome

_SHOWN = (LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN)
_FEW = 1000  # ours: reports a worker process at least has; fewer are labelled before it has started


class OutputFormat(StrEnum):
    """Choices of output."""

    STATES = "states"
    CHEXPERT = "chexpert"
    CHEXBERT = "chexbert"


class LabelerName(StrEnum):
    """Choices of labelers."""

    RULES = "rules"
    CHEXBERT = "chexbert"


Checkpoint = Annotated[Path | None, checkpoint_option()]


def label(
    file: Annotated[Path, typer.Argument(help="CSV (or .csv.gz), Parquet, or text: one report, or one a line.")],
    out: Annotated[
        Path | None, typer.Option(help="CSV, Parquet or JSON lines (.jsonl).", show_default="FILE.labels.csv")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Column of the reports; may come again, then the texts are joined.")
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Column to copy to the output; may come again.")] = None,
    form: Annotated[
        OutputFormat,
        typer.Option("--format", help="States in words with their evidence, or the table of another labeler."),
    ] = OutputFormat.STATES,
    labeler: Annotated[LabelerName, typer.Option(help="Which labeler.")] = LabelerName.RULES,
    checkpoint: Checkpoint = None,
    processes: Processes = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace the output if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Label the reports of a file with 14 observations. Interrupted, it goes on where it stopped."""
    from core.labels.files import find_reports, label_file, take_census

    target = out or file.with_name(f"{Path(file.name.removesuffix('.gz')).stem}.labels.csv")
    if target.exists() and not overwrite:
        raise CXRLensError(f"{target} is there already. Choose another --out, or --overwrite it.")
    if target.exists() and target.samefile(file):
        raise CXRLensError("The output cannot be the file that is read. Choose another --out.")
    label_texts, version = _labeler(labeler, checkpoint, processes)
    reports = find_reports(file, column or (), keep or ())
    if reports.whole:
        warn(
            f"{file} is read as one report over many lines. If its lines are a report each, make a CSV file of them: "
            "a line with 'report', then each report in quotes."
        )
    census = take_census(reports)
    began = time.perf_counter()
    with resumable(), progress_bar("report") as tell:
        outcome = label_file(
            reports, target, form.value, label_texts, version, census, lambda done: tell(done, census.reports)
        )
    _tell(outcome, time.perf_counter() - began, target, as_json)


def label_quality(
    openi: OpenI = None,
    sentences: Annotated[Path | None, typer.Option(help="Another table of sentences labelled by hand.")] = None,
    count: PhantomCount = 2000,
    disagreements: Disagreements = 0,
    labeler: Annotated[LabelerName, typer.Option(help="Which labeler.")] = LabelerName.RULES,
    checkpoint: Checkpoint = None,
    processes: Processes = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a labeler: on phantom reports, on hand-labelled sentences, on Open-i's human codes."""
    from core.evaluation import label_quality as quality

    label_texts, version = _labeler(labeler, checkpoint, processes)
    phantoms, of_phantoms = quality.phantom_scores(label_texts, count)
    table = quality.read_sentences(sentences or quality.SENTENCES)
    right, wrong = quality.sentence_results(table, label_texts([each.text for each in table]))
    written = quality.read_sentences(quality.WRITTEN)
    counts = quality.sentence_counts(written, label_texts([each.text for each in written]))
    plain: dict[str, Any] = {
        "labeler": version,
        "phantom": {"reports": phantoms, **_plain_scores(of_phantoms)},
        "sentences": {
            "topics": {topic: {"sentences": len(each), "right": sum(each)} for topic, each in right.items()},
            "wrong": [{"text": text, "found": found} for text, found in wrong],
        },
        "as_written": counts,
        "openi": None,
    }
    parts = [
        f"Labeler: {version}. Precision, recall and F1 are of positive mentions.",
        f"## Phantom reports\n\n{quality.phantom_table(phantoms, of_phantoms)}",
        f"## Sentences labelled by hand\n\n{quality.sentence_table(right, wrong)}",
        f"## Sentences as reports are written\n\n{quality.halves_table(counts)}",
    ]
    try:
        reports = quality.read_openi(openi)
    except CXRLensError as error:
        if openi is not None:
            raise
        warn(f"Open-i's human codes: not measured. {error}")
    else:
        labeled = label_texts([report.text for report in reports])
        scores = quality.openi_quality(reports, labeled)
        parts.append(f"## Open-i's human codes, held-out half\n\n{quality.openi_table(scores)}")
        plain["openi"] = {
            "held_out": {"reports": scores.held_out_reports, **_plain_scores(scores.held_out)},
            "held_out_uncertain_counts": _plain_scores(scores.asserted),
            "development": {"reports": scores.development_reports, **_plain_scores(scores.development)},
        }
        if disagreements:
            drawn = quality.openi_disagreements(reports, labeled, disagreements)
            parts.append(drawn)
            plain["openi"]["disagreements"] = drawn.split("\n\n")
    print_result(plain, as_json, lambda: "\n\n".join(parts))


def _plain_scores(scores: ClinicalScores) -> dict[str, Any]:
    names = ("precision", "recall", "f1", "positive")
    by_observation = {name: dict(zip(names, each, strict=True)) for name, each in scores.by_observation.items()}
    return {**{name: getattr(scores, name) for name in names[:3]}, "by_observation": by_observation}


def _labeler(name: LabelerName, checkpoint: Path | None, processes: int) -> tuple[Labeler, str]:
    """Return a labeler and its version; what it needs is loaded here, before any work."""
    from core.labels.rules import RULES_VERSION, LabeledReport, label_reports

    if name is LabelerName.RULES:

        def by_rules(texts: Sequence[str]) -> list[LabeledReport]:
            return label_reports(texts, processes or min(os.cpu_count() or 1, 1 + len(texts) // _FEW))

        return by_rules, f"rules {RULES_VERSION}"
    if checkpoint is None:
        raise CXRLensError("--labeler chexbert needs its weights: --checkpoint FILE. See docs/chexbert.md.")
    from core.labels.chexbert import load_chexbert

    chexbert = load_chexbert(checkpoint)
    with checkpoint.open("rb") as weights:
        version = f"chexbert {hashlib.file_digest(weights, 'sha256').hexdigest()[:16]}"
    return lambda texts: [LabeledReport(states, ()) for states in chexbert.label(texts)], version


def _tell(outcome: Outcome, seconds: float, target: Path, as_json: bool) -> None:
    census = outcome.census
    fresh = census.reports - outcome.resumed
    lines = [f"{'observation':28}" + "".join(f"{state:>11}" for state in _SHOWN)]
    lines += [
        f"{name:28}" + "".join(f"{counts[state]:11,}" for state in _SHOWN) for name, counts in outcome.counts.items()
    ]
    for number, what in (
        (census.empty, "rows without text: their labels are blank"),
        (census.broken, "reports with bytes that are not UTF-8: read as �"),
        (census.long, "reports of more than 100,000 characters: is it the right column?"),
    ):
        if number:
            lines.append(f"{number:,} {what}")
    earlier = f" ({outcome.resumed:,} by an earlier run)" if outcome.resumed else ""
    speed = f"{fresh / seconds:,.0f} reports a second" if fresh else "nothing was left to do"
    lines.append(f"{counted(census.reports, 'report', 'reports')}{earlier}, {speed}: {target}")
    plain = {
        "file": target,
        **{name: getattr(census, name) for name in ("reports", "empty", "broken", "long")},
        "counts": {name: {str(state): counts[state] for state in _SHOWN} for name, counts in outcome.counts.items()},
    }
    print_result(plain, as_json, lambda: "\n".join(lines))
