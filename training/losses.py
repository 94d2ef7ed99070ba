"""The losses of all training stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.decoders.base import DecoderOutput
from core.text import END, PAD, UNKNOWN


class AUCMarginLoss(nn.Module):
    """The AUC margin loss of deep AUC maximisation, one (a, b, alpha) a class (Yuan et al. 2021, arXiv:2012.03173).

    A min-max problem: the network, a and b descend, alpha ascends. Its gradient is reversed here, so that any
    optimiser can run it; call :meth:`project` after each step. Positive rates are those of the data set: estimated
    in a batch, a class without a positive would have exactly no loss and no gradient (paper-notes 4.3).
    """

    positive_rate: Tensor

    def __init__(self, positive_rate: Tensor, margin: float = 1.0) -> None:
        """Build for classes with ``positive_rate`` (K,), each in (0, 1)."""
        super().__init__()
        self.register_buffer("positive_rate", positive_rate.clone())
        self.margin = margin
        self.a = nn.Parameter(torch.zeros_like(positive_rate))
        self.b = nn.Parameter(torch.zeros_like(positive_rate))
        self.alpha = nn.Parameter(torch.zeros_like(positive_rate))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over classes of the loss of logits (B, K) and targets (B, K) in {0, 1}. It may be negative."""
        score, p = torch.sigmoid(logits), self.positive_rate
        positive, negative = targets, 1 - targets
        alpha = 2 * self.alpha.detach() - self.alpha  # same value, gradient reversed: descent becomes ascent
        squares = (1 - p) * (score - self.a).square() * positive + p * (score - self.b).square() * negative
        gap = p * score * negative - (1 - p) * score * positive
        loss = squares.mean(0) + 2 * alpha * (p * (1 - p) * self.margin + gap.mean(0)) - p * (1 - p) * alpha.square()
        return loss.mean()

    @torch.no_grad()
    def start_from(self, scores: Tensor, targets: Tensor) -> None:
        """Set a, b and alpha to their optimum for scores (B, K) in [0, 1] and targets (B, K).

        For a fixed network the optimum is closed: the mean score of the positives, of the negatives, and
        margin + b - a. From zero, as they begin otherwise, a network that warmed up on another loss would first be
        pulled to score all at 0. Classes without both kinds keep their values.
        """
        positives, negatives = targets.sum(0), (1 - targets).sum(0)
        both = (positives > 0) & (negatives > 0)
        a = (scores * targets).sum(0) / positives.clamp(min=1)
        b = (scores * (1 - targets)).sum(0) / negatives.clamp(min=1)
        self.a.copy_(torch.where(both, a, self.a))
        self.b.copy_(torch.where(both, b, self.b))
        self.alpha.copy_(torch.where(both, self.margin + b - a, self.alpha))
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Keep alpha at 0 or above."""
        self.alpha.clamp_(min=0.0)


def contrastive_loss(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    comparable: Tensor | None = None,
    more: Sequence[tuple[Tensor, Tensor]] = (),
) -> Tensor:
    """Symmetric cross-entropy over the similarities in a batch (Radford et al. 2021, Fig. 3).

    Args:
        images: (B, D), L2-normalised.
        texts: (B, D), L2-normalised; row i belongs to image i.
        logit_scale: natural log of the factor; whoever trains it keeps it in its range after each step, as CLIP does:
            clamped here it would have no gradient at ln 100, where OpenAI's weights start.
        comparable: (B, B), True where text j may count as a negative of image i; the diagonal always counts.
        more: images without a text of their own (N, D), L2-normalised, and (B, N), True where image j is a negative of
            text i.
    """
    scale = logit_scale.exp()
    logits = scale * images @ texts.T
    if comparable is not None:
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(~(comparable | own), -math.inf)
    target = torch.arange(len(logits), device=logits.device)
    by_text = [logits.T, *((scale * texts @ extra.T).masked_fill(~wrong, -math.inf) for extra, wrong in more)]
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(torch.cat(by_text, 1), target)) / 2


def report_loss(
    output: DecoderOutput, ids: Tensor, stop_weight: float, weigh: Callable[[Tensor], Tensor | float] = lambda _: 1.0
) -> dict[str, Tensor]:
    """Cross-entropy of the next word, and of the stop decision where a decoder plans sentences.

    UNKNOWN as a next word does not count: no search writes it.

    Args:
        output: of teacher forcing on ids[:, :-1]; in whatever precision, the loss is in fp32.
        ids: (B, T), START first, END, then PAD.
        stop_weight: of the stop decision (5.0 in the published code, paper-notes 3.3).
        weigh: given the number of words, a factor of their mean (`core.ranks.weight`).

    Returns:
        "loss" to minimise, and its parts "words" and "stop".
    """
    targets = ids[:, 1:]
    targets = targets.masked_fill(targets == UNKNOWN, PAD)  # it is read, but never written
    if output.stop_logits is None or output.stop_targets is None:
        words = _word_loss(output.logits, targets) * weigh((targets != PAD).sum())
        return {"loss": words, "words": words}
    targets = targets.masked_fill(targets == END, PAD)  # ending is the planner's decision, not a word
    words = _word_loss(output.logits, targets) * weigh((targets != PAD).sum())
    stop = functional.binary_cross_entropy_with_logits(output.stop_logits.float(), output.stop_targets)
    return {"loss": words + stop_weight * stop, "words": words, "stop": stop}


def _word_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=PAD)
