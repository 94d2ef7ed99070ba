"""CSV tables of public releases, plain or gzipped, read row by row and by the names of their columns."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from core.types import CXRLensError

_LONGEST_FIELD = 2**26  # ours: characters; a report of 1 MB must reach the check that counts it
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of bytes that are not UTF-8


class TableError(CXRLensError):
    """A table that cannot be trusted: missing, cut off, or without a column that is needed."""


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Read some columns of a CSV or CSV.GZ file, a row at a time.

    Args:
        columns: names in the header, in any order.

    Yields:
        The row's values in the order of `columns`, stripped. Where a value's bytes are not UTF-8, `is_broken` is true.

    Raises:
        TableError: no such file, no such column, or a row with another number of fields than the header: the file was
            cut off or damaged, and what follows cannot be trusted.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    line = 1
    try:
        with open_table(path) as file:
            reader = csv.reader(file, strict=True)  # a quote that is never closed would swallow rows
            header = [name.strip() for name in next(reader, [])]
            indices = _indices(path, header, columns)
            for row in reader:
                line = reader.line_num
                if len(row) != len(header):
                    if not row:
                        continue
                    raise TableError(
                        f"{path}, line {line}: {len(row)} fields where the header has {len(header)}. "
                        "The file is damaged or was cut off; get it again."
                    )
                yield tuple(row[index].strip() for index in indices)
    except OSError as error:  # gzip's BadGzipFile is one
        raise TableError(f"{path} cannot be read: {error.strerror or error}. Get it again.") from error
    except (EOFError, zlib.error, csv.Error) as error:
        raise TableError(f"{path}, after line {line}: {error}. The file was cut off; get it again.") from error


def is_broken(text: str) -> bool:
    """Whether a value had bytes that are not UTF-8."""
    return not text.isascii() and _NOT_UTF8.search(text) is not None


def plain_id(value: str) -> str:
    """An id as its release writes it: of a number that a spreadsheet or pandas made "50414267.0", "50414267"."""
    return value.removesuffix(".0") if value[:-2].isdecimal() else value


def says_nothing(cell: str) -> bool:
    """Whether a cell holds at most a mark that there is no text: "", "N/A", "None.", "nan", "-", "___", "<unknown>"."""
    return all(word.lower() in _NO_TEXT or _REMOVED.fullmatch(word) for word in _WORD.findall(cell))


_WORD = re.compile(r"[^\W_]+")
_REMOVED = re.compile("[xX]{2,}")  # stands for words that were removed
_NO_TEXT = frozenset(
    ("nan", "none", "null", "nil", "na", "n", "a", "unknown", "unk", "pad", "start", "end", "blank", "empty")
)


def open_table(path: Path) -> TextIO:
    """Open a text file, gzipped or not, whatever its name says; a byte order mark is left out."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    opener: Callable[..., TextIO] = gzip.open if zipped else open
    return opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")


def _indices(path: Path, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    missing = [name for name in columns if name not in header]
    if missing:
        shown = ", ".join(name[:40] for name in header[:20]) or "nothing"
        raise TableError(
            f"{path} has no column {', '.join(missing)}. Its header has: {shown}. "
            "It must be a comma-separated file in UTF-8, as released."
        )
    return [header.index(name) for name in columns]
