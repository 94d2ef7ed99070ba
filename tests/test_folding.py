"""Batch norms that are part of their convolutions: the same tokens, fewer steps, and only where it is known to hold."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from core.bundles.pair import encode_images
from core.encoders.base import Encoder
from core.encoders.folding import folded
from core.encoders.joint import JointEncoder, JointProjection
from core.registry import ENCODERS
from core.studies.model_image import of_image
from core.text import Vocabulary
from core.types import VisualTokens
from tests.tiny_models import random_image, tiny_pair
from training.backbones import BACKBONES

pytestmark = pytest.mark.numeric


class OneToken(Encoder):
    """A network of (B, 3, H, H), whose output is one token."""

    norms_follow = True

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> VisualTokens:
        return VisualTokens(self.network(images)[:, None], (), ("network",))


class NormAfterActivation(nn.Module):
    """Its norm stands after its convolution among its parts, and does not read what that gives."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x).relu()).mean((2, 3))


def moved(module: nn.Module) -> nn.Module:
    """With norms that have seen something: means and variances as of no fresh network."""
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
    return module


def norms(module: nn.Module) -> int:
    return sum(isinstance(each, nn.BatchNorm2d) for each in module.modules())


def alike(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-4 * one.abs().max())


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_every_backbone_gives_what_it_gave(name: str) -> None:
    encoder = OneToken(moved(timm.create_model(name, num_classes=5, **BACKBONES[name].shrunk))).freeze()
    images, before = torch.rand(2, 3, 128, 128), norms(encoder)
    fast = folded(encoder)
    assert alike(encoder(images).tokens, fast(images).tokens)
    assert norms(encoder) == before  # it is as it was
    assert norms(fast) < before or not before


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_gives_its_tokens(name: str, vocabulary: Vocabulary) -> None:
    model = tiny_pair(name, "transformer", vocabulary)
    moved(model.encoder)
    images = [random_image(seed) for seed in range(2)]
    found = encode_images(model, images)  # as pages and commands encode
    with torch.inference_mode():
        expected = model.encoder(torch.stack([torch.from_numpy(model.reads(of_image(each)))[None] for each in images]))
    assert model.look is folded(model.encoder)
    assert norms(model.look) < norms(model.encoder)  # type: ignore[arg-type]
    assert alike(expected.tokens, found.tokens)
    assert (found.grids, found.sources, found.summaries) == (expected.grids, expected.sources, expected.summaries)


def test_joined_encoders_are_folded_each(vocabulary: Vocabulary) -> None:
    parts = [tiny_pair(name, "transformer", vocabulary).encoder for name in ("dve", "cve")]
    images = torch.rand(1, 1, parts[0].normalize.image_size, parts[0].normalize.image_size)  # type: ignore[arg-type]
    widths = [part(images).tokens.shape[2] for part in parts]
    joined = JointEncoder([moved(part) for part in parts], JointProjection(widths, 16)).freeze()  # type: ignore[misc]
    fast = folded(joined)
    assert norms(fast) < norms(joined)
    assert alike(joined(images).tokens, fast(images).tokens)


@torch.inference_mode()
def test_an_encoder_that_does_not_say_so_is_left_alone() -> None:
    class Other(OneToken):
        norms_follow = False

    encoder, images = Other(moved(NormAfterActivation())).freeze(), torch.rand(2, 3, 8, 8)
    assert folded(encoder) is encoder
    wrong = folded(OneToken(encoder.network).freeze())
    assert not alike(encoder(images).tokens, wrong(images).tokens)  # so it matters


def test_an_encoder_that_still_learns_is_left_alone() -> None:
    encoder = OneToken(timm.create_model("resnet18", **BACKBONES["resnet18"].shrunk))
    assert folded(encoder) is encoder


def test_it_is_made_once_and_shares_all_other_weights() -> None:
    encoder = OneToken(timm.create_model("resnet18", num_classes=5, **BACKBONES["resnet18"].shrunk)).freeze()
    fast = folded(encoder)
    assert folded(encoder) is fast
    assert fast.get_parameter("network.fc.weight") is encoder.get_parameter("network.fc.weight")
