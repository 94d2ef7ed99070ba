"""CCVE's filters on their own: what each makes of the image, which detail it lets pass, how much it is looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from core.bundles.pair import ReportModel
from core.decoders.attention_shares import cls_attention, report_attention, rollout, word_attention, word_mass
from core.encoders import Encoder
from core.encoders.ccve import ClusterClipEncoder, ClusterTexts
from core.encoders.joint import JointEncoder
from core.encoders.random_filters import with_random_filters
from core.explain.passes import as_array
from core.explain.subject import Subject, TokenRun, encode, token_runs, twin
from core.studies.model_image import model_image
from core.text import START
from core.types import CXRLensError, FloatImage

RESPONSE_SIZE = 64
"""Side of the even image on which a filter's response is measured, pixels."""

FREQUENCIES = 24
"""Points of a frequency response, from even grey to one cycle in two pixels."""


@dataclass(frozen=True, slots=True)
class FilterViews:
    """What the filters make of an image, in its grey levels: black is 0, white is 1, filters may go beyond.

    Attributes:
        image: (H, H), before the filters.
        filtered: (13, H, H), mean of the three channels; in the order of ``CLUSTERS``.
    """

    image: npt.NDArray[np.float32]
    filtered: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FilterAttention:
    """How much the decoder looks at each filter; shares of all visual tokens, so that 13 filters alone sum to 1.

    Attributes:
        summary: (13,), of the CLS token; of a decoder without one, the mean over the report's words.
        words: (T, 13), of each word of the report.
        has_cls: whether ``summary`` is the CLS token's.
        image: share of the words' attention that goes to visual tokens at all, mean over layers, heads and words; the
            shares above divide only this part.
    """

    summary: npt.NDArray[np.float32]
    words: npt.NDArray[np.float32]
    has_cls: bool
    image: float


def find_filters(encoder: Encoder) -> ClusterClipEncoder | None:
    """CCVE itself, or the CCVE among joint encoders; None where there is none."""
    return next((part for part in encoder.parts() if isinstance(part, ClusterClipEncoder)), None)


def filter_tokens(subject: Subject) -> TokenRun:
    """Which of a subject's tokens are CCVE's.

    Raises:
        CXRLensError: no CCVE.
    """
    source = _require(subject.model).source
    return next(run for run in token_runs(subject.visual) if run.source == source)


def _require(model: ReportModel) -> ClusterClipEncoder:
    found = find_filters(model.encoder)
    if found is None:
        raise CXRLensError(f"{model.card.name} has no filters: only CCVE filters its image.")
    return found


@torch.inference_mode()
def filter_views(model: ReportModel, image: FloatImage) -> FilterViews:
    """Pass an image (H, W) through the filters.

    Raises:
        CXRLensError: the model's encoder has no filters.
    """
    encoder = _require(model)
    normalize = encoder.normalize
    square, _ = model_image(image, normalize.image_size, model.fit)
    images = torch.from_numpy(square)[None, None].to(model.device)
    return FilterViews(square, as_array(encoder.pictures(images)[0]))


