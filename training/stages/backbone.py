"""Stage: the CNN that all encoders of a run start from."""

from __future__ import annotations

from pathlib import Path

import torch

from core.config import ClassifierConfig
from core.encoders.base import Normalize
from core.encoders.classifier import ImageClassifier
from core.registry import classifier_row
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
        normalize = Normalize(shape.image_size, **row.normalization)
        # A classifier hands on no tokens.
        tower = {key: value for key, value in shape.arch.items() if key != "pool"}
        network = ImageClassifier(num_classes=targets["train"].shape[1], fetch=config.pretrained, **tower)
        network = network.to(memory_format=torch.channels_last)
        training = ClassifierConfig(
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            warmup_epochs=settings.epochs,
            margin=1.0,
            patience=settings.epochs,
            augment=True,
        )
        module = ClassifierModule(normalize, network, positive_rate(targets), training, config.augment)
        fit_classifier(run, folder, module, targets, data)
        save_weights(folder, {"backbone": network.model})

    identity = stage_identity(
        "backbone",
        size=config.size,
        seed=config.seed,
        pretrained=config.pretrained,
        data=run.backbone_data.identity(),
        **{name: getattr(settings, name) for name in ("epochs", "batch_size", "learning_rate", "weight_decay")},
        **run.augmentation(True),
    )
    return run_stage(run.folder / "backbone", identity, work)
