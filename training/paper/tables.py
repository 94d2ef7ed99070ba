"""The paper's tables from what evaluations and trainings left on disk; `core.paper.tables` is their format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from core.config import ExperimentConfig
from core.evaluation import java
from core.evaluation.auc import macro_aucs
from core.evaluation.metrics import METRICS
from core.evaluation.resampling import spread
from core.observations import OBSERVATIONS
from core.paper.tables import PRINTED, Kind, PaperTable, Row, beside, paper_numbers
from core.registry import DECODERS, ENCODERS, classifier_row, did_you_mean, encoder_parts, lookup, table_order
from core.types import SPLITS, Split
from training.backbones import BACKBONES
from training.evaluate import score_texts
from training.paper.probes import usable
from training.run_folder import StageError
from training.stages.classifiers import backbone_classifier, coarse_scores
from training.stages.encoders import Stage
from training.stages.label_text import label_text_decoder
from training.stages.run import Run

OTHER_DATA = "The paper's numbers are of MIMIC-CXR and paper-size networks: other data and sizes, no contest."
REPORT_METRICS = {name: title for name, title in PRINTED.items() if name != "auc"} | {
    "f1_frequent": METRICS["f1_frequent"].head
}


def read_results(path: Path) -> dict[str, Any]:
    """What `training.evaluate` wrote.

    Raises:
        StageError: it is missing or damaged; the message says how to write it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(content["rows"], list) and content["rows"] and isinstance(content["baselines"], list)):
            raise ValueError("no rows")
    except FileNotFoundError:
        near = did_you_mean(path.name, [each.name for each in path.parent.glob("*results.json")])
        raise StageError(
            f"{path} is missing.{near} `cxr-lens train` writes it beside its bundles, or: cxr-lens evaluate --out."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"{path} is damaged ({type(error).__name__}: {error}). Evaluate again.") from error
    return dict(content)


def refuse_other_trainings(results: Sequence[Mapping[str, Any]]) -> None:
    """Refuse evaluations that cannot be of several seeds of one training.

    Raises:
        StageError: they are not of the same family and studies, or one seed is there twice.
    """
    for key in ("family", "studies", "fingerprint"):
        if len(values := {str(each[key]) for each in results}) > 1:
            raise StageError(f"Evaluations of several seeds must agree in '{key}', these have {', '.join(values)}.")
    seeds = [each["seed"] for each in results if "seed" in each]
    if len(set(seeds)) < len(seeds):
        raise StageError(f"These evaluations are of the seeds {', '.join(map(str, seeds))}: name each seed once.")


def table_1(results: Sequence[Mapping[str, Any]], paper: Path, command: str) -> PaperTable:
    """Table 1 from the evaluations of one family: all pairs, then the baselines.

    Args:
        results: of one seed, or of several; then values are means, with their standard deviation over seeds, and there
            are no intervals over studies.
        paper: folder of the paper's numbers.
        command: that writes the table again.

    Raises:
        StageError: the evaluations are not of the same family, studies and pairs.
    """
    first = results[0]
    refuse_other_trainings(results)
    printed = paper_numbers(paper, "1")
    pairs = [_by_name(each["rows"]) for each in results]
    baselines = [_by_name(each["baselines"]) for each in results]
    if any(each.keys() != pairs[0].keys() for each in pairs):
        raise StageError("Evaluations of several seeds must have the same pairs; finish the seed that lacks some.")
    order = {pair: index for index, pair in enumerate(table_order())}
    names = sorted(pairs[0], key=lambda name: order.get(_pair(pairs[0][name]), len(order)))
    rows = [_report_row([each[name] for each in pairs], printed) for name in names]
    for name, row in baselines[0].items():
        cells = _cells([each[name] for each in baselines if name in each], None)
        rows.append(Row(name=name, kind="baseline", metrics=cells, note=str(row.get("detail", ""))))
    return PaperTable(
        name="1",
        family=str(first["family"]),
        metrics=_of_some(rows),
        rows=tuple(rows),
        n=int(first["studies"]),
        seeds=tuple(int(each["seed"]) for each in results if "seed" in each),
        command=command,
        data=f"{first['family']}, held-out split, fingerprint {first['fingerprint']}.",
        notes=(OTHER_DATA, str(first["protocol"])),
    )


