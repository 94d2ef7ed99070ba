"""The command ``cxr-lens explain-benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from core.paths import BUNDLES, RUNS
from training.console import print_result, resumable
from training.options import (
    AsJson,
    BundleNames,
    Bundles,
    Device,
    Jobs,
    Overrides,
    Precision,
    Preset,
    Runs,
    Seed,
    read_preset,
)

PLURAL = {"study": "studies", "film": "films"}


def explain_benchmark(
    preset: Preset,
    overrides: Overrides = None,
    bundles: Bundles = BUNDLES,
    runs: Runs = RUNS,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of results.", show_default="<runs>/<preset>/explain, or explain-films with --films"),
    ] = None,
    films: Annotated[
        str | None,
        typer.Option(
            help="Score on real films instead: a source with boxes or masks, as the folder of an index, or 'example'.",
            show_default="the preset's phantoms",
        ),
    ] = None,
    studies: Annotated[
        int,
        typer.Option(min=0, help="Held-out studies with a visible finding; with --films, films with a box, 0: all."),
    ] = 40,
    checked: Annotated[
        int,
        typer.Option(
            min=0, help="Findings a pair and method that also get the costly checks: randomised model, noise."
        ),
    ] = 20,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="Name of a method; may come again.", show_default="all")
    ] = None,
    bundle: BundleNames = None,
    seed: Seed = 0,
    jobs: Jobs = 1,
    device: Device = "auto",
    precision: Precision = "fp32",
    estimate: Annotated[
        bool, typer.Option(help="Time each method on one study, print how long all of it takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score explanations: on phantoms by their faithfulness and the true place; on real films by the boxes drawn there.

    Interrupted, it goes on later. --precision is that of the reports; explanations always compute in fp32.
    """
    config = read_preset(preset, overrides)
    from functools import partial

    from core.devices import open_device
    from training.explain import benchmark
    from training.explain import films as on_films
    from training.explain.film_table import films_markdown
    from training.explain.summary import benchmark_markdown
    from training.launch import automatic_jobs
    from training.threads import use_threads_for

    use_threads_for(config.size)
    where = str(open_device(device))
    jobs = jobs or automatic_jobs(where)
    settings = benchmark.Settings(studies=studies, checked=checked, seed=seed, precision=precision)
    chosen: dict[str, Any] = {"methods": method or [], "names": bundle or [], "jobs": jobs, "device": where}
    if films is None:
        guess, run = partial(benchmark.estimate, config), partial(benchmark.explain_benchmark, config)
        table, folder, what = benchmark_markdown, "explain", "study"
    else:
        guess = partial(on_films.estimate, config.name, films)
        run = partial(on_films.score_films, config.name, films)
        table, folder, what = films_markdown, "explain-films", "film"
    if estimate:
        seconds, total = guess(bundles, settings, **chosen)
        lines = [f"{each:8.2f} s a {what}   {name}" for name, each in seconds.items()]
        lines.append(f"about {total / 60:.0f} minutes for {studies or 'all'} {PLURAL[what]} with {jobs} processes")
        print_result({f"seconds_a_{what}": seconds, "seconds": total}, as_json, lambda: "\n".join(lines))
        return
    with resumable():
        results = run(bundles, out or runs / config.name / folder, settings, **chosen)
    print_result(results, as_json, lambda: table(results))
