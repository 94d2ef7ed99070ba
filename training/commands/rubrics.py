"""The commands ``cxr-lens review rubric``: which rubrics there are, and whether a file is one. See docs/reviews.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.console import print_result, print_text, warn
from training.options import AsJson

app = typer.Typer(no_args_is_help=True, help="What readers are asked: files of questions.")


@app.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """List the rubrics: those of CXR Lens, and your own."""
    from core.reviews.rubric_library import own_rubrics, shipped_rubrics

    own, wrong = own_rubrics()
    found = {**shipped_rubrics(), **own}
    for fault in wrong:
        warn(f"note: {fault}")
    rows = [
        {
            "name": each.name,
            "title": each.title,
            "about": each.about,
            "questions": len(each.questions),
            "own": each.name in own,
        }
        for each in found.values()
    ]
    print_result(rows, as_json, lambda: "\n".join(f"{row['name']:24} {row['about']}" for row in rows))


@app.command()
def show(name: Annotated[str, typer.Argument(help="Of a rubric.")]) -> None:
    """Print the file of a rubric, to begin a new one from."""
    from core.reviews.rubric_library import find_rubric

    print_text(find_rubric(name).text.rstrip())


@app.command()
def check(path: Annotated[Path, typer.Argument(help="A rubric: a TOML file.")]) -> None:
    """Check a file, and tell what it asks; what is wrong is told in a sentence each."""
    from core.reviews.rubric_library import read_file

    rubric = read_file(path)
    print_text(f"{path}: {rubric.name}, {rubric.title}, {len(rubric.questions)} questions")
    for each in rubric.questions:
        more = f", {len(each.items)} items" if each.items else ""
        when = (
            f", if {each.when.question} is {' or '.join(map(str, each.when.answers)) or 'answered'}"
            if each.when
            else ""
        )
        needed = "" if each.required else ", may stay open"
        print_text(f"  {each.id}: {each.kind} of the {each.of}{more}{when}{needed}")
