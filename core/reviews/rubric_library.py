"""Which rubrics there are: those that come with the code, a user's own, and the one that a session keeps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.paths import own_data
from core.reviews.questions import ReviewError, Rubric
from core.reviews.rubric_reader import RubricError, read_rubric

SHIPPED = Path(__file__).parent / "rubric_files"
OWN = "CXR_RUBRICS"
"""Environment variable: the folder of a user's own rubrics; else ``rubrics`` in the data folder."""


@lru_cache(maxsize=256)
def _read(text: str, where: str, shipped: bool) -> Rubric:
    return read_rubric(text, where, shipped=shipped)


def read_file(path: Path) -> Rubric:
    """Read a user's own file.

    Raises:
        RubricError: it cannot be read, or what is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RubricError(str(path), [f"The file cannot be read ({error})."]) from error
    rubric = _read(text, str(path), False)
    if rubric.name in shipped_rubrics():
        raise RubricError(str(path), [f"The name '{rubric.name}' is that of a rubric of CXR Lens; choose another."])
    return rubric


@lru_cache(maxsize=1)
def shipped_rubrics() -> Mapping[str, Rubric]:
    """The rubrics that come with the code, by name: the four that were there first, then the others by name."""
    found = {
        path.stem: _read(path.read_text(encoding="utf-8"), path.name, True) for path in sorted(SHIPPED.glob("*.toml"))
    }
    first = ("report-quality", "preference", "explanation-helpfulness", "observation-labels")
    return {name: found[name] for name in (*first, *(name for name in found if name not in first))}


def own_folder() -> Path:
    """Where a user's own rubrics are."""
    return Path(os.environ.get(OWN) or own_data() / "rubrics")


def own_rubrics() -> tuple[dict[str, Rubric], list[str]]:
    """A user's own rubrics by name, and what is wrong with files that are none."""
    found: dict[str, Rubric] = {}
    wrong = []
    for path in sorted(own_folder().glob("*.toml")):
        try:
            rubric = read_file(path)
        except RubricError as error:
            wrong.append(str(error))
            continue
        if rubric.name in found:
            wrong.append(f"{path}: another file has the name '{rubric.name}' already; choose another.")
        else:
            found[rubric.name] = rubric
    return found, wrong


def find_rubric(name: str) -> Rubric:
    """A rubric by its name: one that comes with the code, or a user's own.

    Raises:
        ReviewError: there is none, or its file is wrong.
    """
    if name in shipped_rubrics():
        return shipped_rubrics()[name]
    own, wrong = own_rubrics()
    if name in own:
        return own[name]
    known = (*shipped_rubrics(), *own)
    broken = f" Files that are none: {' '.join(wrong)}" if wrong else ""
    raise ReviewError(
        f"There is no rubric '{name}'; there are {', '.join(known)}. Own ones are files in {own_folder()}.{broken}"
    )


def kept_rubric(name: str, text: str) -> Rubric:
    """The rubric that a session was made with: ``text`` is its file as it was then, "" in sessions from before.

    Raises:
        RubricError: the text is none.
    """
    if not text:
        return find_rubric(name)
    try:
        return _read(text, f"The rubric {name}", name in shipped_rubrics())
    except RubricError as error:
        raise RubricError(f"The rubric {name} that is kept with the session", error.faults) from error


def rubric_of(design: Mapping[str, Any]) -> Rubric:
    """The rubric of a session, from its design as it is stored."""
    return kept_rubric(design["rubric"], design.get("rubric_text", ""))
