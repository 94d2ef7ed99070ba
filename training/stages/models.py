"""A run's models as they are before they learn."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core.config import ExperimentConfig
from core.decoders import Decoder, build_decoder, decoder_class
from core.encoders import Encoder, build_encoder
from core.encoders.base import encoder_class
from core.encoders.joint import JointProjection
from core.encoders.pretrained import start_from
from core.packages import WeightsError
from core.registry import ENCODERS, encoder_parts, token_width
from core.settings import Start
from training.data import to_images
from training.identity import file_hash
from training.run_folder import StageError, part_of
from training.stages.run import Run


def frozen_parts(config: ExperimentConfig) -> list[str]:
    """Encoders that are trained on their own and then frozen, each once, parts of joint ones too."""
    parts = dict.fromkeys(part for name in config.encoders for part in encoder_parts(name))
    return [part for part in parts if ENCODERS[part].frozen]


def reads_cache(config: ExperimentConfig, encoder_name: str) -> bool:
    """Whether an encoder's tokens are the same at every step of its decoder's training."""
    still = all(ENCODERS[part].frozen for part in encoder_parts(encoder_name))
    return bool(config.encoders_from) or (still and not config.report.drifting_norms)


def decoder_arguments(config: ExperimentConfig, encoder_name: str, decoder_name: str) -> dict[str, Any]:
    """Arguments of a decoder that the preset decides, beside those of the registry's row."""
    alone = len(encoder_parts(encoder_name)) == 1
    finds = config.report.findings_first and alone and reads_cache(config, encoder_name)
    return {**decoder_class(decoder_name).arguments(config), **({"findings_first": True} if finds else {})}


def build_arguments(run: Run, name: str) -> dict[str, Any]:
    """Arguments of an encoder that the preset and the studies decide."""
    return encoder_class(name).arguments(run.config, run.data)


def new_encoder(run: Run, name: str) -> Encoder:
    """A new encoder, with the weights that it starts from."""
    torch.manual_seed(run.config.seed)
    start = run.config.start.of(name)
    published = run.config.pretrained if start == "preset" else start == "published"
    encoder = build_encoder(name, run.config.size, pretrained=published, **build_arguments(run, name))
    if start == "preset" and run.config.backbone.source != "none":
        weights = part_of(run.folder / "backbone", "backbone")
        for each in encoder.backbones():
            start_from(each, weights)
    elif start not in typing.get_args(Start):
        _read_start(encoder, name, Path(start))
    return encoder


def encoder_identity(run: Run, name: str) -> dict[str, Any]:
    """What an encoder's own start and side add to the identity of the stage that trains it; nothing where it has none.

    Raises:
        StageError: it starts from a file that is not there.
    """
    start = run.config.start.of(name)
    own: dict[str, Any] = {"image_size": run.config.image_size} if run.config.image_size else {}
    if start in typing.get_args(Start):
        return own if start == "preset" else {**own, "start": start}
    if not Path(start).is_file():
        named = ", ".join(typing.get_args(Start))
        raise StageError(f"start.{name}: there is no file {start}. It is {named}, or the path of a safetensors file.")
    return {**own, "start": f"weights {file_hash(Path(start))}"}


def _read_start(encoder: Encoder, name: str, path: Path) -> None:
    """Fill an encoder, or the CNNs in it, from a file of weights.

    Raises:
        StageError: the file holds none that fit.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StageError(f"start.{name}: {path} cannot be read as safetensors ({error}).") from error
    whole = {key.removeprefix("encoder."): value for key, value in weights.items() if not key.startswith("decoder.")}
    try:
        if whole.keys() == encoder.state_dict().keys():
            encoder.load_state_dict(whole)
            return
        if encoder.backbones():
            for each in encoder.backbones():
                start_from(each, {key.removeprefix("backbone."): value for key, value in weights.items()})
            return
    except (RuntimeError, WeightsError) as error:
        raise StageError(f"start.{name}: the weights in {path} are of another encoder or another size.") from error
    raise StageError(f"start.{name}: {path} holds no weights of this encoder.")


def new_decoder(run: Run, encoder_name: str, decoder_name: str) -> Decoder:
    """A new decoder for an encoder's tokens."""
    return build_decoder(
        decoder_name,
        run.config.size,
        token_width=token_width(encoder_name, run.config.size),
        vocabulary_size=len(run.data.vocabulary),
        **decoder_arguments(run.config, encoder_name, decoder_name),
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
