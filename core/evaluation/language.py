"""BLEU, ROUGE-L and CIDEr-D on tokens, with the numbers of pycocoevalcap 1.2, the field's reference implementation.

Ours counts n-grams of all reports in a few array operations; ``tests/test_language_metrics.py`` holds it to the
reference within 1e-6. METEOR 1.5 is a Java program: :mod:`core.evaluation.java`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from core.evaluation.resampling import FloatArray, StudyStatistics, join
from core.text import tokenize
from core.types import CXRLensError

if TYPE_CHECKING:
    from core.evaluation.java import Meteor

ORDERS = (1, 2, 3, 4)
Tokens = Literal["wordpunct", "ptb", "r2gen"]
Report = Sequence[str]
"""The tokens of one report."""


# --- protocols ---


@dataclass(frozen=True, slots=True)
class LanguageProtocol:
    """What was compared with what; print it with the scores, which differ much between protocols.

    Attributes:
        name: short name for a column or a file.
        tokens: ``wordpunct``: lower-cased runs of word characters or of punctuation, as the paper's code;
            ``ptb``: Stanford's PTB tokens, lower-cased, without most punctuation, as COCO's evaluation (needs Java);
            ``r2gen``: lower-cased words without punctuation, and a full stop after each sentence, as R2Gen on Open-i.
        reference_words: cut references after so many tokens; None takes them whole.
    """

    name: str
    tokens: Tokens
    reference_words: int | None = None

    def describe(self) -> str:
        """Sentences for the foot of a table."""
        tokens = {
            "wordpunct": "lower-cased word and punctuation tokens (as the paper's code)",
            "ptb": "Stanford PTB tokens, lower-cased, punctuation dropped (as COCO's evaluation)",
            "r2gen": "lower-cased words, a full stop after each sentence, no other punctuation (as R2Gen)",
        }[self.tokens]
        cut = f"references cut after {self.reference_words} tokens" if self.reference_words else "whole references"
        return (
            f"Language protocol '{self.name}': {tokens}, {cut}, one a study. BLEU of the corpus; ROUGE-L with beta "
            "1.2, mean over studies; CIDEr-D (0 to 10) with document frequencies of these references, mean over "
            "studies; METEOR 1.5 of the corpus. As pycocoevalcap 1.2 computes them."
        )


PROTOCOLS: dict[str, LanguageProtocol] = {
    each.name: each
    for each in (
        LanguageProtocol("wordpunct", "wordpunct"),
        LanguageProtocol("coco", "ptb"),
        LanguageProtocol("r2gen", "r2gen"),
        # R2Gen keeps max_seq_length ids of a reference, of which the first is the start token: 60 on IU X-ray, 100 on
        # MIMIC-CXR. Its rare words become <unk> on both sides; ours stay themselves.
        LanguageProtocol("r2gen-60", "r2gen", 59),
        LanguageProtocol("r2gen-100", "r2gen", 99),
    )
}
DEFAULT_PROTOCOL = PROTOCOLS["wordpunct"]

_R2GEN_DROPPED = re.compile(r"""[.,?;*!%^&_+():<=>@\[\]{}"'/\\]""")


def r2gen_tokens(text: str) -> list[str]:
    """Tokens as R2Gen cleans Open-i's reports: numbers of a list end sentences, of punctuation only hyphens stay."""
    text = re.sub(r"\.{2,}", ".", text).replace("1. ", "")
    text = re.sub(r"\.? [2-5]\. ", ". ", text)
    sentences = text.strip().lower().split(". ")
    return [token for sentence in sentences for token in (*_R2GEN_DROPPED.sub("", sentence).split(), ".")]


def report_tokens(texts: Sequence[str], protocol: LanguageProtocol = DEFAULT_PROTOCOL) -> list[list[str]]:
    """Tokens of reports as ``protocol`` says; references still have to be cut.

    Raises:
        CXRLensError: the protocol's tokens need Java, which is missing.
    """
    if protocol.tokens == "ptb":
        from core.evaluation.java import ptb_tokens

        return ptb_tokens(texts)
    return [r2gen_tokens(text) if protocol.tokens == "r2gen" else tokenize(text) for text in texts]


