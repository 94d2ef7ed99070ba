"""``cxr-lens table`` and ``cxr-lens study``: the paper's tables and its study of CCVE, ours beside the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.paper_tables import PaperTable, to_markdown, write_table

ROOT = Path(__file__).resolve().parent.parent
PRESETS = Path(__file__).resolve().parent / "presets"
PAPER = ROOT / "assets" / "paper"

tables = typer.Typer(no_args_is_help=True, help="The paper's tables, ours beside the paper's numbers.")
studies = typer.Typer(no_args_is_help=True, help="Studies of what encoders know.")

Preset = Annotated[str, typer.Option(help="Name of a preset in training/presets, and of its family.")]
Out = Annotated[Path, typer.Option(help="Folder of results; files go into <out>/<preset>/.")]
Bundles = Annotated[Path, typer.Option(help="Folder of bundles.", envvar="CXR_BUNDLES")]
RESULTS = ROOT / "assets" / "results"


@tables.command("1")
def table_1(
    preset: Preset = "phantom",
    results: Annotated[
        list[Path] | None,
        typer.Option(help="results.json of an evaluation; several are seeds. Default: the one beside the bundles."),
    ] = None,
    bundles: Bundles = ROOT / "assets" / "bundles",
    out: Out = RESULTS,
) -> None:
    """Reports of all pairs, with baselines, from an evaluation that is done (cxr-lens train, cxr-lens evaluate)."""
    from training import tables as made

    paths = results or [bundles / f"{preset}-results.json"]
    command = f"cxr-lens table 1 --preset {preset}" + "".join(f" --results {path}" for path in results or [])
    _finish(made.table_1([made.read_results(path) for path in paths], PAPER, command), out)


def _finish(table: PaperTable, out: Path) -> None:
    path = write_table(out, table)
    typer.echo(to_markdown(table))
    typer.echo(f"written: {path}, and beside it .csv and .md", err=True)
