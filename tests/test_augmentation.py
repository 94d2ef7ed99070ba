"""Training images are changed within what a preset says, on their device, the same for the same seed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from core.config import load_config
from core.settings import GENTLE, AugmentConfig
from training.modules.augmentation import FRAME, augment
from training.options import PRESETS

pytestmark = pytest.mark.numeric
STILL = AugmentConfig(turn=0, scale=0, shift=0, gamma=0, gain=0)


def drawn(images: Tensor, how: AugmentConfig, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return augment(images, how)


def of_version_1(images: Tensor) -> Tensor:
    """What all bundles before the settings learned with."""
    batch = len(images)
    angle = (torch.rand(batch) - 0.5) * math.radians(8)
    scale = 1 + (torch.rand(batch) - 0.5) * 0.12
    shift = (torch.rand(batch, 2) - 0.5) * 0.12
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    matrix = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], dim=1)
    grid = nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, align_corners=False)
    gamma = torch.exp((torch.rand(batch, 1, 1, 1) - 0.5) * 0.4)
    gain = 1 + (torch.rand(batch, 1, 1, 1) - 0.5) * 0.2
    return (moved.clamp(1e-4, 1) ** gamma * gain).clamp(0, 1)


def test_where_a_preset_does_not_say_how_it_is_as_it_was() -> None:
    images = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    expected = of_version_1(images)
    torch.testing.assert_close(drawn(images, GENTLE), expected)


share = st.floats(0, 1)


@settings(max_examples=30, deadline=None)
@given(
    how=st.builds(
        AugmentConfig,
        turn=st.floats(0, 45),
        scale=st.floats(0, 0.5),
        shift=st.floats(0, 0.5),
        gamma=st.floats(0, 1),
        gain=st.floats(0, 1),
        aspect=st.floats(0, 1),
        borders=share,
        markers=share,
    ),
    seed=st.integers(0, 2**31),
)
def test_values_and_shape_stay_and_a_seed_repeats(how: AugmentConfig, seed: int) -> None:
    images = torch.rand(5, 1, 24, 30, generator=torch.Generator().manual_seed(seed))
    once = drawn(images, how, seed)
    assert once.shape == images.shape and once.dtype == images.dtype
    assert torch.isfinite(once).all() and once.min() >= 0 and once.max() <= 1
    assert torch.equal(once, drawn(images, how, seed))


def test_nothing_is_changed_where_all_is_zero() -> None:
    images = torch.rand(4, 1, 32, 32)
    torch.testing.assert_close(drawn(images, STILL), images.clamp(1e-4, 1), atol=1e-5, rtol=0)


def test_the_aspect_changes_within_its_range_and_frees_black() -> None:
    images = torch.zeros(400, 1, 64, 64)
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    images[:, 0] = torch.exp(-(x**2 + y**2) / (2 * 6**2))
    found = drawn(images, AugmentConfig(turn=0, scale=0, shift=0, gamma=0, gain=0, aspect=0.4))[:, 0]
    mass = found.sum((1, 2))
    ratio = ((found * x**2).sum((1, 2)) / mass).sqrt() / ((found * y**2).sum((1, 2)) / mass).sqrt()
    assert ratio.log().abs().max() <= 0.2 + 0.02
    assert ratio.log().min() < -0.15 and ratio.log().max() > 0.15
    white = drawn(torch.ones(400, 1, 64, 64), AugmentConfig(turn=0, scale=0, shift=0, gamma=0, gain=0, aspect=0.4))
    corner_free = white[:, 0, 32, 0] < 0.5
    assert 0.3 < corner_free.float().mean() < 0.7  # narrower: black at both sides
    assert (white[:, 0, 32, 32] > 0.99).all()


def test_borders_are_black_narrow_and_of_a_share_of_the_images() -> None:
    found = drawn(torch.ones(600, 1, 50, 50), AugmentConfig(**{**vars_of(STILL), "borders": 0.5}))[:, 0]
    inner = round(50 * FRAME) + 1
    assert (found[:, inner:-inner, inner:-inner] > 0.99).all()
    framed = (found < 0.01).any(2).any(1).float().mean()
    assert 0.3 < framed < 0.5  # a frame may have no side


def test_a_letter_stands_in_the_upper_corner_of_its_side() -> None:
    how = AugmentConfig(**{**vars_of(STILL), "markers": 1.0})
    found = drawn(torch.zeros(200, 1, 192, 192), how)[:, 0]
    ink = found > 0.3
    assert ink.any(2).any(1).all()
    assert not ink[:, 75:].any() and not ink[:, :, 55:137].any()
    left, right = found[:, :, :55].sum((1, 2)), found[:, :, 137:].sum((1, 2))
    assert ((left > 3) ^ (right > 3)).all()
    assert 0.35 < (right > 3).float().mean() < 0.65
    # An R has its bow in the upper right of itself, where an L has nothing. R stands at the image's left.
    for one in range(200):
        rows, columns = (ink[one].any(axis).nonzero().flatten() for axis in (1, 0))
        row, column = (int(each.float().mean().ceil()) for each in (rows, columns))
        bow = found[one, int(rows[0]) : row, column + 1 : int(columns[-1]) + 1].sum() / found[one].sum()
        assert (bow > 0.1) == bool(left[one] > 3)
    none = drawn(torch.zeros(50, 1, 32, 32), AugmentConfig(**{**vars_of(STILL), "markers": 0.0}))
    assert none.max() <= 1e-3


def vars_of(how: AugmentConfig) -> dict[str, float]:
    return {name: getattr(how, name) for name in AugmentConfig.__dataclass_fields__}


@pytest.mark.parametrize("preset", ["phantom", "openi"])
def test_presets_that_augment_meet_other_scanners(preset: str) -> None:
    how = load_config(PRESETS, preset).augment
    assert min(how.aspect, how.borders, how.markers) > 0
    assert load_config(PRESETS, "paper").augment == GENTLE
