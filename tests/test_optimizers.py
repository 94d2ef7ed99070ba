"""SAM and PESG against steps worked by hand, and the trainings that use them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Adam

from core.config import ClassifierConfig, identity, load_config
from core.encoders.base import Normalize
from core.encoders.classifier import ImageClassifier
from training.fit import fit
from training.loaders import ClassAwareSampler, loaders
from training.losses import AUCMarginLoss
from training.modules.classifier import ClassifierModule, class_aucs
from training.modules.optimizers import PESG, SharpnessAwareAdam
from training.options import PRESETS

pytestmark = pytest.mark.numeric

# --- SAM ---


def test_sam_applies_the_gradient_of_the_worst_point_nearby() -> None:
    """f(w) = w0^2 + 2 w1^2 at (3, 2): gradient (6, 8), norm 10; rho 0.5 leads to (3.3, 2.4), gradient (6.6, 9.6)."""
    w = nn.Parameter(torch.tensor([3.0, 2.0]))
    seen = []
    optimizer = SharpnessAwareAdam([w], rho=0.5, network=nn.Identity(), lr=0.1, eps=0.0, weight_decay=0.0)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = w[0] ** 2 + 2 * w[1] ** 2
        loss.backward()
        seen.append(w.detach().clone())
        return loss

    assert optimizer.step(closure).item() == 17.0  # the loss at the weights, not at the neighbour
    torch.testing.assert_close(seen[1], torch.tensor([3.3, 2.4]))
    torch.testing.assert_close(w.grad, torch.tensor([6.6, 9.6]))
    torch.testing.assert_close(w.detach(), torch.tensor([2.9, 1.9]))  # Adam's first step: lr against the sign
    torch.testing.assert_close(optimizer.state[w]["exp_avg"], torch.tensor([0.66, 0.96]))


def test_sam_sees_the_same_dropout_twice_and_keeps_batch_norms_still() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    masks: list[torch.Tensor] = []
    means: list[torch.Tensor] = []
    optimizer = SharpnessAwareAdam(network.parameters(), rho=0.05, network=network, lr=0.01)
    x = torch.randn(16, 4)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        out = network(x)
        masks.append(out == 0)
        means.append(network[1].running_mean.clone())
        loss = out.square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(means[0], means[1])
    assert means[0].abs().sum() > 0
    assert network[1].momentum == 0.1
    with pytest.raises(ValueError, match="closure"):
        optimizer.step()


class OnGPU(nn.Parameter):
    """A weight that says that it lies on the second GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 1)


