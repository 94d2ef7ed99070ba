"""In: stored embeddings. Out: maps of them, computed in processes of their own, and how far a map can be trusted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.cache import BoundedCache
from core.observations import NO_FINDING, OBSERVATIONS, findings
from core.projection.job import ProjectionJob, compute, content_key, load
from core.projection.methods import PrincipalAxes, ProjectionConfig, fit_pca
from core.types import Projection
from dashboard.services import embeddings, studies
from dashboard.services.embeddings import Embeddings
from dashboard.services.studies import Case

MOST_JOBS = 2
"""Maps that are computed at once, of all sessions."""
MAPS_KEPT = 64
"""In memory, of those that were read from disk."""
IN_PROCESS = 2_000_000
"""Numbers of a table whose principal components take no process of their own: a fraction of a second."""


@dataclass(frozen=True, slots=True)
class Map:
    """Studies as an encoder sees them, on a plane.

    Attributes:
        study_ids: of the points.
        points: (n, 2), the first two principal components.
        here: (2,), the open case, or None.
        explained: share of the variance on each axis.
    """

    study_ids: tuple[str, ...]
    points: npt.NDArray[np.float32]
    here: npt.NDArray[np.float32] | None
    explained: tuple[float, float]


def principal_map(encoder: str, case: Case | None, source_name: str | None = None) -> Map:
    """Place the stored studies of a source and the open case on the principal components of the stored ones.

    Raises:
        CXRLensError: there are no stored embeddings of this encoder, or they are damaged.
    """
    stored = embeddings.stored(encoder, embeddings.POOLED, source_name)
    axes, points = _principal(stored.fingerprint, stored)
    here = None
    if case is not None:
        if case.source == stored.source and case.title in stored.study_ids:
            here = points[stored.study_ids.index(case.title)]
        else:
            here = axes.place(embeddings.pooled_like(stored, case))
    return Map(stored.study_ids, points, here, (float(axes.shares[0]), float(axes.shares[1])))


@st.cache_resource(max_entries=8, show_spinner=False)
def _principal(key: str, _stored: Embeddings) -> tuple[PrincipalAxes, npt.NDArray[np.float32]]:
    axes = fit_pca(_stored.features, 2)
    return axes, axes.place(_stored.features)


@st.cache_resource(show_spinner=False)
def _jobs() -> dict[str, ProjectionJob]:
    """Maps that are computed, or whose computing failed or was cancelled, by content."""
    return {}


@st.cache_resource(show_spinner=False)
def _placed() -> BoundedCache[str, Projection]:
    """Maps that were read from disk, by content."""
    return BoundedCache(MAPS_KEPT)


def projection(
    stored: Embeddings, config: ProjectionConfig, new: npt.NDArray[np.float32] | None = None
) -> Projection | ProjectionJob | None:
    """A map of stored embeddings, or ``new`` points (m, D) placed into it.

    Returns:
        The map; the job that computes it; None while other maps are computed.

    Raises:
        CXRLensError: there is no such map, or its job failed or was cancelled: see `forget_job`.
    """
    key = content_key(stored.fingerprint, config, new)
    found = _placed().get(key) or load(key)
    if found is not None:
        _placed().put(key, found)
        return found
    job = _jobs().get(key)
    if job is None:
        if config.method == "PCA" and stored.features.size <= IN_PROCESS:
            return compute(stored.features, config, new)
        if busy():
            return None
        job = _jobs()[key] = ProjectionJob(stored.features, config, new)
    if not job.done():
        return job
    found = job.result()  # raises, and goes on raising, until the job is forgotten
    _jobs().pop(key, None)
    return found


def busy() -> bool:
    """Are as many maps being computed as may be at once?"""
    return sum(not each.done() for each in list(_jobs().values())) >= MOST_JOBS


def failed(stored: Embeddings, config: ProjectionConfig) -> bool:
    """Did the job of a map fail, or was it cancelled?"""
    job = _jobs().get(content_key(stored.fingerprint, config))
    return job is not None and job.done()


def forget_jobs() -> None:
    """Let maps that failed or were cancelled be computed again."""
    for key, job in list(_jobs().items()):
        if job.done():
            _jobs().pop(key, None)


def place_case(stored: Embeddings, config: ProjectionConfig, case: Case) -> Projection | ProjectionJob | None:
    """Place a case that is not among the stored studies into their map; see `projection`.

    Raises:
        CXRLensError: also if no bundle of the encoder can be read, or the stored embeddings are of another one.
    """
    return projection(stored, config, embeddings.pooled_like(stored, case)[None])


@dataclass(frozen=True, slots=True)
class MapQuality:
    """Numbers beside a map.

    Attributes:
        by_observation: (observation, its studies, neighbourhood hit on the map, its share of all points).
        on_map: silhouette on the map, by part of the study where points are parts, else by main cluster; None where all
            are one.
        before: the same in the embedding itself.
    """

    by_observation: tuple[tuple[str, int, float, float], ...]
    on_map: float | None
    before: float | None


def map_quality(stored: Embeddings, placed: Projection) -> MapQuality:
    """How far a map can be trusted; trustworthiness is in its parameters."""
    key = hashlib.sha256(placed.coordinates.tobytes()).hexdigest()
    return _map_quality(f"{stored.source}-{stored.encoder}-{stored.kind}-{key}", stored, placed)


@st.cache_resource(max_entries=64, show_spinner=False)
def _map_quality(key: str, _stored: Embeddings, _placed_map: Projection) -> MapQuality:
    from core.projection.quality import nearest, neighbourhood_hit, silhouette

    known = embeddings.known(_stored)
    rows = [row for row, study_id in enumerate(_stored.study_ids) if study_id in known]
    points, features = _placed_map.coordinates[rows], _stored.features[rows]
    labels = [embeddings.labels_of(_stored, known[_stored.study_ids[row]]) for row in rows]
    told = any(each is not None for each in labels)
    hits = []
    if len(rows) > 1 and told:
        found = [set(findings(each)) if each is not None else None for each in labels]
        neighbours = nearest(points, 10)
        for name in OBSERVATIONS:
            member = np.array(
                [each is not None and (name in each or (name == NO_FINDING and not each)) for each in found]
            )
            hit = neighbourhood_hit(neighbours, member)
            if hit is not None:
                count = len({_stored.study_ids[rows[index]] for index in np.flatnonzero(member)})
                hits.append((name, count, hit, float(member.mean())))
    if _stored.parts:
        groups = [_stored.parts[row] for row in rows]
    elif told:
        groups = [studies.main_cluster(known[_stored.study_ids[row]]) for row in rows]
    else:
        return MapQuality((), None, None)
    return MapQuality(tuple(hits), silhouette(points, groups), silhouette(features, groups))
