"""How weights move in every stage: against torch's own optimisers, open_clip's loop and schedules worked by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, AdamW

from core.config import ClipConfig, identity, load_config
from core.decoders import build_decoder
from core.encoders.clip import ContrastiveEncoder
from core.text import PAD, SPECIAL_TOKENS, Vocabulary
from core.types import VisualTokens
from training.fit import fit
from training.loaders import EpochSampler, loaders, pad
from training.modules.clip import ClipModule
from training.modules.optimizers import adam
from training.modules.report import ReportModule
from training.options import PRESETS

pytestmark = pytest.mark.numeric

SETTINGS = load_config(PRESETS, "phantom").report
TRAINER = SimpleNamespace(estimated_stepping_batches=40, max_epochs=10)


def rates(**changes: Any) -> list[float]:
    """Of all steps of ten epochs of four."""
    made = adam([(nn.Linear(2, 2), 1.0)], replace(SETTINGS, **changes), TRAINER)
    found = []
    for _ in range(40):
        found.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    return found


def test_unless_told_otherwise_the_rate_rises_for_a_twentieth_and_falls_along_a_cosine() -> None:
    falling = [0.5 * (1 + math.cos(math.pi * step / 38)) for step in range(38)]
    assert rates() == pytest.approx([0.5, 1.0, *falling])


def test_the_published_schedule_halves_the_rate_every_eight_epochs() -> None:
    """StepLR(8, 0.5) by torch itself, stepped once an epoch of four steps."""
    peer = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 8, 0.5)
    expected = []
    for _ in range(10):
        expected += peer.get_last_lr() * 4
        peer.optimizer.step()
        peer.step()
    assert rates(schedule="steps", warmup_share=0.0) == pytest.approx(expected)
    assert rates(schedule="steps", warmup_share=0.0, step_epochs=3, step_factor=0.1)[::4] == pytest.approx(
        [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001]
    )


def test_a_constant_rate_rises_and_stays() -> None:
    assert rates(schedule="constant", warmup_share=0.1) == pytest.approx([0.25, 0.5, 0.75, *[1.0] * 37])


@pytest.mark.parametrize("decay", ["decoupled", "coupled"])
@pytest.mark.parametrize("numbers", [(0.9, 0.98, 1e-6), (0.8, 0.999, 1e-8)])
def test_weights_move_as_torchs_adam_and_adamw_move_them(decay: str, numbers: tuple[float, float, float]) -> None:
    """Also after a checkpoint was read, where torch's AdamW would decouple the decay of any optimiser made from it."""
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    beta_1, beta_2, eps = numbers
    settings = replace(SETTINGS, decay=decay, beta_1=beta_1, beta_2=beta_2, eps=eps, schedule="constant",
                       warmup_share=0.0, weight_decay=0.3)  # fmt: skip
    optimizer = adam([(ours, 0.01)], settings, TRAINER)["optimizer"]
    peer = (AdamW if decay == "decoupled" else Adam)(
        [{"params": [theirs.weight]}, {"params": [theirs.bias], "weight_decay": 0.0}],
        lr=0.01, betas=(beta_1, beta_2), eps=eps, weight_decay=0.3,
    )  # fmt: skip
    for step in range(6):
        x = torch.randn(4, 5)
        for network, each in ((ours, optimizer), (theirs, peer)):
            each.zero_grad()
            network(x).square().sum().backward()
            each.step()
        if step == 2:
            state = optimizer.state_dict()
            optimizer = adam([(ours, 0.01)], settings, TRAINER)["optimizer"]
            optimizer.load_state_dict(state)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


# --- CLIP's temperature ---


class Plain(ContrastiveEncoder):
    """Two linear towers, whose temperature starts where OpenAI's weights have it."""

    source = "plain"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.clip = nn.Module()  # type: ignore[assignment]
        self.clip.image, self.clip.text = nn.Linear(16, 6), nn.Linear(8, 6)  # type: ignore[assignment]
        self.clip.logit_scale = nn.Parameter(torch.tensor(4.6052))

    def embed_pairs(self, images: Tensor, clusters: Tensor) -> Tensor:
        return functional.normalize(self.clip.image(images.flatten(1)), dim=1)


class Recorded(ClipModule):
    scales: list[float]

    def on_train_batch_start(self, *_: Any) -> None:
        self.scales.append(self.encoder.clip.logit_scale.item())

    def on_train_epoch_end(self) -> None:
        self.last = {key: value.clone() for key, value in self.encoder.state_dict().items()}


def towers_of(weights: dict[str, Tensor], rows: Sequence[Tensor]) -> list[Tensor]:
    return [
        functional.normalize(
            functional.linear(row, weights[f"clip.{name}.weight"], weights[f"clip.{name}.bias"]), dim=1
        )
        for name, row in zip(("image", "text"), rows, strict=True)
    ]


