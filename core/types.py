"""The values that cross module borders, and the glossary of axes.

```
B  batch              C  image channels       H, W  image height and width, pixels
N  visual tokens      D  width of a token     h, w  height and width of a token grid, cells
T  report tokens      V  vocabulary size      M     memory rows (CLS + visual tokens)
L  layers             A  attention heads      S     sentences
K  observations (14) or filters (13), as said
```

A mask is True where a value counts. Counting is from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from core.observations import LabelState

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "validate", "test"]
SPLITS: tuple[Split, ...] = ("train", "validate", "test")

FloatImage = npt.NDArray[np.float32]
"""A radiograph (H, W), values in [0, 1], bright = dense (MONOCHROME2)."""

Mask = npt.NDArray[np.bool_]
"""(H, W), True inside."""


class CXRLensError(Exception):
    """An error whose message is written for the user: what was wrong, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How images become the square that a pair reads: as those did that it learned from.

    Attributes:
        how: "pad" keeps an image's proportions and fills up with black; "stretch" first gives every image the
            proportions of the training images.
        aspect: width through height of the training images, where they were stretched; 1 is a square.
        trim: cut borders of one grey before, as digital padding and collimators leave them
            (`core.studies.images.trim_borders`).
    """

    how: Literal["pad", "stretch"] = "pad"
    aspect: float = 1.0
    trim: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no way to fit an image."""
        if self.how not in ("pad", "stretch"):
            raise ValueError(f"images are fitted by 'pad' or 'stretch', not by {str(self.how)[:40]!r}")
        if isinstance(self.aspect, bool) or not isinstance(self.aspect, int | float) or not 0.1 <= self.aspect <= 10:
            raise ValueError(f"an aspect ratio lies between 0.1 and 10, not {str(self.aspect)[:40]}")
        if not isinstance(self.trim, bool):
            raise ValueError(f"borders are trimmed or not: true or false, not {str(self.trim)[:40]}")

    def __str__(self) -> str:
        """For a reader: "padded to a square, borders trimmed before"."""
        stretched = "a square" if self.aspect == 1 else f"width : height = {self.aspect:g}, then padded to a square"
        told = "padded to a square" if self.how == "pad" else f"stretched to {stretched}"
        return told + (", borders trimmed before" if self.trim else "")


PAD = Fit()
"""How images are fitted where nothing else is known."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an image was fitted into a model's square input, and the way back.

    A part of the image is read, mostly all of it; it may be given other proportions, is padded to a square and resized.
    Padding is not data.

    Attributes:
        height: of the original image, pixels.
        width: of the original image, pixels.
        size: side of the square input, pixels.
        pixel_spacing: (row, column) distance of the original's pixel centres in millimetres, if known.
        part: what is read of the image: (top, left, height, width), pixels; None is all of it.
        aspect: width through height that this part was stretched to; None where its own are kept.
    """

    height: int
    width: int
    size: int
    pixel_spacing: tuple[float, float] | None = None
    part: tuple[int, int, int, int] | None = None
    aspect: float | None = None

    @property
    def read(self) -> tuple[int, int, int, int]:
        """What is read of the image: (top, left, height, width), pixels."""
        return self.part or (0, 0, self.height, self.width)

    @property
    def sides(self) -> tuple[float, float]:
        """Height and width of the padded square, in pixels of the image; they differ where it is stretched."""
        _, _, height, width = self.read
        side = max(height, width)
        if self.aspect is None:
            return side, side
        return height * max(1.0, self.aspect), width * max(1.0, 1 / self.aspect)

    @property
    def content(self) -> tuple[float, float, float, float]:
        """Where what is read lies in the square: (top, left, height, width), fractions of its side."""
        (_, _, height, width), (rows, columns) = self.read, self.sides
        return (rows - height) / 2 / rows, (columns - width) / 2 / columns, height / rows, width / columns

    @property
    def square(self) -> tuple[float, float, float, float]:
        """Where the square lies on the image: (top, left, height, width), fractions of the image's sides."""
        (top, left, height, width), (rows, columns) = self.read, self.sides
        return (
            (top - (rows - height) / 2) / self.height,
            (left - (columns - width) / 2) / self.width,
            rows / self.height,
            columns / self.width,
        )


