"""Tokens of a frozen encoder, computed once a study and memory-mapped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.encoders import Encoder
from core.files import new_array, write_whole
from core.types import CXRLensError, VisualTokens

Progress = Callable[[int, int], None]


class TokenCache:
    """A folder with ``tokens.npy`` (studies, N, D) float16 and ``about.json``; read through :meth:`open`."""

    def __init__(self, values: npt.NDArray[np.float16], grids: tuple[tuple[int, int], ...], sources: tuple[str, ...]):
        """Wrap what was read."""
        self.values = values
        self.grids = grids
        self.sources = sources

    @classmethod
    def open(cls, folder: Path, key: str) -> TokenCache:
        """Map a finished cache.

        Raises:
            CXRLensError: it is unfinished, or made from other inputs than ``key`` names.
        """
        about = folder / "about.json"
        if not about.is_file():
            raise CXRLensError(f"{folder} holds no finished token cache.")
        content = json.loads(about.read_text(encoding="utf-8"))
        if content["key"] != key:
            raise CXRLensError(f"{folder} was made from other weights or studies. Delete it, and run again.")
        values = np.load(folder / "tokens.npy", mmap_mode="r")
        return cls(values, tuple((h, w) for h, w in content["grids"]), tuple(content["sources"]))

    def template(self) -> VisualTokens:
        """Grids and sources, with the tokens of no study."""
        return VisualTokens(torch.zeros(0, *self.values.shape[1:]), self.grids, self.sources)

    def tokens(self, places: list[int]) -> Tensor:
        """Tokens (len(places), N, D) float32."""
        return torch.from_numpy(self.values[places].astype(np.float32))


@torch.inference_mode()
def write_token_cache(
    folder: Path, key: str, encoder: Encoder, batches: Iterator[Tensor], total: int, progress: Progress | None = None
) -> TokenCache:
    """Encode images once and for all; interrupted, it goes on where it stopped.

    Args:
        folder: of the cache; ``about.json`` is written last, so a half-written cache never passes for a whole one.
        key: hash of the encoder's weights and of the studies.
        encoder: frozen.
        batches: images (B, 1, H, H), all of them in order; those already written are skipped over.
        total: number of studies.
        progress: called with (done, total).

    Raises:
        DiskError: no space; nothing is left that could pass for a whole cache, and what was encoded is kept.
        CXRLensError: not ``total`` studies came.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "progress.json"
    values: np.memmap[Any, Any] | None = None
    done = 0
    if state.is_file():
        saved = json.loads(state.read_text(encoding="utf-8"))
        if saved["key"] == key and (folder / "tokens.npy").is_file():
            values, done = np.lib.format.open_memmap(folder / "tokens.npy", mode="r+"), saved["done"]
    place = 0
    grids: tuple[tuple[int, int], ...] = ()
    sources: tuple[str, ...] = ()
    for images in batches:
        end = place + len(images)
        if end > done or not sources:
            visual: VisualTokens = encoder(images)
            grids, sources = visual.grids, visual.sources
            if values is None:
                shape = (total, *visual.tokens.shape[1:])
                values = new_array(folder / "tokens.npy", np.float16, shape)
            values[place:end] = visual.tokens.half().numpy()
            values.flush()
            write_whole(state, json.dumps({"key": key, "done": end}))
        place = end
        if progress:
            progress(place, total)
    if place != total or values is None:
        raise CXRLensError(f"{folder}: {place} studies came, {total} were announced.")
    about = {"key": key, "grids": grids, "sources": sources, "shape": values.shape}
    write_whole(folder / "about.json", json.dumps(about))
    state.unlink()
    return TokenCache(values, grids, sources)
