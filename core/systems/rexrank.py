"""ReXrank's exchange of images and reports: one JSON of cases in, one with a ``model_prediction`` a case out.

The leaderboard runs every model as ``python inference.py INPUT.json OUTPUT.json IMAGES`` (its submission guideline,
rajpurkarlab/ReXrank, example_files/submission_tutorial.md): a case has ``image_path``, a list of paths below the folder
of images, ``key_image_path``, the one for models that read a single image, and ``context``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.files import write_whole
from core.types import CXRLensError, Study

PREDICTION = "model_prediction"


@dataclass(frozen=True, slots=True)
class CaseFile:
    """Cases that somebody wants reports of.

    Attributes:
        content: of the file, by case.
        images: case -> the image that models read; None where the case names none.
    """

    content: Mapping[str, Mapping[str, Any]]
    images: Mapping[str, Path | None]


def case_of(study: Study, image: str) -> dict[str, Any]:
    """A case for a program: its image, and what a radiologist knows before reading; never the reference."""
    told = {name: study.context.get(key, "") for name, key in _CONTEXT.items()}
    context = ". ".join(f"{name}: {text.rstrip('.')}" for name, text in told.items() if text)
    return {"image_path": [image], "key_image_path": image, "context": context and f"{context}."}


_CONTEXT = {"Age": "age", "Gender": "sex", "Indication": "indication", "Comparison": "comparison"}


def read_cases(path: Path, folder: Path) -> CaseFile:
    """Read the cases of a leaderboard's file.

    Args:
        path: INPUT.json.
        folder: below which the images are.

    Raises:
        CXRLensError: it is not there, no JSON, or holds no cases.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CXRLensError(f"{path} cannot be read as JSON ({error}).") from error
    if isinstance(content, list):
        content = {str(each.get("id", number)): each for number, each in enumerate(content) if isinstance(each, dict)}
    if not isinstance(content, dict) or not content or not all(isinstance(each, dict) for each in content.values()):
        raise CXRLensError(f'{path} holds no cases: it should be {{"CASE": {{"image_path": ["FILE"]}}}}.')
    return CaseFile(content, {name: _image(case, folder) for name, case in content.items()})


def write_predictions(path: Path, cases: CaseFile, texts: Mapping[str, str]) -> None:
    """Write the cases with their reports, as the leaderboard reads them; "" where there is none."""
    content = {name: {**case, PREDICTION: texts.get(name, "")} for name, case in cases.content.items()}
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False))


def _image(case: Mapping[str, Any], folder: Path) -> Path | None:
    """The image for models that read one: that which the case names so, or its first."""
    named = case.get("key_image_path") or case.get("image_path")
    first = named[0] if isinstance(named, list) and named else named
    if not isinstance(first, str) or not first.strip():
        return None
    return folder / first.strip().lstrip("/\\")