@dataclass(frozen=True, slots=True)
class Study:
    """One examination: what is known of it beside its pixels.

    Attributes:
        study_id: unique in its source.
        subject_id: the patient; splits are by patient.
        split: train, validate or test.
        view: "PA", "AP", "FRONTAL" (PA or AP, it is not known which), "LATERAL", another code of the release, or "".
        findings: the section a decoder learns to write.
        impression: the section CLIP learns from; empty where there is none.
        labels: of the findings, by observation name; all 14 names are there.
        fine_labels: "modifier observation" or the bare observation, lower case, sorted.
        cluster_texts: cluster name -> the impression's sentences of that cluster.
        context: what else a reader sees (age, sex, indication, comparison).
    """

    study_id: str
    subject_id: str
    split: Split
    view: str
    findings: str
    impression: str
    labels: Mapping[str, LabelState]
    fine_labels: tuple[str, ...]
    cluster_texts: Mapping[str, str]
    context: Mapping[str, str] = field(default_factory=dict)


class StudySource(Protocol):
    """Where studies come from: the phantom, Open-i, MIMIC-CXR. One interface for all."""

    name: str

    def fingerprint(self) -> str:
        """Hash of everything that decides the content."""
        ...

    def studies(self, split: Split) -> Sequence[Study]:
        """All studies of a split, in a fixed order."""
        ...

    def image(self, study_id: str, size: int, fit: Fit = PAD) -> FloatImage:
        """The study's image as ``fit`` makes it, (size, size), values in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """What every encoder returns and every decoder reads.

    Attributes:
        tokens: (B, N, D).
        grids: (h, w) of each grid of tokens, in order; empty where tokens are not image cells (CCVE).
        sources: one name per token, the encoder or tower that made it ("dve", "fve.cdc", "ccve", ...).
        summaries: so many tokens, the first ones, stand for the whole image and for no cell of it (a ViT's CLS token).
        findings: (B, 14), 1 where an observation is known to be there: for decoders that read findings first
            (`core.decoders.findings`), in place of what they would find; None leaves it to them.
    """

    tokens: Tensor
    grids: tuple[tuple[int, int], ...]
    sources: tuple[str, ...]
    summaries: int = 0
    findings: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse tokens that contradict their description."""
        if self.tokens.ndim != 3:
            raise ValueError(f"VisualTokens.tokens must be (batch, tokens, width), not {tuple(self.tokens.shape)}")
        if len(self.sources) != self.tokens.shape[1]:
            raise ValueError(f"{len(self.sources)} sources for {self.tokens.shape[1]} tokens")


@dataclass(frozen=True, slots=True)
class Report:
    """A generated report.

    Attributes:
        text: as a reader sees it.
        words: the tokens behind the text, special ones left out.
        log_probability: sum over the words and the end, natural log.
        finished: False where the length limit cut it.
        word_attention: (T, N) float32, the mean attention of each word to each visual token, rows sum to 1; or None.
        cls_attention: (N,) float32, attention rollout of the CLS token, sums to 1; None for a decoder without one.
        ids: what the decoder wrote, special tokens too, START left out; explanations read it back.
        warnings: sentences on the image or the report that must stand beside it: the image is unlike what the pair
            learned from, nothing was written, a number is none.
        found_first: observations that the pair found in the image before it wrote; None where it does not read them
            first, or where the report is only a text that was kept.
        added: of these, those that it says only because they were found: its decoder had left them out.
        contradicted: sentences that its decoder wrote and that are left out because they contradict others.
    """

    text: str
    words: tuple[str, ...]
    log_probability: float
    finished: bool
    word_attention: npt.NDArray[np.float32] | None = None
    cls_attention: npt.NDArray[np.float32] | None = None
    ids: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    found_first: tuple[str, ...] | None = None
    added: tuple[str, ...] = ()
    contradicted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attribution:
    """Result of an explanation.

    Attributes:
        values: (h, w) float32 over the model's square input, padding included, or (N,) over filters.
        signed: True where a negative value has a meaning.
        method: name of the method.
        target: what was explained, for the reader ("word 7: effusion").
        geometry: of the study's image, where values are image cells; the way back to the image.
        source: encoder or tower whose tokens the values belong to ("fve.cdc"); empty for pixels.
        details: further numbers ("score", "convergence_delta", ...); each method says which.
    """

    values: npt.NDArray[np.float32]
    signed: bool
    method: str
    target: str
    geometry: Geometry | None = None
    source: str = ""
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Projection:
    """Points on a map.

    Attributes:
        coordinates: (points, 2 or 3) float32.
        method: "PCA", "t-SNE" or "UMAP".
        parameters: what it was computed with, the seed too.
    """

    coordinates: npt.NDArray[np.float32]
    method: str
    parameters: Mapping[str, Any]
