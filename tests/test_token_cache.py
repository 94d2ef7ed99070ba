"""The token cache: shards that are whole or not there, written side by side, resumed, read back."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core.encoders import token_cache
from core.encoders.token_cache import TokenCache, write_token_cache
from core.types import CXRLensError, VisualTokens

pytestmark = pytest.mark.numeric

IMAGES = torch.arange(44.0).view(11, 1, 2, 2) / 64  # exact in float16


class Doubler(nn.Module):
    """Tokens are twice the pixels; counts the studies it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, images: torch.Tensor) -> VisualTokens:
        self.seen += len(images)
        return VisualTokens(images.flatten(1).unsqueeze(1) * 2, ((1, 1),), ("x",))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "SHARD", 4)  # 11 studies: shards of 4, 4 and 3
    monkeypatch.setattr(token_cache, "BATCH", 2)


def write(folder: Path, key: str = "k", stop_at: int | None = None, **arguments: Any) -> Doubler:
    encoder = Doubler()

    def images(start: int, end: int) -> torch.Tensor:
        if stop_at is not None and end > stop_at:
            raise KeyboardInterrupt
        return IMAGES[start:end]

    write_token_cache(folder, key, encoder, images, len(IMAGES), **arguments)  # type: ignore[arg-type]
    return encoder


def check(folder: Path) -> None:
    cache = TokenCache.open(folder, "k")
    assert len(cache) == 11
    places = [10, 0, 3, 4, 7, 0]
    torch.testing.assert_close(cache.tokens(places).flatten(1), IMAGES[places].flatten(1) * 2, rtol=0, atol=0)
    assert cache.template().tokens.shape == (0, 1, 4)
    assert cache.grids == ((1, 1),)
    assert not list(folder.glob("*.part"))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write(tmp_path, progress=lambda done, total: seen.append((done, total)))
    check(tmp_path)
    assert seen == [(4, 11), (8, 11), (11, 11)]
    with pytest.raises(CXRLensError, match="other weights or studies"):
        TokenCache.open(tmp_path, "other")


def test_an_interrupted_cache_goes_on_with_the_first_shard_that_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, stop_at=7)  # in the middle of the second shard
    assert len(list(tmp_path.glob("*.npy"))) == 1
    with pytest.raises(CXRLensError, match="no finished token cache"):
        TokenCache.open(tmp_path, "k")
    assert write(tmp_path).seen == 1 + 7  # the first study tells the shape
    check(tmp_path)


def test_several_processes_write_one_cache(tmp_path: Path) -> None:
    later = write(tmp_path, rank=1, ranks=2)
    assert later.seen == 1 + 4
    with pytest.raises(CXRLensError, match="no finished token cache"):
        TokenCache.open(tmp_path, "k")
    assert write(tmp_path, rank=0, ranks=2).seen == 1 + 7
    check(tmp_path)


def test_other_weights_begin_anew_and_leave_nothing_of_the_old(tmp_path: Path) -> None:
    write(tmp_path, key="old")
    assert write(tmp_path).seen == 1 + 11
    assert {path.name.split("-")[0] for path in tmp_path.glob("*.npy")} == {"k"}
    check(tmp_path)


def test_a_full_disk_leaves_no_half_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = np.save

    def save(file: Any, values: Any) -> None:
        if any(tmp_path.glob("k-00000.npy")):
            file.write(b"\x93NUMPY half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, values)

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(CXRLensError, match=r"No space left on device.*whole were kept.*run the same command again"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["k-00000.npy"]
    monkeypatch.undo()
    monkeypatch.setattr(token_cache, "SHARD", 4)
    assert write(tmp_path).seen == 1 + 7
    check(tmp_path)


def test_too_little_room_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(CXRLensError, match=r"need 0.0 GB more.*Make room"):
        write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), 7e4])
def test_tokens_that_are_no_float16_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(CXRLensError, match="training has diverged"):
        write_token_cache(tmp_path, "k", Doubler(), lambda start, end: torch.full((end - start, 1, 2, 2), value), 3)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_older_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text(json.dumps({"key": "k", "grids": [], "sources": [], "shape": [1]}))
    with pytest.raises(CXRLensError, match="by an older version. Delete"):
        TokenCache.open(tmp_path, "k")
