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
