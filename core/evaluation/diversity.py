"""Do the reports differ from each other, and are they as long as the references? Warnings where a model collapsed.

A model that writes one normal report for every image can have a fair BLEU (M2KT issue 7, CT2Rep issue 10).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.labels.repeats import content, contradicts_itself, repeated_denials
from core.text import SPECIAL_TOKENS, UNKNOWN, count_words, is_removed, split_sentences, tokenize


@dataclass(frozen=True, slots=True)
class Diversity:
    """Of a set of reports; shares in [0, 1].

    Attributes:
        reports: how many.
        distinct: different reports, as a share of all.
        most_frequent: share of the studies that got the most frequent report.
        empty: share of the reports without a word.
        words: mean tokens a report (words and punctuation).
        vocabulary: different tokens.
        repeated_sentences: share of the sentences that the same report had before, word for word.
        repeated_denials: share of the reports that deny an observation in more than one sentence, by the rule labeler:
            "no pleural effusion. there is no effusion seen." counts.
        contradictions: share of the reports that call an observation present or possible in one sentence and deny it
            in another, by the rule labeler.
        unknown: share of the reports with <unknown>.
        removed: share of the reports with a word that stands for removed ones (XXXX, ___).
        short: share of the reports with a sentence of one word or two.
        wordless: share of the reports with a sentence without a word.
    """

    reports: int
    distinct: float
    most_frequent: float
    empty: float
    words: float
    vocabulary: int
    repeated_sentences: float
    repeated_denials: float
    contradictions: float
    unknown: float
    removed: float
    short: float
    wordless: float


def diversity(texts: Sequence[str]) -> Diversity:
    """Count how reports differ; spacing and case do not make a difference.

    Raises:
        ValueError: there is no report.
    """
    if not texts:
        raise ValueError("There is no report.")
    reports = [tokenize(text) for text in texts]
    counts = Counter(map(tuple, reports))
    sentences = [[tuple(sentence) for sentence in split_sentences(tokens)] for tokens in reports]
    written = sum(map(len, sentences))
    repeated = written - sum(len(set(each)) for each in sentences)
    lengths = [[count_words(sentence) for sentence in each] for each in sentences]

    def share(found: Iterable[bool]) -> float:
        return sum(found) / len(texts)

    return Diversity(
        reports=len(texts),
        distinct=len(counts) / len(texts),
        most_frequent=max(counts.values()) / len(texts),
        empty=counts[()] / len(texts),
        words=sum(map(len, reports)) / len(texts),
        vocabulary=len({token for tokens in reports for token in tokens}),
        repeated_sentences=repeated / written if written else 0.0,
        repeated_denials=share(bool(repeated_denials(map(content, each))) for each in sentences),
        contradictions=share(contradicts_itself([*map(content, each)]) for each in sentences),
        unknown=share(SPECIAL_TOKENS[UNKNOWN] in text.lower() for text in texts),
        removed=share(any(map(is_removed, tokens)) for tokens in reports),
        short=share(any(0 < words <= SHORT for words in each) for each in lengths),
        wordless=share(0 in each for each in lengths),
    )


# Our choice. References repeat themselves too (normal studies), so shares are judged beside theirs.
MOST_FREQUENT_TIMES = 3
MOST_FREQUENT_LEAST = 0.2
DISTINCT_SHARE = 0.1
LENGTH_RATIO = (0.6, 1.6)
SHORT = 2
"""Words of a sentence that is called short, at most."""
REPEATED_MORE = 0.1


def collapse_warnings(generated: Diversity, references: Diversity) -> list[str]:
    """Sentences that say where generated reports have collapsed, measured by their references; none if all is well."""
    warnings = []
    theirs = references.most_frequent
    if generated.most_frequent > max(MOST_FREQUENT_LEAST, min(MOST_FREQUENT_TIMES * theirs, (1 + theirs) / 2)):
        warnings.append(
            f"Collapse: one report was written for {generated.most_frequent:.0%} of the studies "
            f"(the most frequent reference stands for {theirs:.0%})."
        )
    if generated.distinct < DISTINCT_SHARE * references.distinct:
        warnings.append(
            f"Few reports: only {generated.distinct:.1%} of the reports are distinct, "
            f"of the references {references.distinct:.1%}."
        )
    ratio = generated.words / references.words if references.words else 1.0
    if not LENGTH_RATIO[0] <= ratio <= LENGTH_RATIO[1]:
        warnings.append(
            f"Length: reports have {generated.words:.0f} words on average, references {references.words:.0f} "
            f"(ratio {ratio:.2f}); BLEU and CIDEr punish that."
        )
    if generated.empty:
        warnings.append(f"Empty: {generated.empty:.1%} of the reports have no word; they stay in all means.")
    if generated.repeated_sentences > references.repeated_sentences + REPEATED_MORE:
        warnings.append(
            f"Repetition: {generated.repeated_sentences:.0%} of the sentences repeat one of the same report "
            f"(references: {references.repeated_sentences:.0%})."
        )
    if generated.repeated_denials > references.repeated_denials + REPEATED_MORE:
        warnings.append(
            f"Repetition: {generated.repeated_denials:.0%} of the reports deny the same observation twice, in the same "
            f"words or others (references: {references.repeated_denials:.0%})."
        )
    if generated.contradictions > references.contradictions + REPEATED_MORE:
        warnings.append(
            f"Contradiction: {generated.contradictions:.0%} of the reports deny in one sentence what another one finds "
            f"(references: {references.contradictions:.0%})."
        )
    if generated.unknown:
        warnings.append(f"Unknown words: {generated.unknown:.1%} of the reports have <unknown>, which says nothing.")
    return warnings
