"""BLEU, ROUGE-L and CIDEr against hand-worked values, pycocoevalcap, sacrebleu, and what must always hold."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.evaluation.language import (
    PROTOCOLS,
    bleu,
    bleu_statistics,
    cider_statistics,
    common_subsequence,
    language_statistics,
    r2gen_tokens,
    rouge_l_statistics,
)
from core.evaluation.resampling import join
from core.studies.phantom import PhantomSource
from core.text import tokenize
from core.types import CXRLensError
from tests import needs

Reports = Sequence[Sequence[str]]

words = st.lists(st.sampled_from(["no", "effusion", "heart", "is", "large", "."]), max_size=9)
pairs_of_reports = st.lists(st.tuples(words, words), min_size=2, max_size=8)


@pytest.fixture(scope="module")
def reports() -> tuple[list[str], list[str]]:
    """Full references of phantom studies, and reports that share much with them: others' sentences, words lost."""
    source = PhantomSource(400, 0)
    references = [study.findings for study in source.studies("train")][:200]
    rng = random.Random(1)
    generated = []
    for place, text in enumerate(references):
        sentences = text.split(". ") + references[(place + rng.choice([0, 1, 7])) % len(references)].split(". ")
        rng.shuffle(sentences)
        kept = [word for word in ". ".join(sentences[: len(sentences) // 2]).split() if rng.random() < 0.9]
        generated.append(" ".join(kept))
    generated[3], generated[4] = "", "Pneumoperitoneum"
    return references, generated


def scores(references: Reports, generated: Reports) -> dict[str, float]:
    parts = (bleu_statistics, rouge_l_statistics, cider_statistics)
    return join(*(part(references, generated) for part in parts)).scores()


def pycocoevalcap_scores(references: Reports, generated: Reports) -> dict[str, float]:
    bleu_module = needs.METRICS.package("pycocoevalcap.bleu.bleu")
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = {place: [" ".join(tokens)] for place, tokens in enumerate(references)}
    guess = {place: [" ".join(tokens)] for place, tokens in enumerate(generated)}
    bleus = bleu_module.Bleu(4).compute_score(truth, guess, verbose=0)[0]
    return {
        **{f"bleu_{order}": value for order, value in enumerate(bleus, 1)},
        "rouge_l": Rouge().compute_score(truth, guess)[0],
        "cider": Cider().compute_score(truth, guess)[0],
    }


# --- known answers ---


def test_bleu_by_hand() -> None:
    # n-gram precisions 5/5, 3/4, 2/3, 1/2 (only "seen" is missing); brevity penalty exp(1 - 6/5).
    got = bleu([tokenize("no acute pleural effusion seen today")], [tokenize("no acute pleural effusion today")])
    penalty = math.exp(1 - 6 / 5)
    assert got["bleu_1"] == pytest.approx(penalty)
    assert got["bleu_4"] == pytest.approx((1 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25 * penalty)


def test_bleu_is_of_the_corpus_not_a_mean() -> None:
    references, generated = [["a", "b"], ["c", "d", "e", "f"]], [["a", "x"], ["c", "d", "e", "f"]]
    assert bleu(references, generated)["bleu_1"] == pytest.approx(5 / 6)


def test_rouge_l_by_hand() -> None:
    # Longest common subsequence "no effusion": precision 2/3, recall 2/4, F with beta 1.2.
    statistics = rouge_l_statistics([["no", "pleural", "effusion", "seen"]], [["no", "large", "effusion"]])
    expected = (1 + 1.44) * (2 / 3) * (1 / 2) / (1 / 2 + 1.44 * 2 / 3)
    assert statistics.scores()["rouge_l"] == pytest.approx(expected)


def test_cider_by_hand() -> None:
    # Two references; every n-gram of the first is in it alone: weight log 2, which cancels in the cosine.
    # The report has 2 of 4 words (cosine 2 / sqrt(2 * 4)), 1 of 3 pairs (1 / sqrt(1 * 3)), no longer n-gram.
    # Lengths in pairs of words: 1 and 3. The second report shares nothing.
    references, generated = [["a", "b", "c", "d"], ["e", "f"]], [["a", "b"], ["x", "y"]]
    first = 10 / 4 * (2 / math.sqrt(8) + 1 / math.sqrt(3)) * math.exp(-4 / 72)
    assert cider_statistics(references, generated).scores()["cider"] == pytest.approx(first / 2)


def test_words_of_every_reference_weigh_nothing_in_cider() -> None:
    statistics = cider_statistics([["the", "heart"], ["the", "lungs"]], [["the"], ["the"]])
    assert statistics.scores()["cider"] == 0


def test_cider_refuses_a_single_report_unless_told_a_corpus() -> None:
    report = ["no", "pleural", "effusion", "."]
    with pytest.raises(CXRLensError, match="CIDEr cannot be computed from 1 report.*at least two studies"):
        cider_statistics([report], [report])
    with pytest.raises(CXRLensError, match="CIDEr"):
        language_statistics(["No effusion."], ["No effusion."])
    corpus = [report, ["the", "heart", "is", "large"], ["clear", "lungs", "today", "."]]
    assert cider_statistics([report], [report], corpus).scores()["cider"] == pytest.approx(10)


def test_a_corpus_that_is_the_references_changes_nothing(reports: tuple[list[str], list[str]]) -> None:
    references, generated = ([tokenize(text) for text in texts] for texts in reports)
    assert cider_statistics(references, generated, references).scores() == pytest.approx(
        cider_statistics(references, generated).scores()
    )


@pytest.mark.parametrize("score", [bleu_statistics, rouge_l_statistics, cider_statistics])
def test_unequal_lists_are_refused(score: object) -> None:
    with pytest.raises(ValueError, match="1 references for 0 generated"):
        score([["a"]], [])  # type: ignore[operator]


def test_a_flipped_negation_fools_the_language_metrics() -> None:
    # The standard trap: opposite meaning, high score. It is why clinical scores stand beside.
    references = ["No pleural effusion is seen.", "The heart is large and the lungs are clear."]
    flipped = ["Pleural effusion is seen.", references[1]]
    assert language_statistics(references, flipped).scores()["bleu_1"] > 0.9


# --- the reference implementation ---


def test_equal_to_pycocoevalcap_on_full_references(reports: tuple[list[str], list[str]]) -> None:
    theirs = pycocoevalcap_scores(*([tokenize(text) for text in texts] for texts in reports))
    assert language_statistics(*reports).scores() == pytest.approx(theirs, abs=1e-9, rel=1e-9)
    assert theirs["cider"] > 0.1 and theirs["bleu_4"] > 0.1  # the comparison is about something


@settings(max_examples=60, deadline=None)
@given(pairs_of_reports)
def test_equal_to_pycocoevalcap_on_any_reports(pairs: list[tuple[list[str], list[str]]]) -> None:
    references, generated = zip(*pairs, strict=True)
    if not any(references):
        return  # pycocoevalcap cannot compute CIDEr of references without any word
    assert scores(references, generated) == pytest.approx(
        pycocoevalcap_scores(references, generated), abs=1e-9, rel=1e-9
    )


def test_bleu_equals_sacrebleu(reports: tuple[list[str], list[str]]) -> None:
    sacrebleu = needs.DEVELOPER.package("sacrebleu.metrics")
    ours = language_statistics(*reports).scores()
    theirs, guess = ([" ".join(tokenize(text)) for text in texts] for texts in reports)
    for order in (1, 2, 3, 4):
        scorer = sacrebleu.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
        assert ours[f"bleu_{order}"] == pytest.approx(scorer.corpus_score(guess, [theirs]).score / 100, abs=1e-9)


# --- what must always hold ---


@settings(max_examples=60, deadline=None)
@given(pairs_of_reports, st.randoms(use_true_random=False))
def test_the_order_of_studies_does_not_matter(pairs: list[tuple[list[str], list[str]]], rng: random.Random) -> None:
    shuffled = rng.sample(pairs, len(pairs))
    assert scores(*zip(*shuffled, strict=True)) == pytest.approx(scores(*zip(*pairs, strict=True)), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(pairs_of_reports)
def test_scores_stay_within_bounds(pairs: list[tuple[list[str], list[str]]]) -> None:
    got = scores(*zip(*pairs, strict=True))
    assert 0 <= got.pop("cider") <= 10 + 1e-9
    assert all(0 <= value <= 1 for value in got.values()), got


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=9), min_size=2, max_size=8))
def test_equal_reports_score_full_marks(reports: list[list[str]]) -> None:
    got = scores(reports, reports)
    cider = got.pop("cider")
    assert list(got.values()) == pytest.approx([1] * 5, abs=1e-8)
    if not {tuple(each) for each in reports} & {tuple(each) for each in reports[1:]}:  # all n-grams weigh something
        assert cider == pytest.approx(10)


@given(words, words)
def test_the_common_subsequence_equals_the_table_of_lengths(first: list[str], second: list[str]) -> None:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    assert common_subsequence(first, second) == table[-1][-1]


@settings(max_examples=40, deadline=None)
@given(pairs_of_reports, st.data())
def test_sums_of_a_resample_give_its_scores(pairs: list[tuple[list[str], list[str]]], data: st.DataObject) -> None:
    # What makes the bootstrap right: adding up studies is scoring them as a corpus.
    references, generated = zip(*pairs, strict=True)
    drawn = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=12))
    again = [references[place] for place in drawn], [generated[place] for place in drawn]
    for part in (bleu_statistics, rouge_l_statistics):
        statistics = part(references, generated)
        assert statistics.from_sums(statistics.values[drawn].sum(0)) == pytest.approx(
            list(part(*again).scores().values()), abs=1e-12
        )


