"""Run folders: what a stage was made from, what it wrote, whether it is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core import ranks
from core.files import discard, sha256_of, to_disk, whole_file, write_whole
from core.packages import versions
from core.schemas import StageDone, StageRecord, read_json
from core.types import CXRLensError
from training.console import note
from training.identity import content_hash, why_anew

PACKAGES = ("torch", "timm", "open_clip_torch", "pytorch-lightning", "numpy", "scikit-learn")

Done = Mapping[str, str]
"""Name of a stage's folder -> its key; of several stages together, one entry each."""


class StageError(CXRLensError):
    """A stage cannot run; the message says why and what to do."""


def run_stage(
    folder: Path,
    identity: Mapping[str, Any],
    work: Callable[[Path], None],
    damaged: Callable[[Path], str] = lambda folder: "",
) -> Done:
    """Do a stage once.

    Skipped when it is done, has the same identity and its files are those that it wrote; resumed when it was
    interrupted; begun anew, with a sentence that says why, when its identity changed or a file is damaged. Where
    another process is at it, this one waits, and then finds it done.
    Processes that train together (`core.ranks`) all do the work; the first holds the lock and says when it is done.

    Args:
        folder: of the stage.
        identity: everything that decides its result, as plain values (`training.identity`).
        work: does it, into the folder.
        damaged: what is damaged of a done stage that its work mends, and leaves the rest, a part of a sentence; "" if
            nothing is. For what has checksums of its own, or lies elsewhere.

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
        if ranks.from_first(ranks.is_first() and _begin(folder, key, identity, damaged)):
            work(folder)
            ranks.wait()
            if ranks.is_first():
                write_whole(folder / FILES, json.dumps(_hashes(folder), indent=1))
                write_whole(folder / "done.json", json.dumps({"key": key}))
            ranks.wait()
    return {folder.name: key}


def _begin(folder: Path, key: str, identity: Mapping[str, Any], damaged: Callable[[Path], str]) -> bool:
    """Prepare a stage's folder; False where it is done."""
    recorded = read_record(folder)
    about = ""
    if recorded.get("key") == key and _key_of(folder / "done.json") == key:
        other = other_file(folder)
        mended = "" if other else damaged(folder)
        if not other and not mended:
            note(f"· {folder.name}: done before, skipped")
            return False
        if other:
            about = f" (made anew: {other} is missing, or is not what this stage wrote)"
            shutil.rmtree(folder)
        else:
            about = f" (mended: {mended})"
            discard(folder / "done.json")
    elif folder.exists() and recorded.get("key") == key:
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
        record: dict[str, Any] = read_json(folder / "config.json", StageRecord)
    except (OSError, ValueError):
        return {}
    return record


FILES = "files.json"
"""Of a done stage: the hash of each file that it wrote."""
_OF_THEIR_OWN = (".npy", ".ckpt", ".lock", ".part")
"""Endings of files with checksums of their own, or that are gone, or may go, when a stage is done."""


def _hashes(folder: Path) -> dict[str, str]:
    """Hashes of what a stage wrote, by path, once all of it is on the disk; not of its logs."""
    found = {}
    for each in sorted(folder.rglob("*")):
        path = each.relative_to(folder)
        unhashed = each.name.startswith(".") or each.suffix in _OF_THEIR_OWN or each.name == "done.json"
        if not unhashed and path.as_posix() != FILES and not path.parts[0].startswith("log") and each.is_file():
            to_disk(each)
            found[path.as_posix()] = sha256_of(each)
    return found


def other_file(folder: Path) -> str:
    """The first file of a done stage that is missing, or is not what was written; "" if there is none.

    Stages that an earlier release did have no hashes, and are believed.
    """
    try:
        hashes = read_json(folder / FILES)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        return FILES
    if not isinstance(hashes, dict):
        return FILES
    for name, expected in hashes.items():
        try:
            if sha256_of(folder / name) != expected:
                return str(name)
        except OSError:
            return str(name)
    return ""


def _key_of(done: Path) -> str | None:
    try:
        return str(read_json(done, StageDone)["key"])
    except (OSError, ValueError):
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
        StageError: the stage has not been run, or its weights are damaged.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise StageError(f"{path} is missing. Run the stage '{folder.name}' first.")
    prefix = f"{part}."
    try:
        hashes = read_json(folder / FILES) if (folder / FILES).is_file() else {}
        if path.name in hashes and sha256_of(path) != hashes[path.name]:
            raise ValueError("it is not what was written")
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise StageError(f"{path} is damaged ({error}). Run the same command again: it is made anew.") from error
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def load_weights(folder: Path, part: str, module: nn.Module) -> None:
    """Fill a module from a stage's ``model.safetensors``, strictly."""
    module.load_state_dict(part_of(folder, part))
