"""Images without texts as a source: files of a folder, named by study, or files in memory that a user gave."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

from core.studies.images import Radiograph, read_image
from core.studies.source import DicomReference, Source, StudyImage, bare_study, hashed
from core.types import CXRLensError, Split, Study

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
_NAMED = 5
_LOOKED_AT = 2000  # ours: files in folders of a folder, to say what to do


class _Images(Source):
    """Studies of which only one image is known; all count as test studies, for nothing learned from them."""

    name = "images"
    has_reports = False
    has_labels = False

    @property
    @abstractmethod
    def _ids(self) -> tuple[str, ...]:
        """All studies."""

    def ids(self, split: Split) -> Sequence[str]:
        """All studies, as test studies."""
        return self._ids if split == "test" else ()

    def study(self, study_id: str) -> Study:
        """A study of which nothing is known but its image; the view is known once it is read, by `original`."""
        if study_id not in self._ids:
            raise self.unknown(study_id)
        return bare_study(study_id)


class FolderSource(_Images):
    """A folder of files: the image of study `P000012-1` is `P000012-1.png`, or with another suffix."""

    def __init__(self, folder: Path) -> None:
        """Open a folder.

        Raises:
            CXRLensError: it is not there, holds no image, or two of one study.
        """
        self.folder = folder
        self.key = f"images:{folder.expanduser().absolute()}"
        self.title = f"Images in {folder.name or folder}"
        if not self._files:
            some = islice(folder.rglob("*"), _LOOKED_AT)
            below = next((path for path in some if path.suffix.lower() in SUFFIXES), None)
            raise CXRLensError(
                f"{folder} holds no image. It should have a file a study, STUDY{SUFFIXES[0]} or .dcm."
                if below is None
                else f"{folder} holds images in its folders only. Index it: cxr-lens data folder {folder} --out INDEX."
            )

    def fingerprint(self) -> str:
        """Hash the files' names and contents."""
        return hashed([f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in self._files.values()])

    def original(self, study_id: str, image_id: str = "") -> Radiograph:
        """A study's image as it is on disk.

        Raises:
            CXRLensError: there is none, it is gone, or it cannot be read.
        """
        path = self._files.get(study_id)
        if path is None or image_id not in ("", study_id):
            raise self.unknown(study_id if path is None else image_id)
        return read_image(path, name=study_id)

    def dicom_reference(self, study_id: str) -> DicomReference | None:
        """As the file has it; see `Source.dicom_reference`."""
        if study_id not in self._files:
            raise self.unknown(study_id)
        from core.studies.images.dicom import dicom_uids  # brings pydicom

        uids = dicom_uids(self._files[study_id], study_id)
        return DicomReference(*uids) if uids else None

    @property
    def _ids(self) -> tuple[str, ...]:
        return tuple(self._files)

    @cached_property
    def _files(self) -> dict[str, Path]:
        try:
            paths = sorted(path for path in self.folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        except OSError as error:
            raise CXRLensError(f"The folder of images {self.folder} cannot be read ({error.strerror}).") from error
        files = {path.stem: path for path in paths}
        twice = [path.stem for path in paths if files[path.stem] != path]
        if twice:
            raise CXRLensError(
                f"{self.folder} has several images of study {', '.join(twice[:_NAMED])}. Keep one file a study."
            )
        return files


class UploadSource(_Images):
    """Images in memory, which a user gave; nothing of them is stored."""

    def __init__(self, images: Mapping[str, Radiograph], title: str = "Uploaded files") -> None:
        """Take images.

        Args:
            images: by the name that the reader sees, unique.
            title: for the reader.
        """
        self._images = dict(images)
        self.title = title
        self.key = f"upload:{self.fingerprint()}"

    def fingerprint(self) -> str:
        """Hash the names and pixels."""
        return hashed([f"{name} {image.sha256}" for name, image in self._images.items()])

    def study(self, study_id: str) -> Study:
        """A study of which its image, and perhaps its view, is known."""
        return bare_study(study_id, self.original(study_id).view)

    def images(self, study_id: str) -> tuple[StudyImage, ...]:
        """The image, and the others whose files say that they are of the same study."""
        study = self.original(study_id).study
        names = [name for name, image in self._images.items() if study and image.study == study] or [study_id]
        return tuple(StudyImage(study_id, name, self._images[name].view, read=name == study_id) for name in names)

    def original(self, study_id: str, image_id: str = "") -> Radiograph:
        """The image as it was read, or another of its study.

        Raises:
            UnknownStudyError: there is none.
        """
        image = self._images.get(study_id)
        if image is None:
            raise self.unknown(study_id)
        if image_id in ("", study_id):
            return image
        other = self._images.get(image_id)
        if other is None or not image.study or other.study != image.study:
            raise self.unknown(image_id)
        return other

    @property
    def _ids(self) -> tuple[str, ...]:
        return tuple(self._images)
