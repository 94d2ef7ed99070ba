"""What tells unusual images from training films, learned from a family's bundles and studies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from core.bundles.gates import gate_file, gate_key, kept_gates, write_gates
from core.bundles.library import BundleLibrary
from core.bundles.pair import ReportModel, encode_batch
from core.gate.distance import Distance, Values
from core.gate.gate import COMPONENTS, flat, learn_gate, pooled, small_pictures
from core.registry import ENCODERS, encoder_parts
from core.types import Fit, Split
from training.console import has_no_bars, progress_bar
from training.data import StudyData, to_images
from training.stages.models import batches

VERSION = 1
"""Of what is learned here: raised, all gates are learned anew."""
PICTURES: dict[Split, int] = {"train": 1500, "validate": 600}
"""Ours: studies of each split at most whose small pictures are learned from, the first."""
ENCODED: dict[Split, int] = {"train": 300, "validate": 200}
"""Ours: those of them that each encoder reads; CCVE takes 13 passes for each."""


def write_gates_of(family: str, library: BundleLibrary, data: StudyData, out: Path) -> Path:
    """Learn what a family's training films look like to each of its encoders, and write it beside the bundles.

    Written after each encoder: interrupted, it goes on with the next. What is there of the same weights is kept.

    Raises:
        CXRLensError: too few studies, or encoders that give NaN.
    """
    path = gate_file(out, family)
    counts = {split: min(most, len(data.studies[split])) for split, most in PICTURES.items()}
    about = {"version": VERSION, "studies": counts, "fingerprint": data.fingerprint()}
    order = list(ENCODERS)  # the slowest last
    cards = [card for card in library.cards() if card.family == family]
    cards.sort(key=lambda card: order.index(encoder_parts(card.encoder)[0]))
    gates = kept_gates(path, about, {gate_key(card) for card in cards})
    pictures: dict[tuple[int, Fit], tuple[Distance, Values]] = {}
    with progress_bar("encoder", "  usual films", hidden=has_no_bars()) as tell:
        for done, card in enumerate(cards):
            tell(done, len(cards))
            if (key := gate_key(card)) in gates:
                continue
            model = library.load(card.name)
            size = model.image_size
            images = {split: data.images(split, size, model.fit)[:most] for split, most in PICTURES.items()}
            if (size, model.fit) not in pictures:
                small = {split: _pictures(each) for split, each in images.items()}
                learned = Distance.learn(flat(small["train"]), COMPONENTS[0])
                pictures[size, model.fit] = learned, small["validate"]
            picture, validation = pictures[size, model.fit]
            means = {split: mean_tokens(model, images[split][:most]) for split, most in ENCODED.items()}
            tokens = Distance.learn(means["train"], COMPONENTS[1])
            gates[key] = learn_gate(picture, tokens, (validation, means["validate"]))
            write_gates(path, gates, about)
        tell(len(cards), len(cards))
    return path


def mean_tokens(model: ReportModel, images: npt.NDArray[np.uint8]) -> Values:
    """Mean tokens (n, D) of images (n, H, H)."""
    return np.concatenate([pooled(encode_batch(model, batch).tokens) for batch in batches(images, 32)])


def _pictures(images: npt.NDArray[np.uint8]) -> Values:
    with torch.inference_mode():
        return np.concatenate([small_pictures(to_images(images[at : at + 256])) for at in range(0, len(images), 256)])