def language_statistics(
    references: Sequence[str],
    generated: Sequence[str],
    protocol: LanguageProtocol = DEFAULT_PROTOCOL,
    meteor: Meteor | None = None,
) -> StudyStatistics:
    """What each study adds to ``bleu_1`` to ``bleu_4``, ``rouge_l``, ``cider`` and, given its program, ``meteor``.

    Args:
        references: one text a study.
        generated: one text a study, in the same order; an empty one stays in all means, as in pycocoevalcap.
        protocol: how texts become tokens.
        meteor: METEOR's running program; None leaves that score out.

    Raises:
        ValueError: not one reference for each generated report, or none at all.
        CXRLensError: CIDEr of one report only; the protocol or METEOR needs Java and it is missing or fails.
    """
    cut = protocol.reference_words
    theirs = [tokens[:cut] for tokens in report_tokens(references, protocol)]
    ours = report_tokens(generated, protocol)
    _check_pairs(theirs, ours)
    counts = _count_pairs(theirs, ours)
    parts = [_bleu(counts, theirs, ours), rouge_l_statistics(theirs, ours), _cider(counts, theirs, ours)]
    if meteor is not None:
        parts.append(meteor.statistics(theirs, ours))
    return join(*parts)


def meteor_statistics(
    references: Sequence[str],
    generated: Sequence[str],
    meteor: Meteor,
    protocol: LanguageProtocol = DEFAULT_PROTOCOL,
) -> StudyStatistics:
    """Only ``meteor`` of :func:`language_statistics`; raises `MeteorError` where it cannot be had for these reports."""
    theirs = [tokens[: protocol.reference_words] for tokens in report_tokens(references, protocol)]
    return meteor.statistics(theirs, report_tokens(generated, protocol))


# --- BLEU ---


def bleu(references: Sequence[Report], generated: Sequence[Report]) -> dict[str, float]:
    """Corpus BLEU-1 to BLEU-4 of tokens, by name; see :func:`bleu_statistics`."""
    return bleu_statistics(references, generated).scores()


def bleu_statistics(references: Sequence[Report], generated: Sequence[Report]) -> StudyStatistics:
    """Corpus BLEU-1 to BLEU-4 (Papineni et al. 2002), values in [0, 1], with pycocoevalcap's two small constants.

    Raises:
        ValueError: not one reference for each generated report, or none at all.
    """
    _check_pairs(references, generated)
    return _bleu(_count_pairs(references, generated), references, generated)


def _bleu(counts: list[_Pair], references: Sequence[Report], generated: Sequence[Report]) -> StudyStatistics:
    ours, theirs = _lengths(generated), _lengths(references)
    correct = [pair.generated.minimum(pair.references).sum(1) for pair in counts]
    guessed = [np.maximum(0, ours - order + 1) for order in ORDERS]
    values = np.stack([*correct, *guessed, ours, theirs], 1).astype(np.float64)
    return StudyStatistics(tuple(f"bleu_{order}" for order in ORDERS), values, _bleu_from_sums)


def _bleu_from_sums(sums: FloatArray) -> FloatArray:
    tiny, small = 1e-15, 1e-9  # pycocoevalcap's, so that a corpus without a common n-gram scores as it does there
    precisions = (sums[..., :4] + tiny) / (sums[..., 4:8] + small)
    ratio = (sums[..., 8:9] + tiny) / (sums[..., 9:] + small)
    penalty = np.exp(np.minimum(0, 1 - 1 / ratio))
    scores: FloatArray = np.cumprod(precisions, -1) ** (1 / np.array(ORDERS)) * penalty
    return scores


# --- ROUGE-L ---


def rouge_l_statistics(references: Sequence[Report], generated: Sequence[Report], beta: float = 1.2) -> StudyStatistics:
    """ROUGE-L (Lin 2004), mean over studies, values in [0, 1]; recall weighs ``beta`` squared times as much.

    Raises:
        ValueError: not one reference for each generated report, or none at all.
    """
    _check_pairs(references, generated)
    # The reference implementation splits an empty text into one empty token.
    pairs = zip(([*each] or [""] for each in references), ([*each] or [""] for each in generated), strict=True)
    scores = []
    for theirs, ours in pairs:
        common = common_subsequence(theirs, ours)
        precision, recall = common / len(ours), common / len(theirs)
        scores.append((1 + beta**2) * precision * recall / (recall + beta**2 * precision) if common else 0.0)
    return _mean("rouge_l", np.array(scores))


def common_subsequence(first: Report, second: Report) -> int:
    """Length of the longest common subsequence, with a bit for each token of ``first`` (Hyyro 2004)."""
    positions: dict[str, int] = {}
    for index, token in enumerate(first):
        positions[token] = positions.get(token, 0) | 1 << index
    ones = (1 << len(first)) - 1
    row = ones
    for token in second:
        matches = row & positions.get(token, 0)
        row = ((row + matches) | (row - matches)) & ones
    return (row ^ ones).bit_count()


# --- CIDEr ---


