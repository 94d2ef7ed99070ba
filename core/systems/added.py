"""Systems that a user added: kept in the user's folder, a folder each, until they are removed.

``system.json`` says what it is; beside it a file's reports (``reports.jsonl``), or what a program wrote. They may be of
patients, so only their owner may read them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from core import paths
from core.files import DiskError, is_unfinished, own_folder, read_json_lines, sha256_of, whole_folder
from core.registry import did_you_mean
from core.studies.source import Source
from core.systems.matching import match
from core.systems.program import Command, Program
from core.systems.report_files import ReportFile, ReportRow, read_report_file
from core.systems.system import Progress, System, Written
from core.types import CXRLensError

REFERENCE = "reference"
GROUP = "Reports from elsewhere"
"""Group of what is added, unless another is named."""
TAKEN = frozenset(
    (REFERENCE, "study_id", "problem", "cut", "constant report", "nearest training report", "shuffled images")
)
"""Names that mean something else in files of reports and scores."""
_NAME = re.compile(r"\w[\w .+()-]{0,63}")
_DAMAGED = "{} is damaged ({}). Remove it (`cxr-lens systems remove {}`), and add it again."


class Reports(System):
    """Reports that another model, or a person, wrote: a file of them."""

    kind = "file of reports"

    def __init__(
        self, name: str, title: str, group: str, provenance: str, rows: Sequence[ReportRow], sha256: str
    ) -> None:
        """Keep what it holds.

        Args:
            name: of the system.
            title: for a reader.
            group: of the system.
            provenance: where the file comes from.
            rows: its reports.
            sha256: of the file.
        """
        self.name, self.title, self.group, self.provenance = name, title, group, provenance
        self.rows = rows
        self._sha256 = sha256

    def content_hash(self) -> str:
        """Of the file."""
        return self._sha256

    def reports(self, source: Source, study_ids: Sequence[str], progress: Progress | None = None) -> Written:
        """Those of its reports that are of these studies."""
        texts, census = match(self.rows, source, study_ids)
        if progress is not None:
            progress(len(study_ids), len(study_ids))
        why = f"{self.title} has no report of this study."
        lacking = {study_id: why for study_id in study_ids if study_id not in texts}
        return Written(texts, lacking, census.sentences(self.title))


class Reference(System):
    """The radiologists who wrote the reference reports."""

    name, title, group, kind = REFERENCE, "Reference report", "Radiologists", "human reference"
    provenance = "The findings of the report that came with the study."

    def content_hash(self) -> str:
        """Always the same: the source's own fingerprint says what it holds."""
        return ""

    def reports(self, source: Source, study_ids: Sequence[str], progress: Progress | None = None) -> Written:
        """The findings of the studies, where they have any."""
        texts = {study_id: source.study(study_id).findings for study_id in study_ids}
        return Written({study_id: text for study_id, text in texts.items() if text.strip()})


def home() -> Path:
    """Where systems are kept: ``CXR_SYSTEMS``, or "systems" in the user's data folder."""
    return Path(os.environ.get("CXR_SYSTEMS") or paths.own_data() / "systems").resolve()


def add_file(
    name: str,
    path: Path,
    *,
    id_column: str = "",
    text_column: str = "",
    title: str = "",
    group: str = GROUP,
    origin: str = "",
    replace: bool = False,
    others: Collection[str] = (),
) -> tuple[System, ReportFile]:
    """Add a file of reports.

    Args:
        name: of the system.
        path: see `core.systems.report_files`.
        id_column: as of `read_report_file`.
        text_column: as of `read_report_file`.
        title: for a reader; the name unless given.
        group: of the system.
        origin: what to call the file; its own name unless given.
        replace: a system of this name.
        others: further names that are taken, as those of bundles.

    Returns:
        The system, and what the file held.

    Raises:
        CXRLensError: the name is none or is taken, the file cannot be read, or it cannot be kept.
    """
    _check(name, others, replace=replace)
    found = read_report_file(path, id_column, text_column)
    lines = "".join(json.dumps({"ids": row.ids, "report": row.text}) + "\n" for row in found.rows)
    about = {
        "kind": "file",
        "title": title or name,
        "group": group,
        "origin": origin or path.name,
        "columns": [found.id_column, found.text_column],
    }
    _keep(name, about, {"reports.jsonl": lines})
    return system(name), found


def add_program(
    name: str,
    command: Command,
    *,
    title: str = "",
    group: str = GROUP,
    replace: bool = False,
    others: Collection[str] = (),
) -> System:
    """Add a program; it is not run.

    Args:
        name: of the system.
        command: how it is run.
        title: for a reader; the name unless given.
        group: of the system.
        replace: a system of this name.
        others: further names that are taken, as those of bundles.

    Raises:
        CXRLensError: the name is none or is taken, there is no such program, or it cannot be kept.
    """
    _check(name, others, replace=replace)
    if shutil.which(command.words[0], path=None) is None and not Path(command.folder, command.words[0]).is_file():
        raise CXRLensError(f"There is no program '{command.words[0]}' in {command.folder} or on the PATH.")
    about: dict[str, Any] = {"kind": "program", "title": title or name, "group": group}
    about |= {"command": list(command.words), "folder": command.folder, "timeout": command.timeout}
    _keep(name, about, {})
    return system(name)


