"""How well CLIP's encoders match radiographs with their texts, measured on studies that they did not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from core.bundles.card import Card
from core.bundles.library import BundleLibrary
from core.encoders.clip import ContrastiveEncoder
from core.evaluation.matching import Matched, matched
from core.evaluation.results import first_pairs
from core.registry import ENCODERS
from core.types import CXRLensError, Split
from training.data import StudyData, to_images

BATCH = 64


@torch.inference_mode()
def match(encoder: ContrastiveEncoder, data: StudyData, split: Split, *, by_cluster: bool) -> Matched:
    """Match the radiographs of a split with their own texts.

    Args:
        encoder: with its text tower.
        data: studies and images.
        split: whose.
        by_cluster: texts are sentences of a cluster, told from those of the same cluster only: the filter of an image
            is chosen by the cluster of its text, which would give it away among others.

    Raises:
        CXRLensError: there are no two texts.
    """
    pairs = data.cluster_pairs(split) if by_cluster else data.pairs(split)
    texts = [text for _, _, text in pairs]
    if len(texts) < 2:
        raise CXRLensError(f"The split '{split}' has no two impressions: no image can be matched with its own.")
    images = data.images(split, int(encoder.normalize.image_size))
    studies = np.array([study for study, _, _ in pairs])
    clusters = torch.tensor([cluster for _, cluster, _ in pairs])
    device = next(encoder.parameters()).device
    ids = encoder.clip.text.tokenize(texts)
    seen, read = [], []
    for rows in torch.arange(len(pairs)).split(BATCH):
        part = to_images(np.asarray(images[studies[rows.numpy()]])).to(device)
        seen.append(encoder.embed_pairs(part, clusters[rows].to(device)).float().cpu())
        read.append(functional.normalize(encoder.clip.text(ids[rows].to(device)), dim=1).float().cpu())
    groups = clusters.tolist() if by_cluster else None
    return matched(torch.cat(seen).numpy(), torch.cat(read).numpy(), texts, groups=groups)


def match_encoders(cards: Sequence[Card], bundles: Path, data: StudyData, split: Split = "test") -> dict[str, Any]:
    """Encoder -> "count", "among", "chance", "of" (pairs of a group), "told"; of encoders with a text tower.

    One that cannot be measured, as where the text tower's packages are missing, has only "told": why.
    """
    found: dict[str, Any] = {}
    library = BundleLibrary(bundles)
    for name, card in first_pairs(cards).items():
        encoder = library.load(card.name).encoder
        if not isinstance(encoder, ContrastiveEncoder):
            continue
        title, by_cluster = ENCODERS[name].title, ENCODERS[name].objective == "sentences"
        try:
            found[name] = to_dict(match(encoder, data, split, by_cluster=by_cluster), title, by_cluster=by_cluster)
        except CXRLensError as error:
            found[name] = {"told": f"{title} was not matched with texts: {error}"}
    return found


def to_dict(found: Matched, title: str, *, by_cluster: bool) -> dict[str, Any]:
    """As results.json and cards hold it."""
    texts = "text among those of its cluster" if by_cluster else "impression"
    numbers = {"count": found.share.count, "among": found.share.among, "chance": found.chance, "of": found.among}
    return {**numbers, "told": found.describe(title, texts)}
