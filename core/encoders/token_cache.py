"""Tokens of a frozen encoder, computed once a study: shards on disk, memory-mapped, written side by side.

A folder of ``<key>-00000.npy`` and on, (up to 256 studies, N, D) float16 each, and ``about.json``, which comes last. A
shard gets its name when it is whole, so what a power cut or a full disk leaves is never taken for one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.encoders import Encoder
from core.files import DiskError, remove_forgotten, whole_file, write_whole
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
        shards: Sequence[npt.NDArray[np.float16]],
        grids: tuple[tuple[int, int], ...],
        sources: tuple[str, ...],
    ) -> None:
        """Wrap what was read: shards of `SHARD` studies, the last of the rest."""
        self.shards = shards
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
        content = json.loads(about.read_text(encoding="utf-8"))
        if content["key"] != key or "studies" not in content:
            what = "from other weights or studies" if content["key"] != key else "by an older version"
            raise CXRLensError(f"{folder} was made {what}. Delete {folder.parent}, and run again.")
        # Plain views of the maps: an array of numpy's own memmap class takes ten times as long to index.
        shards = [np.asarray(np.load(path, mmap_mode="r")) for path in _shards(folder, key, content["studies"])]
        return cls(shards, tuple((h, w) for h, w in content["grids"]), tuple(content["sources"]))

    def template(self) -> VisualTokens:
        """Grids and sources, with the tokens of no study."""
        return VisualTokens(torch.zeros(0, *self.shards[0].shape[1:]), self.grids, self.sources)

    def tokens(self, indices: list[int]) -> Tensor:
        """Tokens (len(indices), N, D) float32 of some studies."""
        rows = np.stack([self.shards[index // SHARD][index % SHARD] for index in indices])
        return torch.from_numpy(rows).float()


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
    """Encode images once and for all; interrupted, it goes on with the first shard that is not whole.

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
    (folder / "about.json").unlink(missing_ok=True)
    paths = _shards(folder, key, studies)
    if rank == 0:
        for path in set(folder.glob("*.npy")) - set(paths):
            path.unlink()  # of other weights
        remove_forgotten(folder)
    first: VisualTokens = encoder(images(0, 1))
    _refuse_without_room(folder, paths, studies * first.tokens[0].numel() * 2)
    own = range(rank, len(paths), ranks)
    total = sum(min(SHARD, studies - shard * SHARD) for shard in own)
    done = 0
    for shard in own:
        start, end = shard * SHARD, min(studies, (shard + 1) * SHARD)
        if not paths[shard].is_file():
            _write_shard(paths[shard], _encode(encoder, images, start, end))
        done += end - start
        if progress:
            progress(done, total)
    if all(path.is_file() for path in paths):
        about = {"key": key, "grids": first.grids, "sources": first.sources, "studies": studies}
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


def _write_shard(path: Path, values: npt.NDArray[np.float16]) -> None:
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
