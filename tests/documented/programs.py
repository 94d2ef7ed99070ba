"""How a documented command is run: by which program, and how far."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import cpus
from tests.conftest import ROOT
from tests.documented.place import Place
from tests.served import serving
from training.bench import speeds as bench


@dataclass(frozen=True, slots=True)
class Row:
    """How a documented command is run.

    Attributes:
        more: what is added to make it small, and to keep results in the test's folder.
        given: what stands for words that the reader replaces.
        after: the command that has to be done before, as on the page; it is run first where it was not.
        slow: whether it takes more than a few seconds.
        says: a pattern of what it answers.
        instead: runs it in another way; the argument is the documented words, the answer its output.
        as_far: why it is not run whole; "" if it is.
        needs: a mark where it needs what a machine may lack.
    """

    more: str = ""
    given: Mapping[str, Callable[[Place], object]] = field(default_factory=dict)
    after: str = ""
    slow: bool = False
    says: str = ""
    instead: Callable[[list[str], Place], str] | None = None
    as_far: str = ""
    needs: pytest.MarkDecorator | None = None


# ------------------------------------------------------------------------------------- programs other than cxr-lens


KNOWN = {"PARTS": set(bench.PARTS), "CPUS": set(cpus.VARIANTS)}
"""Values of make's variables, where they are names."""


def make(words: list[str], place: Place) -> str:
    """What a target would do; its help in earnest."""
    command = ["make", *(["-n"] if words[1:] else []), *words[1:], f"VENV={Path(sys.executable).parents[1]}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name, _, value in (each.partition("=") for each in words[2:] if "=" in each):
        assert f"$({name})" in (ROOT / "Makefile").read_text()
        if name in KNOWN:
            assert set(value.split()) <= KNOWN[name]
            assert value in done.stdout
    return done.stdout


def pip(words: list[str], place: Place) -> str:
    """Whether what is asked for is ours: the extra is declared, the file of constraints is there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rest = words[2:]
    assert words[1] == "install"
    for flag, each in zip(["", *rest], rest, strict=False):
        if flag == "-c":
            assert (ROOT / each).is_file()
        elif not each.startswith("-"):
            asked = re.fullmatch(r"(?:\.|cxr-lens)(?:\[([a-z,-]+)\])?", each)
            assert asked, each
            assert set(filter(None, (asked[1] or "").split(","))) <= set(extras), each
    return ""


def pytest_files(words: list[str], place: Place) -> str:
    """Whether the files and the names of -k are there, and options are known; the tests themselves are run by name."""
    arguments = words[words.index("pytest") + 1 :]
    files = [ROOT / each for each in arguments if each.endswith(".py")]
    tests = " ".join(each.read_text(encoding="utf-8") for each in files)
    assert files or "-m" in arguments
    flags = {"-m": 1, "-k": 1, "-s": 0, "-n0": 0, "-n": 1, "--dist": 1}
    at = 0
    while at < len(arguments):
        each = arguments[at]
        if each.startswith("-") and not each.startswith("--junitxml="):
            if each == "-k":
                assert re.search(rf"def test_\w*{arguments[at + 1].split()[0]}", tests)
            if each == "-m" and arguments[at + 1] == "slow":
                assert not files or "mark.slow" in tests
            at += flags[each]
        at += 1
    return ""


def streamlit(words: list[str], place: Place) -> str:
    """The server answers."""
    words = ["training.cli", *words[1:]] if words[0] == "cxr-lens" else words
    own = {"PYTHONPATH": str(ROOT), "CXR_REVIEWS": str(place.folder / "reviews.sqlite")}
    with serving([sys.executable, "-m", *words], ROOT, place.folder / "server.log", **own):
        return "ok"


def process(words: list[str], place: Place) -> str:
    """In a process of its own: torchrun, a module of ours, or cxr-lens where it becomes another program."""
    if words[0] == "cxr-lens":
        words = ["python", "-m", "training.cli", *words[1:]]
    if words[0] == "torchrun":
        words = ["python", "-m", "torch.distributed.run", *words[1:]]
    assert words[0] == "python"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = ROOT if words[2].startswith("tests.") else place.folder
    command = [sys.executable, *words[1:]]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def elsewhere(words: list[str], place: Place) -> str:
    """Nothing: the row says where it is run."""
    return ""


def there(words: list[str], place: Place) -> str:
    """Whether the module is there."""
    assert importlib.util.find_spec(words[words.index("-m") + 1])
    return ""


def labels_anew(words: list[str], place: Place) -> str:
    """The stored labels of a copy of the demo's reports."""
    copied = str(shutil.copy(ROOT / "assets/bundles/phantom-reports.jsonl", place.folder / "phantom-reports.jsonl"))
    (code,) = words[words.index("-c") + 1 :]
    assert "assets/bundles/phantom-reports.jsonl" in code
    exec(code.replace("assets/bundles/phantom-reports.jsonl", copied), {})
    return ", ".join(each.name for each in place.folder.glob("phantom-labels*"))


def under_srun(words: list[str], place: Place) -> str:
    """What srun would start, as the only task."""
    inner = words[words.index("cxr-lens") :]
    assert all(each.startswith("--") for each in words[1 : words.index("cxr-lens")])
    return process(inner, place)


def _words(**given: Callable[[Place], object]) -> dict[str, Callable[[Place], object]]:
    return given
