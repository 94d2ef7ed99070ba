"""The command ``cxr-lens explain-benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_ROOT = Path(__file__).resolve().parents[2]


def explain_benchmark(
    preset: Annotated[str, typer.Option(help="Name of a preset in training/presets; its studies must be phantoms.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a number of the preset.")
    ] = None,
    bundles: Annotated[Path, typer.Option(help="Folder of bundles.", envvar="CXR_BUNDLES")] = _ROOT
    / "assets"
    / "bundles",
    out: Annotated[Path | None, typer.Option(help="Results; default: runs/<preset>/explain.")] = None,
    studies: Annotated[int, typer.Option(min=1, help="Held-out studies with a visible finding.")] = 40,
    checked: Annotated[
        int,
        typer.Option(
            min=0, help="Findings a pair and method that also get the costly checks: randomised model, noise."
        ),
    ] = 20,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="Name of a method; may come again. Default: all.")
    ] = None,
    bundle: Annotated[
        list[str] | None, typer.Option("--bundle", help="Name of a bundle; may come again. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of methods, baselines and checks.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, a core each.")] = 1,
    estimate: Annotated[
        bool, typer.Option(help="Time each method on one study, print how long all of it takes.")
    ] = False,
) -> None:
    """Score explanations by their faithfulness and by the true place. Interrupted, it goes on later."""
    from core.config import load_config
    from training.explain import benchmark
    from training.explain.summary import table
    from training.runs import use_threads_for

    config = load_config(_ROOT / "training" / "presets", preset, overrides or [])
    use_threads_for(config.size)
    settings = benchmark.Settings(studies=studies, checked=checked, seed=seed)
    methods, names = method or [], bundle or []
    if estimate:
        seconds, total = benchmark.estimate(config, bundles, settings, methods=methods, names=names, jobs=jobs)
        for what, each in seconds.items():
            typer.echo(f"{each:8.2f} s a study   {what}")
        typer.echo(f"about {total / 60:.0f} minutes for {studies} studies with {jobs} processes")
        return
    folder = out or _ROOT / "runs" / config.name / "explain"
    try:
        results = benchmark.explain_benchmark(
            config, bundles, folder, settings, methods=methods, names=names, jobs=jobs
        )
    except KeyboardInterrupt:
        typer.echo("cxr-lens: interrupted; run the same command again to go on.", err=True)
        raise typer.Exit(130) from None
    typer.echo(table(results))
