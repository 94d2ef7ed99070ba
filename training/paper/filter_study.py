"""Under which training CCVE's filters filter: designs with equal budgets, each beside its controls.

Every design starts from the CLIP of the family's CVE, so that no hours of training come before, and sees as many
pictures as the others. What a design must show: filters that change a picture so that a person sees it, tokens that
tell more of their own observation than the other tokens do, and a likeness to its cluster's text that tells whether the
observation is there. A mark on the picture that says which filter it went through solves none of the last two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.bundles.library import BundleLibrary
from core.config import ClipConfig
from core.encoders import build_encoder
from core.encoders.ccve import ClusterClipEncoder
from core.encoders.clip import ContrastiveEncoder
from core.encoders.random_filters import NoFilters, with_random_filters, without_filters
from core.observations import CLUSTERS
from core.paper.tables import Cell, PaperTable, Row
from core.registry import lookup
from core.types import SPLITS, Split
from training.console import note
from training.data import StudyData, to_images
from training.evaluate import cards_of
from training.paper.filter_measures import (
    COLUMNS,
    Floats,
    Told,
    Truth,
    interval,
    picture_differences,
    tell,
)
from training.paper.filter_signs import sign_rows
from training.run_folder import StageError, load_weights, run_stage
from training.stages.clip import LEARNING, cluster_texts, contrast
from training.stages.run import Run

BUNDLES = "bundles"
MATCHED = 64
"""Training studies on which random filters are made as strong as learned ones."""


@dataclass(frozen=True)
class Design:
    """A way to train CCVE.

    Attributes:
        title: what a reader sees.
        changes: of the preset's ``cluster_clip``.
    """

    title: str
    changes: Mapping[str, Any]


def _design(title: str, **changes: Any) -> Design:
    plain = {
        "filters": "independent",
        "filter_learning_rate": 1e-3,
        "negatives": "same_cluster",
        "gate": 0.0,
        "gate_learning_rate": 0.0,
        "absent": False,
        "across_filters": False,
        "class_aware": False,
        "group_clusters": False,
        "train_tower": True,
    }
    return Design(title, plain | changes)


def _bank(title: str, **changes: Any) -> Design:
    return _design(f"Known filters{title}", filters="bank", filter_learning_rate=2e-4, **changes)


DESIGNS: Mapping[str, Design] = {
    "gate-0": _design("Gate from 0"),
    "gate-0-batch": _design("Gate from 0, texts of all clusters", negatives="batch"),
    "gate-0-rate": _design("Gate from 0, at 30 times the rate", gate_learning_rate=0.03),
    "gate-0.3-across": _design("Gate from 0.3, contrast over filters", gate=0.3, across_filters=True),
    "gate-0.3-absent": _design("Gate from 0.3, absent negatives", gate=0.3, absent=True),
    "gate-0.3-absent-frozen": _design(
        "Gate from 0.3, absent negatives, CLIP frozen", gate=0.3, absent=True, train_tower=False
    ),
    "gate-1-absent": _design("No gate, absent negatives", gate=1.0, absent=True),
    "published": _design("The published stem, texts of all clusters", filters="shared_stem", negatives="batch"),
    "published-absent": _design("The published stem, absent negatives", filters="shared_stem", absent=True),
    "bank": _bank(""),
    "bank-grouped": _bank(", batches of like clusters", group_clusters=True),
    "bank-absent": _bank(", absent negatives", absent=True),
    "bank-absent-batch": _bank(", absent negatives, texts of all clusters", absent=True, negatives="batch"),
    "bank-absent-across": _bank(", absent negatives, contrast over filters", absent=True, across_filters=True),
    "bank-absent-balanced": _bank(", absent negatives, balanced clusters", absent=True, class_aware=True),
    "bank-absent-frozen": _bank(", absent negatives, CLIP frozen", absent=True, train_tower=False),
}
"""Texts are compared within their cluster unless it says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterStudyConfig:
    """How designs are compared.

    Attributes:
        epochs: over all pairs, of a design that shows a pair one picture; one that shows it two has half as many.
        studies: of each split at most, for the probes; 0 is all.
    """

    epochs: int = 4
    studies: int = 600


def epochs_of(settings: ClipConfig, epochs: int) -> int:
    """Epochs of a design, so that all see as many pictures."""
    return max(1, round(epochs / (1 + settings.absent + settings.across_filters)))


def filter_study(run: Run, bundles: Path, names: Sequence[str], config: FilterStudyConfig, command: str) -> PaperTable:
    """Train and measure designs; what is done is skipped, what was interrupted goes on.

    Args:
        run: of the family; designs go into its folder.
        bundles: folder of the family's bundles: of its CVE, from which designs start.
        names: of ``DESIGNS``, or ``BUNDLES``: what the family's bundles have.
        config: numbers.
        command: that runs it again.

    Raises:
        CXRLensError: an unknown design, or no bundle with CVE.
    """
    for name in names:
        lookup({BUNDLES: None, **DESIGNS}, name, "design")
    designs = [name for name in names if name != BUNDLES]
    start = _start(run, bundles) if designs else None
    truth = truth_of(run.data, config.studies or None)
    rows = bundle_rows(run, bundles, truth, config.studies or None) if BUNDLES in names else []
    for name in designs:
        assert start is not None
        encoder = train_design(run, name, start, config)
        rows += rows_of(run, DESIGNS[name].title, name, encoder, truth, config.studies or None)
    return PaperTable(
        name="filters",
        family=run.config.name,
        metrics=COLUMNS,
        rows=tuple(rows),
        n=len(truth.subjects),
        seeds=(run.config.seed,),
        command=command,
        data=f"{run.config.name}, fingerprint {run.data.fingerprint()}.",
        notes=(),
    )


