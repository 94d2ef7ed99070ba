"""What is asked about: words of a report, a classifier's logit, the likeness of image and text. A number each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.encoders import Encoder
from core.encoders.ccve import ClusterClipEncoder
from core.encoders.classifier import ImageClassifier
from core.encoders.clip import ClipModel, ContrastiveEncoder
from core.encoders.fve import FineGrainedEncoder
from core.explain.subject import Subject, token_runs
from core.labels.order import abnormal_first
from core.labels.rules import Mention, label_report
from core.observations import CLUSTERS, OBSERVATIONS, LabelState
from core.text import END, SENTENCE_END, START, UNKNOWN, split_sentences
from core.types import CXRLensError

Kind = TypeVar("Kind", bound=Encoder)


class Target(Protocol):
    """A number that an image, the tokens of an image, or feature maps give; larger is more."""

    @property
    def name(self) -> str:
        """For the reader."""
        ...

    def of_images(self, subject: Subject, images: Tensor) -> Tensor:
        """Score images (B, 1, size, size); (B,)."""
        ...

    def of_tokens(self, subject: Subject, tokens: Tensor) -> Tensor:
        """Score tokens (B, N, D); (B,)."""
        ...

    def maps(self, subject: Subject) -> list[FeatureMap]:
        """The last feature maps it depends on."""
        ...

    def of_maps(self, subject: Subject, maps: Sequence[Tensor]) -> Tensor:
        """Score feature maps, as many as :meth:`maps` gives, (B, D, h, w) each; (B,)."""
        ...

    def unit(self, scores: Tensor) -> Tensor:
        """Scores on a scale on which curves can be compared: probabilities, or cosines."""
        ...


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """The last feature map of an encoder or tower.

    Attributes:
        source: encoder or tower.
        values: (1, D, h, w), without gradient.
        trunk: the CNN that made it; None where its encoder names none.
    """

    source: str
    values: Tensor
    trunk: nn.Module | None


@dataclass(frozen=True, slots=True)
class WordTarget:
    """Log-likelihood of words of a text, natural log, each given the image and the words before it.

    Attributes:
        name: for the reader.
        ids: the text up to the last word asked about, START left out.
        positions: of these ids that are asked about; their log-probabilities are summed.
    """

    name: str
    ids: tuple[int, ...]
    positions: tuple[int, ...]

    def of_images(self, subject: Subject, images: Tensor) -> Tensor:
        """See ``Target``."""
        return self.of_tokens(subject, subject.model.encoder(images).tokens)

    def of_tokens(self, subject: Subject, tokens: Tensor) -> Tensor:
        """See ``Target``."""
        return self.by_word(subject, tokens).sum(1)

    def by_word(self, subject: Subject, tokens: Tensor) -> Tensor:
        """Log-probability (B, words) of each word asked about, for tokens (B, N, D)."""
        decoder = subject.model.decoder
        memory = decoder.encode(replace(subject.visual, tokens=tokens))
        ids = torch.tensor([START, *self.ids[:-1]], device=tokens.device)
        logits = decoder.decode(memory, ids.expand(len(tokens), -1)).logits[:, list(self.positions)]
        asked = torch.tensor([self.ids[position] for position in self.positions], device=tokens.device)
        return logits.float().log_softmax(2).gather(2, asked.expand(len(tokens), -1).unsqueeze(2)).squeeze(2)

    def maps(self, subject: Subject) -> list[FeatureMap]:
        """The grids of tokens that the decoder reads; none with CCVE."""
        return token_maps(subject)

    def of_maps(self, subject: Subject, maps: Sequence[Tensor]) -> Tensor:
        """See ``Target``; tokens that are no cells stay as they are."""
        return self.of_tokens(subject, tokens_of_maps(subject, maps))

    def unit(self, scores: Tensor) -> Tensor:
        """Probability of a word: the geometric mean over the words asked about."""
        return (scores / len(self.positions)).exp()


def token_maps(subject: Subject) -> list[FeatureMap]:
    """The grids of tokens that a decoder reads, as maps; none where tokens are filters."""
    trunks = subject.model.encoder.trunks()
    return [
        FeatureMap(run.source, _to_map(subject.visual.tokens[:, run.columns], run.grid), trunks.get(run.source))
        for run in token_runs(subject.visual)
        if run.grid
    ]


def tokens_of_maps(subject: Subject, maps: Sequence[Tensor]) -> Tensor:
    """Tokens (B, N, D) of maps, as many as `token_maps` gives, (B, D, h, w) each; others are the subject's own."""
    left, whole = list(maps), subject.visual.tokens[:, : subject.visual.summaries]
    parts = [whole] + [
        left.pop(0).flatten(2).transpose(1, 2) if run.grid else subject.visual.tokens[:, run.columns]
        for run in token_runs(subject.visual)
    ]
    return torch.cat([part.expand(len(maps[0]), -1, -1) for part in parts], dim=1)


