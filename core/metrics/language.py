"""Language metrics on tokens. The scorer is sacrebleu's, without its tokenizer and without smoothing."""

from __future__ import annotations

from collections.abc import Sequence

from sacrebleu.metrics import BLEU


def bleu(references: Sequence[Sequence[str]], generated: Sequence[Sequence[str]]) -> dict[str, float]:
    """Corpus BLEU-1 to BLEU-4 (Papineni et al. 2002), values in [0, 1].

    Protocol: lower-cased word and punctuation tokens of ``core.text.tokenize``, one whole reference a study.

    Raises:
        ValueError: not one reference for each generated report, or none at all.
    """
    if len(references) != len(generated) or not generated:
        raise ValueError(f"{len(references)} references for {len(generated)} generated reports.")
    theirs = [[" ".join(tokens) for tokens in references]]
    ours = [" ".join(tokens) for tokens in generated]
    scores = {}
    for order in (1, 2, 3, 4):
        scorer = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
        scores[f"bleu_{order}"] = scorer.corpus_score(ours, theirs).score / 100
    return scores
