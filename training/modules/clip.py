"""Training of CVE and CCVE by contrast of radiographs and impressions (Nazarov et al. 2022, sections 3.1 and 4.2)."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.nn import functional

from core import ranks
from core.config import ClipConfig
from core.encoders.clip import ContrastiveEncoder
from core.settings import GENTLE, AugmentConfig
from training.losses import contrastive_loss
from training.modules.augmentation import augment
from training.modules.optimizers import adam, freeze_batch_norms

VALIDATION_BATCH = 64
"""Pairs that are told from each other in validation."""
WARMEST = math.log(100)
"""Highest value of the temperature's parameter; the lowest is 0. src: CLIP."""


class ClipModule(lightning.LightningModule):
    """CLIP on pairs, or cluster CLIP on (image, cluster, text); watched by validation loss.

    Where several processes train together, the pairs of all are each other's negatives: the loss is that of one process
    with the whole batch, and so is its gradient.

    Also logged: the mean cosine between images of a batch, which nears 1 when the embeddings collapse.
    """

    def __init__(self, encoder: ContrastiveEncoder, config: ClipConfig, augmentation: AugmentConfig = GENTLE) -> None:
        """Train ``encoder``; CCVE sends each image through its cluster's filter."""
        super().__init__()
        self.encoder = encoder
        self.config = config
        self.augmentation = augmentation
        self._validated: list[tuple[Tensor, ...]] = []

    def on_train_epoch_start(self) -> None:
        """Keep batch norms still where asked for."""
        if self.config.freeze_norms:
            freeze_batch_norms(self.encoder.clip)

    def embed(self, batch: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """L2-normalised embeddings (B, D) of images and texts."""
        texts = functional.normalize(self.encoder.clip.text(batch["ids"]), dim=1)
        return self.encoder.embed_pairs(images, batch["clusters"]), texts

    def comparable(self, ids: Tensor, clusters: Tensor) -> Tensor:
        """(B, B), True where another pair's text is a fair negative, for pairs with ids (B, 77) and clusters (B,)."""
        fair = torch.ones(len(ids), len(ids), dtype=torch.bool, device=ids.device)
        if self.config.mask_duplicates:
            fair &= (ids.unsqueeze(0) != ids.unsqueeze(1)).any(2)
        if self.config.negatives == "same_cluster":
            fair &= clusters.unsqueeze(0) == clusters.unsqueeze(1)
        return fair

    def _loss(self, image: Tensor, text: Tensor, ids: Tensor, clusters: Tensor) -> Tensor:
        return contrastive_loss(image, text, self.encoder.clip.logit_scale, self.comparable(ids, clusters))

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """One step on "images" (B, 1, H, H), "ids" (B, 77) and "clusters" (B,)."""
        images = augment(batch["images"], self.augmentation) if self.config.augment else batch["images"]
        image, text = self.embed(batch, images)
        ids, clusters = batch["ids"], batch["clusters"]
        if ranks.count() > 1:  # (processes, B, ...) to (processes * B, ...), with the gradients of all
            image, text = self.all_gather(torch.stack([image, text], 1), sync_grads=True).flatten(0, 1).unbind(1)  # type: ignore[union-attr]
            ids, clusters = (each.flatten(0, 1) for each in self.all_gather((ids, clusters)))
        loss = self._loss(image, text, ids, clusters)
        with torch.no_grad():
            cosine = (image @ image.T).mean()
        self.log_dict({"train_loss": loss, "image_cosine": cosine}, on_epoch=True, on_step=False, batch_size=len(image))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Keep the temperature in its range, after the step as open_clip does: at its end too it needs a gradient."""
        with torch.no_grad():
            self.encoder.clip.logit_scale.clamp_(0, WARMEST)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Collect embeddings."""
        rows = (*self.embed(batch, batch["images"]), batch["ids"], batch["clusters"])
        self._validated.append(tuple(each.cpu() for each in rows))

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss of batches of 64, the same ones however many processes there are."""
        gathered = (ranks.gather_rows(torch.cat(column)) for column in zip(*self._validated, strict=True))
        columns = [column.to(self.device) for column in gathered]
        self._validated.clear()
        total = torch.zeros((), device=self.device)
        for batch in zip(*(column.split(VALIDATION_BATCH) for column in columns), strict=True):
            total = total + self._loss(*batch) * len(batch[0])
        self.log("val_loss", total / len(columns[0]), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Adam; the filters have their own rate."""
        parts: list[tuple[torch.nn.Module | torch.nn.Parameter, float]] = [
            (self.encoder.clip.image, self.config.learning_rate),
            (self.encoder.clip.text, self.config.learning_rate),
            (self.encoder.clip.logit_scale, self.config.learning_rate),
        ]
        parts += [(each, self.config.filter_learning_rate) for each in self.encoder.before_clip()]
        return adam(parts, self.config, self.trainer)
