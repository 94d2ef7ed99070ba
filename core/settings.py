"""What a number of a preset may be, and the tables of numbers that several stages share. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from core.types import CXRLensError


class ConfigError(CXRLensError):
    """A preset or an override is wrong; the message has the full key."""


@dataclass(frozen=True, slots=True)
class Range:
    """What a number of a preset may be: at least ``low``, or above it, and at most ``high``."""

    low: float
    above: bool = False
    high: float = math.inf

    def check(self, value: float, key: str) -> None:
        """Refuse a number outside.

        Raises:
            ConfigError: it is outside, or no finite number.
        """
        got = str(value)[:40]
        if value > self.high:
            raise ConfigError(f"{key}: must be at most {self.high:,}, got {got}.")
        if not (self.low < value < math.inf or (value == self.low and not self.above)):  # or it is no number
            raise ConfigError(f"{key}: must be {'above' if self.above else 'at least'} {self.low:g}, got {got}.")


Positive = Annotated[int, Range(1, high=2**31 - 1)]
Count = Annotated[int, Range(0, high=2**31 - 1)]
Seed = Annotated[int, Range(0, high=2**32 - 1)]
"""As NumPy and scikit-learn take it."""
Rate = Annotated[float, Range(0, above=True)]
Weight = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, high=1)]
Momentum = Annotated[float, Range(0, high=0.999999)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """How weights move, in every stage that trains. The defaults are what all presets did before these keys came.

    Attributes:
        weight_decay: of matrices and kernels; gains, biases, norms and temperatures are spared.
        decay: how: "decoupled" as AdamW's, or "coupled", added to the gradient as plain Adam's.
        beta_1: of Adam's mean of gradients.
        beta_2: of its mean of squares. src: the community's recipe for CLIP (paper-notes 1.3).
        eps: of Adam. src: as beta_2.
        schedule: of the learning rate once it has risen: "cosine" falls to 0, "steps" takes step_factor of it every
            step_epochs epochs, "constant" leaves it.
        warmup_share: of all steps, over which the rate rises; ours.
        step_epochs: of "steps". src: published code (paper-notes 3.0).
        step_factor: of "steps". src: published code (paper-notes 3.0).
        gradient_clip: longest gradient of all weights together; 0 does not cut it.
    """

    weight_decay: Weight
    decay: Literal["decoupled", "coupled"] = "decoupled"
    beta_1: Momentum = 0.9
    beta_2: Momentum = 0.98
    eps: Rate = 1e-6
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    warmup_share: Share = 0.05
    step_epochs: Positive = 8
    step_factor: Share = 0.5
    gradient_clip: Weight = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig(StepConfig):
    """A classifier of coarse and fine labels, from whose weights every encoder starts.

    Attributes:
        source: what it learns from. "phantom": other phantoms, which are to networks that nobody published what
            ImageNet is to the paper's. "train": the run's own training split, so that CLIP starts from labels where
            pairs are too few to match. "none" leaves it out.
        count: phantoms of source "phantom".
        seed: of these phantoms, another than the run's own.
        epochs: with cross-entropy on coarse and fine labels.
        batch_size: studies.
        learning_rate: at its highest.
        weight_decay: decoupled.
        before: "table" lets it learn the observations of another collection first, with a head of their own.
        before_folder: of that collection's index, as `cxr-lens data table` makes it.
        before_epochs: on it.
        before_learning_rate: on it, at its highest.
        laterals: of source "train": whether the lateral images of the training studies teach it too.
        codes: of source "train": whether Open-i's human codes are further targets, those with at least
            data.min_fine_label_count studies.
    """

    source: Literal["none", "phantom", "train"]
    count: Count
    seed: Seed
    epochs: Count
    batch_size: Positive
    learning_rate: Weight
    weight_decay: Weight
    before: Literal["none", "table"] = "none"
    before_folder: str = ""
    before_epochs: Count = 0
    before_learning_rate: Weight = 0.0
    laterals: bool = False
    codes: bool = False

    def __post_init__(self) -> None:
        """Refuse a backbone that learns nothing."""
        if self.source != "none" and not (self.epochs and self.learning_rate):
            raise ConfigError("backbone.epochs and backbone.learning_rate must be above 0, or backbone.source 'none'.")
        if self.source == "phantom" and not self.count:
            raise ConfigError("backbone.count: phantoms are made to order, say how many.")
        if self.before != "none":
            if self.source == "none":
                raise ConfigError("backbone.before needs a backbone that goes on from it, or backbone.before 'none'.")
            if not (self.before_folder and self.before_epochs and self.before_learning_rate):
                raise ConfigError(
                    "backbone.before_folder, before_epochs and before_learning_rate must be given, or backbone.before "
                    "'none'."
                )
        if self.source != "train" and (self.laterals or self.codes):
            raise ConfigError("backbone.laterals and backbone.codes are for backbone.source 'train', its studies.")


Start = Literal["preset", "published", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartConfig:
    """The weights that each encoder starts from.

    "preset": as `pretrained` and [backbone] say. "published": ImageNet's or, for a CLIP of the paper's size, OpenAI's.
    "random". Or the path of a safetensors file: weights of such an encoder, or of the CNN in it, as a stage of a run
    writes them.

    Attributes:
        dve: of DVE.
        fve: of both classifiers of FVE.
        cve: of CVE.
        ccve: of CCVE.
    """

    dve: str = "preset"
    fve: str = "preset"
    cve: str = "preset"
    ccve: str = "preset"

    def of(self, encoder: str) -> str:
        """Of an encoder; of one that this table does not name, as the preset says."""
        return str(getattr(self, encoder, "preset"))


AS_THE_PRESET_SAYS = StartConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """How far training images are changed where a stage's ``augment`` is on; never flipped, for reports name sides.

    Attributes:
        turn: degrees, to either side.
        scale: part of the size, up or down.
        shift: part of a side, to each of the four.
        gamma: of the exposure: natural logarithm of the exponent, up or down.
        gain: of the exposure: part of the brightness, up or down.
        aspect: natural logarithm of width through height, between narrowest and widest; what is freed is black.
        borders: share of the images that get black borders, as padding and collimators leave them.
        markers: share of the images that get an R or an L burnt in, in the upper corner of its side.
    """

    turn: Annotated[float, Range(0, high=45)] = 4.0
    scale: Annotated[float, Range(0, high=0.5)] = 0.06
    shift: Annotated[float, Range(0, high=0.5)] = 0.03
    gamma: Annotated[float, Range(0, high=3)] = 0.2
    gain: Annotated[float, Range(0, high=1)] = 0.1
    aspect: Annotated[float, Range(0, high=2)] = 0.0
    borders: Annotated[float, Range(0, high=1)] = 0.0
    markers: Annotated[float, Range(0, high=1)] = 0.0


GENTLE = AugmentConfig()
"""Where a preset does not say how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteConfig:
    """How reports are written; see ``core.decoders.search.GenerateConfig``. Its sentences come from the data."""

    beam_size: Positive
    max_words: Positive
    length_penalty: Weight
    no_repeat_ngram: Count
    end_penalty: Weight = 0.0
    removed_words: bool = False
    min_sentence_words: Count = 0
    say_again: bool = True
    edge_numbers: bool = True
    consistent: bool = False
    say_found: bool = False
