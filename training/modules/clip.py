"""Training of CVE and CCVE by contrast of radiographs and impressions (Nazarov et al. 2022, sections 3.1 and 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.nn import functional

from core import ranks
from core.config import ClipConfig
from core.encoders.clip import ContrastiveEncoder
from core.encoders.filters import K
from core.settings import GENTLE, AugmentConfig
from training.losses import contrastive_loss
from training.modules.augmentation import augment
from training.modules.optimizers import adam, freeze_batch_norms

Further = tuple[Tensor, ...]
"""Images that a pair's text is compared with beside those of other pairs: embeddings (B, n, D), the filters that they
went through (B, n), and which clusters they have (B, n, K). Empty where there are none."""
VALIDATION_BATCH = 64
"""Pairs that are told from each other in validation."""
WARMEST = math.log(100)
"""Highest value of the temperature's parameter; the lowest is 0. src: CLIP."""


class ClipModule(lightning.LightningModule):
    """CLIP on pairs, or cluster CLIP on (image, cluster, text); watched by validation loss.

    Where several processes train together, the pairs of all are each other's negatives: the loss is that of one process
    with the whole batch, and so is its gradient.

    CCVE's texts may also be compared with further images (`ClipConfig.absent`, `across_filters`).

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
        """Keep still what shall not learn."""
        if self.config.freeze_norms:
            freeze_batch_norms(self.encoder.clip)
        if not self.config.train_tower:
            self.encoder.clip.image.requires_grad_(False).eval()

    def embed(self, batch: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor, Further]:
        """L2-normalised embeddings (B, D) of images and texts, and the further images of the pairs."""
        texts = functional.normalize(self.encoder.clip.text(batch["ids"]), dim=1)
        clusters = batch["clusters"]
        found = [kind(batch, images) for kind, wanted in self._kinds if wanted]
        if not found:
            return self.encoder.embed_pairs(images, clusters), texts, ()
        filters = torch.stack([each[1] for each in found], 1)  # (B, n)
        seen = torch.cat([images, *(each[0] for each in found)])
        embedded = self.encoder.embed_pairs(seen, torch.cat([clusters, *filters.unbind(1)]))
        own, *more = embedded.split(len(images))
        return own, texts, (torch.stack(more, 1), filters, torch.stack([each[2] for each in found], 1))

    def _without(self, batch: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each pair another image that lacks its cluster, through its cluster's filter; what that image has.

        Validation brings its own; training takes images of the batch.
        """
        clusters = batch["clusters"]
        if "others" in batch:
            return batch["others"], clusters, batch["others_present"]
        lacking = (~batch["present"][:, clusters].T).float()  # (B pairs, B images)
        lacking[lacking.sum(1) == 0] = 1  # all of the batch have it: what was drawn is then no negative, see `wrong`
        rows = torch.multinomial(lacking.cpu(), 1)[:, 0].to(clusters.device)
        return images[rows], clusters, batch["present"][rows]

    def _elsewhere(self, batch: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pair's own image through another filter; what it has."""
        clusters = batch["clusters"]
        away = torch.arange(len(clusters)) if not self.training else torch.randint(0, K - 1, (len(clusters),))
        return images, (clusters + 1 + away.to(clusters.device) % (K - 1)) % K, batch["present"]

    @property
    def _kinds(self) -> Sequence[tuple[Callable[..., tuple[Tensor, Tensor, Tensor]], bool]]:
        return (self._without, self.config.absent), (self._elsewhere, self.config.across_filters)

    def comparable(self, ids: Tensor, clusters: Tensor) -> Tensor:
        """(B, B), True where another pair's text is a fair negative, for pairs with ids (B, 77) and clusters (B,)."""
        fair = torch.ones(len(ids), len(ids), dtype=torch.bool, device=ids.device)
        if self.config.mask_duplicates:
            fair &= (ids.unsqueeze(0) != ids.unsqueeze(1)).any(2)
        if self.config.negatives == "same_cluster":
            fair &= clusters.unsqueeze(0) == clusters.unsqueeze(1)
        return fair

    @staticmethod
    def wrong(clusters: Tensor, filters: Tensor, present: Tensor) -> Tensor:
        """(B, B * n), True where a further image is a negative of a pair's text.

        Those are the images without a cluster that went through the text's own filter and lack its cluster, whichever
        pair they were drawn for; and the pair's own image through another filter.

        Args:
            clusters: (B,) of the texts.
            filters: (B, n) that the further images went through.
            present: (B, n, K) which clusters these images have.
        """
        same = clusters[:, None, None] == filters  # (B, B, n)
        lacks = ~present[..., clusters].movedim(2, 0) & (filters == clusters.unsqueeze(1))
        own = torch.eye(len(clusters), dtype=torch.bool, device=clusters.device).unsqueeze(2)
        return ((same & lacks) | (own & ~same)).flatten(1)

    def _loss(self, image: Tensor, text: Tensor, ids: Tensor, clusters: Tensor, *further: Tensor) -> Tensor:
        more: Sequence[tuple[Tensor, Tensor]] = ()
        if further:
            embedded, filters, present = further
            more = ((embedded.flatten(0, 1), self.wrong(clusters, filters, present)),)
        return contrastive_loss(image, text, self.encoder.clip.logit_scale, self.comparable(ids, clusters), more)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """One step on "images" (B, 1, H, H), "ids" (B, 77), "clusters" (B,), for further images "present" (B, K)."""
        images = augment(batch["images"], self.augmentation) if self.config.augment else batch["images"]
        image, text, further = self.embed(batch, images)
        told = (batch["ids"], batch["clusters"], *further[1:])
        embedded = torch.cat([each.reshape(len(image), -1, image.shape[1]) for each in (image, text, *further[:1])], 1)
        if ranks.count() > 1:  # (processes, B, ...) to (processes * B, ...), with the gradients of all
            embedded = self.all_gather(embedded, sync_grads=True).flatten(0, 1)  # type: ignore[union-attr]
            told = tuple(each.flatten(0, 1) for each in self.all_gather(told))
        image, text, *more = embedded.split([1, 1, *([embedded.shape[1] - 2] if further else [])], 1)
        image, text = image[:, 0], text[:, 0]
        loss = self._loss(image, text, *told[:2], *more, *told[2:])
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
        image, text, further = self.embed(batch, batch["images"])
        rows = (image, text, batch["ids"], batch["clusters"], *further)
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
        """Adam; the filters have their own rate, and so may their gates."""
        parts: list[tuple[torch.nn.Module | torch.nn.Parameter, float]] = [
            *([(self.encoder.clip.image, self.config.learning_rate)] if self.config.train_tower else []),
            (self.encoder.clip.text, self.config.learning_rate),
            (self.encoder.clip.logit_scale, self.config.learning_rate),
        ]
        gate_rate = self.config.gate_learning_rate or self.config.filter_learning_rate
        for name, each in (pair for part in self.encoder.before_clip() for pair in part.named_parameters()):
            parts.append((each, gate_rate if name == "gate" else self.config.filter_learning_rate))
        return adam(parts, self.config, self.trainer)
