"""A folder that is an export: written whole, marked as one, and never put in the place of anything else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.files import DiskError, own_folder, whole_folder
from core.types import CXRLensError

MARK = "cxr-lens-export.json"
"""Says in every export what it is, who wrote the reports, and what was left out."""
_NAMED = 5


@dataclass
class LeftOut:
    """What an export leaves out, or has to say of studies: how often, of which, and why for the first.

    Attributes:
        counts: what -> how often.
        ids: what -> the first studies; they stand in the export.
        why: what -> the reason of the first, which may name a path of this machine: it is told, and not exported.
    """

    counts: Counter[str] = field(default_factory=Counter)
    ids: dict[str, list[str]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, study_id: str, why: object = "") -> None:
        """Count one."""
        self.counts[what] += 1
        self.why.setdefault(what, str(why).rstrip("."))
        if self.counts[what] <= _NAMED:
            self.ids.setdefault(what, []).append(study_id)

    def sentences(self) -> list[str]:
        """For a reader: "study without a reference report, left out: 2, the first s12"."""
        return [
            f"{what}: {count:,}, the first {self.ids[what][0]}" + f" ({self.why[what]})" * bool(self.why[what])
            for what, count in self.counts.items()
        ]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        files: how many, the mark not counted.
        left_out: what was left out.
    """

    folder: Path
    files: int
    left_out: LeftOut


def check_place(folder: Path, *, force: bool) -> None:
    """Refuse to write where something is, before any work.

    Args:
        folder: to write.
        force: replace an older export that is there.

    Raises:
        CXRLensError: something is there.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not (folder / MARK).is_file():
        raise CXRLensError(f"{folder} is there already, and is no export of CXR Lens. Choose another --out.")
    if not force:
        raise CXRLensError(f"{folder} is there already. Choose another --out, or replace it, with --force.")


def write_folder(
    folder: Path,
    kind: str,
    about: Mapping[str, Any],
    files: Iterable[tuple[str, bytes]],
    notes: LeftOut,
    *,
    force: bool = False,
) -> Exported:
    """Write an export in one piece: whole, or not at all.

    Args:
        folder: its name is given when all is written.
        kind: of export.
        about: who wrote what goes out.
        files: path below the folder, and content; one at a time is in memory.
        notes: of what was left out, filled while `files` are made.
        force: replace an older export that is there.

    Raises:
        CXRLensError: something is there, the folder cannot be written, or there is nothing to write.
    """
    check_place(folder, force=force)
    try:
        own_folder(folder.parent)
    except OSError as error:
        raise DiskError(f"{folder.parent} cannot be made ({error.strerror}). Choose another --out.") from error
    written = 0
    with whole_folder(folder) as fresh:
        for name, content in files:
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            written += 1
        (fresh / MARK).write_bytes(mark(kind, about, notes))
    return Exported(folder, written, notes)


def mark(kind: str, about: Mapping[str, Any], notes: LeftOut) -> bytes:
    """The content of the file `MARK`."""
    left_out = {what: {"count": count, "first": notes.ids[what]} for what, count in notes.counts.items()}
    return as_json({"export": kind, **about, "left_out": left_out})


def as_json(content: Any) -> bytes:
    """JSON that every reader takes: ASCII, no NaN."""
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode("ascii")


def need_some(count: int, notes: LeftOut, what: str) -> None:
    """Refuse an export of nothing.

    Args:
        count: of what goes out.
        notes: of what was left out.
        what: would go out, "image".

    Raises:
        CXRLensError: it is none; the message says why, with an example.
    """
    if not count:
        raise CXRLensError(f"There is no {what} to export: {'; '.join(notes.sentences()) or 'no study is left'}.")
