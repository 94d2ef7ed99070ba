"""What the commands share: options of one meaning, results on stdout, notes on stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

PRESETS = Path(__file__).resolve().parent / "presets"
"""Folder of the presets that come with the code."""

Preset = Annotated[str, typer.Option(help="Name of a preset (phantom, openi, paper), or path of a TOML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a number of the preset.")
]
Bundles = Annotated[
    Path,
    typer.Option(
        help="Folder of bundles.", envvar="CXR_BUNDLES", show_default="those that come with cxr-lens", show_envvar=True
    ),
]
Runs = Annotated[Path, typer.Option(help="Folder of run folders.")]
Jobs = Annotated[int, typer.Option(min=0, help="Processes side by side; 0: one a core, or 1 with a GPU.")]
Device = Annotated[
    str,
    typer.Option(
        help="Where torch computes: auto (a GPU where there is one), cpu, cuda, cuda:1, mps.", envvar="CXR_DEVICE"
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16"], typer.Option(help="bf16 computes in bfloat16 where that is safe; reports may differ.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

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


def out(text: str) -> None:
    """Print a result."""
    typer.echo(text)


def show(value: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print a result: plain values as JSON, or its text."""
    out(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) if as_json else text())


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
    """Tell how it goes, unless the user wants it quiet."""
    if not is_quiet():
        warn(text)


def warn(text: str) -> None:
    """Tell what must be known."""
    typer.echo(text, err=True)
