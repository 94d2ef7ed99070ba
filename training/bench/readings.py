"""How much of the findings an encoder's embeddings hold: ``python -m training.bench.readings PRESET BUNDLES...``.

In: folders of bundles of a preset, and its studies. Out: for each encoder the mean AUC on the test split of linear
readings of its mean token, and for each further folder the difference from the same encoder of the first. Observations
are those that at least 10 test studies have; intervals are paired, over patients.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.bundles.card import Card, encoder_weights
from core.bundles.inference import pooled_embeddings
from core.bundles.library import BundleLibrary
from core.evaluation.auc import macro_aucs
from core.evaluation.clinical import decision_statistics
from core.evaluation.metrics import FREQUENT
from core.observations import OBSERVATIONS
from core.registry import pair_title
from core.types import SPLITS, Split
from training.data import StudyData
from training.options import read_preset
from training.stages.findings import Floats, fitted
from training.stages.models import batches
from training.stages.run import Run

BATCH = 64


def encoders_of(library: BundleLibrary, family: str) -> Iterator[tuple[str, Card]]:
    """Each encoder of a family once, with a name, and a card that has it."""
    seen: set[tuple[str, ...]] = set()
    for card in library.cards():
        weights = tuple(encoder_weights(card))
        if card.family != family or weights in seen:
            continue
        seen.add(weights)
        yield (card.encoder if card.content["encoder"]["shared"] else pair_title(card.encoder, card.decoder)), card


def mean_tokens(library: BundleLibrary, card: Card, run: Run, split: Split) -> Floats:
    """(studies, D), of images fitted as the card says."""
    model, fit = library.load(card.name), card.fit
    config = replace(run.config.data, fit=fit.how, aspect=fit.aspect, trim=fit.trim)
    images = StudyData(config, run.folder / "images").images(split, card.image_side)
    return np.concatenate([pooled_embeddings(model, each) for each in batches(images, BATCH)]).astype(np.float64)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("bundles", nargs="+", type=Path, help="folders; the first is what the others are compared with")
    asked = parser.parse_args()
    run = Run(read_preset(asked.preset, None), Path("runs") / asked.preset)
    truth = run.data.coarse_targets("test").numpy().astype(np.int64)
    counted = np.flatnonzero((truth.sum(0) >= FREQUENT) & (truth.sum(0) <= len(truth) - FREQUENT))
    subjects = [study.subject_id for study in run.data.studies["test"]]
    scores: dict[tuple[Path, str], Floats] = {}
    f1: dict[tuple[Path, str], float] = {}
    for folder in asked.bundles:
        library = BundleLibrary(folder)
        for name, card in encoders_of(library, asked.preset):
            tokens = {split: mean_tokens(library, card, run, split) for split in SPLITS}
            reading = fitted(run.data, tokens, run.config.report.findings_penalty, run.config.seed)
            logits = reading.logits(tokens["test"])
            scores[folder, name] = logits[:, counted]
            f1[folder, name] = decision_statistics(truth > 0, logits >= 0).scores()["f1"]
    targets = truth[:, counted].astype(np.float64)
    found = macro_aucs(targets, {str(key): each for key, each in scores.items()}, subjects=subjects)
    lines = [
        f"{len(truth)} test studies; {', '.join(OBSERVATIONS[each] for each in counted)}.",
        "",
        "| bundles | encoder | mean AUC | less the first's | macro F1 of what is found, all 14 |",
        "|---|---|---:|---:|---:|",
    ]
    for folder, name in scores:
        mean, draws = found[str((folder, name))]
        less = ""
        if folder != asked.bundles[0] and (first := found.get(str((asked.bundles[0], name)))):
            low, high = np.quantile(draws - first[1], [0.025, 0.975])
            less = f"{mean - first[0]:+.3f} [{low:+.3f}, {high:+.3f}]"
        lines.append(f"| {folder} | {name} | {mean:.3f} | {less} | {f1[folder, name]:.3f} |")
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
