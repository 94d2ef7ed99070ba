"""Tokens of a frozen encoder, computed once a study: shards on disk, memory-mapped, written side by side.

A folder of ``<key>-00000.npy`` and on, up to 256 studies each: rows of a study's checksum (`core.rows`) and its tokens,
(N, D) float16. ``about.json`` comes last. A shard gets its name when it is whole, so what a power cut or a full disk
leaves is never taken for one. A row is compared with its checksum when it is read first.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from core.contents import Content, Text, check, read_json
from core.encoders import Encoder
from core.files import DiskError, discard, open_plain, remove_forgotten, whole_file, write_whole
from core.rows import Seen, damaged, sum_of, sums_of
from core.types import CXRLensError, VisualTokens

Progress = Callable[[int, int], None]
SHARD = 256
"""Studies a shard: 38 MB of FVE at paper size, and what an interruption loses at most."""
BATCH = 64
"""Studies that are encoded at once."""


class TokenCache:
    """A finished cache; read through :meth:`open`."""

    def __init__(
        self,
        shards: Sequence[npt.NDArray[np.void]],
        paths: Sequence[Path],
        grids: tuple[tuple[int, int], ...],
        sources: tuple[str, ...],
    ) -> None:
        """Wrap what was read: shards of `SHARD` studies, the last of the rest, and where they lie."""
        self._sums = [shard["sum"] for shard in shards]
        self.shards: Sequence[npt.NDArray[np.float16]] = [shard["tokens"] for shard in shards]
        self._paths = paths
        self._seen = Seen(sum(map(len, shards)))
        self.grids = grids
        self.sources = sources

    def __len__(self) -> int:
        """Count studies."""
        return sum(map(len, self.shards))

    @classmethod
    def open(cls, folder: Path, key: str) -> TokenCache:
        """Map a finished cache.

        Raises:
            CXRLensError: it is unfinished, or made from other inputs than ``key`` names, or by an older version.
        """
        about = folder / "about.json"
        if not about.is_file():
            raise CXRLensError(f"{folder} holds no finished token cache.")
        try:
            content = read_json(about)
            other = content["key"] != key
            if other or content.get("version") != VERSION:
                what = "from other weights or studies" if other else "by an older version"
                raise CXRLensError(f"{folder} was made {what}. Delete {folder.parent}, and run again.")
            check(content, About)
            paths = _shards(folder, key, content["studies"])
            shards = [_open_shard(path) for path in paths]
            if [len(each) for each in shards] != _counts(content["studies"]):
                raise ValueError("its shards have not as many studies as they should")
            if len({each.dtype for each in shards}) > 1:
                raise ValueError("its shards are not alike")
        except (OSError, EOFError, ValueError, LookupError, TypeError) as error:
            raise CXRLensError(f"{folder} is damaged ({error}). {_AGAIN}") from error
        return cls(shards, paths, tuple((h, w) for h, w in content["grids"]), tuple(content["sources"]))

    def template(self) -> VisualTokens:
        """Grids and sources, with the tokens of no study."""
        return VisualTokens(torch.zeros(0, *self.shards[0].shape[1:]), self.grids, self.sources)

    def tokens(self, indices: list[int]) -> Tensor:
        """Tokens (len(indices), N, D) float32 of some studies.

        Raises:
            CXRLensError: they are not what was written.
        """
        for index in indices:
            if index not in self._seen:
                shard, row = divmod(index, SHARD)
                if sum_of(self.shards[shard][row], index) != int(self._sums[shard][row]):
                    raise CXRLensError(
                        f"{self._paths[shard]} is damaged: study {row} of it is not what was written. {_AGAIN}"
                    )
                self._seen.add(index)
        rows = np.stack([self.shards[index // SHARD][index % SHARD] for index in indices])
        return torch.from_numpy(rows).float()


_AGAIN = "Run the same command again: what is damaged is made anew, and only that."
VERSION = 2
"""Of the files. 1 (that name none) had no checksums."""


class About(Content):
    """about.json of a cache."""

    key: Text
    studies: Annotated[int, Field(ge=1, le=10**8)]
    grids: list[Annotated[list[int], Field(min_length=2, max_length=2)]]
    sources: list[Text]


def _open_shard(path: Path) -> npt.NDArray[np.void]:
    """A plain view of a mapped shard: an array of numpy's own memmap class takes ten times as long to index.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is no shard, or is cut off.
    """
    open_plain(path).close()
    found = np.asarray(np.load(path, mmap_mode="r"))
    if found.ndim != 1 or found.dtype.names != ("sum", "tokens"):
        raise ValueError(f"{path.name} is no shard of tokens")
    return found


def _counts(studies: int) -> list[int]:
    """Studies of each shard."""
    return [min(SHARD, studies - start) for start in range(0, studies, SHARD)]


def damaged_shards(folder: Path, key: str) -> list[str]:
    """Names of the shards of a finished cache that are missing, or are not what was written; all rows are read.

    Returns:
        names; that of its about.json where it does not tell the shards.
    """
    try:
        about = read_json(folder / "about.json", About)
        same = about["key"] == key
    except (OSError, ValueError):
        same = False
    if not same:
        return ["about.json"]
    counts = _counts(about["studies"])
    paths = _shards(folder, key, about["studies"])
    return [path.name for shard, path in enumerate(paths) if not _is_whole(path, shard, counts[shard])]


def _is_whole(path: Path, shard: int, count: int) -> bool:
    try:
        found = _open_shard(path)
    except (OSError, ValueError, EOFError):
        return False
    return len(found) == count and not damaged(found["tokens"], found["sum"], range(count), shard * SHARD)


def _shards(folder: Path, key: str, studies: int) -> list[Path]:
    return [folder / f"{key}-{shard:05}.npy" for shard in range(-(-studies // SHARD))]


@torch.inference_mode()
def write_token_cache(
    folder: Path,
    key: str,
    encoder: Encoder,
    images: Callable[[int, int], Tensor],
    studies: int,
    progress: Progress | None = None,
    *,
    rank: int = 0,
    ranks: int = 1,
) -> None:
    """Encode images once and for all; interrupted, or with damaged shards, it makes those that are not whole.

    Several processes may write one cache: process r of n writes shards r, r + n, r + 2 n and so on. Whoever writes the
    last one finishes it.

    Args:
        key: hash of the encoder's weights and of the studies.
        encoder: frozen.
        images: images (B, 1, H, H) of the studies from one index up to another, exclusive, on the encoder's device.
        progress: called with (done, all) of this process's studies.
        rank: which process this is.
        ranks: how many there are.

    Raises:
        DiskError: no room.
        CXRLensError: no study, or tokens that are no numbers or too large for float16.
    """
    if studies < 1:
        raise CXRLensError(f"{folder}: there is no study to encode.")
    folder.mkdir(parents=True, exist_ok=True)
    discard(folder / "about.json")
    paths = _shards(folder, key, studies)
    if rank == 0:
        for path in set(folder.glob("*.npy")) - set(paths):
            discard(path)  # of other weights
        remove_forgotten(folder)
    first: VisualTokens = encoder(images(0, 1))
    own = range(rank, len(paths), ranks)
    counts = _counts(studies)
    for shard in own:
        if os.path.lexists(paths[shard]) and not _is_whole(paths[shard], shard, counts[shard]):
            discard(paths[shard])
    _refuse_without_room(folder, paths, studies * first.tokens[0].numel() * 2)
    total = sum(min(SHARD, studies - shard * SHARD) for shard in own)
    done = 0
    for shard in own:
        start, end = shard * SHARD, min(studies, (shard + 1) * SHARD)
        if not paths[shard].is_file():
            _write_shard(paths[shard], _encode(encoder, images, start, end), start)
        done += end - start
        if progress:
            progress(done, total)
    if all(path.is_file() for path in paths):
        about = {"key": key, "grids": first.grids, "sources": first.sources, "studies": studies, "version": VERSION}
        write_whole(folder / "about.json", json.dumps(about))


def _encode(encoder: Encoder, images: Callable[[int, int], Tensor], start: int, end: int) -> npt.NDArray[np.float16]:
    first = range(start, end, BATCH)
    tokens = torch.cat([encoder(images(each, min(end, each + BATCH))).tokens.half().cpu() for each in first])
    if not tokens.isfinite().all():
        raise CXRLensError(
            f"The encoder's tokens of studies {start} to {end - 1} are no numbers, or too large for float16. Its "
            "training has diverged: lower the learning_rate of its stage and train it again."
        )
    array: npt.NDArray[np.float16] = tokens.numpy()
    return array


def _write_shard(path: Path, tokens: npt.NDArray[np.float16], first: int) -> None:
    values = np.empty(len(tokens), dtype=[("sum", np.uint32), ("tokens", np.float16, tokens.shape[1:])])
    values["tokens"], values["sum"] = tokens, sums_of(tokens, first)
    try:
        with whole_file(path) as fresh, fresh.open("wb") as file:
            np.save(file, values)
    except DiskError as error:
        raise DiskError(
            f"{error} Shards that are whole were kept: free some space, and run the same command again to go on."
        ) from error


def _refuse_without_room(folder: Path, paths: Sequence[Path], size: int) -> None:
    needed = size * sum(not path.is_file() for path in paths) // len(paths)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskError(
            f"{folder}: the tokens need {needed / 1e9:.1f} GB more, the disk has {free / 1e9:.1f} GB free. Make room, "
            "and run the same command again."
        )
