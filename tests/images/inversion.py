"""How often real radiographs and their negatives are called inverted: ``python -m tests.images.inversion``."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from core.studies.images.inversion import looks_inverted

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def pictures() -> Iterator[tuple[str, Path]]:
    """Group and path of each image of the development sets that is here."""
    openi = SHARED / "openi"
    with (openi / "indiana_projections.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            path = openi / "images" / "images_normalized" / f"{Path(row['filename']).stem}.jpg"
            if path.exists():
                yield f"Open-i, {row['projection'].lower()}", path
    for path in sorted((SHARED / "nih" / "images").glob("*.jpg")):
        yield "NIH, frontal", path


def main() -> None:
    """Print the shares."""
    counts: dict[str, list[int]] = {}
    for group, path in pictures():
        pixels = np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 255
        tried = counts.setdefault(group, [0, 0, 0, 0])
        turned = looks_inverted(np.ascontiguousarray(pixels[::-1]))
        for place, value in enumerate((1, looks_inverted(pixels), looks_inverted(1 - pixels), turned)):
            tried[place] += int(value)
    lines = [
        "| | images | called inverted | negatives called so | upside down called so |",
        "|---|---:|---:|---:|---:|",
    ]
    for group, (images, *found) in counts.items():
        shares = " | ".join(f"{share:,} ({share / images:.2%})" for share in found)
        lines.append(f"| {group} | {images:,} | {shares} |")
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
