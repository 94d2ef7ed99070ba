"""A folder of image files named by study, as a source of images: without texts, labels or splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from core.studies.images import Radiograph, read_image
from core.studies.model_image import model_image
from core.types import CXRLensError, FloatImage, Split, Study

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
_NAMED = 5


class FolderSource:
    """A `StudySource` over a folder: the image of study `P000012-1` is `P000012-1.png`, or with another suffix."""

    name = "images"

    def __init__(self, folder: Path) -> None:
        """Open a folder.

        Raises:
            CXRLensError: it is not there, holds no image, or two of one study.
        """
        self.folder = folder
        if not self._files:
            raise CXRLensError(f"{folder} holds no image. It should have a file a study, STUDY{SUFFIXES[0]} or .dcm.")

    def fingerprint(self) -> str:
        """Hash the files' names and contents."""
        parts = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in self._files.values()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def studies(self, split: Split) -> Sequence[Study]:
        """None: nothing is known of the studies but their images."""
        return ()

    def image(self, study_id: str, size: int) -> FloatImage:
        """A study's image, (size, size), values in [0, 1] in steps of 1/255.

        Raises:
            CXRLensError: there is none, or it cannot be read.
        """
        return model_image(self.original(study_id).pixels, size)[0]

    def original(self, study_id: str) -> Radiograph:
        """A study's image as it is on disk.

        Raises:
            CXRLensError: there is none, or it cannot be read.
        """
        path = self._files.get(study_id)
        if path is None:
            raise CXRLensError(f"no image of study {study_id!r} in {self.folder}")
        return read_image(path, name=study_id)

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
