"""The order of a report's sentences, for decoders that know what there is before they write of it."""

from __future__ import annotations

from core.labels.rules import label_report
from core.observations import ASSERTED, OBSERVATIONS
from core.text import split_sentences, to_text, tokenize


def abnormal_first(text: str) -> str:
    """Put sentences that call something present or possible first, then the others, each by observation.

    A planner that knows the image only cannot know which of several orders a reader chose: sentence 3 is then a
    mixture of all that may stand there. In one order, the image alone decides what comes next. A decoder that was told
    of a finding need not choose at each sentence between the many wordings of it and the one usual normal sentence.

    Args:
        text: a section of a report; its sentences are kept word for word, in lower case or not.
    """
    sentences = split_sentences(tokenize(text))
    return " ".join(to_text(sentence) for sentence in sorted(sentences, key=_place))


def _place(sentence: list[str]) -> tuple[bool, int]:
    mentions = label_report(to_text(sentence)).mentions
    found = [mention for mention in mentions if mention.state in ASSERTED]
    indices = [OBSERVATIONS.index(mention.observation) for mention in found or mentions]
    return not found, min(indices, default=len(OBSERVATIONS))
