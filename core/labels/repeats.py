"""What sentences of a report say; which of them say it again, and which contradict each other.

Again: a denial in other words, or the same words in other order. A sentence that only denies says again what was said
if half of what it denies was denied before, by the rule labeler. Any other one, as "the lungs are clear", in which the
labeler reads nothing, or a finding, which a second sentence may describe further, says again what was said if all words
that carry its content stand in one sentence before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from core.labels.rules import label_report
from core.observations import ASSERTED, LabelState
from core.text import to_text, tokenize

_FORM = frozenset(
    tokenize(
        "a an the there this these those is are was were be been has have had do does of in on at to for with within "
        "by from as and or seen noted identified demonstrated visualized evident appreciated present evidence appear "
        "appears appeared remain remains again also any definite"
    )
)
"""Words that a sentence may have or lack and say the same."""
_DENIES = frozenset({"no", "not", "without", "nor", "neither"})
AGAIN = 0.5
"""Share of a sentence's denials that must have been made for it to say them again; ours, chosen on Open-i's
validation split."""
IN_LUNGS = frozenset({"Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis"})
"""Of a film with one of these, the lungs are not clear."""
_ELSEWHERE = frozenset({"otherwise", "remaining", "remainder", "rest", "elsewhere"})
"""With one of these words, a sentence calls clear what no other sentence speaks of."""
_SIDES = frozenset({"left", "right"})
_KNOWN = 50_000  # sentences whose content is kept: pairs write few different ones


@dataclass(frozen=True, slots=True)
class Content:
    """What a sentence says.

    Attributes:
        denied: observations that it denies, by the rule labeler.
        asserted: observations that it calls present or possible.
        words: those that carry it, in the singular; all words of denial are one.
    """

    denied: frozenset[str]
    asserted: frozenset[str]
    words: frozenset[str]


@lru_cache(_KNOWN)
def content(sentence: tuple[str, ...]) -> Content:
    """Read one sentence, given as lower-case tokens."""
    mentions = label_report(to_text(sentence)).mentions
    words = {"no" if word in _DENIES else _singular(word) for word in sentence if re.search(r"\w", word)}
    return Content(
        frozenset(each.observation for each in mentions if each.state is LabelState.NEGATIVE),
        frozenset(each.observation for each in mentions if each.state in ASSERTED),
        frozenset(words - _FORM),
    )


def _singular(word: str) -> str:
    """A word without the ending of a plural, so that both forms are equal."""
    return re.sub(r"(?<=[a-z]{2})(ies|y)$|(?<=[a-z]{2}[^su])s$", lambda ending: "y" if ending[1] else "", word)


def says_again(sentence: Content, before: Sequence[Content]) -> bool:
    """Whether a sentence says nothing that those before it did not say."""
    if any(sentence.words <= each.words and sentence.asserted <= each.asserted for each in before):
        return True
    if sentence.asserted or not sentence.denied:
        return False
    made = sentence.denied & {name for each in before for name in each.denied}
    return len(made) >= AGAIN * len(sentence.denied)


def last_says_again(sentences: Sequence[Sequence[str]]) -> bool:
    """Whether the last of some sentences, in lower-case tokens, says again what those before it say."""
    found = [content(tuple(sentence)) for sentence in sentences]
    return len(found) > 1 and says_again(found[-1], found[:-1])


def repeated_denials(sentences: Iterable[Content]) -> frozenset[str]:
    """The observations that more than one of these sentences denies."""
    seen: set[str] = set()
    twice: set[str] = set()
    for each in sentences:
        twice |= seen & each.denied
        seen |= each.denied
    return frozenset(twice)


def clashes(claim: Content, denial: Content) -> frozenset[str]:
    """Observations that one sentence calls present or possible, and another denies of the same side.

    Clear lungs deny all that is in lungs, unless they are "otherwise clear".
    """
    clear = {"clear", "lung"} <= denial.words and not denial.words & _ELSEWHERE  # in which the labeler reads nothing
    denied = denial.denied | (IN_LUNGS if clear else frozenset())
    of_sides, on_sides = denial.words & _SIDES, claim.words & _SIDES
    if of_sides and on_sides and not of_sides & on_sides:
        return frozenset()
    return claim.asserted & denied - denial.asserted


def contradicts_itself(sentences: Sequence[Content]) -> bool:
    """Whether one of these sentences denies what another one claims."""
    return any(clashes(one, other) for one in sentences if one.asserted for other in sentences if other is not one)