@dataclass(frozen=True, slots=True)
class LogitTarget:
    """A logit of one of FVE's two classifiers.

    Attributes:
        tower: "cdc" or "fgc".
        index: of the class.
        label: its name.
    """

    tower: str
    index: int
    label: str

    @property
    def name(self) -> str:
        """For the reader."""
        return f"{self.tower.upper()} logit: {self.label}"

    def of_images(self, subject: Subject, images: Tensor) -> Tensor:
        """See ``Target``."""
        encoder, fitted = _fve(subject, images)
        logits: Tensor = self._classifier(encoder)(encoder.normalize(fitted))
        return logits[:, self.index]

    def of_tokens(self, subject: Subject, tokens: Tensor) -> Tensor:
        """Refuse: a classifier reads no tokens."""
        raise CXRLensError(f"{self.name} depends on pixels, not on a decoder's tokens. Choose a method over pixels.")

    def maps(self, subject: Subject) -> list[FeatureMap]:
        """The tower's feature map."""
        encoder, fitted = _fve(subject, subject.square)
        classifier = self._classifier(encoder)
        with torch.no_grad():
            return [FeatureMap(f"fve.{self.tower}", classifier.features(encoder.normalize(fitted)), classifier.model)]

    def of_maps(self, subject: Subject, maps: Sequence[Tensor]) -> Tensor:
        """See ``Target``."""
        encoder, _ = _fve(subject, subject.square)
        logits: Tensor = self._classifier(encoder).model.forward_head(maps[0])  # type: ignore[operator]
        return logits[:, self.index]

    def unit(self, scores: Tensor) -> Tensor:
        """The classifier's probability."""
        return scores.sigmoid()

    def _classifier(self, encoder: FineGrainedEncoder) -> ImageClassifier:
        classifier: ImageClassifier = getattr(encoder, self.tower)
        return classifier