def rows_of_table_2(config: ExperimentConfig) -> list[str]:
    """The seven, and below the paper's size CDC: what a start from learned weights is worth beside random ones."""
    return [*BACKBONES, *(("cdc",) if config.size != "paper" else ())]


def stages_of_table_2(names: Sequence[str]) -> list[Stage]:
    """The stages behind its rows; none needs another.

    Raises:
        CXRLensError: unknown name.
    """
    known = dict.fromkeys((*BACKBONES, "cdc"), True)
    for name in names:
        lookup(known, name, "backbone")
    return [coarse_scores if name == "cdc" else partial(backbone_classifier, name=name) for name in names]


def table_2(run: Run, names: Sequence[str], paper: Path, command: str) -> PaperTable:
    """Table 2: train the classifiers that are not trained yet, and score them on held-out studies.

    Args:
        run: the preset's.
        names: keys of ``BACKBONES``, or "cdc", FVE's coarse classifier as the preset trains it.
        paper: folder of the paper's numbers.
        command: that writes the table again.

    Raises:
        StageError: no observation has both kinds in every split.
    """
    printed = paper_numbers(paper, "2")
    targets: dict[Split, Any] = {split: run.data.coarse_targets(split).numpy() for split in SPLITS}
    labels = usable(targets, OBSERVATIONS)
    kept = [OBSERVATIONS.index(name) for name in labels.names]
    scores = {}
    for name, stage in zip(names, stages_of_table_2(names), strict=True):
        stage(run)
        path = run.folder / "table2" / name / "scores.safetensors"
        scores[name] = load_file(path)["scores"].numpy()[:, kept]
    tested = run.data.studies["test"]
    measured = macro_aucs(labels.targets["test"], scores, subjects=[study.subject_id for study in tested])
    rows = []
    for name, (value, draws) in measured.items():
        low, high = np.quantile(draws, [0.025, 0.975]).tolist()
        cells = beside({"auc": value}, printed.get((name,)), intervals={"auc": (low, high)})
        summary = json.loads((run.folder / "table2" / name / "summary.json").read_text(encoding="utf-8"))
        note = f"{summary['epochs']} epochs, best validation AUC {summary['best']:.3f}"
        kind: Kind = "control" if name == "cdc" else "system"
        if name == "cdc":
            tower = classifier_row().sizes[run.config.size].arch["backbone"]
            title = f"CDC of this preset ({tower})"
            note += f"{_start_of_cdc(run.config)}. No row of the paper: beside it, what a start is worth."
        else:
            title = BACKBONES[name].title
            note += f"{', SAM' if BACKBONES[name].sharp else ''}."
        rows.append(Row(name=title, kind=kind, keys={"backbone": name}, metrics=cells, note=note))
    notes = [OTHER_DATA, "The paper's set is not named, probably its validation split; ours is held out."]
    if run.config.size != "paper":
        notes.append("The paper's seven are shrunk here, read 128 px and start from random weights.")
    if labels.left_out:
        left_out = "; ".join(f"{name} ({why})" for name, why in labels.left_out.items())
        notes.append(f"Left out: {left_out}.")
    return PaperTable(
        name="2",
        family=run.config.name,
        metrics={"auc": f"mean ROC-AUC of {len(labels.names)} observations"},
        rows=tuple(rows),
        n=len(tested),
        seeds=(run.config.seed,),
        command=command,
        data=_data(run),
        notes=tuple(notes),
    )


