"""All stages of a run in their order, side by side where none needs another."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from core import ranks
from core.bundles.card import check_files, read_card
from core.config import to_dict
from core.processes import worker_pool
from core.registry import ENCODERS, encoder_parts
from core.types import SPLITS, CXRLensError
from training.console import QUIET
from training.identity import file_hash, stage_identity
from training.run_folder import run_stage
from training.stages.backbone import backbone
from training.stages.decoder import decoder
from training.stages.encoders import Stage, objective_of
from training.stages.export import export
from training.stages.models import frozen_parts, reads_cache
from training.stages.run import Run
from training.stages.tokens import tokens
from training.threads import keep_memory


def run_all(run: Run, bundles: Path, evaluate: Callable[[], None], jobs: int = 1) -> None:
    """The whole chain of a preset; what is done is skipped.

    Args:
        run: what to run.
        bundles: where bundles go.
        evaluate: scores them.
        jobs: stages that train side by side, a thread each. Small models on a CPU train faster so than one after
            another on all cores. 1 shows progress bars, more shows a line an epoch.
    """
    config = run.config
    frozen, taken = frozen_parts(config), bool(config.encoders_from)
    # The last rows of the registry take longest: they begin first.
    encoders = [] if taken else [stage for name in reversed(frozen) for stage in objective_of(name).stages(name)]
    if ranks.count() > 1:
        jobs = 1  # its processes share each stage
    if config.backbone.before != "none" and not taken:
        _ = run.before_data.source  # missed now, not after hours
    with ranks.first_alone():
        run.data.fingerprint()  # labels an index's reports, once
    if config.backbone.source != "none" and not taken:
        side_by_side(run, [backbone], jobs)
    for split in SPLITS:
        for size in {config.image_side(name) for name in (*frozen, *config.encoders)}:
            run.data.images(split, size)
    for size in {config.image_side(name) for name in frozen if not taken}:
        for data in run.taught.more:
            data.images("train", size)
    pairs = [
        (encoder, partial(decoder, encoder_name=encoder, decoder_name=each))
        for encoder in config.encoders
        for each in config.decoders
    ]
    direct = [pair for encoder, pair in pairs if not (taken or ENCODERS[encoder_parts(encoder)[0]].frozen)]
    others = [pair for _, pair in pairs if pair not in direct]
    cached = [partial(tokens, name=name) for name in frozen if reads_cache(config, name)]
    # Each after what it needs: a worker that is free takes the next, and at worst waits for a stage that runs.
    side_by_side(run, [*encoders, *direct, *cached, *others], jobs)

    trained = {name: key for _, pair in pairs for name, key in pair(run).items()}
    made_of = stage_identity(
        "export", name=config.name, bundles=str(bundles.resolve()), write=to_dict(config.write), after=trained
    )
    names = [f"{config.name}-{name}-{each}" for name in config.encoders for each in config.decoders]
    exported = run_stage(
        run.folder / "export",
        made_of,
        _by_first(lambda: export(run, bundles)),
        lambda _: _damaged(names, bundles),
    )
    cards = {path.parent.name: file_hash(path) for path in sorted(bundles.glob(f"{config.name}-*/card.json"))}
    made_of = stage_identity(
        "evaluate", studies=config.evaluate_studies, data=run.data.fingerprint(), after={**exported, **cards}
    )
    results = bundles / f"{config.name}-results.json"
    missing = f"{results} is missing"
    run_stage(run.folder / "evaluate", made_of, _by_first(evaluate), lambda _: "" if results.is_file() else missing)


def side_by_side(run: Run, stages: Sequence[Stage], jobs: int) -> None:
    """Run stages, each after those that it needs, ``jobs`` at a time; a stage alone has the threads of all jobs."""
    if jobs == 1:
        for stage in stages:
            stage(run)
        return
    threads = max(1, jobs // len(stages))
    with worker_pool(jobs) as pool:
        for each in as_completed([pool.submit(_one_stage, replace(run), stage, threads) for stage in stages]):
            each.result()


def _damaged(names: Sequence[str], bundles: Path) -> str:
    """What is missing or damaged of the bundles of these names, for `run_stage`."""
    try:
        for name in names:
            if not (bundles / name / "card.json").is_file():
                return f"{bundles / name} is missing"
            check_files(bundles / name)
            for shared in read_card(bundles / name).content["encoder"]["shared"]:
                check_files(bundles / "shared" / shared)
    except CXRLensError as error:
        return str(error)
    return ""


def _by_first(work: Callable[[], None]) -> Callable[[Path], None]:
    return lambda folder: work() if ranks.is_first() else None


def _one_stage(run: Run, stage: Stage, threads: int) -> None:
    torch.set_num_threads(threads)
    keep_memory()
    os.environ[QUIET] = "1"
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    stage(run)
