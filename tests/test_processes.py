"""Processes that end with the work, or with whoever asked, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from core.processes import worker_pool
from tests.conftest import ROOT

PATIENCE = 60  # seconds; other work may be going on
SCRIPT = """
import os, sys, time
from collections.abc import Callable
from pathlib import Path
from core.processes import worker_pool

def work(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    with worker_pool(2, start=sys.argv[2] or None) as pool:
        list(pool.map(work, [sys.argv[1]] * 4))
"""


def until(wanted: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not wanted():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.mark.parametrize("start", ["spawn", ""])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_command_that_began_them(tmp_path: Path, how: signal.Signals, start: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "workers"
    folder.mkdir()
    command = subprocess.Popen([sys.executable, script, folder, start], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        until(lambda: len(list(folder.iterdir())) == 2, "the workers never began")
        workers = [psutil.Process(int(each.name)) for each in folder.iterdir()]
        command.send_signal(how)
        command.wait(PATIENCE)
        until(lambda: not any(each.is_running() and each.status() != "zombie" for each in workers), "a worker works on")
    finally:
        command.kill()
    assert len(list(folder.iterdir())) == 2  # none began what was still waiting


def fail_or_sleep(number: int) -> int:
    if number == 1:
        raise ValueError("the second")
    time.sleep(600 if number else 0)
    return number


def test_an_error_ends_the_others_at_once_and_is_told() -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="the second"), worker_pool(3, start=None) as pool:
        waiting = [pool.submit(fail_or_sleep, number) for number in range(6)]
        assert waiting[0].result() == 0
        waiting[1].result()
    assert time.monotonic() - began < PATIENCE


def begin() -> None:
    os.environ["BEGUN"] = "yes"


def test_each_process_begins_as_it_is_told_and_results_come_in_order() -> None:
    with worker_pool(2, start=None, begin=begin) as pool:
        assert list(pool.map(os.getenv, ["BEGUN"] * 4)) == ["yes"] * 4
        assert list(pool.map(abs, [-3, 2, -1])) == [3, 2, 1]


LASTING = """
import sys, time
from pathlib import Path
from core.processes import lasting_pool
from tests.test_processes import mark
Path(sys.argv[1], "main").open("a").write("ran ")
pool = lasting_pool(1, idle=float(sys.argv[2]), begin=(mark, sys.argv[1]))
pool.submit(str).result()
time.sleep(600)
"""


def mark(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()


@pytest.mark.parametrize("idle", [600.0, 3.0])
def test_a_lasting_process_ends_with_its_parent_or_without_work_and_never_runs_its_script(
    tmp_path: Path, idle: float
) -> None:
    script = tmp_path / "script.py"
    script.write_text(LASTING)  # not guarded by __name__, as a page of Streamlit is not
    (folder := tmp_path / "marks").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen([sys.executable, script, folder, str(idle)], env=environment)
    try:
        until(lambda: len(list(folder.glob("[0-9]*"))) == 1, "the process never began")
        worker = psutil.Process(int(next(folder.glob("[0-9]*")).name))
        if idle > 60:
            server.kill()
            server.wait()
        until(lambda: not worker.is_running() or worker.status() == "zombie", "it works on")
    finally:
        server.kill()
    assert (folder / "main").read_text() == "ran "
