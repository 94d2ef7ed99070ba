"""Stage: a decoder, on the tokens of an encoder or of several, or together with its encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from core.config import identity
from core.registry import DECODERS, ENCODERS, encoder_parts
from core.types import SPLITS
from training.modules.report import ReportModule
from training.runs import fit, run_stage, save_weights
from training.stages.clip import LEARNING
from training.stages.encoders import drifting_encoder, encoder_key
from training.stages.models import new_decoder, new_encoder, new_join, reads_cache
from training.stages.reports import finding_ids, report_loaders, with_images, with_tokens
from training.stages.run import Run
from training.stages.tokens import cache, tokens


def decoder(run: Run, encoder_name: str, decoder_name: str) -> str:
    """Train a decoder on cached tokens, of one encoder or of several, or with its encoder where that learns too."""
    parts, settings = encoder_parts(encoder_name), run.config.report
    frozen, cached = all(ENCODERS[part].frozen for part in parts), reads_cache(run.config, encoder_name)
    train = tokens if cached else encoder_key
    before = "+".join(train(run, part) for part in parts if frozen)
    epochs = settings.epochs if frozen else settings.epochs_direct

    def work(folder: Path) -> None:
        torch.manual_seed(run.config.seed)
        make = new_join if cached else drifting_encoder if frozen else new_encoder
        encoder = make(run, encoder_name)
        written_by = new_decoder(run, encoder_name, decoder_name)
        caches = {split: [cache(run, part, split) for part in parts] if cached else [] for split in SPLITS}
        templates = [each.template() for each in caches["train"]]
        # What an encoder would see once, it sees each time: unturned.
        seen = replace(settings, augment=settings.augment and not frozen)
        module = ReportModule(encoder, templates, written_by, run.data.vocabulary, seen)
        ids = {split: finding_ids(run, split, DECODERS[decoder_name].sentences) for split in LEARNING}
        train, validate = (
            with_tokens(caches[split], ids[split]) if cached else with_images(run, split, encoder_name, ids[split])
            for split in LEARNING
        )
        fit(
            folder,
            module,
            report_loaders(run, (train, validate), ids["train"]),
            epochs=epochs,
            monitor=f"val_{settings.monitor}",
            mode="max",
            patience=settings.patience,
            seed=run.config.seed,
            placement=run.placement,
        )
        save_weights(folder, {"decoder": written_by, **({"encoder": encoder} if encoder else {})})

    # What only the other kind uses does not matter: changing it must not undo this stage.
    direct_only = ("image_learning_rate", "augment") if frozen else ()
    used = {**identity(settings), "epochs": epochs, "epochs_direct": None, **dict.fromkeys(direct_only)}
    version: dict[str, Any] = {"version": 2} if len(parts) > 1 else {}  # 1: joining layers at the images' rate
    inputs = run.inputs(report=used, encoder=encoder_name, decoder=decoder_name, before=before, **version)
    return run_stage(run.folder / f"{encoder_name}-{decoder_name}", inputs, work)
