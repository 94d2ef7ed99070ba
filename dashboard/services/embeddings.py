"""In: a source and an encoder. Out: its studies as that encoder sees them, a case among them, those nearest to a study.

What is stored beside the bundles is of the studies that they learned from; of other sources it is computed, once, by a
process of its own (`embedding_jobs`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.bundles.card import Card
from core.observations import LabelState
from core.projection import embeddings as on_disk
from core.projection.embeddings import (
    Embedded,
    Embedding,
    content_key,
    embeddings_folder,
    find,
    is_single,
    read_embeddings,
)
from core.projection.job import fingerprint
from core.registry import DECODERS, ENCODERS, token_names
from core.studies.source import Source
from core.types import SPLITS, CXRLensError, Split, Study
from dashboard import settings
from dashboard.services import bundles, sources, studies
from dashboard.services.kept import kept
from dashboard.services.studies import Case

POOLED, TOKENS, RANDOM = on_disk.POOLED, on_disk.TOKENS, on_disk.RANDOM
TEXT, JOINED, STATES = "text", "joined", "states"
AREAS = tuple(f"{row} {column}" for row in ("upper", "middle", "lower") for column in ("left", "centre", "right"))
"""Parts of the image, as it is shown, that a token of a grid stands in."""
EXPORT = "`cxr-lens train --preset phantom` writes them."
MOST = 2_000
"""Studies on a map that is computed, ours: of a source that has more, a drawn sample of so many."""
_FRESH = 60  # seconds for which sources are not looked at again


@dataclass(frozen=True)
class Embeddings:
    """Stored embeddings, a row a point.

    Attributes:
        encoder: key in the registry, or the name of a model from elsewhere.
        kind: see `kinds`.
        study_ids: n.
        parts: n, what of the study a point is: the cluster of a filter of CCVE, or one of `AREAS`; empty where a study
            is one point.
        features: (n, D).
        source: short name of where the studies come from.
    """

    encoder: str
    kind: str
    study_ids: tuple[str, ...]
    parts: tuple[str, ...]
    features: npt.NDArray[np.float32]
    source: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """Of the features: hashing thousands of studies at every click would take a tenth of a second each time."""
        return fingerprint(self.features)


# ----------------------------------------------------------------------------------------------------- whose map it is


def mapped() -> Mapping[str, str]:
    """Title of each source that a map can be made of, by its short name: those that list their studies."""
    return _mapped(tuple(sources.names().items()))


@st.cache_data(max_entries=4, ttl=_FRESH, show_spinner=False)
def _mapped(names: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    found = {}
    for name, title in names:
        try:
            if name != sources.UPLOAD and sources.source(name).listed:
                found[name] = title
        except CXRLensError:
            continue  # its own page says why
    return found


def source_of(case: Case | None) -> str:
    """Short name of the source on whose map a case is shown: its own, or the first where that has no map."""
    name, there = case.source if case else sources.chosen(), mapped()
    return name if name in there else next(iter(there), name)


def no_own_map(source_name: str) -> str:
    """What to say where studies have no map of their own: files of a session, or of a server; "" where they have."""
    if source_name in mapped():
        return ""
    return f"{sources.names()[source_name]}: no map of their own, because a map needs studies that stay here."


def encoders(source_name: str | None = None) -> list[str]:
    """Encoders whose map of a source there is or can be computed; all, where there is none.

    The encoder of a model from elsewhere has the model's name: it is nobody else's.
    """
    able = [encoder for encoder in ENCODERS if _card(encoder, source_name) or there(encoder, source_name)]
    return [*(able or ENCODERS), *(card.name for card in bundles.from_elsewhere())]


def title_of(encoder: str) -> str:
    """Of an encoder, for the reader; of that of a model from elsewhere, the model's."""
    if encoder in ENCODERS:
        return ENCODERS[encoder].title
    card = bundles.card_named(encoder)
    return encoder if card is None else card.title


def there(encoder: str, source_name: str | None = None) -> bool:
    """Are the embeddings of a source by an encoder on disk?"""
    return _file(encoder, source_name) is not None


def _card(encoder: str, source_name: str | None) -> Card | None:
    if encoder not in ENCODERS:
        return bundles.card_named(encoder)
    cards = bundles.cards(bundles.family_for(sources.source(source_name)))
    return next((card for (name, _), card in cards.items() if name == encoder), None)


