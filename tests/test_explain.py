"""Targets and methods: hand-worked values, and captum's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from torch import Tensor, nn
from torch.nn import functional

from core.bundles.pair import ReportModel
from core.explain import targets
from core.explain.attention import attention, cls_attention
from core.explain.gradients import cam_layers, grad_cam, integrated_gradients, smooth_grad
from core.explain.methods import explain
from core.explain.on_image import content_share, on_image, on_square, padding_share
from core.explain.passes import baseline_image
from core.explain.perturbations import occlusion, random_masks
from core.explain.subject import Subject, open_subject, token_runs
from core.explain.targets import FeatureMap
from core.observations import OBSERVATIONS
from core.registry import DECODERS
from core.text import Vocabulary
from core.types import Attribution, CXRLensError, Geometry
from tests.tiny_models import random_image, report_of, tiny_pair

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def fve(vocabulary: Vocabulary) -> ReportModel:
    return tiny_pair("fve", "m2", vocabulary)


@pytest.fixture(scope="module")
def ccve(vocabulary: Vocabulary) -> ReportModel:
    return tiny_pair("ccve", "transformer", vocabulary)


@pytest.fixture(scope="module")
def subject(fve: ReportModel, vocabulary: Vocabulary) -> Subject:
    return open_subject(fve, random_image(), report_of(vocabulary))


@pytest.fixture(scope="module")
def filtered(ccve: ReportModel, vocabulary: Vocabulary) -> Subject:
    return open_subject(ccve, random_image(), report_of(vocabulary))


# ---------------------------------------------------------------------------------------------------------- hand-worked


@dataclass(frozen=True)
class Linear:
    """A target that is a weighted sum, so that every method's answer is known."""

    weights: Tensor  # (1, H, H) or (N,) or (D, h, w)
    name: str = "a sum"

    def of_images(self, subject: Subject, images: Tensor) -> Tensor:
        return (images * self.weights).flatten(1).sum(1)

    def of_tokens(self, subject: Subject, tokens: Tensor) -> Tensor:
        return (tokens.sum(2) * self.weights).sum(1)

    def maps(self, subject: Subject) -> list[FeatureMap]:
        return [FeatureMap("dve", torch.arange(8.0).view(1, 2, 2, 2), nn.Identity())]

    def of_maps(self, subject: Subject, maps: Sequence[Tensor]) -> Tensor:
        return (maps[0] * self.weights).flatten(1).sum(1)

    def unit(self, scores: Tensor) -> Tensor:
        return scores


PLACE = torch.randn(1, 128, 128, generator=torch.Generator().manual_seed(2))


def test_grad_cam_by_hand(subject: Subject) -> None:
    weights = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[-1.0, -1.0], [0.0, 0.0]]])  # mean gradients 1 and -0.5
    (found,) = grad_cam(subject, Linear(weights))
    np.testing.assert_allclose(found.values, [[0 - 2, 1 - 2.5], [2 - 3, 3 - 3.5]])
    assert found.signed


def test_integrated_gradients_of_a_sum_are_its_terms(subject: Subject) -> None:
    (found,) = integrated_gradients(subject, Linear(PLACE), baseline="black", steps=3)
    np.testing.assert_allclose(found.values, (PLACE * subject.square[0])[0], atol=1e-5)


def test_smoothgrad_of_a_sum_is_the_size_of_its_weights(subject: Subject) -> None:
    (found,) = smooth_grad(subject, Linear(PLACE), samples=3)
    np.testing.assert_allclose(found.values, PLACE[0].abs(), atol=1e-5)
    assert not found.signed


