"""Files and folders that are whole or not there, and arrays whose space is taken before they are filled."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from core.types import CXRLensError

_FORGOTTEN = 3600
"""Seconds after which a file that a writer has not touched is what a killed process left."""


class DiskError(CXRLensError):
    """A file cannot be written: no space, no right. What was there before stays."""


@contextmanager
def whole_file(path: Path, *, replace: bool = True, private: bool = True, synced: bool = True) -> Iterator[Path]:
    """Write a file in one piece: a reader sees the old file or the new one, also after a power cut.

    Several processes may write it at once; the last one to finish stays.

    Args:
        path: of the file; its folder exists.
        replace: False leaves a file that is there meanwhile as it is.
        private: only the owner may read it; False for what is made to be given away, or read by a server of another
            user: bundles, tables of results, indexes.
        synced: False does not wait for the disk: for many small files that can be made again.

    Yields:
        An empty file of this writer alone, beside `path`. It gets its name when the block ends, and goes if it fails.

    Raises:
        DiskError: it cannot be written.
        FileExistsError: it is there, and is not to be replaced.
    """
    fresh = _beside(path)
    try:
        with _disk_errors(path, fresh):
            fresh.touch(mode=0o600 if private else 0o666, exist_ok=False)
            yield fresh
            if private:
                fresh.chmod(0o600)  # a library may have put another in its place
            if synced:
                to_disk(fresh)
            if replace:
                os.replace(fresh, path)  # noqa: PTH105 - in one step also where the target exists
        if not replace:
            _give_name(fresh, path)
        if synced:
            _folder_to_disk(path.parent)
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, private: bool = True) -> Iterator[Path]:
    """Write a folder in one piece; an older one of that name is replaced when the new one is whole.

    Args:
        path: of the folder; the folder that it stands in exists.
        private: only the owner may read it and what is in it, as of `whole_file`.

    Yields:
        An empty folder of this writer alone, beside `path`. It gets its name when the block ends, and goes if it fails.

    Raises:
        DiskError: it cannot be written.
    """
    fresh, before = _beside(path), _beside(path)
    try:
        with _disk_errors(path, fresh):
            fresh.mkdir(mode=0o700 if private else 0o777)
            yield fresh
            for each in sorted(fresh.rglob("*")):
                if private and not each.is_symlink():
                    each.chmod(0o700 if each.is_dir() else 0o600)
                if each.is_file():
                    to_disk(each)
            if path.exists() and _exchanged(fresh, path):
                _folder_to_disk(path.parent)
                return
            if path.exists():
                path.rename(before)
            try:
                fresh.rename(path)
            except OSError:
                if before.exists():
                    before.rename(path)
                raise
        _folder_to_disk(path.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def own_folder(path: Path) -> Path:
    """Make a folder of the user's own, and those above it that are missing, for the user alone.

    Raises:
        OSError: it cannot be made.
    """
    for folder in reversed((path, *path.parents)):
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
    return path


def write_whole(path: Path, content: str | bytes, *, private: bool = True, synced: bool = True) -> None:
    """Write a text (as UTF-8) or bytes in one piece, as `whole_file` does.

    Raises:
        DiskError: it cannot be written.
    """
    with whole_file(path, private=private, synced=synced) as fresh:
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)


def is_unfinished(path: Path) -> bool:
    """Whether a file or folder is what a writer is at, or left half-written when it was killed: it is nobody's."""
    return path.name.startswith(".") or path.name.endswith(".part")


def discard(path: Path) -> None:
    """Remove what has the name of a file and is to be made anew, also a folder that stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_forgotten(folder: Path, name: str = "*") -> None:
    """Remove what killed writers of a name, or of any, left in a folder an hour ago or earlier."""
    for path in folder.glob(f".{name}.*.part"):
        with suppress(OSError):  # another process removes it too
            if time.time() - path.stat().st_mtime > _FORGOTTEN:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _beside(path: Path) -> Path:
    """A name of this writer alone; its ending keeps it out of searches for files of a kind."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}.part")


@contextmanager
def _disk_errors(path: Path, fresh: Path) -> Iterator[None]:
    """Tell of a write that failed, whichever library wrote; an error that names another file goes on as it is."""
    try:
        yield
    except Exception as error:
        safetensors = sys.modules.get("safetensors")  # it tells of a full disk by an error of its own
        if not isinstance(error, (OSError, safetensors.SafetensorError) if safetensors else OSError):
            raise
        named = getattr(error, "filename", None)
        if named is not None and not str(named).startswith((str(path), str(fresh))):
            raise
        why = getattr(error, "strerror", None) or error
        raise DiskError(f"{path} could not be written: {why}. What was there is unchanged.") from error


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change names in one step, so that a process that is killed leaves both; False where none can."""
    exchange = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, both = -100, 2  # src: AT_FDCWD and RENAME_EXCHANGE of Linux
    return exchange is not None and exchange(here, os.fsencode(one), here, os.fsencode(other), both) == 0


def _give_name(fresh: Path, path: Path) -> None:
    """Name a file unless the name is taken."""
    try:
        os.link(fresh, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, as of many sticks
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists.") from None
        with _disk_errors(path, fresh):
            fresh.rename(path)


def to_disk(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    """Make sure of a name that was given; systems that cannot open a folder see to it themselves."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def open_plain(path: Path) -> BufferedReader:
    """Open a file to read it, only if it is one: a pipe would wait for ever, a device never end.

    Raises:
        OSError: it is not there, is something else, or cannot be read.
    """
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    kind = os.fstat(opened).st_mode
    if not stat.S_ISREG(kind):
        os.close(opened)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "It is no file, but a pipe or a device", str(path))
    return os.fdopen(opened, "rb")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: as of `open_plain`.
    """
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(values: Any, digits: int = 64) -> str:
    """SHA-256 of plain values of JSON, in hexadecimal digits, or the first of them.

    Equal values have equal hashes, in whatever order dictionaries have their keys. What was kept under such a hash is
    found again by it: never change how it is made.
    """
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:digits]


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Read a file of JSON lines: (line number, value) of each line that is not blank.

    Only line feeds end a line: a JSON string may hold other characters that Python's `splitlines` takes for line ends
    (U+2028, U+0085). A byte order mark and carriage returns before line feeds are left out.

    Raises:
        CXRLensError: a line is no JSON, or has a number that JSON does not know (NaN), or the file is not UTF-8.
        OSError: the file cannot be read.
    """
    try:
        with open_plain(path) as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CXRLensError(f"{path} is damaged: it is not UTF-8 ({error.reason} at byte {error.start}).") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line, parse_constant=_no_number)
            except (ValueError, RecursionError) as error:
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
