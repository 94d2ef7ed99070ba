"""What CCVE's filters do and know: how far they change pictures, and what each one's token tells of its observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.encoders.ccve import ClusterClipEncoder
from core.evaluation.auc import resample_weights, weighted_aucs
from core.observations import CLUSTERS
from core.paper.tables import Cell
from core.types import Split

Floats = npt.NDArray[np.floating]
RESAMPLES = 500
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""Ridge of the probes, as a share of the number of studies; the best on the validation split is kept."""
COLUMNS: Mapping[str, str] = {
    "change": "least change of a picture",
    "between": "least difference of two filters",
    "own": "probe, own filter's token (AUC)",
    "gap": "less the other filters' tokens",
    "presence": "tells whether its observation is there (AUC)",
    "presence_gap": "less the other filters' pictures",
}


@dataclass(frozen=True)
class Truth:
    """What tokens are probed for.

    Attributes:
        targets: split -> (n, 13), 1 where the observation of a cluster is positive.
        subjects: the patient of each held-out study.
    """

    targets: Mapping[Split, Floats]
    subjects: Sequence[str]

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """(13,) clusters with both kinds in every split."""
        sums = [(each.sum(0), len(each)) for each in self.targets.values()]
        found: npt.NDArray[np.bool_] = np.all([(s > 0) & (s < n) for s, n in sums], axis=0)
        return found


@torch.no_grad()
def picture_differences(encoder: ClusterClipEncoder, images: Tensor) -> tuple[Floats, Floats]:
    """How much filters change pictures, and how much they differ, as a person sees it: cut off at black and white.

    Args:
        encoder: whose filters.
        images: (B, 1, H, H) in [0, 1].

    Returns:
        Mean absolute change of a pixel by each filter (13,), and difference between each two (13, 13), both as a share
        of each image's range of grey levels, mean over images.
    """
    changes, between = [], []
    for image in images.split(8):
        seen = encoder.pictures(image).clamp(0, 1)
        span = (image.amax((1, 2, 3)) - image.amin((1, 2, 3))).clamp(min=1e-6)
        changes.append((seen - image).abs().mean((2, 3)) / span[:, None])
        between.append((seen.unsqueeze(1) - seen.unsqueeze(2)).abs().mean((3, 4)) / span[:, None, None])
    return torch.cat(changes).mean(0).numpy(), torch.cat(between).mean(0).numpy()


@dataclass(frozen=True)
class Told:
    """What tokens tell; each value stands first, its bootstrap draws follow.

    Attributes:
        own: (1 + R,) mean AUC of the probe of observation k on token k.
        gap: (1 + R,) the same less the mean AUC of its probes on the twelve other tokens.
        likeness: (1 + R, 13) AUC of the cosine of token k and the nearest wording of cluster k; NaN where there is no
            truth.
        likeness_gap: (1 + R,) mean of it, less that of the other tokens with the same text.
        probes: (13, 13), AUC of observation k (column) from token j (row).
    """

    own: Floats
    gap: Floats
    likeness: Floats
    likeness_gap: Floats
    probes: Floats

    def cells(self) -> dict[str, Cell]:
        """Of a table."""
        return {
            "own": interval(self.own),
            "gap": interval(self.gap),
            "presence": interval(np.nanmean(self.likeness, axis=1)),
            "presence_gap": interval(self.likeness_gap),
        }


def interval(draws: Floats) -> Cell:
    """The first value, with the 95 % interval of those after it."""
    low, high = np.nanquantile(draws[1:], [0.025, 0.975]).tolist()
    return Cell(value=float(draws[0]), low=low, high=high)


def tell(tokens: Mapping[Split, Floats], texts: Floats, truth: Truth) -> Told:
    """Probe all tokens for all observations, and compare them with the clusters' texts.

    A probe is a linear one, ridge regression on standardised tokens, fitted on the training split; its one number is
    chosen on the validation split, the same for all of them.

    Args:
        tokens: split -> (n, 13, D).
        texts: (13, P, D), see `training.stages.clip.cluster_texts`.
        truth: labels.
    """
    weights = resample_weights(truth.subjects, RESAMPLES)
    kept = truth.usable
    scores = _probe_scores(tokens, truth)
    probes = np.stack([weighted_aucs(truth.targets["test"], each, weights) for each in scores], 1)  # (1 + R, j, k)
    own_likeness = _cosines(tokens["test"], texts)  # (n, j, k)
    likeness = np.stack(
        [weighted_aucs(truth.targets["test"], own_likeness[:, j], weights) for j in range(len(CLUSTERS))], 1
    )
    own, others = _own_and_others(probes)
    alike, elsewhere = _own_and_others(likeness)
    return Told(
        np.nanmean(own[:, kept], axis=1),
        np.nanmean((own - others)[:, kept], axis=1),
        np.where(kept, alike, np.nan),
        np.nanmean((alike - elsewhere)[:, kept], axis=1),
        probes[0],
    )


def _own_and_others(aucs: Floats) -> tuple[Floats, Floats]:
    """Of AUCs (R, j, k) those of j = k (R, 13), and the mean of the others (R, 13)."""
    own = np.diagonal(aucs, axis1=1, axis2=2)
    return own, (aucs.sum(1) - own) / (aucs.shape[1] - 1)


def _cosines(tokens: Floats, texts: Floats) -> Floats:
    """(n, 13 tokens, 13 clusters), with the nearest wording of each."""
    tokens = tokens / np.linalg.norm(tokens, axis=2, keepdims=True)
    found: Floats = np.einsum("njd,kpd->njkp", tokens, texts, optimize=True).max(3)
    return found


def _probe_scores(tokens: Mapping[Split, Floats], truth: Truth) -> list[Floats]:
    """Scores of held-out studies (n, 13), from each of the 13 tokens."""
    found: dict[float, list[tuple[Floats, Floats]]] = {each: [] for each in STRENGTHS}
    goal = truth.targets["train"] - truth.targets["train"].mean(0)
    for j in range(len(CLUSTERS)):
        x = {split: values[:, j].astype(np.float64) for split, values in tokens.items()}
        mean, spread = x["train"].mean(0), x["train"].std(0) + 1e-9
        x = {split: (values - mean) / spread for split, values in x.items()}
        values, vectors = np.linalg.eigh(x["train"].T @ x["train"])
        turned = vectors.T @ (x["train"].T @ goal)
        for strength, kept in found.items():
            answer = vectors @ (turned / (values + strength * len(goal))[:, None])
            kept.append((x["validate"] @ answer, x["test"] @ answer))
    one = np.ones((1, len(truth.targets["validate"])))
    scored = {
        strength: float(np.nanmean([weighted_aucs(truth.targets["validate"], seen, one) for seen, _ in kept]))
        for strength, kept in found.items()
    }
    best = max(scored, key=scored.__getitem__)
    return [held_out for _, held_out in found[best]]