@torch.no_grad()
def frequency_responses(model: ReportModel, image: FloatImage) -> npt.NDArray[np.float32]:
    """How strongly each filter passes coarse and fine detail: gains (13, ``FREQUENCIES``).

    Filters are not linear; this is their response to faint detail on an even image of the radiograph's mean grey,
    by the derivative, averaged over directions. 1 lets pass unchanged, 0 removes. The frequencies run evenly from 0
    to 0.5 cycles a pixel.

    Raises:
        CXRLensError: the model's encoder has no filters.
    """
    encoder, size = _require(model), RESPONSE_SIZE
    mean, std = encoder.normalize.mean, encoder.normalize.std
    grey = torch.full((1, 3, size, size), float(image.mean()), device=model.device)
    even = ((grey - mean) / std).contiguous()
    impulse = torch.zeros_like(even)
    impulse[..., size // 2, size // 2] = (1 / std).view(1, 3)
    response = torch.func.jvp(encoder.filters.all, (even,), (impulse,))[1]
    spectrum = torch.fft.fft2((response[0] * std).mean(1)).abs()  # (13, size, size)
    steps = torch.fft.fftfreq(size, device=model.device)
    radius = (steps[:, None].square() + steps[None, :].square()).sqrt()
    ring = (radius * 2 * (FREQUENCIES - 1)).round().long()
    inside = ring < FREQUENCIES  # the corners, finer than half a cycle a pixel, are left out
    counts = torch.bincount(ring[inside], minlength=FREQUENCIES)
    sums = spectrum.new_zeros(len(spectrum), FREQUENCIES).index_add_(1, ring[inside], spectrum[:, inside])
    return as_array(sums / counts)


def attention_shape(subject: Subject) -> tuple[int, int]:
    """Layers and heads whose attention to the filters can be shown: of the words, which every decoder has."""
    weights = _word_rows(subject)
    return weights.shape[1], weights.shape[2]


def filter_attention(
    subject: Subject, layer: int | None = None, head: int | None = None, *, roll: bool = False
) -> FilterAttention:
    """Attention to the filters (paper-notes 2).

    Args:
        subject: with CCVE among its encoders.
        layer: of the decoder; None is the mean.
        head: of the layer; None is the mean.
        roll: take the CLS token's rollout through all layers for the summary, whatever the layer and head.

    Raises:
        CXRLensError: no CCVE, or no such layer or head.
    """
    run = filter_tokens(subject)
    with torch.no_grad():
        memory = subject.model.decoder.encode(subject.visual, return_attention=True)
    rows = _word_rows(subject)
    words = word_attention(rows, memory.visual, layer, head)
    counts = [any(map(str.isalnum, word)) for word in subject.report.words]
    mass = report_attention(word_mass(rows, memory.visual).unsqueeze(1), counts)
    has_cls = bool(memory.attention) and memory.visual.start > 0
    if has_cls:
        summary = (rollout(memory) if roll else cls_attention(memory, layer, head))[0]
    else:
        summary = report_attention(words, counts)
    return FilterAttention(as_array(summary[run.columns]), as_array(words[:, run.columns]), has_cls, float(mass))


@torch.no_grad()
def likeness(subject: Subject, texts: ClusterTexts) -> npt.NDArray[np.float32]:
    """How much more like its cluster's text each filter's picture is than those of other studies, (13,), 0 to 1.

    The share of validation studies whose picture through the same filter is less like it. No decoder has a part in it.

    Raises:
        CXRLensError: no CCVE.
    """
    encoder = _require(subject.model)
    tokens = subject.visual.tokens
    if encoder is not subject.model.encoder:  # joint encoders hand on projections
        tokens = encoder(_fitting(encoder, subject)).tokens
    ranks: npt.NDArray[np.float32] = texts.rank(texts.likeness(tokens.float().cpu()))[0].numpy()
    return ranks


def with_control(subject: Subject, seed: int = 0) -> Subject:
    """The same pair, image and report, with random filters that change this image as much as the learned ones do.

    See ``core.encoders.random_filters``.

    Raises:
        CXRLensError: no CCVE.
    """
    _require(subject.model)
    model = twin(subject.model)
    encoder = model.encoder
    if isinstance(encoder, JointEncoder):
        for index, part in enumerate(encoder.encoders):
            if isinstance(part, ClusterClipEncoder):
                encoder.encoders[index] = with_random_filters(part, _fitting(part, subject), seed)
    else:
        assert isinstance(encoder, ClusterClipEncoder)
        model = replace(model, encoder=with_random_filters(encoder, _fitting(encoder, subject), seed))
    return replace(subject, model=model, visual=encode(model, subject.square))


def _fitting(encoder: ClusterClipEncoder, subject: Subject) -> Tensor:
    """The subject's image in the encoder's size: joint encoders may take a larger one."""
    size = encoder.normalize.image_size
    if subject.square.shape[-1] == size:
        return subject.square
    return functional.interpolate(subject.square, size=(size, size), mode="bilinear", antialias=True)


def _word_rows(subject: Subject) -> Tensor:
    """Attention of each word of the report to the memory, the mean over its pieces, (T, L, A, M)."""
    ids = torch.tensor([[START, *subject.report.ids[:-1]]], device=subject.model.device)
    with torch.no_grad():
        output = subject.model.decoder.decode(subject.model.decoder.encode(subject.visual), ids, return_attention=True)
    assert output.attention is not None
    rows = output.attention[0].permute(2, 0, 1, 3)
    return torch.stack([rows[list(places)].mean(0) for places in subject.word_positions])
