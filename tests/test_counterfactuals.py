"""Counterfactuals: known words and likelihoods, regions, filters, swapped tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.bundles.pair import ReportModel
from core.encoders.ccve import ClusterClipEncoder
from core.explain import targets
from core.explain.counterfactuals import differences, polygon, without_filters, without_region
from core.explain.passes import baseline_image
from core.explain.subject import Subject, open_subject, with_image
from core.observations import CLUSTERS
from core.studies.images import to_square
from core.text import END, SENTENCE_END, Vocabulary, tokenize
from core.types import CXRLensError, Report
from tests.tiny_models import random_image, snapshot, tiny_pair

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def fve(vocabulary: Vocabulary) -> ReportModel:
    return tiny_pair("fve", "transformer", vocabulary, seed=3)


@pytest.fixture(scope="module")
def ccve(vocabulary: Vocabulary) -> Subject:
    model = tiny_pair("ccve", "m2", vocabulary, seed=3)
    with torch.no_grad():
        model.encoder.filters.gate.fill_(1.0)  # type: ignore[union-attr]
    return open_subject(model, random_image(0))


def test_differences_by_hand() -> None:
    before, after = tokenize("There is a small effusion."), tokenize("There is no effusion today.")
    found = differences(before, after)
    assert [(each.kind, " ".join(each.words)) for each in found] == [
        ("same", "there is"),
        ("removed", "a small"),
        ("added", "no"),
        ("same", "effusion"),
        ("added", "today"),
        ("same", "."),
    ]


def test_a_polygon_by_hand() -> None:
    region = polygon([(1, 1), (3, 1), (3, 2), (1, 2)], height=4, width=6)
    assert region.nonzero()[0].tolist() == [1, 1, 1, 2, 2, 2]
    assert region.nonzero()[1].tolist() == [1, 2, 3, 1, 2, 3]
    assert polygon([(-5, -5), (-5, 50), (50, 50), (50, -5)], 4, 6).all()  # cut at the edge


def test_a_region_outside_the_image_is_refused(fve: ReportModel) -> None:
    subject = open_subject(fve, random_image(0, 100, 128))
    with pytest.raises(CXRLensError, match="spans x 200 to 220 and y 5 to 20, the image 0 to 128 and 0 to 100"):
        polygon([(200, 5), (220, 5), (210, 20)], 100, 128)
    with pytest.raises(CXRLensError, match="three corners"):
        polygon([(1, 1), (2, 2)], 100, 128)
    with pytest.raises(CXRLensError, match="three corners"):
        polygon([(1, 1), (2, float("nan")), (3, 3)], 100, 128)
    with pytest.raises(CXRLensError, match="outside the image"):
        without_region(subject, np.zeros((100, 128), dtype=bool))
    with pytest.raises(CXRLensError, match=r"drawn on \(128, 128\) pixels, but the image has \(100, 128\)"):
        without_region(subject, np.ones((128, 128), dtype=bool))


@pytest.mark.parametrize("how", ["blank", "blur"])
def test_covering_a_region_is_covering_the_image_there(how: str, fve: ReportModel) -> None:
    picture = random_image(0, 100, 128)
    subject, before = open_subject(fve, picture), snapshot(fve)
    region = polygon([(20, 10), (90, 10), (90, 60), (20, 60)], 100, 128)
    reference = "No effusion. The heart is large."
    found = without_region(subject, region, how=how, reference=reference)  # type: ignore[arg-type]
    if how == "blank":  # the same by hand, on the original
        grey = np.where(region, np.float32(picture.mean()), picture)
        other = open_subject(fve, grey)
        assert found.after.words == other.report.words
        target = targets.reference(subject, reference)
        with torch.no_grad():
            expected = target.of_images(other, other.square) - target.of_images(subject, subject.square)
        assert found.reference_change == pytest.approx(float(expected), abs=0.02)
    assert found.before is subject.report
    assert len(found.word_changes) == len(subject.report.words)
    assert found.change.startswith("region")
    assert found.report_change != 0
    assert snapshot(fve) == before
    with pytest.raises(CXRLensError, match="not by 'paint'"):
        without_region(subject, region, how="paint")  # type: ignore[arg-type]


def test_changes_of_words_sum_to_that_of_the_report(ccve: Subject) -> None:
    found = without_filters(ccve, ["Edema", "Pneumothorax"])
    ending = 0.0
    if ccve.report.finished:
        whole = targets.whole_report(ccve)
        tokens = ccve.visual.tokens.clone()
        tokens[:, [4, 8]] = 0
        with torch.no_grad():
            ending = float((whole.by_word(ccve, tokens) - whole.by_word(ccve, ccve.visual.tokens))[0, -1])
    assert found.word_changes.sum() + ending == pytest.approx(found.report_change, abs=1e-4)
    assert found.reference_change is None


def test_a_filter_that_is_off_lets_the_image_pass(ccve: Subject) -> None:
    encoder = ccve.model.encoder
    assert isinstance(encoder, ClusterClipEncoder)
    found = without_filters(ccve, ["Edema"], how="filter")
    tokens = ccve.visual.tokens.clone()
    with torch.no_grad():
        tokens[:, 4] = encoder.clip.image(encoder.normalize(ccve.square))
        whole = targets.whole_report(ccve)
        expected = float(whole.of_tokens(ccve, tokens) - whole.of_tokens(ccve, ccve.visual.tokens))
    assert found.report_change == pytest.approx(expected, abs=1e-4)
    assert expected != 0
    assert without_filters(ccve, CLUSTERS).after.words  # all of them off: it still writes


def test_filters_that_are_not_there(ccve: Subject, fve: ReportModel) -> None:
    for ask, message in (
        (lambda: without_filters(open_subject(fve, random_image(0)), ["Edema"]), "only CCVE"),
        (lambda: without_filters(ccve, ["Rickets"]), "no filter 'Rickets'. CCVE's filters: Enlarged"),
        (lambda: without_filters(ccve, []), "No filter was chosen"),
        (lambda: without_filters(ccve, ["Edema"], how="magic"), "not by 'magic'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(CXRLensError, match=message):
            ask()


def test_filters_of_a_joint_pair(vocabulary: Vocabulary) -> None:
    model = tiny_pair("fve+ccve", "m2", vocabulary)
    with torch.no_grad():
        model.encoder.encoders[1].filters.gate.fill_(1.0)  # type: ignore[union-attr, index]
    subject = open_subject(model, random_image(0))
    changes = [without_filters(subject, ["Edema"], how=how).report_change for how in ("token", "filter")]  # type: ignore[arg-type]
    assert all(np.isfinite(changes))
    assert 0 not in changes
    assert changes[0] != changes[1]


def test_changes_stand_at_their_words_where_a_planner_left_sentences_out(vocabulary: Vocabulary) -> None:
    """Each word's change is that of its own log-probability, asked for alone."""
    model = tiny_pair("fve", "cnn_rnn_rnn", vocabulary, seed=3)
    first, second = (vocabulary.encode(word, 9)[1:-1] for word in vocabulary.words[-2:])
    ids = (*first, SENTENCE_END, SENTENCE_END, *second, SENTENCE_END, SENTENCE_END, END)
    words = tuple(vocabulary.decode(ids))
    subject = open_subject(model, random_image(), report=Report(" ".join(words), words, 0.0, True, ids=ids))
    region = np.zeros(subject.image.shape, dtype=np.bool_)
    region[: len(region) // 2] = True
    found = without_region(subject, region, how="blur")
    assert found.word_changes.shape == (len(words),)
    inside = torch.from_numpy(to_square(region.astype(np.float32), subject.geometry))[None, None]
    changed = with_image(subject, subject.square * (1 - inside) + baseline_image(subject, "blur") * inside)
    for place, change in enumerate(found.word_changes):
        asked = targets.word(subject, place)
        with torch.no_grad():
            before, after = (float(asked.of_tokens(each, each.visual.tokens)) for each in (subject, changed))
        assert change == pytest.approx(after - before, abs=1e-5)