def bundle_rows(run: Run, bundles: Path, truth: Truth, most: int | None) -> list[Row]:
    """What the family's own CCVE does, and what each of its pairs shows of a filter tells; empty without CCVE."""
    cards = [card for card in cards_of(run.config.name, bundles) if card.encoder == "ccve"]
    if not cards:
        return []
    library = BundleLibrary(bundles)
    encoder = library.load(cards[0].name).encoder
    assert isinstance(encoder, ClusterClipEncoder)
    rows = rows_of(run, "CCVE of the bundles", BUNDLES, encoder, truth, most)
    return rows + [row for card in cards for row in sign_rows(run.data, library.load(card.name), truth)]


def truth_of(data: StudyData, most: int | None) -> Truth:
    """Labels of the first ``most`` studies of each split."""
    return Truth(
        {split: data.cluster_targets(split).numpy()[:most] for split in SPLITS},
        [study.subject_id for study in data.studies["test"][:most]],
    )


def train_design(run: Run, name: str, start: ContrastiveEncoder, config: FilterStudyConfig) -> ClusterClipEncoder:
    """Train a design, or find it trained."""
    settings = replace(run.config.cluster_clip, **DESIGNS[name].changes)
    settings = replace(settings, epochs=epochs_of(settings, config.epochs), patience=settings.epochs + 1)
    encoder = _new(run, settings, start)
    folder = run.folder / "study_filters" / name
    identity = run.identity("clip", after={}, clip=settings, encoder="ccve", start=_state_hash(start))

    def work(into: Path) -> None:
        contrast(run, into, encoder, settings, {split: run.data.cluster_pairs(split) for split in LEARNING})

    run_stage(folder, identity, work)
    load_weights(folder, "encoder", encoder)
    return encoder.freeze()


def rows_of(run: Run, title: str, name: str, encoder: ClusterClipEncoder, truth: Truth, most: int | None) -> list[Row]:
    """A design, its random filters of the same strength, and the same CLIP without filters."""
    data, side = run.data, encoder.normalize.image_size
    texts = cluster_texts(encoder, data.cluster_pairs("train")).numpy()
    sample = to_images(np.asarray(data.images("train", side)[:MATCHED]))
    kinds = {
        "": encoder,
        "random filters as strong": with_random_filters(encoder, sample),
        "no filter": without_filters(encoder),
    }
    told: dict[str, Told] = {}
    rows = []
    for kind, each in kinds.items():
        note(f"  {name}{', ' if kind else ''}{kind}: encoding")
        tokens = {split: encode(data, split, each, most) for split in SPLITS}
        told[kind] = tell(tokens, texts, truth)
        pictures = to_images(np.asarray(data.images("test", side)[:200]))
        change, between = picture_differences(each, pictures)
        np.fill_diagonal(between, np.inf)
        rows.append(
            Row(
                name=f"{title}{', ' if kind else ''}{kind}",
                kind="control" if kind else "system",
                keys={"design": name, "filters": kind or "learned"},
                metrics={
                    "change": Cell(value=float(change.min())),
                    "between": Cell(value=float(between.min())),
                    **told[kind].cells(),
                },
                note="" if kind else f"Mean change {change.mean():.3f}.",
            )
        )
    less = interval(told[""].gap - told["random filters as strong"].gap)
    first = replace(
        rows[0],
        note=f"{rows[0].note} Its gap less that of random filters as strong: "
        f"{less.value:+.3f} [{less.low:+.3f}, {less.high:+.3f}].",
    )
    return [first, *rows[1:]]


def encode(data: StudyData, split: Split, encoder: ClusterClipEncoder, most: int | None) -> Floats:
    """Tokens (n, 13, D) of the first ``most`` studies of a split."""
    images = data.images(split, encoder.normalize.image_size)[:most]
    plain = isinstance(encoder.filters, NoFilters)
    parts = []
    with torch.inference_mode():
        for at in range(0, len(images), 16):
            batch = to_images(images[at : at + 16])
            if plain:  # thirteen times the same picture: once is enough
                parts.append(encoder.clip.image(encoder.normalize(batch)).unsqueeze(1).expand(-1, len(CLUSTERS), -1))
            else:
                parts.append(encoder(batch).tokens)
    return torch.cat(parts).numpy()


def _start(run: Run, bundles: Path) -> ContrastiveEncoder:
    cards = [card for card in cards_of(run.config.name, bundles) if card.encoder == "cve"]
    if not cards:
        raise StageError(
            f"Designs start from the CLIP of CVE; {bundles} has no bundle of it in the family '{run.config.name}'. "
            f"Run: cxr-lens train --preset {run.config.name}"
        )
    encoder = BundleLibrary(bundles).load(cards[0].name).encoder
    assert isinstance(encoder, ContrastiveEncoder)
    return encoder


def _new(run: Run, settings: ClipConfig, start: ContrastiveEncoder) -> ClusterClipEncoder:
    torch.manual_seed(run.config.seed)
    encoder = build_encoder(
        "ccve", run.config.size, vocabulary=run.data.vocabulary, filters=settings.filters, gate=settings.gate
    )
    assert isinstance(encoder, ClusterClipEncoder)
    encoder.clip.load_state_dict(start.clip.state_dict())
    return encoder


def _state_hash(encoder: ContrastiveEncoder) -> str:
    import hashlib

    whole = hashlib.sha256()
    for value in encoder.clip.state_dict().values():
        whole.update(value.cpu().numpy().tobytes())
    return whole.hexdigest()[:16]
