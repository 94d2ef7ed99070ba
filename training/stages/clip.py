"""Stages: an encoder's CLIP, on pairs of a radiograph and a text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from core import ranks
from core.config import ClipConfig
from core.encoders.ccve import ClusterClipEncoder
from core.encoders.clip import ContrastiveEncoder
from core.encoders.filters import K
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
WORDINGS = 8
"""Typical wordings of a cluster that a filter's picture is compared with; ours, on validation 4 to 16 are as good."""
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
        contrast(run, folder, encoder, settings, pairs_of())

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


def contrast(
    run: Run, folder: Path, encoder: ContrastiveEncoder, settings: ClipConfig, pairs: Mapping[Split, Pairs]
) -> None:
    """Train an encoder on pairs, and write its weights into ``folder``."""
    clusters = [cluster for _, cluster, _ in pairs["train"]]
    fit(
        folder,
        ClipModule(encoder, settings, run.config.augment),
        loaders(
            (len(pairs["train"]), len(pairs["validate"])),
            (
                _paired(run, "train", pairs["train"], encoder, settings),
                _paired(run, "validate", pairs["validate"], encoder, settings),
            ),
            settings.batch_size,
            run.config.seed,
            one_hot(torch.tensor(clusters), K).float() if settings.class_aware else None,
            clusters if settings.group_clusters else (),
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
        "matching": _matching(run, encoder.source, encoder),
    }
    if ranks.is_first():
        write_whole(folder / "census.json", json.dumps(census, indent=2))
    save_weights(folder, {"encoder": encoder})


def _paired(
    run: Run, split: Split, pairs: Pairs, encoder: ContrastiveEncoder, settings: ClipConfig
) -> Callable[[list[int]], dict[str, Tensor]]:
    """Batches of pairs, for `training.modules.clip`."""
    images = run.taught.images(split, encoder.normalize.image_size)
    ids = encoder.clip.text.tokenize([text for _, _, text in pairs]) if pairs else torch.zeros(0, 1)
    clusters = torch.tensor([cluster for _, cluster, _ in pairs])
    studies = np.array([study for study, _, _ in pairs])
    present = run.taught.clusters(split) if settings.absent or settings.across_filters else None
    without = None
    if present is not None and settings.absent and split == "validate":
        without = studies_without(present, clusters)

    def collate(rows: list[int]) -> dict[str, Tensor]:
        batch = {"images": to_images(images[studies[rows]]), "ids": ids[rows], "clusters": clusters[rows]}
        if present is not None:
            batch["present"] = present[studies[rows]]
        if present is not None and without is not None:
            batch["others"] = to_images(images[without[rows]])
            batch["others_present"] = present[without[rows]]
        return batch

    return collate


def studies_without(present: Tensor, clusters: Tensor, seed: int = 0) -> npt.NDArray[np.int64]:
    """For each of ``clusters`` (n,) a study that lacks it, drawn; any study where none lacks it.

    Args:
        present: (studies, K), as `StudyData.clusters`.
    """
    draw = np.random.default_rng(seed)
    lacking = [np.flatnonzero(~column) for column in present.numpy().T]
    chosen = [draw.choice(rows if len(rows := lacking[k]) else len(present)) for k in clusters.tolist()]
    return np.array(chosen, dtype=np.int64)


@torch.no_grad()
def cluster_texts(encoder: ClusterClipEncoder, pairs: Pairs, wordings: int = WORDINGS) -> Tensor:
    """Typical wordings of each cluster, (13, P, D), L2-normalised, from training pairs.

    The distinct texts of a cluster are grouped by embedding (k-means); a text counts as often as it stands there.
    A cluster with fewer texts repeats them, one without texts is 0, which nothing is like.

    Args:
        encoder: with its text tower.
        pairs: as `StudyData.cluster_pairs` has them.
        wordings: P.
    """
    tower, found = encoder.clip.text, torch.zeros(K, wordings, encoder.clip.width)
    for k in range(K):
        counts = Counter(text for _, cluster, text in pairs if cluster == k)
        if not counts:
            continue
        ids = tower.tokenize(list(counts))
        texts = torch.cat([normalize(tower(part), dim=1) for part in ids.split(256)])
        if len(texts) > wordings:
            groups = KMeans(wordings, n_init=3, random_state=0).fit(texts.numpy(), sample_weight=list(counts.values()))
            texts = normalize(torch.from_numpy(groups.cluster_centers_).float(), dim=1)
        found[k] = texts[torch.arange(wordings) % len(texts)]
    return found
