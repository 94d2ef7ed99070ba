"""An encoder, a decoder and a vocabulary: what writes a report."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from core.decoders import Decoder, Memory
from core.decoders.attention_shares import rollout, word_attention
from core.decoders.beams import Hypothesis
from core.decoders.findings import found_observations
from core.decoders.search import GenerateConfig, generate, generate_together
from core.devices import BY_TORCH, Precision, computing
from core.encoders import Encoder
from core.encoders.folding import folded
from core.gate.gate import UNCHECKED, Check
from core.studies.model_image import Pixels, model_image
from core.text import Vocabulary
from core.types import PAD, Fit, FloatImage, Report, VisualTokens

if TYPE_CHECKING:
    from core.bundles.card import Card
    from core.encoders.engines import Engine, Look


@dataclass(frozen=True)
class ReportModel:
    """A pair, ready to write. Shared by all sessions: nothing in it changes after loading.

    Attributes:
        card: what it is.
        encoder: frozen, in evaluation mode; pairs with the same encoder share it.
        decoder: in evaluation mode.
        vocabulary: ids to words.
        precision: in which it encodes and writes. Explanations compute in fp32 whatever it is (`core.explain.subject`).
        check: what looks at an image before its report is shown.
        engine: what runs the encoder where the precision asks for one; None is torch.
    """

    card: Card
    encoder: Encoder
    decoder: Decoder
    vocabulary: Vocabulary
    precision: Precision = "fp32"
    check: Check = UNCHECKED
    engine: Engine | None = None

    @property
    def image_size(self) -> int:
        """Side of the encoder's input, pixels."""
        size: int = self.encoder.normalize.image_size  # type: ignore[union-attr, assignment]
        return size

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.encoder.parameters()).device

    @property
    def look(self) -> Look:
        """How its encoder is run in its precision."""
        by_torch = self.engine is None or self.precision in BY_TORCH
        return folded(self.encoder) if by_torch else self.engine.look  # type: ignore[union-attr]

    def computing(self) -> AbstractContextManager[Any]:
        """The context in which it computes in its precision."""
        return computing(self.device, self.precision)

    @property
    def fit(self) -> Fit:
        """How its images are fitted, as its card says."""
        return self.card.fit

    def reads(self, image: Pixels) -> FloatImage:
        """An image as this pair reads it, of its side and fitted in its way: (side, side)."""
        return model_image(image(self.image_size, self.fit), self.image_size, self.fit)[0]

    @cached_property
    def writes_with(self) -> Hashable | None:
        """What models have in common that can `write_together`; None where it writes alone.

        As in bfloat16, whose last digits are large enough to change words.
        """
        likeness = None if self.precision == "bf16" else self.decoder.likeness()
        return None if likeness is None else (likeness, self.vocabulary, self.precision, self.device)

    @property
    def write(self) -> GenerateConfig:
        """How its reports are written, as its card says."""
        return GenerateConfig(**self.card.write)


def to_batch(images: list[FloatImage], size: int, fit: Fit = PAD) -> Tensor:
    """Images (H, W) of any shape as a pair sees them, (B, 1, size, size); see `model_image`."""
    fitted = [model_image(image, size, fit)[0] for image in images]
    return torch.from_numpy(np.stack(fitted)).unsqueeze(1)


def encode_images(model: ReportModel, images: list[FloatImage]) -> VisualTokens:
    """Visual tokens of images (H, W) in [0, 1]."""
    return encode_batch(model, to_batch(images, model.image_size, model.fit))


@torch.inference_mode()
def encode_batch(model: ReportModel, images: Tensor) -> VisualTokens:
    """Visual tokens of images (B, 1, side, side) in [0, 1], of the model's side; on the model's device."""
    with model.computing():
        return model.look(images.to(model.device))


@torch.inference_mode()
def write_from_tokens(model: ReportModel, visual: VisualTokens, config: GenerateConfig) -> list[Report]:
    """Reports of tokens (B, N, D) that this model's encoder made, with their attention."""
    with model.computing():
        memory = model.decoder.encode(visual, return_attention=True)
        hypotheses = generate(model.decoder, memory, config, model.vocabulary, return_attention=True)
    return _to_reports(model, memory, hypotheses)


@torch.inference_mode()
def write_together(
    models: Sequence[ReportModel], visuals: Sequence[VisualTokens], config: GenerateConfig
) -> list[Report]:
    """The report of one image by each of several models that write together, as `write_from_tokens` writes it alone.

    Args:
        models: of one `ReportModel.writes_with`.
        visuals: tokens (1, N, D) of each, by its encoder; N may differ.
        config: how to write, the same for all.

    Raises:
        CXRLensError: one of the decoders gives NaN; alone, the others may write.
    """
    first, decoders = models[0], [model.decoder for model in models]
    with first.computing():
        memories = [
            decoder.encode(visual, return_attention=True) for decoder, visual in zip(decoders, visuals, strict=True)
        ]
        found = generate_together(decoders, memories, config, first.vocabulary, return_attention=True)
    parts = zip(models, memories, found, strict=True)
    return [_to_reports(model, memory, [hypothesis])[0] for model, memory, hypothesis in parts]


def _to_reports(model: ReportModel, memory: Memory, hypotheses: Sequence[Hypothesis]) -> list[Report]:
    cls = rollout(memory) if memory.attention and memory.visual.start else None
    return [
        to_report(
            model.vocabulary,
            hypothesis,
            memory,
            None if cls is None else cls[index],
            None if memory.found is None else memory.found[index],
        )
        for index, hypothesis in enumerate(hypotheses)
    ]


def to_report(
    vocabulary: Vocabulary,
    hypothesis: Hypothesis,
    memory: Memory,
    cls: Tensor | None = None,
    found: Tensor | None = None,
) -> Report:
    """A hypothesis as its reader sees it; a word has the mean attention of the pieces that it is made of.

    Args:
        vocabulary: of the decoder.
        hypothesis: what it wrote.
        memory: what it read.
        cls: (N,), attention of the CLS token.
        found: (14,), 1 where an observation was found first.
    """
    read = vocabulary.read(hypothesis.ids)
    attention = None
    if hypothesis.attention is not None and read.words:
        rows = word_attention(hypothesis.attention, memory.visual)
        attention = torch.stack([rows[list(places)].mean(0) for places in read.positions]).float().cpu().numpy()
    return Report(
        text=read.text,
        words=read.words,
        log_probability=hypothesis.log_probability,
        finished=hypothesis.finished,
        word_attention=attention,
        cls_attention=None if cls is None else cls.float().cpu().numpy(),
        ids=hypothesis.ids,
        found_first=None if found is None else found_observations(found),
        added=hypothesis.added,
        contradicted=tuple(vocabulary.read(each).text for each in hypothesis.contradicted),
    )
