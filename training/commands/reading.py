"""The command ``cxr-lens reading``: how the reports of a file read, beside what they find."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.console import print_result
from training.options import AsJson


def reading(
    file: Annotated[Path, typer.Argument(help="Reports as `cxr-lens write` or `cxr-lens evaluate --out` writes them.")],
    as_json: AsJson = False,
) -> None:
    """Count what no reader writes, or seldom, in the reports of a file: unknown words, fragments, repeated denials."""
    from core.evaluation.reports import read_texts
    from core.evaluation.scoring import reading as shares
    from training.evaluation_text import reading_table

    found = {name: shares(texts) for name, texts in read_texts(file).items()}
    print_result(found, as_json, lambda: "\n".join(reading_table(found)))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reading)
