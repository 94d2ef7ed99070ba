"""The optimisers and the schedule that all modules share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from core.settings import StepConfig
from training.losses import AUCMarginLoss


class SharpnessAwareAdam(Adam):
    """Adam with the gradient of the worst point nearby (SAM, Foret et al. 2021, arXiv:2010.01412, algorithm 1).

    Each step runs the closure twice: at the weights, and at the weights plus rho times the gradient over its norm;
    the second gradient is applied at the first place. Both passes see the same random numbers, so it is one function
    whose sharpness counts, and batch norms learn their statistics from the first pass only.
    """

    def __init__(self, groups: Any, *, rho: float, network: nn.Module, **settings: Any) -> None:
        """Optimise ``groups``, with radius ``rho``; ``network`` has the batch norms to keep still."""
        super().__init__(groups, **settings)
        self.rho = rho
        self.network = network

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; ``closure`` clears gradients, computes the loss and its gradients, and returns the loss.

        Raises:
            ValueError: there is no closure.
        """
        if closure is None:
            raise ValueError("SAM computes the loss twice a step and needs a closure.")
        with _drawn_again(self.param_groups), torch.enable_grad():
            loss = closure()
        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in moved if p.grad is not None]).norm()
        before = [p.detach().clone() for p in moved]
        for p in moved:
            p.add_(p.grad, alpha=self.rho / (float(norm) + 1e-12))  # type: ignore[arg-type]
        momenta = _still_batch_norms(self.network)
        with torch.enable_grad():
            closure()
        for norm_layer, momentum in momenta:
            norm_layer.momentum = momentum
        for p, value in zip(moved, before, strict=True):
            p.copy_(value)  # not subtracted: the very same weights
        super().step()
        return loss


def _drawn_again(groups: Iterable[dict[str, Any]]) -> AbstractContextManager[None]:
    """Whatever is drawn at random inside, on the CPU or where the weights are, is drawn once more by what follows."""
    devices = {p.device for group in groups for p in group["params"] if p.device.type != "cpu"}
    if not devices:
        return torch.random.fork_rng(devices=[])
    kinds = {device.type for device in devices}
    return torch.random.fork_rng(devices=[device.index for device in devices], device_type=kinds.pop())


