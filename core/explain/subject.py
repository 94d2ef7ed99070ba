"""What is explained: a pair, the image it read, the report it wrote.

Whatever is written, also again after a change, is written in the pair's own precision. All that is explained is
computed in fp32: the differences that matter (a covered window, a step on the way to an empty image, the gradient of a
log-probability) are often smaller than what bfloat16's 8 bits round away.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor, nn

from core.bundles.pair import ReportModel, encode_batch, write_from_tokens
from core.decoders.search import GenerateConfig
from core.encoders import Encoder
from core.encoders.clip import TextTower
from core.studies.model_image import model_image
from core.types import CXRLensError, FloatImage, Geometry, Report, VisualTokens


@dataclass(frozen=True)
class Subject:
    """A pair with one image and one report.

    Attributes:
        model: a twin of the shared model: the same weights, modules of its own. Whatever an explanation does to it,
            hooks, modes, errors, the shared model stays as it was.
        image: (H, W) as it came.
        square: (1, 1, size, size) as the encoder gets it, on the pair's device.
        geometry: the way back from the square.
        visual: tokens (1, N, D) in fp32, without gradient, on the pair's device.
        report: what is explained.
        write: how reports are written, for what is written again.
    """

    model: ReportModel
    image: FloatImage
    square: Tensor
    geometry: Geometry
    visual: VisualTokens
    report: Report
    write: GenerateConfig

    @property
    def word_positions(self) -> tuple[tuple[int, ...], ...]:
        """Of each of the report's words, the indices among its ids of what it is made of."""
        return self.model.vocabulary.read(self.report.ids).positions

    def by_word(self, values: Tensor) -> Tensor:
        """Sums over the pieces of each word: values (T, ...) by id to (words, ...)."""
        return torch.stack([values[list(places)].sum(0) for places in self.word_positions])


@dataclass(frozen=True, slots=True)
class TokenRun:
    """Neighbouring tokens of one source.

    Attributes:
        source: encoder or tower.
        columns: of the N tokens.
        grid: (h, w) where tokens are image cells; None for filters.
    """

    source: str
    columns: slice
    grid: tuple[int, int] | None


def open_subject(
    model: ReportModel, image: FloatImage, report: Report | None = None, write: GenerateConfig | None = None
) -> Subject:
    """Encode an image, and write its report if there is none yet.

    Args:
        model: shared; it is not touched.
        image: (H, W), values in [0, 1], any shape.
        report: of this model and image.
        write: how to write; as the bundle was scored unless given.

    Raises:
        CXRLensError: the model gives NaN, or the report does not know its ids.
    """
    write = write or model.write
    square, geometry = model_image(image, model.image_size, model.fit)
    images = torch.from_numpy(square)[None, None].to(model.device)
    own = twin(model)
    visual = encode(own, images)
    report = report or write_from_tokens(own, _to_write_from(own, images, visual), write)[0]
    if not report.ids:
        raise CXRLensError(
            "This report cannot be explained: it is empty, or was stored without its ids. Write it anew."
        )
    return Subject(own, image, images, geometry, visual, report, write)


def tokens_to_write_from(subject: Subject) -> VisualTokens:
    """The tokens of which the pair writes, in its own precision: a report written again differs by the change alone."""
    return _to_write_from(subject.model, subject.square, subject.visual)


def _to_write_from(model: ReportModel, images: Tensor, visual: VisualTokens) -> VisualTokens:
    return visual if model.precision == "fp32" else encode_batch(model, images)


def with_image(subject: Subject, square: Tensor) -> Subject:
    """The same pair and report with another image (1, 1, size, size)."""
    square = square.to(subject.model.device)
    return replace(subject, square=square, visual=encode(subject.model, square))


def encode(model: ReportModel, images: Tensor) -> VisualTokens:
    """Visual tokens of images (B, 1, size, size), without gradient.

    Raises:
        CXRLensError: they are not finite.
    """
    with torch.no_grad():
        visual: VisualTokens = model.encoder(images)
    if not torch.isfinite(visual.tokens).all():
        raise CXRLensError(not_finite(model, "encoder"))
    return visual


def not_finite(model: ReportModel, part: str) -> str:
    """Message for a model that gives NaN or infinity."""
    return (
        f"The {part} of {model.card.name} gives NaN or infinity: there is nothing to explain. Its weights are damaged; "
        "verify the bundle with 'cxr-lens bundles --verify'."
    )


def twin(model: ReportModel, *, own_weights: bool = False) -> ReportModel:
    """Modules of their own, that let gradients through to the image.

    Args:
        model: stays as it is.
        own_weights: copy the weights too, so that they may be changed.
    """

    def copied(module: nn.Module) -> nn.Module:
        kept: list[object] = []
        if not own_weights:
            kept = [*module.parameters(), *module.buffers()]
            kept += [each for each in module.modules() if isinstance(each, TextTower)]
        return copy.deepcopy(module, {id(each): each for each in kept})

    encoder, decoder = copied(model.encoder), copied(model.decoder)
    for module in encoder.modules():
        if isinstance(module, Encoder):
            module.is_frozen = False  # a frozen encoder would run without gradient
    return replace(model, encoder=encoder, decoder=decoder)  # type: ignore[arg-type]


def token_runs(visual: VisualTokens) -> tuple[TokenRun, ...]:
    """Which tokens belong together, and to which grid; those that stand for the whole image are left out."""
    runs, start, grids = [], visual.summaries, list(visual.grids)
    for source, group in groupby(visual.sources[start:]):
        length = len(list(group))
        grid = grids.pop(0) if grids and grids[0][0] * grids[0][1] == length else None
        runs.append(TokenRun(source, slice(start, start + length), grid))
        start += length
    return tuple(runs)