@dataclass(frozen=True, eq=False)
class SimilarityTarget:
    """Cosine of the image's CLIP embedding and a text's.

    Attributes:
        text: as typed.
        embedding: of the text, (D,), L2-normalised.
        cluster: through which of CCVE's filters the image goes; None with CVE, or for the mean over CCVE's filters.
    """

    text: str
    embedding: Tensor
    cluster: str | None

    @property
    def name(self) -> str:
        """For the reader."""
        through = f" through the filter {self.cluster}" if self.cluster else ""
        return f'likeness to "{self.text}"{through}'

    def of_images(self, subject: Subject, images: Tensor) -> Tensor:
        """See ``Target``."""
        clip, inputs = self._inputs(subject, images)
        embeddings = functional.normalize(clip.image(inputs.flatten(0, 1)), dim=1)
        return (embeddings @ self.embedding).unflatten(0, inputs.shape[:2]).mean(1)

    def of_tokens(self, subject: Subject, tokens: Tensor) -> Tensor:
        """Refuse: the likeness is CLIP's, a decoder's tokens come after it."""
        raise CXRLensError(
            f"The {self.name} depends on pixels, not on tokens. Choose a method over pixels, or Grad-CAM."
        )

    def maps(self, subject: Subject) -> list[FeatureMap]:
        """CLIP's last feature map.

        Raises:
            CXRLensError: thirteen filters give thirteen maps; one must be chosen.
        """
        clip, inputs = self._inputs(subject, subject.square)
        if inputs.shape[1] > 1:
            raise CXRLensError("CCVE has a feature map for each filter. Choose the filter whose map to show.")
        encoder, _ = _clip(subject, subject.square, self.cluster)
        with torch.no_grad():
            return [FeatureMap(encoder.source, clip.image.features(inputs[:, 0]), clip.image.trunk())]

    def of_maps(self, subject: Subject, maps: Sequence[Tensor]) -> Tensor:
        """See ``Target``."""
        encoder, _ = _clip(subject, subject.square, self.cluster)
        pooled = encoder.clip.image.visual.attnpool(maps[0])  # type: ignore[operator]
        return functional.normalize(pooled, dim=1) @ self.embedding

    def unit(self, scores: Tensor) -> Tensor:
        """The cosine itself."""
        return scores

    def _inputs(self, subject: Subject, images: Tensor) -> tuple[ClipModel, Tensor]:
        """What CLIP sees, (B, filters, 3, H, H)."""
        encoder, fitted = _clip(subject, images, self.cluster)
        inputs = encoder.normalize(fitted)
        return encoder.clip, encoder.views(inputs, None if self.cluster is None else CLUSTERS.index(self.cluster))


# ------------------------------------------------------------------------------------------------------ words asked for


