"""The command line: ``cxr-lens``. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from core import __version__, paths
from core.paths import BUNDLES, PAPER, RUNS
from core.types import CXRLensError, Split
from core.wording import counted
from training import console
from training.commands import cards as cards_command
from training.commands import dashboard as dashboard_command
from training.commands import data as data_commands
from training.commands import detect as detect_command
from training.commands import embed as embed_command
from training.commands import explain as explain_command
from training.commands import exports as export_commands
from training.commands import fine as fine_commands
from training.commands import gate as gate_commands
from training.commands import imports as import_commands
from training.commands import label as label_command
from training.commands import reading as reading_command
from training.commands import review_people as review_commands
from training.commands import systems as system_commands
from training.commands import tables as table_commands
from training.commands import trust as trust_command
from training.commands import write as write_command
from training.commands.evaluate import score_source
from training.console import print_result, print_text, progress_bar, resumable, warn
from training.options import (
    Accelerator,
    AsJson,
    BeamSize,
    BundleNames,
    Bundles,
    Device,
    Devices,
    Folder,
    Jobs,
    NewBundles,
    Nodes,
    OptionalPreset,
    Overrides,
    PhantomCount,
    Precision,
    Preset,
    Runs,
    Seed,
    Seeds,
    checkpoint_option,
    given_by_user,
    read_preset,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.stages.run import Run

RESEARCH_ONLY = "Research use only. Not for use in diagnostic procedures."
ORDER = (
    *("report", "dashboard", "bundles", "write", "embed", "review"),
    *("evaluate", "reading", "label", "explain-benchmark", "detect"),
    *("systems", "import", "rexrank", "export"),
    *("card", "gate", "trust", "data", "phantom"),
    *(
        "plan",
        "train",
        "table",
        "study",
        "paper",
        "label-quality",
        "fine-labels",
        "fine-quality",
        "clusters",
        "agreement",
        "rewrite-cards",
    ),
)
"""Commands as a person comes to need them: reports, then scores, own data, training, studies."""


class InOrder(TyperGroup):
    """Lists commands in `ORDER`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands."""
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=f"Chest X-ray reports from encoder-decoder pairs, side by side and explained. {RESEARCH_ONLY}",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_commands.app, name="data")
app.add_typer(review_commands.app, name="review")
app.add_typer(table_commands.tables, name="table")
app.add_typer(table_commands.studies, name="study")
app.command()(table_commands.paper)
app.add_typer(system_commands.app, name="systems")
app.add_typer(import_commands.app, name="import")
app.add_typer(export_commands.app, name="export")
app.command()(write_command.write)
app.command()(system_commands.rexrank)
app.command()(embed_command.embed)
app.command()(detect_command.detect)
app.command()(gate_commands.gate)
table_commands.studies.command("gate")(gate_commands.study_gate)
app.command()(trust_command.trust)
app.command()(label_command.label)
app.command()(label_command.label_quality)
fine_commands.register(app)
reading_command.register(app)
cards_command.register(app)
app.command()(explain_command.explain_benchmark)
dashboard_command.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_text(f"cxr-lens {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and stop.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also what libraries log, and where an error arose.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no notes; only warnings and errors.")
    ] = False,
) -> None:
    """What all commands share."""
    if verbose and quiet:
        raise CXRLensError("--verbose and --quiet ask for opposite things. Give one of them.")
    console.set_verbosity(verbose - quiet)


@app.command()
def phantom(
    out: Folder,
    count: PhantomCount = 2000,
    seed: Seed = 0,
    size: Annotated[int, typer.Option(min=32, max=2048, help="Side of the images, pixels.")] = 512,
) -> None:
    """Write phantom studies: images, masks, reports, facts, splits. Interrupted, it goes on where it stopped."""
    from core.studies.phantom import write_phantom

    with progress_bar("study") as tell:
        write_phantom(out, count, seed, size, tell)
    print_text(f"{count} phantom studies in {out}")


@app.command()
def train(
    preset: Preset,
    overrides: Overrides = None,
    runs: Runs = RUNS,
    bundles: NewBundles = None,
    jobs: Jobs = 0,
    devices: Devices = None,
    num_nodes: Nodes = None,
    accelerator: Accelerator = "auto",
    seeds: Seeds = 1,
    as_json: AsJson = False,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved configuration and stop.")] = False,
) -> None:
    """Run the whole chain of a preset; stages that are done are skipped, an interrupted one resumes.

    Several processes, started by --devices, torchrun or srun, share each stage's batches and give the same result.
    """
    from core import ranks
    from core.config import to_dict

    config = read_preset(preset, overrides)
    if dry_run:
        print_text(json.dumps(to_dict(config), indent=2))
        return
    from training.launch import automatic_jobs, leave, place
    from training.paper.chain import run_chain, runs_of

    table_commands.refuse_one_folder(bundles, seeds)
    placement = place(accelerator, devices, num_nodes)
    chosen, jobs = runs_of(config, seeds, runs, placement), jobs or automatic_jobs(placement.device)
    for run in chosen:
        with resumable():
            scores = run_chain(run, bundles or run.folder / "bundles", jobs)
        if ranks.is_first() and not as_json:
            print_text((scores / "table.md").read_text(encoding="utf-8"))
    if ranks.is_first():
        _finish_seeds(chosen, runs, table_commands.again("train", preset, overrides, seeds), as_json)
    leave()


@app.command()
def plan(
    preset: Preset,
    overrides: Overrides = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=0.0001,
            help="TFLOPS that a GPU, or a core, really reaches.",
            show_default="60 a GPU at size paper, assumed; below it what a core here reaches, measured",
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs of all machines together, or cores that train.", show_default="1, or all cores"),
    ] = None,
    cores: Annotated[int, typer.Option(min=1, help="CPU cores that read images and label reports.")] = 16,
    as_json: AsJson = False,
) -> None:
    """Compute what a preset costs: bytes, hours and memory of each stage (docs/scale.md).

    Studies are counted where they are at hand and labelled; else numbers published of their source are taken.
    """
    config = read_preset(preset, overrides)  # before torch comes, which takes seconds
    from training.launch import automatic_jobs
    from training.plan import costs, measured_tflops, plan_markdown, stages, table_stages
    from training.stages.counts import counts_of

    counts, on_cpu = counts_of(config), config.size != "paper"
    rate = tflops or (measured_tflops(config) if on_cpu else 60.0)
    workers = gpus or (automatic_jobs("cpu") if on_cpu else 1)
    rows, more = stages(config, counts), table_stages(config, counts)
    found = costs(rows, more, config, counts, rate, workers, cores, on_cpu=on_cpu)
    print_result(found, as_json, lambda: plan_markdown(found))


@app.command()
def evaluate(
    context: typer.Context,
    preset: OptionalPreset = None,
    overrides: Overrides = None,
    bundles: Bundles = BUNDLES,
    runs: Runs = RUNS,
    out: Annotated[Path | None, typer.Option(help="Also write results.json, table.md and all reports here.")] = None,
    jobs: Jobs = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    seeds: Seeds = 1,
    reports: Annotated[
        list[str] | None,
        typer.Option("--reports", metavar="NAME=FILE", help="Also score a file of reports; may come again."),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option("--system", help="Also score a system that was added, or another bundle; may come again."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Instead of a preset: the studies of a source, kept for the pages to show.")
    ] = None,
    split: Annotated[Split | None, typer.Option(help="With --source: only these studies.")] = None,  # type: ignore[valid-type]
    scores: Annotated[
        Path | None, typer.Option(help="Scores of other programs: CSV with study, system, and a column a metric.")
    ] = None,
    labeler: Annotated[Literal["rules", "chexbert"], typer.Option(help="Which labeler.")] = "rules",
    checkpoint: Annotated[Path | None, checkpoint_option()] = None,
    as_json: AsJson = False,
) -> None:
    """Score a preset's bundles on held-out studies, beside other systems, and print the table with its baselines.

    With several seeds: the bundles of their run folders, and Table 1 as mean and spread.
    """
    if (preset is None) is (source is None):
        raise CXRLensError("Which studies? Give a preset (--preset) or a source of studies (--source): one of the two.")
    if scores is not None:
        from core.evaluation.outside import score_columns

        score_columns(scores)  # what is wrong with it is said now, not when all is written
    if source is not None:
        if reports or seeds > 1 or out or labeler != "rules":
            raise CXRLensError(
                "With --source, --reports, --seeds, --out and --labeler are not known. Add files first (`cxr-lens "
                "systems add NAME FILE`), then name them with --system."
            )
        score_source(source, split, bundles, system or (), scores, as_json)
        return
    config = read_preset(str(preset), overrides)
    from core.devices import open_device
    from training.evaluate import cards_of
    from training.evaluate import evaluate as score
    from training.evaluation_text import evaluation_markdown
    from training.launch import automatic_jobs
    from training.paper.chain import runs_of
    from training.scores import keep_scores, read_labeler, read_others, scores_markdown
    from training.threads import use_threads_for

    table_commands.refuse_one_folder(out, seeds, "--out")
    if given_by_user(context, "bundles"):
        table_commands.refuse_one_folder(bundles, seeds)
    where = str(open_device(device))
    reads = read_labeler(labeler, checkpoint, where)
    chosen = runs_of(config, seeds, runs)
    use_threads_for(chosen[0].config.size)
    data, jobs = chosen[0].data, jobs or automatic_jobs(where)
    for run in chosen if seeds > 1 else ():
        cards_of(config.name, run.folder / "bundles")  # missed now, not when the seeds before it are scored
    if seeds == 1:
        pairs = [card.name for card in cards_of(config.name, bundles)]
        others = read_others(reports or (), system or (), pairs, bundles)
        results = score(chosen[0].config, data, bundles, out, jobs, others, reads, device=where, precision=precision)
        print_result(results, as_json, lambda: evaluation_markdown(results))
        if scores is not None:
            from core.evaluation.outside import read_scores

            studies = data.studies["test"][: config.evaluate_studies or None]
            found = read_scores(scores, [each.study_id for each in studies], [row["name"] for row in results["rows"]])
            if not as_json:
                print_text(scores_markdown(found, [each.subject_id for each in studies], scores.name))
            if out is not None:
                keep_scores(scores, out)
        return
    if reports or system or scores:
        raise CXRLensError("--reports, --system and --scores go with one seed: leave out --seeds.")
    for run in chosen:
        folder, into = run.folder / "bundles", run.folder / "evaluate"
        results = score(run.config, data, folder, into, jobs, labeler=reads, device=where, precision=precision)
        if not as_json:
            print_text(evaluation_markdown(results))
    _finish_seeds(chosen, runs, table_commands.again("evaluate", str(preset), overrides, seeds), as_json)


@app.command()
def report(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG or DICOM file.")],
    bundle: BundleNames = None,
    bundles: Bundles = BUNDLES,
    as_json: AsJson = False,
    beam_size: BeamSize = None,
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Write the report of one radiograph with one or more bundles."""
    from core.bundles.card import INTENDED_USE, no_bundle
    from core.bundles.inference import write_reports
    from core.bundles.library import BundleLibrary
    from core.labels.rules import label_report
    from core.studies.images import read_image
    from core.studies.model_image import of_image
    from core.views import view_in_words
    from training.threads import use_threads_for

    radiograph = read_image(image, name=image.name)
    library = BundleLibrary(bundles, device, precision)
    names = bundle or [card.name for card in library.cards()]
    if not names:
        raise no_bundle(bundles)
    models = [library.load(name) for name in names]
    notes = [*radiograph.warnings, *(model.card.fit_note for model in models if model.card.fit_note)]
    if not as_json:
        print_text(f"{image.name}: {view_in_words(radiograph.view) or 'the file does not tell the view'}\n")
    for note in notes:
        if as_json:
            warn(f"note: {note}")
        else:
            print_text(f"Note: {note}\n")
    for model in models:
        use_threads_for(model.card.size)
    results: list[dict[str, Any]] = []
    for name, written in write_reports(models, of_image(radiograph.pixels), beam_size=beam_size):
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
                "warnings": list(written.warnings),
            }
        )
        if not as_json:
            said = "".join(f"  Warning: {each}\n" for each in written.warnings)
            print_text(f"{name} (trained on: {card.data['description']})\n{said}  {written.text}\n")
    if as_json:
        about = {
            "image": image.name,
            "view": radiograph.view or None,
            "pixel_spacing_mm": radiograph.pixel_spacing,
            "notes": notes,
            "intended_use": INTENDED_USE,
            "reports": results,
        }
        print_text(json.dumps(about, indent=2))
    else:
        print_text(RESEARCH_ONLY)


