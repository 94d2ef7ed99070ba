"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.decoders import DecoderOutput
from core.text import UNKNOWN
from training.losses import AUCMarginLoss, contrastive_loss, report_loss

pytestmark = pytest.mark.numeric


def test_auc_margin_loss_by_hand() -> None:
    loss = AUCMarginLoss(torch.tensor([0.25]), margin=1.0)
    with torch.no_grad():
        loss.a.fill_(0.6)
        loss.b.fill_(0.2)
        loss.alpha.fill_(0.3)
    logits = torch.tensor([[math.log(0.8 / 0.2)], [math.log(0.4 / 0.6)]])  # scores 0.8 (positive) and 0.4 (negative)
    p, a, b, alpha = 0.25, 0.6, 0.2, 0.3
    squares = (1 - p) * (0.8 - a) ** 2 / 2 + p * (0.4 - b) ** 2 / 2
    gap = p * 0.4 / 2 - (1 - p) * 0.8 / 2
    expected = squares + 2 * alpha * (p * (1 - p) + gap) - p * (1 - p) * alpha**2
    assert loss(logits, torch.tensor([[1.0], [0.0]])).item() == pytest.approx(expected, abs=1e-6)


def test_alpha_ascends_while_the_rest_descends() -> None:
    loss = AUCMarginLoss(torch.tensor([0.25]))
    with torch.no_grad():
        loss.alpha.fill_(0.1)
    logits, targets = torch.zeros(4, 1), torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    before = loss(logits, targets)
    before.backward()
    with torch.no_grad():
        stepped = loss.alpha - 0.01 * loss.alpha.grad  # what any optimiser does
        loss.alpha.copy_(stepped)
    assert loss(logits, targets) > before


def test_a_class_without_positives_in_the_batch_still_learns() -> None:
    # With the batch's own rate its loss and gradient would be exactly zero (paper-notes 4.3).
    loss = AUCMarginLoss(torch.tensor([0.01]))
    logits = torch.zeros(8, 1, requires_grad=True)
    loss(logits, torch.zeros(8, 1)).backward()
    assert logits.grad.abs().sum() > 0


def test_alpha_is_kept_at_zero_or_above() -> None:
    loss = AUCMarginLoss(torch.tensor([0.5, 0.5]))
    with torch.no_grad():
        loss.alpha.copy_(torch.tensor([-1.0, 2.0]))
    loss.project()
    assert loss.alpha.tolist() == [0.0, 2.0]


def test_the_start_is_the_optimum_for_the_scores_at_hand() -> None:
    torch.manual_seed(0)
    scores, targets = torch.rand(200, 1), (torch.rand(200, 1) < 0.3).float()
    loss = AUCMarginLoss(targets.mean(0))
    loss.start_from(scores, targets)
    logits = torch.logit(scores)
    gradients = torch.autograd.grad(loss(logits, targets), list(loss.parameters()))
    assert all(float(each.abs()) < 1e-5 for each in gradients)  # nothing left to descend or ascend


def test_training_with_the_auc_loss_separates_two_groups() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(20, 2) + 1.5, torch.randn(180, 2)])
    y = torch.cat([torch.ones(20, 1), torch.zeros(180, 1)])
    model, loss = torch.nn.Linear(2, 1), AUCMarginLoss(torch.tensor([0.1]))
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        loss.project()
    scores = model(x).squeeze(1)
    auc = (scores[:20, None] > scores[None, 20:]).float().mean()
    assert auc > 0.85


def test_contrastive_loss_by_hand() -> None:
    images, texts = torch.eye(2), torch.eye(2)
    scale = torch.tensor(math.log(3.0))
    expected = -math.log(math.exp(3) / (math.exp(3) + 1))
    assert contrastive_loss(images, texts, scale).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("start", [math.log(1 / 0.07), math.log(100), 4.6052])  # CLIP's, its limit, OpenAI's weights'
def test_the_temperature_has_a_gradient_wherever_training_starts(start: float) -> None:
    images = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    scale = torch.nn.Parameter(torch.tensor(start))
    contrastive_loss(images, images.flip(0), scale).backward()
    assert scale.grad is not None
    assert scale.grad.abs() > 1e-3


def test_pairs_with_the_same_text_are_no_negatives() -> None:
    images = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    texts = images[[0, 0, 2]]
    comparable = torch.tensor([[True, False, True], [False, True, True], [True, True, True]])
    scale = torch.tensor(2.0)
    logits = scale.exp() * images @ texts.T
    by_hand = []
    for matrix in (logits, logits.T):
        by_hand += [
            torch.logsumexp(matrix[0, [0, 2]], 0) - matrix[0, 0],
            torch.logsumexp(matrix[1, [1, 2]], 0) - matrix[1, 1],
            torch.logsumexp(matrix[2], 0) - matrix[2, 2],
        ]
    expected = torch.stack(by_hand).sum() / 6
    torch.testing.assert_close(contrastive_loss(images, texts, scale, comparable), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_contrastive_loss_does_not_depend_on_the_order_of_pairs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.nn.functional.normalize(torch.randn(5, 3, generator=generator), dim=1)
    b = torch.nn.functional.normalize(torch.randn(5, 3, generator=generator), dim=1)
    order = torch.randperm(5, generator=generator)
    scale = torch.tensor(1.0)
    torch.testing.assert_close(contrastive_loss(a, b, scale), contrastive_loss(a[order], b[order], scale))


def test_report_loss_ignores_padding() -> None:
    logits = torch.zeros(1, 3, 7)
    logits[0, 2] = torch.randn(7) * 9  # a padded place
    loss = report_loss(DecoderOutput(logits), torch.tensor([[1, 5, 3, 0]]), stop_weight=5.0)
    assert loss["loss"].item() == pytest.approx(math.log(7), abs=1e-5)


def test_an_unknown_word_is_no_target_but_is_read() -> None:
    logits = torch.zeros(1, 3, 7)
    logits[0, 1] = torch.randn(7) * 9  # where the next word is unknown
    loss = report_loss(DecoderOutput(logits), torch.tensor([[1, 5, UNKNOWN, 6]]), stop_weight=5.0)
    assert loss["loss"].item() == pytest.approx(math.log(7), abs=1e-5)
    counted: list[int] = []

    def weigh(count: torch.Tensor) -> float:
        counted.append(int(count))
        return 1.0

    report_loss(DecoderOutput(logits), torch.tensor([[1, 5, UNKNOWN, 6]]), 5.0, weigh)
    assert counted == [2]  # processes that train together weigh their means by what counts


def test_stop_loss_is_weighted_and_the_end_is_no_word() -> None:
    logits = torch.zeros(1, 3, 7)
    logits[0, 2, 3] = -50.0  # the end is not predicted as a word, and must not be punished
    stop = torch.tensor([[-2.0, 2.0]])
    output = DecoderOutput(logits, stop_logits=stop, stop_targets=torch.tensor([[0.0, 1.0]]))
    losses = report_loss(output, torch.tensor([[1, 5, 4, 3]]), stop_weight=5.0)
    assert losses["words"].item() == pytest.approx(math.log(7), abs=1e-5)
    assert losses["stop"].item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-5)
    assert losses["loss"].item() == pytest.approx(float(losses["words"] + 5 * losses["stop"]), abs=1e-5)
