"""``cxr-lens paper``, ``table`` and ``study``: the paper's tables and its study of CCVE, ours beside the paper's."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from core.paper.tables import PaperTable, to_dict, to_markdown, write_table
from core.paths import BUNDLES, PAPER, RUNS, new_tables
from core.types import CXRLensError
from training.console import PRESETS, AsJson, Bundles, Jobs, Overrides, Preset, Runs, note, show, warn

if TYPE_CHECKING:
    from training.paper.ccve_study import StudyConfig
    from training.stages.run import Run

tables = typer.Typer(no_args_is_help=True, help="The paper's tables, ours beside the paper's numbers.")
studies = typer.Typer(no_args_is_help=True, help="Studies of what encoders know.")

Out = Annotated[Path, typer.Option(help="Folder of results; files go into <out>/<preset>/.")]
NewBundles = Annotated[Path | None, typer.Option(help="Where bundles go; default: beside the run's stages.")]
Most = Annotated[int, typer.Option("--studies", min=0, help="Of each split at most, the first; 0 is all.")]
RESULTS = new_tables()


@tables.command("1")
def table_1(
    preset: Preset = "phantom",
    results: Annotated[
        list[Path] | None,
        typer.Option(help="results.json of an evaluation; several are seeds. Default: the one beside the bundles."),
    ] = None,
    bundles: Bundles = BUNDLES,
    out: Out = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Reports of all pairs, with baselines, from an evaluation that is done (cxr-lens train, cxr-lens evaluate)."""
    from core.config import load_config
    from training.paper import tables as made

    family = preset if results or not Path(preset).is_file() else load_config(PRESETS, preset).name
    paths = results or [bundles / f"{family}-results.json"]
    command = again("table 1", preset, None) + "".join(f" --results {path}" for path in results or [])
    _finish(made.table_1([made.read_results(path) for path in paths], PAPER, command), out, as_json)


def _run(preset: str, overrides: list[str] | None, runs: Path) -> Run:
    from core.config import load_config

    config = load_config(PRESETS, preset, overrides or [])
    from training.runs import use_threads_for
    from training.stages.run import Run

    use_threads_for(config.size)
    return Run(config, runs / config.name)


def again(name: str, preset: str, overrides: list[str] | None, seeds: int = 1) -> str:
    """The command that was given, to stand beside its results."""
    changes = "".join(f" --set {shlex.quote(each)}" for each in overrides or [])
    return f"cxr-lens {name} --preset {shlex.quote(preset)}{changes}" + (f" --seeds {seeds}" if seeds > 1 else "")


def refuse_one_folder(bundles: Path | None, seeds: int) -> None:
    """Refuse --bundles for several seeds: their bundles have the same names."""
    if bundles and seeds > 1:
        raise CXRLensError("--bundles: several seeds keep theirs in their run folders. Leave it out, or train one.")


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C ends work that can go on with a word about how."""
    from core import ranks

    try:
        yield
    except KeyboardInterrupt:
        if ranks.is_first():
            warn("cxr-lens: interrupted; run the same command again to go on.")
        raise typer.Exit(130) from None


def _finish(table: PaperTable, out: Path, as_json: bool) -> None:
    _write(table, out)
    show(to_dict(table), as_json, lambda: to_markdown(table))


def _write(table: PaperTable, out: Path) -> None:
    note(f"written: {write_table(out, table)}, and beside it .csv and .md")


@tables.command("2")
def table_2(
    preset: Preset = "phantom",
    overrides: Overrides = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbone", help='timm\'s name of a row, or "cdc"; may come again. Default: all.'),
    ] = None,
    runs: Runs = RUNS,
    out: Out = RESULTS,
    jobs: Jobs = 1,
    as_json: AsJson = False,
) -> None:
    """Train seven image classifiers of the 14 observations; done ones are skipped, an interrupted one resumes."""
    from training.launch import automatic_jobs
    from training.paper import tables as made
    from training.stages.chain import side_by_side

    run = _run(preset, overrides, runs)
    names = backbone or made.rows_of_table_2(run.config)
    command = again("table 2", preset, overrides) + "".join(f" --backbone {name}" for name in backbone or [])
    with resumable():
        side_by_side(run, made.stages_of_table_2(names), jobs or automatic_jobs())
        _finish(made.table_2(run, names, PAPER, command), out, as_json)


@tables.command("3")
def table_3(
    preset: Preset = "phantom",
    overrides: Overrides = None,
    runs: Runs = RUNS,
    out: Out = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Train a Transformer that writes findings from the true fine labels, and score it on held-out studies."""
    from training.paper import tables as made

    with resumable():
        table = made.table_3(_run(preset, overrides, runs), PAPER, again("table 3", preset, overrides))
        _finish(table, out, as_json)


