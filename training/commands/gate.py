"""``cxr-lens gate`` and ``cxr-lens study gate``: what tells unusual images from films, and how well it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.paths import BUNDLES, RUNS
from training.console import print_result
from training.options import AsJson, BundleNames, Bundles, Overrides, Preset, Runs, Seed, read_preset


def gate(
    preset: Preset = "phantom",
    overrides: Overrides = None,
    bundles: Bundles = BUNDLES,
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Learn what a preset's training films look like to its bundles, so that other images get a warning."""
    config = read_preset(preset, overrides)
    from core.bundles.library import BundleLibrary
    from training.evaluate import cards_of
    from training.stages.gate import write_gates_of
    from training.stages.run import Run
    from training.threads import use_threads_for

    use_threads_for(config.size)
    cards_of(config.name, bundles)
    path = write_gates_of(config.name, BundleLibrary(bundles), Run(config, runs / config.name).data, bundles)
    size = path.stat().st_size
    print_result({"file": path, "bytes": size}, as_json, lambda: f"written: {path}, {size / 1000:.0f} kB")


def study_gate(
    preset: Preset = "phantom",
    overrides: Overrides = None,
    bundle: BundleNames = None,
    bundles: Bundles = BUNDLES,
    runs: Runs = RUNS,
    films: Annotated[Path | None, typer.Option(help="Folder of chest films of another hospital.")] = None,
    each: Annotated[int, typer.Option(min=2, help="Images of each kind at most.")] = 200,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """How well a gate tells laterals, turned, inverted and mirrored films, noise and photographs from films."""
    config = read_preset(preset, overrides)
    from core.bundles.library import BundleLibrary
    from training.bench.gate import gate_markdown, gate_study
    from training.stages.run import Run
    from training.threads import use_threads_for

    use_threads_for(config.size)
    data = Run(config, runs / config.name).data
    found = gate_study(BundleLibrary(bundles), config.name, data, films, each, seed, bundle or ())
    print_result(found, as_json, lambda: gate_markdown(found))
