"""The command line: ``cxr-lens``. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.types import CXRLensError
from training.commands import data as data_commands
from training.commands import explain as explain_command
from training.commands import fine as fine_commands
from training.commands import label as label_command
from training.commands import review as review_commands
from training.commands import tables as table_commands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.stages.run import Run

ROOT = Path(__file__).resolve().parent.parent
PRESETS = Path(__file__).resolve().parent / "presets"
BUNDLES = ROOT / "assets" / "bundles"
RESEARCH_ONLY = "Research use only. Not for use in diagnostic procedures."

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(data_commands.app, name="data")
app.add_typer(review_commands.app, name="review")
app.add_typer(table_commands.tables, name="table")
app.add_typer(table_commands.studies, name="study")
app.command()(table_commands.paper)
app.command()(label_command.label)
app.command()(label_command.label_quality)
fine_commands.register(app)
app.command()(explain_command.explain_benchmark)

Preset = Annotated[str, typer.Option(help="Name of a preset in training/presets.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a number of the preset.")
]
Bundles = Annotated[Path, typer.Option(help="Folder of bundles.", envvar="CXR_BUNDLES")]
Runs = Annotated[Path, typer.Option(help="Folder of run folders.")]
Seeds = Annotated[
    int, typer.Option(min=1, help="Trainings, each with the next seed; more than one give mean and spread.")
]
Jobs = table_commands.Jobs


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Studies.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed; the same seed gives the same studies.")] = 0,
    size: Annotated[int, typer.Option(min=32, max=2048, help="Side of the images, pixels.")] = 512,
) -> None:
    """Write phantom studies: images, masks, reports, facts, splits. Interrupted, it goes on where it stopped."""
    from tqdm import tqdm

    from core.studies.phantom import write_phantom

    with tqdm(total=count, unit="study") as bar:
        write_phantom(out, count, seed, size, lambda done, _: bar.update(done - bar.n))
    _out(f"{count} phantom studies in {out}")


@app.command()
def train(
    preset: Preset,
    overrides: Overrides = None,
    runs: Runs = ROOT / "runs",
    bundles: table_commands.NewBundles = None,
    jobs: Jobs = 0,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Processes a node, each with a GPU of its own, or on the CPU.")
    ] = None,
    num_nodes: Annotated[
        int | None, typer.Option(min=1, help="Machines; start the command on each: docs/scale.md.")
    ] = None,
    accelerator: Annotated[
        Literal["auto", "cpu", "gpu"], typer.Option(help="auto takes GPUs where there are some.")
    ] = "auto",
    seeds: Seeds = 1,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved configuration and stop.")] = False,
) -> None:
    """Run the whole chain of a preset; stages that are done are skipped, an interrupted one resumes.

    Several processes, started by --devices, torchrun or srun, share each stage's batches and give the same result.
    """
    from core import ranks
    from core.config import load_config, to_dict

    config = load_config(PRESETS, preset, overrides or [])
    if dry_run:
        _out(json.dumps(to_dict(config), indent=2))
        return
    from training.launch import automatic_jobs, place
    from training.paper.chain import run_chain, runs_of

    table_commands.refuse_one_folder(bundles, seeds)
    chosen = runs_of(config, seeds, runs, place(accelerator, devices, num_nodes))
    for run in chosen:
        with table_commands.resumable():
            scores = run_chain(run, bundles or run.folder / "bundles", jobs or automatic_jobs())
        if ranks.is_first():
            _out((scores / "table.md").read_text(encoding="utf-8"))
    if seeds > 1 and ranks.is_first():
        _mean_of_seeds(chosen, runs, table_commands.again("train", preset, overrides, seeds))


@app.command()
def plan(
    preset: Preset,
    overrides: Overrides = None,
    tera: Annotated[
        float, typer.Option(min=0.001, help="10^12 operations a second that a GPU really does; assumed, not measured.")
    ] = 60.0,
    devices: Annotated[int, typer.Option(min=1, help="GPUs.")] = 1,
    cores: Annotated[int, typer.Option(min=1, help="CPU cores that read images and label reports.")] = 16,
) -> None:
    """Compute what a preset costs on MIMIC-CXR: bytes, hours and GPU memory of each stage (docs/scale.md)."""
    from core.config import load_config
    from training.plan import MIMIC_CXR, stages, table, table_stages

    config = load_config(PRESETS, preset, overrides or [])
    _out(table(stages(config), table_stages(config), config, MIMIC_CXR, tera, devices, cores))


@app.command()
def evaluate(
    preset: Preset,
    overrides: Overrides = None,
    bundles: Bundles = BUNDLES,
    runs: Runs = ROOT / "runs",
    out: Annotated[Path | None, typer.Option(help="Also write results.json, table.md and all reports here.")] = None,
    jobs: Jobs = 0,
    seeds: Seeds = 1,
) -> None:
    """Score a preset's bundles on held-out studies and print the table with its baselines.

    With several seeds: the bundles of their run folders, and Table 1 as mean and spread.
    """
    from core.config import load_config
    from training.evaluate import evaluate as score
    from training.evaluate import table
    from training.launch import automatic_jobs
    from training.paper.chain import runs_of
    from training.runs import use_threads_for

    chosen = runs_of(load_config(PRESETS, preset, overrides or []), seeds, runs)
    use_threads_for(chosen[0].config.size)
    data, jobs = chosen[0].data, jobs or automatic_jobs()
    if seeds == 1:
        _out(table(score(chosen[0].config, data, bundles, out, jobs)))
        return
    for run in chosen:
        _out(table(score(run.config, data, run.folder / "bundles", run.folder / "evaluate", jobs)))
    _mean_of_seeds(chosen, runs, table_commands.again("evaluate", preset, overrides, seeds))


@app.command()
def report(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG or DICOM file.")],
    bundle: Annotated[
        list[str] | None, typer.Option("--bundle", help="Name of a bundle; may come again. Default: all.")
    ] = None,
    bundles: Bundles = BUNDLES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    beam_size: Annotated[
        int | None, typer.Option(min=1, help="Hypotheses kept; 1 is greedy. Default: as the bundle's card says.")
    ] = None,
) -> None:
    """Write the report of one radiograph with one or more bundles."""
    from core.bundles.inference import write_reports
    from core.bundles.library import INTENDED_USE, BundleLibrary
    from core.labels.rules import label_report
    from core.studies.images import read_image
    from training.runs import use_threads_for

    radiograph = read_image(image, name=image.name)
    for warning in radiograph.warnings:
        _err(f"warning: {warning}")
    library = BundleLibrary(bundles)
    names = bundle or [card.name for card in library.cards()]
    if not names:
        raise CXRLensError(f"There is no bundle in {bundles}.")
    models = [library.load(name) for name in names]
    for model in models:
        use_threads_for(model.card.size)
    results: list[dict[str, Any]] = []
    for name, written in write_reports(models, radiograph.pixels, beam_size=beam_size):
        card = library.load(name).card
        states = label_report(written.text).states
        found = {observation: str(state) for observation, state in states.items() if state != "blank"}
        results.append(
            {
                "bundle": name,
                "trained_on": card.data["description"],
                "findings": written.text,
                "labels": found,
                "log_probability": round(written.log_probability, 4),
            }
        )
        if not as_json:
            _out(f"{name} (trained on: {card.data['description']})\n  {written.text}\n")
    if as_json:
        _out(json.dumps({"image": image.name, "intended_use": INTENDED_USE, "reports": results}, indent=2))
    else:
        _out(RESEARCH_ONLY)


@app.command(name="bundles")
def list_bundles(
    bundles: Bundles = BUNDLES,
    verify: Annotated[bool, typer.Option(help="Recompute each bundle's stored output; exit 1 if any differs.")] = False,
) -> None:
    """List bundles, and what is wrong with any of them."""
    from core.bundles.library import BundleError, BundleLibrary

    library = BundleLibrary(bundles)
    problems = library.problems()
    for card in library.cards():
        line = f"{card.name:32} {card.size:6} trained on {card.data['name']}, {card.data['studies']['train']} studies"
        if verify and card.name not in problems:
            try:
                line += f"   verified, largest difference {library.verify(card.name):.1e}"
            except BundleError as error:
                problems[card.name] = str(error)
        _out(line)
    for name, message in problems.items():
        _err(f"{name}: {message}")
    if not library.cards() and not problems:
        _err(f"There is no bundle in {bundles}.")
        raise typer.Exit(1)
    if problems:
        raise typer.Exit(1)


def _mean_of_seeds(chosen: Sequence[Run], runs: Path, command: str) -> None:
    from core.paper.tables import to_markdown, write_table
    from training.paper.tables import read_results, table_1

    results = [read_results(run.folder / "evaluate" / "results.json") for run in chosen]
    table = table_1(results, table_commands.PAPER, command)
    path = write_table(runs / chosen[0].config.name / "tables", table)
    _out(to_markdown(table))
    _err(f"written: {path}, and beside it .csv and .md")


def _out(text: str) -> None:
    typer.echo(text)


def _err(text: str) -> None:
    typer.echo(text, err=True)


def main() -> None:
    """Run; an error the user can mend is one line, not a traceback."""
    try:
        app()
    except CXRLensError as error:
        _err(f"cxr-lens: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