def _start_of_cdc(config: ExperimentConfig) -> str:
    """What its weights had learned before."""
    start = ", from ImageNet's weights" * config.pretrained
    learned = {"none": "", "phantom": "labels of other phantoms", "train": "coarse and fine labels of the same studies"}
    before = learned[config.backbone.source]
    epochs = config.backbone.epochs
    if config.backbone.before != "none":
        start += f", after {config.backbone.before_epochs} epochs of another collection's labels"
    return start + (f", after {epochs} epoch{'s' * (epochs != 1)} of {before}" if before else "")


def table_3(run: Run, paper: Path, command: str) -> PaperTable:
    """Table 3: train the text encoder-decoder if it is not trained yet, and score its held-out reports.

    Its labels come from the very report that it writes: an upper bound, no competitor. "The labels themselves" is a
    control: how much the metrics give to the bare list.
    """
    label_text_decoder(run)
    texts = json.loads((run.folder / "table3" / "reports.json").read_text(encoding="utf-8"))
    studies = run.data.studies["test"][: run.config.evaluate_studies or None]
    lists = [". ".join(study.fine_labels) + "." if study.fine_labels else "" for study in studies]
    scores = score_texts(run.config, run.data, {"text": texts, "list": lists})
    names = {"text": "true fine labels to report", "list": "the labels themselves, as a list"}
    kinds: dict[str, Kind] = {"text": "system", "list": "control"}
    printed = paper_numbers(paper, "3")["gt_fine_labels_text",]
    rows = [
        Row(
            name=names.get(name, name),
            kind=kinds.get(name, "baseline"),
            keys={"input": "gt_fine_labels_text"} if name == "text" else {},
            metrics=_cells([row], printed if name == "text" else None),
            note=" ".join(row["warnings"]),
        )
        for name, row in scores.items()
    ]
    return PaperTable(
        name="3",
        family=run.config.name,
        metrics=_of_some(rows),
        rows=tuple(rows),
        n=len(studies),
        seeds=(run.config.seed,),
        command=command,
        data=_data(run),
        notes=(
            OTHER_DATA,
            "The input is taken from the reference itself: an upper bound, no competitor of Table 1.",
            *filter(None, [java.missing()]),
        ),
    )


def _data(run: Run) -> str:
    return (
        f"{run.config.name}, fingerprint {run.data.fingerprint()}; "
        f"{len(run.data.studies['train']):,} training studies, models of size {run.config.size}."
    )


def _by_name(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {str(row["name"]): row for row in rows}


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["encoder"], row["decoder"]


def _report_row(seeds: Sequence[Mapping[str, Any]], printed: Mapping[tuple[str, ...], Mapping[str, float]]) -> Row:
    pair = _pair(seeds[0])
    encoder = " + ".join(ENCODERS[part].title for part in encoder_parts(pair[0]))
    return Row(
        name=f"{encoder}, {DECODERS[pair[1]].title}",
        keys={"encoder": pair[0], "decoder": pair[1]},
        metrics=_cells(seeds, printed.get(pair)),
        note=" ".join(dict.fromkeys(warning for row in seeds for warning in row.get("warnings", ()))),
    )


def _of_some(rows: Sequence[Row]) -> dict[str, str]:
    """Titles of the metrics that a row has: older evaluations lack some."""
    return {name: title for name, title in REPORT_METRICS.items() if any(name in row.metrics for row in rows)}


def _cells(seeds: Sequence[Mapping[str, Any]], paper: Mapping[str, float] | None) -> dict[str, Any]:
    names = [name for name in REPORT_METRICS if all(name in row for row in seeds)]
    if len(seeds) == 1:
        return beside({name: seeds[0][name] for name in names}, paper, intervals=seeds[0].get("intervals"))
    spreads = spread([{name: row[name] for name in names} for row in seeds])
    means = {name: each.mean for name, each in spreads.items()}
    return beside(means, paper, sd={name: each.sd for name, each in spreads.items()})
