"""Read the DICOM files that pydicom brings with `read_image` and with pydicom: ``python -m tests.images.peers``.

They are of all modalities, and some are tiny; what is asked is whether their pixels are read, so each counts as a
radiograph of a sufficient size here.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pydicom
from pydicom.data import get_palette_files, get_testdata_files
from pydicom.pixels import apply_modality_lut

from core.studies.images import ImageError, dicom, radiograph, read_image

FAR = 0.99
"""Correlation of ranks' stand-in: shown values against pydicom's stored ones, both ways round."""


class Everything:
    """Holds every modality."""

    def __contains__(self, modality: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())


def by_pydicom(path: Path) -> np.ndarray | None:
    """First frame as gray values (H, W), None where pydicom does not read it."""
    try:
        dataset = pydicom.dcmread(path, force=True)
        pixels = np.asarray(dataset.pixel_array)
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            pixels = pixels[0]
        if pixels.ndim == 2:
            return np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float64)
        return pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    except Exception:
        return None


def agree(shown: np.ndarray, values: np.ndarray) -> bool:
    """Whether one is a monotonic function of the other: equal values are shown equal, in the same or reversed order."""
    if shown.shape != values.shape:
        return False
    order = np.argsort(values, axis=None, kind="stable")
    steps = np.diff(shown.ravel()[order])
    return bool((steps > -0.02).mean() > FAR or (steps < 0.02).mean() > FAR)


def compare() -> list[tuple[str, str, str]]:
    """Of each file: name, outcome, and the message or notes."""
    found = []
    for path in sorted(
        {Path(name) for name in get_testdata_files() if Path(name).is_file()} - set(get_palette_files())
    ):
        values = by_pydicom(path)
        try:
            with patch.object(dicom, "_RADIOGRAPHY", Everything()), patch.object(radiograph, "MIN_SIDE", 1):
                read = read_image(path)
        except ImageError as error:
            found.append((path.name, "refused by both" if values is None else "refused by us", str(error)))
            continue
        notes = " ".join(read.warnings)
        if values is None:
            found.append((path.name, "read by us only", notes))
        else:
            found.append((path.name, "both read it" if agree(read.pixels, values) else "read differently", notes))
    return found


def main() -> None:
    """Print the comparison."""
    warnings.simplefilter("ignore")
    found = compare()
    for name, outcome, about in found:
        if outcome not in ("both read it", "refused by both"):
            print(f"{outcome:18} {name}: {about[:200]}")  # noqa: T201
    print(dict(Counter(outcome for _, outcome, _ in found)))  # noqa: T201


if __name__ == "__main__":
    main()
