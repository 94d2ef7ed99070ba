"""Stage: a decoder, on the tokens of an encoder or of several, or together with its encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from core.config import identity
from core.registry import DECODERS, ENCODERS, encoder_parts
from core.types import SPLITS, Split
from training.fit import fit
from training.modules.report import ReportModule
from training.run_folder import Done, run_stage, save_weights
from training.stages.clip import LEARNING
from training.stages.encoders import drifting_encoder, train_encoder
from training.stages.findings import FINDINGS, fit_findings
from training.stages.models import (
    decoder_arguments,
    encoder_identity,
    new_decoder,
    new_encoder,
    new_join,
    reads_cache,
)
from training.stages.reports import finding_ids, report_loaders, with_images, with_tokens
from training.stages.run import Run
from training.stages.tokens import cache, tokens


def decoder(run: Run, encoder_name: str, decoder_name: str) -> Done:
    """Train a decoder on cached tokens, of one encoder or of several, or with its encoder where that learns too."""
    parts, settings = encoder_parts(encoder_name), run.config.report
    cached = reads_cache(run.config, encoder_name)
    frozen = cached or all(ENCODERS[part].frozen for part in parts)
    train = tokens if cached else train_encoder
    before = {name: key for part in parts for name, key in train(run, part, decoder_name).items()} if frozen else None
    epochs = settings.epochs if frozen else settings.epochs_direct
    architecture, sentences = (
        decoder_arguments(run.config, encoder_name, decoder_name),
        DECODERS[decoder_name].sentences,
    )
    can_order = sentences or "findings_first" in architecture  # both know what there is before they write of it
    ordered = can_order and settings.abnormal_first

    def work(folder: Path) -> None:
        torch.manual_seed(run.config.seed)
        make = new_join if cached else drifting_encoder if frozen else new_encoder
        encoder = make(run, encoder_name)
        written_by = new_decoder(run, encoder_name, decoder_name)
        caches = {
            split: [cache(run, part, split, decoder_name) for part in parts] if cached else [] for split in SPLITS
        }
        templates = [each.template() for each in caches["train"]]
        # What an encoder would see once, it sees each time: unturned.
        seen = replace(settings, augment=settings.augment and not frozen)
        module = ReportModule(encoder, templates, written_by, run.data.vocabulary, seen, run.config.augment)
        ids = {split: finding_ids(run, split, sentences=sentences, ordered=ordered) for split in LEARNING}
        known: dict[Split, Tensor | None] = dict.fromkeys(LEARNING)
        if written_by.findings is not None:
            reading = fit_findings(run, written_by.findings, {split: caches[split][0] for split in LEARNING})
            (folder / FINDINGS).write_text(json.dumps(reading.found, indent=1) + "\n", encoding="utf-8")
            known["train"] = run.data.coarse_targets("train")  # validation is written of what is found
        train, validate = (
            with_tokens(caches[split], ids[split], known[split])
            if cached
            else with_images(run, split, encoder_name, ids[split])
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
            gradient_clip=settings.gradient_clip,
            placement=run.placement,
        )
        save_weights(folder, {"decoder": written_by, **({"encoder": encoder} if encoder else {})})

    # What only other pairs use does not matter: changing it must not undo this stage.
    unused = {"epochs_direct", "image_learning_rate", "augment"} if frozen else {"epochs", "drifting_norms"}
    unused |= set() if can_order else {"abnormal_first"}
    unused |= {"findings_first"}  # is part of the architecture
    unused |= set() if "findings_first" in architecture else {"findings_penalty"}
    used = identity(settings, unused | {"layers", "cls_token", "word_scale"})
    own = run.augmentation(settings.augment and not frozen) | ({} if frozen else encoder_identity(run, encoder_name))
    if architecture:
        own["architecture"] = architecture
    made_of = run.identity("decoder", after=before, report=used, encoder=encoder_name, decoder=decoder_name, **own)
    return run_stage(run.folder / f"{encoder_name}-{decoder_name}", made_of, work)
