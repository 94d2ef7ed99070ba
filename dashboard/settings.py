"""Where the dashboard finds its files, from the environment."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def bundles() -> Path:
    """Folder of model bundles: CXR_BUNDLES, or the demo bundles of the repository."""
    return Path(os.environ.get("CXR_BUNDLES") or REPOSITORY / "assets" / "bundles")


def runs() -> Path | None:
    """Folder of further evaluations, each a folder with results.json and reports.jsonl: CXR_RUNS."""
    return Path(os.environ["CXR_RUNS"]) if os.environ.get("CXR_RUNS") else None


def threads() -> int:
    """Threads of one inference: CXR_THREADS, or 1.

    One is right for tiny models, whose threads would mostly wait for each other. Give paper-size bundles as many as
    there are cores.
    """
    return max(int(os.environ.get("CXR_THREADS") or 1), 1)


def paper_tables() -> Path:
    """Folder of the paper's tables as CSV."""
    return REPOSITORY / "assets" / "paper"


def roles() -> Path:
    """Who may do what in review sessions on a server: CXR_ROLES, or ``roles.toml`` beside Streamlit's secrets."""
    return Path(os.environ.get("CXR_ROLES") or REPOSITORY / ".streamlit" / "roles.toml")


def index() -> Path | None:
    """Folder of an index of the user's own studies, for review sessions: CXR_INDEX, or data/openi if it is there."""
    folder = Path(os.environ.get("CXR_INDEX") or REPOSITORY / "data" / "openi")
    return folder if os.environ.get("CXR_INDEX") or (folder / "index.json").is_file() else None


def explanations() -> Path:
    """Folder of what was measured of explanations, a file a family."""
    return REPOSITORY / "assets" / "explain"


def result_tables() -> Path:
    """Folder of our own tables, as `cxr-lens table` writes them, a folder a family: CXR_TABLES."""
    return Path(os.environ.get("CXR_TABLES") or REPOSITORY / "assets" / "results")
