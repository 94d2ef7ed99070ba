"""``cxr-lens paper``, ``table`` and ``study``: the paper's tables and its study of CCVE, ours beside the paper's."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from core.paper.tables import PaperTable, to_dict, to_markdown, write_table
from core.paths import BUNDLES, PAPER, RUNS, new_tables
from core.types import CXRLensError
from training.console import note, print_result, print_text, resumable
from training.options import (
    Accelerator,
    AsJson,
    Bundles,
    Device,
    Jobs,
    NewBundles,
    Overrides,
    Preset,
    Runs,
    Seeds,
    StudiesASplit,
    Tables,
    read_preset,
)

if TYPE_CHECKING:
    from training.paper.ccve_study import StudyConfig
    from training.stages.run import Run

tables = typer.Typer(no_args_is_help=True, help="The paper's tables, ours beside the paper's numbers.")
studies = typer.Typer(no_args_is_help=True, help="Studies of what encoders know.")

RESULTS = new_tables()
_EVALUATIONS = "results.json of an evaluation; several are seeds."


@tables.command("1")
def table_1(
    preset: Preset = "phantom",
    overrides: Overrides = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help=_EVALUATIONS, show_default="the one beside the bundles"),
    ] = None,
    bundles: Bundles = BUNDLES,
    out: Tables = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Reports of all pairs, with baselines, from an evaluation that is done (cxr-lens train, cxr-lens evaluate)."""
    config = read_preset(preset, overrides)
    from training.paper import tables as made

    paths = results or [bundles / f"{config.name}-results.json"]
    command = again("table 1", preset, overrides) + "".join(f" --results {path}" for path in results or [])
    _finish(made.table_1([made.read_results(path) for path in paths], PAPER, command), out, as_json)


@tables.command("seeds")
def table_seeds(
    results: Annotated[list[Path], typer.Option(help=_EVALUATIONS)],
    as_json: AsJson = False,
) -> None:
    """Macro F1 of each pair over several trainings, and how far it is above the nearest training report's."""
    from training.paper import seeds
    from training.paper import tables as made

    read = [made.read_results(path) for path in results]
    labels = seeds.read_labels(results)
    print_result(seeds.as_json(read, labels), as_json, lambda: seeds.as_table(read, labels))


def _run(preset: str, overrides: list[str] | None, runs: Path, accelerator: Literal["auto", "cpu", "gpu"]) -> Run:
    config = read_preset(preset, overrides)  # before torch comes, which takes seconds
    from training.launch import alone
    from training.stages.run import Run
    from training.threads import use_threads_for

    use_threads_for(config.size)
    return Run(config, runs / config.name, alone(accelerator))


def again(name: str, preset: str, overrides: list[str] | None, seeds: int = 1) -> str:
    """The command that was given, to stand beside its results."""
    changes = "".join(f" --set {shlex.quote(each)}" for each in overrides or [])
    return f"cxr-lens {name} --preset {shlex.quote(preset)}{changes}" + (f" --seeds {seeds}" if seeds > 1 else "")


def refuse_one_folder(folder: Path | None, seeds: int, option: str = "--bundles") -> None:
    """Refuse one folder for several seeds, whose files have the same names."""
    if folder and seeds > 1:
        raise CXRLensError(f"{option}: several seeds keep theirs in their run folders. Leave it out, or take one seed.")


def _finish(table: PaperTable, out: Path, as_json: bool) -> None:
    _write(table, out)
    print_result(to_dict(table), as_json, lambda: to_markdown(table))


def _write(table: PaperTable, out: Path) -> None:
    note(f"written: {write_table(out, table)}, and beside it .csv and .md")


