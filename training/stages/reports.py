"""How models that write findings are fed: words of the studies, batches with tokens or images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from core.encoders.token_cache import TokenCache
from core.labels.order import abnormal_first
from core.text import PAD
from core.types import Split
from training.data import to_images
from training.loaders import Collate, loaders, pad
from training.stages.run import Run


def report_loaders(
    run: Run, collate: tuple[Collate, Collate], words: Sequence[Sequence[int]]
) -> tuple[DataLoader[int], DataLoader[int]]:
    """What every model that writes findings learns from and is validated on, drawn alike."""
    settings, studies = run.config.report, run.data.studies
    validated = studies["validate"][: settings.validate_studies or None]
    return loaders(
        (len(studies["train"]), len(validated)),
        collate,
        settings.batch_size,
        run.config.seed,
        run.data.coarse_targets("train") if settings.class_aware else None,
        [len(row) for row in words] if settings.group_lengths else (),
    )


def finding_ids(run: Run, split: Split, *, sentences: bool, ordered: bool) -> list[list[int]]:
    """Ids of each study's findings.

    Args:
        run: its studies.
        split: which of them.
        sentences: with the ends that a planner of sentences needs.
        ordered: sentences in the order of `core.labels.order`, not the reader's.
    """
    in_order = abnormal_first if ordered else str
    texts = [in_order(run.data.learned(study.findings)) for study in run.data.studies[split]]
    return [run.data.vocabulary.encode(text, run.config.data.max_words, sentences=sentences) for text in texts]


def with_tokens(
    caches: Sequence[TokenCache], ids: Sequence[Sequence[int]], findings: Tensor | None = None
) -> Callable[[list[int]], dict[str, Any]]:
    """Batches of cached tokens and ids; with ``findings`` (studies, 14), of observations that are known to be there."""
    return lambda rows: {
        "tokens": [cache.tokens(rows) for cache in caches],
        "ids": pad([ids[each] for each in rows], PAD),
        **({} if findings is None else {"findings": findings[rows]}),
    }


def with_images(
    run: Run, split: Split, encoder_name: str, ids: Sequence[Sequence[int]]
) -> Callable[[list[int]], dict[str, Tensor]]:
    """Batches of images, at the encoder's size, and ids."""
    images = run.data.images(split, run.config.image_side(encoder_name))
    return lambda rows: {"images": to_images(images[rows]), "ids": pad([ids[each] for each in rows], PAD)}
