"""Padded, resized images of an index, kept beside it: decoded once, then memory-mapped.

For each size `images-SIZE.npy`, uint8 (images of the index, SIZE, SIZE), sparse where an image was never wanted, and
`images-SIZE.read.npy`, int64: how many bytes the file had when it was read, 0 where it was not read yet, and
`images-SIZE.sums.npy`, a checksum of each (`core.rows`): an image that is not what was written is read anew. Files that
cannot be read are listed in `unreadable.jsonl`, with their size too. So an interruption loses nothing, and a file that
is downloaded later, or again, is read then. A cached image equals `read_square`: faster, never different.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.files import write_whole
from core.processes import worker_pool
from core.rows import Seen, Sums, sum_of
from core.studies.images import ImageError, fit_square, read_image
from core.studies.index import ReleaseError, StudyIndex
from core.studies.model_image import grey_levels
from core.types import PAD, Fit

Square = npt.NDArray[np.uint8]
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class ImageCache:
    """One size of cached images.

    Attributes:
        pixels: (images, size, size) uint8, memory-mapped.
        read: (images,) int64, bytes of the file that was read; 0 where none was.
        sums: (images,) uint32, checksums.
    """

    pixels: Square
    read: npt.NDArray[np.int64]
    sums: Sums
    _seen: Seen

    def image(self, row: int, file_bytes: int) -> Square | None:
        """A cached image, (size, size); None where it was not read from a file of so many bytes, or is damaged."""
        if self.read[row] != file_bytes:
            return None
        if row not in self._seen:
            if sum_of(self.pixels[row], row) != int(self.sums[row]):
                return None
            self._seen.add(row)
        return self.pixels[row]


def read_square(path: Path, size: int, name: str, fit: Fit = PAD) -> Square:
    """Read an image and fit it into a square: (size, size), 0 to 255.

    Raises:
        ImageError: it cannot be read.
    """
    return _square(read_image(path, name=name).pixels, size, fit)


def open_image_cache(index: StudyIndex, size: int) -> ImageCache | None:
    """Open the cache of a size, complete or not; None if there is none of this index, or a damaged one."""
    about, paths = _paths(index, size)
    try:
        if json.loads(about.read_text(encoding="utf-8")) != _about(index, size):
            return None
        return _cache([np.load(path, mmap_mode="r") for path in paths], index, size)
    except (OSError, EOFError, ValueError, RecursionError):
        return None


def _cache(arrays: Sequence[npt.NDArray[Any]], index: StudyIndex, size: int) -> ImageCache:
    """Wrap the three arrays.

    Raises:
        ValueError: they are of another shape.
    """
    if [(each.dtype, each.shape) for each in arrays] != _forms(index, size):
        raise ValueError("they are of another shape")
    pixels, read, sums = arrays
    return ImageCache(pixels, read, sums, Seen(len(index.images)))


def _forms(index: StudyIndex, size: int) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
    """Types and shapes of pixels, bytes read, and checksums."""
    count = len(index.images)
    shapes = ((np.uint8, (count, size, size)), (np.int64, (count,)), (np.uint32, (count,)))
    return [(np.dtype(kind), shape) for kind, shape in shapes]


def unreadable_images(index: StudyIndex) -> dict[int, str]:
    """Rows of `index.images` whose files could not be read when a cache was made, and why; sorted."""
    path = _unreadable_path(index)
    if not path.is_file():
        return {}
    now = dict(zip(index.images["image_id"], zip(index.images.index, index.images["bytes"], strict=True), strict=True))
    found: dict[int, str] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            image_id, size, message = json.loads(line)
        except ValueError:
            continue  # the last line of an interrupted run; the image is read again then
        row, bytes_now = now.get(image_id, (-1, -1))
        if bytes_now == size:
            found[int(row)] = message
    return dict(sorted(found.items()))


def write_image_cache(
    index: StudyIndex,
    sizes: Sequence[int],
    images: Sequence[int],
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Read images and keep them in every size; what is there already is not read again.

    Args:
        index: whose images.
        sizes: sides of the squares, pixels.
        images: rows of `index.images`, with a file each.
        processes: that decode.
        progress: called with (done, all) images.

    Returns:
        How many images were read now.

    Raises:
        ReleaseError: the disk has too little space; the release was moved.
    """
    wanted = np.array(sorted(images), dtype=np.int64)
    file_bytes = index.images["bytes"].to_numpy()
    _check_space(index, sizes, len(images))
    caches = [_writable(index, size) for size in sizes]
    done = np.isin(wanted, list(unreadable_images(index)))
    done |= np.all([[each.image(row, file_bytes[row]) is not None for row in wanted] for each in caches], axis=0)
    todo = wanted[~done]
    if progress is not None:
        progress(len(wanted) - len(todo), len(wanted))
    ids, paths = index.images["image_id"], index.images["path"]
    if len(todo):
        index.file(paths[todo[0]])  # a release that was moved must not make all its images unreadable
    work = partial(_read, index.root, tuple(sizes))
    with _mapper(processes) as run, _unreadable_path(index).open("a", encoding="utf-8") as unreadable:
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            good = []
            for image, squares in zip(chunk, run(work, [(ids[row], paths[row]) for row in chunk]), strict=True):
                if isinstance(squares, str):
                    unreadable.write(json.dumps([ids[image], int(file_bytes[image]), squares]) + "\n")
                    continue
                good.append(image)
                for cache, square in zip(caches, squares, strict=True):
                    cache.pixels[image] = square
            unreadable.flush()
            for cache in caches:
                cache.pixels.flush()  # type: ignore[attr-defined]
                cache.sums[good] = [sum_of(cache.pixels[row], row) for row in good]
                cache.sums.flush()  # type: ignore[attr-defined]
                cache.read[good] = file_bytes[good]
                cache.read.flush()  # type: ignore[attr-defined]
            if progress is not None:
                progress(len(wanted) - len(todo) + start + len(chunk), len(wanted))
    return len(todo)


