"""Rows of a table, CSV, JSON, JSON lines or Parquet, by the columns that count."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core.files import read_json_lines
from core.studies.columns import Columns
from core.tables import TableError, open_table, plain_id, read_rows
from core.types import CXRLensError

_EMPTY = frozenset(("nan", "none", "null", "n/a", "<na>"))
_KINDS = (".csv", ".csv.gz", ".jsonl", ".json", ".parquet")


def read_records(path: Path, columns: Columns) -> tuple[Columns, Iterator[dict[str, Any]]]:
    """Read the columns of a table that count.

    Returns:
        which column is what in this table; and its rows, by column.

    Raises:
        TableError: it is of another kind, damaged, or has no such column; of CSV also while rows are read.
    """
    kind = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if kind not in _KINDS:
        raise TableError(f"{path}: a table is {', '.join(_KINDS[:-1])} or {_KINDS[-1]}.")
    more = _read_more(path.parent, columns)
    if kind in (".csv", ".csv.gz"):
        names = csv_header(path)
        chosen = columns.chosen(path, [*names, *more[0]])
        wanted = [name for name in dict.fromkeys((*chosen.columns(), columns.key)) if name in names]
        rows: Iterable[dict[str, Any]] = (dict(zip(wanted, row, strict=True)) for row in read_rows(path, wanted))
    elif kind == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            names = list(pq.read_schema(path).names)
            chosen = columns.chosen(path, [*names, *more[0]])
            wanted = [name for name in dict.fromkeys((*chosen.columns(), columns.key)) if name in names]
            rows = pq.read_table(path, columns=wanted, use_threads=False).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise TableError(f"{path} is not a Parquet file, or was cut off. Get it again.") from error
    else:
        rows = _json_rows(path)
        chosen = columns.chosen(path, [*dict.fromkeys(name for row in rows for name in row), *more[0]])
    return chosen, (_joined(row, more[1], columns.key) for row in rows)


def _joined(row: dict[str, Any], more: Mapping[str, Mapping[str, str]], key: str) -> dict[str, Any]:
    return {**more.get(plain_text(row.get(key)), {}), **row} if more else row


def csv_header(path: Path) -> list[str]:
    """Names of the columns of a CSV or CSV.GZ file.

    Raises:
        TableError: it cannot be read, is in UTF-16, or has other signs than commas between its columns.
    """
    try:
        with open_table(path) as file:
            if "\0" in file.read(64):
                raise TableError(f"{path} is in UTF-16, or no text at all. Save it as CSV in UTF-8.")
            file.seek(0)
            names = [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, EOFError, csv.Error) as error:
        raise TableError(f"{path} cannot be read: {error}. Get it again.") from error
    for sign, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and sign in names[0]:
            raise TableError(f"{path} has {word} between its columns. Save it with commas.")
    return names


def _json_rows(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix.lower() == ".jsonl":
            rows: Any = [row for _, row in read_json_lines(path)]
        else:
            rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except CXRLensError as error:
        raise TableError(str(error)) from error
    except (OSError, ValueError) as error:
        raise TableError(f"{path} is damaged: it is no JSON in UTF-8. Get it again.") from error
    rows = list(rows.values()) if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TableError(f"{path} should be a list of objects, one a study or one an image.")
    return rows


def _read_more(folder: Path, columns: Columns) -> tuple[list[str], dict[str, dict[str, str]]]:
    """A second table: its columns, and its first row of each key."""
    path = folder / columns.more
    if not columns.more or not path.is_file():
        return [], {}
    names = csv_header(path)
    wanted = [name for name in dict.fromkeys((columns.key, *columns.columns())) if name in names]
    found: dict[str, dict[str, str]] = {}
    for row in read_rows(path, [columns.key, *wanted]):
        found.setdefault(plain_id(row[0]), dict(zip(wanted, row[1:], strict=True)))
    return names, found


def cell_of(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or of each of a list: "findings[].labels"."""
    outer, nested, rest = column.partition("[].")
    cell = row.get(outer)
    if not nested:
        return cell.tolist() if cell is not None and hasattr(cell, "tolist") else cell
    found: list[Any] = []
    for part in cell or ():
        each = part.get(rest) if isinstance(part, Mapping) else None
        found += each if isinstance(each, list) else [] if each is None else [each]
    return found


def plain_text(cell: Any) -> str:
    """A cell on one line; "" where it says nothing."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, list):
        return " ".join(filter(None, map(plain_text, cell)))
    words = " ".join(str(cell).split())
    return "" if words.lower() in _EMPTY else words
