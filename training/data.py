"""The studies of a run: split, rendered once, their words and labels counted on the training split only."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from core.config import DataConfig, identity, to_dict
from core.files import new_array, write_whole
from core.labels.fine import fine_labels
from core.labels.mesh import names_of_codes
from core.labels.rules import label_report
from core.observations import ASSERTED, CLUSTER_PARTS, CLUSTERS, OBSERVATIONS, LabelState
from core.processes import worker_pool
from core.rows import damaged, sum_of
from core.schemas import read_json
from core.settings import WriteConfig
from core.studies.indexed import IndexedSource
from core.studies.model_image import grey_levels
from core.studies.phantom import PhantomSource
from core.studies.source import Source
from core.text import Vocabulary, count_words, split_sentences, tokenize, without_removed
from core.types import PAD, SPLITS, Fit, Split, Study
from core.views import view_choices
from training.console import note
from training.finding_sentences import plain_sentences
from training.identity import content_hash
from training.run_folder import StageError

Kind = Literal["reports", "labels", "impressions", "laterals"]
"""Which studies of a source: those with findings, whose images of the chosen views are read; all, of which only labels
count; those of the training split with an impression and no findings; or the lateral images of the training split."""


def study_source(config: DataConfig, kind: Kind = "reports") -> Source:
    """The source that a config names."""
    if config.source == "phantom":
        return PhantomSource(config.count, config.seed)
    views = config.views
    if kind == "laterals":
        views = next(name for name, choice in view_choices(config.source).items() if choice.views is None)
    source = IndexedSource(
        Path(config.folder),
        views,
        config.labels,
        lambda done, total: note(f"  labelled {done:,} of {total:,} reports"),
        findings_only=kind != "impressions",
    )
    if kind != "labels" and not source.has_reports:
        raise StageError(f"{config.folder} has images without reports: nothing could be learned to write from it.")
    return source


@dataclass(frozen=True)
class StudyData:
    """Studies, images and targets of one run.

    Attributes:
        config: which studies.
        folder: where rendered images are kept.
        kind: which of them.
    """

    config: DataConfig
    folder: Path
    kind: Kind = "reports"
    _looked_at: set[tuple[Path, str]] = field(default_factory=set, init=False, repr=False, compare=False)

    @cached_property
    def source(self) -> Source:
        """Where studies come from."""
        return study_source(self.config, self.kind)

    @cached_property
    def studies(self) -> dict[Split, Sequence[Study]]:
        """All studies by split."""
        if self.kind in ("reports", "labels"):
            return {split: self.source.studies(split) for split in SPLITS}
        train = self.source.studies("train")
        if self.kind == "laterals":
            found = [study for study in train if study.view == "LATERAL"]
        else:
            found = [self._by_impression(study) for study in train if study.impression and not study.findings]
        return {"train": found, "validate": (), "test": ()}

    def _by_impression(self, study: Study) -> Study:
        """A study without findings, labelled from its impression; labels that a release ships are of it already."""
        return study if self.config.labels != "rules" else replace(study, labels=label_report(study.impression).states)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words of the training split's findings and impressions."""
        texts = [self.learned(text) for study in self.studies["train"] for text in (study.findings, study.impression)]
        return Vocabulary.build(texts, self.config.min_word_count)

    def learned(self, text: str) -> str:
        """A text of a report as models learn from it: without removed words, unless they are to be learned."""
        return text if self.config.removed_words else without_removed(text)

    def write_settings(self, write: WriteConfig, worth_saying: Sequence[str] = ()) -> dict[str, Any]:
        """How pairs of these studies write, as their cards say it: the preset, and sentences of its readers.

        Args:
            write: of the preset.
            worth_saying: observations that a pair finds well enough for its reports to say them.
        """
        settings = to_dict(write)
        if write.min_sentence_words:
            settings["short_sentences"] = self.short_sentences(write.min_sentence_words)
        if write.say_found and worth_saying:
            found = self.finding_sentences
            settings["finding_sentences"] = {name: list(found[name]) for name in worth_saying if name in found}
        return settings

    def short_sentences(self, words: int) -> list[str]:
        """Sentences of the training split's findings that have fewer words and come often, the most frequent first."""
        counts = Counter(
            " ".join(sentence[:-1])
            for study in self.studies["train"]
            for sentence in split_sentences(tokenize(self.learned(study.findings)))
            if sentence[-1] == "." and 0 < count_words(sentence) < words
        )
        return [text for text, count in counts.most_common() if count >= self.config.min_word_count]

    @cached_property
    def finding_sentences(self) -> dict[str, tuple[str, ...]]:
        """By observation, plain sentences of the training split's findings that call it present, and nothing else."""
        return plain_sentences((study.findings for study in self.studies["train"]), self.vocabulary)

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
        told = ("source", "count", "seed", "folder", "views", "labels", "impressions")
        learned = {} if self.config.source == "phantom" else {"removed_words": self.config.removed_words}
        return {"studies": self.fingerprint(), **identity(self.config, told), **learned}

    def coarse_targets(self, split: Split) -> Tensor:
        """(studies, 14): 1 where positive; uncertain and blank count as 0 (paper-notes 4.1)."""
        rows = [[study.labels[name] is LabelState.POSITIVE for name in OBSERVATIONS] for study in self.studies[split]]
        return torch.tensor(rows, dtype=torch.float32)

    def fine_targets(self, split: Split, known: Sequence[str] | None = None) -> Tensor:
        """(studies, fine labels); those of another's studies, if they are given."""
        wanted = self.fine_labels if known is None else known
        found = [study.fine_labels for study in self.studies[split]]
        if self.kind == "impressions":
            found = fine_labels([study.impression for study in self.studies[split]])
        rows = [[label in each for label in wanted] for each in found]
        return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(wanted))

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """Human codes frequent enough in the training split, sorted."""
        counts = Counter(code for study in self.studies["train"] for code in _codes(study) or ())
        return tuple(sorted(code for code, count in counts.items() if count >= self.config.min_fine_label_count))

    def code_targets(self, split: Split, known: Sequence[str]) -> Tensor:
        """(studies, codes): 1 where it was given, NaN in all of a study that nobody has coded."""
        found = [_codes(study) for study in self.studies[split]]
        rows = [[math.nan if each is None else float(code in each) for code in known] for each in found]
        return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(known))

    def pairs(self, split: Split) -> list[tuple[int, int, str]]:
        """(index of the study, 0, impression) of studies that have one."""
        texts = ((index, 0, self.learned(study.impression)) for index, study in enumerate(self.studies[split]))
        return [each for each in texts if each[2]]

    def cluster_pairs(self, split: Split) -> list[tuple[int, int, str]]:
        """(index of the study, index of the cluster, the impression's sentences of that cluster)."""
        texts = (
            (index, CLUSTERS.index(cluster), self.learned(text))
            for index, study in enumerate(self.studies[split])
            for cluster, text in study.cluster_texts.items()
        )
        return [each for each in texts if each[2]]

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

    def images(self, split: Split, size: int, fit: Fit | None = None) -> npt.NDArray[np.uint8]:
        """Images (studies, size, size), rendered once and memory-mapped; interrupted, rendering goes on.

        Where another process renders them, this one waits for it.

        Args:
            split: whose studies.
            size: side in pixels.
            fit: how they are fitted; as the configuration says unless given.
        """
        fit = self.config.as_fit if fit is None else fit
        path = self.folder / f"{split}-{size}{'' if fit == PAD else f'-{content_hash(asdict(fit))}'}.npy"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            self._render(path, split, size, fit)
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]

    def _render(self, path: Path, split: Split, size: int, fit: Fit) -> None:
        about, sums_path = path.with_suffix(".json"), path.with_suffix(".sums.npy")
        total = len(self.studies[split])
        key = content_hash([self.source.fingerprint(), split, size])
        if (path, key) in self._looked_at:
            return
        done, values, sums = _opened(path, sums_path, about, key, (total, size, size))
        wrong = damaged(values, sums, range(done))  # once a process: what is read is what was written
        todo = [*wrong, *range(done, total)]
        if wrong:
            note(f"  {path.name}: {len(wrong)} images are not what was written, and are rendered again")
        if len(todo) > len(wrong):
            note(f"  rendering {total - done} {split} studies at {size} px")
        ids = [study.study_id for study in self.studies[split]]
        if todo:
            with worker_pool(os.cpu_count() or 1, start=None, begin=_one_thread) as pool:
                for start in range(0, len(todo), 256):
                    chunk = todo[start : start + 256]
                    jobs = [(self.config, self.kind, ids[place], size, fit) for place in chunk]
                    values[chunk] = np.stack(list(pool.map(_render, jobs, chunksize=16)))
                    sums[chunk] = [sum_of(values[place], place) for place in chunk]
                    values.flush()
                    sums.flush()
                    write_whole(about, json.dumps({"key": key, "done": max(done, chunk[-1] + 1)}))
        self._looked_at.add((path, key))


