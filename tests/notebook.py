"""Run docs/notebook.ipynb in an empty folder: `make notebook` keeps what it shows, a test compares with it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
EXACT = "exact"
"""Tag of a cell whose text is the same on every processor."""


def read() -> Any:
    """The notebook as it is kept."""
    return nbformat.read(NOTEBOOK, as_version=4)


def run(notebook: Any, folder: Path) -> None:
    """Run all cells of a notebook in a folder; what they show replaces what was there.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the message has its traceback.
    """
    own = {name: str(folder / ".jupyter") for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR")}
    # The kernel finds the code that is tested, whatever is installed, and computes with one thread, as the pages do.
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with patch.dict(os.environ, own | {"PYTHONPATH": path, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}):
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()


def outputs(cell: Any) -> dict[str, str]:
    """What a cell shows, by kind: "stdout", "stderr", or a MIME type."""
    found: dict[str, str] = {}
    for each in cell.get("outputs", ()):
        shown = {each["name"]: each["text"]} if each["output_type"] == "stream" else each.get("data", {})
        for kind, content in shown.items():
            found[kind] = found.get(kind, "") + "".join(content)
    return found


def main() -> None:
    """Run the notebook and keep what it shows, without times and without this machine's names."""
    notebook = read()
    with tempfile.TemporaryDirectory() as folder:
        run(notebook, Path(folder))
    for number, cell in enumerate(each for each in notebook.cells if each.cell_type == "code"):
        cell.metadata = {name: value for name, value in cell.metadata.items() if name == "tags"}
        cell.execution_count = number + 1
        for each in cell.outputs:
            if "execution_count" in each:
                each["execution_count"] = number + 1
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
