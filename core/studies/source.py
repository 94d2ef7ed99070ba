"""What every source of studies can do, and how it says what it cannot.

Pages, reviews, training and commands ask a source, whatever it is: the phantom, an index, a folder, uploaded files, a
DICOMweb server. `core.studies.sources` opens them by their names.
"""

from __future__ import annotations

import difflib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from core.observations import OBSERVATIONS, LabelState
from core.studies.images import Radiograph
from core.studies.model_image import model_image
from core.types import PAD, SPLITS, CXRLensError, Fit, FloatImage, Mask, Split, Study
from core.views import view_in_words

T = TypeVar("T")

RULE_LABELER = "rule labeler"

_COMPARED = 2000  # ours: ids that are compared letter by letter where one was mistyped
_OLDEST = 125  # ours: years; what is above is a code or a slip
_HALVES = 50  # ours: years


class UnknownStudyError(CXRLensError):
    """A source has no study, or no image, of that id."""


@dataclass(frozen=True, slots=True)
class StudyImage:
    """One image that a viewer can show with a study.

    Attributes:
        study_id: of the study that it belongs to; of an earlier image, that earlier study.
        image_id: unique in its source.
        view: as `core.types.Study.view`.
        read: whether this is the one that models read.
        earlier: whether it is of an earlier study of the same patient.
    """

    study_id: str
    image_id: str
    view: str
    read: bool
    earlier: bool = False

    @property
    def title(self) -> str:
        """For a reader: "PA view", "lateral view, earlier"."""
        return (view_in_words(self.view) or "view not known") + (", earlier" if self.earlier else "")


@dataclass(frozen=True, slots=True)
class TrueFinding:
    """Where a finding really is.

    Attributes:
        name: in words, "left pleural effusion".
        observations: those of the 14 that it counts for; none where it has no counterpart.
        mask: (H, W) on the study's original.
    """

    name: str
    observations: tuple[str, ...]
    mask: Mask


@dataclass(frozen=True, slots=True)
class Box:
    """Where a finding really is, as a box.

    Attributes:
        name: in words, as `TrueFinding.name`.
        left: of its left side, as a fraction of the original's width, 0 to 1.
        top: of its upper side, as a fraction of the original's height.
        width: as a fraction of the original's.
        height: as a fraction of the original's.
    """

    name: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class DicomReference:
    """How another DICOM object refers to an image: by four UIDs.

    Attributes:
        study: Study Instance UID.
        series: Series Instance UID.
        sop_class: SOP Class UID.
        instance: SOP Instance UID.
    """

    study: str
    series: str
    sop_class: str
    instance: str