def word(subject: Subject, which: int | str) -> WordTarget:
    """A word of the report.

    Args:
        subject: with the report.
        which: its index among the report's words, or the word itself; then its first mention.

    Raises:
        CXRLensError: the report has no such word.
    """
    words = subject.report.words
    if isinstance(which, str):
        if which.lower() not in words:
            near = difflib.get_close_matches(which.lower(), words, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise CXRLensError(f"The report does not have the word '{which}'.{hint} It reads: {subject.report.text}")
        which = words.index(which.lower())
    if not 0 <= which < len(words):
        raise CXRLensError(f"The report has no word {which}: it has {len(words)} words, counted from 0.")
    return _of_words(subject, f"word {which}: {words[which]}", [which])


def sentence(subject: Subject, which: int) -> WordTarget:
    """A sentence of the report, by its index.

    Raises:
        CXRLensError: the report has no such sentence.
    """
    sentences = split_sentences(subject.report.words)
    if not 0 <= which < len(sentences):
        raise CXRLensError(f"The report has no sentence {which}: it has {len(sentences)}, counted from 0.")
    start = sum(len(each) for each in sentences[:which])
    text = " ".join(sentences[which])
    return _of_words(subject, f"sentence {which}: {text}", range(start, start + len(sentences[which])))


def mention(subject: Subject, observation: str) -> WordTarget:
    """The words by which the report speaks of an observation, and those that decide its state ("no", "enlarged").

    Of several mentions the strongest: positive over uncertain over negative.

    Raises:
        CXRLensError: the report does not speak of it.
    """
    text = " ".join(subject.report.words)
    mentions = label_report(text).mentions
    found = [each for each in mentions if each.observation == observation]
    if not found:
        known = ", ".join(dict.fromkeys(each.observation for each in mentions)) or "nothing"
        raise CXRLensError(f"The report does not speak of {observation}. It speaks of: {known}.")
    order = (LabelState.POSITIVE, LabelState.UNCERTAIN, LabelState.NEGATIVE)
    chosen = min(found, key=lambda each: order.index(each.state))
    positions = _touched(subject.report.words, _spans(text, chosen))
    words = " ".join(subject.report.words[position] for position in positions)
    return _of_words(subject, f"{chosen.state} mention of {observation}: {words}", positions)


def mention_sentence(subject: Subject, observation: str) -> WordTarget:
    """The sentence in which the report speaks of an observation.

    Raises:
        CXRLensError: the report does not speak of it.
    """
    asked = mention(subject, observation).positions[0]
    first = next(index for index, places in enumerate(subject.word_positions) if asked in places)
    ends = 0
    for index, words in enumerate(split_sentences(subject.report.words)):
        ends += len(words)
        if first < ends:
            return sentence(subject, index)
    raise AssertionError("every word belongs to a sentence")


def whole_report(subject: Subject) -> WordTarget:
    """All of the report: its log-probability."""
    return _of_all(subject, "the whole report", subject.report.ids)


def reference(subject: Subject, text: str) -> WordTarget:
    """All words of another text, the reference report for instance, as if the decoder had written it.

    A decoder that plans sentences gets them in the order it learned (``core.labels.order``).

    Raises:
        CXRLensError: the text is empty, or longer than a decoder can read.
    """
    decoder = subject.model.decoder
    ordered = abnormal_first(text) if decoder.sentences else text
    ids = subject.model.vocabulary.encode(ordered, 10 * decoder.longest, sentences=decoder.sentences)[1:]
    if not 1 < len(ids) < decoder.longest:
        raise CXRLensError(
            f"The reference has {len(ids) - 1} words or pieces of words; its likelihood can be asked for 1 to "
            f"{decoder.longest - 2} of them."
        )
    return _of_all(subject, "the reference report", ids)


def given(subject: Subject, text: str) -> WordTarget:
    """The words of a sentence that the report need not have, as if the decoder had begun its report with it.

    Raises:
        CXRLensError: the text is empty, or the decoder's vocabulary lacks one of its words.
    """
    vocabulary, name = subject.model.vocabulary, subject.model.card.name
    unknown = [word for word in vocabulary.tokens(text) if UNKNOWN in vocabulary.encode(word, 9)]
    if unknown:
        raise CXRLensError(f"{name} never learned the word '{unknown[0]}', so it cannot be asked for \"{text}\".")
    decoder = subject.model.decoder
    ids = vocabulary.encode(text, decoder.longest, sentences=decoder.sentences)[1:-1]
    positions = tuple(position for position, each in enumerate(ids) if each != SENTENCE_END)
    if not positions:
        raise CXRLensError("The sentence to ask for is empty.")
    return WordTarget(f"given sentence: {text}", tuple(ids[: positions[-1] + 1]), positions)


def _of_all(subject: Subject, name: str, ids: Sequence[int]) -> WordTarget:
    """All of ids; END of a planner, and that it leaves a sentence out, are no words (see ``training.losses``)."""
    if not subject.model.decoder.sentences:
        return WordTarget(name, tuple(ids), tuple(range(len(ids))))
    ids = [each for each in ids if each != END]
    left_out = [after == before == SENTENCE_END for before, after in pairwise((START, *ids))]
    return WordTarget(name, tuple(ids), tuple(position for position, out in enumerate(left_out) if not out))


def _of_words(subject: Subject, name: str, words: Iterable[int]) -> WordTarget:
    places = subject.word_positions
    positions = tuple(sorted({position for each in words for position in places[each]}))
    return WordTarget(name, subject.report.ids[: positions[-1] + 1], positions)


def _spans(text: str, found: Mention) -> list[tuple[int, int]]:
    """Where the phrase stands, and the words that decided, nearest to it in its sentence."""
    spans = [(found.start, found.end)]
    if found.reason:
        starts = [
            start for start in range(found.sentence_start, found.sentence_end) if text.startswith(found.reason, start)
        ]
        if starts:
            nearest = min(starts, key=lambda start: max(start - found.end, found.start - start - len(found.reason)))
            spans.append((nearest, nearest + len(found.reason)))
    return spans


def _touched(words: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[int]:
    """Indices of the words, joined by spaces, that touch one of the spans of characters."""
    positions, start = [], 0
    for position, each in enumerate(words):
        if any(first < start + len(each) and start < last for first, last in spans):
            positions.append(position)
        start += len(each) + 1
    return positions


# -------------------------------------------------------------------------------------------------- other numbers asked


def logit(subject: Subject, tower: str, label: str, labels: Sequence[str] = OBSERVATIONS) -> LogitTarget:
    """A logit of CDC or FGC.

    Args:
        subject: with FVE among its encoders.
        tower: "cdc" or "fgc".
        label: name of the class.
        labels: names of the tower's classes in their order; ``BundleLibrary.classes`` has those of FGC.

    Raises:
        CXRLensError: no FVE, no such tower or label, or labels that do not fit the tower.
    """
    encoder, _ = _fve(subject, subject.square)
    if tower not in ("cdc", "fgc"):
        raise CXRLensError(f"FVE has the classifiers cdc and fgc, not '{tower}'.")
    classes = getattr(encoder, tower).model.num_classes
    if len(labels) != classes:
        raise CXRLensError(f"{tower.upper()} has {classes} classes, but {len(labels)} names came.")
    if label not in labels:
        near = difflib.get_close_matches(label, labels, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise CXRLensError(f"{tower.upper()} does not know '{label}'.{hint}")
    return LogitTarget(tower, list(labels).index(label), label)


def similarity(subject: Subject, text: str, cluster: str | None = None) -> SimilarityTarget:
    """Likeness of the image to any typed text, in the eyes of CVE's or CCVE's CLIP.

    Args:
        subject: with CVE or CCVE among its encoders.
        text: typed by the reader.
        cluster: the filter of CCVE through which the image goes; None is the mean over filters.

    Raises:
        CXRLensError: no CLIP, an empty text, a text of unknown words only, no such filter.
    """
    encoder, _ = _clip(subject, subject.square, cluster)
    if cluster is not None and cluster not in CLUSTERS:
        raise CXRLensError(f"There is no filter '{cluster}'. CCVE's filters: {', '.join(CLUSTERS)}.")
    if not text.strip():
        raise CXRLensError("Type a text to compare the image with.")
    tower = encoder.clip.text
    ids = tower.tokenize([text])
    if tower.kind != "minilm" and tower.tokenizer == "words" and not (ids > SENTENCE_END).any():
        raise CXRLensError(f"This CLIP learned none of the words of '{text}'. Type words that radiology reports use.")
    with torch.no_grad():
        embedding = functional.normalize(tower(ids.to(subject.model.device)), dim=1)[0]
    return SimilarityTarget(text, embedding, cluster)


# -------------------------------------------------------------------------------------------------- parts of an encoder


def _find(subject: Subject, kinds: tuple[type[Kind], ...], images: Tensor, what: str) -> tuple[Kind, Tensor]:
    """The first encoder of the given kinds, and images at its size."""
    encoder = subject.model.encoder
    for part in encoder.parts():
        if isinstance(part, kinds):
            size = part.normalize.image_size
            if size != images.shape[2]:
                images = functional.interpolate(images, size=size, mode="bilinear", antialias=True)
            return part, images
    raise CXRLensError(f"{subject.model.card.name} has no {what}.")


def _fve(subject: Subject, images: Tensor) -> tuple[FineGrainedEncoder, Tensor]:
    return _find(subject, (FineGrainedEncoder,), images, "classifier: only FVE has logits to explain")


def _ccve(subject: Subject, images: Tensor) -> tuple[ClusterClipEncoder, Tensor]:
    return _find(subject, (ClusterClipEncoder,), images, "filters: only CCVE filters its image")


def _clip(subject: Subject, images: Tensor, cluster: str | None) -> tuple[ContrastiveEncoder, Tensor]:
    if cluster is not None:
        return _ccve(subject, images)
    return _find(subject, (ContrastiveEncoder,), images, "CLIP: only encoders with one compare an image with a text")


def _to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (B, h * w, D) to a feature map (B, D, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, grid)