def systems() -> tuple[list[System], dict[str, str]]:
    """The systems that were added, by group and name; messages of damaged ones, by name."""
    found, damaged = [], {}
    for folder in sorted(home().glob("*/")) if home().is_dir() else ():
        if is_unfinished(folder):
            continue
        try:
            found.append(system(folder.name))
        except CXRLensError as error:
            damaged[folder.name] = str(error)
    return sorted(found, key=lambda each: (each.group, each.name)), damaged


def names_taken() -> list[str]:
    """Names that a model cannot have: those that mean something else, and those of what was added, damaged or not."""
    found, damaged = systems()
    return [*TAKEN, *(each.name for each in found), *damaged]


def system(name: str) -> System:
    """One that was added.

    Raises:
        CXRLensError: there is none of this name, or it is damaged.
    """
    path = home() / name / "system.json"
    if not _NAME.fullmatch(name) or not path.is_file():
        known = [each.name for each in home().iterdir() if each.is_dir()] if home().is_dir() else []
        raise CXRLensError(f"There is no system '{name[:64]}'.{did_you_mean(name, known)} See: cxr-lens systems list.")
    stamps = [each.stat().st_mtime_ns for each in (path, path.with_name("reports.jsonl")) if each.is_file()]
    return _opened(str(path), tuple(stamps))


@lru_cache(maxsize=64)
def _opened(path: str, stamps: tuple[int, ...]) -> System:
    from core import schemas  # brings pydantic, which takes a while

    folder = Path(path).parent
    try:
        about = schemas.read_json(Path(path), schemas.Added)
        schemas.check(about, schemas.AddedFile if about["kind"] == "file" else schemas.AddedProgram)
        return _OPENERS[about["kind"]](folder, about)
    except (OSError, ValueError, KeyError, TypeError, CXRLensError) as error:
        what = getattr(error, "strerror", None) or error
        raise CXRLensError(_DAMAGED.format(f"The system {folder.name}", what, folder.name)) from error


def _open_file(folder: Path, about: Mapping[str, Any]) -> System:
    path = folder / "reports.jsonl"
    if sha256_of(path) != about["sha256"]["reports.jsonl"]:
        raise ValueError("it was edited")
    rows = tuple(ReportRow(tuple(row["ids"]), str(row["report"])) for _, row in read_json_lines(path))
    provenance = f"Read from the file {about['origin']}, added on {about['created']}."
    return Reports(folder.name, about["title"], about["group"], provenance, rows, about["sha256"]["reports.jsonl"])


def _open_program(folder: Path, about: Mapping[str, Any]) -> System:
    command = Command(tuple(about["command"]), about["folder"], float(about["timeout"]))
    return Program(folder.name, about["title"], about["group"], command, folder)


_OPENERS: Mapping[str, Callable[[Path, Mapping[str, Any]], System]] = {"file": _open_file, "program": _open_program}


def remove(name: str) -> None:
    """Remove a system with all that is kept of it; evaluations that it took part in stay.

    Raises:
        CXRLensError: there is none of this name, or it cannot be removed.
    """
    folder = home() / name
    if not _NAME.fullmatch(name) or not folder.is_dir():
        system(name)  # says that there is none
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise CXRLensError(f"{folder} cannot be removed ({error.strerror}).") from error


def _check(name: str, others: Collection[str], *, replace: bool) -> None:
    if not _NAME.fullmatch(name):
        raise CXRLensError(
            f"'{name[:64]}' is no name of a system: at most 64 letters, digits, blanks and signs of . _ + - ( )."
        )
    taken = {each.casefold(): each for each in (*TAKEN, *others)}
    if name.casefold() in taken:
        raise CXRLensError(
            f"The name '{name}' is taken: it means something else, or is that of a bundle. Choose another."
        )
    there = [each.name for each in home().iterdir() if each.is_dir()] if home().is_dir() else []
    same = [each for each in there if each.casefold() == name.casefold()]
    if same and not (replace and same == [name]):
        raise CXRLensError(f"There is a system '{same[0]}' already. Choose another name, or replace it (--replace).")


def _keep(name: str, about: Mapping[str, Any], files: Mapping[str, str]) -> None:
    hashes = {file: hashlib.sha256(text.encode()).hexdigest() for file, text in files.items()}
    content = {"schema": 1, "created": time.strftime("%Y-%m-%d"), **about, "sha256": hashes}
    try:
        own_folder(home())
        with whole_folder(home() / name) as fresh:
            fresh.chmod(0o700)
            for file, text in files.items():
                (fresh / file).write_bytes(text.encode())
            (fresh / "system.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    except (OSError, DiskError) as error:
        raise CXRLensError(
            f"Systems cannot be kept in {home()} ({getattr(error, 'strerror', None) or error}). Set CXR_SYSTEMS to a "
            "folder that can be written."
        ) from error
