"""Checkpoints of a training that is interrupted: written whole, and looked at before they are believed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io import TorchCheckpointIO

from core.files import whole_file

LAST, BEST = "last.ckpt", "best.ckpt"


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the one that is there, and puts it in its place when it is on the disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write it.

        Raises:
            DiskError: it cannot be written; the one before stays.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as fresh:
            torch.save(checkpoint, fresh)


def fault_of(path: Path) -> str:
    """What is wrong with a checkpoint, a part of a sentence; "" if nothing is.

    torch keeps a checkpoint as a zip file, with a checksum of each tensor, and does not look at these when it reads.
    """
    try:
        with zipfile.ZipFile(path) as file:
            bad = file.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return f"it cannot be read ({error})"
    return "" if bad is None else "a part of it is not what was written"


def fault_in(folder: Path) -> str:
    """Why a training cannot go on from the checkpoints in a folder, a sentence's part; "" if it can, or has none."""
    if not (folder / LAST).is_file():
        return ""
    for name in (LAST, BEST):
        if fault := fault_of(folder / name):
            return f"{name} is damaged: {fault}"
    return ""


def remove(folder: Path) -> None:
    """Remove checkpoints, the last first: without it a stage begins anew, without the best it could not end."""
    for name in (LAST, BEST):
        (folder / name).unlink(missing_ok=True)
