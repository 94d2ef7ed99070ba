"""Training of CDC and FGC (Nazarov et al. 2022, sections 3.1 and 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam

from core import ranks
from core.config import ClassifierConfig
from core.encoders.base import Normalize
from core.encoders.classifier import ImageClassifier
from core.settings import GENTLE, AugmentConfig
from training.losses import AUCMarginLoss
from training.modules.augmentation import augment
from training.modules.optimizers import PESG, SharpnessAwareAdam, adam


class ClassifierModule(lightning.LightningModule):
    """One classifier: cross-entropy warm-up, then the AUC margin loss; watched by all processes' mean AUC."""

    def __init__(
        self,
        normalize: Normalize,
        classifier: ImageClassifier,
        positive_rate: Tensor,
        config: ClassifierConfig,
        augmentation: AugmentConfig = GENTLE,
    ) -> None:
        """Train ``classifier`` for classes with ``positive_rate`` (K,) in the training split."""
        super().__init__()
        self.normalize = normalize
        self.classifier = classifier
        self.config = config
        self.augmentation = augmentation
        self.criterion = AUCMarginLoss(positive_rate, config.margin)
        self._scores: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 1, H, H)."""
        logits: Tensor = self.classifier(self.normalize(images))
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """One step on "images" (B, 1, H, H) and "targets" (B, K); the warm-up leaves out what is not known, NaN."""
        images = augment(batch["images"], self.augmentation) if self.config.augment else batch["images"]
        logits, targets = self(images), batch["targets"]
        if self.current_epoch < self.config.warmup_epochs:
            if (unknown := targets.isnan()).any():
                logits, targets = logits[~unknown], targets[~unknown]
            loss = functional.binary_cross_entropy_with_logits(logits, targets)
        else:
            loss = self.criterion(logits, targets)
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=len(images), sync_dist=True)
        return loss

    def configure_gradient_clipping(self, optimizer: Any, *limits: Any, **named: Any) -> None:
        """Cut gradients as the preset says, but not before PESG clips each element, as LibAUC does."""
        own = self.optimizers(use_pl_optimizer=False)
        if not (isinstance(own, PESG) and own.begun):
            self.clip_gradients(optimizer, *limits, **named)

    def on_train_batch_end(self, *_: Any) -> None:
        """Keep the loss's multipliers in their range."""
        self.criterion.project()

    def on_train_epoch_start(self) -> None:
        """PESG takes over after the warm-up; at half and at three quarters of what follows it begins a new stage."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        if not isinstance(optimizer, PESG):
            return
        after = self.config.epochs - self.config.warmup_epochs
        if self.current_epoch == self.config.warmup_epochs:
            optimizer.begin()
        elif self.current_epoch - self.config.warmup_epochs in {math.ceil(after / 2), math.ceil(after * 3 / 4)}:
            optimizer.next_stage()

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Collect scores."""
        self._scores.append((torch.sigmoid(self(batch["images"])).float(), batch["targets"]))

    def on_validation_epoch_end(self) -> None:
        """Log the mean AUC; at the end of the warm-up, start the AUC margin loss from where the scores are."""
        all_scores, all_targets = (ranks.gather_rows(torch.cat(column)) for column in zip(*self._scores, strict=True))
        self._scores.clear()
        if self.current_epoch + 1 == self.config.warmup_epochs:
            self.criterion.start_from(all_scores.to(self.device), all_targets.to(self.device))
        scores, targets = all_scores.numpy(), all_targets.numpy()
        self.log("val_auc", float(np.mean(list(class_aucs(targets, scores).values()) or [0.5])), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Adam over network and multipliers, sharpness-aware or followed by PESG where asked for."""
        settings = self.config
        parts = [(self.classifier, settings.learning_rate), (self.criterion, settings.learning_rate)]
        kinds: dict[str, Callable[..., Adam]] = {
            "adamw": Adam,
            "sam": partial(SharpnessAwareAdam, rho=settings.sam_rho, network=self.classifier),
            "pesg": partial(
                PESG,
                criterion=self.criterion,
                rate=settings.pesg_learning_rate,
                epoch_decay=settings.pesg_decay,
                momentum=settings.pesg_momentum,
            ),
        }
        return adam(parts, settings, self.trainer, kinds[settings.optimizer])


def class_aucs(targets: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> dict[int, float]:
    """ROC-AUC by class, of targets and scores (B, K); NaN is not known, classes without both kinds are left out."""
    found = {}
    for k, (target, score) in enumerate(zip(targets.T, scores.T, strict=True)):
        known = ~np.isnan(target)
        if 0 < target[known].sum() < known.sum():
            found[k] = float(roc_auc_score(target[known], score[known]))
    return found
