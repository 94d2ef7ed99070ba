"""What was found in the image and a report leaves out: ids of a report in, those of one that says it out.

A report that calls the film normal stays as it is: so decided its decoder, which reads all of the image. One that says
that something is there also says what else was found: after its own findings stands a sentence for each observation
that it left out and for which there are sentences, and what denies one of them is left out. The sentences are readers'
own, each of which calls this one observation present; which of them is written, the decoder's likelihood decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.decoders.base import Decoder, Memory
from core.decoders.findings import found_observations
from core.labels.repeats import content
from core.observations import SUPPORT_DEVICES
from core.text import END, PAD, SENTENCE_END, START, TERMINATORS, UNKNOWN, Vocabulary, split_sentences

IN_LUNGS = frozenset({"Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis"})
"""Of a film with one of these, the lungs are not clear."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A report that says what was found.

    Attributes:
        ids: of it, without START and END.
        added: observations whose sentences were put in.
    """

    ids: tuple[int, ...]
    added: tuple[str, ...]


def with_unsaid(
    decoder: Decoder, memory: Memory, ids: Sequence[int], sentences: Mapping[str, Sequence[str]], vocabulary: Vocabulary
) -> Whole | None:
    """A report with what was found and it leaves out; None where nothing is to be put in.

    Args:
        decoder: that wrote it, in evaluation mode.
        memory: of one study, with what was found in it.
        ids: of its report, without START and END.
        sentences: observation -> sentences that call it present, and nothing else.
        vocabulary: of the decoder.
    """
    found = () if memory.found is None else found_observations(memory.found[0])
    if not found:
        return None
    parts = _sentences(decoder, ids, vocabulary)
    says = [content(tuple(vocabulary.decode(part))) for part in parts]
    said = frozenset[str]().union(*(each.asserted for each in says))
    options = {name: _known(decoder, sentences.get(name, ()), vocabulary) for name in found if name not in said}
    added = tuple(name for name, each in options.items() if each)
    if said <= {SUPPORT_DEVICES} or not added:  # a film with a device can be normal
        return None
    whole = [word for part, each in zip(parts, says, strict=True) if each.asserted for word in part]
    for name in added:
        tried = log_probabilities(decoder, memory, [[*whole, *each] for each in options[name]])
        likeliest = torch.stack([each[len(whole) :].sum() for each in tried]).argmax()
        whole += options[name][int(likeliest)]
    for part, each in zip(parts, says, strict=True):
        if not each.asserted and not _contradicts(each.denied, each.words, frozenset(added)):
            whole += part
    return Whole(tuple(whole), added)


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


def _sentences(decoder: Decoder, ids: Sequence[int], vocabulary: Vocabulary) -> list[list[int]]:
    """Ids of each sentence, or of what was planned as one, with what ends it."""
    if decoder.sentences:
        ends = [place + 1 for place, each in enumerate(ids) if each == SENTENCE_END]
    else:
        ends = list(accumulate(map(len, split_sentences(vocabulary.decode(ids)))))
    parts = [list(ids[start:end]) for start, end in pairwise([0, *ends])]
    return [_closed(decoder, part, vocabulary) for part in parts if vocabulary.decode(part)]


def _known(decoder: Decoder, sentences: Sequence[str], vocabulary: Vocabulary) -> list[list[int]]:
    """Ids of the sentences whose words this vocabulary has, each with what ends it."""
    found = [vocabulary.ids(vocabulary.tokens(text)) for text in sentences]
    return [_closed(decoder, each, vocabulary) for each in found if each and UNKNOWN not in each]


def _closed(decoder: Decoder, part: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """Ids of a sentence with what ends it."""
    words = [each for each in part if each != SENTENCE_END]
    stop = [] if vocabulary.words[words[-1]] in TERMINATORS else vocabulary.ids(["."])
    return [*words, *stop, *([SENTENCE_END] if decoder.sentences else [])]


def _contradicts(denied: frozenset[str], words: frozenset[str], added: frozenset[str]) -> bool:
    """Whether a sentence that denies some observations, in these words, cannot stand beside what was added."""
    clear = "clear" in words and "lung" in words and "otherwise" not in words  # in which the labeler reads nothing
    return bool(denied & added) or (clear and bool(added & IN_LUNGS))