def wanted(encoder: str, source_name: str | None = None) -> Embedding:
    """What is computed where nothing is stored: the shown studies of a source, or a sample of them.

    Raises:
        CXRLensError: no bundle of the encoder can be read.
    """
    card = _card(encoder, source_name)
    if card is None:
        raise CXRLensError(f"No bundle with {title_of(encoder)} can be read.")
    source = sources.source(source_name)
    split = studies.shown_split(source)
    folder = settings.bundles().absolute()
    where, precision = settings.device(), settings.precision()
    return Embedding(source.key, folder, card.name, split, MOST, device=where, precision=precision)


def key_of(encoder: str, source_name: str | None = None) -> str:
    """Names all that decides what is computed.

    Raises:
        CXRLensError: no bundle of the encoder can be read, or the source has no studies.
    """
    work, card = wanted(encoder, source_name), _card(encoder, source_name)
    return _content_key(work, "" if card is None else bundles.bundle_key(card), sources.source(source_name))


@st.cache_resource(max_entries=32, show_spinner=False)
def _content_key(work: Embedding, bundle: str, _source: Source) -> str:
    return content_key(work, _source)


def computed(encoder: str, source_name: str | None = None) -> Embedded | None:
    """What was computed of a source; None where nothing was, or the studies' own models brought theirs."""
    try:
        return None if _beside(encoder, source_name) else find(key_of(encoder, source_name), MOST)
    except CXRLensError:  # no bundle, or no studies: nothing can have been computed
        return None


def how_many(source_name: str | None = None) -> int:
    """Studies of a source that may be shown."""
    return len(studies.visible_ids(source_name))


def known(points: Embeddings) -> Mapping[str, Study]:
    """The studies of some points that their source shows to anybody, by id; see `visible`."""
    source = sources.source(points.source or None)
    return _known(source.key, studies.shown_split(source), hash(points.study_ids), points.study_ids, source)


@st.cache_resource(max_entries=6, show_spinner="Reading the reports …")
def _known(key: str, split: Split | None, ids: int, _study_ids: Sequence[str], _source: Source) -> Mapping[str, Study]:
    wanted, found = set(_study_ids), {}
    for each in [split] if split else SPLITS:
        for study_id in _source.ids(each):  # in its order, in which an index reads its texts fastest
            if study_id in wanted:
                found[study_id] = _source.study(study_id)
    return found


def traits(points: Embeddings) -> Mapping[str, Mapping[str, str]]:
    """What the studies of some points can be divided by: study id -> title -> value."""
    source = sources.source(points.source or None)
    return _traits(source.key, studies.shown_split(source), hash(points.study_ids), known(points), source)


@st.cache_resource(max_entries=6, show_spinner=False)
def _traits(
    key: str, split: Split | None, ids: int, _known_studies: Mapping[str, Study], _source: Source
) -> Mapping[str, Mapping[str, str]]:
    return {study_id: _source.traits(study) for study_id, study in _known_studies.items()}


def visible(points: Embeddings) -> Mapping[str, Study]:
    """The studies of some points that whoever looks may see, by id."""
    found, hidden = known(points), studies.kept_back()
    return {name: study for name, study in found.items() if name not in hidden} if hidden else found


def labels_of(points: Embeddings, study: Study) -> Mapping[str, LabelState] | None:
    """What is known of the 14 observations of a study; None where nothing is."""
    return studies.labels_of(sources.source(points.source or None), study)


# ------------------------------------------------------------------------------------------------------ what is stored


def point_is(encoder: str, kind: str) -> Literal["study", "filter", "area"]:
    """What a point of a kind of embeddings is: a study, or a study through one filter of CCVE, or in one area."""
    if not is_single(kind):
        return "study"
    return "filter" if token_names(encoder) else "area"


def kinds(encoder: str, source_name: str | None = None) -> dict[str, str]:
    """What is stored of an encoder, or follows from it: key -> title for the reader.

    Raises:
        CXRLensError: nothing is stored, or the file is damaged.
    """
    found = _read(*_stored_file(encoder, source_name))[1]
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


def stored(encoder: str, kind: str, source_name: str | None = None) -> Embeddings:
    """Stored embeddings of a source, the chosen one unless named, by an encoder.

    Raises:
        CXRLensError: they are not stored, or the file is damaged.
    """
    name = sources.chosen() if source_name is None else source_name
    return _of_kind(encoder, kind, name, *_stored_file(encoder, name))