class Source(ABC):
    """Where studies come from. A `core.types.StudySource` that can be looked into.

    Attributes:
        name: what kind of source it is, for fingerprints and records.
        key: its whole name; `core.studies.sources.open_source` opens the same source by it.
        title: for a reader.
        synthetic: whether its images are drawn, not taken of patients.
        has_reports: whether its studies have a reference report.
        has_labels: whether something is known of the 14 observations: from reports, or given.
        labelled_by: where that comes from, in words.
        labels_shipped: whether its reports have labels from a table of the release, made by another labeler and perhaps
            of other text than the findings: to learn from, not to compare with what is read in a generated report.
        truth: what `masks` are, in words: "outlines of what was drawn"; "" where there are none.
        credit: what must stand beside its images; "" where nothing must.
        caution: what must be said before a model reads any of its images; "" where nothing must.
        listed: whether `ids` names its studies; where not, they are found by `find` only.
        written: the file that is written anew whenever the content changes; None where there is none.
    """

    name: str
    key: str
    title: str
    synthetic: bool = False
    has_reports: bool = True
    has_labels: bool = True
    labelled_by: str = RULE_LABELER
    labels_shipped: bool = False
    truth: str = ""
    credit: str = ""
    caution: str = ""
    listed: bool = True
    written: Path | None = None

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that decides the content."""

    def images_fingerprint(self) -> str:
        """Hash of what decides the images that models read; no report is labelled for it."""
        return self.fingerprint()

    @abstractmethod
    def ids(self, split: Split) -> Sequence[str]:
        """Ids of a split, in a fixed order; no text is read."""

    @abstractmethod
    def study(self, study_id: str) -> Study:
        """One study, without its pixels.

        Raises:
            UnknownStudyError: there is none of this id; the message names those that look like it.
        """

    @abstractmethod
    def original(self, study_id: str, image_id: str = "") -> Radiograph:
        """An image of a study as its file has it, with its pixel spacing and what is to be said of it.

        Args:
            study_id: of the study.
            image_id: one of `images`; the one that models read unless given.

        Raises:
            CXRLensError: there is no such image, it is gone, or it cannot be read.
        """

    def studies(self, split: Split) -> Sequence[Study]:
        """All studies of a split, in a fixed order."""
        return tuple(self.study(study_id) for study_id in self.ids(split))

    def splits(self) -> tuple[Split, ...]:
        """The splits that have studies."""
        return tuple(split for split in SPLITS if len(self.ids(split)))

    def all_ids(self, split: Split | None = None) -> list[str]:
        """Ids of a split, or of all splits, in a fixed order; no text is read."""
        return [study_id for each in ([split] if split else self.splits()) for study_id in self.ids(each)]

    def find(self, text: str, limit: int = 20, split: Split | None = None) -> list[str]:
        """Find studies by a part of their ids, whatever its case: the whole id first, then beginnings, then the rest.

        Args:
            text: typed; of "" the first studies are found.
            limit: of ids.
            split: to look in; all unless given.
        """
        ids = self.all_ids(split)
        wanted = text.strip().casefold()
        found = [study_id for study_id in ids if wanted in study_id.casefold()]
        return sorted(found, key=lambda study_id: _rank(study_id, wanted))[:limit]

    def images(self, study_id: str) -> tuple[StudyImage, ...]:
        """The images of a study, then those of the patient's study before it; at least one is read by models.

        Raises:
            UnknownStudyError: there is no such study.
        """
        return (StudyImage(study_id, study_id, self.study(study_id).view, read=True),)

    def studies_of_images(self, image_ids: Collection[str]) -> dict[str, tuple[str, bool]]:
        """The studies of images: image id -> (study id, whether models read this image). Ids of no image are left out.

        Here every study has one image, which has its id.
        """
        return {}

    def image(self, study_id: str, size: int, fit: Fit = PAD) -> FloatImage:
        """The image that models read which fit theirs so: (size, size), values in [0, 1] in steps of 1/255.

        Raises:
            CXRLensError: as `original`.
        """
        return model_image(self.for_model(study_id, size), size, fit)[0]

    def for_model(self, study_id: str, size: int) -> FloatImage:
        """The image from which `model_image` makes the input of a pair: the original (H, W), whatever the size.

        Raises:
            CXRLensError: as `original`.
        """
        return self.original(study_id).pixels

    def masks(self, study_id: str, shape: tuple[int, int]) -> tuple[TrueFinding, ...]:
        """Where findings really are, on the image that models read.

        Args:
            study_id: of the study.
            shape: (H, W) of the masks; that of the original, or smaller in the same proportion.
        """
        return ()

    def boxes(self, study_id: str, shape: tuple[int, int]) -> tuple[Box, ...]:
        """Where findings really are, as boxes on the image that models read: around each part of each of `masks`.

        Args:
            study_id: of the study.
            shape: (H, W) of the original, or smaller in the same proportion.
        """
        from scipy import ndimage

        height, width = shape
        return tuple(
            Box(each.name, x.start / width, y.start / height, (x.stop - x.start) / width, (y.stop - y.start) / height)
            for each in self.masks(study_id, shape)
            for y, x in ndimage.find_objects(ndimage.label(each.mask)[0])
        )

    def dicom_reference(self, study_id: str) -> DicomReference | None:
        """How a DICOM object refers to the image that models read; None where that is no DICOM image.

        Raises:
            CXRLensError: there is no such study, its file is gone, or lacks one of the UIDs.
        """
        return None

    def traits(self, study: Study) -> dict[str, str]:
        """What studies can be divided by, title -> value; what is not known of a study is left out."""
        told = {"View": study.view, "Sex": sex_in_words(study.context.get("sex", ""))}
        told["Age"] = age_group(study.context.get("age", ""))
        return {name: value for name, value in told.items() if value}

    def unknown(self, study_id: str) -> UnknownStudyError:
        """The error of an id that this source does not have; it names those that look like it."""
        return UnknownStudyError(f"There is no study {study_id[:60]!r} in {self.title}.{look_alikes(self, study_id)}")


class ByStudy(Mapping[str, T]):
    """Something of each of some studies, by id; made when it is asked for."""

    def __init__(self, study_ids: Iterable[str], make: Callable[[str], T]) -> None:
        """Make nothing yet.

        Args:
            study_ids: in their order.
            make: what is known of one of them.
        """
        self._ids = dict.fromkeys(study_ids)
        self._make = make

    def __getitem__(self, study_id: str) -> T:
        """Make it."""
        if study_id not in self._ids:
            raise KeyError(study_id)
        return self._make(study_id)

    def __contains__(self, study_id: object) -> bool:
        """Look, and make nothing."""
        return study_id in self._ids

    def __iter__(self) -> Iterator[str]:
        """Ids, in their order."""
        return iter(self._ids)

    def __len__(self) -> int:
        """Count."""
        return len(self._ids)


def look_alikes(source: Source, study_id: str) -> str:
    """A sentence that names ids which look like one that there is not, with a blank before it; "" if none does."""
    near = source.find("", _COMPARED + 1)
    if len(near) > _COMPARED:  # of so many, only those that begin alike
        beginnings = (source.find(study_id[:end], _COMPARED) for end in range(min(len(study_id), 60), 0, -1))
        near = next((found for found in beginnings if found), [])
    closest = difflib.get_close_matches(study_id[:60], near, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, closest))}?" if closest else ""


def bare_study(study_id: str, view: str = "", split: Split = "test") -> Study:
    """A study of which only its image is known."""
    labels = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    return Study(study_id, study_id, split, view, "", "", labels, (), {})


def age_group(age: str) -> str:
    """Age in two groups, from years as "63", "063Y", "63.0" or months as "011M"; "" where it is none."""
    text = age.strip().upper().removesuffix(".0")
    number, unit = (text[:-1], text[-1]) if text and text[-1] in "YMWD" else (text, "Y")
    if not number.isdecimal():
        return ""
    years = int(number) if unit == "Y" else 0
    return "" if years > _OLDEST else f"under {_HALVES}" if years < _HALVES else f"{_HALVES} and over"


def sex_in_words(sex: str) -> str:
    """Sex as "female" or "male"; "" where it is neither."""
    return {"F": "female", "M": "male"}.get(sex.strip().upper()[:1], "")


def hashed(parts: Sequence[str]) -> str:
    """A fingerprint of texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _rank(study_id: str, wanted: str) -> int:
    folded = study_id.casefold()
    return 0 if folded == wanted else 1 if folded.startswith(wanted) else 2
