"""CCVE's filters that start as known filters, the controls beside them, and a training that no stamp solves."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.ndimage import correlate
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from core.bundles.card import BundleError
from core.bundles.library import CLUSTER_FILE, BundleLibrary
from core.config import ClipConfig, ExperimentConfig, load_config
from core.encoders import build_encoder
from core.encoders.ccve import ClusterClipEncoder, ClusterTexts
from core.encoders.filters import MIDDLE, SIDE, starting_kernels
from core.encoders.random_filters import picture_change, with_random_filters, without_filters
from core.files import sha256_of
from core.observations import CLUSTER_PARTS, CLUSTERS, LabelState
from core.projection.embeddings import read_embeddings
from core.studies.phantom import PhantomSource
from core.text import Vocabulary
from dashboard import settings
from tests import needs
from training.data import StudyData
from training.losses import contrastive_loss
from training.modules.clip import ClipModule
from training.options import PRESETS
from training.paper.filter_measures import Truth, picture_differences, tell
from training.stages.clip import cluster_texts, studies_without

pytestmark = pytest.mark.numeric
K = len(CLUSTERS)
needs_bundles = needs.BUNDLES.unless(any(settings.bundles().glob("*ccve*/card.json")))


def ccve(vocabulary: Vocabulary, filters: str = "bank") -> ClusterClipEncoder:
    torch.manual_seed(0)
    encoder = build_encoder("ccve", "tiny", vocabulary=vocabulary, filters=filters, gate=0.3)
    assert isinstance(encoder, ClusterClipEncoder)
    return encoder.freeze()


@pytest.fixture(scope="module")
def phantoms() -> Tensor:
    source = PhantomSource(4, 3)
    return torch.from_numpy(np.stack([source.image(each, 128) for each in source.study_ids])).float().unsqueeze(1)


# ------------------------------------------------------------------------------------------------------------- the bank


def test_the_bank_is_a_correlation_with_its_kernels(vocabulary: Vocabulary) -> None:
    encoder = ccve(vocabulary)
    image = torch.rand(2, 1, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        encoder.filters.shift.copy_(torch.linspace(-0.1, 0.1, K))  # type: ignore[union-attr, operator]
        pictures = encoder.pictures(image).numpy()
    for k in (0, 5, 12):
        for row in range(2):
            grey = image[row, 0].double().numpy() - MIDDLE
            expected = correlate(grey, starting_kernels()[k].astype(float), mode="nearest") + MIDDLE
            np.testing.assert_allclose(pictures[row, k], expected + np.linspace(-0.1, 0.1, K)[k], atol=2e-5)


def test_all_filters_and_one_are_the_same_and_kernels_stay_apart(vocabulary: Vocabulary) -> None:
    filters = ccve(vocabulary).filters
    encoder = ccve(vocabulary)
    images = encoder.normalize(torch.rand(2, 1, 128, 128))
    every = filters.all(images)
    for k in range(K):
        torch.testing.assert_close(filters.one(images, k), every[:, k], atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        filters.kernel[4] += 0.1  # type: ignore[index, operator]
    changed = [k for k in range(K) if not torch.allclose(filters.all(images)[:, k], every[:, k], atol=1e-5)]
    assert changed == [4]


def test_every_kernel_learns_from_its_own_pairs_alone(vocabulary: Vocabulary) -> None:
    encoder = build_encoder("ccve", "tiny", vocabulary=vocabulary, filters="bank")
    assert isinstance(encoder, ClusterClipEncoder)
    encoder.embed_pairs(torch.rand(3, 1, 128, 128), torch.tensor([1, 7, 7])).sum().backward()
    gradient = encoder.filters.kernel.grad  # type: ignore[union-attr]
    assert isinstance(gradient, Tensor)
    assert [k for k in range(K) if gradient[k].abs().sum() > 0] == [1, 7]


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_at_the_start_a_person_sees_each_filter_and_tells_any_two_apart(size: str, vocabulary: Vocabulary) -> None:
    encoder = build_encoder("ccve", size, vocabulary=vocabulary, filters="bank").freeze()  # type: ignore[arg-type]
    assert isinstance(encoder, ClusterClipEncoder)
    source = PhantomSource(3, 3)
    images = np.stack([source.image(each, encoder.normalize.image_size) for each in source.study_ids])
    assert_filters_differ(encoder, torch.from_numpy(images).float().unsqueeze(1))


def test_a_gate_that_is_closed_is_found_out(vocabulary: Vocabulary, phantoms: Tensor) -> None:
    closed = build_encoder("ccve", "tiny", vocabulary=vocabulary, filters="independent").freeze()
    with pytest.raises(AssertionError):
        assert_filters_differ(closed, phantoms)  # type: ignore[arg-type]


def assert_filters_differ(encoder: ClusterClipEncoder, images: Tensor) -> None:
    change, between = picture_differences(encoder, images)
    np.fill_diagonal(between, np.inf)
    assert change.shape == (K,)
    assert change.min() >= 0.05, dict(zip(CLUSTERS, change.round(3), strict=True))
    assert between.min() >= 0.03, dict(zip(CLUSTERS, between.min(1).round(3), strict=True))


def test_differences_by_hand(vocabulary: Vocabulary) -> None:
    encoder = ccve(vocabulary)
    with torch.no_grad():
        encoder.filters.kernel.zero_()  # type: ignore[union-attr, operator]
        encoder.filters.kernel[:, SIDE // 2, SIDE // 2] = 1  # type: ignore[union-attr, index, operator]
        encoder.filters.kernel[3, SIDE // 2, SIDE // 2] = 0  # type: ignore[union-attr, index, operator]
    image = torch.zeros(1, 1, 128, 128)
    image[..., 64:] = 0.8  # range 0.8, mean distance from the middle grey (0.5 + 0.3) / 2
    change, between = picture_differences(encoder, image)
    expected = np.zeros(K)
    expected[3] = 0.4 / 0.8
    np.testing.assert_allclose(change, expected, atol=1e-5)
    assert between[3, 5] == pytest.approx(0.5, abs=1e-5)
    assert between[1, 2] == pytest.approx(0, abs=1e-5)


# ------------------------------------------------------------------------------------------------------------- controls


@pytest.mark.parametrize("filters", ["bank", "independent", "shared_stem"])
def test_random_filters_are_as_strong_as_the_learned_ones(
    filters: str, vocabulary: Vocabulary, phantoms: Tensor
) -> None:
    encoder, phantoms = ccve(vocabulary, filters), phantoms[:2]
    ours = picture_change(encoder, phantoms)
    one, other = (with_random_filters(encoder, phantoms, seed) for seed in (1, 2))
    for control in (one, other):
        torch.testing.assert_close(picture_change(control, phantoms), ours, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(one.pictures(phantoms), other.pictures(phantoms), atol=1e-2)
    assert not torch.allclose(one.pictures(phantoms), encoder.pictures(phantoms), atol=1e-2)
    one.filters.strength.mul_(0.1)  # type: ignore[union-attr, operator]
    with pytest.raises(AssertionError):  # as faint as they used to be
        torch.testing.assert_close(picture_change(one, phantoms), ours, rtol=1e-3, atol=1e-5)


def test_without_filters_every_token_is_that_of_the_radiograph(vocabulary: Vocabulary, phantoms: Tensor) -> None:
    encoder = ccve(vocabulary)
    plain = without_filters(encoder)
    torch.testing.assert_close(picture_change(plain, phantoms[:2]), torch.zeros(K), atol=1e-6, rtol=0)
    tokens = plain(phantoms[:2]).tokens
    expected = encoder.clip.image(encoder.normalize(phantoms[:2]))
    torch.testing.assert_close(tokens, expected.unsqueeze(1).expand(-1, K, -1), atol=1e-4, rtol=1e-3)


# ----------------------------------------------------------------------------------------------- a stamp solves nothing


class Knows(nn.Module):
    """Stands for an encoder: embeds an image, whose grey tells which clusters it has, as what it knows of it."""

    def __init__(self, present: Tensor, stamp_only: bool) -> None:
        super().__init__()
        self.present, self.stamp_only = present, stamp_only
        self.clip = nn.Module()
        self.clip.text = nn.Module()
        self.clip.text.forward = lambda ids: nn.functional.one_hot(ids[:, 0], 2 * K).float()  # type: ignore[method-assign]
        self.clip.logit_scale = nn.Parameter(torch.tensor(math.log(100.0)))

    def embed_pairs(self, images: Tensor, clusters: Tensor) -> Tensor:
        there = self.present[images[:, 0, 0, 0].long(), clusters]
        elsewhere = torch.zeros_like(clusters) if self.stamp_only else (~there).long()
        return nn.functional.one_hot(clusters + K * elsewhere, 2 * K).float()


def loss_of(config: ClipConfig, present: Tensor, *, stamp_only: bool) -> float:
    module = ClipModule(Knows(present, stamp_only), config)  # type: ignore[arg-type]
    rows, clusters = present.nonzero(as_tuple=True)
    batch = {
        "images": rows.float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2),
        "ids": clusters.unsqueeze(1),
        "clusters": clusters,
        "present": present[rows],
    }
    image, text, further = module.embed(batch, batch["images"])
    return float(module._loss(image, text, batch["ids"], clusters, *further).detach())


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    return load_config(PRESETS, "phantom")


@pytest.fixture
def cluster_clip(config: ExperimentConfig) -> ClipConfig:
    return replace(config.cluster_clip, negatives="batch", mask_duplicates=True, absent=True, across_filters=False)


def test_a_stamp_does_not_solve_absent_negatives(cluster_clip: ClipConfig) -> None:
    """Every study has two clusters of thirteen: a stamp finds the text among others, but not who has the finding."""
    torch.manual_seed(0)
    present = torch.zeros(K, K, dtype=torch.bool)
    for study in range(K):
        present[study, [study, (study + 1) % K]] = True
    without = replace(cluster_clip, absent=False)
    assert loss_of(without, present, stamp_only=True) < 0.01  # what was trained before: solved without a look
    assert loss_of(replace(without, across_filters=True), present, stamp_only=True) < 0.01
    assert loss_of(cluster_clip, present, stamp_only=True) > math.log(2) / 2 - 0.01
    assert loss_of(cluster_clip, present, stamp_only=False) < 0.01


def test_absent_images_lack_the_cluster_and_others_do_not_count(cluster_clip: ClipConfig) -> None:
    present = torch.zeros(6, K, dtype=torch.bool)
    present[:4, 2] = True
    present[:, 5] = True  # all have it: there is no image without
    module = ClipModule(Knows(present, stamp_only=False), cluster_clip)  # type: ignore[arg-type]
    clusters = torch.tensor([2, 2, 2, 2, 5, 5])
    images = torch.arange(6.0).view(-1, 1, 1, 1)
    for _ in range(20):
        drawn, filters, has = module._without({"clusters": clusters, "present": present}, images)
        assert set(drawn[:4].flatten().tolist()) <= {4.0, 5.0}
        assert torch.equal(filters, clusters)
        wrong = module.wrong(clusters, filters.unsqueeze(1), has.unsqueeze(1))
        assert wrong[:4, :4].all()  # each text against every image without, through its own filter
        assert not wrong[:, 4:].any() and not wrong[4:].any()


def test_other_filters_are_others_and_negatives_of_their_own_text_only(cluster_clip: ClipConfig) -> None:
    present = torch.ones(5, K, dtype=torch.bool)
    module = ClipModule(Knows(present, stamp_only=False), replace(cluster_clip, absent=False, across_filters=True))  # type: ignore[arg-type]
    clusters = torch.tensor([0, 3, 3, 12, 7])
    images = torch.arange(5.0).view(-1, 1, 1, 1)
    seen = set()
    for _ in range(60):
        same, filters, has = module._elsewhere({"clusters": clusters, "present": present}, images)
        assert torch.equal(same, images)
        assert (filters != clusters).all() and (filters >= 0).all() and (filters < K).all()
        assert torch.equal(module.wrong(clusters, filters.unsqueeze(1), has.unsqueeze(1)), torch.eye(5).bool())
        seen.add(int(filters[0]))
    assert seen == set(range(1, K))


def test_further_images_stand_in_the_texts_softmax_alone() -> None:
    torch.manual_seed(0)
    images, texts, more = (nn.functional.normalize(torch.randn(3, 4), dim=1) for _ in range(3))
    wrong = torch.tensor([[True, False, False], [False, False, False], [True, True, False]])
    scale = torch.tensor(1.5)
    logits = scale.exp() * images @ texts.T
    extra = (scale.exp() * texts @ more.T).exp() * wrong
    by_image = torch.log_softmax(logits, 1).diagonal()
    by_text = logits.diagonal() - (logits.exp().sum(0) + extra.sum(1)).log()
    expected = -(by_image.mean() + by_text.mean()) / 2
    torch.testing.assert_close(contrastive_loss(images, texts, scale, None, [(more, wrong)]), expected)


def test_studies_without_are_drawn_among_those_that_lack_the_cluster() -> None:
    present = torch.rand(40, K, generator=torch.Generator().manual_seed(2)) < 0.5
    present[:, 4] = True
    clusters = torch.arange(K).repeat(9)
    chosen = studies_without(present, clusters)
    lacks = ~present[torch.from_numpy(chosen), clusters]
    assert lacks[clusters != 4].all()
    assert (studies_without(present, clusters) == chosen).all()  # validation sees the same ones every time


# --------------------------------------------------------------------------------------------------- what tokens tell


def made(seed: int, own: float, other: float) -> tuple[dict[str, np.ndarray], np.ndarray, Truth]:
    """Tokens whose number k tells of observation k: ``own`` strongly in token k, ``other`` strongly in the others."""
    draw = np.random.default_rng(seed)
    tokens, targets = {}, {}
    for split, count in (("train", 300), ("validate", 150), ("test", 200)):
        y = (draw.random((count, K)) < 0.3).astype(float)
        x = draw.normal(size=(count, K, K)) + other * y[:, None, :]
        for k in range(K):
            x[:, k, k] += (own - other) * y[:, k]
        tokens[split], targets[split] = x, y
    return tokens, np.eye(K)[:, None], Truth(targets, [str(each) for each in range(200)])  # type: ignore[arg-type]


def test_tokens_that_know_their_own_are_told_from_those_that_know_all_or_nothing() -> None:
    apart = tell(*made(0, own=4.0, other=0.0))
    assert apart.own[0] > 0.97
    assert apart.gap[0] == pytest.approx(apart.own[0] - 0.5, abs=0.02)
    assert np.nanmean(apart.likeness[0]) > 0.8
    assert np.nanmean(apart.likeness_gap[0]) > 0.25
    alike = tell(*made(1, own=2.0, other=2.0))
    assert alike.own[0] > 0.8
    assert abs(alike.gap[0]) < 0.01
    low, high = np.quantile(alike.gap[1:], [0.025, 0.975])
    assert low < 0 < high
    nothing = tell(*made(2, own=0.0, other=0.0))
    assert nothing.own[0] == pytest.approx(0.5, abs=0.03)


def test_likeness_is_sklearns_auc_of_the_cosine_and_rare_clusters_are_left_out() -> None:
    tokens, texts, truth = made(3, own=3.0, other=0.0)
    truth.targets["test"][:, 6] = 0
    found = tell(tokens, texts, truth)
    x = tokens["test"]
    for k in (0, 9):
        cosine = x[:, k, k] / np.linalg.norm(x[:, k], axis=1)
        assert found.likeness[0, k] == pytest.approx(roc_auc_score(truth.targets["test"][:, k], cosine), abs=1e-9)
    assert np.isnan(found.likeness[:, 6]).all()
    assert np.isfinite(found.gap).all()


def test_wordings_count_texts_as_often_as_they_stand(vocabulary: Vocabulary) -> None:
    encoder = ccve(vocabulary)
    pairs = [(0, 2, "heart is large ."), (1, 2, "heart is large ."), (2, 2, "no effusion ."), (3, 9, "no effusion .")]
    found = cluster_texts(encoder, pairs, 1)[:, 0]
    with torch.no_grad():
        one, other = nn.functional.normalize(
            encoder.clip.text(encoder.clip.text.tokenize(["heart is large .", "no effusion ."])), dim=1
        )
    torch.testing.assert_close(found[2], nn.functional.normalize(2 * one + other, dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[9], other, atol=1e-5, rtol=1e-4)
    assert found[0].abs().sum() == 0
    several = cluster_texts(encoder, pairs, 3)
    assert several.shape[:2] == (K, 3)
    torch.testing.assert_close(several[9], other.expand(3, -1), atol=1e-5, rtol=1e-4)  # it has one
    assert {tuple(each.round(decimals=4).tolist()) for each in several[2]} == {
        tuple(each.round(decimals=4).tolist()) for each in (one, other)
    }


def test_ranks_by_hand() -> None:
    usual = torch.linspace(0, 1, 5).repeat(K, 1)
    texts = ClusterTexts(torch.stack([torch.eye(K), torch.eye(K).roll(1, 0)], 1), usual)
    tokens = torch.eye(K).unsqueeze(0) * 3
    torch.testing.assert_close(texts.likeness(tokens), torch.ones(1, K))  # by the first wording
    torch.testing.assert_close(texts.likeness(tokens.roll(1, 1)), torch.ones(1, K))  # by the second
    torch.testing.assert_close(texts.likeness(tokens.roll(5, 1)), torch.zeros(1, K))
    ranks = texts.rank(torch.full((1, K), 0.5))
    torch.testing.assert_close(ranks, torch.full((1, K), 0.5))  # two below, one equal, two above
    assert texts.rank(torch.full((1, K), 2.0)).eq(1).all()


def test_what_a_study_has_is_spoken_of_or_asserted_and_truth_is_positive(
    config: ExperimentConfig, tmp_path: Path
) -> None:
    data = StudyData(replace(config.data, count=60), tmp_path)
    has, truth = data.clusters("train"), data.cluster_targets("train")
    for row, study in enumerate(data.studies["train"]):
        for k, (name, parts) in enumerate(CLUSTER_PARTS.items()):
            states = [study.labels[each] for each in parts]
            assert bool(truth[row, k]) == (LabelState.POSITIVE in states)
            asserted = LabelState.POSITIVE in states or LabelState.UNCERTAIN in states
            assert bool(has[row, k]) == (asserted or name in study.cluster_texts)
    assert CLUSTER_PARTS["Pleural Effusion"] == {"Pleural Effusion", "Pleural Other"}
    assert (has.float() >= truth).all() and has.any()


# --------------------------------------------------------------------------------------------------- shipped bundles


@pytest.fixture(scope="module")
def shipped() -> ClusterClipEncoder:
    encoder = BundleLibrary(settings.bundles()).load("phantom-ccve-m2").encoder
    assert isinstance(encoder, ClusterClipEncoder)
    return encoder


@needs_bundles
def test_filters_of_the_demo_change_pictures_and_differ(shipped: ClusterClipEncoder, phantoms: Tensor) -> None:
    change, between = picture_differences(shipped, phantoms)
    np.fill_diagonal(between, np.inf)
    assert (change >= 0.05).sum() >= K - 1, dict(zip(CLUSTERS, change.round(3), strict=True))
    assert change.min() >= 0.04  # that of Cardiomegaly: 4.5 to 5.5 %, by the studies
    assert between.min() >= 0.03, dict(zip(CLUSTERS, between.min(1).round(3), strict=True))


@needs_bundles
def test_likeness_tells_whether_the_finding_is_there_through_the_same_filter(shipped: ClusterClipEncoder) -> None:
    """A stamp is on every picture of a filter alike: it cannot tell an image with the finding from one without."""
    ids, tensors = read_embeddings(settings.bundles() / "phantom-embeddings-ccve.safetensors")
    texts = BundleLibrary(settings.bundles()).cluster_texts("phantom-ccve-m2")
    assert texts is not None
    found = texts.likeness(torch.from_numpy(tensors["tokens"])).numpy()
    source = PhantomSource(4000, 0)
    labels = [source.study(each).labels for each in ids]
    aucs = [
        roc_auc_score([any(each[name] is LabelState.POSITIVE for name in parts) for each in labels], found[:, k])
        for k, parts in enumerate(CLUSTER_PARTS.values())
    ]
    assert np.mean(aucs) >= 0.80, dict(zip(CLUSTERS, np.round(aucs, 2), strict=True))


@needs_bundles
def test_a_damaged_file_of_texts_is_refused(tmp_path: Path) -> None:
    name = "phantom-ccve-m2"
    for part in (name, "shared/phantom-ccve"):
        shutil.copytree(settings.bundles() / part, tmp_path / part)
    assert BundleLibrary(tmp_path).cluster_texts(name) is not None
    path = tmp_path / "shared/phantom-ccve" / CLUSTER_FILE
    tensors = load_file(path)
    save_file(tensors | {"texts": tensors["texts"][:5].clone()}, path)
    with pytest.raises(BundleError, match="differs from the hash"):
        BundleLibrary(tmp_path).cluster_texts(name)
    card = path.with_name("card.json")
    content = json.loads(card.read_text(encoding="utf-8"))
    content["sha256"][CLUSTER_FILE] = sha256_of(path)
    card.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match="does not fit CCVE"):
        BundleLibrary(tmp_path).cluster_texts(name)
    del content["sha256"][CLUSTER_FILE]
    card.write_text(json.dumps(content), encoding="utf-8")
    assert BundleLibrary(tmp_path).cluster_texts(name) is None  # of before: said on the page, not guessed
