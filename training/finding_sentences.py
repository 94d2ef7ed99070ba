"""Sentences in which readers say a finding plainly: texts of reports in, sentences by observation out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from core.labels.repeats import content
from core.labels.rules import label_report
from core.observations import NO_FINDING, OBSERVATIONS, SUPPORT_DEVICES, LabelState
from core.text import UNKNOWN, Vocabulary, count_words, is_removed, split_sentences, to_text, tokenize

FEWEST, MOST = 5, 20
"""Sentences of an observation: with fewer a decoder has no choice, and of more it reads no more."""
WORDS = range(2, 11)
"""Of a plain sentence."""
COMPARES = frozenset(
    tokenize(
        "again change changed changes compared comparison continued decreased developed developing improved improving "
        "increased increasing interval new persistent previous previously prior redemonstrated redemonstration remain "
        "remains removal removed residual resolved stable unchanged worsened worsening"
    )
)
"""Words of a sentence that speaks of an earlier image, which a model has not seen."""
BROKEN = frozenset({"clear"})
"""Words of a sentence that lacks one: "the lungs are clear airspace disease", once "clear of"."""


def plain_sentences(texts: Iterable[str], vocabulary: Vocabulary) -> dict[str, tuple[str, ...]]:
    """Plain sentences of each observation, which call it present and speak of no other.

    They have no number and no removed word, and compare with no earlier image. A device has none: a sentence would have
    to say which device it is, and the observation does not tell.

    Args:
        texts: findings of the studies that a model learns from.
        vocabulary: has all words of the sentences.

    Returns:
        The most frequent first, then the shortest; observations with too few are left out.
    """
    counts = Counter(
        tuple(sentence)
        for text in texts
        for sentence in split_sentences(tokenize(text))
        if count_words(sentence) in WORDS and _is_plain(sentence, vocabulary)
    )
    found: dict[str, dict[str, int]] = {name: {} for name in OBSERVATIONS if name not in (NO_FINDING, SUPPORT_DEVICES)}
    for sentence, count in counts.items():
        says, text = content(sentence), to_text(sentence)
        if len(says.asserted) == 1 and not says.denied:
            (name,) = says.asserted
            if name in found and label_report(text).states[name] is LabelState.POSITIVE:
                found[name][text] = count
    ranked = {name: sorted(of, key=lambda text: (-of[text], len(text), text)) for name, of in found.items()}
    return {name: tuple(each[:MOST]) for name, each in ranked.items() if len(each) >= FEWEST}


def _is_plain(sentence: Sequence[str], vocabulary: Vocabulary) -> bool:
    if sentence[-1] != "." or UNKNOWN in vocabulary.ids(sentence) or not (COMPARES | BROKEN).isdisjoint(sentence):
        return False
    return not any(word.isdigit() or is_removed(word) for word in sentence)
