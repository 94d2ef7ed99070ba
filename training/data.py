"""The studies of a run: split, rendered once, their words and labels counted on the training split only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from core.config import DataConfig, identity
from core.files import new_array, write_whole
from core.observations import ASSERTED, CLUSTER_PARTS, CLUSTERS, OBSERVATIONS, LabelState
from core.studies.indexed import IndexedSource
from core.studies.model_image import grey_levels
from core.studies.phantom import PhantomSource
from core.studies.source import Source
from core.text import Vocabulary
from core.types import SPLITS, Split, Study
from training.console import note
from training.identity import content_hash
from training.run_folder import StageError


def study_source(config: DataConfig) -> Source:
    """The source that a config names."""
    if config.source == "phantom":
        return PhantomSource(config.count, config.seed)
    source = IndexedSource(
        Path(config.folder),
        config.views,
        config.labels,
        lambda done, total: note(f"  labelled {done:,} of {total:,} reports"),
    )
    if not source.has_reports:
        raise StageError(f"{config.folder} has images without reports: nothing could be learned to write from it.")
    return source


@dataclass(frozen=True)
class StudyData:
    """Studies, images and targets of one run.

    Attributes:
        config: which studies.
        folder: where rendered images are kept.
    """

    config: DataConfig
    folder: Path

    @cached_property
    def source(self) -> Source:
        """Where studies come from."""
        return study_source(self.config)

    @cached_property
    def studies(self) -> dict[Split, Sequence[Study]]:
        """All studies by split."""
        return {split: self.source.studies(split) for split in SPLITS}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words of the training split's findings and impressions."""
        texts = [text for study in self.studies["train"] for text in (study.findings, study.impression)]
        return Vocabulary.build(texts, self.config.min_word_count)

    @cached_property
    def fine_labels(self) -> tuple[str, ...]:
        """Fine labels frequent enough in the training split, sorted."""
        counts = Counter(label for study in self.studies["train"] for label in study.fine_labels)
        kept = sorted(label for label, count in counts.items() if count >= self.config.min_fine_label_count)
        if not kept:
            raise StageError("No fine label is frequent enough. Lower data.min_fine_label_count or raise data.count.")
        return tuple(kept)

    def fingerprint(self) -> str:
        """Hash of the studies and their labels, as the cards of bundles have it."""
        return self.source.fingerprint()

    def identity(self) -> dict[str, Any]:
        """What decides what is learned from the studies, as plain values.

        Where an index lies changes nothing, and the fingerprint tells which studies there are.
        """
        told = ("source", "count", "seed", "folder", "views", "labels")
        return {"studies": self.fingerprint(), **identity(self.config, told)}

    def coarse_targets(self, split: Split) -> Tensor:
        """(studies, 14): 1 where positive; uncertain and blank count as 0 (paper-notes 4.1)."""
        rows = [[study.labels[name] is LabelState.POSITIVE for name in OBSERVATIONS] for study in self.studies[split]]
        return torch.tensor(rows, dtype=torch.float32)

    def fine_targets(self, split: Split) -> Tensor:
        """(studies, fine labels)."""
        rows = [[label in study.fine_labels for label in self.fine_labels] for study in self.studies[split]]
        return torch.tensor(rows, dtype=torch.float32)

    def pairs(self, split: Split) -> list[tuple[int, int, str]]:
        """(index of the study, 0, impression) of studies that have one."""
        return [(index, 0, study.impression) for index, study in enumerate(self.studies[split]) if study.impression]

    def cluster_pairs(self, split: Split) -> list[tuple[int, int, str]]:
        """(index of the study, index of the cluster, the impression's sentences of that cluster)."""
        return [
            (index, CLUSTERS.index(cluster), text)
            for index, study in enumerate(self.studies[split])
            for cluster, text in study.cluster_texts.items()
        ]

    def clusters(self, split: Split) -> Tensor:
        """(studies, 13), True where a study has a cluster: in its impression, or asserted by its labels."""
        rows = [
            [
                name in study.cluster_texts or bool(named & set(_asserted(study)))
                for name, named in CLUSTER_PARTS.items()
            ]
            for study in self.studies[split]
        ]
        return torch.tensor(rows)

    def cluster_targets(self, split: Split) -> Tensor:
        """(studies, 13), 1 where an observation of a cluster is positive: what filters are scored by."""
        coarse = self.coarse_targets(split)
        parts = [[OBSERVATIONS.index(name) for name in names] for names in CLUSTER_PARTS.values()]
        return torch.stack([coarse[:, part].amax(1) for part in parts], 1)

    def images(self, split: Split, size: int) -> npt.NDArray[np.uint8]:
        """Images (studies, size, size), rendered once and memory-mapped; interrupted, rendering goes on.

        Where another process renders them, this one waits for it.
        """
        path = self.folder / f"{split}-{size}.npy"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            self._render(path, split, size)
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]

    def _render(self, path: Path, split: Split, size: int) -> None:
        about = path.with_suffix(".json")
        total = len(self.studies[split])
        key = content_hash([self.source.fingerprint(), split, size])
        done, values = 0, None
        if about.is_file() and path.is_file():
            saved = json.loads(about.read_text(encoding="utf-8"))
            if saved["key"] == key:
                done = saved["done"]
                if done == total:
                    return
                values = np.lib.format.open_memmap(path, mode="r+")
        if values is None:
            values = new_array(path, np.uint8, (total, size, size))
        note(f"  rendering {total - done} {split} studies at {size} px")
        ids = [study.study_id for study in self.studies[split]]
        with ProcessPoolExecutor(initializer=_one_thread) as pool:
            for start in range(done, total, 256):
                chunk = ids[start : start + 256]
                jobs = [(self.config, study_id, size) for study_id in chunk]
                values[start : start + len(chunk)] = np.stack(list(pool.map(_render, jobs, chunksize=16)))
                values.flush()
                write_whole(about, json.dumps({"key": key, "done": start + len(chunk)}))


def to_images(values: npt.NDArray[np.uint8]) -> Tensor:
    """(B, H, W) uint8 to (B, 1, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(values)).unsqueeze(1).float() / 255  # a copy: what is mapped cannot be written


def _asserted(study: Study) -> list[str]:
    return [name for name, state in study.labels.items() if state in ASSERTED]


_SOURCES: dict[DataConfig, Source] = {}


def _one_thread() -> None:
    torch.set_num_threads(1)


def _render(job: tuple[DataConfig, str, int]) -> npt.NDArray[np.uint8]:
    config, study_id, size = job
    if config not in _SOURCES:
        _SOURCES[config] = study_source(config)
    image = _SOURCES[config].image(study_id, size)
    return grey_levels(image)
