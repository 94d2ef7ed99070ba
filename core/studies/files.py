"""Image files below a folder, and which of them a table means."""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath

SUFFIXES = (".dcm", ".png", ".jpg", ".jpeg")
"""Of files that a release has, in the order of choice where one image is there twice."""

_SUFFIX = re.compile(r"(\.(dcm|dicom|png|jpe?g))+$", re.IGNORECASE)
_PARTS = 3  # ours: of a path, that tell an image from others
_SEPARATOR = re.compile(r"[^A-Za-z0-9]+")
_COMPARED = 2000  # ours: names that are compared letter by letter


def image_files(root: Path, suffixes: Iterable[str] | None = SUFFIXES) -> Iterable[tuple[Path, int]]:
    """All files below a folder with their sizes, links followed, each folder once.

    Args:
        root: of the tree.
        suffixes: lower case, of the files that count; None for all.
    """
    wanted = None if suffixes is None else tuple(suffixes)
    visited: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        about = Path(folder).stat()
        if (about.st_dev, about.st_ino) in visited:
            folders.clear()
            continue
        visited.add((about.st_dev, about.st_ino))
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if (wanted is None or path.suffix.lower() in wanted) and path.is_file():  # a broken link is no file
                yield path, path.stat().st_size


def without_suffix(name: str) -> str:
    """A name without the endings of image files, ".dcm.png" too."""
    return _SUFFIX.sub("", name)


class ImageTree:
    """The image files of a folder, found by what a table writes of them."""

    def __init__(self, root: Path) -> None:
        """Walk a folder.

        Args:
            root: of the files.
        """
        self.sizes: dict[str, int] = {}
        """Path below the root -> bytes."""
        self._by_path: dict[str, str] = {}
        for path, size in image_files(root):
            where = path.relative_to(root).as_posix()
            self.sizes[where] = size
            key = without_suffix(where)
            there = self._by_path.get(key)
            if there is None or _choice(where) < _choice(there):
                self._by_path[key] = where

    def find(self, written: str) -> list[str]:
        """Files that a path or a name in a table means, whatever stands before it and whatever its ending is.

        Returns:
            none; one; or several, of which nothing tells the right one.
        """
        parts = [part for part in PurePosixPath(written.replace("\\", "/")).parts if part not in ("/", ".", "..")]
        if not parts:
            return []
        key = without_suffix("/".join(parts))
        if key in self._by_path:
            return [self._by_path[key]]
        for count in range(min(len(parts), _PARTS), 0, -1):
            candidates = self._ends(count).get("/".join(key.split("/")[-count:]), [])
            # The table may leave out folders, or name some above the root.
            found = [each for each in candidates if each.endswith("/" + key) or key.endswith("/" + each)]
            if found:
                return [self._by_path[each] for each in found]
        return []

    def of_study(self, ids: Iterable[str]) -> dict[str, list[str]]:
        """Files by study, where only the studies' ids are known: `ID.png`, `ID_2.png`, `ID-lateral.png`, `ID/any.png`.

        A file belongs to the longest id that it fits, so that `12_1.png` is of study `12_1` if there is one.
        """
        known = set(ids)
        found: dict[str, list[str]] = defaultdict(list)
        for key, path in self._by_path.items():
            *folders, stem = key.split("/")
            ends = [match.start() for match in _SEPARATOR.finditer(stem)][::-1]
            names = [stem, *(stem[:end] for end in ends), *folders[::-1]]
            owner = next((name for name in names if name in known), None)
            if owner is not None:
                found[owner].append(path)
        return found

    def look_like(self, written: str, most: int = 3) -> list[str]:
        """Names of files that look like one that there is not."""
        stem = without_suffix(written.replace("\\", "/").rsplit("/", 1)[-1])
        names = self._names
        if len(names) > _COMPARED:
            beginnings = ([name for name in names if name.startswith(stem[:end])] for end in range(len(stem), 0, -1))
            names = next((some for some in beginnings if some), [])[:_COMPARED]
        return difflib.get_close_matches(stem, names, n=most, cutoff=0.5)

    def some(self, most: int = 3) -> list[str]:
        """Names of the first files."""
        return [path.rsplit("/", 1)[-1] for path in list(self.sizes)[:most]]

    @cached_property
    def _names(self) -> list[str]:
        return sorted({key.rsplit("/", 1)[-1] for key in self._by_path})

    def _ends(self, count: int) -> dict[str, list[str]]:
        if count not in self._by_end:
            found: dict[str, list[str]] = defaultdict(list)
            for key in self._by_path:
                found["/".join(key.split("/")[-count:])].append(key)
            self._by_end[count] = found
        return self._by_end[count]

    @cached_property
    def _by_end(self) -> dict[int, dict[str, list[str]]]:
        return {}


def _choice(path: str) -> int:
    return SUFFIXES.index(PurePosixPath(path).suffix.lower())