@app.command(name="bundles")
def list_bundles(
    bundles: Bundles = BUNDLES,
    verify: Annotated[bool, typer.Option(help="Recompute each bundle's stored output; exit 1 if any differs.")] = False,
    as_json: AsJson = False,
) -> None:
    """List bundles, and what is wrong with any of them."""
    from core.bundles.card import BundleError, no_bundle
    from core.bundles.library import BundleLibrary

    library = BundleLibrary(bundles)
    problems = library.problems()
    rows: list[dict[str, Any]] = []
    for card in library.cards():
        row = {"name": card.name, "size": card.size, "trained_on": card.data["name"]}
        studies = card.data.get("studies", {}).get("train")
        row |= {"studies": studies, "fit": asdict(card.fit), "fit_told": not card.fit_note}
        learned = f"trained on {row['trained_on']}" if card.trained_here else f"imported from {row['trained_on']}"
        line = f"{card.name:32} {card.size:6} {learned}"
        line += "" if studies is None else f", {counted(studies, 'study', 'studies')}"
        if verify and card.name not in problems:
            try:
                row["largest_difference"] = library.verify(card.name)
                line += f"   verified, largest difference {row['largest_difference']:.1e}"
            except BundleError as error:
                problems[card.name] = str(error)
        rows.append(row)
        if not as_json:
            print_text(line + (f"\n  {card.fit_note}" if card.fit_note else f", images {card.fit}"))
    if as_json:
        print_result({"bundles": rows, "problems": problems}, as_json, str)
    for name, message in problems.items():
        warn(f"{name}: {message}")
    if not rows and not problems:
        warn(str(no_bundle(bundles)))
    if problems or not rows:
        raise typer.Exit(1)


