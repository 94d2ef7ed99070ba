"""Sentences with their truth, and the labels that follow from it: no labeler is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.observations import CLUSTER_OF, CLUSTERS, NO_FINDING, OBSERVATIONS, LabelState, no_finding_state

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN

Claim = tuple[str, LabelState]


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence and its truth.

    Attributes:
        section: "findings" or "impression".
        text: the sentence.
        claims: (observation, state) for each observation it speaks of; none for normal anatomy.
        facts: ids of the abnormalities it describes.
        modifiers: (observation, word) for each severity, side or site it names of a positive observation.
    """

    section: str
    text: str
    claims: tuple[Claim, ...]
    facts: tuple[str, ...] = ()
    modifiers: tuple[tuple[str, str], ...] = ()


def labels_of(statements: Sequence[Statement]) -> dict[str, LabelState]:
    """Gather what the sentences claim: positive wins over uncertain, uncertain over negative."""
    rank = {LabelState.BLANK: 0, NEGATIVE: 1, UNCERTAIN: 2, POSITIVE: 3}
    states = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    for statement in statements:
        for name, state in statement.claims:
            if rank[state] > rank[states[name]]:
                states[name] = state
    states[NO_FINDING] = no_finding_state(states)
    return states


def fine_labels_of(statements: Sequence[Statement]) -> tuple[str, ...]:
    """List "modifier observation" of what the sentences call present; the bare observation where none is named."""
    modified = {f"{word} {name}".lower() for s in statements for name, word in s.modifiers}
    with_modifier = {name for s in statements for name, _ in s.modifiers}
    bare = {
        name.lower()
        for s in statements
        for name, state in s.claims
        if state is POSITIVE and name not in with_modifier and name != NO_FINDING
    }
    return tuple(sorted(modified | bare))


def cluster_texts_of(statements: Sequence[Statement]) -> Mapping[str, str]:
    """Sort an impression's sentences into clusters; a sentence about several belongs to each."""
    texts: dict[str, list[str]] = {}
    for statement in statements:
        for cluster in dict.fromkeys(CLUSTER_OF[name] for name, _ in statement.claims):
            texts.setdefault(cluster, []).append(statement.text)
    return {cluster: " ".join(texts[cluster]) for cluster in CLUSTERS if cluster in texts}
