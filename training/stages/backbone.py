"""Stage: the CNN that all encoders of a run start from."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch

from core.config import ClassifierConfig, identity
from core.encoders.base import Normalize
from core.encoders.classifier import ImageClassifier
from core.registry import classifier_row
from core.settings import StepConfig
from training.identity import stage_identity
from training.modules.classifier import ClassifierModule
from training.run_folder import Done, run_stage, save_weights
from training.stages.classifiers import fit_classifier, positive_rate
from training.stages.run import Run


def backbone(run: Run) -> Done:
    """Train what all encoders start from: a classifier of coarse and fine labels together."""
    config, settings = run.config, run.config.backbone

    def work(folder: Path) -> None:
        data = run.backbone_data
        targets = {
            split: torch.cat([data.coarse_targets(split), data.fine_targets(split)], dim=1)
            for split in ("train", "validate")
        }
        torch.manual_seed(config.seed)
        row = classifier_row()
        shape = row.sizes[config.size]
        normalize = Normalize(config.image_side(row.name), **row.normalization)
        # A classifier hands on no tokens.
        tower = {key: value for key, value in shape.arch.items() if key != "pool"}
        network = ImageClassifier(num_classes=targets["train"].shape[1], fetch=config.pretrained, **tower)
        network = network.to(memory_format=torch.channels_last)
        training = ClassifierConfig(
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            **{each.name: getattr(settings, each.name) for each in fields(StepConfig)},
            warmup_epochs=settings.epochs,
            margin=1.0,
            patience=settings.epochs,
            augment=True,
        )
        module = ClassifierModule(normalize, network, positive_rate(targets), training)
        fit_classifier(run, folder, module, targets, data)
        save_weights(folder, {"backbone": network.model})

    made_of = stage_identity(
        "backbone",
        size=config.size,
        seed=config.seed,
        pretrained=config.pretrained,
        data=run.backbone_data.identity(),
        **identity(settings, ("source", "count", "seed")),
        **({"image_size": config.image_size} if config.image_size else {}),
    )
    return run_stage(run.folder / "backbone", made_of, work)