def _square(pixels: npt.NDArray[np.float32], size: int, fit: Fit = PAD) -> Square:
    return grey_levels(fit_square(pixels, size, fit=fit)[0])


def _read(root: Path, sizes: Sequence[int], job: tuple[str, str]) -> list[Square] | str:
    """Decode once for all sizes; return the message where it fails, for an error of a worker must not end the run."""
    image_id, path = job
    try:
        pixels = read_image(root / path, name=image_id).pixels
    except ImageError as error:
        return str(error)
    return [_square(pixels, size) for size in sizes]


@contextmanager
def _mapper(processes: int) -> Iterator[Callable[..., Iterator[list[Square] | str]]]:
    if processes <= 1:
        yield map
        return
    with worker_pool(processes) as pool:
        yield partial(pool.map, chunksize=8)


def _check_space(index: StudyIndex, sizes: Sequence[int], count: int) -> None:
    """Refuse before the disk is full: a memory-mapped file that cannot grow ends the program without a word."""
    needed = count * sum(size**2 for size in sizes)
    there = sum(512 * path.stat().st_blocks for path in index.folder.glob("images-*.npy"))
    free = shutil.disk_usage(index.folder).free
    if needed - there > free:
        raise ReleaseError(
            f"{count:,} images need {(needed - there) / 2**30:.1f} GiB in {index.folder}, where {free / 2**30:.1f} GiB "
            "are free. Make room, choose fewer views or smaller sizes, or leave the cache out with --no-images."
        )


def _paths(index: StudyIndex, size: int) -> tuple[Path, tuple[Path, Path, Path]]:
    """What the cache is of; its pixels, bytes read, and checksums."""
    start = index.folder / f"images-{size}"
    return start.with_suffix(".json"), (
        start.with_suffix(".npy"), start.with_suffix(".read.npy"), start.with_suffix(".sums.npy")
    )  # fmt: skip


def _unreadable_path(index: StudyIndex) -> Path:
    return index.folder / "unreadable.jsonl"


def _about(index: StudyIndex, size: int) -> dict[str, object]:
    return {"images": index.image_order, "size": size}


def _writable(index: StudyIndex, size: int) -> ImageCache:
    about, paths = _paths(index, size)
    if open_image_cache(index, size) is None:
        about.unlink(missing_ok=True)
        for path, (dtype, shape) in zip(paths, _forms(index, size), strict=True):
            np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()  # type: ignore[no-untyped-call]
        write_whole(about, json.dumps(_about(index, size)), private=False)
    return _cache([np.lib.format.open_memmap(path, mode="r+") for path in paths], index, size)  # type: ignore[no-untyped-call]
