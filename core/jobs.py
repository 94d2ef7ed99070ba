"""Long work as a process of its own: it can be ended at any time, and a server stays quick meanwhile.

The process works in a folder of its own, where it tells its progress and, if it fails, why. It ends with whoever
started it. What it makes goes elsewhere, by content, so a job may be lost and begun anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from core import paths
from core.files import DiskError, write_whole
from core.types import CXRLensError

Progress: TypeAlias = Callable[[float, str], None]
"""Called with the share that is done, 0 to 1, and what is being done."""

_PATIENCE = 5  # ours: seconds that a process has to end by itself


class Job:
    """A process that runs ``python -m MODULE FOLDER``, where the module calls `work`.

    Attributes:
        folder: of this job; whatever the process needs to know is in it before it starts.
        began: when, seconds of `time.monotonic`.
        cancelled: whether it was ended on purpose.
    """

    def __init__(self, module: str, folder: Path, what: str, advice: str = "Try again.") -> None:
        """Start the process.

        Args:
            module: to run.
            folder: of this job, there already.
            what: is made, for messages: "The map".
            advice: what to do where the process ends before its time.
        """
        self.folder = folder
        self.began = time.monotonic()
        self.cancelled = False
        self._what, self._advice = what, advice
        (folder / "log.txt").touch(mode=0o600)
        with (folder / "log.txt").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder)],
                cwd=paths.CODE,
                # Waiting threads sleep: spinning ones take many times as long where other work has the cores.
                env=os.environ | {"OMP_NUM_THREADS": str(os.cpu_count() or 1), "OMP_WAIT_POLICY": "PASSIVE"},
                stdin=subprocess.PIPE,  # closes when we end, however that happens; see _end_with_parent
                stdout=log,
                stderr=log,
            )

    def progress(self) -> tuple[float, str]:
        """Share that is done, 0 to 1, and what is being done."""
        try:
            share, what = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0.0, "Starting"
        return float(share), str(what)

    def done(self) -> bool:
        """Has it ended, well or not?"""
        return self._process.poll() is not None

    def cancel(self) -> None:
        """End the process, and remove its folder."""
        self.cancelled = True
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait(self) -> None:
        """Wait for its end, and remove its folder where it ended well.

        Raises:
            CXRLensError: it was cancelled, it failed, or the process ended before its time.
        """
        code = self._process.wait()
        if self.cancelled:
            raise CXRLensError(f"{self._what} was cancelled.")
        if code == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        told = self.folder / "error.txt"
        if told.is_file():
            raise CXRLensError(told.read_text(encoding="utf-8"))
        raise CXRLensError(
            f"{self._what}: the process ended before its time (code {code}); memory may have run out. "
            f"{self._advice} Its log: {self.folder / 'log.txt'}."
        )


def work(do: Callable[[Path, Progress], None]) -> None:
    """Be the process of a `Job`: do the work, and end with its message where a user can mend what is wrong.

    Args:
        do: called with the job's folder, and with what tells the progress.
    """
    folder = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()

    def tell(share: float, what: str) -> None:
        with contextlib.suppress(DiskError):  # the folder goes when the job is cancelled
            write_whole(folder / "progress.json", json.dumps([share, what]), synced=False)

    try:
        do(folder, tell)
    except CXRLensError as error:
        write_whole(folder / "error.txt", str(error))
        sys.exit(1)
    sys.exit(0)


def _end_with_parent(folder: Path) -> None:
    """End this process, and leave nothing, when the process that started it ends: our standard input closes then."""
    os.read(0, 1)  # not of sys.stdin, whose lock would stop the interpreter from ending
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
