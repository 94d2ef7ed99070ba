"""Findings with their place on real films: which there are, which are asked, where they usually lie."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from core.explain.sentences import side_of
from core.observations import NO_FINDING, SUPPORT_DEVICES
from core.studies.source import Source, TrueFinding
from core.studies.sources import open_source
from core.types import FloatImage, Mask, Split
from training.run_folder import StageError

USUAL_SIDE = 96
"""Side at which boxes of other films are averaged, pixels; ours."""

NOT_ASKED = (NO_FINDING, SUPPORT_DEVICES)
"""What is no finding with a place of its own."""

SIZES = ((0.02, "under 2 % of the film"), (0.08, "2 to 8 %"), (1.01, "over 8 %"))
"""Shares of the film by which boxes are told apart; ours, about thirds of ChestX-ray14's."""


@dataclass(frozen=True, slots=True)
class Place:
    """A finding with its place on a film.

    Attributes:
        study_id: of the film.
        patient: whose it is.
        finding: as the source names it.
        observations: those of the 14 that it counts for, the nearest first.
        side: the patient's, or "".
        mask: (USUAL_SIDE, USUAL_SIDE) over the film, whatever its shape.
    """

    study_id: str
    patient: str
    finding: str
    observations: tuple[str, ...]
    side: str
    mask: Mask


@lru_cache(maxsize=2)
def opened(source_key: str) -> Source:
    """A source, opened once a process."""
    return open_source(source_key)


@lru_cache(maxsize=2)
def places(source_key: str, splits: tuple[Split, ...]) -> tuple[Place, ...]:
    """All findings of a source that have a place and one of the 14 observations.

    Raises:
        StageError: there is none; the message says what there is instead.
    """
    source = opened(source_key)
    if not source.truth:
        raise StageError(
            f"{source.title} has no boxes and no masks, so no map can be scored on it. Index boxes with "
            "'cxr-lens data table --boxes', or take --films example."
        )
    found: list[Place] = []
    others = Counter[str]()
    for split in splits:
        for study_id in source.ids(split):
            for each in _by_name(source.masks(study_id, (USUAL_SIDE, USUAL_SIDE))):
                observations = asked_for(each)
                if not observations:
                    others[each.name] += 1
                    continue
                _refuse_outside(source, study_id, each)
                patient = source.study(study_id).subject_id
                found.append(Place(study_id, patient, each.name, observations, side_of(each.mask), each.mask))
    if not found:
        named = f" It has places of {', '.join(others)}, which are none of them." if others else ""
        raise StageError(f"{source.title} has no place of any of the 14 observations.{named}")
    return tuple(found)


def _by_name(found: Sequence[TrueFinding]) -> list[TrueFinding]:
    """Findings of one name on a film as one place: they are asked for by one sentence."""
    joined: dict[str, TrueFinding] = {}
    for each in found:
        before = joined.get(each.name)
        joined[each.name] = replace(each, mask=before.mask | each.mask) if before else each
    return list(joined.values())


def asked_for(finding: TrueFinding) -> tuple[str, ...]:
    """The observations, of those that a finding counts for, about which a sentence can be asked."""
    return tuple(name for name in finding.observations if name not in NOT_ASKED)


def _refuse_outside(source: Source, study_id: str, finding: TrueFinding) -> None:
    if not finding.mask.any():
        raise StageError(
            f"The place of {finding.name} lies outside the film of study {study_id} of {source.title}. Mend its box or "
            "take it out."
        )


def choose_films(found: Sequence[Place], count: int, seed: int) -> tuple[str, ...]:
    """Films, drawn so that each finding comes about equally often; all for 0.

    Raises:
        StageError: there are fewer.
    """
    ids = list(dict.fromkeys(place.study_id for place in found))
    if count == 0:
        return tuple(ids)
    if count > len(ids):
        raise StageError(f"There are {len(ids)} films with a box, {count} were asked for.")
    by_finding: dict[str, list[str]] = defaultdict(list)
    for place in found:
        by_finding[place.finding].append(place.study_id)
    generator = np.random.default_rng(seed)
    queues = [generator.permutation(by_finding[finding]).tolist() for finding in sorted(by_finding)]
    chosen: dict[str, None] = {}
    for turn in range(len(ids)):  # one film of each finding a turn
        for queue in queues:
            if turn < len(queue) and len(chosen) < count:
                chosen.setdefault(queue[turn])
    return tuple(chosen)


def fingerprint(source: Source, found: Sequence[Place]) -> str:
    """Hash of the films and of their places."""
    digest = hashlib.sha256(source.images_fingerprint().encode())
    for place in found:
        digest.update(f"{place.study_id} {place.finding} {place.observations}".encode())
        digest.update(np.packbits(place.mask).tobytes())
    return digest.hexdigest()[:16]


def usual_place(found: Sequence[Place], place: Place, *, of_its_side: bool) -> FloatImage | None:
    """Where other patients have the same finding: the mean of their masks over the film, (USUAL_SIDE, USUAL_SIDE).

    Args:
        found: all places of the source.
        place: whose patient is left out.
        of_its_side: whether only those on the same side count, as where the question names the side.

    Returns:
        None where no other patient has it.
    """
    others = [
        each.mask
        for each in found
        if each.finding == place.finding
        and each.patient != place.patient
        and (not of_its_side or each.side == place.side)
    ]
    if not others:
        return None
    usual: FloatImage = np.mean(others, axis=0, dtype=np.float32)
    return usual
