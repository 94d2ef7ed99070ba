"""What words owe to the findings that a pair read first: a subject and a target in, changes of the likelihood out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from core.bundles.pair import found_observations
from core.explain.subject import Subject
from core.explain.targets import WordTarget
from core.observations import OBSERVATIONS


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
