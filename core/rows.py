"""Rows of arrays on disk that are known by a checksum each, so that what is read is what was written, or is told.

A checksum (CRC-32, as zip files have it) begins with the row's place: rows, and files of rows, that were exchanged are
noticed too. It finds accidents of disks and memory; against a person there are the hashes of cards and dumps.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Sums = npt.NDArray[np.uint32]


def sum_of(row: npt.NDArray[Any], place: int) -> int:
    """Checksum of a row at a place."""
    return zlib.crc32(np.ascontiguousarray(row).reshape(-1).view(np.uint8).data, place + 1)


def sums_of(rows: npt.NDArray[Any], first: int = 0) -> Sums:
    """Checksums (n,) of rows that stand at the places from ``first`` on."""
    return np.array([sum_of(row, first + index) for index, row in enumerate(rows)], dtype=np.uint32)


def damaged(rows: npt.NDArray[Any], sums: Sums, places: Iterable[int], first: int = 0) -> list[int]:
    """Those of some places whose rows are not what their checksums say.

    Args:
        rows: (n, ...).
        sums: (n,).
        places: in ``rows``.
        first: place of the first row in all of what it is a part of.
    """
    return [place for place in places if sum_of(rows[place], first + place) != int(sums[place])]


BLOCK = 256
"""Rows of a table that have one checksum."""


def sums_of_tables(tables: Mapping[str, npt.NDArray[Any]], told: Mapping[str, str]) -> dict[str, list[int]]:
    """Checksums of each `BLOCK` rows of tables, by name, and under "" of the texts that are told beside them."""
    texts = "\n".join(f"{key} {told[key]}" for key in sorted(told)).encode()
    blocks = {
        key: [sum_of(values[start : start + BLOCK], start) for start in range(0, len(values), BLOCK)]
        for key, values in tables.items()
    }
    return blocks | {"": [sum_of(np.frombuffer(texts, dtype=np.uint8), 0)]}


def compare_tables(
    sums: Mapping[str, list[int]], tables: Mapping[str, npt.NDArray[Any]], told: Mapping[str, str]
) -> None:
    """Compare tables, or whole blocks of rows from their beginnings, with `sums_of_tables` of all of them.

    Raises:
        ValueError: they are not what was written.
    """
    found = sums_of_tables(tables, told)
    if sums.keys() != found.keys():
        raise ValueError("it has not the tables that were written")
    for key, values in found.items():
        if list(sums[key][: len(values)]) != values:
            raise ValueError(f"'{key or 'what it tells of itself'}' is not what was written")


class Seen:
    """Which rows were looked at: processes that fork from this one know it too, so each row is looked at once."""

    def __init__(self, count: int) -> None:
        """Begin with none of ``count``."""
        self._flags = np.frombuffer(mmap.mmap(-1, max(count, 1)), dtype=np.uint8)

    def __contains__(self, place: int) -> bool:
        """Was it looked at?"""
        return bool(self._flags[place])

    def add(self, place: int) -> None:
        """It was."""
        self._flags[place] = 1
