"""The 13 clusters of CCVE: which sentences of an impression belong to which (paper section 3.1, paper-notes 1.4).

The paper clusters sentences with CheXbert and leaves open what happens to several or no labels. Ours: one text for each
study and cluster.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from core.labels.rules import label_report
from core.observations import ASSERTED, CLUSTER_OF, CLUSTERS, NO_FINDING, SUPPORT_DEVICES, LabelState

_SAYS_SOMETHING = re.compile(r"\b(?!x{3,}\b)[^\W\d_]{2,}", re.IGNORECASE)  # a word, not what stands for a removed one


def cluster_texts(impression: str) -> dict[str, str]:
    """Sort an impression's sentences into the clusters whose observations they assert.

    A sentence belongs to every cluster that it calls present or possible; denials count for none. Where nothing but
    devices is asserted, the sentences that are not about devices are the text of No Finding. An impression that says
    nothing has no text.

    Args:
        impression: the section, in prose or a decoder's spelling.

    Returns:
        cluster -> its sentences in their order, joined by spaces; in the order of `CLUSTERS`.
    """
    report = label_report(impression)
    sentences: dict[str, dict[tuple[int, int], None]] = {}
    for mention in report.mentions:
        if mention.state in ASSERTED:
            span = (mention.sentence_start, mention.sentence_end)
            sentences.setdefault(CLUSTER_OF[mention.observation], {})[span] = None
    texts = {
        cluster: " ".join(_line(impression[start:end]) for start, end in sorted(spans))
        for cluster, spans in sentences.items()
    }
    if report.states[NO_FINDING] is LabelState.POSITIVE:
        texts[NO_FINDING] = _without(impression, sentences.get(SUPPORT_DEVICES, {}))
    return {cluster: texts[cluster] for cluster in CLUSTERS if _SAYS_SOMETHING.search(texts.get(cluster, ""))}


def count_clusters(texts: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """Count the studies that have a text in each cluster; every cluster is there."""
    counts = Counter(cluster for each in texts for cluster in each)
    return {cluster: counts[cluster] for cluster in CLUSTERS}


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Cut sentences out of a text."""
    kept, edge = "", 0
    for start, end in sorted(spans):
        kept, edge = kept + text[edge:start], end
    return _line(kept + text[edge:])


def _line(text: str) -> str:
    return " ".join(text.split())
