"""Run attacks, and print what became of them as rows of a table: ``python -m tests.attacks [KIND ...]``."""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.attacks import Tally

KINDS = {
    "bundles": 20,
    "files": 150,
    "caches": 0,
    "runs": 0,
    "dumps": 0,
    "databases": 0,
    "requests": 0,
    "kills": 0,
    "texts": 0,
}
"""Kinds of attacks, with the number of changes of single values of each JSON file."""


def row(tally: Tally, kind: str) -> str:
    """A row of docs/trust.md."""
    numbers = f"{tally.tried:,} | {tally.refused:,} | {tally.right:,} | {len(tally.wrong):,}"
    return f"| {tally.kind} | {numbers} | `python -m tests.attacks {kind}` |"


def main() -> int:
    """Run the kinds that are named, or all."""
    print("| kind | tried | refused | right | wrong | command |\n|---|---:|---:|---:|---:|---|")  # noqa: T201
    logging.disable(logging.CRITICAL)  # Streamlit's, that there is no browser
    failed = 0
    for kind in sys.argv[1:] or KINDS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="cxr-lens-attacks-") as folder:
            tally = importlib.import_module(f"tests.attacks.{kind}").run(Path(folder), KINDS[kind])
        print(row(tally, kind), flush=True)  # noqa: T201
        print(f"{time.monotonic() - began:.0f} s", *tally.wrong, sep="\n  ", file=sys.stderr)  # noqa: T201
        failed += len(tally.wrong)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
