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
    device: Device = "auto",
    precision: Precision = "fp32",
    estimate: Annotated[
        bool, typer.Option(help="Time each method on one study, print how long all of it takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score explanations by their faithfulness and by the true place, on a preset of phantoms.

    Interrupted, it goes on later. --precision is that of the reports; explanations always compute in fp32.
    """
    config = read_preset(preset, overrides)
    from core.devices import open_device
    from training.explain import benchmark
    from training.explain.summary import benchmark_markdown
    from training.launch import automatic_jobs
    from training.threads import use_threads_for

    use_threads_for(config.size)
    where = str(open_device(device))
    jobs = jobs or automatic_jobs(where)
    settings = benchmark.Settings(studies=studies, checked=checked, seed=seed, precision=precision)
    chosen: dict[str, Any] = {"methods": method or [], "names": bundle or [], "jobs": jobs, "device": where}
    if estimate:
        seconds, total = benchmark.estimate(config, bundles, settings, **chosen)
        lines = [f"{each:8.2f} s a study   {what}" for what, each in seconds.items()]
        lines.append(f"about {total / 60:.0f} minutes for {studies} studies with {jobs} processes")
        print_result({"seconds_a_study": seconds, "seconds": total}, as_json, lambda: "\n".join(lines))
        return
    folder = out or runs / config.name / "explain"
    with resumable():
        results = benchmark.explain_benchmark(config, bundles, folder, settings, **chosen)
    print_result(results, as_json, lambda: benchmark_markdown(results))
