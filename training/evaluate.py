"""Score the bundles of a preset on held-out studies, beside baselines that need no model."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from core.bundles.card import Card
from core.bundles.inference import write_batch
from core.bundles.library import BundleLibrary
from core.config import ExperimentConfig, to_dict
from core.decoders.search import GenerateConfig
from core.evaluation import java
from core.evaluation.clinical import ClinicalProtocol, clinical_scores
from core.evaluation.language import DEFAULT_PROTOCOL, PROTOCOLS
from core.evaluation.metrics import METRICS
from core.evaluation.scoring import LabeledReports, language_scores, score_systems
from core.files import write_whole
from core.labels.rules import label_report
from core.registry import did_you_mean, image_size
from core.text import to_text, tokenize
from core.types import Study
from training.console import note
from training.data import StudyData, to_images
from training.run_folder import StageError
from training.threads import use_threads_for

BATCH = 50
CONSTANT, NEAREST, SHUFFLED = "constant report", "nearest training report", "shuffled images"
NEAREST_SIZE = 32
"""Side at which images are compared for the nearest-report baseline, pixels."""
PUBLISHED = {"openi": ("r2gen", "r2gen-60"), "mimic_cxr": ("r2gen", "r2gen-100")}
"""Protocols under which others publish on a source: our own reading of their tokens, whole references and cut ones."""


def evaluate(
    config: ExperimentConfig, data: StudyData, bundles: Path, out: Path | None = None, jobs: int = 1
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

    Returns:
        {"rows": one a pair, "baselines": three, "command", "protocol", "published": protocol -> system -> scores}.

    Raises:
        StageError: there is no bundle of this family.
    """
    cards = cards_of(config.name, bundles)
    _tell_other_settings(config, cards)
    studies, references, subjects = _held_out(config, data)
    baselines = _baselines(data, studies)
    systems = {name: _label(texts) for name, (_, texts) in baselines.items()}
    details = {name: detail for name, (detail, _) in baselines.items()}
    written = _write_all(cards, bundles, data, len(studies), config, jobs)
    systems |= {card.name: _label(written[card.name]) for card in cards}
    if out is not None:  # before scoring: they take the longest
        out.mkdir(parents=True, exist_ok=True)
        lines = [
            {"study_id": study.study_id, "reference": study.findings}
            | {card.name: systems[card.name].texts[row] for card in cards}
            for row, study in enumerate(studies)
        ]
        write_whole(out / "reports.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    order = _paired_with_another(len(studies))
    lacking = java.missing()
    with ExitStack() as stack:
        meteor = None if lacking else stack.enter_context(java.Meteor())
        scores = score_systems(references, systems, subjects=subjects, against=NEAREST, meteor=meteor)
        best = max((card.name for card in cards), key=lambda name: scores[name]["f1"])
        shuffled = {SHUFFLED: systems[best].reordered(order)}
        scores |= score_systems(references, shuffled, subjects=subjects, meteor=meteor)
        published = {
            name: {
                system: language_scores(references.texts, each.texts, PROTOCOLS[name], meteor)
                for system, each in systems.items()
            }
            for name in PUBLISHED.get(config.data.source, ())
        }
    details[SHUFFLED] = f"reports of {best} for other studies"
    rows = [
        {
            "name": card.name,
            "encoder": card.encoder,
            "decoder": card.decoder,
            **scores[card.name],
            "shuffled_f1": clinical_scores(references.states, systems[card.name].reordered(order).states).f1,
        }
        for card in cards
    ]
    known = {"rules": "rule labeler"}.get(config.data.labels, f"{config.data.labels} as shipped")
    truth = "the phantom's known truth of the findings" if config.data.source == "phantom" else known
    clinical = ClinicalProtocol(truth, "rule labeler")
    results = {
        "family": config.name,
        "studies": len(studies),
        "seed": config.seed,
        "fingerprint": data.fingerprint(),
        "command": f"cxr-lens evaluate --preset {config.name}",
        "protocol": " ".join(filter(None, (clinical.describe(), DEFAULT_PROTOCOL.describe(), lacking, INTERVALS))),
        "rows": rows,
        "baselines": [{"name": name, "detail": detail, **scores[name]} for name, detail in details.items()],
        "published": published,
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
    systems = {name: _label(each) for name, each in texts.items()}
    systems |= {name: _label(each) for name, (_, each) in _baselines(data, studies).items()}
    with ExitStack() as stack:
        meteor = None if java.missing() else stack.enter_context(java.Meteor())
        return score_systems(references, systems, subjects=subjects, against=NEAREST, meteor=meteor)


INTERVALS = (
    "In brackets 95 % intervals: percentile bootstrap over patients, 1,000 resamples. Less the nearest report's: "
    "paired; * where the permutation test has p < 0.05 after Holm's correction for all rows."
)


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
    lines += [f"- {row['name']}: {warning}" for row in results["rows"] for warning in row["warnings"]]
    for row in [*results["rows"], *results["baselines"]]:
        lines += [f"- {row['name']}: no {score.upper()}. {why}" for score, why in row.get("missing", {}).items()]
    return "\n".join(lines).rstrip() + "\n"


def _tell_other_settings(config: ExperimentConfig, cards: Sequence[Card]) -> None:
    """Pairs are scored as they write everywhere; a preset that says otherwise must not seem to be followed."""
    asked = GenerateConfig(**to_dict(config.write))
    for card in cards:
        if GenerateConfig(**card.write) != asked:
            note(
                f"  {card.name} writes as its card says ({GenerateConfig(**card.write)}), not as 'write' of the "
                "preset. Train again to put the preset's into the card."
            )


def _held_out(config: ExperimentConfig, data: StudyData) -> tuple[Sequence[Study], LabeledReports, list[str]]:
    """The studies that are scored, their reports, and whose they are."""
    studies = data.studies["test"][: config.evaluate_studies or None]
    references = LabeledReports([study.findings for study in studies], [study.labels for study in studies])
    return studies, references, [study.subject_id for study in studies]


def _write_all(
    cards: Sequence[Card], bundles: Path, data: StudyData, count: int, config: ExperimentConfig, jobs: int
) -> dict[str, list[str]]:
    """Name of a bundle -> its reports; an encoder that pairs share reads each image once."""
    sharing: dict[str, list[str]] = {}
    for card in cards:
        sharing.setdefault(json.dumps(card.content["encoder"].get("shared") or card.name), []).append(card.name)
    work = [(names, bundles, config, data.folder, count) for names in sharing.values()]
    written: dict[str, list[str]] = {}
    with ExitStack() as stack, tqdm(total=len(cards), desc="evaluating", unit="pair") as bar:
        run: Callable[..., Iterator[dict[str, list[str]]]] = map
        if jobs > 1:
            for card in cards:  # images are made once, not by each process
                data.images("test", image_size(card.encoder, card.size))  # type: ignore[arg-type]
            run = stack.enter_context(ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))).map
        for texts in run(_write, work):
            written |= texts
            bar.update(len(texts))
    return written


