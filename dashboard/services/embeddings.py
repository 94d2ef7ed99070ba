"""In: the embeddings stored beside the bundles. Out: them by kind, a case's own, and the studies nearest to a study."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.bundles.card import Card
from core.bundles.rounding import SCALE, restored
from core.observations import CLUSTERS
from core.projection.job import fingerprint
from core.registry import DECODERS, ENCODERS, token_names
from core.types import CXRLensError
from dashboard import settings
from dashboard.services import bundles, studies
from dashboard.services.kept import kept
from dashboard.services.studies import Case

POOLED, TEXT, TOKENS, RANDOM, JOINED, STATES = "pooled", "text", "tokens", "random_filters", "joined", "states"
AREAS = tuple(f"{row} {column}" for row in ("upper", "middle", "lower") for column in ("left", "centre", "right"))
"""Parts of the image, as it is shown, that a token of a grid stands in."""
EXPORT = "`cxr-lens train --preset phantom` writes them."


@dataclass(frozen=True)
class Embeddings:
    """Stored embeddings, a row a point.

    Attributes:
        encoder: key in the registry.
        kind: see `kinds`.
        study_ids: n.
        parts: n, what of the study a point is: the cluster of a filter of CCVE, or one of `AREAS`; empty where a study
            is one point.
        features: (n, D).
    """

    encoder: str
    kind: str
    study_ids: tuple[str, ...]
    parts: tuple[str, ...]
    features: npt.NDArray[np.float32]

    @cached_property
    def fingerprint(self) -> str:
        """Of the features: hashing thousands of studies at every click would take a tenth of a second each time."""
        return fingerprint(self.features)


def point_is(encoder: str, kind: str) -> Literal["study", "filter", "area"]:
    """What a point of a kind of embeddings is: a study, or a study through one filter of CCVE, or in one area."""
    if not _is_single(kind):
        return "study"
    return "filter" if token_names(encoder) else "area"


def _is_single(kind: str) -> bool:
    """Are these tokens one by one, (m, N, D), and not a row a study?"""
    return kind.split(".")[0] in (TOKENS, RANDOM)


def kinds(encoder: str) -> dict[str, str]:
    """What is stored of an encoder, or follows from it: key -> title for the reader.

    Raises:
        CXRLensError: nothing is stored, or the file is damaged.
    """
    found = _read(*_file(encoder))[1]
    titles = {POOLED: "One point per X-ray (image)"}
    if token_names(encoder):
        titles |= {
            TOKENS: "One point per filter",
            RANDOM: "One point per filter, untrained (control)",
            JOINED: "One point per X-ray (13 filters in a row)",
        }
    titles |= {
        key: f"One point per X-ray ({key.partition('.')[2]} only)" for key in sorted(found) if key.startswith("pooled.")
    }
    for key in sorted(found):
        if point_is(encoder, key) == "area":
            of = f"{key.partition('.')[2]} only, " if "." in key else ""
            titles[key] = f"One point per area of the X-ray ({of}{len(found[key])} studies)"
    titles[TEXT] = "One point per impression (CLIP's text tower)"
    for decoder, spec in DECODERS.items():
        titles[f"{STATES}.{decoder}"] = f"One point per X-ray (while {spec.title} writes)"
    there = {*found, *([JOINED] if TOKENS in found else [])}
    return {key: title for key, title in titles.items() if key in there}


def stored(encoder: str, kind: str) -> Embeddings:
    """Stored embeddings of an encoder.

    Raises:
        CXRLensError: they are not stored, or the file is damaged.
    """
    return _of_kind(encoder, kind, *_file(encoder))


@st.cache_resource(max_entries=16, show_spinner=False)
def _of_kind(encoder: str, kind: str, path: str, stamp: int) -> Embeddings:
    study_ids, found = _read(path, stamp)
    key = TOKENS if kind == JOINED else kind
    if key not in found:
        raise CXRLensError(f"{ENCODERS[encoder].title}'s stored embeddings have no '{kind}'. {EXPORT}")
    values = found[key]
    study_ids = study_ids[: len(values)]
    if values.ndim == 2:
        return Embeddings(encoder, kind, study_ids, (), values)
    if kind == JOINED:
        return Embeddings(encoder, kind, study_ids, (), values.reshape(len(values), -1))
    parts = token_names(encoder) if point_is(encoder, kind) == "filter" else _areas(math.isqrt(values.shape[1]))
    ids = tuple(np.repeat(study_ids, values.shape[1]).tolist())
    return Embeddings(encoder, kind, ids, parts * len(values), values.reshape(-1, values.shape[2]))


def _areas(side: int) -> tuple[str, ...]:
    """The area of each cell of a square grid, in its order: row by row."""
    third = [int(3 * (cell + 0.5) / side) for cell in range(side)]
    return tuple(AREAS[3 * row + column] for row in third for column in third)


def unlike(case: Case | None) -> str:
    """What to say of a case that is of another kind than the stored studies; "" where it is of theirs."""
    if case is None or case.synthetic == bundles.synthetic(bundles.PHANTOM):
        return ""
    return "The points are synthetic X-rays. Where a real X-ray lies among them says nothing about its findings."


def encoders() -> list[str]:
    """Encoders whose embeddings are stored; all of them where none is, so that the page can say what is missing."""
    return [encoder for encoder in ENCODERS if _path(encoder).is_file()] or list(ENCODERS)


def _path(encoder: str) -> Path:
    return settings.bundles() / f"{bundles.PHANTOM}-embeddings-{encoder}.safetensors"


def _file(encoder: str) -> tuple[str, int]:
    """Where an encoder's embeddings are stored, and when they were changed."""
    path = _path(encoder)
    if not path.is_file():
        raise CXRLensError(
            f"No stored embeddings of {ENCODERS[encoder].title}: {path.name} is missing in {path.parent}. {EXPORT}"
        )
    return str(path), path.stat().st_mtime_ns


