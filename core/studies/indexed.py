"""Studies of an index (Open-i, MIMIC-CXR) as a source: one image and its study's report are one `Study`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from core.observations import OBSERVATIONS, LabelState
from core.studies.image_cache import ImageCache, open_image_cache, read_square, unreadable_images
from core.studies.images import Radiograph, read_image
from core.studies.index import INDEX_VERSION, ReleaseError, open_index
from core.studies.label_table import LabelTable, label_index
from core.studies.mimic_cxr import read_shipped_labels
from core.types import CXRLensError, FloatImage, Split, Study

Labels = Literal["rules", "chexpert", "negbio"]


class IndexedSource:
    """A `StudySource` over an index: studies with findings, images of the chosen views.

    Texts are kept in their columnar form; a `Study` is made when it is asked for.
    """

    def __init__(
        self,
        folder: Path,
        views: str,
        labels: Labels = "rules",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Open an index.

        Args:
            folder: of the index.
            views: a name in `core.views.VIEW_CHOICES`.
            labels: of the 14 observations: "rules" labels the findings; "chexpert" and "negbio" are MIMIC-CXR's own
                tables, made from the impression where there is one; a study that they miss is left out.
            progress: called with (done, all) while reports are labelled for the first time.

        Raises:
            ReleaseError: no index there, no such choice of views, or no such labels.
        """
        self.index = open_index(folder)
        self.index.choice(views)
        self.name = self.index.source
        self.views = views
        self.labels = labels
        self._progress = progress
        self._caches: dict[int, ImageCache | None] = {}

    def fingerprint(self) -> str:
        """Hash what decides the content: index, views, files that cannot be read, rules of the labels."""
        shipped = self.index.folder / f"labels-{self.labels}.parquet"
        parts = [
            INDEX_VERSION,
            self.index.fingerprint,
            self.views,
            dict(self._labelled.versions),
            hashlib.sha256(shipped.read_bytes()).hexdigest() if self.labels != "rules" else "",
            list(unreadable_images(self.index)),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def studies(self, split: Split) -> Sequence[Study]:
        """All studies of a split, in the order of the release."""
        return _Studies(self._study, [place for place, each in enumerate(self._samples["split"]) if each == split])

    def study(self, study_id: str) -> Study:
        """One study's text and labels."""
        return self._study(self._place(study_id))

    def image(self, study_id: str, size: int) -> FloatImage:
        """A study's image, (size, size), values in [0, 1] in steps of 1/255.

        Raises:
            ImageError: the file cannot be read, or is not there any more.
            ReleaseError: the release was moved.
        """
        place = self._place(study_id)
        image = self._samples["image"][place]
        if size not in self._caches:
            self._caches[size] = open_image_cache(self.index, size)
        cache = self._caches[size]
        if cache is not None and cache.read[image] == self._samples["bytes"][place]:
            square = cache.pixels[image]
        else:
            square = read_square(self.index.file(self._samples["path"][place]), size, study_id)
        return square.astype(np.float32) / 255

    def original(self, study_id: str) -> Radiograph:
        """A study's image as it is on disk, with its pixel spacing and what is to be said of it.

        Raises:
            ImageError: as `image`.
        """
        return read_image(self.index.file(self._samples["path"][self._place(study_id)]), name=study_id)

    @cached_property
    def _samples(self) -> dict[str, list[Any]]:
        """Columns of `StudyIndex.samples`, as plain values: fast to look into."""
        samples = self.index.samples(self.views, list(unreadable_images(self.index)))
        samples = samples[samples["has_findings"]]
        if self.labels != "rules":
            samples = samples[samples["study_id"].isin(self._shipped["study_id"].to_pylist())]
        if samples.empty:
            raise ReleaseError(f"{self.index.folder} has no study with findings and an image for views={self.views}.")
        return {str(name): column.tolist() for name, column in samples.items()}

    @cached_property
    def _places(self) -> dict[str, int]:
        return {study_id: place for place, study_id in enumerate(self._samples["sample_id"])}

    def _place(self, study_id: str) -> int:
        place = self._places.get(study_id)
        if place is None:
            raise CXRLensError(f"no study {study_id!r} with views={self.views} in {self.index.folder}")
        return place

    @cached_property
    def _shipped(self) -> pa.Table:
        if self.labels == "rules":
            raise ValueError("labels of the rules are not shipped")
        return read_shipped_labels(self.index, self.labels)

    @cached_property
    def _labelled(self) -> LabelTable:
        return label_index(self.index, progress=self._progress)

    @cached_property
    def _label_rows(self) -> npt.NDArray[np.int64]:
        """For each sample, its row in the label table."""
        return _rows_of(self._labelled.rows, self._samples["study_id"])

    @cached_property
    def _state_rows(self) -> npt.NDArray[np.int64]:
        """For each sample, its row in the table that its states are from."""
        return self._label_rows if self.labels == "rules" else _rows_of(self._shipped, self._samples["study_id"])

    def _study(self, place: int) -> Study:
        samples = self._samples
        texts = self.index.texts.slice(samples["study"][place], 1).to_pylist()[0]
        labels = self._labelled.rows.slice(int(self._label_rows[place]), 1).to_pylist()[0]
        states = labels
        if self.labels != "rules":
            states = self._shipped.slice(int(self._state_rows[place]), 1).to_pylist()[0]
        return Study(
            study_id=samples["sample_id"][place],
            subject_id=samples["subject_id"][place],
            split=samples["split"][place],
            view=samples["view"][place],
            findings=texts["findings"],
            impression=texts["impression"],
            labels={name: LabelState(states[name]) for name in OBSERVATIONS},
            fine_labels=tuple(labels["fine_labels"]),
            cluster_texts=dict(labels["cluster_texts"]),
            context=dict(texts["context"]),
        )


class _Studies(Sequence[Study]):
    """Some studies of a source, made when they are asked for."""

    def __init__(self, make: Callable[[int], Study], places: Sequence[int]) -> None:
        self._make = make
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Study: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Study]: ...
    def __getitem__(self, index: int | slice) -> Study | Sequence[Study]:
        if isinstance(index, slice):
            return _Studies(self._make, self._places[index])
        return self._make(int(self._places[index]))


def _rows_of(table: pa.Table, study_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    rows = pd.Index(table["study_id"].to_pylist()).get_indexer(study_ids)
    assert (rows >= 0).all(), "a study without labels"
    return np.asarray(rows, dtype=np.int64)
