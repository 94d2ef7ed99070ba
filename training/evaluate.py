"""Score the bundles of a preset on held-out studies, beside baselines that need no model."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from core.bundles.card import Card
from core.bundles.inference import write_batch
from core.bundles.library import BundleLibrary
from core.config import ExperimentConfig, to_dict
from core.decoders.search import GenerateConfig
from core.devices import Precision
from core.evaluation import java
from core.evaluation.language import PROTOCOLS
from core.evaluation.metrics import METRICS, READING
from core.evaluation.results import (
    COMPARED_SIZE,
    CONSTANT,
    NEAREST,
    Baselines,
    comparable,
    constant_report,
    label_texts,
    nearest_reports,
    references_of,
    score_pairs,
)
from core.evaluation.scoring import LabeledReports, score_systems
from core.files import hash_of, write_whole
from core.registry import did_you_mean, image_size
from core.types import Study
from training.console import note
from training.data import StudyData, to_images
from training.run_folder import StageError
from training.threads import use_threads_for

BATCH = 50
PUBLISHED = {"openi": ("r2gen", "r2gen-60"), "mimic_cxr": ("r2gen", "r2gen-100")}
"""Protocols under which others publish on a source: our own reading of their tokens, whole references and cut ones."""


def evaluate(
    config: ExperimentConfig,
    data: StudyData,
    bundles: Path,
    out: Path | None = None,
    jobs: int = 1,
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Score all bundles of ``config``'s family.

    The reference's labels are the phantom's known truth, or those of the source; generated reports are labelled by the
    rule labeler.

    Args:
        config: which studies; how reports are written stands in the bundles' cards.
        data: studies and images.
        bundles: folder of the bundles.
        out: where results.json, table.md and the reports of all pairs go; None writes nothing.
        jobs: pairs that write side by side, a process each.
        device: where they write; see `core.devices.open_device`.
        precision: see `core.devices.Precision`.

    Returns:
        {"rows": one a pair, "baselines": three, "command", "protocol", "published": protocol -> system -> scores,
        "made_of": bundle -> hash of what decides its reports}.

    Raises:
        StageError: there is no bundle of this family.
        CXRLensError: there is no such device.
    """
    cards = cards_of(config.name, bundles)
    _tell_other_settings(config, cards)
    studies, references, subjects = _held_out(config, data)
    baselines = _baselines(data, studies)
    written = _write_all(cards, _Work(bundles, config, data.folder, len(studies), device, precision), data, jobs)
    if out is not None:  # before scoring: they take the longest
        out.mkdir(parents=True, exist_ok=True)
        lines = [
            {"study_id": study.study_id, "reference": study.findings}
            | {card.name: written[card.name][row] for card in cards}
            for row, study in enumerate(studies)
        ]
        write_whole(out / "reports.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    labelled = {card.name: label_texts(written[card.name]) for card in cards}
    published = PUBLISHED.get(config.data.source, ())
    scored = score_pairs(cards, references, subjects, labelled, baselines, data.source.labelled_by, published)
    results = {
        "family": config.name,
        "studies": len(studies),
        "seed": config.seed,
        "fingerprint": data.fingerprint(),
        "made_of": {card.name: hash_of(card.made_of) for card in cards},
        "command": f"cxr-lens evaluate --preset {config.name}" + (f" --precision {precision}" * (precision != "fp32")),
        **scored,
    }
    if out is not None:
        write_whole(out / "results.json", json.dumps(results, indent=1))
        write_whole(out / "table.md", evaluation_markdown(results))
    return results


def cards_of(family: str, bundles: Path) -> list[Card]:
    """The cards of a family of bundles.

    Raises:
        StageError: there is none; the message names the nearest family that is there.
    """
    cards = BundleLibrary(bundles).cards()
    found = [card for card in cards if card.family == family]
    if not found:
        raise StageError(
            f"{bundles} has no bundle of the family '{family}'.{did_you_mean(family, {card.family for card in cards})} "
            f"Run: cxr-lens train --preset {family}"
        )
    return found


def score_texts(config: ExperimentConfig, data: StudyData, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Score reports of held-out studies, by system, and the baselines; rows as `score_systems` gives them."""
    studies, references, subjects = _held_out(config, data)
    systems = {name: label_texts(each) for name, each in texts.items()}
    systems |= {name: label_texts(each) for name, (_, each) in _baselines(data, studies).items()}
    with ExitStack() as stack:
        meteor = None if java.missing() else stack.enter_context(java.Meteor())
        return score_systems(references, systems, subjects=subjects, against=NEAREST, meteor=meteor)


def evaluation_markdown(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table: the pairs, then the baselines."""
    numbers = [metric.name for metric in METRICS.values() if metric.in_table]
    heads = ["encoder", "decoder", *(METRICS[name].title for name in (*numbers, "f1", "f1_5"))]
    heads += ["macro F1 less the nearest report's", "distinct", "shuffled F1"]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for row in [*results["rows"], *results["baselines"]]:
        name = f"{row['encoder']} | {row['decoder']}" if "encoder" in row else f"*{row['name']}* | "
        low, high = row["intervals"]["f1"]
        less = row.get("differences", {}).get("f1")
        cells = [
            *(f"{row[key]:.3f}" if key in row else "" for key in numbers),
            f"{row['f1']:.3f} ({low:.3f} to {high:.3f})",
            f"{row['f1_5']:.3f}",
            f"{less['difference']:+.3f}{'*' * (less['p_holm'] < 0.05)} ({less['low']:+.3f} to {less['high']:+.3f})"
            if less
            else "",
            f"{row['distinct']:.0%}",
            f"{row['shuffled_f1']:.3f}" if "shuffled_f1" in row else "",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"{results['studies']} held-out studies. {results['protocol']}", ""]
    language = [
        name for name in numbers if any(name in row for rows in results["published"].values() for row in rows.values())
    ]
    for name, systems in results["published"].items():
        lines += [
            PROTOCOLS[name].describe(),
            "",
            f"| system | {' | '.join(METRICS[each].title for each in language)} |",
        ]
        lines += ["|---|" + "---:|" * len(language)]
        for system, scores in systems.items():
            cells = [f"{scores[key]:.3f}" if key in scores else "" for key in language]
            lines.append(f"| {system} | {' | '.join(cells)} |")
        lines.append("")
    systems = {"*references*": results["references"], **{row["name"]: row for row in results["rows"]}}
    lines += [*reading_table({name: row["reading"] for name, row in systems.items()}), ""]
    lines += [f"- {row['name']}: {warning}" for row in results["rows"] for warning in row["warnings"]]
    for row in [*results["rows"], *results["baselines"]]:
        lines += [f"- {row['name']}: no {score.upper()}. {why}" for score, why in row.get("missing", {}).items()]
    return "\n".join(lines).rstrip() + "\n"


def reading_table(systems: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Lines of a Markdown table: of each system, the shares of its reports by name of `READING`."""
    heads = [f"`{title}`" if title.startswith("<") else title for title in READING.values()]
    lines = [f"| reports with | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name, each in systems.items():
        lines.append(f"| {name} | {' | '.join(f'{each[column]:.1%}' for column in READING)} |")
    return lines


def _tell_other_settings(config: ExperimentConfig, cards: Sequence[Card]) -> None:
    """Pairs are scored as they write everywhere; a preset that says otherwise must not seem to be followed."""
    for card in cards:
        short = card.write.get("short_sentences", ())  # of the studies it learned from, in no preset
        if GenerateConfig(**card.write) != GenerateConfig(**to_dict(config.write), short_sentences=short):
            note(
                f"  {card.name} writes as its card says ({GenerateConfig(**card.write)}), not as 'write' of the "
                f"preset. To put the preset's into the card: cxr-lens rewrite-cards --preset {config.name}"
            )


def _held_out(config: ExperimentConfig, data: StudyData) -> tuple[Sequence[Study], LabeledReports, list[str]]:
    """The studies that are scored, their reports, and whose they are."""
    studies = data.studies["test"][: config.evaluate_studies or None]
    return studies, references_of(studies), [study.subject_id for study in studies]


@dataclass(frozen=True, slots=True)
class _Work:
    """What a process that writes has to know."""

    bundles: Path
    config: ExperimentConfig
    images: Path
    count: int
    device: str
    precision: Precision


def _write_all(cards: Sequence[Card], work: _Work, data: StudyData, jobs: int) -> dict[str, list[str]]:
    """Name of a bundle -> its reports; an encoder that pairs share reads each image once."""
    sharing: dict[str, list[str]] = {}
    for card in cards:
        sharing.setdefault(json.dumps(card.content["encoder"].get("shared") or card.name), []).append(card.name)
    written: dict[str, list[str]] = {}
    with ExitStack() as stack, tqdm(total=len(cards), desc="evaluating", unit="pair") as bar:
        run: Callable[..., Iterator[dict[str, list[str]]]] = map
        if jobs > 1:
            for card in cards:  # images are made once, not by each process
                data.images("test", image_size(card.encoder, card.size))  # type: ignore[arg-type]
            run = stack.enter_context(ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))).map
        for texts in run(partial(_write, work), sharing.values()):
            written |= texts
            bar.update(len(texts))
    return written


def _write(work: _Work, names: Sequence[str]) -> dict[str, list[str]]:
    use_threads_for(work.config.size)
    library = BundleLibrary(work.bundles, work.device, work.precision)
    models = [library.load(name) for name in names]
    images = StudyData(work.config.data, work.images).images("test", models[0].image_size)[: work.count]
    texts: dict[str, list[str]] = {name: [] for name in names}
    for start in range(0, work.count, BATCH):
        batch = to_images(np.asarray(images[start : start + BATCH]))
        for name, reports in write_batch(models, lambda _, batch=batch: batch):  # type: ignore[misc]
            texts[name] += [report.text for report in reports]
    return texts


def _baselines(data: StudyData, studies: Sequence[Study]) -> Baselines:
    train, count = data.studies["train"], len(studies)
    compared, images = (comparable(data.images(split, COMPARED_SIZE)) for split in ("train", "test"))
    return {CONSTANT: constant_report(train, count), NEAREST: nearest_reports(train, compared, images[:count])}
