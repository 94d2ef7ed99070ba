"""In: a number of processes. Out: a pool of them that ends with whoever asked, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

_LOOK = 1.0
"""Seconds between two looks at whether the process that asked still runs."""


@contextmanager
def worker_pool(
    processes: int, *, start: str | None = "spawn", begin: Callable[[], None] | None = None
) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end when this does: at an error or Ctrl-C at once, and also where this process is killed.

    What they were at then is lost, so a task writes its file whole, at its end.

    Args:
        processes: at most.
        start: how they are started, "spawn" where tasks use torch, whose threads do not survive a fork; None as the
            system does by default, which is quicker.
        begin: called in each process before its first task; a function of a module.
    """
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context(start), initializer=_begin, initargs=(begin or _nothing,)
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(multiprocessing.active_children()) - before:
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def lasting_pool(processes: int, *, idle: float, begin: tuple[Any, ...]) -> Any:
    """A pool for a server, whose processes start when there is work, and end when there was none for a while.

    Of loky, not of the standard library, whose processes would run the script that this one shows (Streamlit puts the
    page that runs in the place of the main module) and never end before the pool does.

    Args:
        processes: at most.
        idle: seconds without work after which a process ends.
        begin: a function of a module and its arguments, called in each process before its first task.

    Returns:
        loky's ``ProcessPoolExecutor``, with ``submit`` and ``shutdown`` as the standard library's.
    """
    from joblib.externals.loky.process_executor import (  # type: ignore[import-untyped]
        ProcessPoolExecutor as LokyExecutor,
    )

    return LokyExecutor(processes, timeout=idle, initializer=_begin_lasting, initargs=(os.getpid(), *begin))


def _nothing() -> None:
    pass


def _begin_lasting(parent: int, begin: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    begin(*arguments)


def _leave_with(parent: int) -> None:
    """As `_leave_with_parent`; of loky's processes Python does not know the parent."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def _begin(begin: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal; whoever asked ends these
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    begin()


def _leave_with_parent() -> None:
    """End this process when the one that began it is gone: an orphan would work on, and write beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
