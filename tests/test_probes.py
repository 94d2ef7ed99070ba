"""Probes of features: planted signals are found, shuffled ones are not, what cannot be done is refused in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from sklearn.metrics import f1_score, roc_auc_score

from core.config import load_config
from core.evaluation.auc import both_kinds, macro_aucs, weighted_aucs
from core.evaluation.finds import Share
from core.evaluation.matching import matched
from core.evaluation.resampling import intervals
from core.observations import CLUSTERS, OBSERVATIONS, LabelState
from core.paper.filter_map import FilterMapError, map_path, read_map, write_map
from core.paths import BUNDLES
from tests import needs
from training.data import StudyData
from training.options import PRESETS
from training.paper.ccve_study import (
    RANDOM,
    StudyConfig,
    _encoders,
    _first_pairs,
    _shuffled,
    ccve_study,
    claims_f1,
    filter_map,
    leak_rows,
    shuffled_row,
)
from training.paper.probes import (
    STRENGTHS,
    Labelled,
    Scores,
    catboost_probe,
    decide,
    linear_probe,
    reduce,
    require_catboost,
    usable,
)
from training.run_folder import StageError

pytestmark = pytest.mark.numeric

Features = dict[str, np.ndarray]
Probe = Callable[[Features, Labelled], Scores]
NOTHING = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
SIZES = {"train": 1200, "validate": 400, "test": 600}


@pytest.fixture(scope="module")
def planted() -> tuple[Features, Labelled]:
    """Class "seen" is on axis 0 of 30 features, "hidden" is not in them."""
    random = np.random.default_rng(0)
    features, targets = {}, {}
    for split, count in SIZES.items():
        features[split] = random.normal(size=(count, 30)).astype(np.float32)
        seen = features[split][:, 0] + 0.3 * random.normal(size=count) > 0.5
        targets[split] = np.stack([seen, random.random(count) < 0.4], axis=1).astype(np.float32)
    return features, usable(targets, ("seen", "hidden"))


def test_the_mean_auc_is_scikit_learns_with_ties_and_weights() -> None:
    random = np.random.default_rng(1)
    targets = (random.random((60, 3)) < 0.3).astype(float)
    scores = random.integers(0, 5, (60, 3)).astype(float)  # many ties
    weights = np.vstack([np.ones(60), random.integers(0, 3, 60)])
    found = weighted_aucs(targets, scores, weights)
    for row, weight in enumerate(weights):
        for k in range(3):
            expected = roc_auc_score(targets[:, k], scores[:, k], sample_weight=weight)
            assert found[row, k] == pytest.approx(expected)


def test_draws_are_paired_and_by_patient() -> None:
    random = np.random.default_rng(2)
    targets = (random.random((80, 2)) < 0.5).astype(float)
    scores = targets + random.normal(size=(80, 2))
    subjects = [f"p{place // 2}" for place in range(80)]
    found = macro_aucs(targets, {"a": scores, "b": 3 * scores - 1}, subjects=subjects, resamples=200)
    assert np.array_equal(found["a"][1], found["b"][1])  # the same order, the same draws
    low, high = np.quantile(found["a"][1], [0.025, 0.975])
    assert low < found["a"][0] < high
    everyone = macro_aucs(targets, {"a": scores}, subjects=["one"] * 80, resamples=20)["a"]
    assert np.ptp(everyone[1]) == 0  # one patient is drawn each time


def bayes_auc() -> float:
    """Best AUC there can be of "seen" = 1{x + 0.3 e > 0.5}, x and e normal: x itself as the score, integrated."""
    x = np.linspace(-8, 8, 20_001)
    step = x[1] - x[0]
    chance = ndtr((x - 0.5) / 0.3)
    positive = chance * np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * step
    negative = (1 - chance) * np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * step
    return float((positive * np.cumsum(negative)).sum() / (positive.sum() * negative.sum()))


def linear(features: Features, labels: Labelled) -> Scores:
    scores, strength = linear_probe(features, labels, tell=lambda _: None)
    assert strength in STRENGTHS
    return scores


def catboost(features: Features, labels: Labelled) -> Scores:
    needs.CATBOOST.package("catboost")
    told: list[str] = []
    scores = catboost_probe(features, labels, iterations=40, depth=4, threads=1, tell=told.append)
    assert told == ["CatBoost, seen", "CatBoost, hidden"]
    return scores


@pytest.mark.parametrize("probe", [linear, catboost])
def test_a_probe_comes_near_the_best_that_there_can_be(probe: Probe, planted: tuple[Features, Labelled]) -> None:
    features, labels = planted
    scores = probe(features, labels)["test"]
    seen, hidden = (roc_auc_score(labels.targets["test"][:, k], scores[:, k]) for k in range(2))
    assert bayes_auc() == pytest.approx(0.9756, abs=1e-4)
    assert seen == pytest.approx(bayes_auc(), abs=0.02)
    assert abs(hidden - 0.5) < 0.08


@pytest.mark.parametrize("probe", [linear, catboost])
def test_a_probe_whose_studies_are_out_of_order_finds_nothing(probe: Probe, planted: tuple[Features, Labelled]) -> None:
    features, labels = planted
    slipped = {**features, "test": np.roll(features["test"], 1, axis=0)}  # the planted fault
    assert abs(roc_auc_score(labels.targets["test"][:, 0], probe(slipped, labels)["test"][:, 0]) - 0.5) < 0.08


def test_claims_have_the_best_f1_of_all_thresholds_of_the_validation_split() -> None:
    random = np.random.default_rng(3)
    targets = {split: (random.random((50, 4)) < 0.3).astype(np.float32) for split in SIZES}
    scores: Scores = {
        split: random.integers(0, 9, (50, 4)).astype(np.float32) + targets[split]  # many ties
        for split in ("validate", "test")
    }
    claimed = decide(scores, usable(targets, "abcd"))
    for k in range(4):
        seen, true = scores["validate"][:, k], targets["validate"][:, k]
        best = max(sorted(set(seen), reverse=True), key=lambda threshold: f1_score(true, seen >= threshold))
        assert np.array_equal(claimed[:, k], scores["test"][:, k] >= best)


def test_claims_are_scored_over_all_fourteen_observations_as_reports_are() -> None:
    random = np.random.default_rng(4)
    names = OBSERVATIONS[2:6]
    true, claimed = random.random((30, 14)) < 0.4, random.random((30, 4)) < 0.4
    states = (LabelState.UNCERTAIN, LabelState.POSITIVE)  # an uncertain mention is no positive
    studies = [
        SimpleNamespace(
            subject_id=str(place), labels={name: states[x] for name, x in zip(OBSERVATIONS, row, strict=True)}
        )
        for place, row in enumerate(true.tolist())
    ]
    found = claims_f1(studies, claimed, names)  # type: ignore[arg-type]
    everything = np.zeros_like(true)
    everything[:, 2:6] = claimed
    value, ends = found.scores()["f1"], intervals(found, subjects=[study.subject_id for study in studies])["f1"]
    assert value == pytest.approx(f1_score(true, everything, average="macro", zero_division=0))
    assert ends.low < value < ends.high


def test_pca_is_fitted_on_training_studies_only(planted: tuple[Features, Labelled]) -> None:
    features, _ = planted
    reduced = reduce(features, 5, 0.7)
    moved = reduce({**features, "test": features["test"] * 100}, 5, 0.7)
    np.testing.assert_allclose(moved.features["train"], reduced.features["train"])
    assert reduced.features["test"].shape == (600, 5)
    by_share = reduce(features, None, 0.7)
    assert by_share.variance >= 0.7
    assert reduce(features, by_share.components - 1, 0.7).variance < 0.7


@pytest.mark.parametrize(
    ("count", "width", "asked", "message"),
    [
        (20, 50, 2000, r"2,000 components from 20 training studies\. Ask for 20 or fewer"),
        (50, 30, 2000, r"2,000 components from 30 features a study\. Ask for 30 or fewer"),
    ],
)
def test_more_components_than_there_can_be_are_refused(count: int, width: int, asked: int, message: str) -> None:
    features = {split: np.zeros((count, width), dtype=np.float32) for split in SIZES}
    with pytest.raises(StageError, match=message):
        reduce(features, asked, 0.7)


def test_the_study_looks_for_bundles_before_it_reads_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.paper.ccve_study.require_catboost", lambda: None)
    with pytest.raises(StageError, match="has no bundle of the family 'phantom'. Run: cxr-lens train"):
        ccve_study(None, tmp_path, "phantom", StudyConfig(), tmp_path, tmp_path, "again")  # type: ignore[arg-type]
    with pytest.raises(StageError, match="share of variance to keep is between 0 and 1, not 1.5"):
        StudyConfig(variance=1.5)


def test_the_study_refuses_too_many_components_before_it_encodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.paper.ccve_study.require_catboost", lambda: None)
    monkeypatch.setattr("training.paper.ccve_study._first_pairs", lambda *_: {})
    data = StudyData(load_config(PRESETS, "phantom", ["data.count=48"]).data, tmp_path)
    with pytest.raises(StageError, match=r"2,000 components from \d+ training studies"):
        ccve_study(data, tmp_path, "phantom", StudyConfig(components=2000), tmp_path, tmp_path, "again")


def test_a_class_of_one_kind_is_left_out_and_named() -> None:
    targets = {split: np.tile(np.eye(4, 3, dtype=np.float32), (3, 1)) for split in SIZES}
    targets["validate"][:, 1] = 0
    targets["test"][:, 2] = 1
    labels = usable(targets, ("a", "b", "c"))
    assert labels.names == ("a",)
    assert labels.left_out == {"b": "no positives in the validate split", "c": "no negatives in the test split"}
    assert labels.targets["train"].shape == (12, 1)
    targets["train"][:, 0] = 0
    with pytest.raises(StageError, match=r"No class has both.*a: no positives in the train split.*more studies"):
        usable(targets, ("a", "b", "c"))
    assert both_kinds(np.array([[1, 0, 1], [1, 0, 0]])).tolist() == [False, False, True]


def test_matching_counts_equal_texts_and_chance() -> None:
    words = torch.eye(4)
    images = torch.eye(4)[[0, 2, 1, 3]]  # images 1 and 2 are nearest to each other's text
    images, words = images.numpy(), words.numpy()
    found = matched(images, words, ["a", "b", "c", "d"])
    assert (found.share, found.chance) == (Share(2, 4), 0.25)
    found = matched(images, words, ["a", "b", "b", "d"])
    assert (found.share, found.chance) == (Share(4, 4), pytest.approx(6 / 16))
    by_cluster = matched(images, words, ["a", "b", "c", "d"], groups=[0, 1, 2, 0])
    assert (by_cluster.share, by_cluster.chance) == (Share(2, 2), 0.5)  # one pair alone has nothing to be told from


def test_the_map_has_a_point_a_filter_and_study(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    centres = 20 * random.normal(size=(1, len(CLUSTERS), 16))
    trained = (centres + random.normal(size=(8, len(CLUSTERS), 16))).astype(np.float32)
    path = map_path(tmp_path, "demo")
    path.parent.mkdir()
    write_map(path, filter_map([f"s{place}" for place in range(8)], trained, trained))
    read = read_map(path)
    points = read.trained
    assert points.shape == (8, 13, 2)
    assert read.filters == tuple(CLUSTERS)
    within = np.linalg.norm(points - points.mean(0), axis=2).mean()
    between = np.linalg.norm(points.mean(0) - points.mean((0, 1)), axis=1).mean()
    assert between > 2 * within  # 13 separate clusters stay separate


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("{", "is damaged"),
        ('{"studies": ["a"], "filters": ["b"], "settings": {}, "trained": [[[0, 1]]]}', "is damaged.*random_filters"),
        (
            '{"studies": ["a"], "filters": ["b"], "settings": {},'
            ' "trained": [[[0, 1]]], "random_filters": [[[0, 1], [2, 3]]]}',
            r"is damaged: expected finite coordinates of shape \(1, 1, 2\)",
        ),
        (
            '{"studies": ["a"], "filters": ["b"], "settings": {},'
            ' "trained": [[[0, NaN]]], "random_filters": [[[0, 1]]]}',
            "is damaged.*NaN",
        ),
    ],
)
def test_a_damaged_map_says_how_to_write_it(content: str | None, message: str, tmp_path: Path) -> None:
    path = map_path(tmp_path, "demo")
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    with pytest.raises(FilterMapError, match=f"ccve-map.json {message}.*cxr-lens study ccve --preset demo"):
        read_map(path)


PAIRS = 130


class Pairs:
    """Study i is an image of grey i, in cluster i % 13."""

    def cluster_pairs(self, split: str) -> list[tuple[int, int, str]]:
        return [(place, place % 13, str(place)) for place in range(PAIRS)]

    def images(self, split: str, side: int) -> np.ndarray:
        return np.broadcast_to(np.arange(PAIRS, dtype=np.uint8)[:, None, None], (PAIRS, side, side))


class Texts:
    def __init__(self, code: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.code = code

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[int(text)] for text in texts])

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.eye(PAIRS)[self.code(ids[:, 0])]


def leak(text: Callable[[torch.Tensor], torch.Tensor], image: Callable[[Any, Any], torch.Tensor]) -> list[float]:
    """Matches by [its radiograph, the mean one] x [any text, texts of the same cluster]."""
    encoder = SimpleNamespace(
        normalize=SimpleNamespace(image_size=2),
        clip=SimpleNamespace(text=Texts(text)),
        embed_pairs=lambda images, clusters: torch.eye(PAIRS)[image(images, clusters)],
    )
    rows = leak_rows(Pairs(), encoder)  # type: ignore[arg-type]
    assert [row.kind for row in rows] == ["system", "system", "control", "control"]
    return [row.metrics["match"].value for row in rows]


def test_the_leak_control_sees_what_the_filters_index_gives_away() -> None:
    """An encoder that knows its filter only: as good without the radiograph; nothing within a cluster."""
    own, own_within, blank, blank_within = leak(lambda ids: ids % 13, lambda _, clusters: clusters)
    chance = 3 / PAIRS  # groups of 64, 64 and 2
    assert own == blank > 5 * chance
    assert own_within == blank_within == pytest.approx(1 / 10)  # ten texts a cluster, all alike: by chance


def test_the_leak_control_takes_the_radiograph_away() -> None:
    """An encoder that reads its radiograph only: always right with it, by chance without: at most one right a group."""
    own, own_within, blank, blank_within = leak(
        lambda ids: ids,
        lambda images, _: (images[:, 0, 0, 0].float() * (255 if images.is_floating_point() else 1)).round().long(),
    )
    assert own == own_within == 1
    assert blank <= 3 / PAIRS  # groups of 64, 64 and 2
    assert blank_within <= 13 / PAIRS  # a group a cluster


def test_shuffled_labels_keep_their_rates_and_leave_the_test_split(planted: tuple[Features, Labelled]) -> None:
    features, labels = planted
    mixed = _shuffled(labels, 0)
    assert np.array_equal(mixed.targets["test"], labels.targets["test"])
    assert np.array_equal(mixed.targets["train"].sum(0), labels.targets["train"].sum(0))
    assert abs(roc_auc_score(labels.targets["test"][:, 0], linear(features, mixed)["test"][:, 0]) - 0.5) < 0.2


def test_the_control_of_other_studies_labels_is_a_mean_near_one_half(
    planted: tuple[Features, Labelled], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = planted
    tested = [SimpleNamespace(subject_id=str(place), labels=NOTHING) for place in range(SIZES["test"])]
    row = shuffled_row(features, labels, tested, lambda _: None)  # type: ignore[arg-type]
    assert row.kind == "control"
    assert row.metrics["auc"].value == pytest.approx(0.5, abs=0.07)
    assert row.metrics["f1"].value == 0  # no study has what is claimed
    low, high = (float(number) for number in re.findall(r"0\.\d+", row.note)[:2])
    assert low < row.metrics["auc"].value < high
    monkeypatch.setattr("training.paper.ccve_study._shuffled", lambda labels, seed: labels)
    found = shuffled_row(features, labels, tested, lambda _: None)  # type: ignore[arg-type]
    assert found.metrics["auc"].value > 0.7  # the fault that it is there to find: labels that were not shuffled


def test_the_random_control_has_ccves_clip_and_other_filters() -> None:
    drawn = np.random.default_rng(0)
    data = SimpleNamespace(images=lambda split, side: drawn.integers(0, 256, (4, side, side), dtype=np.uint8))
    encoders = _encoders(data, BUNDLES, _first_pairs("phantom", BUNDLES))  # type: ignore[arg-type]
    (trained, key), (random, random_key) = encoders["ccve"], encoders[RANDOM]
    assert key != random_key
    ours, theirs = trained.state_dict(), random.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if not name.startswith("filters."))
    images = torch.rand(2, 1, 128, 128)
    assert not torch.allclose(trained.pictures(images), random.pictures(images))  # type: ignore[union-attr, operator]


def test_without_catboost_the_study_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StageError, match=r"pip install 'cxr-lens\[study\]'"):
        require_catboost()
