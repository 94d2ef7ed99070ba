"""Speeds at scale: decoders from the token cache, encoders at paper size: ``make bench PARTS=scale``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from core.decoders import build_decoder
from core.encoders import Encoder, build_encoder
from core.encoders.base import encoder_class
from core.encoders.ccve import ClusterClipEncoder
from core.encoders.token_cache import TokenCache, write_token_cache
from core.registry import ENCODERS, Size
from core.text import END, PAD, SPECIAL_TOKENS, START, Vocabulary
from training.bench.ceilings import fastest, matrix_rates
from training.bench.record import Line
from training.bench.turns import Row, in_turns
from training.modules.report import ReportModule
from training.options import read_preset

WORDS = 60
CASES: tuple[tuple[str, str, Size, int, int | None], ...] = (
    ("fve", "transformer", "tiny", 32, None),
    ("fve", "transformer", "paper", 8, None),
    ("fve", "transformer", "paper", 8, 1),  # src: published code, one layer (paper-notes 3.0)
    ("fve", "cnn_rnn_rnn", "paper", 8, None),
    ("cve", "transformer", "paper", 8, None),
    ("cve", "transformer", "paper", 8, 1),
    ("ccve", "transformer", "paper", 2, None),
)
"""Encoder, decoder, size, batch, layers where they are not the size's."""


def _encoder(name: str, size: Size) -> Encoder:
    torch.manual_seed(0)
    changes: dict[str, Any] = (
        {"vocabulary": Vocabulary(SPECIAL_TOKENS)} if encoder_class(name).reads_words and size != "paper" else {}
    )
    return build_encoder(name, size, **changes).freeze()


def cached_training(name: str, decoder_name: str, size: Size, batch: int, layers: int | None = None) -> Row:
    """Seconds a batch of a decoder's training: its images encoded each time, against tokens from the cache.

    An epoch is so many equal batches: the ratio of the batches is that of the epochs, from the second one on.
    """
    encoder = _encoder(name, size)
    images = torch.rand(batch, 1, encoder.normalize.image_size, encoder.normalize.image_size)
    words = Vocabulary((*SPECIAL_TOKENS, *(f"word{index}" for index in range(1000 if size == "tiny" else 5000))))
    width = ENCODERS[name].sizes[size].width
    changes = {} if layers is None else {"layers": layers}
    decoder = build_decoder(decoder_name, size, token_width=width, vocabulary_size=len(words), **changes)
    ids = torch.randint(len(SPECIAL_TOKENS), len(words), (batch, WORDS + 2))
    ids[:, 0], ids[:, -1] = START, END
    assert PAD not in ids[:, 1:-1]
    with tempfile.TemporaryDirectory() as folder:
        write_token_cache(Path(folder), "bench", encoder, lambda start, end: images[start:end], batch)
        cache = TokenCache.open(Path(folder), "bench")
        module = ReportModule(None, [cache.template()], decoder, words, read_preset("phantom").report)
        module.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
        optimizer = torch.optim.AdamW(decoder.parameters())

        def step(tokens: Tensor) -> None:
            optimizer.zero_grad()
            module.training_step({"tokens": [tokens], "ids": ids}, 0).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        depth = "" if layers is None else f", {layers} layer{'s' * (layers != 1)}"
        return in_turns(
            f"training {name} + {decoder_name}, size {size}{depth}, batch {batch}, from the cache",
            "encoding at each step",
            lambda: step(encoder(images).tokens),
            lambda: step(cache.tokens(list(range(batch)))),
            None,
            turns=3,
            plain_turns=1,
        )


def encoder_rates(size: Size = "paper", batch: int = 2) -> Iterator[str]:
    """Images a second of each frozen encoder, and its share of the fastest matrix product measured beside it."""
    for name in ("fve", "cve", "ccve"):
        encoder = _encoder(name, size)
        images = torch.rand(batch, 1, encoder.normalize.image_size, encoder.normalize.image_size)
        with FlopCounterMode(display=False) as counter:
            encoder(images)
        before = matrix_rates()
        seconds = fastest(lambda encoder=encoder, images=images: encoder(images))  # type: ignore[misc]
        rate, kernel = max((rate, name) for rates in (before, matrix_rates()) for name, rate in rates.items())
        done = counter.get_total_flops()
        yield (
            f"| {name} | {batch / seconds:.2f} | {done / batch / 1e9:.0f} | {done / seconds / 1e9:.0f} | "
            f"{rate / 1e9:.0f} by {kernel} | {done / seconds / rate:.0%} |"
        )


def thirteen_filters(size: Size = "paper", rounds: int = 3) -> tuple[float, float]:
    """CCVE's pass of one image over one CLIP pass of it: times as long, and times as many operations."""
    encoder = _encoder("ccve", size)
    assert isinstance(encoder, ClusterClipEncoder)
    image = torch.rand(1, 1, encoder.normalize.image_size, encoder.normalize.image_size)
    works = (lambda: encoder.clip.image(encoder.normalize(image)), lambda: encoder(image))
    operations = []
    with torch.no_grad():
        for work in works:
            with FlopCounterMode(display=False) as counter:
                work()
            operations.append(counter.get_total_flops())
        times = [min(column) for column in zip(*([_once(w) for w in works] for _ in range(rounds)), strict=True)]
    return times[1] / times[0], operations[1] / operations[0]


def _once(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def report() -> Iterator[Line]:
    """Everything."""
    for case in CASES:
        yield cached_training(*case)
    yield "| paper size | images/s | GFLOPs an image | GFLOPS | fastest matrix product | share |"
    yield "|---|---:|---:|---:|---:|---:|"
    yield from encoder_rates()
    longer, more = thirteen_filters()
    yield f"13 filters against one CLIP pass, paper size: {longer:.1f} times as long, {more:.2f} times the operations."
