"""A run's models as they are before they learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.config import ExperimentConfig
from core.decoders import Decoder, build_decoder
from core.encoders import Encoder, build_encoder
from core.encoders.base import encoder_class
from core.encoders.joint import JointProjection
from core.encoders.pretrained import start_from
from core.registry import ENCODERS, encoder_parts, token_width
from training.data import to_images
from training.run_folder import part_of
from training.stages.run import Run


def frozen_parts(config: ExperimentConfig) -> list[str]:
    """Encoders that are trained on their own and then frozen, each once, parts of joint ones too."""
    parts = dict.fromkeys(part for name in config.encoders for part in encoder_parts(name))
    return [part for part in parts if ENCODERS[part].frozen]


def reads_cache(config: ExperimentConfig, encoder_name: str) -> bool:
    """Whether an encoder's tokens are the same at every step of its decoder's training."""
    return not config.report.drifting_norms and all(ENCODERS[part].frozen for part in encoder_parts(encoder_name))


def build_arguments(run: Run, name: str) -> dict[str, Any]:
    """Arguments of an encoder that the preset and the studies decide."""
    return encoder_class(name).arguments(run.config, run.data)


def new_encoder(run: Run, name: str) -> Encoder:
    """A new encoder, with published weights or those of the backbone where the preset asks for them."""
    torch.manual_seed(run.config.seed)
    encoder = build_encoder(name, run.config.size, pretrained=run.config.pretrained, **build_arguments(run, name))
    if run.config.backbone.source != "none":
        weights = part_of(run.folder / "backbone", "backbone")
        for each in encoder.backbones():
            start_from(each, weights)
    return encoder


def new_decoder(run: Run, encoder_name: str, decoder_name: str) -> Decoder:
    """A new decoder for an encoder's tokens."""
    return build_decoder(
        decoder_name,
        run.config.size,
        token_width=token_width(encoder_name, run.config.size),
        vocabulary_size=len(run.data.vocabulary),
    )


def new_join(run: Run, encoder_name: str) -> JointProjection | None:
    """What joins the tokens of several encoders; None for one."""
    parts = encoder_parts(encoder_name)
    widths = [ENCODERS[part].sizes[run.config.size].width for part in parts]
    return JointProjection(widths, token_width(encoder_name, run.config.size)) if len(parts) > 1 else None


def batches(images: Any, size: int) -> Iterator[Tensor]:
    """Images (n, H, H) uint8 as batches (size, 1, H, H) in [0, 1]; the last may be smaller."""
    for start in range(0, len(images), size):
        yield to_images(np.asarray(images[start : start + size]))
