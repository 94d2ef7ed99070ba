"""What is told: results on stdout; notes, progress and warnings on stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

QUIET = "CXR_LENS_QUIET"
"""Set in the processes of stages that train side by side."""

_VERBOSITY = "CXR_LENS_VERBOSITY"
"""-1 is quiet, 1 is verbose; in the environment, for the processes that a command starts."""


def set_verbosity(level: int) -> None:
    """Say how much goes to stderr: -1 warnings and errors only, 0 also progress and notes, 1 also libraries' logs."""
    os.environ[_VERBOSITY] = str(level)
    if level < 0:
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is first imported, which is later
    logging.basicConfig(level=logging.INFO if level > 0 else logging.WARNING, stream=sys.stderr)


def is_quiet() -> bool:
    """Whether only warnings and errors go to stderr."""
    return os.environ.get(_VERBOSITY) == "-1"


def is_verbose() -> bool:
    """Whether all goes to stderr, the place where an error arose too."""
    return os.environ.get(_VERBOSITY) == "1"


def print_text(text: str) -> None:
    """Print a result."""
    typer.echo(text)


def print_result(value: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print a result: plain values as JSON, or its text."""
    print_text(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) if as_json else text())


def _plain(value: Any) -> Any:
    """As JSON has it: no tuples, no numbers of numpy, null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):  # of numpy
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def note(text: str) -> None:
    """Tell how it goes, unless the user wants it quiet; of processes that train together, only the first speaks."""
    if _speaks() and not is_quiet():
        warn(text)


def warn(text: str) -> None:
    """Tell what must be known."""
    typer.echo(text, err=True)


def has_no_bars() -> bool:
    """Whether stages train side by side, this process leaves the talking to another, or the user wants none."""
    return QUIET in os.environ or is_quiet() or not _speaks()


def _speaks() -> bool:
    if "torch" not in sys.modules:  # without it no processes train together, and it takes seconds to come
        return True
    from core import ranks

    return ranks.is_first()


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C ends work that can go on with a word about how."""
    try:
        yield
    except KeyboardInterrupt:
        if _speaks():
            warn("cxr-lens: interrupted; run the same command again to go on.")
        raise typer.Exit(130) from None


@contextmanager
def progress_bar(
    unit: str, what: str | None = None, *, hidden: bool = False
) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar for work that tells how many are done, and of how many where it knows."""
    from tqdm import tqdm  # reads TQDM_DISABLE when it is imported

    with tqdm(unit=unit, desc=what, disable=hidden or is_quiet()) as bar:

        def tell(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell
