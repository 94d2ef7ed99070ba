"""``cxr-lens`` as the tests run it: in this process, or in one of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

from typer.testing import CliRunner, Result

from core.types import CXRLensError
from tests.conftest import ROOT
from training.cli import app


def run(*arguments: object) -> Result:
    """Run it in this process: loading torch anew takes longer than most of these tests."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """Why it is refused."""
    result = run(*arguments)
    assert isinstance(result.exception, CXRLensError), result.exception
    return str(result.exception)


def in_its_own_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it as a user does."""
    command = [sys.executable, "-m", "training.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def setting(overrides: Iterable[str]) -> list[str]:
    """The options that change a preset."""
    return [part for each in overrides for part in ("--set", each)]
