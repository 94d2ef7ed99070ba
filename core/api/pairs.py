"""Trained pairs that are called: an image in, a report out; a report and a question in, an explanation out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core import paths
from core.api import drawing
from core.api.images import ImageLike, read
from core.api.texts import LabeledText, label
from core.bundles.library import BundleLibrary
from core.devices import Precision, open_device
from core.explain.measured import SMOOTHING
from core.explain.methods import METHODS, explain
from core.explain.on_image import on_image
from core.explain.subject import Subject, open_subject
from core.explain.targets import WordTarget, mention, sentence, whole_report, word
from core.registry import lookup, token_names
from core.studies import model_image
from core.studies.images import Radiograph
from core.types import Attribution, CXRLensError, FloatImage, Report

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class WrittenReport:
    """A generated report, with what it says and what the decoder attended to. A notebook shows it beside its film.

    Attributes:
        pair: name of the pair that wrote it.
        image: what it read.
        report: text, words, attention, log-probability.
        labeled: what the text says of each observation, with the words that say it; see `cxr_lens.label`.
    """

    pair: str
    image: Radiograph = field(repr=False)
    report: Report
    labeled: LabeledText

    @property
    def text(self) -> str:
        """The findings."""
        return self.report.text

    @property
    def words(self) -> tuple[str, ...]:
        """The text's words, one a row of `word_attention`."""
        return self.report.words

    @property
    def labels(self) -> dict[str, str]:
        """State of each observation that the text speaks of: "positive", "negative" or "uncertain"."""
        return self.labeled.labels

    @property
    def cls_attention(self) -> npt.NDArray[np.float32] | None:
        """(tokens,): share of each visual token in the CLS token, sums to 1; None for a decoder without one."""
        return self.report.cls_attention

    @property
    def word_attention(self) -> npt.NDArray[np.float32] | None:
        """(words, tokens): attention of each word to each visual token, rows sum to 1."""
        return self.report.word_attention

    @property
    def found_first(self) -> tuple[str, ...] | None:
        """Observations that the pair found in the image before it wrote; None for a pair that reads none first."""
        return self.report.found_first

    @property
    def added(self) -> tuple[str, ...]:
        """Of `found_first`, what the text says only because it was found: the decoder had left it out."""
        return self.report.added

    @property
    def contradicted(self) -> tuple[str, ...]:
        """Sentences that the decoder wrote and that the text lacks, because they contradict others of it."""
        return self.report.contradicted

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the image and its file, for instance that the view is lateral, or unlike what was learned."""
        return (*self.image.warnings, *self.report.warnings)

    def __repr__(self) -> str:
        """The text, and what was found."""
        return f"{self.pair}: {self.labeled!r}"

    def _repr_html_(self) -> str:
        text, mentions = self.text, self.labeled.mentions
        lines = [self.labeled.summary, *(f"Note: {note}" for note in self.notes), drawing.NOTICE]
        return drawing.picture_html(drawing.film(self.image.pixels), self.pair) + drawing.text_html(
            text, mentions, lines
        )


@dataclass(frozen=True)
class Explanation:
    """Why a report has the words it has. A notebook shows its map over the film, or a bar for each filter.

    Attributes:
        method: its title.
        target: what was asked.
        parts: one attribution for pixels, or one for each grid of cells, or one for CCVE's filters.
        image: what the report was written from.
        filter_names: one for each of `filters`; empty where values are places.
    """

    method: str
    target: str
    parts: tuple[Attribution, ...] = field(repr=False)
    image: Radiograph = field(repr=False)
    filter_names: tuple[str, ...] = field(default=(), repr=False)

    @property
    def has_map(self) -> bool:
        """Whether its values are of the image, and not of filters."""
        return all(part.geometry is not None for part in self.parts)

    @property
    def map(self) -> FloatImage:
        """(H, W) of the radiograph, see `core.explain.on_image.on_image`.

        Raises:
            CXRLensError: its values are of CCVE's filters; see `filters`.
        """
        return on_image(self.parts)

    @property
    def filters(self) -> npt.NDArray[np.float32] | None:
        """(13,): value of each of CCVE's filters; None where values are of the image."""
        return next((part.values for part in self.parts if part.geometry is None), None)

    def picture(self, side: int = drawing.SIDE) -> Image.Image:
        """The map over the film: orange where it speaks for the words, blue where against.

        Args:
            side: longer side of the picture, pixels.

        Raises:
            CXRLensError: its values are of CCVE's filters; see `filters`.
        """
        of_pixels = any(not part.source for part in self.parts)
        return drawing.film_with_map(self.image.pixels, self.map, smoothing=SMOOTHING if of_pixels else 0, side=side)

    def __repr__(self) -> str:
        """Method and question."""
        return f"{self.method}, {self.target}"

    def _repr_html_(self) -> str:
        if self.filters is not None:
            return drawing.bars_html(self.filter_names, self.filters, repr(self))
        return drawing.picture_html(self.picture(), repr(self))