def cider_statistics(
    references: Sequence[Report], generated: Sequence[Report], corpus: Sequence[Report] | None = None
) -> StudyStatistics:
    """CIDEr-D (Vedantam et al. 2015), mean over studies, values in [0, 10], as pycocoevalcap's ``Cider``.

    Term frequencies are clipped, a Gaussian of sigma 6 punishes unequal lengths, and a length is counted in pairs of
    words, as there.

    Args:
        references: one a study.
        generated: one a study.
        corpus: reports whose document frequencies, and number, weigh the n-grams. None takes ``references``, which is
            the standard; then a score depends on which studies are scored together.

    Raises:
        ValueError: not one reference for each generated report, or none at all.
        CXRLensError: the document frequencies would come from fewer than two reports.
    """
    _check_pairs(references, generated)
    return _cider(_count_pairs(references, generated, corpus or ()), references, generated, corpus)


def _cider(
    counts: list[_Pair],
    references: Sequence[Report],
    generated: Sequence[Report],
    corpus: Sequence[Report] | None = None,
    sigma: float = 6.0,
) -> StudyStatistics:
    documents = len(references if corpus is None else corpus)
    if documents < 2:
        raise CXRLensError(
            f"CIDEr cannot be computed from {documents} report: it weighs words by how many of the reports have them, "
            "and with one report every weight is 0. Score at least two studies together, or give the training reports "
            "as the corpus of the weights."
        )
    cosine = np.zeros(len(references))
    for pair in counts:
        with_gram = pair.references if corpus is None else pair.corpus
        frequency = np.bincount(with_gram.indices, minlength=with_gram.shape[1])
        weight = (np.log(documents) - np.log(np.maximum(1, frequency))) ** 2
        common = pair.generated.minimum(pair.references).multiply(pair.references) @ weight
        norms = np.sqrt((pair.generated.power(2) @ weight) * (pair.references.power(2) @ weight))
        cosine += np.divide(common, norms, out=np.zeros_like(cosine), where=norms > 0)
    pairs_of_words = [np.maximum(0, _lengths(texts) - 1) for texts in (generated, references)]
    penalty = np.exp(-((pairs_of_words[0] - pairs_of_words[1]) ** 2) / (2 * sigma**2))
    return _mean("cider", 10 * cosine / len(ORDERS) * penalty)


# --- counting ---


@dataclass(frozen=True, slots=True)
class _Pair:
    """Counts of the n-grams of one order: sparse (reports, kinds of n-gram)."""

    references: Any
    generated: Any
    corpus: Any


def _count_pairs(
    references: Sequence[Report], generated: Sequence[Report], corpus: Sequence[Report] = ()
) -> list[_Pair]:
    ends = np.cumsum([len(references), len(generated)])
    return [
        _Pair(counts[: ends[0]], counts[ends[0] : ends[1]], counts[ends[1] :])
        for counts in _count_ngrams([*references, *generated, *corpus])
    ]


def _count_ngrams(texts: Sequence[Report]) -> list[Any]:
    """How often each text has each n-gram: for n = 1 to 4 a sparse array (texts, kinds of n-gram)."""
    lengths = _lengths(texts)
    numbers: dict[str, int] = {}
    words = np.fromiter(
        (numbers.setdefault(word, len(numbers)) for text in texts for word in text), np.int64, int(lengths.sum())
    )
    from scipy.sparse import csr_array  # takes a while to come; most ask for what was scored before

    text = np.repeat(np.arange(len(texts)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))  # tokens from here to the end of the text
    grams, result = words.copy(), []
    for order in ORDERS:
        starts = np.flatnonzero(left >= order)
        if order > 1:  # an n-gram is an (n-1)-gram and a word
            pairs = grams[starts] * len(numbers) + words[starts + order - 1]
            grams[starts] = np.unique(pairs, return_inverse=True)[1]
        kinds = int(grams[starts].max(initial=0)) + 1
        counts = csr_array((np.ones(len(starts)), (text[starts], grams[starts])), shape=(len(texts), kinds))
        counts.sum_duplicates()
        result.append(counts)
    return result


def _lengths(texts: Sequence[Report]) -> Any:
    return np.array([len(text) for text in texts], dtype=np.int64)


def _mean(name: str, scores: FloatArray) -> StudyStatistics:
    """A score that is the mean of the studies' own."""
    values = np.stack([scores, np.ones_like(scores)], 1)
    return StudyStatistics((name,), values, lambda sums: sums[..., :1] / sums[..., 1:])


def _check_pairs(references: Sequence[Report], generated: Sequence[Report]) -> None:
    if len(references) != len(generated) or not generated:
        raise ValueError(f"{len(references)} references for {len(generated)} generated reports.")