# --- protocols ---


def test_r2gen_tokens_by_hand() -> None:
    text = (
        "1. Heart size is normal.. 2. No focal/airspace disease. There's a 3.5 cm well-defined nodule (left), stable."
    )
    expected = "heart size is normal . no focalairspace disease . theres a 35 cm well-defined nodule left stable ."
    assert " ".join(r2gen_tokens(text)) == expected


def test_cut_references_are_cut_before_scoring() -> None:
    # R2Gen's references end after 59 tokens; a report that ends there too is perfect by that protocol only.
    long = [" ".join(f"word{place}x{i}" for i in range(80)) for place in "ab"]
    short = [" ".join(text.split()[:59]) for text in long]
    whole, cut = (
        language_statistics(long, [text + " tail" for text in short], PROTOCOLS[name]).scores()["bleu_1"]
        for name in ("r2gen", "r2gen-60")
    )
    assert cut == pytest.approx(59 / 61)  # "tail" and the full stop are too much
    assert whole == pytest.approx(60 / 61 * math.exp(1 - 81 / 61))


def test_every_protocol_says_what_it_is() -> None:
    texts = {name: protocol.describe() for name, protocol in PROTOCOLS.items()}
    assert all(f"'{name}'" in text for name, text in texts.items())
    assert len(set(texts.values())) == len(texts)
    assert "cut after 59 tokens" in texts["r2gen-60"] and "whole references" in texts["wordpunct"]
