"""Frozen encoders: the stages that train each, by its objective, and their weights.

`core.registry` names the objective of an encoder; an encoder without one learns with its decoder. A new objective is a
row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from core.encoders import Encoder, build_encoder
from core.observations import OBSERVATIONS
from core.registry import ENCODERS, lookup
from training.run_folder import Done, load_weights
from training.stages.classifiers import classifier
from training.stages.clip import clip, cluster_clip, matching_of
from training.stages.models import build_arguments
from training.stages.run import Run
from training.stages.taken import taken_done, taken_encoder

Stage = Callable[[Run], Done]
"""Does a stage of a run, or finds it done; its folder's name and key come back."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A way to train an encoder.

    Attributes:
        stages: those of an encoder, by its name; none needs another.
        load: fill an encoder with what they have trained.
        about: what a bundle's card says of such an encoder beside its name.
    """

    stages: Callable[[str], Sequence[Stage]]
    load: Callable[[Run, str, Any], None]
    about: Callable[[Run, str], dict[str, Any]] = lambda run, name: {}


def _load_classifiers(run: Run, name: str, encoder: Any) -> None:
    for kind, tower in encoder.classifiers().items():
        load_weights(run.folder / f"{kind}_{name}", kind, tower)


def _load_clip(run: Run, name: str, encoder: Encoder) -> None:
    load_weights(run.folder / f"clip_{name}", "encoder", encoder)


OBJECTIVES: Mapping[str, Objective] = {
    "labels": Objective(
        lambda name: [partial(classifier, name=name, kind="cdc"), partial(classifier, name=name, kind="fgc")],
        _load_classifiers,
        lambda run, name: {"coarse_labels": list(OBSERVATIONS), "fine_labels": list(run.data.fine_labels)},
    ),
    "impressions": Objective(lambda name: [partial(clip, name=name)], _load_clip, matching_of),
    "sentences": Objective(lambda name: [partial(cluster_clip, name=name)], _load_clip, matching_of),
}


def objective_of(name: str) -> Objective:
    """Of a frozen encoder.

    Raises:
        CXRLensError: its row in the registry names an objective that is none.
    """
    return lookup(OBJECTIVES, ENCODERS[name].objective or "", f"objective of the encoder {name},")


def train_encoder(run: Run, name: str, decoder_name: str = "") -> Done:
    """Train an encoder by all its stages, unless it is taken from a bundle: of this decoder, where that matters."""
    if run.config.encoders_from:
        return taken_done(run, name, decoder_name)
    return {folder: key for stage in objective_of(name).stages(name) for folder, key in stage(run).items()}


def trained_encoder(run: Run, name: str, decoder_name: str = "") -> Encoder:
    """A frozen encoder with the weights of its stages, or of a bundle.

    Raises:
        CXRLensError: they have not been run; there is no such bundle, or it is damaged.
    """
    if run.config.encoders_from:
        return taken_encoder(run, name, decoder_name)
    torch.manual_seed(run.config.seed)
    encoder = build_encoder(name, run.config.size, **build_arguments(run, name))
    objective_of(name).load(run, name, encoder)
    return encoder.freeze()


def drifting_encoder(run: Run, name: str) -> Encoder:
    """A trained encoder whose weights are still but whose batch norms go on."""
    encoder = trained_encoder(run, name)
    encoder.is_frozen = False
    return encoder.train()