def _finish_seeds(chosen: Sequence[Run], runs: Path, command: str, as_json: bool) -> None:
    """Of several seeds, Table 1 as mean and spread; with JSON, also the scores of each, in one document."""
    from core.paper.tables import to_dict, to_markdown, write_table
    from training.paper.tables import read_results, table_1

    if len(chosen) == 1 and not as_json:
        return
    results = [read_results(run.folder / "evaluate" / "results.json") for run in chosen]
    if len(chosen) == 1:
        print_result(results[0], as_json, str)
        return
    table = table_1(results, PAPER, command)
    path = write_table(runs / chosen[0].config.name / "tables", table)
    print_result({"seeds": results, "table": to_dict(table)}, as_json, lambda: to_markdown(table))
    console.note(f"written: {path}, and beside it .csv and .md")


def main() -> None:
    """Run; an error the user can mend is one line, not a traceback."""
    try:
        app()
    except (CXRLensError, OSError, ModuleNotFoundError) as error:
        message = _in_words(error)
        if message is None:
            raise
        if console.is_verbose():
            traceback.print_exc()
        warn(f"cxr-lens: {message}")
        sys.exit(2)


def _in_words(error: Exception) -> str | None:
    """What to tell the user; None for an error that only a programmer can mend."""
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        if name in ("core", "training", "dashboard"):
            return f"{error.name} is missing from this installation. {paths.how_to_restore(paths.CODE / name)}"
        return f"The package {name} is missing from this environment. Install all again: pip install cxr_lens-*.whl"
    if isinstance(error, OSError):
        if error.filename is None or error.strerror is None:
            return None
        path = Path(str(error.filename)).absolute()
        if isinstance(error, FileNotFoundError) and path.is_relative_to(paths.CODE):
            return f"{path} is missing from this installation. {paths.how_to_restore(path)}"
        if isinstance(error, FileNotFoundError):
            return f"{error.filename} is not there."
        where = "Name another place: see the options of this command with --help."
        return f"{error.filename}: {error.strerror}. {where}"
    return str(error)


if __name__ == "__main__":
    main()