@st.cache_resource(max_entries=16, show_spinner=False)
def _of_kind(encoder: str, kind: str, source_name: str, path: str, stamp: int) -> Embeddings:
    study_ids, found = _read(path, stamp)
    key = TOKENS if kind == JOINED else kind
    if key not in found:
        raise CXRLensError(f"{title_of(encoder)}'s stored embeddings have no '{kind}'. {EXPORT}")
    values = found[key]
    study_ids = study_ids[: len(values)]
    if values.ndim == 2:
        return Embeddings(encoder, kind, study_ids, (), values, source_name)
    if kind == JOINED:
        return Embeddings(encoder, kind, study_ids, (), values.reshape(len(values), -1), source_name)
    parts = token_names(encoder) if point_is(encoder, kind) == "filter" else _areas(math.isqrt(values.shape[1]))
    ids = tuple(np.repeat(study_ids, values.shape[1]).tolist())
    return Embeddings(encoder, kind, ids, parts * len(values), values.reshape(-1, values.shape[2]), source_name)


def _areas(side: int) -> tuple[str, ...]:
    """The area of each cell of a square grid, in its order: row by row."""
    third = [int(3 * (cell + 0.5) / side) for cell in range(side)]
    return tuple(AREAS[3 * row + column] for row in third for column in third)


def unlike(case: Case | None, source_name: str | None = None) -> str:
    """What to say of a case that is placed among studies of another source; "" where it is of theirs."""
    name = sources.chosen() if source_name is None else source_name
    if case is None or case.source == name:
        return ""
    source = sources.source(name)
    if case.synthetic != source.synthetic:
        points, other = ("synthetic", "real") if source.synthetic else ("real", "synthetic")
        return f"The points are {points} X-rays. Where a {other} X-ray lies among them says nothing about its findings."
    return f"{case.title} is not of {source.title}: it is placed among the studies of another source."


def _beside(encoder: str, source_name: str | None) -> Path | None:
    """The file that training wrote beside the bundles, of studies that they learned from; None where there is none."""
    family, source = bundles.family_for(sources.source(source_name)), sources.source(source_name)
    path = settings.bundles() / f"{family}-embeddings-{encoder}.safetensors"
    if not path.is_file() or not bundles.learned_from(family, source):
        return None
    learned = {card.data.get("fingerprint") for card in bundles.cards(family).values()}
    return path if source.fingerprint() in learned else None


def _file(encoder: str, source_name: str | None) -> tuple[str, int] | None:
    """Where embeddings are stored, and when they were changed; None where they are not."""
    found = computed(encoder, source_name)
    path = found.path if found else _beside(encoder, source_name)
    return None if path is None else (str(path), path.stat().st_mtime_ns)


def _stored_file(encoder: str, source_name: str | None) -> tuple[str, int]:
    found = _file(encoder, source_name)
    if found is None:
        title = sources.source(source_name).title
        raise CXRLensError(f"There is no map of {title} by {title_of(encoder)} yet.")
    return found


@st.cache_resource(max_entries=8, show_spinner=False)
def _read(path: str, stamp: int) -> tuple[tuple[str, ...], dict[str, npt.NDArray[np.float32]]]:
    """Study ids, and the tensors by name; see `read_embeddings`. Of what was computed, at most `MOST` studies."""
    return read_embeddings(Path(path), MOST if Path(path).parent == embeddings_folder() else None)


def pooled_like(kept: Embeddings, case: Case) -> npt.NDArray[np.float32]:
    """A case's embedding (D,), to be compared with the stored ones.

    Raises:
        CXRLensError: no bundle of the encoder can be read, or the stored embeddings are of another one.
    """
    found = pooled(kept.encoder, case, kept.source or None)
    if found.shape != kept.features.shape[1:]:
        raise CXRLensError(
            f"{title_of(kept.encoder)}'s bundle makes embeddings of {len(found)} features, the stored ones "
            f"have {kept.features.shape[1]}: they are of another bundle. {EXPORT}"
        )
    return found


def pooled(encoder: str, case: Case, source_name: str | None = None) -> npt.NDArray[np.float32]:
    """A case's image tokens, averaged, (D,), by the bundle that looks at the studies of a source.

    Raises:
        CXRLensError: no bundle of the encoder can be read.
    """
    card = _card(encoder, source_name)
    if card is None:
        raise CXRLensError(f"No bundle with {title_of(encoder)} can be read.")
    return _pooled_by(case, card)


@kept(256)
def _pooled_by(case: Case, card: Card) -> npt.NDArray[np.float32]:
    from core.bundles.inference import pooled_embedding

    with bundles.inference():
        model = bundles.open_model(card)
        return pooled_embedding(model, model.reads(studies.pixels(case)))


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
