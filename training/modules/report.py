"""Training of decoders, on cached tokens or end to end with DVE (Nazarov et al. 2022, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import pytorch_lightning as lightning
from torch import Tensor, nn
from torch.optim import Adam

from core import ranks
from core.config import ReportConfig
from core.decoders import Decoder
from core.decoders.search import GenerateConfig, generate
from core.devices import computing
from core.encoders import Encoder
from core.encoders.joint import JointProjection
from core.encoders.label_text import LabelTextEncoder
from core.evaluation.clinical import clinical_scores
from core.evaluation.language import bleu
from core.labels.rules import label_report
from core.settings import GENTLE, AugmentConfig
from core.text import Vocabulary, to_text
from core.types import VisualTokens
from training.losses import report_loss
from training.modules.augmentation import augment
from training.modules.optimizers import adam

GREEDY = GenerateConfig(beam_size=1)


class ReportModule(lightning.LightningModule):
    """A decoder, with its encoder where that trains too; watched by BLEU-4 and F1 of greedy validation reports."""

    def __init__(
        self,
        encoder: Encoder | JointProjection | LabelTextEncoder | None,
        templates: Sequence[VisualTokens],
        decoder: Decoder,
        vocabulary: Vocabulary,
        config: ReportConfig,
        augmentation: AugmentConfig = GENTLE,
    ) -> None:
        """Train ``decoder``.

        Args:
            encoder: trains with it: DVE, what joins several encoders' tokens, or what reads labels as text; None where
                there is nothing to train.
            templates: grids and sources of the cached tokens, one an encoder; empty where the encoder makes them.
            decoder: to train.
            vocabulary: to read generated ids.
            config: numbers.
            augmentation: of images, where ``config`` asks for it.
        """
        super().__init__()
        self.encoder = encoder if encoder is not None else nn.Identity()
        self.has_encoder = encoder is not None
        self._templates = tuple(templates)
        self.decoder = decoder
        self.config = config
        self.augmentation = augmentation
        self.vocabulary = vocabulary
        self._generated: list[tuple[list[str], list[str]]] = []

    def tokens(self, batch: dict[str, Any]) -> VisualTokens:
        """Tokens of a batch with "images" (B, 1, H, H), "labels" (B, L), or "tokens", (B, N, D) of each cache.

        Beside "tokens" may stand "findings" (B, 14), for decoders that read these first.
        """
        if self._templates:
            parts = [
                VisualTokens(tokens, template.grids, template.sources)
                for tokens, template in zip(batch["tokens"], self._templates, strict=True)
            ]
            joined: VisualTokens = self.encoder(parts) if self.has_encoder else parts[0]
            return replace(joined, findings=batch.get("findings"))
        if "labels" in batch:
            inputs = batch["labels"]
        else:
            images = batch["images"]
            inputs = augment(images, self.augmentation) if self.training and self.config.augment else images
        visual: VisualTokens = self.encoder(inputs)
        return visual

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """One teacher-forced step on "ids" (B, T)."""
        with computing(self.device, self.config.precision):
            read = self.decoder(self.tokens(batch), batch["ids"][:, :-1])
        losses = report_loss(read, batch["ids"], self.config.stop_weight, ranks.weight)
        self.log_dict(
            {f"train_{name}": value for name, value in losses.items()},
            on_epoch=True,
            on_step=False,
            batch_size=len(batch["ids"]),
            sync_dist=True,
        )
        return losses["loss"]

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Log the loss and write greedy reports."""
        visual, ids = self.tokens(batch), batch["ids"]
        losses = report_loss(self.decoder(visual, ids[:, :-1]), ids, self.config.stop_weight)
        self.log_dict({f"val_{name}": value for name, value in losses.items()}, batch_size=len(ids), sync_dist=True)
        written = generate(self.decoder, visual, GREEDY, self.vocabulary)
        for hypothesis, reference in zip(written, ids.tolist(), strict=True):
            self._generated.append((self.vocabulary.decode(hypothesis.ids), self.vocabulary.decode(reference)))

    def on_validation_epoch_end(self) -> None:
        """Log BLEU-4 and clinical macro F1 by the rule labeler, over the reports of all processes."""
        generated, references = zip(*chain.from_iterable(ranks.gather(self._generated)), strict=True)
        self._generated.clear()
        self.log("val_bleu_4", bleu(references, generated)["bleu_4"], prog_bar=True)
        found = [[label_report(to_text(words)).states for words in texts] for texts in (references, generated)]
        self.log("val_f1", clinical_scores(found[0], found[1]).f1, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Adam; DVE has its own rate. What joins tokens or reads labels starts from nothing, as the decoder does."""
        of_images = isinstance(self.encoder, Encoder)
        rate = self.config.image_learning_rate if of_images else self.config.learning_rate
        parts: list[tuple[nn.Module | nn.Parameter, float]] = [(self.decoder, self.config.learning_rate)]
        if self.has_encoder:
            parts.append((self.encoder, rate))
        # One kernel for all weights; its last digits are others, so a training in fp32 keeps the steps that it had.
        kind = partial(Adam, fused=True) if self.config.precision == "bf16" else Adam
        return adam(parts, self.config, self.trainer, kind)