def _write(job: tuple[list[str], Path, ExperimentConfig, Path, int]) -> dict[str, list[str]]:
    names, bundles, config, folder, count = job
    use_threads_for(config.size)
    library = BundleLibrary(bundles)
    models = [library.load(name) for name in names]
    images = StudyData(config.data, folder).images("test", models[0].image_size)[:count]
    texts: dict[str, list[str]] = {name: [] for name in names}
    for start in range(0, count, BATCH):
        batch = to_images(np.asarray(images[start : start + BATCH]))
        for name, reports in write_batch(models, lambda _, batch=batch: batch):  # type: ignore[misc]
            texts[name] += [report.text for report in reports]
    return texts


def _label(texts: Sequence[str]) -> LabeledReports:
    return LabeledReports(texts, [label_report(text).states for text in texts])


def _baselines(data: StudyData, studies: Sequence[Study]) -> dict[str, tuple[str, list[str]]]:
    """Name -> what it is, and its reports, of the baselines that need no model."""
    train = data.studies["train"]
    # The strongest constant: the training report that would score best if every training study got it.
    labels = data.coarse_targets("train").numpy()
    rate = labels.mean(0)
    constant = train[int((labels * (2 * rate / (1 + rate))).mean(1).argmax())]
    nearest = _nearest(data, len(studies))
    # As generated reports are, both pass through the tokenizer and the labeler.
    rewrite: Callable[[Study], str] = lambda study: to_text(tokenize(study.findings))  # noqa: E731
    return {
        CONSTANT: (f"training report {constant.study_id} for every study", [rewrite(constant)] * len(studies)),
        NEAREST: (
            f"nearest image at {NEAREST_SIZE} px, by correlation",
            [rewrite(train[row]) for row in nearest],
        ),
    }


def _nearest(data: StudyData, count: int) -> list[int]:
    def vectors(split: Any) -> np.ndarray[Any, Any]:
        images = np.asarray(data.images(split, 128), dtype=np.float32)
        small = images.reshape(len(images), NEAREST_SIZE, 128 // NEAREST_SIZE, NEAREST_SIZE, -1).mean((2, 4))
        flat = small.reshape(len(small), -1)
        flat -= flat.mean(1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6)

    similarity = vectors("test")[:count] @ vectors("train").T
    return [int(row) for row in similarity.argmax(1)]


def _paired_with_another(count: int) -> list[int]:
    """A seeded order in which no study keeps its own index."""
    order = np.random.default_rng(0).permutation(count)
    shifted = np.empty(count, dtype=int)
    shifted[order] = np.roll(order, 1)
    return shifted.tolist()
