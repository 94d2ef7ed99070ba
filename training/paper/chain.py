"""The chain of a preset, from its first stage to its scores, for one seed or several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.config import ExperimentConfig
from core.evaluation.reports import write_labels
from core.files import write_whole
from training.evaluate import evaluate
from training.launch import ONE, Placement
from training.stages.chain import run_all
from training.stages.run import Run
from training.threads import use_threads_for


def runs_of(config: ExperimentConfig, seeds: int, runs: Path, placement: Placement = ONE) -> list[Run]:
    """A run for the preset's own seed, for the next one, and so on; all read the images of the first.

    Their stages are in the preset's folder, and in folders in it for seeds that follow.
    """
    folder = runs / config.name
    found = [Run(config, folder, placement, shared=folder)]
    for seed in range(config.seed + 1, config.seed + seeds):
        found.append(replace(found[0], config=replace(config, seed=seed), folder=folder / f"seed-{seed}"))
    return found


def run_chain(run: Run, bundles: Path, jobs: int = 1) -> Path:
    """Train, export and score; what is done is skipped.

    Args:
        run: what to run.
        bundles: where bundles go, with their scores beside them.
        jobs: stages, and pairs that are scored, side by side.

    Returns:
        The folder of the evaluation: results.json, table.md, reports.jsonl.
    """
    scores, config = run.folder / "evaluate", run.config

    def score() -> None:
        use_threads_for(config.size)
        evaluate(config, run.data, bundles, scores, jobs, device=str(run.placement.device))
        # Reports stand beside their references, and those of patients stay with who has the data.
        for name in ("results.json", "reports.jsonl") if config.data.source == "phantom" else ("results.json",):
            write_whole(bundles / f"{config.name}-{name}", (scores / name).read_bytes(), private=False)
        if config.data.source == "phantom":
            write_labels(bundles / f"{config.name}-reports.jsonl")

    run_all(run, bundles, score, jobs)
    return scores
