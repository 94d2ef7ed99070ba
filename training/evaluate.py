"""Score the bundles of a preset on held-out studies, beside baselines that need no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from core.bundle import BundleLibrary
from core.config import ExperimentConfig, to_dict
from core.generation import GenerateConfig
from core.labels.observations import LabelState
from core.labels.rules import label_report
from core.metrics.clinical import clinical_scores
from core.metrics.language import bleu
from core.report_model import ReportModel, write_from_tokens
from core.text import to_text, tokenize
from core.types import Study
from training.data import StudyData, to_images
from training.runs import StageError

States = Mapping[str, LabelState]
BATCH = 50
NEAREST_SIZE = 32
"""Side at which images are compared for the nearest-report baseline, pixels."""


def evaluate(config: ExperimentConfig, data: StudyData, bundles: Path, out: Path | None = None) -> dict[str, Any]:
    """Score all bundles of ``config``'s family.

    The reference's labels are the phantom's known truth; generated reports are labelled by the rule labeler.

    Args:
        config: which studies, how reports are written.
        data: studies and images.
        bundles: folder of the bundles.
        out: where results.json, table.md and the reports of all pairs go; None writes nothing.

    Returns:
        {"rows": one a pair, "baselines": three, "command", "protocol"}.

    Raises:
        StageError: there is no bundle of this family.
    """
    library = BundleLibrary(bundles)
    cards = [card for card in library.cards() if card.family == config.name]
    if not cards:
        raise StageError(
            f"{bundles} has no bundle of the family '{config.name}'. Run: cxr-lens train --preset {config.name}"
        )
    count = config.evaluate_studies or len(data.studies["test"])
    studies = data.studies["test"][:count]
    truth = [study.labels for study in studies]
    order = _paired_with_another(len(studies))
    rows, reports, shuffled = [], {}, {}
    for card in tqdm(cards, desc="evaluating", unit="pair"):
        texts = _write_all(library.load(card.name), data, len(studies), config)
        reports[card.name] = texts
        row = _row(texts, truth, studies)
        shuffled[card.name] = _row([texts[each] for each in order], truth, studies)
        pair = {"name": card.name, "encoder": card.encoder, "decoder": card.decoder}
        rows.append({**pair, **row, "shuffled_f1": shuffled[card.name]["f1"]})
    best = max(rows, key=lambda each: each["f1"])
    baselines = _baselines(data, studies, truth)
    baselines.append(
        {
            "name": "shuffled images",
            "detail": f"reports of {best['name']} for other studies",
            **shuffled[best["name"]],
        }
    )
    results = {
        "family": config.name,
        "studies": len(studies),
        "fingerprint": data.fingerprint(),
        "command": f"cxr-lens evaluate --preset {config.name}",
        "protocol": "Reference labels: the phantom's known truth of the findings. Generated reports: rule labeler. "
        "Uncertain counts as not positive. F1 is the mean of the F1 of the 14 observations. "
        "BLEU: lower-cased word and punctuation tokens, whole references, no smoothing.",
        "rows": rows,
        "baselines": baselines,
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        (out / "table.md").write_text(table(results), encoding="utf-8")
        with (out / "reports.jsonl").open("w", encoding="utf-8") as file:
            for place, study in enumerate(studies):
                line = {"study_id": study.study_id, "reference": study.findings}
                file.write(json.dumps({**line, **{name: texts[place] for name, texts in reports.items()}}) + "\n")
    return results


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table: twelve pairs, then the baselines."""
    head = "| encoder | decoder | BLEU-1 | BLEU-4 | P | R | macro F1 | micro F1 | distinct | shuffled F1 |"
    lines = [head, "|---|---|" + "---:|" * 8]
    for row in [*results["rows"], *results["baselines"]]:
        name = f"| {row['encoder']} | {row['decoder']} |" if "encoder" in row else f"| *{row['name']}* | |"
        numbers = [f"{row[key]:.3f}" for key in ("bleu_1", "bleu_4", "precision", "recall", "f1", "micro_f1")]
        shuffled = f"{row['shuffled_f1']:.3f}" if "shuffled_f1" in row else ""
        lines.append(f"{name} {' | '.join(numbers)} | {row['distinct']:.0%} | {shuffled} |")
    return "\n".join(lines) + f"\n\n{results['studies']} held-out studies. {results['protocol']}\n"


def _write_all(model: ReportModel, data: StudyData, count: int, config: ExperimentConfig) -> list[str]:
    images = data.images("test", model.image_size)
    settings = GenerateConfig(**to_dict(config.write))
    texts: list[str] = []
    for start in range(0, count, BATCH):
        with torch.inference_mode():
            visual = model.encoder(to_images(np.asarray(images[start : min(start + BATCH, count)])))
        texts += [report.text for report in write_from_tokens(model, visual, settings)]
    return texts


def _row(texts: Sequence[str], truth: Sequence[States], studies: Sequence[Study]) -> dict[str, Any]:
    states = [label_report(text).states for text in texts]
    scores = clinical_scores(truth, states)
    with_uncertain = clinical_scores(truth, states, uncertain="positive")
    language = bleu([tokenize(study.findings) for study in studies], [tokenize(text) for text in texts])
    return {
        **language,
        "precision": scores.precision,
        "recall": scores.recall,
        "f1": scores.f1,
        "micro_f1": scores.micro_f1,
        "f1_uncertain_positive": with_uncertain.f1,
        "distinct": len(set(texts)) / len(texts),
        "words": float(np.mean([len(tokenize(text)) for text in texts])),
        "by_observation": {name: list(values) for name, values in scores.by_observation.items()},
    }


def _baselines(data: StudyData, studies: Sequence[Study], truth: Sequence[States]) -> list[dict[str, Any]]:
    train = data.studies["train"]
    # The strongest constant: the training report that would score best if every training study got it.
    labels = data.coarse_targets("train").numpy()
    rate = labels.mean(0)
    constant = train[int((labels * (2 * rate / (1 + rate))).mean(1).argmax())]
    nearest = _nearest(data, len(studies))
    # As generated reports are, both pass through the tokenizer and the labeler.
    rewrite: Callable[[Study], str] = lambda study: to_text(tokenize(study.findings))  # noqa: E731
    return [
        {
            "name": "constant report",
            "detail": f"training report {constant.study_id} for every study",
            **_row([rewrite(constant)] * len(studies), truth, studies),
        },
        {
            "name": "nearest training report",
            "detail": f"nearest image at {NEAREST_SIZE} px, by correlation",
            **_row([rewrite(train[place]) for place in nearest], truth, studies),
        },
    ]


def _nearest(data: StudyData, count: int) -> list[int]:
    def vectors(split: Any) -> np.ndarray[Any, Any]:
        images = np.asarray(data.images(split, 128), dtype=np.float32)
        small = images.reshape(len(images), NEAREST_SIZE, 128 // NEAREST_SIZE, NEAREST_SIZE, -1).mean((2, 4))
        flat = small.reshape(len(small), -1)
        flat -= flat.mean(1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6)

    similarity = vectors("test")[:count] @ vectors("train").T
    return [int(place) for place in similarity.argmax(1)]


def _paired_with_another(count: int) -> list[int]:
    """A seeded order in which no study keeps its own place."""
    order = np.random.default_rng(0).permutation(count)
    shifted = np.empty(count, dtype=int)
    shifted[order] = np.roll(order, 1)
    return shifted.tolist()
