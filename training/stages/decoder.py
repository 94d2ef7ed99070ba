"""Stage: a decoder, on the tokens of an encoder or of several, or together with its encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from core.config import identity
from core.decoders import decoder_class
from core.registry import DECODERS, ENCODERS, encoder_parts
from core.types import SPLITS
from training.fit import fit
from training.modules.report import ReportModule
from training.run_folder import Done, run_stage, save_weights
from training.stages.clip import LEARNING
from training.stages.encoders import drifting_encoder, train_encoder
from training.stages.models import encoder_identity, new_decoder, new_encoder, new_join, reads_cache
from training.stages.reports import finding_ids, report_loaders, with_images, with_tokens
from training.stages.run import Run
from training.stages.tokens import cache, tokens


def decoder(run: Run, encoder_name: str, decoder_name: str) -> Done:
    """Train a decoder on cached tokens, of one encoder or of several, or with its encoder where that learns too."""
    parts, settings = encoder_parts(encoder_name), run.config.report
    frozen, cached = all(ENCODERS[part].frozen for part in parts), reads_cache(run.config, encoder_name)
    train = tokens if cached else train_encoder
    before = {name: key for part in parts for name, key in train(run, part).items()} if frozen else None
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
        module = ReportModule(encoder, templates, written_by, run.data.vocabulary, seen, run.config.augment)
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
            gradient_clip=settings.gradient_clip,
            placement=run.placement,
        )
        save_weights(folder, {"decoder": written_by, **({"encoder": encoder} if encoder else {})})

    # What only other pairs use does not matter: changing it must not undo this stage.
    unused = {"epochs_direct", "image_learning_rate", "augment"} if frozen else {"epochs", "drifting_norms"}
    unused |= set() if DECODERS[decoder_name].sentences else {"abnormal_first"}
    used = identity(settings, unused | {"layers", "cls_token", "word_scale"})
    own = run.augmentation(settings.augment and not frozen) | ({} if frozen else encoder_identity(run, encoder_name))
    if architecture := decoder_class(decoder_name).arguments(run.config):
        own["architecture"] = architecture
    made_of = run.identity("decoder", after=before, report=used, encoder=encoder_name, decoder=decoder_name, **own)
    return run_stage(run.folder / f"{encoder_name}-{decoder_name}", made_of, work)