@studies.command("ccve")
def study_ccve(
    preset: Preset = "phantom",
    bundles: Bundles = BUNDLES,
    runs: Runs = RUNS,
    out: Out = RESULTS,
    components: Annotated[
        int | None, typer.Option(min=1, help="Of PCA; the paper has 2000 of 8320. Default: as --variance needs.")
    ] = None,
    variance: Annotated[float, typer.Option(help="Share of the variance that PCA keeps.")] = 0.7,
    most: Most = 1500,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """What CCVE's 13 embeddings know: PCA and CatBoost as in the paper, a linear probe, other encoders, controls."""
    from training.paper import ccve_study as study

    run = _run(preset, overrides, runs)
    command = again("study ccve", preset, overrides) + (f" --components {components}" if components else "")
    command += (f" --variance {variance:g}" if variance != 0.7 else "") + f" --studies {most}"
    settings = study.StudyConfig(components=components, variance=variance, studies=most)
    with resumable():
        _finish(_study_ccve(run, bundles, settings, command, out), out, as_json)


def _study_ccve(run: Run, bundles: Path, settings: StudyConfig, command: str, out: Path) -> PaperTable:
    from core.paper.filter_map import map_path, write_map
    from training.paper.ccve_study import ccve_study

    name, work = run.config.name, run.folder / "study_ccve"
    table, places = ccve_study(run.data, bundles, name, settings, work, PAPER, command)
    write_map(map_path(out, name), places)
    return table


@studies.command("encoders")
def study_encoders(
    preset: Preset = "phantom",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every pair, each with the next seed.")] = 3,
    runs: Runs = RUNS,
    out: Out = RESULTS,
    jobs: Jobs = 0,
    drifting: Annotated[
        Literal["both", "cve", "ccve", "none"],
        typer.Option(
            help="Which of CVE and CCVE to train also with batch norms that drift, as the published code's do."
        ),
    ] = "both",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Does the paper's order of encoders hold? Trains what is missing; done stages are skipped."""
    from training.launch import automatic_jobs
    from training.paper import encoder_study as study

    run = _run(preset, overrides, runs)
    command = again("study encoders", preset, overrides) + f" --seeds {seeds}"
    command += f" --drifting {drifting}" if drifting != "both" else ""
    names = {"both": study.DRIFTING, "none": ()}.get(drifting, (drifting,))
    with resumable():
        steady, drifted = study.train(run.config, seeds, runs, jobs or automatic_jobs(), names)
    _finish(study.table(run.config, run.data, steady, drifted, PAPER, command, names), out, as_json)


def paper(
    preset: Preset,
    overrides: Overrides = None,
    runs: Runs = RUNS,
    bundles: NewBundles = None,
    out: Out = RESULTS,
    jobs: Jobs = 0,
    seeds: Annotated[
        int, typer.Option(min=1, help="Trainings of all pairs, each with the next seed: Table 1 has mean and spread.")
    ] = 1,
    most: Annotated[
        int, typer.Option("--studies", min=0, help="Of each split at most, the first, for the study of CCVE; 0 is all.")
    ] = 1500,
    as_json: AsJson = False,
) -> None:
    """All that the paper has, for one preset: trained pairs, Tables 1, 2 and 3, and the study of CCVE.

    Stages that are done are skipped, an interrupted one resumes; tables are written as they are made.
    """
    from core.config import load_config

    config = load_config(PRESETS, preset, overrides or [])
    from core.registry import ENCODERS
    from training.launch import automatic_jobs
    from training.paper import tables as made
    from training.paper.ccve_study import StudyConfig
    from training.paper.chain import run_chain, runs_of
    from training.paper.probes import require_catboost
    from training.runs import say, use_threads_for
    from training.stages.chain import side_by_side
    from training.stages.label_text import label_text_decoder

    jobs = jobs or automatic_jobs()
    refuse_one_folder(bundles, seeds)
    lacking = [name for name in ENCODERS if name not in config.encoders]
    if not lacking:
        require_catboost()  # known now, not after hours of training
    command = again("paper", preset, overrides, seeds) + (f" --studies {most}" if most != 1500 else "")
    chosen = runs_of(config, seeds, runs)
    first, rows = chosen[0], made.rows_of_table_2(config)
    pairs = bundles or first.folder / "bundles"
    done: list[PaperTable] = []

    def tell(table: PaperTable) -> None:
        _write(table, out)
        done.append(table)
        if not as_json:  # which is one document, at the end
            show(None, as_json, lambda: to_markdown(table))

    with resumable():
        scores = [run_chain(run, bundles or run.folder / "bundles", jobs) for run in chosen]
        tell(made.table_1([made.read_results(each / "results.json") for each in scores], PAPER, command))
        use_threads_for(config.size)
        side_by_side(first, [*made.stages_of_table_2(rows), label_text_decoder], jobs)
        tell(made.table_2(first, rows, PAPER, command))
        tell(made.table_3(first, PAPER, command))
        if lacking:
            say(f"The study of CCVE compares all encoders; this run has none of {', '.join(lacking)}: left out.")
        else:
            tell(_study_ccve(first, pairs, StudyConfig(studies=most), command, out))
    if as_json:
        show([to_dict(table) for table in done], as_json, str)
    note(f"to see them: CXR_BUNDLES={pairs} CXR_TABLES={out} cxr-lens dashboard")
