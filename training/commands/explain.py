"""The command ``cxr-lens explain-benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.paths import BUNDLES, RUNS
from training.console import print_result, resumable
from training.options import (
    AsJson,
    BundleNames,
    Bundles,
    Jobs,
    Overrides,
    Preset,
    Runs,
    Seed,
    read_preset,
)


def explain_benchmark(
    preset: Preset,
    overrides: Overrides = None,
    bundles: Bundles = BUNDLES,
    runs: Runs = RUNS,
    out: Annotated[Path | None, typer.Option(help="Folder of results.", show_default="<runs>/<preset>/explain")] = None,
    studies: Annotated[int, typer.Option(min=1, help="Held-out studies with a visible finding.")] = 40,
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
    estimate: Annotated[
        bool, typer.Option(help="Time each method on one study, print how long all of it takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score explanations by their faithfulness and by the true place, on a preset of phantoms.

    Interrupted, it goes on later.
    """
    config = read_preset(preset, overrides)
    from training.explain import benchmark
    from training.explain.summary import benchmark_markdown
    from training.launch import automatic_jobs
    from training.threads import use_threads_for

    use_threads_for(config.size)
    jobs = jobs or automatic_jobs()
    settings = benchmark.Settings(studies=studies, checked=checked, seed=seed)
    methods, names = method or [], bundle or []
    if estimate:
        seconds, total = benchmark.estimate(config, bundles, settings, methods=methods, names=names, jobs=jobs)
        lines = [f"{each:8.2f} s a study   {what}" for what, each in seconds.items()]
        lines.append(f"about {total / 60:.0f} minutes for {studies} studies with {jobs} processes")
        print_result({"seconds_a_study": seconds, "seconds": total}, as_json, lambda: "\n".join(lines))
        return
    folder = out or runs / config.name / "explain"
    with resumable():
        results = benchmark.explain_benchmark(
            config, bundles, folder, settings, methods=methods, names=names, jobs=jobs
        )
    print_result(results, as_json, lambda: benchmark_markdown(results))
