"""Which sentences are marked as reliable: the guarantee over draws, what breaks it, and input that makes none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from core.bundles.card import Card
from core.bundles.library import BundleLibrary
from core.bundles.pair import encode_batch, write_from_tokens
from core.config import DataConfig
from core.decoders.search import GenerateConfig
from core.evaluation import trust
from core.evaluation.trust import SCORES, Judged, Kind, Limit, Rule, calibrate
from core.evaluation.trust_files import FamilyTrust, Trust, read_trust, trust_file, write_trust
from core.evaluation.trust_outcomes import curve, outcome, redraw
from core.evaluation.trust_scores import Sentence, measure, sentences_of
from core.labels.rules import label_report
from core.observations import OBSERVATIONS, LabelState
from core.studies.phantom import PhantomSource
from core.studies.sources import open_source
from core.text import Vocabulary, tokenize
from core.types import CXRLensError, Report, VisualTokens
from tests import needs
from tests.commands import refused
from tests.conftest import BUNDLES
from tests.tiny_models import WORDS, tiny_pair
from training.data import StudyData
from training.stages.trust import TrustWork, judged_sentences, write_family_trust

pytestmark = pytest.mark.numeric
needs_bundles = needs.BUNDLES.unless(BUNDLES.is_dir())
POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN
PHANTOMS = DataConfig(source="phantom", count=500, min_word_count=1, min_fine_label_count=1, max_words=100)
OTHERS = PhantomSource(4, 99)
BLANK = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)


def drawn(
    random: np.random.Generator,
    patients: int,
    error: float = 0.15,
    useful: float = 2.0,
    dependence: float = 0.5,
    sentences: tuple[int, int] = (4, 16),
) -> Judged:
    """Sentences whose truth is known: of a patient they tend to be wrong together; one score tells wrong from right."""
    owner = np.repeat(np.arange(patients), random.integers(*sentences, patients))
    count = len(owner)
    fate = np.sqrt(dependence) * random.normal(size=patients)[owner] + np.sqrt(1 - dependence) * random.normal(
        size=count
    )
    wrong = fate > stats.norm.isf(error)
    scores = random.normal(size=(count, len(SCORES)))
    scores[:, 0] -= useful * wrong
    kinds = np.where(random.random(count) < 0.4, Kind.PRESENT, Kind.ABSENT)
    return Judged(owner, owner, kinds, scores, wrong)


# ---------------------------------------------------------------------------------------------------------- guarantee


def failures(count: int, seed: int, **how: Any) -> tuple[int, list[float]]:
    """In how many draws too many marked sentences are wrong in truth, and the shares that are marked."""
    random, failed, marked = np.random.default_rng(seed), 0, []
    for number in range(count):
        rule = calibrate(drawn(random, 120, **how), SCORES, seed=number)
        many = drawn(random, 1200, **how)
        for kind in Kind:
            found = outcome(rule, many, kind)
            failed += bool(found.marked) and found.by_patient > 0.1
        marked.append(float(rule.marks_of(many).mean()))
    return failed, marked


def test_the_guarantee_holds_over_draws_and_useful_scores_mark_many() -> None:
    failed, marked = failures(20, 1)
    assert failed <= stats.binom.isf(0.001, 20, 0.1)
    assert np.mean(marked) > 0.3


def test_a_useless_score_marks_nothing_where_too_many_are_wrong() -> None:
    failed, marked = failures(20, 2, useful=0.0, error=0.14)
    assert failed <= stats.binom.isf(0.001, 20, 0.1)
    assert np.mean(marked) < 0.02


def test_sentences_of_a_patient_that_go_wrong_together_do_not_fool_it() -> None:
    """A binomial bound over sentences, as if they were independent, fails far more often than it says."""
    random, fooled, ours = np.random.default_rng(3), 0, 0
    for number in range(60):
        many = drawn(random, 60, error=0.11, useful=0.0, dependence=0.999, sentences=(10, 11))
        fooled += stats.binom.cdf(int(many.wrong.sum()), len(many.wrong), 0.1) <= 0.1
        ours += any(limit.marked for limit in calibrate(many, SCORES, seed=number).limits.values())
    assert fooled > 12
    assert ours <= stats.binom.isf(0.001, 60, 0.1)


def test_other_films_break_it_and_the_outcome_tells() -> None:
    random = np.random.default_rng(4)
    rule = calibrate(drawn(random, 400), SCORES)
    elsewhere = drawn(random, 400, error=0.5, useful=-2.0)
    found = outcome(rule, elsewhere)
    assert found.marked > 100
    assert found.error > 0.3 and found.low > 0.1


@settings(max_examples=12)
@given(some.integers(0, 10**6), some.sampled_from([0.05, 0.1, 0.3]))
def test_what_is_marked_is_what_passes_its_own_test(seed: int, alpha: float) -> None:
    many = drawn(np.random.default_rng(seed), 90)
    rule = calibrate(many, SCORES[:3], alpha=alpha, seed=seed)
    marking = [limit.evidence for limit in rule.limits.values() if limit.marked]
    # One kind alone is given the whole risk, once all limits of the other have passed with their half.
    assert not marking or max(marking) >= math.log(2 / (1 - 0.9)) - 1e-9
    for kind, limit in rule.limits.items():
        assert (limit.marked > 0) is math.isfinite(limit.least)
        if limit.marked:
            assert limit.evidence >= math.log(1 / (1 - 0.9)) - 1e-9
            assert limit.wrong <= limit.marked <= limit.sentences
        marks, own = rule.marks_of(many), many.kinds == kind
        values = rule.values_of(many)
        assert not (marks & own).any() or values[marks & own].min() >= limit.least
        assert not (~marks & own).any() or values[~marks & own].max() < limit.least


def test_the_bet_is_what_is_computed_by_hand() -> None:
    """Three patients: none wrong of two, all wrong of one, nothing marked."""
    judged = Judged(
        np.array([1, 1, 2, 3]), np.array([1, 1, 2, 3]), np.array([Kind.ABSENT] * 4), np.zeros((4, 4)),
        np.array([False, False, True, True]),
    )  # fmt: skip
    excess = trust._excess(judged, np.array([True, True, True, False]), 0.1)
    np.testing.assert_allclose(excess, [-0.1, 0.9, 0.0])


def test_draws_of_one_set_of_films_are_counted() -> None:
    many = drawn(np.random.default_rng(5), 240)
    done = redraw(many, SCORES, 120, draws=6)
    assert len(done) == 6
    assert sum(each[None].by_patient > 0.1 for each in done) <= 3
    assert any(each[None].marked > 0.2 for each in done)
    with pytest.raises(CXRLensError, match="cannot calibrate and leave some"):
        redraw(many, SCORES, 240)


# --------------------------------------------------------------------------------------------------------- bad input


def test_all_right_is_marked_and_all_wrong_is_not() -> None:
    many = drawn(np.random.default_rng(6), 150)
    right = calibrate(replace(many, wrong=np.zeros_like(many.wrong)), SCORES)
    assert right.marks_of(many).mean() > 0.9
    wrong = calibrate(replace(many, wrong=np.ones_like(many.wrong)), SCORES)
    assert not wrong.marks_of(many).any() and not wrong.marks_some


def test_a_sentence_that_lacks_a_score_is_never_marked() -> None:
    many = drawn(np.random.default_rng(7), 200, useful=3.0)
    holes = many.scores.copy()
    holes[::3, 3] = np.nan
    rule = calibrate(replace(many, scores=holes), SCORES)
    marks = rule.marks_of(replace(many, scores=holes))
    assert marks.any() and not marks[::3].any()
    assert calibrate(replace(many, scores=holes), SCORES[:3]).marks_of(many)[::3].any()
    with pytest.raises(CXRLensError, match="of 0 patients"):
        calibrate(replace(many, scores=np.full_like(holes, np.nan)), SCORES)


def test_too_few_sentences_and_wrong_numbers_are_refused() -> None:
    few = drawn(np.random.default_rng(8), 11)
    with pytest.raises(CXRLensError, match="of 11 patients"):
        calibrate(few, SCORES)
    with pytest.raises(CXRLensError, match="of 0 patients"):
        calibrate(few.of(np.zeros(len(few.wrong), dtype=bool)), SCORES)
    for wrong in ({"alpha": 0.0}, {"alpha": 1.0}, {"confidence": 1.5}, {"alpha": math.nan}):
        with pytest.raises(CXRLensError, match="lies between 0 and 1"):
            calibrate(few, SCORES, **wrong)
    with pytest.raises(CXRLensError, match="no score 'luck'"):
        calibrate(few, ["luck"])


def test_one_kind_without_sentences_stays_without_marks() -> None:
    many = drawn(np.random.default_rng(9), 200, useful=3.0)
    rule = calibrate(many.of(many.kinds == Kind.ABSENT), SCORES)
    assert not rule.limits[Kind.PRESENT].marked
    assert not rule.marks_of(many)[many.kinds == Kind.PRESENT].any()
    assert rule.marks_some


# ------------------------------------------------------------------------------------------------------------- curves


def test_curves_start_with_the_surest_and_end_with_all() -> None:
    many = drawn(np.random.default_rng(10), 300)
    points = curve(calibrate(many, SCORES), many)
    assert points[-1].share == 1 and points[-1].error == pytest.approx(many.wrong.mean())
    assert points[0].error < points[-1].error / 2
    assert all(each.low <= each.error <= each.high for each in points)
    assert curve(calibrate(many, SCORES), many.of(np.zeros(len(many.wrong), dtype=bool))) == []


def test_none_wrong_has_an_interval_all_the_same() -> None:
    many = drawn(np.random.default_rng(11), 100)
    right = replace(many, wrong=np.zeros_like(many.wrong))
    found = outcome(calibrate(right, SCORES), right)
    assert found.low == 0
    assert found.high == pytest.approx(stats.binomtest(0, 100).proportion_ci(method="wilson").high, rel=0.1)


# -------------------------------------------------------------------------------------------------- what sentences say


def read(text: str) -> list[Sentence]:
    return sentences_of(Report(text, tuple(tokenize(text)), -1.0, finished=True), label_report(text))


def test_a_sentence_states_what_the_report_states() -> None:
    found = read(
        "There is a small left pleural effusion. No effusion on the right. The heart is not enlarged. Trachea."
    )
    assert [each.kind for each in found] == [Kind.PRESENT, None, Kind.ABSENT, None]
    assert [each.first for each in found] == [0, 8, 14, 20]
    assert found[0].states == {"Pleural Effusion": POSITIVE}
    assert found[2].states == {"Cardiomegaly": NEGATIVE}
    (maybe,) = read("There may be an effusion.")
    assert maybe.kind is None
    assert read("") == []


def test_what_contradicts_and_who_agrees() -> None:
    heart = Sentence(0, 3, {"Cardiomegaly": POSITIVE})
    clear = Sentence(0, 3, {"Pleural Effusion": NEGATIVE, "Pneumothorax": NEGATIVE})
    assert heart.contradicts(BLANK) and heart.contradicts(BLANK | {"Cardiomegaly": NEGATIVE})
    assert not heart.contradicts(BLANK | {"Cardiomegaly": UNCERTAIN})
    assert not clear.contradicts(BLANK)
    assert clear.contradicts(BLANK | {"Pneumothorax": POSITIVE})
    assert clear.contradicts(BLANK | {"Pneumothorax": UNCERTAIN})
    assert clear.agreement([BLANK, BLANK | {"Pneumothorax": POSITIVE}]) == 0.5
    assert heart.agreement([BLANK, BLANK | {"Cardiomegaly": UNCERTAIN}]) == 0.5
    assert math.isnan(heart.agreement([]))


@pytest.mark.parametrize("decoder", ["transformer", "m2", "cnn_rnn_rnn"])
def test_likelihoods_of_sentences_add_up_to_the_reports(decoder: str) -> None:
    model = tiny_pair("dve", decoder, Vocabulary.build([" ".join(WORDS)], 1))
    images = torch.rand(3, 1, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))
    visual = encode_batch(model, images)
    reports = write_from_tokens(model, visual, GenerateConfig(beam_size=1, max_words=9))
    same = VisualTokens(visual.tokens[:1], visual.grids, visual.sources)
    found = measure(model, images, visual, reports, same)
    assert all(math.isnan(each.distance) and each.warned for each in found)  # nothing tells usual films: no gate
    np.testing.assert_allclose(found[0].fall, 0, atol=1e-5)
    assert any(np.abs(each.fall).max(initial=0) > 1e-4 for each in found[1:])
    alone = measure(
        model, images[1:2], VisualTokens(visual.tokens[1:2], visual.grids, visual.sources), [reports[1]], same
    )
    np.testing.assert_allclose(alone[0].likelihood, found[1].likelihood, atol=1e-4)  # whatever its batch
    if decoder != "cnn_rnn_rnn":  # a planner's report has ends of sentences beside its words
        for report, each in zip(reports, found, strict=True):
            if not report.finished:
                lengths = [sentence.words for sentence in sentences_of(report, label_report(report.text))]
                total = float((each.likelihood * lengths).sum())
                assert total == pytest.approx(report.log_probability, abs=1e-3)


# --------------------------------------------------------------------------------------------------- file and command


def a_rule(least: float = 0.0, names: tuple[str, ...] = SCORES) -> Rule:
    plain = (0.0,) * len(names), (1.0,) * len(names), (1.0,) * len(names)
    limits = {kind: Limit(*plain, 0.5, least, 30, 90, 40, 1, 4.2) for kind in Kind}
    return Rule(names, 0.1, 0.9, limits)


def a_family(panel: tuple[str, ...], least: float = 0.0) -> FamilyTrust:
    many = drawn(np.random.default_rng(12), 30)
    ways = []
    for names in (SCORES, SCORES[:3]):
        rule = a_rule(least, names)
        kinds: dict[str, Kind | None] = {"all": None, "present": Kind.PRESENT, "absent": Kind.ABSENT}
        found = {name: outcome(rule, many, kind) for name, kind in kinds.items()}
        ways.append(Trust(rule, found, {name: curve(rule, many, kind, points=3) for name, kind in kinds.items()}))
    return FamilyTrust(panel, OTHERS.key, tuple(OTHERS.all_ids()[:2]), dict.fromkeys(panel, ways), {"seed": 0})


@needs_bundles
def test_what_was_measured_comes_back_for_the_same_pairs_only(tmp_path: Path) -> None:
    names = ("phantom-fve-m2", "phantom-fve-transformer")
    cards = {name: BundleLibrary(BUNDLES).card(name) for name in names}
    path, written = trust_file(tmp_path, "phantom"), a_family(names, math.inf)
    write_trust(path, written, cards)
    found = read_trust(path, cards)
    assert found.panel == names and found.other_films == written.other_films
    assert [each.rule for each in found.pairs[names[0]]] == [each.rule for each in written.pairs[names[0]]]
    assert found.pairs[names[0]][0].curves["all"][0].share == pytest.approx(1 / 3, abs=1e-2)

    def changed(card: Card) -> Card:
        return replace(card, content=card.content | {"write": {"beam_size": 9}})

    other = read_trust(path, cards | {names[1]: changed(cards[names[1]])})
    assert list(other.pairs) == [names[0]]
    assert ["agreement" in each.rule.scores for each in other.pairs[names[0]]] == [False]  # one of the panel is another
    assert read_trust(path, {}).pairs == {}
    for damage in ("", "[]", '{"version": 1}', path.read_text().replace('"limits":{', '"limits":{"x":{},')):
        path.write_text(damage)
        with pytest.raises(CXRLensError, match=r"phantom-trust\.json cannot be read"):
            read_trust(path, cards)
    path.write_text('{"version": 99}')
    with pytest.raises(CXRLensError, match="another version"):
        read_trust(path, cards)
    with pytest.raises(FileNotFoundError):
        read_trust(tmp_path / "gone", cards)


@needs_bundles
def test_films_that_stand_in_for_a_films_own_come_along() -> None:
    paths = sorted(BUNDLES.glob("*-trust.json"))
    cards = {card.name: card for card in BundleLibrary(BUNDLES).cards()}
    for path in paths:
        found = read_trust(path, cards)
        assert set(found.other_films) <= set(open_source(found.others).all_ids()), path.name
    assert paths


@needs_bundles
def test_measured_blocks_are_kept_calibrated_and_written(tmp_path: Path) -> None:
    """Blocks that are there are not measured again: here they are made up, few sentences wrong, at random."""
    data = StudyData(PHANTOMS, tmp_path / "data")
    names = ("phantom-fve-m2", "phantom-fve-transformer")
    work = TrustWork("phantom", names, BundleLibrary(BUNDLES), data, tmp_path / "trust")
    random = np.random.default_rng(0)
    with pytest.raises(CXRLensError, match="not all sentences are measured yet"):
        judged_sentences(work, names[0], "validate")
    for split, start, end in work.blocks():
        rows = []
        for study in data.studies[split][start:end]:
            for name in names:
                said = {}
                for each in ("Cardiomegaly", "Edema", "Pneumothorax"):
                    is_there = study.labels[each] in (POSITIVE, UNCERTAIN)
                    said[each] = (POSITIVE if is_there is (random.random() < 0.97) else NEGATIVE).value
                sentences = [
                    [{each: state}, -1.0, None if random.random() < 0.02 else 1.0] for each, state in said.items()
                ]
                warned = study.study_id == data.studies["test"][0].study_id
                row = {"study": study.study_id, "pair": name, "warned": warned, "distance": 0.5}
                rows.append(row | {"states": said, "sentences": sentences})
        path = work.path(split, start, end)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = judged_sentences(work, names[0], "test")
    assert data.studies["test"][0].study_id not in found.films  # the gate warned of it
    assert 0.005 < found.wrong.mean() < 0.08
    path, family = write_family_trust(work, 0.2, 0.8, 0, tmp_path, "cxr-lens trust")
    assert path.stat().st_size < 20_000
    cards = {name: BundleLibrary(BUNDLES).card(name) for name in names}
    read_back = read_trust(path, cards).pairs[names[1]][0]
    assert read_back.rule.limits[Kind.ABSENT].marked == family.pairs[names[1]][0].rule.limits[Kind.ABSENT].marked > 0
    assert read_back.found["absent"].marked > 0
    assert json.loads(path.read_text())["about"]["studies"]["test"] == len(data.studies["test"])


@needs_bundles
def test_the_command_refuses_what_cannot_be(tmp_path: Path) -> None:
    place = ("--runs", tmp_path / "runs", "--out", tmp_path)
    assert "lie between 0 and 1" in refused("trust", "--preset", "phantom", "--alpha", 1.2, *place)
    told = refused("trust", "--preset", "phantom", "--bundle", "phantom-xyz-m2", *place)
    assert "There is no bundle 'phantom-xyz-m2'" in told
