"""Cases that were written elsewhere, read from a file: JSON lines, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.files import read_json_lines
from core.observations import OBSERVATIONS, LabelState
from core.reviews.design import Case
from core.reviews.rubrics import ReviewError
from core.types import CXRLensError

_KNOWN = {"study_id", "reports", "image_sha256", "bundles", "labels", "context"}


def read_cases(path: Path) -> list[Case]:
    """Read studies with their reports.

    A case is an object with ``study_id`` and ``reports``, text by model, and as far as known ``image_sha256``,
    ``bundles``, ``labels`` and ``context``; or, as `cxr-lens evaluate --out` writes it, ``study_id`` and a key a model,
    with ``image_sha256`` or without. A file is JSON lines, a case each; a JSON list of cases; or, where its name ends
    in .csv, a table with the columns ``study_id`` and one a model.

    Raises:
        ReviewError: it cannot be read, has no case, or a case that is none; the message says which.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ReviewError(f"{path} cannot be read ({error}).") from error
    read = _csv if path.suffix.lower() == ".csv" else _json if text.lstrip().startswith("[") else _json_lines
    found = []
    for where, values in read(path, text):
        try:
            found.append(_case(values))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ReviewError(f"{path}, {where}: {what}.") from error
    if not found:
        raise ReviewError(f"{path} has no case: study_id, and the report of each model.")
    return found


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    try:
        for number, value in read_json_lines(path):
            yield f"line {number}", value
    except CXRLensError as error:
        raise ReviewError(str(error)) from error


def _json(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ReviewError(f"{path}: not JSON ({error}).") from error
    for number, value in enumerate(values, 1):
        yield f"case {number}", value


def _csv(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        names = list(table.fieldnames or [])
        if "study_id" not in names or len(names) < 2 or len(set(names)) != len(names) or not all(names):
            raise ReviewError(f"{path}: the columns should be study_id and one a model, each once; they are {names}.")
        for row in table:
            if None in row or None in row.values():
                raise ReviewError(f"{path}, line {table.line_num}: not {len(names)} cells.")
            yield f"line {table.line_num}", {name: cell for name, cell in row.items() if cell.strip()}
    except csv.Error as error:
        raise ReviewError(f"{path} cannot be read as CSV ({error}).") from error


def _case(values: Any) -> Case:
    if not isinstance(values, dict):
        raise ValueError("a case is an object with study_id and reports")
    values = dict(values)
    if "reports" not in values:  # all other keys are models
        known = {name: values.pop(name) for name in ("study_id", "image_sha256") if name in values}
        values = {**known, "reports": values}
    if foreign := set(values) - _KNOWN:
        raise ValueError(f"foreign keys {sorted(foreign)}; a case has {sorted(_KNOWN)}")
    reports, bundles, context = (values.get(name, {}) for name in ("reports", "bundles", "context"))
    if not all(isinstance(text, str) for each in (reports, bundles, context) for text in each.values()):
        raise ValueError("reports, bundles and context hold texts by name")
    labels = {name: LabelState(state) for name, state in values.get("labels", {}).items()}
    if wrong := set(labels) - set(OBSERVATIONS):
        raise ValueError(f"no observations: {sorted(wrong)}")
    return Case(str(values["study_id"]), str(values.get("image_sha256", "")), reports, bundles, labels, context)
