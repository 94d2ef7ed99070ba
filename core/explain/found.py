"""What a pair found before it wrote: where it was found, as a target, and what the words of its report owe to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.decoders.findings import found_observations
from core.explain.subject import Subject
from core.explain.targets import FeatureMap, WordTarget, token_maps, tokens_of_maps
from core.observations import OBSERVATIONS
from core.types import CXRLensError


@dataclass(frozen=True, slots=True)
class FoundTarget:
    """The logit of an observation that a pair finds first (`core.decoders.findings`); found where it is not below 0.

    It is the mean of what each token adds, so Grad-CAM of it is exact: the parts of the cells, without the bias.

    Attributes:
        observation: one of the 14.
    """

    observation: str

    @property
    def name(self) -> str:
        """For the reader."""
        return f"found first: {self.observation}"

    def of_images(self, subject: Subject, images: Tensor) -> Tensor:
        """See ``Target``."""
        return self.of_tokens(subject, subject.model.encoder(images).tokens)

    def of_tokens(self, subject: Subject, tokens: Tensor) -> Tensor:
        """See ``Target``."""
        head = subject.model.decoder.findings
        assert head is not None, "only `found` makes such a target"
        return head.logits(tokens)[:, OBSERVATIONS.index(self.observation)]

    def maps(self, subject: Subject) -> list[FeatureMap]:
        """The grids of tokens that are read; none with CCVE."""
        return token_maps(subject)

    def of_maps(self, subject: Subject, maps: Sequence[Tensor]) -> Tensor:
        """See ``Target``; tokens that are no cells stay as they are."""
        return self.of_tokens(subject, tokens_of_maps(subject, maps))

    def unit(self, scores: Tensor) -> Tensor:
        """The sigmoid of the logit: 0.5 where an observation is just found, no probability."""
        return scores.sigmoid()


def found(subject: Subject, observation: str) -> FoundTarget:
    """An observation that the pair finds before it writes.

    Raises:
        CXRLensError: the pair finds none first, or never this one: too few of its training studies had it.
    """
    head, name = subject.model.decoder.findings, subject.model.card.name
    if head is None:
        raise CXRLensError(f"{name} decides on no findings before it writes. Ask for a sentence instead.")
    if observation not in head.known():
        raise CXRLensError(f"{name} never finds {observation} first. It knows: {', '.join(head.known())}.")
    return FoundTarget(observation)


def without_each_found(subject: Subject, target: WordTarget) -> Mapping[str, float] | None:
    """How the words would fare, had the pair not found one observation, the others as they were.

    Nothing else changes: the decoder still reads the image's tokens.

    Returns:
        By observation that was found: the change of the target's log-likelihood, natural log, below 0 where the words
        depend on it. None for a pair that reads no findings first.
    """
    head = subject.model.decoder.findings
    if head is None:
        return None
    with torch.no_grad():
        found = head.found(subject.visual)
        before = float(target.of_tokens(subject, subject.visual.tokens))
        changes = {}
        for name in found_observations(found[0]):
            less = found.clone()
            less[:, OBSERVATIONS.index(name)] = 0
            changed = replace(subject, visual=replace(subject.visual, findings=less))
            changes[name] = float(target.of_tokens(changed, subject.visual.tokens)) - before
    return changes
