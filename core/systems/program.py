"""A program that reads images and writes reports, as ReXrank's ``inference.py`` does: a file of cases in, one out.

It runs on this machine, without a shell, in the folder in which it was added, and is ended with everything it started
when it takes too long. Images are given as 8-bit PNG files without any tag of theirs; what it wrote is kept.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from core.files import hash_of, read_json_lines, sha256_of, write_whole
from core.studies.model_image import grey_levels
from core.studies.source import Source
from core.systems.report_files import read_report_file
from core.systems.rexrank import case_of
from core.systems.system import Ability, Progress, System, Written
from core.types import CXRLensError, FloatImage, Study

BLOCK = 200
"""Studies that one run of a program is given; what earlier runs wrote is kept when a later one fails."""
TIMEOUT = 3600.0
"""Seconds that one run may take unless something else is asked for."""
PLACES = ("{input}", "{output}", "{images}")
"""What stands for the two files and the folder in a command; a command without them gets all three at its end."""
_PATIENCE = 3  # ours: seconds between asking a program to end and ending it
_SAID = 200  # ours: characters of a program's last words


@dataclass(frozen=True, slots=True)
class Command:
    """How a program is run.

    Attributes:
        words: of the command line.
        folder: in which it runs.
        timeout: seconds that one run may take.
    """

    words: tuple[str, ...]
    folder: str
    timeout: float = TIMEOUT

    def filled(self, given: Path, out: Path, images: Path) -> list[str]:
        """The command line of a run."""
        places = dict(zip(PLACES, map(str, (given, out, images)), strict=True))
        words = (
            [*self.words] if any(place in word for word in self.words for place in places) else [*self.words, *PLACES]
        )
        for place, value in places.items():
            words = [word.replace(place, value) for word in words]
        return words


def read_command(text: str, folder: Path, timeout: float = TIMEOUT) -> Command:
    """A command line as a person writes it: words, of which those with blanks stand in quotes; no shell reads it.

    Raises:
        CXRLensError: it is empty, or a quote is not closed.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise CXRLensError(f"The command '{text}' cannot be read: {error}. Close its quotes.") from error
    if not words:
        raise CXRLensError('The command is empty. Give one, as --command "python inference.py".')
    return Command(tuple(words), str(folder.absolute()), timeout)


