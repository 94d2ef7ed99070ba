"""What a pair's sentences state, and the scores by which `core.evaluation.trust` says which of them to mark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from core.evaluation.trust import Kind
from core.gate.gate import Gate
from core.labels.rules import LabeledReport
from core.observations import ASSERTED, LabelState, stronger
from core.text import split_sentences, word_spans
from core.types import Report, VisualTokens

if TYPE_CHECKING:
    from torch import Tensor

    from core.bundles.pair import ReportModel

States = Mapping[str, LabelState]

_PLAIN = (LabelState.POSITIVE, LabelState.NEGATIVE)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a report.

    Attributes:
        first: place of its first word among the report's words.
        words: how many it has.
        states: observations that it states as present (POSITIVE) or absent (NEGATIVE), as the report as a whole does:
            "no effusion on the right" beside an effusion on the left states none.
    """

    first: int
    words: int
    states: States

    @property
    def kind(self) -> Kind | None:
        """What it states; None where it states nothing that can be right or wrong."""
        if not self.states:
            return None
        return Kind.PRESENT if LabelState.POSITIVE in self.states.values() else Kind.ABSENT

    def contradicts(self, truth: States) -> bool:
        """Whether it states what is known to be otherwise.

        Args:
            truth: of all observations. What may be there (UNCERTAIN) counts as present, what is not mentioned (BLANK)
                as absent.
        """
        return any((state in ASSERTED) is not (truth[name] in ASSERTED) for name, state in self.states.items())

    def agreement(self, others: Sequence[States]) -> float:
        """Share of other reports of the film that say the same, of the observation that fewest agree on; NaN of none.

        Args:
            others: states of all observations in each; see `contradicts`.
        """
        if not others or not self.states:
            return math.nan
        return min(
            sum((state in ASSERTED) is (each[name] in ASSERTED) for each in others) / len(others)
            for name, state in self.states.items()
        )


def sentences_of(report: Report, labels: LabeledReport) -> list[Sentence]:
    """The sentences of a report, in its order, with what each states.

    Args:
        report: its text and words.
        labels: of its text.
    """
    spans, found, first = word_spans(report.words, report.text), [], 0
    for words in split_sentences(report.words):
        start, end = spans[first][0], spans[first + len(words) - 1][1]
        states: dict[str, LabelState] = {}
        for mention in labels.mentions:
            if start <= mention.start < end and mention.state is labels.states[mention.observation]:
                before = states.get(mention.observation, LabelState.BLANK)
                states[mention.observation] = stronger(before, mention.state)
        states = {name: state for name, state in states.items() if state in _PLAIN}
        found.append(Sentence(first, len(words), states))
        first += len(words)
    return found


@dataclass(frozen=True, slots=True)
class Measured:
    """What a pair itself tells of its report's sentences.

    Attributes:
        likelihood: (S,), mean log-probability of a sentence's words, natural log.
        fall: (S,), how far that falls, on the mean, with other films in place of this one.
        distance: how unlike the training films the film is, 1 is where the warning begins; NaN without a gate.
        warned: whether the gate warns of the film.
    """

    likelihood: npt.NDArray[np.float64]
    fall: npt.NDArray[np.float64]
    distance: float
    warned: bool


def measure(
    model: ReportModel, images: Tensor, visual: VisualTokens, reports: Sequence[Report], others: VisualTokens
) -> list[Measured]:
    """Measure reports that a pair wrote.

    Args:
        model: the pair.
        images: (B, 1, side, side) in [0, 1].
        visual: its tokens of these images, (B, N, D).
        reports: B; of one without ids, the words are taken as the decoder would have written them.
        others: tokens of other films, (R, N, D), see `other_tokens`.
    """
    distances, warned = np.full(len(reports), np.nan), [True] * len(reports)
    if isinstance(model.check, Gate):
        distances = model.check.unlike(model.check.scores(images, visual.tokens))
        warned = [bool(said) for said in model.check.warnings(images, visual.tokens)]
    ids = [_ids(model, each) for each in reports]
    own = _word_likelihoods(model, visual, ids)
    elsewhere = []
    for place in range(len(others.tokens)):
        other = others.tokens[place].expand(len(reports), -1, -1).contiguous()
        elsewhere.append(_word_likelihoods(model, replace(visual, tokens=other), ids))
    found = []
    for row, report in enumerate(reports):
        likelihood = _by_sentence(report.words, own[row])
        changed = np.mean([_by_sentence(report.words, each[row]) for each in elsewhere], axis=0)
        found.append(Measured(likelihood, likelihood - changed, float(distances[row]), warned[row]))
    return found


def other_tokens(model: ReportModel, images: Sequence[npt.NDArray[np.float32]]) -> VisualTokens:
    """A pair's tokens of other films, (R, N, D).

    Args:
        model: the pair.
        images: R films as it reads them, (side, side).
    """
    import torch

    from core.bundles.pair import encode_batch

    return encode_batch(model, torch.from_numpy(np.stack(images)).unsqueeze(1))


def _ids(model: ReportModel, report: Report) -> tuple[int, ...]:
    """What the decoder wrote, its end left out."""
    from core.text import END

    ids = report.ids or tuple(
        model.vocabulary.encode(report.text, len(report.text) + 2, sentences=model.decoder.sentences)[1:]
    )
    return tuple(each for each in ids if each != END)


def _word_likelihoods(
    model: ReportModel, visual: VisualTokens, ids: Sequence[tuple[int, ...]]
) -> list[npt.NDArray[np.float64]]:
    """Log-probability of each word that shows, (T,) of each report, given its film and the words before it."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from core.text import PAD, START

    device = visual.tokens.device
    with torch.inference_mode():
        rows = pad_sequence([torch.tensor([START, *each], device=device) for each in ids], True, PAD)
        if rows.shape[1] < 2:
            return [np.zeros(0)] * len(ids)
        logits = model.decoder.decode(model.decoder.encode(visual), rows[:, :-1]).logits.float()
        scored = logits.log_softmax(2).gather(2, rows[:, 1:, None])[..., 0].cpu().numpy().astype(np.float64)
    shown = [[place for place, word in enumerate(each) if model.vocabulary.decode([word])] for each in ids]
    return [scored[row, places] for row, places in enumerate(shown)]


def _by_sentence(words: Sequence[str], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means over the words of each sentence, (S,)."""
    lengths = [len(each) for each in split_sentences(words)]
    ends = np.cumsum([0, *lengths])
    return np.array([values[start:end].mean() for start, end in pairwise(ends)], dtype=np.float64)
