"""CCVE's filters on their own: frequency responses by hand, attention beside what the decoder did, the control."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.bundles.pair import ReportModel
from core.explain.filters import (
    FREQUENCIES,
    attention_shape,
    filter_attention,
    filter_views,
    frequency_responses,
    with_control,
)
from core.explain.subject import Subject, open_subject
from core.observations import CLUSTERS
from core.text import Vocabulary
from core.types import CXRLensError
from tests.tiny_models import random_image, snapshot, tiny_pair

pytestmark = pytest.mark.numeric


def pair(vocabulary: Vocabulary, decoder: str = "m2", gate: float = 1.0) -> ReportModel:
    model = tiny_pair("ccve", decoder, vocabulary, seed=3)
    with torch.no_grad():
        model.encoder.filters.gate.fill_(gate)  # type: ignore[union-attr]
    return model


@pytest.fixture(scope="module")
def subject(vocabulary: Vocabulary) -> Subject:
    return open_subject(pair(vocabulary), random_image(0))


def test_closed_gates_let_the_image_pass(vocabulary: Vocabulary) -> None:
    model = pair(vocabulary, gate=0.0)
    wide = random_image(0, 60, 100)
    views = filter_views(model, wide)
    assert views.filtered.shape == (len(CLUSTERS), *views.image.shape)
    np.testing.assert_allclose(views.filtered, np.broadcast_to(views.image, views.filtered.shape), atol=1e-5)
    np.testing.assert_allclose(frequency_responses(model, wide), 1, atol=1e-5)


def test_a_frequency_response_by_hand(vocabulary: Vocabulary) -> None:
    """Filter 2 becomes image + 0.5 * (x shifted right + x shifted left) / 2, in GELU's linear part."""
    model = pair(vocabulary)
    filters = model.encoder.filters  # type: ignore[union-attr]
    hidden, k, lift = filters.hidden, 2, 50.0
    with torch.no_grad():
        for each in (filters.first, filters.second):
            each.weight.zero_()
            each.bias.zero_()
        for channel in range(3):
            unit = k * hidden + channel
            filters.first.weight[unit, channel, 2, 2] = 1
            filters.first.bias[unit] = lift  # far on the right GELU is the identity
            filters.second.weight[3 * k + channel, channel, 1, [0, 2]] = 0.5
            filters.second.bias[3 * k + channel] = -lift
        filters.gate.fill_(0.5)
    gains = frequency_responses(model, random_image(0))
    assert gains.shape == (len(CLUSTERS), FREQUENCIES)
    # |1 + 0.5 cos(2 pi fx)|, averaged over the same rings of the plane
    steps = np.fft.fftfreq(64)
    radius = np.hypot(steps[:, None], steps[None, :])
    expected = np.broadcast_to(np.abs(1 + 0.5 * np.cos(2 * np.pi * steps))[None, :], radius.shape)
    ring = np.rint(radius * 2 * (FREQUENCIES - 1)).astype(int)
    by_hand = [expected[ring == each].mean() for each in range(FREQUENCIES)]
    np.testing.assert_allclose(gains[k], by_hand, atol=1e-4)
    assert gains[k, 0] == pytest.approx(1.5, abs=1e-4)
    np.testing.assert_allclose(np.delete(gains, k, 0), 1, atol=1e-4)


def test_attention_is_what_the_report_was_written_with(subject: Subject) -> None:
    found = filter_attention(subject, roll=True)
    assert found.has_cls
    assert subject.report.cls_attention is not None
    assert subject.report.word_attention is not None
    np.testing.assert_allclose(found.summary, subject.report.cls_attention, atol=1e-5)
    np.testing.assert_allclose(found.words, subject.report.word_attention, atol=1e-5)
    layers, heads = attention_shape(subject)
    parts = [filter_attention(subject, layer, head) for layer in range(layers) for head in range(heads)]
    for each in parts:
        np.testing.assert_allclose(each.words.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(each.summary.sum(), 1, atol=1e-5)
    assert not np.allclose(parts[0].words, parts[-1].words)
    with pytest.raises(CXRLensError, match=f"no attention layer {layers}"):
        filter_attention(subject, layers)


def test_a_decoder_without_a_cls_token_says_so(vocabulary: Vocabulary) -> None:
    found = filter_attention(open_subject(pair(vocabulary, "cnn_rnn_rnn"), random_image(1)), roll=True)
    assert not found.has_cls
    assert found.summary.sum() == pytest.approx(1, abs=1e-5)


def test_the_control_has_other_filters_and_the_same_report(subject: Subject) -> None:
    before = snapshot(subject.model)
    control = with_control(subject)
    assert control.report == subject.report
    ours, theirs = (filter_views(each.model, each.image) for each in (subject, control))
    np.testing.assert_array_equal(ours.image, theirs.image)
    assert np.abs(ours.filtered - theirs.filtered).mean() > 0.01
    assert snapshot(subject.model) == before
    assert torch.equal(with_control(subject).visual.tokens, control.visual.tokens)


def test_other_encoders_have_no_filters(vocabulary: Vocabulary) -> None:
    other = open_subject(tiny_pair("dve", "m2", vocabulary, seed=3), random_image(0))
    for ask in (filter_attention, with_control, lambda each: filter_views(each.model, each.image)):
        with pytest.raises(CXRLensError, match="has no filters: only CCVE filters its image"):
            ask(other)
