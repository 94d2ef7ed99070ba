"""Stages: the CNN that all encoders of a run start from, and the one from which that CNN starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.config import ClassifierConfig, identity
from core.encoders.base import Normalize
from core.encoders.classifier import ImageClassifier
from core.encoders.pretrained import start_from
from core.observations import OBSERVATIONS
from core.registry import classifier_row
from core.settings import StepConfig
from core.types import Split
from training.console import note
from training.identity import stage_identity
from training.modules.classifier import ClassifierModule
from training.run_folder import Done, StageError, part_of, run_stage, save_weights
from training.stages.classifiers import fit_classifier, positive_rate
from training.stages.clip import LEARNING
from training.stages.run import Run
from training.taught import Taught

BEFORE = ("before", "before_folder", "before_epochs", "before_learning_rate")
"""Numbers of [backbone] that only the stage before it reads."""
BACKBONES_OWN = ("source", "count", "seed", "epochs", "learning_rate", "laterals", "codes")
"""Those that the stage before it does not read."""


def backbone(run: Run) -> Done:
    """Train what all encoders start from: a classifier of coarse and fine labels, and of codes where asked for."""
    settings, taught = run.config.backbone, run.backbone_taught
    first = backbone_before(run) if settings.before != "none" else {}

    def work(folder: Path) -> None:
        kinds = [taught.coarse_targets, taught.fine_targets, *([taught.code_targets] if settings.codes else [])]
        targets = {split: torch.cat([each(split) for each in kinds], dim=1) for split in LEARNING}
        start = part_of(run.folder / "backbone_before", "backbone") if first else None
        _train(run, folder, taught, targets, settings.epochs, settings.learning_rate, start)

    # What decides which studies there are is told by their fingerprints.
    unused = ("source", "count", "seed", "laterals", *BEFORE)
    made_of = _identity(run, data=run.backbone_data.identity(), **identity(settings, unused), **taught.further())
    return run_stage(run.folder / "backbone", made_of | ({"after": dict(first)} if first else {}), work)


def backbone_before(run: Run) -> Done:
    """Train what the backbone starts from: a classifier of another collection's labels, with a head of its own."""
    settings, data = run.config.backbone, run.before_data

    def work(folder: Path) -> None:
        whole = {split: data.coarse_targets(split) for split in LEARNING}
        there = (whole["train"].sum(0) > 0) & (whole["train"].sum(0) < len(whole["train"]))
        if not there.any():
            raise StageError(f"backbone.before: no observation is both there and absent in {settings.before_folder}.")
        names = [name for name, kept in zip(OBSERVATIONS, there.tolist(), strict=True) if kept]
        note(f"  {len(whole['train']):,} images labelled with {', '.join(names)}")
        targets = {split: each[:, there] for split, each in whole.items()}
        _train(run, folder, Taught(data), targets, settings.before_epochs, settings.before_learning_rate, None)

    steps = identity(settings, (*BACKBONES_OWN, "before_folder"))
    made_of = _identity(run, data={"studies": data.fingerprint()}, **steps)
    return run_stage(run.folder / "backbone_before", made_of, work)


def _identity(run: Run, **parts: Any) -> dict[str, Any]:
    config = run.config
    own = run.augmentation(True) | ({"image_size": config.image_size} if config.image_size else {})
    return stage_identity("backbone", size=config.size, seed=config.seed, pretrained=config.pretrained, **own, **parts)


def _train(
    run: Run,
    folder: Path,
    taught: Taught,
    targets: Mapping[Split, Tensor],
    epochs: int,
    learning_rate: float,
    start: Mapping[str, Tensor] | None,
) -> None:
    config, settings = run.config, run.config.backbone
    torch.manual_seed(config.seed)
    row = classifier_row()
    normalize = Normalize(config.image_side(row.name), **row.normalization)
    # A classifier hands on no tokens.
    tower = {key: value for key, value in row.sizes[config.size].arch.items() if key != "pool"}
    network = ImageClassifier(num_classes=targets["train"].shape[1], fetch=config.pretrained, **tower)
    if start is not None:
        start_from(network.model, start)
    network = network.to(memory_format=torch.channels_last)
    training = ClassifierConfig(
        epochs=epochs,
        batch_size=settings.batch_size,
        learning_rate=learning_rate,
        warmup_epochs=epochs,
        margin=1.0,
        patience=epochs,
        augment=True,
        **{each.name: getattr(settings, each.name) for each in fields(StepConfig)},
    )
    module = ClassifierModule(normalize, network, positive_rate(targets), training, config.augment)
    fit_classifier(run, folder, module, targets, taught)
    save_weights(folder, {"backbone": network.model})