def test_occlusion_of_a_sum_is_what_the_window_held(subject: Subject) -> None:
    weights = torch.zeros(1, 128, 128)
    weights[0, 3, 3] = 2.0  # in the first window only: windows are 11 pixels wide, 9 apart
    (found,) = occlusion(subject, Linear(weights), baseline="black")
    expected = np.zeros((128, 128))
    expected[:11, :11] = 2 * float(subject.square[0, 0, 3, 3])
    expected[9:11, :11] /= 2  # the second window lies there too, and held nothing
    expected[:9, 9:11] /= 2
    expected[9:11, 9:11] /= 2
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_covering_tokens_of_a_sum_takes_their_terms(subject: Subject) -> None:
    weights = torch.linspace(-1, 1, 32)
    terms = (subject.visual.tokens[0].sum(1) * weights).numpy()
    for method in (occlusion, integrated_gradients):
        cdc, fgc = method(subject, Linear(weights), over="tokens")
        np.testing.assert_allclose(np.concatenate([cdc.values.ravel(), fgc.values.ravel()]), terms, atol=1e-4)
        assert (cdc.source, fgc.source, cdc.values.shape) == ("fve.cdc", "fve.fgc", (4, 4))


def test_random_masks_find_the_terms_of_a_sum(filtered: Subject) -> None:
    weights = torch.linspace(-1, 1, 13)
    terms = (filtered.visual.tokens[0].sum(1) * weights).numpy()
    (found,) = random_masks(filtered, Linear(weights), over="tokens", masks=4000, batch=500)
    np.testing.assert_allclose(found.values, terms, atol=0.1 * np.abs(terms).max())
    again, same, other = (
        random_masks(filtered, Linear(weights), over="tokens", masks=50, seed=seed)[0].values for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(again, same)
    assert not np.allclose(again, other)


def test_random_masks_point_at_the_pixels_that_count(subject: Subject) -> None:
    weights = torch.zeros(1, 128, 128)
    weights[0, 80:96, 16:32] = 1.0
    (found,) = random_masks(subject, Linear(weights), masks=200, baseline="black", batch=200)
    y, x = np.unravel_index(found.values.argmax(), (128, 128))
    assert 72 <= y < 104
    assert 8 <= x < 40


# --------------------------------------------------------------------------------------------------------------- captum


def scored(subject: Subject, target: targets.Target) -> nn.Module:
    class Score(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return target.of_images(subject, images)

    return Score()


def test_pixel_methods_equal_captums_on_the_whole_pair(subject: Subject) -> None:
    target = targets.word(subject, "effusion")
    score, start = scored(subject, target), baseline_image(subject, "mean")
    (found,) = integrated_gradients(subject, target, steps=4, batch=2)
    theirs = IntegratedGradients(score).attribute(subject.square, start, n_steps=4)
    np.testing.assert_allclose(found.values, theirs[0, 0].detach(), atol=1e-6)
    (found,) = occlusion(subject, target, windows=4, batch=3)
    with torch.no_grad():
        theirs = Occlusion(score).attribute(subject.square, (1, 32, 32), strides=(1, 32, 32), baselines=start)
    np.testing.assert_allclose(found.values, theirs[0, 0], atol=1e-5)


@pytest.mark.parametrize("layer", [None, "layer4", "layer2"])
def test_grad_cam_equals_captums_on_the_whole_pair(layer: str | None, subject: Subject) -> None:
    target = targets.sentence(subject, 1)
    found = grad_cam(subject, target, layer=layer)
    for each, tower in zip(found, (subject.model.encoder.cdc, subject.model.encoder.fgc), strict=True):  # type: ignore[union-attr]
        module = tower.model.get_submodule(layer or "layer4")  # type: ignore[union-attr]
        theirs = LayerGradCam(scored(subject, target), module).attribute(subject.square.clone().requires_grad_())
        np.testing.assert_allclose(each.values, theirs[0, 0].detach(), atol=1e-5, rtol=1e-4)


def test_grad_cam_of_a_likeness_equals_captums(vocabulary: Vocabulary, filtered: Subject) -> None:
    cve = open_subject(tiny_pair("cve", "m2", vocabulary), random_image(), report_of(vocabulary))
    for each, cluster in ((cve, None), (filtered, "Edema")):
        target = targets.similarity(each, "large effusion", cluster)
        module = each.model.encoder.clip.image.visual.trunk.layer4  # type: ignore[union-attr]
        theirs = LayerGradCam(scored(each, target), module).attribute(each.square.clone().requires_grad_())
        np.testing.assert_allclose(grad_cam(each, target)[0].values, theirs[0, 0].detach(), atol=1e-6)


@pytest.mark.parametrize("over", ["pixels", "tokens"])
def test_integrated_gradients_are_complete(over: str, subject: Subject) -> None:
    target = targets.mention(subject, "Cardiomegaly")
    found = integrated_gradients(subject, target, over=over, steps=128, baseline="black")  # type: ignore[arg-type]
    with torch.no_grad():
        if over == "pixels":
            ends = target.of_images(subject, torch.cat([subject.square, torch.zeros_like(subject.square)]))
        else:
            tokens = subject.visual.tokens
            ends = target.of_tokens(subject, torch.cat([tokens, torch.zeros_like(tokens)]))
    expected = float(ends[0] - ends[1])
    total = sum(float(each.values.sum()) for each in found)
    assert total == pytest.approx(expected, abs=0.02 * abs(expected) + 1e-3)
    assert found[0].details["convergence_delta"] == pytest.approx(total - expected, abs=1e-3)


# -------------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("name", DECODERS)
def test_likelihoods_are_those_of_writing(name: str, vocabulary: Vocabulary) -> None:
    subject = open_subject(tiny_pair("dve", name, vocabulary), random_image())
    tokens = subject.visual.tokens
    whole = targets.whole_report(subject)
    with torch.no_grad():
        score = whole.of_tokens(subject, tokens)
        by_word = whole.by_word(subject, tokens)
        torch.testing.assert_close(whole.of_images(subject, subject.square), score)
        pieces = [targets.word(subject, place).of_tokens(subject, tokens) for place in range(len(subject.report.words))]
    torch.testing.assert_close(subject.by_word(by_word[0]), torch.cat(pieces))
    if name != "cnn_rnn_rnn":  # its planner forbids words, which the likelihood does not
        assert float(score) == pytest.approx(subject.report.log_probability, abs=1e-3)


def test_a_reference_is_read_as_if_it_had_been_written(subject: Subject) -> None:
    target = targets.reference(subject, "No effusion. Heart is large.")
    assert target.ids == targets.whole_report(subject).ids
    with pytest.raises(CXRLensError, match="has 0 words"):
        targets.reference(subject, "  ")


def test_a_planner_gets_the_reference_in_its_order_and_without_end(vocabulary: Vocabulary) -> None:
    subject = open_subject(tiny_pair("dve", "cnn_rnn_rnn", vocabulary), random_image())
    target = targets.reference(subject, "No effusion. Heart is large.")
    words = [vocabulary.words[index] for index in target.ids]
    assert words == ["heart", "is", "large", ".", "<sentence-end>", "no", "effusion", ".", "<sentence-end>"]


def test_words_sentences_and_mentions_are_found(subject: Subject) -> None:
    assert targets.word(subject, 5).name == "word 5: large"
    assert targets.sentence(subject, 1).positions == (3, 4, 5, 6)
    effusion = targets.mention(subject, "Pleural Effusion")
    assert (effusion.positions, effusion.name) == ((0, 1), "negative mention of Pleural Effusion: no effusion")
    assert targets.mention(subject, "Cardiomegaly").positions == (3, 4, 5)  # with the words that decide: "is large"
    assert targets.mention_sentence(subject, "Cardiomegaly").positions == (3, 4, 5, 6)


def test_what_is_not_in_the_report_is_named(subject: Subject) -> None:
    with pytest.raises(CXRLensError, match="does not have the word 'efusion'. Did you mean 'effusion'"):
        targets.word(subject, "efusion")
    with pytest.raises(CXRLensError, match="no word 7: it has 7 words"):
        targets.word(subject, 7)
    with pytest.raises(CXRLensError, match="no sentence 2"):
        targets.sentence(subject, 2)
    with pytest.raises(CXRLensError, match="does not speak of Edema. It speaks of: Pleural Effusion, Cardiomegaly"):
        targets.mention(subject, "Edema")


def test_logits_are_the_classifiers_own(subject: Subject) -> None:
    encoder = subject.model.encoder
    target = targets.logit(subject, "cdc", "Edema")
    with torch.no_grad():
        expected = encoder.cdc(encoder.normalize(subject.square))[:, OBSERVATIONS.index("Edema")]  # type: ignore[union-attr, operator]
        torch.testing.assert_close(target.of_images(subject, subject.square), expected)
        torch.testing.assert_close(target.of_maps(subject, [each.values for each in target.maps(subject)]), expected)
    with pytest.raises(CXRLensError, match="Did you mean 'Edema'"):
        targets.logit(subject, "cdc", "Edemas")
    with pytest.raises(CXRLensError, match="410 classes, but 14 names"):
        targets.logit(subject, "fgc", "Edema")


def test_likeness_is_clips_cosine_of_each_filter(filtered: Subject) -> None:
    tower = filtered.model.encoder.clip.text  # type: ignore[union-attr]
    with torch.no_grad():
        text = functional.normalize(tower(tower.tokenize(["large effusion"])), dim=1)[0]  # type: ignore[operator]
        each = functional.normalize(filtered.visual.tokens[0], dim=1) @ text
    one = targets.similarity(filtered, "large effusion", "Edema")
    mean = targets.similarity(filtered, "large effusion")
    with torch.no_grad():
        torch.testing.assert_close(one.of_images(filtered, filtered.square)[0], each[4])
        torch.testing.assert_close(mean.of_images(filtered, filtered.square)[0], each.mean())
    assert (each.abs() <= 1).all()


def test_what_an_encoder_does_not_have_is_named(subject: Subject, filtered: Subject) -> None:
    for ask, message in (
        (lambda: targets.logit(filtered, "cdc", "Edema"), "only FVE has logits"),
        (lambda: targets.similarity(subject, "large heart"), "only encoders with one compare"),
        (lambda: targets.similarity(filtered, "zzz qqq"), "learned none of the words"),
        (lambda: targets.similarity(filtered, " "), "Type a text"),
        (lambda: targets.similarity(filtered, "heart", "Rickets"), "no filter 'Rickets'"),
        (lambda: grad_cam(filtered, targets.word(filtered, 0)), "reads filters, not image cells.*Possible"),
        (lambda: grad_cam(filtered, targets.similarity(filtered, "heart")), "Choose the filter"),
        (lambda: occlusion(subject, targets.logit(subject, "cdc", "Edema"), over="tokens"), "depends on pixels"),
        (lambda: attention(subject, targets.logit(subject, "cdc", "Edema")), "explains words"),
        (lambda: explain(subject, targets.word(subject, 0), "tea-leaves"), "no method 'tea-leaves'. Known: attention"),
        (lambda: explain(subject, targets.word(subject, 0), "attention", over="pixels"), "runs over tokens"),
        (lambda: grad_cam(subject, targets.word(subject, 0), layer="layer9"), "no layer 'layer9'.*layer4"),
        (lambda: on_image(attention(filtered, targets.word(filtered, 0))), "no place in the image"),
    ):
        with pytest.raises(CXRLensError, match=message):
            ask()


# ------------------------------------------------------------------------------------------------------------ attention


@pytest.mark.parametrize("name", DECODERS)
def test_attention_of_words_is_the_reports_own(name: str, vocabulary: Vocabulary) -> None:
    subject = open_subject(tiny_pair("fve", name, vocabulary, seed=1), random_image())
    stored = subject.report.word_attention
    assert stored is not None
    last = targets.word(subject, len(stored) - 1)
    cdc, fgc = attention(subject, last)
    np.testing.assert_allclose(np.concatenate([cdc.values.ravel(), fgc.values.ravel()]), stored[-1], atol=1e-5)
    assert 0 < cdc.details["image"] <= 1
    one_head = attention(subject, last, layer=0, head=0)
    assert sum(each.values.sum() for each in one_head) == pytest.approx(1, abs=1e-5)


def test_cls_attention_is_the_reports_own_and_the_planner_says_that_it_has_none(vocabulary: Vocabulary) -> None:
    subject = open_subject(tiny_pair("dve", "m2", vocabulary), random_image())
    (found,) = cls_attention(subject)
    np.testing.assert_allclose(found.values.ravel(), subject.report.cls_attention, atol=1e-6)
    (one,) = cls_attention(subject, layer=1, head=2)
    assert one.values.sum() == pytest.approx(1, abs=1e-5)
    planner = open_subject(tiny_pair("dve", "cnn_rnn_rnn", vocabulary), random_image())
    (fallback,) = cls_attention(planner)
    assert fallback.method == "attention (no CLS token)"
    (words,) = attention(planner, targets.whole_report(planner))
    np.testing.assert_array_equal(fallback.values, words.values)


# ----------------------------------------------------------------------------------------------- geometry, other sizes


def test_padding_is_not_data(vocabulary: Vocabulary) -> None:
    geometry = Geometry(64, 128, 128)
    np.testing.assert_allclose(content_share(geometry, (4, 4)), np.repeat([[0], [1], [1], [0]], 4, axis=1))
    np.testing.assert_allclose(content_share(geometry, (2, 1)), [[0.5], [0.5]])
    even = (Attribution(np.ones((4, 4), np.float32), False, "", "", geometry),)
    assert padding_share(even) == pytest.approx(0.5)
    assert on_image(even).shape == (64, 128)
    np.testing.assert_allclose(on_square(even, 8), 16)
    np.testing.assert_allclose(on_image(even), 16)
    wide = open_subject(tiny_pair("dve", "m2", vocabulary), random_image(4, 64, 128), report_of(vocabulary))
    for kind in ("mean", "blur"):
        assert not baseline_image(wide, kind)[0, 0, :32].any()  # type: ignore[arg-type]
    (found,) = occlusion(wide, targets.word(wide, 0), windows=4)
    np.testing.assert_allclose(found.values[:32], 0, atol=1e-4)  # float noise of the score, some 1e-6
    assert np.abs(found.values[32:96]).max() > 1e-3


def test_a_bright_square_is_found_where_it_is(subject: Subject) -> None:
    """Upright and unmirrored: the map of a sum over a corner lies in that corner of the original."""
    weights = torch.zeros(1, 128, 128)
    weights[0, 8:24, 96:120] = 1
    found = on_image(occlusion(subject, Linear(weights), baseline="black"))
    y, x = np.unravel_index(found.argmax(), found.shape)
    assert y < 32
    assert x >= 88


def test_several_encoders_jointly(vocabulary: Vocabulary) -> None:
    subject = open_subject(tiny_pair("ccve+fve", "transformer", vocabulary), random_image(), report_of(vocabulary))
    runs = token_runs(subject.visual)
    assert [(run.source, run.grid) for run in runs] == [("ccve", None), ("fve.cdc", (4, 4)), ("fve.fgc", (4, 4))]
    target = targets.word(subject, 1)
    assert [each.source for each in attention(subject, target)] == ["ccve", "fve.cdc", "fve.fgc"]
    assert [each.source for each in grad_cam(subject, target)] == ["fve.cdc", "fve.fgc"]
    assert np.abs(integrated_gradients(subject, target, steps=2)[0].values).max() > 0
    assert np.abs(grad_cam(subject, target, layer="layer3")[1].values).max() > 0
    assert targets.logit(subject, "cdc", "Edema").of_images(subject, subject.square).shape == (1,)


def test_layers_are_those_of_the_cnn(subject: Subject, filtered: Subject) -> None:
    assert cam_layers(subject, targets.word(subject, 0))[-4:] == ("layer1", "layer2", "layer3", "layer4")
    assert cam_layers(filtered, targets.word(filtered, 0)) == ()
