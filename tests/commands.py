"""``cxr-lens`` as the tests run it: in this process, or in one of its own."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from typer.testing import CliRunner, Result

from core.types import CXRLensError
from tests.conftest import ROOT
from training.cli import app, main


def run(*arguments: object) -> Result:
    """Run it in this process: loading torch anew takes longer than most of these tests."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """Why it is refused."""
    result = run(*arguments)
    assert isinstance(result.exception, CXRLensError), result.exception
    return str(result.exception)


def cxr_lens(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it in this process as it is started from a terminal: errors are words and an exit status."""
    out, err = io.StringIO(), io.StringIO()
    words = ["cxr-lens", *map(str, arguments)]
    with patch.object(sys, "argv", words), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def in_its_own_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it as a user does."""
    command = [sys.executable, "-m", "training.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def setting(overrides: Iterable[str]) -> list[str]:
    """The options that change a preset."""
    return [part for each in overrides for part in ("--set", each)]