def test_the_temperature_learns_as_in_open_clip(tmp_path: Path) -> None:
    """Two epochs beside open_clip's loop: its loss, a step, its clamp. It leaves the limit, where it has a gradient."""
    random = torch.Generator().manual_seed(2)
    images, texts = torch.rand(24, 1, 4, 4, generator=random), torch.randn(24, 8, generator=random)
    numbers = {"learning_rate": 0.01, "filter_learning_rate": 0.01, "weight_decay": 0.2, "schedule": "constant"}
    settings = ClipConfig(
        epochs=2, batch_size=8, patience=9, augment=False, freeze_norms=False, mask_duplicates=False,
        filters="independent", negatives="batch", feature="dense", warmup_share=0.0, **numbers,
    )  # type: ignore[arg-type]  # fmt: skip
    collate = lambda rows: {  # noqa: E731
        "images": images[rows], "ids": texts[rows], "clusters": torch.zeros(len(rows), dtype=torch.long),
    }  # fmt: skip
    module = Recorded(Plain(), settings)
    module.scales = []
    data = loaders((24, 24), (collate, collate), 8, 5)
    fit(tmp_path, module, data, epochs=2, monitor="val_loss", mode="min", patience=9, seed=5)

    peer = {key: nn.Parameter(value.clone()) for key, value in Plain().state_dict().items()}
    decayed = [value for value in peer.values() if value.ndim > 1]
    spared = [value for value in peer.values() if value.ndim <= 1]
    groups = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    sampler, scales = EpochSampler(24, 5), []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        order = list(sampler)
        for start in range(0, 24, 8):
            rows = order[start : start + 8]
            scales.append(peer["clip.logit_scale"].item())
            optimizer.zero_grad()
            image, text = towers_of(peer, (images[rows].flatten(1), texts[rows]))
            ClipLoss()(image, text, peer["clip.logit_scale"].exp()).backward()
            nn.utils.clip_grad_norm_(peer.values(), 1.0)
            optimizer.step()
            with torch.no_grad():
                peer["clip.logit_scale"].clamp_(0, math.log(100))
    assert module.scales == pytest.approx(scales, abs=1e-6)
    for key, value in module.last.items():
        torch.testing.assert_close(value, peer[key].detach(), atol=1e-5, rtol=1e-5)
    assert scales[0] > math.log(100) >= max(scales[1:])
    assert min(module.scales) < math.log(100) - 0.01


@pytest.mark.parametrize("name", ["transformer", "cnn_rnn_rnn"])
def test_a_decoder_learns_the_same_in_bfloat16_and_its_weights_and_validation_stay_exact(
    name: str, tmp_path: Path
) -> None:
    words = Vocabulary(
        (*SPECIAL_TOKENS, *["the", "heart", "is", "large", "lungs", "are", "clear", "no", "effusion", "."])
    )
    tokens = torch.randn(24, 4, 6, generator=torch.Generator().manual_seed(2))
    texts = [["the heart is large .", "no effusion . the lungs are clear ."][int(each[0, 0] > 0)] for each in tokens]
    ids = [words.encode(text, 20, sentences=name == "cnn_rnn_rnn") for text in texts]
    losses, steps = {}, {"epochs": 8, "monitor": "val_loss", "mode": "min", "patience": 9, "seed": 3}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(1)
        decoder = build_decoder(name, "tiny", token_width=6, vocabulary_size=len(words), dropout=0.0)
        settings = replace(SETTINGS, precision=precision)
        module = ReportModule(None, [VisualTokens(tokens[:0], ((2, 2),), ("x",) * 4)], decoder, words, settings)
        seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
        last = [layer for layer in decoder.modules() if isinstance(layer, nn.Linear)][-1]
        last.register_forward_hook(lambda layer, _, out, seen=seen: seen[layer.training].add(out.dtype))
        batch = lambda rows: {"tokens": [tokens[rows]], "ids": pad([ids[row] for row in rows], PAD)}  # noqa: E731
        fit(tmp_path / precision, module, loaders((24, 24), (batch, batch), 8, 3), **steps)  # type: ignore[arg-type]
        assert seen[True] == {torch.bfloat16 if precision == "bf16" else torch.float32}
        assert seen[False] == {torch.float32}
        assert {weight.dtype for weight in module.parameters()} == {torch.float32}
        losses[precision] = json.loads((tmp_path / precision / "summary.json").read_text())["best"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.1)
    assert losses["bf16"] != losses["fp32"]


def test_a_training_in_fp32_is_named_as_before_the_precision_could_be_chosen() -> None:
    assert "precision" not in identity(SETTINGS)
    assert identity(replace(SETTINGS, precision="bf16"))["precision"] == "bf16"
