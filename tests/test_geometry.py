"""Images become squares, and maps of squares images again, with nothing moved."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.studies.images import fit_square, to_original
from core.types import Geometry

# --- geometry ---


def test_square_of_its_own_size_is_the_image_itself() -> None:
    image = np.random.default_rng(2).random((48, 48), dtype=np.float32)
    square, geometry = fit_square(image, 48)
    np.testing.assert_array_equal(square, image)
    np.testing.assert_array_equal(to_original(square, geometry), image)
    assert geometry == Geometry(48, 48, 48)


def test_padding_is_black_and_the_same_on_both_sides() -> None:
    square, geometry = fit_square(np.ones((40, 80), dtype=np.float32), 80, pixel_spacing=(0.1, 0.2))
    np.testing.assert_array_equal(square[:20], 0)
    np.testing.assert_array_equal(square[20:60], 1)
    np.testing.assert_array_equal(square[60:], 0)
    assert geometry.content == (0.25, 0, 0.5, 1)
    assert geometry.pixel_spacing == (0.1, 0.2)


def test_odd_padding_is_split_in_halves() -> None:
    square, _ = fit_square(np.ones((41, 80), dtype=np.float32), 80)  # margins of 19.5 pixels
    np.testing.assert_allclose(square[[18, 19, 20, 59, 60, 61], 0], [0, 0.5, 1, 1, 0.5, 0], atol=1e-6)


def test_reduction_is_antialiased() -> None:
    stripes = np.tile(np.array([0, 1], dtype=np.float32), (64, 32))
    square, _ = fit_square(stripes, 16)
    np.testing.assert_allclose(square[:, 1:-1], 0.5, atol=1e-3)


sides = st.integers(32, 300)
TRIANGLE_IS_OFF = (3 - 2 * np.sqrt(2)) / 2
"""Pixels by which the mean of a triangle filter differs from its middle at most, when it is reduced to whole pixels."""


def test_a_triangle_at_whole_pixels_is_off_its_middle_by_this_much() -> None:
    """What PIL's filter may move a place by, from the filter's formula alone; the worst width is (1 + sqrt 2) / 2."""
    middle, pixels = np.linspace(0, 1, 2001)[:, None], np.arange(-6, 8)
    off = 0.0
    for width in [(1 + np.sqrt(2)) / 2, *np.linspace(1, 5, 400)]:
        weights = np.clip(1 - np.abs(pixels - middle) / width, 0, None)
        off = max(off, np.abs((weights * (pixels - middle)).sum(1) / weights.sum(1)).max())
    assert off == pytest.approx(TRIANGLE_IS_OFF, rel=1e-3)  # places are sampled


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, size=st.integers(32, 200))
@example(height=32, width=32, size=37)  # moves by more than 0.002 of its height
def test_places_survive_the_way_there_and_back(height: int, width: int, size: int) -> None:
    side = max(height, width)
    rows = (np.arange(height, dtype=np.float32) + 0.5)[:, None] / height * np.ones((1, width), dtype=np.float32)
    square, geometry = fit_square(rows, size)
    assert square.shape == (size, size)
    assert square.min() >= 0
    assert square.max() <= 1
    back = to_original(square, geometry)
    assert back.shape == (height, width)
    # A linear ramp is kept, except near the border where padding and edges mix in.
    margin = int(np.ceil(2 * max(1, side / size))) + 1
    inside = (slice(margin, height - margin), slice(margin, width - margin))
    moved = np.abs(back - rows)[inside] * height  # in pixels of the original
    assert moved.max(initial=0) < TRIANGLE_IS_OFF + 1e-3


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, cells=st.integers(2, 24))
def test_a_map_of_places_returns_each_pixels_own_place(height: int, width: int, cells: int) -> None:
    # Cell centres hold their own x in [0, 1]; pixel j of the original lies at (j + 1/2 + margin) / side.
    side = max(height, width)
    x = np.tile((np.arange(cells) + 0.5) / cells, (cells, 1))
    back = to_original(x, Geometry(height, width, 64))
    expected = (np.arange(width) + 0.5 + (side - width) / 2) / side
    step = side / cells  # pixels per cell; when cells are smaller than pixels, borders are averaged
    inside = (expected > (0.5 + 1 / step) / cells) & (expected < 1 - (0.5 + 1 / step) / cells)
    if step >= 1:
        np.testing.assert_allclose(back[:, inside], np.tile(expected[inside], (height, 1)), atol=1e-3)


def test_map_keeps_its_range_and_sign() -> None:
    values = np.array([[-3.0, 5.0], [5.0, -3.0]])
    back = to_original(values, Geometry(100, 100, 64))
    assert back.min() == -3
    assert back.max() == 5
