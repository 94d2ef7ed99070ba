"""Encoders of bundles that are there, taken as they are (``encoders_from``): only decoders learn on them."""

from __future__ import annotations

from pathlib import Path

from core.bundles.card import Card, encoder_weights
from core.bundles.library import BundleLibrary
from core.encoders import Encoder
from core.registry import ENCODERS
from training.run_folder import Done, StageError
from training.stages.run import Run


def taken_card(run: Run, name: str, decoder_name: str) -> Card:
    """The card of the bundle that has an encoder: of the same pair where encoders learn with their decoder.

    Raises:
        StageError: there is none.
    """
    config = run.config
    for card in BundleLibrary(Path(config.encoders_from)).cards():
        alike = (card.family, card.size, card.encoder) == (config.name, config.size, name)
        if alike and (ENCODERS[name].frozen or card.decoder == decoder_name):
            return card
    pair = name if ENCODERS[name].frozen else f"{name} with {decoder_name}"
    raise StageError(
        f"encoders_from: {config.encoders_from} has no bundle of the preset {config.name}, size {config.size}, with "
        f"{pair}. Name a folder that has, or leave {name} out of encoders."
    )


def taken_encoder(run: Run, name: str, decoder_name: str) -> Encoder:
    """An encoder of a bundle, frozen.

    Raises:
        CXRLensError: there is none, or it is damaged.
    """
    card = taken_card(run, name, decoder_name)
    return BundleLibrary(Path(run.config.encoders_from)).load(card.name).encoder


def taken_done(run: Run, name: str, decoder_name: str) -> Done:
    """What the stages that stand on such an encoder stand on: its weights."""
    return {f"bundle_{name}": " ".join(encoder_weights(taken_card(run, name, decoder_name)))}
