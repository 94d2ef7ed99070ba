"""Where the files are that come with the code, and where new ones go. Nothing is ever written beside the code.

In a clone ``assets/`` stands beside the packages, in an installed wheel inside ``core`` (setup.py). What is made goes
into the working directory (runs, data, tables) or into the user's own folders (computed maps, review sessions).
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CODE = Path(__file__).resolve().parent.parent
"""Folder of the packages ``core``, ``training`` and ``dashboard``."""
_INSTALLED = CODE / "core" / "assets"
ASSETS = _INSTALLED if _INSTALLED.is_dir() or not (CODE / "assets").is_dir() else CODE / "assets"
BUNDLES = ASSETS / "bundles"
"""The demo's bundles, with their evaluations beside them."""
PAPER = ASSETS / "paper"
"""The paper's tables, typed from it."""
EXAMPLES = ASSETS / "examples"
"""Radiographs of patients that come along, with labels and boxes; its README says whose they are."""
EXPLANATIONS = ASSETS / "explain"
"""What was measured of explanations, a file a family."""
DETECTIONS = ASSETS / "detection"
"""What was measured of detection on graded phantoms, a folder a finding."""
TABLES = ASSETS / "results"
"""Our own tables, a folder a family."""

RUNS = Path("runs")
"""Run folders, in the working directory."""
NEW_DETECTIONS = Path("detections")
"""Measurements of detection that are made now, in the working directory."""
INDEX = Path("data", "openi")
"""An index of one's own studies, in the working directory."""


def new_tables() -> Path:
    """Where tables go that are made now: ``assets/results`` of a clone that one stands in, else ``results``."""
    return Path("assets", "results") if Path("assets", "results").is_dir() else Path("results")


def cache() -> Path:
    """The folder for what can be computed again: ``CXR_CACHE``, or the user's own."""
    return Path(os.environ.get("CXR_CACHE") or platformdirs.user_cache_path("cxr-lens")).resolve()


def own_data() -> Path:
    """The user's folder for what must be kept."""
    return Path(platformdirs.user_data_path("cxr-lens"))


def how_to_restore(path: Path) -> str:
    """What to do where a file is missing or damaged; of the code and what comes with it, otherwise of one's own."""
    if not Path(os.path.realpath(path)).is_relative_to(CODE):  # resolve() fails at a link to itself
        return "Restore it, or make it again."
    if (CODE / ".git").exists():
        return "It comes with the code: git checkout it."
    return "It comes with cxr-lens: install that again, with pip install --force-reinstall --no-deps cxr_lens-*.whl."
