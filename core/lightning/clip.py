"""Training of CVE and CCVE by contrast of radiographs and impressions (Nazarov et al. 2022, sections 3.1 and 4.2)."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.nn import functional

from core.config import ClipConfig
from core.encoders.ccve import ClusterClipEncoder
from core.encoders.cve import ClipEncoder
from core.lightning.optimizers import adamw, augment, freeze_batch_norms
from core.losses import contrastive_loss


class ClipModule(lightning.LightningModule):
    """CLIP on pairs, or cluster CLIP on (image, cluster, text); watched by validation loss.

    Also logged: the mean cosine between images of a batch, which nears 1 when the embeddings collapse.
    """

    def __init__(self, encoder: ClipEncoder | ClusterClipEncoder, config: ClipConfig) -> None:
        """Train ``encoder``; CCVE sends each image through its cluster's filter."""
        super().__init__()
        self.encoder = encoder
        self.config = config

    def on_train_epoch_start(self) -> None:
        """Keep batch norms still where asked for."""
        if self.config.freeze_norms:
            freeze_batch_norms(self.encoder.clip)

    def embed(self, batch: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """L2-normalised embeddings (B, D) of images and texts."""
        texts = functional.normalize(self.encoder.clip.text(batch["ids"]), dim=1)
        if isinstance(self.encoder, ClusterClipEncoder):
            return self.encoder.embed_pairs(images, batch["clusters"]), texts
        return functional.normalize(self.encoder.clip.image(self.encoder.normalize(images)), dim=1), texts

    def comparable(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, B), True where another pair's text is a fair negative."""
        size = len(batch["ids"])
        fair = torch.ones(size, size, dtype=torch.bool, device=batch["ids"].device)
        if self.config.mask_duplicates:
            fair &= (batch["ids"].unsqueeze(0) != batch["ids"].unsqueeze(1)).any(2)
        if self.config.negatives == "same_cluster":
            fair &= batch["clusters"].unsqueeze(0) == batch["clusters"].unsqueeze(1)
        return fair

    def _loss(self, batch: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        image, text = self.embed(batch, images)
        return contrastive_loss(image, text, self.encoder.clip.logit_scale, self.comparable(batch)), image

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """One step on "images" (B, 1, H, H), "ids" (B, 77) and "clusters" (B,)."""
        images = augment(batch["images"]) if self.config.augment else batch["images"]
        loss, image = self._loss(batch, images)
        with torch.no_grad():
            cosine = (image @ image.T).mean()
        self.log_dict({"train_loss": loss, "image_cosine": cosine}, on_epoch=True, on_step=False, batch_size=len(image))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Log the loss."""
        loss, image = self._loss(batch, batch["images"])
        self.log("val_loss", loss, batch_size=len(image), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW; the filters have their own rate."""
        parts: list[tuple[torch.nn.Module | torch.nn.Parameter, float]] = [
            (self.encoder.clip.image, self.config.learning_rate),
            (self.encoder.clip.text, self.config.learning_rate),
            (self.encoder.clip.logit_scale, self.config.learning_rate),
        ]
        if isinstance(self.encoder, ClusterClipEncoder):
            parts.append((self.encoder.filters, self.config.filter_learning_rate))
        return adamw(parts, self.config.weight_decay, int(self.trainer.estimated_stepping_batches))
