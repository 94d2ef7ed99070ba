"""A report as its decoder wrote it in; one that is consistent, and says what was found, out, as its card wants.

**Consistent** (`GenerateConfig.consistent`): where one sentence calls an observation present and another denies it, of
the same side, what was found in the image decides: of what was found the denial goes, of anything else the claim; where
nothing was read first, the denial. A sentence that only denies goes where a later one makes all of its denials.

**Nothing found is left out** (`GenerateConfig.say_found`): a report that calls the film normal stays as it is: so
decided its decoder, which reads all of the image. One that says that something is there also says what else was found:
after its own findings stands a sentence for each observation that it left out and for which there are sentences, and
what denies one of them is left out. The sentences are readers' own, each of which calls this one observation present;
which of them is written, the decoder's likelihood decides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.decoders.base import Decoder, Memory
from core.decoders.findings import found_observations
from core.labels.repeats import Content, clashes, content
from core.observations import SUPPORT_DEVICES
from core.text import END, PAD, SENTENCE_END, START, TERMINATORS, UNKNOWN, Vocabulary, split_sentences

if TYPE_CHECKING:
    from core.decoders.search import GenerateConfig


@dataclass(frozen=True, slots=True)
class Revision:
    """A report that was changed.

    Attributes:
        ids: of it, without START and END.
        added: observations whose sentences were put in.
        contradicted: ids of each sentence that went because it contradicts others.
        kept: places of ``ids`` in the report before, if nothing was put in.
    """

    ids: tuple[int, ...]
    added: tuple[str, ...] = ()
    contradicted: tuple[tuple[int, ...], ...] = ()
    kept: tuple[int, ...] = ()


def revised(
    decoder: Decoder, memory: Memory, ids: Sequence[int], config: GenerateConfig, vocabulary: Vocabulary
) -> Revision | None:
    """A report that is consistent and says what was found, as ``config`` wants it; None where it is already.

    Args:
        decoder: that wrote it, in evaluation mode.
        memory: of one study, with what was found in it.
        ids: of its report, without START and END.
        config: what is wanted.
        vocabulary: of the decoder.
    """
    found = None if memory.found is None else found_observations(memory.found[0])
    spans = _sentences(decoder, ids, vocabulary)
    says = [content(tuple(vocabulary.decode(ids[span.start : span.stop]))) for span in spans]
    wrong = _contradicted(says, found) if config.consistent else set()
    stays = [place for place in range(len(says)) if place not in wrong]
    if config.consistent:
        stays = [place for place in stays if not _comes_again(says[place], [says[k] for k in stays if k > place])]
    added: tuple[str, ...] = ()
    options: dict[str, list[list[int]]] = {}
    # A film with a device can be normal.
    if config.say_found and found and not _asserted(says) <= {SUPPORT_DEVICES}:
        said = _asserted([says[place] for place in stays])
        sentences = {name: config.finding_sentences.get(name, ()) for name in found if name not in said}
        options = {name: _known(decoder, each, vocabulary) for name, each in sentences.items()}
        added = tuple(name for name, each in options.items() if each)
    if not added:
        kept = _without(spans, stays, len(ids))
        return None if len(kept) == len(ids) else Revision(_at(ids, kept), (), _all_at(ids, spans, wrong), kept)
    parts = {place: _closed(decoder, _at(ids, spans[place]), vocabulary) for place in stays}
    whole = [word for place, part in parts.items() if says[place].asserted for word in part]
    claims = []
    for name in added:
        tried = log_probabilities(decoder, memory, [[*whole, *each] for each in options[name]])
        likeliest = torch.stack([each[len(whole) :].sum() for each in tried]).argmax()
        sentence = options[name][int(likeliest)]
        claims.append(content(tuple(vocabulary.decode(sentence))))
        whole += sentence
    denials = {place: part for place, part in parts.items() if not says[place].asserted}
    wrong |= {place for place in denials if any(clashes(claim, says[place]) for claim in claims)}
    whole += [word for place, part in denials.items() if place not in wrong for word in part]
    return Revision(tuple(whole), added, _all_at(ids, spans, wrong))


def _contradicted(says: Sequence[Content], found: Collection[str] | None) -> set[int]:
    """Places of the sentences of a report that cannot stand beside its others.

    Args:
        says: what each says.
        found: observations that were found before it was written; None where nothing was read first.
    """
    clash = {
        (claim, denial): names
        for claim, claims in enumerate(says)
        for denial, denies in enumerate(says)
        if claim != denial and (names := clashes(claims, denies))
    }
    denials = {denial for (_, denial), names in clash.items() if found is None or names & set(found)}
    return denials | {claim for claim, denial in clash if denial not in denials}


def _comes_again(sentence: Content, later: Sequence[Content]) -> bool:
    """Whether all that a sentence says are denials, and one later sentence makes them all."""
    return bool(sentence.denied) and not sentence.asserted and any(sentence.denied <= each.denied for each in later)


def _at(ids: Sequence[int], places: Sequence[int]) -> tuple[int, ...]:
    return tuple(ids[place] for place in places)


def _all_at(ids: Sequence[int], spans: Sequence[range], sentences: Collection[int]) -> tuple[tuple[int, ...], ...]:
    return tuple(_at(ids, spans[each]) for each in sorted(sentences))


def _without(spans: Sequence[range], stays: Collection[int], length: int) -> tuple[int, ...]:
    """Places of ids, but for those of the sentences that do not stay."""
    gone = {place for index, span in enumerate(spans) if index not in stays for place in span}
    return tuple(place for place in range(length) if place not in gone)


def _asserted(says: Sequence[Content]) -> frozenset[str]:
    return frozenset[str]().union(*(each.asserted for each in says))


def log_probabilities(decoder: Decoder, memory: Memory, written: Sequence[Sequence[int]]) -> list[Tensor]:
    """Of each word of some texts about one study, natural log: (words,) each.

    Where a planner decides how many sentences there are, words are as likely as where there is one more, and END, which
    it writes of itself, has 0, as in a search.
    """
    device = memory.levels.device
    ids = pad_sequence([torch.tensor([START, *each], device=device) for each in written], True, PAD)
    levels = memory.levels.expand(len(ids), *memory.levels.shape[1:])
    logits = decoder.decode(replace(memory, levels=levels), ids[:, :-1]).logits.float()
    if decoder.sentences:
        begins = (ids[:, :-1] == START) | (ids[:, :-1] == SENTENCE_END)
        logits[:, :, [PAD, START, END]] = -torch.inf
        logits[:, :, SENTENCE_END].masked_fill_(begins, -torch.inf)
    of_words = logits.log_softmax(2).gather(2, ids[:, 1:, None]).squeeze(2)
    if decoder.sentences:
        of_words = of_words.masked_fill(ids[:, 1:] == END, 0.0)
    return [row[: len(each)] for row, each in zip(of_words, written, strict=True)]


def _sentences(decoder: Decoder, ids: Sequence[int], vocabulary: Vocabulary) -> list[range]:
    """Places of each sentence, or of what was planned as one, with what ends it; without those that have no word."""
    if decoder.sentences:
        ends = [place + 1 for place, each in enumerate(ids) if each == SENTENCE_END]
    else:
        ends = list(accumulate(map(len, split_sentences(vocabulary.decode(ids)))))
    spans = [range(start, end) for start, end in pairwise([0, *ends])]
    return [each for each in spans if vocabulary.decode(ids[each.start : each.stop])]


def _known(decoder: Decoder, sentences: Sequence[str], vocabulary: Vocabulary) -> list[list[int]]:
    """Ids of the sentences whose words this vocabulary has, each with what ends it."""
    found = [vocabulary.ids(vocabulary.tokens(text)) for text in sentences]
    return [_closed(decoder, each, vocabulary) for each in found if each and UNKNOWN not in each]


def _closed(decoder: Decoder, part: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """Ids of a sentence with what ends it."""
    words = [each for each in part if each != SENTENCE_END]
    stop = [] if vocabulary.words[words[-1]] in TERMINATORS else vocabulary.ids(["."])
    return [*words, *stop, *([SENTENCE_END] if decoder.sentences else [])]
