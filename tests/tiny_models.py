"""Pairs of the tiny size with random weights, and a way to see whether anything touched them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from core.bundles.card import Card
from core.bundles.pair import ReportModel
from core.decoders import build_decoder
from core.encoders import build_encoder
from core.encoders.joint import JointEncoder, JointProjection
from core.registry import ENCODERS, encoder_parts, token_width
from core.text import Vocabulary
from core.types import Report

WORDS = ("no", "effusion", ".", "heart", "is", "large", ".")
WRITE = {"beam_size": 1, "max_words": 12}


def tiny_pair(encoder: str, decoder: str, vocabulary: Vocabulary, seed: int = 0, **changes: Any) -> ReportModel:
    """A pair as a bundle would give it; ``changes`` go to the decoder."""
    torch.manual_seed(seed)
    parts = []
    for part in encoder_parts(encoder):
        arguments = {"vocabulary": vocabulary} if part in ("cve", "ccve") else {}
        parts.append(build_encoder(part, "tiny", **arguments).freeze())
    width = token_width(encoder, "tiny")
    built = parts[0]
    if len(parts) > 1:
        widths = [ENCODERS[part].sizes["tiny"].width for part in encoder_parts(encoder)]
        built = JointEncoder(parts, JointProjection(widths, width)).freeze()
    made = build_decoder(decoder, "tiny", token_width=width, vocabulary_size=len(vocabulary), **changes)
    with torch.no_grad():
        made.output.weight.mul_(3)  # type: ignore[union-attr, operator]
    card = Card(
        name=f"test-{encoder}-{decoder}",
        family="test",
        size="tiny",
        encoder=encoder,
        decoder=decoder,
        data={},
        metrics={},
        write=WRITE,
        intended_use="",
        licence="",
        created="",
        content={},
    )
    return ReportModel(card, built, made.requires_grad_(False).eval(), vocabulary)


def random_image(seed: int = 4, height: int = 128, width: int = 128) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)).astype(np.float32)


def report_of(vocabulary: Vocabulary, words: Sequence[str] = WORDS) -> Report:
    """These words as if a pair had written them."""
    ids = tuple(vocabulary.encode(" ".join(words), 99)[1:])
    return Report(" ".join(words), tuple(words), -1.0, True, ids=ids)


def snapshot(model: ReportModel) -> dict[str, Any]:
    """Everything an explanation could leave behind on a model, and in torch."""
    seen: dict[str, Any] = {"random": torch.get_rng_state().tolist(), "gradients": torch.is_grad_enabled()}
    for part, module in (("encoder", model.encoder), ("decoder", model.decoder)):
        assert isinstance(module, nn.Module)
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            hooks = len(value._backward_hooks or ())
            seen[f"{part}.{name}"] = (value.detach().double().sum().item(), value.requires_grad, value.grad, hooks)
        for name, each in module.named_modules():
            hooks = sum(len(getattr(each, kind)) for kind in vars(each) if kind.endswith("_hooks"))
            seen[f"{part}.{name}()"] = (hooks, each.training, id(each), getattr(each, "is_frozen", None))
    return seen