@st.cache_resource(max_entries=8, show_spinner=False)
def _read(path: str, stamp: int) -> tuple[tuple[str, ...], dict[str, npt.NDArray[np.float32]]]:
    """Study ids, and the tensors by name: (n, D), or (m, N, D) single tokens of the first m studies."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            raw = {
                key: np.asarray(file.get_tensor(key), dtype=np.float32)
                for key in file.keys()  # noqa: SIM118 - not a mapping
            }
            tensors = {key: restored(raw, key) for key in raw if not key.endswith(SCALE)}
            study_ids = tuple(json.loads((file.metadata() or {})["study_ids"]))
        for key, values in tensors.items():
            single = _is_single(key)
            whole = len(values) == len(study_ids) if not single else 0 < len(values) <= len(study_ids)
            if values.ndim != 2 + single or not whole:
                raise ValueError(f"'{key}' has shape {values.shape} for {len(study_ids)} studies")
            if single and values.shape[1] != len(CLUSTERS) and math.isqrt(values.shape[1]) ** 2 != values.shape[1]:
                raise ValueError(f"'{key}' has {values.shape[1]} tokens a study, neither 13 filters nor a square grid")
        if POOLED not in tensors:
            raise ValueError(f"it has no '{POOLED}'")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CXRLensError(f"{Path(path).name} is damaged ({error}). Restore it or train again.") from error
    return study_ids, tensors


def pooled_like(kept: Embeddings, case: Case) -> npt.NDArray[np.float32]:
    """A case's embedding (D,), to be compared with the stored ones.

    Raises:
        CXRLensError: no bundle of the encoder can be read, or the stored embeddings are of another one.
    """
    found = pooled(kept.encoder, case)
    if found.shape != kept.features.shape[1:]:
        raise CXRLensError(
            f"{ENCODERS[kept.encoder].title}'s bundle makes embeddings of {len(found)} features, the stored ones "
            f"have {kept.features.shape[1]}: they are of another bundle. {EXPORT}"
        )
    return found


def pooled(encoder: str, case: Case) -> npt.NDArray[np.float32]:
    """A case's image tokens, averaged, (D,).

    Raises:
        CXRLensError: no bundle of the encoder can be read.
    """
    card = next((card for (name, _), card in bundles.cards().items() if name == encoder), None)
    if card is None:
        raise CXRLensError(f"No bundle with {ENCODERS[encoder].title} can be read.")
    return _pooled_by(case, card)


@kept(256)
def _pooled_by(case: Case, card: Card) -> npt.NDArray[np.float32]:
    from core.bundles.inference import pooled_embedding

    with bundles.inference():
        model = bundles.open_model(card)
        return pooled_embedding(model, studies.pixels(case)(model.image_size))


def neighbours(kept: Embeddings, study_id: str, count: int) -> list[tuple[str, float]]:
    """The studies nearest to one in the embedding itself, with their distances; of several points, the means count."""
    ids = list(dict.fromkeys(kept.study_ids))
    if study_id not in ids:
        return []
    features = kept.features.reshape(len(ids), -1, kept.features.shape[1]).mean(1)
    return _nearest(ids, features, features[ids.index(study_id)], study_id, count)


def neighbours_of_case(kept: Embeddings, case: Case, count: int) -> list[tuple[str, float]]:
    """The stored studies nearest to a case that is not among them.

    Raises:
        CXRLensError: no bundle of the encoder can be read, or the stored embeddings are of another one.
    """
    return _nearest(list(kept.study_ids), kept.features, pooled_like(kept, case), case.title, count)


def _nearest(
    ids: Sequence[str],
    features: npt.NDArray[np.float32],
    point: npt.NDArray[np.float32],
    own: str,
    count: int,
) -> list[tuple[str, float]]:
    distance = np.linalg.norm(features - point, axis=1)
    order = [index for index in distance.argsort(kind="stable") if ids[index] != own]
    return [(ids[index], float(distance[index])) for index in order[:count]]