def _opened(
    path: Path, sums: Path, about: Path, key: str, shape: tuple[int, int, int]
) -> tuple[int, np.memmap[Any, Any], np.memmap[Any, Any]]:
    """How many rows were rendered before; images, and their checksums: begun anew where they are of something else."""
    try:
        saved = read_json(about)
        if saved["key"] == key and 0 <= saved["done"] <= shape[0]:
            images, kept = (np.lib.format.open_memmap(each, mode="r+") for each in (path, sums))  # type: ignore[no-untyped-call]
            alike = images.shape == shape and kept.shape == shape[:1]
            if alike and images.dtype == np.uint8 and kept.dtype == np.uint32:
                return int(saved["done"]), images, kept
    except (OSError, EOFError, ValueError, LookupError, TypeError):
        pass  # none yet, or damaged
    about.unlink(missing_ok=True)
    return 0, new_array(path, np.uint8, shape), new_array(sums, np.uint32, shape[:1])


def to_images(values: npt.NDArray[np.uint8]) -> Tensor:
    """(B, H, W) uint8 to (B, 1, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(values)).unsqueeze(1).float() / 255  # a copy: what is mapped cannot be written


def _asserted(study: Study) -> list[str]:
    return [name for name, state in study.labels.items() if state in ASSERTED]


def _codes(study: Study) -> frozenset[str] | None:
    return names_of_codes(study.context.get("mesh", "").split(";"))


_SOURCES: dict[tuple[DataConfig, Kind], Source] = {}


def _one_thread() -> None:
    torch.set_num_threads(1)


def _render(job: tuple[DataConfig, Kind, str, int, Fit]) -> npt.NDArray[np.uint8]:
    config, kind, study_id, size, fit = job
    if (config, kind) not in _SOURCES:
        _SOURCES[config, kind] = study_source(config, kind)
    image = _SOURCES[config, kind].image(study_id, size, fit)
    return grey_levels(image)