def _still_batch_norms(network: nn.Module) -> list[tuple[Any, float | None]]:
    """Momentum 0 for all batch norms; returns them with what they had."""
    norms = [each for each in network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    had = [(each, each.momentum) for each in norms]
    for each in norms:
        each.momentum = 0.0
    return had


class PESG(Adam):
    """Adam until :meth:`begin`, then the proximal epoch stochastic gradient method of deep AUC maximisation.

    The network, a and b descend along their gradient, each element clipped to [-1, 1], plus a pull towards the
    ``reference`` (the mean of the iterates of the stage before; at first the weights as the warm-up left them) and
    weight decay. Then alpha ascends by its closed form, margin + b - a less alpha, and stays at 0 or above. Formulas:
    Yuan et al. 2021, arXiv:2012.03173, and LibAUC's PESG (paper-notes 4.3). LibAUC draws its first reference at random.
    """

    def __init__(
        self,
        groups: Any,
        *,
        criterion: AUCMarginLoss,
        rate: float,
        epoch_decay: float,
        momentum: float = 0.0,
        pesg_weight_decay: float = 1e-5,
        **settings: Any,
    ) -> None:
        """Optimise ``groups``, which hold the network and the ``criterion``'s a, b and alpha; ``settings`` are Adam's.

        Args:
            groups: of Adam.
            criterion: whose alpha ascends.
            rate: learning rate after :meth:`begin`.
            epoch_decay: strength of the pull.
            momentum: weight of a step's own direction in the mean that is gone; the mean of those before has the rest.
                0 goes along each step's own. src: LibAUC 2.0, whose 0.9 weighs the new one with 0.9.
            pesg_weight_decay: coupled, as LibAUC's. src: its recipe for CheXpert.
            settings: of Adam, for the warm-up.
        """
        super().__init__(groups, **settings)
        self.criterion = criterion
        # In a group, so that a checkpoint has it.
        self.param_groups[0]["pesg"] = {"begun": False, "rate": rate, "count": 0}
        self.epoch_decay = epoch_decay
        self.momentum = momentum
        self.pesg_weight_decay = pesg_weight_decay

    @property
    def _mine(self) -> dict[str, Any]:
        own: dict[str, Any] = self.param_groups[0]["pesg"]
        return own

    @property
    def begun(self) -> bool:
        """Whether the warm-up is over; from then on it clips gradients by itself, element by element."""
        return bool(self._mine["begun"])

    def begin(self) -> None:
        """End the warm-up."""
        self._mine["begun"] = True
        self.state.clear()
        for p in self._descending():
            # Adam looks for "step" when a state is loaded.
            self.state[p] = {"step": torch.zeros(()), "reference": p.detach().clone(), "sum": torch.zeros_like(p)}
        self._mine["count"] = 0

    def next_stage(self, divide: float = 10.0) -> None:
        """Make the mean of the iterates since the last stage the new reference, and divide the rate (LibAUC: by 10)."""
        for p in self._descending() if self._mine["count"] else ():
            state = self.state[p]
            state["reference"] = state["sum"] / self._mine["count"]
            state["sum"] = torch.zeros_like(p)
        self._mine["count"] = 0
        self._mine["rate"] /= divide

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step."""
        if not self._mine["begun"]:
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rate, loss_of = self._mine["rate"], self.criterion
        for p in self._descending():
            if p.grad is None:
                continue
            state = self.state[p]
            pull = self.epoch_decay * (p - state["reference"]) + self.pesg_weight_decay * p
            way = p.grad.clamp(-1, 1) + pull
            if self.momentum and "way" in state:
                way = (1 - self.momentum) * state["way"] + self.momentum * way
            if self.momentum:
                state["way"] = way
            p.sub_(way, alpha=rate)
            state["sum"] += p
        ascent = 2 * (loss_of.margin + loss_of.b - loss_of.a - loss_of.alpha)  # of a and b as they are now
        loss_of.alpha.add_(ascent, alpha=rate)
        loss_of.project()
        self._mine["count"] += 1
        return loss

    def _descending(self) -> Sequence[nn.Parameter]:
        return [p for group in self.param_groups for p in group["params"] if p is not self.criterion.alpha]


def adam(
    groups: Iterable[tuple[nn.Module | nn.Parameter, float]],
    settings: StepConfig,
    trainer: Any,
    kind: Callable[..., Adam] = Adam,
) -> dict[str, Any]:
    """Adam with its schedule, as Lightning wants it.

    Args:
        groups: modules or parameters, each with its own highest learning rate.
        settings: of the stage.
        trainer: knows how many optimiser steps and epochs there are.
        kind: Adam, or what builds an optimiser from it.
    """
    by_decay: list[dict[str, Any]] = []
    for part, rate in groups:
        parameters = [part] if isinstance(part, nn.Parameter) else [p for p in part.parameters() if p.requires_grad]
        for decay, chosen in (
            (settings.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            if chosen:
                by_decay.append({"params": chosen, "lr": rate, "weight_decay": decay})
    betas, decoupled = (settings.beta_1, settings.beta_2), settings.decay == "decoupled"
    optimizer = kind(by_decay, betas=betas, eps=settings.eps, decoupled_weight_decay=decoupled)
    schedule = LambdaLR(optimizer, _rate(settings, trainer))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _rate(settings: StepConfig, trainer: Any) -> Callable[[int], float]:
    """Share of the highest learning rate at a step."""
    total = int(trainer.estimated_stepping_batches)
    warmup = max(1, round(settings.warmup_share * total))
    every = 0.0 if settings.schedule != "steps" else settings.step_epochs * total / trainer.max_epochs

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if settings.schedule == "constant":
            return 1.0
        if settings.schedule == "steps":
            return float(settings.step_factor ** int(step / every))
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))

    return share


def freeze_batch_norms(module: nn.Module) -> None:
    """Keep the statistics of batch norms as they are while the rest trains; call after each ``train()``."""
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            each.eval()
