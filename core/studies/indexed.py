"""Studies of an index as a source: one image and its study's report are one `Study`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.labels.clusters import cluster_texts
from core.labels.rules import label_report
from core.observations import OBSERVATIONS, LabelState
from core.studies.image_cache import ImageCache, open_image_cache, read_square, unreadable_images
from core.studies.images import Radiograph, read_image
from core.studies.index import INDEX_VERSION, ReleaseError, StudyIndex, open_index, read_parquet, sample_ids
from core.studies.label_table import LabelTable, label_index, open_labels
from core.studies.mimic_cxr import read_shipped_labels
from core.studies.source import Box, DicomReference, Source, StudyImage, TrueFinding, UnknownStudyError
from core.types import PAD, Fit, FloatImage, Mask, Split, Study
from core.views import view_choices

Labels = Literal["rules", "chexpert", "negbio", "given"]


class IndexedSource(Source):
    """A source over an index: images of the chosen views, with their study's texts.

    Texts are kept on disk and in their columnar form; a `Study` is made when it is asked for.
    """

    def __init__(
        self,
        folder: Path,
        views: str = "",
        labels: Labels | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        findings_only: bool = True,
    ) -> None:
        """Open an index.

        Args:
            folder: of the index.
            views: a name in `core.views.view_choices`; "" is "frontal", or "any" where no image of a table or folder is
                frontal: then `caution` says so.
            labels: of the 14 observations: "rules" labels the findings; "given" are those of a table; "chexpert" and
                "negbio" are MIMIC-CXR's own tables, made from the impression where there is one. A study that a table
                misses is left out. What the index says of itself, unless given.
            progress: called with (done, all) while reports are labelled for the first time.
            findings_only: whether studies without findings are left out, as training and scores need it; of an index
                without reports none is.

        Raises:
            ReleaseError: no index there, no such choice of views, or no such labels.
        """
        self.index = open_index(folder)
        views = views or _natural_views(self.index)
        self.index.choice(views)
        told = self.index.told
        self.written = self.index.folder / "index.json"
        self.name = self.index.source
        self.key = f"index:{views}:{folder.expanduser().absolute()}"
        self.title = told.title
        self.has_reports = told.reports
        self.has_labels = told.reports or told.labels != "rules"
        self.truth = told.truth
        self.credit = told.credit
        self.caution = _NO_FRONTAL if views == _ANY else ""
        self.views = views
        self.labels = labels or told.labels
        if self.labels != "rules":
            self.labelled_by = f"{self.labels} as shipped"
            self.labels_shipped = told.reports
        self._findings_only = findings_only and told.reports
        self._progress = progress
        self._caches: dict[int, ImageCache | None] = {}

    def fingerprint(self) -> str:
        """Hash what decides the content: index, views, files that cannot be read, rules of the labels."""
        shipped = self.index.folder / f"labels-{self.labels}.parquet"
        parts = [
            INDEX_VERSION,
            self.index.fingerprint,
            self.views,
            dict(self._labelled.versions) if self.has_reports else {},
            hashlib.sha256(shipped.read_bytes()).hexdigest() if self.labels != "rules" else "",
            list(unreadable_images(self.index)),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def images_fingerprint(self) -> str:
        """Hash of index, views and files that cannot be read."""
        parts = [INDEX_VERSION, self.index.fingerprint, self.views, list(unreadable_images(self.index))]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def ids(self, split: Split) -> Sequence[str]:
        """All studies of a split, in the order of the release."""
        chosen = pc.equal(self._samples["split"], split)
        return list(self._samples["sample_id"].filter(chosen).to_pylist())

    def splits(self) -> tuple[Split, ...]:
        """The splits that have studies."""
        there = set(pc.unique(self._samples["split"]).to_pylist())
        return tuple(split for split in _SPLITS if split in there)

    def studies(self, split: Split) -> Sequence[Study]:
        """All studies of a split, in the order of the release; their reports are labelled now, if they were not."""
        if self.has_reports:
            _ = self._labelled
        return _Studies(self._study, np.flatnonzero(self._column("split") == split).tolist())

    def study(self, study_id: str) -> Study:
        """One study's text and labels; where the index is not labelled yet, this report is, its fine labels left out.

        Raises:
            UnknownStudyError: there is no such study.
        """
        return self._study(self._place(study_id))

    def find(self, text: str, limit: int = 20, split: Split | None = None) -> list[str]:
        """Find studies by a part of their id or of their patient's; see `Source.find`."""
        samples = self._samples
        chosen = samples if split is None else samples.filter(pc.equal(samples["split"], split))
        wanted, found = text.strip(), list[str]()
        for column, matches in (
            ("sample_id", pc.starts_with),
            ("sample_id", pc.match_substring),
            ("subject_id", pc.match_substring),
        ):
            rows = pc.indices_nonzero(matches(chosen[column], wanted, ignore_case=True))[: limit + len(found)]
            found = list(dict.fromkeys([*found, *chosen["sample_id"].take(rows).to_pylist()]))
            if len(found) >= limit:
                break
        whole = [each for each in found if each.casefold() == wanted.casefold()]
        if not whole and wanted and pc.index(chosen["sample_id"], wanted).as_py() >= 0:
            whole = [wanted]
        return list(dict.fromkeys([*whole, *found]))[:limit]

    def images(self, study_id: str) -> tuple[StudyImage, ...]:
        """All images of the study, whatever their view, then those of the patient's study before it."""
        place = self._place(study_id)
        study, read = self._at("study", place), self._at("image", place)
        found = self._images_of(study, study_id, read)
        earlier = self._earlier(study)
        if earlier >= 0:
            found += self._images_of(earlier, str(self.index.studies["study_id"].iat[earlier]), -1)
        return tuple(found)

    def studies_of_images(self, image_ids: Collection[str]) -> dict[str, tuple[str, bool]]:
        """The studies of images, and whether models read them; see `Source.studies_of_images`."""
        images, samples = self.index.images, self._samples
        rows = np.flatnonzero(images["image_id"].isin(list(image_ids)).to_numpy())
        read = dict(zip(samples["image"].to_pylist(), samples["sample_id"].to_pylist(), strict=True))
        first: dict[int, str] = {}
        for study, name in zip(samples["study"].to_pylist(), samples["sample_id"].to_pylist(), strict=True):
            first.setdefault(study, name)
        found, studies = {}, images["study"].to_numpy()
        for row in rows.tolist():
            name = read.get(row) or first.get(int(studies[row]))
            if name is not None:
                found[str(images["image_id"].iat[row])] = (name, row in read)
        return found

    def image(self, study_id: str, size: int, fit: Fit = PAD) -> FloatImage:
        """A study's image, (size, size), values in [0, 1] in steps of 1/255; a cache holds padded images only.

        Raises:
            ImageError: the file cannot be read, or is not there any more.
            ReleaseError: the release was moved.
        """
        place = self._place(study_id)
        image = self._at("image", place)
        if size not in self._caches:
            self._caches[size] = open_image_cache(self.index, size)
        cache = self._caches[size]
        square: npt.NDArray[np.uint8] | None = None
        if fit == PAD and cache is not None:
            square = cache.image(image, self._at("bytes", place))
        if square is None:
            square = read_square(self.index.file(self._at("path", place)), size, study_id, fit)
        pixels: FloatImage = square.astype(np.float32) / np.float32(255)
        return pixels

    def original(self, study_id: str, image_id: str = "") -> Radiograph:
        """An image of a study as it is on disk; see `Source.original`.

        Raises:
            UnknownStudyError: there is no such study, or it has no such image.
            ImageError: as `image`.
            ReleaseError: as `image`.
        """
        place = self._place(study_id)
        path = self._at("path", place)
        if image_id:
            if image_id not in {each.image_id for each in self.images(study_id)}:
                raise UnknownStudyError(f"Study {study_id} has no image {image_id[:60]!r}.")
            images = self.index.images
            path = images["path"][images["image_id"] == image_id].iat[0]
        return read_image(self.index.file(path), name=image_id or study_id)

    def masks(self, study_id: str, shape: tuple[int, int]) -> tuple[TrueFinding, ...]:
        """The boxes of the image that models read; boxes of one finding are one mask."""
        boxes = self.index.boxes
        if boxes.empty:
            return ()
        found: list[TrueFinding] = []
        for finding, rows in boxes[boxes["image_id"] == self._image_id(study_id)].groupby("finding", sort=False):
            mask: Mask = np.zeros(shape, dtype=np.bool_)
            for left, top, width, height in rows[["left", "top", "width", "height"]].to_numpy(np.float64):
                mask[_span(top, height, shape[0]), _span(left, width, shape[1])] = True
            observations = tuple(filter(None, str(rows["observations"].iat[0]).split("|")))
            found.append(TrueFinding(str(finding), observations, mask))
        return tuple(found)

    def boxes(self, study_id: str, shape: tuple[int, int]) -> tuple[Box, ...]:
        """The boxes of the index as it has them."""
        boxes = self.index.boxes
        if boxes.empty:
            return ()
        rows = boxes[boxes["image_id"] == self._image_id(study_id)]
        return tuple(Box(str(name), *map(float, corner)) for name, *corner in rows[list(_BOX)].to_numpy().tolist())

    def dicom_reference(self, study_id: str) -> DicomReference | None:
        """As the image's file has it; see `Source.dicom_reference`."""
        from core.studies.images.dicom import dicom_uids  # brings pydicom

        uids = dicom_uids(self.index.file(self._at("path", self._place(study_id))), study_id)
        return DicomReference(*uids) if uids else None

    def traits(self, study: Study) -> dict[str, str]:
        """What studies can be divided by: what the base says, and what the index names."""
        more = {name.capitalize(): study.context.get(name, "") for name in self.index.told.traits}
        return super().traits(study) | {name: value for name, value in more.items() if value}

    @cached_property
    def _samples(self) -> pa.Table:
        """A row a sample: sample_id, image and study (rows of the index), subject_id, split; the rest is looked up."""
        index = self.index
        rows, number = index.chosen(self.views, list(unreadable_images(index)))
        study = index.images["study"].to_numpy()[rows]
        if self._findings_only:
            kept = index.studies["has_findings"].to_numpy()[study]
            rows, number, study = rows[kept], number[kept], study[kept]
        ids = pa.array(index.studies["study_id"], pa.string()).take(pa.array(study))
        if self.labels != "rules":
            kept = pc.is_in(ids, self._shipped["study_id"].combine_chunks()).to_numpy(zero_copy_only=False)
            rows, number, study, ids = rows[kept], number[kept], study[kept], ids.filter(pa.array(kept))
        if not len(rows):
            what = "study with findings and an image" if self._findings_only else "study with an image"
            raise ReleaseError(f"{index.folder} has no {what} for views={self.views}.")
        names = pa.array(sample_ids(ids.to_pylist(), number)) if number.any() else ids
        others = {
            name: pa.array(index.studies[name], pa.string()).take(pa.array(study)) for name in ("subject_id", "split")
        }
        return pa.table({"sample_id": names, "image": rows, "study": study, **others})

    def _column(self, name: str) -> npt.NDArray[Any]:
        return np.asarray(self._samples[name].to_numpy())

    def _at(self, name: str, place: int) -> Any:
        """A value of a sample, or of its image or study."""
        if name in self._samples.column_names:
            return self._samples[name][place].as_py()
        of_image = name in self.index.images.columns
        table = self.index.images if of_image else self.index.studies
        value = table[name].iat[self._at("image" if of_image else "study", place)]
        return value.item() if isinstance(value, np.generic) else value

    def _image_id(self, study_id: str) -> str:
        """Of the image that models read."""
        return str(self.index.images["image_id"].iat[self._at("image", self._place(study_id))])

    def _place(self, study_id: str) -> int:
        place = int(pc.index(self._samples["sample_id"], study_id).as_py())
        if place < 0:
            raise self._missing(study_id)
        return place

    def _missing(self, study_id: str) -> UnknownStudyError:
        """Say why there is no such study here: left out by the index, by the views, or never heard of."""
        studies = self.index.studies
        rows = studies[studies["study_id"] == study_id]
        if rows.empty:
            return self.unknown(study_id)
        reason = str(rows["dropped"].iat[0]) or f"it has no image for views={self.views}, or no findings"
        return UnknownStudyError(f"Study {study_id!r} of {self.title} is left out: {reason}.")

    def _images_of(self, study: int, study_id: str, read: int) -> list[StudyImage]:
        images = self.index.images
        rows = np.flatnonzero(((images["study"] == study) & (images["dropped"] == "")).to_numpy()).tolist()
        return [
            StudyImage(
                study_id,
                str(images["image_id"].iat[row]),
                str(images["view"].iat[row]),
                read=row == read,
                earlier=read < 0,
            )
            for row in sorted(rows, key=lambda row: row != read)
        ]

    def _earlier(self, study: int) -> int:
        """Row of the patient's usable study before one; -1 where there is none, or nothing tells the order."""
        studies = self.index.studies
        if not self.index.told.visits:
            return -1
        rows = np.flatnonzero((studies["subject_id"] == studies["subject_id"].iat[study]) & (studies["dropped"] == ""))
        visits = {int(row): _visit(self.index.text(int(row))) for row in rows}
        before = [row for row, visit in visits.items() if 0 <= visit < visits.get(study, -1)]
        return max(before, key=lambda row: visits[row], default=-1)

    @cached_property
    def _shipped(self) -> pa.Table:
        if self.labels == "rules":
            raise ValueError("labels of the rules are not shipped")
        return read_shipped_labels(self.index, self.labels)

    @cached_property
    def _shipped_rows(self) -> dict[str, int]:
        return {study_id: place for place, study_id in enumerate(self._shipped["study_id"].to_pylist())}

    @cached_property
    def _labelled(self) -> LabelTable:
        return label_index(self.index, progress=self._progress)

    def _labels_there(self) -> LabelTable | None:
        """The labels that are on disk already, whole; they are not made for this."""
        if "_labelled" not in self.__dict__ and (found := open_labels(self.index)) is not None:
            self.__dict__["_labelled"] = found  # as cached_property does
        return self.__dict__.get("_labelled")

    def _study(self, place: int) -> Study:
        row, study_id = self._at("study", place), self._at("study_id", place)
        texts = self.index.text(row)
        labels: dict[str, Any] = {"fine_labels": (), "cluster_texts": {}}
        if self.has_reports and (table := self._labels_there()) is not None:
            labels = table.row(row, study_id)
        elif self.has_reports:
            states = label_report(texts["findings"]).states
            labels = {**states, "fine_labels": (), "cluster_texts": cluster_texts(texts["impression"])}
        states = labels
        if self.labels != "rules":
            states = self._shipped.slice(self._shipped_rows[study_id], 1).to_pylist()[0]
        return Study(
            study_id=self._at("sample_id", place),
            subject_id=self._at("subject_id", place),
            split=self._at("split", place),
            view=self._at("view", place),
            findings=texts["findings"],
            impression=texts["impression"],
            labels={name: LabelState(states.get(name, LabelState.BLANK)) for name in OBSERVATIONS},
            fine_labels=tuple(labels["fine_labels"]),
            cluster_texts=dict(labels["cluster_texts"]),
            context=dict(texts["context"]),
        )


_SPLITS: tuple[Split, ...] = ("train", "validate", "test")
_ANY = "any"
_BOX = ("finding", "left", "top", "width", "height")
_NO_FRONTAL = (
    "None of these images is a frontal view, and the models know frontal views: what they write of these studies means "
    "nothing."
)


def _natural_views(index: StudyIndex) -> str:
    """The images that models read where nobody chooses: frontal ones, or the first of each study where none is."""
    known = view_choices(index.source)
    frontal = known["frontal"].views
    if _ANY not in known or frontal is None:
        return "frontal"
    images = read_parquet(index.folder / "images.parquet", ["view", "dropped"])
    there = pc.and_(pc.is_in(images["view"], pa.array(sorted(frontal))), pc.equal(images["dropped"], ""))
    return "frontal" if pc.any(there).as_py() else _ANY


def _span(start: float, length: float, side: int) -> slice:
    """Rows or columns whose centres lie in a part of a side; at least one."""
    first = min(max(round(start * side), 0), side - 1)
    return slice(first, max(min(round((start + length) * side), side), first + 1))


def _visit(text: dict[str, Any]) -> int:
    visit = dict(text["context"]).get("visit", "")
    return int(visit) if visit.isdecimal() else -1


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