class Program(System):
    """A program of somebody else."""

    kind = "program"
    abilities = frozenset({Ability.WRITE})

    def __init__(self, name: str, title: str, group: str, command: Command, folder: Path) -> None:
        """Start nothing yet.

        Args:
            name: of the system.
            title: for a reader.
            group: of the system.
            command: how it is run.
            folder: in which what it writes is kept.
        """
        self.name, self.title, self.group, self.command = name, title, group, command
        self.provenance = f"Written by the program '{shlex.join(command.words)}' on this machine."
        self._kept = folder / "written.jsonl"

    def content_hash(self) -> str:
        """Of the command, and of the files that it names: a changed script is another system."""
        parts = [*self.command.words, self.command.folder]
        for word in self.command.words:
            path = Path(self.command.folder, word)
            with suppress(OSError):
                if path.is_file():
                    parts.append(sha256_of(path))
        return hash_of(parts)

    def seconds_a_study(self) -> float | None:
        """What the last run took for each study; None before the first."""
        seconds = [float(row["seconds"]) for row in self._rows() if "seconds" in row]
        return seconds[-1] if seconds else None

    def reports(self, source: Source, study_ids: Sequence[str], progress: Progress | None = None) -> Written:
        """Reports of studies; those that it wrote before of the same image are not written again.

        Raises:
            CXRLensError: the program cannot be started, ends with an error, takes too long, or answers what is no file
                of reports; what it wrote before is kept.
        """
        mine = self.content_hash()
        kept = {row["image"]: row["report"] for row in self._rows() if row.get("program") == mine}
        texts: dict[str, str] = {}
        lacking: dict[str, str] = {}
        for start in range(0, len(study_ids), BLOCK):
            with tempfile.TemporaryDirectory(prefix="cxr-lens-") as place:
                cases = _Cases(Path(place))
                for study_id in study_ids[start : start + BLOCK]:
                    try:
                        film = source.original(study_id)
                        if film.sha256 in kept:
                            texts[study_id] = kept[film.sha256]
                        else:
                            cases.add(source.study(study_id), film.pixels, film.sha256)
                    except CXRLensError as error:
                        lacking[study_id] = str(error)
                answered = self._answers(cases) if cases.asked else {}
            texts |= answered
            unanswered = [each for each in cases.asked if each not in answered]
            lacking |= {each: f"{self.title} gave no report of study {each}." for each in unanswered}
            if progress is not None:
                progress(len(texts) + len(lacking), len(study_ids))
        found = {study_id: texts[study_id] for study_id in study_ids if study_id in texts}
        told = [
            f"{self.title}: a program wrote {len(found):,} of {len(study_ids):,} reports.",
            *islice(lacking.values(), 3),
        ]
        if len(lacking) > 3:
            told.append(f"So it is with {len(lacking) - 3:,} more.")
        return Written(found, lacking, tuple(told))

    def kept(self, source: Source, study_id: str) -> str | None:
        """The report that it wrote of this image before; None where it has not."""
        mine = self.content_hash()
        texts = {row["image"]: row["report"] for row in self._rows() if row.get("program") == mine}
        return texts.get(source.original(study_id).sha256) if texts else None

    def of_image(self, pixels: FloatImage, study: Study) -> str:
        """The report of any image (H, W) with values in [0, 1], as of one with a region covered; nothing is kept.

        Raises:
            CXRLensError: as `reports`, or it gave none.
        """
        return self.of_images([pixels], study)[0]

    def of_images(self, images: Iterable[FloatImage], study: Study) -> list[str]:
        """The reports of several images, written in one run: a program may take long to start.

        Raises:
            CXRLensError: as `reports`, or it gave none of an image.
        """
        with tempfile.TemporaryDirectory(prefix="cxr-lens-") as place:
            cases = _Cases(Path(place))
            for number, pixels in enumerate(images):
                cases.add(study if not number else replace(study, study_id=f"{study.study_id}-{number}"), pixels)
            answer = self._run(cases)
        lacking = [name for name in cases.asked if name not in answer]
        if lacking:
            raise CXRLensError(f"{self.title} gave no report of study {lacking[0]}.")
        return [answer[name] for name in cases.asked]

    def _answers(self, cases: _Cases) -> dict[str, str]:
        """Run the program, and keep what it wrote."""
        began = time.monotonic()
        answer = self._run(cases)
        seconds = round((time.monotonic() - began) / len(cases.asked), 4)
        made = {"program": self.content_hash(), "seconds": seconds}
        rows = [
            *self._rows(),
            *({"image": cases.images[each], "report": text, **made} for each, text in answer.items()),
        ]
        write_whole(self._kept, "".join(json.dumps(row) + "\n" for row in rows))
        return answer

    def _run(self, cases: _Cases) -> dict[str, str]:
        """Write the cases, run the program, and read its answer: study id -> report."""
        given, out = cases.place / "cases.json", cases.place / "reports.json"
        given.write_text(json.dumps(cases.asked), encoding="utf-8")
        self._start(self.command.filled(given, out, cases.folder), cases.place / "log.txt")
        if not out.is_file():
            raise CXRLensError(
                f"{self._what} ended well and wrote no answer: its second argument is the file to write."
            )
        try:
            answer = read_report_file(out)
        except CXRLensError as error:
            told = str(error).replace(str(out), out.name)
            raise CXRLensError(f"{self._what} answered what is no file of reports: {told}") from error
        return {name: row.text for row in answer.rows for name in row.ids[:1] if name in cases.asked}

    @property
    def _what(self) -> str:
        return f"The program of {self.title}"

    def _start(self, words: Sequence[str], log: Path) -> None:
        """Run the program to its end, or end it, with all that it started."""
        with log.open("wb") as file:
            try:
                process = subprocess.Popen(
                    words, cwd=self.command.folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise CXRLensError(f"{self._what} cannot be started: {words[0]}: {error.strerror}.") from error
            try:
                code = process.wait(self.command.timeout)
            except subprocess.TimeoutExpired:
                raise CXRLensError(
                    f"{self._what} was ended: it took more than {self.command.timeout:,.0f} seconds. Add it again with "
                    "a longer --timeout, or ask for fewer studies."
                ) from None
            finally:
                _end(process)
        if code:
            said = log.read_bytes()[-4000:].decode("utf-8", "replace").strip().splitlines()
            words_of = f" Its last words: {said[-1][:_SAID]}" if said else ""
            how = f"was ended by signal {-code}" if code < 0 else f"ended with an error (code {code})"
            raise CXRLensError(f"{self._what} {how}.{words_of}")

    def _rows(self) -> list[dict[str, str]]:
        try:
            return [row for _, row in read_json_lines(self._kept)]
        except (OSError, CXRLensError):
            return []  # nothing yet, or damaged: written again


class _Cases:
    """Studies that a run is asked about; their images go to the disk at once, for together they may fill the memory.

    Attributes:
        place: folder of the run.
        folder: of the images.
        asked: study id -> its case.
        images: study id -> hash of its image, "" where nothing is kept of it.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.folder = place, place / "images"
        self.asked: dict[str, dict[str, Any]] = {}
        self.images: dict[str, str] = {}
        self.folder.mkdir()

    def add(self, study: Study, pixels: FloatImage, sha256: str = "") -> None:
        name = f"{len(self.asked)}.png"
        Image.fromarray(grey_levels(pixels)).save(self.folder / name)
        self.asked[study.study_id], self.images[study.study_id] = case_of(study, name), sha256


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and everything that it started."""
    group = process.pid  # it leads a session of its own
    for sign in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with suppress(OSError):  # all have ended
            if hasattr(os, "killpg"):
                os.killpg(group, sign)
            else:  # of another system
                process.kill()
        if process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