def test_sam_sees_the_same_dropout_twice_where_a_gpu_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU draws from a generator of its own, which the fake here stands for."""
    of_gpu = {1: torch.Generator().manual_seed(3)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: of_gpu[device].get_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: of_gpu[device].set_state(state))
    w = OnGPU(torch.tensor([3.0, 2.0]))
    drawn: list[torch.Tensor] = []
    optimizer = SharpnessAwareAdam([w], rho=0.5, network=nn.Identity(), lr=0.1, foreach=False)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        drawn.append(torch.cat([torch.rand(3, generator=of_gpu[1]), torch.rand(3)]))
        loss = (w * drawn[-1][:2]).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.step(closure)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[2], drawn[3])
    assert not torch.equal(drawn[0][:3], drawn[2][:3])  # the next step's numbers are others, here as there
    assert not torch.equal(drawn[0][3:], drawn[2][3:])


# --- PESG ---


def pesg(momentum: float = 0.0) -> tuple[nn.Parameter, AUCMarginLoss, PESG]:
    w = nn.Parameter(torch.tensor([1.0, -2.0]))
    loss = AUCMarginLoss(torch.tensor([0.25]))
    with torch.no_grad():
        loss.a.fill_(0.6)
        loss.b.fill_(0.2)
        loss.alpha.fill_(0.1)
    groups = [{"params": [w]}, {"params": list(loss.parameters())}]
    settings = {"momentum": momentum, "pesg_weight_decay": 0.01, "lr": 0.01}
    return w, loss, PESG(groups, criterion=loss, rate=0.1, epoch_decay=0.5, **settings)  # type: ignore[arg-type]


def test_pesg_step_by_hand() -> None:
    w, loss, optimizer = pesg()
    optimizer.begin()
    w.grad, loss.a.grad, loss.b.grad = torch.tensor([3.0, 0.5]), torch.tensor([0.2]), torch.tensor([-0.4])
    loss.alpha.grad = torch.tensor([99.0])  # not used: alpha has its closed form
    optimizer.step()
    # 1 - 0.1 * (1 + 0.5 * 0 + 0.01 * 1) and -2 - 0.1 * (0.5 + 0.01 * -2)
    torch.testing.assert_close(w.detach(), torch.tensor([0.899, -2.048]))
    torch.testing.assert_close(loss.a.detach(), torch.tensor([0.6 - 0.1 * (0.2 + 0.006)]))
    torch.testing.assert_close(loss.b.detach(), torch.tensor([0.2 - 0.1 * (-0.4 + 0.002)]))
    # from a and b as they are after their step
    ascent = 2 * (1 + loss.b.item() - loss.a.item() - 0.1)
    torch.testing.assert_close(loss.alpha.detach(), torch.tensor([0.1 + 0.1 * ascent]))
    w.grad.zero_()
    optimizer.step()  # now the reference pulls back: 0.899 - 0.1 * (0.5 * (0.899 - 1) + 0.01 * 0.899)
    assert w[0].item() == pytest.approx(0.899 - 0.1 * (0.5 * -0.101 + 0.00899), abs=1e-6)


def test_pesgs_next_stage_refers_to_the_mean_of_its_iterates_with_a_tenth_of_the_rate() -> None:
    w, loss, optimizer = pesg()
    optimizer.begin()
    iterates = []
    for gradient in (1.0, -0.5):
        w.grad, loss.a.grad, loss.b.grad = torch.full((2,), gradient), torch.zeros(1), torch.zeros(1)
        optimizer.step()
        iterates.append(w.detach().clone())
    optimizer.next_stage()
    mean = (iterates[0] + iterates[1]) / 2
    torch.testing.assert_close(optimizer.state[w]["reference"], mean)
    before = w.detach().clone()
    w.grad = torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(w.detach(), before - 0.01 * (0.5 * (before - mean) + 0.01 * before))


def test_pesgs_alpha_stays_at_zero_or_above() -> None:
    w, loss, optimizer = pesg()
    optimizer.begin()
    with torch.no_grad():
        loss.a.fill_(5.0)
    w.grad, loss.a.grad, loss.b.grad = torch.zeros(2), torch.zeros(1), torch.zeros(1)
    optimizer.step()
    assert loss.alpha.item() == 0.0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_pesg_moves_as_libauc_publishes_it(momentum: float) -> None:
    """LibAUC 2.0's rule, written out from its source: w, a and b first, then alpha from the new a and b."""
    network, optimized = nn.Linear(3, 2), nn.Linear(3, 2)
    optimized.load_state_dict(network.state_dict())
    peer, loss = AUCMarginLoss(torch.tensor([0.3, 0.6])), AUCMarginLoss(torch.tensor([0.3, 0.6]))
    groups = [{"params": list(optimized.parameters())}, {"params": list(loss.parameters())}]
    optimizer = PESG(groups, criterion=loss, rate=0.1, epoch_decay=0.002, momentum=momentum)
    optimizer.begin()
    moving = [*network.parameters(), peer.a, peer.b]
    references, buffers = [p.detach().clone() for p in moving], [torch.zeros_like(p) for p in moving]
    torch.manual_seed(0)
    for step in range(12):
        x, y = torch.randn(16, 3) * 20, (torch.rand(16, 2) < 0.4).float()  # gradients beyond 1, too
        for p in (*moving, peer.alpha):
            p.grad = None
        peer(network(x), y).backward()
        with torch.no_grad():
            for index, (p, reference) in enumerate(zip(moving, references, strict=True)):
                way = p.grad.clamp(-1, 1) + 0.002 * (p - reference) + 1e-5 * p
                if momentum and step:
                    way = buffers[index].mul_(1 - momentum).add_(way, alpha=momentum)
                buffers[index] = way.clone()
                p.sub_(0.1 * way)
            peer.alpha.add_(0.1 * (2 * (1 + peer.b - peer.a) - 2 * peer.alpha)).clamp_(0, 999)
        optimizer.zero_grad()
        loss(optimized(x), y).backward()
        optimizer.step()
    found = [*optimized.parameters(), loss.a, loss.b, loss.alpha]
    for ours, theirs in zip(found, (*moving, peer.alpha), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    assert loss.alpha.min() > 0  # it has moved, so that the order of the updates shows


def test_before_it_begins_pesg_is_adam() -> None:
    w, _, optimizer = pesg()
    other = nn.Parameter(w.detach().clone())
    peer = Adam([other], lr=0.01)
    for gradient in ([0.3, -1.0], [2.0, 0.1]):
        w.grad, other.grad = torch.tensor(gradient), torch.tensor(gradient)
        optimizer.step()
        peer.step()
    assert torch.equal(w.detach(), other.detach())


# --- sampling and what is watched ---


def test_class_aware_sampling_gives_rare_classes_their_turn() -> None:
    targets = torch.zeros(400, 3)
    targets[:200, 0] = 1
    targets[7, 1] = 1  # one positive in 400; class 2 has none
    sampler = ClassAwareSampler(targets, seed=3)
    order = list(sampler)
    assert len(order) == 400
    assert order.count(7) >= 100  # every second place, every second turn
    assert sorted(order[::2]) == sorted(set(order[::2]))  # the other half: each study once at most
    assert order == list(ClassAwareSampler(targets, seed=3))
    sampler.set_epoch(1)
    assert order != list(sampler)


def test_the_mean_auc_leaves_out_classes_of_one_kind() -> None:
    targets = np.array([[0, 0, 1], [1, 0, 1], [0, 0, 1], [1, 0, 1]])
    scores = np.array([[0.1, 0.5, 0.5], [0.9, 0.1, 0.2], [0.4, 0.3, 0.1], [0.3, 0.2, 0.9]])
    assert class_aucs(targets, scores) == {0: 0.75}


def test_options_that_came_later_leave_earlier_keys_as_they_were() -> None:
    phantom = load_config(PRESETS, "phantom")
    config = phantom.classifier
    first = {"epochs", "batch_size", "learning_rate", "weight_decay", "warmup_epochs", "margin", "patience", "augment"}
    assert set(identity(config)) == first
    first = {"epochs", "epochs_direct", "batch_size", "learning_rate", "image_learning_rate", "weight_decay"}
    assert set(identity(phantom.report)) == first | {"stop_weight", "patience", "augment", "abnormal_first"}
    changed = load_config(PRESETS, "phantom", ["classifier.margin=0.5"]).classifier
    assert identity(changed) != identity(config)


# --- trainings ---


class StoppedError(Exception):
    pass


EPOCHS = 8  # by then the two classes are told apart on any processor, whatever its kernels round


class Stopping(ClassifierModule):
    stop_at: int | None = None

    def training_step(self, batch: dict[str, torch.Tensor], batch_index: int) -> torch.Tensor:
        if self.current_epoch == self.stop_at:
            raise StoppedError
        return super().training_step(batch, batch_index)


def train(folder: Path, optimizer: str, stop_at: int | None = None) -> ClassifierModule:
    """A small classifier of bright and dark halves; class 1 is rare."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(48, 1, 32, 32, generator=random) * 0.3
    targets = torch.zeros(48, 2)
    targets[::2, 0] = 1
    targets[::8, 1] = 1
    images[:, :, :16] += targets[:, 0].view(-1, 1, 1, 1) * 0.4
    images[:, :, 16:] += targets[:, 1].view(-1, 1, 1, 1) * 0.4
    torch.manual_seed(1)
    arguments = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}
    network = ImageClassifier("resnet18", 2, pretrained=None, backbone_args=arguments)
    config = ClassifierConfig(
        epochs=EPOCHS, batch_size=8, learning_rate=0.01, weight_decay=0.01, warmup_epochs=1, margin=1.0, patience=9,
        augment=False, optimizer=optimizer,  # type: ignore[arg-type]
    )  # fmt: skip
    module = Stopping(Normalize(32, (0.5,) * 3, (0.5,) * 3), network, targets.mean(0), config)
    module.stop_at = stop_at
    collate = lambda places: {"images": images[places], "targets": targets[places]}  # noqa: E731
    data = loaders((48, 48), (collate, collate), 8, 0, positives=targets)
    fit(folder, module, data, epochs=EPOCHS, monitor="val_auc", mode="max", patience=9, seed=0)
    return module


def test_gradients_are_cut_as_a_whole_until_pesg_clips_each_element(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LibAUC clips elements to 1 and nothing else: cut before, a few large ones would shrink all others."""
    cut: dict[str, set[int]] = {"adamw": set(), "pesg": set()}
    whole = ClassifierModule.clip_gradients
    for optimizer, epochs in cut.items():

        def note(module: ClassifierModule, *given: Any, epochs: set[int] = epochs, **named: Any) -> None:
            epochs.add(module.current_epoch)
            whole(module, *given, **named)

        monkeypatch.setattr(ClassifierModule, "clip_gradients", note)
        train(tmp_path / optimizer, optimizer)
    assert cut == {"adamw": set(range(EPOCHS)), "pesg": {0}}  # the first epoch is the warm-up


@pytest.mark.parametrize("optimizer", ["sam", "pesg"])
def test_a_classifier_learns_and_resumes_with(optimizer: str, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", optimizer)
    best = json.loads((tmp_path / "whole" / "summary.json").read_text())["best"]
    assert best > 0.9
    with pytest.raises(StoppedError):
        train(tmp_path / "cut", optimizer, stop_at=2)
    resumed = train(tmp_path / "cut", optimizer)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
        assert not value.is_floating_point() or math.isfinite(float(value.sum()))