class Pair:
    """A trained encoder and decoder. Call it, or its ``write``, with an image."""

    def __init__(self, library: BundleLibrary, name: str) -> None:
        """Load a bundle; see `load`."""
        self._model = library.load(name)
        self.card = self._model.card

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.card.name

    def write(self, image: ImageLike, *, beam_size: int | None = None) -> WrittenReport:
        """Write the findings of a radiograph, with the same words as all pages and commands.

        Args:
            image: see `cxr_lens.read`.
            beam_size: hypotheses kept by the search; 1 is greedy. By default that of the bundle's card.

        Raises:
            ImageError: the image cannot be used.
        """
        from core.bundles.inference import write_reports

        if beam_size is not None and beam_size < 1:
            raise CXRLensError(f"beam_size is at least 1, not {beam_size}.")
        radiograph = read(image)
        ((_, written),) = write_reports([self._model], model_image.of_image(radiograph.pixels), beam_size=beam_size)
        return WrittenReport(self.name, radiograph, written, label(written.text))

    __call__ = write

    def explain(
        self,
        report: WrittenReport,
        *,
        word: str | int | None = None,
        sentence: int | None = None,
        finding: str | None = None,
        method: str = "random-masks",
        **options: Any,
    ) -> Explanation:
        """Explain a report that this pair wrote: a word, a sentence, the mention of a finding, or the whole report.

        Args:
            report: of `write`.
            word: the word itself, or its index from 0.
            sentence: its index from 0.
            finding: an observation that the report mentions.
            method: a key of `core.explain.methods.METHODS`; "rise" is "random-masks".
            options: of the method, such as ``seed`` or ``progress``.

        Raises:
            CXRLensError: another pair wrote it, the report has no such words, or the method cannot serve this pair.
        """
        if report.pair != self.name:
            raise CXRLensError(f"This report was written by {report.pair}. Ask that pair to explain it.")
        asked = [
            name for name, value in (("word", word), ("sentence", sentence), ("finding", finding)) if value is not None
        ]
        if len(asked) > 1:
            raise CXRLensError(f"Ask about one thing at a time, not about {' and '.join(asked)}.")
        key = {"rise": "random-masks"}.get(method.lower(), method)
        lookup(METHODS, key, "method")
        subject = open_subject(self._model, report.image.pixels, report.report)
        target = _target(subject, word, sentence, finding)
        parts = explain(subject, target, key, **options)
        names = token_names(self.card.encoder) if any(part.geometry is None for part in parts) else ()
        return Explanation(METHODS[key].title, target.name, parts, report.image, names)

    def __repr__(self) -> str:
        """What it is and what it learned from."""
        data = self.card.data
        studies = data.get("studies", {}).get("train", "?")
        learned = f"learned from {studies} studies of {data['name']}" if self.card.pair else data["description"]
        return f"{self.card.title} ({self.name}): {learned.rstrip('.')}. {self.card.intended_use}"


def _target(subject: Subject, of_word: str | int | None, of_sentence: int | None, finding: str | None) -> WordTarget:
    if of_word is not None:
        return word(subject, of_word)
    if of_sentence is not None:
        return sentence(subject, of_sentence)
    return whole_report(subject) if finding is None else mention(subject, finding)


def bundles(folder: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """Names of the trained pairs in a folder; by default of the folder that CXR_BUNDLES names, or those that ship."""
    return tuple(card.name for card in BundleLibrary(_folder(folder)).cards())


def load(
    name: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
) -> Pair:
    """A trained pair by its name, as "phantom-fve-m2".

    Args:
        name: see `bundles`.
        folder: of bundles; by default that which CXR_BUNDLES names, or that of the bundles that ship.
        device: where it computes, as torch names it: "cpu", "cuda"; "auto" is a GPU where there is one.
        precision: in which it writes; "bf16" is faster on processors that have it, and reports may differ in words.

    Raises:
        CXRLensError: there is no such pair, it is damaged, or there is no such device or precision.
    """
    where = _folder(folder)
    known = dict.fromkeys(bundles(where), True)
    if not known:
        raise CXRLensError(f"There is no bundle in {where}. Train some (cxr-lens train), or name another folder.")
    lookup(known, name, "bundle")
    # A pair on a device has weights of its own: the same pair on another one stays where it is.
    return Pair(_library(where, str(open_device(device)), precision), name)


def _folder(folder: str | os.PathLike[str] | None) -> Path:
    return Path(folder or os.environ.get("CXR_BUNDLES") or paths.BUNDLES)


@lru_cache(maxsize=4)
def _library(folder: Path, device: str, precision: Precision) -> BundleLibrary:
    return BundleLibrary(folder, device, precision)
