"""Fine labels: what a report says of a finding beside its name ("mild cardiomegaly", "lower lobe consolidation").

Labels of FVE's fine-grained classifier (paper section 3.1; its code is unpublished, the algorithm is ours after
paper-notes 4.2). The rule labeler finds the positive mentions; their modifiers are what spaCy's parser attaches to
them: adjectives and nouns before them and after the verb, and the sides and sites named in phrases around them. Needs
the extra `labels`. Words that need more than the parser are in `fine.toml`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from core.labels.fine_modifiers import modifiers_of
from core.labels.fine_parser import load_parser
from core.labels.fine_terms import KIND_OF, sentences_of
from core.labels.rules import Mention, label_report
from core.processes import worker_pool

_BLOCK = 500  # reports that one call of the parser reads; equal sentences among them are parsed once


@dataclass(frozen=True, slots=True)
class FineMention:
    """A positive mention and its modifiers.

    Attributes:
        mention: of the rule labeler, with its position in the text.
        modifiers: sorted, lower case; those of `fine.toml` in their first spelling.
    """

    mention: Mention
    modifiers: tuple[str, ...]


def fine_labels(texts: Sequence[str], *, processes: int = 1) -> list[tuple[str, ...]]:
    """Return the fine labels of reports, as `Study.fine_labels` wants them.

    Args:
        texts: findings sections, in prose or a decoder's spelling.
        processes: workers; each holds a parser of its own.

    Returns:
        for each text, sorted and lower case, "modifier observation" of each modifier of a positive mention, and the
        bare "observation" where none of its mentions has a modifier. None for No Finding.

    Raises:
        ParserError: the parser's package is missing or differs from the one we know.
    """
    return [labels_of(mentions) for mentions in fine_mentions(texts, processes=processes)]


def fine_mentions(texts: Sequence[str], *, processes: int = 1) -> Iterator[tuple[FineMention, ...]]:
    """Find the positive mentions of reports and their modifiers: the evidence behind :func:`fine_labels`.

    Args:
        texts: reports, or sections of them.

    Yields:
        those of each text, in their order.

    Raises:
        ParserError: see :func:`fine_labels`.
    """
    load_parser()  # its error before any work
    blocks = [texts[start : start + _BLOCK] for start in range(0, len(texts), _BLOCK)]
    with worker_pool(processes, start=None) if processes > 1 else nullcontext() as pool:
        for block in (pool.map if pool else map)(_read_block, blocks):
            yield from block


def labels_of(mentions: Sequence[FineMention]) -> tuple[str, ...]:
    """Gather the fine labels of one report from its mentions."""
    modified = {item.mention.observation for item in mentions if item.modifiers}
    labels = {_label(item, word) for item in mentions for word in item.modifiers}
    return tuple(sorted(labels | {_label(item, "") for item in mentions if item.mention.observation not in modified}))


@dataclass(frozen=True, slots=True)
class FineClass:
    """A fine label that is frequent enough to learn.

    Attributes:
        label: "modifier observation" or "observation", lower case.
        observation: its name.
        modifier: "" of a bare observation.
        kind: of the modifier, one of `KINDS`, or "free" for a word that `fine.toml` does not list; "" of none.
        count: reports that have the label.
        example: the first sentence that gave it.
    """

    label: str
    observation: str
    modifier: str
    kind: str
    count: int
    example: str


def fine_classes(
    texts: Iterable[str], mentions: Iterable[Sequence[FineMention]], min_count: int
) -> tuple[FineClass, ...]:
    """Choose the classes of the fine-grained classifier: labels of at least `min_count` reports.

    Args:
        texts: of the training split only.
        mentions: what :func:`fine_mentions` finds in them; read once.
        min_count: 100 on MIMIC-CXR (paper section 3.1).

    Returns:
        sorted by observation and modifier.
    """
    counts: Counter[str] = Counter()
    first: dict[str, tuple[str, str, str]] = {}
    for text, found in zip(texts, mentions, strict=True):
        labels = labels_of(found)
        counts.update(labels)
        for item in found:
            for word in item.modifiers or ("",):
                sentence = text[item.mention.sentence_start : item.mention.sentence_end]
                first.setdefault(_label(item, word), (item.mention.observation, word, " ".join(sentence.split())))
    classes = (
        FineClass(label, first[label][0], first[label][1], _kind(first[label][1]), count, first[label][2])
        for label, count in counts.items()
        if count >= min_count
    )
    return tuple(sorted(classes, key=lambda each: (each.observation, each.modifier)))


def _label(item: FineMention, word: str) -> str:
    return f"{word} {item.mention.observation}".strip().lower()


def _kind(modifier: str) -> str:
    return KIND_OF.get(modifier, "free") if modifier else ""


def _read_block(texts: Sequence[str]) -> list[tuple[FineMention, ...]]:
    """Read some reports; equal sentences are parsed once."""
    reports = [list(sentences_of(text, label_report(text).mentions)) for text in texts]
    sentences = list(dict.fromkeys(sentence for report in reports for sentence, _ in report))
    read = dict(zip(sentences, modifiers_of(sentences), strict=True))
    return [
        tuple(
            FineMention(mention, modifiers)
            for sentence, mentions in report
            for mention, modifiers in zip(mentions, read[sentence], strict=True)
        )
        for report in reports
    ]
