"""Run folders: what a stage was made from, what it wrote, whether it is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core import ranks
from core.files import whole_file, write_whole
from core.packages import versions
from core.types import CXRLensError
from training.console import note
from training.identity import content_hash, why_anew

PACKAGES = ("torch", "timm", "open_clip_torch", "pytorch-lightning", "numpy", "scikit-learn")

Done = Mapping[str, str]
"""Name of a stage's folder -> its key; of several stages together, one entry each."""


class StageError(CXRLensError):
    """A stage cannot run; the message says why and what to do."""


def run_stage(folder: Path, identity: Mapping[str, Any], work: Callable[[Path], None]) -> Done:
    """Do a stage once.

    Skipped when it is done and has the same identity; resumed when it was interrupted; begun anew, with a sentence that
    says why, when its identity changed. Where another process is at it, this one waits, and then finds it done.
    Processes that train together (`core.ranks`) all do the work; the first holds the lock and says when it is done.

    Args:
        folder: of the stage.
        identity: everything that decides its result, as plain values (`training.identity`).
        work: does it, into the folder.

    Returns:
        The folder's name with the stage's key, for the stages that stand on it.

    Raises:
        StageError: processes that train together were given different identities.
    """
    key = content_hash(identity)
    if set(ranks.gather(key)) != {key}:
        raise StageError(
            f"{folder.name}: the processes see different data or settings. They must read the same folders."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock") if ranks.is_first() else nullcontext():
        if ranks.from_first(ranks.is_first() and _begin(folder, key, identity)):
            work(folder)
            ranks.wait()
            if ranks.is_first():
                write_whole(folder / "done.json", json.dumps({"key": key}))
            ranks.wait()
    return {folder.name: key}


def _begin(folder: Path, key: str, identity: Mapping[str, Any]) -> bool:
    """Prepare a stage's folder; False where it is done."""
    recorded = read_record(folder)
    if recorded.get("key") == key and _key_of(folder / "done.json") == key:
        note(f"· {folder.name}: done before, skipped")
        return False
    about = ""
    if folder.exists() and recorded.get("key") == key:
        about = " (resumed)"
    elif folder.exists():
        if "identity" in recorded:
            about = f" (made anew: {why_anew(recorded['identity'], identity)})"
        elif recorded:
            about = " (made anew: an earlier release made it, and recorded its settings in another form)"
        else:
            about = " (made anew: its config.json is missing or damaged)"
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = {"key": key, "identity": identity, "versions": versions(PACKAGES, python=True)}
    write_whole(folder / "config.json", json.dumps(made, indent=2))
    note(f"▸ {folder.name}{about}")
    return True


def read_record(folder: Path) -> dict[str, Any]:
    """What a stage has written of itself: "key", "identity" and "versions"; empty where that is missing or damaged."""
    try:
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _key_of(done: Path) -> str | None:
    try:
        return str(json.loads(done.read_text(encoding="utf-8"))["key"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def save_weights(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write weights as ``model.safetensors``, keys prefixed by part; of several processes the first does."""
    if not ranks.is_first():
        return
    tensors = {
        f"{part}.{key}": value.contiguous()
        for part, module in modules.items()
        for key, value in module.state_dict().items()
    }
    with whole_file(folder / "model.safetensors") as fresh:
        save_file(tensors, fresh)


def part_of(folder: Path, part: str) -> dict[str, Tensor]:
    """Weights of one part of a stage's ``model.safetensors``.

    Raises:
        StageError: the stage has not been run.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise StageError(f"{path} is missing. Run the stage '{folder.name}' first.")
    prefix = f"{part}."
    return {key.removeprefix(prefix): value for key, value in load_file(path).items() if key.startswith(prefix)}


def load_weights(folder: Path, part: str, module: nn.Module) -> None:
    """Fill a module from a stage's ``model.safetensors``, strictly."""
    module.load_state_dict(part_of(folder, part))
