"""The chain of a preset, from its first stage to its scores, for one seed or several."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.config import ExperimentConfig
from core.evaluation import write_labels
from training.evaluate import evaluate
from training.runs import use_threads_for
from training.stages import Run, run_all


def with_seeds(config: ExperimentConfig, count: int) -> list[ExperimentConfig]:
    """The configuration with its own seed, the next one, and so on."""
    return [replace(config, seed=config.seed + number) for number in range(count)]


def run_folder(runs: Path, config: ExperimentConfig, *, first: bool) -> Path:
    """Where a seed's stages are: the preset's folder for the first, folders in it for those that follow."""
    return runs / config.name if first else runs / config.name / f"seed-{config.seed}"


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
        evaluate(config, run.data, bundles, scores, jobs)
        # Reports stand beside their references, and those of patients stay with who has the data.
        for name in ("results.json", "reports.jsonl") if config.data.source == "phantom" else ("results.json",):
            shutil.copyfile(scores / name, bundles / f"{config.name}-{name}")
        if config.data.source == "phantom":
            write_labels(bundles / f"{config.name}-reports.jsonl")

    run_all(run, bundles, score, jobs)
    return scores


def evaluations(runs: Path, configs: Sequence[ExperimentConfig]) -> list[Path]:
    """The folder of each seed's evaluation."""
    return [run_folder(runs, config, first=place == 0) / "evaluate" for place, config in enumerate(configs)]
