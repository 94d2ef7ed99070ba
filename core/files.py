"""Files that are whole or not there: texts replaced in one step, arrays whose space is taken before they are filled."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core.types import CXRLensError


class DiskError(CXRLensError):
    """A file cannot be written: no space, no right. What was there before stays."""


def write_whole(path: Path, text: str) -> None:
    """Write a text in one piece: a reader sees the old file or the new one. Several processes may write it at once.

    Raises:
        DiskError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # of this writer alone
    try:
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)  # noqa: PTH105 - in one step also where the target exists
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise DiskError(
            f"{path} could not be written: {error.strerror or error}. What was there is unchanged."
        ) from error


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Read a file of JSON lines: (line number, value) of each line that is not blank.

    Only line feeds end a line: a JSON string may hold other characters that Python's `splitlines` takes for line ends
    (U+2028, U+0085). A byte order mark and carriage returns before line feeds are left out.

    Raises:
        CXRLensError: a line is no JSON, or has a number that JSON does not know (NaN), or the file is not UTF-8.
        OSError: the file cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CXRLensError(f"{path} is damaged: it is not UTF-8 ({error.reason} at byte {error.start}).") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line, parse_constant=_no_number)
            except ValueError as error:
                raise CXRLensError(f"{path} is damaged: line {number} is no JSON ({error}).") from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def new_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Create an array on disk, memory-mapped, with all its space taken.

    Without that, a disk that fills up while a mapped file is written ends the process by a signal, with no message.

    Raises:
        DiskError: there is not enough space; no file is left.
    """
    needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        values = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            elif shutil.disk_usage(path.parent).free < needed:
                raise OSError(28, "No space left on device")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise DiskError(
            f"{path} needs {needed / 2**20:,.0f} MB: {error.strerror or error}. Free some space, and run again."
        ) from error
    return values