@tables.command("2")
def table_2(
    preset: Preset = "phantom",
    overrides: Overrides = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbone", help='timm\'s name of a row, or "cdc"; may come again.', show_default="all"),
    ] = None,
    runs: Runs = RUNS,
    out: Tables = RESULTS,
    jobs: Jobs = 1,
    accelerator: Accelerator = "auto",
    as_json: AsJson = False,
) -> None:
    """Train seven image classifiers of the 14 observations; done ones are skipped, an interrupted one resumes."""
    run = _run(preset, overrides, runs, accelerator)
    from training.launch import automatic_jobs
    from training.paper import tables as made
    from training.stages.chain import side_by_side

    names = backbone or made.rows_of_table_2(run.config)
    command = again("table 2", preset, overrides) + "".join(f" --backbone {name}" for name in backbone or [])
    with resumable():
        side_by_side(run, made.stages_of_table_2(names), jobs or automatic_jobs(run.placement.device))
        _finish(made.table_2(run, names, PAPER, command), out, as_json)


@tables.command("3")
def table_3(
    preset: Preset = "phantom",
    overrides: Overrides = None,
    runs: Runs = RUNS,
    out: Tables = RESULTS,
    accelerator: Accelerator = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a Transformer that writes findings from the true fine labels, and score it on held-out studies."""
    run = _run(preset, overrides, runs, accelerator)
    from training.paper import tables as made

    with resumable():
        table = made.table_3(run, PAPER, again("table 3", preset, overrides))
        _finish(table, out, as_json)


@studies.command("ccve")
def study_ccve(
    preset: Preset = "phantom",
    bundles: Bundles = BUNDLES,
    runs: Runs = RUNS,
    out: Tables = RESULTS,
    components: Annotated[
        int | None, typer.Option(min=1, help="Of PCA; the paper has 2000 of 8320.", show_default="as --variance needs")
    ] = None,
    variance: Annotated[float, typer.Option(help="Share of the variance that PCA keeps.")] = 0.7,
    most: StudiesASplit = 1500,
    device: Device = "auto",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """What CCVE's 13 embeddings know: PCA and CatBoost as in the paper, a linear probe, other encoders, controls."""
    run = _run(preset, overrides, runs, "auto")
    from core.devices import open_device
    from training.paper import ccve_study as study

    command = again("study ccve", preset, overrides) + (f" --components {components}" if components else "")
    command += (f" --variance {variance:g}" if variance != 0.7 else "") + f" --studies {most}"
    settings = study.StudyConfig(components=components, variance=variance, studies=most)
    with resumable():
        _finish(_study_ccve(run, bundles, settings, command, out, str(open_device(device))), out, as_json)


def _study_ccve(run: Run, bundles: Path, settings: StudyConfig, command: str, out: Path, device: str) -> PaperTable:
    from core.paper.filter_map import map_path, write_map
    from training.paper.ccve_study import ccve_study

    name, work = run.config.name, run.folder / "study_ccve"
    table, coordinates = ccve_study(run.data, bundles, name, settings, work, PAPER, command, device)
    write_map(map_path(out, name), coordinates)
    return table


@studies.command("encoders")
def study_encoders(
    preset: Preset = "phantom",
    seeds: Seeds = 3,
    runs: Runs = RUNS,
    out: Tables = RESULTS,
    jobs: Jobs = 0,
    drifting: Annotated[
        Literal["both", "cve", "ccve", "none"],
        typer.Option(
            help="Which of CVE and CCVE to train also with batch norms that drift, as the published code's do."
        ),
    ] = "both",
    accelerator: Accelerator = "auto",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Does the paper's order of encoders hold? Trains what is missing; done stages are skipped."""
    run = _run(preset, overrides, runs, accelerator)
    from training.launch import automatic_jobs
    from training.paper import encoder_study as study

    command = again("study encoders", preset, overrides) + f" --seeds {seeds}"
    command += f" --drifting {drifting}" if drifting != "both" else ""
    names = {"both": study.DRIFTING, "none": ()}.get(drifting, (drifting,))
    with resumable():
        jobs = jobs or automatic_jobs(run.placement.device)
        steady, drifted = study.train(run.config, seeds, runs, jobs, names, run.placement)
    _finish(study.encoder_table(run.config, run.data, steady, drifted, PAPER, command, names), out, as_json)


@studies.command("filters")
def study_filters(
    preset: Preset = "phantom",
    design: Annotated[
        list[str] | None,
        typer.Option(
            "--design",
            help='Name of a design, or "bundles": what the bundles have; may come again.',
            show_default="all",
        ),
    ] = None,
    bundles: Bundles = BUNDLES,
    runs: Runs = RUNS,
    out: Tables = RESULTS,
    epochs: Annotated[int, typer.Option(min=1, help="Of a design that shows a pair one picture.")] = 4,
    most: StudiesASplit = 600,
    overrides: Overrides = None,
    accelerator: Accelerator = "auto",
    as_json: AsJson = False,
) -> None:
    """Under which training CCVE's filters filter: designs with equal budgets; done ones are skipped."""
    run = _run(preset, overrides, runs, accelerator)
    from training.paper.filter_study import BUNDLES, DESIGNS, FilterStudyConfig, filter_study

    command = again("study filters", preset, overrides) + "".join(f" --design {name}" for name in design or [])
    command += f" --epochs {epochs} --studies {most}"
    settings = FilterStudyConfig(epochs=epochs, studies=most)
    with resumable():
        _finish(filter_study(run, bundles, design or [BUNDLES, *DESIGNS], settings, command), out, as_json)


def paper(
    preset: Preset,
    overrides: Overrides = None,
    runs: Runs = RUNS,
    bundles: NewBundles = None,
    out: Tables = RESULTS,
    jobs: Jobs = 0,
    seeds: Seeds = 1,
    most: StudiesASplit = 1500,
    accelerator: Accelerator = "auto",
    as_json: AsJson = False,
) -> None:
    """All that the paper has, for one preset: trained pairs, Tables 1, 2 and 3, and the study of CCVE.

    Stages that are done are skipped, an interrupted one resumes; tables are written as they are made.
    """
    config = read_preset(preset, overrides)
    from core.registry import ENCODERS
    from training.launch import alone, automatic_jobs
    from training.paper import tables as made
    from training.paper.ccve_study import StudyConfig
    from training.paper.chain import run_chain, runs_of
    from training.paper.probes import require_catboost
    from training.stages.chain import side_by_side
    from training.stages.label_text import label_text_decoder
    from training.threads import use_threads_for

    placement = alone(accelerator)
    jobs = jobs or automatic_jobs(placement.device)
    refuse_one_folder(bundles, seeds)
    lacking = [name for name in ENCODERS if name not in config.encoders]
    if not lacking:
        require_catboost()  # known now, not after hours of training
    command = again("paper", preset, overrides, seeds) + (f" --studies {most}" if most != 1500 else "")
    chosen = runs_of(config, seeds, runs, placement)
    first, rows = chosen[0], made.rows_of_table_2(config)
    pairs = bundles or first.folder / "bundles"
    done: list[PaperTable] = []

    def tell(table: PaperTable) -> None:
        _write(table, out)
        done.append(table)
        if not as_json:  # which is one document, at the end
            print_text(to_markdown(table))

    with resumable():
        scores = [run_chain(run, bundles or run.folder / "bundles", jobs) for run in chosen]
        tell(made.table_1([made.read_results(each / "results.json") for each in scores], PAPER, command))
        use_threads_for(config.size)
        side_by_side(first, [*made.stages_of_table_2(rows), label_text_decoder], jobs)
        tell(made.table_2(first, rows, PAPER, command))
        tell(made.table_3(first, PAPER, command))
        if lacking:
            note(f"The study of CCVE compares all encoders; this run has none of {', '.join(lacking)}: left out.")
        else:
            tell(_study_ccve(first, pairs, StudyConfig(studies=most), command, out, str(placement.device)))
    if as_json:
        print_result([to_dict(table) for table in done], as_json, str)
    note(f"to see them: CXR_BUNDLES={pairs} CXR_TABLES={out} cxr-lens dashboard")
