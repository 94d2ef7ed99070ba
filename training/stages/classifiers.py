"""Stages: an encoder's two classifiers, and those of Table 2."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from core.config import ClassifierConfig
from core.encoders import build_encoder
from core.encoders.base import Normalize
from core.encoders.classifier import ImageClassifier
from core.encoders.fve import FineGrainedEncoder
from core.registry import classifier_row
from core.types import Split
from training.backbones import build_classifier, settings_of
from training.data import to_images
from training.fit import fit
from training.loaders import loaders
from training.modules.classifier import ClassifierModule
from training.run_folder import Done, load_weights, run_stage, save_weights
from training.stages.clip import LEARNING
from training.stages.models import batches, build_arguments, encoder_identity, new_encoder
from training.stages.run import Run
from training.taught import Taught

Kind = Literal["cdc", "fgc"]


def classifier(run: Run, name: str, kind: Kind) -> Done:
    """Train an encoder's CDC (``kind="cdc"``, 14 observations) or FGC (``"fgc"``, fine labels)."""

    def work(folder: Path) -> None:
        encoder = new_encoder(run, name)
        assert isinstance(encoder, FineGrainedEncoder)
        targets = {split: _targets(run.taught, kind, split) for split in LEARNING}
        tower = encoder.classifiers()[kind]
        module = ClassifierModule(
            encoder.normalize, tower, positive_rate(targets), run.config.classifier, run.config.augment
        )
        fit_classifier(run, folder, module, targets, run.taught)
        save_weights(folder, {kind: tower})

    settings = run.config.classifier
    own = {**_rule(settings), **encoder_identity(run, name), **run.taught.further()}
    own |= run.augmentation(settings.augment)
    identity = run.identity("classifier", classifier=settings, kind=kind, encoder=name, **own)
    return run_stage(run.folder / f"{kind}_{name}", identity, work)


def backbone_classifier(run: Run, name: str) -> Done:
    """Train a row of Table 2 on the 14 observations, and write its held-out scores."""
    settings = settings_of(name, run.config)

    def work(folder: Path) -> None:
        targets = {split: run.taught.coarse_targets(split) for split in LEARNING}
        torch.manual_seed(run.config.seed)
        normalize, network = build_classifier(name, run.config.size, pretrained=run.config.pretrained)
        module = ClassifierModule(normalize, network, positive_rate(targets), settings, run.config.augment)
        fit_classifier(run, folder, module, targets, run.taught)
        save_weights(folder, {"classifier": network})
        _score_held_out(run, folder, normalize, network)

    own = {**_rule(settings), **run.taught.further(), **run.augmentation(settings.augment)}
    identity = run.identity("table_2_row", after={}, classifier=settings, network=name, **own)
    return run_stage(run.folder / "table2" / name, identity, work)


def coarse_scores(run: Run) -> Done:
    """Write CDC's held-out scores, to stand beside the rows of Table 2."""
    name = classifier_row().name
    before = classifier(run, name, "cdc")

    def work(folder: Path) -> None:
        encoder = build_encoder(name, run.config.size, **build_arguments(run, name))
        assert isinstance(encoder, FineGrainedEncoder)
        load_weights(run.folder / f"cdc_{name}", "cdc", encoder.cdc)
        _score_held_out(run, folder, encoder.normalize, encoder.cdc)
        shutil.copyfile(run.folder / f"cdc_{name}" / "summary.json", folder / "summary.json")

    return run_stage(run.folder / "table2" / "cdc", run.identity("table_2_cdc", after=before), work)


def fit_classifier(
    run: Run, folder: Path, module: ClassifierModule, targets: Mapping[Split, Tensor], taught: Taught
) -> None:
    """Train a classifier on the images of ``taught``, with targets (studies, classes) by split."""

    def labelled(split: Split) -> Callable[[list[int]], dict[str, Tensor]]:
        images = taught.images(split, module.normalize.image_size)
        return lambda rows: {"images": to_images(images[rows]), "targets": targets[split][rows]}

    settings = module.config
    fit(
        folder,
        module,
        loaders(
            (len(targets["train"]), len(targets["validate"])),
            (labelled("train"), labelled("validate")),
            settings.batch_size,
            run.config.seed,
            positives=targets["train"] if settings.class_aware else None,
        ),
        epochs=settings.epochs,
        monitor="val_auc",
        mode="max",
        patience=settings.patience,
        seed=run.config.seed,
        gradient_clip=settings.gradient_clip,
        placement=run.placement,
    )


def _rule(settings: ClassifierConfig) -> dict[str, Any]:
    """What tells a training by PESG as it is now from one by the rule that it followed before."""
    return {"pesg": 2} if settings.optimizer == "pesg" else {}


def positive_rate(targets: Mapping[Split, Tensor]) -> Tensor:
    """Prevalence of each class in the training split where it is known, kept away from 0 and 1."""
    train = targets["train"]
    return train.nanmean(0).clamp(1 / len(train), 1 - 1 / len(train))


def _score_held_out(run: Run, folder: Path, normalize: Normalize, network: ImageClassifier) -> None:
    """Write "scores" (held-out studies, classes), logits."""
    device = run.placement.device
    network.eval().to(device)
    normalize.to(device)
    images = run.data.images("test", normalize.image_size)
    with torch.inference_mode():
        scores = torch.cat([network(normalize(batch.to(device))).cpu() for batch in batches(images, 64)])
    save_file({"scores": scores}, folder / "scores.safetensors")


def _targets(taught: Taught, kind: Kind, split: Split) -> Tensor:
    return taught.coarse_targets(split) if kind == "cdc" else taught.fine_targets(split)
