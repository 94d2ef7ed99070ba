"""Stages: an encoder's CLIP, on pairs of a radiograph and a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core import ranks
from core.config import ClipConfig
from core.encoders.clip import ContrastiveEncoder
from core.files import write_whole
from core.registry import ENCODERS
from core.types import CXRLensError, Split
from training.data import to_images
from training.fit import fit
from training.loaders import loaders
from training.matching import match, to_dict
from training.modules.clip import ClipModule
from training.run_folder import Done, run_stage, save_weights
from training.stages.models import encoder_identity, new_encoder
from training.stages.run import Run

Pairs = Sequence[tuple[int, int, str]]
"""Index of the study, index of the cluster, text."""
LEARNING: tuple[Split, ...] = ("train", "validate")


def clip(run: Run, name: str) -> Done:
    """Train an encoder on radiographs and their impressions."""
    return _contrast(run, name, run.config.clip, lambda: {split: run.taught.pairs(split) for split in LEARNING})


def cluster_clip(run: Run, name: str) -> Done:
    """Train an encoder on radiographs and their impressions' sentences, each of a cluster."""
    settings = run.config.cluster_clip
    return _contrast(run, name, settings, lambda: {split: run.taught.cluster_pairs(split) for split in LEARNING})


def _contrast(run: Run, name: str, settings: ClipConfig, pairs_of: Callable[[], Mapping[Split, Pairs]]) -> Done:
    def work(folder: Path) -> None:
        encoder = new_encoder(run, name)
        assert isinstance(encoder, ContrastiveEncoder)
        pairs = pairs_of()
        fit(
            folder,
            ClipModule(encoder, settings, run.config.augment),
            loaders(
                (len(pairs["train"]), len(pairs["validate"])),
                (_paired(run, "train", pairs["train"], encoder), _paired(run, "validate", pairs["validate"], encoder)),
                settings.batch_size,
                run.config.seed,
            ),
            epochs=settings.epochs,
            monitor="val_loss",
            mode="min",
            patience=settings.patience,
            seed=run.config.seed,
            gradient_clip=settings.gradient_clip,
            placement=run.placement,
        )
        census = {
            "pairs": {split: len(each) for split, each in pairs.items()},
            "truncated": encoder.clip.text.truncated,
            "matching": _matching(run, name, encoder),
        }
        if ranks.is_first():
            write_whole(folder / "census.json", json.dumps(census, indent=2))
        save_weights(folder, {"encoder": encoder})

    own = {**encoder_identity(run, name), **run.taught.further(), **run.augmentation(settings.augment)}
    identity = run.identity("clip", clip=settings, encoder=name, **own)
    return run_stage(run.folder / f"clip_{name}", identity, work)


def _matching(run: Run, name: str, encoder: ContrastiveEncoder) -> dict[str, Any]:
    """How well it matches validation radiographs with their texts: what it learned here, beyond what it began with."""
    by_cluster = ENCODERS[name].objective == "sentences"
    try:
        found = match(encoder.eval(), run.data, "validate", by_cluster=by_cluster)
    except CXRLensError as error:
        return {"told": str(error)}
    return to_dict(found, ENCODERS[name].title, by_cluster=by_cluster)


def matching_of(run: Run, name: str) -> dict[str, Any]:
    """For an encoder's card: "matching" as its stage measured it; nothing from stages that did not."""
    path = run.folder / f"clip_{name}" / "census.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("matching") if path.is_file() else None
    return {"matching": found} if found else {}


def _paired(
    run: Run, split: Split, pairs: Pairs, encoder: ContrastiveEncoder
) -> Callable[[list[int]], dict[str, Tensor]]:
    images = run.taught.images(split, encoder.normalize.image_size)
    ids = encoder.clip.text.tokenize([text for _, _, text in pairs]) if pairs else torch.zeros(0, 1)
    clusters = torch.tensor([cluster for _, cluster, _ in pairs])
    studies = np.array([study for study, _, _ in pairs])
    return lambda rows: {
        "images": to_images(images[studies[rows]]),
        "ids": ids[rows],
        "clusters": clusters[rows],
    }
