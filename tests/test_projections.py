"""Maps: planted structure, properties, places of new points, the cache, the process, bad input."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from core.encoders.ccve import ClusterClipEncoder
from core.encoders.random_filters import with_random_filters
from core.projection import quality as map_quality
from core.projection.job import ProjectionJob, cache_folder, compute, content_key, load
from core.projection.methods import METHODS, ProjectionConfig, fit_pca, place, project
from core.projection.placing import place_by_neighbours
from core.types import CXRLensError, Projection
from tests import needs

pytestmark = pytest.mark.numeric

GROUPS = np.repeat([0, 1, 2], 20)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path))
    return tmp_path


def blobs(spread: float = 0.3) -> np.ndarray:
    """Three groups of twenty points in twelve dimensions, (60, 12)."""
    rng = np.random.default_rng(0)
    centres = 4 * np.eye(12)[:3]
    return (centres[GROUPS] + rng.normal(0, spread, (60, 12))).astype(np.float32)


def test_pca_agrees_with_the_singular_values() -> None:
    x = blobs()
    axes = fit_pca(x, 3)
    _, scale, rows = np.linalg.svd(x.astype(np.float64) - x.mean(0), full_matrices=False)
    assert np.allclose(axes.shares, (scale**2 / (scale**2).sum())[:3], atol=1e-5)
    assert np.allclose(np.abs(axes.axes.T @ rows[:3].T), np.eye(3), atol=1e-3)
    assert np.allclose(project(x, ProjectionConfig()).coordinates, axes.place(x)[:, :2], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_keeps_planted_groups_apart_is_seeded_and_places_new_points_into_their_group(method: str) -> None:
    x = blobs()
    config = ProjectionConfig(method=method, perplexity=10, neighbours=8)  # type: ignore[arg-type]
    placed = project(x, config)
    assert placed.coordinates.shape == (60, 2)
    assert map_quality.silhouette(placed.coordinates, [str(each) for each in GROUPS]) > 0.5  # type: ignore[operator]
    assert np.array_equal(placed.coordinates, project(x, config).coordinates)
    new = x[[5, 25, 45]] + np.float32(0.05)
    found = place(x, placed, new, config)
    centres = np.stack([placed.coordinates[group == GROUPS].mean(0) for group in range(3)])
    assert np.linalg.norm(found[:, None] - centres, axis=2).argmin(1).tolist() == [0, 1, 2]


def _noisy(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in ten dimensions, (count, 10), and a map of them that is not in the middle, (count, 2)."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, 10)).astype(np.float32)
    return x, (8 * x[:, :2] + rng.normal(size=(count, 2)) + [40, -15]).astype(np.float32)


@pytest.mark.parametrize("count", [12, 60, 900])
def test_new_points_of_t_sne_are_placed_as_by_open_tsne_with_all_forces(count: int) -> None:
    import openTSNE

    x, there = _noisy(count)
    new = x[:7] + np.float32(0.3)
    found = place_by_neighbours(x, there, new, 30.0)
    affinities = openTSNE.affinity.PerplexityBasedNN(x, min(30, (count - 1) / 3), method="exact")
    peer = openTSNE.TSNEEmbedding(there.astype(float), affinities, negative_gradient_method="bh", theta=0.0)
    middle = (there.max(0) + there.min(0)) / 2  # to which the peer moves the map
    expected = np.asarray(peer.transform(new)) + middle
    assert np.abs(found - expected).max() < 0.01 * np.ptp(there)


def test_a_point_is_placed_where_the_map_is_and_by_itself() -> None:
    x, there = _noisy(200)
    config, new = ProjectionConfig(method="t-SNE", perplexity=10), x[:4] + np.float32(0.2)
    found = place(x, Projection(there, "t-SNE", {}), new, config)
    shift = np.float32([300, -70])
    moved = place(x, Projection(there + shift, "t-SNE", {}), new, config)
    assert moved == pytest.approx(found + shift, abs=0.01)
    alone = [place(x, Projection(there, "t-SNE", {}), each[None], config)[0] for each in new]
    assert np.stack(alone) == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize("method", ["PCA", "t-SNE"])
def test_three_dimensions(method: str) -> None:
    placed = project(blobs(), ProjectionConfig(method=method, dimensions=3, perplexity=10))  # type: ignore[arg-type]
    assert placed.coordinates.shape == (60, 3)
    assert np.ptp(placed.coordinates, axis=0).min() > 0


def test_reports_what_it_had_to_reduce() -> None:
    placed = project(blobs()[:25], ProjectionConfig(method="t-SNE", perplexity=30))
    assert placed.parameters["perplexity"] == 8
    assert "Perplexity 8 instead of 30" in placed.parameters["notes"][0]
    told: list[tuple[float, str]] = []
    config = ProjectionConfig(method="UMAP", neighbours=30)
    placed = project(blobs()[:12], config, progress=lambda *each: told.append(each))
    steps = [what for _, what in told if what.startswith("UMAP, step")]
    assert steps[0] == "UMAP, step 0 of 500" and steps[-1] == "UMAP, step 500 of 500"
    assert [share for share, _ in told] == sorted(share for share, _ in told)
    assert placed.parameters["neighbours"] == 11
    assert "11 neighbours instead of 30" in placed.parameters["notes"][0]


@pytest.mark.parametrize(
    ("features", "settings", "message"),
    [
        (np.ones((20, 4)), {}, "All 20 embeddings are equal"),
        (blobs()[:2], {}, "at least 3 points"),
        (blobs()[:9], {"method": "t-SNE"}, "at least 10 points"),
        (blobs()[:9], {"method": "UMAP"}, "PCA maps fewer"),
        (blobs()[:, :2], {"dimensions": 3}, "no map of 3 dimensions"),
        (blobs()[0], {}, "not an array of shape"),
        (np.where(np.arange(60)[:, None] == 7, np.nan, blobs()), {}, "1 of 60 embeddings are not finite"),
    ],
)
def test_refuses_what_has_no_map(features: np.ndarray, settings: dict, message: str) -> None:
    with pytest.raises(CXRLensError, match=message):
        project(features.astype(np.float32), ProjectionConfig(**settings))


@pytest.mark.parametrize("settings", [{"method": "MDS"}, {"dimensions": 4}, {"min_distance": 2}, {"neighbours": 1}])
def test_refuses_settings_out_of_range(settings: dict) -> None:
    with pytest.raises(CXRLensError):
        ProjectionConfig(**settings)


def test_refuses_a_new_point_of_another_width() -> None:
    x = blobs()
    with pytest.raises(CXRLensError, match="12 features"):
        place(x, project(x, ProjectionConfig()), x[:1, :5], ProjectionConfig())


def test_the_key_follows_data_and_used_parameters_only() -> None:
    x, config = blobs(), ProjectionConfig(method="PCA")
    assert content_key(x, config) == content_key(x.copy(), ProjectionConfig(method="PCA", perplexity=5))
    assert content_key(x, config) != content_key(x + 1, config)
    assert content_key(x, config) != content_key(x, ProjectionConfig(method="PCA", seed=1))
    assert content_key(x, config) != content_key(x, config, x[:1])


def test_the_cache_gives_the_same_map_and_mends_a_damaged_file() -> None:
    x, config = blobs(), ProjectionConfig()
    first = compute(x, config)
    key = content_key(x, config)
    again = load(key)
    assert again is not None
    assert np.array_equal(again.coordinates, first.coordinates)
    assert again.parameters["trustworthiness"] == pytest.approx(first.parameters["trustworthiness"])
    (cache_folder() / f"{key}.safetensors").write_bytes(b"broken")
    assert load(key) is None
    assert np.array_equal(compute(x, config).coordinates, first.coordinates)
    assert load(key) is not None


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "file"))
    with pytest.raises(CXRLensError, match="CXR_CACHE"):
        compute(blobs(), ProjectionConfig())


def test_a_job_tells_its_progress_and_gives_what_a_call_gives() -> None:
    x, config = blobs(), ProjectionConfig(method="t-SNE", perplexity=10)
    job = ProjectionJob(x, config, x[:2])
    assert 0 <= job.progress()[0] <= 1
    placed = job.result()
    assert placed.coordinates.shape == (2, 2)
    assert not job.folder.exists()
    base = load(content_key(x, config))
    assert base is not None
    assert 0.5 < base.parameters["trustworthiness"] <= 1


def test_a_job_can_be_cancelled() -> None:
    x = np.random.default_rng(0).normal(size=(3000, 60)).astype(np.float32)
    job = ProjectionJob(x, ProjectionConfig(method="t-SNE"))
    began = time.monotonic()
    job.cancel()
    assert time.monotonic() - began < 6
    assert job.done()
    assert not job.folder.exists()
    assert load(job.key) is None
    with pytest.raises(CXRLensError, match="cancelled"):
        job.result()


def test_a_job_hands_over_the_message_of_its_error() -> None:
    job = ProjectionJob(blobs()[:9], ProjectionConfig(method="UMAP"))
    with pytest.raises(CXRLensError, match="at least 10 points"):
        job.result()


def test_trustworthiness_is_one_for_the_same_points_and_near_a_half_for_a_shuffled_map() -> None:
    x = blobs(1.0)
    assert map_quality.trustworthiness(x, x) == 1
    shuffled = map_quality.trustworthiness(x, np.random.default_rng(0).permutation(x))
    assert shuffled is not None
    assert 0.3 < shuffled < 0.7


def test_neighbourhood_hit_by_hand() -> None:
    points = np.array([[0], [1], [2], [10], [11], [12]], dtype=np.float32)
    neighbours = map_quality.nearest(points, 2)
    apart = np.array([True, True, True, False, False, False])
    assert map_quality.neighbourhood_hit(neighbours, apart) == 1
    mixed = np.array([True, False, False, True, False, False])
    assert map_quality.neighbourhood_hit(neighbours, mixed) == 0
    assert map_quality.neighbourhood_hit(neighbours, np.zeros(6, dtype=bool)) is None


def test_silhouette_needs_two_groups() -> None:
    x = blobs()
    assert map_quality.silhouette(x, ["a"] * 60) is None
    assert map_quality.silhouette(x, [str(each) for each in range(60)]) is None
    assert map_quality.silhouette(x, [str(each) for each in GROUPS]) > 0.7  # type: ignore[operator]


def test_random_filters_alone_make_clusters(tiny_ccve: ClusterClipEncoder) -> None:
    images = torch.rand(12, 1, 128, 128, generator=torch.Generator().manual_seed(0)) * 0.02 + 0.4
    state = torch.random.get_rng_state()
    control = with_random_filters(tiny_ccve, images, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.allclose(tiny_ccve.pictures(images), control.pictures(images), atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(tiny_ccve.clip.parameters(), control.clip.parameters(), strict=True))
    with torch.inference_mode():
        tokens = control(images).tokens
    filters = [str(k) for _ in range(12) for k in range(13)]
    points = tokens.flatten(0, 1).numpy()
    assert map_quality.silhouette(points, filters) > 0.5  # type: ignore[operator]


@pytest.fixture(scope="module")
def tiny_ccve() -> ClusterClipEncoder:
    """Untrained, its gates open."""
    from core.encoders import build_encoder
    from core.text import Vocabulary

    torch.manual_seed(0)
    encoder = build_encoder("ccve", "tiny", vocabulary=Vocabulary.build(["clear lungs"], 1))
    assert isinstance(encoder, ClusterClipEncoder)
    torch.nn.init.constant_(encoder.filters.gate, 1.0)  # type: ignore[arg-type]
    return encoder.freeze()


PARENT = """
import sys, time, numpy as np
from core.projection.job import ProjectionJob
from core.projection.methods import ProjectionConfig
table = np.random.default_rng(0).normal(size=(30_000, 50)).astype(np.float32)  # minutes of work: it cannot end first
job = ProjectionJob(table, ProjectionConfig(method="t-SNE"))
while job.progress() == (0.0, "Starting"):
    assert not job.done()
    time.sleep(0.02)
print(job._process.pid, flush=True)
time.sleep(600)
"""


@needs.SIGNALS.unless(os.name == "posix")
def test_a_job_ends_with_a_parent_that_is_killed(own_cache: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    _, alive = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=60)
    assert not alive
    assert not list(own_cache.glob("projections/*"))
