"""Encoders and training steps in other precisions and by other engines: ``make bench PARTS=engines``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from core.bundles.card import encoder_weights
from core.bundles.library import BundleLibrary
from core.decoders import build_decoder
from core.devices import BY_TORCH, Precision, computing
from core.encoders import Encoder
from core.encoders.base import build_encoder
from core.encoders.engines import ALIKE, TOLERANCE, Look, choose
from core.paths import BUNDLES
from core.text import END, SPECIAL_TOKENS, START, Vocabulary
from core.types import VisualTokens
from training.bench.record import Line
from training.bench.turns import Row, in_turns
from training.modules.report import ReportModule
from training.options import read_preset

CPU = torch.device("cpu")
WAYS: Mapping[Precision, str] = {
    "fp32": "batch norms in its convolutions",
    "bf16": "by torch in bf16",
    "openvino": "by OpenVINO in fp32",
    "openvino-bf16": "by OpenVINO in bf16",
}
WORDS = 60


def encoders() -> Iterator[Line]:
    """Each encoder in each way, against torch in fp32: two images, tokens compared."""
    library, made = BundleLibrary(BUNDLES), dict[str, tuple[Encoder, list[str]]]()
    for which in ("phantom-dve", "phantom-fve", "phantom-cve", "phantom-ccve", "openi-fve", "openi-ccve"):
        model = library.load(f"{which}-transformer")
        family, _, encoder_name = which.partition("-")
        made[f"{encoder_name.upper()} of {family}"] = model.encoder, encoder_weights(model.card)
    for which in ("dve", "fve", "cve"):
        torch.manual_seed(0)
        made[f"{which.upper()}, paper size"] = build_encoder(which, "paper").freeze(), ["bench", which]
    for name, (encoder, weights) in made.items():
        side: int = encoder.normalize.image_size  # type: ignore[assignment]
        images = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(1))
        for way, words in WAYS.items():
            engine = choose(encoder, weights, way, CPU)
            if engine.name != way and way not in BY_TORCH:
                yield f"{name}: no {way} here. It is run by {engine.name}: {engine.why}."
                continue

            def run(look: Look, way: Precision, images: Tensor = images) -> Tensor:
                with torch.inference_mode(), computing(CPU, way):
                    return look(images).tokens.float()

            fast: Callable[[], Tensor] = lambda run=run, look=engine.look, way=way: run(look, way)  # type: ignore[misc] # noqa: E731
            exact: Callable[[], Tensor] = lambda run=run, encoder=encoder: run(encoder, "fp32")  # type: ignore[misc] # noqa: E731
            least = float(torch.nn.functional.cosine_similarity(exact(), fast(), dim=-1).min())
            what = f"{name}, {words}"
            yield in_turns(what, "torch in fp32", exact, fast, _same if way in ("fp32", "openvino") else None)
            if least < ALIKE:
                yield f"{what}: tokens have a cosine of {least:.3f} or more with those of torch in fp32."


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * one.abs().max())


def steps() -> Iterator[Row]:
    """A training step of a decoder in bfloat16, against fp32; both from tokens in memory."""
    words = Vocabulary((*SPECIAL_TOKENS, *(f"word{index}" for index in range(5000))))
    visual = VisualTokens(torch.randn(8, 49, 512), ((7, 7),), ("x",) * 49)
    ids = torch.randint(len(SPECIAL_TOKENS), len(words), (8, WORDS + 2))
    ids[:, 0], ids[:, -1] = START, END
    for name, size in (("transformer", "paper"), ("m2", "paper"), ("transformer", "small")):
        ways = []
        for precision in ("fp32", "bf16"):
            torch.manual_seed(0)
            decoder = build_decoder(name, size, token_width=512, vocabulary_size=len(words))  # type: ignore[arg-type]
            settings = replace(read_preset("phantom").report, precision=precision, schedule="constant")
            module = ReportModule(None, [visual], decoder, words, settings)
            module.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
            module.trainer = _Trainer()  # type: ignore[assignment]
            optimizer = module.configure_optimizers()["optimizer"]

            def step(module: ReportModule = module, optimizer: torch.optim.Optimizer = optimizer) -> None:
                optimizer.zero_grad()
                module.training_step({"tokens": [visual.tokens], "ids": ids}, 0).backward()  # type: ignore[no-untyped-call]
                optimizer.step()

            ways.append(step)
        exact, coarse = ways
        yield in_turns(f"a step of {name}, {size} size, 8 studies, bf16", "fp32", exact, coarse, None)


class _Trainer:
    """What a schedule asks of one."""

    estimated_stepping_batches = 100
    max_epochs = 1


def report() -> Iterator[Line]:
    """All of them."""
    yield from encoders()
    yield from steps()
